"""What the host does in a fit of native-cuda to full MNIST, in milliseconds.

    python benchmarks/host_time.py [--repeats 15] [--profile]

No GPU is needed: every launch is replaced by nothing. The data have the shapes of full MNIST:
the sizes of its ten classes, 45 problems of about 12,000 variables. What the host reads of the
device was recorded: how many problems end in which round (`ENDING`), and how large their working
sets are (`MEMBERS`), in a training of full MNIST by the same kernels on a CPU. Arrays on the
device are shapes with nothing in them, so only Python and NumPy on the host are timed, from the
labels to the model.

In it: samples grouped by class, problems stated, pixels recognised and made bytes, all of the
scheduler (set-up, rounds, results), gaps recomputed, the model merged. Its coefficients and
support vectors are put together while the device computes gaps, which takes it about as long: that
is told apart. Not in it, and counted instead: what CuPy does for each launch, copy and array (some
5 to 10 us each), and what travels. Nor what scikit-learn does before: it looks at all features for
NaN.
"""

from __future__ import annotations

import argparse
import cProfile
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from gpusvm.backends import native_cuda, one_vs_one, own_solver
from gpusvm.backends.base import FROM_NOTHING
from gpusvm.kernels import Kernel
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.problem import QP
from gpusvm.solver import cuda, cuda_gaps, cuda_rows
from gpusvm.solver.cuda_kernels import CHECK, FIELDS, FIGURES, FINISHED, RUN, Kernels
from gpusvm.solver.iterate import figures

CLASSES = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
"""Samples of each digit in MNIST."""

FEATURES = 784

ENDING = (0, 0, 0, 0, 0, 0, 0, 0, 4, 7, 4, 6, 5, 9, 4, 4, 2)
"""In each round, how many of the 45 problems are found finished: their gradients were computed the
round before."""

MEMBERS = (128, 384, 640, 891, 1096, 1215, 1273, 1307, 1319, 1324, 1327, 1328, 1328, 1329, 1329, 1329, 1329)
"""Of the mean working set in each round."""

MISSING = (642, 5306, 5177, 3870, 2435, 1324, 644, 390, 126, 45, 18, 12, 2, 1, 0, 0, 0)
"""Kernel rows that each round asks for."""

SUPPORT = 13_370
"""Support vectors of the whole machine; each problem has a tenth of its samples of them."""

BUDGET_MB = 40_000.0

LAUNCH_US = (5, 10)
"""What CuPy takes for a launch, a copy or an array."""


class Nothing:
    """An array on a device that is not there: a shape and a type. What it is given is lost."""

    def __init__(self, shape: Any, dtype: Any = np.float64) -> None:
        self.shape, self.dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
        self.ndim = len(self.shape)

    size = 0

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Nothing:
        keys = key if isinstance(key, tuple) else (key,)
        shape = []
        for k, length in enumerate(self.shape):
            taken = keys[k] if k < len(keys) else slice(None)
            if isinstance(taken, slice):
                shape.append(len(range(*taken.indices(length))))
            elif not isinstance(taken, int | np.integer):
                shape.append(len(taken))
        return Nothing(shape, self.dtype)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def copy(self, other: Any = None) -> Nothing:
        return Nothing(self.shape, self.dtype)

    __ge__ = __lt__ = __and__ = __sub__ = copy

    def reshape(self, *shape: int) -> Nothing:
        return self

    def astype(self, dtype: Any) -> Nothing:
        return Nothing(self.shape, dtype)

    def get(self) -> np.ndarray:
        return np.empty(self.shape, self.dtype)

    def set(self, array: np.ndarray) -> None:
        pass


class Counts:
    """What was asked of the device."""

    def __init__(self) -> None:
        self.launches, self.arrays, self.up, self.reads = Counter[str](), 0, 0, Counter[str]()
        self.up_bytes = self.read_bytes = 0

    def module(self) -> Any:
        """As ``cupy``: arrays with nothing in them."""

        def made(shape: Any, *rest: Any, dtype: Any = np.float64) -> Nothing:
            self.arrays += 1
            return Nothing(shape, rest[-1] if rest and isinstance(rest[-1], type) else dtype)

        def brought(array: Any, dtype: Any = None) -> Nothing:
            if isinstance(array, Nothing):
                return array
            self.up += 1
            self.up_bytes += array.nbytes
            return Nothing(array.shape, dtype or array.dtype)

        def stack(arrays: Any) -> Nothing:
            self.arrays += 1
            return Nothing((len(arrays), *arrays[0].shape), arrays[0].dtype)

        return SimpleNamespace(
            asarray=brought,
            array=brought,
            stack=stack,
            arange=made,
            where=lambda mask, *others: mask.copy(),
            cuda=SimpleNamespace(Event=lambda **options: SimpleNamespace(record=int, synchronize=int)),
            **dict.fromkeys(("empty", "zeros", "ones", "full"), made),
        )

    def raw_module(self, code: str, options: Any) -> Any:
        """As ``cupy.RawModule``."""

        def get_function(name: str) -> Callable[..., None]:
            def launch(*arguments: Any, **more: Any) -> None:
                self.launches[name] += 1

            return launch

        return SimpleNamespace(get_function=get_function)


class Rows:
    """As `DeviceRows`, of bytes over 255."""

    def __init__(self, counts: Counts, dtype: Any) -> None:
        self.counts, self.dtype, self.nbytes = counts, np.dtype(dtype), 60_000 * FEATURES
        self.largest_value, self.fits_float32 = 1.0, True
        self.value_error = 4.0 * float(np.finfo(dtype).eps) / 2
        self.work = FEATURES

    def compute(self, samples: Any, slots: Any, out: Any, columns: Any) -> None:
        if len(samples):
            self.counts.launches["rows"] += 1


class Recording:
    """What the host reads in a training: a report each round, and solutions."""

    def __init__(self, problems: list[QP], rng: np.random.Generator) -> None:
        count = len(problems)
        assert sum(ENDING) == count, (ENDING, count)
        allowed = [Stopping().iterations_allowed(problem.n) for problem in problems]
        ends = np.repeat(np.arange(len(ENDING)), ENDING)
        rng.shuffle(ends)
        self.reports, self.round = np.zeros((len(ENDING), count + 1, FIELDS)), 0
        for k, report in enumerate(self.reports):
            lines, size = report[:-1], MEMBERS[k]
            lines[:, 0], lines[:, 1] = 10.0 / (k + 1), 78.0 * min(1.0, (k + 1) / 8)
            lines[:, 2], lines[:, 3] = size, size - MEMBERS[k - 1] if k else size
            lines[:, 4] = np.where(k < ends - 1, RUN, np.where(k < ends, CHECK, FINISHED))
            lines[:, 5], lines[:, 6] = np.array(allowed) - 180 * k, 0.7 * size
            lines[lines[:, 4] == FINISHED, 0] = 1e-3
            report[-1, :2] = MISSING[k], sum(MISSING[: k + 1])
        n = max(problem.n for problem in problems)
        self.lines = np.zeros((count, FIGURES + n))
        pools = [rng.permutation(size)[: SUPPORT * size // sum(CLASSES)] for size in CLASSES]
        for line, problem in zip(self.lines, problems, strict=True):
            first, second = problem.blocks
            b, v = solution(problem, np.concatenate([pools[first], CLASSES[first] + pools[second]]), rng)
            line[:FIGURES] = figures(b, v, problem.p, problem.lower, problem.upper)
            line[FIGURES : FIGURES + problem.n] = b

    def read(self, array: Nothing) -> np.ndarray:
        """What is read of an array: a report, solutions, their figures, a number to wait for."""
        if array.shape == (len(self.lines) + 1, FIELDS):
            self.round += 1
            return self.reports[self.round - 1]
        if array.nbytes <= 8:
            return np.zeros(array.shape)
        before, now = self.reports[self.round - 2, :-1, 4], self.reports[self.round - 1, :-1, 4]
        done = slice(None) if array.shape[1] == FIGURES else (now == FINISHED) & (before != FINISHED)
        return self.lines[done, : array.shape[1]]


def solution(problem: QP, pool: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A solution of the problem's form, and its gradient.

    A tenth of its variables, all of `pool`, are support vectors.
    """
    n, signs = problem.n, np.sign(problem.p)
    support = np.sort(rng.permutation(pool)[: n // 10])
    b, v = np.zeros(n), -signs * rng.exponential(size=n)
    b[support] = (signs * rng.uniform(0.1, 2.5, n))[support]
    b[support[::50]] = 10.0 * signs[support[::50]]
    v[support] = 1e-4 * rng.normal(size=len(support))
    v[support[::50]] = 1e-3 * signs[support[::50]]
    return b, v


class RecordedDevice(cuda.Device):
    """A device that is not there, of which is read what was recorded."""

    def to_device(self, array: np.ndarray) -> Nothing:
        found: Nothing = self.xp.asarray(array)
        return found

    def to_host(self, array: Any) -> np.ndarray:
        counts, recording = self.kernels.counts, self.kernels.recording  # type: ignore[attr-defined]
        found = recording.read(array)
        counts.reads["report" if found.shape[-1] == FIELDS else "others"] += 1
        counts.read_bytes += found.nbytes
        return found


class Phases:
    """Seconds of each phase, without those that are phases of their own."""

    def __init__(self) -> None:
        self.seconds, self._open, self._since = Counter[str](), list[str](), 0.0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, owner: Any, method: str, name: str) -> Any:
        """A patch that makes a phase of a method, or of all that it yields."""
        original = getattr(owner, method)

        def run(*arguments: Any, **more: Any) -> Any:
            with self.of(name):
                found = original(*arguments, **more)
                return list(found) if isinstance(found, Iterator) else found

        return patch.object(owner, method, run)


MEANWHILE = "coefficients and support vectors, while the device computes gaps"

PHASES = {
    "samples by class": ((own_solver, "group_by_class"),),
    "problems stated": ((own_solver, "pair_problems"),),
    "pixels recognised": ((cuda_rows, "pixels_of"),),
    "problems brought": ((cuda._Group, "place"),),
    "first sets": ((cuda._Group, "place_first_sets"),),
    "rounds": ((cuda._Group, "select"), (cuda._Group, "take_steps"), (cuda._Group, "ended")),
    "solutions": ((cuda._Group, "results"),),
    "gaps recomputed": ((cuda_gaps, "recomputed_gaps"),),
    MEANWHILE: ((own_solver, "layout_of"),),
    "the model": ((own_solver, "merge"),),
}
"""What of a fit is a phase by itself: functions and methods."""

ASKED = Problem(Kernel("rbf", gamma=0.02), C=10.0), Stopping(), Resources(cache_size=BUDGET_MB)


def pixels(rng: np.random.Generator) -> np.ndarray:
    """(n, 784) float32: as many as MNIST has, four fifths of them black."""
    drawn = rng.integers(0, 256, (1000, FEATURES)) * (rng.random((1000, FEATURES)) < 0.2)
    return np.resize(drawn.astype(np.float32) / np.float32(255), (sum(CLASSES), FEATURES))


class PageLocked:
    """As ``cupyx.empty_pinned``: CuPy keeps such memory for the next fit."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.given = 0

    def empty_pinned(self, shape: tuple[int, int], dtype: Any) -> np.ndarray:
        if self.given == len(self.kept):
            self.kept.append(np.zeros(shape, dtype))
        self.given += 1
        return self.kept[self.given - 1]


PAGE_LOCKED = PageLocked()


def fit(recording: Recording, X: np.ndarray, y: np.ndarray, phases: Phases, counts: Counts) -> Any:
    """What native-cuda's fit does on the host."""
    kernels, cupy = Kernels(counts.raw_module), counts.module()
    kernels.counts, kernels.recording = counts, recording  # type: ignore[attr-defined]
    device = RecordedDevice(cupy, kernels, lambda *of, **known: Rows(counts, of[-1]))
    recording.round = PAGE_LOCKED.given = 0
    with (
        patch.object(native_cuda, "solver_device", lambda: device),
        patch.dict(sys.modules, cupy=cupy, cupyx=PAGE_LOCKED),
        phases.of("the rest"),
    ):
        model = native_cuda.NativeCudaBackend().train(
            X, y, *ASKED,
            sample_weight=None, progress=None, resume=FROM_NOTHING,
        )  # fmt: skip
    assert model.converged.all() and recording.round == len(ENDING), "not what was recorded"
    return model


def labels(rng: np.random.Generator) -> np.ndarray:
    y = np.repeat(np.arange(len(CLASSES)), CLASSES)
    rng.shuffle(y)
    return y


def recorded(y: np.ndarray, rng: np.random.Generator) -> Recording:
    """A recording for these labels."""
    data = one_vs_one.group_by_class(Nothing((len(y), FEATURES), np.float32), y, ASKED[0])
    return Recording(own_solver.pair_problems(data, ASKED[0]), rng)


def measure(repeats: int) -> tuple[list[Counter[str]], Counts]:
    """The seconds of the phases in each of `repeats` fits, and what a fit asked of the device.

    One fit before them, to warm up, does not count.
    """
    rng = np.random.default_rng(0)
    X, y = pixels(rng), labels(rng)
    recording, found = recorded(y, rng), []
    for _ in range(repeats + 1):
        phases, counts = Phases(), Counts()
        patches = [phases.timed(*where, name) for name, parts in PHASES.items() for where in parts]
        for each in patches:
            each.start()
        try:
            fit(recording, X, y, phases, counts)
        finally:
            for each in patches:
                each.stop()
        found.append(phases.seconds)
    return found[1:], counts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="where the time goes, function by function")
    asked = parser.parse_args(arguments)
    if asked.profile:
        rng = np.random.default_rng(0)
        X, y = pixels(rng), labels(rng)
        recording = recorded(y, rng)
        fit(recording, X, y, Phases(), Counts())
        with cProfile.Profile() as profile:
            fit(recording, X, y, Phases(), Counts())
        profile.print_stats("tottime")
        return
    found, counts = measure(asked.repeats)
    for name in found[0]:
        times = [1e3 * each[name] for each in found]
        print(f"{line(times)}  {name}")
    print(f"{line([1e3 * (sum(each.values()) - each[MEANWHILE]) for each in found])}  in all, but for that")
    print(f"{line([1e3 * sum(each.values()) for each in found])}  in all, of {len(found)} fits")
    launches, reads = sum(counts.launches.values()), sum(counts.reads.values())
    low, high = (us * (launches + reads + counts.arrays + counts.up) / 1e3 for us in LAUNCH_US)
    print(
        f"not in it: {launches} launches in {len(ENDING)} rounds, {counts.arrays} arrays, {counts.up} copies to the "
        f"device ({counts.up_bytes / 1e6:.1f} MB), {reads} from it ({counts.read_bytes / 1e6:.1f} MB); "
        f"at {LAUNCH_US[0]} to {LAUNCH_US[1]} us each {low:.1f} to {high:.1f} ms"
    )


def line(times: list[float]) -> str:
    return f"{statistics.median(times):7.2f} ms ({min(times):.2f} to {max(times):.2f})"


if __name__ == "__main__":
    main(sys.argv[1:])

"""Our own solver on a CUDA GPU: `gpusvm.solver.cuda` behind the two verbs of a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusvm.backends.base import FROM_NOTHING, Availability, Progress, Resume
from gpusvm.backends.one_vs_one import judged
from gpusvm.backends.own_solver import OwnSolverBackend, Work
from gpusvm.device import gpu_failures, is_interrupt, one_line, probe_cuda, to_device, training_on_gpu
from gpusvm.errors import TrainingError
from gpusvm.jobs import effective_jobs
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel
from gpusvm.packages import package_versions
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.sparse import is_sparse

if TYPE_CHECKING:
    from gpusvm.solver.cuda import Device
    from gpusvm.solver.path import Chain, Solved

ADVICE = "gpusvm info shows whether it still works, --backend native-cpu trains without it"


class NativeCudaBackend(OwnSolverBackend):
    """All class pairs in lockstep, one thread block each; see docs/solver.md."""

    name = "native-cuda"
    runs = "gpusvm's own solver on a CUDA GPU"
    on_cpu = False

    def probe(self) -> Availability:
        device = probe_cuda()
        if not device.ok:
            return device
        wrong = _what_is_wrong()
        return Availability(False, f"{device.reason}, but {wrong}", detail=device.detail) if wrong else device

    def fit(
        self,
        X: Any,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
        resume: Resume = FROM_NOTHING,
    ) -> SVMModel:
        with gpu_failures(ADVICE), training_on_gpu(resources.device) as pool:
            model = self.train(
                X, y, problem, stopping, resources,
                sample_weight=sample_weight, progress=progress, resume=resume,
            )  # fmt: skip
            model.provenance["peak_gpu_mb"] = round(pool.total_bytes() / 2**20)
            return model

    def solve(self, work: Work) -> dict[str, Any]:
        budget_mb = work.resources.cache_size or default_cache_mb(free_mb())
        with _told_of_memory():
            _solve(work, budget_mb)
        return {"backend": self.name, **package_versions(("cupy",)), "cache_mb": round(budget_mb)}

    def solve_chains(
        self,
        X: Any,
        blocks: Sequence[np.ndarray],
        chains: Sequence[Chain],
        stopping: Stopping,
        resources: Resources,
        report: Callable[[int, Solved], None],
        look: Callable[[], None],
    ) -> None:
        from gpusvm.solver.cuda_path import solve_chains_on_device
        from gpusvm.solver.cuda_rows import TrainingSamples

        with gpu_failures(ADVICE), training_on_gpu(resources.device), _told_of_memory():
            device, budget_mb = solver_device(), resources.cache_size or default_cache_mb(free_mb())
            samples = TrainingSamples(X, chains[0].kernel, device.rows, device.xp, _n_threads(resources))
            solve_chains_on_device(
                samples.X, blocks, chains, stopping, device=replace(device, rows=samples.rows), budget_mb=budget_mb,
                report=report, look=look,
            )  # fmt: skip

    def pair_decisions(self, model: SVMModel, X: Any, resources: Resources) -> np.ndarray:
        found = model.pair_decisions(X if is_sparse(X) else to_device(X), n_jobs=resources.n_jobs)
        return solver_device().to_host(found)


MOST_THREADS = 4
"""Threads that make bytes of samples: as many as memory is read faster by."""


def _n_threads(resources: Resources) -> int:
    return min(effective_jobs(resources.n_jobs), MOST_THREADS)


@contextmanager
def _told_of_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise TrainingError(
            f"not enough memory on the GPU to train: {one_line(error)}; raise cache_size, free memory on "
            "the device, or train with --backend native-cpu"
        ) from error


def _solve(work: Work, budget_mb: float) -> None:
    """Solve what there is to do; then recompute each gap once, in float64 on the device."""
    from gpusvm.solver.cuda import solve_in_lockstep
    from gpusvm.solver.cuda_gaps import recomputed_gaps
    from gpusvm.solver.cuda_rows import TrainingSamples

    device = solver_device()
    samples = TrainingSamples(work.X, work.kernel, device.rows, device.xp, _n_threads(work.resources))
    problems, keep = work.begin()
    if problems:
        solve_in_lockstep(
            samples.X, work.blocks, problems, work.kernel, work.stopping,
            device=replace(device, rows=samples.rows), budget_mb=budget_mb, progress=keep,
        )  # fmt: skip
    solutions = work.solutions()
    rows = samples.rows(samples.X, work.kernel, np.float64)
    coefficients = [solution.b for solution in solutions]
    gaps = recomputed_gaps(work.blocks, work.problems, coefficients, rows, device, budget_mb, work.meanwhile)
    for place, (solution, gap) in enumerate(zip(solutions, gaps.tolist(), strict=True)):
        work.solved[place] = judged(solution, gap, work.stopping, tells_the_end=True)


@cache
def _what_is_wrong() -> str:
    """Why the solver's kernels do not run on the current device; empty where they do.

    Asked once in a process. Never raises.
    """
    try:
        with training_on_gpu(None):
            _launch_a_kernel()
    except Exception as error:
        if is_interrupt(error):
            raise
        return f"its kernels do not run there: {one_line(error)}"
    return ""


def _launch_a_kernel() -> None:
    """Compile what training uses, launch a kernel and check what it wrote.

    Raises whatever CuPy raises, or ArithmeticError for a wrong result.
    """
    import cupy

    values = cupy.asarray(np.arange(40, dtype=np.float32))
    solver_device().kernels.twice(values)
    if not np.array_equal(values.get(), 2.0 * np.arange(40)):
        raise ArithmeticError("a kernel that doubles 40 numbers wrote others")


def free_mb() -> float:
    """The current CUDA device's free memory in MB, with what CuPy's default pool keeps."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.cuda.runtime.memGetInfo()[0] / 2**20


@cache
def solver_device() -> Device:
    """CuPy, and the kernels compiled by it for the current device."""
    import cupy

    from gpusvm.solver.cuda import Device
    from gpusvm.solver.cuda_kernels import Kernels
    from gpusvm.solver.cuda_rows import DeviceRows

    major, minor = divmod(int(cupy.cuda.Device().compute_capability), 10)
    rows = partial(DeviceRows, raw_module=cupy.RawModule, xp=cupy, capability=(major, minor))
    return Device(cupy, Kernels(cupy.RawModule), rows, out_of_memory=(MemoryError, cupy.cuda.memory.OutOfMemoryError))


backend = NativeCudaBackend()

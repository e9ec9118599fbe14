"""What each kernel of native-cuda takes by itself, at full MNIST's shapes, beside the estimates.

    python benchmarks/gpu_micro.py [--samples 60000] [--features 784] [--classes 10] [--rows 2048]
    [--members 1536]

Samples are random bytes: no data set is needed. Each launch is repeated after a warm-up, the
device waited for before the first and after the last; the median of `REPEATS` such times counts.
The estimates are those of an audit that had no GPU (docs/gpu.md), for an H100; a smaller card
takes fewer --rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.cuda import Device
from gpusvm.solver.cuda_kernels import RUN

REPEATS, WARM_UP = 7, 2

ALL_ROWS = 20_000
"""Kernel rows that full MNIST takes."""

STEPS = 2_000
"""Of SMO, that a launch takes at most."""


class Shape(NamedTuple):
    """Of the data: `classes` of equal size, and as many problems as there are pairs of them."""

    samples: int = 60_000
    features: int = 784
    classes: int = 10
    rows: int = 2_048
    members: int = 1_536
    joining: int = 256

    @property
    def variables(self) -> int:
        return 2 * (self.samples // self.classes)


class Measured(NamedTuple):
    """What was timed, its seconds, what that comes to, and what was estimated of that."""

    name: str
    seconds: float
    found: str
    estimate: str


def timed(launch: Callable[[], Any], before: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Seconds of a launch, the median of some; `before` is done before each and not counted."""
    found = []
    for _ in range(WARM_UP + REPEATS):
        before()
        wait()
        start = time.perf_counter()
        launch()
        wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found[WARM_UP:])


def nothing() -> None:
    pass


class State:
    """The arrays of problems in the middle of a training, with values drawn at random."""

    def __init__(self, device: Device, shape: Shape) -> None:
        self.device, self.shape, self.xp = device, shape, device.xp
        xp, rng = self.xp, np.random.default_rng(0)
        each = shape.samples // shape.classes
        starts = [np.arange(c * each, (c + 1) * each, dtype=np.int32) for c in range(shape.classes)]
        member = np.stack([np.concatenate([starts[i], starts[j]]) for i, j in combinations(range(shape.classes), 2)])
        self.count, self.n = member.shape
        self.q = min(shape.members, self.n)
        self.new = min(shape.joining, self.q)
        chosen = np.stack([np.sort(rng.permutation(self.n)[: self.q]) for _ in range(self.count)]).astype(np.int32)
        signs = np.repeat([1.0, -1.0], each)
        self.member, self.members = xp.asarray(member), xp.asarray(chosen)
        self.sizes, self.n_members = self.numbers(self.n), self.numbers(self.q)
        self.live, self.action = xp.arange(self.count, dtype=np.int32), self.numbers(RUN)
        self.v = xp.asarray(rng.normal(size=(self.count, self.n)))
        self.lower = xp.asarray(np.tile(np.minimum(10.0 * signs, 0.0), (self.count, 1)))
        self.upper = xp.asarray(np.tile(np.maximum(10.0 * signs, 0.0), (self.count, 1)))
        self.b, self.epsilon = xp.zeros((self.count, self.n)), xp.zeros(self.count)
        self.support, self.n_support = xp.zeros((self.count, self.n), dtype=np.int32), self.numbers(0)
        self.rows = xp.asarray(rng.random((shape.rows, shape.samples), dtype=np.float32))
        self.slot_of = xp.asarray((np.arange(shape.samples) % shape.rows).astype(np.int32))
        self.K = xp.zeros((self.count, self.q, self.q), dtype=np.float32)

    def numbers(self, value: int, dtype: Any = np.int32) -> Any:
        return self.xp.full(self.count, value, dtype=dtype)


def rows(state: State, wait: Callable[[], Any]) -> Iterator[Measured]:
    """Kernel rows of bytes, many and few, and of float32."""
    shape, xp = state.shape, state.xp
    pixels = np.random.default_rng(1).integers(0, 256, size=(shape.samples, shape.features), dtype=np.uint8)
    kernel = Kernel("rbf", gamma=0.02 / 255**2)
    slots = xp.arange(shape.rows, dtype=np.int32)
    of_pixels = state.device.rows(pixels, kernel, np.dtype(np.float32))
    many = timed(lambda: of_pixels.compute(slots, slots, state.rows), nothing, wait)
    yield Measured("rows of bytes", many, in_all(many, shape), "4 to 5 ms")
    few = timed(lambda: of_pixels.compute(slots[:16], slots[:16], state.rows), nothing, wait)
    yield Measured("16 rows of bytes", few, f"{1e6 * few:.0f} us a launch", "10 to 30 us")
    reals = pixels.astype(np.float32) + np.float32(0.25)
    of_reals = state.device.rows(reals, kernel, np.dtype(np.float32))
    seconds = timed(lambda: of_reals.compute(slots, slots, state.rows), nothing, wait)
    yield Measured(
        f"rows by {of_reals.products}", seconds, in_all(seconds, shape), "float32 35 to 50, TF32 15 to 25 ms"
    )


def in_all(seconds: float, shape: Shape) -> str:
    return f"{1e3 * seconds * ALL_ROWS / shape.rows:.1f} ms for {ALL_ROWS:,} rows"


def smo(state: State, wait: Callable[[], Any]) -> Iterator[Measured]:
    """Steps of SMO on kernel values of random points, all problems side by side."""
    xp, count = state.xp, state.count
    points = np.random.default_rng(2).normal(size=(state.q, 8))
    values = Kernel("rbf", gamma=0.1)(points, points).astype(np.float32)
    for problem in range(count):
        state.K[problem] = xp.asarray(values)
    change, bounds = xp.zeros((count, state.q)), xp.empty((count, 2, state.q))
    left, moved, status = (state.numbers(0, np.int64), state.numbers(0, np.int64), state.numbers(0))
    b, target = xp.zeros_like(state.b), xp.full(count, 1e-9)

    def again() -> None:
        b[:], left[:], moved[:] = 0.0, STEPS, 0

    def launch() -> None:
        state.device.kernels.smo(
            state.live, state.action, state.K, state.members, state.n_members, state.lower, state.upper, state.epsilon,
            state.v, target, STEPS, b, change, bounds, left, moved, status,
        )  # fmt: skip

    seconds = timed(launch, again, wait)
    steps = int(state.device.to_host(moved).max())
    found = f"{1e6 * seconds / max(1, steps):.2f} us a step of {count} problems of {state.q:,} members"
    yield Measured("smo", seconds, found, "1.2 to 1.8 us")


def select(state: State, wait: Callable[[], Any]) -> Iterator[Measured]:
    """The worst violators join the sets: extremes, keys, their digits."""
    xp, count, width = state.xp, state.count, 2 * state.q
    is_member = xp.zeros((count, state.n), dtype=np.uint8)
    members, old, growing, status = xp.zeros((count, width), dtype=np.int32), *(state.numbers(0) for _ in range(3))
    n_members, action, keys = state.numbers(0), state.numbers(RUN), xp.zeros((count, state.n), dtype=np.uint64)
    target, gaps, norms = (xp.zeros(count) for _ in range(3))
    left, moved = state.numbers(10**6, np.int64), state.numbers(1, np.int64)

    def again() -> None:
        is_member[:], n_members[:], growing[:], action[:], moved[:] = 0, 0, 1, RUN, 1

    def launch() -> None:
        state.device.kernels.select(
            state.live, state.sizes, state.v, state.lower, state.upper, state.epsilon, state.b, state.v, is_member,
            members, n_members, old, growing, action, target, gaps, norms, status, left, moved, state.support,
            state.n_support, keys, largest=width, tol=1e-3, largest_value=1.0,
        )  # fmt: skip

    seconds = timed(launch, again, wait)
    taken = int(state.device.to_host(n_members).min())
    yield Measured("select", seconds, f"{1e6 * seconds:.0f} us a round, {taken} joined each set", "not estimated")


def gather_and_subtract(state: State, wait: Callable[[], Any]) -> Iterator[Measured]:
    """Kernel values of what joined, and the change of all gradients."""
    old, coefficients = state.numbers(state.q - state.new), state.xp.ones((state.count, state.q))
    v, kernels = state.v.copy(), state.device.kernels

    def gather() -> None:
        kernels.gather(
            state.live, state.action, state.rows, state.slot_of, state.member, state.members, old, state.n_members,
            state.K, most=state.q, most_new=state.new,
        )  # fmt: skip

    def subtract() -> None:
        kernels.subtract(
            state.live, state.action, state.rows, state.slot_of, state.member, state.members, state.n_members,
            coefficients, state.support, state.n_support, state.b, v,
        )  # fmt: skip

    together = 0.0
    for launch in (gather, subtract):
        seconds = timed(launch, nothing, wait)
        together += seconds
        yield Measured(launch.__name__, seconds, f"{1e6 * seconds:.0f} us a round", "see both")
    yield Measured("both", together, f"{1e6 * together:.0f} us a round", "12 ms in 14 rounds: 860 us")


def measure(device: Device, shape: Shape, wait: Callable[[], Any]) -> Iterator[Measured]:
    state = State(device, shape)
    for part in (rows, gather_and_subtract, smo, select):
        yield from part(state, wait)


def main(arguments: list[str]) -> None:
    import cupy

    from gpusvm.backends.native_cuda import solver_device

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in Shape()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    shape = Shape(**vars(parser.parse_args(arguments)))
    for found in measure(solver_device(), shape, cupy.cuda.runtime.deviceSynchronize):
        print(f"{1e3 * found.seconds:9.3f} ms  {found.name}: {found.found}; estimated: {found.estimate}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""All class pairs: what they share, the memory they get, and their order over the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from gpusvm.kernels import Kernel, largest_entry
from gpusvm.params import Stopping
from gpusvm.process_wide import HeldTogether
from gpusvm.solver.kernel_rows import EachChunk, GivenRows, KernelRows, RowSource
from gpusvm.solver.operands import BlasOperand, Operand, Samples, make_operand
from gpusvm.solver.pair import SMALL_PAIR, PairResult, PairSolver, Side
from gpusvm.solver.precision import GradientError
from gpusvm.solver.row_store import RowStore

MOST_ACTIVE = 3072
"""Largest active set, where the budget allows that much: 36 MB of kernel values for each pair under way."""

LEAST_ACTIVE = 64
"""Smallest active set worth working with; below that the budget is refused."""

# BLAS is called from our threads; threads of its own would only compete with them.
_one_blas_thread = HeldTogether(lambda: threadpool_limits(1, user_api="blas"))

_MB = 2**20
_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class MemoryPlan:
    """How the budget is divided.

    Attributes
    ----------
    n_side_by_side : int
        Pairs solved at the same time.
    most_active : int
        Size of each one's active set.
    cross_bytes : int
        For each pair's rows from one class to the other, for one of its two sides.
    own_rows : tuple of int
        For each class, rows to itself that are kept.
    """

    n_side_by_side: int
    most_active: int
    cross_bytes: int
    own_rows: tuple[int, ...]


def plan_memory(counts: Sequence[int], budget_mb: float, n_threads: int) -> MemoryPlan:
    """Divide `budget_mb` between what the pairs share and what each needs while it is solved.

    Half is for rows within the classes, which every pair of a class uses; half for the pairs being
    solved. Both halves must hold the rows of a whole active set, which bounds its size. Shares are cut for as
    many pairs as could ever run side by side: sizes that followed the number of threads would change the result.

    Parameters
    ----------
    counts : samples of each class
    budget_mb : float
    n_threads : int

    Raises
    ------
    MemoryError
        The budget does not hold the smallest active set; the message says what would.
    """
    n_total = sum(counts)
    largest, second = sorted(counts)[-1], sorted(counts)[-2]
    n_shares = max(1, len(counts) // 2)
    half = budget_mb * _MB / 2

    def active_in(share: float) -> int:
        """The largest q with q^2 kernel values and 2 q rows of the largest class within `share` bytes."""
        row = 4.0 * 2 * largest
        return int((-row + np.sqrt(row * row + 16.0 * share)) / 8.0)

    while n_shares > 1 and active_in(half / n_shares) < 4 * LEAST_ACTIVE:
        n_shares -= 1
    most_active = min(active_in(half / n_shares), int(half / (4 * n_total)), MOST_ACTIVE)
    if most_active < LEAST_ACTIVE and most_active < largest + second:
        needed = 2 * max(4 * LEAST_ACTIVE * (LEAST_ACTIVE + 2 * largest), 4 * LEAST_ACTIVE * n_total) / _MB
        raise MemoryError(
            f"cache_size={budget_mb:.0f} MB is too little for classes of up to {largest} samples: "
            f"at least {np.ceil(needed):.0f} MB are needed"
        )
    most_active = max(2, min(most_active, largest + second))
    cross_bytes = int((half / n_shares - 4.0 * most_active**2) / 2)
    own = [min(n, max(most_active, int(half * n / n_total / (4 * n)))) for n in counts]
    n_side_by_side = max(1, min(n_threads, n_shares))
    cross_bytes = min(max(cross_bytes, 4 * most_active * largest), 4 * largest * second)
    return MemoryPlan(n_side_by_side, most_active, cross_bytes, tuple(own))


def tournament(n_classes: int) -> list[tuple[int, int]]:
    """Every pair of classes once, in rounds within which no class meets twice (the circle method).

    Pairs of a round share nothing and can be solved side by side.
    """
    n = n_classes + n_classes % 2
    order = list(range(n))
    sequence = []
    for _ in range(n - 1):
        for k in range(n // 2):
            i, j = sorted((order[k], order[n - 1 - k]))
            if j < n_classes:
                sequence.append((i, j))
        order = [order[0], order[-1], *order[1:-1]]
    return sequence


def solve_one_vs_one(
    X: np.ndarray,
    members: Sequence[np.ndarray],
    bounds: Sequence[np.ndarray],
    kernel: Kernel,
    stopping: Stopping,
    *,
    budget_mb: float,
    n_threads: int,
    progress: Callable[[int, tuple[int, int], PairResult], None] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> list[PairResult]:
    """Solve C-SVC for every pair of classes.

    The result depends on the data and the parameters alone, to the last bit: not on `n_threads`, nor on which
    pair happens to finish first, because the pairs of a class follow each other in a fixed order.

    Parameters
    ----------
    X : (n_samples, n_features) array, float32 or float64, C order
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    members : n_classes arrays of int64
        The rows of X in each class.
    bounds : n_classes arrays of float64
        The upper bound C_k of each member's alpha.
    kernel : Kernel
    stopping : Stopping
        `shrinking` means nothing here.
    budget_mb : float
        Memory for kernel values, in MB.
    n_threads : int
    progress : callable, optional
        Called in the caller's thread with the number of pairs done, the pair and its result.
    pairs : sequence of (int, int), optional
        Solve these alone; the result for a pair does not depend on which others are solved.

    Returns
    -------
    list of PairResult
        For `pairs`, or in the order (0, 1), (0, 2), ..., (1, 2), ...

    Raises
    ------
    MemoryError
        The budget is too small.
    """
    plan = plan_memory([len(m) for m in members], budget_mb, n_threads)
    with _one_blas_thread, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_threads)) if n_threads > 1 else None
        spare = n_threads > plan.n_side_by_side
        shared = _Shared(X, members, kernel, plan, pool)
        each_chunk = EachChunk(pool if spare else None)

        def solve(pair: tuple[int, int], workspace: _Workspace, stopped: Callable[[], bool]) -> PairResult:
            upper = np.concatenate([bounds[c] for c in pair])
            steps = stopping.iterations_allowed(len(upper))

            def run(dtype: type, steps: int, start: np.ndarray | None) -> PairResult:
                sides, K = shared.sides(pair, workspace, dtype)
                error = shared.gradient_error(pair, dtype, stopping.tol)
                solver = PairSolver(
                    sides, upper, K=K, tol=stopping.tol, steps=steps, each_chunk=each_chunk, error=error, start=start
                )
                return solver.solve(stopped)

            if not shared.fits_float32:
                return run(np.float64, steps, None)
            result = run(np.float32, steps, None)
            if not result.too_coarse or stopped():
                return result
            exact = run(np.float64, steps - result.n_iter, result.beta)
            return replace(exact, n_iter=exact.n_iter + result.n_iter)

        wanted = list(combinations(range(len(members)), 2)) if pairs is None else pairs
        found = _Schedule(len(members), wanted, plan, solve).run(progress)
    return [found[pair] for pair in wanted]


_EXPONENTIAL_UNITS = 4.0
"""By how many times its unit roundoff the compiled float32 exponential is off."""

_SMALL_PAIR_BYTES = 8 * 3 * SMALL_PAIR**2
"""Memory in which a small pair is solved whole in float64: 6 MB."""


class _Workspace:
    """Memory that one pair after another uses: for kernel values of its active set, and for rows that are its own."""

    def __init__(self, plan: MemoryPlan) -> None:
        size = 4 * plan.most_active**2 + 2 * plan.cross_bytes
        self.bytes = np.empty(max(size, _SMALL_PAIR_BYTES) // 8 * 8, dtype=np.uint8)
        self.most_active, self.cross_bytes = plan.most_active, plan.cross_bytes

    def in_float32(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """K, and for each side a buffer for its rows to the other class."""
        values, q, cross = self.bytes.view(np.float32), self.most_active, self.cross_bytes // 4
        first = q * q
        return values[:first].reshape(q, q), [values[first + k * cross : first + (k + 1) * cross] for k in range(2)]

    def in_float64(self, n: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """K, and for each side a buffer for its rows to both classes, `n` values together.

        The active set is the largest for which either buffer holds its rows: q^2 + 2 q n values.
        """
        values = self.bytes.view(np.float64)
        q = min(n, int(np.sqrt(n * n + len(values)) - n))
        first = q * q
        rows = (len(values) - first) // 2
        return values[:first].reshape(q, q), [values[first + k * rows : first + (k + 1) * rows] for k in range(2)]


class _Shared:
    """What the pairs of a class have in common: its operand, and rows from the class to itself."""

    def __init__(
        self,
        X: np.ndarray,
        members: Sequence[np.ndarray],
        kernel: Kernel,
        plan: MemoryPlan,
        pool: Executor | None,
    ) -> None:
        self.X, self.members, self.kernel = X, members, kernel
        self.operands: list[Operand] = []
        if kernel.precomputed:
            self.largest = largest_entry(X)
            self.fits_float32 = bool(self.largest < np.finfo(np.float32).max)
        else:
            self.samples = Samples.of(X, kernel)
            self.largest = float(self.samples.norms.max(initial=0.0)) / self.samples.scale**2
            self.fits_float32 = kernel.fits_float32(self.largest)
            make = pool.map if pool is not None else map
            self.operands = list(make(lambda rows: make_operand(self.samples, rows), members))
        self.stores = [RowStore(len(m), len(m), rows) for m, rows in zip(members, plan.own_rows, strict=True)]
        self._exact: tuple[Samples, list[Operand]] | None = None
        self._making_exact = threading.Lock()

    def exact(self) -> tuple[Samples, list[Operand]]:
        """The samples and their operands in float64, made when a pair first needs them."""
        with self._making_exact:
            if self._exact is None:
                samples = Samples(self.X.astype(np.float64, copy=False))
                self._exact = samples, [BlasOperand(samples, rows) for rows in self.members]
        return self._exact

    def source(self, left: int, right: int, dtype: type) -> RowSource:
        if self.kernel.precomputed:
            return GivenRows(self.X, self.members[left], self.members[right])
        samples, operands = self.exact() if dtype == np.float64 else (self.samples, self.operands)
        return KernelRows(self.kernel, samples, self.members[left], operands[right])

    def sides(self, pair: tuple[int, int], workspace: _Workspace, dtype: type) -> tuple[tuple[Side, Side], np.ndarray]:
        """Both sides of the pair, with room for rows of `dtype`, and the memory for its active set's kernel values.

        Rows within a class are shared with its other pairs in float32 alone: few pairs need float64.
        """
        n = sum(len(self.members[c]) for c in pair)
        K, buffers = workspace.in_float64(n) if dtype == np.float64 else workspace.in_float32()
        first, second = (
            self._side(own, other, buffer, dtype)
            for (own, other), buffer in zip((pair, pair[::-1]), buffers, strict=True)
        )
        return (first, second), K

    def _side(self, own: int, other: int, buffer: np.ndarray, dtype: type) -> Side:
        n, n_other = len(self.members[own]), len(self.members[other])
        own_store = self.stores[own]
        if dtype == np.float64:
            rows = len(buffer) // (n + n_other)
            own_store, buffer = RowStore(n, n, rows, buffer[: rows * n]), buffer[rows * n :]
        cross_store = RowStore(n, n_other, len(buffer) // n_other, buffer)
        return Side(self.source(own, own, dtype), own_store, self.source(own, other, dtype), cross_store, n)

    def gradient_error(self, pair: tuple[int, int], dtype: type, tol: float) -> GradientError:
        """How to tell whether kernel values of `dtype` are fine enough for the pair."""
        rows, kernel = np.concatenate([self.members[c] for c in pair]), self.kernel
        signs = np.repeat([1.0, -1.0], [len(self.members[c]) for c in pair])

        def exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            if kernel.precomputed:
                return self.X[np.ix_(rows[left], rows[right])].astype(np.float64)
            return kernel(self.X[rows[left]].astype(np.float64), self.X[rows[right]].astype(np.float64))

        if kernel.precomputed:
            value_error = float(np.finfo(dtype).eps) / 2 * self.largest
        elif dtype == np.float32 and (self.samples.pixels is not None or self.samples.X.dtype == np.float64):
            # Products are exact, or in float64: what is left of an RBF value is the rounding of its exponential.
            value_error = kernel.value_error(0.0 if kernel.name == "rbf" else self.largest, dtype) * _EXPONENTIAL_UNITS
        else:
            value_error = kernel.value_error(self.largest, dtype)
        return GradientError(value_error, exact, 1 if kernel.precomputed else self.X.shape[1], signs, tol)


class _Schedule:
    """Runs the pairs on threads, the pairs of each class one after another in the order of the tournament."""

    def __init__(
        self,
        n_classes: int,
        wanted: Sequence[tuple[int, int]],
        plan: MemoryPlan,
        solve: Callable[[tuple[int, int], _Workspace, Callable[[], bool]], PairResult],
    ) -> None:
        self.plan, self.solve = plan, solve
        chosen = set(wanted)
        self.waiting = [pair for pair in tournament(n_classes) if pair in chosen]
        self.turns = [[pair for pair in self.waiting if c in pair] for c in range(n_classes)]
        self.changed = threading.Condition()
        self.finished: list[tuple[tuple[int, int], PairResult]] = []
        self.failure: BaseException | None = None
        self.stop = False

    def run(
        self, progress: Callable[[int, tuple[int, int], PairResult], None] | None
    ) -> dict[tuple[int, int], PairResult]:
        """Solve all pairs. An exception in a thread, or an interrupt in the caller's, ends every thread first."""
        n_pairs = len(self.waiting)
        threads: list[threading.Thread] = []
        reported = 0
        try:
            for _ in range(self.plan.n_side_by_side):
                threads.append(threading.Thread(target=self._work, daemon=True))
                threads[-1].start()
            while reported < n_pairs and self.failure is None:
                with self.changed:
                    if len(self.finished) == reported:
                        self.changed.wait(_WAIT_SECONDS)
                    news = self.finished[reported:]
                for pair, result in news:
                    reported += 1
                    if progress is not None:
                        progress(reported, pair, result)
        finally:
            self.stop = True
            with self.changed:
                self.changed.notify_all()
            for thread in threads:
                with suppress(RuntimeError):  # it did not start
                    thread.join()
        if self.failure is not None:
            raise self.failure
        return dict(self.finished)

    def _work(self) -> None:
        try:
            workspace = _Workspace(self.plan)
            while (pair := self._next()) is not None:
                result = self.solve(pair, workspace, lambda: self.stop)
                if self.stop:
                    return  # it may have been left half-way
                with self.changed:
                    for c in pair:
                        self.turns[c].pop(0)
                    self.finished.append((pair, result))
                    self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.failure = error
                self.stop = True
                self.changed.notify_all()

    def _next(self) -> tuple[int, int] | None:
        """The first waiting pair whose turn it is for both of its classes; waits for one, None at the end."""
        with self.changed:
            while self.waiting and not self.stop:
                for pair in self.waiting:
                    if all(self.turns[c][0] == pair for c in pair):
                        self.waiting.remove(pair)
                        return pair
                self.changed.wait(_WAIT_SECONDS)
            return None

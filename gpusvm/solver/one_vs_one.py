"""All class pairs: what they share, the memory they get, and their order over the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from gpusvm.kernels import Kernel
from gpusvm.process_wide import HeldTogether
from gpusvm.solver.kernel_rows import EachChunk, GivenRows, KernelRows, RowSource
from gpusvm.solver.operands import Operand, Samples, make_operand
from gpusvm.solver.pair import PairResult, PairSolver, Side
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
    *,
    tol: float,
    max_iter: int = -1,
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
    X : (n_samples, n_features) float32 array, C order
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    members : n_classes arrays of int64
        The rows of X in each class.
    bounds : n_classes arrays of float64
        The upper bound C_k of each member's alpha.
    kernel : Kernel
    tol : float
        Largest KKT violation left.
    max_iter : int
        Bound on the steps for each pair; -1 for none.
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
    OverflowError
        Kernel values may exceed float32.
    """
    plan = plan_memory([len(m) for m in members], budget_mb, n_threads)
    with _one_blas_thread, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_threads)) if n_threads > 1 else None
        spare = n_threads > plan.n_side_by_side
        shared = _Shared(X, members, kernel, plan, pool)
        each_chunk = EachChunk(pool if spare else None)

        def solve(pair: tuple[int, int], workspace: _Workspace, stopped: Callable[[], bool]) -> PairResult:
            solver = PairSolver(
                shared.sides(pair, workspace),
                np.concatenate([bounds[c] for c in pair]),
                K=workspace.K,
                tol=tol,
                max_iter=max_iter,
                each_chunk=each_chunk,
            )
            return solver.solve(stopped)

        wanted = list(combinations(range(len(members)), 2)) if pairs is None else pairs
        found = _Schedule(len(members), wanted, plan, solve).run(progress)
    return [found[pair] for pair in wanted]


class _Workspace:
    """Memory that one pair after another uses."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.K = np.empty((plan.most_active, plan.most_active), dtype=np.float32)
        self.cross = [np.empty(plan.cross_bytes // 4, dtype=np.float32) for _ in range(2)]


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
        if not kernel.precomputed:
            self.samples = Samples.of(X, kernel)
            kernel.require_float32_range(self.samples.norms.max(initial=0.0) / self.samples.scale**2)
            make = pool.map if pool is not None else map
            self.operands = list(make(lambda rows: make_operand(self.samples, rows), members))
        self.stores = [RowStore(len(m), len(m), rows) for m, rows in zip(members, plan.own_rows, strict=True)]

    def source(self, left: int, right: int) -> RowSource:
        if self.kernel.precomputed:
            return GivenRows(self.X, self.members[left], self.members[right])
        return KernelRows(self.kernel, self.samples, self.members[left], self.operands[right])

    def sides(self, pair: tuple[int, int], workspace: _Workspace) -> tuple[Side, Side]:
        first, second = (
            self._side(own, other, buffer)
            for (own, other), buffer in zip((pair, pair[::-1]), workspace.cross, strict=True)
        )
        return first, second

    def _side(self, own: int, other: int, buffer: np.ndarray) -> Side:
        n, n_other = len(self.members[own]), len(self.members[other])
        store = RowStore(n, n_other, len(buffer) // n_other, buffer)
        return Side(self.source(own, own), self.stores[own], self.source(own, other), store, n)


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

"""Problems over the same samples on a CPU: what they share, their memory, order and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution, raised
from gpusvm.process_wide import SharedContext
from gpusvm.solver.active_set import ActiveSetSolver
from gpusvm.solver.batches import serves, solve_batches
from gpusvm.solver.clock import Clock, Shares
from gpusvm.solver.growing import GrowingSolver, Side
from gpusvm.solver.iterate import Begun
from gpusvm.solver.kernel_of_blocks import WITHIN_SHARE, KernelOfBlocks
from gpusvm.solver.kernel_rows import GivenRows, KernelRows, ParallelFor, RowSource
from gpusvm.solver.operands import Operand, make_operand
from gpusvm.solver.precision import GradientError
from gpusvm.solver.row_store import RowStore
from gpusvm.solver.tiny import solve_tiny
from gpusvm.solver.working_set import AT_ONCE, LEAST_ROOM, SMALL, STEPS_AT_ONCE

LARGEST_SET = 3072
"""Largest working set, where the budget allows that much: 36 MB of kernel values for each problem
under way."""

COMFORTABLE_ROOM = 8192
"""Active variables for which each of several problems must have room to be solved side by side:
256 MB."""

LEAST_SET = 64
"""Size that a working set must be able to reach; below that the budget is refused."""


@cache
def _libraries() -> ThreadpoolController:
    """The process's libraries; NumPy's BLAS, the one that is called, is among them.

    To look for them takes 3 ms.
    """
    return ThreadpoolController()


# BLAS is called from our threads; threads of its own would only compete with them.
one_blas_thread = SharedContext(lambda: _libraries().limit(limits=1, user_api="blas"))

_MB = 2**20
_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class MemoryPlan:
    """How the budget is divided.

    Attributes
    ----------
    n_side_by_side : int
        Problems solved at the same time.
    largest_set : int
        Size that each one's working set may reach.
    cross_bytes : int
        For a problem's rows from one block to the other, for one of its two sides.
    own_rows : tuple of int
        For each block, rows to itself that are kept.
    """

    n_side_by_side: int
    largest_set: int
    cross_bytes: int
    own_rows: tuple[int, ...]


def plan_memory(counts: Sequence[int], budget_mb: float, n_threads: int) -> MemoryPlan:
    """Divide `budget_mb` between what the problems share and what each needs while it is solved.

    Half is for rows within the blocks, which every problem of a block uses; half for the problems
    being solved. Both halves must hold the rows of a whole working set, which bounds its size.
    Shares are cut for as many problems as could ever run side by side: sizes that followed the
    number of threads would change the result.

    Parameters
    ----------
    counts : samples of each block
    budget_mb : float
    n_threads : int

    Raises
    ------
    MemoryError
        The budget does not hold the smallest working set; the message says what would.
    """
    n_total = sum(counts)
    largest, second = sorted([0, *counts])[:-3:-1]
    n_shares = max(1, len(counts) // 2)
    half = budget_mb * _MB / 2

    def set_in(share: float) -> int:
        """Largest q with q^2 kernel values and 2 q rows of the largest block in `share` bytes."""
        row = 4.0 * 2 * largest
        return int((-row + np.sqrt(row * row + 16.0 * share)) / 8.0)

    while n_shares > 1 and set_in(half / n_shares) < 4 * LEAST_SET:
        n_shares -= 1
    largest_set = min(set_in(half / n_shares), int(half / (4 * n_total)), LARGEST_SET)
    if largest_set < LEAST_SET and largest_set < largest + second:
        needed = 2 * max(4 * LEAST_SET * (LEAST_SET + 2 * largest), 4 * LEAST_SET * n_total) / _MB
        raise MemoryError(
            f"cache_size={budget_mb:.0f} MB is too little for classes of up to {largest} samples: "
            f"at least {np.ceil(needed):.0f} MB are needed"
        )
    largest_set = max(2, min(largest_set, largest + second))
    cross_bytes = int((half / n_shares - 4.0 * largest_set**2) / 2)
    own = [min(n, max(largest_set, int(half * n / n_total / (4 * n)))) for n in counts]
    n_side_by_side = max(1, min(n_threads, n_shares))
    cross_bytes = min(max(cross_bytes, 4 * largest_set * largest), 4 * largest * second)
    return MemoryPlan(n_side_by_side, largest_set, cross_bytes, tuple(own))


def tournament(n_blocks: int) -> list[tuple[int, int]]:
    """Every pair of blocks once, in rounds within which no block meets twice (the circle method).

    Problems of a round share nothing and can be solved side by side.
    """
    n = n_blocks + n_blocks % 2
    order = list(range(n))
    sequence = []
    for _ in range(n - 1):
        for k in range(n // 2):
            i, j = sorted((order[k], order[n - 1 - k]))
            if j < n_blocks:
                sequence.append((i, j))
        order = [order[0], order[-1], *order[1:-1]]
    return sequence


def solve(
    X: np.ndarray,
    blocks: Sequence[np.ndarray],
    problems: Sequence[QP],
    kernel: Kernel,
    stopping: Stopping,
    *,
    budget_mb: float | Callable[[], float],
    n_threads: int,
    progress: Callable[[int, int, Solution], None] | None = None,
) -> list[Solution]:
    """Solve several problems over the same samples.

    The result depends on the data and the parameters alone, to the last bit: not on `n_threads`,
    nor on which problem happens to finish first, because the problems of a block follow each other
    in a fixed order.

    Parameters
    ----------
    X : (n_samples, n_features) array, float32 or float64, C order, or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks : sequence of int64 arrays
        The rows of X in each block.
    problems : sequence of QP
        About one or two of the blocks each. The result for one does not depend on which others are
        solved.
    kernel : Kernel
    stopping : Stopping
        `shrinking` means nothing here.
    budget_mb : float, or callable that gives it
        Memory for kernel values, in MB. It is asked for only where a problem is not tiny.
    n_threads : int
    progress : callable, optional
        Called in the caller's thread with the number of problems done, the last one's place in
        `problems`, and its solution.

    Returns
    -------
    list of Solution

    Raises
    ------
    MemoryError
        The budget is too small.
    """
    found: dict[int, Solution] = {}

    def keep(index: int, solution: Solution) -> None:
        found[index] = solution
        if progress is not None:
            progress(len(found), index, solution)

    shares = Shares(stopping.time_limit, {index: float(problem.n) ** 2 for index, problem in enumerate(problems)})
    small = {index: problem for index, problem in enumerate(problems) if problem.n <= SMALL}
    large = {index: problem for index, problem in enumerate(problems) if problem.n > SMALL}
    if small:
        solve_tiny(X, blocks, small, kernel, stopping, shares, n_threads=n_threads, report=keep)
    if large:
        budget = budget_mb() if callable(budget_mb) else budget_mb
        _solve_large(X, blocks, large, kernel, stopping, shares, _Budget(budget, n_threads), keep)
    return [found[index] for index in range(len(problems))]


class _Budget(NamedTuple):
    """What training may use."""

    memory_mb: float
    n_threads: int


def _solve_large(
    X: np.ndarray,
    blocks: Sequence[np.ndarray],
    problems: Mapping[int, QP],
    kernel: Kernel,
    stopping: Stopping,
    shares: Shares,
    budget: _Budget,
    report: Callable[[int, Solution], None],
) -> None:
    """Solve `problems`, each in the way that suits it; call ``report(index, solution)`` for each.

    Those of moderate size have all their kernel values in memory, and what proves hard those of
    its active variables, if the budget holds enough of them; the others are solved on a working
    set that grows.
    """
    budget_mb, n_threads = budget
    plan = plan_memory([len(rows) for rows in blocks], budget_mb, n_threads)
    with one_blas_thread, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_threads)) if n_threads > 1 else None
        ways = _Ways(_Shared(X, blocks, kernel, plan, pool, WITHIN_SHARE * budget_mb), stopping, budget_mb, pool)
        whole = {k: problem for k, problem in problems.items() if ways.is_solved_at_once(problem.n)}
        growing = {k: problem for k, problem in problems.items() if k not in whole}
        begun = ways.in_batches(whole, n_threads, report)
        for k, problem in list(growing.items()):
            if problem.any_start and ways.has_room_for_a_hard_one(np.float32):
                begun[k] = Begun(ways.from_outliers(growing.pop(k)))
        _solve_on_active_sets(begun, ways, shares, n_threads, report)
        if growing:
            parallel_for = ParallelFor(pool if n_threads > plan.n_side_by_side else None)

            def grow(problem: QP, workspace: _Workspace, clock: Clock) -> Solution | Begun:
                return ways.growing(problem, workspace, parallel_for, clock)

            hard = _Schedule(growing, len(blocks), plan, shares, grow).run(report)
            ways.shared.give_up_rows()
            _solve_on_active_sets(hard, ways, shares, n_threads, report)


def _solve_on_active_sets(
    problems: Mapping[int, Begun],
    ways: _Ways,
    shares: Shares,
    n_threads: int,
    report: Callable[[int, Solution], None],
) -> None:
    """Solve problems on active sets, as many side by side as the budget holds; the largest first.

    Large ones share the threads: while one takes steps, the next has its kernel values computed.
    For small ones that would cost more than it gains.
    """
    if not problems:
        return
    order = sorted(problems, key=lambda k: -problems[k].problem.n)
    n_shares = ways.n_shares([problems[k].problem.n for k in order])
    side_by_side = min(n_threads, n_shares)
    stop = threading.Event()
    ended: SimpleQueue[tuple[int, Future[Solution]]] = SimpleQueue()

    def run(index: int) -> Solution:
        clock = Clock(stop.is_set, shares.deadline([index], side_by_side))
        shares_threads = side_by_side < n_threads or problems[index].problem.n > AT_ONCE
        return ways.on_active_set(problems[index], clock, n_shares, shares_threads=shares_threads)

    def keep(index: int, future: Future[Solution]) -> None:
        ended.put((index, future))

    with ThreadPoolExecutor(side_by_side) as workers:
        try:
            for index in order:
                workers.submit(run, index).add_done_callback(partial(keep, index))
            for _ in order:
                index, future = ended.get()
                report(index, future.result())
        except BaseException:  # an interrupt, or what a problem raised: the others end at their next look
            stop.set()
            workers.shutdown(wait=False, cancel_futures=True)
            raise


class _Ways:
    """The ways to solve one problem, and from float32 to float64 in each."""

    def __init__(self, shared: _Shared, stopping: Stopping, budget_mb: float, pool: Executor | None) -> None:
        self.shared, self.stopping, self.budget_mb = shared, stopping, budget_mb
        self.parallel_for, self.in_turn = ParallelFor(pool), ParallelFor()
        self._local = threading.local()

    def room(self, dtype: Any = np.float32, n_shares: int = 1) -> int:
        """How many active variables the budget has room for, shared by so many problems."""
        return int((self.budget_mb * _MB / (n_shares * np.dtype(dtype).itemsize)) ** 0.5)

    def n_shares(self, sizes: Sequence[int]) -> int:
        """How many problems of these sizes, largest first, the budget has enough room for at once.

        That does not follow the number of threads: the room that a problem has decides its path.
        """
        enough = min(sizes[0], max(COMFORTABLE_ROOM, int(LEAST_ROOM * sizes[0])))
        return max(1, min(len(sizes), int((self.room() / enough) ** 2)))

    def is_solved_at_once(self, n: int) -> bool:
        """Whether a problem of `n` variables is solved over all its kernel values, hard or not."""
        return n <= min(AT_ONCE, self.room())

    def has_room_for_a_hard_one(self, dtype: Any) -> bool:
        """Whether an active set may be larger than a working set that grows."""
        return self.room(dtype) > LARGEST_SET

    def in_batches(
        self, problems: Mapping[int, QP], n_threads: int, report: Callable[[int, Solution], None]
    ) -> dict[int, Begun]:
        """Solve those of `problems` that compiled code can by itself; the others come back.

        Each is solved over all of its variables at once.
        """
        left = {k: Begun(problem) for k, problem in problems.items()}
        # Within a time limit each problem looks at the time.
        served = {k: problem for k, problem in problems.items() if serves(problem, self.shared, self.shared.operands)}
        if served and self.stopping.time_limit is None:
            begun = solve_batches(self.shared, served, self.stopping, n_threads=n_threads, report=report)
            left = {k: begun.get(k, one) for k, one in left.items() if k in begun or k not in served}
        return left

    def from_outliers(self, problem: QP) -> QP:
        """A one-class problem with a start near its solution: those of least f at their bounds.

        f is the solution, or what some thousand steps come to, of the same problem about some of
        the samples.
        """
        dtype = np.float32 if self.shared.fits_float32 else np.float64
        part = np.linspace(0, problem.n - 1, min(AT_ONCE, problem.n // 4)).astype(np.int64)
        lower, upper = problem.lower[part], problem.upper[part]
        total = problem.total * upper.sum() / problem.upper.sum()
        about = QP(problem.blocks, problem.p[part], lower, upper, raised(lower, upper, total, np.arange(len(part))))
        rows = problem.rows(self.shared.blocks)[part]
        solver = ActiveSetSolver(
            about, self.shared.values_of(rows, dtype), room=len(part), memory=partial(self._memory, dtype),
            tol=self.stopping.tol, steps=min(STEPS_AT_ONCE, self._steps_left(about, 0)), parallel_for=self.parallel_for,
            error=GradientError.none(),
        )  # fmt: skip
        found, f = solver.solve(), np.zeros(problem.n)
        values = self.shared.values(problem.blocks, dtype)
        values.subtract(f, np.arange(problem.n), part[found.support], -found.dual_coef, self.parallel_for)
        start = raised(problem.lower, problem.upper, problem.total, np.argsort(f, kind="stable"))
        return problem._replace(start=start, any_start=False)

    def growing(self, problem: QP, workspace: _Workspace, parallel_for: ParallelFor, clock: Clock) -> Solution | Begun:
        """On a working set; a problem better solved on an active set comes back, begun."""
        n_iter = 0
        for dtype in (np.float32, np.float64) if self.shared.fits_float32 else (np.float64,):
            sides, K = self.shared.sides(problem.blocks, workspace, dtype)
            solver = GrowingSolver(
                problem, sides, K=K, tol=self.stopping.tol, steps=self._steps_left(problem, n_iter),
                parallel_for=parallel_for, error=self.shared.gradient_error(problem, dtype, self.stopping.tol),
                hands_over=self.has_room_for_a_hard_one(dtype),
            )  # fmt: skip
            found = solver.solve(clock)
            n_iter += found.n_iter
            problem = problem._replace(start=found.b)
            if solver.has_left:
                return Begun(problem, n_iter, dtype == np.float64)
            if not found.too_coarse or clock.says_stop():
                break
        return found._replace(n_iter=n_iter)

    def on_active_set(self, begun: Begun, clock: Clock, n_shares: int, *, shares_threads: bool) -> Solution:
        """On kernel values of active variables: float32 if that is fine enough, else float64."""
        problem, n_iter, in_float64 = begun
        for dtype in (np.float32, np.float64) if self.shared.fits_float32 and not in_float64 else (np.float64,):
            values = self.shared.values(problem.blocks, dtype)
            solver = ActiveSetSolver(
                problem, values, room=self.room(dtype, n_shares), memory=partial(self._memory, dtype),
                tol=self.stopping.tol, steps=self._steps_left(problem, n_iter),
                parallel_for=self.parallel_for if shares_threads else self.in_turn,
                error=self.shared.gradient_error(problem, dtype, self.stopping.tol),
            )  # fmt: skip
            found = solver.solve(clock)
            n_iter += found.n_iter
            problem = problem._replace(start=found.b)
            if not found.too_coarse or clock.says_stop():
                break
        return found._replace(n_iter=n_iter)

    def _steps_left(self, problem: QP, n_iter: int) -> int:
        return max(0, self.stopping.iterations_allowed(problem.n) - n_iter)

    def _memory(self, dtype: type, size: int) -> np.ndarray:
        """At least `size` values: the same memory for one problem of a thread after another."""
        held = getattr(self._local, "bytes", np.empty(0, dtype=np.uint8))
        if len(held) < size * np.dtype(dtype).itemsize:
            self._local.bytes = held = np.empty(size * np.dtype(dtype).itemsize, dtype=np.uint8)
        return held[: len(held) // 8 * 8].view(dtype)


_SMALL_BYTES = 8 * 3 * SMALL**2
"""Memory in which a small problem is solved whole in float64: 6 MB."""


class _Workspace:
    """Memory that one problem after another uses.

    It is for the kernel values of the problem's working set, and for rows of its own.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        size = 4 * plan.largest_set**2 + 2 * plan.cross_bytes
        self.bytes = np.empty(max(size, _SMALL_BYTES) // 8 * 8, dtype=np.uint8)
        self.largest_set, self.cross_bytes = plan.largest_set, plan.cross_bytes

    def in_float32(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """K, and for each side a buffer for its rows to the other block."""
        values, q, cross = self.bytes.view(np.float32), self.largest_set, self.cross_bytes // 4
        first = q * q
        return values[:first].reshape(q, q), [values[first + k * cross : first + (k + 1) * cross] for k in range(2)]

    def in_float64(self, n: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """K, and for each side a buffer for its rows to all `n` variables.

        The working set is the largest for which either buffer holds its rows: q^2 + 2 q n values.
        """
        values = self.bytes.view(np.float64)
        q = min(n, int(np.sqrt(n * n + len(values)) - n))
        first = q * q
        rows = (len(values) - first) // 2
        return values[:first].reshape(q, q), [values[first + k * rows : first + (k + 1) * rows] for k in range(2)]


class _Shared(KernelOfBlocks):
    """What the problems of a block share: its operand, and rows from the block to itself."""

    def __init__(
        self,
        X: np.ndarray,
        blocks: Sequence[np.ndarray],
        kernel: Kernel,
        plan: MemoryPlan,
        pool: Executor | None,
        within_mb: float,
    ) -> None:
        super().__init__(X, blocks, kernel, within_mb)
        self.plan = plan
        self.operands: list[Operand] = []
        if not kernel.precomputed:
            make = pool.map if pool is not None else map
            self.operands = list(make(lambda rows: make_operand(self.samples, rows), blocks))
        self.stores = [RowStore(len(m), len(m), rows) for m, rows in zip(blocks, plan.own_rows, strict=True)]
        self._exact_operands: list[Operand] | None = None
        self._making_operands = threading.Lock()

    def exact_operands(self) -> list[Operand]:
        """The blocks' operands in float64, made when a problem first needs them."""
        with self._making_operands:
            if self._exact_operands is None:
                samples = self.exact_samples()
                self._exact_operands = [make_operand(samples, rows) for rows in self.blocks]
        return self._exact_operands

    def source(self, left: int, right: int, dtype: type) -> RowSource:
        """Kernel values in `dtype` from the samples of block `left` to those of block `right`."""
        if self.kernel.precomputed:
            return GivenRows(self.X, self.blocks[left], self.blocks[right])
        if dtype == np.float64:
            return KernelRows(self.kernel, self.exact_samples(), self.blocks[left], self.exact_operands()[right])
        return KernelRows(self.kernel, self.samples, self.blocks[left], self.operands[right])

    def sides(self, blocks: tuple[int, ...], workspace: _Workspace, dtype: type) -> tuple[list[Side], np.ndarray]:
        """The sides of a problem, and the memory for its working set's kernel values.

        The sides have room for rows of `dtype`. Rows within a block are shared with its other
        problems in float32 alone: few problems need float64.
        """
        sizes = [len(self.blocks[b]) for b in blocks]
        K, buffers = workspace.in_float64(sum(sizes)) if dtype == np.float64 else workspace.in_float32()
        stores: dict[tuple[int, int], RowStore] = {}
        for block, buffer in zip(blocks, buffers, strict=False):
            # What remains of a side's buffer is shared out by the length of the rows.
            shares = {other: len(self.blocks[other]) for other in blocks}
            if dtype == np.float32:
                stores[block, block] = self.stores[block]
                shares.pop(block)
            rows = len(buffer) // max(1, sum(shares.values()))
            for other, width in shares.items():
                part, buffer = buffer[: rows * width], buffer[rows * width :]
                stores.setdefault((block, other), RowStore(len(self.blocks[block]), width, rows, part))
        sides = [
            Side(n, [self.source(own, other, dtype) for other in blocks], [stores[own, other] for other in blocks])
            for own, n in zip(blocks, sizes, strict=True)
        ]
        return sides, K

    def give_up_rows(self) -> None:
        """Let go of the rows within blocks: problems in float64 or on active sets use none."""
        self.stores = []


class _Schedule:
    """Runs problems on threads, those of a block one after another in the tournament's order."""

    def __init__(
        self,
        problems: Mapping[int, QP],
        n_blocks: int,
        plan: MemoryPlan,
        shares: Shares,
        solve: Callable[[QP, _Workspace, Clock], Solution | Begun],
    ) -> None:
        self.problems, self.plan, self.shares, self.solve = problems, plan, shares, solve
        place: dict[tuple[int, ...], int] = {pair: k for k, pair in enumerate(tournament(n_blocks))}
        self.waiting = sorted(problems, key=lambda k: place.get(tuple(sorted(problems[k].blocks)), -1))
        self.turns: list[list[int]] = [[] for _ in range(n_blocks)]
        for k in self.waiting:
            for block in set(problems[k].blocks):
                self.turns[block].append(k)
        self.changed = threading.Condition()
        self.finished: list[tuple[int, Solution | Begun]] = []
        self.failure: BaseException | None = None
        self.stop = False

    def run(self, report: Callable[[int, Solution], None]) -> dict[int, Begun]:
        """Solve all problems; returns those that are to be solved in another way.

        An exception in a thread, or an interrupt in the caller's, ends every thread first.
        """
        n_problems = len(self.waiting)
        threads: list[threading.Thread] = []
        reported = 0
        try:
            for _ in range(self.plan.n_side_by_side):
                threads.append(threading.Thread(target=self._work, daemon=True))
                threads[-1].start()
            while reported < n_problems and self.failure is None:
                with self.changed:
                    if len(self.finished) == reported:
                        self.changed.wait(_WAIT_SECONDS)
                    news = self.finished[reported:]
                for index, solution in news:
                    reported += 1
                    if isinstance(solution, Solution):
                        report(index, solution)
                    else:
                        self.shares.give_back(index)
        finally:
            self.stop = True
            with self.changed:
                self.changed.notify_all()
            for thread in threads:
                with suppress(RuntimeError):  # it did not start
                    thread.join()
        if self.failure is not None:
            raise self.failure
        return {index: left for index, left in self.finished if isinstance(left, Begun)}

    def _work(self) -> None:
        try:
            workspace = _Workspace(self.plan)
            while (begun := self._next()) is not None:
                index, deadline = begun
                clock = Clock(lambda: self.stop, deadline)
                solution = self.solve(self.problems[index], workspace, clock)
                if self.stop:
                    return  # it may have been left half-way
                with self.changed:
                    for block in set(self.problems[index].blocks):
                        self.turns[block].pop(0)
                    self.finished.append((index, solution))
                    self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.failure = error
                self.stop = True
                self.changed.notify_all()

    def _next(self) -> tuple[int, float] | None:
        """The first waiting problem whose turn it is for all of its blocks, and its deadline.

        None at the end.
        """
        with self.changed:
            while self.waiting and not self.stop:
                for index in self.waiting:
                    if all(self.turns[block][0] == index for block in self.problems[index].blocks):
                        self.waiting.remove(index)
                        return index, self.shares.deadline([index], self.plan.n_side_by_side)
                self.changed.wait(_WAIT_SECONDS)
            return None

"""Problems over the same samples on a CPU: what they share, the memory they get, their order over the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from gpusvm.kernels import Kernel, largest_entry
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution
from gpusvm.process_wide import HeldTogether
from gpusvm.solver.clock import Clock, Shares
from gpusvm.solver.growing import GrowingSolver, Side, make_solution
from gpusvm.solver.kernel_rows import EachChunk, GivenRows, KernelRows, RowSource
from gpusvm.solver.operands import BlasOperand, Operand, Samples, make_operand
from gpusvm.solver.precision import GradientError
from gpusvm.solver.row_store import RowStore
from gpusvm.solver.tiny import solve_tiny
from gpusvm.solver.whole import SHRINKS_BELOW, kernel_matrix, solve_whole
from gpusvm.solver.working_set import SMALL

LARGEST_SET = 3072
"""Largest working set, where the budget allows that much: 36 MB of kernel values for each problem under way."""

WHOLE = 1536
"""Variables up to which a problem is solved over its whole kernel matrix at once, hard or not: 9 MB."""

LEAST_SET = 64
"""Size that a working set must be able to reach; below that the budget is refused."""

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

    Half is for rows within the blocks, which every problem of a block uses; half for the problems being
    solved. Both halves must hold the rows of a whole working set, which bounds its size. Shares are cut for as
    many problems as could ever run side by side: sizes that followed the number of threads would change the result.

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
        """The largest q with q^2 kernel values and 2 q rows of the largest block within `share` bytes."""
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

    The result depends on the data and the parameters alone, to the last bit: not on `n_threads`, nor on which
    problem happens to finish first, because the problems of a block follow each other in a fixed order.

    Parameters
    ----------
    X : (n_samples, n_features) array, float32 or float64, C order
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks : sequence of int64 arrays
        The rows of X in each block.
    problems : sequence of QP
        About one or two of the blocks each. The result for one does not depend on which others are solved.
    kernel : Kernel
    stopping : Stopping
        `shrinking` means nothing here.
    budget_mb : float, or callable that gives it
        Memory for kernel values, in MB. It is asked for only where a problem is not tiny.
    n_threads : int
    progress : callable, optional
        Called in the caller's thread with the number of problems done, the last one's place in `problems`, and its
        solution.

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
        _solve_large(X, blocks, large, kernel, stopping, shares, budget_mb=budget, n_threads=n_threads, report=keep)
    return [found[index] for index in range(len(problems))]


def _solve_large(
    X: np.ndarray,
    blocks: Sequence[np.ndarray],
    problems: Mapping[int, QP],
    kernel: Kernel,
    stopping: Stopping,
    shares: Shares,
    *,
    budget_mb: float,
    n_threads: int,
    report: Callable[[int, Solution], None],
) -> None:
    """Solve `problems`, each in the way that suits it, calling ``report(index, solution)`` for each.

    Those of moderate size are solved over their whole kernel matrix, and so is what proves hard, if the matrix fits
    the budget; the others on a working set that grows.
    """
    plan = plan_memory([len(rows) for rows in blocks], budget_mb, n_threads)
    with _one_blas_thread, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_threads)) if n_threads > 1 else None
        ways = _Ways(_Shared(X, blocks, kernel, plan, pool), stopping, budget_mb, pool)
        whole = {k: _Begun(problem) for k, problem in problems.items() if problem.n <= WHOLE and ways.fits(problem.n)}
        growing = {k: problem for k, problem in problems.items() if k not in whole}
        _solve_over_matrices(whole, ways, shares, n_threads, report)
        if growing:
            each_chunk = EachChunk(pool if n_threads > plan.n_side_by_side else None)

            def grow(problem: QP, workspace: _Workspace, clock: Clock) -> Solution | _Begun:
                return ways.growing(problem, workspace, each_chunk, clock)

            hard = _Schedule(growing, len(blocks), plan, shares, grow).run(report)
            ways.shared.give_up_rows()
            _solve_over_matrices(hard, ways, shares, n_threads, report)


class _Begun(NamedTuple):
    """A problem that is to be solved whole, and the steps that it took so far."""

    problem: QP
    n_iter: int = 0


def _solve_over_matrices(
    problems: Mapping[int, _Begun],
    ways: _Ways,
    shares: Shares,
    n_threads: int,
    report: Callable[[int, Solution], None],
) -> None:
    """Solve problems over their whole matrices, as many side by side as the budget holds; the largest first."""
    if not problems:
        return
    order = sorted(problems, key=lambda k: -problems[k].problem.n)
    largest = problems[order[0]].problem.n
    at_once = max(1, min(n_threads, len(order), int(ways.budget_mb / _whole_mb(largest, np.float32))))
    stop = threading.Event()

    def run(index: int) -> tuple[int, Solution]:
        clock = Clock(stop.is_set, shares.deadline([index], at_once))
        return index, ways.whole(problems[index], clock, at_once, all_threads=at_once < n_threads)

    with ThreadPoolExecutor(at_once) as workers:
        waiting = {workers.submit(run, index) for index in order}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
                for index, solution in sorted((future.result() for future in done), key=itemgetter(0)):
                    report(index, solution)
        except BaseException:  # an interrupt, or what a problem raised: the others end at their next look
            stop.set()
            for future in waiting:
                future.cancel()
            raise


def _whole_mb(n: int, dtype: Any) -> float:
    """Memory of a whole kernel matrix, and of the part of it that shrinking packs, in MB."""
    return (1 + SHRINKS_BELOW**2) * np.dtype(dtype).itemsize * n * n / _MB


class _Ways:
    """The ways to solve one problem, and from float32 to float64 in each."""

    def __init__(self, shared: _Shared, stopping: Stopping, budget_mb: float, pool: Executor | None) -> None:
        self.shared, self.stopping, self.budget_mb, self.pool = shared, stopping, budget_mb, pool
        self._local = threading.local()

    def fits(self, n: int, dtype: Any = np.float32, at_once: int = 1) -> bool:
        """Whether the budget holds the whole kernel matrices of so many problems of `n` variables."""
        return at_once * _whole_mb(n, dtype) <= self.budget_mb

    def growing(self, problem: QP, workspace: _Workspace, each_chunk: EachChunk, clock: Clock) -> Solution | _Begun:
        """On a working set; a problem that had better be solved whole comes back, begun."""
        n_iter = 0
        for dtype in (np.float32, np.float64) if self.shared.fits_float32 else (np.float64,):
            solver = self._on_working_set(problem, workspace, each_chunk, n_iter, dtype, self.fits(problem.n, dtype))
            found = solver.solve(clock)
            n_iter += found.n_iter
            problem = problem._replace(start=found.b)
            if solver.has_left:
                return _Begun(problem, n_iter)
            if not found.too_coarse or clock.says_stop():
                break
        return found._replace(n_iter=n_iter)

    def whole(self, begun: _Begun, clock: Clock, at_once: int, *, all_threads: bool) -> Solution:
        """Over the whole kernel matrix, in float32 if that is found to be fine enough, else in float64.

        Where `at_once` matrices in float64 would not fit the budget, float64 goes on a working set.
        """
        problem, n_iter = begun
        for dtype in (np.float32, np.float64) if self.shared.fits_float32 else (np.float64,):
            if self.fits(problem.n, dtype, at_once):
                found = self._over_whole_matrix(problem, dtype, n_iter, clock, all_threads)
            else:
                each_chunk = EachChunk(self.pool if all_threads else None)
                workspace = _Workspace(self.shared.plan)
                found = self._on_working_set(problem, workspace, each_chunk, n_iter, dtype, False).solve(clock)
            n_iter += found.n_iter
            problem = problem._replace(start=found.b)
            if not found.too_coarse or clock.says_stop():
                break
        return found._replace(n_iter=n_iter)

    def _steps_left(self, problem: QP, n_iter: int) -> int:
        return max(0, self.stopping.iterations_allowed(problem.n) - n_iter)

    def _on_working_set(
        self,
        problem: QP,
        workspace: _Workspace,
        each_chunk: EachChunk,
        n_iter: int,
        dtype: type,
        hands_over: bool,
    ) -> GrowingSolver:
        sides, K = self.shared.sides(problem.blocks, workspace, dtype)
        return GrowingSolver(
            problem, sides, K=K, tol=self.stopping.tol, steps=self._steps_left(problem, n_iter), each_chunk=each_chunk,
            error=self.shared.gradient_error(problem, dtype, self.stopping.tol), hands_over=hands_over,
        )  # fmt: skip

    def _over_whole_matrix(self, problem: QP, dtype: type, n_iter: int, clock: Clock, all_threads: bool) -> Solution:
        tol, pool = self.stopping.tol, self.pool if all_threads else None
        K = self._memory(problem.n, dtype)
        self.shared.fill(K, problem.rows(self.shared.blocks), pool, clock.interrupted)
        found = solve_whole(
            K, problem.p, problem.lower, problem.upper, np.zeros(problem.n) if problem.start is None else problem.start,
            tol=tol, steps=self._steps_left(problem, n_iter), pool=pool, stopped=clock.says_stop,
        )  # fmt: skip
        error = self.shared.gradient_error(problem, dtype, tol)
        rounding = error.remaining(found.beta, found.v, problem.lower, problem.upper, exact=dtype == np.float64)
        solution = make_solution(
            found.beta, found.v, problem.p, problem.lower, problem.upper,
            n_iter=found.n_iter, tol=tol, rounding=rounding, in_float64=dtype == np.float64,
        )  # fmt: skip
        return solution._replace(cut_off=clock.is_past() and found.gap > tol)

    def _memory(self, n: int, dtype: type) -> np.ndarray:
        """(n, n) values; the same memory for one problem of a thread after another."""
        size = n * n * np.dtype(dtype).itemsize
        held = getattr(self._local, "bytes", None)
        if held is None or len(held) < size:
            self._local.bytes = held = None  # before more is asked for
            self._local.bytes = held = np.empty(size, dtype=np.uint8)
        return held[:size].view(dtype).reshape(n, n)


_EXPONENTIAL_UNITS = 4.0
"""By how many times its unit roundoff the compiled float32 exponential is off."""

_SMALL_BYTES = 8 * 3 * SMALL**2
"""Memory in which a small problem is solved whole in float64: 6 MB."""


class _Workspace:
    """Memory that one problem after another uses: for its working set's kernel values, and for rows of its own."""

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


class _Shared:
    """What the problems of a block have in common: its operand, and rows from the block to itself."""

    def __init__(
        self,
        X: np.ndarray,
        blocks: Sequence[np.ndarray],
        kernel: Kernel,
        plan: MemoryPlan,
        pool: Executor | None,
    ) -> None:
        self.X, self.blocks, self.kernel, self.plan = X, blocks, kernel, plan
        self.operands: list[Operand] = []
        if kernel.precomputed:
            self.largest_norm, self.largest_value = 0.0, largest_entry(X)
            self.fits_float32 = bool(self.largest_value < np.finfo(np.float32).max)
        else:
            self.samples = Samples.of(X, kernel)
            self.largest_norm = float(self.samples.norms.max(initial=0.0)) / self.samples.scale**2
            self.fits_float32 = kernel.fits_float32(self.largest_norm)
            make = pool.map if pool is not None else map
            self.operands = list(make(lambda rows: make_operand(self.samples, rows), blocks))
        self.stores = [RowStore(len(m), len(m), rows) for m, rows in zip(blocks, plan.own_rows, strict=True)]
        self._exact: tuple[Samples, list[Operand]] | None = None
        self._making_exact = threading.Lock()

    def exact(self) -> tuple[Samples, list[Operand]]:
        """The samples and their operands in float64, made when a problem first needs them."""
        with self._making_exact:
            if self._exact is None:
                samples = Samples(self.X.astype(np.float64, copy=False))
                self._exact = samples, [BlasOperand(samples, rows) for rows in self.blocks]
        return self._exact

    def source(self, left: int, right: int, dtype: type) -> RowSource:
        """Kernel values in `dtype` from the samples of block `left` to those of block `right`."""
        if self.kernel.precomputed:
            return GivenRows(self.X, self.blocks[left], self.blocks[right])
        samples, operands = self.exact() if dtype == np.float64 else (self.samples, self.operands)
        return KernelRows(self.kernel, samples, self.blocks[left], operands[right])

    def sides(self, blocks: tuple[int, ...], workspace: _Workspace, dtype: type) -> tuple[list[Side], np.ndarray]:
        """The sides of a problem, with room for rows of `dtype`, and the memory for its working set's kernel values.

        Rows within a block are shared with its other problems in float32 alone: few problems need float64.
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
        """Let go of the rows within blocks: problems in float64, and those solved whole, do not use them."""
        self.stores = []

    def fill(self, K: np.ndarray, rows: np.ndarray, pool: Executor | None, interrupted: Callable[[], bool]) -> None:
        """Write the kernel values between all of `rows` (n,) to K (n, n), in K's precision, unless interrupted."""
        if self.kernel.precomputed:
            K[:] = self.X[np.ix_(rows, rows)]
            return
        samples = self.exact()[0] if K.dtype == np.float64 else self.samples
        kernel_matrix(self.kernel, samples, rows, K, pool, interrupted)

    def gradient_error(self, problem: QP, dtype: type, tol: float) -> GradientError:
        """How to tell whether kernel values of `dtype` are fine enough for the problem."""
        rows, kernel = problem.rows(self.blocks), self.kernel

        def exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            if kernel.precomputed:
                return self.X[np.ix_(rows[left], rows[right])].astype(np.float64)
            return kernel(self.X[rows[left]].astype(np.float64), self.X[rows[right]].astype(np.float64))

        work = 1 if kernel.precomputed else self.X.shape[1]
        return GradientError(self.value_error(dtype), exact, work, problem.p, tol)

    def value_error(self, dtype: type) -> float:
        """About how far rounding puts kernel values of `dtype` off."""
        if self.kernel.precomputed:
            return float(np.finfo(dtype).eps) / 2 * self.largest_value
        if dtype == np.float32 and (self.samples.pixels is not None or self.samples.X.dtype == np.float64):
            # Products are exact, or in float64: what is left of an RBF value is the rounding of its exponential.
            norm = 0.0 if self.kernel.name == "rbf" else self.largest_norm
            return _EXPONENTIAL_UNITS * self.kernel.value_error(norm, dtype)
        return self.kernel.value_error(self.largest_norm, dtype)


class _Schedule:
    """Runs the problems on threads, those of each block one after another in the order of the tournament."""

    def __init__(
        self,
        problems: Mapping[int, QP],
        n_blocks: int,
        plan: MemoryPlan,
        shares: Shares,
        solve: Callable[[QP, _Workspace, Clock], Solution | _Begun],
    ) -> None:
        self.problems, self.plan, self.shares, self.solve = problems, plan, shares, solve
        place: dict[tuple[int, ...], int] = {pair: k for k, pair in enumerate(tournament(n_blocks))}
        self.waiting = sorted(problems, key=lambda k: place.get(tuple(sorted(problems[k].blocks)), -1))
        self.turns: list[list[int]] = [[] for _ in range(n_blocks)]
        for k in self.waiting:
            for block in set(problems[k].blocks):
                self.turns[block].append(k)
        self.changed = threading.Condition()
        self.finished: list[tuple[int, Solution | _Begun]] = []
        self.failure: BaseException | None = None
        self.stop = False

    def run(self, report: Callable[[int, Solution], None]) -> dict[int, _Begun]:
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
        return {index: left for index, left in self.finished if isinstance(left, _Begun)}

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
        """The first waiting problem whose turn it is for all of its blocks, and its deadline; None at the end."""
        with self.changed:
            while self.waiting and not self.stop:
                for index in self.waiting:
                    if all(self.turns[block][0] == index for block in self.problems[index].blocks):
                        self.waiting.remove(index)
                        return index, self.shares.deadline([index], self.plan.n_side_by_side)
                self.changed.wait(_WAIT_SECONDS)
            return None

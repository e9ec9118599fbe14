"""Problems of moderate size, one after another in compiled code: for the pairs of many classes.

Each is solved over all of its kernel values, which are computed when a step first needs them
(`on_demand`), along the same path and to the same bits as on an active set. What differs is what
surrounds the steps: of letter's 325 pairs a third of the time was Python between two of them, and
two threads waited for each other's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from gpusvm.kernels import MOST_SPREAD
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution
from gpusvm.solver.compilation import compiled
from gpusvm.solver.iterate import Begun
from gpusvm.solver.kernel_of_blocks import KernelOfBlocks
from gpusvm.solver.kernel_rows import kernel_numbers
from gpusvm.solver.on_demand import LONGEST, NONE, RowsOnDemand, diagonal
from gpusvm.solver.operands import Operand, TileOperand
from gpusvm.solver.panels import PANEL_WIDTH
from gpusvm.solver.precision import ALLOWED, ALLOWED_DRIFT, drift_of
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.stack import Stack, outcome_of, stacked
from gpusvm.solver.tiles import pack_columns
from gpusvm.solver.working_set import AT_ONCE, STEPS_AT_ONCE

CHUNKS_PER_THREAD = 8
"""Parts into which a thread's share of the problems is cut: at the end none waits long for the
last one."""


def serves(problem: QP, values: KernelOfBlocks, operands: Sequence[Operand]) -> bool:
    """Whether a problem can be solved here, all of its variables at once.

    It must begin at zero, and its samples must be dense, of few numbers. A regression comes alone,
    and gains nothing by it.
    """
    if problem.start is not None or problem.epsilon > 0 or problem.n > AT_ONCE:
        return False
    if values.kernel.precomputed or not values.fits_float32:
        return False
    used = [operands[block] for block in problem.blocks]
    return all(isinstance(operand, TileOperand) and operand.n_features <= LONGEST for operand in used)


def solve_batches(
    values: KernelOfBlocks,
    problems: Mapping[int, QP],
    stopping: Stopping,
    *,
    n_threads: int,
    report: Callable[[int, Solution], None],
) -> dict[int, Begun]:
    """Solve `problems`, calling ``report(index, solution)`` for each in the caller's thread.

    Parameters
    ----------
    values : KernelOfBlocks
        All of whose problems `serves` takes.
    problems : mapping of int to QP
        By their places.
    stopping : Stopping
        Without a time limit: between two problems nothing is looked at.
    n_threads : int
    report : callable

    Returns
    -------
    dict of int to Begun
        The problems that need many steps, or better kernel values.
    """
    order = sorted(problems, key=lambda index: -problems[index].n)
    n_threads = min(n_threads, len(order))
    n_chunks = min(len(order), n_threads * CHUNKS_PER_THREAD)
    chunks = [order[c::n_chunks] for c in range(n_chunks)]
    solver = _Solver(values, stopping)
    left: dict[int, Begun] = {}
    ended: SimpleQueue[tuple[list[int], Future[list[Solution | Begun]]]] = SimpleQueue()

    def keep(chunk: list[int], future: Future[list[Solution | Begun]]) -> None:
        ended.put((chunk, future))

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for chunk in chunks:
                chosen = [problems[index] for index in chunk]
                pool.submit(solver.solve, chosen).add_done_callback(partial(keep, chunk))
            for _ in chunks:
                chunk, future = ended.get()
                for index, found in zip(chunk, future.result(), strict=True):
                    if isinstance(found, Begun):
                        left[index] = found
                    else:
                        report(index, found)
        except BaseException:  # an interrupt, or what a thread raised: the others end after some steps
            solver.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return left


class _Solver:
    """What the chunks have in common."""

    def __init__(self, values: KernelOfBlocks, stopping: Stopping) -> None:
        self.values, self.stopping, self.stop = values, stopping, threading.Event()
        self.samples = values.samples
        self.norms = self.samples.real_norms(np.arange(len(self.samples.X)))
        self.numbers = kernel_numbers(values.kernel, self.norms.dtype, 1.0, np.float32)
        self._local = threading.local()

    def solve(self, problems: list[QP]) -> list[Solution | Begun]:
        rows = np.concatenate([problem.rows(self.values.blocks) for problem in problems])
        stack = stacked(problems, rows, self.stopping)
        v, samples = stack.p.copy(), (self.samples.X, self.norms, self.numbers)
        K, first = self._memory(int(stack.sizes().max())), 0
        while first < len(problems) and not self.stop.is_set():
            first = _solve_some(*samples, stack, v, self.stopping.tol, K, first, STEPS_AT_ONCE)
        return self._judged(problems, stack, v)

    def _memory(self, n: int) -> np.ndarray:
        """At least n rows of n values: the same memory for one chunk of a thread after another."""
        size = n * (-(-n // PANEL_WIDTH) * PANEL_WIDTH)
        held: np.ndarray = getattr(self._local, "values", np.empty(0, dtype=np.float32))
        if len(held) < size:
            self._local.values = held = np.empty(size, dtype=np.float32)
        return held

    def _judged(self, problems: list[QP], stack: Stack, v: np.ndarray) -> list[Solution | Begun]:
        """The solutions, and the problems not solved; `v` are the gradients, as `stack.p`."""
        bounds = MOST_SPREAD * self.values.value_error(np.float32) * stack.norms()
        columns = (stack.starts[:-1], stack.starts[1:], stack.taken, bounds, stack.outcome)
        judged: list[Solution | Begun] = []
        for problem, start, end, n_iter, bound, (bias, gap, objective, is_done) in zip(
            problems, *(column.tolist() for column in columns), strict=True
        ):
            own_b = stack.b[start:end]
            begun = problem._replace(start=own_b)
            if not is_done:
                judged.append(Begun(begun, n_iter))
            elif bound > ALLOWED * self.stopping.tol and self._is_too_coarse(problem, own_b, v[start:end]):
                judged.append(Begun(begun, n_iter, in_float64=True))
            else:
                judged.append(Solution(b=own_b, bias=bias, n_iter=n_iter, kkt_gap=gap, objective=objective,
                                       converged=gap <= self.stopping.tol))  # fmt: skip
        return judged

    def _is_too_coarse(self, problem: QP, b: np.ndarray, v: np.ndarray) -> bool:
        error = self.values.gradient_error(problem, np.float32, self.stopping.tol)
        return error.rounding(b, v, problem.lower, problem.upper, exact=False) > 0.0


@compiled()
def _solve_some(
    X: np.ndarray,
    norms: np.ndarray,
    numbers: tuple[Any, ...],
    stack: Stack,
    v: np.ndarray,
    tol: float,
    flat: np.ndarray,
    first: int,
    allowed: int,
) -> int:
    """Solve the problems from `first` on, until `allowed` steps are taken.

    Returns the place of the first problem that was not begun. Samples are rows of X (n, d)
    float32, of squared norms `norms` (n,). Coefficients, steps, outcomes and the gradients `v`
    (m,) are written. Of an outcome the last is 1 where the problem is done: one of more than
    `allowed` steps is not, nor one whose gradient may have drifted, nor one where rounding allows
    no further step. `flat` is room for the kernel values of any of the problems.
    """
    k, steps_left = first, allowed
    while k < stack.taken.shape[0] and steps_left > 0:
        start, end = stack.starts[k], stack.starts[k + 1]
        n, own, linear = end - start, stack.rows[start:end], stack.p[start:end]
        low, up, beta, gradient = stack.lower[start:end], stack.upper[start:end], stack.b[start:end], v[start:end]
        left, own_norms = np.empty((n, X.shape[1]), X.dtype), np.empty(n, norms.dtype)
        for r in range(n):
            for c in range(X.shape[1]):
                left[r, c] = X[own[r], c]
            own_norms[r] = norms[own[r]]
        n_panels = -(-n // PANEL_WIDTH)
        panels = np.empty((n_panels, PANEL_WIDTH * X.shape[1]), X.dtype)
        pack_columns(left, panels)
        width = n_panels * PANEL_WIDTH
        inner = np.empty((1, width), norms.dtype)
        place, n_there = np.full(n, -1, np.int64), np.zeros(1, np.int64)
        on_demand = RowsOnDemand(numbers, left, panels, own_norms, inner, place, n_there)
        own_diagonal = diagonal(on_demand).astype(np.float64)
        K = flat[: n * width].reshape(n, width)
        now = min(stack.steps[k], allowed)
        taken = solve_working_set(K, own_diagonal, beta, gradient, low, up, tol, now, on_demand, NONE)
        stack.taken[k] = taken
        steps_left -= taken
        bias, gap, objective = outcome_of(beta, gradient, linear, low, up, 0.0)
        drift = drift_of(gradient, own_diagonal, low, up, taken)
        is_done = drift <= ALLOWED_DRIFT * tol if gap <= tol else taken == stack.steps[k]
        outcome = stack.outcome[k]
        outcome[0], outcome[1], outcome[2], outcome[3] = bias, gap, objective, is_done
        k += 1
    return k

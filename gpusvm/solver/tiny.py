"""Many problems of a few hundred variables each, one after another in compiled code.

A problem's kernel matrix is gathered from one over all samples, and the problem is solved in
float64 from start to end, along LIBSVM's own path. Nothing of Python runs between two problems:
200 classes are 19,900 of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpusvm.kernels import MOST_SPREAD, Kernel, largest_entry, largest_norm, squared_norms
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution
from gpusvm.solver.clock import Clock, Shares
from gpusvm.solver.compilation import compiled
from gpusvm.solver.kernel_rows import write_kernel
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.precision import ALLOWED
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.stack import Stack, outcome_of, stacked
from gpusvm.solver.working_set import STEPS_AT_ONCE
from gpusvm.sparse import inner_products, is_sparse, most_entries, unpacked_if_smaller

CHUNK_VALUES = 2**21
"""Kernel values of the problems of one compiled call: some hundredths of a second between two
looks around."""

_MOST_FAILED = 4
"""Gaps in a row, none much smaller than one before, after which a problem is given up."""

STRIP_ROWS = 128
"""Rows of kernel values computed together."""

STARTS_THREADS = 768
"""Rows from which on starting threads for their kernel values pays."""

SHARED_SAMPLES = 4096
"""Samples whose kernel values against each other are computed at once: 128 MB."""


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Problems for one compiled call.

    Their places, the matrix of kernel values, and the row of each variable in it.
    """

    indices: list[int]
    matrix: Callable[[], np.ndarray]
    rows: np.ndarray


def solve_tiny(
    X: np.ndarray,
    blocks: Sequence[np.ndarray],
    problems: Mapping[int, QP],
    kernel: Kernel,
    stopping: Stopping,
    shares: Shares,
    *,
    n_threads: int,
    report: Callable[[int, Solution], None],
) -> None:
    """Solve `problems`, calling ``report(index, solution)`` for each, in their order.

    It is called in the caller's thread. Parameters are those of `gpusvm.solver.solve`, with
    `problems` by their places, and the `shares` of the time. The result of a problem depends on
    nothing but the problem.
    """
    chunks = list(_chunks(X, blocks, problems, kernel, n_threads))
    value_error = _value_error(X, kernel)
    n_threads = min(n_threads, len(chunks))
    stop = threading.Event()

    def run(chunk: _Chunk) -> list[Solution]:
        clock = Clock(stop.is_set, shares.deadline(chunk.indices, n_threads))
        return _solve_chunk([problems[index] for index in chunk.indices], chunk, stopping, clock, value_error)

    def report_all(solved: Iterable[list[Solution]]) -> None:
        for chunk, solutions in zip(chunks, solved, strict=True):
            for index, solution in zip(chunk.indices, solutions, strict=True):
                report(index, solution)

    if n_threads == 1:
        report_all(map(run, chunks))
        return
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            report_all(pool.map(run, chunks))
        except BaseException:  # an interrupt: what is under way ends soon, what waits is not begun
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _chunks(
    X: np.ndarray, blocks: Sequence[np.ndarray], problems: Mapping[int, QP], kernel: Kernel, n_threads: int
) -> Iterable[_Chunk]:
    """The problems cut into calls.

    One matrix serves them all where their samples are few enough, else each has its own.
    """
    used = sorted({block for problem in problems.values() for block in problem.blocks})
    n_samples = sum(len(blocks[block]) for block in used)
    if kernel.precomputed:
        places = dict(enumerate(blocks))
        # Those that are float64 and may be written are of one type, whatever X is: Numba compiles
        # once.
        given = np.require(X, np.float64, ["C", "W"]) if len(X) <= SHARED_SAMPLES else X
        yield from _cut(problems, places, CHUNK_VALUES, lambda: given)
    elif n_samples <= SHARED_SAMPLES:
        ends = np.cumsum([len(blocks[block]) for block in used])
        places = {block: np.arange(end - len(blocks[block]), end) for block, end in zip(used, ends, strict=True)}
        shared = matrix_of(X, np.concatenate([blocks[block] for block in used]), kernel, n_threads)
        yield from _cut(problems, places, CHUNK_VALUES, lambda: shared)
    else:
        for index, problem in problems.items():
            rows = problem.rows(blocks)
            yield _Chunk([index], lambda rows=rows: matrix_of(X, rows, kernel), np.arange(problem.n))  # type: ignore[misc]


def matrix_of(X: np.ndarray, rows: np.ndarray, kernel: Kernel, n_threads: int = 1) -> np.ndarray:
    """Kernel values (n, n) float64 between all of these rows (n,).

    Some rows are computed at a time, which then stay in cache.
    """
    # Sparse samples of no more features than there are kernel values to a row may as well be an
    # array.
    samples = unpacked_if_smaller(X[rows].astype(np.float64), 8 * len(rows) ** 2)
    norms, places, out = squared_norms(samples), np.arange(len(rows)), np.empty((len(rows), len(rows)))

    def strip(start: int) -> None:
        part = slice(start, start + STRIP_ROWS)
        inner = inner_products(samples[part], samples) if is_sparse(samples) else samples[part] @ samples.T
        write_kernel(kernel, inner, 1.0, norms[part], norms, out, places[part], 0)

    starts = range(0, len(rows), STRIP_ROWS)
    if n_threads == 1 or len(rows) < STARTS_THREADS:
        for start in starts:
            strip(start)
    else:
        with ThreadPoolExecutor(min(n_threads, len(starts))) as pool:
            list(pool.map(strip, starts))
    return out


def _cut(
    problems: Mapping[int, QP], places: dict[int, np.ndarray], size: int, matrix: Callable[[], np.ndarray]
) -> Iterable[_Chunk]:
    """Consecutive problems, about `size` kernel values together, all of one matrix."""
    indices: list[int] = []
    rows: list[np.ndarray] = []
    values = 0
    for index, problem in problems.items():
        indices.append(index)
        rows += [places[block] for block in problem.blocks]
        values += problem.n**2
        if values >= size:
            yield _Chunk(indices, matrix, np.concatenate(rows))
            indices, rows, values = [], [], 0
    if indices:
        yield _Chunk(indices, matrix, np.concatenate(rows))


def _value_error(X: np.ndarray, kernel: Kernel) -> float:
    """`Kernel.value_error` of the float64 values."""
    if kernel.precomputed:
        return float(np.finfo(np.float64).eps) / 2 * largest_entry(X)
    return kernel.value_error(largest_norm(X), np.float64, most_entries(X))


def _solve_chunk(
    problems: list[QP], chunk: _Chunk, stopping: Stopping, clock: Clock, value_error: float
) -> list[Solution]:
    stack = stacked(problems, chunk.rows, stopping)
    K, first, hurried = chunk.matrix(), 0, False
    while first < len(problems) and not clock.interrupted():
        if clock.is_past() and not hurried:
            # A step for each variable still, so that every problem has a solution that is better
            # than none.
            hurried = True
            np.minimum(stack.steps, stack.taken + stack.sizes(), out=stack.steps)
        first = solve_stack(K, stack, stopping.tol, first, len(problems), STEPS_AT_ONCE)
    rounding = MOST_SPREAD * value_error * stack.norms()
    coarse = rounding > ALLOWED * stopping.tol
    columns = (stack.starts[:-1], stack.starts[1:], stack.outcome, stack.taken, rounding, coarse)
    return [
        Solution(
            b=stack.b[start:end],
            bias=bias,
            n_iter=n_iter,
            kkt_gap=gap + 2 * error if too_coarse else gap,
            objective=objective,
            converged=gap <= stopping.tol and not too_coarse,
            too_coarse=too_coarse or ended == _STUCK,
            in_float64=True,
            cut_off=hurried and ended == _LAST_STEP,
        )
        for start, end, (bias, gap, objective, ended), n_iter, error, too_coarse in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


_REACHED, _LAST_STEP, _STUCK = 0.0, 1.0, 2.0
"""How a problem ended: at its tolerance, after its last step, or where rounding allows no further
step."""


@compiled()
def solve_stack(K: np.ndarray, stack: Stack, tol: float, first: int, last: int, allowed: int) -> int:
    """Solve problems `first` to `last`; returns the first that is not done.

    It ends once `allowed` steps are taken. `K` (n, n) float64 are kernel values between samples.
    Coefficients, steps taken and outcomes are written to the stack; bias, gap and objective are
    from a gradient recomputed at the end.
    """
    for k in range(first, last):
        start, end = stack.starts[k], stack.starts[k + 1]
        n, kink, steps = end - start, stack.epsilon[k], stack.steps[k]
        own, linear = stack.rows[start:end], stack.p[start:end]
        low, up, beta = stack.lower[start:end], stack.upper[start:end], stack.b[start:end]
        taken, outcome = stack.taken[k : k + 1], stack.outcome[k]
        values = np.empty((n, n), dtype=np.float64)
        diagonal, v = np.empty(n), np.empty(n)
        for i in range(n):
            source = K[own[i]]
            for j in range(n):
                values[i, j] = source[own[j]]
            diagonal[i] = values[i, i]
        ended, most, least, n_failed, smallest = _STUCK, 0.0, 0.0, 0, np.inf
        while True:
            for i in range(n):
                v[i] = linear[i]
            for j in range(n):
                if beta[j] != 0.0:
                    for i in range(n):
                        v[i] -= beta[j] * values[j, i]
            most, least = -np.inf, np.inf
            for i in range(n):
                if beta[i] < up[i]:
                    most = max(most, v[i] + kink if beta[i] < 0.0 else v[i] - kink)
                if beta[i] > low[i]:
                    least = min(least, v[i] - kink if beta[i] > 0.0 else v[i] + kink)
            gap = most - least
            n_failed = 0 if gap < 0.9 * smallest else n_failed + 1
            smallest = min(smallest, gap)
            if gap <= tol:
                ended = _REACHED
            elif taken[0] >= steps:
                ended = _LAST_STEP
            elif n_failed < _MOST_FAILED:
                if allowed <= 0:
                    return k
                now = min(steps - taken[0], allowed)
                if kink > 0.0:
                    moved = solve_working_set(values, diagonal, beta, v, low, up, tol, now, NONE, (kink,))
                else:
                    moved = solve_working_set(values, diagonal, beta, v, low, up, tol, now, NONE, NONE)
                taken[0] += moved
                allowed -= moved
                if moved == now:
                    n_failed = 0  # it was stopped, not stuck
                continue
            break
        outcome[0], outcome[1], outcome[2] = outcome_of(beta, v, linear, low, up, kink)
        outcome[3] = ended
    return last

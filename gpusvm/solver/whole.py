"""One problem whose whole kernel matrix is in memory: SMO over all of it, with shrinking.

Where many variables end up between their bounds, a working set that is exchanged again and again
costs more than steps over all variables. Most variables at a bound stay there, though, so from time
to time the matrix is shrunk to the others (Joachims 1998): their values are packed into memory of
their own, in which rows are short and close together. When the shrunk problem is solved, the
gradient of all variables is computed anew, in float64, and the gap is checked over all of them. If
some variable was given up too early, they all come back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.kernel_rows import EachChunk, subtract_combination, write_kernel
from gpusvm.solver.operands import Samples, make_operand
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.working_set import Verified

TILE = 512
"""Rows and columns of the kernel matrix that are computed together, and mirrored while they are in cache."""

STEPS_AT_ONCE = 1000
"""Steps between two looks at whether to stop, and at what may be given up: LIBSVM's interval. A step
over 30,000 variables takes some 15 microseconds."""

LEAST_SHRUNK = 1000
"""Variables below which shrinking does not pay: their rows stay in cache as they are."""

SHRINKS_BELOW = 0.6
"""Share of the variables that must be left for packing them to pay. With 0.8 the first packed matrix
is nearly as large as the whole, and memory touched for the first time costs more than is saved."""


PACKING_COST = 12.0
"""What packing a kernel value costs, in variables' parts of a step: 1.5 against 0.35 ns, and as much again and more for
memory touched for the first time. Packing waits until the steps taken have cost as much: so it never costs more than
they do, however many are still to come."""


@dataclass(frozen=True, eq=False)
class WholeResult:
    """The solution.

    Attributes
    ----------
    beta : (n,) float64 array
    v : (n,) float64 array
        The gradient p - K beta, recomputed from K and beta.
    n_iter : int
        Steps of SMO.
    gap : float
        max(v[up]) - min(v[low]) over all variables.
    converged : bool
        Whether the gap is within the tolerance.
    """

    beta: np.ndarray
    v: np.ndarray
    n_iter: int
    gap: float
    converged: bool


def extremes(b: np.ndarray, v: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """The largest v of those that may grow, and the smallest of those that may shrink; all arrays (n,)."""
    return float(v[b < upper].max(initial=-np.inf)), float(v[b > lower].min(initial=np.inf))


def solve_whole(
    K: np.ndarray,
    p: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    beta: np.ndarray,
    *,
    tol: float,
    steps: int,
    pool: Executor | None = None,
    memory: np.ndarray | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> WholeResult:
    """Maximise p'b - 1/2 b'K b with lower <= b <= upper and the sum that `beta` has.

    The result is the same to the last bit for any number of threads.

    Parameters
    ----------
    K : (n, >= n) array, float32 or float64, C order
        Symmetric; columns from n on are not looked at.
    p, lower, upper : (n,) float64 arrays
    beta : (n,) float64 array
        Where to begin: within the bounds.
    tol : float
        Largest gap left.
    steps : int
        Steps of SMO allowed.
    pool : Executor, optional
        Threads to compute gradients and to pack matrices with. None of them may be the caller's.
    memory : one-dimensional array of K's dtype, optional
        Where to pack matrices, if it is large enough: 0.36 n (n + 25) values always are. Problems
        that follow each other save much time by sharing it. Its contents are lost.
    stopped : callable
        Asked every thousand steps; where it says so, the result is what there is.
    """
    problem = _Problem(K, p, lower, upper, beta.astype(np.float64), EachChunk(pool), memory)
    verified = Verified()
    while True:
        taken = problem.optimise(tol, steps - problem.n_iter, stopped)
        problem.recompute_gradient()
        gap = problem.gap()
        if gap <= tol or taken == 0 or problem.n_iter >= steps or stopped() or verified.no_longer_falls(gap):
            return WholeResult(problem.beta, problem.v, problem.n_iter, gap, gap <= tol)


class _Problem:
    """The state of a problem that is being solved, and what can be done with it."""

    def __init__(
        self,
        K: np.ndarray,
        p: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        beta: np.ndarray,
        each_chunk: EachChunk,
        memory: np.ndarray | None,
    ) -> None:
        self.K, self.p, self.lower, self.upper, self.beta = K, p, lower, upper, beta
        self.diagonal = np.diagonal(K).astype(np.float64)
        self.each_chunk = each_chunk
        self.n_iter = 0
        self.packed = np.empty(0, dtype=K.dtype) if memory is None else memory
        self.recompute_gradient()

    def gap(self) -> float:
        most, least = extremes(self.beta, self.v, self.lower, self.upper)
        return most - least

    def recompute_gradient(self) -> None:
        """v = p - K beta, from the rows of what is not zero."""
        self.v = self.p.astype(np.float64)
        support = np.flatnonzero(self.beta)
        coefficients = self.beta[support]
        if len(support):
            self.each_chunk(
                lambda start, stop: subtract_combination(
                    self.K[:, start:stop], support, coefficients, self.v[start:stop]
                ),
                len(self.v),
            )

    def optimise(self, tol: float, steps: int, stopped: Callable[[], bool]) -> int:
        """SMO, first on all variables and then on fewer and fewer. Returns the steps taken.

        On return beta is that of all variables, and v of those that are left.
        """
        rounding = np.finfo(np.float64).eps * (1.0 + np.abs(self.beta).max() * np.abs(self.diagonal).max())
        tol = max(tol, rounding)
        active = np.arange(len(self.beta))
        part = _Part(self, active, self.K)
        taken, since_packing = 0, 0
        while taken < steps and not stopped():
            allowed = min(steps - taken, STEPS_AT_ONCE)
            done = solve_working_set(part.K, part.diagonal, part.beta, part.v, part.lower, part.upper, tol, allowed)
            taken += done
            since_packing += done
            if done < allowed:
                break
            left = part.not_given_up()
            n_left = int(np.count_nonzero(left))
            pays = since_packing * len(active) >= PACKING_COST * n_left**2
            if len(active) > LEAST_SHRUNK and n_left < SHRINKS_BELOW * len(active) and pays:
                since_packing = 0
                self.beta[active], self.v[active] = part.beta, part.v
                active = active[left]
                part = _Part(self, active, self.pack(active))
        self.beta[active], self.v[active] = part.beta, part.v
        self.n_iter += taken
        return taken

    def pack(self, active: np.ndarray) -> np.ndarray:
        """The kernel values of some variables, in rows that begin at multiples of 64 bytes from each other."""
        q = len(active)
        width = -(-q // 16) * 16
        if len(self.packed) < q * width:
            self.packed = np.empty(q * width, dtype=self.K.dtype)
        packed = self.packed[: q * width].reshape(q, width)
        self.each_chunk(lambda start, stop: _pack(self.K, active, packed, start, stop), q)
        return packed


class _Part:
    """Some variables of a problem, with arrays of their own."""

    def __init__(self, problem: _Problem, active: np.ndarray, K: np.ndarray) -> None:
        self.K = K
        self.beta, self.v, self.lower, self.upper, self.diagonal = (
            array[active] for array in (problem.beta, problem.v, problem.lower, problem.upper, problem.diagonal)
        )

    def not_given_up(self) -> np.ndarray:
        """Which variables are between their bounds, or at one but on the wrong side of the gap."""
        most, least = extremes(self.beta, self.v, self.lower, self.upper)
        stays_low = (self.beta <= self.lower) & (self.v < least)
        stays_high = (self.beta >= self.upper) & (self.v > most)
        return ~(stays_low | stays_high)


@compiled()
def _pack(K: np.ndarray, active: np.ndarray, into: np.ndarray, start: int, stop: int) -> None:
    q = active.shape[0]
    for r in range(start, stop):
        source, target = K[active[r]], into[r]
        for c in range(q):
            target[c] = source[active[c]]
        for c in range(q, into.shape[1]):
            target[c] = 0.0


def kernel_matrix(
    kernel: Kernel,
    samples: Samples,
    rows: np.ndarray,
    out: np.ndarray,
    pool: Executor | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Kernel values between all of some samples.

    Each value is computed once: tiles above the diagonal are mirrored while they are in cache. The bits
    are the same for any number of threads, and the matrix is symmetric to the last bit.

    Parameters
    ----------
    kernel : Kernel
    samples : Samples
    rows : (n,) int64 array
        Which of the samples.
    out : (n, >= n) array, float32 or float64, C order
    pool : Executor, optional
    stopped : callable
        Asked before each tile; where it says so, the matrix is left unfinished.
    """
    n = len(rows)
    operand = make_operand(samples, rows)

    def strip(start: int) -> None:
        members = np.arange(start, min(start + TILE, n))
        products = operand.products(samples, rows[members])
        for left in range(start, n, TILE):
            if stopped():
                return
            right = min(left + TILE, n)
            inner = products.columns(left, right)
            norms = products.norms, operand.norms[left:right]
            write_kernel(kernel, inner, operand.unit, *norms, out, members, left)
            _mirror(out, start, members[-1] + 1, left, right)

    starts = range(0, n, TILE)
    if pool is None:
        for start in starts:
            strip(start)
    else:
        list(pool.map(strip, starts))


@compiled()
def _mirror(K: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
    """Write the tile K[top:bottom, left:right], on or above the diagonal, to the other side of it.

    In squares of 16: a cache line each, instead of single numbers far apart.
    """
    for r in range(top, bottom, 16):
        for c in range(max(left, r), right, 16):
            for k in range(c, min(c + 16, right)):
                mirror = K[k]
                for across in range(r, min(r + 16, bottom, k)):
                    mirror[across] = K[across, k]

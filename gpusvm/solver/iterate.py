"""Where a solver is in one problem: coefficients and gradient, and what they say.

All arrays are (n,) float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set


class Begun(NamedTuple):
    """A problem that is to be solved on an active set, and its steps so far.

    `in_float64` says whether float32 is too coarse for it.
    """

    problem: QP
    n_iter: int = 0
    in_float64: bool = False


class Iterate:
    """The coefficients b of a problem, and the gradient v = p - K b without what `epsilon` adds.

    Parameters
    ----------
    problem : QP
        Begins at its start, or at zero; the gradient is that of zero until somebody computes it.

    Attributes
    ----------
    n : int
    p, lower, upper : (n,) float64 arrays
        Of the problem.
    epsilon : float
        Of the problem.
    kink : tuple
        The same for `solve_working_set`.
    b, v : (n,) float64 arrays
    n_iter : int
        Steps of SMO so far.
    """

    def __init__(self, problem: QP) -> None:
        self.n, self.p, self.lower, self.upper = problem.n, problem.p, problem.lower, problem.upper
        self.epsilon = problem.epsilon
        self.kink: tuple[float] | tuple[()] = (self.epsilon,) if self.epsilon > 0 else ()
        self.b = np.zeros(self.n) if problem.start is None else problem.start.copy()
        self.v = self.p.copy()
        self.n_iter = 0

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """b, v, the bounds and epsilon."""
        return self.b, self.v, self.lower, self.upper, self.epsilon

    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """The same as `working_set` wants them: with an axis for the problem, (1, n) each."""
        return self.b[None, :], self.v[None, :], self.lower[None, :], self.upper[None, :], self.epsilon

    def objective(self) -> float:
        """The dual objective, which every step of SMO raises but for rounding."""
        return float((self.b * (self.p + self.v)).sum() / 2 - self.epsilon * np.abs(self.b).sum())

    def gap(self) -> float:
        """The largest violation of the optimality conditions (Keerthi et al. 2001)."""
        most, least = working_set.extremes(*self.state())
        return float(most[0] - least[0])

    def solution(self, tol: float, *, rounding: float, in_float64: bool) -> Solution:
        """What there is to say of the problem.

        `rounding` is by how much the gradient may be off, where that is more than `tol` allows;
        else 0.
        """
        found = figures(self.b, self.v, self.p, self.lower, self.upper, self.epsilon)
        return solution_of(self.b, found, n_iter=self.n_iter, tol=tol, rounding=rounding, in_float64=in_float64)


class Figures(NamedTuple):
    """What a problem's solution is told by.

    Attributes
    ----------
    most, least : float
        The largest slope of the objective of those variables that may grow, and the smallest of
        those that may shrink; infinite where there are none.
    slopes : float
        Sum of the slopes of those that are free.
    n_free : int
        How many those are.
    objective : float
    """

    most: float
    least: float
    slopes: float
    n_free: int
    objective: float

    @property
    def gap(self) -> float:
        """The largest violation of the optimality conditions.

        0 where nothing may grow, or nothing shrink.
        """
        gap = self.most - self.least
        return gap if np.isfinite(gap) else 0.0


def figures(
    b: np.ndarray, v: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray, epsilon: float = 0.0
) -> Figures:
    """Those of a problem with the gradient v at b; all arrays (n,) float64."""
    grow, shrink = working_set.slopes(b, v, lower, upper, epsilon)
    free = working_set.free(b, lower, upper, epsilon)
    # K b = p - v, so b' K b needs no kernel value. Sums, not BLAS, which would wake its threads
    # for each pair.
    quadratic = float((b * (p - v)).sum())
    return Figures(
        most=float(grow.max(initial=-np.inf)),
        least=float(shrink.min(initial=np.inf)),
        slopes=float(grow[free].sum()),
        n_free=int(np.count_nonzero(free)),
        objective=float((b * p).sum() - epsilon * np.abs(b).sum() - quadratic / 2),
    )


def solution_of(
    b: np.ndarray, figures: Figures, *, n_iter: int, tol: float, rounding: float = 0.0, in_float64: bool = False
) -> Solution:
    """What there is to say of a problem that was solved, (n,) float64 `b`.

    `rounding` is by how much the gradient may be off, where that is more than the tolerance
    allows; else 0.
    """
    most, least = figures.most, figures.least
    if figures.n_free:
        bias = figures.slopes / figures.n_free
    else:  # the middle of the interval that optimality allows; its end where it has but one
        bias = least if most == -np.inf else most if least == np.inf else (most + least) / 2
    return Solution(
        b=b,
        bias=bias,
        n_iter=n_iter,
        kkt_gap=figures.gap + 2 * rounding,
        objective=figures.objective,
        converged=most - least <= tol and rounding == 0.0,
        too_coarse=rounding > 0.0,
        in_float64=in_float64,
    )


def make_solution(
    problem: QP,
    b: np.ndarray,
    v: np.ndarray,
    *,
    n_iter: int,
    tol: float,
    rounding: float = 0.0,
    in_float64: bool = False,
) -> Solution:
    """`solution_of` a problem with the gradient v at b; all arrays (n,) float64."""
    found = figures(b, v, problem.p, problem.lower, problem.upper, problem.epsilon)
    return solution_of(b, found, n_iter=n_iter, tol=tol, rounding=rounding, in_float64=in_float64)

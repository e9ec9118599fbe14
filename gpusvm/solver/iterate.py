"""Where a solver is in one problem: coefficients and gradient, and what they say. All arrays are (n,) float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set


class Begun(NamedTuple):
    """A problem that is to be solved on an active set, its steps so far, and whether float32 is too coarse for it."""

    problem: QP
    n_iter: int = 0
    in_float64: bool = False


class Iterate:
    """The coefficients b of a problem, and the gradient v = p - K b at them, without what `epsilon` adds to it.

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

        `rounding` is by how much the gradient may be off, where that is more than `tol` allows; else 0.
        """
        return make_solution(
            self.b, self.v, self.p, self.lower, self.upper, epsilon=self.epsilon,
            n_iter=self.n_iter, tol=tol, rounding=rounding, in_float64=in_float64,
        )  # fmt: skip


def make_solution(
    b: np.ndarray,
    v: np.ndarray,
    p: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    n_iter: int,
    tol: float,
    epsilon: float = 0.0,
    rounding: float = 0.0,
    in_float64: bool = False,
) -> Solution:
    """What there is to say of a problem that was solved; all arrays (n,) float64.

    `rounding` is by how much the gradient may be off, where that is more than the tolerance allows; else 0.
    """
    grow, shrink = working_set.slopes(b, v, lower, upper, epsilon)
    most, least = float(grow.max(initial=-np.inf)), float(shrink.min(initial=np.inf))
    free = working_set.free(b, lower, upper, epsilon)
    if free.any():
        bias = grow[free].mean()
    else:  # the middle of the interval that optimality allows; its end where it has but one
        bias = least if most == -np.inf else most if least == np.inf else (most + least) / 2
    # K b = p - v, so b' K b needs no kernel value. Sums, not BLAS, which would wake its threads for each pair.
    quadratic = float((b * (p - v)).sum())
    return Solution(
        b=b,
        bias=float(bias),
        n_iter=n_iter,
        kkt_gap=(most - least if np.isfinite(most - least) else 0.0) + 2 * rounding,
        objective=float((b * p).sum() - epsilon * np.abs(b).sum() - quadratic / 2),
        converged=most - least <= tol and rounding == 0.0,
        too_coarse=rounding > 0.0,
        in_float64=in_float64,
    )

"""Problems one after another in arrays.

So compiled code takes them, which solves many without Python in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpusvm.params import Stopping
from gpusvm.problem import QP
from gpusvm.solver.compilation import compiled


class Stack(NamedTuple):
    """Several problems, whose variables follow each other.

    Those of problem k are ``starts[k]`` to ``starts[k + 1]`` of the arrays (m,).

    Attributes
    ----------
    rows : (m,) int64 array
        The sample of each variable.
    starts : (n + 1,) int64 array
    p, lower, upper : (m,) float64 arrays
        Linear terms and bounds.
    epsilon : (n,) float64 array
        See `QP`.
    b : (m,) float64 array
        Coefficients: where to begin, then the solutions.
    steps : (n,) int64 array
        Steps of SMO allowed.
    taken : (n,) int64 array
        Those taken so far.
    outcome : (n, 4) float64 array
        Bias, gap and objective, see `outcome_of`, and how each problem ended.
    """

    rows: np.ndarray
    starts: np.ndarray
    p: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    epsilon: np.ndarray
    b: np.ndarray
    steps: np.ndarray
    taken: np.ndarray
    outcome: np.ndarray

    def sizes(self) -> np.ndarray:
        """Variables (n,) int64 of each problem."""
        return np.diff(self.starts)

    def norms(self) -> np.ndarray:
        """The norm (n,) of each problem's coefficients."""
        with np.errstate(over="ignore"):  # coefficients of a hard margin that does not exist
            return np.sqrt(np.add.reduceat(self.b * self.b, self.starts[:-1]))


def stacked(problems: Sequence[QP], rows: np.ndarray, stopping: Stopping) -> Stack:
    """The problems, about the samples `rows` (m,), each to begin at its start."""
    sizes = np.array([problem.n for problem in problems])
    p, lower, upper = (
        np.concatenate([getattr(problem, name) for problem in problems]) for name in ("p", "lower", "upper")
    )
    b = np.concatenate([np.zeros(problem.n) if problem.start is None else problem.start for problem in problems])
    epsilon = np.array([problem.epsilon for problem in problems])
    return at_zero(rows, sizes, p, lower, upper, stopping)._replace(b=b, epsilon=epsilon)


def at_zero(
    rows: np.ndarray, sizes: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray, stopping: Stopping
) -> Stack:
    """Problems without a kink, of `sizes` (n,) variables each, to begin at zero."""
    steps = np.array([stopping.iterations_allowed(size) for size in sizes.tolist()], dtype=np.int64)
    n, starts = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    taken, outcome = np.zeros(n, dtype=np.int64), np.zeros((n, 4))
    return Stack(rows, starts, p, lower, upper, np.zeros(n), np.zeros(len(rows)), steps, taken, outcome)


@compiled()
def outcome_of(
    b: np.ndarray, v: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray, epsilon: float
) -> tuple[float, float, float]:
    """Bias, gap and objective of a problem at b, with the gradient v; all arrays (n,) float64.

    As `iterate.make_solution`, but for the order of the sums.
    """
    most, least, total, count, objective = -np.inf, np.inf, 0.0, 0, 0.0
    for i in range(b.shape[0]):
        objective += b[i] * (p[i] + v[i]) / 2 - epsilon * abs(b[i])
        grow = v[i] + epsilon if b[i] < 0.0 else v[i] - epsilon
        shrink = v[i] - epsilon if b[i] > 0.0 else v[i] + epsilon
        if b[i] < upper[i]:
            most = max(most, grow)
        if b[i] > lower[i]:
            least = min(least, shrink)
        if lower[i] < b[i] and b[i] < upper[i] and (b[i] != 0.0 or epsilon == 0.0):
            total += grow
            count += 1
    gap = most - least
    if count > 0:
        return total / count, gap, objective
    if np.isfinite(gap):
        return (most + least) / 2, gap, objective
    # All variables are at the same bound: the one end of the interval that optimality allows.
    return least if most == -np.inf else most, 0.0, objective

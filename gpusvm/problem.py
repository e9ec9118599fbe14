"""The quadratic program that training solves, and the short functions that state an SVM as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class QP(NamedTuple):
    """A problem over variables b, one or more for each sample of some blocks of the data:

        minimise  1/2 b' K b - p' b    subject to  lower <= b <= upper,  sum(b) = sum(start)

    K holds kernel values between the variables' samples. Several problems over the same samples share kernel rows:
    the samples are cut into blocks (the classes, for one-vs-one), and a problem names the blocks that it is about.

    Attributes
    ----------
    blocks : tuple of int
        The blocks whose samples the variables belong to: first all samples of the first one, in their order, then of
        the second. A block named twice has two variables for each sample.
    p, lower, upper : (n,) float64 arrays
        Linear term and bounds.
    start : (n,) float64 array, optional
        Where to begin, within the bounds; zeros if not given. Its sum is the fixed sum.
    """

    blocks: tuple[int, ...]
    p: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    start: np.ndarray | None = None

    @property
    def n(self) -> int:
        """How many variables there are."""
        return len(self.p)

    def rows(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """The row of the data that each variable belongs to, (n,) int64, where `blocks` lists those of each block."""
        return np.concatenate([blocks[b] for b in self.blocks])


class Solution(NamedTuple):
    """What a solver found for a QP, ours or a library's.

    Attributes
    ----------
    b : (n,) float64 array
    bias : float
        Of the decision function sum(b k(x_i, x)) + bias: the mean of p - K b over the variables between their bounds,
        the middle of the interval that optimality allows where there are none.
    n_iter : int
        Steps of sequential minimal optimisation.
    converged : bool
        Whether the largest violation of the optimality conditions is within the tolerance.
    kkt_gap : float, optional
        That violation, from a gradient recomputed when the solver stopped; with what rounding may add to it where
        that is more than the tolerance allows. None until it is known.
    objective : float, optional
        p' b - 1/2 b' K b, which was maximised; None from a library that does not tell.
    too_coarse : bool
        Whether it is the precision of the kernel values that keeps the solver from the tolerance.
    in_float64 : bool
        Whether kernel values were float64.
    cut_off : bool
        Whether the time ran out before the tolerance was reached.
    """

    b: np.ndarray
    bias: float
    n_iter: int
    converged: bool
    kkt_gap: float | None = None
    objective: float | None = None
    too_coarse: bool = False
    in_float64: bool = False
    cut_off: bool = False

    @property
    def support(self) -> np.ndarray:
        """Places of the support vectors, (k,) int64, ascending."""
        return np.flatnonzero(self.b)

    @property
    def dual_coef(self) -> np.ndarray:
        """The coefficients of the support vectors, (k,) float64."""
        return self.b[self.support]


def from_support(n: int, support: np.ndarray, dual_coef: np.ndarray) -> np.ndarray:
    """The coefficients b (n,) of which those of the support vectors (k,) are given."""
    b = np.zeros(n)
    b[support] = dual_coef
    return b


def c_svc(blocks: tuple[int, int], bounds: tuple[np.ndarray, np.ndarray], start: np.ndarray | None = None) -> QP:
    """C-SVC of two classes, in the signed coefficients b = y alpha (Keerthi et al. 2001).

    With y = +1 for the first class and -1 for the second, the dual of C-SVC is to maximise
    sum(alpha) - 1/2 sum_kl alpha_k alpha_l y_k y_l K_kl for 0 <= alpha <= C and y' alpha = 0; so p = y.

    Parameters
    ----------
    blocks : (int, int)
        The blocks of the two classes.
    bounds : (n_first,) and (n_second,) float64 arrays
        Upper bound of each alpha: C times the sample's factors.
    start : (n_first + n_second,) float64 array, optional
        y alpha to begin with, as of a training with other bounds: what lies beyond the bounds is put on them.
    """
    first, second = bounds
    n_first = len(first)
    p, lower, upper = np.ones(n_first + len(second)), np.zeros(n_first + len(second)), np.zeros(n_first + len(second))
    p[n_first:] = -1.0
    upper[:n_first] = first
    np.negative(second, out=lower[n_first:])
    return QP(blocks, p, lower, upper, None if start is None else feasible(start, lower, upper))


def feasible(b: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """`b` (n,) moved within bounds lower <= 0 <= upper, and to a sum of zero: its larger part is scaled."""
    b = np.clip(b, lower, upper)
    positive, negative = b > 0, b < 0
    grown, shrunk = b[positive].sum(), -b[negative].sum()
    if grown > shrunk:
        b[positive] *= shrunk / grown
    elif shrunk > grown:
        b[negative] *= grown / shrunk
    return b

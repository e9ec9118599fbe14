"""The quadratic program that training solves, and the short functions that state an SVM as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from gpusvm.params import Problem


class QP(NamedTuple):
    """A problem over variables b, one for each sample of some blocks of the data.

    It is to

        minimise  1/2 b' K b - p' b + epsilon sum(abs(b))    subject to  lower <= b <= upper,
        sum(b) = sum(start)

    K holds kernel values between the variables' samples. Several problems over the same samples
    share kernel rows: the samples are cut into blocks (the classes, for one-vs-one), and a problem
    names the blocks that it is about.

    Attributes
    ----------
    blocks : tuple of int
        The blocks whose samples the variables belong to: first all samples of the first one, in
        their order, then of the second.
    p, lower, upper : (n,) float64 arrays
        Linear term and bounds; never written to, since several problems may share their memory.
    start : (n,) float64 array, optional
        Where to begin, within the bounds; zeros if not given. Its sum is the fixed sum.
    epsilon : float
        Not negative; where it is positive, no variable's bounds are on the same side of zero.
    any_start : bool
        Whether `start` is as good as any other of its sum: who knows a better one may begin there.
    """

    blocks: tuple[int, ...]
    p: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    start: np.ndarray | None = None
    epsilon: float = 0.0
    any_start: bool = False

    @property
    def n(self) -> int:
        """How many variables there are."""
        return len(self.p)

    @property
    def total(self) -> float:
        """What the variables sum to."""
        return 0.0 if self.start is None else float(self.start.sum())

    def rows(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """The row of the data that each variable belongs to, (n,) int64.

        `blocks` lists the rows of each block.
        """
        return np.concatenate([blocks[b] for b in self.blocks])


class Solution(NamedTuple):
    """What a solver found for a QP, ours or a library's.

    Attributes
    ----------
    b : (n,) float64 array
    bias : float
        Of the decision function sum(b k(x_i, x)) + bias: the mean of the objective's slope over
        the variables that are free, the middle of the interval that optimality allows where there
        are none.
    n_iter : int
        Steps of sequential minimal optimisation.
    converged : bool
        Whether the largest violation of the optimality conditions is within the tolerance.
    kkt_gap : float, optional
        That violation, from a gradient recomputed when the solver stopped; with what rounding may
        add to it where that is more than the tolerance allows. None until it is known.
    objective : float, optional
        p' b - epsilon sum(abs(b)) - 1/2 b' K b, which was maximised; None from a library that does
        not tell.
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


def _two_sides(n: int, first: float, second: float) -> np.ndarray:
    """(2 n,): the one number, then the other."""
    return np.repeat(np.array([first, second], dtype=np.float64), n)


_ROUNDING = 1e-12
"""Difference of two sums of coefficients, as a share of either, that may be rounding: a start is
not moved for it."""


def c_svc(
    pairs: Sequence[tuple[int, int]], bounds: Sequence[np.ndarray], starts: Sequence[np.ndarray] | None = None
) -> list[QP]:
    """C-SVC of pairs of classes, in the signed coefficients b = y alpha (Keerthi et al. 2001).

    With y = +1 for the first class and -1 for the second, the dual of C-SVC is to maximise
    sum(alpha) - 1/2 sum_kl alpha_k alpha_l y_k y_l K_kl for 0 <= alpha <= C and y' alpha = 0; so p
    = y.

    Parameters
    ----------
    pairs : sequence of (int, int)
        The blocks of the two classes of each problem.
    bounds : sequence of float64 arrays
        For each block, the upper bound of each sample's alpha: C times the sample's factors.
    starts : sequence of float64 arrays, optional
        For each pair, y alpha to begin with, as of a training with other bounds: what lies beyond
        the bounds is put on them.
    """
    if not pairs:
        return []
    sizes = [len(c) for c in bounds]
    most = max(sizes)
    # Parts of one array, where a side has one number: there may be tens of thousands of pairs, or
    # large ones.
    p = _two_sides(most, 1.0, -1.0)
    pieces = [slice(most - sizes[i], most + sizes[j]) for i, j in pairs]
    together = np.concatenate(bounds)
    if len(together) and (together == together[0]).all():
        lower, upper = (_two_sides(most, *sides) for sides in ((0.0, -together[0]), (together[0], 0.0)))
        problems = [QP(pair, p[at], lower[at], upper[at]) for pair, at in zip(pairs, pieces, strict=True)]
    else:
        zeros, below = np.zeros(most), [-c for c in bounds]
        lower = np.concatenate([part for i, j in pairs for part in (zeros[: sizes[i]], below[j])])
        upper = np.concatenate([part for i, j in pairs for part in (bounds[i], zeros[: sizes[j]])])
        ends = np.cumsum([at.stop - at.start for at in pieces])[:-1]
        split = zip(pairs, pieces, np.split(lower, ends), np.split(upper, ends), strict=True)
        problems = [QP(pair, p[at], below, above) for pair, at, below, above in split]
    if starts is None:
        return problems
    return [
        problem._replace(start=feasible(start, problem.lower, problem.upper))
        for problem, start in zip(problems, starts, strict=True)
    ]


def epsilon_svr(y: np.ndarray, bounds: np.ndarray, epsilon: float, start: np.ndarray | None = None) -> QP:
    """Epsilon-SVR (LIBSVM, svm.cpp, `solve_epsilon_svr`), all samples in the one block.

    Its dual is to maximise y' (alpha - alpha*) - epsilon sum(alpha + alpha*) - 1/2 (alpha -
    alpha*)' K (alpha - alpha*) for 0 <= alpha, alpha* <= C and equal sums. One of a sample's two
    is zero at the optimum, and so b = alpha - alpha* says both: alpha + alpha* is abs(b).

    Parameters
    ----------
    y : (n,) float64 array
        Targets.
    bounds : (n,) float64 array
        The upper bound of each sample's alpha and alpha*: C times the sample's weight.
    epsilon : float
        Deviation from y that costs nothing.
    start : (n,) float64 array, optional
        alpha - alpha* to begin with; what lies beyond the bounds is put on them.
    """
    return QP((0,), y, -bounds, bounds, None if start is None else feasible(start, -bounds, bounds), float(epsilon))


def one_class(bounds: np.ndarray, nu: float, start: np.ndarray | None = None) -> QP:
    """One-class SVM (Schoelkopf et al. 2001) as LIBSVM scales it (svm.cpp, `solve_one_class`).

    Minimise 1/2 alpha' K alpha for 0 <= alpha <= bounds and sum(alpha) = nu sum(bounds); so p = 0.

    Parameters
    ----------
    bounds : (n,) float64 array
        The weight of each sample.
    nu : float
        Share of the samples that may be outside at most, and are support vectors at least; in (0,
        1].
    start : (n,) float64 array, optional
        alpha to begin with: what lies beyond the bounds is put on them. By default the first
        samples are at theirs.
    """
    zeros, total, any_start = np.zeros(len(bounds)), nu * bounds.sum(), start is None
    start = zeros if start is None else np.clip(start, 0.0, bounds)
    if not np.isclose(start.sum(), total, rtol=_ROUNDING, atol=0.0):  # else variables would leave their bounds
        if start.sum() > total:
            start = start * (total / start.sum())
        start = raised(start, bounds, total, np.arange(len(bounds)))
    return QP((0,), zeros, zeros, bounds, start, any_start=any_start)


def raised(b: np.ndarray, upper: np.ndarray, total: float, order: np.ndarray) -> np.ndarray:
    """`b` (n,) with a sum raised to `total`.

    Variables go to their upper bounds, one after another in `order` (n,).
    """
    b, upper = b[order], upper[order]
    room = upper - b
    before = np.cumsum(room) - room
    raised = np.empty_like(b)
    raised[order] = np.minimum(b + np.clip(total - b.sum() - before, 0.0, room), upper)
    return raised


def single_function(problem: Problem, y: np.ndarray, bounds: np.ndarray, start: np.ndarray | None = None) -> QP:
    """A regression or one-class problem over all samples, as the one block.

    Parameters
    ----------
    problem : Problem
    y : (n,) float64 array
        Targets of a regression; means nothing for one class.
    bounds : (n,) float64 array
        The samples' weights, times C for a regression.
    start : (n,) float64 array, optional
        The samples' coefficients to begin with.
    """
    if problem.nu is not None:
        return one_class(bounds, problem.nu, start)
    assert problem.epsilon is not None
    return epsilon_svr(y, bounds, problem.epsilon, start)


def feasible(b: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """`b` (n,) moved within bounds lower <= 0 <= upper, and to a sum of zero.

    The larger of its positive and its negative part is scaled. A sum that rounding alone keeps
    from zero is left: to scale would move variables off the bounds that they are on.
    """
    b = np.clip(b, lower, upper)
    positive, negative = b > 0, b < 0
    grown, shrunk = b[positive].sum(), -b[negative].sum()
    if abs(grown - shrunk) <= _ROUNDING * max(grown, shrunk):
        return b
    if grown > shrunk:
        b[positive] *= shrunk / grown
    elif shrunk > grown:
        b[negative] *= grown / shrunk
    return b

"""Which variables to optimise next: the policy that both schedulers follow, as pure functions.

A problem is solved on a working set that grows by the worst violators of the optimality conditions, until none is
left. A set that would outgrow its memory changes instead: half of it is exchanged for the worst violators of all
(the decomposition of Joachims 1998). Nothing here knows where the arrays are, how large the data, or what a class is.

Arrays have a row for each problem: (n_problems, n), NumPy or CuPy. Variables that a shorter problem lacks have equal
bounds, between which nothing can move. Sets are masks, and of equal variables the first is taken: so two schedulers
that have the same gradients take the same sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusvm.kernels import Array, array_module

FIRST = 128
"""Variables that a working set starts with."""

MOST_JOINING = 256
"""Variables that join a working set at once, at most. With more, fewer rounds are needed, but more of those that
join turn out to be no support vectors: on MNIST's 3 against 5, of 1,490 support vectors, 1,670 samples
joined 64 at a time, 1,720 by 128, 1,870 by 256 and 2,550 by 512; over all pairs 256 is fastest."""

CHANGING = 2048
"""Size of a working set that changes, half of it each round, once not all support vectors fit into one that grows.
On 3 against 5 of MNIST with gamma=0.125 (10,369 support vectors of 11,552) all of 2,048 anew takes 2.1 s, half of
2,048 2.2 s, a third of 3,072 2.7 s; on 9,000 samples of twelve kinds 1.8, 0.6 and 0.7 s."""

SMALL = 512
"""A problem of no more variables is solved whole."""

HARD_FROM = 896
"""Size of a working set from which on the violators outside tell whether the problem is a hard one."""

HARD_SHARE = 0.3
"""Share of all variables that still violate the conditions by then in a problem that is hard: many of them will be
support vectors, and a working set would have to hold most of the problem. At 896 members it is at most 0.08 for the
pairs of MNIST (up to 8 % of their variables are support vectors), and 0.5 to 0.9 for tables with 35 to 50 % of them;
at 640 members, 0.6 also for some pairs of MNIST."""

STEPS_AT_ONCE = 20_000
"""Steps between two looks at whether to stop (on a GPU, of one launch): a tenth of a second or two."""

_MOST_FAILED = 3
"""Recomputed gaps in a row, none much smaller than one before, after which a problem is given up."""


def first_set(sizes: Sequence[int], largest: int) -> np.ndarray:
    """The set to start with, as a mask (n,): all variables of a small problem, else some spread over its blocks.

    `sizes` are the numbers of variables of each block, and `largest` is the most that the set may hold.
    """
    n = sum(sizes)
    chosen = np.zeros(n, dtype=bool)
    if n <= min(SMALL, largest):
        chosen[:] = True
        return chosen
    each, start = max(1, min(FIRST, largest) // len(sizes)), 0
    for size in sizes:
        chosen[np.linspace(start, start + size - 1, min(each, size)).astype(np.int64)] = True
        start += size
    return chosen


def warm_set(b: np.ndarray, lower: np.ndarray, upper: np.ndarray, largest: int) -> np.ndarray:
    """The set to go on with from `b` (n,), as a mask: variables between their bounds; empty where there are none."""
    chosen = (b > lower) & (b < upper)
    chosen[np.flatnonzero(chosen)[largest // 2 :]] = False
    return chosen


def extremes(b: Array, v: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """For each problem, the largest gradient v of those that may grow, and the smallest of those that may shrink.

    Their difference is the gap, the largest violation of the optimality conditions (Keerthi et al. 2001).
    """
    xp = array_module(v)
    most = xp.where(b < upper, v, -np.inf).max(axis=1)
    return most, xp.where(b > lower, v, np.inf).min(axis=1)


def violations(b: Array, v: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """By how much each variable is on the wrong side of the middle of its problem's gap: if it may grow, if shrink.

    -inf for a variable that may not.
    """
    xp = array_module(v)
    most, least = extremes(b, v, lower, upper)
    off = v - ((most + least) / 2)[:, None]
    return xp.where(b < upper, off, -np.inf), xp.where(b > lower, -off, -np.inf)


def joining(b: Array, v: Array, lower: Array, upper: Array, chosen: Array, tol: float, largest: int) -> Array:
    """The worst violators outside the sets `chosen`, as a mask; no more than half of `largest`."""
    xp = array_module(v)
    score = xp.where(chosen, -np.inf, xp.maximum(*violations(b, v, lower, upper)))
    return worst(score, min(MOST_JOINING, max(1, largest // 2)), 0.5 * tol)


def is_hard(b: Array, v: Array, lower: Array, upper: Array, chosen: Array, tol: float) -> Array:
    """Whether so many variables outside a set of `HARD_FROM` violate the conditions that most will have to join."""
    xp = array_module(v)
    score = xp.where(chosen, -np.inf, xp.maximum(*violations(b, v, lower, upper)))
    return (chosen.sum(axis=1) >= HARD_FROM) & ((score > 0.5 * tol).sum(axis=1) > HARD_SHARE * v.shape[1])


def exchanged(b: Array, v: Array, lower: Array, upper: Array, chosen: Array, tol: float, largest: int) -> Array:
    """Sets anew, as a mask: the worst violators of both kinds, then members between their bounds, then other members.

    Half of a set at most is new, and a quarter are variables of one kind: however many violations are equal, SMO
    finds two to exchange. The set holds the most violating two, with which decomposition converges (Keerthi and
    Gilbert 2002).
    """
    xp = array_module(v)
    size = min(CHANGING, largest)
    grow, shrink = violations(b, v, lower, upper)
    rank = xp.where(chosen, xp.maximum(grow, shrink), -np.inf)
    rank = xp.where(chosen & (b > lower) & (b < upper), 1e300, rank)
    for kind in (grow, shrink):
        rank = xp.where(worst(kind, max(1, size // 4), 0.5 * tol), np.inf, rank)
    return worst(rank, size, -np.inf)


def worst(score: Array, count: int, floor: float) -> Array:
    """The `count` largest scores of each row that exceed `floor`, as a mask; of equal ones the first."""
    xp, n = array_module(score), score.shape[1]
    if count >= n:
        return score > floor
    threshold = xp.partition(score, n - count, axis=1)[:, n - count : n - count + 1]
    above, equal = score > threshold, score == threshold
    left = count - above.sum(axis=1, keepdims=True)
    return (above | (equal & (xp.cumsum(equal, axis=1) <= left))) & (score > floor)


def target(gap: Array, tol: float, is_whole: bool) -> Array:
    """The gap at which to leave the working set: LIBSVM's own for a problem solved whole, which then takes its path."""
    return np.full_like(gap, tol) if is_whole else array_module(gap).maximum(0.1 * gap, 0.5 * tol)


def rounding(b: Array, largest_value: Array) -> Array:
    """Below which gap float64 gradients say nothing, given the largest kernel value; for each problem."""
    return np.finfo(np.float64).eps * (1.0 + abs(b).max(axis=1) * largest_value)


class Verified:
    """Gaps from recomputed gradients: where rounding alone moves them, as many more rounds would change nothing."""

    def __init__(self) -> None:
        self.least, self.n_failed = np.inf, 0

    def no_longer_falls(self, gap: float) -> bool:
        self.n_failed = 0 if gap < 0.9 * self.least else self.n_failed + 1
        self.least = min(self.least, gap)
        return self.n_failed >= _MOST_FAILED

"""Which variables to optimise next: the policy that both schedulers follow, as pure functions.

A problem is solved on a working set that grows by the worst violators of the optimality
conditions, until none is left. A set that would outgrow its memory changes instead: half of it is
exchanged for the worst violators of all (the decomposition of Joachims 1998). Nothing here knows
where the arrays are, how large the data, or what a class is.

Arrays have a row for each problem: (n_problems, n), NumPy or CuPy. `epsilon` is of all problems,
see `QP`. Variables that a shorter problem lacks have equal bounds, between which nothing can move.
Sets are masks, and of equal variables the first is taken: so two schedulers that have the same
gradients take the same sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusvm.kernels import Array, array_module

FIRST = 128
"""Variables that a working set starts with."""

MOST_JOINING = 256
"""Variables that join a working set at once, at most. With more, fewer rounds are needed, but more
of those that join turn out to be no support vectors: on MNIST's 3 against 5, of 1,490 support
vectors, 1,670 samples joined 64 at a time, 1,720 by 128, 1,870 by 256 and 2,550 by 512; over all
pairs 256 is fastest."""

CHANGING = 2048
"""Size of a working set that changes, half of it each round, once not all support vectors fit into
one that grows. On 3 against 5 of MNIST with gamma=0.125 (10,369 support vectors of 11,552) all of
2,048 anew takes 2.1 s, half of 2,048 2.2 s, a third of 3,072 2.7 s; on 9,000 samples of twelve
kinds 1.8, 0.6 and 0.7 s."""

SMALL = 512
"""A problem of no more variables is solved whole."""

HARD_FROM = 896
"""Size of a working set from which on the violators outside tell whether the problem is a hard
one."""

HARD_SHARE = 0.45
"""Share of all variables that still violate the conditions by then in a problem that is hard: many
of them will be support vectors, and a working set would have to hold most of the problem. At 896
members it is 0.5 to 0.9 for tables with 35 to 50 % of them; at most 0.4 for the pairs of MNIST,
five of which (12 % support vectors) exceed 0.3: all of MNIST takes 4.3 s where these count as
hard, else 3.5 s."""

AT_ONCE = 1536
"""Variables up to which a problem is solved over all of its kernel values at once, hard or not: 9
MB."""

CERTAIN_SHARE = 0.85
"""The same for a working set of any size. After the first 128 members it is 0.82 to 0.99 for
tables of 10,000 to 20,000 rows, 0.9 for text, at most 0.78 for the pairs of MNIST, and later 0.84:
the rows of a larger set would be in vain."""

FIRST_ACTIVE = 0.25
"""Share of a hard problem's variables that are solved first."""

LEAST_ROOM = 0.3
"""Share of the variables for which there is room to be active, at least. With 0.25, 0.3 and 0.4 of
them, in fresh processes: 20,000 x 54 1.63, 1.58, 1.58 s; 30,000 x 100 2.07, 2.07, 2.21; Adult
0.57, 0.54, 0.56; 12,000 x 30 0.61, 0.50, 0.47. The kernel values take the square of it."""

LIKELY_ROOM = 0.8
"""Share of the variables for whose kernel values memory is asked for at once: what is not used is
not touched."""

MARGIN, LARGEST_MARGIN = 0.5, 0.05
"""Variables that would violate the conditions if the middle of the gap moved by so much, as a
share of the gap and of the problem's scale, are active too: without, each round's gap is half of
the one before; with it, a tenth."""

LARGEST_MARGIN_OF_REGRESSION = 0.01
"""The same for a regression, where many samples lie near the edge of the tube. With 0.05, 0.02 and
0.01, 20,000 x 50 in fresh processes: 2.85, 2.65, 1.95 s; 14,214, 13,414, 12,452 active at the end,
and as many steps."""

NEARLY_DONE = 0.15
"""Gap, as a share of the scale, from which on the active variables are solved to the end. One
round to it instead of three saves gradients of all others: 20,000 x 54 with 0.05, 0.15 and 0.5:
1.57, 1.56 and 1.74 s."""

FINAL = 0.9
"""Part of the tolerance to which the active variables are solved at the end; the rest is for the
others."""

STAYING = 0.8
"""Where fewer of the active variables need be, the others leave; else moving kernel values costs
more than it saves."""

STEPS_AT_ONCE = 20_000
"""Steps between two looks at whether to stop (on a GPU, of one launch): a tenth of a second or
two."""

_MOST_FAILED = 3
"""Recomputed gaps in a row, none much smaller than one before, after which a problem is given
up."""

_MOST_IDLE = 8
"""Rounds in a row after which a problem is given up, where none raised the objective."""


def first_set(sizes: Sequence[int], largest: int) -> np.ndarray:
    """The set to start with, as a mask (n,).

    It is all variables of a small problem, else some spread over its blocks. `sizes` are the
    numbers of variables of each block, and `largest` is the most that the set may hold.
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


def warm_set(b: np.ndarray, lower: np.ndarray, upper: np.ndarray, epsilon: float, largest: int) -> np.ndarray:
    """The set to go on with from `b` (n,), as a mask: the free variables, if there are any.

    Of many it holds the first, at most half of `largest`.
    """
    chosen = free(b, lower, upper, epsilon)
    chosen[np.flatnonzero(chosen)[largest // 2 :]] = False
    return chosen


def free(b: Array, lower: Array, upper: Array, epsilon: float) -> Array:
    """Whether each variable is where the objective has one slope.

    That is between its bounds, and not at a kink.
    """
    between = (b > lower) & (b < upper)
    return between & (b != 0) if epsilon > 0 else between


def slopes(b: Array, v: Array, lower: Array, upper: Array, epsilon: float) -> tuple[Array, Array]:
    """The slope of the objective where a variable grows, and where it shrinks.

    That is the gradient v = p - K b, but for the kink at zero that a positive epsilon makes. It is
    -inf for a variable that may not grow, and inf for one that may not shrink.
    """
    xp = array_module(v)
    grow = shrink = v
    if epsilon > 0:
        grow, shrink = v + xp.where(b < 0, epsilon, -epsilon), v + xp.where(b > 0, -epsilon, epsilon)
    return xp.where(b < upper, grow, -np.inf), xp.where(b > lower, shrink, np.inf)


def extremes(b: Array, v: Array, lower: Array, upper: Array, epsilon: float) -> tuple[Array, Array]:
    """The largest slope of those that may grow, and the smallest of those that may shrink.

    There is one of each for a problem. Their difference is the gap, the largest violation of the
    optimality conditions (Keerthi et al. 2001).
    """
    grow, shrink = slopes(b, v, lower, upper, epsilon)
    return grow.max(axis=1), shrink.min(axis=1)


def violations(b: Array, v: Array, lower: Array, upper: Array, epsilon: float) -> tuple[Array, Array]:
    """By how much each variable is on the wrong side of the middle of its problem's gap.

    The first is for variables that may grow, the second for those that may shrink: -inf for a
    variable that may not.
    """
    grow, shrink = slopes(b, v, lower, upper, epsilon)
    middle = ((grow.max(axis=1) + shrink.min(axis=1)) / 2)[:, None]
    return grow - middle, middle - shrink


def joining(
    b: Array, v: Array, lower: Array, upper: Array, epsilon: float, chosen: Array, tol: float, largest: int
) -> Array:
    """The worst violators outside the sets `chosen`, as a mask; no more than half of `largest`."""
    xp = array_module(v)
    score = xp.where(chosen, -np.inf, xp.maximum(*violations(b, v, lower, upper, epsilon)))
    return worst(score, min(MOST_JOINING, max(1, largest // 2)), 0.5 * tol)


def is_hard(b: Array, v: Array, lower: Array, upper: Array, epsilon: float, chosen: Array, tol: float) -> Array:
    """Whether so many outside the sets `chosen` violate the conditions that most have to join."""
    xp = array_module(v)
    score = xp.where(chosen, -np.inf, xp.maximum(*violations(b, v, lower, upper, epsilon)))
    n_violating, n = (score > 0.5 * tol).sum(axis=1), v.shape[1]
    enough = chosen.sum(axis=1) >= HARD_FROM
    return (n_violating > CERTAIN_SHARE * n) | (enough & (n_violating > HARD_SHARE * n))


def exchanged(
    b: Array, v: Array, lower: Array, upper: Array, epsilon: float, chosen: Array, tol: float, largest: int
) -> Array:
    """Sets anew, as a mask: the worst violators of both kinds, then members, free ones first.

    Half of a set at most is new, and a quarter are variables of one kind: however many violations
    are equal, SMO finds two to exchange. The set holds the most violating two, with which
    decomposition converges (Keerthi and Gilbert 2002).
    """
    xp = array_module(v)
    size = min(CHANGING, largest)
    grow, shrink = violations(b, v, lower, upper, epsilon)
    rank = xp.where(chosen, xp.maximum(grow, shrink), -np.inf)
    rank = xp.where(chosen & free(b, lower, upper, epsilon), 1e300, rank)
    for kind in (grow, shrink):
        rank = xp.where(worst(kind, max(1, size // 4), 0.5 * tol), np.inf, rank)
    return worst(rank, size, -np.inf)


def first_active(n: int, room: int) -> np.ndarray:
    """The variables of a hard problem of `n` to begin with, as a mask (n,); `room` at most.

    They are spread evenly, and so over its blocks.
    """
    count = min(n, room, max(AT_ONCE, int(FIRST_ACTIVE * n)))
    chosen = np.zeros(n, dtype=bool)
    chosen[np.linspace(0, n - 1, count).astype(np.int64)] = True
    return chosen


def scale(p: np.ndarray, v: np.ndarray, epsilon: float) -> float:
    """What a large gap of a hard problem is: that at b = 0 if all variables may move either way.

    Of a regression, not that of the two targets furthest apart but of two that are both their
    deviation off. One class has p = 0, and the same is asked of the gradient v where it begins.
    """
    if epsilon > 0:
        return float(2.0 * p.std()) or 1.0
    return float(np.ptp(p)) or float(2.0 * v.std()) or 1.0


def active_room(n: int, n_free: int, most: int) -> int:
    """How many of `n` variables, of which `n_free` are free, may be active; `most` at most."""
    return min(most, max(int(LEAST_ROOM * n), int(1.5 * n_free), AT_ONCE))


def likely_room(n: int, most: int) -> int:
    """How many variables will hardly ever be more than those that are active; `most` at most."""
    return min(most, max(int(LIKELY_ROOM * n), AT_ONCE))


def active(
    state: tuple[Array, Array, Array, Array, float],
    chosen: Array,
    scale: float,
    tol: float,
    room: int,
) -> Array:
    """The active variables of hard problems, as a mask.

    They are those that are free, violators, and what may become one: no more than `room`, see
    `active_room`; of too many, the free ones and the worst violators. Variables already `chosen`
    stay while that is cheaper than to let them go. `state` is b, v, the bounds and epsilon, as the
    functions above take them.
    """
    b, v, lower, upper, epsilon = state
    xp = array_module(v)
    most, least = extremes(b, v, lower, upper, epsilon)
    grow, shrink = violations(b, v, lower, upper, epsilon)
    largest = LARGEST_MARGIN_OF_REGRESSION if epsilon > 0 else LARGEST_MARGIN
    floor = 0.25 * tol - xp.minimum(MARGIN * (most - least), largest * scale)
    rank = xp.maximum(grow, shrink) - floor[:, None]
    rank = xp.where(free(b, lower, upper, epsilon), 1e300, rank)
    for kind in (grow, shrink):  # with the most violating two among them, decomposition converges
        rank = xp.where(worst(kind, max(1, room // 4), 0.25 * tol), np.inf, rank)
    wanted = worst(rank, room, 0.0)
    union = wanted | chosen
    n_union = union.sum(axis=1)
    stays = (n_union <= room) & (wanted.sum(axis=1) > STAYING * n_union)
    return xp.where(stays[:, None], union, wanted)


def active_target(gap: Array, scale: float, tol: float, is_whole: bool) -> Array:
    """The gap at which to leave the active variables of hard problems."""
    xp = array_module(gap)
    if is_whole:
        return xp.full_like(gap, tol)
    return xp.where(gap > NEARLY_DONE * scale, xp.maximum(0.1 * gap, FINAL * tol), FINAL * tol)


def worst(score: Array, count: int, floor: float) -> Array:
    """The `count` largest scores of each row above `floor`, as a mask; of equal ones the first."""
    xp, n = array_module(score), score.shape[1]
    if count >= n:
        return score > floor
    threshold = xp.partition(score, n - count, axis=1)[:, n - count : n - count + 1]
    above, equal = score > threshold, score == threshold
    left = count - above.sum(axis=1, keepdims=True)
    return (above | (equal & (xp.cumsum(equal, axis=1) <= left))) & (score > floor)


def target(gap: Array, tol: float, is_whole: bool) -> Array:
    """The gap at which to leave the working set.

    It is LIBSVM's own for a problem solved whole, which then takes LIBSVM's path.
    """
    return np.full_like(gap, tol) if is_whole else array_module(gap).maximum(0.1 * gap, 0.5 * tol)


def rounding(b: Array, largest_value: Array) -> Array:
    """Below which gap float64 gradients say nothing, for each problem.

    `largest_value` is that of its kernel values.
    """
    return np.finfo(np.float64).eps * (1.0 + abs(b).max(axis=1) * largest_value)


class Rising:
    """Dual objectives, one after another.

    Every step of SMO raises them, and where none does, rounding moves them.
    """

    def __init__(self) -> None:
        self.largest, self.n_idle = -np.inf, 0

    def has_ended(self, objective: float) -> bool:
        """Whether `_MOST_IDLE` in a row were no larger than one before."""
        self.n_idle = 0 if objective > self.largest else self.n_idle + 1
        self.largest = max(self.largest, objective)
        return self.n_idle >= _MOST_IDLE


class Verified:
    """Gaps from recomputed gradients.

    Where rounding alone moves them, more rounds would change nothing, however many.
    """

    def __init__(self) -> None:
        self.least, self.n_failed = np.inf, 0

    def no_longer_falls(self, gap: float) -> bool:
        self.n_failed = 0 if gap < 0.9 * self.least else self.n_failed + 1
        self.least = min(self.least, gap)
        return self.n_failed >= _MOST_FAILED

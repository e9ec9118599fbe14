"""One class pair: an active set that grows by the worst violators, solved by SMO, until none is left.

The problem is the one of `smo`, over all samples of two classes. Its unknowns are kept for all
samples; only those of the active set move. Rows of the kernel matrix are computed for samples that
join the active set, many at a time, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gpusvm.solver.kernel_rows import EachChunk, RowSource, gather, subtract_combination
from gpusvm.solver.precision import GradientError
from gpusvm.solver.row_store import RowStore
from gpusvm.solver.smo import solve_working_set

FIRST_ACTIVE = 128
"""Samples the active set starts with, half of each class."""

MOST_JOINING = 256
"""Samples that join the active set at once, at most. With more, fewer rounds are needed, but more of those that
join turn out to be no support vectors: on MNIST's 3 against 5, of 1,490 support vectors, 1,670 samples
joined 64 at a time, 1,720 by 128, 1,870 by 256 and 2,550 by 512; over all pairs 256 is fastest."""

CHANGING_ACTIVE = 2048
"""Size of an active set that changes, half of it each round, once not all support vectors fit into one that grows.
On 3 against 5 of MNIST with gamma=0.125 (10,369 support vectors of 11,552) all of 2,048 anew takes 2.1 s, half of
2,048 2.2 s, a third of 3,072 2.7 s; on 9,000 samples of twelve kinds 1.8, 0.6 and 0.7 s."""

STEPS_AT_ONCE = 20_000
"""Steps between two looks at whether to stop (on a GPU, of one launch): a tenth of a second or two."""

_MOST_FAILED = 3
"""Recomputed gaps in a row, none much smaller than one before, after which a pair is given up."""

SMALL_PAIR = 512
"""A pair of no more samples is solved whole, without an active set."""


@dataclass(frozen=True, eq=False)
class Side:
    """One class of the pair.

    Attributes
    ----------
    own : RowSource
        From this class to itself; its rows serve every pair of the class.
    own_store : RowStore
    cross : RowSource
        From this class to the other; its rows serve this pair alone.
    cross_store : RowStore
    n : int
    """

    own: RowSource
    own_store: RowStore
    cross: RowSource
    cross_store: RowStore
    n: int


@dataclass(frozen=True, eq=False)
class PairResult:
    """The solution of a pair; samples are counted from the first class's first one.

    Attributes
    ----------
    beta : (n,) float64 array
        y alpha, positive for the first class.
    intercept : float
    n_iter : int
        Steps of SMO.
    kkt_gap : float
        Recomputed from all kernel rows of the support vectors when the solver stopped, with what rounding may add to
        it where that is more than the tolerance allows.
    dual_objective : float
        sum(alpha) - 1/2 alpha' Q alpha.
    converged : bool
    too_coarse : bool
        Whether the precision of the kernel values is too low for the tolerance.
    in_float64 : bool
        Whether kernel values were float64.
    """

    beta: np.ndarray
    intercept: float
    n_iter: int
    kkt_gap: float
    dual_objective: float
    converged: bool
    too_coarse: bool = False
    in_float64: bool = False


def extremes(beta: np.ndarray, v: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """The largest v of those that may grow, and the smallest of those that may shrink."""
    return float(v[beta < upper].max(initial=-np.inf)), float(v[beta > lower].min(initial=np.inf))


def make_result(
    beta: np.ndarray,
    v: np.ndarray,
    signs: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    n_iter: int,
    tol: float,
    rounding: float = 0.0,
    in_float64: bool = False,
) -> PairResult:
    """What there is to say of a pair that was solved; all arrays (n,) float64, `signs` is y.

    `rounding` is by how much the gradient may be off, where that is more than the tolerance allows; else 0.
    """
    most, least = extremes(beta, v, lower, upper)
    free = (beta > lower) & (beta < upper)
    bias = v[free].mean() if free.any() else (most + least) / 2
    # K beta = y - v, so beta' K beta needs no kernel value.
    quadratic = float(beta @ (signs - v))
    return PairResult(
        beta=beta,
        intercept=float(bias),
        n_iter=n_iter,
        kkt_gap=most - least + 2 * rounding,
        dual_objective=float(np.abs(beta).sum() - quadratic / 2),
        converged=most - least <= tol and rounding == 0.0,
        too_coarse=rounding > 0.0,
        in_float64=in_float64,
    )


class Verified:
    """Gaps from recomputed gradients: where rounding alone moves them, as many more rounds would change nothing."""

    def __init__(self) -> None:
        self.least, self.n_failed = np.inf, 0

    def no_longer_falls(self, gap: float) -> bool:
        self.n_failed = 0 if gap < 0.9 * self.least else self.n_failed + 1
        self.least = min(self.least, gap)
        return self.n_failed >= _MOST_FAILED


class PairSolver:
    """Solves one pair; a method for each part of the outer loop.

    Parameters
    ----------
    sides : (Side, Side)
    bounds : (n,) float64 array
        Upper bound of each alpha.
    K : (most_active, most_active) array, float32 or float64 like the rows in the stores
        Memory for the kernel values of the active set; its size is the largest the active set may reach.
    tol : float
        Largest KKT violation left.
    steps : int
        Steps of SMO allowed.
    error : GradientError
        Of kernel values of K's precision.
    start : (n,) float64 array, optional
        Coefficients to begin with, within their bounds and of sum zero.
    """

    def __init__(
        self,
        sides: tuple[Side, Side],
        bounds: np.ndarray,
        *,
        K: np.ndarray,
        tol: float,
        steps: int,
        each_chunk: EachChunk,
        error: GradientError,
        start: np.ndarray | None = None,
    ) -> None:
        self.sides, self.tol, self.each_chunk, self.error = sides, tol, each_chunk, error
        self.n_first, self.n = sides[0].n, sides[0].n + sides[1].n
        self.signs = np.repeat([1.0, -1.0], [sides[0].n, sides[1].n])
        self.lower, self.upper = np.minimum(0.0, self.signs * bounds), np.maximum(0.0, self.signs * bounds)
        self.beta = np.zeros(self.n) if start is None else start.copy()
        self.v = self.signs.copy()
        self.K, self.most_active = K, min(len(K), self.n)
        self.active = np.empty(0, dtype=np.int64)
        self.growing = True
        self.steps_left = steps
        self.n_iter = 0
        self.in_float64 = K.dtype == np.float64
        self.rounding = 0.0

    def solve(self, stopped: Callable[[], bool] = lambda: False) -> PairResult:
        """Run to the tolerance, to the last step, until `stopped()` says so, or until float32 is found too coarse."""
        joining = self.first_active()
        if self.beta.any():
            self.recompute_gradient()
        verified = Verified()
        while not stopped():
            self.join(joining)
            progressed = self.optimise_active(stopped)
            joining = self.violators()
            stuck = not progressed and not (self.growing and len(joining))
            ended = self.gap() <= self.tol or self.steps_left <= 0 or stuck
            if ended:
                self.recompute_gradient()
                ended = self.gap() <= self.tol or self.steps_left <= 0 or verified.no_longer_falls(self.gap())
                joining = self.violators()
            if self.is_too_coarse(final=ended) or ended:
                break
        return self.result()

    def is_too_coarse(self, *, final: bool) -> bool:
        """Whether kernel values are too coarse for the tolerance; in float64, which nothing follows, asked at the end.

        There the bound must do: no finer kernel values are at hand to compare with.
        """
        if self.in_float64:
            bound = self.error.bound(self.beta) if final else 0.0
            self.rounding = bound if bound > self.error.allowed else 0.0
        elif self.error.is_too_large(self.beta, self.v, self.worst_two(), final=final):
            self.rounding = self.error.allowed
        return self.rounding > 0.0

    def worst_two(self) -> np.ndarray:
        """The samples between which the gap is."""
        grow = np.where(self.beta < self.upper, self.v, -np.inf)
        shrink = np.where(self.beta > self.lower, self.v, np.inf)
        return np.array([grow.argmax(), shrink.argmin()])

    def first_active(self) -> np.ndarray:
        """Samples to start with: all where they are few, else those that a start put between their bounds, else
        samples spread evenly over both classes."""
        if self.n <= min(SMALL_PAIR, self.most_active):
            return np.arange(self.n)
        free = np.flatnonzero((self.beta > self.lower) & (self.beta < self.upper))
        if len(free):
            return free[: self.most_active // 2]
        count = min(FIRST_ACTIVE, self.most_active) // 2
        first = np.unique(np.linspace(0, self.n_first - 1, count).astype(np.int64))
        second = np.unique(np.linspace(self.n_first, self.n - 1, count).astype(np.int64))
        return np.concatenate([first, second])

    def join(self, joining: np.ndarray) -> None:
        """Make `joining` part of the active set, with their kernel rows.

        A set that would grow too large changes from then on, half of it at a time: the decomposition method of
        Joachims (1998). It holds the most violating two, with which the method converges (Keerthi and Gilbert 2002).
        """
        if self.growing and len(self.active) + len(joining) > self.most_active:
            self.growing = False
        if not self.growing:
            joining = self.exchange()
        joining = np.sort(joining)  # each class together, as gather() wants them
        old = len(self.active)
        self.active = np.concatenate([self.active, joining])
        self.fetch_rows(self.active)
        self.gather_kernel(old)

    def exchange(self) -> np.ndarray:
        """Give up part of the active set for the worst violators among all samples; returns those not in it yet.

        Those members stay that are violators themselves or free (between their bounds), before others.
        """
        size = min(CHANGING_ACTIVE, self.most_active)
        joining = self.worst_of_both_kinds(size // 2)
        rank = self.scores()[self.active]
        beta, lower, upper = (values[self.active] for values in (self.beta, self.lower, self.upper))
        rank[(beta > lower) & (beta < upper)] = np.inf
        known = np.isin(self.active, joining)
        rank[known] = np.inf
        fresh = joining[~np.isin(joining, self.active[known])]
        kept = np.sort(np.argsort(-rank, kind="stable")[: size - len(fresh)])
        self.K[: len(kept), : len(kept)] = self.K[np.ix_(kept, kept)]
        self.active = self.active[kept]
        return fresh

    def fetch_rows(self, samples: np.ndarray) -> None:
        for side, members, _ in self.by_side(samples):
            for source, store in ((side.own, side.own_store), (side.cross, side.cross_store)):
                missing = store.reserve(members)
                if len(missing):
                    source.compute(missing, store.rows, store.slot_of[missing], self.each_chunk)

    def by_side(self, samples: np.ndarray) -> Iterator[tuple[Side, np.ndarray, np.ndarray]]:
        """For each class: the side, its members among `samples` counted within the class, and their places."""
        in_first = samples < self.n_first
        yield self.sides[0], samples[in_first], np.flatnonzero(in_first)
        yield self.sides[1], samples[~in_first] - self.n_first, np.flatnonzero(~in_first)

    def gather_kernel(self, old: int) -> None:
        """Complete K, the kernel values of the active set, for its members from position `old` on."""
        (_, members_0, places_0), (_, members_1, places_1) = self.by_side(self.active)
        for side, members, places, other_members, other_places in (
            (self.sides[0], members_0, places_0, members_1, places_1),
            (self.sides[1], members_1, places_1, members_0, places_0),
        ):
            new = places >= old
            if new.any():
                first_row, joined = int(places[new][0]), members[new]
                own, cross = side.own_store, side.cross_store
                gather(own.rows, own.slot_of[joined], members, self.K, first_row, places)
                gather(cross.rows, cross.slot_of[joined], other_members, self.K, first_row, other_places)

    def optimise_active(self, stopped: Callable[[], bool]) -> bool:
        """SMO on the active set, and its effect on every sample's gradient.

        Returns whether anything moved, and as far as it should: where rounding ends SMO, more rounds lead nowhere.
        """
        active = self.active
        beta, v = self.beta[active], self.v[active]
        lower, upper = self.lower[active], self.upper[active]
        diagonal = np.diagonal(self.K)[: len(active)].astype(np.float64)
        rounding = np.finfo(np.float64).eps * (1.0 + np.abs(beta).max() * np.abs(diagonal).max())
        # Solved whole, the pair takes LIBSVM's very path, and stops where LIBSVM does.
        target = self.tol if len(active) == self.n else max(0.1 * self.gap(), 0.5 * self.tol)
        tol = max(target, rounding)
        while self.steps_left > 0 and not stopped():
            allowed = min(self.steps_left, STEPS_AT_ONCE)
            steps = solve_working_set(self.K, diagonal, beta, v, lower, upper, tol, allowed)
            self.n_iter += steps
            self.steps_left -= steps
            if steps < allowed:
                break
        change = beta - self.beta[active]
        changed = np.flatnonzero(change)
        self.beta[active] = beta
        self.subtract(active[changed], change[changed])
        most, least = extremes(beta, v, lower, upper)
        return len(changed) > 0 and most - least <= tol

    def subtract(self, samples: np.ndarray, coefficients: np.ndarray) -> None:
        """v -= K[:, samples] coefficients, from rows that are in the stores."""
        parts = [
            (side.own_store, side.cross_store, members, coefficients[places])
            for side, members, places in self.by_side(samples)
        ]
        for half, stores in (
            (self.v[: self.n_first], (parts[0][0], parts[1][1])),
            (self.v[self.n_first :], (parts[0][1], parts[1][0])),
        ):
            for store, (_, _, members, values) in zip(stores, parts, strict=True):
                subtract_combination(store.rows, store.slot_of[members], values, half)

    def recompute_gradient(self) -> None:
        """The gradient from scratch, free of what rounding has added up to."""
        self.v[:] = self.signs
        support = np.flatnonzero(self.beta)
        for start in range(0, len(support), self.most_active):
            part = support[start : start + self.most_active]
            self.fetch_rows(part)
            self.subtract(part, self.beta[part])

    def gap(self) -> float:
        """max(v[up]) - min(v[low]): the largest violation of the optimality conditions."""
        most, least = self.extremes()
        return most - least

    def extremes(self) -> tuple[float, float]:
        return extremes(self.beta, self.v, self.lower, self.upper)

    def violators(self) -> np.ndarray:
        """Samples outside the active set that violate the optimality conditions most."""
        score = self.scores()
        score[self.active] = -np.inf
        return self.worst(score, MOST_JOINING)

    def worst(self, score: np.ndarray, count: int) -> np.ndarray:
        """At most `count` samples (no more than may be active) with the largest scores above half the tolerance."""
        count = min(count, self.most_active // 2 if self.growing else self.most_active)
        worst = np.argpartition(score, -count)[-count:] if count < self.n else np.arange(self.n)
        return worst[score[worst] > 0.5 * self.tol]

    def worst_of_both_kinds(self, count: int) -> np.ndarray:
        """Half of them samples whose beta should grow, half such whose beta should shrink: however many scores are
        equal, SMO finds two to exchange."""
        half = min(count, self.most_active) // 2
        middle = sum(self.extremes()) / 2
        grow = np.where(self.beta < self.upper, self.v - middle, -np.inf)
        shrink = np.where(self.beta > self.lower, middle - self.v, -np.inf)
        return np.union1d(self.worst(grow, half), self.worst(shrink, half))

    def scores(self) -> np.ndarray:
        """By how much each sample's v is on the wrong side of the middle of the gap."""
        most, least = self.extremes()
        off = self.v - (most + least) / 2
        return np.maximum(
            np.where(self.beta < self.upper, off, -np.inf), np.where(self.beta > self.lower, -off, -np.inf)
        )

    def result(self) -> PairResult:
        return make_result(
            self.beta, self.v, self.signs, self.lower, self.upper,
            n_iter=self.n_iter, tol=self.tol, rounding=self.rounding, in_float64=self.in_float64,
        )  # fmt: skip

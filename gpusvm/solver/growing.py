"""One problem solved on a working set that grows: for large ones with few support vectors.

The unknowns are kept for all variables; only those of the working set move. Kernel rows are
computed for variables that join the working set, many at a time, and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set
from gpusvm.solver.clock import Clock
from gpusvm.solver.iterate import Iterate
from gpusvm.solver.kernel_rows import ParallelFor, RowSource, gather, subtract_combination
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.precision import GradientError
from gpusvm.solver.row_store import RowStore
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.working_set import STEPS_AT_ONCE, Verified


@dataclass(frozen=True, eq=False)
class Side:
    """The variables of one block of the problem, and where their kernel rows come from.

    Attributes
    ----------
    n : int
    sources : list of RowSource
        For each side of the problem, kernel values from this side's samples to that one's.
    stores : list of RowStore
        Where those rows are kept; sides with the same block share them.
    """

    n: int
    sources: list[RowSource]
    stores: list[RowStore]


class GrowingSolver(Iterate):
    """Solves one problem; a method for each part of the outer loop.

    Parameters
    ----------
    problem : QP
    sides : list of Side
        One for each of the problem's blocks.
    K : (most, most) array, float32 or float64 like the rows in the stores
        Memory for the kernel values of the working set; its size is the largest the working set
        may reach.
    tol : float
        Largest violation left.
    steps : int
        Steps of SMO allowed.
    parallel_for : ParallelFor
    error : GradientError
        Of kernel values of K's precision.
    hands_over : bool
        Whether to leave a problem that is hard, or that outgrows its working set, to another way.

    Attributes
    ----------
    has_left : bool
        Whether `solve` left the problem; its solution is then where the other way begins.
    """

    def __init__(
        self,
        problem: QP,
        sides: list[Side],
        *,
        K: np.ndarray,
        tol: float,
        steps: int,
        parallel_for: ParallelFor,
        error: GradientError,
        hands_over: bool = False,
    ) -> None:
        self.hands_over, self.has_left = hands_over, False
        super().__init__(problem)
        self.sides, self.tol, self.parallel_for, self.error = sides, tol, parallel_for, error
        self.starts = np.cumsum([0, *(side.n for side in sides)])
        self.K, self.largest = K, min(len(K), self.n)
        self.members = np.empty(0, dtype=np.int64)
        self.chosen = np.zeros(self.n, dtype=bool)
        self.growing = True
        self.steps_left = steps
        self.in_float64 = K.dtype == np.float64
        self.rounding = 0.0

    def solve(self, clock: Clock | None = None) -> Solution:
        """Run to `tol`, unless steps run out, `clock` says stop, or float32 is too coarse."""
        clock = clock or Clock()
        arriving = self.first_set()
        if self.b.any():
            self.recompute_gradient()
        verified = Verified()
        while True:
            self.join(arriving)
            progressed = self.optimise(clock)
            arriving = self.violators()
            stuck = not progressed and not (self.growing and arriving.any())
            ended = self.gap() <= self.tol or self.steps_left <= 0 or stuck
            if ended:
                self.recompute_gradient()
                ended = self.gap() <= self.tol or self.steps_left <= 0 or verified.no_longer_falls(self.gap())
                arriving = self.violators()
            if clock.says_stop() or self.is_too_coarse(final=ended) or ended:
                break
            if self.hands_over and self.is_hard(arriving):
                self.has_left = True
                break
        return self.result()._replace(cut_off=clock.is_past() and self.gap() > self.tol)

    # -- the policy, for one problem --------------------------------------------------------------

    def first_set(self) -> np.ndarray:
        if self.b.any() and self.n > working_set.SMALL:
            warm = working_set.warm_set(self.b, self.lower, self.upper, self.epsilon, self.largest)
            if warm.any():
                return warm
        return working_set.first_set([side.n for side in self.sides], self.largest)

    def violators(self) -> np.ndarray:
        found: np.ndarray = working_set.joining(*self.state(), self.chosen[None, :], self.tol, self.largest)[0]
        return found

    def is_hard(self, arriving: np.ndarray) -> bool:
        if len(self.members) + np.count_nonzero(arriving) > self.largest:
            return True
        return bool(working_set.is_hard(*self.state(), self.chosen[None, :], self.tol)[0])

    def is_too_coarse(self, *, final: bool) -> bool:
        """Whether kernel values are too coarse for the tolerance."""
        self.rounding = self.error.rounding(*self.arrays(), exact=self.in_float64, final=final)
        return self.rounding > 0.0

    # -- the working set and its kernel values ----------------------------------------------------

    def join(self, arriving: np.ndarray) -> None:
        """Make `arriving`, a mask, part of the working set, with their kernel rows."""
        if self.growing and len(self.members) + np.count_nonzero(arriving) > self.largest:
            self.growing = False
        if not self.growing:
            arriving = self.exchange()
        old = len(self.members)
        self.members = np.concatenate([self.members, np.flatnonzero(arriving)])
        self.chosen[self.members] = True
        self.fetch_rows(self.members)
        self.gather_kernel(old)

    def exchange(self) -> np.ndarray:
        """Give up what `working_set.exchanged` does not keep; returns what it adds, as a mask."""
        wanted = working_set.exchanged(*self.state(), self.chosen[None, :], self.tol, self.largest)[0]
        kept = np.flatnonzero(wanted[self.members])
        self.K[: len(kept), : len(kept)] = self.K[np.ix_(kept, kept)]
        self.members = self.members[kept]
        arriving: np.ndarray = wanted & ~self.chosen
        self.chosen = wanted
        return arriving

    def by_side(self, samples: np.ndarray) -> Iterator[tuple[Side, np.ndarray, np.ndarray]]:
        """Each side, its variables among `samples`, counted within it, and their places there."""
        for side, start in zip(self.sides, self.starts, strict=False):
            places = np.flatnonzero((samples >= start) & (samples < start + side.n))
            yield side, samples[places] - start, places

    def fetch_rows(self, samples: np.ndarray) -> None:
        wanted: dict[int, tuple[RowSource, RowStore, np.ndarray]] = {}
        for side, members, _ in self.by_side(samples):
            for source, store in zip(side.sources, side.stores, strict=True):
                known = wanted.get(id(store))
                # Sides that share a store must ask at once: what one has asked for, the next could
                # throw out.
                both = members if known is None else np.union1d(known[2], members)
                wanted[id(store)] = (source, store, both)
        for source, store, members in wanted.values():
            missing = store.reserve(members)
            if len(missing):
                source.compute(missing, store.rows, store.slot_of[missing], self.parallel_for)

    def gather_kernel(self, old: int) -> None:
        """Complete K, the working set's kernel values, for its members from position `old` on."""
        parts = list(self.by_side(self.members))
        for side, members, places in parts:
            new = places >= old
            if new.any():
                # Those that joined together are in order, so that a side's own are together too.
                first_row, joined = int(places[new][0]), members[new]
                for store, (_, other_members, other_places) in zip(side.stores, parts, strict=True):
                    gather(store.rows, store.slot_of[joined], other_members, self.K, first_row, other_places)

    # -- optimisation -----------------------------------------------------------------------------

    def optimise(self, clock: Clock) -> bool:
        """SMO on the working set, and its effect on every variable's gradient.

        Returns whether anything moved, and as far as it should: where rounding ends SMO, more
        rounds lead nowhere.
        """
        members = self.members
        b, v, lower, upper = (values[members] for values in (self.b, self.v, self.lower, self.upper))
        diagonal = np.diagonal(self.K)[: len(members)].astype(np.float64)
        gap = np.array([self.gap()])
        target = max(
            float(working_set.target(gap, self.tol, len(members) == self.n)[0]),
            float(working_set.rounding(b[None, :], np.abs(diagonal).max())[0]),
        )
        while self.steps_left > 0:
            allowed = min(self.steps_left, STEPS_AT_ONCE)
            steps = solve_working_set(self.K, diagonal, b, v, lower, upper, target, allowed, NONE, self.kink)
            self.n_iter += steps
            self.steps_left -= steps
            if steps < allowed or clock.says_stop():
                break
        change = b - self.b[members]
        changed = np.flatnonzero(change)
        self.b[members] = b
        self.subtract(members[changed], change[changed])
        most, least = working_set.extremes(b[None, :], v[None, :], lower[None, :], upper[None, :], self.epsilon)
        return len(changed) > 0 and bool(most[0] - least[0] <= target)

    def subtract(self, samples: np.ndarray, coefficients: np.ndarray) -> None:
        """v -= K[:, samples] coefficients, from rows that are in the stores."""
        for side, members, places in self.by_side(samples):
            for other, store in enumerate(side.stores):
                part = self.v[self.starts[other] : self.starts[other + 1]]
                subtract_combination(store.rows, store.slot_of[members], coefficients[places], part, 0)

    def recompute_gradient(self) -> None:
        """The gradient from scratch, free of what rounding has added up to."""
        self.v[:] = self.p
        support = np.flatnonzero(self.b)
        for start in range(0, len(support), self.largest):
            part = support[start : start + self.largest]
            self.fetch_rows(part)
            self.subtract(part, self.b[part])

    def result(self) -> Solution:
        return self.solution(self.tol, rounding=self.rounding, in_float64=self.in_float64)

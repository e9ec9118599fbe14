"""One problem with many support vectors, solved on the kernel values between its active variables.

Where many variables end up between their bounds, a working set that is exchanged again and again
costs more than steps over all of them at once. But many others end up at a bound and stay there,
and kernel values that nobody steps on are better recomputed when a gradient needs them than kept:
memory costs more than arithmetic. So the solver begins with a part of the problem, and goes on
with what the solution of that part leaves open: variables between their bounds, and those that
violate the conditions or nearly do. That is shrinking (Joachims 1998) from the other end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set
from gpusvm.solver.clock import Clock
from gpusvm.solver.iterate import Iterate
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.kernel_values import ActiveMatrix, KernelValues
from gpusvm.solver.panels import PANEL_WIDTH
from gpusvm.solver.precision import ALLOWED_DRIFT, GradientError, drift_of
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.working_set import STEPS_AT_ONCE, Rising, Verified

STEPS_IN_FLOAT32 = 5 * STEPS_AT_ONCE
"""Steps on a float32 gradient after which it is computed anew."""

REACHED = 1.05
"""Times its target: the gap, computed anew, with which steps on a float32 gradient have done what
they could."""


class ActiveSetSolver(Iterate):
    """Solves one problem.

    The result is the same to the last bit for any number of threads.

    Parameters
    ----------
    problem : QP
    values : KernelValues
    room : int
        Most variables that may be active; where it is no less than all, and they are few, they are
        all active.
    memory : callable
        See `ActiveMatrix`.
    tol : float
        Largest violation left.
    steps : int
        Steps of SMO allowed.
    parallel_for : ParallelFor
    error : GradientError
        Of kernel values of the precision of `values`.
    """

    def __init__(
        self,
        problem: QP,
        values: KernelValues,
        *,
        room: int,
        memory: Callable[[int], np.ndarray],
        tol: float,
        steps: int,
        parallel_for: ParallelFor,
        error: GradientError,
    ) -> None:
        super().__init__(problem)
        self.values, self.tol, self.parallel_for, self.error = values, tol, parallel_for, error
        self.room = min(room, self.n)
        self.active = ActiveMatrix(values, memory, working_set.likely_room(self.n, self.room) + PANEL_WIDTH)
        self.chosen = np.zeros(self.n, dtype=bool)
        self.at_once = self.n <= working_set.AT_ONCE and self.room == self.n
        if self.at_once:
            self.active.take_all(self.n)
        self.steps_left = steps
        self.in_float64 = values.dtype == np.float64
        # What is solved at once takes LIBSVM's own path.
        self.float32_steps = not self.in_float64 and not self.at_once

    def solve(self, clock: Clock | None = None) -> Solution:
        """Run to `tol`, unless steps run out, `clock` says stop, or rounding allows no more."""
        clock = clock or Clock()
        if self.b.any():
            self.recompute_gradient()
        self.scale = working_set.scale(self.p, self.v, self.epsilon)
        wanted, gap = self.first_set(), self.gap()
        verified, rising, rounding = Verified(), Rising(), 0.0
        while True:
            self.active.change(wanted, self.parallel_for, clock.interrupted)
            self.chosen = wanted
            target = self.target(gap)
            taken = self.optimise(target, clock) if not clock.interrupted() else 0
            gap = self.gap()
            if clock.says_stop():
                break
            if gap <= self.tol and self.drift() > ALLOWED_DRIFT * self.tol:
                self.recompute_gradient()
                gap = self.gap()
            if gap <= self.tol or self.steps_left <= 0:
                break
            rounding = self.error.rounding(*self.arrays(), exact=self.in_float64, final=False)
            if rising.has_ended(self.objective()) or rounding > 0.0:
                break
            wanted = self.next_set()
            if taken == 0 and not (wanted & ~self.chosen).any():
                break
            complete = self.at_once or np.count_nonzero(self.chosen) < self.room_now()
            if complete and target <= self.tol and verified.no_longer_falls(gap):
                break
        if rounding == 0.0:
            rounding = self.error.rounding(*self.arrays(), exact=self.in_float64, final=True)
        solution = self.solution(self.tol, rounding=rounding, in_float64=self.in_float64)
        return solution._replace(cut_off=clock.is_past() and gap > self.tol)

    # -- the policy, for one problem --------------------------------------------------------------

    def first_set(self) -> np.ndarray:
        if self.at_once:
            return np.ones(self.n, dtype=bool)
        spread = working_set.first_active(self.n, self.room)
        if not self.b.any():
            return spread
        wanted = self.next_set()
        # Where so much is open yet that there is no room for it, its worst part says little about
        # the rest. Where nothing is open, none free and none near the middle, there must be
        # something to look at all the same.
        return spread if not wanted.any() or np.count_nonzero(wanted) >= self.room_now() else wanted

    def next_set(self) -> np.ndarray:
        if self.at_once:
            return self.chosen
        chosen = self.chosen[None, :]
        found: np.ndarray = working_set.active(self.state(), chosen, self.scale, self.tol, self.room_now())[0]
        return found

    def room_now(self) -> int:
        n_free = np.count_nonzero(working_set.free(self.b, self.lower, self.upper, self.epsilon))
        return working_set.active_room(self.n, int(n_free), self.room)

    def target(self, gap: float) -> float:
        return float(working_set.active_target(np.array([gap]), self.scale, self.tol, self.at_once)[0])

    # -- optimisation -----------------------------------------------------------------------------

    def optimise(self, target: float, clock: Clock) -> int:
        """SMO on the active variables, and its effect on every variable's gradient.

        Returns the steps taken.
        """
        members = self.active.members
        b, v, lower, upper = (values[members] for values in (self.b, self.v, self.lower, self.upper))
        target = max(target, float(working_set.rounding(b[None, :], np.abs(self.active.diagonal()).max())[0]))
        taken, before = 0, np.inf
        while True:
            # Before the last rounds as many variables move as there are steps: a gradient anew
            # costs what it saves.
            in_float32 = self.float32_steps and target <= self.tol
            taken += self.take_steps(b, v, lower, upper, target, clock, in_float32=in_float32)
            if not in_float32:
                break
            most, least = working_set.extremes(b[None, :], v[None, :], lower[None, :], upper[None, :], self.epsilon)
            gap = float(most[0] - least[0])
            if gap <= REACHED * target or self.steps_left <= 0 or clock.says_stop():
                break
            # What float32 has not brought much nearer is left to float64.
            self.float32_steps, before = gap < before / 2, gap
        change = b - self.b[members]
        self.b[members], self.v[members] = b, v
        changed = np.flatnonzero(change)
        others = np.flatnonzero(~self.chosen)
        if len(changed) and len(others):
            self.values.subtract(self.v, others, members[changed], change[changed], self.parallel_for)
        return taken

    def take_steps(
        self,
        b: np.ndarray,
        v: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        target: float,
        clock: Clock,
        *,
        in_float32: bool,
    ) -> int:
        """SMO on b and v of the active variables, (q,) each, as far as steps and `clock` allow.

        Returns the steps taken.
        """
        K, diagonal, on_demand = self.active.K, self.active.diagonal(), self.active.on_demand
        start, gradient = (b.copy(), v.astype(np.float32)) if in_float32 else (b, v)
        taken = 0
        while self.steps_left > 0:
            allowed = min(self.steps_left, STEPS_AT_ONCE)
            done = solve_working_set(K, diagonal, b, gradient, lower, upper, target, allowed, on_demand, self.kink)
            taken += done
            self.steps_left -= done
            if done < allowed or clock.says_stop() or (in_float32 and taken >= STEPS_IN_FLOAT32):
                break
        self.n_iter += taken
        if in_float32:
            changed = np.flatnonzero(b - start)
            self.active.subtract(v, changed, (b - start)[changed], self.parallel_for)
        return taken

    def drift(self) -> float:
        return float(drift_of(self.v, self.active.diagonal(), self.lower, self.upper, self.n_iter))

    def recompute_gradient(self) -> None:
        """The gradient from scratch."""
        self.v[:] = self.p
        support = np.flatnonzero(self.b)
        if len(support):
            self.values.subtract(self.v, np.arange(self.n), support, self.b[support], self.parallel_for)

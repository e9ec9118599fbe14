"""Many problems in lockstep, over an array module: the scheduler for a GPU.

A GPU is only full when many problems work at once. Here every problem of a group takes part in
every round: arrays have a row for each, and a kernel one or more blocks. A round is a handful of
launches, and the host reads one small array: what each problem does (`select`), which kernel rows
are missing (`want`, `allocate`, then the read), those rows, and for the problems that run the
values of what joined their working sets (`gather`), SMO, and its effect on all gradients
(`subtract`). A problem that seems finished has its gradient computed from scratch in a round. The
policy is that of `growing`: both take it from `working_set`, and `select` in pairs.cu is its form
for a GPU. Rows of the kernel matrix are computed once for all problems of the group, since a
sample's row serves every problem of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpusvm.device import to_device
from gpusvm.kernels import Array, Kernel
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set
from gpusvm.solver.clock import Clock, Shares
from gpusvm.solver.cuda_kernels import CHECK, FIELDS, FIGURES, FINISHED, GRADIENT, LARGEST_SET, START, WARM, Kernels
from gpusvm.solver.cuda_problems import DeviceProblems, figures_of
from gpusvm.solver.iterate import solution_of
from gpusvm.solver.precision import GradientError
from gpusvm.solver.working_set import STEPS_AT_ONCE, Verified

ROWS_FOR_EACH = 512
"""Kernel rows that the budget should hold for each pair of blocks of a group, to begin with; of a
group whose working sets turn out to need more than there is room for, some problems wait for the
others."""

MOST_WORK = {np.dtype(np.float32): 2**40, np.dtype(np.float64): 2**36}
"""Multiplications for kernel rows of either precision that the device is given before the host
waits for it: about half a second on a T4, the slowest device that has the kernels. So Ctrl-C is
heard within a second."""

_FIRST_KERNEL = 512
"""Size of the working sets' kernel values to begin with; it doubles as they grow."""

_SELECTED = 96
"""Bytes of each variable of a problem: six float64 arrays, two of int32, its mask; at the
beginning what is brought, at the end what is read."""


@dataclass(frozen=True)
class Device:
    """What the loop runs on.

    Attributes
    ----------
    xp : module
        ``cupy``, or ``numpy`` for kernels that run on the host.
    kernels : Kernels
    rows : callable
        ``rows(X, kernel, dtype)`` gives a `DeviceRows`, which computes kernel rows of `dtype`.
    largest_set : int
        Variables that a working set may have.
    out_of_memory : tuple of exception types
        What `xp` raises where memory runs out.
    """

    xp: ModuleType
    kernels: Kernels
    rows: Callable[[Any, Kernel, Any], Any]
    largest_set: int = LARGEST_SET
    out_of_memory: tuple[type[BaseException], ...] = (MemoryError,)

    def to_device(self, array: np.ndarray) -> Array:
        return np.asarray(array) if self.xp is np else to_device(array)

    def to_host(self, array: Array) -> np.ndarray:
        found: np.ndarray = array.get() if hasattr(array, "get") else array
        return found


class Following(NamedTuple):
    """Another problem over the variables of one that has ended.

    It goes on with the rows and the working set of the one that has ended.

    Attributes
    ----------
    problem : QP
        With a start.
    v : (n,) float64 array
        The gradient at the start.
    """

    problem: QP
    v: np.ndarray


Report = Callable[[int, Solution, np.ndarray], Following | None]
"""Told of each problem that has ended, with its gradient (n,) float64; returns what takes its
place, if anything."""


class _RowsDoNotFit(Exception):
    """The budget does not hold the rows to begin with."""


def solve_in_lockstep(
    X: Array,
    blocks: Sequence[np.ndarray],
    problems: Sequence[QP],
    kernel: Kernel,
    stopping: Stopping,
    *,
    device: Device,
    budget_mb: float,
    progress: Callable[[int, int, Solution], None] | None = None,
) -> list[Solution]:
    """Solve several problems over the same samples, as many at a time as the budget allows.

    Kernel values are float32; the problems for which that proves too coarse go on with float64.

    Parameters
    ----------
    X : (n_samples, n_features) array of NumPy or the device's module, float32 or float64; or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks, problems, kernel, stopping, progress
        As for `gpusvm.solver.solve`; on the host.
    device : Device
    budget_mb : float
        Device memory to use, in MB. Where it runs out, smaller groups of problems are tried.

    Returns
    -------
    list of Solution

    Raises
    ------
    MemoryError
        Not even one problem fits.
    """
    found: dict[int, Solution] = {}

    def finished(index: int, solution: Solution, v: np.ndarray) -> None:
        found[index] = solution
        if progress is not None:
            progress(len(found), index, found[index])

    numbered = dict(enumerate(problems))
    session = Session(device, budget_mb, gradients=False)
    solve_each(X, blocks, numbered, kernel, stopping, finished, session)
    return [found[index] for index in range(len(problems))]


class Session(NamedTuple):
    """What problems are solved on.

    Attributes
    ----------
    device : Device
    budget_mb : float
        Device memory to use, in MB. Where it runs out, smaller groups of problems are tried.
    look : callable
        Called in every round. What it raises ends the work.
    gradients : bool
        Whether whoever is told of solutions looks at gradients; else they are empty.
    """

    device: Device
    budget_mb: float
    look: Callable[[], None] = lambda: None
    gradients: bool = True


def solve_each(
    X: Array,
    blocks: Sequence[np.ndarray],
    problems: dict[int, QP],
    kernel: Kernel,
    stopping: Stopping,
    report: Report,
    session: Session,
) -> None:
    """Solve problems as `solve_in_lockstep` does, and whatever `report` puts in the place of each.

    Parameters
    ----------
    problems : dict of int to QP
        Follows: it holds what took the place of a problem.
    report : Report
        Called with the number of a problem, what it has come to, and its gradient. A problem for
        which float32 is too coarse is reported once it was solved in float64; so is what takes its
        place.
    """
    left, too_coarse = problems, dict[int, QP]()
    steps = dict.fromkeys(problems, 0)
    shares = Shares(stopping.time_limit, {index: float(problem.n) ** 2 for index, problem in problems.items()})

    def finished(index: int, solution: Solution, v: np.ndarray) -> Following | None:
        n_iter = steps[index] + solution.n_iter
        may_go_on = not solution.cut_off and n_iter < stopping.iterations_allowed(left[index].n)
        if not solution.converged and not solution.in_float64 and may_go_on:
            steps[index], too_coarse[index] = n_iter, left[index]._replace(start=solution.b)
            shares.give_back(index)
            return None
        steps[index] = 0
        following = report(index, solution._replace(n_iter=n_iter), v)
        if following is not None:
            left[index] = following.problem
        return following

    for dtype in (np.float32, np.float64):
        rows = session.device.rows(X, kernel, np.dtype(dtype))
        if dtype == np.float64 or rows.fits_float32:
            shared = _Shared(X, blocks, kernel, stopping, rows, session, shares)
            _solve_groups(left, shared, steps, finished)
            left, too_coarse = too_coarse, {}
        if not left:
            break


class _Shared(NamedTuple):
    """What groups of problems have in common."""

    X: Array
    blocks: Sequence[np.ndarray]
    kernel: Kernel
    stopping: Stopping
    rows: Any
    session: Session
    shares: Shares

    def clock(self, group: Collection[int]) -> Clock:
        """Of these problems, begun now."""

        def interrupted() -> bool:
            self.session.look()
            return False

        return Clock(interrupted, self.shares.deadline(group, 1))


def _solve_groups(problems: Mapping[int, QP], shared: _Shared, steps: Mapping[int, int], report: Report) -> None:
    """Solve problems together, or in halves where memory runs out.

    `steps` are those that each problem has taken. Where `report` puts another problem in the place
    of one, `problems` has it too.
    """
    done: set[int] = set()
    too_large: tuple[type[BaseException], ...] = (_RowsDoNotFit, *shared.session.device.out_of_memory)

    def finished(index: int, solution: Solution, v: np.ndarray) -> Following | None:
        following = report(index, solution, v)
        if following is None:
            done.add(index)
        return following

    waiting = [list(problems)]
    while waiting:
        group = [index for index in waiting.pop() if index not in done]
        if not group:
            continue
        chosen = {index: problems[index] for index in group}
        try:
            capacity = _rows_that_fit(chosen.values(), shared)
            taken = np.array([steps[index] for index in group], dtype=np.int64)
            _Group(chosen, shared, taken, capacity).solve(finished, shared.clock(group))
        except too_large as error:
            left = [index for index in group if index not in done]
            if left and len(group) == 1:
                sizes = " and ".join(f"{len(shared.blocks[b]):,}" for b in dict.fromkeys(problems[group[0]].blocks))
                raise MemoryError(
                    f"cache_size={shared.session.budget_mb:.0f} MB is too little for a problem of {sizes} samples "
                    f"({str(error) or type(error).__name__})"
                ) from error
            for index in left:
                shared.shares.give_back(index)
            half = max(1, len(left) // 2)
            waiting += [left[half:], left[:half]]


def _rows_that_fit(problems: Collection[QP], shared: _Shared) -> int:
    """How many kernel rows the budget holds for this group beside what else it needs.

    Raises _RowsDoNotFit where they are too few to begin with.
    """
    itemsize = shared.rows.dtype.itemsize
    n_columns = sum(len(shared.blocks[b]) for b in {b for problem in problems for b in problem.blocks})
    n = max(problem.n for problem in problems)
    q = min(shared.session.device.largest_set, n)
    fixed = len(problems) * (_SELECTED * n + (itemsize * q + 28) * q) + shared.rows.nbytes
    capacity = int((shared.session.budget_mb * 2**20 - fixed) / (itemsize * n_columns))
    # Problems about the same samples, as those of the folds, need much the same rows.
    if capacity < min(n_columns, ROWS_FOR_EACH * len({problem.blocks for problem in problems})):
        raise _RowsDoNotFit(f"{max(0, capacity):,} kernel rows of {n_columns:,} values fit beside the rest")
    return min(capacity, n_columns)


class _Report(NamedTuple):
    """What the host reads in a round: (n_problems,) arrays, and two numbers of columns.

    `n_wanted` columns are wanted, and `n_missing` of them have no row.
    """

    gaps: np.ndarray
    norms: np.ndarray
    n_members: np.ndarray
    n_new: np.ndarray
    action: np.ndarray
    steps_left: np.ndarray
    n_support: np.ndarray
    n_missing: int
    n_wanted: int


class _Group:
    """Problems solved together. Arrays have a row for each; `n` is the size of the largest.

    `steps` (n_problems,) are those that each has taken before.
    """

    def __init__(self, problems: Mapping[int, QP], shared: _Shared, steps: np.ndarray, capacity: int) -> None:
        self.shared, self.device, self.xp = shared, shared.session.device, shared.session.device.xp
        self.tol, self.dtype = shared.stopping.tol, shared.rows.dtype
        self.indices, self.problems = list(problems), list(problems.values())
        xp, count = self.xp, len(problems)
        self.place()
        self.largest = min(self.device.largest_set, self.n, capacity)
        self.place_first_sets()

        self.capacity = capacity
        n_columns = len(self.columns)
        self.rows = xp.empty((capacity, n_columns), dtype=self.dtype)
        self.slot_of = xp.full(n_columns, -1, dtype=np.int32)
        self.wanted = xp.zeros(n_columns, dtype=np.uint8)
        self.missing, self.slots = (xp.empty(n_columns, dtype=np.int32) for _ in range(2))
        self.held = xp.zeros(1, dtype=np.int32)

        size = min(_FIRST_KERNEL, self.largest)
        self.K = xp.empty((count, size, size), dtype=self.dtype)
        self.change, self.bounds = xp.zeros((count, self.largest)), xp.empty((count, 2, self.largest))
        self.support = xp.empty((count, self.n), dtype=np.int32)
        self.keys = xp.empty((count, self.n), dtype=np.uint64)
        self.n_old, self.status, self.n_support = (xp.zeros(count, dtype=np.int32) for _ in range(3))
        self.growing = xp.ones(count, dtype=np.int32)
        self.gaps, self.norms, self.target = (xp.zeros(count) for _ in range(3))
        allowed = [shared.stopping.iterations_allowed(problem.n) for problem in self.problems]
        self.allowed = np.maximum(np.array(allowed, dtype=np.int64) - steps, 0)
        self.steps_left, self.moved = xp.array(self.allowed), xp.zeros(count, dtype=np.int64)
        self.lines = xp.zeros((count + 1, FIELDS))
        self.was_checked = np.zeros(count, dtype=bool)
        self.verified = [Verified() for _ in self.problems]
        self.errors = [self.gradient_error(problem) for problem in self.problems]
        self._listed: tuple[bytes, Array] = (b"", None)

    def place(self) -> None:
        """Bring the problems to the device, with what each does first."""
        begun = np.array([problem.start is not None and problem.start.any() for problem in self.problems])
        starts = [np.zeros(problem.n) if problem.start is None else problem.start for problem in self.problems]
        placed = DeviceProblems(self.shared.blocks, self.problems, self.device, starts if begun.any() else None)
        self.placed, self.columns, self.n = placed, placed.columns, placed.n
        self.chosen, self.member, self.n_variables = self.xp.asarray(self.columns), placed.member, placed.n_variables
        self.p, self.lower, self.upper, self.epsilon = placed.p, placed.lower, placed.upper, placed.epsilon
        self.b, self.v = placed.b, placed.v
        self.action = self.xp.asarray(np.where(begun, WARM, START).astype(np.int32))

    def place_first_sets(self) -> None:
        is_member = np.zeros((len(self.problems), self.n), dtype=np.uint8)
        members = np.zeros((len(self.problems), self.largest), dtype=np.int32)
        counts = np.zeros(len(self.problems), dtype=np.int32)
        for k, problem in enumerate(self.problems):
            chosen = np.flatnonzero(self.first_set(problem))
            members[k, : len(chosen)], is_member[k, chosen], counts[k] = chosen, 1, len(chosen)
        self.is_member, self.members, self.n_members = (self.xp.asarray(a) for a in (is_member, members, counts))

    def first_set(self, problem: QP) -> np.ndarray:
        largest = min(self.largest, problem.n)
        if problem.start is not None and problem.start.any() and problem.n > working_set.SMALL:
            warm = working_set.warm_set(problem.start, problem.lower, problem.upper, problem.epsilon, largest)
            if warm.any():
                return warm
        return working_set.first_set([len(self.shared.blocks[b]) for b in problem.blocks], largest)

    def gradient_error(self, problem: QP) -> GradientError:
        # No reference to the group, which would keep it and its arrays alive.
        X, kernel, blocks, to_host = self.shared.X, self.shared.kernel, self.shared.blocks, self.device.to_host

        def exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            rows = problem.rows(blocks)
            if kernel.precomputed:
                return to_host(X[rows[left]][:, rows[right]]).astype(np.float64)
            return to_host(kernel(X[rows[left]].astype(np.float64), X[rows[right]].astype(np.float64)))

        work = 1 if kernel.precomputed else X.shape[1]
        return GradientError(self.shared.rows.value_error, exact, work, problem.p, self.tol)

    # -- the loop ---------------------------------------------------------------------------------

    def solve(self, finished: Report, clock: Clock) -> None:
        """Run each to `tol`, unless steps run out, `clock` says stop, or float32 is too coarse.

        What `finished` puts in the place of one that has ended takes part from the next round on.
        Problems take part together as long as there is room for their rows; then some wait until
        others are done.
        """
        waiting = [(np.arange(len(self.problems)), False)]
        while waiting:
            live, is_selected = waiting.pop()
            while len(live):
                report, new = self.select(live, is_selected=is_selected), live[:0]
                if not is_selected:
                    ended = self.ended(live, report, clock)
                    following: dict[int, Following | None] = {}  # by a loop: a function within would keep the group
                    for k, result in self.results(live[ended], report, clock):
                        following[k] = finished(self.indices[k], *result)
                    new = self.replace(following, report)
                    live = live[~ended]
                is_selected = False
                if report.n_wanted <= self.capacity:
                    self.take_steps(live, report)
                elif len(live) > 1:  # each does later what it was to do now
                    half = len(live) // 2
                    waiting.append((live[half:], True))
                    live, is_selected = live[:half], True
                elif len(live):
                    self.compute_gradient_in_parts(live, report)
                if is_selected and len(new):
                    waiting.append((new, False))
                elif len(new):
                    live = np.union1d(live, new)

    def replace(self, following: Mapping[int, Following | None], report: _Report) -> np.ndarray:
        """Put other problems in the place of some that have ended; returns their places (m,)."""
        others = {k: other for k, other in following.items() if other is not None}
        places = np.array(list(others), dtype=np.int64)
        if not len(places):
            return places
        state = np.zeros((4, len(places), self.n))
        for at, (k, (problem, v)) in enumerate(others.items()):
            state[:, at, : problem.n] = problem.start, v, problem.lower, problem.upper
            self.problems[k], self.verified[k], self.was_checked[k] = problem, Verified(), False
            self.allowed[k] = self.shared.stopping.iterations_allowed(problem.n)
        xp, rows = self.xp, self.xp.asarray(places)
        for array, values in zip((self.b, self.v, self.lower, self.upper), xp.asarray(state), strict=True):
            array[rows] = values
        self.steps_left[rows] = xp.asarray(self.allowed[places])
        self.growing[rows] = 1
        # It goes on as after a check of its gradient. One that was given up has a set of which no
        # values are there.
        is_whole = report.action[places] == FINISHED
        self.action[rows] = xp.asarray(np.where(is_whole, CHECK, START).astype(np.int32))
        return places

    def select(self, live: np.ndarray, *, is_selected: bool) -> _Report:
        """What each problem does in this round, which rows it needs, and which are missing."""
        listed, kernels = self.listed(live), self.device.kernels
        if not is_selected:
            kernels.select(
                listed, self.n_variables, self.p, self.lower, self.upper, self.epsilon, self.b, self.v, self.is_member,
                self.members, self.n_members, self.n_old, self.growing, self.action, self.target, self.gaps,
                self.norms, self.status, self.steps_left, self.moved, self.support, self.n_support, self.keys,
                largest=self.largest, tol=self.tol, largest_value=self.shared.rows.largest_value,
            )  # fmt: skip
        return self.allocate(listed)

    def allocate(self, listed: Array, **part: int) -> _Report:
        kernels = self.device.kernels
        kernels.want(
            listed, self.action, self.member, self.members, self.n_members, self.support, self.n_support, self.wanted,
            **part,
        )  # fmt: skip
        kernels.allocate(
            self.wanted, self.slot_of, self.held, self.missing, self.slots, self.gaps, self.norms, self.n_members,
            self.n_old, self.action, self.steps_left, self.n_support, self.lines, capacity=self.capacity,
        )  # fmt: skip
        lines = self.device.to_host(self.lines).copy()
        gaps, norms = lines[:-1, 0], lines[:-1, 1]
        return _Report(gaps, norms, *lines[:-1, 2:7].astype(np.int64).T, *(int(x) for x in lines[-1, :2]))

    def take_steps(self, live: np.ndarray, report: _Report) -> None:
        """Compute the rows that are missing; then SMO, or gradients from scratch."""
        self.compute_rows(report.n_missing)  # though a problem wants them that has ended: they have their slots
        if not len(live):
            return
        listed, kernels = self.listed(live), self.device.kernels
        runs = (report.action[live] != CHECK) & (report.action[live] != GRADIENT)
        self.was_checked[live] = report.action[live] == CHECK
        if runs.any():
            running = live[runs]
            self.make_room(int(report.n_members[running].max()))
            most_new = int(report.n_new[running].max())
            if most_new:
                kernels.gather(
                    listed, self.action, self.rows, self.slot_of, self.member, self.members, self.n_old, self.n_members,
                    self.K, most=int(report.n_members[running].max()), most_new=most_new,
                )  # fmt: skip
            kernels.smo(
                listed, self.action, self.K, self.members, self.n_members, self.lower, self.upper, self.epsilon, self.v,
                self.target, STEPS_AT_ONCE, self.b, self.change, self.bounds, self.steps_left, self.moved, self.status,
            )  # fmt: skip
        self.subtract(listed)

    def subtract(self, listed: Array, **part: int) -> None:
        self.device.kernels.subtract(
            listed, self.action, self.rows, self.slot_of, self.member, self.members, self.n_members, self.change,
            self.support, self.n_support, self.b, self.v, **part,
        )  # fmt: skip

    def compute_rows(self, n_missing: int) -> None:
        """The rows that are missing; of very many, or very long ones, some at a time."""
        rows = self.shared.rows
        at_once = max(1, int(MOST_WORK[self.dtype] / (len(self.columns) * max(1.0, rows.work))))
        for first in range(0, n_missing, at_once):
            if first:
                self.device.to_host(self.held)  # waits for those before
            part = slice(first, min(first + at_once, n_missing))
            rows.compute(self.missing[part], self.slots[part], self.rows, self.chosen)

    def compute_gradient_in_parts(self, live: np.ndarray, report: _Report) -> None:
        """The gradient from scratch of a problem with more non-zero variables than rows fit."""
        listed = self.listed(live)
        self.was_checked[live] = report.action[live] == CHECK
        for begin in range(0, int(report.n_support[live].max()), self.capacity):
            part = {"begin": begin, "end": begin + self.capacity}
            self.compute_rows(self.allocate(listed, **part).n_missing)
            self.subtract(listed, **part)

    def make_room(self, n_members: int) -> None:
        """Let K hold the kernel values of so many members."""
        size = self.K.shape[1]
        if n_members > size:
            while size < n_members:
                size = min(2 * size, self.largest)
            grown = self.xp.empty((len(self.problems), size, size), dtype=self.dtype)
            grown[:, : self.K.shape[1], : self.K.shape[1]] = self.K
            self.K = grown

    def listed(self, live: np.ndarray) -> Array:
        """The problems on the device, where the list changes but seldom."""
        key = live.tobytes()
        if self._listed[0] != key:
            self._listed = key, self.xp.asarray(live.astype(np.int32))
        return self._listed[1]

    # -- the end ----------------------------------------------------------------------------------

    def ended(self, live: np.ndarray, report: _Report, clock: Clock) -> np.ndarray:
        """Which of the problems that selected have ended, as a mask of them."""
        action = report.action[live]
        # A gradient that is computed anew is there after this round, and says nothing before.
        is_there = (action != CHECK) & (action != GRADIENT)
        if clock.says_stop():
            return is_there
        ended = action == FINISHED
        for place in np.flatnonzero(is_there & ~ended).tolist():
            k = live[place]
            if self.was_checked[k]:
                ended[place] = self.verified[k].no_longer_falls(float(report.gaps[k]))
            if not ended[place] and self.dtype == np.float32:
                ended[place] = self.rounding(k, report.norms[k], final=False) > 0.0
        return ended

    def rounding(self, k: int, norm: float, *, final: bool) -> float:
        """`GradientError.rounding` of a problem whose coefficients have this norm.

        The coefficients themselves must seldom be looked at.
        """
        error, problem = self.errors[k], self.problems[k]
        if not error.is_due(norm, final=final):
            return 0.0
        b, v = self.read(k)[:, : problem.n]
        exact = self.dtype == np.float64
        return error.rounding(b, v, problem.lower, problem.upper, problem.epsilon, exact=exact, final=final)

    def read(self, k: int) -> np.ndarray:
        """b and v of a problem, (2, n), on the host."""
        return self.device.to_host(self.xp.stack([self.b[k], self.v[k]]))

    def results(
        self, ended: np.ndarray, report: _Report, clock: Clock
    ) -> Iterator[tuple[int, tuple[Solution, np.ndarray]]]:
        """The solutions of problems that have ended, and their gradients."""
        if not len(ended):
            return
        lines = self.placed.outcomes(ended, vectors=2 if self.shared.session.gradients else 1)
        is_past = clock.is_past()
        for line, k in zip(lines, ended.tolist(), strict=True):
            n = self.problems[k].n
            b, v = line[FIGURES:][:n], line[FIGURES + self.n :][:n]
            solution = solution_of(
                b, figures_of(line), n_iter=int(self.allowed[k] - report.steps_left[k]), tol=self.tol,
                rounding=self.rounding(k, report.norms[k], final=True), in_float64=self.dtype == np.float64,
            )  # fmt: skip
            yield k, (solution._replace(cut_off=is_past and report.gaps[k] > self.tol), v)

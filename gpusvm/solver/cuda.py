"""Many problems in lockstep, over an array module: the scheduler for a GPU.

A GPU is only full when many problems work at once. Here every step of the algorithm is taken for all problems of a
group together: an array has a row for each, and a kernel a block for each. The policy is that of `growing`: both take
it from `working_set`. Rows of the kernel matrix are computed once for all problems of the group, since a sample's
row serves every problem of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from gpusvm.kernels import Array, Kernel, largest_entry, largest_norm, squared_norms
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution
from gpusvm.solver import working_set
from gpusvm.solver.cuda_kernels import CHECK, LARGEST_SET, RUN, Kernels
from gpusvm.solver.iterate import make_solution
from gpusvm.solver.smo import CUT_SHORT, STUCK
from gpusvm.solver.working_set import STEPS_AT_ONCE, Verified

ROWS_FOR_EACH = 512
"""Kernel rows that the budget should hold for each problem of a group; a group that turns out to need more is split."""

PRODUCT_BYTES = 256 * 2**20
"""Memory for the inner products from which kernel rows are made, some rows at a time."""

_FIRST_KERNEL = 512
"""Size of the working sets' kernel values to begin with; it doubles as they grow."""


@dataclass(frozen=True)
class Device:
    """What the loop runs on: an array module, and the kernels of `cuda_kernels`.

    Attributes
    ----------
    xp : module
        ``cupy``, or ``numpy`` for kernels that run on the host.
    kernels : Kernels
    largest_set : int
        Variables that a working set may have.
    out_of_memory : tuple of exception types
        What `xp` raises where memory runs out.
    """

    xp: ModuleType
    kernels: Kernels
    largest_set: int = LARGEST_SET
    out_of_memory: tuple[type[BaseException], ...] = (MemoryError,)

    def to_host(self, array: Array) -> np.ndarray:
        return array if isinstance(array, np.ndarray) else array.get()


class _RowsDoNotFit(Exception):
    """The working sets of a group have more rows than the budget holds."""


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

    Parameters
    ----------
    X : (n_samples, n_features) array of the device's module, float32 or float64
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
    if not kernel.precomputed:
        X = X.astype(kernel.product_dtype(largest_norm(X)), copy=False)
    found: dict[int, Solution] = {}
    waiting = [list(range(len(problems)))]
    too_large: tuple[type[BaseException], ...] = (_RowsDoNotFit, *device.out_of_memory)

    def finished(index: int, solution: Solution) -> None:
        found[index] = solution
        if progress is not None:
            progress(len(found), index, solution)

    while waiting:
        group = [index for index in waiting.pop() if index not in found]
        if not group:
            continue
        chosen = {index: problems[index] for index in group}
        try:
            capacity = _rows_that_fit(chosen.values(), blocks, device, budget_mb)
            _Group(X, blocks, chosen, kernel, capacity, device, stopping).solve(finished)
        except too_large as error:
            left = [index for index in group if index not in found]
            if left and len(group) == 1:
                sizes = " and ".join(f"{len(blocks[b]):,}" for b in problems[group[0]].blocks)
                raise MemoryError(
                    f"cache_size={budget_mb:.0f} MB is too little for a pair of classes of {sizes} samples "
                    f"({str(error) or type(error).__name__})"
                ) from error
            half = max(1, len(left) // 2)
            waiting += [left[half:], left[:half]]
    return [found[index] for index in range(len(problems))]


def _rows_that_fit(problems: Collection[QP], blocks: Sequence[np.ndarray], device: Device, budget_mb: float) -> int:
    """How many kernel rows the budget holds for this group beside what else it needs.

    Raises _RowsDoNotFit where they are too few to begin with.
    """
    n_columns = sum(len(blocks[b]) for b in {b for problem in problems for b in problem.blocks})
    n = max(problem.n for problem in problems)
    q = min(device.largest_set, n)
    # Six float64 and two int32 arrays of all variables, and the working sets' kernel values.
    fixed = len(problems) * (56 * n + 4 * q * q) + PRODUCT_BYTES
    capacity = int((budget_mb * 2**20 - fixed) / (4 * n_columns))
    if capacity < min(n_columns, ROWS_FOR_EACH * len(problems)):
        raise _RowsDoNotFit(f"{max(0, capacity):,} kernel rows of {n_columns:,} values fit beside the rest")
    return min(capacity, n_columns)


class _Group:
    """Problems that are solved together. Arrays have a row for each; `n` is the size of the largest.

    What is left of a shorter problem's row has bounds of zero, which no variable can leave: it never takes part.
    """

    def __init__(
        self,
        X: Array,
        blocks: Sequence[np.ndarray],
        problems: Mapping[int, QP],
        kernel: Kernel,
        capacity: int,
        device: Device,
        stopping: Stopping,
    ) -> None:
        self.device, self.xp, self.kernel, self.tol = device, device.xp, kernel, stopping.tol
        self.indices, self.problems = list(problems), list(problems.values())
        xp, count = self.xp, len(self.problems)
        present = sorted({b for problem in self.problems for b in problem.blocks})
        chosen = xp.asarray(np.concatenate([blocks[b] for b in present]))
        self.X, self.chosen = X if kernel.precomputed else X[chosen], chosen
        self.norms = squared_norms(self.X) if kernel.uses_norms else None
        self.largest_value = largest_entry(self.X) if kernel.precomputed else kernel.largest_value(largest_norm(self.X))
        self.sizes = [problem.n for problem in self.problems]
        self.n = max(self.sizes)
        starts = dict(zip(present, np.cumsum([0, *(len(blocks[b]) for b in present)]), strict=False))
        columns = {b: starts[b] + np.arange(len(blocks[b])) for b in present}
        member = np.zeros((count, self.n), dtype=np.int32)
        p, lower, upper, b = (np.zeros((count, self.n)) for _ in range(4))
        for row, (problem, n) in enumerate(zip(self.problems, self.sizes, strict=True)):
            member[row, :n] = np.concatenate([columns[block] for block in problem.blocks])
            p[row, :n], lower[row, :n], upper[row, :n] = problem.p, problem.lower, problem.upper
            if problem.start is not None:
                b[row, :n] = problem.start
        self.member, self.p, self.lower, self.upper, self.b = (xp.asarray(a) for a in (member, p, lower, upper, b))
        self.v = self.p.copy()
        self.every = xp.arange(count)[:, None]

        self.capacity = capacity
        self.rows = xp.empty((capacity, len(chosen)), dtype=np.float32)
        self.slot_of = xp.full(len(chosen) + 1, -1, dtype=np.int32)
        self.n_rows = 0

        # A problem alone exchanges members of its working set rather than outgrow the rows that fit.
        self.largest = min(device.largest_set, self.n, capacity if count == 1 else self.n)
        self.members = xp.zeros((count, self.largest), dtype=np.int32)
        self.change, self.bounds = xp.zeros((count, self.largest)), xp.empty((count, 2, self.largest))
        self.support = xp.zeros((count, self.n), dtype=np.int32)
        self.action = xp.zeros(count, dtype=np.int32)
        self.is_member = xp.zeros((count, self.n), dtype=bool)
        self.n_members, self.n_old = (np.zeros(count, dtype=np.int32) for _ in range(2))
        self.growing = np.ones(count, dtype=bool)
        size = min(_FIRST_KERNEL, self.largest)
        self.K = xp.empty((count, size, size), dtype=np.float32)
        self.steps_left = np.array([stopping.iterations_allowed(n) for n in self.sizes], dtype=np.int64)
        self.n_iter = np.zeros(count, dtype=np.int64)
        self.verified = [Verified() for _ in self.problems]
        self.first = self.first_sets(blocks)

    # -- the loop --------------------------------------------------------------------------------------

    def solve(self, finished: Callable[[int, Solution], None]) -> None:
        """Run every problem to the tolerance or to its last step."""
        live = np.arange(len(self.problems))
        started = np.array([k for k, problem in enumerate(self.problems) if problem.start is not None], dtype=np.int64)
        if len(started):
            self.recompute_gradients(started)
        arriving = self.first
        while len(live):
            self.join(arriving, live)
            self.fetch_members(live)
            self.gather(live)
            progressed = self.optimise(live)
            arriving, counts, gaps = self.violators(live)
            stuck = ~progressed & ~(self.growing & (counts > 0))
            check = live[(gaps[live] <= self.tol) | (self.steps_left[live] <= 0) | stuck[live]]
            if len(check):
                done = self.verify(check)
                for k in done:
                    finished(self.indices[k], self.result(int(k)))
                live = np.setdiff1d(live, done)
                arriving, _, _ = self.violators(live)

    def verify(self, check: np.ndarray) -> np.ndarray:
        """Recompute the gradients of these problems; returns those among them that are finished."""
        self.recompute_gradients(check)
        gaps = self.gaps()
        finished = [
            k
            for k in check
            if gaps[k] <= self.tol or self.steps_left[k] <= 0 or self.verified[k].no_longer_falls(gaps[k])
        ]
        return np.array(finished, dtype=np.int64)

    def result(self, k: int) -> Solution:
        arrays = (self.b, self.v, self.p, self.lower, self.upper)
        on_host = [self.device.to_host(array[k, : self.sizes[k]]) for array in arrays]
        return make_solution(*on_host, n_iter=int(self.n_iter[k]), tol=self.tol)

    # -- working sets ----------------------------------------------------------------------------------

    def state(self) -> tuple[Array, Array, Array, Array, float]:
        """b, v, the bounds and epsilon, as `working_set` wants them."""
        return self.b, self.v, self.lower, self.upper, 0.0

    def first_sets(self, blocks: Sequence[np.ndarray]) -> Array:
        chosen = np.zeros((len(self.problems), self.n), dtype=bool)
        for row, problem in enumerate(self.problems):
            sizes = [len(blocks[b]) for b in problem.blocks]
            largest = min(self.largest, problem.n)
            chosen[row, : problem.n] = working_set.first_set(sizes, largest)
            if problem.start is not None and problem.n > working_set.SMALL:
                warm = working_set.warm_set(problem.start, problem.lower, problem.upper, 0.0, largest)
                if warm.any():
                    chosen[row, : problem.n] = warm
        return self.xp.asarray(chosen)

    def violators(self, live: np.ndarray) -> tuple[Array, np.ndarray, np.ndarray]:
        """The variables that would join the working sets, as a mask; their numbers; the gaps.

        Only the `live` problems have any.
        """
        xp = self.xp
        arriving = working_set.joining(*self.state(), self.is_member, self.tol, self.largest)
        is_live = np.zeros(len(self.problems), dtype=bool)
        is_live[live] = True
        arriving &= xp.asarray(is_live)[:, None]
        most, least = working_set.extremes(*self.state())
        numbers = self.device.to_host(xp.stack([arriving.sum(axis=1).astype(np.float64), most - least]))
        return arriving, numbers[0].astype(np.int32), numbers[1]

    def join(self, arriving: Array, live: np.ndarray) -> None:
        """Let these variables into the working sets; a set that would grow too large exchanges half of its members."""
        xp = self.xp
        counts = self.device.to_host(arriving.sum(axis=1)).astype(np.int32)
        limits = np.minimum(self.largest, self.sizes)
        self.growing &= self.n_members + counts <= limits
        kept = self.n_members.copy()
        changing = np.intersect1d(np.flatnonzero(~self.growing), live)
        if len(changing):
            rows = xp.asarray(changing)
            b, v, lower, upper = (array[rows] for array in (self.b, self.v, self.lower, self.upper))
            wanted = working_set.exchanged(b, v, lower, upper, 0.0, self.is_member[rows], self.tol, self.largest)
            kept[changing] = self.keep(changing, wanted)
            arriving[rows] = wanted & ~self.is_member[rows]
            self.is_member[rows] = wanted
            counts = self.device.to_host(arriving.sum(axis=1)).astype(np.int32)
            self.n_old[changing] = 0
        # In the order of the variables, behind those that are there.
        order = xp.argsort(~arriving, axis=1, kind="stable")[:, : max(1, int(counts.max()))]
        places = xp.asarray(kept)[:, None] + xp.arange(order.shape[1])[None, :]
        valid = xp.arange(order.shape[1])[None, :] < xp.asarray(counts)[:, None]
        rows = xp.broadcast_to(self.every, order.shape)[valid]
        self.members[rows, places[valid]] = order[valid].astype(np.int32)
        self.is_member |= arriving
        self.n_members = kept + counts

    def keep(self, changing: np.ndarray, wanted: Array) -> np.ndarray:
        """Move the members that stay, (m, n) as a mask, to the front in their order; returns how many they are."""
        xp, rows = self.xp, self.xp.asarray(changing)
        members = self.members[rows]
        inside = xp.arange(members.shape[1])[None, :] < xp.asarray(self.n_members[changing])[:, None]
        stays = xp.take_along_axis(wanted, members.astype(np.int64), axis=1) & inside
        order = xp.argsort(~stays, axis=1, kind="stable")
        self.members[rows] = xp.take_along_axis(members, order, axis=1)
        return self.device.to_host(stays.sum(axis=1)).astype(np.int32)

    # -- kernel values ---------------------------------------------------------------------------------

    def fetch_members(self, live: np.ndarray) -> None:
        """See that the rows of all members of these working sets are there."""
        mask = self.xp.arange(self.members.shape[1])[None, :] < self.xp.asarray(self.n_members[live])[:, None]
        self.fetch(self.members[self.xp.asarray(live)], mask, live)

    def fetch(self, samples: Array, valid: Array, problems: np.ndarray) -> None:
        """Compute the rows of samples (m, k) where `valid`, unless they are there.

        Where they do not fit beside those that are, all others are given up.
        """
        xp = self.xp
        n_columns = len(self.slot_of) - 1
        columns = self.member[xp.asarray(problems)[:, None], samples]
        wanted = xp.zeros(n_columns + 1, dtype=bool)
        wanted[xp.where(valid, columns, n_columns)] = True
        missing = xp.flatnonzero(wanted[:-1] & (self.slot_of[:-1] < 0))
        if self.n_rows + len(missing) > self.capacity:
            missing = xp.flatnonzero(wanted[:-1])
            if len(missing) > self.capacity:
                raise _RowsDoNotFit(f"{len(missing):,} kernel rows are needed and {self.capacity:,} fit")
            self.slot_of[:] = -1
            self.n_rows = 0
        self.slot_of[missing] = xp.arange(self.n_rows, self.n_rows + len(missing), dtype=np.int32)
        step = max(16, PRODUCT_BYTES // (self.X.dtype.itemsize * n_columns))
        for start in range(0, len(missing), step):
            part = missing[start : start + step]
            self.rows[self.n_rows : self.n_rows + len(part)] = self.kernel_rows(part)
            self.n_rows += len(part)

    def kernel_rows(self, samples: Array) -> Array:
        """Kernel values (m, n_columns) of some of the group's samples against all of them."""
        if self.kernel.precomputed:
            return self.X[self.chosen[samples]][:, self.chosen]
        left = None if self.norms is None else self.norms[samples]
        return self.kernel.from_inner_products(self.X[samples] @ self.X.T, left, self.norms)

    def gather(self, live: np.ndarray) -> None:
        """Complete the kernel values of the working sets, for what has joined."""
        size = self.K.shape[1]
        if self.n_members.max() > size:
            while size < self.n_members.max():
                size = min(2 * size, self.largest)
            grown = self.xp.empty((len(self.problems), size, size), dtype=np.float32)
            grown[:, : self.K.shape[1], : self.K.shape[1]] = self.K
            self.K = grown
        self.action[:] = RUN
        self.device.kernels.gather(
            self.on_device(live), self.action, self.rows, self.slot_of, self.member, self.members,
            self.on_device(self.n_old), self.on_device(self.n_members), self.K,
            most=int(self.n_members[live].max()), most_new=int((self.n_members - self.n_old)[live].max()),
        )  # fmt: skip
        self.n_old = self.n_members.copy()

    def on_device(self, numbers: np.ndarray) -> Array:
        return self.xp.asarray(numbers.astype(np.int32))

    # -- optimisation ----------------------------------------------------------------------------------

    def optimise(self, live: np.ndarray) -> np.ndarray:
        """SMO on the working sets, and its effect on every gradient.

        Returns which problems moved, and as far as they should.
        """
        xp = self.xp
        most, least = working_set.extremes(*self.state())
        is_whole = xp.asarray(self.n_members == np.array(self.sizes))
        target = xp.where(is_whole, self.tol, working_set.target(most - least, self.tol, False))
        target = xp.maximum(target, working_set.rounding(self.b, self.largest_value))
        moved, status = (np.zeros(len(self.problems), dtype=np.int64) for _ in range(2))
        under_way = live[self.steps_left[live] > 0]
        while len(under_way):
            running, n_members = self.on_device(under_way), self.on_device(self.n_members)
            steps_left, taken = xp.asarray(self.steps_left), xp.zeros(len(self.problems), dtype=np.int64)
            how = xp.zeros(len(self.problems), dtype=np.int32)
            self.device.kernels.smo(
                running, self.action, self.K, self.members, n_members, self.lower, self.upper, self.v, target,
                STEPS_AT_ONCE, self.b, self.change, self.bounds, steps_left, taken, how,
            )  # fmt: skip
            self.device.kernels.subtract(
                running, self.action, self.rows, self.slot_of, self.member, self.members, n_members, self.change,
                self.support, n_members, self.b, self.v,
            )  # fmt: skip
            self.steps_left[under_way] = self.device.to_host(steps_left)[under_way]
            moved += self.device.to_host(taken)
            status[under_way] = self.device.to_host(how)[under_way]
            under_way = under_way[(status[under_way] == CUT_SHORT) & (self.steps_left[under_way] > 0)]
        self.n_iter += moved
        return (moved > 0) & (status != STUCK)

    def recompute_gradients(self, check: np.ndarray) -> None:
        """The gradients of these problems from scratch, free of what rounding has added up to."""
        xp = self.xp
        checked = xp.asarray(check)
        self.v[checked] = self.p[checked]
        counts = self.device.to_host((self.b != 0).sum(axis=1))
        most = max(1, int(counts[check].max()))
        is_zero = (self.b[checked] == 0).astype(np.int8)
        self.support[checked] = xp.argsort(is_zero, axis=1, kind="stable")
        self.action[:] = CHECK
        width = max(1, self.capacity // len(check))
        for start in range(0, most, width):
            places = xp.arange(start, min(start + width, most))
            valid = places[None, :] < xp.asarray(counts[check])[:, None]
            self.fetch(self.support[checked][:, places], valid, check)
            n_support = self.on_device(counts)
            self.device.kernels.subtract(
                self.on_device(check), self.action, self.rows, self.slot_of, self.member, self.members, n_support,
                self.change, self.support, n_support, self.b, self.v, begin=start, end=start + width,
            )  # fmt: skip

    def gaps(self) -> np.ndarray:
        most, least = working_set.extremes(*self.state())
        return self.device.to_host(most - least)

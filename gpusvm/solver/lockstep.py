"""All class pairs in lockstep, over an array module: the outer loop of `pair` for a GPU.

A GPU is only full when many pairs work at once. Here every step of the algorithm is taken for all pairs of a group
together: an array has a row for each pair, and a kernel a block for each. What a step does is what `pair` does. Rows
of the kernel matrix are computed once for all pairs of the group, since a sample's row serves every pair of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType

import numpy as np

from gpusvm.kernels import Array, Kernel, largest_entry, largest_norm, squared_norms
from gpusvm.params import Stopping
from gpusvm.solver.pair import (
    CHANGING_ACTIVE,
    FIRST_ACTIVE,
    MOST_JOINING,
    STEPS_AT_ONCE,
    PairResult,
    Verified,
    make_result,
)
from gpusvm.solver.smo import CUT_SHORT, STUCK

ROWS_FOR_EACH_PAIR = 512
"""Kernel rows that the budget should hold for each pair of a group; a group that turns out to need more is split."""

PRODUCT_BYTES = 256 * 2**20
"""Memory for the inner products from which kernel rows are made, some rows at a time."""

_FIRST_KERNEL = 512
"""Size of the active sets' kernel values to begin with; it doubles as they grow."""


@dataclass(frozen=True)
class Device:
    """What the loop runs on: an array module, and the three kernels of `cuda_kernels`.

    Attributes
    ----------
    xp : module
        ``cupy``, or ``numpy`` for kernels that run on the host.
    gather, optimise, subtract : callables
        See `cuda_kernels.kernels`.
    largest_active : int
        Variables that `optimise` can take.
    out_of_memory : tuple of exception types
        What `xp` raises where memory runs out.
    """

    xp: ModuleType
    gather: Callable[..., None]
    optimise: Callable[..., None]
    subtract: Callable[..., None]
    largest_active: int
    out_of_memory: tuple[type[BaseException], ...] = (MemoryError,)

    def to_host(self, array: Array) -> np.ndarray:
        return array if isinstance(array, np.ndarray) else array.get()


class _RowsDoNotFit(Exception):
    """The active sets of a group have more rows than the budget holds."""


def solve_in_lockstep(
    X: Array,
    members: Sequence[np.ndarray],
    bounds: Sequence[np.ndarray],
    kernel: Kernel,
    stopping: Stopping,
    *,
    device: Device,
    budget_mb: float,
    progress: Callable[[int, tuple[int, int], PairResult], None] | None = None,
) -> list[PairResult]:
    """Solve C-SVC for every pair of classes, as many at a time as the budget allows.

    Parameters
    ----------
    X : (n_samples, n_features) array of the device's module, float32 or float64
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    members : n_classes arrays of int64, on the host
        The rows of X in each class.
    bounds : n_classes arrays of float64, on the host
        The upper bound C_k of each member's alpha.
    kernel, stopping, progress
        As for `solve_one_vs_one`.
    device : Device
    budget_mb : float
        Device memory to use, in MB. Where it runs out, smaller groups of pairs are tried.

    Returns
    -------
    list of PairResult
        In the order (0, 1), (0, 2), ..., (1, 2), ...

    Raises
    ------
    MemoryError
        Not even one pair fits.
    """
    if not kernel.precomputed:
        X = X.astype(kernel.product_dtype(largest_norm(X)), copy=False)
    pairs = list(combinations(range(len(members)), 2))
    found: dict[tuple[int, int], PairResult] = {}
    waiting = [pairs]
    too_large: tuple[type[BaseException], ...] = (_RowsDoNotFit, *device.out_of_memory)

    def finished(pair: tuple[int, int], result: PairResult) -> None:
        found[pair] = result
        if progress is not None:
            progress(len(found), pair, result)

    while waiting:
        group = [pair for pair in waiting.pop() if pair not in found]
        if not group:
            continue
        try:
            plan = _plan(group, members, device, budget_mb)
            _Group(X, members, bounds, kernel, group, plan, device, stopping).solve(finished)
        except too_large as error:
            left = [pair for pair in group if pair not in found]
            if left and len(group) == 1:
                sizes = " and ".join(f"{len(members[c]):,}" for c in group[0])
                raise MemoryError(
                    f"cache_size={budget_mb:.0f} MB is too little for a pair of classes of {sizes} samples "
                    f"({str(error) or type(error).__name__})"
                ) from error
            half = max(1, len(left) // 2)
            waiting += [left[half:], left[:half]]
    return [found[pair] for pair in pairs]


def _plan(group: Sequence[tuple[int, int]], members: Sequence[np.ndarray], device: Device, budget_mb: float) -> int:
    """How many kernel rows the budget holds for this group beside what else it needs.

    Raises _RowsDoNotFit where they are too few to begin with.
    """
    n_columns = sum(len(members[c]) for c in {c for pair in group for c in pair})
    n = max(len(members[i]) + len(members[j]) for i, j in group)
    q = min(device.largest_active, n)
    # Six float64 and two int32 arrays of all samples, and the active sets' kernel values.
    fixed = len(group) * (56 * n + 4 * q * q) + PRODUCT_BYTES
    capacity = int((budget_mb * 2**20 - fixed) / (4 * n_columns))
    if capacity < min(n_columns, ROWS_FOR_EACH_PAIR * len(group)):
        raise _RowsDoNotFit(f"{max(0, capacity):,} kernel rows of {n_columns:,} values fit beside the rest")
    return min(capacity, n_columns)


class _Group:
    """Pairs that are solved together. Arrays have a row for each pair; `n` is the size of the largest pair.

    What is left of a shorter pair's row has bounds of zero, which no variable can leave: it never takes part.
    """

    def __init__(
        self,
        X: Array,
        members: Sequence[np.ndarray],
        bounds: Sequence[np.ndarray],
        kernel: Kernel,
        pairs: Sequence[tuple[int, int]],
        capacity: int,
        device: Device,
        stopping: Stopping,
    ) -> None:
        self.device, self.xp, self.kernel, self.pairs, self.tol = device, device.xp, kernel, pairs, stopping.tol
        xp = self.xp
        classes = sorted({c for pair in pairs for c in pair})
        chosen = xp.asarray(np.concatenate([members[c] for c in classes]))
        self.X, self.chosen = X if kernel.precomputed else X[chosen], chosen
        self.norms = squared_norms(self.X) if kernel.uses_norms else None
        self.largest_value = largest_entry(self.X) if kernel.precomputed else kernel.largest_value(largest_norm(self.X))
        self.sizes = [len(members[i]) + len(members[j]) for i, j in pairs]
        self.n = max(self.sizes)
        starts = dict(zip(classes, np.cumsum([0, *(len(members[c]) for c in classes)]), strict=False))
        member = np.zeros((len(pairs), self.n), dtype=np.int32)
        signs, lower, upper = (np.zeros((len(pairs), self.n)) for _ in range(3))
        for p, (i, j) in enumerate(pairs):
            n_first, n = len(members[i]), self.sizes[p]
            member[p, :n_first] = starts[i] + np.arange(n_first)
            member[p, n_first:n] = starts[j] + np.arange(n - n_first)
            signs[p, :n_first], signs[p, n_first:n] = 1.0, -1.0
            upper[p, :n_first], lower[p, n_first:n] = bounds[i], -bounds[j]
        self.member, self.signs, self.lower, self.upper = (xp.asarray(a) for a in (member, signs, lower, upper))
        self.beta, self.v = xp.zeros((len(pairs), self.n)), self.signs.copy()
        self.every = xp.arange(len(pairs))[:, None]

        self.capacity = capacity
        self.rows = xp.empty((capacity, len(chosen)), dtype=np.float32)
        self.slot_of = xp.full(len(chosen) + 1, -1, dtype=np.int32)
        self.n_rows = 0

        # A pair alone exchanges members of its active set rather than outgrow the rows that fit.
        self.most_active = min(device.largest_active, self.n, capacity if len(pairs) == 1 else self.n)
        # One column more, where what is not to be kept is written.
        self.active = xp.zeros((len(pairs), self.most_active + 1), dtype=np.int32)
        self.is_active = xp.zeros((len(pairs), self.n), dtype=bool)
        self.n_active, self.n_old = (np.zeros(len(pairs), dtype=np.int32) for _ in range(2))
        size = min(_FIRST_KERNEL, self.most_active)
        self.K = xp.empty((len(pairs), size, size), dtype=np.float32)
        self.steps_left = np.array([stopping.iterations_allowed(n) for n in self.sizes], dtype=np.int64)
        self.n_iter = np.zeros(len(pairs), dtype=np.int64)
        self.verified = [Verified() for _ in pairs]

    # -- the loop --------------------------------------------------------------------------------------

    def solve(self, finished: Callable[[tuple[int, int], PairResult], None]) -> None:
        """Run every pair to the tolerance or to its last step."""
        live = np.arange(len(self.pairs))
        self.append(*self.first_active())
        while len(live):
            self.fetch_active(live)
            self.gather(live)
            progressed = self.optimise(live)
            joining, counts, gaps = self.violators(live)
            growing = self.n_active + counts <= self.most_active
            stuck = ~progressed & ~(growing & (counts > 0))
            check = live[(gaps[live] <= self.tol) | (self.steps_left[live] <= 0) | stuck[live]]
            if len(check):
                done = self.verify(check)
                for p in done:
                    finished(self.pairs[p], self.result(int(p)))
                live = np.setdiff1d(live, done)
                if not len(live):
                    return
                joining, counts, _ = self.violators(live)
            self.join(joining, counts)

    def verify(self, check: np.ndarray) -> np.ndarray:
        """Recompute the gradients of these pairs; returns those among them that are finished."""
        self.recompute_gradients(check)
        gaps = self.gaps()
        finished = [
            p
            for p in check
            if gaps[p] <= self.tol or self.steps_left[p] <= 0 or self.verified[p].no_longer_falls(gaps[p])
        ]
        return np.array(finished, dtype=np.int64)

    def result(self, p: int) -> PairResult:
        n = self.sizes[p]
        arrays = (self.beta, self.v, self.signs, self.lower, self.upper)
        on_host = [self.device.to_host(array[p, :n]) for array in arrays]
        return make_result(*on_host, n_iter=int(self.n_iter[p]), tol=self.tol)

    # -- active sets -----------------------------------------------------------------------------------

    def first_active(self) -> tuple[Array, np.ndarray]:
        """Samples spread evenly over both classes of each pair, (n_pairs, m) without repetition; how many count."""
        half = min(FIRST_ACTIVE, self.most_active) // 2
        chosen = np.zeros((len(self.pairs), 2 * half), dtype=np.int64)
        counts = np.zeros(len(self.pairs), dtype=np.int32)
        n_first = self.device.to_host((self.signs > 0).sum(axis=1))
        for p, (first, n) in enumerate(zip(n_first.tolist(), self.sizes, strict=True)):
            spread = [np.linspace(0, first - 1, half), np.linspace(first, n - 1, half)]
            samples = np.unique(np.concatenate(spread).astype(np.int64))
            others = np.setdiff1d(np.arange(self.n), samples)
            chosen[p], counts[p] = np.concatenate([samples, others])[: 2 * half], len(samples)
        return self.xp.asarray(chosen), counts

    def violators(self, live: np.ndarray) -> tuple[Array, np.ndarray, np.ndarray]:
        """Samples outside the active sets that violate the conditions most, worst first; their number; the gaps.

        Only the `live` pairs have any.
        """
        xp, pairs = self.xp, self.xp.asarray(live)
        most, least = self.extremes()
        score = xp.where(self.is_active, -np.inf, self.scores(most, least))[pairs]
        worst = xp.argsort(-score, axis=1)[:, : min(MOST_JOINING, max(1, self.most_active // 2))]
        number = (xp.take_along_axis(score, worst, axis=1) > 0.5 * self.tol).sum(axis=1)
        # A row of a pair that is done must not repeat a sample either: see `append`.
        joining = xp.tile(xp.arange(worst.shape[1]), (len(self.pairs), 1))
        joining[pairs] = worst
        counts = xp.zeros(len(self.pairs))
        counts[pairs] = number
        numbers = self.device.to_host(xp.stack([counts, most - least]))
        return joining, numbers[0].astype(np.int32), numbers[1]

    def join(self, joining: Array, counts: np.ndarray) -> None:
        """Let the violators into the active sets; a set that would grow too large exchanges half of its members."""
        full = self.n_active + counts > self.most_active
        self.append(joining, np.where(full, 0, counts).astype(np.int32))
        if full.any():
            self.exchange(np.flatnonzero(full))

    def append(self, joining: Array, counts: np.ndarray) -> None:
        """Add the first ``counts[p]`` of ``joining[p]``, all different, to the active set of each pair p."""
        xp = self.xp
        offsets = xp.arange(joining.shape[1])[None, :]
        valid = offsets < xp.asarray(counts)[:, None]
        places = xp.where(valid, xp.asarray(self.n_active)[:, None] + offsets, self.most_active)
        self.active[self.every, places] = joining
        self.is_active[self.every, joining] |= valid
        self.n_old, self.n_active = self.n_active, self.n_active + counts

    def exchange(self, full: np.ndarray) -> None:
        """Choose active sets anew: the worst violators of both kinds, free members, then the other members.

        Half of the set at most is new. It holds the most violating two, with which decomposition converges
        (Keerthi and Gilbert 2002).
        """
        xp, pairs = self.xp, self.xp.asarray(full)
        size = min(CHANGING_ACTIVE, self.most_active)
        most, least = self.extremes()
        off = self.v - ((most + least) / 2)[:, None]
        grows, shrinks = self.beta < self.upper, self.beta > self.lower
        rank = xp.where(self.is_active, self.scores(most, least), -np.inf)
        rank = xp.where(self.is_active & grows & shrinks, 1e300, rank)[pairs]
        every = xp.arange(len(full))[:, None]
        for kind in (xp.where(grows, off, -np.inf), xp.where(shrinks, -off, -np.inf)):
            worst = xp.argsort(-kind[pairs], axis=1)[:, : max(1, size // 4)]
            violates = kind[pairs][every, worst] > 0.5 * self.tol
            rank[every, worst] = xp.where(violates, np.inf, rank[every, worst])
        order = xp.argsort(-rank, axis=1)[:, :size]
        counts = xp.minimum((rank > -np.inf).sum(axis=1), size)
        valid = xp.arange(order.shape[1])[None, :] < counts[:, None]
        self.active[pairs[:, None], xp.arange(order.shape[1])[None, :]] = order
        self.is_active[pairs] = False
        self.is_active[pairs[:, None], order] = valid
        self.n_active[full], self.n_old[full] = self.device.to_host(counts), 0

    # -- kernel values ---------------------------------------------------------------------------------

    def fetch_active(self, live: np.ndarray) -> None:
        """See that the rows of all active samples of these pairs are there."""
        mask = self.xp.arange(self.active.shape[1])[None, :] < self.xp.asarray(self.n_active[live])[:, None]
        self.fetch(self.active[self.xp.asarray(live)], mask, live)

    def fetch(self, samples: Array, valid: Array, pairs: np.ndarray) -> None:
        """Compute the rows of samples (n_pairs, m) where `valid`, unless they are there.

        Where they do not fit beside those that are, all others are given up.
        """
        xp = self.xp
        n_columns = len(self.slot_of) - 1
        columns = self.member[xp.asarray(pairs)[:, None], samples]
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
        """Complete the kernel values of the active sets, for what has joined."""
        size = self.K.shape[1]
        if self.n_active.max() > size:
            while size < self.n_active.max():
                size = min(2 * size, self.most_active)
            grown = self.xp.empty((len(self.pairs), size, size), dtype=np.float32)
            grown[:, : self.K.shape[1], : self.K.shape[1]] = self.K
            self.K = grown
        n_old, n_active = self.on_device(self.n_old), self.on_device(self.n_active)
        self.device.gather(
            self.on_device(live), self.rows, self.slot_of, self.member, self.active, n_old, n_active, self.K
        )
        self.n_old = self.n_active.copy()

    def on_device(self, numbers: np.ndarray) -> Array:
        return self.xp.asarray(numbers.astype(np.int32))

    # -- optimisation ----------------------------------------------------------------------------------

    def optimise(self, live: np.ndarray) -> np.ndarray:
        """SMO on the active sets, and its effect on every gradient; which pairs moved, and as far as they should."""
        xp = self.xp
        most, least = self.extremes()
        rounding = np.finfo(np.float64).eps * (1.0 + xp.abs(self.beta).max(axis=1) * self.largest_value)
        target = xp.maximum(xp.maximum(0.1 * (most - least), 0.5 * self.tol), rounding)
        moved, status = (np.zeros(len(self.pairs), dtype=np.int64) for _ in range(2))
        under_way = live[self.steps_left[live] > 0]
        while len(under_way):
            change = xp.zeros((len(self.pairs), self.active.shape[1]))
            steps, ended = (xp.zeros(len(self.pairs), dtype=np.int32) for _ in range(2))
            allowed = self.on_device(np.minimum(self.steps_left, STEPS_AT_ONCE))
            self.device.optimise(
                self.on_device(under_way), self.K, self.active, self.on_device(self.n_active), self.lower, self.upper,
                self.v, target, allowed, self.beta, change, steps, ended,
            )  # fmt: skip
            n_active = self.on_device(self.n_active)
            self.device.subtract(
                self.on_device(under_way), self.rows, self.slot_of, self.member, self.active, change, n_active, self.v
            )
            taken, how = self.device.to_host(xp.stack([steps, ended])).astype(np.int64)
            status[under_way] = how[under_way]
            moved += taken
            self.steps_left -= taken
            under_way = under_way[(status[under_way] == CUT_SHORT) & (self.steps_left[under_way] > 0)]
        self.n_iter += moved
        return (moved > 0) & (status != STUCK)

    def recompute_gradients(self, check: np.ndarray) -> None:
        """The gradients of these pairs from scratch, free of what rounding has added up to."""
        xp = self.xp
        checked = xp.asarray(check)
        self.v[checked] = self.signs[checked]
        counts = self.device.to_host((self.beta != 0).sum(axis=1))
        support = xp.zeros((len(self.pairs), max(1, int(counts[check].max()))), dtype=np.int32)
        is_zero = (self.beta[checked] == 0).astype(np.int8)
        support[checked] = xp.argsort(is_zero, axis=1)[:, : support.shape[1]]
        coefficients = self.beta[self.every, support]
        width = max(1, self.capacity // len(check))
        for start in range(0, support.shape[1], width):
            part = support[:, start : start + width]
            inside = np.clip(counts - start, 0, part.shape[1])
            valid = xp.arange(part.shape[1])[None, :] < xp.asarray(inside[check])[:, None]
            self.fetch(part[xp.asarray(check)], valid, check)
            self.device.subtract(
                self.on_device(check), self.rows, self.slot_of, self.member, xp.ascontiguousarray(part),
                xp.ascontiguousarray(coefficients[:, start : start + width]), self.on_device(inside), self.v,
            )  # fmt: skip

    def extremes(self) -> tuple[Array, Array]:
        """For each pair, the largest v of those that may grow, and the smallest of those that may shrink."""
        xp = self.xp
        most = xp.where(self.beta < self.upper, self.v, -np.inf).max(axis=1)
        least = xp.where(self.beta > self.lower, self.v, np.inf).min(axis=1)
        return most, least

    def gaps(self) -> np.ndarray:
        most, least = self.extremes()
        return self.device.to_host(most - least)

    def scores(self, most: Array, least: Array) -> Array:
        """By how much each sample's v is on the wrong side of the middle of its pair's gap."""
        off = self.v - ((most + least) / 2)[:, None]
        grow = self.xp.where(self.beta < self.upper, off, -np.inf)
        return self.xp.maximum(grow, self.xp.where(self.beta > self.lower, -off, -np.inf))

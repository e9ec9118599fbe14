"""Gaps of solved problems, recomputed from float64 kernel values on a device.

They are what a training says of its end. The solver has seen float32 values, or gradients that
went from round to round. Here every problem's gradient is computed once more, from its
coefficients alone, in the float64 rows of its support vectors. A row serves all problems of its
sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np

from gpusvm.problem import QP
from gpusvm.solver.cuda import MOST_WORK, Device
from gpusvm.solver.cuda_kernels import RUN
from gpusvm.solver.cuda_problems import DeviceProblems, figures_of
from gpusvm.solver.cuda_rows import DeviceRows

ROWS_MB = 512.0
"""Memory for kernel rows, if the budget has as much."""

GROUP_BYTES, OF_A_VARIABLE = 2**28, 96
"""Memory for the arrays of the problems looked at together, and bytes that each variable takes."""

MOST_TOGETHER = 2**15
"""Problems looked at together: a launch has a row of blocks for each."""


def recomputed_gaps(
    blocks: Sequence[np.ndarray],
    problems: Sequence[QP],
    coefficients: Sequence[np.ndarray],
    rows: DeviceRows,
    device: Device,
    budget_mb: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The largest violation of each problem's optimality conditions.

    Parameters
    ----------
    blocks : sequence of int64 arrays
        The rows of the samples that belong to each block.
    problems : sequence of QP
    coefficients : sequence of (n,) float64 arrays
        Each problem's variables.
    rows : DeviceRows
        Of float64.
    device : Device
    budget_mb : float
        Device memory for kernel rows, in MB; of one sample they are computed in any case.
    meanwhile : callable
        Called once, while the device has much to do.

    Returns
    -------
    (n_problems,) float64 array
    """
    assert rows.dtype == np.float64, rows.dtype
    gaps, once = np.zeros(len(problems)), cache(meanwhile)
    for group in _groups([problem.n for problem in problems]):
        chosen, given = [problems[k] for k in group], [coefficients[k] for k in group]
        checked = _Checked(blocks, chosen, given, device)
        for _ in checked.compute_gradients(rows, min(ROWS_MB, budget_mb)):
            once()
            device.to_host(checked.placed.v[:1, :1])  # wait, so that Ctrl-C is heard
        gaps[group] = checked.gaps()
    once()
    return gaps


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Problems of these sizes, in groups of about one size; the numbers of each group ascend.

    Arrays are as wide as the largest problem of their group.
    """
    group: list[int] = []
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        full = group and (len(group) + 1) * sizes[group[0]] * OF_A_VARIABLE > GROUP_BYTES
        if full or len(group) == MOST_TOGETHER:
            yield sorted(group)
            group = []
        group.append(k)
    if group:
        yield sorted(group)


class _Checked:
    """Problems at their coefficients, on the device."""

    def __init__(
        self, blocks: Sequence[np.ndarray], problems: Sequence[QP], coefficients: Sequence[np.ndarray], device: Device
    ) -> None:
        self.device, self.placed = device, DeviceProblems(blocks, problems, device)
        self.support = _Support(self.placed, coefficients)
        at, values = (device.to_device(array) for array in (self.support.places, self.support.values))
        self.placed.b.reshape(-1)[at] = values

    def gaps(self) -> np.ndarray:
        """(n_problems,) float64, where gradients have been computed."""
        lines = self.placed.outcomes(np.arange(len(self.placed.sizes)), vectors=0)
        return np.array([figures_of(line).gap for line in lines])

    def compute_gradients(self, rows: DeviceRows, rows_mb: float) -> Iterator[None]:
        """v = p - K b: of a part of the samples that are support vectors before each yield."""
        device, placed, xp = self.device, self.placed, self.device.xp
        n_problems, n_columns = len(placed.sizes), len(placed.columns)
        work = MOST_WORK[rows.dtype] / (n_columns * max(1.0, rows.work))
        capacity = max(1, min(len(self.support.samples), int(rows_mb * 2**20 / (8 * n_columns)), int(work)))
        values, slots = xp.empty((capacity, n_columns)), xp.arange(capacity, dtype=np.int32)
        columns, samples, rank = (
            device.to_device(a) for a in (placed.columns, self.support.samples, self.support.rank)
        )
        members, n_members, b = (device.to_device(a) for a in self.support.lists())
        live, action = xp.arange(n_problems, dtype=np.int32), xp.full(n_problems, RUN, dtype=np.int32)
        for start in range(0, len(self.support.samples), capacity):
            end = min(start + capacity, len(self.support.samples))
            rows.compute(samples[start:end], slots[: end - start], values, columns)
            slot_of = xp.where((rank >= start) & (rank < end), rank - start, -1).astype(np.int32)
            device.kernels.subtract(
                live, action, values, slot_of, placed.member, members, n_members, b, members, n_members, placed.b,
                placed.v,
            )  # fmt: skip
            yield


class _Support:
    """The variables of problems that are not zero at their coefficients.

    Attributes
    ----------
    counts : (n_problems,) int64 array
    of, variables : (m,) int64 arrays
        The problem of each, and its place there.
    values : (m,) float64 array
    places : (m,) int64 array
        The same in arrays with a row for each problem, counted through.
    samples : (k,) int32 array
        Their columns, ascending.
    rank : (n_columns,) int32 array
        The place of each column among these, or -1.
    """

    def __init__(self, placed: DeviceProblems, coefficients: Sequence[np.ndarray]) -> None:
        found = [np.flatnonzero(b != 0) for b in coefficients]  # of a mask they are found several times as fast
        self.counts = np.array([len(variables) for variables in found])
        self.of, self.variables = np.repeat(np.arange(len(found)), self.counts), np.concatenate(found)
        self.values = np.concatenate([b[variables] for b, variables in zip(coefficients, found, strict=True)])
        self.places = self.of * placed.n + self.variables
        columns = np.concatenate([placed.columns_of(k, variables) for k, variables in enumerate(found)])
        self.rank = np.full(len(placed.columns), -1, dtype=np.int32)
        self.rank[columns] = 0
        self.samples = np.flatnonzero(self.rank == 0).astype(np.int32)
        self.rank[self.samples] = np.arange(len(self.samples))

    def lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each problem's variables, (n_problems, width) int32; how many; their values, float64."""
        shape = len(self.counts), max(1, int(self.counts.max()))
        places = np.arange(len(self.of)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        members, values = np.zeros(shape, dtype=np.int32), np.zeros(shape)
        members[self.of, places], values[self.of, places] = self.variables, self.values
        return members, self.counts.astype(np.int32), values

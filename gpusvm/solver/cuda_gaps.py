"""Gaps of solved problems, recomputed from float64 kernel values on a device: what a training says of its end.

The solver has seen float32 values, or gradients that went from round to round. Here every problem's gradient is
computed once more, from its coefficients alone, in the float64 rows of its support vectors. A row serves all problems
of its sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpusvm.kernels import Array
from gpusvm.problem import QP
from gpusvm.solver.cuda import MOST_WORK, Device
from gpusvm.solver.cuda_kernels import CHECK
from gpusvm.solver.cuda_rows import DeviceRows
from gpusvm.solver.working_set import extremes

ROWS_MB = 512.0
"""Memory for kernel rows, if the budget has as much."""

GROUP_BYTES, OF_A_VARIABLE = 2**28, 48
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
) -> np.ndarray:
    """The largest violation of each problem's optimality conditions.

    Parameters
    ----------
    blocks : sequence of int64 arrays
        The rows of the samples that belong to each block.
    problems : sequence of QP
        Of one `epsilon`.
    coefficients : sequence of (n,) float64 arrays
        Each problem's variables.
    rows : DeviceRows
        Of float64.
    device : Device
    budget_mb : float
        Device memory for kernel rows, in MB; of one sample they are computed in any case.

    Returns
    -------
    (n_problems,) float64 array
    """
    assert rows.dtype == np.float64, rows.dtype
    gaps = np.zeros(len(problems))
    for group in _groups([problem.n for problem in problems]):
        chosen, given = [problems[k] for k in group], [coefficients[k] for k in group]
        gaps[group] = _Checked(blocks, chosen, given, device).gaps(rows, min(ROWS_MB, budget_mb))
    return gaps


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Problems of these sizes in groups of about one size: arrays are as wide as the largest."""
    group: list[int] = []
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        full = group and (len(group) + 1) * sizes[group[0]] * OF_A_VARIABLE > GROUP_BYTES
        if full or len(group) == MOST_TOGETHER:
            yield group
            group = []
        group.append(k)
    if group:
        yield group


class _Checked:
    """Problems and their coefficients, with a row for each in all arrays, which are the host's."""

    def __init__(
        self, blocks: Sequence[np.ndarray], problems: Sequence[QP], coefficients: Sequence[np.ndarray], device: Device
    ) -> None:
        self.device, self.epsilon = device, problems[0].epsilon
        shape = len(problems), max(problem.n for problem in problems)
        present = sorted({b for problem in problems for b in problem.blocks})
        self.columns = np.concatenate([blocks[b] for b in present]).astype(np.int32)
        starts = dict(zip(present, np.cumsum([0, *(len(blocks[b]) for b in present)]), strict=False))
        self.member = np.zeros(shape, dtype=np.int32)
        self.b, self.p, self.lower, self.upper = (np.zeros(shape) for _ in range(4))
        for k, (problem, b) in enumerate(zip(problems, coefficients, strict=True)):
            places = [starts[block] + np.arange(len(blocks[block])) for block in problem.blocks]
            self.member[k, : problem.n] = np.concatenate(places)
            self.b[k, : problem.n], self.p[k, : problem.n] = b, problem.p
            self.lower[k, : problem.n], self.upper[k, : problem.n] = problem.lower, problem.upper

    def gaps(self, rows: DeviceRows, rows_mb: float) -> np.ndarray:
        """(n_problems,) float64."""
        to_host, xp = self.device.to_host, self.device.xp
        b, v = xp.asarray(self.b), xp.asarray(self.p)
        self.subtract_products(rows, rows_mb, b, v)
        most, least = extremes(b, v, xp.asarray(self.lower), xp.asarray(self.upper), self.epsilon)
        with np.errstate(invalid="ignore"):
            found = to_host(most) - to_host(least)
        return np.where(np.isfinite(found), found, 0.0)  # else nothing may grow, or nothing shrink

    def subtract_products(self, rows: DeviceRows, rows_mb: float, b: Array, v: Array) -> None:
        """Subtract K b from `v`, both (n_problems, n) float64 on the device: of some support vectors after others."""
        xp, n_problems, n_columns = self.device.xp, len(self.b), len(self.columns)
        places = np.nonzero(self.b)
        samples = np.zeros(n_columns, dtype=bool)
        samples[self.member[places]] = True
        samples, rank = np.flatnonzero(samples).astype(np.int32), np.cumsum(samples) - 1
        work = MOST_WORK[rows.dtype] / (n_columns * max(1.0, rows.work))
        capacity = max(1, min(len(samples), int(rows_mb * 2**20 / (8 * n_columns)), int(work)))
        values, member, columns = xp.empty((capacity, n_columns)), xp.asarray(self.member), xp.asarray(self.columns)
        live = xp.arange(n_problems, dtype=np.int32)
        action = xp.full(n_problems, CHECK, dtype=np.int32)
        nothing, unused = xp.zeros((n_problems, 1), dtype=np.int32), xp.zeros((n_problems, 1))
        slot_of = xp.asarray((rank % capacity).astype(np.int32))  # looked at for samples of a part alone
        part_of = rank[self.member[places]] // capacity
        listed = np.zeros(self.b.shape, dtype=np.int32)
        for number, start in enumerate(range(0, len(samples), capacity)):
            part = xp.asarray(samples[start : start + capacity])
            rows.compute(part, xp.arange(len(part), dtype=np.int32), values, columns)
            counts = _list(listed, *(axis[part_of == number] for axis in places))
            self.device.kernels.subtract(
                live, action, values, slot_of, member, nothing, nothing, unused, xp.asarray(listed),
                xp.asarray(counts), b, v,
            )  # fmt: skip
            self.device.to_host(v[:1, :1])  # wait, so that Ctrl-C is heard


def _list(listed: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Write these columns (k,) of their rows (k,), ascending, to the beginnings of the rows of `listed` (m, n) int32.

    Returns how many each row has, (m,) int32; what is behind them is left.
    """
    counts = np.bincount(rows, minlength=len(listed))
    listed[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = columns
    return counts.astype(np.int32)

"""Gaps of solved problems, recomputed from float64 kernel values on a device: what a training says of its end.

The solver has seen float32 values, or gradients that went from round to round. Here every problem's gradient is
computed once more, from its coefficients alone, in the float64 rows of its support vectors. A row serves all problems
of its sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpusvm.problem import QP
from gpusvm.solver.cuda import Device
from gpusvm.solver.cuda_kernels import CHECK
from gpusvm.solver.cuda_rows import DeviceRows
from gpusvm.solver.working_set import extremes

ROWS_MB = 512.0
"""Memory for kernel rows, if the budget has as much: the host looks at what has happened after each such part, and can
be interrupted."""

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
        v = self.gradients(rows, rows_mb)
        most, least = extremes(self.b, v, self.lower, self.upper, self.epsilon)
        with np.errstate(invalid="ignore"):
            found: np.ndarray = most - least
        return np.where(np.isfinite(found), found, 0.0)  # else nothing may grow, or nothing shrink

    def gradients(self, rows: DeviceRows, rows_mb: float) -> np.ndarray:
        """p - K b, (n_problems, n) float64: a part of the samples that are support vectors after the other."""
        xp, n_problems, n_columns = self.device.xp, len(self.b), len(self.columns)
        samples = np.unique(self.member[self.b != 0])
        capacity = min(len(samples), max(1, int(rows_mb * 2**20 / (8 * n_columns))))
        values = xp.empty((capacity, n_columns))
        b, v, member, columns = (xp.asarray(a) for a in (self.b, self.p, self.member, self.columns))
        live = xp.arange(n_problems, dtype=np.int32)
        action = xp.full(n_problems, CHECK, dtype=np.int32)
        nothing, unused = xp.zeros((n_problems, 1), dtype=np.int32), xp.zeros((n_problems, 1))
        for start in range(0, len(samples), max(1, capacity)):
            part = samples[start : start + capacity]
            slot_of = np.full(n_columns, -1, dtype=np.int32)
            slot_of[part] = np.arange(len(part))
            slots = xp.arange(len(part), dtype=np.int32)
            rows.compute(xp.asarray(part), slots, values, columns)
            support, n_support = (xp.asarray(a) for a in _listed((self.b != 0) & (slot_of[self.member] >= 0)))
            self.device.kernels.subtract(
                live, action, values, xp.asarray(slot_of), member, nothing, nothing, unused, support, n_support, b, v
            )
            self.device.to_host(v[:1, :1])  # wait, so that Ctrl-C is heard
        return self.device.to_host(v)


def _listed(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a mask (m, n) is true: the columns of each row at its beginning (m, n) int32, and how many (m,) int32."""
    rows, columns = np.nonzero(mask)
    counts = mask.sum(axis=1)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    listed = np.zeros(mask.shape, dtype=np.int32)
    listed[rows, places] = columns
    return listed, counts.astype(np.int32)

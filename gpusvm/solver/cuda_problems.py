"""Problems brought to a CUDA device: arrays with a row for each, as pairs.cu takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpusvm.problem import QP
from gpusvm.solver.cuda_kernels import FIGURES
from gpusvm.solver.iterate import Figures

if TYPE_CHECKING:
    from gpusvm.solver.cuda import Device


class DeviceProblems:
    """Some problems over the same samples.

    Parameters
    ----------
    blocks : sequence of int64 arrays
        For each block, its samples' rows of the data.
    problems : sequence of QP
    device : Device
    b : sequence of (n,) float64 arrays, optional
        Each problem's variables; zeros where they are left out.

    Attributes
    ----------
    columns : (n_columns,) int32 array of the host
        The rows of the data that the problems are about; `member` counts in them.
    sizes : (n_problems,) int64 array of the host
    n : int
        Size of the largest problem.
    n_variables : (n_problems,) int32 array
    epsilon : (n_problems,) float64 array
    p, lower, upper, b, v : (n_problems, n) float64 arrays
        v is the gradient at zero.
    member : (n_problems, n) int32 array
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray],
        problems: Sequence[QP],
        device: Device,
        b: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.device, xp = device, device.xp
        self.sizes = np.array([problem.n for problem in problems])
        count, self.n = len(problems), int(self.sizes.max())
        present = sorted({block for problem in problems for block in problem.blocks})
        self.columns = np.concatenate([blocks[block] for block in present]).astype(np.int32)
        sizes = {block: len(blocks[block]) for block in present}
        starts = dict(zip(present, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        most = max(len(problem.blocks) for problem in problems)
        self.first, self.begins = np.zeros((count, most), np.int32), np.full((count, most), self.n, np.int32)
        for k, problem in enumerate(problems):
            begin = 0
            for place, block in enumerate(problem.blocks):
                self.first[k, place], self.begins[k, place] = starts[block], begin
                begin += sizes[block]
        vectors = [[getattr(problem, name) for problem in problems] for name in ("p", "lower", "upper")]
        given = [in_one(arrays) for arrays in (vectors if b is None else [*vectors, b])]
        at = np.zeros((4, count), dtype=np.int64)
        at[: len(given)] = [offsets for _, offsets in given]
        self.n_variables = device.to_device(self.sizes.astype(np.int32))
        self.epsilon = device.to_device(np.array([problem.epsilon for problem in problems]))
        self.p, self.lower, self.upper, self.b, self.v = (xp.empty((count, self.n)) for _ in range(5))
        self.member = xp.empty((count, self.n), dtype=np.int32)
        places, first, begins = (device.to_device(array) for array in (at, self.first, self.begins))
        device.kernels.place(
            self.n_variables, places, first, begins, [device.to_device(array) for array, _ in given],
            self.p, self.lower, self.upper, self.b, self.v, self.member,
        )  # fmt: skip

    def columns_of(self, k: int, variables: np.ndarray) -> np.ndarray:
        """The columns (m,) int64 of some variables of problem `k`, which ascend."""
        shift = (self.first[k].astype(np.int64) - self.begins[k]).tolist()
        ends = np.searchsorted(variables, [*self.begins[k, 1:], self.n]).tolist()
        columns, begin = np.empty_like(variables), 0
        for by, end in zip(shift, ends, strict=True):
            columns[begin:end] = variables[begin:end] + by
            begin = end
        return columns

    def outcomes(self, places: np.ndarray, *, vectors: int) -> np.ndarray:
        """What has come of the problems in some places: a line for each, on the host.

        It begins with what `figures_of` reads; then come b, if `vectors` is 1 or 2, and v, if it
        is 2, (n,) each.
        """
        listed = self.device.to_device(places.astype(np.int32))
        found = self.device.xp.empty((len(places), FIGURES + vectors * self.n))
        self.device.kernels.outcome(
            listed, self.n_variables, self.p, self.lower, self.upper, self.epsilon, self.b, self.v, found,
            vectors=vectors,
        )  # fmt: skip
        return self.device.to_host(found)


def in_one(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One array that holds all `arrays`, float64 (n,), and where each begins, (n_arrays,) int64.

    Nothing is copied where they are parts of one array that is no larger than they are together:
    as `c_svc` makes them.
    """
    sizes = [len(array) for array in arrays]
    base = arrays[0].base
    are_parts = all(array.base is base and array.flags.c_contiguous for array in arrays)
    if are_parts and isinstance(base, np.ndarray) and base.ndim == 1 and base.flags.c_contiguous:
        offsets = (np.array([_address(array) for array in arrays]) - _address(base)) // arrays[0].itemsize
        first, last = int(offsets.min()), int((offsets + sizes).max())
        if base.dtype == arrays[0].dtype and last - first <= sum(sizes):
            return base[first:last], offsets - first
    return np.concatenate(arrays), np.cumsum([0, *sizes[:-1]])


def _address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def figures_of(line: np.ndarray) -> Figures:
    """The figures at the beginning of a line of `DeviceProblems.outcomes`."""
    most, least, slopes, n_free, objective = line[:FIGURES].tolist()
    return Figures(most, least, slopes, int(n_free), objective)

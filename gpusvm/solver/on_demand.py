"""Kernel rows that are computed inside compiled code when a step first needs them.

Of the pairs of many classes, most variables are never touched: of letter's 1,154 a pair, 120 have
a coefficient under a linear kernel, and 410 under an RBF one. To compute and mirror the whole
matrix of kernel values costs more than all steps; a row costs as much as a step or two, and what
is computed stays in a second-level cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.kernel_rows import _KINDS, _write_kernel, kernel_numbers
from gpusvm.solver.operands import (
    BlasOperand,
    IntegerOperand,
    PanelOperand,
    Samples,
    TileOperand,
    make_operand,
    packed_columns,
)
from gpusvm.solver.panels import PANEL_WIDTH, multiply, multiply_integers
from gpusvm.solver.tiles import multiply_row

LONGEST = 100
"""Numbers of a sample, or non-zeros on average, up to which rows are computed when they are
needed. Longer products cost more than what surrounds them, and in a whole matrix half are
mirrored. With 64, 100, 200 and 400 features, whole matrix against rows: eight classes 66 and 53,
103 and 116, 130 and 156, 164 and 278 ms; two classes 15 and 14, 12 and 13, 16 and 21, 27 and
40."""

_RBF = _KINDS["rbf"]


class RowsOnDemand(NamedTuple):
    """What the rows of a problem's kernel matrix are computed from, and where those at hand are.

    Attributes
    ----------
    numbers : tuple
        From `kernel_rows.kernel_numbers`.
    left : (n, d) float32 or float64 array, or three arrays
        The samples; or their non-zeros, from `panels.pack_nonzeros` or `panels.pack_integers`.
    panels : (n_panels, any) float32, float64 or int16 array
        The same samples in panels.
    norms : (n,) float32, float64 or int32 array
        Their squared norms.
    inner : (1, 16 n_panels) array like `norms`
        Room for the inner products of a row.
    place : (n,) int64 array
        Where in the matrix each variable's row is: -1 as long as it is not computed.
    n_there : (1,) int64 array
        How many are; they lie together.
    """

    numbers: tuple[Any, ...]
    left: Any
    panels: np.ndarray
    norms: np.ndarray
    inner: np.ndarray
    place: np.ndarray
    n_there: np.ndarray


NONE = ()
"""In place of `RowsOnDemand`, where a matrix is complete."""


def rows_on_demand(kernel: Kernel, samples: Samples, rows: np.ndarray) -> RowsOnDemand | None:
    """What the float32 kernel values between `rows` of the samples are computed from.

    None for long samples (`LONGEST`), and for those multiplied as lists: their matrix is soonest
    had whole.
    """
    operand = make_operand(samples, rows)
    if isinstance(operand, PanelOperand | IntegerOperand):
        left, panels = operand.products(samples, rows).nonzeros, operand.panels
        if len(left[1]) > LONGEST * len(rows):
            return None
    elif samples.X.shape[1] > LONGEST:
        return None
    elif isinstance(operand, TileOperand):
        left, panels = samples.X[rows], operand.panels
    elif isinstance(operand, BlasOperand):
        left, panels = operand.X, packed_columns(operand.X)
    else:
        return None
    numbers = kernel_numbers(kernel, operand.norms.dtype, operand.unit, np.float32)
    inner = np.empty((1, PANEL_WIDTH * len(panels)), dtype=operand.norms.dtype)
    return RowsOnDemand(numbers, left, panels, operand.norms, inner, np.full(len(rows), -1), np.zeros(1, np.int64))


def row_at(on_demand, K, k):  # type: ignore[no-untyped-def]
    """The place in K (any, >= n) of variable k's row, which is computed if it is not there."""


@overload(row_at)
def _row_at(on_demand, K, k):  # type: ignore[no-untyped-def]
    if len(on_demand) == 0:
        return lambda on_demand, K, k: k

    def computed(on_demand, K, k):  # type: ignore[no-untyped-def]
        if on_demand.place[k] < 0:
            on_demand.place[k] = on_demand.n_there[0]
            on_demand.n_there[0] += 1
            _compute_row(on_demand, k, K, on_demand.place[k])
        return on_demand.place[k]

    return computed


@compiled()
def _compute_row(on_demand: RowsOnDemand, k: int, K: np.ndarray, place: int) -> None:
    kind, unit, slope, coef0, degree, like = on_demand.numbers
    _multiply_row(on_demand.left, k, on_demand.panels, on_demand.inner)
    norms, into = on_demand.norms, np.full(1, place)
    _write_kernel(kind, unit, slope, coef0, degree, like, on_demand.inner, norms[k : k + 1], norms, K, into, 0)


def _multiply_row(left, k, panels, inner):  # type: ignore[no-untyped-def]
    """inner (1, 16 n_panels) = sample k of `left` times the panels."""


@overload(_multiply_row)
def _multiply_row_of(left, k, panels, inner):  # type: ignore[no-untyped-def]
    if isinstance(left, types.Array):
        return lambda left, k, panels, inner: multiply_row(left[k], panels, inner[0])
    if panels.dtype == types.int16:
        return lambda left, k, panels, inner: multiply_integers(left[0][k : k + 2], left[1], left[2], panels, inner)
    return lambda left, k, panels, inner: multiply(left[0][k : k + 2], left[1], left[2], panels, inner)


@compiled()
def diagonal(on_demand: RowsOnDemand) -> np.ndarray:
    """The kernel value (n,) float32 of each sample with itself."""
    kind, unit, slope, coef0, degree, like = on_demand.numbers
    inner, norms, n = on_demand.inner, on_demand.norms, on_demand.norms.shape[0]
    values = np.ones((1, n), dtype=np.float32)
    if kind != _RBF:
        own = np.empty((1, n), dtype=inner.dtype)
        # In the order of a row's sum: the curvature between two equal samples is zero.
        for k in range(n):
            panel = k // PANEL_WIDTH
            _multiply_row(on_demand.left, k, on_demand.panels[panel : panel + 1], inner)
            own[0, k] = inner[0, k % PANEL_WIDTH]
        _write_kernel(kind, unit, slope, coef0, degree, like, own, norms[:1], norms, values, np.zeros(1, np.int64), 0)
    return values[0]

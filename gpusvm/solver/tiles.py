"""Products of dense rows with packed dense columns, a tile of them at a time.

A BLAS product writes every inner product to memory before anything can be done with it, and a
thread of ours that calls it must keep it from starting threads of its own. Here the right operand
is packed in panels of 16 samples, as in `panels`, and the left one in groups of a few rows; the
inner products of a group with a panel are summed in vector registers. Each sum is taken in the
order of the features, so its bits depend on nothing but the two samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpusvm.solver.compilation import compiled
from gpusvm.solver.panels import PANEL_WIDTH

MOST_ROWS = 12
"""Rows of a tile, where the processor has registers for them: as many chains of additions as it
can start before the first one is done."""

ROW_PANELS = 4
"""Panels that a single row is multiplied with at once: one chain of additions would wait for
itself."""

_SPARE_REGISTERS = 4


def _rows_that_fit(itemsize: int) -> int:
    """How many rows of 16 sums this processor's vector registers hold."""
    features = dict(llvmlite.binding.get_host_cpu_features())
    if features.get("avx512f", False):
        n_registers, width = 32, 64
    elif features.get("avx", False):
        n_registers, width = 16, 32
    else:
        n_registers, width = 32, 16
    room = (n_registers - _SPARE_REGISTERS) * width // (PANEL_WIDTH * itemsize)
    return max(rows for rows in range(1, MOST_ROWS + 1) if MOST_ROWS % rows == 0 and rows <= max(1, room))


_ROWS = {itemsize: _rows_that_fit(itemsize) for itemsize in (4, 8)}


def rows_of_a_tile(dtype: Any) -> int:
    """Rows multiplied at once, of float32 or float64 samples: a divisor of `MOST_ROWS`."""
    return _ROWS[np.dtype(dtype).itemsize]


@compiled()
def pack_columns(X: np.ndarray, panels: np.ndarray) -> None:
    """Pack samples X (n, d) into `panels` (ceil(n / 16), 16 d).

    Feature f of a panel's sample s is at ``16 f + s``.
    """
    panels[:] = 0.0
    for r in range(X.shape[0]):
        panel, s, row = panels[r // PANEL_WIDTH], r % PANEL_WIDTH, X[r]
        for f in range(row.shape[0]):
            panel[f * PANEL_WIDTH + s] = row[f]


@compiled()
def pack_rows(X: np.ndarray, n_together: int, groups: np.ndarray) -> None:
    """The same for the left rows X (m, d): groups (>= ceil(m / n_together), n_together d)."""
    groups[:] = 0.0
    for r in range(X.shape[0]):
        group, s, row = groups[r // n_together], r % n_together, X[r]
        for f in range(row.shape[0]):
            group[f * n_together + s] = row[f]


def _outer_products(
    builder: Any,
    first: Any,
    last: Any,
    vector: Any,
    n_rows: int,
    line_at: Callable[..., Any],
    number_at: Callable[..., Any],
) -> list[Any]:
    """Emit the sums over first <= t < last of number_at(t, r) * line_at(t, r) for r < n_rows.

    Each has 16 lanes. Written in LLVM's own terms for the reason given in `panels`.
    """
    index, word, lanes = ir.IntType(32), first.type, vector.count
    everywhere = ir.Constant(ir.VectorType(index, lanes), [ir.Constant(index, 0)] * lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    before = builder.block
    head, body, end = (builder.append_basic_block(f"outer.{name}") for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    t = builder.phi(word)
    t.add_incoming(first, before)
    sums = [builder.phi(vector) for _ in range(n_rows)]
    for total in sums:
        total.add_incoming(ir.Constant(vector, [ir.Constant(vector.element, 0.0)] * lanes), before)
    builder.cbranch(builder.icmp_signed("<", t, last), body, end)
    builder.position_at_end(body)
    steps = []
    for r, total in enumerate(sums):
        # Of one address for all r, it is one load in the end.
        line = _load(builder, line_at(t, r), vector)
        one = builder.insert_element(undefined, number_at(t, r), ir.Constant(index, 0))
        product = builder.fmul(builder.shuffle_vector(one, undefined, everywhere), line, flags=("contract",))
        steps.append(builder.fadd(total, product, flags=("contract",)))
    for total, step in zip(sums, steps, strict=True):
        total.add_incoming(step, body)
    t.add_incoming(builder.add(t, ir.Constant(word, 1)), body)
    builder.branch(head)
    builder.position_at_end(end)
    return sums


def _alignment(vector: Any) -> int:
    return 8 if isinstance(vector.element, ir.DoubleType) else 4


def _load(builder: Any, pointer: Any, vector: Any) -> Any:
    line = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    line.align = _alignment(vector)
    return line


def _store(builder: Any, line: Any, pointer: Any) -> None:
    builder.store(line, builder.bitcast(pointer, line.type.as_pointer())).align = _alignment(line.type)


def _place(builder: Any, array: Any, row: Any, more_rows: int, column: Any) -> Any:
    """Address of array[row + more_rows, column], of an array in C order."""
    row = builder.add(row, ir.Constant(row.type, more_rows))
    return builder.gep(array.data, [builder.add(builder.mul(row, builder.extract_value(array.shape, 1)), column)])


def _array(context: Any, builder: Any, signature: Any, arguments: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, arguments[k])


def _tile_code(element: Any, n_rows: int) -> Callable[..., Any]:
    """Code of the product of a group of rows and a panel.

    out[row + r, column:column + 16] = sum over f of left[n_rows f + r] * right[16 f:16 f + 16]
    """
    vector = ir.VectorType(element, PANEL_WIDTH)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, out = (_array(context, builder, signature, arguments, k) for k in (0, 1, 3))
        n_features, row, column = arguments[2], arguments[4], arguments[5]
        word = n_features.type

        def line_at(f: Any, r: int) -> Any:
            return builder.gep(right.data, [builder.mul(f, ir.Constant(word, PANEL_WIDTH))])

        def number_at(f: Any, r: int) -> Any:
            here = builder.add(builder.mul(f, ir.Constant(word, n_rows)), ir.Constant(word, r))
            return builder.load(builder.gep(left.data, [here]))

        sums = _outer_products(builder, ir.Constant(word, 0), n_features, vector, n_rows, line_at, number_at)
        for r, total in enumerate(sums):
            _store(builder, total, _place(builder, out, row, r, column))
        return context.get_dummy_value()

    return generate


def _weighted_code(n_rows: int) -> Callable[..., Any]:
    """Code of a product of values and weights, in float64.

    out[r, column:column + 16] = sum over start <= s < stop of
    values[row + r, s] * weights[shift + s, column:column + 16]
    """
    double = ir.DoubleType()
    vector = ir.VectorType(double, PANEL_WIDTH)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, weights, out = (_array(context, builder, signature, arguments, k) for k in (0, 4, 7))
        row, start, stop, shift, column = (arguments[k] for k in (1, 2, 3, 5, 6))

        def line_at(s: Any, r: int) -> Any:
            return _place(builder, weights, builder.add(s, shift), 0, column)

        def number_at(s: Any, r: int) -> Any:
            number = builder.load(_place(builder, values, row, r, s))
            return number if number.type == double else builder.fpext(number, double)

        sums = _outer_products(builder, start, stop, vector, n_rows, line_at, number_at)
        for r, total in enumerate(sums):
            _store(builder, total, _place(builder, out, ir.Constant(row.type, 0), r, column))
        return context.get_dummy_value()

    return generate


def _row_code(n_panels: int) -> Callable[..., Any]:
    """Code of the product of one row and some panels.

    out[16 r:16 r + 16] = sum over f of row[f] * panels[first + r, 16 f:16 f + 16], r < n_panels
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, panels, out = (_array(context, builder, signature, arguments, k) for k in (0, 1, 3))
        vector = ir.VectorType(row.data.type.pointee, PANEL_WIDTH)
        first, n_features = arguments[2], builder.extract_value(row.shape, 0)
        word = first.type

        def line_at(f: Any, r: int) -> Any:
            return _place(builder, panels, first, r, builder.mul(f, ir.Constant(word, PANEL_WIDTH)))

        def number_at(f: Any, r: int) -> Any:
            return builder.load(builder.gep(row.data, [f]))

        sums = _outer_products(builder, ir.Constant(word, 0), n_features, vector, n_panels, line_at, number_at)
        for r, total in enumerate(sums):
            _store(builder, total, builder.gep(out.data, [ir.Constant(word, r * PANEL_WIDTH)]))
        return context.get_dummy_value()

    return generate


@intrinsic
def _multiply_row_by_panels(typing_context, row, panels, first, out):  # type: ignore[no-untyped-def]
    return types.void(row, panels, types.intp, out), _row_code(ROW_PANELS)


@intrinsic
def _multiply_row_by_panel(typing_context, row, panels, first, out):  # type: ignore[no-untyped-def]
    return types.void(row, panels, types.intp, out), _row_code(1)


@compiled()
def multiply_row(row: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """out (>= 16 n_panels,) = row (d,) x panels (n_panels, 16 d) from `pack_columns`.

    All are float32, or all float64.
    """
    whole = panels.shape[0] // ROW_PANELS * ROW_PANELS
    for p in range(0, whole, ROW_PANELS):
        _multiply_row_by_panels(row, panels, p, out[p * PANEL_WIDTH :])
    for p in range(whole, panels.shape[0]):
        _multiply_row_by_panel(row, panels, p, out[p * PANEL_WIDTH :])


@intrinsic
def _multiply_tile(typing_context, left, right, n_features, out, row, column):  # type: ignore[no-untyped-def]
    signature = types.void(left, right, types.intp, out, types.intp, types.intp)
    double = out.dtype == types.float64
    element = ir.DoubleType() if double else ir.FloatType()
    return signature, _tile_code(element, _ROWS[8 if double else 4])


@intrinsic
def _weight_tile(typing_context, values, row, start, stop, weights, shift, column, out):  # type: ignore[no-untyped-def]
    word = types.intp
    return types.void(values, word, word, word, weights, word, word, out), _weighted_code(_ROWS[8])


@compiled()
def multiply_tiles(groups: np.ndarray, panels: np.ndarray, n_features: int, out: np.ndarray) -> None:
    """out = (rows packed in groups) x (panels), all float32 or all float64.

    Parameters
    ----------
    groups : (n_groups, n_together d) array
        From `pack_rows` with `rows_of_a_tile`.
    panels : (n_panels, 16 d) array
        From `pack_columns`.
    n_features : int
        d
    out : (>= n_together n_groups, >= 16 n_panels) array, C order
    """
    for p in range(panels.shape[0]):
        panel = panels[p]
        for g in range(groups.shape[0]):
            group = groups[g]
            n_together = group.shape[0] // n_features
            _multiply_tile(group, panel, n_features, out, g * n_together, p * PANEL_WIDTH)


WEIGHTED_ROWS = _ROWS[8]
"""Rows that `weight_rows` takes at once."""


@compiled()
def weight_rows(
    values: np.ndarray, row: int, start: int, stop: int, weights: np.ndarray, shift: int, out: np.ndarray
) -> None:
    """out = values[row:row + WEIGHTED_ROWS, start:stop] x weights[shift + start:shift + stop].

    Parameters
    ----------
    values : (m, n) float32 or float64 array, C order
    weights : (any, width) float64 array, C order
        `width` is a multiple of 16.
    out : (WEIGHTED_ROWS, width) float64 array, C order
    """
    for column in range(0, weights.shape[1], PANEL_WIDTH):
        _weight_tile(values, row, start, stop, weights, shift, column, out)

"""Kernel values in float32, made of inner products before these leave the registers.

A product that is written to memory, read to be turned into kernel values, and read again to be
summed or mirrored costs more for what surrounds it than for its arithmetic: of samples with 54
features 0.8 ns a value against 1.2. Here the inner products of rows with a panel of 16 columns
become kernel values where they are, and these are written to a matrix, with their mirror image or
without, or summed with coefficients in float64. Rows are dense ones, in the groups of `tiles`; or
the non-zeros of `panels`, float32 or whole numbers. (Of wide panels, values of one row after
another, written far apart, take longer than a product in one place that is read again: MNIST 8.6 s
against 6.3.)

A value depends on nothing but its two samples, and of dense samples it is the same whichever of
them is the row. For the sake of a short first start, which compiles all this, it serves the
kernels `SERVED` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpusvm.compat import cgutils
from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.panels import PANEL_WIDTH, row_with_panels
from gpusvm.solver.tiles import _array, _load, _outer_products, _store, rows_of_a_tile

SERVED = ("linear", "rbf")
"""Kernels whose values are made here; their places are the `kind` below."""

TOGETHER = rows_of_a_tile(np.float32)
"""Rows of a group."""

PANELS_TOGETHER = 8
"""Panels that a group is multiplied with before the next one: a mirror image writes to a row of
each column, and more rows than these would take more pages of memory than the processor keeps the
places of."""

NEAR_BYTES = 20_000
"""Bytes of groups that one panel after another is multiplied with: half of a first-level cache."""

WIDE, NARROW_BYTES = 4, 6_000
"""Panels that a row of non-zeros meets at once where they are narrow, and bytes of a panel that
is: so many of those stay in a first-level cache."""

_FLOAT, _DOUBLE, _INT, _WORD = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
_LINE, _WHOLE = ir.VectorType(_FLOAT, PANEL_WIDTH), ir.VectorType(_INT, PANEL_WIDTH)
_CONTRACT = ("contract",)


# -- kernels of a vector of inner products --------------------------------------------------------


def _numbers(value: float) -> Any:
    return ir.Constant(_LINE, [ir.Constant(_FLOAT, value)] * PANEL_WIDTH)


def _wholes(value: int) -> Any:
    return ir.Constant(_WHOLE, [ir.Constant(_INT, value)] * PANEL_WIDTH)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


def _spread(builder: Any, scalar: Any) -> Any:
    """A scalar in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, PANEL_WIDTH), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, undefined, _wholes(0))


def _floor(builder: Any, value: Any) -> Any:
    name = f"llvm.floor.v{PANEL_WIDTH}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(_LINE, [_LINE]), name), [value])


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=_CONTRACT), c, flags=_CONTRACT)


def _exp(builder: Any, x: Any) -> Any:
    """exp(x) for x <= 0, by the polynomial of `kernel_rows`; of what is not a number, 0."""
    k = _floor(builder, _multiply_add(builder, x, _numbers(1.44269504), _numbers(0.5)))
    r = _multiply_add(builder, k, _numbers(-0.693359375), x)
    r = _multiply_add(builder, k, _numbers(2.12194440e-4), r)
    p = _numbers(1.0 / 720.0)
    for coefficient in (1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0):
        p = _multiply_add(builder, p, r, _numbers(coefficient))
    bits = builder.shl(builder.add(builder.fptosi(k, _WHOLE), _wholes(127)), _wholes(23))
    value = builder.fmul(p, builder.bitcast(bits, _LINE))
    return builder.select(builder.fcmp_ordered(">", x, _numbers(-87.0)), value, _numbers(0.0))


def _linear(builder: Any, inner: Any, left_norm: Any, right_norms: Any, factor: Any) -> Any:
    value = builder.sitofp(inner, _LINE) if inner.type == _WHOLE else inner
    return builder.fmul(_spread(builder, factor), value)


def _rbf(builder: Any, inner: Any, left_norm: Any, right_norms: Any, factor: Any) -> Any:
    """exp(-factor (||x||^2 + ||y||^2 - 2 <x, y>)); of whole numbers, the distance is exact."""
    left = _spread(builder, left_norm)
    if inner.type == _WHOLE:  # it may overflow on the way; the distance itself fits
        twice = builder.add(inner, inner)
        distance = builder.sitofp(builder.sub(builder.add(left, right_norms), twice), _LINE)
    else:
        distance = builder.fsub(builder.fadd(left, right_norms), builder.fadd(inner, inner))
    x = builder.fneg(builder.fmul(_spread(builder, factor), distance))
    above = builder.fcmp_ordered(">", x, _numbers(0.0))
    return _exp(builder, builder.select(above, _numbers(0.0), x))


_KERNELS: dict[str, Callable[..., Any]] = {"linear": _linear, "rbf": _rbf}


# -- what is done with them -----------------------------------------------------------------------


def _transposed(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Columns of up to 16 vectors of 16 lanes, as vectors; lanes beyond the rows mean nothing."""
    undefined, width = ir.Constant(_LINE, ir.Undefined), PANEL_WIDTH
    lines = [*rows, *[undefined] * (width - len(rows))]
    # Squares change places across the diagonal: of 8 lanes, then of 4 within those, of 2, of 1.
    half = width // 2
    while half:
        turned = list(lines)
        for a in range(width):
            if a & half:
                continue
            first, second = lines[a], lines[a + half]
            low = [lane if not lane & half else width + lane - half for lane in range(width)]
            high = [lane + half if not lane & half else width + lane for lane in range(width)]
            for place, lanes in ((a, low), (a + half, high)):
                order = ir.Constant(_WHOLE, [ir.Constant(_INT, lane) for lane in lanes])
                turned[place] = builder.shuffle_vector(first, second, order)
        lines, half = turned, half // 2
    return lines


def _store_first(builder: Any, value: Any, pointer: Any, count: int) -> None:
    """Write the first `count` lanes, in powers of two."""
    done, size = 0, PANEL_WIDTH
    while done < count:
        if done + size <= count:
            lanes = ir.Constant(ir.VectorType(_INT, size), [ir.Constant(_INT, done + lane) for lane in range(size)])
            part = builder.shuffle_vector(value, value, lanes)
            _store(builder, part, builder.gep(pointer, [_word(done)]))
            done += size
        size //= 2


def _address(builder: Any, array: Any, row: Any, column: Any) -> Any:
    return builder.gep(array.data, [builder.add(builder.mul(row, builder.extract_value(array.shape, 1)), column)])


def _mirror(builder: Any, out: Any, first_row: Any, column: Any, values: Sequence[Any]) -> None:
    for c, line in enumerate(_transposed(builder, values)):
        across = builder.add(column, _word(c))
        _store_first(builder, line, _address(builder, out, across, first_row), len(values))


class _Combination(NamedTuple):
    """The arrays `coefficients`, `sums` and `places` of `subtract_values`."""

    coefficients: Any
    sums: Any
    places: Any


def _add(builder: Any, combination: _Combination, first_row: Any, column: Any, values: Sequence[Any]) -> None:
    """Of each sum, 16 columns from `column` on -= its coefficients times the values, in float64.

    `values` are a vector for each row from `first_row` on.
    """
    vector, coefficients, sums = ir.VectorType(_DOUBLE, PANEL_WIDTH), combination.coefficients, combination.sums
    with cgutils.for_range(builder, builder.extract_value(coefficients.shape, 0), intp=_WORD) as loop:
        place = builder.load(builder.gep(combination.places.data, [loop.index]))
        pointer = _address(builder, sums, place, column)
        total = _load(builder, pointer, vector)
        for r, value in enumerate(values):
            row = builder.add(first_row, _word(r))
            coefficient = builder.load(_address(builder, coefficients, loop.index, row))
            product = builder.fmul(_spread(builder, coefficient), builder.fpext(value, vector), flags=_CONTRACT)
            total = builder.fsub(total, product, flags=_CONTRACT)
        _store(builder, total, pointer)


def _elements(builder: Any, array: Any, count: int) -> list[Any]:
    return [builder.load(builder.gep(array.data, [_word(r)])) for r in range(count)]


# -- dense rows -----------------------------------------------------------------------------------


def _group_values(context: Any, builder: Any, signature: Any, arguments: Any, name: str) -> list[Any]:
    """Kernel values of the rows of a group with a panel: a vector for each row."""
    left, left_norms, right, right_norms = (_array(context, builder, signature, arguments, k) for k in range(4))
    n_features, factor = arguments[4:6]

    def line_at(f: Any, r: int) -> Any:
        return builder.gep(right.data, [builder.mul(f, _word(PANEL_WIDTH))])

    def number_at(f: Any, r: int) -> Any:
        return builder.load(builder.gep(left.data, [builder.add(builder.mul(f, _word(TOGETHER)), _word(r))]))

    sums = _outer_products(builder, _word(0), n_features, _LINE, TOGETHER, line_at, number_at)
    norms, across = _elements(builder, left_norms, TOGETHER), _load(builder, right_norms.data, _LINE)
    make = _KERNELS[name]
    return [make(builder, inner, norm, across, factor) for inner, norm in zip(sums, norms, strict=True)]


def _write_group(name: str, mirrored: bool) -> Any:
    @intrinsic
    def write(  # type: ignore[no-untyped-def]
        typing_context, left, left_norms, right, right_norms, n_features, factor, out, places, column
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = _group_values(context, builder, signature, arguments, name)
            out, places = (_array(context, builder, signature, arguments, k) for k in (6, 7))
            rows, column = _elements(builder, places, TOGETHER), arguments[8]
            for row, value in zip(rows, values, strict=True):
                _store(builder, value, _address(builder, out, row, column))
            if mirrored:
                _mirror(builder, out, rows[0], column, values)
            return context.get_dummy_value()

        arguments = (left, left_norms, right, right_norms, types.intp, types.float32, out, places, types.intp)
        return types.void(*arguments), generate

    return write


def _sum_group(name: str) -> Any:
    @intrinsic
    def add(  # type: ignore[no-untyped-def]
        typing_context, left, norms, right, right_norms, n_features, factor, coefficients, sums, places, row, column
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = _group_values(context, builder, signature, arguments, name)
            combination = _Combination(*(_array(context, builder, signature, arguments, k) for k in (6, 7, 8)))
            _add(builder, combination, arguments[9], arguments[10], values)
            return context.get_dummy_value()

        word, group = types.intp, (left, norms, right, right_norms)
        arguments = (*group, word, types.float32, coefficients, sums, places, word, word)
        return types.void(*arguments), generate

    return add


_write_linear, _write_rbf = (_write_group(name, mirrored=False) for name in SERVED)
_mirror_linear, _mirror_rbf = (_write_group(name, mirrored=True) for name in SERVED)
_sum_linear, _sum_rbf = (_sum_group(name) for name in SERVED)


@numba.njit(inline="always")
def _write(kind, left, left_norms, right, right_norms, n_features, factor, out, places, column, mirrored):  # type: ignore[no-untyped-def]
    if mirrored and kind == 1:
        _mirror_rbf(left, left_norms, right, right_norms, n_features, factor, out, places, column)
    elif mirrored:
        _mirror_linear(left, left_norms, right, right_norms, n_features, factor, out, places, column)
    elif kind == 1:
        _write_rbf(left, left_norms, right, right_norms, n_features, factor, out, places, column)
    else:
        _write_linear(left, left_norms, right, right_norms, n_features, factor, out, places, column)


@compiled()
def write_values(
    kind: int,
    factor: float,
    groups: np.ndarray,
    left_norms: np.ndarray,
    panels: np.ndarray,
    right_norms: np.ndarray,
    n_columns: int,
    out: np.ndarray,
    places: np.ndarray,
    start: int,
    mirrored: bool,
) -> None:
    """``out[places[r], start + c]`` = the kernel value of row r and column c.

    Where `mirrored`, its mirror image is written too.

    Parameters
    ----------
    kind, factor : int, float32
        From `kernel_numbers`.
    groups : (n_groups, TOGETHER d) float32 array
        From `tiles.pack_rows`.
    left_norms : (>= n_groups TOGETHER,) float32 array
        Squared norms.
    panels : (n_panels, 16 d) float32 array
        From `tiles.pack_columns`.
    right_norms : (>= 16 n_panels,) float32 array
    n_columns : int
        16 n_panels or up to 15 less.
    out : (any, any) float32 array, C order
    places : (n_rows,) int64 array
        Rows of `out`; where `mirrored`, each is the one after the one before.
    start : int
    mirrored : bool
    """
    n_rows, d = places.shape[0], panels.shape[1] // PANEL_WIDTH
    edge, within = np.empty((TOGETHER, PANEL_WIDTH), np.float32), np.arange(TOGETHER)
    for first in range(0, panels.shape[0], PANELS_TOGETHER):
        for g in range(groups.shape[0]):
            top = g * TOGETHER
            here = min(TOGETHER, n_rows - top)
            norms = left_norms[top : top + TOGETHER]
            for p in range(first, min(first + PANELS_TOGETHER, panels.shape[0])):
                column = p * PANEL_WIDTH
                wide = min(PANEL_WIDTH, n_columns - column)
                across = right_norms[column : column + PANEL_WIDTH]
                column += start
                if here == TOGETHER and wide == PANEL_WIDTH:
                    rows = places[top : top + TOGETHER]
                    _write(kind, groups[g], norms, panels[p], across, d, factor, out, rows, column, mirrored)
                    continue
                _write(kind, groups[g], norms, panels[p], across, d, factor, edge, within, 0, False)
                for r in range(here):
                    row = places[top + r]
                    for c in range(wide):
                        out[row, column + c] = edge[r, c]
                        if mirrored:
                            out[column + c, row] = edge[r, c]


@compiled()
def subtract_values(
    kind: int,
    factor: float,
    groups: np.ndarray,
    left_norms: np.ndarray,
    panels: np.ndarray,
    right_norms: np.ndarray,
    coefficients: np.ndarray,
    sums: np.ndarray,
    places: np.ndarray,
) -> None:
    """sums[places[o], c] -= sum over rows r of coefficients[o, r] k(r, c), in float64.

    k(r, c) is the kernel value of row r and column c. `coefficients` (n_sums, >= n_groups
    TOGETHER), zero where there is no row, and `sums` (any, >= 16 n_panels) are float64, `places`
    (n_sums,) int64; the other arrays are as for `write_values`.
    """
    d = panels.shape[1] // PANEL_WIDTH
    near = max(1, NEAR_BYTES // (4 * groups.shape[1]))
    for first in range(0, groups.shape[0], near):
        for p in range(panels.shape[0]):
            column = p * PANEL_WIDTH
            across = right_norms[column : column + PANEL_WIDTH]
            for g in range(first, min(first + near, groups.shape[0])):
                top = g * TOGETHER
                norms = left_norms[top : top + TOGETHER]
                if kind == 1:
                    _sum_rbf(groups[g], norms, panels[p], across, d, factor, coefficients, sums, places, top, column)
                else:
                    _sum_linear(groups[g], norms, panels[p], across, d, factor, coefficients, sums, places, top, column)


# -- rows given by their non-zeros ----------------------------------------------------------------


def _row_values(context: Any, builder: Any, signature: Any, arguments: Any, name: str, count: int) -> list[Any]:
    """Kernel values of a row with `count` panels: a vector for each.

    Products of whole numbers are whole numbers.
    """
    places, values, panels, right_norms = (_array(context, builder, signature, arguments, k) for k in (0, 1, 4, 7))
    first, last, panel, norm, factor = (arguments[k] for k in (2, 3, 5, 6, 8))
    integers = signature.args[1].dtype == types.int32
    chosen = [builder.add(panel, _word(r)) for r in range(count)]
    starts = [_address(builder, panels, p, _word(0)) for p in chosen]
    inner = row_with_panels(builder, places.data, values.data, first, last, starts, integers=integers)
    norms = [builder.gep(right_norms.data, [builder.mul(p, _word(PANEL_WIDTH))]) for p in chosen]
    across = [_load(builder, pointer, _WHOLE if integers else _LINE) for pointer in norms]
    return [_KERNELS[name](builder, *both, factor) for both in zip(inner, [norm] * count, across, strict=True)]


def _sum_row(name: str, count: int) -> Any:
    @intrinsic
    def add(  # type: ignore[no-untyped-def]
        typing_context, at, values, start, stop, panels, panel, norm, norms, factor, coefficients, sums, places, row
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = _row_values(context, builder, signature, arguments, name, count)
            combination = _Combination(*(_array(context, builder, signature, arguments, k) for k in (9, 10, 11)))
            for r, value in enumerate(made):
                column = builder.mul(builder.add(arguments[5], _word(r)), _word(PANEL_WIDTH))
                _add(builder, combination, arguments[12], column, [value])
            return context.get_dummy_value()

        word, real = types.intp, types.float32
        taken = (at, values, word, word, panels, word, values.dtype, norms, real)
        return types.void(*taken, coefficients, sums, places, word), generate

    return add


def _write_row(name: str, count: int) -> Any:
    @intrinsic
    def write(  # type: ignore[no-untyped-def]
        typing_context, places, values, start, stop, panels, panel, left_norm, right_norms, factor, out, row, column
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = _row_values(context, builder, signature, arguments, name, count)
            out, row, column = _array(context, builder, signature, arguments, 9), arguments[10], arguments[11]
            for r, value in enumerate(made):
                _store(builder, value, _address(builder, out, row, builder.add(column, _word(r * PANEL_WIDTH))))
            return context.get_dummy_value()

        word, real = types.intp, types.float32
        taken = (places, values, word, word, panels, word, values.dtype, right_norms, real)
        return types.void(*taken, out, word, word), generate

    return write


@intrinsic
def _mirror_square(typing_context, out, row, column):  # type: ignore[no-untyped-def]
    """Write out[row:row + 16, column:column + 16].T to out[column:column + 16, row:row + 16]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, (row, column) = _array(context, builder, signature, arguments, 0), arguments[1:]
        places = [_address(builder, out, builder.add(row, _word(r)), column) for r in range(PANEL_WIDTH)]
        _mirror(builder, out, row, column, [_load(builder, place, _LINE) for place in places])
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp), generate


_sum_row_linear, _sum_row_rbf = (_sum_row(name, 1) for name in SERVED)
_sum_row_wide_linear, _sum_row_wide_rbf = (_sum_row(name, WIDE) for name in SERVED)
_write_row_linear, _write_row_rbf = (_write_row(name, 1) for name in SERVED)
_write_row_wide_linear, _write_row_wide_rbf = (_write_row(name, WIDE) for name in SERVED)


@numba.njit
def is_narrow(panels: np.ndarray) -> bool:
    """Whether rows of non-zeros meet `WIDE` of these panels at once."""
    return panels.shape[1] * panels.itemsize <= NARROW_BYTES


@numba.njit(inline="always")
def _write_row_of(kind, wide, at, values, begin, end, panels, p, norm, norms, factor, out, row, column):  # type: ignore[no-untyped-def]
    if wide and kind == 1:
        _write_row_wide_rbf(at, values, begin, end, panels, p, norm, norms, factor, out, row, column)
    elif wide:
        _write_row_wide_linear(at, values, begin, end, panels, p, norm, norms, factor, out, row, column)
    elif kind == 1:
        _write_row_rbf(at, values, begin, end, panels, p, norm, norms, factor, out, row, column)
    else:
        _write_row_linear(at, values, begin, end, panels, p, norm, norms, factor, out, row, column)


@numba.njit(inline="always")
def _sum_row_of(  # type: ignore[no-untyped-def]
    kind, wide, at, values, begin, end, panels, p, norm, norms, factor, coefficients, sums, places, r
):
    if wide and kind == 1:
        _sum_row_wide_rbf(at, values, begin, end, panels, p, norm, norms, factor, coefficients, sums, places, r)
    elif wide:
        _sum_row_wide_linear(at, values, begin, end, panels, p, norm, norms, factor, coefficients, sums, places, r)
    elif kind == 1:
        _sum_row_rbf(at, values, begin, end, panels, p, norm, norms, factor, coefficients, sums, places, r)
    else:
        _sum_row_linear(at, values, begin, end, panels, p, norm, norms, factor, coefficients, sums, places, r)


@compiled()
def subtract_values_of_nonzeros(
    kind: int,
    factor: float,
    nonzeros: tuple[Any, ...],
    left_norms: np.ndarray,
    panels: np.ndarray,
    right_norms: np.ndarray,
    coefficients: np.ndarray,
    sums: np.ndarray,
    places: np.ndarray,
) -> None:
    """`subtract_values` for rows given by their non-zeros.

    `left_norms` are (n_rows,), `coefficients` (n_sums, n_rows). `nonzeros` are from
    `panels.pack_nonzeros`, with float32 panels and norms, or from `panels.pack_integers`, with
    panels of int16 and norms of int32.
    """
    starts, at, values = nonzeros
    step, p = WIDE if is_narrow(panels) else 1, 0
    while p < panels.shape[0]:
        wide = step > 1 and p + step <= panels.shape[0]
        for r in range(coefficients.shape[1]):
            begin, end, norm = starts[r], starts[r + 1], left_norms[r]
            _sum_row_of(
                kind, wide, at, values, begin, end, panels, p, norm, right_norms, factor, coefficients, sums, places, r
            )
        p += step if wide else 1


@compiled()
def write_values_of_nonzeros(
    kind: int,
    factor: float,
    nonzeros: tuple[Any, ...],
    left_norms: np.ndarray,
    panels: np.ndarray,
    right_norms: np.ndarray,
    n_columns: int,
    out: np.ndarray,
    places: np.ndarray,
    start: int,
    mirrored: bool,
) -> None:
    """`write_values` for rows given by non-zeros, as `subtract_values_of_nonzeros` takes them."""
    starts, at, values = nonzeros
    n_rows, n_whole, step = places.shape[0], n_columns // PANEL_WIDTH, WIDE if is_narrow(panels) else 1
    edge = np.empty((1, PANEL_WIDTH), dtype=np.float32)
    for first in range(0, panels.shape[0], step):
        last, wide = min(first + step, panels.shape[0]), step > 1 and first + step <= n_whole
        for top in range(0, n_rows, PANEL_WIDTH):
            bottom = min(top + PANEL_WIDTH, n_rows)
            for r in range(top, bottom):
                begin, end, norm, row = starts[r], starts[r + 1], left_norms[r], places[r]
                for p in range(first, first + 1 if wide else last):
                    column = start + p * PANEL_WIDTH
                    within = p < n_whole
                    into, into_row, into_column = (out, row, column) if within else (edge, 0, 0)
                    _write_row_of(
                        kind, wide, at, values, begin, end, panels, p, norm, right_norms, factor,
                        into, into_row, into_column,
                    )  # fmt: skip
                    if not within:
                        for c in range(n_columns - p * PANEL_WIDTH):
                            out[row, column + c] = edge[0, c]
            if mirrored:
                for p in range(first, last):
                    column = start + p * PANEL_WIDTH
                    if p < n_whole and bottom - top == PANEL_WIDTH:
                        _mirror_square(out, places[top], column)
                    else:
                        for c in range(column, min(column + PANEL_WIDTH, start + n_columns)):
                            for r in range(top, bottom):
                                out[c, places[r]] = out[places[r], c]


def kernel_numbers(kernel: Kernel, unit: float = 1.0) -> tuple[int, np.float32]:
    """`kind` and `factor` of a kernel that is `SERVED`, for products and norms in `unit`."""
    return SERVED.index(kernel.name), np.float32(unit if kernel.name == "linear" else kernel.gamma * unit)

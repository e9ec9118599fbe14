"""Products of rows that are mostly zeros with packed dense columns.

Most pixels of most images are zero: of MNIST's 784, 150 are not. A BLAS product multiplies the
zeros too. Here the right operand is packed in panels of 16 samples, feature by feature, so that
the 16 values of one feature are one cache line and a whole panel stays in the first-level cache;
each non-zero of a left row is multiplied with one such line and added to 16 sums held in
registers. Every sum is taken in the order of the row's own non-zeros, so its bits depend on
nothing but the two samples.

Pixels are whole numbers. Where the processor has AVX2, two neighbouring ones at a time are
multiplied and summed as 16-bit integers (the instruction vpmaddwd): twice as many products an
instruction, in half the memory, and without any rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpusvm.compat import cgutils
from gpusvm.solver.compilation import compiled

PANEL_WIDTH = 16
"""Samples a panel: 16 float32, or 16 pairs of features as int16, are a cache line."""

UNROLL = 4
"""Non-zeros taken together, each with sums of its own: one chain of additions would wait for
itself."""

_CACHE_LINE = 64


def pack_panels(X: np.ndarray, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Pack samples into panels.

    Parameters
    ----------
    X : (n_samples, n_features) float32 array, C order
    rows : (n,) int64 array
        The samples, in their order.
    features : (d,) int64 array
        The features to take.

    Returns
    -------
    (ceil(n / 16), 16 d) float32 array
        Feature f of the panel's sample s is at ``16 f + s``; what is left of the last panel is
        zero. It begins at a cache line.
    """
    panels = empty_panels(len(rows), PANEL_WIDTH * len(features), np.float32)
    _fill_panels(X, rows, features, panels)
    return panels


def pack_integer_panels(pixels: np.ndarray, rows: np.ndarray, feature_pairs: np.ndarray) -> np.ndarray:
    """The same for pixels (n_samples, n_features), uint8, two features at a time.

    `feature_pairs` (d,) int64 are the pairs to take: pair t is features 2 t and 2 t + 1 (zero
    beyond the last). Returns (ceil(n / 16), 32 d) int16: two t of sample s is at ``32 t + 2 s``.
    """
    panels = empty_panels(len(rows), 2 * PANEL_WIDTH * len(feature_pairs), np.int16)
    _fill_integer_panels(pixels, rows, feature_pairs, panels)
    return panels


def empty_panels(n: int, width: int, dtype: Any) -> np.ndarray:
    """Room for the panels of n samples, `width` numbers each, from a cache line on."""
    shape, size = (-(-n // PANEL_WIDTH), width), np.dtype(dtype).itemsize
    n_bytes = shape[0] * shape[1] * size
    raw = np.empty(n_bytes + _CACHE_LINE, dtype=np.uint8)
    begin = -raw.ctypes.data % _CACHE_LINE
    return raw[begin : begin + n_bytes].view(dtype).reshape(shape)


@compiled()
def _fill_panels(X: np.ndarray, rows: np.ndarray, features: np.ndarray, panels: np.ndarray) -> None:
    panels[:] = 0.0
    for r in range(rows.shape[0]):
        panel, s, row = panels[r // PANEL_WIDTH], r % PANEL_WIDTH, X[rows[r]]
        for f in range(features.shape[0]):
            panel[f * PANEL_WIDTH + s] = row[features[f]]


@compiled()
def _fill_integer_panels(pixels: np.ndarray, rows: np.ndarray, feature_pairs: np.ndarray, panels: np.ndarray) -> None:
    panels[:] = 0
    for r in range(rows.shape[0]):
        panel, s, row = panels[r // PANEL_WIDTH], r % PANEL_WIDTH, pixels[rows[r]]
        for t in range(feature_pairs.shape[0]):
            f = 2 * feature_pairs[t]
            at = 2 * (t * PANEL_WIDTH + s)
            panel[at] = row[f]
            if f + 1 < row.shape[0]:
                panel[at + 1] = row[f + 1]


@compiled()
def pack_nonzeros(X: np.ndarray, rows: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The non-zeros of some samples, as places in the panels of another class.

    Parameters
    ----------
    X : (n_samples, n_features) float32 array
    rows : (m,) int64 array
    position : (n_features,) int32 array
        Place of each feature in the panels, negative where they do not have it.

    Returns
    -------
    starts : (m + 1,) int64 array
        Row r's non-zeros are ``starts[r]`` to ``starts[r + 1]``, a multiple of 4 in number, filled
        up with zeros.
    places : int32 array
    values : float32 array
    """
    m, d = rows.shape[0], position.shape[0]
    starts = np.zeros(m + 1, dtype=np.int64)
    for r in range(m):
        row, count = X[rows[r]], 0
        for f in range(d):
            if row[f] != 0.0 and position[f] >= 0:
                count += 1
        starts[r + 1] = starts[r] + (count + UNROLL - 1) // UNROLL * UNROLL
    places = np.zeros(starts[m], dtype=np.int32)
    values = np.zeros(starts[m], dtype=np.float32)
    for r in range(m):
        row, at = X[rows[r]], starts[r]
        for f in range(d):
            if row[f] != 0.0 and position[f] >= 0:
                places[at] = position[f]
                values[at] = row[f]
                at += 1
    return starts, places, values


@compiled()
def pack_integers(
    pixels: np.ndarray, rows: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for pixels, uint8, in pairs of features: `position` has a place for each pair.

    A value is the two as one int32, the first feature in its low half.
    """
    m, d = rows.shape[0], position.shape[0]
    n_features = pixels.shape[1]
    starts = np.zeros(m + 1, dtype=np.int64)
    most = m * ((d + UNROLL - 1) // UNROLL * UNROLL)
    places = np.zeros(most, dtype=np.int32)
    values = np.zeros(most, dtype=np.int32)
    at = 0
    for r in range(m):
        row = pixels[rows[r]]
        for t in range(d):
            low = np.int32(row[2 * t])
            high = np.int32(row[2 * t + 1]) if 2 * t + 1 < n_features else np.int32(0)
            value = low | (high << 16)
            if value != 0 and position[t] >= 0:
                places[at] = position[t]
                values[at] = value
                at += 1
        while at % UNROLL:
            at += 1
        starts[r + 1] = at
    return starts, places[:at], values[:at]


def _sum_over_nonzeros(
    builder: Any, word: Any, first: Any, last: Any, zeros: Sequence[Any], add: Callable[[list[Any], Any], list[Any]]
) -> list[list[Any]]:
    """Emit ``for t in range(first, last, UNROLL)``, and return its sums.

    They are UNROLL lists, each of as many sums as there are `zeros`. `add(sums, t)` emits a step.
    """
    before = builder.block
    head, body, end = (builder.append_basic_block(f"nonzeros.{name}") for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    t = builder.phi(word)
    t.add_incoming(first, before)
    sums = [[builder.phi(zero.type) for zero in zeros] for _ in range(UNROLL)]
    for some in sums:
        for total, zero in zip(some, zeros, strict=True):
            total.add_incoming(zero, before)
    builder.cbranch(builder.icmp_signed("<", t, last), body, end)
    builder.position_at_end(body)
    steps = [add(some, builder.add(t, ir.Constant(word, u))) for u, some in enumerate(sums)]
    for some, after in zip(sums, steps, strict=True):
        for total, step in zip(some, after, strict=True):
            total.add_incoming(step, body)
    t.add_incoming(builder.add(t, ir.Constant(word, UNROLL)), body)
    builder.branch(head)
    builder.position_at_end(end)
    return sums


def row_with_panels(
    builder: Any, places: Any, values: Any, first: Any, last: Any, panels: Sequence[Any], *, integers: bool
) -> list[Any]:
    """Emit, for each panel, the sum of values[t] * (line places[t] of it), first <= t < last.

    A sum has 16 lanes, int32 or float. `places`, `values` and `panels` are pointers. Written in
    LLVM's own terms, because the loop is only fast when its sums stay in vector registers, and a
    compiler that is given 16 scalar sums or a small array moves them to memory. The order of a sum
    does not depend on the number of panels.
    """
    index, lanes, word = ir.IntType(32), PANEL_WIDTH, first.type
    element = index if integers else ir.FloatType()
    vector = ir.VectorType(element, lanes)
    line_type = ir.VectorType(ir.IntType(16), 2 * lanes) if integers else vector
    undefined = ir.Constant(vector, ir.Undefined)

    def pick(numbers: range | list[int]) -> Any:
        return ir.Constant(ir.VectorType(index, len(numbers)), [ir.Constant(index, k) for k in numbers])

    def multiply_add(sums: list[Any], here: Any) -> list[Any]:
        place = builder.sext(builder.load(builder.gep(places, [here])), word)
        start = builder.mul(place, ir.Constant(word, line_type.count))
        value = builder.load(builder.gep(values, [here]))
        one = builder.insert_element(undefined, value, ir.Constant(index, 0))
        spread = builder.shuffle_vector(one, undefined, pick([0] * lanes))
        after = []
        for total, panel in zip(sums, panels, strict=True):
            line = builder.load(builder.bitcast(builder.gep(panel, [start]), line_type.as_pointer()))
            line.align = 4
            if integers:
                product = _multiply_feature_pairs(builder, builder.bitcast(spread, line_type), line, pick)
                after.append(builder.add(total, product))
            else:
                product = builder.fmul(spread, line, flags=("contract",))
                after.append(builder.fadd(total, product, flags=("contract",)))
        return after

    zero = ir.Constant(vector, [ir.Constant(element, 0)] * lanes)
    results, *others = _sum_over_nonzeros(builder, word, first, last, [zero] * len(panels), multiply_add)
    for some in others:
        both = zip(results, some, strict=True)
        results = [builder.add(a, b) if integers else builder.fadd(a, b) for a, b in both]
    return results


def _row_times_panel_code(integers: bool) -> Callable[..., Any]:
    """Code of: out[at:at + 16] = the sum of `row_with_panels`, for one panel."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(k: int) -> Any:
            return context.make_array(signature.args[k])(context, builder, arguments[k]).data

        first, last, at = arguments[2], arguments[3], arguments[6]
        (result,) = row_with_panels(builder, data(0), data(1), first, last, [data(4)], integers=integers)
        store = builder.store(result, builder.bitcast(builder.gep(data(5), [at]), result.type.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return generate


def _multiply_feature_pairs(builder: Any, left: Any, right: Any, pick: Callable[[range], Any]) -> Any:
    """left[2 k] right[2 k] + left[2 k + 1] right[2 k + 1], as 16 int32: vpmaddwd, twice.

    `left` and `right` are 32 int16 each.
    """
    half, result = ir.VectorType(ir.IntType(16), 16), ir.VectorType(ir.IntType(32), 8)
    function_type = ir.FunctionType(result, [half, half])
    madd = cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.avx2.pmadd.wd")
    undefined = ir.Constant(left.type, ir.Undefined)
    halves = [
        builder.call(madd, [builder.shuffle_vector(side, undefined, pick(part)) for side in (left, right)])
        for part in (range(16), range(16, 32))
    ]
    return builder.shuffle_vector(*halves, pick(range(16)))


@intrinsic
def _row_times_panel(typing_context, places, values, start, stop, panel, out, at):  # type: ignore[no-untyped-def]
    signature = types.void(places, values, types.intp, types.intp, panel, out, types.intp)
    return signature, _row_times_panel_code(integers=False)


@intrinsic
def _row_times_integer_panel(typing_context, places, values, start, stop, panel, out, at):  # type: ignore[no-untyped-def]
    signature = types.void(places, values, types.intp, types.intp, panel, out, types.intp)
    return signature, _row_times_panel_code(integers=True)


@compiled()
def multiply(starts: np.ndarray, places: np.ndarray, values: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """out = (rows given by their non-zeros) x (panels).

    Parameters
    ----------
    starts, places, values
        From `pack_nonzeros`.
    panels : (n_panels, 16 d) float32 array
        From `pack_panels`, or some of its rows.
    out : (m, >= 16 n_panels) float32 array
    """
    for p in range(panels.shape[0]):
        panel = panels[p]
        for r in range(starts.shape[0] - 1):
            _row_times_panel(places, values, starts[r], starts[r + 1], panel, out[r], p * PANEL_WIDTH)


@compiled()
def multiply_integers(
    starts: np.ndarray, places: np.ndarray, values: np.ndarray, panels: np.ndarray, out: np.ndarray
) -> None:
    """The same from `pack_integers` and `pack_integer_panels`, into int32.

    Only where the processor has AVX2.
    """
    for p in range(panels.shape[0]):
        panel = panels[p]
        for r in range(starts.shape[0] - 1):
            _row_times_integer_panel(places, values, starts[r], starts[r + 1], panel, out[r], p * PANEL_WIDTH)


@cache
def integer_products_are_exact() -> bool:
    """Whether this processor multiplies pixels as integers, and rightly so.

    That is tried once in a process.
    """
    compiled_for_another = numba.config.CPU_NAME or numba.config.CPU_FEATURES
    if compiled_for_another or not dict(llvmlite.binding.get_host_cpu_features()).get("avx2", False):
        return False
    rng = np.random.default_rng(0)
    pixels = rng.choice(np.array([0, 1, 254, 255], dtype=np.uint8), size=(40, 2049))
    left, right = np.arange(7), np.arange(7, 40)
    feature_pairs = np.arange(1025)
    panels = pack_integer_panels(pixels, right, feature_pairs)
    out = np.empty((len(left), PANEL_WIDTH * len(panels)), dtype=np.int32)
    multiply_integers(*pack_integers(pixels, left, feature_pairs.astype(np.int32)), panels, out)
    exact = pixels[left].astype(np.int64) @ pixels[right].astype(np.int64).T
    return bool((out[:, : len(right)] == exact).all())


@compiled()
def count_nonzeros(X: np.ndarray, rows: np.ndarray) -> int:
    """The number of non-zeros of some rows of X (any, d)."""
    count = 0
    for r in range(rows.shape[0]):
        row = X[rows[r]]
        for f in range(row.shape[0]):
            count += row[f] != 0.0
    return count


@compiled()
def mark_nonzeros(X: np.ndarray, rows: np.ndarray, present: np.ndarray) -> None:
    """Set present[f] for every feature that some of the rows of X has."""
    for r in range(rows.shape[0]):
        row = X[rows[r]]
        for f in range(row.shape[0]):
            present[f] |= row[f] != 0.0

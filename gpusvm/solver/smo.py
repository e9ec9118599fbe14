"""Sequential minimal optimisation (SMO) on a problem whose kernel values are all at hand.

The problem is a quadratic one:

    maximise  p' beta - 1/2 beta' K beta    subject to  lower <= beta <= upper,
                                                        sum(beta) as it is at the start.

C-SVC is of this form with signed coefficients beta = y alpha, p = y and bounds (0, C) for y = +1,
(-C, 0) for y = -1. The gradient is v = p - K beta, and the optimality conditions of Keerthi et al.
(2001) read: with up = {k: beta_k < upper_k} and low = {k: beta_k > lower_k}, the gap
max(v[up]) - min(v[low]) is not positive.

A regression's objective has another term, - epsilon sum |beta|. It makes the slope of the
objective another one where a variable grows than where it shrinks: v - epsilon and v + epsilon at
zero, the same sign of epsilon for both elsewhere. A step ends where a variable reaches zero, as at
a bound. So the path is that of LIBSVM, which has two variables for each sample.

The loops of a step are written in LLVM's own terms, vectors of 64 bytes: a compiler that is given
a loop over scalars does not vectorise the search for a maximum and its place. Nothing in them
belongs to one processor: LLVM makes two registers of a vector where a register holds half of it.

The gradient is float64 or float32. In float32 a step takes half of the time, and its rounding adds
up over the steps: whoever asks for it computes the gradient anew from the coefficients, which are
float64 always.
They are in this file because Numba keeps the code of a function until the function's file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from gpusvm.solver.compilation import compiled
from gpusvm.solver.on_demand import row_at

CURVATURE_FLOOR = 1e-12
"""Stands for K_ii + K_jj - 2 K_ij where that is not positive, as in LIBSVM (its TAU)."""

NOT_A_CANDIDATE = -1e300

VECTOR_BYTES = 64
"""Of the gradients of a vector's variables: a register of AVX-512, or two of AVX2."""

VECTORS = 2
"""Vectors in a block, each with a maximum of its own: one chain of comparisons would wait for
itself. With four, AVX2 has too few registers."""

BLOCK_BYTES = VECTOR_BYTES * VECTORS

AHEAD = 6144
"""Bytes of a row that are fetched before they are read. The processor does this by itself, but
only within a page of 4096 bytes: rows of 12,000 float32 that are not in cache take 5.5
microseconds a step instead of 10.5."""

REACHED, CUT_SHORT, STUCK = 0, 1, 2
"""How SMO ended: at its tolerance, after the steps allowed, or where rounding allows no further
step."""


@compiled(fastmath={"contract", "nsz"})
def solve_working_set(
    K: np.ndarray,
    diagonal: np.ndarray,
    beta: np.ndarray,
    v: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    tol: float,
    max_iter: int,
    on_demand: tuple[Any, ...],
    kink: tuple[Any, ...],
) -> int:
    """Sequential minimal optimisation with second-order selection, on the first q variables of K.

    Ends at the tolerance, after `max_iter` steps, or where rounding allows no further step.

    Each step takes i, the largest v of those that may grow, and j, the one that may shrink whose
    exchange with i gains most by the second-order model (Fan, Chen, Lin 2005, WSS 2), and moves as
    much of beta from j to i as curvature and bounds allow. Of equals the last is taken, as LIBSVM
    does: a kernel that is not positive semidefinite (sigmoid) has many stationary points, and the
    path decides which one is found.

    Parameters
    ----------
    K : (>= q, >= q) array, float32 or float64, C order
        Kernel values; row k, column l for variables k and l.
    diagonal : (q,) float64 array
        K_kk.
    beta : (q,) float64 array, changed in place
        Coefficients.
    v : (q,) array, float64 or, where K is too, float32; changed in place
        Gradient. On return it is that at the new beta, up to rounding and terms from outside.
    lower, upper : (q,) float64 arrays
    tol : float
        Stop where the gap is no larger.
    max_iter : int
        Stop after so many steps.
    on_demand : RowsOnDemand or NONE
        What rows of K are computed from, where K is not complete yet.
    kink : (float,) or NONE
        The positive epsilon of a regression. No variable's bounds are then on the same side of
        zero.

    Returns
    -------
    int
        Steps taken.
    """
    q = beta.shape[0]
    # Rows of K end where they end, so the last block of variables is read from copies that are
    # filled up.
    block = BLOCK_BYTES // v.itemsize
    whole = q // block * block
    filled = whole if whole == q else whole + block
    gradient, diagonals = np.zeros(filled, v.dtype), np.ones(filled, v.dtype)
    # Number by number: an assignment of an array takes two seconds to compile, most of them for
    # the text of its error.
    for k in range(q):
        gradient[k], diagonals[k] = v[k], diagonal[k]
    end_i, end_j = np.zeros(block, K.dtype), np.zeros(block, K.dtype)
    up, low = _unmarked(kink, gradient, -1.0), _unmarked(kink, gradient, 1.0)
    for k in range(q):
        _mark(kink, k, beta, lower, upper, up, low)
    varies = np.int64(0)
    for k in range(q):
        if diagonal[k] != diagonal[0]:
            varies = np.int64(1)
    if q < block:
        varies = np.int64(1)
    i, v_i, least_low = _most_violating(gradient, up, low)
    n_steps = 0
    while n_steps < max_iter and v_i - least_low > tol:
        row_i = K[row_at(on_demand, K, i)]
        for k in range(whole, q):
            end_i[k - whole] = row_i[k]
        j = _most_gaining(row_i, end_i, whole, gradient, diagonals, varies, low, v_i, diagonal[i])
        if not 0 <= j < q:
            break  # kernel values or coefficients that are not finite numbers
        row_j = K[row_at(on_demand, K, j)]
        for k in range(whole, q):
            end_j[k - whole] = row_j[k]
        curvature = diagonal[i] + diagonal[j] - 2.0 * np.float64(row_i[j])
        if curvature <= 0.0:
            curvature = CURVATURE_FLOOR
        step = (v_i - _slope(kink, gradient, low, j)) / curvature
        highest, lowest = _end(kink, beta[i], upper[i]), _end(kink, beta[j], lower[j])
        room_i, room_j = highest - beta[i], beta[j] - lowest
        if step >= room_i or step >= room_j:
            step = min(room_i, room_j)
        # A variable that reaches its bound is put on it exactly, whatever the rounding.
        beta_i = highest if step == room_i else beta[i] + step
        beta_j = lowest if step == room_j else beta[j] - step
        if beta_i == beta[i] and beta_j == beta[j]:
            break  # a tolerance finer than float64 can follow
        beta[i], beta[j] = beta_i, beta_j
        for k in (i, j):
            _mark(kink, k, beta, lower, upper, up, low)
        n_steps += 1
        i, v_i, least_low = _move(row_i, end_i, row_j, end_j, whole, step, gradient, up, low)
    for k in range(q):
        v[k] = gradient[k]
    return n_steps


# -- what may move, and how far -------------------------------------------------------------------
#
# `up` and `low` are an int8 for each variable, -1 for those that may grow or shrink, else 0. Where
# there is a kink, they are what to add to the gradient for the slope: epsilon or its opposite, and
# a number beyond all gradients for what may not.


def _unmarked(kink, gradient, sign):  # type: ignore[no-untyped-def]
    """Marks of variables that may not grow (`sign` -1) or not shrink (1).

    They are as many as the gradient has numbers.
    """


def _mark(kink, k, beta, lower, upper, up, low):  # type: ignore[no-untyped-def]
    """Mark whether variable k may grow and shrink."""


def _slope(kink, gradient, marks, k):  # type: ignore[no-untyped-def]
    """The slope, float64, of variable k, which may move as its mark tells."""


def _end(kink, beta, bound):  # type: ignore[no-untyped-def]
    """How far a variable may go towards `bound` in one step: to zero, if that is on the way."""


@overload(_unmarked)
def _unmarked_of(kink, gradient, sign):  # type: ignore[no-untyped-def]
    if len(kink) == 0:
        return lambda kink, gradient, sign: np.zeros(gradient.shape[0], np.int8)
    beyond = -_FORMS[gradient.dtype].none
    return lambda kink, gradient, sign: np.full(gradient.shape[0], sign * beyond, gradient.dtype)


@overload(_mark)
def _mark_of(kink, k, beta, lower, upper, up, low):  # type: ignore[no-untyped-def]
    def by_bounds(kink, k, beta, lower, upper, up, low):  # type: ignore[no-untyped-def]
        up[k] = -1 if beta[k] < upper[k] else 0
        low[k] = -1 if beta[k] > lower[k] else 0

    if len(kink) == 0:
        return by_bounds
    beyond = -_FORMS[up.dtype].none

    def by_slopes(kink, k, beta, lower, upper, up, low):  # type: ignore[no-untyped-def]
        epsilon = kink[0]
        up[k] = -beyond if beta[k] >= upper[k] else epsilon if beta[k] < 0.0 else -epsilon
        low[k] = beyond if beta[k] <= lower[k] else -epsilon if beta[k] > 0.0 else epsilon

    return by_slopes


@overload(_slope)
def _slope_of(kink, gradient, marks, k):  # type: ignore[no-untyped-def]
    if len(kink) == 0:
        return lambda kink, gradient, marks, k: np.float64(gradient[k])
    return lambda kink, gradient, marks, k: np.float64(gradient[k]) + np.float64(marks[k])


@overload(_end)
def _end_of(kink, beta, bound):  # type: ignore[no-untyped-def]
    if len(kink) == 0:
        return lambda kink, beta, bound: bound
    return lambda kink, beta, bound: 0.0 if beta * bound < 0.0 else bound


# -- the loops of a step --------------------------------------------------------------------------
#
# They take the variables in blocks. Arrays are filled up to a whole number of them; only rows of K
# are not, and their part in the last block is read from a copy, `end`, of as many values as a
# block has. What may not grow or shrink is given a value that is never chosen: to combine
# comparisons instead would be cheap with AVX-512 alone.


@intrinsic
def _most_violating(typing_context, v, up, low):  # type: ignore[no-untyped-def]
    """(i, v_i, least): the largest slope in `up`, the last of equals, and the least in `low`."""
    result = types.containers.Tuple((types.int64, types.float64, types.float64))
    return result(v, up, low), _selecting_code(moving=False)


@intrinsic
def _move(typing_context, row_i, end_i, row_j, end_j, whole, step, v, up, low):  # type: ignore[no-untyped-def]
    """v -= step (row_i - row_j); returns `_most_violating` of the new v, found on the way.

    Rows are read up to `whole`, a number of whole blocks, and beyond from `end_i` and `end_j`.
    """
    result = types.containers.Tuple((types.int64, types.float64, types.float64))
    signature = result(row_i, end_i, row_j, end_j, types.int64, types.float64, v, up, low)
    return signature, _selecting_code(moving=True)


@intrinsic
def _most_gaining(typing_context, row_i, end_i, whole, v, diagonal, varies, low, v_i, K_ii):  # type: ignore[no-untyped-def]
    """The j in `low` of the largest (v_i - v_j)^2 / (K_ii + K_jj - 2 K_ij), or -1.

    It is the last of equals; v are slopes. Where `varies` is 0, all K_jj are the first numbers of
    `diagonal`.
    """
    real = types.float64
    return types.int64(row_i, end_i, types.int64, v, diagonal, types.int64, low, real, real), _gaining_code


# -- what they are made of ------------------------------------------------------------------------

_CACHE_LINE = 64

_WORD, _FLOAT, _DOUBLE = ir.IntType(64), ir.FloatType(), ir.DoubleType()
_CONTRACT = ("contract",)


class _Form:
    """The form of a gradient: its numbers, float32 or float64, and how many are a vector.

    Attributes
    ----------
    reals, places : vector types
        Of the numbers, and of whole numbers as large.
    none : float
        Less than any gradient.
    almost_one : float
        Below one by more than products and quotients are rounded.
    """

    def __init__(self, element: Any) -> None:
        size, self.none, bits = (4, -1e30, 24) if element == _FLOAT else (8, NOT_A_CANDIDATE, 53)
        self.element, self.lanes, self.almost_one = element, VECTOR_BYTES // size, 1.0 - 2.0 ** (3 - bits)
        self.block = self.lanes * VECTORS
        self.reals = ir.VectorType(element, self.lanes)
        self.places = ir.VectorType(ir.IntType(8 * size), self.lanes)

    def scalar(self, builder: Any, value: Any) -> Any:
        """A float64 as a number of this form."""
        return value if self.element == _DOUBLE else builder.fptrunc(value, _FLOAT)

    def first_places(self) -> Any:
        return ir.Constant(self.places, [ir.Constant(self.places.element, lane) for lane in range(self.lanes)])


_FORMS = {kind: _Form(element) for kind, element in ((types.float32, _FLOAT), (types.float64, _DOUBLE))}


def _constant(vector: Any, value: Any) -> Any:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


class _Block:
    """Emits what is done with a block of variables, the one that begins at `here`."""

    def __init__(self, builder: Any, form: _Form, here: Any) -> None:
        self.builder, self.form, self.here = builder, form, here

    def load(self, data: Any, element: Any, vector: int, at: Any = None) -> Any:
        """Numbers of the block's vector, in the gradient's form; `at` stands for `here`."""
        builder, form = self.builder, self.form
        start = builder.add(self.here if at is None else at, _word(form.lanes * vector))
        pointer = builder.bitcast(builder.gep(data, [start]), ir.VectorType(element, form.lanes).as_pointer())
        loaded = builder.load(pointer)
        loaded.align = 4
        return loaded if element == form.element else builder.fpext(loaded, form.reals)

    def store(self, value: Any, data: Any, vector: int) -> None:
        builder, form = self.builder, self.form
        pointer = builder.gep(data, [builder.add(self.here, _word(form.lanes * vector))])
        builder.store(value, builder.bitcast(pointer, form.reals.as_pointer())).align = 4

    def chosen(self, marks: Any, element: Any, vector: int, value: Any, otherwise: float) -> Any:
        """`value` where marked, else `otherwise`; or its sum with marks that are numbers."""
        builder, form = self.builder, self.form
        if element == form.element:
            return builder.fadd(value, self.load(marks, element, vector))
        start = builder.add(self.here, _word(form.lanes * vector))
        bytes_ = ir.VectorType(ir.IntType(8), form.lanes)
        loaded = builder.load(builder.bitcast(builder.gep(marks, [start]), bytes_.as_pointer()))
        loaded.align = 1
        marked = builder.icmp_signed("<", builder.sext(loaded, form.places), _constant(form.places, 0))
        return builder.select(marked, value, _constant(form.reals, otherwise))


def _spread(builder: Any, form: _Form, value: Any) -> Any:
    """The scalar `value`, a float64, in every lane."""
    undefined, index = ir.Constant(form.reals, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(undefined, form.scalar(builder, value), ir.Constant(index, 0))
    return builder.shuffle_vector(one, undefined, _constant(ir.VectorType(index, form.lanes), 0))


def _halves(vector: Any) -> list[int]:
    """Half of a vector's lanes, half of those, and so on to one."""
    return [vector.type.count >> k for k in range(1, vector.type.count.bit_length())]


def _turned(builder: Any, vector: Any, by: int) -> Any:
    """The lanes moved by so many places, in a circle."""
    index, count = ir.IntType(32), vector.type.count
    places = [ir.Constant(index, (lane + by) % count) for lane in range(count)]
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(index, count), places))


def _greater(builder: Any, first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    """In each lane the greater of two numbers with their places; of equals the later."""
    equal = builder.fcmp_ordered("==", first[0], second[0])
    later = builder.and_(equal, builder.icmp_signed(">", second[1], first[1]))
    taken = builder.or_(builder.fcmp_ordered(">", second[0], first[0]), later)
    return builder.select(taken, second[0], first[0]), builder.select(taken, second[1], first[1])


def _greatest(builder: Any, found: tuple[Any, Any]) -> tuple[Any, Any]:
    """The greatest of all lanes, as scalars."""
    for by in _halves(found[0])[:-1]:
        found = _greater(builder, found, (_turned(builder, found[0], by), _turned(builder, found[1], by)))
    # The last two in scalars: LLVM 20 compares the first lane with itself where a last shuffle
    # would compare two.
    first, second = (tuple(_lane(builder, vector, k) for vector in found) for k in (0, 1))
    return _greater(builder, first, second)


def _least(builder: Any, first: Any, second: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", second, first), second, first)


def _most(builder: Any, first: Any, second: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", second, first), second, first)


def _lane(builder: Any, vector: Any, k: int) -> Any:
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), k))


def _any_lane(builder: Any, bits: Any) -> Any:
    together = ir.IntType(bits.type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(bits, together), ir.Constant(together, 0))


def _each_block(
    builder: Any, form: _Form, n: Any, carried: Sequence[Any], body: Callable[[_Block, list[Any]], Sequence[Any]]
) -> list[Any]:
    """Emit a loop over blocks, and return what is carried out of it.

    ``for here in range(0, n, form.block): carried = body(here, carried)``
    """
    before = builder.block
    head, inside, end = (builder.append_basic_block(f"blocks.{name}") for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    here = builder.phi(_WORD)
    here.add_incoming(_word(0), before)
    phis = [builder.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", here, n), inside, end)
    builder.position_at_end(inside)
    after = body(_Block(builder, form, here), phis)
    here.add_incoming(builder.add(here, _word(form.block)), builder.block)
    for phi, value in zip(phis, after, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(end)
    return phis


class _Row:
    """A row of K, with the copy of its end; `ahead` where it is not in cache yet."""

    def __init__(self, row: Any, end: Any, element: Any, whole: Any, *, ahead: bool) -> None:
        self.row, self.end, self.element, self.whole, self.ahead = row, end, element, whole, ahead

    def load(self, block: _Block, vector: int) -> Any:
        builder = block.builder
        within = builder.icmp_signed("<", block.here, self.whole)
        data = builder.select(within, self.row, self.end)
        at = builder.select(within, block.here, _word(0))
        if self.ahead and vector == 0:
            self.fetch_ahead(block)
        return block.load(data, self.element, vector, at)

    def fetch_ahead(self, block: _Block) -> None:
        """Fetch what is AHEAD of the block; beyond the end of K that does nothing."""
        builder, size = block.builder, 4 if self.element == _FLOAT else 8
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        to_read, into_all_caches, data = (ir.Constant(word, k) for k in (0, 3, 1))
        for line in range(0, block.form.block * size, _CACHE_LINE):
            place = builder.gep(self.row, [builder.add(block.here, _word((AHEAD + line) // size))])
            builder.call(prefetch, [builder.bitcast(place, pointer), to_read, into_all_caches, data])


def _arguments(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The data of arrays and the scalars as they are; and the type of every array's elements."""
    arguments, elements = [], []
    for kind, value in zip(signature.args, values, strict=True):
        if isinstance(kind, types.Array):
            arguments.append(context.make_array(kind)(context, builder, value).data)
            elements.append(context.get_data_type(kind.dtype))
        else:
            arguments.append(value)
            elements.append(None)
    return arguments, elements


def _length(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return builder.extract_value(context.make_array(kind)(context, builder, value).shape, 0)


def _as_word(builder: Any, place: Any) -> Any:
    return place if place.type == _WORD else builder.sext(place, _WORD)


def _as_double(builder: Any, number: Any) -> Any:
    return number if number.type == _DOUBLE else builder.fpext(number, _DOUBLE)


def _selecting_code(moving: bool) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arguments, elements = _arguments(context, builder, signature, values)
        (v, up, low), marks = arguments[-3:], elements[-1]
        form = _FORMS[signature.args[-3].dtype]
        n = _length(context, builder, signature.args[-3], values[-3])
        if moving:
            whole, step = arguments[4], _spread(builder, form, arguments[5])
            # Row i was just read, row j was not.
            row_i = _Row(arguments[0], arguments[1], elements[0], whole, ahead=False)
            row_j = _Row(arguments[2], arguments[3], elements[2], whole, ahead=True)

        def body(block: _Block, carried: list[Any]) -> list[Any]:
            places, after = carried[0], []
            for vector in range(VECTORS):
                most, at, least = carried[1 + 3 * vector : 4 + 3 * vector]
                gradient = block.load(v, form.element, vector)
                if moving:
                    difference = builder.fsub(row_i.load(block, vector), row_j.load(block, vector))
                    gradient = builder.fsub(gradient, builder.fmul(step, difference, flags=_CONTRACT), flags=_CONTRACT)
                    block.store(gradient, v, vector)
                grows = block.chosen(up, marks, vector, gradient, form.none)
                larger = builder.fcmp_ordered(">=", grows, most)
                shrinks = block.chosen(low, marks, vector, gradient, -form.none)
                after += [
                    builder.select(larger, grows, most),
                    builder.select(larger, places, at),
                    _least(builder, least, shrinks),
                ]
            return [builder.add(places, _constant(form.places, form.block)), *after]

        nothing = _constant(form.reals, form.none), _constant(form.places, -1), _constant(form.reals, -form.none)
        found = _each_block(builder, form, n, [form.first_places(), *nothing * VECTORS], body)[1:]
        best, smallest = (found[0], found[1]), found[2]
        for vector in range(1, VECTORS):
            at = builder.add(found[3 * vector + 1], _constant(form.places, form.lanes * vector))
            best = _greater(builder, best, (found[3 * vector], at))
            smallest = _least(builder, smallest, found[3 * vector + 2])
        v_i, i = _greatest(builder, best)
        for by in _halves(smallest)[:-1]:
            smallest = _least(builder, smallest, _turned(builder, smallest, by))
        least = _least(builder, *(_lane(builder, smallest, k) for k in (0, 1)))
        i, v_i, least = _as_word(builder, i), _as_double(builder, v_i), _as_double(builder, least)
        return context.make_tuple(builder, signature.return_type, [i, v_i, least])

    return generate


def _most_gaining_of(builder: Any, form: _Form, parts: Sequence[Any], so_far: Sequence[Any]) -> tuple[Any, Any]:
    """The greatest gain so far, a vector, and where, after one more block; of equals the last.

    The vectors of the block, `parts`, are divided here.
    """
    best, at, places = so_far
    zero = _constant(form.reals, 0.0)
    for vector, (difference, square, curvature) in enumerate(parts):
        flat = builder.fcmp_ordered("<=", curvature, zero)
        curvature = builder.select(flat, _constant(form.reals, CURVATURE_FLOOR), curvature)
        gain = builder.fdiv(square, curvature)
        candidate = builder.fcmp_ordered(">", difference, zero)
        gain = builder.select(candidate, gain, _constant(form.reals, -1.0))
        larger = builder.fcmp_ordered(">=", gain, best)
        best = builder.select(larger, gain, best)
        here = builder.add(places, _constant(form.places, form.lanes * vector))
        at = builder.select(larger, here, at)
    return best, at


def _gaining_code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    arguments, elements = _arguments(context, builder, signature, values)
    row_data, end, whole, v, diagonal, varies, low, v_i, K_ii = arguments
    form = _FORMS[signature.args[3].dtype]
    n = _length(context, builder, signature.args[3], values[3])
    row = _Row(row_data, end, elements[0], whole, ahead=True)
    v_i, K_ii = _spread(builder, form, v_i), _spread(builder, form, K_ii)
    zero = _constant(form.reals, 0.0)

    def body(block: _Block, carried: list[Any]) -> list[Any]:
        # A division takes as long as all the rest, so only what may be a new maximum is divided.
        # That includes what has no curvature: its square is larger than something that is not
        # positive.
        best, at, threshold, places = carried
        excess, parts = None, []
        for vector in range(VECTORS):
            K_jj = block.load(diagonal, form.element, vector, builder.mul(block.here, varies))
            twice = builder.fmul(_constant(form.reals, 2.0), row.load(block, vector), flags=_CONTRACT)
            curvature = builder.fsub(builder.fadd(K_ii, K_jj), twice, flags=_CONTRACT)
            shrinks = block.chosen(low, elements[6], vector, block.load(v, form.element, vector), -form.none)
            difference = _most(builder, zero, builder.fsub(v_i, shrinks))
            square = builder.fmul(difference, difference)
            least_square = builder.fmul(threshold, curvature, flags=_CONTRACT)
            above = builder.fsub(square, least_square, flags=_CONTRACT)
            excess = above if excess is None else _most(builder, excess, above)
            parts.append((difference, square, curvature))
        before = builder.block
        divide, go_on = builder.append_basic_block("divide"), builder.append_basic_block("go_on")
        builder.cbranch(_any_lane(builder, builder.fcmp_ordered(">", excess, zero)), divide, go_on)
        builder.position_at_end(divide)
        new_best, new_at = _most_gaining_of(builder, form, parts, (best, at, places))
        greatest = new_best
        for by in _halves(greatest):
            greatest = _most(builder, greatest, _turned(builder, greatest, by))
        # Below this, rounding of the product cannot hide a quotient that is as large.
        new_threshold = builder.fmul(greatest, _constant(form.reals, form.almost_one))
        after_division = builder.block
        builder.branch(go_on)
        builder.position_at_end(go_on)
        after = []
        for old, new in ((best, new_best), (at, new_at), (threshold, new_threshold)):
            phi = builder.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, after_division)
            after.append(phi)
        return [*after, builder.add(places, _constant(form.places, form.block))]

    start = [zero, _constant(form.places, -1), zero, form.first_places()]
    best, at, _, _ = _each_block(builder, form, n, start, body)
    return _as_word(builder, _greatest(builder, (best, at))[1])

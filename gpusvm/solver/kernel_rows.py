"""Rows of the kernel matrix.

Inner products a thousand columns at a time, each chunk turned into kernel values by a compiled
loop while it is still in cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import numba
import numpy as np
from numba import types
from numba.extending import overload

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.operands import FusedProducts, Operand, Products, Samples

CHUNK_COLUMNS = 1024
"""Columns per product. Fixed, and each product is one thread's, so that the bits of a kernel value
do not depend on how many threads there are."""

_KINDS = {"linear": 0, "rbf": 1, "poly": 2, "sigmoid": 3}


class RowSource(Protocol):
    """Computes kernel values between samples of one class and all of another, or of the same."""

    def compute(self, samples: np.ndarray, into: np.ndarray, slots: np.ndarray, parallel_for: ParallelFor) -> None:
        """Write values of `samples` (m,) of the left class into rows `slots` (m,) of `into`."""


class KernelRows:
    """Kernel values of some samples' `rows`, the left class, against an operand."""

    def __init__(self, kernel: Kernel, samples: Samples, rows: np.ndarray, right: Operand) -> None:
        self.kernel, self.samples, self.rows, self.right = kernel, samples, rows, right

    def compute(self, samples: np.ndarray, into: np.ndarray, slots: np.ndarray, parallel_for: ParallelFor) -> None:
        products = self.right.products(self.samples, self.rows[samples])

        def one_chunk(start: int, stop: int) -> None:
            write_products(self.kernel, products, self.right, into, slots, start, stop)

        parallel_for(one_chunk, self.right.n)


class GivenRows:
    """The same, where the kernel values were given: ``K[rows][:, columns]``."""

    def __init__(self, K: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
        self.K, self.rows, self.columns = K, rows, columns

    def compute(self, samples: np.ndarray, into: np.ndarray, slots: np.ndarray, parallel_for: ParallelFor) -> None:
        into[slots] = self.K[self.rows[samples][:, None], self.columns]


class ParallelFor:
    """Calls a function for each chunk of columns, on this thread or on several."""

    def __init__(self, pool: Executor | None = None) -> None:
        self.pool = pool

    def __call__(self, function: Callable[[int, int], None], n_columns: int, size: int = CHUNK_COLUMNS) -> None:
        bounds = [(start, min(start + size, n_columns)) for start in range(0, n_columns, size)]
        if self.pool is None or len(bounds) == 1:
            for start, stop in bounds:
                function(start, stop)
        else:
            list(self.pool.map(lambda bound: function(*bound), bounds))


def write_products(
    kernel: Kernel, products: Products, right: Operand, into: np.ndarray, slots: np.ndarray, start: int, stop: int
) -> None:
    """Turn `products`, of rows with `right`, into kernel values in ``into[slots, start:stop]``."""
    if isinstance(products, FusedProducts) and products.serves_rows(kernel, into.dtype):
        products.write(kernel, into, slots, start, stop)
    else:
        inner = products.columns(start, stop)
        write_kernel(kernel, inner, right.unit, products.norms, right.norms[start:stop], into, slots, start)


def write_kernel(
    kernel: Kernel,
    inner: np.ndarray,
    unit: float,
    left_norms: np.ndarray,
    right_norms: np.ndarray,
    into: np.ndarray,
    slots: np.ndarray,
    start: int,
) -> None:
    """Turn inner products into kernel values in ``into[slots, start:start + n]``.

    `inner` (m, n) and the norms are all int32, float32 or float64, and in the same `unit`.
    Distances are exact for int32. What follows is float64 where `inner` or `into` is, else
    float32.
    """
    _write_kernel(
        *kernel_numbers(kernel, inner.dtype, unit, into.dtype), inner, left_norms, right_norms, into, slots, start
    )


def kernel_numbers(kernel: Kernel, inner: Any, unit: float, into: Any) -> tuple[Any, ...]:
    """First arguments of `_write_kernel`, for inner products and kernel values of these dtypes."""
    real = np.float64 if np.float64 in (inner, into) else np.float32
    numbers = real(unit), real(kernel.gamma * unit), real(kernel.coef0)
    return _KINDS[kernel.name], *numbers, kernel.degree, np.dtype(into).type(0)


def _real(x, like):  # type: ignore[no-untyped-def]
    """x in the arithmetic that follows: of the type of `like` for an integer, else as it is."""


def _squared_distance(left_norm, right_norm, inner):  # type: ignore[no-untyped-def]
    """||x||^2 + ||y||^2 - 2 <x, y>. An int32 may overflow on the way; the distance itself fits."""


@overload(_real, inline="always")
def _real_of(x, like):  # type: ignore[no-untyped-def]
    if isinstance(x, types.Integer):
        if like == types.float64:
            return lambda x, like: np.float64(x)
        return lambda x, like: np.float32(x)
    return lambda x, like: x


@overload(_squared_distance, inline="always")
def _squared_distance_of(left_norm, right_norm, inner):  # type: ignore[no-untyped-def]
    if isinstance(inner, types.Integer):
        return lambda left_norm, right_norm, inner: np.int32(left_norm + right_norm - 2 * inner)
    return lambda left_norm, right_norm, inner: left_norm + right_norm - (inner + inner)


@numba.njit(inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for float32 x <= 0 to a few units in the last place, in operations that vectorise.

    x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that k ln 2 is exact (Cody and
    Waite); exp(r) by its Taylor polynomial of degree 6, times 2^k put together from bits. Below
    -87 the result is no longer a normal number and is taken as 0.
    """
    k = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - k * np.float32(0.693359375)
    r = r + k * np.float32(2.12194440e-4)
    p = np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    scale = np.int32((np.int32(k) + 127) << 23).view(np.float32)
    return p * scale if x > np.float32(-87.0) else np.float32(0.0)


@numba.njit(inline="always")
def _exp_double(x):  # type: ignore[no-untyped-def]
    """The same for float64 x <= 0; below -708 the result is taken as 0.

    The polynomial of degree 11 meets exp in the Chebyshev points of |r| <= 0.34662, and is off by
    1.6e-17 at most.

    Adding 1.5 * 2^52 rounds to a whole number k and leaves its bits at the low end, which
    vectorises also where a processor has no instruction that turns float64 into int64.
    """
    shift = np.float64(6755399441055744.0)
    t = x * 1.4426950408889634 + shift
    k = t - shift
    r = x - k * 6.93147180369123816490e-01  # ln 2 to 33 bits, so that k times it is exact
    r = r - k * 1.90821492927058770002e-10
    p = 2.5110053138271734e-08
    p = p * r + 2.76326598377043e-07
    p = p * r + 2.7557240876597205e-06
    p = p * r + 2.480148542773432e-05
    p = p * r + 0.00019841269890086337
    p = p * r + 0.0013888888952365782
    p = p * r + 0.008333333333319586
    p = p * r + 0.041666666666487905
    p = p * r + 0.1666666666666668
    p = p * r + 0.5000000000000019
    p = p * r + 1.0
    p = p * r + 1.0
    scale = np.int64((np.float64(t).view(np.int64) + 1023) << 52).view(np.float64)
    return p * scale if x > -708.0 else 0.0


def _exponential(x, like):  # type: ignore[no-untyped-def]
    """exp(min(x, 0)) in the type of `like`."""


@overload(_exponential, inline="always")
def _exponential_of(x, like):  # type: ignore[no-untyped-def]
    if like == types.float64:
        return lambda x, like: _exp_double(min(np.float64(x), 0.0))
    return lambda x, like: _exp(min(np.float32(x), np.float32(0.0)))


def _tanh(x, like):  # type: ignore[no-untyped-def]
    """tanh(x) in the type of `like`."""


@overload(_tanh, inline="always")
def _tanh_of(x, like):  # type: ignore[no-untyped-def]
    if like == types.float64:
        return lambda x, like: math.tanh(x)

    def by_exponential(x, like):  # type: ignore[no-untyped-def]
        e = _exp(np.float32(-2.0) * abs(np.float32(x)))
        t = (np.float32(1.0) - e) / (np.float32(1.0) + e)
        return t if x >= 0 else -t

    return by_exponential


@compiled(fastmath={"contract", "nsz"})
def _write_kernel(
    kind: int,
    unit: float,
    slope: float,
    coef0: float,
    degree: int,
    like: float,
    inner: np.ndarray,
    left_norms: np.ndarray,
    right_norms: np.ndarray,
    into: np.ndarray,
    slots: np.ndarray,
    start: int,
) -> None:
    n = right_norms.shape[0]
    for r in range(left_norms.shape[0]):
        source = inner[r]
        target = into[slots[r], start : start + n]
        if kind == 1:
            norm = left_norms[r]
            for c in range(n):
                distance = _real(_squared_distance(norm, right_norms[c], source[c]), like)
                target[c] = _exponential(-slope * distance, like)
        elif kind == 0:
            for c in range(n):
                target[c] = unit * _real(source[c], like)
        elif kind == 2:
            for c in range(n):
                base = slope * _real(source[c], like) + coef0
                power = _real(1, like)
                for _ in range(degree):
                    power *= base
                target[c] = power
        else:
            for c in range(n):
                target[c] = _tanh(slope * _real(source[c], like) + coef0, like)


@compiled(fastmath={"contract", "nsz", "reassoc"})
def subtract_combination(
    rows: np.ndarray, slots: np.ndarray, coefficients: np.ndarray, v: np.ndarray, first: int
) -> None:
    """v -= sum_r coefficients[r] rows[slots[r], first:first + n], in float64.

    rows (capacity, >= first + n) float32 or float64, v (n,) float64.
    """
    n, m = v.shape[0], slots.shape[0]
    width = 1024  # of v in float64: a quarter of a first-level cache
    for start in range(0, n, width):
        stop = min(start + width, n)
        r = 0
        while r + 4 <= m:
            c0, c1, c2, c3 = coefficients[r], coefficients[r + 1], coefficients[r + 2], coefficients[r + 3]
            r0, r1, r2, r3 = rows[slots[r]], rows[slots[r + 1]], rows[slots[r + 2]], rows[slots[r + 3]]
            for k in range(start, stop):
                at = first + k
                v[k] -= (
                    c0 * np.float64(r0[at])
                    + c1 * np.float64(r1[at])
                    + c2 * np.float64(r2[at])
                    + c3 * np.float64(r3[at])
                )
            r += 4
        while r < m:
            c0, r0 = coefficients[r], rows[slots[r]]
            for k in range(start, stop):
                v[k] -= c0 * np.float64(r0[first + k])
            r += 1


@compiled()
def gather(
    rows: np.ndarray, slots: np.ndarray, columns: np.ndarray, into: np.ndarray, first_row: int, places: np.ndarray
) -> None:
    """``into[first_row + r, places[c]] = rows[slots[r], columns[c]]``, and its mirror image.

    The mirror image is written 16 rows at a time: a cache line each, instead of single numbers far
    apart.
    """
    m = slots.shape[0]
    for begin in range(0, m, 16):
        end = min(begin + 16, m)
        for r in range(begin, end):
            source, target = rows[slots[r]], into[first_row + r]
            for c in range(columns.shape[0]):
                target[places[c]] = source[columns[c]]
        for c in range(columns.shape[0]):
            mirror = into[places[c]]
            for r in range(begin, end):
                mirror[first_row + r] = into[first_row + r, places[c]]

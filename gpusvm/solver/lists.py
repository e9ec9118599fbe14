"""Products of sparse rows with blocks of sparse rows that are turned around.

Turned around, a block has for each feature the rows that have it. Of 100,000 features with 100
non-zeros a row, two rows share few or none. So each non-zero of a left row meets those rows of a
block alone that have its feature: its list. In most data some features are in many rows all the
same, as common words are in most texts; their values are kept for all rows of the block, zeros
among them, and are multiplied 16 at a time.

A sum is taken feature by feature, and which features are common follows from the block: so its
bits depend on its two rows and on the rows of the block, never on what other left rows there are.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from gpusvm.solver.compilation import compiled
from gpusvm.sparse import Sparse

BLOCK = 512
"""Rows that are turned around together: their sums for a left row, 2 KB of float32, stay in the
nearest cache."""

COMMON_FROM = BLOCK // 8
"""Rows of a block from which on a feature counts as common: its zeros then take up to 8 times the
memory of its list, and no more time."""


class CsrRows(NamedTuple):
    """The arrays of a CSR matrix as compiled code takes them.

    Attributes
    ----------
    starts : (n + 1,) int64 array
    features : (nnz,) int32 array
        Ascending within a row.
    values : (nnz,) array, float32, float64 or uint8
    """

    starts: np.ndarray
    features: np.ndarray
    values: np.ndarray


def csr_rows(X: Sparse) -> CsrRows:
    """Those of X (n, n_features), as arrays that may be written to, which X's need not be.

    Compiled code is for such arrays.
    """
    return CsrRows(X.indptr.astype(np.int64), np.require(X.indices, np.int32, "W"), np.require(X.data, None, "W"))


@compiled()
def norms_of_rows(starts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The squared norm of each row, summed in float64."""
    norms = np.zeros(starts.shape[0] - 1)
    for r in range(norms.shape[0]):
        total = 0.0
        for t in range(starts[r], starts[r + 1]):
            x = np.float64(values[t])
            total += x * x
        norms[r] = total
    return norms


class Lists(NamedTuple):
    """A block of up to `BLOCK` rows, which are counted from 0, turned around.

    Attributes
    ----------
    features : (c + k,) int32 array
        Those that some row has: first the c common ones.
    common : (c, BLOCK) array, float32, float64 or int32
        The values of all rows in each common feature.
    starts : (k + 1,) uint32 array
        Where the list of each other feature begins.
    owners : (nnz,) uint16 array
        The rows in a list, ascending.
    values : (nnz,) array
        Theirs.
    """

    features: np.ndarray
    common: np.ndarray
    starts: np.ndarray
    owners: np.ndarray
    values: np.ndarray


class _Places(threading.local):
    held = np.empty(0, dtype=np.int32)


_places = _Places()


def places_for(n_features: int) -> np.ndarray:
    """An int32 array (>= n_features,) of -1, the same for each call of a thread.

    The thread leaves it as it finds it.
    """
    if len(_places.held) < n_features:
        _places.held = np.full(n_features, -1, dtype=np.int32)
    return _places.held


def turned_around(block: CsrRows, rows: np.ndarray, n_features: int, dtype: np.dtype) -> Lists:
    """These rows (<= BLOCK,) as `Lists` with values of this type: float32, float64 or int32."""
    return Lists(*_turn_around(*block, rows, places_for(n_features), np.dtype(dtype).type(0)))


@compiled()
def _turn_around(
    starts: np.ndarray, features: np.ndarray, values: np.ndarray, rows: np.ndarray, places: np.ndarray, zero: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n_nonzeros, n_found = 0, 0
    for r in range(rows.shape[0]):
        n_nonzeros += starts[rows[r] + 1] - starts[rows[r]]
    found, counts = np.empty(n_nonzeros, dtype=np.int32), np.zeros(n_nonzeros, dtype=np.uint32)
    for r in range(rows.shape[0]):
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            f = features[t]
            if places[f] < 0:
                places[f], found[n_found] = n_found, f
                n_found += 1
            counts[places[f]] += 1

    n_common = 0
    for place in range(n_found):
        n_common += counts[place] >= COMMON_FROM
    ordered, begin = np.empty(n_found, dtype=np.int32), np.zeros(n_found - n_common + 1, dtype=np.uint32)
    next_common, next_other = 0, n_common
    for place in range(n_found):
        if counts[place] >= COMMON_FROM:
            at, next_common = next_common, next_common + 1
        else:
            at, next_other = next_other, next_other + 1
            begin[at - n_common + 1] = counts[place]
        ordered[at], places[found[place]] = found[place], at
    for k in range(n_found - n_common):
        begin[k + 1] += begin[k]

    n_listed = np.int64(begin[n_found - n_common])
    owners, listed = np.empty(n_listed, dtype=np.uint16), np.empty(n_listed, dtype=type(zero))
    common, free = np.zeros((n_common, BLOCK), dtype=type(zero)), begin.copy()
    for r in range(rows.shape[0]):
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            place = places[features[t]]
            if place < n_common:
                common[place, r] = values[t]
            else:
                e = free[place - n_common]
                owners[e], listed[e] = r, values[t]
                free[place - n_common] += 1
    for place in range(n_found):
        places[ordered[place]] = -1
    return ordered, common, begin, owners, listed


@compiled(fastmath={"contract"})
def multiply_lists(
    left: CsrRows, rows: np.ndarray, right: Lists, places: np.ndarray, first: int, out: np.ndarray, at: int, n: int
) -> None:
    """out[:, at:at + n] = (m `rows` of `left`) x (rows `first` to `first` + n of the block).

    Products are in the type of `right`; those of whole numbers are exact in int32. `places` are
    those of `places_for`.
    """
    n_common = right.common.shape[0]
    for place in range(right.features.shape[0]):
        places[right.features[place]] = place
    longest = 1
    for i in range(rows.shape[0]):
        longest = max(longest, left.starts[rows[i] + 1] - left.starts[rows[i]])
    # What is unsigned is an index without being looked at first.
    common, common_values = np.empty(longest, dtype=np.uint32), np.empty(longest, dtype=right.values.dtype)
    listed, listed_values = np.empty(longest, dtype=np.uint32), np.empty(longest, dtype=right.values.dtype)
    sums = np.empty(BLOCK, dtype=right.values.dtype)
    for i in range(rows.shape[0]):
        n_dense, n_listed = 0, 0
        for t in range(left.starts[rows[i]], left.starts[rows[i] + 1]):  # without branches
            place, value = places[left.features[t]], left.values[t]
            common[n_dense], common_values[n_dense] = place, value
            n_dense += (place >= 0) & (place < n_common)
            listed[n_listed], listed_values[n_listed] = place - n_common, value
            n_listed += place >= n_common
        sums[:] = 0
        _add_common(right.common, common, common_values, n_dense, sums)
        for k in range(n_listed):
            value, feature = listed_values[k], listed[k]
            for e in range(right.starts[feature], right.starts[feature + np.uint32(1)]):
                sums[right.owners[e]] += value * right.values[e]
        row = out[i]
        for c in range(n):
            row[at + c] = sums[first + c]
    for place in range(right.features.shape[0]):
        places[right.features[place]] = -1


@compiled(fastmath={"contract"})
def _add_common(common: np.ndarray, features: np.ndarray, values: np.ndarray, n: int, sums: np.ndarray) -> None:
    """sums (BLOCK,) += values[:n] times the rows `features[:n]` of `common`.

    Four rows at a time, for which the sums are loaded and stored once.
    """
    k = 0
    while k + 4 <= n:
        v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        r0, r1, r2, r3 = common[features[k]], common[features[k + 1]], common[features[k + 2]], common[features[k + 3]]
        for c in range(BLOCK):
            sums[c] += v0 * r0[c] + v1 * r1[c] + v2 * r2[c] + v3 * r3[c]
        k += 4
    while k < n:
        v0, r0 = values[k], common[features[k]]
        for c in range(BLOCK):
            sums[c] += v0 * r0[c]
        k += 1

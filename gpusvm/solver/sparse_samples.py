"""Samples in CSR, ready to be multiplied: packed as `operands` packs arrays, or as lists.

Panels of 16 samples have a line of memory for every feature, so they are for samples with few
features. Of 100,000 features with 100 non-zeros a row nearly every line would be zeros: those are
multiplied as `lists`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.lists import (
    BLOCK,
    CsrRows,
    Lists,
    csr_rows,
    multiply_lists,
    norms_of_rows,
    places_for,
    turned_around,
)
from gpusvm.solver.operands import (
    LARGEST_PIXEL,
    PIXEL_SCALES,
    IntegerOperand,
    Operand,
    PanelOperand,
    Products,
    Samples,
    Scratch,
    whole_numbers,
)
from gpusvm.solver.panels import PANEL_WIDTH, UNROLL, empty_panels, integer_products_are_exact
from gpusvm.sparse import Sparse, restricted

PANELS_FROM = 1 / 16
"""Share of non-zeros among the features that a block has at all from which on it is packed in
panels: where they take no more than some eight times the memory of the non-zeros."""

MOST_PANEL_FEATURES = 8192
"""Features up to which a panel stays in a second-level cache."""


class SparseSamples(Samples):
    """`operands.Samples` in CSR, without the features that no sample has.

    Attributes
    ----------
    X : (n, n_features) CSR
        float32; float64 where the kernel would suffer from float32 products.
    pixels : (nnz,) uint8 array or None
        ``X.data == pixels / scale`` in float32.
    scale : float
    norms : (n,) float64 array
        Squared norms; of the pixels, exactly, where there are pixels.
    """

    def __init__(self, X: Sparse, pixels: np.ndarray | None = None, scale: float = 1.0) -> None:
        self.X = X = without_empty_features(X)
        self.pixels, self.scale = pixels, scale
        self.rows = csr_rows(X)
        self.norms = norms_of_rows(self.rows.starts, X.data if pixels is None else pixels)

    @classmethod
    def of(cls, X: Sparse, kernel: Kernel) -> SparseSamples:
        """As `Samples.of`: as pixels where X is pixels, else in float32 or float64."""
        longest = int(np.diff(X.indptr).max(initial=0))
        # The distance of two samples without a common feature is the sum of their norms.
        if X.nnz and 2 * longest * LARGEST_PIXEL**2 <= np.iinfo(np.int32).max and integer_products_are_exact():
            for scale in PIXEL_SCALES:
                pixels = whole_numbers(X.data[:, None], scale)
                if pixels is not None:
                    return cls(X.astype(np.float32, copy=False), pixels.ravel(), scale)
        largest = norms_of_rows(X.indptr.astype(np.int64), X.data).max(initial=0.0)
        return cls(X.astype(kernel.product_dtype(largest), copy=False))

    def real_norms(self, rows: np.ndarray) -> np.ndarray:
        """||X[r]||^2 for each of `rows`, as (n,) in X's dtype."""
        return (self.norms[rows] / self.scale**2).astype(self.X.dtype)

    def operand(self, rows: np.ndarray) -> Operand:
        """The operand that suits `rows`: panels where these take little memory, else lists."""
        present = np.zeros(self.X.shape[1], dtype=np.bool_)
        n_nonzeros = _mark_nonzeros(self.rows.starts, self.rows.features, rows, present)
        features = np.flatnonzero(present)
        sparse = n_nonzeros < PANELS_FROM * len(rows) * len(features)
        if self.X.dtype == np.float64 or sparse or len(features) > MOST_PANEL_FEATURES:
            return ListsOperand(self, rows)
        if self.pixels is not None:
            return IntegerOperand(self, rows, present)
        return PanelOperand(self, rows, features)

    def pack_panels(self, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        """`panels.pack_panels` of these rows."""
        panels = empty_panels(len(rows), PANEL_WIDTH * len(features), np.float32)
        _fill_panels(*self.rows, rows, self._position(features), panels)
        return panels

    def pack_nonzeros(self, rows: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`panels.pack_nonzeros` of these rows."""
        return _pack_nonzeros(*self.rows, rows, position)

    def pack_integer_panels(self, rows: np.ndarray, feature_pairs: np.ndarray) -> np.ndarray:
        """`panels.pack_integer_panels` of these rows."""
        panels = empty_panels(len(rows), 2 * PANEL_WIDTH * len(feature_pairs), np.int16)
        _fill_integer_panels(
            self.rows.starts, self.rows.features, self.pixels, rows, self._position(feature_pairs), panels
        )
        return panels

    def pack_integers(self, rows: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`panels.pack_integers` of these rows."""
        return _pack_integers(self.rows.starts, self.rows.features, self.pixels, rows, position)

    def _position(self, features: np.ndarray) -> np.ndarray:
        position = np.full(self.X.shape[1], -1, dtype=np.int32)
        position[features] = np.arange(len(features), dtype=np.int32)
        return position


def without_empty_features(X: Sparse) -> Sparse:
    """X (n, n_features) with the features that some row has, in their order, and no others."""
    if X.shape[1] <= 4 * X.nnz + 2**16:
        present = np.zeros(X.shape[1], dtype=np.bool_)
        present[X.indices] = True
        features = np.flatnonzero(present)
    else:
        features = np.unique(X.indices)
    return X if len(features) == X.shape[1] else restricted(X, features)


class ListsOperand:
    """Samples with few non-zeros among many features: see `lists`.

    A block is turned around when it is first needed.
    """

    def __init__(self, samples: SparseSamples, rows: np.ndarray) -> None:
        self.n, self.rows = len(rows), rows
        self.norms, self.unit = _norms(samples, rows), 1.0
        self.numbers, self.n_features = _numbers(samples), samples.X.shape[1]
        self.blocks: dict[int, Lists] = {}
        if samples.pixels is not None:
            self.unit = 1.0 / samples.scale**2

    def products(self, samples: Any, rows: np.ndarray) -> Products:
        return _ListsProducts(_norms(samples, rows), _numbers(samples), rows, self)

    def block(self, start: int) -> Lists:
        """The samples from `start`, a multiple of `lists.BLOCK`, on."""
        if start not in self.blocks:  # two threads may come here at once, and find the same
            rows = self.rows[start : start + BLOCK]
            self.blocks[start] = turned_around(self.numbers, rows, self.n_features, self.norms.dtype)
        return self.blocks[start]


def _numbers(samples: SparseSamples) -> CsrRows:
    """The samples' non-zeros as they are multiplied: pixels exactly, as whole numbers."""
    return samples.rows if samples.pixels is None else samples.rows._replace(values=samples.pixels)


def _norms(samples: SparseSamples, rows: np.ndarray) -> np.ndarray:
    return samples.real_norms(rows) if samples.pixels is None else samples.norms[rows].astype(np.int32)


class _ListsProducts:
    def __init__(self, norms: np.ndarray, left: CsrRows, rows: np.ndarray, right: ListsOperand) -> None:
        self.norms, self.left, self.rows, self.right = norms, left, rows, right

    def columns(self, start: int, stop: int) -> np.ndarray:
        out, places = _out(len(self.norms), stop - start, self.norms.dtype), places_for(self.right.n_features)
        for begin in range(start // BLOCK * BLOCK, stop, BLOCK):
            first, last = max(start, begin), min(stop, begin + BLOCK)
            block = self.right.block(begin)
            multiply_lists(self.left, self.rows, block, places, first - begin, out, first - start, last - first)
        return out


_out = Scratch()


@compiled()
def _mark_nonzeros(starts: np.ndarray, features: np.ndarray, rows: np.ndarray, present: np.ndarray) -> int:
    """Set present[f] for the features that `rows` have; returns the number of their non-zeros."""
    count = 0
    for r in range(rows.shape[0]):
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            present[features[t]] = True
        count += starts[rows[r] + 1] - starts[rows[r]]
    return count


@compiled()
def _fill_panels(
    starts: np.ndarray, features: np.ndarray, values: np.ndarray, rows: np.ndarray, position: np.ndarray,
    panels: np.ndarray,
) -> None:  # fmt: skip
    panels[:] = 0.0
    for r in range(rows.shape[0]):
        panel, s = panels[r // PANEL_WIDTH], r % PANEL_WIDTH
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            panel[position[features[t]] * PANEL_WIDTH + s] = values[t]


@compiled()
def _fill_integer_panels(
    starts: np.ndarray, features: np.ndarray, values: np.ndarray, rows: np.ndarray, position: np.ndarray,
    panels: np.ndarray,
) -> None:  # fmt: skip
    panels[:] = 0
    for r in range(rows.shape[0]):
        panel, s = panels[r // PANEL_WIDTH], r % PANEL_WIDTH
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            f = features[t]
            panel[2 * (position[f // 2] * PANEL_WIDTH + s) + f % 2] = values[t]


@compiled()
def _pack_nonzeros(
    starts: np.ndarray, features: np.ndarray, values: np.ndarray, rows: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m = rows.shape[0]
    packed = np.zeros(m + 1, dtype=np.int64)
    for r in range(m):
        count = 0
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            count += position[features[t]] >= 0
        packed[r + 1] = packed[r] + (count + UNROLL - 1) // UNROLL * UNROLL
    places = np.zeros(packed[m], dtype=np.int32)
    numbers = np.zeros(packed[m], dtype=np.float32)
    for r in range(m):
        at = packed[r]
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            place = position[features[t]]
            if place >= 0:
                places[at], numbers[at] = place, values[t]
                at += 1
    return packed, places, numbers


@compiled()
def _pack_integers(
    starts: np.ndarray, features: np.ndarray, values: np.ndarray, rows: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m = rows.shape[0]
    packed, most = np.zeros(m + 1, dtype=np.int64), 0
    for r in range(m):
        most += (starts[rows[r] + 1] - starts[rows[r]] + UNROLL - 1) // UNROLL * UNROLL
    places, numbers = np.zeros(most, dtype=np.int32), np.zeros(most, dtype=np.int32)
    at = 0
    for r in range(m):
        last = -1
        for t in range(starts[rows[r]], starts[rows[r] + 1]):
            f = features[t]
            two, value = f // 2, np.int32(values[t]) << (16 * (f % 2))
            if position[two] >= 0:
                if two == last:
                    numbers[at - 1] |= value
                else:
                    places[at], numbers[at] = position[two], value
                    at, last = at + 1, two
        while at % UNROLL:
            at += 1
        packed[r + 1] = at
    return packed, places[:at], numbers[:at]

"""The samples of one class, ready to be multiplied with: packed in panels, or as they are for BLAS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpusvm.solver.panels import (
    PANEL_WIDTH,
    integer_products_are_exact,
    mark_nonzeros,
    multiply,
    multiply_integers,
    pack_integer_panels,
    pack_integers,
    pack_nonzeros,
    pack_panels,
)

SPARSE_BELOW = 0.4
"""Share of non-zeros (among the features that a class has at all) up to which panels are faster than BLAS."""

PIXEL_SCALES = (255.0, 1.0, 16.0)
"""What samples are tried to be whole numbers over: scaled pixels, raw ones, and the 16 greys of `digits`."""

LARGEST_PIXEL = 255


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples to multiply, and the whole numbers that they are, if they are.

    Attributes
    ----------
    X : (n, n_features) float32 array, C order
    pixels : (n, n_features) uint8 array or None
        ``X == pixels / scale`` in float32.
    scale : float
    """

    X: np.ndarray
    pixels: np.ndarray | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, X: np.ndarray) -> Samples:
        """Look whether X is pixels over one of `PIXEL_SCALES`, and this processor multiplies those exactly."""
        fits = X.shape[1] * LARGEST_PIXEL**2 <= np.iinfo(np.int32).max
        if X.size and fits and integer_products_are_exact():
            for scale in PIXEL_SCALES:
                pixels = whole_numbers(X, scale)
                if pixels is not None:
                    return cls(X, pixels, scale)
        return cls(X)

    def squared_norms(self, rows: np.ndarray) -> np.ndarray:
        """||X[r]||^2 for each of `rows`, as (n,) float32; summed in float64, or exactly where X is pixels."""
        norms = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), 4096):
            part = rows[start : start + 4096]
            if self.pixels is None:
                chosen = self.X[part]
                norms[start : start + 4096] = np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64)
            else:
                whole = self.pixels[part]
                norms[start : start + 4096] = np.einsum("ij,ij->i", whole, whole, dtype=np.int64) / self.scale**2
        return norms


def whole_numbers(X: np.ndarray, scale: float) -> np.ndarray | None:
    """The uint8 array whose quotient by `scale` is X (n, d), float32, to the last bit; None if there is none."""
    pixels = np.empty(X.shape, dtype=np.uint8)
    step = max(1, 2**20 // X.shape[1])
    for start in range(0, len(X), step):
        part = X[start : start + step]
        rounded = np.rint(part * np.float32(scale))
        if not (rounded.min() >= 0 and rounded.max() <= LARGEST_PIXEL):
            return None
        if not np.array_equal(rounded / np.float32(scale), part):
            return None
        pixels[start : start + step] = rounded
    return pixels


class Operand(Protocol):
    """The right-hand side of a product; its samples are counted from 0."""

    n: int
    norms: np.ndarray
    """(n,) float32: squared norms."""
    unit: float
    """What the products must be multiplied with to be inner products."""

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        """Get ready to multiply these rows of the samples with this operand's."""


class Products(Protocol):
    """A product not computed yet: some left rows against all of an operand."""

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Products (m, stop - start), float32 or int32; `start` is a multiple of 16."""


def make_operand(samples: Samples, rows: np.ndarray) -> Operand:
    """The operand that suits `rows` of the samples: panels where they are mostly zeros, else as they are."""
    present = np.zeros(samples.X.shape[1], dtype=np.bool_)
    n_nonzeros = mark_nonzeros(samples.X, rows, present)
    features = np.flatnonzero(present)
    norms = samples.squared_norms(rows)
    if n_nonzeros >= SPARSE_BELOW * len(rows) * len(features):
        return BlasOperand(samples, rows, norms)
    if samples.pixels is not None:
        return IntegerOperand(samples, rows, norms, present)
    return PanelOperand(samples, rows, norms, features)


class PanelOperand:
    """Samples that are mostly zeros, without the features that none of them has."""

    unit = 1.0

    def __init__(self, samples: Samples, rows: np.ndarray, norms: np.ndarray, features: np.ndarray) -> None:
        self.n, self.norms = len(rows), norms
        self.panels = pack_panels(samples.X, rows, features)
        self.position = np.full(samples.X.shape[1], -1, dtype=np.int32)
        self.position[features] = np.arange(len(features), dtype=np.int32)

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        return _PanelProducts(multiply, np.float32, self.panels, pack_nonzeros(samples.X, rows, self.position))


class IntegerOperand:
    """Pixels that are mostly zeros: two neighbours at a time, multiplied and summed as 16-bit integers, exactly."""

    def __init__(self, samples: Samples, rows: np.ndarray, norms: np.ndarray, present: np.ndarray) -> None:
        assert samples.pixels is not None
        self.n, self.norms, self.unit = len(rows), norms, 1.0 / samples.scale**2
        even = np.zeros(-(-len(present) // 2), dtype=np.bool_)
        even |= present[::2]
        even[: len(present) // 2] |= present[1::2]
        twos = np.flatnonzero(even)
        self.panels = pack_integer_panels(samples.pixels, rows, twos)
        self.position = np.full(len(even), -1, dtype=np.int32)
        self.position[twos] = np.arange(len(twos), dtype=np.int32)

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        nonzeros = pack_integers(samples.pixels, rows, self.position)
        return _PanelProducts(multiply_integers, np.int32, self.panels, nonzeros)


class _PanelProducts:
    def __init__(
        self,
        function: Callable[..., None],
        dtype: Any,
        panels: np.ndarray,
        nonzeros: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        self.function, self.dtype, self.panels, self.nonzeros = function, dtype, panels, nonzeros

    def columns(self, start: int, stop: int) -> np.ndarray:
        chosen = self.panels[start // PANEL_WIDTH : -(-stop // PANEL_WIDTH)]
        out = np.empty((len(self.nonzeros[0]) - 1, len(chosen) * PANEL_WIDTH), dtype=self.dtype)
        self.function(*self.nonzeros, chosen, out)
        return out[:, : stop - start]


class BlasOperand:
    """Any samples, multiplied by BLAS."""

    unit = 1.0

    def __init__(self, samples: Samples, rows: np.ndarray, norms: np.ndarray) -> None:
        self.n, self.norms = len(rows), norms
        self.X = samples.X[rows]

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        return _BlasProducts(samples.X[rows], self.X)


class _BlasProducts:
    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right

    def columns(self, start: int, stop: int) -> np.ndarray:
        return self.left @ self.right[start:stop].T

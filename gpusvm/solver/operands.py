"""A class's samples, ready to be multiplied with: packed in panels, or as they are for BLAS."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.fused import (
    SERVED,
    TOGETHER,
    is_narrow,
    kernel_numbers,
    subtract_values,
    subtract_values_of_nonzeros,
    write_values,
    write_values_of_nonzeros,
)
from gpusvm.solver.panels import (
    PANEL_WIDTH,
    count_nonzeros,
    integer_products_are_exact,
    mark_nonzeros,
    multiply,
    multiply_integers,
    pack_integer_panels,
    pack_integers,
    pack_nonzeros,
    pack_panels,
)
from gpusvm.solver.tiles import multiply_tiles, pack_columns, pack_rows

SPARSE_BELOW = 0.4
"""Share of non-zeros (among the features that a class has at all) up to which panels are faster
than BLAS."""

MOST_IN_TILES = 512
"""Features up to which dense samples are multiplied in tiles: a group and a panel of more outgrow
the nearest cache."""

PIXEL_SCALES = (255.0, 1.0, 16.0)
"""What samples are tried to be whole numbers over: scaled pixels, raw ones, and the 16 greys of
`digits`."""

LARGEST_PIXEL = 255


LEFT_BLOCK = 64
"""Rows that BLAS is given at once, always as many: its bits may depend on how many there are."""

LARGE_LEFT_BLOCK = 512
"""The same where there are so many."""


class Samples:
    """Samples to multiply, and the whole numbers that they are, if they are.

    Attributes
    ----------
    X : (n, n_features) array, C order
        float32; float64 where the kernel would suffer from float32 products.
    pixels : (n, n_features) uint8 array or None
        ``X == pixels / scale`` in float32.
    scale : float
    norms : (n,) float64 array
        Squared norms; of the pixels, exactly, where there are pixels.
    """

    def __init__(self, X: np.ndarray, pixels: np.ndarray | None = None, scale: float = 1.0) -> None:
        self.X, self.pixels, self.scale = X, pixels, scale
        self.norms = squared_norms(X if pixels is None else pixels)

    @classmethod
    def of(cls, X: np.ndarray, kernel: Kernel) -> Samples:
        """Samples as pixels where X is pixels, else in float32 or float64.

        X is pixels where it is whole numbers over one of `PIXEL_SCALES`, and this processor
        multiplies those exactly. Otherwise X, float32 or float64, is taken in float32 where that
        suffices for the kernel, else in float64.
        """
        fits = X.shape[1] * LARGEST_PIXEL**2 <= np.iinfo(np.int32).max
        if X.size and fits and integer_products_are_exact():
            for scale in PIXEL_SCALES:
                pixels = whole_numbers(X, scale)
                if pixels is not None:
                    return cls(X.astype(np.float32, copy=False), pixels, scale)
        return cls(X.astype(kernel.product_dtype(squared_norms(X).max(initial=0.0)), copy=False))

    def real_norms(self, rows: np.ndarray) -> np.ndarray:
        """||X[r]||^2 for each of `rows`, as (n,) in X's dtype."""
        return (self.norms[rows] / self.scale**2).astype(self.X.dtype)

    def operand(self, rows: np.ndarray) -> Operand:
        """The operand that suits `rows`: panels where they are mostly zeros, else as they are."""
        if self.X.dtype == np.float64:
            return BlasOperand(self, rows)
        present, sparse = features_of(self.X, rows)
        if not sparse:
            return (TileOperand if self.X.shape[1] <= MOST_IN_TILES else BlasOperand)(self, rows)
        if self.pixels is not None:
            return IntegerOperand(self, rows, present)
        return PanelOperand(self, rows, np.flatnonzero(present))

    def pack_panels(self, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        """`panels.pack_panels` of these rows."""
        return pack_panels(self.X, rows, features)

    def pack_nonzeros(self, rows: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`panels.pack_nonzeros` of these rows."""
        return pack_nonzeros(self.X, rows, position)

    def pack_integer_panels(self, rows: np.ndarray, feature_pairs: np.ndarray) -> np.ndarray:
        """`panels.pack_integer_panels` of these rows."""
        assert self.pixels is not None
        return pack_integer_panels(self.pixels, rows, feature_pairs)

    def pack_integers(self, rows: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`panels.pack_integers` of these rows."""
        return pack_integers(self.pixels, rows, position)


def features_of(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, bool]:
    """Which features some of the rows of X (any, d) have, and whether the rows are sparse.

    That is a (d,) bool array, and whether the rows are mostly zeros in these features. Where the
    rows are not mostly zeros in all features, all count as features that they have.
    """
    n_nonzeros, present = count_nonzeros(X, rows), np.ones(X.shape[1], dtype=np.bool_)
    if n_nonzeros >= SPARSE_BELOW * len(rows) * X.shape[1]:
        return present, False  # the features need not be looked at one by one
    present[:] = False
    mark_nonzeros(X, rows, present)
    return present, bool(n_nonzeros < SPARSE_BELOW * len(rows) * np.count_nonzero(present))


@compiled()
def squared_norms(X: np.ndarray) -> np.ndarray:
    """The squared norm of each row of X (n, d), summed in float64."""
    norms = np.zeros(X.shape[0])
    for r in range(X.shape[0]):
        row, total = X[r], 0.0
        for f in range(X.shape[1]):
            x = np.float64(row[f])
            total += x * x
        norms[r] = total
    return norms


def whole_numbers(X: np.ndarray, scale: float) -> np.ndarray | None:
    """The uint8 array whose quotient by `scale` is X (n, d) to the last bit, or None.

    The quotient is taken in X's dtype.
    """
    pixels = np.empty(X.shape, dtype=np.uint8)
    return pixels if take_whole_numbers(X, *quotient(scale, X.dtype), pixels) else None


def quotient(scale: float, dtype: Any) -> tuple[Any, Any, Any]:
    """`scale`, and two parts of its inverse, in a float type.

    With the two parts one divides as fast as one multiplies. The first has so few digits that its
    product with a whole number below 256 is exact; so the sum of both products is rounded once,
    but for the tiny part's own rounding. For every scale of `PIXEL_SCALES` it is the quotient to
    the last bit (a test looks at all).
    """
    real = np.dtype(dtype).type
    digits = np.finfo(dtype).nmant + 1 - 8
    fraction, exponent = math.frexp(1.0 / scale)
    coarse = math.ldexp(math.floor(math.ldexp(fraction, digits)), exponent - digits)
    return real(scale), real(coarse), real(float(1 / Fraction(scale) - Fraction(coarse)))


@compiled()
def take_whole_numbers(X: np.ndarray, scale: float, coarse: float, fine: float, pixels: np.ndarray) -> bool:
    """Whether X (n, d) is whole numbers from 0 to 255 over `scale`, to the last bit.

    They are written to `pixels`. `scale`, `coarse` and `fine` are those of `quotient`, in X's
    type. There is one pass over X, which ends with the first row that is not whole numbers.
    """
    least, largest = type(scale)(0), type(scale)(LARGEST_PIXEL)
    for r in range(X.shape[0]):
        row, into, others = X[r], pixels[r], np.uint8(0)
        # Without a way out in the middle, which would keep it from being vector code.
        for f in range(row.shape[0]):
            x = type(scale)(row[f])
            whole = x * scale
            whole = whole if whole > least else least  # of NaN too
            whole = np.rint(whole if whole < largest else largest)
            others = np.uint8(others | np.uint8(whole * coarse + whole * fine != x))
            into[f] = np.uint8(np.int32(whole))
        if others > 0:
            return False
    return True


@compiled()
def are_whole_numbers(X: np.ndarray, scale: float) -> bool:
    """Whether X (n, d) is whole numbers from 0 to 255 over `scale`, to the last bit.

    Both are taken in the type of `scale`.
    """
    for r in range(X.shape[0]):
        row, others = X[r], 0
        # Without a way out in the middle, which would keep it from being vector code.
        for f in range(row.shape[0]):
            x = type(scale)(row[f])
            whole = np.rint(x * scale)
            others += not ((whole >= 0) & (whole <= LARGEST_PIXEL) & (whole / scale == x))
        if others > 0:
            return False
    return True


@compiled()
def as_pixels(X: np.ndarray, scale: float, pixels: np.ndarray) -> None:
    """Those whole numbers of X (n, d), as uint8."""
    for r in range(X.shape[0]):
        row, into = X[r], pixels[r]
        for f in range(row.shape[0]):
            into[f] = np.uint8(np.rint(row[f] * scale))


class Operand(Protocol):
    """The right-hand side of a product; its samples are counted from 0."""

    n: int
    norms: np.ndarray
    """(n,) int32 where products are, else float32 or float64."""
    unit: float
    """What norms and products must be multiplied with to be those of the samples."""

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        """Get ready to multiply these rows of the samples with this operand's."""


class Products(Protocol):
    """A product not computed yet: some left rows against all of an operand."""

    norms: np.ndarray
    """Of the left rows, in the operand's unit and dtype."""

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Products (m, stop - start), int32, float32 or float64; `start` is a multiple of 16.

        They lie in memory of the calling thread, which its next call writes to again.
        """


class Scratch(threading.local):
    """Memory that a thread uses again for one purpose: fresh memory costs more than a product."""

    def __init__(self) -> None:
        self.held = np.empty(0, dtype=np.uint8)

    def __call__(self, rows: int, columns: int, dtype: Any) -> np.ndarray:
        """(rows, columns) of it; what it was given for before is lost."""
        size = rows * columns * np.dtype(dtype).itemsize
        if len(self.held) < size:
            self.held = np.empty(size, dtype=np.uint8)
        return self.held[:size].view(dtype).reshape(rows, columns)


_scratch = Scratch()


def make_operand(samples: Samples, rows: np.ndarray) -> Operand:
    """The operand that suits `rows` of the samples, which may be `SparseSamples` too."""
    return samples.operand(rows)


class TileOperand:
    """Dense float32 samples of few features: products become kernel values in registers.

    They have at most `MOST_IN_TILES` features.
    """

    unit = 1.0

    def __init__(self, samples: Samples, rows: np.ndarray) -> None:
        self.n, self.n_features = len(rows), samples.X.shape[1]
        self.panels = packed_columns(samples.X[rows])
        self.padded_norms = padded(samples.real_norms(rows), PANEL_WIDTH)
        self.norms = self.padded_norms[: self.n]

    def products(self, samples: Samples, rows: np.ndarray) -> TileProducts:
        return TileProducts(samples, rows, self)


def packed_columns(X: np.ndarray) -> np.ndarray:
    """Dense samples (n, d) in panels, from `tiles.pack_columns`."""
    panels = np.empty((-(-len(X) // PANEL_WIDTH), PANEL_WIDTH * X.shape[1]), dtype=X.dtype)
    pack_columns(X, panels)
    return panels


class FusedProducts(ABC):
    """Products that become float32 values of a `fused.SERVED` kernel without being written."""

    def serves(self, kernel: Kernel, dtype: Any) -> bool:
        """Whether kernel values in `dtype` can be made so."""
        return kernel.name in SERVED and dtype == np.float32

    def serves_rows(self, kernel: Kernel, dtype: Any) -> bool:
        """Whether that is also the fastest where they are written without a mirror image."""
        return self.serves(kernel, dtype)

    @abstractmethod
    def write(
        self, kernel: Kernel, into: np.ndarray, places: np.ndarray, start: int, stop: int, *, mirrored: bool = False
    ) -> None:
        """Write kernel values to ``into[places, start:stop]``.

        Where `mirrored`, they go to ``into[start:stop, places]`` too. Each of `places` is then the
        one after the one before.
        """

    @abstractmethod
    def subtract(self, kernel: Kernel, coefficients: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
        """``sums -=`` coefficients times kernel values of columns `start` to `stop`.

        They are summed in float64.
        """


class TileProducts(FusedProducts):
    """Rows against a `TileOperand`."""

    def __init__(self, samples: Samples, rows: np.ndarray, right: TileOperand) -> None:
        self.right = right
        self.groups = np.empty((-(-len(rows) // TOGETHER), TOGETHER * right.n_features), dtype=np.float32)
        pack_rows(samples.X[rows], TOGETHER, self.groups)
        self.padded_norms = padded(samples.real_norms(rows), TOGETHER)
        self.norms = self.padded_norms[: len(rows)]

    def columns(self, start: int, stop: int) -> np.ndarray:
        panels = panels_between(self.right.panels, start, stop)
        out = _scratch(len(self.groups) * TOGETHER, len(panels) * PANEL_WIDTH, np.float32)
        multiply_tiles(self.groups, panels, self.right.n_features, out)
        return out[: len(self.norms), : stop - start]

    def write(
        self, kernel: Kernel, into: np.ndarray, places: np.ndarray, start: int, stop: int, *, mirrored: bool = False
    ) -> None:
        panels, norms = panels_between(self.right.panels, start, stop), self.right.padded_norms[start:]
        left = self.groups, self.padded_norms
        write_values(*kernel_numbers(kernel), *left, panels, norms, stop - start, into, places, start, mirrored)

    def subtract(self, kernel: Kernel, coefficients: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
        panels, norms = panels_between(self.right.panels, start, stop), self.right.padded_norms[start:]
        factors, total = padded(coefficients, TOGETHER)[None, :], padded(sums, PANEL_WIDTH)[None, :]
        left = self.groups, self.padded_norms
        subtract_values(*kernel_numbers(kernel), *left, panels, norms, factors, total, np.zeros(1, dtype=np.int64))
        sums[:] = total[0, : len(sums)]


def panels_between(panels: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The panels that hold columns `start`, a multiple of 16, to `stop`."""
    return panels[start // PANEL_WIDTH : -(-stop // PANEL_WIDTH)]


def padded(values: np.ndarray, width: int) -> np.ndarray:
    """`values` (n,) in an array whose length is a multiple of `width`, with zeros behind them."""
    whole = np.zeros(-(-len(values) // width) * width, dtype=values.dtype)
    whole[: len(values)] = values
    return whole


class PanelOperand:
    """Samples that are mostly zeros, without the features that none of them has."""

    unit = 1.0

    def __init__(self, samples: Samples, rows: np.ndarray, features: np.ndarray) -> None:
        self.n, self.padded_norms = len(rows), padded(samples.real_norms(rows), PANEL_WIDTH)
        self.norms = self.padded_norms[: self.n]
        self.panels = samples.pack_panels(rows, features)
        self.position = np.full(samples.X.shape[1], -1, dtype=np.int32)
        self.position[features] = np.arange(len(features), dtype=np.int32)

    def products(self, samples: Samples, rows: np.ndarray) -> NonzeroProducts:
        nonzeros = samples.pack_nonzeros(rows, self.position)
        return NonzeroProducts(multiply, samples.real_norms(rows), nonzeros, self)


class IntegerOperand:
    """Pixels that are mostly zeros, multiplied exactly.

    Two neighbours at a time are multiplied and summed, as 16-bit integers.
    """

    def __init__(self, samples: Samples, rows: np.ndarray, present: np.ndarray) -> None:
        assert samples.pixels is not None
        self.n, self.unit = len(rows), 1.0 / samples.scale**2
        self.padded_norms = padded(samples.norms[rows].astype(np.int32), PANEL_WIDTH)
        self.norms = self.padded_norms[: self.n]
        even = np.zeros(-(-len(present) // 2), dtype=np.bool_)
        even |= present[::2]
        even[: len(present) // 2] |= present[1::2]
        feature_pairs = np.flatnonzero(even)
        self.panels = samples.pack_integer_panels(rows, feature_pairs)
        self.position = np.full(len(even), -1, dtype=np.int32)
        self.position[feature_pairs] = np.arange(len(feature_pairs), dtype=np.int32)

    def products(self, samples: Samples, rows: np.ndarray) -> NonzeroProducts:
        nonzeros = samples.pack_integers(rows, self.position)
        norms = samples.norms[rows].astype(np.int32)
        return NonzeroProducts(multiply_integers, norms, nonzeros, self)


class NonzeroProducts(FusedProducts):
    """Rows given by their non-zeros against panels: of float32 or of whole numbers."""

    def __init__(
        self,
        function: Callable[..., None],
        norms: np.ndarray,
        nonzeros: tuple[np.ndarray, np.ndarray, np.ndarray],
        right: PanelOperand | IntegerOperand,
    ) -> None:
        self.function, self.norms, self.nonzeros, self.right = function, norms, nonzeros, right

    def columns(self, start: int, stop: int) -> np.ndarray:
        chosen = panels_between(self.right.panels, start, stop)
        out = _scratch(len(self.norms), len(chosen) * PANEL_WIDTH, self.norms.dtype)
        self.function(*self.nonzeros, chosen, out)
        return out[:, : stop - start]

    def serves_rows(self, kernel: Kernel, dtype: Any) -> bool:
        return self.serves(kernel, dtype) and is_narrow(self.right.panels)

    def write(
        self, kernel: Kernel, into: np.ndarray, places: np.ndarray, start: int, stop: int, *, mirrored: bool = False
    ) -> None:
        panels, norms = panels_between(self.right.panels, start, stop), self.right.padded_norms[start:]
        numbers, left = kernel_numbers(kernel, self.right.unit), (self.nonzeros, self.norms)
        write_values_of_nonzeros(*numbers, *left, panels, norms, stop - start, into, places, start, mirrored)

    def subtract(self, kernel: Kernel, coefficients: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
        panels, norms = panels_between(self.right.panels, start, stop), self.right.padded_norms[start:]
        numbers, total = kernel_numbers(kernel, self.right.unit), padded(sums, PANEL_WIDTH)[None, :]
        right, place = (panels, norms), np.zeros(1, dtype=np.int64)
        subtract_values_of_nonzeros(*numbers, self.nonzeros, self.norms, *right, coefficients[None, :], total, place)
        sums[:] = total[0, : len(sums)]


class BlasOperand:
    """Any samples, multiplied by BLAS."""

    unit = 1.0

    def __init__(self, samples: Samples, rows: np.ndarray) -> None:
        self.n, self.norms = len(rows), samples.real_norms(rows)
        self.X = samples.X[rows]

    def products(self, samples: Samples, rows: np.ndarray) -> Products:
        return _BlasProducts(samples.X[rows], samples.real_norms(rows), self.X)


class _BlasProducts:
    def __init__(self, left: np.ndarray, norms: np.ndarray, right: np.ndarray) -> None:
        self.block = LARGE_LEFT_BLOCK if len(left) >= LARGE_LEFT_BLOCK else LEFT_BLOCK
        missing = -len(left) % self.block
        self.left = np.concatenate([left, np.zeros((missing, left.shape[1]), dtype=left.dtype)])
        self.norms, self.right = norms, right

    def columns(self, start: int, stop: int) -> np.ndarray:
        out = _scratch(len(self.left), stop - start, self.right.dtype)
        columns = self.right[start:stop].T
        for r in range(0, len(out), self.block):
            np.matmul(self.left[r : r + self.block], columns, out=out[r : r + self.block])
        return out[: len(self.norms)]

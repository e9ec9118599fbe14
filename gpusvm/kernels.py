"""Kernel functions: their parameters, and their evaluation on NumPy or CuPy arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gpusvm import sparse
from gpusvm.errors import RangeError
from gpusvm.params import KERNEL_NAMES, require

Array = Any
"""A NumPy or CuPy array; where samples may be sparse, a `sparse.Sparse` too."""


MOST_SPREAD = 5.0
"""The largest of n sums of independent errors, over their standard deviation: 4 for n = 10,000, 5
for a million."""


def working_dtype(given: np.dtype) -> np.dtype:
    """The dtype that samples of dtype `given` are kept and computed in.

    Float32 where that holds them exactly, else float64.
    """
    return np.dtype(np.float32 if np.can_cast(given, np.float32) else np.float64)


def array_module(array: Array) -> ModuleType:
    """The module (``numpy`` or ``cupy``) whose functions work on `array`."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    return np


@dataclass(frozen=True)
class Kernel:
    """A kernel function k(x, y) with its parameters, named and defined as in scikit-learn.

    ========= ==========================================
    rbf       exp(-gamma ||x - y||^2)
    linear    <x, y>
    poly      (gamma <x, y> + coef0) ^ degree
    sigmoid   tanh(gamma <x, y> + coef0)
    ========= ==========================================

    ``precomputed`` stands for kernel values that the caller computed; it cannot be evaluated here.
    """

    name: str = "rbf"
    gamma: float = 1.0
    degree: int = 3
    coef0: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in KERNEL_NAMES:
            raise ValueError(f"kernel must be one of {', '.join(KERNEL_NAMES)}; got {self.name!r}")
        for name in ("gamma", "degree", "coef0"):
            require(name, getattr(self, name))

    @property
    def precomputed(self) -> bool:
        """Whether samples are kernel values already."""
        return self.name == "precomputed"

    @property
    def uses_norms(self) -> bool:
        """Whether evaluation needs squared norms, so that a caller can compute them once."""
        return self.name == "rbf"

    def largest_value(self, largest_norm: float) -> float:
        """A bound on abs(k(x, y)) for samples whose squared norms are at most `largest_norm`."""
        if self.name == "linear":
            return largest_norm
        if self.name == "poly":
            with np.errstate(over="ignore"):
                return float(np.float64(self.gamma * largest_norm + abs(self.coef0)) ** self.degree)
        return 1.0

    def require_range(self, largest_norm: float) -> None:
        """Raise RangeError where kernel values, or what they are made of, may exceed float64.

        Those of samples whose squared norms are at most `largest_norm`.
        """
        if not max(largest_norm, self.largest_value(largest_norm)) < _NEAR_OVERFLOW[np.float64]:
            raise RangeError(
                "The dual coefficients or intercepts are not finite: kernel values of these samples exceed the largest"
                " number of float64 (1e308); scale the features"
            )

    def require_range_of(self, X: Array) -> None:
        """`require_range` for the rows of `X` (n, d).

        Float32 samples are in range by their type, unless the degree is high.
        """
        if self.precomputed:
            return
        of_type = X.shape[1] * float(np.finfo(np.float32).max) ** 2
        if X.dtype != np.float32 or not self.largest_value(of_type) < _NEAR_OVERFLOW[np.float64]:
            self.require_range(largest_norm(X))

    def fits_float32(self, largest_norm: float) -> bool:
        """Whether float32 has exponents for kernel values, and for what they are made of.

        Those of samples whose largest squared norm is `largest_norm`.
        """
        if largest_norm == 0:
            return True
        largest = _NEAR_OVERFLOW[np.float32]
        return (
            1 / largest < largest_norm < largest and self.gamma < largest and self.largest_value(largest_norm) < largest
        )

    def decides_within(self, length: float, vector_length: float, weight: float, dtype: Any) -> bool:
        """Whether `dtype` has exponents for decision values, and for what they are made of.

        Parameters
        ----------
        length, vector_length : float
            Of the longest sample and of the longest support vector; of kernel values that are
            given, their size.
        weight : float
            The largest sum of the absolute coefficients of a decision function.
        """
        product = length if self.precomputed else length * vector_length
        if self.name == "rbf":
            largest = max(length * length, vector_length * vector_length, self.gamma, weight)
        elif self.name == "sigmoid":
            largest = max(product, self.gamma * product + abs(self.coef0), weight)
        else:
            largest = max(product, (product if self.precomputed else self.largest_value(product)) * max(1.0, weight))
        return largest < _NEAR_OVERFLOW[np.dtype(dtype).type]

    def value_error(self, largest_norm: float, dtype: Any, summed: int = 1) -> float:
        """The standard deviation, at most, of the rounding errors of kernel values in `dtype`.

        Each kernel value is within `MOST_SPREAD` times as much of the true one, as long as
        roundings are independent.

        Parameters
        ----------
        largest_norm : float
            Of the squared norms of the samples.
        dtype : float32 or float64
        summed : int
            Products that are added up one after the other for an inner product; 1 where it is
            exact but for the last rounding.

        Notes
        -----
        A partial sum of an inner product is at most `largest_norm`, by Cauchy and Schwarz. Each
        addition puts it off by anything up to the unit roundoff u of itself, which is u / sqrt(3)
        on average; and n of them by sqrt(n) as much, if their roundings are independent, where
        n u bounds the worst case (Ipsen and Zhou 2020, arXiv 1906.10465). A squared distance is
        off by twice that; the kernel's slope says what comes of it. Sums in blocks (BLAS) are off
        by less, and so are those of samples that are mostly zeros.
        """
        u = float(np.finfo(dtype).eps) / 2
        argument, product = self.gamma * largest_norm, max(1.0, (summed / 3) ** 0.5)
        if self.name == "rbf":
            return u * (1.0 + 2.0 * argument * product)
        if self.name == "sigmoid":
            return u * (1.0 + argument * product + abs(self.coef0))
        return u * product * self.largest_value(largest_norm) * (max(1, self.degree) if self.name == "poly" else 1)

    def float32_suffices(self, largest_norm: float, relative_error: float) -> bool:
        """Whether float32 products and norms suffice for kernel values.

        They do where RBF values are within about `relative_error` of the true ones. For another
        kernel float32 products are as good as keeping its values in float32 is.
        """
        if not self.fits_float32(largest_norm):
            return False
        return self.name != "rbf" or 2.0**-23 * self.gamma * largest_norm <= relative_error

    def product_dtype(self, largest_norm: float) -> np.dtype:
        """The dtype that inner products are taken in while training.

        Float32 where that is within `PRODUCT_ERROR`, else float64.
        """
        return np.dtype(np.float32 if self.float32_suffices(largest_norm, PRODUCT_ERROR) else np.float64)

    def __call__(self, X: Array, Y: Array, *, Y_norms: Array | None = None) -> Array:
        """Kernel values between the rows of `X` and the rows of `Y`, in their common dtype.

        Parameters
        ----------
        X : (n, n_features) array, float32 or float64
        Y : (m, n_features) array of the same dtype and module
            Either of X and Y may be CSR; the result is dense.
        Y_norms : (m,) array, optional
            ``squared_norms(Y)``, where the caller keeps it.

        Returns
        -------
        (n, m) array
        """
        inner = sparse.inner_products(X, Y) if sparse.is_sparse(X) or sparse.is_sparse(Y) else X @ Y.T
        return self.from_inner_products(
            inner,
            squared_norms(X) if self.uses_norms else None,
            (squared_norms(Y) if Y_norms is None else Y_norms) if self.uses_norms else None,
        )

    def from_inner_products(self, inner: Array, X_norms: Array | None, Y_norms: Array | None) -> Array:
        """Turn inner products (n, m) into kernel values, in place where the module allows it.

        The distance of the RBF kernel is ||x||^2 + ||y||^2 - 2 <x, y>; rounding can make it
        slightly negative, and it is then taken as zero, so that no value exceeds one.
        """
        xp = array_module(inner)
        if self.name == "rbf":
            assert X_norms is not None and Y_norms is not None
            inner *= 2.0
            inner -= X_norms[:, None]
            inner -= Y_norms[None, :]
            inner *= self.gamma
            xp.minimum(inner, 0.0, out=inner)
            return xp.exp(inner, out=inner)
        if self.name == "linear":
            return inner
        if self.name in ("poly", "sigmoid"):
            inner *= self.gamma
            inner += self.coef0
            if self.name == "sigmoid":
                return xp.tanh(inner, out=inner)
            return xp.power(inner, self.degree, out=inner)
        raise ValueError("precomputed kernel values cannot be evaluated; pass them as X")


def squared_norms(X: Array) -> Array:
    """The squared Euclidean norm of each row of `X` (n, n_features), as (n,) in X's dtype."""
    if sparse.is_sparse(X):
        return sparse.squared_norms(X)
    xp = array_module(X)
    if xp is np:
        return np.einsum("ij,ij->i", X, X)
    # CuPy makes n products of 1 x 1 of this einsum, in a batch: a reduction is what it should be.
    norms = xp.empty(len(X), dtype=X.dtype)
    step = max(1, SQUARES_BYTES // max(1, X.dtype.itemsize * X.shape[1]))
    for start in range(0, len(X), step):
        rows = X[start : start + step]
        (rows * rows).sum(axis=1, out=norms[start : start + step])
    return norms


SQUARES_BYTES = 256 * 2**20
"""Memory on a device for the squares that `squared_norms` sums, some rows at a time."""


PRODUCT_ERROR = 2e-6
"""Relative error of an RBF value above which products are taken in float64 from the start. Whether
float32 is fine enough below it is judged by the coefficients reached, in `solver.precision`."""

_NEAR_OVERFLOW = {np.float32: 1e30, np.float64: 1e300}
"""Magnitudes from which on sums may leave the range of a type."""

_SQUARES_OVERFLOW = 1e15
"""Entries above which sums of their squares may exceed float32."""


def largest_entry(X: Array) -> float:
    """The largest absolute value in `X`; 0 where it is empty."""
    if sparse.is_sparse(X):
        X = X.data
    if not X.size:
        return 0.0
    return max(float(X.max()), -float(X.min()))


def largest_norm(X: Array) -> float:
    """The largest squared norm of the rows of `X` (n, d).

    Where squares leave the range of float32 it is an estimate.
    """
    if not X.size:
        return 0.0
    entry = largest_entry(X)
    return float(squared_norms(X).max()) if 1e-15 < entry < _SQUARES_OVERFLOW else entry * entry


def row_lengths(X: Array) -> tuple[Array, Array]:
    """The largest absolute entry of each row, and the row's length in units of that.

    `X` is (n, n_features) float64, both results are (n,) float64. The length is from 1 to the
    root of n_features, or 0 for a row of zeros. Nothing overflows.
    """
    xp = array_module(X)
    entries = abs(X).max(axis=1)
    entries = entries.toarray().ravel() if sparse.is_sparse(entries) else entries
    units = sparse.rows_times(X, 1.0 / xp.where(entries > 0, entries, 1.0))
    return entries, xp.sqrt(squared_norms(units))


FAR_FROM_ORIGIN = 100.0
"""Squared norm of the mean, over the mean squared distance from it, above which `rbf_offset` moves
samples."""


def rbf_offset(Y: Array) -> Array | None:
    """What to subtract from both sides of an RBF kernel: (n_features,) float64, or None.

    ||x||^2 + ||y||^2 - 2 <x, y> loses the digits that the norms share: of samples around 1000 with
    a spread of 1, float32 keeps none. Distances do not change when both sides move by the mean of
    `Y` (m, n_features). Subtract it in float64, or small features beside large ones lose the
    digits that they have. Nothing, None, is to be subtracted from samples that are close enough to
    the origin, as pixels are; to find that out costs one matrix-vector product. Sparse samples are
    left alone too: moved, they would no longer be sparse. Where their norms cost float32 its
    digits, their products are taken in float64.
    """
    if sparse.is_sparse(Y) or not len(Y):
        return None
    xp = array_module(Y)
    if largest_entry(Y) > _SQUARES_OVERFLOW:
        Y = Y.astype(np.float64)
    # Of what float64 cannot square, nothing is subtracted.
    with np.errstate(over="ignore", invalid="ignore"):
        rough_mean = xp.ones(len(Y), dtype=Y.dtype) @ Y / len(Y)
        mean_norm = float(squared_norms(rough_mean[None, :])[0])
        spread = float(squared_norms(Y).mean()) - mean_norm
    return Y.mean(axis=0, dtype=np.float64) if mean_norm > FAR_FROM_ORIGIN * spread else None


def near_the_origin(X: Array, kernel: Kernel) -> Array:
    """X (n, n_features) as it is, or moved to the origin for an RBF kernel.

    It is moved, in float64, where the distances between its rows would else be lost.
    """
    offset = rbf_offset(X) if kernel.name == "rbf" else None
    return X if offset is None else X - offset


def resolve_gamma(gamma: float | str, X: Array) -> float:
    """The number that `gamma` stands for on the training data `X` (n, n_features).

    ``"scale"`` is 1 / (n_features Var(X)), with Var(X) over all entries, and 1 where that variance
    is zero; ``"auto"`` is 1 / n_features. Both are scikit-learn's definitions.
    """
    if gamma == "auto":
        return 1.0 / X.shape[1]
    if gamma == "scale":
        variance = sparse.variance(X) if sparse.is_sparse(X) else float(X.var(dtype=np.float64))
        return 1.0 / (X.shape[1] * variance) if variance != 0 else 1.0
    return float(gamma)

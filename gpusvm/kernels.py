"""Kernel functions: their parameters, and their evaluation on NumPy or CuPy arrays."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

KERNEL_NAMES = ("rbf", "linear", "poly", "sigmoid", "precomputed")

Array = Any
"""A NumPy or CuPy array."""


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
        for name in ("gamma", "coef0"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"kernel {name} must be finite; got {getattr(self, name)!r}")
        if self.gamma < 0 or self.degree < 0:
            raise ValueError(f"gamma and degree must not be negative; got {self.gamma}, {self.degree}")

    @property
    def precomputed(self) -> bool:
        return self.name == "precomputed"

    @property
    def uses_norms(self) -> bool:
        """Whether evaluation needs squared norms, so that a caller can compute them once."""
        return self.name == "rbf"

    def largest_value(self, largest_norm: float) -> float:
        """A bound on the absolute kernel values of samples whose squared norms are at most `largest_norm`."""
        if self.name == "linear":
            return largest_norm
        if self.name == "poly":
            with np.errstate(over="ignore"):
                return float(np.float64(self.gamma * largest_norm + abs(self.coef0)) ** self.degree)
        return 1.0

    def require_float32_range(self, largest_norm: float) -> None:
        """Raise OverflowError where kernel values of such samples may exceed float32."""
        largest = self.largest_value(largest_norm)
        if not largest < np.finfo(np.float32).max:
            raise OverflowError(
                f"kernel values of these samples reach {largest:.0e}, more than float32 holds: scale the features"
            )

    def float32_suffices(self, largest_norm: float, relative_error: float) -> bool:
        """Whether float32 products and norms give kernel values within about `relative_error` of the true ones.

        Squared norms up to `largest_norm` are rounded by 2^-24 of themselves; gamma times what that makes of a
        distance is the relative error of an RBF value. Beyond 1e30 or below 1e-30 float32 runs out of exponents.
        """
        if largest_norm == 0:
            return True
        if not (1e-30 < largest_norm < 1e30 and self.gamma < 1e30 and self.largest_value(largest_norm) < 1e30):
            return False
        return self.name != "rbf" or 2.0**-23 * self.gamma * largest_norm <= relative_error

    def __call__(self, X: Array, Y: Array, *, Y_norms: Array | None = None) -> Array:
        """Kernel values between the rows of `X` and the rows of `Y`, in their common dtype.

        Parameters
        ----------
        X : (n, n_features) array, float32 or float64
        Y : (m, n_features) array of the same dtype and module
        Y_norms : (m,) array, optional
            ``squared_norms(Y)``, where the caller keeps it.

        Returns
        -------
        (n, m) array
        """
        inner = X @ Y.T
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
    return array_module(X).einsum("ij,ij->i", X, X)


_SQUARES_OVERFLOW = 1e15
"""Entries above which sums of their squares may exceed float32."""


def largest_entry(X: Array) -> float:
    """The largest absolute value in `X` (n, d), which is not empty."""
    return max(float(X.max()), -float(X.min()))


def largest_norm(X: Array) -> float:
    """The largest squared norm of the rows of `X` (n, d); an estimate where squares leave the range of float32."""
    if not X.size:
        return 0.0
    entry = largest_entry(X)
    return float(squared_norms(X).max()) if 1e-15 < entry < _SQUARES_OVERFLOW else entry**2


FAR_FROM_ORIGIN = 100.0
"""Squared norm of the mean, over the mean squared distance from it, above which `rbf_offset` moves samples."""


def rbf_offset(Y: Array) -> Array | None:
    """What to subtract from both sides of an RBF kernel, (n_features,) in Y's dtype, or None for nothing.

    ||x||^2 + ||y||^2 - 2 <x, y> loses the digits that the norms share: of samples around 1000 with a spread
    of 1, float32 keeps none. Distances do not change when both sides move by the mean of `Y` (m, n_features).
    Pixels are close enough to the origin to be left alone, for the price of one matrix-vector product.
    """
    if not len(Y):
        return None
    xp, dtype = array_module(Y), Y.dtype
    if largest_entry(Y) > _SQUARES_OVERFLOW:
        Y = Y.astype(np.float64)
    rough_mean = xp.ones(len(Y), dtype=Y.dtype) @ Y / len(Y)
    mean_norm = float(squared_norms(rough_mean[None, :])[0])
    spread = float(squared_norms(Y).mean()) - mean_norm
    return Y.mean(axis=0, dtype=np.float64).astype(dtype) if mean_norm > FAR_FROM_ORIGIN * spread else None


def resolve_gamma(gamma: float | str, X: Array) -> float:
    """The number that `gamma` stands for on the training data `X` (n, n_features).

    ``"scale"`` is 1 / (n_features Var(X)), with Var(X) over all entries, and 1 where that variance is
    zero; ``"auto"`` is 1 / n_features. Both are scikit-learn's definitions.
    """
    if gamma == "auto":
        return 1.0 / X.shape[1]
    if gamma == "scale":
        variance = float(X.var(dtype=np.float64))
        return 1.0 / (X.shape[1] * variance) if variance != 0 else 1.0
    return float(gamma)

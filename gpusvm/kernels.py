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


def require_float32_range(kernel: Kernel, X: np.ndarray) -> None:
    """Refuse samples `X` (n, n_features), or a gamma, whose kernel values float32 cannot hold.

    Raises
    ------
    ValueError
        Squared distances, or gamma, would be infinite, and kernel values no numbers.
    """
    if kernel.precomputed:
        return
    largest = float(np.finfo(np.float32).max)
    size = max(abs(float(X.max())), abs(float(X.min())))
    if 4.0 * X.shape[1] * size**2 > largest:
        raise ValueError(f"X has values up to {size:g}, whose squares float32 cannot hold; scale the features")
    if kernel.gamma > largest:
        raise ValueError(
            f"gamma={kernel.gamma:g} is more than float32 can hold, with X of values up to {size:g}; scale the features"
        )


def squared_norms(X: Array) -> Array:
    """The squared Euclidean norm of each row of `X` (n, n_features), as (n,) in X's dtype."""
    return array_module(X).einsum("ij,ij->i", X, X)


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
    xp = array_module(Y)
    rough_mean = xp.ones(len(Y), dtype=Y.dtype) @ Y / len(Y)
    mean_norm = float(squared_norms(rough_mean[None, :])[0])
    spread = float(squared_norms(Y).mean()) - mean_norm
    return Y.mean(axis=0, dtype=np.float64).astype(Y.dtype) if mean_norm > FAR_FROM_ORIGIN * spread else None


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

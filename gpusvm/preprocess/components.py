"""What follows the scattering of images: logarithm, standardisation, principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from gpusvm.preprocess.pixels import PixelScaler
from gpusvm.preprocess.scattering import Scattering

N_COMPONENTS = 400
EPSILON = 0.1
FITTED_ON = 20_000
"""Images that means, deviations and components are learned from: several for each of MNIST's 3,472
features."""

_LARGEST_J = 3
_PLACES = 4
"""Places along the shorter side of an image at which scattering is kept, where it is not averaged
as far as J."""


class Logarithm(TransformerMixin, BaseEstimator):
    r"""Logarithms log(1 + x / offset) of features that are not negative, large and small alike.

    The offset of a feature is a fraction of its mean, so that it does not matter what the feature
    is measured in.

    Parameters
    ----------
    epsilon : float, default=0.1
        That fraction.

    Attributes
    ----------
    offset_ : (n_features,) float64 array
        1 where a feature is always zero.
    n_features_in_ : int

    Examples
    --------
    >>> from gpusvm.preprocess import Logarithm
    >>> Logarithm(epsilon=0.5).fit_transform([[0.0, 0.0], [2.0, 6.0]]).round(4)
    array([[0.    , 0.    ],
           [1.6094, 1.6094]], dtype=float32)
    """

    def __init__(self, epsilon: float = EPSILON) -> None:
        self.epsilon = epsilon

    def fit(self, X: Any, y: Any = None) -> Logarithm:
        """Find the means of X (n, n_features).

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : ignored

        Returns
        -------
        Logarithm
            Itself.

        Raises
        ------
        ValueError
            Negative numbers, NaN or infinity in X, or an `epsilon` that is not positive.
        """
        X = _not_negative(validate_data(self, X, dtype=np.float32))
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon!r:.40}")
        offset = self.epsilon * X.mean(axis=0, dtype=np.float64)
        self.offset_ = np.where(offset >= np.finfo(np.float32).tiny, offset, 1.0)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Take logarithms of the features.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n, n_features) float32 array

        Raises
        ------
        ValueError
            Negative numbers, NaN or infinity in X.
        """
        check_is_fitted(self)
        X = _not_negative(validate_data(self, X, dtype=np.float32, reset=False))
        ratio = X / self.offset_.astype(np.float32)
        return np.log1p(ratio, out=ratio)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def fit_scattering(
    images: np.ndarray,
    maximum: float = 255.0,
    *,
    n_components: int = N_COMPONENTS,
    epsilon: float = EPSILON,
    n_jobs: int | None = None,
) -> list[Any]:
    """The steps from images to principal components of their scattering, fitted.

    Pixels to [0, 1], scattering, a logarithm, standardisation, and components.

    Parameters
    ----------
    images : ndarray of shape (n, height, width), uint8
        The training images, and no others; up to `FITTED_ON` of them, evenly spread, are used.
    maximum : float
        The pixel that becomes 1.
    n_components : int
        As many, or as there are images or features.
    epsilon : float
        See `Logarithm`.
    n_jobs : int, optional
        Threads of the scattering.

    Returns
    -------
    list of transformers
        A `PixelScaler`, a `Scattering`, a `Logarithm`, a ``StandardScaler`` and a ``PCA``.

    Raises
    ------
    ValueError
        Images that are too large for `Scattering`.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    height, width = images.shape[1:]
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), FITTED_ON)).astype(np.int64))
    X = images[rows].reshape(len(rows), -1)
    steps: list[Any] = [PixelScaler(maximum), Scattering((height, width), J=_scales(height, width), n_jobs=n_jobs)]
    for step in (*steps, Logarithm(epsilon), StandardScaler()):
        X = step.fit_transform(X)
        if step not in steps:
            steps.append(step)
    n_components = min(n_components, *X.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh" if len(X) >= X.shape[1] else "full").fit(X)
    pca.components_ = np.ascontiguousarray(pca.components_)
    return [*steps, pca]


def _scales(height: int, width: int) -> int:
    """J for images of a size: 3 for MNIST's, fewer where those would leave too few places.

    Too few are less than 4 on the shorter side.
    """
    scales = int(np.floor(np.log2(max(1, min(height, width) / (_PLACES - 1)))))
    return int(np.clip(scales, 1, _LARGEST_J))


def _not_negative(X: np.ndarray) -> np.ndarray:
    if X.min(initial=0) < 0:
        raise ValueError("Negative values in data: a logarithm takes none")
    return X

"""Preprocessing of images as scikit-learn transformers.

Every step takes pixels (n, n_pixels) and gives float32 of the same shape. `build_steps` puts the
steps of a training together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

from gpusvm.errors import DataError

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
# Rows a pass of the deskewer: its index arrays take 10 times the images' own memory.
_DESKEW_ROWS = 2048


class PixelStep(TransformerMixin, BaseEstimator, ABC):
    """What the steps share: nothing is learned but the number of pixels, and float32 comes out."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Check the data and the parameters.

        Parameters
        ----------
        X : array-like of shape (n, n_pixels)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            NaN or infinity in X, not two dimensions, or parameters out of range.
        """
        X = validate_data(self, X, dtype=np.float32)
        self._check_parameters(X.shape[1])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Transform pixels; X is left as it is.

        Parameters
        ----------
        X : array-like of shape (n, n_pixels)

        Returns
        -------
        float32 array
            (n, n_pixels), but for `Scattering`.

        Raises
        ------
        ValueError
            NaN or infinity in X, another number of pixels than in `fit`, or parameters out of
            range.
        """
        X = validate_data(self, X, dtype=np.float32, reset=False)
        self._check_parameters(X.shape[1])
        return self._transform(X)

    @abstractmethod
    def _check_parameters(self, n_pixels: int) -> None:
        """Raise ValueError for parameters out of range, or not for rows of `n_pixels` pixels."""

    @abstractmethod
    def _transform(self, X: np.ndarray) -> np.ndarray:
        """`transform` of X (n, n_pixels) float32 that is checked."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class PixelScaler(PixelStep):
    """Divide pixels by the largest value they can have: bytes become [0, 1].

    Parameters
    ----------
    maximum : float, default=255.0
        What becomes 1.

    Examples
    --------
    >>> from gpusvm.preprocess import PixelScaler
    >>> PixelScaler().fit_transform([[0, 51, 255]])
    array([[0. , 0.2, 1. ]], dtype=float32)
    """

    def __init__(self, maximum: float = 255.0) -> None:
        self.maximum = maximum

    def _check_parameters(self, n_pixels: int) -> None:
        if not is_positive(self.maximum):
            raise ValueError(f"maximum must be a positive number that float32 holds, got {self.maximum!r}")

    def _transform(self, X: np.ndarray) -> np.ndarray:
        return X / np.float32(self.maximum)


class PixelBinarizer(PixelStep):
    """Make pixels 1 where they exceed a threshold, else 0.

    Parameters
    ----------
    threshold : float, default=0.0
        In the units of its input: of [0, 1] after a `PixelScaler`, of bytes without one.

    Examples
    --------
    >>> from gpusvm.preprocess import PixelBinarizer
    >>> PixelBinarizer(threshold=100).fit_transform([[0, 100, 255]])
    array([[0., 0., 1.]], dtype=float32)
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def _check_parameters(self, n_pixels: int) -> None:
        if not is_finite(self.threshold):
            raise ValueError(f"threshold must be a finite number, got {self.threshold!r}")

    def _transform(self, X: np.ndarray) -> np.ndarray:
        return np.greater(X, np.float32(self.threshold)).astype(np.float32)


class Deskewer(PixelStep):
    r"""Shear each image so that its strokes stand upright.

    With the intensities :math:`I(x, y)` as masses, :math:`(\bar x, \bar y)` their centre, and the
    second-order central moments

    .. math:: \mu_{pq} = \sum_{x, y} (x - \bar x)^p (y - \bar y)^q I(x, y)

    the slant is :math:`s = \mu_{11} / \mu_{02}`, and the upright image

    .. math:: I'(x, y) = I(x + s (y - \bar y), y)

    has :math:`\mu'_{11} = \mu_{11} - s \mu_{02} = 0`. Only rows move, each by its own shift, so
    the bilinear interpolation is linear within the row and keeps its mass and centre, as long as
    nothing is pushed over the edge. Images in which no slant is defined (blank, or ink in one row
    only) are passed through untouched.

    Parameters
    ----------
    image_shape : tuple of two int, optional
        Height and width; by default images are square.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proc. IEEE 86 (1998): deskewing by second moments of inertia, section III.A.

    Examples
    --------
    >>> import numpy as np
    >>> from gpusvm.preprocess import Deskewer
    >>> slanted = np.array([[0, 0, 9], [0, 9, 0], [9, 0, 0]])
    >>> Deskewer().fit_transform(slanted.reshape(1, 9)).reshape(3, 3)
    array([[0., 9., 0.],
           [0., 9., 0.],
           [0., 9., 0.]], dtype=float32)
    """

    def __init__(self, image_shape: tuple[int, int] | None = None) -> None:
        self.image_shape = image_shape

    def _check_parameters(self, n_pixels: int) -> None:
        self._shape_of(n_pixels)

    def _shape_of(self, n_pixels: int) -> tuple[int, int]:
        if self.image_shape is None:
            side = isqrt(n_pixels)
            if side * side != n_pixels:
                raise ValueError(f"{n_pixels} pixels are no square image; give image_shape=(height, width)")
            return side, side
        if not is_image_shape(self.image_shape):
            raise ValueError(f"image_shape must be two positive integers, got {self.image_shape!r:.80}")
        height, width = self.image_shape
        if height * width != n_pixels:
            raise ValueError(f"image_shape {height}x{width} does not fit rows of {n_pixels} pixels")
        return height, width

    def _transform(self, X: np.ndarray) -> np.ndarray:
        images = X.reshape(-1, *self._shape_of(X.shape[1]))
        upright = np.empty(images.shape, dtype=np.float32)
        for start in range(0, len(images), _DESKEW_ROWS):
            rows = slice(start, start + _DESKEW_ROWS)
            upright[rows] = _shear(images[rows], *_slant(images[rows]))
        return upright.reshape(X.shape)


def build_steps(
    image_shape: tuple[int, int], binarize: bool = False, deskew: bool = False, maximum: float = 255.0
) -> list[Any]:
    """The steps of a training, in order: deskew if asked, scale to [0, 1], binarise if asked.

    Parameters
    ----------
    image_shape : tuple of two int
        Height and width of the images, of bytes.
    binarize : bool
        1 for every pixel above 0.
    deskew : bool
        Shear each image upright, on the bytes and before anything else.
    maximum : float
        The pixel that becomes 1.

    Returns
    -------
    list of transformers
    """
    steps: list[Any] = [Deskewer((int(image_shape[0]), int(image_shape[1])))] if deskew else []
    steps.append(PixelScaler(maximum))
    if binarize:
        steps.append(PixelBinarizer())
    return steps


def check_image_shape(images: np.ndarray, expected: Sequence[int]) -> None:
    """Make sure that images have the expected height and width.

    Parameters
    ----------
    images : (n, height, width) array
    expected : sequence of two int

    Raises
    ------
    DataError
        They have others.
    """
    if images.shape[1:] != tuple(expected):
        got = "x".join(map(str, images.shape[1:]))
        wanted = "x".join(map(str, expected))
        raise DataError(
            f"got {got} images, the model expects {wanted}; bring them to that size with --resize (in Python"
            " resize=), or train a model on images of theirs"
        )


def is_finite(value: Any) -> bool:
    """Whether a parameter is a number that float32 holds."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and bool(abs(value) < _LARGEST)  # which NaN is not


def is_positive(value: Any) -> bool:
    """Also as float32, in which pixels are divided by it."""
    return is_finite(value) and bool(value >= _SMALLEST)


def is_image_shape(value: Any) -> bool:
    """Whether a parameter is two positive whole numbers."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in value)
    )


def _slant(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu11 / mu02 and the centre's row of each image (n, height, width).

    Both are (n,) float64, and 0 where they are not defined.
    """
    row_mass = images.sum(axis=2, dtype=np.float64)
    row_moment = images @ np.arange(images.shape[2], dtype=np.float64)
    mass = row_mass.sum(axis=1)
    y = np.arange(images.shape[1], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        center_y = (row_mass @ y) / mass
        center_x = row_moment.sum(axis=1) / mass
        from_center = y - center_y[:, None]
        mu11 = (from_center * (row_moment - center_x[:, None] * row_mass)).sum(axis=1)
        mu02 = (from_center**2 * row_mass).sum(axis=1)
        slant = mu11 / mu02
    # Ink in one row leaves rounding error over rounding error. Half a row of spread is a real one.
    defined = np.isfinite(slant) & (mu02 > 1e-9 * np.abs(mass))
    return np.where(defined, slant, 0.0), np.where(defined, center_y, 0.0)


def _shear(images: np.ndarray, slant: np.ndarray, center_y: np.ndarray) -> np.ndarray:
    """I(x + slant (y - center_y), y), linear in between and 0 beyond the edge.

    The result is (n, height, width) float32.
    """
    n, height, width = images.shape
    shift = slant[:, None] * (np.arange(height) - center_y[:, None])
    # Beyond the width everything is 0 already; keeps the padding small for wild slants.
    shift = np.clip(shift, -width, width)
    whole = np.floor(shift)
    fraction = (shift - whole).astype(np.float32)[:, :, None]
    padding = width + 1
    padded = np.zeros((n, height, width + 2 * padding), dtype=np.float32)
    padded[:, :, padding : padding + width] = images
    left = whole.astype(np.intp)[:, :, None] + np.arange(padding, padding + width)
    at_left = np.take_along_axis(padded, left, axis=2)
    at_right = np.take_along_axis(padded, left + 1, axis=2)
    # In this form no value exceeds the larger of the two: exact for bytes, so [0, 1] stays [0, 1].
    return at_left + fraction * (at_right - at_left)

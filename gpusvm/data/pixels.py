"""What every reader hands on: images as (n, height, width) arrays of bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from gpusvm.errors import DataError, DataWarning, warn
from gpusvm.memory import available_mb

if TYPE_CHECKING:
    from PIL import Image

# Below this, asking how much is free costs more than it can save.
_SMALL_BYTES = 2**26
# Of the columns that are pixels, so many have names that differ in their numbers alone: pixel0,
# 1x1, p_0, 0.
_SHARE_OF_PIXEL_NAMES = 0.5
# Whole numbers from 0 to 255 that would make smaller images than this are taken for features.
_SMALL_SIDE = 8
_LEAST_PIXELS = 4
# What is left of 255 times a pixel divided by 255, in float16 at worst.
_LARGEST_ROUNDING = 0.1

ImageShape = tuple[int, int]
"""Height and width."""


def image_shape(n_pixels: int) -> tuple[int, int]:
    """Height and width of an image stored as `n_pixels` numbers: a square, or else one row."""
    side = isqrt(n_pixels)
    return (side, side) if side * side == n_pixels else (1, n_pixels)


def resized_picture(picture: Image.Image, shape: ImageShape | None) -> Image.Image:
    """A picture brought to a size by Pillow's bicubic filter, which smooths what it shrinks.

    It stays as it is where the size is None.
    """
    if shape is None or (picture.height, picture.width) == shape:
        return picture
    from PIL import Image

    return picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)


def resized(images: np.ndarray, shape: ImageShape | None) -> np.ndarray:
    """Images (n, height, width) uint8 brought to a size as pictures are; as they are for None."""
    if shape is None or images.shape[1:] == shape:
        return images
    from PIL import Image

    require_memory(len(images) * shape[0] * shape[1], "the images in their new size")
    result = np.empty((len(images), *shape), dtype=np.uint8)
    for row, image in enumerate(images):
        result[row] = np.asarray(resized_picture(Image.fromarray(np.ascontiguousarray(image)), shape))
    return result


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number


def are_pixels(samples: np.ndarray) -> bool:
    """Whether rows (n, n_columns) could be square images: whole numbers from 0 to 255."""
    n_columns = samples.shape[1]
    if not _is_square(n_columns) or samples.size == 0:
        return False
    if samples.dtype.kind not in "uifb" or samples.dtype == np.uint8:
        return samples.dtype == np.uint8
    in_range = samples.min() >= 0 and samples.max() <= 255  # False for NaN
    return bool(in_range and (samples.dtype.kind != "f" or (samples == np.floor(samples)).all()))


def are_fractions_of_pixels(samples: np.ndarray) -> bool:
    """Whether rows of numbers (n, n_columns) are pixels from 0 to 255, divided by 255.

    False for tiny images.
    """
    n_columns = samples.shape[1]
    if samples.dtype.kind != "f" or n_columns < _SMALL_SIDE**2 or not _is_square(n_columns) or samples.size == 0:
        return False
    if not (samples.min() >= 0 and samples.max() <= 1):  # so written, for NaN is neither
        return False
    bytes_again = samples * np.float64(255)
    return bool((np.abs(bytes_again - np.rint(bytes_again)) < _LARGEST_ROUNDING).all())


def unlike_others(names: Sequence[str]) -> list[int]:
    """Columns that are no pixels by their names.

    Most others have names that differ in their numbers alone: pixel0, 1x1, p_0 and 0 are such
    names. Where most columns have other names than these, none is said to be odd.
    """
    shapes = [re.sub(r"[0-9]+", "0", name.lower()) for name in names]
    usual, count = Counter(shapes).most_common(1)[0] if shapes else ("", 0)
    if count <= _SHARE_OF_PIXEL_NAMES * len(shapes):
        return []
    return [column for column, shape in enumerate(shapes) if shape != usual]


def names_pixels(names: Sequence[str]) -> bool:
    """Whether most columns have names that say pixel."""
    return sum(("pix" in name.lower() or "px" in name.lower()) for name in names) > _SHARE_OF_PIXEL_NAMES * len(names)


def look_like_images(names: Sequence[str], samples: np.ndarray) -> bool:
    """Whether a table is one of square images.

    It is where it is whole numbers from 0 to 255 (`are_pixels`), where the names of its columns,
    if they have some, differ in their numbers alone, and where the images are not tiny or the
    names say pixel: a few features of such numbers make a square by chance, and a model of images
    would not scale them. A few columns may have other names, which whoever reads the images has to
    refuse.
    """
    odd = unlike_others(names)
    pixels = np.delete(np.arange(samples.shape[1]), odd)
    if len(pixels) < _SMALL_SIDE**2 and not (names_pixels(names) and len(pixels) >= _LEAST_PIXELS):
        return False
    is_usual = len(names) < 2 or bool(odd) or len({re.sub(r"[0-9]+", "0", name.lower()) for name in names}) == 1
    return is_usual and are_pixels(samples[:, pixels])


def require_memory(n_bytes: int, where: str) -> None:
    """Raise DataError unless this much memory is free: a few bytes of header can promise any size.

    Parameters
    ----------
    n_bytes : int
        What is about to be taken.
    where : str
        File, and part of it, for the error message.
    """
    if n_bytes > _SMALL_BYTES and n_bytes / 2**20 > (free_mb := available_mb()):
        raise DataError(
            f"{where}: takes {n_bytes / 2**20:,.0f} MB of memory, and {free_mb:,.0f} MB are free;"
            " use a smaller file or a larger machine"
        )


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """Check an array of pixels in whatever number type it was stored, and make it images.

    Truth values, and fractions from 0 to 1, become 0 to 255; a DataWarning says so.

    Parameters
    ----------
    array : ndarray of shape (n, height, width), (n, height, width, 1) or (n, n_pixels)
        Whole numbers from 0 to 255 in any real dtype, or fractions from 0 to 1.
    where : str
        File and key, for the error message.

    Returns
    -------
    ndarray of shape (n, height, width), uint8

    Raises
    ------
    DataError
        Wrong shape or dtype, no images, NaN, values out of range or not whole.
    """
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array.reshape(len(array), *image_shape(array.shape[1]))
    if array.ndim != 3:
        raise DataError(f"{where}: has shape {array.shape}; images must be grey: (n, height, width) or (n, n_pixels)")
    if array.size == 0:
        raise DataError(f"{where}: holds no images (shape {array.shape}); give a file with at least one")
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where}: has dtype {array.dtype}; pixels must be numbers from 0 to 255")
    if array.dtype == np.bool_:
        warn(f"{where}: truth values were taken for black and white: True is 255", DataWarning)
        return np.multiply(array, np.uint8(255), dtype=np.uint8)
    if array.dtype != np.uint8:
        _check_range(array, where)
        if array.dtype.kind == "f" and (array != np.floor(array)).any():
            return _from_fractions(array, where)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _check_range(array: np.ndarray, where: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: holds NaN or infinite pixels; replace them with numbers from 0 to 255")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise DataError(f"{where}: pixels range from {low} to {high}; they must lie in 0 to 255; bring them there")


def _from_fractions(array: np.ndarray, where: str) -> np.ndarray:
    """Pixels from 0 to 1 as bytes; others that are not whole are refused."""
    if array.max() > 1:
        raise DataError(f"{where}: pixels are not whole numbers; store the raw 0 to 255 values, unscaled")
    warn(f"{where}: pixels from 0 to 1 were multiplied by 255", DataWarning)
    return np.rint(array * np.float64(255)).astype(np.uint8)

"""Brings a drawing or a scan into the form of MNIST's digits: cut out, scaled, centred by mass.

MNIST's digits were made so by Y. LeCun, C. Cortes and C. Burges: scaled to fit a box of 20 x 20
pixels with their proportions kept, grey at the edges where the scaling smooths them, and moved
within 28 x 28 pixels until their centre of mass lies in the middle. `io/web_page/digit_form.js` is
this file for the page that draws, step by step.
"""

from __future__ import annotations

import numpy as np

from gpusvm.data.pixels import ImageShape

MNIST_SHAPE: ImageShape = (28, 28)
MNIST_BOX: ImageShape = (20, 20)

INK_SHARE = 0.25
"""Of the blackest ink: what is fainter does not decide how large a digit is, or where."""

SPECKS = 3.0
"""Noise that is taken off, in median absolute deviations of the pixels along the edge."""

SHADED = 64
"""Pixels a side from which on a picture may be a photograph, with light from one side. In a
smaller one, ink may well fill half of a side."""

_TIE = 1e-6
"""What is so close to where rounding turns is rounded down, so that two ways to add up the same
give the same byte."""


def as_digit(picture: np.ndarray, shape: ImageShape = MNIST_SHAPE, box: ImageShape | None = None) -> np.ndarray:
    """A picture of one character as an image of MNIST's form: bright on black.

    Parameters
    ----------
    picture : (height, width) uint8 array
        Grey, of any size; dark on light or light on dark.
    shape : (height, width)
        Of the result.
    box : (height, width), optional
        What the character is to fill; by default 20/28 of the shape, as in MNIST.

    Returns
    -------
    (height, width) uint8 array
        All 0 where the picture is of one grey.

    Raises
    ------
    ValueError
        The picture is not uint8 of two dimensions, or empty.
    """
    ink = as_ink(picture)
    rows, columns = (_extent(ink.max(axis=axis)) for axis in (1, 0))
    if rows is None or columns is None:
        return np.zeros(shape, dtype=np.uint8)
    height, width = box or default_box(shape)
    scale = min(height / (rows[1] - rows[0]), width / (columns[1] - columns[0]))
    mass = ink.sum()
    down = _weights(ink.sum(axis=1) / mass, rows, scale, shape[0])
    across = _weights(ink.sum(axis=0) / mass, columns, scale, shape[1])
    found = down @ ink @ across.T
    if scale > 1:  # what is enlarged gets edges of one pixel, as those of MNIST are, where it had some of `scale`
        found = np.clip((found - 127.5) * scale + 127.5, 0.0, 255.0)
    return np.floor(found + (0.5 - _TIE)).astype(np.uint8)


def default_box(shape: ImageShape) -> ImageShape:
    """What a character fills of an image of this shape (height, width), in MNIST's proportion."""
    return max(1, (shape[0] * 20 + 14) // 28), max(1, (shape[1] * 20 + 14) // 28)


def as_ink(picture: np.ndarray) -> np.ndarray:
    """How much ink each pixel of a grey picture (height, width) uint8 has: float64, 0 to 255.

    The median along the edge is the paper, of a larger picture with the slope of its light from
    side to side. Light paper is turned around, noise as large as that along the edge is taken off,
    and what remains is stretched so that the most ink is 255.

    Raises
    ------
    ValueError
        The picture is not uint8 of two dimensions, or empty.
    """
    if picture.ndim != 2 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture is a uint8 array (height, width), not {picture.dtype} of shape {picture.shape}")
    even = picture - _slope(picture)
    edge = np.concatenate([even[0], even[-1], even[1:-1, 0], even[1:-1, -1]])
    paper = _median(edge)
    noise = np.floor(SPECKS * _median(np.abs(edge - paper)))
    above = np.maximum((paper - even if paper > 127 else even - paper) - noise, 0.0)
    return above * (255.0 / max(float(above.max()), 1.0))


def _slope(picture: np.ndarray) -> np.ndarray:
    """By how much the light on the paper is off at each pixel: (height, width) float64.

    It is judged by the four sides.
    """
    height, width = picture.shape
    if min(height, width) < SHADED:
        return np.zeros(picture.shape)
    down = _median(picture[-1]) - _median(picture[0])
    across = _median(picture[:, -1]) - _median(picture[:, 0])
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    return down * (y / (height - 1) - 0.5) + across * (x / (width - 1) - 0.5)


def _median(values: np.ndarray) -> float:
    """The middle one, of an even number the upper of the two."""
    return float(np.sort(values)[len(values) // 2])


def _extent(most: np.ndarray) -> tuple[int, int] | None:
    """From where to where there is ink, by the most (n,) in each row or column; None for none."""
    inked = np.flatnonzero(most >= INK_SHARE * 255)
    return (int(inked[0]), int(inked[-1]) + 1) if len(inked) else None


def _weights(profile: np.ndarray, extent: tuple[int, int], scale: float, n_out: int) -> np.ndarray:
    """What each of `n_out` pixels takes of the `n` pixels along one side, (n_out, n) float64.

    A pixel is the mean over its own width of the picture, or over one pixel of the picture if that
    is more: areas are averaged where it gets smaller, and it is interpolated linearly where it
    gets larger.

    Parameters
    ----------
    profile : (n,) float64 array
        The share of the ink in each row or column. Its mean comes to lie in the middle pixel,
        n_out // 2.
    extent : (first, last + 1)
        Where the ink is. It begins on a whole pixel of the result, and stays inside.
    scale : float
        Pixels of the result for one of the picture.
    n_out : int
    """
    first, length = extent[0] * scale, (extent[1] - extent[0]) * scale
    mean = float(profile @ (np.arange(len(profile)) + 0.5)) * scale
    margin = np.floor(n_out // 2 + 1 - (mean - first) - _TIE)
    margin = max(0.0, min(margin, np.floor(n_out - length + _TIE)))
    start = first - margin
    half = max(1.0, scale) / 2
    centres = start + np.arange(n_out)[:, None] + 0.5
    pixels = np.arange(len(profile))[None, :]
    low, high = np.maximum(centres - half, pixels * scale), np.minimum(centres + half, (pixels + 1) * scale)
    return np.maximum(high - low, 0.0) / (2 * half)

"""Pictures, from their files to greys of one size; which files, `picture_folder` finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gpusvm.data.packed import LARGEST_EXPANSION
from gpusvm.data.pixels import ImageShape, require_memory, resized_picture
from gpusvm.errors import DataError, DataWarning, warn

# Pillow would go by the content and try every format it knows, some through other programs (EPS:
# Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# More than any kernel SVM is trained on; a few bytes of header can promise any size.
_MOST_PIXELS = 2**22
# What a camera takes, where it is made smaller at once; a byte of a file cannot hold many more
# than so many of them.
_MOST_PIXELS_TO_RESIZE = 2**26
_PIXELS_OF_A_BYTE = LARGEST_EXPANSION
_LARGEST_FILE = 2**26
SUFFIXES = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm",
        ".pnm",
    }
)  # fmt: skip
# Sixteen bits a pixel; Pillow would clip them to 255 where it should scale them.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_DEEPEST = 2**16 - 1


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does."""
    return path.suffix.lower() in SUFFIXES


def read_pictures(files: Sequence[Path], where: Path, resize: ImageShape | None = None) -> np.ndarray:
    """Read pictures of one size, or brought to one, as greys: (n, height, width) uint8.

    A picture is turned as its EXIF orientation says; sixteen bits a pixel become eight. What is
    transparent is put on white or on black, whichever leaves more of all pictures to see; a
    DataWarning says which.

    Parameters
    ----------
    files : sequence of path, at least one
    where : path
        What holds them, for messages.
    resize : (height, width), optional
        The size to bring them to, of whatever shape they are.

    Raises
    ------
    DataError
        An unreadable picture, or one whose size differs from the first one's.
    """
    return _read_all(len(files), lambda row: (files[row], _content(files[row])), where, resize)


def read_encoded(contents: Sequence[bytes], where: Path, resize: ImageShape | None = None) -> np.ndarray:
    """Pictures as `read_pictures` gives them, from the contents of what would be their files.

    Raises
    ------
    DataError
        As `read_pictures`; the message counts the pictures as rows, from 1.
    """
    return _read_all(len(contents), lambda row: (Path(f"{where}, row {row + 1}"), contents[row]), where, resize)


def _read_all(
    n: int, picture_of: Callable[[int], tuple[Path, bytes]], where: Path, resize: ImageShape | None
) -> np.ndarray:
    """The pictures that `picture_of` gives by their row: (n, height, width) uint8.

    It also gives what to call each.
    """
    first_name, content = picture_of(0)
    first = _read_picture(first_name, content, None, resize)
    layers = 1 if first.alpha is None else 2  # opacities are kept until all pictures are known
    require_memory(layers * n * first.grey.size, str(where))
    images = np.empty((n, *first.grey.shape), dtype=np.uint8)
    images[0] = first.grey
    transparent = [(0, first.alpha)] if first.alpha is not None else []
    for row in range(1, n):
        picture = _read_picture(*picture_of(row), (first.grey.shape, first_name), resize)
        images[row] = picture.grey
        if picture.alpha is not None:
            transparent.append((row, picture.alpha))
    if transparent:
        _composite(images, transparent, where)
    return images


@dataclass(frozen=True, eq=False)
class _Picture:
    """Greys (height, width) uint8, and how opaque each pixel is, uint8; None if all wholly are."""

    grey: np.ndarray
    alpha: np.ndarray | None


def _composite(images: np.ndarray, transparent: Sequence[tuple[int, np.ndarray]], where: Path) -> None:
    """Put transparent pictures on the background that shows more of their ink.

    `transparent` lists their rows, each with its opacity.
    """
    ink = sum(float(alpha.sum(dtype=np.int64)) for _, alpha in transparent)
    brightness = sum(float((images[row] * (alpha / 255.0)).sum()) for row, alpha in transparent)
    background = 255 if brightness <= ink / 2 else 0
    for row, alpha in transparent:
        opacity = alpha / 255.0
        images[row] = np.rint(images[row] * opacity + background * (1.0 - opacity)).astype(np.uint8)
    name = "white" if background else "black"
    warn(f"{where}: {len(transparent):,} transparent pictures were put on {name}, where their ink shows", DataWarning)


def _read_picture(
    path: Path, content: bytes, expected: tuple[tuple[int, ...], Path] | None, resize: ImageShape | None
) -> _Picture:
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as opened:
            _check_size(opened, path, len(content), resize)
            if resize is not None:
                opened.draft("L", (max(resize), max(resize)))  # a JPEG is decoded no larger than it takes
            picture = ImageOps.exif_transpose(opened)
            shape = (picture.height, picture.width)
            if resize is None and expected is not None and shape != expected[0]:
                height, width = expected[0]
                raise DataError(
                    f"{path}: is {shape[1]}x{shape[0]} but {expected[1].name} is {width}x{height};"
                    " all pictures must have one size: bring them to one with --resize, or remove it"
                )
            return _greys(picture, path, resize)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not a picture that Pillow can read; replace or remove it") from error
    except DataError:
        raise
    # Pillow's decoders raise nearly anything on damaged files.
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error!s:.120}); replace or remove it") from error


def _check_size(opened: Image.Image, path: Path, n_bytes: int, resize: ImageShape | None) -> None:
    """Raise DataError for a picture of too many pixels, before one of them is decoded."""
    n_pixels, size = opened.height * opened.width, f"{opened.width}x{opened.height}"
    if n_pixels <= _MOST_PIXELS:
        return
    if resize is None:
        raise DataError(f"{path}: is {size}, more than {_MOST_PIXELS:,} pixels; make it smaller with --resize")
    if n_pixels > _MOST_PIXELS_TO_RESIZE:
        raise DataError(f"{path}: is {size}, more than {_MOST_PIXELS_TO_RESIZE:,} pixels; make it smaller")
    if n_pixels > _PIXELS_OF_A_BYTE * n_bytes:
        raise DataError(f"{path}: says it is {size}, and has {n_bytes:,} bytes; replace or remove it")
    require_memory(4 * n_pixels, str(path))


def _greys(picture: Image.Image, path: Path, resize: ImageShape | None) -> _Picture:
    if picture.mode in _DEEP_MODES:
        deep = np.asarray(picture).astype(np.int64)
        if deep.min() < 0 or deep.max() > _DEEPEST:
            raise DataError(f"{path}: has pixels from {deep.min()} to {deep.max()}; save it with 8 or 16 bits a pixel")
        shallow = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        return _Picture(np.asarray(resized_picture(shallow, resize)), None)
    if picture.mode == "F":
        raise DataError(f"{path}: has real numbers for pixels (mode F); save it with 8 or 16 bits a pixel")
    if not picture.has_transparency_data:
        return _Picture(np.asarray(resized_picture(picture.convert("L"), resize)), None)
    grey, alpha = resized_picture(picture.convert("RGBA").convert("LA"), resize).split()
    opacity = np.asarray(alpha)
    return _Picture(np.asarray(grey), None if (opacity == 255).all() else opacity)


def _content(path: Path) -> bytes:
    """All of the file.

    From an open one Pillow asks for as many bytes at once as a damaged length says.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            size = f"{_LARGEST_FILE / 2**20:.0f} MB"
            raise DataError(f"{path}: is larger than {size}, too large for a picture; resize it")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); replace or remove it") from error

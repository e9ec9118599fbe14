"""Pictures: one file, a folder of them, or a folder with one sub-folder a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from gpusvm.data.links import require_inside
from gpusvm.data.pixels import require_memory
from gpusvm.errors import DataError

# Pillow would go by the content and try every format it knows, some through other programs (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
# More than any kernel machine is trained on; a few bytes of header can promise any size.
_MOST_PIXELS = 2**22
_LARGEST_FILE = 2**26
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif"})
_SPLITS = {"train", "test"}
# Pillow would clip these to 255 where it should scale them.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does."""
    return path.suffix.lower() in SUFFIXES


def has_split(folder: Path, split: str) -> bool:
    """Whether the folder has pictures for this split: `train/` and `test/`, or else only train."""
    return split == "train" or _is_divided(folder)


def read_folder(folder: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray | None]:
    """Read a folder of pictures, greyscaled: sub-folders are classes, and without any there are no labels.

    A folder that holds exactly `train/` and `test/` has those splits. The classes take turns in the
    result, so that its first rows show all of them and not only the first class.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
    labels : ndarray of shape (n,) or None
        int64 where every class name is an integer, else str.

    Raises
    ------
    DataError
        No pictures, an unreadable one, or one whose size differs from the first one's.
    """
    whole = folder
    if _is_divided(folder):
        folder = folder / split
        require_inside(whole, [folder])
    require_inside(whole, _sub_folders(folder))
    classes = {sub.name: _pictures(sub) for sub in _sub_folders(folder)}
    classes = {name: files for name, files in classes.items() if files}
    if not classes:
        return read_flat_folder(folder)[0], None
    values = _class_values(list(classes))
    rows = _take_turns([(files, index) for index, files in enumerate(classes.values())])
    require_inside(whole, (file for file, _ in rows))
    images = read_pictures([file for file, _ in rows], folder)
    return images, values[[index for _, index in rows]]


def read_flat_folder(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Pictures lying in `folder`, sorted by name: images (n, height, width) uint8, and the names.

    Raises
    ------
    DataError
        As `read_folder`; also where the pictures lie in sub-folders.
    """
    files = _pictures(folder)
    if not files and any(_pictures(sub) for sub in _sub_folders(folder)):
        raise DataError(f"{folder}: its pictures lie in sub-folders; name one of those")
    require_inside(folder, files)
    return read_pictures(files, folder), [file.name for file in files]


def read_pictures(files: Sequence[Path], where: Path) -> np.ndarray:
    """Read pictures of one size as greys: (n, height, width) uint8. Raises DataError."""
    if not files:
        raise DataError(f"{where}: holds no pictures; expected files ending in {', '.join(sorted(SUFFIXES))}")
    first = _read_picture(files[0], None)
    require_memory(len(files) * first.size, str(where))
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    images[0] = first
    for row, file in enumerate(files[1:], start=1):
        images[row] = _read_picture(file, (first.shape, files[0]))
    return images


def _read_picture(path: Path, expected: tuple[tuple[int, ...], Path] | None) -> np.ndarray:
    try:
        with Image.open(BytesIO(_content(path)), formats=_FORMATS) as picture:
            shape = (picture.height, picture.width)
            if shape[0] * shape[1] > _MOST_PIXELS:
                raise DataError(f"{path}: is {shape[1]}x{shape[0]}, more than {_MOST_PIXELS:,} pixels; resize it")
            if expected is not None and shape != expected[0]:
                height, width = expected[0]
                raise DataError(
                    f"{path}: is {shape[1]}x{shape[0]} but {expected[1].name} is {width}x{height};"
                    " all pictures must have one size: resize or remove it"
                )
            if picture.mode in _DEEP_MODES:
                raise DataError(f"{path}: has more than 8 bits a pixel ({picture.mode}); save it with 8 bits")
            return np.asarray(picture.convert("L"))
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not a picture that Pillow can read; replace or remove it") from error
    except DataError:
        raise
    # Pillow's decoders raise nearly anything on damaged files.
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error!s:.120}); replace or remove it") from error


def _content(path: Path) -> bytes:
    """All of the file: from an open one Pillow asks for as many bytes at once as a damaged length says."""
    if path.stat().st_size > _LARGEST_FILE:
        raise DataError(f"{path}: is larger than {_LARGEST_FILE / 2**20:.0f} MB, too large for a picture; resize it")
    return path.read_bytes()


def _take_turns(classes: list[tuple[list[Path], int]]) -> list[tuple[Path, int]]:
    """The first file of every class, then the second of every class that has one, and so on."""
    turns = zip_longest(*([(file, index) for file in files] for files, index in classes))
    return [row for row in chain.from_iterable(turns) if row is not None]


def _is_divided(folder: Path) -> bool:
    return {sub.name for sub in _sub_folders(folder)} == _SPLITS


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir())


def _pictures(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if is_picture(entry) and entry.is_file())


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _class_values(names: list[str]) -> np.ndarray:
    """Class names as integers where all are, and stay apart when they become so ("3" and "03" do not)."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        values = np.array([int(name) for name in names], dtype=np.int64)
        if len(np.unique(values)) == len(names):
            return values
    return np.array(names)

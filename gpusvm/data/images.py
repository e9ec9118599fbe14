"""Pictures: one file, a folder of them, or a folder with one sub-folder a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gpusvm.data.links import require_inside
from gpusvm.data.pixels import require_memory
from gpusvm.errors import DataError, DataWarning, warn

# Pillow would go by the content and try every format it knows, some through other programs (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
# More than any kernel machine is trained on; a few bytes of header can promise any size.
_MOST_PIXELS = 2**22
_LARGEST_FILE = 2**26
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
# What people call the folders of the two splits; of several for the test split the first that is there is taken.
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
# Sixteen bits a pixel; Pillow would clip them to 255 where it should scale them.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_DEEPEST = 2**16 - 1
_MOST_NAMED = 5


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does."""
    return path.suffix.lower() in SUFFIXES


def has_split(folder: Path, split: str) -> bool:
    """Whether the folder has pictures for this split: a folder for each, or else only train."""
    splits = _splits(_unwrapped(folder))
    return split in splits if splits else split == "train"


def read_folder(folder: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray | None]:
    """Read a folder of pictures, greyscaled: sub-folders are classes, and without any there are no labels.

    Sub-folders that are called train and test, in any case and in whatever way people call them, are those splits:
    Train/Test, training/testing, train/val, train/val/test. A folder around all of that is looked into. The classes
    take turns in the result, so that its first rows show all of them and not only the first class.

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
    whole, folder = folder, _unwrapped(folder)
    splits = _splits(folder)
    if split in splits:
        folder = splits[split]
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
    """Read pictures of one size as greys: (n, height, width) uint8.

    A picture is turned as its EXIF orientation says; sixteen bits a pixel become eight. What is transparent is put on
    white or on black, whichever leaves more of all pictures to see; a DataWarning says which.

    Raises
    ------
    DataError
        No pictures, an unreadable one, or one whose size differs from the first one's.
    """
    if not files:
        raise DataError(f"{where}: holds no pictures{_found_instead(where)}")
    first = _read_picture(files[0], None)
    layers = 1 if first.alpha is None else 2  # opacities are kept until all pictures are known
    require_memory(layers * len(files) * first.grey.size, str(where))
    images = np.empty((len(files), *first.grey.shape), dtype=np.uint8)
    images[0] = first.grey
    transparent = [(0, first.alpha)] if first.alpha is not None else []
    for row, file in enumerate(files[1:], start=1):
        picture = _read_picture(file, (first.grey.shape, files[0]))
        images[row] = picture.grey
        if picture.alpha is not None:
            transparent.append((row, picture.alpha))
    if transparent:
        _composite(images, transparent, where)
    return images


@dataclass(frozen=True, eq=False)
class _Picture:
    """Greys (height, width) uint8, and how opaque each pixel is, uint8; None where all are wholly so."""

    grey: np.ndarray
    alpha: np.ndarray | None


def _composite(images: np.ndarray, transparent: Sequence[tuple[int, np.ndarray]], where: Path) -> None:
    """Put the pictures that `transparent` lists, with their opacity, on the background that shows more of their ink."""
    ink = sum(float(alpha.sum(dtype=np.int64)) for _, alpha in transparent)
    brightness = sum(float((images[row] * (alpha / 255.0)).sum()) for row, alpha in transparent)
    background = 255 if brightness <= ink / 2 else 0
    for row, alpha in transparent:
        opacity = alpha / 255.0
        images[row] = np.rint(images[row] * opacity + background * (1.0 - opacity)).astype(np.uint8)
    name = "white" if background else "black"
    warn(f"{where}: {len(transparent):,} transparent pictures were put on {name}, where their ink shows", DataWarning)


def _found_instead(where: Path) -> str:
    """What a folder without pictures holds, and what it should."""
    names = sorted(entry.name for entry in _entries(where)) if where.is_dir() else []
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    found = f"; found {', '.join(names[:_MOST_NAMED])}{more}" if names else "; it is empty"
    return (
        f"{found}. Expected one sub-folder for each class, or train and test with those in them, of files ending in"
        f" {', '.join(sorted(SUFFIXES))}; or name one of the files"
    )


def _read_picture(path: Path, expected: tuple[tuple[int, ...], Path] | None) -> _Picture:
    try:
        with Image.open(BytesIO(_content(path)), formats=_FORMATS) as opened:
            if opened.height * opened.width > _MOST_PIXELS:
                size = f"{opened.width}x{opened.height}"
                raise DataError(f"{path}: is {size}, more than {_MOST_PIXELS:,} pixels; resize it")
            picture = ImageOps.exif_transpose(opened)
            shape = (picture.height, picture.width)
            if expected is not None and shape != expected[0]:
                height, width = expected[0]
                raise DataError(
                    f"{path}: is {shape[1]}x{shape[0]} but {expected[1].name} is {width}x{height};"
                    " all pictures must have one size: resize or remove it"
                )
            return _greys(picture, path)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not a picture that Pillow can read; replace or remove it") from error
    except DataError:
        raise
    # Pillow's decoders raise nearly anything on damaged files.
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error!s:.120}); replace or remove it") from error


def _greys(picture: Image.Image, path: Path) -> _Picture:
    if picture.mode in _DEEP_MODES:
        deep = np.asarray(picture).astype(np.int64)
        if deep.min() < 0 or deep.max() > _DEEPEST:
            raise DataError(f"{path}: has pixels from {deep.min()} to {deep.max()}; save it with 8 or 16 bits a pixel")
        return _Picture(((deep + 128) // 257).astype(np.uint8), None)
    if picture.mode == "F":
        raise DataError(f"{path}: has real numbers for pixels (mode F); save it with 8 or 16 bits a pixel")
    if not picture.has_transparency_data:
        return _Picture(np.asarray(picture.convert("L")), None)
    grey, alpha = picture.convert("RGBA").convert("LA").split()
    opacity = np.asarray(alpha)
    return _Picture(np.asarray(grey), None if (opacity == 255).all() else opacity)


def _content(path: Path) -> bytes:
    """All of the file: from an open one Pillow asks for as many bytes at once as a damaged length says."""
    if path.stat().st_size > _LARGEST_FILE:
        raise DataError(f"{path}: is larger than {_LARGEST_FILE / 2**20:.0f} MB, too large for a picture; resize it")
    return path.read_bytes()


def _take_turns(classes: list[tuple[list[Path], int]]) -> list[tuple[Path, int]]:
    """The first file of every class, then the second of every class that has one, and so on."""
    turns = zip_longest(*([(file, index) for file in files] for files, index in classes))
    return [row for row in chain.from_iterable(turns) if row is not None]


def _splits(folder: Path) -> dict[str, Path]:
    """The folders of the splits by "train" and "test"; none unless there is one to train on and one to test on."""
    by_name = {sub.name.lower(): sub for sub in _sub_folders(folder)}
    known = {name for names in _SPLITS.values() for name in names}
    found = {split: next((by_name[n] for n in names if n in by_name), None) for split, names in _SPLITS.items()}
    if None in found.values() or not by_name.keys() <= known:
        return {}
    return {split: sub for split, sub in found.items() if sub is not None}


def _unwrapped(folder: Path) -> Path:
    """The folder of classes or splits in a folder that holds nothing else, as archives often unpack to."""
    while not _pictures(folder):
        subs = _sub_folders(folder)
        if len(subs) != 1 or _pictures(subs[0]) or not _sub_folders(subs[0]):
            return folder
        require_inside(folder, subs)
        folder = subs[0]
    return folder


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

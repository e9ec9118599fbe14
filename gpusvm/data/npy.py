"""Arrays in files of their own, as numpy.save writes them: X.npy and y.npy, or the like."""

from __future__ import annotations

from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from gpusvm.data.links import require_inside
from gpusvm.data.pixels import (
    are_fractions_of_pixels,
    are_pixels,
    as_images,
    look_like_images,
    require_memory,
)
from gpusvm.data.table import Contents, as_features, as_labels
from gpusvm.errors import DataError, DataWarning, warn

PAIRS = {
    "train": (
        ("x_train", "y_train"),
        ("images", "labels"),
        ("X", "y"),
        ("X_train", "y_train"),
        ("train_images", "train_labels"),
        ("data", "target"),
    ),
    "test": (("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels")),
}
"""Names of samples and of their labels, in the archives and the files of each split."""
_LABELS_FOR = (
    ("X", "y"),
    ("x", "y"),
    ("features", "labels"),
    ("images", "labels"),
    ("data", "labels"),
    ("data", "target"),
)
_LONGEST_HEADER = 1 << 20
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def promised_bytes(stream: IO[bytes], n_bytes_found: int) -> int:
    """Bytes of an array by its header, where these are as many as what follows.

    Raises ValueError where they are not.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are pickles, which could run code")
    n_bytes = prod(shape) * dtype.itemsize
    if dtype.itemsize == 0 or min(shape, default=0) < 0 or stream.tell() + n_bytes != n_bytes_found:
        raise ValueError(f"its header says {shape} of {dtype}, which is not what the archive holds")
    return n_bytes


def read_array(path: Path) -> np.ndarray:
    """The array of a file; pickled objects are refused. Raises DataError."""
    try:
        with path.open("rb") as file:
            # From an open file NumPy asks for as many bytes at once as a damaged length of its
            # header says.
            n_bytes = promised_bytes(BytesIO(file.read(_LONGEST_HEADER)), path.stat().st_size)
            require_memory(n_bytes, str(path))
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except DataError:
        raise
    # A damaged header makes numpy.lib.format raise nearly anything.
    except Exception as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: cannot be read ({reason:.120}); write it again with numpy.save") from error


def has_split(path: Path, split: str) -> bool:
    """Whether there are samples for this split.

    They are in a folder under their names, or beside a file X_train.npy.
    """
    if path.is_dir():
        return _in_folder(path, split) is not None
    return split == "train" or _partner(path) is not None


def is_folder(folder: Path) -> bool:
    """Whether a folder has arrays under names that are known."""
    return any(_in_folder(folder, split) for split in PAIRS)


def read(path: Path, split: str, kind: str) -> Contents | tuple[np.ndarray, np.ndarray | None]:
    """One split, with its labels, as images or as a table, as `kind` says.

    "auto" is what its samples look like.

    Raises
    ------
    DataError
        Damaged files, wrong shapes or dtypes.
    """
    file = _in_folder(path, split) if path.is_dir() else path if split == "train" else _partner(path)
    assert file is not None  # has_split saw it
    labels_file = _labels_file(file)
    if path.is_dir():
        require_inside(path, [file, *([] if labels_file is None else [labels_file])])
    labels = None if labels_file is None else as_labels(read_array(labels_file), str(labels_file))
    if labels_file is not None and not path.is_dir():
        warn(f"{file}: its labels are taken from {labels_file.name} beside it", DataWarning)
    samples = read_array(file)
    if is_table(samples, kind, file.stem):
        return Contents(as_features(samples, str(file)), labels)
    if labels is not None and labels.dtype.kind == "f":
        raise DataError(f"{labels_file}: has real numbers for labels; those of images must be integers or strings")
    return as_images(samples, str(file)), labels


def is_table(samples: np.ndarray, kind: str, name: str) -> bool:
    """Whether an array is a table, not images, as `kind` says or else by its values and name.

    Rows of pixels are images, where they make a square: a large one, or any where the array is
    called images.
    """
    if kind != "auto" or samples.ndim != 2:
        return kind == "table"
    if "image" in name and are_pixels(samples):
        return False
    return not look_like_images((), samples) and not are_fractions_of_pixels(samples)


def _in_folder(folder: Path, split: str) -> Path | None:
    return next((file for name, _ in PAIRS[split] if (file := folder / f"{name}.npy").is_file()), None)


def _partner(file: Path) -> Path | None:
    """X_test.npy for X_train.npy."""
    if "train" not in file.stem:
        return None
    partner = file.with_name(file.name.replace("train", "test"))
    return partner if partner.is_file() else None


def _labels_file(file: Path) -> Path | None:
    """The file with the labels of the samples in `file`: y.npy for X.npy, and the like."""
    stem = file.stem
    known = [labels for pairs in PAIRS.values() for samples, labels in pairs if samples == stem]
    guessed = [stem.replace(samples, labels) for samples, labels in _LABELS_FOR if samples in stem]
    for name in (*known, *guessed, f"{stem}_labels", f"{stem}_y"):
        if name != stem and (found := file.with_name(f"{name}.npy")).is_file():
            return found
    return None

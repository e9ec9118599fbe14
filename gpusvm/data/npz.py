"""NumPy archives: Keras's layout (x_train, y_train, x_test, y_test), images/labels, or X/y."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from gpusvm.data.pixels import as_images
from gpusvm.errors import DataError

_KEYS = {
    "train": (("x_train", "y_train"), ("images", "labels"), ("X", "y")),
    "test": (("x_test", "y_test"),),
}


def has_split(path: Path, split: str) -> bool:
    """Whether the archive has images for this split. Raises DataError if it is no archive."""
    with _open(path) as archive:
        return any(images in archive for images, _ in _KEYS[split])


def read(path: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray | None]:
    """Read one split of an archive; pickled objects in it are refused.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
    labels : ndarray of shape (n,), int64 or str, or None where the archive has none

    Raises
    ------
    DataError
        Not an archive, no such split, wrong shapes or dtypes, pixels that are no bytes.
    """
    with _open(path) as archive:
        for images_key, labels_key in _KEYS[split]:
            if images_key in archive:
                images = as_images(_get(archive, path, images_key), f"{path}, {images_key!r}")
                labels = _labels(archive, path, labels_key) if labels_key in archive else None
                return images, labels
        raise _no_images(archive, path, split)


def read_images(path: Path) -> np.ndarray:
    """The images to predict: those under `images`, `X`, `x_test` or `x_train`, the first there is."""
    with _open(path) as archive:
        for key in ("images", "X", "x_test", "x_train"):
            if key in archive:
                return as_images(_get(archive, path, key), f"{path}, {key!r}")
        raise _no_images(archive, path, "test")


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "it is not a readable .npz archive"
        raise DataError(f"{path}: cannot be read: {reason}; write it again with numpy.savez") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: is one array, not an archive; write it with numpy.savez(images=, labels=)")
    return archive


def _get(archive: np.lib.npyio.NpzFile, path: Path, key: str) -> np.ndarray:
    try:
        return archive[key]
    # A damaged archive can make zipfile and numpy.lib.format raise any of these.
    except (
        OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, RuntimeError, MemoryError,
        OverflowError, NotImplementedError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}, {key!r}: cannot be read ({reason}); store it as a plain array") from error


def _labels(archive: np.lib.npyio.NpzFile, path: Path, key: str) -> np.ndarray:
    labels = _get(archive, path, key)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{path}, {key!r}: has shape {labels.shape}; labels must be (n,), one an image")
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind not in "uib":
        raise DataError(f"{path}, {key!r}: has dtype {labels.dtype}; labels must be integers or strings")
    return labels.astype(np.int64)


def _no_images(archive: np.lib.npyio.NpzFile, path: Path, split: str) -> DataError:
    found = ", ".join(sorted(archive.files)) or "nothing"
    wanted = " or ".join(repr(images) for images, _ in _KEYS[split])
    return DataError(f"{path}: has no {split} images: no {wanted} among its keys ({found}); rename the array")

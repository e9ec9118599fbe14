"""NumPy archives: Keras's layout (x_train, y_train, x_test, y_test), and others' names for it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from gpusvm.data.npy import PAIRS, is_table, promised_bytes
from gpusvm.data.packed import LARGEST_EXPANSION
from gpusvm.data.pixels import as_images, require_memory
from gpusvm.data.table import Contents, as_features, as_labels, labels_of_images
from gpusvm.errors import DataError

# How far a member can expand as numpy.savez and savez_compressed write it. For other methods there
# is no such bound.
_EXPANSION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: LARGEST_EXPANSION}


def has_split(path: Path, split: str) -> bool:
    """Whether the archive has images for this split. Raises DataError if it is no archive."""
    with _open(path) as archive:
        if not any(images in archive for keys in PAIRS.values() for images, _ in keys):
            raise _no_images(archive, path, split)
        return any(images in archive for images, _ in PAIRS[split])


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
    found = read_any(path, split, "images")
    assert not isinstance(found, Contents)  # images were asked for
    return found


def read_any(path: Path, split: str, kind: str) -> Contents | tuple[np.ndarray, np.ndarray | None]:
    """Read one split as images (as `read`) or as a table, as `kind` says.

    "auto" is whichever its samples look like.
    """
    with _open(path) as archive:
        for key, labels_key in PAIRS[split]:
            if key in archive:
                samples, where = archive[key], f"{path}, {key!r}"
                labels = archive.get(labels_key)
                where_labels = f"{path}, {labels_key!r}"
                if is_table(samples, kind, key):
                    labels = None if labels is None else as_labels(labels, where_labels)
                    return Contents(as_features(samples, where), labels)
                images = as_images(samples, where)
                return images, None if labels is None else labels_of_images(labels, where_labels)
        raise _no_images(archive, path, split)


def read_images(path: Path) -> np.ndarray:
    """The images to predict.

    They are those under `images`, `X` or `data`, else those to test on, else those to train on.
    """
    found = read_samples(path, "images")
    assert not isinstance(found, Contents)  # images were asked for
    return found


def read_samples(path: Path, kind: str) -> Contents | np.ndarray:
    """What is to be predicted, found as `read_images` says: a table without labels, or images."""
    with _open(path) as archive:
        for key in ("images", "X", "data", *(key for split in ("test", "train") for key, _ in PAIRS[split])):
            if key in archive:
                samples, where = archive[key], f"{path}, {key!r}"
                if is_table(samples, kind, key):
                    return Contents(as_features(samples, where), None)
                return as_images(samples, where)
        raise _no_images(archive, path, "test")


@contextmanager
def _open(path: Path) -> Iterator[_Archive]:
    with _open_zip(path) as file:
        archive = _Archive(file, path)
        if {"format", "shape", "data"} <= archive.members.keys():
            raise DataError(
                f"{path}: is a sparse matrix of SciPy, without labels; write both with"
                " sklearn.datasets.dump_svmlight_file"
            )
        yield archive


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            is_array = file.read(6) == np.lib.format.MAGIC_PREFIX
        if not is_array:
            return zipfile.ZipFile(path)
    # A damaged archive makes zipfile raise nearly anything.
    except Exception as error:
        reason = getattr(error, "strerror", None) or "it is not a readable .npz archive"
        raise DataError(f"{path}: cannot be read: {reason}; write it again with numpy.savez") from error
    raise DataError(f"{path}: is one array, not an archive; write it with numpy.savez(images=, labels=)")


class _Archive(Mapping[str, np.ndarray]):
    """The arrays of an archive by name. Members are read in place, never unpacked to files."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._zip, self.path = archive, path
        self.members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}

    def __contains__(self, key: object) -> bool:
        return key in self.members  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, key: str) -> np.ndarray:
        where = f"{self.path}, {key!r}"
        info = self.members[key]
        try:
            with self._zip.open(info) as stream:
                n_bytes = _promised_bytes(stream, info, self.path.stat().st_size)
            require_memory(n_bytes, where)
            with self._zip.open(info) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except DataError:
            raise
        # A damaged member makes zipfile and numpy.lib.format raise nearly anything.
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            cure = "store it as a plain array, words by .astype(str)"
            raise DataError(f"{where}: cannot be read ({reason:.120}); {cure}") from error


def _promised_bytes(stream: IO[bytes], info: zipfile.ZipInfo, archive_bytes: int) -> int:
    """Bytes of a member's array by its header.

    Raises ValueError where the archive's directory or its own size disagrees.
    """
    if info.compress_type not in _EXPANSION:
        raise ValueError("compressed in another way than NumPy does")
    n_bytes = promised_bytes(stream, info.file_size)
    if info.file_size > _EXPANSION[info.compress_type] * min(info.compress_size, archive_bytes):
        raise ValueError("the file is too small for what it says it holds")
    return n_bytes


def _no_images(archive: _Archive, path: Path, split: str) -> DataError:
    found = ", ".join(sorted(archive.members)) or "nothing"
    wanted = " or ".join(repr(images) for images, _ in PAIRS[split])
    return DataError(f"{path}: has no {split} samples: no {wanted} among its keys ({found:.200}); rename the array")

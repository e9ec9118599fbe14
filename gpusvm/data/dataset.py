"""Loading a data set from whatever a user names: a catalogue name, a file or a folder."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpusvm.data import csv, idx, images, npz
from gpusvm.data.catalogue import CATALOGUE, find_file, read_split
from gpusvm.data.links import require_inside
from gpusvm.errors import DataError, UsageError

PathLike = str | os.PathLike[str]

SPLITS = ("train", "test")
_IDX_STEMS = {"train": "train", "test": "t10k"}
_FORMATS = (
    "an IDX file or a folder with the four of them, a .csv in Kaggle's layout, an .npz,"
    " or a folder of pictures by class"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, and where they came from.

    Attributes
    ----------
    images : ndarray of shape (n, height, width), uint8
    labels : ndarray of shape (n,) or None
        int64, or str where a source names its classes with words; None where it has no labels.
    name : str
        The catalogue name, or the path as it was given.
    split : str
        "train" or "test".
    digest : str
        SHA-256, in hexadecimal, of the shape, the images and the labels as loaded.
    """

    images: np.ndarray
    labels: np.ndarray | None
    name: str
    split: str
    digest: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each image."""
        return self.images.shape[1], self.images.shape[2]

    def take(self, rows: np.ndarray) -> Dataset:
        """The data set of these rows (int64) only, with a digest of its own."""
        labels = None if self.labels is None else self.labels[rows]
        images = self.images[rows]
        return replace(self, images=images, labels=labels, digest=_digest(images, labels))

    def require_labels(self) -> np.ndarray:
        """The labels. Raises DataError, saying how to give them, where the source has none."""
        if self.labels is None:
            raise DataError(
                f"{self.name}: has no labels; a CSV needs a column called 'label', an .npz the key y_train,"
                " labels or y, a folder one sub-folder a class, and IDX its folder with the labels file"
            )
        return self.labels


def load_dataset(
    source: PathLike,
    split: str = "train",
    *,
    limit: int | None = None,
    seed: int | None = None,
    data_dir: PathLike | None = None,
    progress: bool = False,
) -> Dataset:
    """Load images and labels from a catalogue name, a file or a folder.

    Parameters
    ----------
    source : str or path
        `mnist`, `fashion-mnist` or `digits`; or the path of an IDX file, a folder with the four IDX
        files, a CSV in Kaggle's layout, an .npz, or a folder of pictures by class.
    split : {"train", "test"}
        Sources without a test split of their own have only "train"; see `has_split`.
    limit : int, optional
        How many rows to keep: the first ones, or random ones, in random order, with a `seed`.
        More than there are keeps all of them.
    seed : int, optional
        Makes `limit` draw at random, without replacement; the same seed gives the same rows.
    data_dir : path, optional
        Where a catalogue name is looked for first, and fetched to.
    progress : bool
        Show the progress of a download on stderr.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        The source does not exist, is malformed, or has no such split.
    DownloadError
        A catalogue name that is not on this machine, and that no mirror gave.
    UsageError
        An unknown split, or a limit below 1.

    Examples
    --------
    >>> from gpusvm.data import load_dataset
    >>> load_dataset("digits", "test").images.shape
    (360, 8, 8)
    """
    _check_split(split)
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    pixels, labels = _read(source, split, data_dir, progress)
    if labels is not None and len(labels) != len(pixels):
        raise DataError(f"{source}: has {len(pixels):,} {split} images but {len(labels):,} labels; they must pair up")
    rows = _rows(len(pixels), limit, seed)
    pixels, labels = pixels[rows], None if labels is None else labels[rows]
    return Dataset(pixels, labels, os.fspath(source), split, _digest(pixels, labels))


def has_split(source: PathLike, split: str, data_dir: PathLike | None = None) -> bool:
    """Whether a source has that split; nothing is fetched, and only as much read as it takes to tell.

    Catalogue names have both. An IDX folder has those whose images are in it, an .npz those it has
    keys for, a picture folder both if it holds `train/` and `test/`; anything else only "train".

    Raises
    ------
    DataError
        There is no such source.
    UsageError
        An unknown split.
    """
    _check_split(split)
    if _is_name(source):
        return True
    path = Path(source)
    kind = _kind(path)
    if kind == "idx folder":
        return find_file(path, f"{_IDX_STEMS[split]}-images-idx3-ubyte") is not None
    if kind == "npz":
        return npz.has_split(path, split)
    if kind == "picture folder":
        return images.has_split(path, split)
    return split == "train"


def load_images(path: PathLike) -> tuple[np.ndarray, list[str]]:
    """Load images to predict, labels or not.

    Parameters
    ----------
    path : str or path
        An IDX file of images, a CSV in Kaggle's layout with or without labels, an .npz, one picture,
        or a folder of pictures.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
    ids : list of str
        Row numbers from "1", as Kaggle's ImageId; for pictures, their file names.

    Raises
    ------
    DataError
        There is no such file, or it is malformed.
    """
    file = Path(path)
    if str(file) in CATALOGUE and not file.exists():
        raise DataError(
            f"{file}: is the name of a data set, and a file is needed here; gpusvm evaluate MODEL {file} takes names"
        )
    kind = _kind(file)
    if kind == "picture folder":
        return images.read_flat_folder(file)
    if kind == "picture":
        return images.read_pictures([file], file), [file.name]
    if kind == "idx folder":
        raise DataError(f"{file}: is a folder of IDX files; name the one to predict")
    if kind == "npz":
        pixels = npz.read_images(file)
    elif kind == "csv":
        pixels, _ = csv.read(file)
    else:
        pixels = idx.read_images(file)
    return pixels, [str(number) for number in range(1, len(pixels) + 1)]


def _read(
    source: PathLike, split: str, data_dir: PathLike | None, progress: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    if _is_name(source):
        return read_split(str(source), split, data_dir, progress)
    return _read_path(Path(source), split)


def _is_name(source: PathLike) -> bool:
    return isinstance(source, str) and source in CATALOGUE


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"split must be 'train' or 'test', not {split!r}")


def _kind(path: Path) -> str:
    """What is at `path`: "idx", "csv", "npz", "picture", "idx folder" or "picture folder"."""
    if path.is_dir():
        stems = [f"{stem}-images-idx3-ubyte" for stem in _IDX_STEMS.values()]
        return "idx folder" if any(find_file(path, stem) for stem in stems) else "picture folder"
    if not path.exists():
        raise _no_such_source(path)
    if not path.is_file():  # opening a pipe waits for whoever writes to it, and a device may never end
        raise DataError(f"{path}: is neither a file nor a folder; copy what it gives into a file")
    if path.suffix.lower() in (".csv", ".npz"):
        return path.suffix.lower()[1:]
    if images.is_picture(path):
        return "picture"
    if "idx" in path.name or idx.is_idx(path):
        return "idx"
    raise DataError(f"{path}: is of no known kind; expected {_FORMATS}")


def _read_path(path: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    kind = _kind(path)
    if not has_split(path, split):
        raise DataError(f"{path}: has no {split} split; name a source that does, or use its other split")
    if kind == "idx folder":
        return _read_idx_folder(path, split)
    if kind == "picture folder":
        return images.read_folder(path, split)
    if kind == "picture":
        return images.read_pictures([path], path), None
    if kind == "npz":
        return npz.read(path, split)
    if kind == "csv":
        return csv.read(path)
    return idx.read_images(path), None


def _read_idx_folder(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    stem = _IDX_STEMS[split]
    images_path = find_file(folder, f"{stem}-images-idx3-ubyte")
    labels_path = find_file(folder, f"{stem}-labels-idx1-ubyte")
    assert images_path is not None  # has_split saw it
    require_inside(folder, filter(None, (images_path, labels_path)))
    return idx.read_images(images_path), None if labels_path is None else idx.read_labels(labels_path)


def _no_such_source(path: Path) -> DataError:
    similar = difflib.get_close_matches(str(path), CATALOGUE, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"name {', '.join(CATALOGUE)}, or {_FORMATS}"
    return DataError(f"{path}: there is no such data set, file or folder; {hint}")


def _rows(n: int, limit: int | None, seed: int | None) -> slice | np.ndarray:
    if limit is None:
        return slice(None)
    if seed is None:
        return slice(limit)
    return np.random.default_rng(seed).permutation(n)[:limit]


def _digest(pixels: np.ndarray, labels: np.ndarray | None) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    if labels is not None:
        plain = "\n".join(labels).encode() if labels.dtype.kind == "U" else labels.astype("<i8").tobytes()
        digest.update(plain)
    return digest.hexdigest()

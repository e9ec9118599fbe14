"""Loading a data set from whatever a user names: a catalogue name, a file or a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, TypedDict, Unpack, overload

import numpy as np

from gpusvm.data import arff, delimited, idx_folder, images, npy, npz, parquet, picture_folder, svmlight, table_folder
from gpusvm.data import columns as table_columns
from gpusvm.data.catalogue import CATALOGUE, read_split
from gpusvm.data.formats import ALWAYS_IMAGES, ALWAYS_TABLES, find_format
from gpusvm.data.pixels import ImageShape, resized
from gpusvm.data.table import Contents, Table, TableOptions, digest_of
from gpusvm.errors import DataError, DataWarning, UsageError, warn

PathLike = str | os.PathLike[str]

_Found = Contents | tuple[np.ndarray, np.ndarray | None]

SPLITS = ("train", "test")
KINDS = ("auto", "images", "table")


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
    resized : bool
        Whether the images were asked to be brought to their size.
    """

    images: np.ndarray
    labels: np.ndarray | None
    name: str
    split: str
    digest: str
    resized: bool = False
    unit: ClassVar[str] = "image"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def samples(self) -> np.ndarray:
        """The images: what a model's steps take."""
        return self.images

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each image."""
        return self.images.shape[1], self.images.shape[2]

    def take(self, rows: np.ndarray) -> Dataset:
        """The data set of these rows (int64) only, with a digest of its own.

        Parameters
        ----------
        rows : (n,) int64 array

        Returns
        -------
        Dataset
        """
        labels = None if self.labels is None else self.labels[rows]
        images = self.images[rows]
        return replace(self, images=images, labels=labels, digest=digest_of(images, labels))

    def require_labels(self) -> np.ndarray:
        """The labels, for what cannot do without.

        Returns
        -------
        (n,) array

        Raises
        ------
        DataError
            The source has none; the message says how to give them.
        """
        if self.labels is None:
            raise DataError(
                f"{self.name}: has no labels; a CSV needs a column called 'label', an .npz the key y_train,"
                " labels or y, a folder one sub-folder a class, and IDX its folder with the labels file"
            )
        return self.labels


class _OfTables(TypedDict, total=False):
    """What can be said of a table; `load_samples` documents it."""

    label: str | None
    drop: Sequence[str]
    columns: Sequence[str]
    n_features: int | None
    first_index: int | None
    left_out: Sequence[int]
    progress: bool


class _Options(_OfTables, total=False):
    """Options of `load_dataset`, which documents them, but for `kind`."""

    limit: int | None
    seed: int | None
    data_dir: PathLike | None
    resize: ImageShape | None


@overload
def load_dataset(
    source: PathLike, split: str = "train", *, kind: Literal["images"], **options: Unpack[_Options]
) -> Dataset: ...


@overload
def load_dataset(
    source: PathLike, split: str = "train", *, kind: str = "auto", **options: Unpack[_Options]
) -> Dataset | Table: ...


def load_dataset(
    source: PathLike,
    split: str = "train",
    *,
    limit: int | None = None,
    seed: int | None = None,
    data_dir: PathLike | None = None,
    kind: str = "auto",
    resize: ImageShape | None = None,
    **table: Unpack[_OfTables],
) -> Dataset | Table:
    """Load images or a table, and labels, from a catalogue name, a file or a folder.

    Parameters
    ----------
    source : str or path
        `mnist`, `fashion-mnist` or `digits`; or the path of a table, of images in a file, or of a
        folder with such: docs/data.md lists the formats.
    split : {"train", "test"}
        Sources without a test split of their own have only "train"; see `has_split`.
    limit : int, optional
        How many rows to keep: the first ones, or random ones, in random order, with a `seed`.
        More than there are keeps all of them.
    seed : int, optional
        Makes `limit` draw at random, without replacement; the same seed gives the same rows.
    data_dir : path, optional
        Where a catalogue name is looked for first, and fetched to.
    kind : {"auto", "images", "table"}
        What the source holds; "auto" finds it from the source.
    resize : (height, width), optional
        The size to bring images to.
    **table
        What is said of a table; see Other Parameters.

    Returns
    -------
    Dataset or Table
        Images, or a table of numbers.

    Other Parameters
    ----------------
    label : str, optional
        Name of a table's column of labels, or its number from 1 (-1: the last).
    drop : sequence of str
        Names of a table's columns to leave out.
    columns : sequence of str
        The features that a table must have, as for `load_samples`; and so the next three.
    n_features : int, optional
    first_index : int, optional
    left_out : sequence of int
    progress : bool
        Show the progress of a download, and of reading a large table from text, on stderr.

    Raises
    ------
    DataError
        The source does not exist, is malformed, or has no such split.
    DownloadError
        A catalogue name that is not on this machine, and that no mirror gave.
    UsageError
        An unknown split or kind, a limit below 1, an option that is for tables given for images,
        or the reverse.

    Examples
    --------
    >>> from gpusvm.data import load_dataset
    >>> load_dataset("digits", "test").images.shape
    (360, 8, 8)
    """
    _check_split(split)
    _check_kind(kind)
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    found = _read(source, split, kind, _table_options("load_dataset", table), data_dir, resize)
    is_table = isinstance(found, Contents)
    samples, labels = found[:2]
    if labels is not None and len(labels) != samples.shape[0]:
        what = "rows" if is_table else "images"
        raise DataError(
            f"{source}: has {samples.shape[0]:,} {split} {what} but {len(labels):,} labels; they must pair up"
        )
    rows = _rows(samples.shape[0], limit, seed)
    samples, labels = samples[rows], None if labels is None else labels[rows]
    if isinstance(found, Contents):
        _require_images(source, resize)
        ids = None if found.ids is None else found.ids[rows]
        return Table.of(found._replace(X=samples, labels=labels, ids=ids), os.fspath(source), split)
    samples = resized(samples, resize)
    return Dataset(samples, labels, os.fspath(source), split, digest_of(samples, labels), resize is not None)


def _table_options(caller: str, given: _OfTables) -> TableOptions:
    """The options by these names. Raises TypeError for any other name, as Python does."""
    for name in given:
        if name not in _OfTables.__annotations__:
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
    return TableOptions(
        label=given.get("label"),
        drop=tuple(given.get("drop", ())),
        columns=tuple(given.get("columns", ())),
        n_features=given.get("n_features"),
        first_index=given.get("first_index"),
        left_out=tuple(given.get("left_out", ())),
        progress=given.get("progress", False),
    )


def has_split(source: PathLike, split: str, data_dir: PathLike | None = None) -> bool:
    """Whether a source has that split.

    Nothing is fetched, and only as much is read as it takes to tell. Catalogue names have both. An
    IDX folder has those whose images are in it, an .npz those it has keys for, a picture folder
    both if it holds `train/` and `test/`, a folder of tables those that `train.csv` and `test.csv`
    and the like are for; anything else only "train".

    Parameters
    ----------
    source : str or path
        As for `load_dataset`.
    split : {"train", "test"}
    data_dir : str or path, optional
        Not looked at: whether a catalogue name has a split is known.

    Returns
    -------
    bool

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
    form = find_format(path)
    if form in ("idx", "idx folder"):
        return idx_folder.has_split(path, split)
    if form == "npz":
        return npz.has_split(path, split)
    if form in ("npy", "npy folder"):
        return npy.has_split(path, split)
    if form == "picture folder":
        return picture_folder.has_split(path, split)
    if form == "table folder":
        parts = table_folder.parts(path)
        return split in parts or has_split(parts["train"][0], split)
    return split == "train"


def load_samples(
    path: PathLike,
    *,
    kind: str = "auto",
    resize: ImageShape | None = None,
    **table: Unpack[_OfTables],
) -> Table | tuple[np.ndarray, list[str]]:
    """Load what is to be predicted, labels or not: a table, or images as `load_images` does.

    Parameters
    ----------
    path : str or path
        A file, or a folder of pictures.
    kind : {"auto", "images", "table"}
        What it holds; "auto" finds it from the file.
    resize : (height, width), optional
        The size to bring images to.
    **table
        What is said of a table; see Other Parameters.

    Returns
    -------
    Table, or images (n, height, width) uint8 with their ids (list of str)

    Other Parameters
    ----------------
    label : str, optional
        Where a table may have labels: the name of their column, or its number from 1 (-1: the
        last).
    drop : sequence of str
        Names of a table's columns to leave out.
    columns : sequence of str
        The features that are needed. Where the file names its columns, they are found by these
        names, in this order, and any others are left out with a DataWarning.
    n_features : int, optional
        How many features are needed, where they have no names. A sparse file may show fewer.
    first_index : int, optional
        The `Table.first_index` of the training data, where that was a sparse file.
    left_out : sequence of int
        The `Table.left_out` of the training data: without names, these are left out of a file with
        as many columns.
    progress : bool
        Show the progress of reading a large table from text, on stderr.

    Raises
    ------
    DataError
        There is no such file, it is malformed, or it lacks one of the `columns`.
    """
    _check_kind(kind)
    file = Path(path)
    found = _read_samples(file, kind, _table_options("load_samples", table), resize)
    if isinstance(found, Contents):
        _require_images(path, resize)
        return Table.of(found, os.fspath(path), "test")
    return resized(found[0], resize), found[1]


def load_images(path: PathLike, *, resize: ImageShape | None = None) -> tuple[np.ndarray, list[str]]:
    """Load images to predict, labels or not.

    Parameters
    ----------
    path : str or path
        An IDX file of images, a CSV in Kaggle's layout with or without labels, an .npz, one
        picture, or a folder of pictures.
    resize : (height, width), optional
        The size to bring them to.

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
    found = _read_samples(Path(path), "images", TableOptions(), resize)
    assert not isinstance(found, Contents)  # images were asked for
    return resized(found[0], resize), found[1]


def _read_samples(
    file: Path, kind: str, options: TableOptions, resize: ImageShape | None
) -> Contents | tuple[np.ndarray, list[str]]:
    """A table, or images and their ids.

    Pictures are already resized, since they may be of several sizes.
    """
    if str(file) in CATALOGUE and not file.exists():
        raise DataError(
            f"{file}: is the name of a data set, and a file is needed here; gpusvm evaluate MODEL {file} takes names"
        )
    form = find_format(file)
    _require_kind(file, form, kind)
    if form == "picture folder":
        return picture_folder.read_flat_folder(file, resize)
    if form == "picture":
        return images.read_pictures([file], file, resize), [file.name]
    if form == "idx folder":
        raise DataError(f"{file}: is a folder of IDX files; name the one to predict")
    if form == "npy folder":
        raise DataError(f"{file}: is a folder of arrays; name the one to predict")
    if form == "table folder":
        parts = table_folder.parts(file)
        of_test = parts.get("test", parts["train"])
        raise DataError(f"{file}: is a folder of tables; name the one to predict, such as {of_test[0]}")
    found: np.ndarray | _Found
    if form == "npz":
        found = npz.read_samples(file, kind)
        found = table_columns.pick(found, options, file) if isinstance(found, Contents) else found
    elif form == "idx":
        found = idx_folder.read_images(file)
    else:
        found = _read_table_file(file, form, "train", kind, options, resize)
    if isinstance(found, Contents):
        return found
    pixels = found[0] if isinstance(found, tuple) else found
    return pixels, [str(number) for number in range(1, len(pixels) + 1)]


def _read(
    source: PathLike,
    split: str,
    kind: str,
    options: TableOptions,
    data_dir: PathLike | None,
    resize: ImageShape | None,
) -> _Found:
    if _is_name(source):
        if kind == "table":
            raise DataError(f"{source}: holds images, not a table; leave out --table")
        _refuse_columns(source, options)
        return read_split(str(source), split, data_dir, options.progress)
    return _read_path(Path(source), split, kind, options, resize)


def _is_name(source: PathLike) -> bool:
    return isinstance(source, str) and source in CATALOGUE


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"split must be 'train' or 'test', not {split!r}")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"kind must be 'auto', 'images' or 'table', not {kind!r}")


def _require_kind(path: Path, form: str, kind: str) -> None:
    if kind == "table" and form in ALWAYS_IMAGES:
        raise DataError(f"{path}: holds images, not a table; leave out --table")
    if kind == "images" and form in ALWAYS_TABLES:
        raise DataError(f"{path}: holds a table, not images; leave out --images")


def _read_path(path: Path, split: str, kind: str, options: TableOptions, resize: ImageShape | None) -> _Found:
    form = find_format(path)
    _require_kind(path, form, kind)
    if not has_split(path, split):
        raise DataError(f"{path}: has no {split} split; name a source that does, or use its other split")
    if form in ALWAYS_IMAGES:
        _refuse_columns(path, options)
    if form in ("idx", "idx folder"):
        return idx_folder.read(path, split)
    if form == "picture folder":
        return picture_folder.read_folder(path, split, resize)
    if form == "picture":
        return images.read_pictures([path], path, resize), None
    if form == "npz":
        return _picked(npz.read_any(path, split, kind), options, path)
    if form == "table folder":
        return _read_table_folder(path, split, kind, options, resize)
    if form == "parquet" and (part := table_folder.part_of(path)):
        warn(f"{path}: is part {part[0]} of {part[1]}; name its folder to read all of them", DataWarning)
    return _read_table_file(path, form, split, kind, options, resize)


def _read_table_folder(folder: Path, split: str, kind: str, options: TableOptions, resize: ImageShape | None) -> _Found:
    """What the files for a split hold; of a folder with one file alone, that file's own split."""
    parts = table_folder.parts(folder)
    files = parts.get(split, parts["train"])
    names = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1:,} more"
    warn(f"{folder}: its {split} part is read from {names}", DataWarning)
    if len(files) > 1:
        return parquet.read_any(folder, options, kind, resize, files=files)
    is_own = split not in parts or not has_split(files[0], "train")
    return _read_path(files[0], split if is_own else "train", kind, options, resize)


def _read_table_file(
    path: Path, form: str, split: str, kind: str, options: TableOptions, resize: ImageShape | None
) -> _Found:
    """What is in a file of a format that tables come in, and some images."""
    if form == "csv":
        return delimited.read_any(path, options, kind)
    if form == "svmlight":
        return table_columns.pick(svmlight.read(path, options), options, path)
    if form == "arff":
        return arff.read(path, options)
    if form == "parquet":
        return parquet.read_any(path, options, kind, resize)
    return _picked(npy.read(path, split, kind), options, path)


def _picked(found: _Found, options: TableOptions, path: Path) -> _Found:
    """What is in arrays.

    Of a table, columns that the user names by number become its labels or are dropped.
    """
    if isinstance(found, Contents):
        return table_columns.pick(found, options, path)
    _refuse_columns(path, options)
    return found


def _refuse_columns(source: PathLike, options: TableOptions) -> None:
    if options.drop or options.label is not None:
        raise UsageError(f"--label and --drop name columns of a table, and {source} holds images; leave them out")


def _require_images(source: PathLike, resize: ImageShape | None) -> None:
    if resize is not None:
        raise UsageError(f"--resize is for images, and {source} is a table; leave it out, or read it with --images")


def _rows(n: int, limit: int | None, seed: int | None) -> slice | np.ndarray:
    if limit is None:
        return slice(None)
    if seed is None:
        return slice(limit)
    return np.random.default_rng(seed).permutation(n)[:limit]

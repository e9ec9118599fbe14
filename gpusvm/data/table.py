"""Tables: samples as rows of numbers, what every reader of one hands on, and what it may hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.sparse

from gpusvm.errors import DataError

_MOST_OF_NAMES = 200
LARGEST_LABEL = 2**53
"""From here on a float64 does not tell whole numbers apart."""


@dataclass(frozen=True)
class TableOptions:
    """What a user says of a table; see `gpusvm.data.load_samples` for the parts.

    `progress` is whether to show that of reading.
    """

    label: str | None = None
    drop: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    n_features: int | None = None
    first_index: int | None = None
    left_out: tuple[int, ...] = ()
    progress: bool = field(default=False, compare=False)


class Contents(NamedTuple):
    """What a reader found in a file; see `Table` for the parts."""

    X: np.ndarray | scipy.sparse.csr_matrix
    labels: np.ndarray | None
    columns: tuple[str, ...] = ()
    label_name: str | None = None
    ids: np.ndarray | None = None
    id_name: str | None = None
    label_number: int | None = None
    first_index: int | None = None
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Table:
    """Samples as rows of numbers, with their labels, and where they came from.

    Attributes
    ----------
    X : ndarray or scipy.sparse.csr_matrix of shape (n, n_features)
        float64, or float32 where the file holds that; finite. A CSR matrix is float64, its indices
        sorted.
    labels : ndarray of shape (n,) or None
        int64, or str where classes are named with words, or float64 where the labels are real
        numbers; None where there are none.
    columns : tuple of str
        Names of the features; () where the file has none.
    label_name : str or None
        The column that the labels were taken from, where it has a name.
    ids : ndarray of shape (n,) of str, or None
        What the file calls each row, from a column that is neither feature nor label.
    id_name : str or None
        The name of that column.
    name : str
        The path as it was given.
    split : str
        "train" or "test".
    digest : str
        SHA-256, in hexadecimal, of the shape, the numbers and the labels as loaded.
    label_number : int or None
        The number of the column that the labels were taken from, from 1, where the file has no
        header.
    first_index : int or None
        The number of the first feature in a svmlight file, 0 or 1; None for other tables. Files
        that belong together are to be read with one, since a file need not show its first feature.
    left_out : tuple of int
        The numbers of the columns that are neither features nor labels, from 1, where the file has
        no header.
    """

    X: np.ndarray | scipy.sparse.csr_matrix
    labels: np.ndarray | None
    columns: tuple[str, ...]
    label_name: str | None
    ids: np.ndarray | None
    id_name: str | None
    name: str
    split: str
    digest: str
    label_number: int | None = None
    first_index: int | None = None
    left_out: tuple[int, ...] = ()
    unit: ClassVar[str] = "row"

    @classmethod
    def of(cls, contents: Contents, name: str, split: str) -> Table:
        """The table of what a reader found, with its digest.

        Parameters
        ----------
        contents : Contents
        name : str
            The path as it was given.
        split : {"train", "test"}

        Returns
        -------
        Table
        """
        digest = digest_of(contents.X, contents.labels)
        return cls(**contents._asdict(), name=name, split=split, digest=digest)

    def __len__(self) -> int:
        return self.X.shape[0]

    @property
    def samples(self) -> np.ndarray | scipy.sparse.csr_matrix:
        """X: what a model's steps take."""
        return self.X

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    def take(self, rows: np.ndarray | slice) -> Table:
        """The table of these rows (int64) only, with a digest of its own.

        Parameters
        ----------
        rows : (n,) int64 array or slice

        Returns
        -------
        Table
        """
        labels = None if self.labels is None else self.labels[rows]
        ids = None if self.ids is None else self.ids[rows]
        X = self.X[rows]
        return replace(self, X=X, labels=labels, ids=ids, digest=digest_of(X, labels))

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
            if self.columns:
                shown = ", ".join(self.columns)
                shown = shown if len(shown) <= _MOST_OF_NAMES else f"{shown[:_MOST_OF_NAMES]}..."
                raise DataError(
                    f"{self.name}: no column is recognised as the labels: name it, --label NAME (its columns: {shown})"
                )
            raise DataError(
                f"{self.name}: has no labels; give an .npz or .npy an array y beside X, or say which column holds them:"
                " --label NUMBER, from 1 (-1: the last)"
            )
        return self.labels


def as_features(array: np.ndarray, where: str) -> np.ndarray:
    """Check an array of samples: (n, n_features) float64, or float32 if it is that.

    Parameters
    ----------
    array : ndarray of shape (n, n_features)
        Finite numbers in any real dtype.
    where : str
        File and key, for the error message.

    Raises
    ------
    DataError
        Wrong shape or dtype, no samples, missing or infinite values.
    """
    if array.ndim != 2:
        raise DataError(f"{where}: has shape {array.shape}; a table must be (n, n_features)")
    if array.size == 0:
        raise DataError(f"{where}: holds no samples (shape {array.shape}); give a file with at least one")
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where}: has dtype {array.dtype}; features must be numbers")
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    X = np.ascontiguousarray(array, dtype=dtype)
    require_finite(X, where)
    return X


def require_finite(X: np.ndarray, where: str, columns: tuple[str, ...] = ()) -> None:
    """Raise DataError where a value is missing (NaN) or infinite.

    It says how many are, in how many columns, and the row and column of the first.
    """
    n_bad = _per_column(X)
    if not n_bad.any():
        return
    column = int(np.flatnonzero(n_bad)[0])
    row = int(np.flatnonzero(~np.isfinite(X[:, column]))[0])
    problem = "is missing (NaN)" if np.isnan(X[row, column]) else f"is {X[row, column]}"
    name = f" ({columns[column]:.40})" if columns else ""
    raise DataError(
        f"{where}: {n_bad.sum():,} values in {np.count_nonzero(n_bad):,} columns are missing or infinite; the first is"
        f" row {row + 1}, column {column + 1}{name}, which {problem}; fill them in, or leave out those rows or columns"
    )


def as_labels(array: np.ndarray, where: str) -> np.ndarray:
    """Labels (n,) as int64 where all are whole numbers, str where they are words, else float64.

    Raises
    ------
    DataError
        Wrong shape or dtype, a label that is missing or infinite.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{where}: has shape {array.shape}; labels must be (n,), one a sample: of a column for each class, take"
            " y.argmax(axis=1)"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where}: has dtype {array.dtype}; labels must be numbers or strings")
    if array.dtype.kind in "uib":
        return array.astype(np.int64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"{where}: {len(bad):,} labels are missing or infinite, the first in row {bad[0] + 1}; leave out those rows"
        )
    whole = (array == np.floor(array)).all() and np.abs(array).max(initial=0) <= LARGEST_LABEL
    return array.astype(np.int64 if whole else np.float64)


def labels_of_images(array: np.ndarray, where: str) -> np.ndarray:
    """Labels (n,) as `as_labels` gives them, int64 or str.

    Raises DataError for real numbers too, whole or not.
    """
    if array.dtype.kind == "f":
        raise DataError(f"{where}: has dtype {array.dtype}; labels must be integers or strings")
    return as_labels(array, where)


def _per_column(X: np.ndarray) -> np.ndarray:
    """How many values of each column are NaN or infinite, looking at some rows at a time."""
    n_bad = np.zeros(X.shape[1], dtype=np.int64)
    step = max(1, 2**20 // X.shape[1])
    for start in range(0, len(X), step):
        n_bad += (~np.isfinite(X[start : start + step])).sum(axis=0)
    return n_bad


def digest_of(samples: np.ndarray | scipy.sparse.csr_matrix, labels: np.ndarray | None) -> str:
    """SHA-256, in hexadecimal, of images or rows (n, ...) with their labels (n,).

    It is that of the shape, then all values.
    """
    digest = hashlib.sha256(repr(samples.shape).encode())
    parts = (samples,) if isinstance(samples, np.ndarray) else (samples.indptr, samples.indices, samples.data)
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype="<i8" if part.dtype.kind == "i" else part.dtype).data)
    if labels is not None:
        digest.update(_label_bytes(labels))
    return digest.hexdigest()


def _label_bytes(labels: np.ndarray) -> bytes:
    if labels.dtype.kind == "U":
        return "\n".join(labels).encode("utf-8", "surrogatepass")
    return labels.astype("<f8" if labels.dtype.kind == "f" else "<i8").tobytes()

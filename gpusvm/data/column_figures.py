"""Figures of a table's columns, and which of them need a look: constant ones, copies, and those of another size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from gpusvm.data.table import Table

UNEVEN = 100.0
"""Factor between the standard deviations of two columns from which on the smaller one hardly counts in a kernel."""

_ROWS_TO_TELL = 20
"""Fewer rows may be numbered by chance."""

_BLOCK_VALUES = 2**22
"""Values of a dense table looked at together."""


@dataclass(frozen=True, eq=False)
class ColumnFigures:
    """Of each column: all (n_features,) float64. A sparse table's zeros count as any other value."""

    least: np.ndarray
    mean: np.ndarray
    largest: np.ndarray
    deviation: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """Indices of the columns in which all values are the same."""
        return np.flatnonzero(self.least == self.largest)


def column_name(table: Table, column: int) -> str:
    """What a column is called, by its number from 1 where it has no name."""
    return table.columns[column] if table.columns else f"column {column + 1}"


def column_figures(table: Table) -> ColumnFigures:
    """Least, mean, largest value and standard deviation of each column."""
    X = table.X
    if isinstance(X, np.ndarray):
        parts = [_dense_figures(X[:, columns]) for columns in _blocks(X)]
        return ColumnFigures(*(np.concatenate(figure) for figure in zip(*parts, strict=True)))
    n = X.shape[0]
    mean = np.asarray(X.mean(axis=0)).ravel()
    # Around the mean, not E[x^2] - E[x]^2, which cancels.
    columns = X.tocsc()
    n_zeros = n - np.diff(columns.indptr)
    centred = columns.data - np.repeat(mean, np.diff(columns.indptr))
    squares = np.bincount(np.repeat(np.arange(X.shape[1]), np.diff(columns.indptr)), centred**2, X.shape[1])
    deviation = np.sqrt((squares + n_zeros * mean**2) / n)
    return ColumnFigures(X.min(axis=0).toarray().ravel(), mean, X.max(axis=0).toarray().ravel(), deviation)


def n_distinct(table: Table, column: int) -> int:
    """How many different values a column has."""
    values = table.X[:, [column]]
    return len(np.unique(values if isinstance(values, np.ndarray) else values.toarray()))


def duplicates(table: Table, figures: ColumnFigures) -> list[tuple[int, int]]:
    """Columns that are copies of an earlier one, each with that one; constant columns aside, in their order."""
    first: dict[bytes, int] = {}
    found = []
    constant = set(figures.constant.tolist())
    for column, digest in enumerate(_column_digests(table.X)):
        if column in constant:
            continue
        if digest in first:
            found.append((column, first[digest]))
        first.setdefault(digest, column)
    return found


def row_numbers(table: Table) -> int | None:
    """The column that numbers the rows, from 0 or 1 in their order, where there are rows enough to tell."""
    n = len(table)
    if n < _ROWS_TO_TELL or not isinstance(table.X, np.ndarray):
        return None
    for column in np.flatnonzero((table.X[1] - table.X[0] == 1) & (table.X[-1] - table.X[0] == n - 1)):
        values = table.X[:, column]
        if values[0] in (0, 1) and (np.diff(values) == 1).all():
            return int(column)
    return None


def uneven(figures: ColumnFigures) -> tuple[int, int, float] | None:
    """The columns that vary least and most, and the factor between their deviations, if that is above `UNEVEN`."""
    varying = np.flatnonzero(figures.deviation > 0)
    if len(varying) < 2:
        return None
    deviations = figures.deviation[varying]
    small, large = varying[deviations.argmin()], varying[deviations.argmax()]
    factor = float(figures.deviation[large] / figures.deviation[small])
    return (int(small), int(large), factor) if factor >= UNEVEN else None


def _blocks(X: np.ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // len(X))
    for start in range(0, X.shape[1], step):
        yield slice(start, start + step)


def _dense_figures(X: np.ndarray) -> tuple[np.ndarray, ...]:
    with np.errstate(over="ignore"):  # of numbers near float64's end, the deviation is infinite
        return X.min(axis=0), X.mean(axis=0, dtype=np.float64), X.max(axis=0), X.std(axis=0, dtype=np.float64)


def _column_digests(X: np.ndarray | scipy.sparse.csr_matrix) -> Iterator[bytes]:
    if isinstance(X, np.ndarray):
        for columns in _blocks(X):
            for column in np.ascontiguousarray(X[:, columns].T):
                yield hashlib.sha256((column + 0.0).data).digest()  # -0.0 is 0.0
        return
    columns = X.tocsc()
    for start, stop in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        rows, values = columns.indices[start:stop], columns.data[start:stop]
        kept = values != 0
        yield hashlib.sha256(rows[kept].astype(np.int64).tobytes() + values[kept].tobytes()).digest()

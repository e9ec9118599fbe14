"""Figures of a table's columns, and which of them need a look.

These are constant ones, copies, those of another size, and those with values that stand for
missing ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse

from gpusvm.data.table import Table

UNEVEN = 100.0
"""Factor between the standard deviations of two columns from which on the smaller one hardly
counts in a kernel."""

FAR = 1.5
"""Times the range of a column's other values, from which on a value is far outside it."""

_MOST_NAMED = 8
_MOST_STAND_INS = 3
"""So many different ones are told of a column: refused, unknown, not asked."""

# Whole types at their end, as programs fill in what they lack; floating-point ones are above
# _ENORMOUS.
_ENDS_OF_TYPES = frozenset({32767.0, 32768.0, 65535.0, 2147483647.0, 2147483648.0, 4294967295.0})
_ENORMOUS = 1e30

_ROWS_TO_TELL = 20
"""Fewer rows may be numbered by chance."""

_BLOCK_VALUES = 2**22
"""Values of a dense table looked at together."""


@dataclass(frozen=True, eq=False)
class ColumnFigures:
    """Figures of each column, all (n_features,) float64. Zeros of a sparse table count too."""

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
    return len(np.unique(_values_of(table, column)))


def duplicates(table: Table, figures: ColumnFigures) -> list[tuple[int, int]]:
    """Columns that are copies of an earlier one, each with that one, in their order.

    Constant columns are left out.
    """
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
    """The column that numbers the rows, from 0 or 1 in order, where rows are enough to tell."""
    n = len(table)
    if n < _ROWS_TO_TELL or not isinstance(table.X, np.ndarray):
        return None
    for column in np.flatnonzero((table.X[1] - table.X[0] == 1) & (table.X[-1] - table.X[0] == n - 1)):
        values = table.X[:, column]
        if values[0] in (0, 1) and (np.diff(values) == 1).all():
            return int(column)
    return None


class StandIn(NamedTuple):
    """A value that seems to stand for missing ones in a column.

    `n_rows` rows have it, and `least` and `largest` are the range of the others.
    """

    column: int
    value: float
    n_rows: int
    least: float
    largest: float


def stand_ins(table: Table) -> list[StandIn]:
    """Values that seem to stand for missing ones, such as -999, 9999 or 1e20.

    Each is in several rows of a column and far outside the range of its others. People write them
    for a value that is not known, and a kernel takes them for what they say.
    """
    found: list[StandIn] = []
    for column, (least, largest) in enumerate(zip(*_ends(table.X), strict=True)):
        if not _is_as_people_write(least) and not _is_as_people_write(largest):
            continue
        values, counts = np.unique(_values_of(table, column), return_counts=True)
        found += _stand_ins_among(column, values.tolist(), counts.tolist())
    return found


def told_stand_ins(table: Table, found: Sequence[StandIn]) -> str:
    """Which values those are, in which columns and how many rows, and what to do."""
    named = [
        f"{each.value:.7g} in {each.n_rows:,} rows of {column_name(table, each.column):.40}"
        f" (the others: {each.least:.6g} to {each.largest:.6g})"
        for each in found[:_MOST_NAMED]
    ]
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    return (
        f"{', '.join(named)}{more}: that may stand for a missing value, and counts as a number; fill it in, or leave"
        " out the column (--drop)"
    )


def _stand_ins_among(column: int, values: list[float], counts: list[int]) -> list[StandIn]:
    """Those among the different values of a column, ascending, which it has `counts` times."""
    found: list[tuple[float, int]] = []
    for _ in range(2):  # those at one end may hide others at the other one
        if n := _n_far_below(values, counts):
            found += zip(values[:n], counts[:n], strict=True)
            values, counts = values[n:], counts[n:]
        if n := _n_far_below([-value for value in reversed(values)], counts[::-1]):
            found += zip(values[-n:], counts[-n:], strict=True)
            values, counts = values[:-n], counts[:-n]
    return [StandIn(column, value, count, values[0], values[-1]) for value, count in found]


def _n_far_below(values: list[float], counts: list[int]) -> int:
    """How many of the least values mean missing ones, and are far below all others.

    They may be near each other.
    """
    for n in range(min(_MOST_STAND_INS, len(values) - 2), 0, -1):
        least, largest, gap = values[n], values[-1], values[n] - values[n - 1]
        factor = 1.0 if values[n - 1] < 0 <= least else FAR  # below what is never negative, nearer ones stand out too
        are_meant = all(map(_is_as_people_write, values[:n])) and min(counts[:n]) > 1
        if are_meant and gap >= factor * (largest - least):
            return n
    return 0


def _is_as_people_write(value: float) -> bool:
    """Whether people or programs write this for a value that is missing.

    They write -999, 9999, 88, 1e20, or the end of a type.
    """
    size = abs(value)
    if size >= _ENORMOUS or size in _ENDS_OF_TYPES:
        return True
    if size < 66:
        return False
    digits = f"{size:.7g}".partition("e")[0].replace(".", "")
    is_round = digits.rstrip("0") == "1" and size >= 1000
    return is_round or (len(digits) > 1 and len(set(digits)) == 1 and digits[0] in "789")


def _ends(X: np.ndarray | scipy.sparse.csr_matrix) -> tuple[list[float], list[float]]:
    """The least and the largest value of each column."""
    least, largest = X.min(axis=0), X.max(axis=0)
    if isinstance(X, np.ndarray):
        return least.tolist(), largest.tolist()
    return least.toarray().ravel().tolist(), largest.toarray().ravel().tolist()


def _values_of(table: Table, column: int) -> np.ndarray:
    """All values (n,) of a column, in the precision of the table."""
    values = table.X[:, [column]]
    return (values if isinstance(values, np.ndarray) else values.toarray()).ravel()


def uneven(figures: ColumnFigures) -> tuple[int, int, float] | None:
    """The columns that vary least and most, and the factor between their deviations.

    None where that is below `UNEVEN`, or fewer than two columns vary.
    """
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

"""How a table is written as text, judged by its first lines.

That is its separator, decimal mark, header and encoding.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpusvm.data import columns
from gpusvm.data.column_faults import DECIMAL_COMMA
from gpusvm.data.columns import LABEL_NAMES
from gpusvm.data.packed import read_head
from gpusvm.data.pixels import look_like_images
from gpusvm.data.text import decode_head, find_encodings, refuse_what_is_no_table
from gpusvm.errors import DataError, DataWarning, warn

# In the order in which they are tried; None is any number of spaces.
_SEPARATORS = ("\t", ";", ",", "|", None)
_SAMPLE_ROWS = 50
_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
_POINT_OF_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+")
# 1,234 is one number with a decimal comma, and another with a comma between thousands.
_AMBIGUOUS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True)
class Layout:
    """How a file is written, judged by its first lines."""

    path: Path
    encoding: str
    separator: str | None  # None: spaces
    decimal: str  # "." or ","
    names: tuple[str, ...]  # () without a header
    n_columns: int
    start: int  # line number of the first row, from 1
    sample: tuple[tuple[str, ...], ...]  # the first rows
    comment: str = "#"
    quote: str = '"'
    is_packed: bool = False
    has_returns: bool = False  # lines end in carriage returns alone

    def is_id(self, column: int) -> bool:
        """Whether a column is named as those are that name rows."""
        return bool(self.names) and (self.names[column] == "" or columns.names_ids(self.names[column]))

    @property
    def has_words(self) -> bool:
        """Whether a column has no name, as pandas' row numbers, or holds labels that are words."""
        labels = [c for c, name in enumerate(self.names) if name.lower() in LABEL_NAMES]
        of_words = any(columns.number(row[c]) is None for row in self.sample for c in labels if c < len(row) and row[c])
        return of_words or "" in self.names

    @property
    def is_plain(self) -> bool:
        """Whether the reader of images in Kaggle's layout reads it."""
        is_ascii = self.encoding == "utf-8-sig" and self.separator == "," and self.start == 1 + bool(self.names)
        return is_ascii and self.decimal == "." and not self.is_packed and not self.has_returns


def find_layout(path: Path) -> Layout:
    """How the file is written, judged by its first lines.

    Raises DataError where they are those of no table.
    """
    head = read_head(path)
    refuse_what_is_no_table(head, path)
    lines = decode_head(head, path).split("\n")
    layout = layout_of(lines[:-1] if len(lines) > 1 else lines, find_encodings(head, path)[0], path)
    with path.open("rb") as file:
        start = file.read(len(head))
    has_returns = b"\r" in start and b"\n" not in start
    return replace(layout, is_packed=start != head, has_returns=has_returns)


def looks_like_images(layout: Layout) -> bool:
    """Whether the rows are square images; see `pixels.look_like_images`."""
    label = next((c for c, name in enumerate(layout.names) if name.lower() in LABEL_NAMES), None)
    rest = [column for column in range(layout.n_columns) if column != label and not layout.is_id(column)]
    rows = [row for row in layout.sample if len(row) == layout.n_columns]
    numbers = [[read_number(row[column], layout.decimal) for column in rest] for row in rows]
    values = np.array([[np.nan if cell is None else cell for cell in row] for row in numbers], dtype=np.float64)
    values = values.reshape(len(rows), len(rest))
    names = [layout.names[column] for column in rest] if layout.names else []
    candidates = [values] if names else [values, values[:, 1:], values[:, :-1]]
    return any(look_like_images(names, candidate) for candidate in candidates)


def layout_of(lines: list[str], encoding: str, path: Path) -> Layout:
    """How a file is written that begins with these lines; as `find_layout`."""
    start, separator, comment = 0, "", ""
    while start < len(lines) and (not lines[start].strip() or lines[start].startswith("#") or start == 0):
        line = lines[start].lstrip("\ufeff")
        if match := _SEP_LINE.fullmatch(line):
            separator = match[1]
        elif line.startswith("#"):
            comment = line.lstrip("# ")
        elif line.strip():
            break
        start += 1
    body = [line for line in lines[start:] if line.strip() and not line.startswith("#")][:_SAMPLE_ROWS]
    if not body:
        raise DataError(f"{path}: is empty; give a table with one sample a line")
    chosen = separator or _find_separator(body)
    rows = [tuple(row) for row in _cells(body, chosen)]
    _refuse_title(rows, start + 1, path)
    decimal = _find_decimal(rows[1:] or rows, chosen, path)
    names = _find_names(rows, decimal)
    n_header = 1
    if not names:
        n_header = 0
        names = _names_in_comment(comment, rows, chosen)
    if n_header and len(rows) > 1 and len(rows[1]) == len(names) + 1 and rows[1][-1]:
        names = ("", *names)  # R's write.table leaves out the name of the column of row names
    n_columns = len(names) or len(rows[0])
    if n_columns == 1:
        raise DataError(
            f"{path}: line {start + 1} has one column ({rows[0][0]!r:.40}); a table has features and labels in columns,"
            " with commas, semicolons, tabs, bars or spaces between: save it so"
        )
    return Layout(path, encoding, chosen, decimal, names, n_columns, start + 1 + n_header, tuple(rows[n_header:]))


def _refuse_title(rows: list[tuple[str, ...]], line: int, path: Path) -> None:
    """Raise DataError where the first line is one cell of words, and those below have more."""
    filled = [cell for cell in rows[0] if cell]
    if len(filled) == 1 and columns.number(filled[0]) is None and sum(map(bool, rows[-1])) > 1:
        raise DataError(
            f"{path}: line {line} ({filled[0]!r:.40}) is a title over the table; remove what stands above its header"
        )


def _cells(lines: list[str], separator: str | None) -> list[list[str]]:
    if separator is None and not any('"' in line for line in lines):
        return [line.split() for line in lines]
    reader = csv.reader(lines, delimiter=separator or " ", skipinitialspace=True)
    try:
        return [[cell.strip() for cell in row] for row in reader]
    except csv.Error:
        return [[cell.strip() for cell in line.split(separator)] for line in lines]


def _find_separator(lines: list[str]) -> str | None:
    """The separator that makes the same number of cells of every line, most of them numbers."""

    def fitness(separator: str | None) -> tuple[bool, float, bool]:
        rows = _cells(lines, separator)
        lengths = [len(row) for row in rows[1:] or rows]
        cells = [cell for row in rows[1:] or rows for cell in row]
        numbers = sum(read_number(cell, "," if separator != "," else ".") is not None for cell in cells)
        even = max(lengths) > 1 and len(set(lengths)) == 1
        return even, round(numbers / max(1, len(cells)), 1), max(lengths) > 1

    return max(_SEPARATORS, key=fitness)  # the first of equals


def _find_decimal(rows: list[tuple[str, ...]], separator: str | None, path: Path) -> str:
    """The decimal mark: a comma where cells are numbers with one, and none is with a point."""
    if separator == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    with_comma = [cell for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    with_point = [cell for cell in cells if "." in cell and columns.number(cell) is not None]
    is_ambiguous = all(_AMBIGUOUS.fullmatch(cell) for cell in with_comma)
    of_thousands = with_point and all(_POINT_OF_THOUSANDS.fullmatch(cell) for cell in with_point)
    if of_thousands and not is_ambiguous and len(with_point) < len(with_comma):
        raise DataError(
            f"{path}: has decimal commas ({with_comma[0]!r}), and points that seem to stand between thousands"
            f" ({with_point[0]!r}); export it with nothing between thousands"
        )
    if not with_comma or with_point:
        return "."
    if is_ambiguous:
        value = with_comma[0].replace(",", ".")
        warn(f"{path}: its commas are taken for decimal marks: {with_comma[0]} is {value}", DataWarning)
    return ","


def read_number(cell: str, decimal: str) -> float | None:
    """A cell as a number with this decimal mark (a point is always one); None where it is none."""
    found = columns.number(cell)
    return columns.number(cell.replace(",", ".")) if found is None and decimal == "," else found


def _find_names(rows: list[tuple[str, ...]], decimal: str) -> tuple[str, ...]:
    """The first row, where it is a header.

    It is one of words over numbers, words alone, a usual name of the labels, or 0, 1, 2, ...
    """
    first, rest = rows[0], rows[1:]
    is_word = [bool(cell) and read_number(cell, decimal) is None for cell in first]
    over_numbers = any(
        word and any(column < len(row) and read_number(row[column], decimal) is not None for row in rest)
        for column, word in enumerate(is_word)
    )
    has_label = any(cell.lower() in LABEL_NAMES for cell in first)
    all_words = all(is_word) and (not rest or len(set(first)) == len(first))
    counts = len(first) > 3 and first == tuple(map(str, range(len(first))))  # as pandas names columns without names
    return first if over_numbers or has_label or all_words or counts else ()


def _names_in_comment(comment: str, rows: list[tuple[str, ...]], separator: str | None) -> tuple[str, ...]:
    """The names in the comment above the first row, as numpy.savetxt writes its header."""
    if not comment:
        return ()
    names = tuple(_cells([comment], separator)[0])
    is_header = len(names) == len(rows[0]) > 1 and all(name and columns.number(name) is None for name in names)
    return names if is_header else ()

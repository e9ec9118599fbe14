"""CSV in Kaggle's layout: `label,pixel0,...` for training, `pixel0,...` for a test set.

A block of lines that holds nothing but small whole numbers, as such files do, is parsed with a few
NumPy operations on its bytes. Any other block goes line by line through a parser that knows about
spaces, quotes and `12.0`, and can say exactly which cell is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import IO

import numpy as np

from gpusvm.data.column_faults import option_of
from gpusvm.data.packed import GZIP_MAGIC
from gpusvm.data.pixels import image_shape, unlike_others
from gpusvm.data.table import LARGEST_LABEL
from gpusvm.errors import DataError, DataWarning, warn

_BLOCK_BYTES = 1 << 20
_COMMA, _NEWLINE, _ZERO = b","[0], b"\n"[0], b"0"[0]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A row is one image. What the parser takes for a line is many times its length.
_LONGEST_LINE = 1 << 22
# Longer cells are no number of ours; NumPy would pad every cell of the row to the longest.
_LONGEST_CELL = 32
_ROW_NAMES = {"", "id", "imageid", "image_id", "index", "unnamed: 0"}
# Where no column is called label, one of these is it.
_LABEL_NAMES = ("label", "labels", "class", "target", "y", "digit", "category", "species")
# A column of labels has few values, and none of them nearly everywhere, as a pixel in a corner
# has.
_MOST_CLASSES = 64
_MOST_OF_ONE_CLASS = 0.9
_ONLY_RETURNS = "{}: ends its lines with carriage returns alone (\\r); save it with ordinary line ends"
_SEPARATORS = {b";": "semicolons", b"\t": "tabs", b"|": "bars", b" ": "spaces"}
_PIXELS_ARE = "pixels must be whole numbers from 0 to 255"
_LABELS_ARE = "labels must be whole numbers"


@dataclass(frozen=True)
class _Layout:
    """What the first line says about the columns of all the others."""

    path: Path
    n_columns: int
    label_column: int | None
    names: tuple[str, ...] | None
    start: int  # offset of the first row, bytes
    first_line: int  # its line number, from 1

    @property
    def pixel_columns(self) -> np.ndarray:
        return np.delete(np.arange(self.n_columns), [] if self.label_column is None else self.label_column)


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a CSV with one image a row.

    With a header, the labels are the column called `label`; where there is none, one that has
    another usual name (class, target, y, ...), and a DataWarning says so. Columns that are named
    unlike the pixels are refused. Without a header, where all columns but one make a square image
    (785 columns: 28x28), the first is the labels, or the last if that one looks like labels and
    the first does not; where both do, the file is refused.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
        Square, or (n, 1, n_pixels) where the number of pixels is no square.
    labels : ndarray of shape (n,), int64, or None where there is no label column

    Raises
    ------
    DataError
        Empty, or a cell that is missing, no number, NaN, out of range or not whole, with its line
        and column.
    """
    try:
        with path.open("rb") as file:
            layout = _read_layout(file, path)
            layout = _place_labels(file, layout)
            file.seek(layout.start)
            blocks = [_parse_block(block, line, layout) for line, block in _blocks(file, layout)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    pixels = [block[0] for block in blocks]
    n_rows = sum(map(len, pixels))
    if n_rows == 0:
        raise DataError(f"{path}: has a header and no rows; give a file with at least one image")
    images = np.concatenate(pixels).reshape(n_rows, *image_shape(pixels[0].shape[1]))
    labels = None if layout.label_column is None else np.concatenate([block[1] for block in blocks])
    return images, labels


def _read_layout(file: IO[bytes], path: Path) -> _Layout:
    start, line_number, line = 0, 0, b"\n"
    while line and not line.strip():
        start, line_number, line = file.tell(), line_number + 1, _read_line(file, path, line_number + 1)
        if start == 0 and line.startswith(_BYTE_ORDER_MARK):
            start, line = len(_BYTE_ORDER_MARK), line[len(_BYTE_ORDER_MARK) :]
    if not line:
        raise DataError(f"{path}: is empty; give a CSV with one image a row")
    _check_is_a_table(line, line_number, path)
    cells = [_unquote(cell) for cell in line.split(b",")]
    if all(map(_is_number_or_blank, cells)) and any(cells):
        label_column = 0 if _is_labelled(len(cells)) else None
        return _Layout(path, len(cells), label_column, None, start, line_number)
    names = tuple(cell.decode("utf-8", errors="replace") for cell in cells)
    return _Layout(path, len(names), _label_column(names, path), names, file.tell(), line_number + 1)


def _check_is_a_table(line: bytes, number: int, path: Path) -> None:
    """Refuse by its name what is no comma-separated table.

    It is judged by its first line. Raises DataError.
    """
    start = line.strip().lower()
    if line.startswith(GZIP_MAGIC):
        raise DataError(f"{path}: is gzip, not text; unpack it first (gunzip)")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise DataError(f"{path}: is UTF-16 text, or no text at all; save it as UTF-8")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise DataError(f"{path}: is a web page (HTML), not a table; download the file itself: a log-in may be needed")
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: is a Git LFS pointer, not the data; download the data with git lfs pull")
    if not line.endswith(b"\n") and b"\r" in line[:-1]:
        raise DataError(_ONLY_RETURNS.format(path))
    where = f"{path}: line {number}"
    if start.startswith(b"sep="):
        raise DataError(f"{where} is Excel's note of the separator (sep=); remove it, and separate columns with commas")
    if start.startswith(b"#"):
        raise DataError(f"{where} is a comment (#); remove it, so that the first line is the header or the first row")
    if b"," not in start:
        for separator, name in _SEPARATORS.items():
            if len(start.split(separator)) > 2:
                raise DataError(f"{where} separates its columns with {name}; save it with commas between columns")


def _is_labelled(n_columns: int) -> bool:
    return n_columns > 1 and _is_square(n_columns - 1) and not _is_square(n_columns)


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number


def _place_labels(file: IO[bytes], layout: _Layout) -> _Layout:
    """Where the labels are in a file without a header, by its first rows. Raises DataError."""
    if layout.names is not None or layout.label_column is None:
        return layout
    file.seek(layout.start)
    line, block = next(_blocks(file, layout))
    # The last column is read as a label here, so that neither end is held to the range of pixels
    # yet.
    try:
        rows = _parse_lines(block, line, replace(layout, label_column=layout.n_columns - 1))
    except DataError:
        return layout  # the reader proper says what is wrong
    first, last = (_looks_like_labels(rows[:, column]) for column in (0, -1))
    if first and last:
        raise DataError(
            f"{layout.path}: its labels could be the first column or the last, column {layout.n_columns};"
            " add a header line, with the name 'label' over them"
        )
    if not last:
        return layout
    warn(f"{layout.path}: the last column, {layout.n_columns}, is taken for the labels: it has no header", DataWarning)
    return replace(layout, label_column=layout.n_columns - 1)


def _looks_like_labels(column: np.ndarray) -> bool:
    counts = np.unique(column, return_counts=True)[1]
    return 2 <= len(counts) <= _MOST_CLASSES and counts.min() > 1 and counts.max() < _MOST_OF_ONE_CLASS * counts.sum()


def _label_column(names: tuple[str, ...], path: Path) -> int | None:
    lowered = [name.lower() for name in names]
    found = next((name for name in _LABEL_NAMES if name in lowered), None)
    if found is not None and lowered.count(found) > 1:
        raise DataError(f"{path}: line 1 names more than one column {found!r}; keep one")
    if found is not None and len(names) == 1:
        raise DataError(f"{path}: has a label column and no pixels; add the pixel columns")
    label = None if found is None else lowered.index(found)
    rest = [column for column in range(len(names)) if column != label]
    odd = {rest[place] for place in unlike_others([names[column] for column in rest])}
    for column in rest:
        if lowered[column] in _ROW_NAMES or column in odd:
            raise DataError(
                f"{path}: line 1, column {column + 1} ({names[column][:20]!r}) is neither the label nor a pixel;"
                f" leave it out: --drop {option_of(names[column], column)}"
            )
    if found not in (None, "label"):
        warn(f"{path}: the column {found!r} is taken for the labels", DataWarning)
    return label


def _read_line(file: IO[bytes], path: Path, number: int) -> bytes:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        if number == 1 and b"\r" in line:
            raise DataError(_ONLY_RETURNS.format(path))
        raise DataError(f"{path}: line {number} is longer than {_LONGEST_LINE:,} bytes; a row is one image")
    return line


def _blocks(file: IO[bytes], layout: _Layout) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about a block's worth at a time, with the number of the first.

    Each line ends in a line feed.
    """
    line = layout.first_line
    while block := file.read(_BLOCK_BYTES):
        block += _read_line(file, layout.path, line + block.count(b"\n"))
        if not block.endswith(b"\n"):
            block += b"\n"
        yield line, block.replace(b"\r\n", b"\n") if b"\r" in block else block
        line += block.count(b"\n")


def _parse_block(block: bytes, first_line: int, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, n_pixels) uint8 and labels (n,) int64; no labels are an empty array."""
    values = _parse_digits(block, layout)
    if values is None:
        values = _parse_lines(block, first_line, layout)
    labels = values[:, layout.label_column] if layout.label_column is not None else values[:0, 0]
    if layout.label_column == 0:
        pixels = values[:, 1:]
    elif layout.label_column is None:
        pixels = values
    else:
        pixels = values[:, layout.pixel_columns]
    return pixels.astype(np.uint8), labels.astype(np.int64)


def _parse_digits(block: bytes, layout: _Layout) -> np.ndarray | None:
    """Cells of one to three digits, all in range: (n, n_columns) int16; None for any others."""
    text = np.frombuffer(block, dtype=np.uint8)
    digits = text - _ZERO  # wraps around: whatever is no digit is more than 9
    ends = np.flatnonzero(digits > 9)
    if ends.size % layout.n_columns:
        return None
    separators = text[ends].reshape(-1, layout.n_columns)
    if (separators[:, -1] != _NEWLINE).any() or (separators[:, :-1] != _COMMA).any():
        return None
    lengths = np.diff(ends, prepend=-1) - 1
    if lengths.min() < 1 or lengths.max() > 3:
        return None
    values = digits[ends - 1].astype(np.int16)
    for place, factor in ((2, 10), (3, 100)):
        reaches = np.flatnonzero(lengths >= place)
        values[reaches] += factor * digits[ends[reaches] - place].astype(np.int16)
    table = values.reshape(-1, layout.n_columns)
    in_range = table.max() <= 255 or table[:, layout.pixel_columns].max() <= 255
    return table if in_range else None


def _parse_lines(block: bytes, first_line: int, layout: _Layout) -> np.ndarray:
    """The rows, blank lines skipped: (n, n_columns) float64.

    Raises DataError for the first bad cell.
    """
    rows = [
        _parse_line(line, number, layout)
        for number, line in enumerate(block.split(b"\n")[:-1], start=first_line)
        if line.strip()
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, layout.n_columns)


def _parse_line(line: bytes, number: int, layout: _Layout) -> np.ndarray:
    cells = [_unquote(cell) for cell in line.split(b",")]
    if len(cells) != layout.n_columns:
        raise DataError(
            f"{layout.path}: line {number} has {len(cells)} columns where the first has {layout.n_columns};"
            " mend or remove the line"
        )
    values = _numbers(cells)
    if values is None:
        column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        raise _bad_cell(cells, number, column, "is not a number" if cells[column] else "is empty", layout)
    _check_row(values, cells, number, layout)
    return values


def _numbers(cells: list[bytes]) -> np.ndarray | None:
    if max(map(len, cells)) > _LONGEST_CELL:
        return None
    try:
        return np.array(cells).astype(np.float64)
    except ValueError:
        return None


def _check_row(values: np.ndarray, cells: list[bytes], number: int, layout: _Layout) -> None:
    largest = np.full(layout.n_columns, 255.0)
    smallest = np.zeros(layout.n_columns)
    if layout.label_column is not None:
        largest[layout.label_column] = LARGEST_LABEL
        smallest[layout.label_column] = -LARGEST_LABEL
    for is_bad, problem in (
        (np.isnan(values), "is NaN"),
        ((values < smallest) | (values > largest), "is out of range"),
        (values != np.floor(values), "is not a whole number"),
    ):
        if is_bad.any():
            raise _bad_cell(cells, number, int(np.argmax(is_bad)), problem, layout)


def _bad_cell(cells: list[bytes], number: int, column: int, problem: str, layout: _Layout) -> DataError:
    name = f" ({layout.names[column][:20]})" if layout.names else ""
    cell = cells[column][:20].decode("utf-8", errors="replace")
    rule = _LABELS_ARE if column == layout.label_column else _PIXELS_ARE
    return DataError(f"{layout.path}: line {number}, column {column + 1}{name}: {cell!r} {problem}; {rule}")


def _unquote(cell: bytes) -> bytes:
    return cell.strip().strip(b'"')


def _is_number(cell: bytes) -> bool:
    return _numbers([cell]) is not None


def _is_number_or_blank(cell: bytes) -> bool:
    return not cell or _is_number(cell)

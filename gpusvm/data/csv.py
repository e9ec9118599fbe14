"""CSV in Kaggle's layout: `label,pixel0,pixel1,...` for training, `pixel0,pixel1,...` for a test set.

A block of lines that holds nothing but small whole numbers, as such files do, is parsed with a few
NumPy operations on its bytes. Any other block goes line by line through a parser that knows about
spaces, quotes and `12.0`, and can say exactly which cell is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import IO

import numpy as np

from gpusvm.data.pixels import image_shape
from gpusvm.errors import DataError

_BLOCK_BYTES = 1 << 20
_COMMA, _NEWLINE, _ZERO = b","[0], b"\n"[0], b"0"[0]
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A row is one image. What the parser takes for a line is many times its length.
_LONGEST_LINE = 1 << 22
# Longer cells are no number of ours; NumPy would pad every cell of the row to the longest.
_LONGEST_CELL = 32
_LARGEST_LABEL = 2**53
_ROW_NAMES = {"", "id", "imageid", "image_id", "index", "unnamed: 0"}
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

    With a header, the labels are the column called `label`. Without one, the first column is the
    labels where that leaves a square image and taking all columns does not (785 columns: 28x28).

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
    if line.startswith(_GZIP_MAGIC):
        raise DataError(f"{path}: is gzip, not text; unpack it first (gunzip)")
    cells = [_unquote(cell) for cell in line.split(b",")]
    if all(map(_is_number_or_blank, cells)) and any(cells):
        label_column = 0 if _is_labelled(len(cells)) else None
        return _Layout(path, len(cells), label_column, None, start, line_number)
    names = tuple(cell.decode("utf-8", errors="replace") for cell in cells)
    return _Layout(path, len(names), _label_column(names, path), names, file.tell(), line_number + 1)


def _is_labelled(n_columns: int) -> bool:
    return n_columns > 1 and _is_square(n_columns - 1) and not _is_square(n_columns)


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number


def _label_column(names: tuple[str, ...], path: Path) -> int | None:
    lowered = [name.lower() for name in names]
    for column, name in enumerate(lowered):
        if name in _ROW_NAMES:
            raise DataError(
                f"{path}: line 1, column {column + 1} ({names[column][:20]!r}) is neither the label nor a pixel;"
                " remove the column"
            )
    if lowered.count("label") > 1:
        raise DataError(f"{path}: line 1 names more than one column 'label'; keep one")
    if lowered == ["label"]:
        raise DataError(f"{path}: has a label column and no pixels; add the pixel columns")
    return lowered.index("label") if "label" in lowered else None


def _read_line(file: IO[bytes], path: Path, number: int) -> bytes:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise DataError(f"{path}: line {number} is longer than {_LONGEST_LINE:,} bytes; a row is one image")
    return line


def _blocks(file: IO[bytes], layout: _Layout) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about a block's worth at a time, with the number of the first; `\\n` ends each."""
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
    """Cells of one to three digits, all in range: (n, n_columns) int16. None where anything is otherwise."""
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
    """The rows, blank lines skipped: (n, n_columns) float64. Raises DataError for the first bad cell."""
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
        largest[layout.label_column] = _LARGEST_LABEL
        smallest[layout.label_column] = -_LARGEST_LABEL
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

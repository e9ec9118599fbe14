"""Tables as text: a sample a line, its values between commas, semicolons, tabs, bars or spaces.

A block of lines is parsed by pyarrow, where it is installed and the file is large, or by NumPy's
reader. What they refuse goes cell by cell, with the csv module, through a parser that knows
missing values, and can say exactly which cell is wrong. Of 206 MB of real numbers a cell takes 110
to 135 ns of processor time with pyarrow and 460 without, all included; pandas takes 72 to 88
(three runs, a virtual machine on an Intel Xeon).
"""

from __future__ import annotations

import copy
import csv
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm.data import columns
from gpusvm.data import csv as pixel_csv
from gpusvm.data.column_faults import MOST_WORDS, ColumnFault, UnusableColumnsError, truth_of, truth_value
from gpusvm.data.columns import Roles, Words, is_missing
from gpusvm.data.dialect import Layout, find_layout, layout_of, looks_like_images, read_number
from gpusvm.data.packed import read_head
from gpusvm.data.pixels import as_images, names_pixels, require_memory, unlike_others
from gpusvm.data.table import Contents, TableOptions
from gpusvm.data.text import BLOCK_CHARACTERS, blocks, find_encodings, open_text, refuse_what_is_no_table
from gpusvm.errors import DataError, DataWarning, warn

_LARGE_BYTES = 2**26
# What pyarrow parses at a time; a line that is longer it refuses.
_ARROW_BYTES = 2**20


def read(path: Path, options: TableOptions) -> Contents:
    """Read a table from text; see docs/data.md for what is understood.

    Raises
    ------
    DataError
        Empty, a line with too few or too many cells, a feature that is missing or no number,
        labels that are missing; the message has line and column.
    """
    head = read_head(path)
    refuse_what_is_no_table(head, path)
    encodings = find_encodings(head, path)
    for encoding in encodings:
        try:
            contents = _read(path, encoding, options)
        except UnicodeError:
            continue
        if encoding == "cp1252":
            warn(f"{path}: is not UTF-8; it is read as Windows-1252, as Excel writes in the west", DataWarning)
        return contents
    raise DataError(f"{path}: is no text in {' or '.join(encodings)}; save it as UTF-8")


def read_any(path: Path, options: TableOptions, kind: str) -> Contents | tuple[np.ndarray, np.ndarray | None]:
    """Read text as images or as a table, as `kind` says.

    "auto" is whichever its first rows look like. Images are those that `looks_like_images`
    recognises.
    """
    if kind == "table":
        return read(path, options)
    layout = find_layout(path)
    if kind == "auto" and not looks_like_images(layout):
        if names_pixels(layout.names):
            warn(f"{path}: its columns are named pixels, and are not: it is taken for a table of numbers", DataWarning)
        return read(path, options)
    return _read_images(layout, options)


def _read_images(layout: Layout, options: TableOptions) -> tuple[np.ndarray, np.ndarray | None]:
    path = layout.path
    if layout.is_plain and options == TableOptions() and not layout.has_words:
        return pixel_csv.read(path)
    contents = read(path, options)
    odd = [contents.columns[column] for column in unlike_others(contents.columns)]
    if odd := ([contents.id_name] if contents.id_name else odd):
        raise DataError(
            f"{path}: the column {odd[0][:40]!r} is neither the label nor a pixel; leave it out:"
            f" --drop {shlex.quote(odd[0])}"
        )
    labels = contents.labels
    if labels is not None and labels.dtype.kind == "f":
        raise DataError(f"{path}: has real numbers for labels; those of images must be whole numbers or words")
    return as_images(contents.X, str(path)), labels


@dataclass
class _Odd:
    """What is in a column of features that is no number, as far as it was read."""

    first_line: int
    n_missing: int = 0
    n_infinite: int = 0
    n_words: int = 0
    words: dict[str, None] = field(default_factory=dict)  # the first of them, in their order

    def take(self, cell: str, value: float | None) -> float:
        """Count a cell whose number, if it has one, is not finite. Returns what stands for it."""
        if value is not None and np.isinf(value):
            self.n_infinite += 1
        elif value is not None or is_missing(cell):
            self.n_missing += 1
        else:
            self.n_words += 1
            if len(self.words) < MOST_WORDS:
                self.words.setdefault(cell)
            found = truth_value(cell)
            return np.nan if found is None else found
        return np.nan

    def fault(self, column: int, name: str, n_rows: int) -> ColumnFault | None:
        """What is wrong with the column.

        Nothing (None) if each row holds true or false, or each yes or no.
        """
        is_truth = self.n_words + self.n_missing == n_rows and truth_of(tuple(self.words)) is not None
        if is_truth and not self.n_missing:
            return None
        words = () if is_truth else tuple(self.words)
        n_words = 0 if is_truth else self.n_words
        return ColumnFault(
            column, name, f"line {self.first_line}", words, self.n_missing, self.n_infinite, n_rows, n_words=n_words
        )


@dataclass
class _Parser:
    """Blocks of lines become numbers; columns of words become the codes of their words."""

    layout: Layout
    roles: Roles
    codes: dict[int, dict[str, int]] = field(init=False)
    odd: dict[int, _Odd] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.codes = {column: {} for column in self.roles.worded}

    def parse(self, text: str, first_line: int) -> np.ndarray:
        """The rows of a block: (n, n_columns) float64, NaN where a feature is missing.

        Raises DataError where they cannot be read.
        """
        if "\0" in text:
            raise DataError(
                f"{self.layout.path}: is no text from line {first_line} on (it holds zero bytes); export it again"
            )
        mark = self.layout.comment
        has_comments = mark in text and (text.startswith(mark) or f"\n{mark}" in text)
        values = None if has_comments else self._parse_by_arrow(text)
        if values is not None:
            return values
        lines = text.removesuffix("\n").split("\n")
        if has_comments:
            lines = ["" if line.startswith(mark) else line for line in lines]
        if self.layout.decimal == ".":
            values = self._parse_at_once(lines)
        if values is None:
            values = self._parse_by_cell(lines, first_line)
        return values

    def _parse_by_arrow(self, text: str) -> np.ndarray | None:
        """A large block by pyarrow, which is several times as fast.

        None where the block is smaller, or pyarrow is not installed or not sure. Quotes and
        columns that hold something else than numbers are left to the others, which are known to
        agree.
        """
        layout = self.layout
        if len(text) < BLOCK_CHARACTERS or layout.separator is None or layout.quote in text or self.odd:
            return None
        try:
            import pyarrow
            from pyarrow import csv as arrow_csv
        except ImportError:
            return None
        names = list(map(str, range(layout.n_columns)))
        of_words = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        types = {names[column]: pyarrow.float64() for column in self.roles.features}
        types |= {names[column]: of_words for column in self.roles.worded}
        try:
            table = arrow_csv.read_csv(
                pyarrow.BufferReader(text.encode()),
                arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=_ARROW_BYTES),
                arrow_csv.ParseOptions(delimiter=layout.separator, quote_char=False, double_quote=False),
                arrow_csv.ConvertOptions(
                    column_types=types, include_columns=list(types), decimal_point=layout.decimal,
                    null_values=[], true_values=[], false_values=[],
                ),
            )  # fmt: skip
        except (pyarrow.ArrowException, UnicodeEncodeError):
            return None
        values = np.zeros((table.num_rows, layout.n_columns))
        for column in self.roles.features:
            values[:, column] = table.column(names[column]).to_numpy()
        if not np.isfinite(values).all():
            return None
        for column in self.roles.worded:
            words = table.column(names[column]).combine_chunks()
            code = self._coder(column)
            values[:, column] = np.array([code(word) for word in words.dictionary.to_pylist()])[
                words.indices.to_numpy()
            ]
        return values

    def _parse_at_once(self, lines: list[str]) -> np.ndarray | None:
        """The rows by NumPy's reader.

        It refuses (None) whatever is not plainly so many numbers in every line.
        """
        if not any(lines):
            return np.empty((0, self.layout.n_columns))
        converters: dict[int | str, Callable[[str], Any]] = {
            column: self._coder(column) for column in self.roles.worded
        }
        converters |= dict.fromkeys(self.roles.left_out, lambda _: 0.0)
        converters |= {column: partial(self._odd_feature, column) for column in self.odd}
        before = copy.deepcopy(self.odd)
        values = self._load(lines, converters)
        if values is None:
            self.odd = before
        return values

    def _load(self, lines: list[str], converters: dict[int | str, Callable[[str], Any]]) -> np.ndarray | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # where all lines are empty
                values = np.loadtxt(
                    lines, delimiter=self.layout.separator, quotechar=self.layout.quote, comments=None, ndmin=2,
                    encoding="utf-8", converters=converters,
                )  # fmt: skip
        except ValueError:
            return None
        if values.size == 0:
            return np.empty((0, self.layout.n_columns))
        if values.shape[1] != self.layout.n_columns:
            return None
        # What is no finite number is counted by the careful way, where its column is not known for
        # it.
        usual = [column for column in range(self.layout.n_columns) if column not in self.odd]
        return values if np.isfinite(values[:, usual] if self.odd else values).all() else None

    def _odd_feature(self, column: int, cell: str) -> float:
        cell = cell.strip()
        value = columns.number(cell)
        return value if value is not None and np.isfinite(value) else self.odd[column].take(cell, value)

    def _coder(self, column: int) -> Callable[[str], int]:
        codes = self.codes[column]

        def code(cell: str) -> int:
            found = codes.get(cell)  # as most cells are, without spaces and not for the first time
            return codes.setdefault(cell.strip(), len(codes)) if found is None else found

        return code

    def _parse_by_cell(self, lines: list[str], first_line: int) -> np.ndarray:
        rows = [self._parse_row(cells, number) for number, cells in self._rows(lines, first_line)]
        return np.array(rows, dtype=np.float64).reshape(-1, self.layout.n_columns)

    def _rows(self, lines: list[str], first_line: int) -> Iterator[tuple[int, list[str]]]:
        """The cells of each row, with the number of its line; empty lines are passed over."""
        separator = self.layout.separator
        quote = self.layout.quote
        if separator is None and not any(quote in line for line in lines):
            yield from ((n, line.split()) for n, line in enumerate(lines, first_line) if line.strip())
            return
        reader = csv.reader(lines, delimiter=separator or " ", quotechar=quote, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield first_line + reader.line_num - 1, [cell.strip() for cell in cells]
        except csv.Error as error:
            raise DataError(
                f"{self.layout.path}: line {first_line + reader.line_num - 1} cannot be read ({error}); mend it"
            ) from error

    def _parse_row(self, cells: list[str], line: int) -> list[float]:
        n_columns = self.layout.n_columns
        if len(cells) == n_columns + 1 and not cells[-1]:
            cells = cells[:-1]  # a separator at the end
        if len(cells) != n_columns:
            if self.layout.comment == "%" and cells[0].startswith("{"):
                raise DataError(f"{self.layout.path}: line {line} is in ARFF's sparse form; save it as a svmlight file")
            raise DataError(
                f"{self.layout.path}: line {line} has {len(cells)} columns where the first has {n_columns};"
                " mend or remove the line"
            )
        values = [0.0] * n_columns
        for column in self.roles.worded:
            codes = self.codes[column]
            values[column] = codes.setdefault(cells[column], len(codes))
        for column in self.roles.features:
            values[column] = self._feature(cells[column], column, line)
        return values

    def _feature(self, cell: str, column: int, line: int) -> float:
        value = read_number(cell, self.layout.decimal)
        if value is not None and np.isfinite(value):
            return value
        return self.odd.setdefault(column, _Odd(line)).take(cell, value)

    def faults(self, n_rows: int) -> list[ColumnFault]:
        """The columns of features that hold something else than numbers."""
        found = (odd.fault(column, self.name(column), n_rows) for column, odd in self.odd.items())
        return [fault for fault in found if fault is not None]

    def name(self, column: int) -> str:
        return self.layout.names[column] if self.layout.names else ""

    def words(self, column: int, codes: np.ndarray) -> Words:
        """A column of words by its codes.

        It is without those that NumPy's reader saw in a block that it then refused.
        """
        words = list(self.codes[column])
        used, codes = np.unique(codes, return_inverse=True)
        return Words([words[code] for code in used], codes)


def _read(path: Path, encoding: str, options: TableOptions) -> Contents:
    with open_text(path, encoding, options.progress) as stream:
        found = blocks(stream, path)
        first = next(found, None)
        if first is None:
            raise DataError(f"{path}: is empty; give a table with one sample a line")
        lines = first[1].removesuffix("\n").split("\n")
        layout = layout_of(lines, encoding, path)
        rest = (layout.start, "\n".join(lines[layout.start - 1 :]))
        return read_rows(chain([rest], found), layout, options)


def read_rows(found: Iterable[tuple[int, str]], layout: Layout, options: TableOptions) -> Contents:
    """The table in blocks of lines after the header, as `read` gives it.

    `found` has each block after the number of its first line.
    """
    path = layout.path
    roles = columns.assign(layout.names, layout.n_columns, options, path)
    parser = _Parser(layout, roles)
    features: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    n_bytes = 0
    for first_line, text in found:
        values = parser.parse(text, first_line)
        features.append(values[:, roles.features])
        codes.append(values[:, roles.worded].astype(np.int32))
        n_bytes = _require_room(n_bytes, n_bytes + features[-1].nbytes, str(path))
    n_rows = sum(map(len, features))
    if n_rows == 0:
        raise DataError(f"{path}: has a header and no rows; give a file with at least one sample")
    coded = np.concatenate(codes)
    words = {column: parser.words(column, coded[:, place]) for place, column in enumerate(roles.worded)}
    return _assemble(features, roles, words, parser)


def _require_room(before: int, now: int, where: str) -> int:
    """Ask for memory whenever what was read has doubled: it is copied once into one array."""
    if now > _LARGE_BYTES and before.bit_length() != now.bit_length():
        require_memory(now, where)
    return now


def _assemble(parts: list[np.ndarray], roles: Roles, words: dict[int, Words], parser: _Parser) -> Contents:
    layout = parser.layout
    if layout.decimal == ",":
        words = {column: _with_points(column_words) for column, column_words in words.items()}
    n_rows = sum(map(len, parts))
    faults = parser.faults(n_rows)
    has_words = any(fault.is_words and not fault.is_marked_numbers for fault in faults)
    settled = columns.settle(roles, words, layout.names, layout.n_columns, layout.path, has_words=has_words)
    late = {
        column: columns.feature_of(words[column], layout.names, column)
        for column in settled.features
        if column in words
    }
    faults += [fault for _, fault in late.values() if fault is not None]
    if faults:
        faults.sort(key=lambda fault: fault.column)
        raise UnusableColumnsError(layout.path, faults, has_label=settled.label is not None)
    truths = [
        column
        for column in settled.features
        if column in parser.odd or (column in late and columns.has_truths(words[column]))
    ]
    columns.say_truths(layout.names, sorted(truths), layout.path)
    if not settled.features:
        raise DataError(f"{layout.path}: has no column of features left; it needs at least one of numbers")
    X = np.empty((n_rows, len(settled.features)))
    for place, column in enumerate(settled.features):
        if column in late:
            X[:, place] = late[column][0]
    places = [settled.features.index(column) for column in roles.features]
    start = 0
    for part in parts:
        if len(places) == X.shape[1]:
            X[start : start + len(part)] = part
        else:
            X[start : start + len(part), places] = part
        start += len(part)
    names = tuple(layout.names[column] for column in settled.features) if layout.names else ()
    others = {*settled.features, settled.label}
    left_out = () if names else tuple(column + 1 for column in range(layout.n_columns) if column not in others)
    contents = Contents(X, None, names, left_out=left_out)
    if settled.label is not None:
        number = settled.label + 1
        name = layout.names[settled.label] if layout.names else None
        where = f"{layout.path}, the labels ({f'column {number}' if name is None else name})"
        labels = columns.labels_of(words[settled.label], where)
        contents = contents._replace(labels=labels, label_name=name, label_number=number if name is None else None)
    if settled.ids is not None:
        contents = contents._replace(ids=words[settled.ids].as_strings(), id_name=layout.names[settled.ids])
    return contents


def _with_points(words: Words) -> Words:
    """Words with decimal points, where all of them are numbers with decimal commas."""
    numbers = [read_number(word, ",") for word in words.values]
    return words if None in numbers else Words([repr(value) for value in numbers], words.codes)

"""What ``gpusvm data show`` prints of images and of tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from math import ceil
from pathlib import Path

import numpy as np
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from gpusvm.cli.console import bold, messages, plain_table, results
from gpusvm.data import Dataset, Table, load_dataset
from gpusvm.data.column_faults import MOST_WORDS, ColumnFault, UnusableColumnsError, drop_options
from gpusvm.data.column_figures import (
    ColumnFigures,
    column_figures,
    column_name,
    duplicates,
    n_distinct,
    row_numbers,
    stand_ins,
    told_stand_ins,
    uneven,
)
from gpusvm.data.overview import class_counts, pixel_histogram, save_overview
from gpusvm.errors import UsageError
from gpusvm.io.output import check_writable
from gpusvm.split import Reading, Samples, counted, plural

_N_ROWS = 5
_N_PIXELS = 8
_MOST_PICTURES = 10
_PICTURE_ROWS = 2
_GAP = 2
_WIDEST = 120
_MOST_CLASSES = 30
_BAR_WIDTH = 40
# Two pixels, one above the other, in one character: neither, the lower, the upper, both.
_HALVES = {"blocks": " ▄▀█", "ascii": " .':"}
_EIGHTHS = "▏▎▍▌▋▊▉█"
_MOST_VALUES = 6
_LONGEST_NAME = 28
# Of the columns of a wide table, so many of the first and of the last are listed.
_FIRST_COLUMNS, _LAST_COLUMNS = 20, 4
_MOST_NAMED = 8
_MOST_FAULTS = 200
_MOST_SAMPLES = 3


def run(source: str, split: str, limit: int | None, reading: Reading, out: Path | None) -> None:
    """Print a data set, or draw the images of one into the file `out`."""
    check_writable(out)
    load = partial(
        load_dataset, source, split, limit=limit, data_dir=reading.data_dir, progress=True, kind=reading.kind,
        label=reading.label, resize=reading.resize,
    )  # fmt: skip
    try:
        data = load(drop=reading.drop)
    except UnusableColumnsError as error:
        show_faults(results(), source, error.faults)
        data = load(drop=(*reading.drop, *(fault.key for fault in error.faults)))
    if out is not None:
        if isinstance(data, Table):
            raise UsageError(f"--out draws images, and {data.name} is a table; leave it out")
        save_overview(data, out)
        messages().print(f"Wrote {out}", soft_wrap=True)
    elif isinstance(data, Table):
        show_table(results(), data)
    else:
        show_images(results(), data)


def show_images(console: Console, data: Dataset) -> None:
    """First rows, class counts, pictures and the pixel histogram."""
    height, width = data.image_shape
    console.print(bold(f"{data.name},"), f"{data.split}: {counted(data)} of {width}x{height}", soft_wrap=True)
    console.print(f"SHA-256 of images and labels: {data.digest}\n", soft_wrap=True)
    _print_rows(console, data)
    _print_counts(console, data)
    _print_pictures(console, data)
    _print_histogram(console, data.images)


def show_table(console: Console, data: Table) -> None:
    """First rows, figures of the columns and what is odd about them, and class counts."""
    console.print(
        bold(f"{data.name},"), f"{data.split}: {counted(data)} of {plural(data.n_features, 'feature')}", soft_wrap=True
    )
    if not isinstance(data.X, np.ndarray):
        share = data.X.nnz / max(1, len(data) * data.n_features)
        console.print(f"Sparse: {share:.2%} of the values are not zero, {data.X.nnz / len(data):.1f} in a row")
    console.print(f"SHA-256 of numbers and labels: {data.digest}\n", soft_wrap=True)
    figures = column_figures(data)
    _print_table_rows(console, data)
    _print_columns(console, data, figures)
    for line in _oddities(data, figures):
        console.print(line, soft_wrap=True)
    console.print()
    if data.labels is not None and data.labels.dtype.kind == "f":
        console.print(
            f"Labels are real numbers, from {data.labels.min():.6g} to {data.labels.max():.6g}: no classes",
            soft_wrap=True,
        )
    else:
        _print_counts(console, data)


def show_faults(console: Console, source: str, faults: Sequence[ColumnFault]) -> None:
    """The columns that hold something else than numbers: what, how much of it, and what to do."""
    table = plain_table("column", "missing", "what it holds", "what to do")
    for fault in faults[:_MOST_FAULTS]:
        name = _short(fault.name) or f"column {fault.column + 1}"
        missing = f"{fault.n_missing:,} ({fault.n_missing / fault.n_rows:.1%})" if fault.n_missing else ""
        cure = f"{fault.cure}, or --drop {fault.option}" if fault.cure else f"--drop {fault.option}"
        table.add_row(Text(name), missing, Text(_held(fault)), Text(cure))
    what = (
        "1 column cannot be used as it stands"
        if len(faults) == 1
        else f"{len(faults):,} columns cannot be used as they stand"
    )
    console.print(bold(f"{source}: {what}"), soft_wrap=True)
    console.print(table, soft_wrap=True)
    if len(faults) > _MOST_FAULTS:
        console.print(f"... and {len(faults) - _MOST_FAULTS:,} more")
    options = drop_options(faults[:_MOST_FAULTS])
    console.print(f"\nWithout them ({options}):\n", soft_wrap=True, markup=False)


def _held(fault: ColumnFault) -> str:
    if fault.kind:
        return fault.kind
    if not fault.words:
        return "numbers" + (f", {fault.n_infinite:,} infinite ones" if fault.n_infinite else "")
    n = len(fault.words)
    shown = ", ".join(repr(_short(word)) for word in fault.words[:_MOST_SAMPLES])
    return shown if n <= _MOST_SAMPLES else f"{shown} ... ({n if n < MOST_WORDS else f'{n} or more'} different words)"


def _print_table_rows(console: Console, data: Table) -> None:
    n_shown = min(data.n_features, _MOST_VALUES)
    names = [_short(column_name(data, column)) for column in range(n_shown)]
    table = plain_table(data.id_name or "row", _short(data.label_name or "label"), *names, numbers=names)
    rows = data.X[:_N_ROWS, :n_shown]
    for index, values in enumerate((rows if isinstance(rows, np.ndarray) else rows.toarray()).tolist()):
        called = str(index + 1) if data.ids is None else str(data.ids[index])
        label = "-" if data.labels is None else str(data.labels[index])
        table.add_row(Text(called), Text(label), *(f"{value:.6g}" for value in values))
    console.print("First rows" + (f", {n_shown} of their columns" if data.n_features > n_shown else ""), style="bold")
    console.print(table, "")


def _print_columns(console: Console, data: Table, figures: ColumnFigures) -> None:
    n = data.n_features
    shown = list(range(n))
    if n > _FIRST_COLUMNS + _LAST_COLUMNS + 1:
        shown = [*range(_FIRST_COLUMNS), *range(n - _LAST_COLUMNS, n)]
    table = plain_table("column", "least", "mean", "largest", "deviation", "distinct")
    for place, column in enumerate(shown):
        if place and column != shown[place - 1] + 1:
            table.add_row(f"... {n - len(shown):,} more")
        values = (figures.least, figures.mean, figures.largest, figures.deviation)
        table.add_row(
            Text(_short(column_name(data, column))),
            *(f"{figure[column]:.6g}" for figure in values),
            f"{n_distinct(data, column):,}",
        )
    console.print(f"{plural(n, 'column')} of numbers", style="bold")
    console.print(table, "")


def _oddities(data: Table, figures: ColumnFigures) -> list[str]:
    """A line for each kind of column that needs a look."""
    lines = []
    if len(figures.constant):
        lines.append(f"Constant, so of no use: {_listed(data, figures.constant.tolist())}")
    if (column := row_numbers(data)) is not None:
        lines.append(f"{_name(data, column)} numbers the rows (1, 2, 3, ...): leave it out if it says nothing else")
    if copies := duplicates(data, figures):
        pairs = [f"{_name(data, column)} (of {_name(data, first)})" for column, first in copies[:_MOST_NAMED]]
        more = f" and {len(copies) - _MOST_NAMED:,} more" if len(copies) > _MOST_NAMED else ""
        lines.append(f"Copies of other columns: {', '.join(pairs)}{more}")
    if missing := stand_ins(data):
        lines.append(f"Far outside of the other values: {told_stand_ins(data, missing)}")
    if found := uneven(figures):
        small, large, factor = found
        lines.append(
            f"Of very different sizes: {_name(data, large)} varies {factor:,.0f} times as much as {_name(data, small)};"
            " gpusvm train makes up for it unless it is told --scale none"
        )
    return lines


def _listed(data: Table, columns: Sequence[int]) -> str:
    more = f" and {len(columns) - _MOST_NAMED:,} more" if len(columns) > _MOST_NAMED else ""
    return ", ".join(_name(data, column) for column in columns[:_MOST_NAMED]) + more


def _name(data: Table, column: int) -> str:
    return _short(column_name(data, column))


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def _print_rows(console: Console, data: Dataset) -> None:
    height, width = data.image_shape
    row, first = height // 2, max(0, (width - _N_PIXELS) // 2)
    columns = range(first, min(first + _N_PIXELS, width))
    table = plain_table("row", "label", *(f"pixel{row * width + column}" for column in columns))
    for index in range(min(_N_ROWS, len(data))):
        label = "-" if data.labels is None else str(data.labels[index])
        table.add_row(str(index), label, *(str(data.images[index, row, column]) for column in columns))
    console.print("First rows, a few pixels from the middle of each", style="bold")
    console.print(table, "")


def _print_counts(console: Console, data: Samples) -> None:
    counts = class_counts(data)
    if not counts:
        how = ": no column is recognised as them; name it with --label NAME" if isinstance(data, Table) else ""
        console.print(f"No labels{how}\n", soft_wrap=True)
        return
    largest = max(count for _, count in counts)
    table = plain_table("class", f"{data.unit}s", "share", "")
    for name, count in counts[:_MOST_CLASSES]:
        share = f"{count / len(data):.1%}"
        table.add_row(str(name), f"{count:,}", share, _bar(count / largest, console))
    console.print(plural(len(counts), "class", "classes"), style="bold")
    console.print(table)
    if len(counts) > _MOST_CLASSES:
        console.print(f"... and {len(counts) - _MOST_CLASSES:,} more")
    console.print()


def _print_histogram(console: Console, images: np.ndarray) -> None:
    bins = pixel_histogram(images)
    largest = max(count for _, _, count in bins)
    table = plain_table("pixel value", "share", "")
    for low, high, count in bins:
        values = str(low) if low == high else f"{low} to {high}"
        table.add_row(values, f"{count / images.size:.1%}", _bar(count / largest, console))
    console.print("Pixel histogram", style="bold")
    console.print(table)


def _bar(fraction: float, console: Console) -> Text:
    """A bar of up to `_BAR_WIDTH` characters, in eighths; anything above nothing shows."""
    if not _is_unicode(console):
        return Text("#" * ceil(fraction * _BAR_WIDTH))
    eighths = ceil(fraction * _BAR_WIDTH * 8)
    rest = _EIGHTHS[eighths % 8 - 1] if eighths % 8 else ""
    return Text("█" * (eighths // 8) + rest, style="blue")


def _print_pictures(console: Console, data: Dataset) -> None:
    columns = min(console.width, _WIDEST)
    images = _shrink(data.images[:_MOST_PICTURES], columns)
    width = images.shape[2]
    per_row = max(1, (columns + _GAP) // (width + _GAP))
    n_shown = min(len(images), per_row * _PICTURE_ROWS)
    console.print("First images", style="bold")
    for start in range(0, n_shown, per_row):
        numbers = range(start, min(start + per_row, n_shown))
        if data.labels is not None:
            titles = (str(data.labels[number])[:width].ljust(width) for number in numbers)
            console.print(Text((" " * _GAP).join(titles).rstrip()))
        for line in zip(*(_draw(images[number], console) for number in numbers), strict=True):
            console.print(Text(" " * _GAP).join(line), no_wrap=True, crop=True)
    console.print()


def _shrink(images: np.ndarray, width: int) -> np.ndarray:
    step = ceil(images.shape[2] / width)
    return images[:, ::step, ::step]


def _draw(image: np.ndarray, console: Console) -> list[Text]:
    """An image (height, width) uint8 as lines of text.

    It is in greys where there are colours, else in ink or none.
    """
    if image.shape[0] % 2:
        image = np.vstack([image, np.zeros_like(image[:1])])
    upper, lower = image[::2], image[1::2]
    has_greys = console.color_system in ("256", "truecolor") and not console.no_color
    if has_greys and _is_unicode(console):
        return [
            Text.assemble(*(("▀", _greys(int(top), int(bottom))) for top, bottom in zip(*rows, strict=True)))
            for rows in zip(upper, lower, strict=True)
        ]
    halves = _HALVES["blocks" if _is_unicode(console) else "ascii"]
    codes = 2 * (upper > 127).astype(int) + (lower > 127)
    return [Text("".join(halves[code] for code in row)) for row in codes]


@cache
def _greys(top: int, bottom: int) -> Style:
    return Style(color=Color.from_rgb(top, top, top), bgcolor=Color.from_rgb(bottom, bottom, bottom))


def _is_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")

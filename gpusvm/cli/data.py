"""``gpusvm data``: which data sets there are, fetching and verifying them, and looking into one."""

from __future__ import annotations

from functools import cache
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from gpusvm.cli.console import bold, messages, results
from gpusvm.data import CATALOGUE, Dataset, FileCheck, find_local, load_dataset
from gpusvm.data import fetch as fetch_dataset
from gpusvm.data import verify as verify_dataset
from gpusvm.data.overview import class_counts, pixel_histogram, save_overview
from gpusvm.errors import DataError
from gpusvm.output import check_writable

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and look into data sets.")

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

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Look here first, and fetch to here. Else: GPUSVM_DATA_DIR, ./data, the user's cache.",
        show_default=False,
    ),
]


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """Show which data sets are known by name, and where they are on this machine."""
    table = _table("name", "train", "test", "what", "where")
    for name, entry in CATALOGUE.items():
        folder = find_local(name, data_dir)
        place: str | Text
        if not entry.files:
            place = "inside scikit-learn"
        elif folder is None:
            place = Text(f"not on this machine: gpusvm data fetch {name}", style="yellow")
        else:
            place = str(folder)
        table.add_row(name, f"{entry.n_train:,}", f"{entry.n_test:,}", entry.title, place)
    results().print(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CATALOGUE)}.", show_default=False)],
    data_dir: DataDir = None,
) -> None:
    """Download a data set, unless a good copy is already here, and print its folder."""
    folder = fetch_dataset(name, data_dir, progress=True)
    messages().print(f"{name} is complete and verified, in")
    results().print(str(folder), soft_wrap=True)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="By default, all of them.", show_default=False)] = None,
    data_dir: DataDir = None,
) -> None:
    """Compare the files on this machine with their published checksums.

    Exits with 1 if one is wrong, if a set is incomplete, or if the one that was named is missing.
    """
    checked = {each: verify_dataset(each, data_dir) for each in ([name] if name else CATALOGUE)}
    table = _table("data set", "file", "", "where")
    for each, files in checked.items():
        for file in files:
            table.add_row(each, file.name, _status(file), str(file.path or ""))
        if not files:
            table.add_row(each, "", _mark("ok"), "inside scikit-learn")
    results().print(table)
    bad = [each for each, files in checked.items() if _is_bad(files, was_named=name is not None)]
    if bad:
        wrong = [f"{file.path or file.name} ({file.status})" for file in checked[bad[0]] if file.status != "ok"]
        raise DataError(
            f"{', '.join(bad)}: not as published: {', '.join(wrong)}; gpusvm data fetch {bad[0]} gets what is missing"
            " or wrong"
        )


@app.command()
def show(
    source: Annotated[
        str, typer.Argument(help="A name from `gpusvm data list`, a file or a folder.", show_default=False)
    ],
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.", show_default=False)] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it as a PNG instead.", metavar="PNG", show_default=False)
    ] = None,
) -> None:
    """Show a data set: first rows, class counts, pictures and the pixel histogram."""
    check_writable(out)
    data = load_dataset(source, split, limit=limit, data_dir=data_dir, progress=True, kind="images")
    if out is not None:
        save_overview(data, out)
        messages().print(f"Wrote {out}", soft_wrap=True)
        return
    console = results()
    height, width = data.image_shape
    console.print(bold(f"{data.name},"), f"{split}: {len(data):,} images of {width}x{height}", soft_wrap=True)
    console.print(f"SHA-256 of images and labels: {data.digest}\n", soft_wrap=True)
    _print_rows(console, data)
    _print_counts(console, data)
    _print_pictures(console, data)
    _print_histogram(console, data.images)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        is_number = title in ("row", "train", "test", "images", "share") or title.startswith("pixel")
        table.add_column(title, overflow="fold", justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _mark(status: str) -> Text:
    return Text(status, style="green" if status == "ok" else "yellow" if status == "missing" else "red")


def _status(file: FileCheck) -> Text:
    return _mark(file.status)


def _is_bad(files: list[FileCheck], *, was_named: bool) -> bool:
    """A set nobody fetched is in order unless it was asked for by name; half a set never is."""
    is_absent = all(file.status == "missing" for file in files)
    return any(file.status != "ok" for file in files) and (was_named or not is_absent)


def _print_rows(console: Console, data: Dataset) -> None:
    height, width = data.image_shape
    row, first = height // 2, max(0, (width - _N_PIXELS) // 2)
    columns = range(first, min(first + _N_PIXELS, width))
    table = _table("row", "label", *(f"pixel{row * width + column}" for column in columns))
    for index in range(min(_N_ROWS, len(data))):
        label = "-" if data.labels is None else str(data.labels[index])
        table.add_row(str(index), label, *(str(data.images[index, row, column]) for column in columns))
    console.print("First rows, a few pixels from the middle of each", style="bold")
    console.print(table, "")


def _print_counts(console: Console, data: Dataset) -> None:
    counts = class_counts(data)
    if not counts:
        console.print("No labels\n")
        return
    largest = max(count for _, count in counts)
    table = _table("class", "images", "share", "")
    for name, count in counts[:_MOST_CLASSES]:
        share = f"{count / len(data):.1%}"
        table.add_row(str(name), f"{count:,}", share, _bar(count / largest, console))
    console.print(f"{len(counts):,} classes", style="bold")
    console.print(table)
    if len(counts) > _MOST_CLASSES:
        console.print(f"... and {len(counts) - _MOST_CLASSES:,} more")
    console.print()


def _print_histogram(console: Console, images: np.ndarray) -> None:
    bins = pixel_histogram(images)
    largest = max(count for _, _, count in bins)
    table = _table("pixel value", "share", "")
    for low, high, count in bins:
        values = str(low) if low == high else f"{low} to {high}"
        table.add_row(values, f"{count / images.size:.1%}", _bar(count / largest, console))
    console.print("Pixel histogram", style="bold")
    console.print(table)


def _bar(fraction: float, console: Console) -> Text:
    """A bar of up to `_BAR_WIDTH` characters, to an eighth of one; anything above nothing shows."""
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
    """An image (height, width) uint8 as lines of text: greys where there are colours, else ink or none."""
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

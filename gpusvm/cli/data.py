"""``gpusvm data``: which data sets there are, fetching and verifying them, and looking into one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gpusvm.cli.console import messages, results
from gpusvm.cli.options import AsImages, AsTable, Drop, Label, Resize, kind_of, parse_size
from gpusvm.cli.show import plain_table, show_faults, show_images, show_table
from gpusvm.data import CATALOGUE, FileCheck, Table, find_local, load_dataset
from gpusvm.data import fetch as fetch_dataset
from gpusvm.data import verify as verify_dataset
from gpusvm.data.column_faults import UnusableColumnsError
from gpusvm.data.overview import save_overview
from gpusvm.errors import DataError, UsageError
from gpusvm.io.output import check_writable

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and look into data sets.")

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
    table = plain_table("name", "train", "test", "what", "where")
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
    table = plain_table("data set", "file", "", "where")
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
    limit: Annotated[int | None, typer.Option(help="Only the first so many samples.", show_default=False)] = None,
    label: Label = None,
    drop: Drop = None,
    as_table: AsTable = False,
    as_images: AsImages = False,
    resize: Resize = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Of images: write it as a PNG instead.", metavar="PNG", show_default=False)
    ] = None,
) -> None:
    """Show a data set: first rows and class counts; pictures of images, figures of a table's columns."""
    check_writable(out)
    load = partial(
        load_dataset, source, split, limit=limit, data_dir=data_dir, progress=True, kind=kind_of(as_table, as_images),
        label=label, resize=parse_size(resize),
    )  # fmt: skip
    dropped = tuple(drop or ())
    try:
        data = load(drop=dropped)
    except UnusableColumnsError as error:
        show_faults(results(), source, error.faults)
        data = load(drop=(*dropped, *(fault.key for fault in error.faults)))
    if out is not None:
        if isinstance(data, Table):
            raise UsageError(f"--out draws images, and {data.name} is a table; leave it out")
        save_overview(data, out)
        messages().print(f"Wrote {out}", soft_wrap=True)
    elif isinstance(data, Table):
        show_table(results(), data)
    else:
        show_images(results(), data)


def _mark(status: str) -> Text:
    return Text(status, style="green" if status == "ok" else "yellow" if status == "missing" else "red")


def _status(file: FileCheck) -> Text:
    return _mark(file.status)


def _is_bad(files: list[FileCheck], *, was_named: bool) -> bool:
    """A set nobody fetched is in order unless it was asked for by name; half a set never is."""
    is_absent = all(file.status == "missing" for file in files)
    return any(file.status != "ok" for file in files) and (was_named or not is_absent)

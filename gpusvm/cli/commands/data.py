"""Options of ``gpusvm data`` and its commands: list, fetch, verify, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.options import AsImages, AsTable, Drop, Label, Resize, reading_of
from gpusvm.data.catalogue import CATALOGUE

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
    from gpusvm.cli.data import print_list

    print_list(data_dir)


@app.command("fetch")
def fetch_(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CATALOGUE)}.", show_default=False)],
    data_dir: DataDir = None,
) -> None:
    """Download a data set, unless a good copy is already here, and print its folder."""
    from gpusvm.cli.data import fetch

    fetch(name, data_dir)


@app.command("verify")
def verify_(
    name: Annotated[str | None, typer.Argument(help="By default, all of them.", show_default=False)] = None,
    data_dir: DataDir = None,
) -> None:
    """Compare the files on this machine with their published checksums.

    Exits with 1 if one is wrong, if a set is incomplete, or if the one that was named is missing.
    """
    from gpusvm.cli.data import verify

    verify(name, data_dir)


@app.command("show")
def show_(
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
    """Show a data set: first rows, class counts, pictures or figures of a table's columns."""
    from gpusvm.cli.show import run

    run(source, split, limit, reading_of(as_table, as_images, label, drop, data_dir, resize), out)

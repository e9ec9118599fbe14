"""Options that several commands have: how a source is to be read."""

from __future__ import annotations

from typing import Annotated

import typer

from gpusvm.errors import UsageError

Label = Annotated[
    str | None,
    typer.Option(help="Column of a table with the labels: its name, or its number from 1 (-1: the last)."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column of a table to leave out; give it again for another."),
]
AsTable = Annotated[bool, typer.Option("--table", help="Read the source as a table of numbers.")]
AsImages = Annotated[bool, typer.Option("--images", help="Read the source as images.")]


def kind_of(as_table: bool, as_images: bool) -> str:
    """What a source is said to hold: "table", "images" or "auto". Raises UsageError where it is said to be both."""
    if as_table and as_images:
        raise UsageError("--table and --images exclude each other; leave one out")
    return "table" if as_table else "images" if as_images else "auto"

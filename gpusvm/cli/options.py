"""Options that several commands have: how a source is to be read."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gpusvm.data.pixels import ImageShape
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

Size = Annotated[
    str | None, typer.Option("--resize", metavar="WxH", help="Bring images of any size to this one, e.g. 28x28.")
]
ToModel = Annotated[bool, typer.Option("--resize", help="Bring images of any size to the model's.")]

_MOST_PIXELS = 2**22


def kind_of(as_table: bool, as_images: bool) -> str:
    """What a source is said to hold: "table", "images" or "auto". Raises UsageError where it is said to be both."""
    if as_table and as_images:
        raise UsageError("--table and --images exclude each other; leave one out")
    return "table" if as_table else "images" if as_images else "auto"


def parse_size(text: str | None) -> ImageShape | None:
    """Height and width from WIDTHxHEIGHT, or from one number for a square. Raises UsageError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,7})(?:[xX×](\d{1,7}))?", text.strip())
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < width * height <= _MOST_PIXELS:
        raise UsageError(
            f"--resize must be WIDTHxHEIGHT, such as 28x28, of up to {_MOST_PIXELS:,} pixels; got {text!r}"
        )
    return height, width

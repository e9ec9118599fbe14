"""Arguments and options that several commands have, and the words that they take.

Commands import this file and their own in `commands`, before anything is done: it imports nothing
heavy.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpusvm.errors import UsageError
from gpusvm.params import KERNEL_NAMES, SCALINGS

if TYPE_CHECKING:
    from gpusvm.data.pixels import ImageShape
    from gpusvm.split import Reading

KernelName = StrEnum("KernelName", {name: name for name in KERNEL_NAMES if name != "precomputed"})  # type: ignore[misc]
ScalingName = StrEnum("ScalingName", {name: name for name in SCALINGS})  # type: ignore[misc]


class TunableKernel(StrEnum):
    """Kernels that can be tuned."""

    rbf = "rbf"
    linear = "linear"
    poly = "poly"


class Preset(StrEnum):
    """Named starting points for the options of a training."""

    default = "default"
    tutorial = "tutorial"
    best = "best"


class Target(StrEnum):
    """What a model can be turned into."""

    sklearn = "sklearn"
    onnx = "onnx"
    libsvm = "libsvm"
    web = "web"


ModelFile = Annotated[Path, typer.Argument(metavar="model", help="Model file.", show_default=False)]
TrainSource = Annotated[
    str | None,
    typer.Argument(help="A table, pictures, or a name from gpusvm data list; MNIST if not given."),
]
TestSource = Annotated[
    str | None,
    typer.Option("--test", metavar="SOURCE", help="Test on this; default: what SOURCE has to test on, else 20 %."),
]
DataDir = Annotated[Path | None, typer.Option(help="Where to look for data sets first.")]
Out = Annotated[Path | None, typer.Option(help="Model file; default: NAME.svm here.", show_default=False)]

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

Resize = Annotated[
    str | None, typer.Option("--resize", metavar="WxH", help="Bring images of any size to this one, e.g. 28x28.")
]
ResizeToModel = Annotated[bool, typer.Option("--resize", help="Bring images of any size to the model's.")]
Invert = Annotated[bool, typer.Option("--invert", help="Take the images' negatives: black for white.")]

Scale = Annotated[
    ScalingName | None,
    typer.Option(help="Of a table's columns; default: standard, for a sparse table maxabs."),
]
TrainLimit = Annotated[
    int | None, typer.Option(min=2, help="Use only so many samples: the first images, or random rows of a table.")
]
TestSize = Annotated[
    float | None,
    typer.Option(min=0.001, max=0.999, help="Fraction of the samples to hold out for testing."),
]
Degree = Annotated[int, typer.Option(help="Of the polynomial kernel.")]
Balanced = Annotated[bool, typer.Option("--balanced", help="Weigh classes inversely to how frequent they are.")]

_MOST_PIXELS = 2**22


def kind_of(as_table: bool, as_images: bool) -> str:
    """What a source is said to hold: "table", "images" or "auto".

    Raises UsageError where it is said to hold both.
    """
    if as_table and as_images:
        raise UsageError("--table and --images exclude each other; leave one out")
    return "table" if as_table else "images" if as_images else "auto"


def reading_of(
    as_table: bool,
    as_images: bool,
    label: str | None,
    drop: list[str] | None,
    data_dir: Path | None,
    resize: str | None,
) -> Reading:
    """How a source is to be read, by the options of these names.

    Raises UsageError as `kind_of` and `parse_size` do.
    """
    from gpusvm.split import Reading

    folder = None if data_dir is None else str(data_dir)
    return Reading(kind_of(as_table, as_images), label, tuple(drop or ()), folder, parse_size(resize))


def parse_size(text: str | None) -> ImageShape | None:
    """Height and width from WIDTHxHEIGHT, or from one number for a square.

    Raises UsageError for anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,7})(?:[xX×](\d{1,7}))?", text.strip())
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < width * height <= _MOST_PIXELS:
        raise UsageError(
            f"--resize must be WIDTHxHEIGHT, such as 28x28, of up to {_MOST_PIXELS:,} pixels; got {text!r}"
        )
    return height, width

"""Options of ``gpusvm demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.backends.registry import backend_names
from gpusvm.cli.options import DataDir


def demo(
    model_file: Annotated[
        Path | None,
        typer.Argument(metavar="model", help="Model file; if not given, one is trained.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page; default: beside the model.", show_default=False)
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open it in the browser.")] = False,
    backend: Annotated[
        str, typer.Option(help=f"What trains: auto, {', '.join(backend_names())}; see gpusvm info.", metavar="NAME")
    ] = "native",
    data_dir: DataDir = None,
) -> None:
    """Write a page to draw on, and open it.

    It is for a model, or for one that is trained on MNIST's 60,000 digits.
    """
    from gpusvm.cli.demo import run

    run(model_file, out, backend, data_dir, opens=not no_open)

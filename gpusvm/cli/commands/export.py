"""Options of ``gpusvm export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.options import ModelFile, Target


def export(
    model_file: ModelFile,
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="sklearn: a joblib pickle of a fitted pipeline; onnx: a graph; libsvm: what svm-predict reads; web: a"
            " page to draw on, for models of images.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; by default beside the model.", show_default=False),
    ] = None,
) -> None:
    """Write a model for scikit-learn, ONNX or LIBSVM, or as a page.

    scikit-learn and ONNX take rows of raw pixels or of a table.
    """
    from gpusvm.cli.export import run

    run(model_file, to, out)

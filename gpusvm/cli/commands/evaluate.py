"""Options of ``gpusvm evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.options import DataDir, Drop, Invert, Label, ModelFile, ResizeToModel


def evaluate(
    model_file: ModelFile,
    source: Annotated[
        str | None,
        typer.Argument(help="A table, pictures, or a name from gpusvm data list; default: what it was trained on."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="test or train; default: test where there is one.", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only so many samples.")] = None,
    label: Label = None,
    drop: Drop = None,
    resize: ResizeToModel = False,
    invert: Invert = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Draw those at random; default: the first ones.")] = None,
    data_dir: DataDir = None,
    certify_it: Annotated[
        bool, typer.Option("--certify", help="SOURCE is the training data: recompute gap and objective in float64.")
    ] = False,
    C: Annotated[
        float | None,
        typer.Option("--C", metavar="FLOAT", help="With --certify: C of a LIBSVM model; default: largest coefficient."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page of HTML, index.html, to this folder.")] = None,
) -> None:
    """Evaluate a model: accuracy, figures of each class, confusion matrix."""
    from gpusvm.cli.evaluate import Asked, run

    run(
        model_file,
        Asked(
            source=source, split=split, limit=limit, seed=seed, label=label, drop=tuple(drop or ()), resize=resize,
            invert=invert, data_dir=None if data_dir is None else str(data_dir), certify=certify_it, C=C,
            json=json_path, report=report,
        ),
    )  # fmt: skip

"""Options of ``gpusvm predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.options import Drop, Invert, Label, ModelFile, ResizeToModel


def predict(
    model_file: ModelFile,
    source: Annotated[
        Path,
        typer.Argument(metavar="input", help="A table, images in a file, or a folder of pictures.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Write the CSV here; default: standard output.")] = None,
    label: Label = None,
    drop: Drop = None,
    resize: ResizeToModel = False,
    invert: Invert = False,
    proba: Annotated[
        bool, typer.Option("--proba", help="Add a column p_LABEL for each class: its probability.")
    ] = False,
    reject: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Leave the label empty where its probability is below this."),
    ] = None,
    start_id: Annotated[int, typer.Option(min=0, help="Number of the first row.")] = 1,
) -> None:
    """Predict the labels of a table's rows or of images: a CSV of ids and labels."""
    from gpusvm.cli.predict import Asked, run

    run(
        model_file, source,
        Asked(
            out=out, label=label, drop=tuple(drop or ()), resize=resize, invert=invert, proba=proba, reject=reject,
            start_id=start_id,
        ),
    )  # fmt: skip

"""``gpusvm export``: a model in another library's form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.console import messages, note_raw_pixels
from gpusvm.model_file import load_model, to_onnx, to_sklearn_pipeline
from gpusvm.output import check_writable, replacing


class Target(StrEnum):
    """What a model can be turned into."""

    sklearn = "sklearn"
    onnx = "onnx"


_SUFFIXES = {Target.sklearn: ".joblib", Target.onnx: ".onnx"}


def export(
    model: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    to: Annotated[Target, typer.Option("--to", help="sklearn: a joblib pickle of a fitted pipeline; onnx: a graph.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; by default beside the model.", show_default=False),
    ] = None,
) -> None:
    """Write a model for scikit-learn or ONNX. Both forms take rows of raw pixels."""
    path = out or model.with_suffix(_SUFFIXES[to])
    check_writable(path)
    machine = load_model(model)
    note_raw_pixels(messages(), machine)
    if to is Target.onnx:
        content = to_onnx(machine).SerializeToString()
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        use = f'onnxruntime.InferenceSession("{path}").run(None, {{"X": rows}})'
    else:
        import joblib

        pipeline = to_sklearn_pipeline(machine)
        with replacing(path) as temporary:
            joblib.dump(pipeline, temporary)
        use = f'joblib.load("{path}").predict(rows)'
    messages().print(
        f"Wrote {path}. Use it with rows of {machine.n_features} raw pixels (float32):\n  {use}",
        soft_wrap=True,
    )

"""``gpusvm export``: a model in another library's form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gpusvm.cli.console import messages, note_raw, warnings_as_notes
from gpusvm.errors import UsageError
from gpusvm.io.libsvm import write_libsvm_model
from gpusvm.model import SVMModel
from gpusvm.model_file import load_model, to_onnx, to_sklearn_pipeline
from gpusvm.output import check_writable, replacing


class Target(StrEnum):
    """What a model can be turned into."""

    sklearn = "sklearn"
    onnx = "onnx"
    libsvm = "libsvm"


_SUFFIXES = {Target.sklearn: ".joblib", Target.onnx: ".onnx", Target.libsvm: ".model"}


def export(
    model: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="sklearn: a joblib pickle of a fitted pipeline; onnx: a graph; libsvm: what svm-predict reads.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; by default beside the model.", show_default=False),
    ] = None,
) -> None:
    """Write a model for scikit-learn or ONNX, which take rows of raw pixels or of a table, or for LIBSVM."""
    path = out or model.with_suffix(_SUFFIXES[to])
    if path.resolve() == model.resolve():
        raise UsageError(f"{path} is the model itself; name another file with --out")
    check_writable(path)
    machine = load_model(model)
    use = _write(machine, to, path)
    messages().print(f"Wrote {path}. {use}", soft_wrap=True)


def _write(machine: SVMModel, to: Target, path: Path) -> str:
    """Write the model, and say how it is used."""
    notes = messages()
    if to is Target.libsvm:
        with warnings_as_notes(notes):
            write_libsvm_model(machine, path)
        return f"Use it with features in LIBSVM's format:\n  svm-predict TEST_FILE {path} OUTPUT_FILE"
    note_raw(notes, machine)
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
    return f"Use it with {_rows(machine, to)}:\n  {use}"


def _rows(model: SVMModel, to: Target) -> str:
    """What the written form takes."""
    if model.table is None:
        return f"rows of {model.n_features} raw pixels (float32)"
    names = f" ({', '.join(model.table.columns):.200})" if model.table.columns else ""
    dtype = "float32, or float64 where its input is that" if to is Target.onnx else "float64"
    return f"rows of {model.n_features} columns{names}, unscaled, {dtype}"

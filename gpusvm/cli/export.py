"""What ``gpusvm export`` does: write a model in another library's form, or a page to draw on."""

from __future__ import annotations

from math import prod
from pathlib import Path

from gpusvm.cli.console import messages, warnings_as_notes
from gpusvm.cli.model_argument import load_named_model
from gpusvm.cli.model_samples import note_raw
from gpusvm.cli.options import Target
from gpusvm.errors import UsageError
from gpusvm.io.libsvm import write_libsvm_model
from gpusvm.io.model_file import to_onnx, to_sklearn_pipeline
from gpusvm.io.onnx_graph import float32_graph_suffices
from gpusvm.io.output import check_writable, replacing
from gpusvm.io.web import title_of, write_page
from gpusvm.model import SVMModel

_MOST_NAMED = 10
"""Columns named on a line."""

_SUFFIXES = {Target.sklearn: ".joblib", Target.onnx: ".onnx", Target.libsvm: ".model", Target.web: ".html"}


def run(model_file: Path, to: Target, out: Path | None) -> None:
    """Write the model at `model_file` to `out`, by default beside it; say how it is used."""
    path = out or model_file.with_suffix(_SUFFIXES[to])
    if path.resolve() == model_file.resolve():
        raise UsageError(f"{path} is the model itself; name another file with --out")
    check_writable(path)
    model = load_named_model(model_file)
    use = _write(model, to, path)
    messages().print(f"Wrote {path}. {use}", soft_wrap=True)


def _write(model: SVMModel, to: Target, path: Path) -> str:
    """Write the model, and say how it is used."""
    notes = messages()
    if to is Target.libsvm:
        with warnings_as_notes():
            write_libsvm_model(model, path)
        return f"Use it with features in LIBSVM's format:\n  svm-predict TEST_FILE {path} OUTPUT_FILE"
    note_raw(notes, model)
    if to is Target.web:
        write_page(model, path, title=title_of(model, path.stem))
        return "Open it in a browser; it needs no network."
    if to is Target.onnx:
        content = to_onnx(model).SerializeToString()
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        use = f'onnxruntime.InferenceSession("{path}").run(None, {{"X": rows}})'
    else:
        import joblib

        pipeline = to_sklearn_pipeline(model)
        with replacing(path) as temporary:
            joblib.dump(pipeline, temporary)
        use = f'joblib.load("{path}").predict(rows)'
    return f"Use it with {_rows(model)}:\n  {use}"


def _rows(model: SVMModel) -> str:
    """What the written forms take."""
    dtype = "float32" if float32_graph_suffices(model) else "float64"
    if model.table is None:
        n_pixels = model.n_features if model.image_shape is None else prod(model.image_shape)
        return f"rows of {n_pixels} raw pixels ({dtype})"
    columns = model.table.columns
    more = f" and {len(columns) - _MOST_NAMED:,} more" if len(columns) > _MOST_NAMED else ""
    names = f": {', '.join(columns[:_MOST_NAMED])}{more}" if columns else ""
    return f"unscaled rows ({dtype}) of {model.n_features} columns{names}"

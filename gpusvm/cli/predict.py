"""What ``gpusvm predict`` does: labels for images or the rows of a table, as a CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import typer

from gpusvm.cli.console import discard, messages
from gpusvm.cli.model_argument import load_named_model
from gpusvm.cli.model_samples import like_training, note_raw, size_for
from gpusvm.cli.progress import sample_progress
from gpusvm.data import CATALOGUE, Dataset, Table, load_dataset, load_images, load_samples
from gpusvm.data.pixels import ImageShape
from gpusvm.errors import OutputError, UsageError
from gpusvm.evaluation import Predictions, class_indices, fraction_equal, predict_samples
from gpusvm.io.output import check_writable, replacing
from gpusvm.model import SVMModel, TableLayout
from gpusvm.params import TASKS
from gpusvm.split import Samples, counted, fitting, require_kind, say_by_order


@dataclass(frozen=True)
class Asked:
    """What the command's options say."""

    out: Path | None
    label: str | None
    drop: tuple[str, ...]
    resize: bool
    invert: bool
    proba: bool
    reject: float | None
    start_id: int


def run(model_file: Path, source: Path, asked: Asked) -> None:
    """Predict what `source` holds with the model at the path `model_file`, and write the CSV."""
    out, reject = asked.out, asked.reject
    notes = messages()
    check_writable(out)
    model = load_named_model(model_file, source)
    needs_probabilities = asked.proba or reject is not None
    if needs_probabilities:
        require_probabilities(model, model_file, "--proba" if asked.proba else "--reject")
    if str(source) not in CATALOGUE:  # whose names are refused in words of their own
        require_kind(model, str(source))
    data, ids = load_unlabelled(
        model, source, asked.label, size_for(notes, model, asked.resize), asked.drop, notes.is_terminal
    )
    note_raw(notes, model, data)
    samples = like_training(notes, model, data, invert=asked.invert)
    ids = _renumbered(ids, asked.start_id)
    with sample_progress(notes, len(data)) as progress:
        predictions = predict_samples(model, samples, progress, probabilities=needs_probabilities)
    accepted = None if reject is None else certain_enough(model, predictions, reject)
    columns = {} if not asked.proba else probability_columns(model, predictions)
    text = to_csv(header(model, data), ids, predictions.labels, accepted, columns)
    if out is None:
        _print(text)
    else:
        with replacing(out) as temporary:
            temporary.write_bytes(text)
    notes.print(
        f"{counted(data)} predicted in {predictions.seconds:.2f} s"
        f" ({predictions.samples_per_second:,.0f} a second){_outcome(model, data, predictions, accepted)}"
        f"{f'; wrote {out}' if out else ''}",
        soft_wrap=True,
    )


def _outcome(model: SVMModel, data: Samples, predictions: Predictions, accepted: np.ndarray | None) -> str:
    """How many labels were left empty, and the share of the others that is right, if known."""
    kept = np.ones(len(data), dtype=bool) if accepted is None else accepted
    left_out = "" if accepted is None else f"; {np.count_nonzero(~kept):,} rejected"
    if data.labels is None or not model.problem.classifies or not kept.any():
        return left_out
    where = "its labels" if accepted is None else "the labels of the others"
    return f"{left_out}; accuracy {fraction_equal(data.labels[kept], predictions.labels[kept]):.4f} on {where}"


def require_probabilities(model: SVMModel, path: Path, option: str) -> None:
    """Raise UsageError where the model has none, which the option asks for."""
    if not model.problem.classifies:
        raise UsageError(f"{path} is a model of {TASKS[model.problem.task]}, which has no classes; leave out {option}")
    if model.calibration is None:
        raise UsageError(f"{option}: {path} has no probabilities; train it with gpusvm train --proba")


def certain_enough(model: SVMModel, predictions: Predictions, least: float) -> np.ndarray:
    """Whether each predicted class has at least this probability: (n,) bool."""
    assert predictions.probabilities is not None
    predicted = class_indices(model.classes, predictions.labels)
    return predictions.probabilities[np.arange(len(predicted)), predicted] >= least


def probability_columns(model: SVMModel, predictions: Predictions) -> dict[str, np.ndarray]:
    """The probability of each class (n,) under the name of its column."""
    assert predictions.probabilities is not None
    return {f"p_{label}": predictions.probabilities[:, c] for c, label in enumerate(model.classes.tolist())}


def header(model: SVMModel, data: Samples) -> tuple[str, str]:
    """Names of the two columns: Kaggle's for images, for a table its own where it has them."""
    if isinstance(data, Dataset):
        return "ImageId", "Label"
    label_name = None if model.table is None else model.table.label_name
    return data.id_name or "row", label_name or "label"


def to_csv(
    header: Sequence[str],
    ids: Sequence[str],
    labels: np.ndarray,
    accepted: np.ndarray | None = None,
    numbers: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> bytes:
    """Rows of id and label under a header, and columns of numbers under their names.

    A name is quoted where it needs it. A label that is not accepted is left empty. File names
    that are no UTF-8 keep their bytes.
    """
    written = labels.tolist() if accepted is None else np.where(accepted, labels.astype(object), "").tolist()
    columns = [map(_in_digits, values.tolist()) for values in numbers.values()]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, *numbers])
    writer.writerows(zip(ids, written, *columns, strict=True))
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _in_digits(value: float) -> str:
    """Enough of them to see which of two probabilities is larger."""
    return f"{value:.9g}"


def load_unlabelled(
    model: SVMModel,
    path: Path,
    label: str | None = None,
    resize: ImageShape | None = None,
    drop: tuple[str, ...] = (),
    progress: bool = False,
) -> tuple[Samples, list[str]]:
    """Samples for a model, and what each is called.

    A table or images, whichever the model takes, with labels or without.
    """
    if model.image_shape is None:
        kind = "auto" if model.table is None else "table"
        table = model.table or TableLayout()
        found = load_samples(
            path, kind=kind, label=table.label if label is None else label, columns=table.columns, drop=drop,
            progress=progress,
            n_features=None if model.from_libsvm else model.n_features,
            first_index=1 if model.from_libsvm else table.first_index,
            left_out=table.left_out if label is None else (),
        )  # fmt: skip
        if isinstance(found, Table):
            found = fitting(found, model)
            if model.table is not None:
                say_by_order(found, model.table)
            return found, _numbers(len(found)) if found.ids is None else found.ids.tolist()
        images, ids = found
    elif path.suffix.lower() == ".csv" and path.is_file():  # which may have labels
        data = load_dataset(path, kind="images", label=label, drop=drop, resize=resize)
        return data, _numbers(len(data))
    else:
        images, ids = load_images(path, resize=resize)
    return Dataset(images, None, str(path), "test", ""), ids


def _numbers(n: int) -> list[str]:
    return [str(number) for number in range(1, n + 1)]


def _renumbered(ids: list[str], start_id: int) -> list[str]:
    if start_id == 1:
        return ids
    if ids != _numbers(len(ids)):
        raise UsageError("--start-id numbers rows, but these have ids or file names of their own; leave it out")
    return [str(number) for number in range(start_id, start_id + len(ids))]


def _print(text: bytes) -> None:
    try:
        typer.echo(text, nl=False)
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return  # the reader has seen enough (``| head``)
        raise OutputError(f"standard output: cannot write: {error.strerror}; use --out, or free some space") from error

"""What ``gpusvm evaluate`` does: say how well a model labels samples, and what it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpusvm.certificate import certify, describe_certificate
from gpusvm.cli.console import bold, messages, results
from gpusvm.cli.model_argument import load_named_model
from gpusvm.cli.model_samples import like_training, note_raw, size_for
from gpusvm.cli.progress import sample_progress
from gpusvm.data import Dataset, has_split, load_dataset
from gpusvm.data.pixels import ImageShape
from gpusvm.errors import UsageError
from gpusvm.evaluation import (
    Evaluation,
    class_indices,
    describe_reliability,
    evaluate_predictions,
    predict_samples,
)
from gpusvm.io.output import check_writable, write_json
from gpusvm.model import SVMModel
from gpusvm.params import TASKS
from gpusvm.split import Reading, Samples, counted, fitting, load_like, require_kind
from gpusvm.training import training_samples

LINE_WIDTH = 80
"""Results fit this many columns where there is no terminal to ask."""

MISTAKES = 8
LONGEST_LABEL = 16
MIN_CELL = 3


@dataclass(frozen=True)
class Asked:
    """What the command's options say."""

    source: str | None
    split: str | None
    limit: int | None
    seed: int | None
    label: str | None
    drop: tuple[str, ...]
    resize: bool
    invert: bool
    data_dir: str | None
    certify: bool
    C: float | None
    json: Path | None
    report: Path | None


def run(path: Path, asked: Asked) -> None:
    """Evaluate the model at `path`, print the figures, and write what was asked for."""
    notes = messages()
    model, source = load_classifier(path, asked)
    data = load_data(notes, model, source, asked)
    note_raw(notes, model, data)
    true = data.require_labels()
    class_indices(model.classes, true, where=data.name)  # unknown labels fail before the long work
    if is_training_data(model, data):
        notes.print(
            f"note: the model was trained on {data.name}, {data.split} split: it may have seen these {data.unit}s",
            soft_wrap=True,
        )
    samples = like_training(notes, model, data, invert=asked.invert)
    if isinstance(data, Dataset):
        data = replace(data, images=samples)
    with sample_progress(notes, len(data)) as progress:
        predictions = predict_samples(model, samples, progress, probabilities=model.calibration is not None)
    evaluation = evaluate_predictions(
        model.classes, true, predictions.labels, predictions.seconds, predictions.probabilities
    )
    certificate = None
    if asked.certify:
        trained = training_samples(model, data)
        certificate = certify(model, model.preprocess(trained.samples), trained.require_labels(), C=asked.C)
        model = model if asked.C is None else replace(model, problem=replace(model.problem, C=asked.C))
    written = []
    if asked.json is not None:
        found = {} if certificate is None else {"certificate": certificate.summary()}
        write_json(asked.json, figures(evaluation, data, path) | found)
        written.append(asked.json)
    if asked.report is not None:
        from gpusvm.report.evaluation import write_report

        written.append(write_report(model, evaluation, data, predictions, asked.report, title=path.name))
    show(results(), model, evaluation, data)
    if certificate is not None:
        results().print(f"\n{describe_certificate(model, certificate)}", soft_wrap=True)
    for each in written:
        notes.print(f"Wrote {each}", soft_wrap=True)


def load_classifier(path: Path, asked: Asked) -> tuple[SVMModel, str]:
    """The model, and the source that it is evaluated on.

    Checks whatever can be checked before the data are read.
    """
    if asked.C is not None and not asked.certify:
        raise UsageError("--C is what --certify recomputes for; give both, or leave it out")
    check_writable(asked.json, None if asked.report is None else asked.report / "index.html")
    model = load_named_model(path, asked.source)
    if not model.problem.classifies:
        raise UsageError(
            f"{path} is a model of {TASKS[model.problem.task]}, and evaluate takes classifiers; "
            "gpusvm predict gives its values"
        )
    source = asked.source or trained_on(model)
    require_kind(model, source)
    return model, source


def trained_on(model: SVMModel) -> str:
    """The data set that a model says it was trained on, else mnist.

    Raises UsageError for a LIBSVM model.
    """
    if model.from_libsvm:
        raise UsageError("a LIBSVM model does not say what it was trained on: name the data after the model")
    data = model.provenance.get("dataset")
    name = data.get("name") if isinstance(data, dict) else None
    return str(name or "mnist")


def load_data(notes: Console, model: SVMModel, source: str, asked: Asked) -> Samples:
    """The samples to evaluate on.

    They are those to train on where nothing else has labels, which is said.
    """
    resize = size_for(notes, model, asked.resize)
    data = load_labelled(model, source, asked.split or _default_split(notes, source, asked.data_dir), asked, resize)
    if data.labels is None and asked.split is None and data.split == "test":
        if not has_split(source, "train", asked.data_dir):
            return data
        notes.print(f"{source}, test split: has no labels: evaluating on the train split", soft_wrap=True)
        data = load_labelled(model, source, "train", asked, resize)
    return data


def load_labelled(model: SVMModel, source: str, split: str, asked: Asked, resize: ImageShape | None) -> Samples:
    """Samples of a split for a model: a table or images, whichever the model takes."""
    label, progress = asked.label, messages().is_terminal
    if model.table is not None:
        table = model.table if label is None else replace(model.table, label_name=label, label_number=None, left_out=())
        reading = Reading(drop=asked.drop, data_dir=asked.data_dir, progress=progress)
        return load_like(source, split, table, model.n_features, reading, asked.limit, asked.seed)
    kind = "auto" if model.image_shape is None else "images"
    found = load_dataset(
        source, split, limit=asked.limit, seed=asked.seed, data_dir=asked.data_dir, progress=progress, kind=kind,
        label=label, drop=asked.drop, resize=resize, first_index=1 if model.from_libsvm else None,
    )  # fmt: skip
    return found if isinstance(found, Dataset) else fitting(found, model)


def is_training_data(model: SVMModel, data: Samples) -> bool:
    """Whether the model says that it was trained on this very split, all or some of it."""
    known = model.provenance.get("dataset")
    if not isinstance(known, dict):
        return False
    same_name = (known.get("name"), known.get("split")) == (data.name, data.split)
    return same_name or known.get("digest") == data.digest


def figures(evaluation: Evaluation, data: Samples, model: Path) -> dict[str, object]:
    """What ``--json`` writes."""
    return {
        "model": str(model),
        "source": data.name,
        "split": data.split,
        "digest": data.digest,
        **evaluation.to_dict(),
    }


def _default_split(notes: Console, source: str, data_dir: str | None) -> str:
    if has_split(source, "test", data_dir):
        return "test"
    notes.print(f"{source} has no test split: evaluating on all of it", soft_wrap=True)
    return "train"


def show(console: Console, model: SVMModel, evaluation: Evaluation, data: Samples) -> None:
    """Print the accuracy, the classes, the confusion matrix and the most frequent mistakes."""
    width = console.width if console.is_terminal else LINE_WIDTH
    console.print(
        f"{data.name}, {data.split} split: {counted(data)};"
        f" {model.n_support_vectors:,} support vectors, {model.kernel.name} kernel",
        soft_wrap=True,
    )
    console.print(
        bold(f"Accuracy: {evaluation.accuracy:.4f}"),
        f"({evaluation.n_errors:,} wrong;"
        f" predicted in {evaluation.predict_seconds or 0:.2f} s,"
        f" {evaluation.samples_per_second or 0:,.0f} {data.unit}s a second)",
        soft_wrap=True,
    )
    if evaluation.reliability is not None:
        console.print(describe_reliability(evaluation.reliability), soft_wrap=True)
    console.print()
    console.print(class_table(evaluation, f"{data.unit}s"), width=width)
    if not evaluation.n_errors:
        return
    matrix = confusion_table(evaluation, width)
    if matrix is None:
        console.print(
            f"\nThe confusion matrix of {len(evaluation.classes)} classes is wider than {width} columns;"
            " --report and --json have it.",
            soft_wrap=True,
        )
    else:
        console.print(bold("\nConfusion matrix"), "(rows: true class, columns: predicted class)")
        console.print(matrix, width=width)
    console.print(bold("\nMost frequent mistakes"), "(true -> predicted)")
    console.print(mistake_table(evaluation), width=width)


def class_table(evaluation: Evaluation, samples: str) -> Table:
    """Precision, recall, F1 and counts, a row for each class."""
    table = _table("class", "precision", "recall", "F1", samples, "wrong")
    right = evaluation.confusion.diagonal()
    for c, label in enumerate(_labels(evaluation)):
        ratios = (evaluation.precision[c], evaluation.recall[c], evaluation.f1[c])
        table.add_row(
            label,
            *(f"{ratio:.4f}" if np.isfinite(ratio) else "-" for ratio in ratios),
            f"{evaluation.support[c]:,}",
            f"{evaluation.support[c] - right[c]:,}",
        )
    return table


def confusion_table(evaluation: Evaluation, width: int) -> Table | None:
    """The confusion matrix with dots for zeros, or None where it takes more columns than `width`.

    Labels that are wider than a cell can be are cut above the columns, which stand in the order of
    the rows.
    """
    labels = _labels(evaluation)
    longest = max(label.cell_len for label in labels)
    digits = len(str(evaluation.confusion.max()))
    room = (width - longest - 1) // len(labels) - 1
    if room < max(digits, MIN_CELL):
        return None
    cell = min(max(digits, longest, MIN_CELL), room)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(no_wrap=True)
    for label in labels:
        head = label.copy()
        head.truncate(cell)
        table.add_column(head, justify="right", no_wrap=True, min_width=cell)
    for i, label in enumerate(labels):
        table.add_row(label, *(_count(int(n), i == j) for j, n in enumerate(evaluation.confusion[i])))
    return table


def mistake_table(evaluation: Evaluation) -> Table:
    """The most frequent pairs of true and predicted class."""
    labels = _labels(evaluation)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for i, j, count in evaluation.most_confused(MISTAKES):
        share = f"{count / evaluation.support[i]:.1%} of class {labels[i]}"
        table.add_row(Text.assemble(labels[i], " -> ", labels[j]), f"{count:,}", Text(share))
    return table


def _count(count: int, is_right: bool) -> Text:
    if not count:
        return Text("·", style="dim")
    return Text(str(count), style="green" if is_right else "bold red")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for k, name in enumerate(columns):
        table.add_column(name, justify="right" if k else "left", no_wrap=True)
    return table


def _labels(evaluation: Evaluation) -> list[Text]:
    """Class labels to print, cut where they are long; never read as markup."""
    labels = [Text(" ".join(str(label).split())) for label in evaluation.classes.tolist()]
    for label in labels:
        label.truncate(LONGEST_LABEL, overflow="ellipsis")
    return labels

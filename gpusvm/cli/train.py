"""What ``gpusvm train`` does: from images or a table to a model file.

It also says how accurate the model is on samples that it has not seen.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gpusvm.backends.base import Progress as ProgressCallback
from gpusvm.backends.registry import Choice, choose_backend
from gpusvm.certificate import Certificate, certify, describe_certificate
from gpusvm.cli import tutorial
from gpusvm.cli.console import bold, messages, results
from gpusvm.cli.options import Preset
from gpusvm.cli.progress import pair_progress, sample_progress
from gpusvm.data import Dataset, Table, default_source, load_dataset
from gpusvm.data.column_figures import column_figures, column_name, stand_ins, told_stand_ins, uneven
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.evaluation import (
    Predictions,
    Reliability,
    class_indices,
    describe_reliability,
    fraction_equal,
    predict_samples,
    reliability,
)
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.io.model_file import save_model
from gpusvm.io.output import check_writable, write_json
from gpusvm.memory import peak_rss_mb
from gpusvm.model import SVMModel
from gpusvm.params import RANGES, Scaling, require
from gpusvm.pixel_range import unlike_each_other, white_of
from gpusvm.preprocess import default_scaling
from gpusvm.preprocess.augment import Move, moves_named
from gpusvm.preprocess.components import FITTED_ON
from gpusvm.split import Reading, Split, counted, load_split, plural
from gpusvm.training import recommended_parameters, steps_for, train_augmented, train_model, training_samples

BEST_C, BEST_MOVES = 10.0, "shifts,rotations,scales,shears,thickness"
"""Of the preset best, found by cross-validation on MNIST's training images:
docs/recognition.md."""

NAMED_CLASSES = 6
"""Classes up to which each is named with its count."""

LONGEST_NAME = 30

SCALED = {
    "standard": "each column to mean 0 and standard deviation 1",
    "maxabs": "each column divided by its largest absolute value",
    "minmax": "each column to 0 to 1",
}


@dataclass
class Plan:
    """What to train on, and how, as asked for.

    `plan_in_full` fills in presets and recommendations. `svc` holds parameters of `SVC` by name,
    with None for a C, gamma or cache_size that is not given.
    """

    source: str | None
    reading: Reading
    test_source: str | None
    limit: int | None
    test_size: float | None
    seed: int
    scaling: Scaling | None
    svc: dict[str, Any]
    preset: Preset = Preset.default
    binarize: bool = False
    deskew: bool = False
    scatter: bool = False
    moves: tuple[Move, ...] = ()
    certify: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The source: what was named, or what stands in its place."""
        assert self.source is not None
        return self.source


@dataclass
class Files:
    """Where results go; `model` is None until the plan is filled in."""

    model: Path | None
    json: Path | None
    checkpoint: Path | None
    predictions: Path | None = None


def run(plan: Plan, files: Files) -> None:
    """Train, test on samples held out, and save the model."""
    console, notes = results(), messages()
    plan_in_full(plan, files)
    assert files.model is not None
    choice = choose_backend(plan.svc["backend"], require_gpu=plan.svc["require_gpu"])
    say_notices(notes, plan, choice)
    split = load(plan, notes)
    check_images(plan, split)
    svc = SVC(**plan.svc)
    if plan.preset is Preset.tutorial:
        reading = plan.reading
        first = load_dataset(
            plan.name, limit=plan.limit, data_dir=reading.data_dir, kind="images", resize=reading.resize
        )
        tutorial.show_first_rows(console, first)
    announce(console, split, svc, choice, plan)
    warn_of_data(notes, split, plan)
    checkpoint = None if files.checkpoint is None else Checkpoint(files.checkpoint)
    if checkpoint is not None:
        console.print(f"Checkpoint: {checkpoint.path} (class pairs as they finish, until the model is saved)")
    say = stages(notes) if plan.scatter or plan.moves else None
    with pair_progress(notes) as progress:
        model = _trained(svc, split, plan, progress, checkpoint, say or (lambda _: None))
    save_model(model, files.model)
    if checkpoint is not None:
        checkpoint.remove()
    if say is not None:
        say(f"Testing, on {counted(split.test)}")
    predictions = predict_test(notes, model, split, probabilities=plan.svc["probability"])
    certificate = _certify(notes, model, split) if plan.certify else None
    report(console, model, split, predictions, certificate)
    console.print(f"Model: {files.model} ({_size(files.model.stat().st_size)})", soft_wrap=True)
    if files.json is not None:
        write_json(files.json, metrics(model, split, predictions, certificate))
    if files.predictions is not None:
        tutorial.finish(console, model, plan.name, files.predictions, plan.reading.data_dir, split)


def plan_in_full(plan: Plan, files: Files) -> None:
    """Fill in what was not said, and check all that can be checked before data are read."""
    svc = plan.svc
    svc["gamma"] = None if svc["gamma"] is None else parse_gamma(svc["gamma"])
    name_source(plan)
    fill_in(plan)
    names = ("degree", "coef0", "tol", "max_iter", "time_limit", "cache_size", "n_jobs", "device")
    check_options(**{name: svc[name] for name in names})
    svc["cache_size"] = svc["cache_size"] or "auto"
    files.model = files.model or Path(f"{stem(plan.name)}.svm")
    if plan.preset is Preset.tutorial:
        files.predictions = files.model.with_name("tutorial-predictions.csv")
    if plan.preset is Preset.best:
        svc["backend"] = best_backend(svc["backend"])
        plan.certify, files.json = True, files.json or files.model.with_suffix(".json")
    check_augmentation(plan, files.checkpoint)
    check_writable(files.model, files.json, files.predictions, files.checkpoint)
    check_different("--checkpoint", files.checkpoint, files.model, files.json, files.predictions)


def say_notices(notes: Console, plan: Plan, choice: Choice) -> None:
    """Say what was decided where the user had named nothing."""
    for notice in (*plan.notices, choice.notice):
        if notice:
            notes.print(notice, soft_wrap=True)


def load(plan: Plan, notes: Console) -> Split:
    """What to train on and what to test on."""
    return load_split(
        plan.name, reading=replace(plan.reading, progress=notes.is_terminal), test_source=plan.test_source,
        limit=plan.limit, test_size=plan.test_size, seed=plan.seed,
    )  # fmt: skip


def predict_test(notes: Console, model: SVMModel, split: Split, *, probabilities: bool = False) -> Predictions:
    """What the model says of the test samples."""
    with sample_progress(notes, len(split.test)) as samples_done:
        return predict_samples(model, split.test.samples, samples_done, probabilities=probabilities)


def _trained(
    svc: SVC,
    split: Split,
    plan: Plan,
    progress: ProgressCallback,
    checkpoint: Checkpoint | None,
    say: Callable[[str], None],
) -> SVMModel:
    """Train as planned; each stage is said as it begins."""
    if plan.scatter:
        learned_from = min(FITTED_ON, len(split.train))
        say(f"Scattering: means and principal components, learned from {plural(learned_from, 'image')}")
    steps = steps_for(
        split.train, binarize=plan.binarize, deskew=plan.deskew, scatter=plan.scatter, scaling=plan.scaling,
        n_jobs=svc.n_jobs,
    )  # fmt: skip
    if plan.moves:
        assert isinstance(split.train, Dataset)
        return train_augmented(svc, split.train, steps, plan.moves, progress, say)
    if plan.scatter:
        say(f"Training, on {counted(split.train)}")
    return train_model(svc, split.train, steps, progress, checkpoint)


def stages(notes: Console) -> Callable[[str], None]:
    """A function that prints what begins, with the seconds since it was made."""
    start = time.monotonic()
    return lambda text: notes.print(f"{time.monotonic() - start:5.0f} s  {text}", soft_wrap=True)


def best_backend(asked: str) -> str:
    """The backend of the preset best: the fastest exact one, unless another was asked for."""
    return asked if asked != "auto" or os.environ.get("GPUSVM_BACKEND") else "native"


def check_augmentation(plan: Plan, checkpoint: Path | None) -> None:
    """Raise UsageError for what cannot be had together with moved copies."""
    if not plan.moves:
        return
    for option, is_given in (("--proba", plan.svc["probability"]), ("--checkpoint", checkpoint is not None)):
        if is_given:
            raise UsageError(f"{option} cannot be had with --augment (or --preset best); leave out one of the two")


def check_images(plan: Plan, split: Split) -> None:
    """Raise UsageError where a table would be scattered or moved."""
    for option, is_given in (("--augment", plan.moves), ("--scatter", plan.scatter)):
        if is_given and not isinstance(split.train, Dataset):
            raise UsageError(f"{option} is for images, and {split.train.name} is a table; leave it out")


def check_different(option: str, path: Path | None, *results: Path | None) -> None:
    """Raise UsageError where an option's file, kept to go on from, would be a result's."""
    for result in results:
        if path is not None and result is not None and path.resolve() == result.resolve():
            raise UsageError(f"{option} {path} is also where a result is written; name another file")


def check_options(**values: Any) -> None:
    """Raise UsageError for a number outside the range of the parameter that its option sets."""
    for name, value in values.items():
        try:
            require(name, value, label=f"--{name.replace('_', '-')}")
        except ValueError as error:
            raise UsageError(str(error)) from None


def parse_gamma(text: str) -> float | str:
    """A number, ``scale`` or ``auto``. Raises UsageError for anything else."""
    if text in ("scale", "auto"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not RANGES["gamma"].holds(value):
        raise UsageError(f"--gamma must be {RANGES['gamma'].words}, scale or auto; got {text!r}")
    return value


def name_source(plan: Plan) -> None:
    """Where no source was named, take the default one."""
    if plan.source is None:
        plan.source, notice = default_source(plan.reading.data_dir, progress=True)
        plan.notices += [notice] if notice else []


def fill_in(plan: Plan) -> None:
    """Fill in what was not said: from the preset, else from what is known to suit the data set."""
    if plan.preset is Preset.tutorial:
        if plan.reading.kind == "table":
            raise UsageError("--preset tutorial is a walk through images; leave it out for a table")
        defaults: dict[str, Any] = {"C": 1.0, "gamma": "auto"}
        plan.limit, plan.test_size, plan.binarize = plan.limit or tutorial.IMAGES, plan.test_size or 0.2, True
        plan.reading = replace(plan.reading, kind="images")
    elif plan.preset is Preset.best:
        if plan.reading.kind == "table":
            raise UsageError("--preset best is for images; leave it out for a table")
        defaults = {"C": BEST_C, "gamma": "scale"}
        plan.reading, plan.scatter = replace(plan.reading, kind="images"), True
        plan.moves = plan.moves or moves_named(BEST_MOVES)
    elif plan.scatter:
        defaults = {"C": BEST_C, "gamma": "scale"}  # what suits a data set's pixels does not suit their scattering
    else:
        defaults = {"C": 1.0, "gamma": "scale"} | recommended_parameters(plan.name)
        if plan.svc["kernel"] != "rbf" or plan.reading.resize is not None:
            defaults["gamma"] = "scale"  # the other was found for an RBF kernel on the images as they are
    plan.svc |= {name: value for name, value in defaults.items() if plan.svc[name] is None}
    check_options(C=plan.svc["C"])


def stem(source: str) -> str:
    """The name of a source without what says its format: heart for heart.csv.gz."""
    path = Path(source)
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).stem or "model"


def announce(console: Console, split: Split, svc: SVC, choice: Choice, plan: Plan) -> None:
    """Say what is about to be done, on what, and why there."""
    announce_data(console, split, plan)
    parts = [f"kernel {svc.kernel}", f"C={svc.C:g}"]
    if svc.kernel != "linear":
        parts.append(f"gamma={svc.gamma if isinstance(svc.gamma, str) else format(svc.gamma, 'g')}")
    console.print(f"SVC: {', '.join(parts)}, tol={svc.tol:g}")
    console.print(f"Backend: {choice.backend.name} ({choice.backend.runs}); {choice.reason}")


def announce_data(console: Console, split: Split, plan: Plan) -> None:
    """Say what is trained on, and what on to test."""
    describe = _describe_table if isinstance(split.train, Table) else _describe_images
    for line in describe(split, plan):
        console.print(line, soft_wrap=True)


def _describe_images(split: Split, plan: Plan) -> list[str]:
    data = split.train
    assert isinstance(data, Dataset)
    height, width = data.image_shape
    n_classes = len(np.unique(data.require_labels()))
    white = white_of(data.images)
    darker = f"Their pixels reach {white}: that is taken for white in place of 255"
    classes, pairs = plural(n_classes, "class", "classes"), plural(n_classes * (n_classes - 1) // 2, "class pair")
    words = (("binarised", plan.binarize), ("deskewed", plan.deskew), ("scattered", plan.scatter))
    extra = "".join(f", {word}" for word, on in words if on)
    return [
        f"Training on {len(data):,} images of {height} x {width} pixels{extra} from {data.name}: "
        f"{classes}, {pairs}; testing on {split.description}",
        *([darker] if white < 255 else []),
    ]


def _describe_table(split: Split, plan: Plan) -> list[str]:
    data = split.train
    assert isinstance(data, Table)
    sparse = "" if isinstance(data.X, np.ndarray) else f" (sparse: {data.X.nnz / data.X.shape[0]:.0f} not zero a row)"
    drawn = f" ({plan.limit:,} drawn at random)" if split.drawn else ""
    column = "" if data.label_name is None else f" in column {data.label_name}"
    features = plural(data.n_features, "feature")
    scaling = plan.scaling or default_scaling(data.X)
    if scaling == "none":
        scaled = "Scaling: none"
    else:
        scaled = f"Scaling: {scaling}, {SCALED[scaling]} (of the training rows); --scale none leaves them as they are"
    return [
        f"Training on {counted(data)} of {features}{sparse} from {data.name}{drawn}; testing on {split.description}",
        f"Labels{column}: {_describe_classes(data.require_labels())}",
        scaled,
    ]


def _describe_classes(labels: np.ndarray) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    names = [str(label) if len(str(label)) <= LONGEST_NAME else f"{label!s:.{LONGEST_NAME}}..." for label in classes]
    if len(classes) <= NAMED_CLASSES:
        return f"{len(classes)} classes, " + ", ".join(f"{n} ({c:,})" for n, c in zip(names, counts, strict=True))
    return f"{len(classes)} classes from {names[0]} to {names[-1]}, of {counts.min():,} to {counts.max():,} rows each"


def warn_of_data(notes: Console, split: Split, plan: Plan) -> None:
    """Say what sets test samples apart from the others, and what in features needs a look."""
    train, test = split.train, split.test
    found = ""
    if isinstance(train, Dataset) and isinstance(test, Dataset):
        found = unlike_each_other(train.images, test.images)
    elif isinstance(train, Table) and plan.scaling == "none":
        found = _uneven(train)
    if found:
        notes.print(f"note: {found}", soft_wrap=True)
    if isinstance(train, Table) and (missing := stand_ins(train)):
        notes.print(f"note: {told_stand_ins(train, missing)}", soft_wrap=True)
    if split.row_numbers:
        notes.print(
            f"note: {split.row_numbers} numbers the rows (1, 2, 3, ...) and is taken for a feature; leave it out"
            " (--drop) if it says nothing else",
            soft_wrap=True,
        )


def _uneven(table: Table) -> str:
    """Which columns of a table are of very different sizes, and what that means; else empty."""
    found = uneven(column_figures(table))
    if found is None:
        return ""
    small, large, factor = found
    return (
        f"{column_name(table, large)} varies {factor:,.0f} times as much as {column_name(table, small)}, which hardly"
        " counts beside it; leave out --scale none, unless that is meant"
    )


def report(
    console: Console, model: SVMModel, split: Split, predictions: Predictions, certificate: Certificate | None
) -> None:
    """Print how the training went and how well the model does."""
    console.print(
        f"Trained in {model.provenance['fit_seconds']:.1f} s: {model.n_support_vectors:,} support vectors, "
        f"{int(model.n_iter.sum()):,} iterations"
    )
    console.print(
        bold(f"Accuracy: {_accuracy(split, predictions):.4f}"),
        f"on {counted(split.test, 'test ')} (predicted in {predictions.seconds:.2f} s)",
    )
    if (found := _reliability(model, split, predictions)) is not None:
        console.print(describe_reliability(found), soft_wrap=True)
    if certificate is not None:
        console.print(describe_certificate(model, certificate))


def metrics(model: SVMModel, split: Split, predictions: Predictions, certificate: Certificate | None) -> dict[str, Any]:
    """What ``--json`` writes; null where a backend cannot say."""
    gap, objective = model.kkt_gap, model.dual_objective
    return {
        "backend": model.provenance["backend"],
        "n_train": len(split.train),
        "n_test": len(split.test),
        "fit_seconds": model.provenance["fit_seconds"],
        "predict_seconds": predictions.seconds,
        "accuracy": _accuracy(split, predictions),
        **({} if (found := _reliability(model, split, predictions)) is None else found.to_dict()),
        "n_support_vectors": model.n_support_vectors,
        "dual_objective": None if objective is None else float(objective.sum()),
        "kkt_gap": None if gap is None else float(gap.max()),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "peak_gpu_mb": model.provenance.get("peak_gpu_mb"),
        "certificate": None if certificate is None else certificate.summary(),
        "pairs": [
            {
                "classes": [model.classes[i].item(), model.classes[j].item()],
                "n_iter": int(model.n_iter[p]),
                "kkt_gap": None if gap is None else float(gap[p]),
                "dual_objective": None if objective is None else float(objective[p]),
            }
            for p, (i, j) in enumerate(model.pairs)
        ],
        "parameters": {
            "kernel": model.kernel.name,
            "C": model.problem.C,
            "gamma": model.kernel.gamma,
            "degree": model.kernel.degree,
            "coef0": model.kernel.coef0,
            "tol": model.stopping.tol,
        },
        "provenance": model.provenance,
    }


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MB" if n_bytes >= 2**20 else f"{max(1, round(n_bytes / 2**10))} kB"


def _accuracy(split: Split, predictions: Predictions) -> float:
    return fraction_equal(split.test.require_labels(), predictions.labels)


def _reliability(model: SVMModel, split: Split, predictions: Predictions) -> Reliability | None:
    """How far the probabilities can be trusted.

    None where there are none, or test labels that the model never saw.
    """
    true = split.test.require_labels()
    if predictions.probabilities is None or not np.isin(true, model.classes).all():
        return None
    indices = (class_indices(model.classes, labels) for labels in (true, predictions.labels))
    return reliability(predictions.probabilities, *indices)


def _certify(notes: Console, model: SVMModel, split: Split) -> Certificate:
    notes.print("Recomputing the gap and the objective in float64 ...")
    data = training_samples(model, split.train)
    return certify(model, model.preprocess(data.samples), data.require_labels())

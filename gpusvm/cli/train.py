"""``gpusvm train``: from images or a table to a model file, with its accuracy on samples it has not seen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from gpusvm.backends.base import Progress
from gpusvm.backends.registry import Choice, backend_names, choose_backend
from gpusvm.certificate import Certificate, certify, describe_certificate
from gpusvm.cli import tutorial
from gpusvm.cli.console import bold, messages, pair_progress, results, sample_progress
from gpusvm.cli.options import (
    AsImages,
    AsTable,
    Balanced,
    DataDir,
    Degree,
    Drop,
    Label,
    Out,
    Resize,
    Scale,
    TestSize,
    TestSource,
    TrainLimit,
    TrainSource,
    reading_of,
)
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
from gpusvm.kernels import KERNEL_NAMES
from gpusvm.memory import peak_rss_mb
from gpusvm.model import SVMModel
from gpusvm.params import RANGES, require
from gpusvm.pixel_range import unlike_each_other, white_of
from gpusvm.preprocess import Scaling, default_scaling
from gpusvm.preprocess.augment import MOVES, Move, moves_named
from gpusvm.preprocess.components import FITTED_ON
from gpusvm.split import Reading, Split, counted, load_split, plural
from gpusvm.training import recommended_parameters, steps_for, train_augmented, train_model, training_samples

KernelName = StrEnum("KernelName", {name: name for name in KERNEL_NAMES if name != "precomputed"})  # type: ignore[misc]


class Preset(StrEnum):
    """Named starting points for the options."""

    default = "default"
    tutorial = "tutorial"
    best = "best"


BEST_C, BEST_MOVES = 10.0, "shifts,rotations,scales,shears,thickness"
"""Of the preset best, found by cross-validation on MNIST's training images: docs/recognition.md."""

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
    """What to train on, and how, after presets and recommendations."""

    source: str
    reading: Reading
    test_source: str | None
    limit: int | None
    test_size: float | None
    seed: int
    binarize: bool
    deskew: bool
    scatter: bool
    moves: tuple[Move, ...]
    scaling: Scaling | None
    parameters: dict[str, Any]
    notices: list[str]


def train(
    source: TrainSource = None,
    label: Label = None,
    drop: Drop = None,
    scale: Scale = None,
    test_source: TestSource = None,
    as_table: AsTable = False,
    as_images: AsImages = False,
    resize: Resize = None,
    backend: Annotated[
        str, typer.Option(help=f"auto, {', '.join(backend_names())}; see gpusvm info.", metavar="NAME")
    ] = "auto",
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail rather than train on a CPU.")] = False,
    device: Annotated[
        int | None, typer.Option(help="CUDA device of a GPU backend, counted among the visible ones.")
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(
            help="tutorial: a first walk with 5,000 images. best: the fewest mistakes on digits, in some minutes."
        ),
    ] = Preset.default,
    limit: TrainLimit = None,
    test_size: TestSize = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Another number draws and holds out other samples.")
    ] = 0,
    kernel: Annotated[KernelName, typer.Option(help="Kernel function.")] = KernelName.rbf,  # type: ignore[attr-defined]
    C: Annotated[
        float | None, typer.Option("--C", help="Penalty; 10 for MNIST and digits, else 1.", metavar="FLOAT")
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            help="A number, scale or auto; 0.02 for MNIST, 0.2 for digits as they are, else scale.",
            metavar="GAMMA",
        ),
    ] = None,
    degree: Degree = 3,
    coef0: Annotated[float, typer.Option(help="Of the polynomial and sigmoid kernels.")] = 0.0,
    tol: Annotated[float, typer.Option(help="Largest KKT violation left at the end.")] = 1e-3,
    max_iter: Annotated[int, typer.Option(help="Iterations for each class pair; -1: LIBSVM's ten million.")] = -1,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which training ends with a model as good as it has got; for a native backend."
        ),
    ] = None,
    balanced: Balanced = False,
    cache_size: Annotated[
        float | None,
        typer.Option(help="MB for kernel values; default: the backend's choice, at most a third of the free memory."),
    ] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Class pairs side by side on a CPU; default: all cores.")] = None,
    proba: Annotated[
        bool,
        typer.Option("--proba", help="Give it probabilities; takes two more trainings, on either half of the data."),
    ] = False,
    binarize: Annotated[bool, typer.Option("--binarize", help="Make every pixel 0 or 1.")] = False,
    deskew: Annotated[bool, typer.Option("--deskew", help="Straighten slanted digits first.")] = False,
    scatter: Annotated[
        bool,
        typer.Option("--scatter", help="Train on images' scattering: features that hardly change as strokes bend."),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="MOVES",
            help=f"Train again on the support vectors' images and moved copies of them: {', '.join(MOVES)}, or several"
            " with commas between.",
        ),
    ] = None,
    data_dir: DataDir = None,
    out: Out = None,
    checkpoint_path: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Keep finished class pairs in this file, and go on from those in it."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics to this file.")] = None,
    certify_it: Annotated[
        bool, typer.Option("--certify", help="Recompute the KKT gap and the objective in float64.")
    ] = False,
) -> None:
    """Train on a table or images, test on samples held out, and save the model."""
    console, notes = results(), messages()
    given = {"C": C, "gamma": None if gamma is None else parse_gamma(gamma)}
    source, notices = source_of(source, data_dir)
    plan = Plan(
        source=source,
        reading=reading_of(as_table, as_images, label, drop, data_dir, resize),
        test_source=test_source, limit=limit, test_size=test_size, seed=seed, binarize=binarize, deskew=deskew,
        scatter=scatter, moves=() if augment is None else moves_named(augment),
        scaling=None if scale is None else scale.value,  # type: ignore[arg-type]
        parameters=given, notices=notices,
    )  # fmt: skip
    fill_in(plan, preset, str(kernel))
    check_options(
        degree=degree, coef0=coef0, tol=tol, max_iter=max_iter, time_limit=time_limit, cache_size=cache_size,
        n_jobs=n_jobs, device=device,
    )  # fmt: skip
    model_path = out or Path(f"{stem(plan.source)}.svm")
    predictions_path = model_path.with_name("tutorial-predictions.csv") if preset is Preset.tutorial else None
    if preset is Preset.best:
        backend = best_backend(backend)
        certify_it, json_path = True, json_path or model_path.with_suffix(".json")
    check_augmentation(plan, proba, checkpoint_path)
    check_writable(model_path, json_path, predictions_path, checkpoint_path)
    check_different("--checkpoint", checkpoint_path, model_path, json_path, predictions_path)
    choice = choose_backend(backend, require_gpu=require_gpu)
    for notice in (*plan.notices, choice.notice):
        if notice:
            notes.print(notice, soft_wrap=True)

    split = load_split(
        plan.source, reading=plan.reading, test_source=plan.test_source, limit=plan.limit, test_size=plan.test_size,
        seed=plan.seed, progress=notes.is_terminal,
    )  # fmt: skip
    check_images(plan, split)
    svc = SVC(
        kernel=str(kernel), degree=degree, coef0=coef0, tol=tol, max_iter=max_iter, time_limit=time_limit,
        backend=backend, require_gpu=require_gpu, device=device, class_weight="balanced" if balanced else None,
        cache_size=cache_size or "auto", n_jobs=n_jobs, probability=proba, **plan.parameters,
    )  # fmt: skip
    if preset is Preset.tutorial:
        first = load_dataset(
            plan.source, limit=plan.limit, data_dir=data_dir, kind="images", resize=plan.reading.resize
        )
        tutorial.show_first_rows(console, first)
    announce(console, split, svc, choice, plan)
    warn_of_data(notes, split, plan)
    checkpoint = None if checkpoint_path is None else Checkpoint(checkpoint_path)
    if checkpoint is not None:
        console.print(f"Checkpoint: {checkpoint.path} (class pairs as they finish, until the model is saved)")
    say = stages(notes) if plan.scatter or plan.moves else None
    with pair_progress(notes) as progress:
        model = _trained(svc, split, plan, progress, checkpoint, say or (lambda _: None))
    save_model(model, model_path)
    if checkpoint is not None:
        checkpoint.remove()
    if say is not None:
        say(f"Testing, on {counted(split.test)}")
    with sample_progress(notes, len(split.test)) as samples_done:
        predictions = predict_samples(model, split.test.samples, samples_done, probabilities=proba)
    certificate = _certify(notes, model, split) if certify_it else None
    report(console, model, split, predictions, certificate)
    console.print(f"Model: {model_path} ({_size(model_path.stat().st_size)})", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, metrics(model, split, predictions, certificate))
    if predictions_path is not None:
        tutorial.finish(console, model, plan.source, predictions_path, data_dir, split)


def _trained(
    svc: SVC,
    split: Split,
    plan: Plan,
    progress: Progress,
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
    """The backend of the preset best, which is the fastest exact one, unless another was asked for."""
    return asked if asked != "auto" or os.environ.get("GPUSVM_BACKEND") else "native"


def check_augmentation(plan: Plan, proba: bool, checkpoint_path: Path | None) -> None:
    """Raise UsageError for what cannot be had together with moved copies."""
    if not plan.moves:
        return
    for option, is_given in (("--proba", proba), ("--checkpoint", checkpoint_path is not None)):
        if is_given:
            raise UsageError(f"{option} cannot be had with --augment (or --preset best); leave out one of the two")


def check_images(plan: Plan, split: Split) -> None:
    """Raise UsageError where a table would be scattered or moved."""
    for option, is_given in (("--augment", plan.moves), ("--scatter", plan.scatter)):
        if is_given and not isinstance(split.train, Dataset):
            raise UsageError(f"{option} is for images, and {split.train.name} is a table; leave it out")


def check_different(option: str, path: Path | None, *results: Path | None) -> None:
    """Raise UsageError where the file of an option, kept to go on from, would be one of the results."""
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


def source_of(source: str | None, data_dir: Path | None) -> tuple[str, list[str]]:
    """What was named, else the default, and what to say of it."""
    if source is not None:
        return source, []
    source, notice = default_source(data_dir, progress=True)
    return source, [notice] if notice else []


def fill_in(plan: Plan, preset: Preset, kernel: str) -> None:
    """Fill in what was not said: from the preset, else from what is known to suit the data set."""
    if preset is Preset.tutorial:
        if plan.reading.kind == "table":
            raise UsageError("--preset tutorial is a walk through images; leave it out for a table")
        defaults: dict[str, Any] = {"C": 1.0, "gamma": "auto"}
        plan.limit, plan.test_size, plan.binarize = plan.limit or tutorial.IMAGES, plan.test_size or 0.2, True
        plan.reading = replace(plan.reading, kind="images")
    elif preset is Preset.best:
        if plan.reading.kind == "table":
            raise UsageError("--preset best is for images; leave it out for a table")
        defaults = {"C": BEST_C, "gamma": "scale"}
        plan.reading, plan.scatter = replace(plan.reading, kind="images"), True
        plan.moves = plan.moves or moves_named(BEST_MOVES)
    elif plan.scatter:
        defaults = {"C": BEST_C, "gamma": "scale"}  # what suits a data set's pixels does not suit their scattering
    else:
        defaults = {"C": 1.0, "gamma": "scale"} | recommended_parameters(plan.source)
        if kernel != "rbf" or plan.reading.resize is not None:
            defaults["gamma"] = "scale"  # the other was found for an RBF kernel on the images as they are
    plan.parameters = defaults | {name: value for name, value in plan.parameters.items() if value is not None}
    check_options(C=plan.parameters["C"])


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
    """Say what sets the test samples apart from the others, and what in the features needs a look."""
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
    """Where a table's columns are of very different sizes, which, and what that means; else nothing."""
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
    """How far the probabilities can be trusted; None where there are none, or test labels that the model never saw."""
    true = split.test.require_labels()
    if predictions.probabilities is None or not np.isin(true, model.classes).all():
        return None
    indices = (class_indices(model.classes, labels) for labels in (true, predictions.labels))
    return reliability(predictions.probabilities, *indices)


def _certify(notes: Console, model: SVMModel, split: Split) -> Certificate:
    notes.print("Recomputing the gap and the objective in float64 ...")
    data = training_samples(model, split.train)
    return certify(model, model.preprocess(data.samples), data.require_labels())

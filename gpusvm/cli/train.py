"""``gpusvm train``: from images on disk to a model file, with its accuracy on images it has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from gpusvm.backends.checkpoint import Checkpoint
from gpusvm.backends.registry import Choice, backend_names, choose_backend
from gpusvm.certificate import Certificate, certify
from gpusvm.cli.console import bold, image_progress, messages, pair_progress, results
from gpusvm.cli.predict import to_csv
from gpusvm.data import Dataset, default_source, has_split, load_dataset
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.evaluation import Predictions, agreement, predict_images
from gpusvm.kernels import KERNEL_NAMES
from gpusvm.memory import peak_rss_mb
from gpusvm.model import SVMModel, describe_pair
from gpusvm.model_file import save_model
from gpusvm.output import check_writable, replacing, write_json
from gpusvm.params import RANGES, require
from gpusvm.preprocess import build_steps
from gpusvm.training import Split, load_split, recommended_parameters, train_model

KernelName = StrEnum("KernelName", {name: name for name in KERNEL_NAMES if name != "precomputed"})  # type: ignore[misc]


class Preset(StrEnum):
    """Named starting points for the options."""

    default = "default"
    tutorial = "tutorial"


TUTORIAL_IMAGES = 5_000


@dataclass
class Plan:
    """What to train on, and how, after presets and recommendations."""

    source: str
    parameters: dict[str, Any]
    limit: int | None
    test_size: float | None
    seed: int
    binarize: bool
    deskew: bool
    notices: list[str] = field(default_factory=list)


def train(
    source: Annotated[
        str | None,
        typer.Argument(help="mnist, fashion-mnist, digits, a CSV, .npz or folder; MNIST if not given."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help=f"auto, {', '.join(backend_names())}; see gpusvm info.", metavar="NAME")
    ] = "auto",
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail rather than train on a CPU.")] = False,
    device: Annotated[
        int | None, typer.Option(help="CUDA device of a GPU backend, counted among the visible ones.")
    ] = None,
    preset: Annotated[Preset, typer.Option(help="tutorial: a first walk with 5,000 images.")] = Preset.default,
    limit: Annotated[int | None, typer.Option(min=2, help="Use only the first so many images.")] = None,
    test_size: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Fraction of the images to hold out for testing."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the choice of held-out images.")] = 0,
    kernel: Annotated[KernelName, typer.Option(help="Kernel function.")] = KernelName.rbf,  # type: ignore[attr-defined]
    C: Annotated[
        float | None, typer.Option("--C", help="Penalty; 10 for MNIST and digits, else 1.", metavar="FLOAT")
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(help="A number, scale or auto; 0.02 for MNIST, 0.2 for digits, else scale.", metavar="GAMMA"),
    ] = None,
    degree: Annotated[int, typer.Option(help="Of the polynomial kernel.")] = 3,
    coef0: Annotated[float, typer.Option(help="Of the polynomial and sigmoid kernels.")] = 0.0,
    tol: Annotated[float, typer.Option(help="Largest KKT violation left at the end.")] = 1e-3,
    max_iter: Annotated[int, typer.Option(help="Iterations for each class pair; -1: LIBSVM's ten million.")] = -1,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds after which training ends with a model as good as it has got; native-cpu only."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh classes inversely to how frequent they are.")
    ] = False,
    cache_size: Annotated[
        float | None,
        typer.Option(help="MB for kernel values; default: the backend's choice, at most a third of the free memory."),
    ] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Class pairs side by side on a CPU; default: all cores.")] = None,
    binarize: Annotated[bool, typer.Option("--binarize", help="Make every pixel 0 or 1.")] = False,
    deskew: Annotated[bool, typer.Option("--deskew", help="Straighten slanted digits first.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where to look for data sets first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Model file; default: NAME.svm here.", show_default=False)] = None,
    checkpoint_path: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Keep finished class pairs in this file, and go on from those in it."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics to this file.")] = None,
    certify_it: Annotated[
        bool, typer.Option("--certify", help="Recompute the KKT gap and the objective in float64.")
    ] = False,
) -> None:
    """Train on images, test on others, and save the model."""
    console, notes = results(), messages()
    given = {"C": C, "gamma": None if gamma is None else parse_gamma(gamma)}
    plan = make_plan(source, preset, given, limit, test_size, seed, binarize, deskew, data_dir)
    check_options(
        degree=degree, coef0=coef0, tol=tol, max_iter=max_iter, time_limit=time_limit, cache_size=cache_size,
        n_jobs=n_jobs, device=device,
    )  # fmt: skip
    model_path = out or Path(f"{Path(plan.source).stem or 'model'}.svm")
    predictions_path = model_path.with_name("tutorial-predictions.csv") if preset is Preset.tutorial else None
    check_writable(model_path, json_path, predictions_path, checkpoint_path)
    check_different(checkpoint_path, model_path, json_path, predictions_path)
    choice = choose_backend(backend, require_gpu=require_gpu)
    for notice in (*plan.notices, choice.notice):
        if notice:
            notes.print(notice, soft_wrap=True)

    split = load_split(
        plan.source, limit=plan.limit, test_size=plan.test_size, seed=plan.seed,
        data_dir=None if data_dir is None else str(data_dir), progress=notes.is_terminal,
    )  # fmt: skip
    svc = SVC(
        kernel=str(kernel), degree=degree, coef0=coef0, tol=tol, max_iter=max_iter, time_limit=time_limit,
        backend=backend,
        require_gpu=require_gpu, device=device, class_weight="balanced" if balanced else None, cache_size=cache_size,
        n_jobs=n_jobs, **plan.parameters,
    )  # fmt: skip
    if preset is Preset.tutorial:
        show_first_rows(console, load_dataset(plan.source, limit=plan.limit, data_dir=data_dir, kind="images"))
    announce(console, split, svc, choice, plan)
    steps = build_steps(split.train.image_shape, binarize=plan.binarize, deskew=plan.deskew)
    checkpoint = None if checkpoint_path is None else Checkpoint(checkpoint_path)
    if checkpoint is not None:
        console.print(f"Checkpoint: {checkpoint.path} (class pairs as they finish, until the model is saved)")
    with pair_progress(notes) as progress:
        model = train_model(svc, split.train, steps, progress, checkpoint)
    save_model(model, model_path)
    if checkpoint is not None:
        checkpoint.remove()
    with image_progress(notes, len(split.test)) as images_done:
        predictions = predict_images(model, split.test.images, images_done)
    certificate = _certify(notes, model, split) if certify_it else None
    report(console, model, split, predictions, certificate)
    console.print(f"Model: {model_path} ({model_path.stat().st_size / 2**20:.1f} MB)", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, metrics(model, split, predictions, certificate))
    if predictions_path is not None:
        finish_tutorial(console, model, plan.source, predictions_path, data_dir, split)


def check_different(checkpoint_path: Path | None, *others: Path | None) -> None:
    """Raise UsageError where the checkpoint, which is removed in the end, would be one of the results."""
    for other in others:
        if checkpoint_path is not None and other is not None and checkpoint_path.resolve() == other.resolve():
            raise UsageError(f"--checkpoint {checkpoint_path} is also where a result is written; name another file")


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


def make_plan(
    source: str | None,
    preset: Preset,
    given: dict[str, Any],
    limit: int | None,
    test_size: float | None,
    seed: int,
    binarize: bool,
    deskew: bool,
    data_dir: Path | None,
) -> Plan:
    """Fill in what was not said: from the preset, else from what is known to suit the data set."""
    notices = []
    if source is None:
        source, notice = default_source(data_dir, progress=True)
        notices = [notice] if notice else []
    if preset is Preset.tutorial:
        defaults: dict[str, Any] = {"C": 1.0, "gamma": "auto"}
        limit, test_size, binarize = limit or TUTORIAL_IMAGES, test_size or 0.2, True
    else:
        defaults = {"C": 1.0, "gamma": "scale"} | recommended_parameters(source)
    parameters = defaults | {name: value for name, value in given.items() if value is not None}
    check_options(C=parameters["C"])
    return Plan(source, parameters, limit, test_size, seed, binarize, deskew, notices)


def announce(console: Console, split: Split, svc: SVC, choice: Choice, plan: Plan) -> None:
    """Say what is about to be done, on what, and why there."""
    data, labels = split.train, np.unique(split.train.require_labels())
    height, width = data.image_shape
    n_pairs = len(labels) * (len(labels) - 1) // 2
    extra = "".join(f", {word}" for word, on in (("binarised", plan.binarize), ("deskewed", plan.deskew)) if on)
    console.print(
        f"Training on {len(data):,} images of {height} x {width} pixels{extra} from {data.name}: "
        f"{len(labels)} classes, {n_pairs} class pairs; testing on {split.description}"
    )
    parts = [f"kernel {svc.kernel}", f"C={svc.C:g}"]
    if svc.kernel != "linear":
        parts.append(f"gamma={svc.gamma if isinstance(svc.gamma, str) else format(svc.gamma, 'g')}")
    console.print(f"SVC: {', '.join(parts)}, tol={svc.tol:g}")
    console.print(f"Backend: {choice.backend.name} ({choice.backend.runs}); {choice.reason}")


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
        f"on {len(split.test):,} test images (predicted in {predictions.seconds:.2f} s)",
    )
    if certificate is not None:
        worst = model.pairs[int(certificate.kkt_gap.argmax())]
        console.print(
            f"Certificate (float64, from the training data): KKT gap {certificate.max_kkt_gap:.2e} "
            f"(worst pair {describe_pair(model.classes, worst)}; asked for {model.stopping.tol:g}), "
            f"dual objective {certificate.total_dual_objective:.6g}, "
            f"relative duality gap {certificate.relative_duality_gap:.1e}"
        )


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


def _accuracy(split: Split, predictions: Predictions) -> float:
    return agreement(split.test.require_labels(), predictions.labels)


def _certify(notes: Console, model: SVMModel, split: Split) -> Certificate:
    notes.print("Recomputing the gap and the objective in float64 ...")
    return certify(model, model.preprocess(split.train.images), split.train.require_labels())


def show_first_rows(console: Console, data: Dataset) -> None:
    """The first look at a data set: a few rows as numbers, and how many there are of each class."""
    labels, pixels = data.require_labels(), data.images.reshape(len(data), -1)
    middle = pixels.shape[1] // 2
    console.print(f"The first rows (label, then pixels {middle} to {middle + 9} of {pixels.shape[1]}):")
    for label, row in zip(labels[:5], pixels[:5, middle : middle + 10], strict=False):
        console.print(f"  {label!s:>6}  " + " ".join(f"{value:3d}" for value in row))
    counts = ", ".join(f"{v}: {c}" for v, c in zip(*np.unique(labels, return_counts=True), strict=True))
    console.print(f"Images of each class: {counts}")


def finish_tutorial(
    console: Console, model: SVMModel, source: str, path: Path, data_dir: Path | None, split: Split
) -> None:
    """Write sample predictions as ImageId,Label, and say where to go from here."""
    if has_split(source, "test", data_dir):
        images = load_dataset(source, "test", limit=TUTORIAL_IMAGES, data_dir=data_dir, kind="images").images
    else:
        images = split.test.images
    labels = model.predict(model.preprocess(images))
    with replacing(path) as temporary:
        temporary.write_bytes(to_csv([str(number) for number in range(1, len(labels) + 1)], labels))
    console.print(f"Sample predictions: {path} ({len(labels):,} rows of ImageId,Label)", soft_wrap=True)
    tuned = "all images with tuned parameters, does much better"
    full = tuned if recommended_parameters(source) else "with all images, in shades of grey"
    console.print(
        f"\nThat was the first walk: {len(split.train):,} images, black-and-white pixels, textbook parameters.\n"
        f"The full run, {full}:\n\n    gpusvm train {source}\n",
        soft_wrap=True,
    )

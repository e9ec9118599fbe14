"""Options of ``gpusvm train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.backends.registry import backend_names
from gpusvm.cli.options import (
    AsImages,
    AsTable,
    Balanced,
    DataDir,
    Degree,
    Drop,
    KernelName,
    Label,
    Out,
    Preset,
    Resize,
    Scale,
    TestSize,
    TestSource,
    TrainLimit,
    TrainSource,
    reading_of,
)
from gpusvm.params import MOVE_NAMES


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
            help=f"Train again on the support vectors' images and moved copies of them: {', '.join(MOVE_NAMES)}, or"
            " several with commas between.",
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
    from gpusvm.cli.train import Files, Plan, run
    from gpusvm.preprocess.augment import moves_named

    run(
        Plan(
            source=source, test_source=test_source, limit=limit, test_size=test_size, seed=seed, preset=preset,
            reading=reading_of(as_table, as_images, label, drop, data_dir, resize),
            binarize=binarize, deskew=deskew, scatter=scatter, moves=() if augment is None else moves_named(augment),
            scaling=None if scale is None else scale.value,  # type: ignore[arg-type]
            svc={
                "kernel": kernel.value, "C": C, "gamma": gamma, "degree": degree, "coef0": coef0, "tol": tol,
                "max_iter": max_iter, "time_limit": time_limit, "class_weight": "balanced" if balanced else None,
                "cache_size": cache_size, "n_jobs": n_jobs, "probability": proba, "backend": backend,
                "require_gpu": require_gpu, "device": device,
            },
            certify=certify_it,
        ),
        Files(model=out, json=json_path, checkpoint=checkpoint_path),
    )  # fmt: skip

"""Options of ``gpusvm tune``."""

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
    Label,
    Out,
    Resize,
    Scale,
    TestSize,
    TestSource,
    TrainLimit,
    TrainSource,
    TunableKernel,
    reading_of,
)


def tune(
    source: TrainSource = None,
    label: Label = None,
    drop: Drop = None,
    scale: Scale = None,
    test_source: TestSource = None,
    as_table: AsTable = False,
    as_images: AsImages = False,
    resize: Resize = None,
    limit: TrainLimit = None,
    test_size: TestSize = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another number draws other samples and folds.")] = 0,
    kernel: Annotated[TunableKernel, typer.Option(help="Kernel function.")] = TunableKernel.rbf,
    Cs: Annotated[
        str | None, typer.Option("--C", metavar="LIST", help="Values to try, as 0.1,1,10; default: 0.1 to 1000.")
    ] = None,
    gammas: Annotated[
        str | None,
        typer.Option("--gamma", metavar="LIST", help="The same; default: 0.01 to 10 times 1/(columns x variance)."),
    ] = None,
    fine: Annotated[bool, typer.Option("--fine/--no-fine", help="Try a closer grid around the best.")] = True,
    folds: Annotated[int, typer.Option(min=2, help="Folds that each trial is judged by.")] = 5,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Try all in all folds, also what cannot win any more.")
    ] = False,
    degree: Degree = 3,
    coef0: Annotated[float, typer.Option(help="Of the polynomial kernel.")] = 0.0,
    tol: Annotated[float, typer.Option(help="Largest KKT violation left at the end of each training.")] = 1e-3,
    balanced: Balanced = False,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds after which the search ends; the best so far is then trained."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Keep results in this file, and go on from those in it.")] = None,
    backend: Annotated[
        str,
        typer.Option(
            help=f"What trains: auto, native, {', '.join(backend_names())}. Those that are not native leave the search"
            " to native-cpu.",
            metavar="NAME",
        ),
    ] = "native",
    cache_size: Annotated[
        float | None, typer.Option(help="MB for kernel values; default: a third of the free memory.")
    ] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Threads; default: all cores.")] = None,
    data_dir: DataDir = None,
    out: Out = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all trials and the model's metrics to this file.")
    ] = None,
    report_path: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write a page with the map of trials into DIR.")
    ] = None,
) -> None:
    """Find C and gamma by cross-validation, train with the best, and save the model."""
    from gpusvm.cli.train import Plan
    from gpusvm.cli.tune import Files, Grid, run

    run(
        Plan(
            source=source, test_source=test_source, limit=limit, test_size=test_size, seed=seed,
            reading=reading_of(as_table, as_images, label, drop, data_dir, resize),
            scaling=None if scale is None else scale.value,  # type: ignore[arg-type]
            svc={
                "kernel": kernel.value, "degree": degree, "coef0": coef0, "tol": tol, "cache_size": cache_size,
                "class_weight": "balanced" if balanced else None, "n_jobs": n_jobs, "backend": backend,
            },
        ),
        Grid(Cs=Cs, gammas=gammas, fine=fine, folds=folds, exhaustive=exhaustive, time_limit=time_limit),
        Files(model=out, json=json_path, resume=resume, report=report_path),
    )  # fmt: skip

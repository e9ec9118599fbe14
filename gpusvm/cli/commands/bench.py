"""Options of ``gpusvm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpusvm.errors import UsageError


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A .toml file, or a suite by name; by default full in the project's folder, else quick. "
            "Of a record, a .json file, the tables are shown, and nothing is measured.",
            show_default=False,
        ),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(help="Measure these instead, e.g. sklearn,cuml; peers are libsvm, intelex and knn."),
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Numbers of training images instead, e.g. 1000,5000.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Measurements of each instead.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds allowed to each measurement instead.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets are looked for first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; by default bench-results.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue an interrupted run: the .json file that it left.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the results to this file, .svg or .png.")] = None,
) -> None:
    """Time training and prediction of every backend, and of what people use without gpusvm.

    Each measurement runs in a fresh process, several times. What cannot run here, fails or takes
    too long is a row that says so. Results are saved after every measurement, as JSON and
    Markdown.
    """
    from gpusvm.cli.bench import begin, check_plot, measure, show_record, split_list
    from gpusvm.cli.bench import resume as go_on

    check_plot(plot)
    changed = any(given is not None for given in (backends, sizes, repeats, timeout, out))
    if resume is not None:
        if suite is not None or changed:
            raise UsageError(
                "--resume goes on with a run as it was begun; beside it give no more than --data-dir and --plot"
            )
        run = go_on(resume, data_dir)
    elif suite is not None and suite.endswith(".json"):
        if changed:
            raise UsageError(f"{suite}: is a record, of which nothing is measured; beside it give no more than --plot")
        show_record(Path(suite), plot)
        return
    else:
        options = {
            "contenders": split_list(backends, str, "--backends"),
            "sizes": split_list(sizes, int, "--sizes"),
            "repeats": repeats,
            "timeout_s": timeout,
        }
        run = begin(suite, options, out or Path("bench-results"), data_dir)
    measure(run, plot)

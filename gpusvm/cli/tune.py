"""``gpusvm tune``: find C and gamma by cross-validation, train with the best, and save the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as TextTable
from rich.text import Text

from gpusvm.backends.folds import sharing
from gpusvm.backends.native import backend as native_cpu
from gpusvm.backends.registry import backend_names, choose_backend
from gpusvm.cli.console import PLAIN_SECONDS, bold, messages, pair_progress, results, sample_progress
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
from gpusvm.cli.train import (
    Plan,
    announce_data,
    check_different,
    check_options,
    metrics,
    report,
    source_of,
    stem,
    warn_of_data,
)
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.evaluation import predict_samples
from gpusvm.io.model_file import save_model
from gpusvm.io.output import check_writable, write_json
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import working_dtype
from gpusvm.params import RANGES, Resources
from gpusvm.preprocess import apply_steps
from gpusvm.report.search import shade, write_tuning_report
from gpusvm.sparse import as_csr, is_sparse
from gpusvm.split import counted, load_split, plural
from gpusvm.training import steps_for, train_model
from gpusvm.tuning import Result, Search, Settings, Trial


class KernelName(StrEnum):
    """Kernels that can be tuned."""

    rbf = "rbf"
    linear = "linear"
    poly = "poly"


MOST_COLUMNS = 12
"""Values of C beside each other in the terminal's map."""


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
    kernel: Annotated[KernelName, typer.Option(help="Kernel function.")] = KernelName.rbf,
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
    console, notes = results(), messages()
    check_options(
        degree=degree, coef0=coef0, tol=tol, time_limit=time_limit, cache_size=cache_size, n_jobs=n_jobs
    )  # fmt: skip
    asked_C, asked_gamma = parse_values(Cs, "C"), parse_values(gammas, "gamma")
    if asked_gamma and kernel is KernelName.linear:
        raise UsageError("--gamma means nothing for the linear kernel; leave it out")
    source, notices = source_of(source, data_dir)
    model_path = out or Path(f"{stem(source)}.svm")
    page = None if report_path is None else report_path / "index.html"
    check_writable(model_path, json_path, resume, page)
    check_different("--resume", resume, model_path, json_path, page)
    choice = choose_backend(backend)
    for notice in (*notices, choice.notice):
        if notice:
            notes.print(notice, soft_wrap=True)
    plan = Plan(
        source=source,
        reading=reading_of(as_table, as_images, label, drop, data_dir, resize),
        test_source=test_source, limit=limit, test_size=test_size, seed=seed, binarize=False, deskew=False,
        scatter=False, moves=(),
        scaling=None if scale is None else scale.value,  # type: ignore[arg-type]
        parameters={}, notices=notices,
    )  # fmt: skip
    split = load_split(
        source, reading=plan.reading, test_source=test_source, limit=limit, test_size=test_size, seed=seed,
        progress=notes.is_terminal,
    )  # fmt: skip
    steps = steps_for(split.train, scaling=plan.scaling)
    announce_data(console, split, plan)
    warn_of_data(notes, split, plan)
    X = apply_steps(steps, split.train.samples)
    X = as_csr(X) if is_sparse(X) else X.astype(working_dtype(X.dtype), copy=False)
    settings = Settings(kernel.value, degree, coef0, tol, balanced, folds, seed, exhaustive)
    deadline = math.inf if time_limit is None else time.monotonic() + time_limit
    searcher = sharing(choice.backend, X) or native_cpu
    search = Search(X, split.train.require_labels(), settings, Resources(cache_size, n_jobs), keep_in=resume,
                    deadline=deadline, backend=searcher)  # fmt: skip
    default_C, default_gamma = search.default_grid()
    console.print(
        f"Search: kernel {kernel.value}, {len(search.data.folds)} folds of the {counted(split.train, 'training ')},"
        f" seed {seed}, {plural(effective_jobs(n_jobs), 'thread') if searcher.on_cpu else searcher.runs}"
    )
    with shown(notes, search) as watch:
        search.watch = watch
        search.run(asked_C or default_C, asked_gamma or default_gamma)
        if fine and not search.timed_out:
            search.run_fine()
    best = search.best()
    say_what_was_found(console, notes, search, best)

    svc = SVC(
        C=best.C, kernel=kernel.value, degree=degree, coef0=coef0, tol=tol, backend=backend,
        cache_size=cache_size or "auto", class_weight="balanced" if balanced else None, n_jobs=n_jobs,
        gamma=best.gamma if settings.has_gamma else "scale",
    )  # fmt: skip
    with pair_progress(notes) as progress:
        model = train_model(svc, split.train, steps, progress)
    save_model(model, model_path)
    with sample_progress(notes, len(split.test)) as samples_done:
        predictions = predict_samples(model, split.test.samples, samples_done)
    report(console, model, split, predictions, None)
    console.print(f"Model: {model_path} ({max(1, round(model_path.stat().st_size / 1024)):,} kB)", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, as_json(search, best) | {"model": metrics(model, split, predictions, None)})
    if page is not None:
        write_tuning_report(page, search, title=stem(source))
        console.print(f"Report: {page}", soft_wrap=True)


def parse_values(text: str | None, name: str) -> list[float]:
    """The numbers of a comma-separated list. Raises UsageError where one is none, or outside the parameter's range."""
    if text is None:
        return []
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not RANGES[name].holds(value) or math.isinf(value):
            raise UsageError(f"--{name} must be numbers with commas between, each {RANGES[name].words}; got {part!r}")
        values.append(value)
    return sorted(set(values))


def say_what_was_found(console: Console, notes: Console, search: Search, best: Trial) -> None:
    """Print the map and the best, and warn of what makes it doubtful."""
    console.print(heat_map(search, colours=console.is_terminal))
    dropped = sum(result.dropped for result in search.results.values())
    n_trials = len(search.results)
    took = time.monotonic() - search.started
    few = f", {dropped} of them given up early (--exhaustive goes on with them)" if dropped else ""
    console.print(f"{n_trials} trials{few}, {search.n_done} trainings in {took:.1f} s", soft_wrap=True)
    found = search.results[best]
    gamma = f", gamma={best.gamma:.4g}" if search.settings.has_gamma else ""
    console.print(
        bold(f"Best: C={best.C:.4g}{gamma}:"),
        f"accuracy {found.mean:.4f} in cross-validation (standard deviation {found.std:.4f} over"
        f" {len(found.right)} folds)",
        soft_wrap=True,
    )
    if search.timed_out:
        notes.print("note: the time limit ended the search; allow more time, or go on with --resume", soft_wrap=True)
    edges = search.edges()
    if edges and not search.timed_out:
        options = " and ".join(dict.fromkeys(f"--{edge.split()[1]}" for edge in edges))
        notes.print(
            f"note: the best has the {' and the '.join(edges)} that was tried; beyond it may be a better one: name"
            f" values with {options}",
            soft_wrap=True,
        )


def as_json(search: Search, best: Trial) -> dict[str, Any]:
    """All that the search found."""
    settings = search.settings

    def entry(trial: Trial, result: Result) -> dict[str, Any]:
        return {
            "C": trial.C,
            "gamma": trial.gamma if settings.has_gamma else None,
            "mean_accuracy": None if math.isnan(result.mean) else result.mean,
            "std_accuracy": None if math.isnan(result.std) else result.std,
            "fold_accuracies": {str(fold): float(result.right[fold].mean()) for fold in sorted(result.right)},
            "dropped": result.dropped,
            "seconds": round(result.seconds, 4),
        }

    return {
        "best": entry(best, search.results[best]),
        "edges": search.edges(),
        "timed_out": search.timed_out,
        "kernel": settings.kernel,
        "folds": len(search.data.folds),
        "seed": settings.seed,
        "exhaustive": settings.exhaustive,
        "seconds": round(time.monotonic() - search.started, 3),
        "trials": [entry(trial, search.results[trial]) for trial in sorted(search.results)],
    }


# -- the map -------------------------------------------------------------------------------------------


def heat_map(search: Search, *, colours: bool) -> TextTable:
    """Mean accuracies: a row for each gamma, a column for each C. What was given up is in brackets."""
    Cs, gammas = sorted({t.C for t in search.results}), sorted({t.gamma for t in search.results})
    table = TextTable(box=None, pad_edge=False, title="accuracy in %, given up in brackets", title_justify="left")
    table.add_column("gamma \\ C" if search.settings.has_gamma else "C", justify="right")
    means = [result.mean for result in search.results.values() if result.right]
    worst, top = (min(means), max(means)) if means else (0.0, 1.0)
    best = search.best() if means else None
    for C in Cs:
        table.add_column(f"{C:.3g}", justify="right", no_wrap=True)
    for gamma in gammas:
        cells = [Text(f"{gamma:.3g}" if search.settings.has_gamma else "")]
        for C in Cs:
            trial = Trial(C, gamma)
            result = search.results.get(trial)
            if result is None:
                cells.append(Text(""))
            elif not result.right:
                cells.append(Text("·", style="dim"))
            else:
                number = f"{100 * result.mean:.2f}"
                text = f"({number})" if result.dropped else f"{number}*" if trial == best else f"{number} "
                red, green, blue = shade(result.mean, worst, top)
                ink = "black" if green > 110 else "white"
                style = f"{'bold ' if trial == best else ''}{ink} on rgb({red},{green},{blue})" if colours else ""
                cells.append(Text(text, style=style))
        table.add_row(*cells)
    return table


@contextmanager
def shown(console: Console, search: Search) -> Iterator[Callable[[], None]]:
    """The map, filling while the search goes on, and the time left: on a terminal. Elsewhere a line now and then."""
    if not console.is_terminal:
        last = time.monotonic()

        def line() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS:
                last = now
                console.print(f"  {progress_line(search)}")

        yield line
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        last = 0.0

        def refresh() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= 0.25:
                last = now
                live.update(Group(heat_map(search, colours=True), Text(progress_line(search))), refresh=True)

        yield refresh


def progress_line(search: Search) -> str:
    """How many trainings are done, the best so far, and the time left."""
    left = search.seconds_left()
    about = "" if math.isnan(left) else f", about {left:.0f} s left"
    elapsed = time.monotonic() - search.started
    return f"{search.n_done} of {search.n_planned} trainings after {elapsed:.0f} s{about}"

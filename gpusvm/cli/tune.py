"""What ``gpusvm tune`` does: find C and gamma by cross-validation, train with them, and save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as TextTable
from rich.text import Text

from gpusvm.backends.folds import sharing
from gpusvm.backends.native import backend as native_cpu
from gpusvm.backends.registry import Choice, choose_backend
from gpusvm.cli.console import bold, messages, results
from gpusvm.cli.progress import PLAIN_SECONDS, pair_progress
from gpusvm.cli.train import (
    Plan,
    announce_data,
    check_different,
    check_options,
    load,
    metrics,
    name_source,
    predict_test,
    report,
    say_notices,
    stem,
    warn_of_data,
)
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.io.model_file import save_model
from gpusvm.io.output import check_writable, write_json
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import working_dtype
from gpusvm.params import RANGES, Resources
from gpusvm.preprocess import apply_steps
from gpusvm.report.search import shade, write_tuning_report
from gpusvm.sparse import as_csr, is_sparse
from gpusvm.split import Split, counted, plural
from gpusvm.training import steps_for, train_model
from gpusvm.tuning import Result, Search, Settings, Trial

MOST_COLUMNS = 12
"""Values of C beside each other in the terminal's map."""


@dataclass
class Grid:
    """What to try, and how to judge it.

    `Cs` and `gammas` are lists of values as text, None for the default; `fine` is whether to try
    a finer grid.
    """

    Cs: str | None
    gammas: str | None
    fine: bool
    folds: int
    exhaustive: bool
    time_limit: float | None


@dataclass
class Files:
    """Where results go, and what to go on from.

    `model` is None for a name by the source; `report` is a folder.
    """

    model: Path | None
    json: Path | None
    resume: Path | None
    report: Path | None


def run(plan: Plan, grid: Grid, files: Files) -> None:
    """Search, train with the best, test on samples held out, and save the model."""
    console, notes = results(), messages()
    values = check(plan, grid)
    name_source(plan)
    model_path = files.model or Path(f"{stem(plan.name)}.svm")
    page = None if files.report is None else files.report / "index.html"
    check_writable(model_path, files.json, files.resume, page)
    check_different("--resume", files.resume, model_path, files.json, page)
    choice = choose_backend(plan.svc["backend"])
    say_notices(notes, plan, choice)
    split = load(plan, notes)
    steps = steps_for(split.train, scaling=plan.scaling)
    announce_data(console, split, plan)
    warn_of_data(notes, split, plan)
    search = _search(plan, grid, split, apply_steps(steps, split.train.samples), choice, files.resume)
    _say_search(console, split, search)
    with shown(notes, search) as watch:
        search.watch = watch
        default_C, default_gamma = search.default_grid()
        search.run(values["C"] or default_C, values["gamma"] or default_gamma)
        if grid.fine and not search.timed_out:
            search.run_fine()
    best = search.best()
    say_what_was_found(console, notes, search, best)
    gamma = best.gamma if search.settings.has_gamma else "scale"
    svc = SVC(**plan.svc | {"C": best.C, "gamma": gamma, "cache_size": plan.svc["cache_size"] or "auto"})
    with pair_progress(notes) as progress:
        model = train_model(svc, split.train, steps, progress)
    save_model(model, model_path)
    predictions = predict_test(notes, model, split)
    report(console, model, split, predictions, None)
    console.print(f"Model: {model_path} ({max(1, round(model_path.stat().st_size / 1024)):,} kB)", soft_wrap=True)
    if files.json is not None:
        write_json(files.json, as_json(search, best) | {"model": metrics(model, split, predictions, None)})
    if page is not None:
        write_tuning_report(page, search, title=stem(plan.name))
        console.print(f"Report: {page}", soft_wrap=True)


def check(plan: Plan, grid: Grid) -> dict[str, list[float]]:
    """The values of C and gamma to try, none for the default ones.

    Raises UsageError for options that cannot be.
    """
    names = ("degree", "coef0", "tol", "cache_size", "n_jobs")
    check_options(time_limit=grid.time_limit, **{name: plan.svc[name] for name in names})
    values = {"C": parse_values(grid.Cs, "C"), "gamma": parse_values(grid.gammas, "gamma")}
    if values["gamma"] and plan.svc["kernel"] == "linear":
        raise UsageError("--gamma means nothing for the linear kernel; leave it out")
    return values


def _search(plan: Plan, grid: Grid, split: Split, X: Any, choice: Choice, resume: Path | None) -> Search:
    """The search over samples X, to be run; its time begins."""
    X = as_csr(X) if is_sparse(X) else X.astype(working_dtype(X.dtype), copy=False)
    svc = plan.svc
    settings = Settings(
        svc["kernel"], svc["degree"], svc["coef0"], svc["tol"], svc["class_weight"] == "balanced", grid.folds,
        plan.seed, grid.exhaustive,
    )  # fmt: skip
    deadline = math.inf if grid.time_limit is None else time.monotonic() + grid.time_limit
    return Search(
        X, split.train.require_labels(), settings, Resources(svc["cache_size"], svc["n_jobs"]), keep_in=resume,
        deadline=deadline, backend=sharing(choice.backend, X) or native_cpu,
    )  # fmt: skip


def _say_search(console: Console, split: Split, search: Search) -> None:
    searcher, settings = search.backend, search.settings
    where = plural(effective_jobs(search.resources.n_jobs), "thread") if searcher.on_cpu else searcher.runs
    console.print(
        f"Search: kernel {settings.kernel}, {len(search.data.folds)} folds of the"
        f" {counted(split.train, 'training ')}, seed {settings.seed}, {where}"
    )


def parse_values(text: str | None, name: str) -> list[float]:
    """The numbers of a comma-separated list, sorted, each once.

    Raises UsageError where one is no number, or outside the parameter's range.
    """
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
    given_up = sum(result.given_up for result in search.results.values())
    n_trials = len(search.results)
    took = time.monotonic() - search.started
    few = f", {given_up} of them given up early (--exhaustive goes on with them)" if given_up else ""
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
            "given_up": result.given_up,
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


# -- the map --------------------------------------------------------------------------------------


def heat_map(search: Search, *, colours: bool) -> TextTable:
    """Mean accuracies: a row for each gamma, a column for each C.

    What was given up is in brackets.
    """
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
                text = f"({number})" if result.given_up else f"{number}*" if trial == best else f"{number} "
                red, green, blue = shade(result.mean, worst, top)
                ink = "black" if green > 110 else "white"
                style = f"{'bold ' if trial == best else ''}{ink} on rgb({red},{green},{blue})" if colours else ""
                cells.append(Text(text, style=style))
        table.add_row(*cells)
    return table


@contextmanager
def shown(console: Console, search: Search) -> Iterator[Callable[[], None]]:
    """Show on a terminal the map, filling while the search goes on, and the time left.

    Elsewhere a line is printed now and then.
    """
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

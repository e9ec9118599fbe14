"""``gpusvm bench``: time backends and peers on a suite, each measurement in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from gpusvm.cli.console import messages, results
from gpusvm.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from gpusvm.bench.runner import Job, Run


Item = TypeVar("Item")


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

    Each measurement runs in a fresh process, several times. What cannot run here, fails or takes too
    long is a row that says so. Results are saved after every measurement, as JSON and Markdown.
    """
    if plot is not None:
        from gpusvm.bench.plot import check_plot

        check_plot(plot)
    changed = any(given is not None for given in (backends, sizes, repeats, timeout, out))
    if resume is not None:
        if suite is not None or changed:
            raise UsageError(
                "--resume goes on with a run as it was begun; beside it give no more than --data-dir and --plot"
            )
        run = _resumed(resume, data_dir)
    elif suite is not None and suite.endswith(".json"):
        if changed:
            raise UsageError(f"{suite}: is a record, of which nothing is measured; beside it give no more than --plot")
        _show(_recorded(Path(suite)), plot)
        return
    else:
        options = {
            "contenders": _split(backends, str, "--backends"),
            "sizes": _split(sizes, int, "--sizes"),
            "repeats": repeats,
            "timeout_s": timeout,
        }
        run = _begun(suite, options, out or Path("bench-results"), data_dir)
    _measure(run)
    _show(run.record.to_dict(), plot, run.path)


def _recorded(path: Path) -> dict[str, Any]:
    from gpusvm.bench.record import load_record

    return load_record(path).to_dict()


def _begun(source: str | None, options: dict[str, Any], out: Path, data_dir: Path | None) -> Run:
    from gpusvm.bench.runner import new_run
    from gpusvm.bench.suite_file import default_suite, load_suite

    return new_run(load_suite(source or default_suite()).with_options(**options), out, data_dir)


def _resumed(path: Path, data_dir: Path | None) -> Run:
    from gpusvm.bench.runner import resumed_run

    return resumed_run(path, data_dir)


def _split(text: str | None, convert: Callable[[str], Item], option: str) -> list[Item] | None:
    """The items of a comma-separated option. Raises UsageError for one that does not convert."""
    if text is None:
        return None
    try:
        return [convert(item.strip()) for item in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between, e.g. 1000,5000, not {text!r}") from None


def _measure(run: Run) -> None:
    suite = run.record.suite
    with _Reporter() as reporter:
        reporter.say(
            f"suite {suite.name} on {', '.join(suite.datasets)}: {', '.join(suite.contenders)}; results in {run.path}"
        )
        try:
            run.measure(reporter)
        except KeyboardInterrupt:
            reporter.say(f"stopped; what was measured is in {run.path}: go on with gpusvm bench --resume {run.path}")
            raise typer.Exit(INTERRUPTED) from None


class _Reporter:
    """Shows a run on standard error: a bar and what is being measured on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._console = messages()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Reporter:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def started(self, job: Job, number: int, total: int) -> None:
        self._progress.update(self._task, description=_describe(job), completed=number - 1, total=total)

    def finished(self, job: Job, number: int, total: int, measurement: dict[str, Any]) -> None:
        self.say(f"[{number}/{total}] {_describe(job)}: {_outcome(measurement)}")
        self._progress.update(self._task, completed=number, total=total)


def _describe(job: Job) -> str:
    case = f", {job.case_key}" if job.case_key else ""
    what = "images" if job.case.dataset is None else "rows"
    return f"{job.contender}, {job.n_train:,} {what}{case}, repeat {job.repeat + 1}"


def _outcome(measurement: dict[str, Any]) -> str:
    if measurement["status"] != "ok":
        return f"{measurement['status']}: {measurement['reason']}"
    return (
        f"fit {measurement['fit_seconds']:.3g} s, predict {measurement['predict_seconds']:.3g} s, "
        f"accuracy {measurement['accuracy']:.4f}"
    )


def _show(content: dict[str, Any], plot: Path | None, written: Path | None = None) -> None:
    """Print the tables of a record, drawn on a terminal, as Markdown elsewhere; draw them; say where all of it is."""
    from gpusvm.bench.result_tables import HEADER, footnotes, make_tables, markdown_table

    console = results()
    for table in make_tables(content):
        if console.is_terminal:
            caption = Text(table.note) if table.note else None
            drawn = RichTable(title=Text(table.title), title_justify="left", caption=caption, caption_justify="left")
            for k, heading in enumerate(HEADER):
                drawn.add_column(heading, justify="right" if k else "left")
            for cells in table.cells:
                drawn.add_row(*map(Text, cells))
            console.print(drawn)
        else:
            note = f"{table.note}\n\n" if table.note else ""
            console.print(f"## {table.title}\n\n{note}{markdown_table(table)}\n", soft_wrap=True)
    where = [f"Results: {written} and {written.with_suffix('.md').name}"] if written is not None else []
    if plot is not None:
        from gpusvm.bench.plot import save_plot

        save_plot(content, plot)
        where.append(f"Picture: {plot}")
    for line in (*footnotes(content), *where):
        console.print(line, soft_wrap=True)

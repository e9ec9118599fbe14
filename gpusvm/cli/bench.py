"""What ``gpusvm bench`` does: time backends and peers on a suite, each in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from gpusvm.cli.console import messages, results
from gpusvm.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from gpusvm.bench.runner import Job, Run


Item = TypeVar("Item")


def check_plot(path: Path | None) -> None:
    """Raise what `gpusvm.bench.plot` finds wrong with a file to draw to, before measuring."""
    if path is not None:
        from gpusvm.bench import plot

        plot.check_plot(path)


def show_record(path: Path, plot: Path | None) -> None:
    """Print the tables of a record, and draw it where that is wanted."""
    from gpusvm.bench.record import load_record

    _show(load_record(path).to_dict(), plot)


def begin(source: str | None, options: dict[str, Any], out: Path, data_dir: Path | None) -> Run:
    """A run of the suite `source`, or of the default one.

    What the options say replaces what the suite says.
    """
    from gpusvm.bench.runner import new_run
    from gpusvm.bench.suite_file import default_suite, load_suite

    return new_run(load_suite(source or default_suite()).with_options(**options), out, data_dir)


def resume(path: Path, data_dir: Path | None) -> Run:
    """The run whose record is at `path`, to go on with."""
    from gpusvm.bench.runner import resumed_run

    return resumed_run(path, data_dir)


def split_list(text: str | None, convert: Callable[[str], Item], option: str) -> list[Item] | None:
    """The items of a comma-separated option. Raises UsageError for one that does not convert."""
    if text is None:
        return None
    try:
        return [convert(item.strip()) for item in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between, e.g. 1000,5000, not {text!r}") from None


def measure(run: Run, plot: Path | None) -> None:
    """Measure what is left of a run, print the tables, and draw them where that is wanted."""
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
    _show(run.record.to_dict(), plot, run.path)


class _Reporter:
    """Shows a run on standard error: a bar and the present task on a terminal, else lines."""

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
    """Print the tables of a record, draw a picture of them to `plot`, and say where it all is.

    On a terminal the tables are drawn, elsewhere they are Markdown.
    """
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

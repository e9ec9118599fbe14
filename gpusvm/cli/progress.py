"""How far a training or a prediction has come, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gpusvm.backends.base import Progress as ProgressCallback

PLAIN_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""


@contextmanager
def pair_progress(console: Console) -> Iterator[ProgressCallback]:
    """A progress callback for training: a bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        yield _PlainLines(console)
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("class pairs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[latest]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=None, latest="")

        def update(done: int, total: int, latest: str) -> None:
            bar.update(task, completed=done, total=total, latest=f"({latest})")

        yield update


@contextmanager
def sample_progress(console: Console, n_samples: int) -> Iterator[Callable[[int], None] | None]:
    """A callback that takes the number of samples done: a bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("predicting", total=n_samples)
        yield lambda done: bar.update(task, completed=done)


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self.console, self.start, self.last = console, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int, latest: str) -> None:
        now = time.monotonic()
        if now - self.last >= PLAIN_SECONDS or (done == total and now - self.start >= PLAIN_SECONDS):
            self.last = now
            self.console.print(f"  {done} of {total} class pairs after {now - self.start:.0f} s")

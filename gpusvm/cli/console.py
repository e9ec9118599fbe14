"""How commands talk: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
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
from gpusvm.model import SVMModel

UNBROKEN_COLUMNS = 400
PLAIN_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""


def results() -> Console:
    """Standard output, for what was asked for."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error, for progress, notices and errors."""
    return _console(stderr=True)


def note_raw_pixels(console: Console, model: SVMModel) -> None:
    """Say that a model without steps of its own sees the pixels as they are: most were trained on scaled ones."""
    if not model.preprocessing:
        console.print(
            "note: this model has no preprocessing steps of its own (it was saved from Python): it is given raw"
            " pixels 0 to 255; if it was trained on others, save it with SVC.save(path, preprocessing=steps)",
            markup=False,
            soft_wrap=True,
        )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader went away (``| head``): nothing is wrong, and nobody is listening."""
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - what is buffered has nowhere to go
        raise SystemExit(0)


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False)
    # A file or a pipe has no width: lines there are left whole.
    return console if console.is_terminal else _Console(stderr=stderr, highlight=False, width=UNBROKEN_COLUMNS)


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
        TextColumn("{task.fields[latest]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=None, latest="")

        def update(done: int, total: int, latest: str) -> None:
            bar.update(task, completed=done, total=total, latest=f"({latest})")

        yield update


@contextmanager
def image_progress(console: Console, n_images: int) -> Iterator[Callable[[int], None] | None]:
    """A callback that takes the number of images done: a bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("predicting", total=n_images)
        yield lambda done: bar.update(task, completed=done)


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self.console, self.start, self.last = console, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int, latest: str) -> None:
        now = time.monotonic()
        if now - self.last >= PLAIN_SECONDS or (done == total and now - self.start >= PLAIN_SECONDS):
            self.last = now
            self.console.print(f"  {done} of {total} class pairs after {now - self.start:.0f} s")

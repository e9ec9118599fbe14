"""How commands talk: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from sklearn.exceptions import ConvergenceWarning

from gpusvm.backends.base import Progress as ProgressCallback
from gpusvm.data import Dataset, Table
from gpusvm.data.pixels import ImageShape
from gpusvm.errors import DataWarning, SlowBackendWarning, UsageError
from gpusvm.model import SVMModel
from gpusvm.pixel_range import inverted, unlike_training

UNBROKEN_COLUMNS = 400
PLAIN_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""


def results() -> Console:
    """Standard output, for what was asked for."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error, for progress, notices and errors."""
    return _console(stderr=True)


def note_raw(console: Console, model: SVMModel, data: Dataset | Table | None = None) -> None:
    """Say that a model without steps of its own sees samples as they are: most were trained on scaled ones."""
    is_table = isinstance(data, Table)
    # `gpusvm train --scale none` and LIBSVM's users meant it.
    meant = model.from_libsvm if is_table else False
    if model.preprocessing or meant or (model.table is not None and "dataset" in model.provenance):
        return
    if model.from_libsvm:
        console.print(
            "note: a LIBSVM model has no preprocessing steps: it is given raw pixels 0 to 255; if it was trained on"
            " others, use it from Python: gpusvm.load_model(path).predict(X)",
            soft_wrap=True,
        )
    else:
        what = "the numbers of the table as they are" if is_table else "raw pixels 0 to 255"
        console.print(
            f"note: this model has no preprocessing steps of its own (it was saved from Python): it is given {what};"
            " if it was trained on others, save it with SVC.save(path, preprocessing=steps)",
            soft_wrap=True,
        )


def size_for(console: Console, model: SVMModel, asked: bool) -> ImageShape | None:
    """What to bring images to for a model: its own size, if that was asked for or its training images were, too.

    Raises
    ------
    UsageError
        It was asked for, and the model does not say what size its images had.
    """
    shape = model.image_shape
    if asked and shape is None:
        raise UsageError("the model does not say what size its images had; leave --resize out, and bring them to it")
    if shape is None or asked:
        return shape
    if model.provenance.get("resized") is not True:
        return None
    console.print(
        f"note: images are brought to {shape[1]}x{shape[0]}, as those that the model was trained on", soft_wrap=True
    )
    return shape


def like_training(console: Console, model: SVMModel, data: Dataset | Table, *, invert: bool) -> Any:
    """The samples, or the negatives of images; says so where these are unlike those the model was trained on."""
    if isinstance(data, Table):
        if invert:
            raise UsageError(f"--invert is for images, and {data.name} is a table; leave it out")
        return data.X
    images = inverted(model, data.images) if invert else data.images
    if difference := unlike_training(model, images):
        console.print(f"note: {difference}", soft_wrap=True)
    return images


class _Console(Console):
    """Prints text as it is. Class names, paths and pip commands have brackets in them that are no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """The reader went away (``| head``): the work goes on, a model must still be saved."""
        discard(self.file)


def bold(text: str) -> Text:
    """Text that stands out on a terminal."""
    return Text(text, style="bold")


def discard(stream: IO[str]) -> None:
    """Send a stream that nobody reads to nowhere, so that what it has buffered does not fail again at exit."""
    with suppress(OSError):  # a stream without a file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr)
    # A file or a pipe has no width: lines there are left whole.
    return console if console.is_terminal else _Console(stderr=stderr, width=UNBROKEN_COLUMNS)


@contextmanager
def warnings_as_notes(console: Console) -> Iterator[None]:
    """Print what gpusvm warns of as one line each, once, without the place in the code that Python adds."""
    with warnings.catch_warnings():
        show, said = warnings.showwarning, set[str]()

        def show_in_short(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, (ConvergenceWarning, DataWarning, SlowBackendWarning)):
                if str(message) not in said:
                    console.print(f"note: {message}", soft_wrap=True)
                said.add(str(message))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = show_in_short
        yield


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

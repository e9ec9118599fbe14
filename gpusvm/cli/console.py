"""How commands talk: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpusvm.errors import DataWarning, SlowBackendWarning

UNBROKEN_COLUMNS = 400
_NUMBER_COLUMNS = frozenset(
    {"row", "missing", "train", "test", "images", "rows", "share", "least", "mean", "largest", "deviation", "distinct"}
)


def results() -> Console:
    """Standard output, for what was asked for."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error, for progress, notices and errors."""
    return _console(stderr=True)


class _Console(Console):
    """Prints text as it is: brackets in class names, paths and pip commands are no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """The reader went away (``| head``): the work goes on, a model must still be saved."""
        discard(self.file)


def bold(text: str) -> Text:
    """Text that stands out on a terminal."""
    return Text(text, style="bold")


def plain_table(*titles: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table without lines; columns of numbers stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        is_number = title in _NUMBER_COLUMNS or title in numbers or title.startswith("pixel")
        table.add_column(Text(title), overflow="fold", justify="right" if is_number else "left", no_wrap=is_number)
    return table


def discard(stream: IO[str]) -> None:
    """Send a stream that nobody reads to nowhere.

    What it has buffered would fail again at exit.
    """
    with suppress(OSError):  # a stream without a file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr)
    # A file or a pipe has no width: lines there are left whole.
    return console if console.is_terminal else _Console(stderr=stderr, width=UNBROKEN_COLUMNS)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print what gpusvm warns of once, as one line each.

    The place in the code, which Python adds, is left out.
    """
    with warnings.catch_warnings():
        show, said = warnings.showwarning, set[str]()

        def show_in_short(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, (DataWarning, SlowBackendWarning)) or _is_of_convergence(category):
                if str(message) not in said:
                    messages().print(f"note: {message}", soft_wrap=True)
                said.add(str(message))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = show_in_short
        yield


def _is_of_convergence(category: type[Warning]) -> bool:
    """Whether it is scikit-learn's ConvergenceWarning.

    Nobody can have raised that before its module was imported.
    """
    exceptions = sys.modules.get("sklearn.exceptions")
    return exceptions is not None and issubclass(category, exceptions.ConvergenceWarning)

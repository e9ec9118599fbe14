"""The errors gpusvm raises on purpose, and the exit code each one means on the command line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell gives it: 128 and SIGINT's number."""


class GpuSvmError(Exception):
    """Something the user can mend. The message says what, where, and what to do, on one line.

    What it quotes from a file cannot break that line or steer a terminal: such characters are
    written as escapes.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message))


class DataError(GpuSvmError):
    """A data set is missing, malformed, or does not fit what it is used with."""


class RangeError(DataError, ValueError):
    """Samples whose kernel values no float64 can hold.

    A ValueError too, as scikit-learn's of NaN and infinity is.
    """


class DownloadError(DataError):
    """No mirror gave the file that was asked for, or what came was not that file."""


class ModelFileError(GpuSvmError):
    """A model file is corrupt, foreign, of an unknown version, or does not fit the data."""


class OutputError(GpuSvmError):
    """A result could not be written; whatever stood at its path before still stands."""


class TrainingError(GpuSvmError):
    """A backend's library failed while it trained."""


class UsageError(GpuSvmError, ValueError):
    """Options that make no sense together, or a name that does not exist.

    A ValueError too, since that is what callers from Python expect of a wrong argument.
    """

    exit_code = 2


class SlowBackendWarning(UserWarning):
    """`auto` took a backend that is expected to need several times as long as another one here."""


class DataWarning(UserWarning):
    """Something about the data was mended or decided, and might have been meant otherwise."""


_muted: ContextVar[tuple[type[Warning], ...]] = ContextVar("muted", default=())


@contextmanager
def muted(category: type[Warning]) -> Iterator[None]:
    """Leave out what this thread would `warn` of in this category.

    Python's own filters are of all threads.
    """
    token = _muted.set((*_muted.get(), category))
    try:
        yield
    finally:
        _muted.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Warn, naming the caller's own line: the nearest one outside this package."""
    if issubclass(category, _muted.get()):
        return
    frame, depth = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)


class BackendUnavailableError(GpuSvmError):
    """The backend, or the GPU, that was asked for by name cannot run on this machine."""

    exit_code = 3

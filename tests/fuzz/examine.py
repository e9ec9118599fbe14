"""One input, one reader: what must hold whatever the input is."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from fuzz import checkpoint, csv, idx, libsvm_model, model_file, npz, pictures, tables
from gpusvm.errors import GpuSvmError
from gpusvm.memory import peak_rss_mb, reset_peak_rss

HANG_SECONDS = 10
SPARE_MB = 64.0
"""What any input may take, whatever its size; the inputs themselves are far smaller."""


@dataclass(frozen=True)
class Reader:
    """`generate` gives a file's name and content; `read` reads it; `use` does with the result what
    gpusvm would."""

    generate: Callable[[Random], tuple[str, bytes]]
    read: Callable[[Path], Any]
    use: Callable[[Any], None]


READERS = {
    "idx": Reader(idx.generate, idx.read, idx.use),
    "idx.gz": Reader(idx.generate_gzip, idx.read, idx.use),
    "csv": Reader(csv.generate, csv.read, csv.use),
    "npz": Reader(npz.generate, npz.read, npz.use),
    "npy": Reader(tables.generate_npy, tables.read, tables.use),
    "table": Reader(tables.generate, tables.read, tables.use),
    "svmlight": Reader(tables.generate_svmlight, tables.read, tables.use),
    "arff": Reader(tables.generate_arff, tables.read, tables.use),
    **({"parquet": Reader(tables.generate_parquet, tables.read, tables.use)} if find_spec("pyarrow") else {}),
    "pictures": Reader(pictures.generate, pictures.read, pictures.use),
    "model": Reader(model_file.generate, model_file.read, model_file.use),
    "libsvm": Reader(libsvm_model.generate, libsvm_model.read, libsvm_model.use),
    "checkpoint": Reader(checkpoint.generate, checkpoint.read, checkpoint.use),
}


class Defect(Exception):
    """What went wrong with an input."""


class _Hang(BaseException):
    """Not an Exception, nor a TimeoutError, which readers take for the file system's."""


def generate(reader: str, seed: int, number: int) -> tuple[str, bytes]:
    """Name and content of input `number`, always the same ones for a seed."""
    return READERS[reader].generate(Random(f"{seed} {reader} {number}"))


def examine(reader: str, path: Path) -> bool:
    """Whether the reader accepts the file. Raises Defect where it does neither that nor refuse it
    properly."""
    reset_peak_rss()
    before = peak_rss_mb()
    try:
        with _time_limit():
            accepted = _read(READERS[reader], path)
    except _Hang:
        raise Defect(f"took longer than {HANG_SECONDS} s") from None
    except Exception:
        raise Defect(traceback.format_exc()) from None
    if (grown := peak_rss_mb() - before) > SPARE_MB:
        raise Defect(f"took {grown:.0f} MB for a file of {path.stat().st_size:,} bytes")
    return accepted


def _read(reader: Reader, path: Path) -> bool:
    try:
        result = reader.read(path)
    except GpuSvmError as error:
        _check_message(error)
        assert str(error).startswith(str(path)), f"the message does not begin with the path: {error}"
        return False
    try:
        reader.use(result)
    except GpuSvmError as error:
        _check_message(error)
    return True


def _check_message(error: GpuSvmError) -> None:
    message = str(error)
    assert message.isprintable() and len(message) < 1000, f"no line of text: {message!r:.1000}"
    assert not isinstance(error.__cause__, MemoryError), "refused only when there was no memory left"


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _Hang

    # The clock of this process's own work: a busy machine is not what is tested.
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)

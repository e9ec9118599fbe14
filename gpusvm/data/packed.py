"""Files that may be packed: gzip and bzip2 by content, whatever the name.

What is damaged is a DataError.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from gpusvm.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BZIP2_MAGIC = b"BZh"
LARGEST_EXPANSION = 1032
"""Deflate cannot expand further than this (zlib technical details, "Maximum Compression Factor").

So a header that promises more is wrong before a byte of it is allocated.
"""
_HEAD_BYTES = 1 << 16
# What is larger takes seconds to read.
_LARGE_BYTES = 1 << 25


@contextmanager
def damage_as_data_error(path: Path, early_end: str = "the gzip stream ends early") -> Iterator[None]:
    """Raise DataError, which names the file, for what reading it or unpacking it raises inside."""
    try:
        yield
    except EOFError as error:
        raise DataError(f"{path}: is truncated: {early_end}; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is damaged gzip ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def open_unpacked(path: Path, progress: bool = False) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if they are gzip or bzip2.

    What is wrong with them is a DataError. With `progress` a bar on stderr shows how much of a
    large file is read, if that is a terminal.
    """
    with (
        damage_as_data_error(path, "its compressed data end early"),
        path.open("rb") as found,
        _bar(found, path, progress) as file,
    ):
        start = found.peek(3)[:3]
        if start.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped  # type: ignore[misc]
        elif start == BZIP2_MAGIC:
            with bz2.BZ2File(file) as unzipped_too:
                yield unzipped_too
        else:
            yield file


@contextmanager
def _bar(file: IO[bytes], path: Path, progress: bool) -> Iterator[IO[bytes]]:
    n_bytes = path.stat().st_size
    if not progress or n_bytes < _LARGE_BYTES:
        yield file
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        bar.wrap_file(cast(BinaryIO, file), n_bytes) as followed,
    ):
        yield followed


def read_head(path: Path) -> bytes:
    """The first 64 KB, unpacked."""
    with open_unpacked(path) as file:
        return file.read(_HEAD_BYTES)

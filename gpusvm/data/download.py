"""Fetching one file from the first mirror that has it, right and whole."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from gpusvm.data.packed import GZIP_MAGIC
from gpusvm.errors import DataError, DownloadError
from gpusvm.io.output import replacing

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 16


class MirrorError(Exception):
    """What one mirror did wrong, in a few words."""


def download(
    name: str,
    mirrors: Sequence[str],
    target: Path,
    check: Callable[[Path], bool],
    *,
    max_bytes: int,
    progress: bool = False,
) -> None:
    """Fetch `name` from the first of the mirrors whose file passes `check`.

    Parameters
    ----------
    name : str
        File name, appended to a mirror's address.
    mirrors : sequence of str
        Addresses ending in a slash, tried in order.
    target : path
        Where the file goes, gzipped; it appears there whole and checked, or not at all.
    check : callable
        Says whether a fetched file is the right one; may raise DataError instead.
    max_bytes : int
        A mirror that sends more is given up.
    progress : bool
        Show progress on stderr: a bar on a terminal, a line elsewhere.

    Raises
    ------
    DownloadError
        No mirror gave the file; the message has what each one said.
    OutputError
        The target folder cannot be written.
    """
    failures = []
    for mirror in mirrors:
        try:
            with replacing(target) as temporary:
                _fetch(mirror + name, temporary, max_bytes, progress)
                _gzip_if_plain(temporary)
                if not _passes(check, temporary):
                    raise MirrorError("sent another file (its checksum differs)")
            return
        except MirrorError as error:
            failures.append(f"{urlsplit(mirror).netloc} {error}")
    raise DownloadError(f"{name} could not be fetched: {'; '.join(failures) or 'it has no mirrors'}")


def _fetch(url: str, path: Path, max_bytes: int, progress: bool) -> None:
    # Half a second to import, and most runs download nothing.
    import pooch
    import requests

    bar = _Progress(url) if progress else None
    downloader = pooch.HTTPDownloader(
        progressbar=bar or False,
        chunk_size=_CHUNK_BYTES,
        timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
        # Else a server that labels .gz files as a transfer encoding has them unpacked on the way.
        headers={"Accept-Encoding": "identity"},
    )
    try:
        with path.open("wb") as file:
            downloader(url, _Capped(file, max_bytes), None)
    except requests.HTTPError as error:
        status = "an error" if error.response is None else error.response.status_code
        raise MirrorError(f"answered {status}") from error
    except requests.Timeout as error:
        raise MirrorError("did not answer in time") from error
    except requests.exceptions.SSLError as error:
        raise MirrorError("has no valid certificate") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise MirrorError("cannot be reached, or broke off") from error
    except requests.RequestException as error:
        raise MirrorError(f"failed ({type(error).__name__})") from error
    finally:
        if bar is not None:
            bar.close()


def _gzip_if_plain(path: Path) -> None:
    """Some servers unpack whatever is asked of them; the name says .gz, so the content should be."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    if not is_gzip:
        path.write_bytes(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))


def _passes(check: Callable[[Path], bool], path: Path) -> bool:
    try:
        return check(path)
    except DataError as error:
        raise MirrorError("sent a damaged or truncated file") from error


class _Capped:
    """A file that refuses to grow beyond `max_bytes`, however much a mirror sends."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._left = max_bytes

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise MirrorError("sent more than the file's size")
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class _Progress:
    """The progress object pooch asks for, drawn with rich on a terminal, one line elsewhere."""

    def __init__(self, url: str) -> None:
        self.total = 0
        self._url = url
        self._bar: Any = None
        self._task: Any = None

    def update(self, n_bytes: int) -> None:
        if self._bar is None:
            self._start()
        self._bar.update(self._task, total=self.total or None, advance=n_bytes)

    def reset(self) -> None:
        if self._bar is not None:
            self._bar.reset(self._task, total=self.total or None)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True)
        parts = urlsplit(self._url)
        description = f"{Path(parts.path).name} from {parts.netloc}"
        if not console.is_terminal:
            print(f"fetching {description} ({self.total / 1e6:.1f} MB)", file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(description, total=self.total or None)
        self._bar.start()

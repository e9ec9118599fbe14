"""Fetching one file from the first mirror that has it, right and whole."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterable, Sequence
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
    import requests  # takes a tenth of a second, and most runs download nothing

    # Else a server that labels .gz files as a transfer encoding has them unpacked on the way.
    as_it_is = {"Accept-Encoding": "identity"}
    timeouts = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    bar = _Progress(url) if progress else None
    try:
        with requests.get(url, stream=True, timeout=timeouts, headers=as_it_is) as response, path.open("wb") as file:
            response.raise_for_status()
            length = response.headers.get("content-length", "")
            n_bytes = int(length) if length.isdecimal() else 0
            _write_capped(response.iter_content(_CHUNK_BYTES), file, max_bytes, bar, n_bytes)
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


def _write_capped(
    chunks: Iterable[bytes], file: IO[bytes], max_bytes: int, bar: _Progress | None, n_bytes: int
) -> None:
    """Write what comes, and show it; raise MirrorError as soon as it is more than `max_bytes`."""
    n_left = max_bytes
    for chunk in chunks:
        n_left -= len(chunk)
        if n_left < 0:
            raise MirrorError("sent more than the file's size")
        file.write(chunk)
        if bar is not None:
            bar.update(len(chunk), n_bytes)


def _gzip_if_plain(path: Path) -> None:
    """Gzip a file that is not: its name says .gz, so the content should be.

    Some servers unpack whatever is asked of them.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    if not is_gzip:
        path.write_bytes(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))


def _passes(check: Callable[[Path], bool], path: Path) -> bool:
    try:
        return check(path)
    except DataError as error:
        raise MirrorError("sent a damaged or truncated file") from error


class _Progress:
    """How far a download has come: a bar on a terminal, one line elsewhere."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._bar: Any = None
        self._task: Any = None

    def update(self, n_bytes: int, total: int) -> None:
        """So many bytes more have come, of `total`; 0 where the server did not say of how many."""
        if self._bar is None:
            self._start(total)
        self._bar.update(self._task, advance=n_bytes)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True)
        parts = urlsplit(self._url)
        description = f"{Path(parts.path).name} from {parts.netloc}"
        if not console.is_terminal:
            print(f"fetching {description} ({total / 1e6:.1f} MB)", file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(description, total=total or None)
        self._bar.start()

"""Writing results so that a reader finds the old file or the new one, whole, never a part."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpusvm.errors import OutputError

_unfinished: set[Path] = set()
"""Temporary files under way in this process."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is renamed to `path`, on failure removed.

    Missing parent folders are created. Of a link, what it points to is replaced and the link
    stays. What is no file (a pipe, ``/dev/stdout``) cannot be replaced: the path given is then
    `path` itself.

    Raises
    ------
    OutputError
        The file cannot be written (no permission, disk full, a folder stands at `path`).
    """
    target = Path(os.path.realpath(path))
    if _is_stream(path):
        with _reported(Path(path)):
            yield Path(path)
        return
    # Named before it is made, so that an interrupt at any moment finds something to remove.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    _unfinished.add(temporary)
    try:
        with _reported(target):
            if target.is_dir():
                raise OutputError(f"{target}: is a folder; name a file in it")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o600))
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)


def remove_unfinished() -> None:
    """Remove the temporary files under way, of a process that is about to end without winding up.

    An interrupt that falls between the block of `replacing` and its clean-up skips the latter.
    """
    for temporary in list(_unfinished):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(target, error) from error


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether something stands there that is neither a file nor a folder.

    A name for a file that the shell has open counts too.
    """
    target = Path(path)
    if target.parent in (Path("/dev"), Path("/dev/fd")) and target.exists():
        return True
    return target.exists() and not target.is_file() and not target.is_dir()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all. Raises OutputError.

    Infinity and NaN, for which JSON has no number, become the texts "inf", "-inf" and "nan".
    """
    try:
        text = json.dumps(value, indent=2, default=_plain, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(json.loads(json.dumps(value, default=_plain))), indent=2)
    write_text(path, text + "\n")


def check_writable(*paths: str | os.PathLike[str] | None) -> None:
    """Fail now, before long work, if a result could not be written later. Raises OutputError."""
    for path in paths:
        if path is None:
            continue
        if _is_stream(path) and os.access(path, os.W_OK):
            continue
        target = Path(os.path.realpath(path))
        folder = next((p for p in target.absolute().parents if p.exists()), Path("/"))
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; name a file in it")
        if not folder.is_dir():
            raise OutputError(f"{target}: {folder} is not a folder; choose another path")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{target}: no permission to write in {folder}; choose another path")


def _cannot_write(target: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{target}: cannot write: {reason}; free some space or choose another path")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _finite(value: Any) -> Any:
    """What json reads, with a text in place of each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    to_list: Callable[[], Any] | None = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    return str(value)

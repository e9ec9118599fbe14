"""safetensors files: named arrays and strings on disk, nothing else.

No code in one is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from gpusvm.io.output import replacing

LARGEST_HEADER_BYTES = 2**22
"""The header has no arrays in it: names, types, shapes, and the metadata."""


class UnreadableError(Exception):
    """Why a file is none that can be read, in a few words for its reader's message."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write the arrays and strings to `path`, whole or not at all. Raises OutputError."""
    from safetensors.numpy import save

    with replacing(path) as temporary:
        # Not save_file: what it raises on a full disk is no OSError.
        temporary.write_bytes(save(dict(tensors), metadata=metadata))


def read_header(path: Path) -> bytes:
    """The JSON text at the file's beginning, unparsed.

    Raises UnreadableError where it is none, or too long.
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        first = file.read(1)
        if first not in (b"{", b""):
            raise UnreadableError("it does not begin as one does")
        if header_bytes > LARGEST_HEADER_BYTES:
            raise UnreadableError(f"its header says it has {header_bytes:,} bytes")
        return first + file.read(max(0, header_bytes - 1))


def read_tensors(
    path: Path, names: Collection[str], check_metadata: Callable[[dict[str, str]], None]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of these names that the file has, and its metadata.

    Parameters
    ----------
    path : Path
    names : collection of str
    check_metadata : callable
        Called before any array is read; raises what its caller wants where the file is not the one
        expected.

    Returns
    -------
    tensors : dict of str to array
        Shapes and dtypes are those of the file: to be checked by the caller. A name that it lacks
        is left out.
    metadata : dict of str to str

    Raises
    ------
    UnreadableError
        The file is truncated, foreign, no regular file, or its header claims what is not there.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # opening a pipe waits for whoever writes to it
        raise UnreadableError("not a file")
    try:
        read_header(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            check_metadata(metadata)
            return {name: file.get_tensor(name) for name in {*names} & {*file.keys()}}, metadata
    # AttributeError: a dtype that NumPy does not have.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableError(" ".join(str(error).split())[:120]) from error

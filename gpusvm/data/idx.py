"""IDX, the format MNIST came in: a magic number, the dimensions, then bytes; gzipped or not.

Layout (Y. LeCun, http://yann.lecun.com/exdb/mnist): big-endian 32-bit words 0x00000803, n, height,
width before the pixels of n images; 0x00000801, n before n labels.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from gpusvm.data.packed import GZIP_MAGIC, LARGEST_EXPANSION, damage_as_data_error
from gpusvm.data.pixels import require_memory
from gpusvm.errors import DataError
from gpusvm.io.output import replacing

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801
_HOLDS = {IMAGES_MAGIC: "images", LABELS_MAGIC: "labels"}

_CHUNK_BYTES = 1 << 20
# A label as it is stored, and as int64.
_LABEL_BYTES = 1 + 8


def read_images(path: str | os.PathLike[str], checksum: str | None = None) -> np.ndarray:
    """Read an IDX file of images.

    Parameters
    ----------
    path : path
        The file; gzip is recognised by its content.
    checksum : str, optional
        `"sha256:..."` or `"md5:..."` of the decompressed bytes, to be checked on the way.

    Returns
    -------
    ndarray of shape (n, height, width), uint8

    Raises
    ------
    DataError
        Missing, empty, truncated, too long, damaged, not IDX images, or another checksum.
    """
    return _read(Path(path), IMAGES_MAGIC, checksum)


def read_labels(path: str | os.PathLike[str], checksum: str | None = None) -> np.ndarray:
    """Read an IDX file of labels: (n,) int64. Parameters and errors as `read_images`."""
    return _read(Path(path), LABELS_MAGIC, checksum).astype(np.int64)


def write(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write images (n, height, width) or labels (n,) as IDX, gzipped where the name ends in `.gz`.

    Values must fit a byte. The file appears whole or not at all (OutputError).
    """
    if array.ndim not in (1, 3):
        raise DataError(f"IDX holds images (n, height, width) or labels (n,), not shape {array.shape}")
    values = array.astype(np.uint8)
    if not np.array_equal(values, array):
        raise DataError("IDX holds bytes: every value must be a whole number from 0 to 255")
    magic = IMAGES_MAGIC if array.ndim == 3 else LABELS_MAGIC
    content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + values.tobytes()
    if Path(path).suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def is_idx(path: Path, magic: int = IMAGES_MAGIC) -> bool:
    """Whether the file, gunzipped if need be, starts as IDX does. Damaged files are not IDX."""
    try:
        with open_bytes(path) as stream:
            return stream.read(4) == struct.pack(">I", magic)
    except DataError:
        return False


def matches(path: Path, checksum: str, n_bytes: int) -> bool:
    """Whether the file's decompressed bytes have this checksum.

    Reads no more than `n_bytes`, the size the right file has, and one byte to see that it ends
    there.
    """
    digest, expected = _hasher(checksum)
    with open_bytes(path) as stream:
        left = n_bytes + 1
        while chunk := stream.read(min(_CHUNK_BYTES, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest() == expected


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, gunzipped if they are gzip; whatever is wrong with them is a DataError."""
    with damage_as_data_error(path), path.open("rb") as file:
        start = file.peek(2)[:2]
        if start == GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream  # type: ignore[misc]
        elif not start:
            raise DataError(f"{path}: is empty; download or copy it again")
        elif path.suffix == ".gz":
            raise DataError(f"{path}: is named .gz but is not gzip; download it again, or rename it")
        else:
            yield file


def _read(path: Path, magic: int, checksum: str | None) -> np.ndarray:
    with open_bytes(path) as stream:
        header, shape = _read_header(stream, path, magic)
        _check_size(path, shape, gzipped=isinstance(stream, gzip.GzipFile), header_bytes=len(header))
        body = _read_body(stream, path, shape)
    if checksum is not None:
        digest, expected = _hasher(checksum)
        digest.update(header)
        digest.update(body.data)
        if digest.hexdigest() != expected:
            raise DataError(
                f"{path}: is not the published file (its {checksum.partition(':')[0]} differs);"
                " replace it, or name its folder as the source to use it as it is"
            )
    return body.reshape(shape)


def _read_header(stream: IO[bytes], path: Path, magic: int) -> tuple[bytes, tuple[int, ...]]:
    n_dimensions = magic & 0xFF
    header = stream.read(4 * (1 + n_dimensions))
    if len(header) >= 4 and (found := int.from_bytes(header[:4], "big")) != magic:
        found_kind = f"an IDX file of {_HOLDS[found]}" if found in _HOLDS else "not such an IDX file"
        raise DataError(
            f"{path}: wrong IDX magic 0x{found:08x}, expected 0x{magic:08x} for {_HOLDS[magic]};"
            f" this is {found_kind}: check which file it is"
        )
    if len(header) < 4 * (1 + n_dimensions):
        raise DataError(f"{path}: is truncated: {len(header)} bytes are no IDX header; download it again")
    return header, struct.unpack(f">{n_dimensions}I", header[4:])


def _check_size(path: Path, shape: tuple[int, ...], *, gzipped: bool, header_bytes: int) -> None:
    """Compare what the header promises with what the file can hold, before allocating it."""
    n_bytes = prod(shape)
    if n_bytes == 0:
        raise DataError(f"{path}: holds nothing: its header says {_describe(shape)}; use another file")
    file_bytes = path.stat().st_size
    largest = LARGEST_EXPANSION * file_bytes if gzipped else file_bytes - header_bytes
    if n_bytes > largest:
        raise _truncated(path, shape, f"the file has only {file_bytes:,} bytes")
    require_memory(n_bytes * (_LABEL_BYTES if len(shape) == 1 else 1), str(path))


def _read_body(stream: IO[bytes], path: Path, shape: tuple[int, ...]) -> np.ndarray:
    body = np.empty(prod(shape), dtype=np.uint8)
    filled = 0
    while filled < body.size:
        chunk = stream.read(min(_CHUNK_BYTES, body.size - filled))
        if not chunk:
            raise _truncated(path, shape, f"only {filled:,} bytes follow")
        body[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    # One byte past the end: also what makes gzip compare its own CRC.
    if stream.read(1):
        raise DataError(f"{path}: is longer than its header says ({_describe(shape)}); download it again")
    return body


def _truncated(path: Path, shape: tuple[int, ...], found: str) -> DataError:
    return DataError(f"{path}: is truncated: its header says {_describe(shape)}, {found}; download it again")


def _describe(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]:,} labels"
    return f"{shape[0]:,} images of {shape[1]}x{shape[2]}"


def _hasher(checksum: str) -> tuple[hashlib._Hash, str]:
    algorithm, _, expected = checksum.partition(":")
    return hashlib.new(algorithm, usedforsecurity=False), expected

"""Text files as people have them: any usual encoding and line end, a block of lines at a time."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from gpusvm.data.packed import open_unpacked
from gpusvm.errors import DataError

BLOCK_CHARACTERS = 1 << 22
# A row is one sample. What has no line ends in so many characters is no table.
LONGEST_LINE = 1 << 22
# What people hand over that is no text, by how it begins, and what to do.
_OTHERS = (
    (b"PK\x03\x04", "a zip archive, or an Excel workbook", "unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Office document", "save it as CSV"),
    (b"\xfd7zXZ", "packed with xz", "unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it first (unzstd)"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"\x89HDF", "HDF5", "write its arrays with numpy.savez"),
    (b"MATLAB 5", "a MATLAB file", "write its arrays with numpy.savez"),
    (b"ARROW1", "Feather (Arrow)", "save it as parquet or CSV"),
    (b"\x80\x04", "a pickle, which could run code", "save the table as CSV or parquet, arrays with numpy.savez"),
    (b"\x80\x05", "a pickle, which could run code", "save the table as CSV or parquet, arrays with numpy.savez"),
    (b"%PDF", "a PDF", "save the table as CSV"),
    (b"RDX", "R data", "write the table with write.csv"),
    (b"svm_type ", "a LIBSVM model and no data", "name the table to use it on"),
    (b"SQLite format", "an SQLite database", "export the table as CSV"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "download the data with git lfs pull"),
)
_JSON = re.compile(rb"\s*(\{\s*[\"}]|\[\s*[\[{\"\d-])")
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


def refuse_what_is_no_table(head: bytes, path: Path) -> None:
    """Raise DataError for what begins like a web page, or a format that is not read.

    The error calls it by its name.
    """
    for start, what, cure in _OTHERS:
        if head.startswith(start):
            raise DataError(f"{path}: is {what}; {cure}")
    if head[8:].startswith(b'{"__metadata__":'):
        of = " of gpusvm" if b'"format":"gpusvm-' in head else ""
        raise DataError(f"{path}: is a model file{of} (safetensors) and no data; name the table or the pictures")
    if _JSON.match(head):
        raise DataError(f"{path}: is JSON; save the table as CSV (pandas.read_json(...).to_csv(...))")
    if head[:64].lstrip().lower().startswith(_WEB_PAGE):
        raise DataError(f"{path}: is a web page (HTML), not a table; download the file itself: a log-in may be needed")


def find_encodings(head: bytes, path: Path) -> tuple[str, ...]:
    """The encodings to try, in order, judged by the file's first bytes.

    Raises DataError where they are no text.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path}: is UTF-32 text; save it as UTF-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    if b"\0" not in head:
        return ("utf-8-sig", "cp1252")
    # Text in UTF-16 that is nearly all ASCII has a zero for every second byte.
    pairs = max(1, len(head) // 2)
    for encoding, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros.count(0) > 0.9 * pairs and others.count(0) == 0:
            return (encoding,)
    raise DataError(f"{path}: is no text, and of no other known kind; export the table as CSV")


def decode_head(head: bytes, path: Path) -> str:
    """The first bytes as text, for a look at it; what cannot be decoded is replaced."""
    text = head.decode(find_encodings(head, path)[0], errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def open_text(path: Path, encoding: str, progress: bool = False) -> Iterator[TextIO]:
    """The file as text whose lines all end in a line feed.

    Reading it raises UnicodeDecodeError where it is not in this encoding.
    """
    with open_unpacked(path, progress) as file:
        yield io.TextIOWrapper(file, encoding=encoding, newline=None)


def blocks(stream: TextIO, path: Path, number: int = 1) -> Iterator[tuple[int, str]]:
    """Whole lines, about 4 MB at a time, with the number of the first one, from `number`.

    A block does not end inside of quotes, where a cell may go on in the next line.
    """
    while text := stream.read(BLOCK_CHARACTERS):
        text += _to_line_end(stream, text, path, number)
        if '"' in text and text.count('"') % 2:
            text += _to_line_end(stream, text, path, number)
        yield number, text
        number += text.count("\n")


def _to_line_end(stream: TextIO, text: str, path: Path, number: int) -> str:
    """What follows on the last line of a text; at its end, the next line.

    The text begins with line `number`.
    """
    rest = stream.readline(LONGEST_LINE)
    if len(rest) == LONGEST_LINE:
        line = number + text.count("\n")
        raise DataError(f"{path}: line {line} is longer than {LONGEST_LINE:,} characters; a row is one sample")
    return rest

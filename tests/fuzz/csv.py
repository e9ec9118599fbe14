"""CSV files: cells, columns, line ends and encodings that should not be there."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutation import mutate
from gpusvm.data import csv

_CELLS = (
    b"", b" ", b"-1", b"256", b"1e400", b"-1e400", b"nan", b"NaN", b"inf", b"-inf", b"0x10", b"1_0", b"1e2",
    b"12.0", b"1.5", b"9" * 30, b"9" * 40, b"9" * 400, b'"7"', b'"', b'""', b'"1\n2"', b"\x00", b"1\x00",
    b"\xff\xfe", b"\xe2\x88\x92", b"=1+1", b"True", b"None", b"1;2", b"1\t", b"+3", b"-0", b"00012",
    b"9007199254740993", b"\xd9\xa3", b"1e-400", b"\r",
)  # fmt: skip
_NAMES = (
    b"label", b"LABEL", b'"label"', b"pixel0", b"id", b"", b"Unnamed: 0", b"\x00", b"\xff", b"label\r",
    b"\x1b[31m",
)  # fmt: skip
_STARTS = (
    b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"\n\n", b"\r", b"\x00" * 9, b"PK\x03\x04",
    b"sep=,\n",
)  # fmt: skip


def generate(rng: Random) -> tuple[str, bytes]:
    if rng.random() < 0.0005:
        return "a.csv", rng.choice((b"1,", b"1", b"\n", b"1\n", b'"', b"a,", b"1,2\n")) * (1 << 18)
    n_columns = rng.choice((1, 2, 4, 5, 10, 17))
    lines = [_row(rng, n_columns) for _ in range(rng.choice((0, 1, 2, 8)))]
    if rng.random() < 0.6:
        names = [b"label", *(b"pixel%d" % i for i in range(n_columns - 1))]
        if rng.random() < 0.3:
            names[rng.randrange(len(names))] = rng.choice(_NAMES)
        lines.insert(0, b",".join(names))
    end = rng.choice((b"\n", b"\n", b"\r\n", b"\r", b"\n\n"))
    content = rng.choice(_STARTS) + end.join(lines) + rng.choice((b"", end))
    return "a.csv", mutate(rng, content) if rng.random() < 0.4 else content


def read(path: Path) -> Any:
    return csv.read(path)


def use(result: Any) -> None:
    images, labels = result
    assert images.ndim == 3 and images.size and images.dtype.name == "uint8"
    assert labels is None or (labels.shape == (len(images),) and labels.dtype.name == "int64")


def _row(rng: Random, n_columns: int) -> bytes:
    if rng.random() < 0.05:
        n_columns += rng.choice((-1, 1))
    cells = [b"%d" % rng.randint(0, 255) for _ in range(n_columns)]
    if cells and rng.random() < 0.3:
        cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
    return b",".join(cells)

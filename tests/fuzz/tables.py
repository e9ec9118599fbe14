"""Tables as text, in every dialect: cells that are no numbers, lines that do not fit, headers that
lie."""

from __future__ import annotations

import bz2
import gzip
import io
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy import sparse

from fuzz.mutation import mutate
from fuzz.npz import member
from gpusvm.data import Dataset, Table, load_dataset

_CELLS = (
    "", " ", "-1", "1e400", "-1e400", "nan", "NA", "?", "inf", "0x10", "1_0", "1e2", "1,5", "1.234,5", "1,234.5",
    "9" * 400, '"7"', '"', '""', '"1\n2"', "'", "'a b'", "\x00", "1\x00", "\ufeff", "\u2212", "\u0663", "=1+1", "True",
    "a;b", "1\t", "+3", "-0", "x" * 300, "x" * 200_000, "#", "# 3", "%", "{1 2}", "\\", "12%", "\x1b[31m", "qid:3",
    "1:2", "\x85", "\x0b", "\u2028", "\ud7ff",
)  # fmt: skip
_NAMES = ("label", "LABEL", '"label"', "id", "", "Unnamed: 0", "\x00", "class", "target", "1", "a" * 500, "#a", "\n")
_ENCODINGS = ("utf-8",) * 24 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32")
_STARTS = ("",) * 24 + ("sep=;\n", "sep=\n", "# a\n", "# a b c\n", "\n\n", "\r", "<html>", "\x00", "%\n")
_PACKINGS = (bytes,) * 24 + (gzip.compress, bz2.compress)

_TYPES = ("numeric", "REAL", "integer", "{a,b}", "{'a b', \"c\"}", "{}", "{", "string", "date yyyy", "relational", "")
_SPARSE_CELLS = (
    "1:2", "2:0.5", "0:1", "-1:1", "1:", ":1", "1:nan", "1:1e400", "1:1_0", "3:x", "99999999999:1", "2147483648:1",
    "9" * 5000 + ":1", "2147483647:1", "qid:1", "qid:x", "sid:1", "1:2:3", "1;2", "#", "# c", "\x00", "1:\x00",
    "\u0663:1",
)  # fmt: skip


def generate(rng: Random) -> tuple[str, bytes]:
    separator = rng.choice((",", ";", "\t", " ", "|"))
    n_columns = rng.choice((1, 2, 2, 3, 3, 5, 5, 10, 10))
    rows = [_row(rng, n_columns, rng.random() < 0.3) for _ in range(rng.choice((0, 1, 2, 8, 60)))]
    if rng.random() < 0.6:
        names = [*(f"f{k}" for k in range(n_columns - 1)), rng.choice(("label", "class", "kind"))]
        if rng.random() < 0.3:
            names[rng.randrange(n_columns)] = rng.choice(_NAMES)
        rows.insert(0, names)
    end = rng.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    text = rng.choice(_STARTS) + end.join(separator.join(row) for row in rows) + rng.choice(("", end))
    name = rng.choice(("a.csv", "a.csv", "a.tsv", "a.txt", "a.data", "a"))
    return name, _packed(rng, text)


def generate_svmlight(rng: Random) -> tuple[str, bytes]:
    lines = []
    for _ in range(rng.choice((1, 2, 8))):
        cells = [f"{k}:{rng.uniform(-2, 2):g}" for k in range(rng.choice((0, 1)), 6) if rng.random() < 0.6]
        cells.insert(0, rng.choice(("1", "-1", "+1", "0.5")))
        if rng.random() < 0.2:
            cells[rng.randrange(len(cells))] = rng.choice(_SPARSE_CELLS)
        lines.append(" ".join(cells) + rng.choice(("", " ", " # c", "\r")))
    return rng.choice(("a.svmlight", "a9a", "a.t", "a.txt")), _packed(rng, "\n".join(lines) + "\n")


def generate_arff(rng: Random) -> tuple[str, bytes]:
    n_columns = rng.choice((1, 2, 2, 3, 3, 5, 5))
    kinds = [*["numeric"] * (n_columns - 1), "{0,1}"]
    if rng.random() < 0.3:
        kinds[rng.randrange(n_columns)] = rng.choice(_TYPES)
    names = [f"f{k}" for k in range(n_columns)]
    if rng.random() < 0.2:
        names[rng.randrange(n_columns)] = rng.choice((*_NAMES, "'a b'", "'a\\'b'", "'a"))
    header = [f"@attribute {name} {kind}" for name, kind in zip(names, kinds, strict=True)]
    rows = [",".join(_row(rng, n_columns, rng.random() < 0.1)) for _ in range(rng.choice((0, 1, 8, 8)))]
    lines = ["% c", "@relation r", *header, rng.choice(("@data", "@data", "@data", "@DATA", "@data", "")), *rows]
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "a.arff", _packed(rng, "\n".join(lines) + "\n")


def generate_npy(rng: Random) -> tuple[str, bytes]:
    content = member(rng)
    return "a.npy", mutate(rng, content) if rng.random() < 0.4 else content


@cache
def _parquet_seeds() -> tuple[bytes, ...]:
    """Tables of numbers, words, gaps, lists, dates and pictures, in every way that parquet packs
    them."""
    import pyarrow
    from pyarrow import parquet

    n, numbers = 8, np.linspace(-1, 1, 8)
    labels = pyarrow.array([0, 1] * 4)
    picture = b"P5 2 2 255\n0123"
    tables: tuple[dict[str, Any], ...] = (
        {"a": numbers, "b": np.arange(n), "label": labels},
        {"a": numbers.astype(np.float32), "label": ["x", "y"] * 4},
        {"a": [1.0, None] * 4, "label": labels},
        {"a": [[1, 2]] * n, "label": labels},
        {"image": [{"bytes": picture, "path": "a.pgm"}] * n, "label": labels},
        {"image": [picture] * n, "label": labels},
        {"a": pyarrow.array(["q"] * n).dictionary_encode(), "b": [True, False] * 4, "label": labels},
        {"a": np.arange(n).astype("datetime64[s]"), "label": labels},
    )
    seeds = []
    for table in tables:
        for compression in ("none", "snappy", "gzip", "zstd"):
            buffer = io.BytesIO()
            parquet.write_table(pyarrow.table(table), buffer, compression=compression)
            seeds.append(buffer.getvalue())
    return tuple(seeds)


def generate_parquet(rng: Random) -> tuple[str, bytes]:
    return "a.parquet", mutate(rng, rng.choice(_parquet_seeds()))


def read(path: Path) -> Any:
    return load_dataset(path)


def use(result: Any) -> None:
    if isinstance(result, Dataset):
        assert result.images.ndim == 3 and result.images.size and result.images.dtype == np.uint8
        return
    assert isinstance(result, Table) and len(result) and result.n_features
    values = result.X.data if sparse.issparse(result.X) else result.X
    assert values.dtype.kind == "f" and np.isfinite(values).all()
    assert not result.columns or len(result.columns) == result.n_features
    if result.labels is not None:
        assert result.labels.shape == (len(result),) and result.labels.dtype.kind in "iUf"
        assert result.labels.dtype.kind == "U" or np.isfinite(result.labels).all()
    assert len(result.take(np.array([0]))) == 1


def _row(rng: Random, n_columns: int, worded: bool) -> list[str]:
    if rng.random() < 0.03:
        n_columns = max(1, n_columns + rng.choice((-1, 1)))
    cells = [repr(round(rng.uniform(-300, 300), rng.choice((0, 2)))) for _ in range(n_columns)]
    cells[-1] = rng.choice(("0", "1")) if not worded else rng.choice(("a", "b"))
    if rng.random() < 0.08:
        cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
    return cells


def _packed(rng: Random, text: str) -> bytes:
    encoding = rng.choice(_ENCODINGS)
    content = rng.choice(_PACKINGS)(text.encode(encoding, errors="replace"))
    return mutate(rng, content) if rng.random() < 0.3 else content

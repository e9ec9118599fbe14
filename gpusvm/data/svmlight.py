"""Sparse tables of SVMlight and LIBSVM: `label index:value index:value ... # comment`."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import scipy.sparse

from gpusvm.data.packed import open_unpacked, read_head
from gpusvm.data.table import Contents, TableOptions, as_labels
from gpusvm.data.text import find_encodings
from gpusvm.errors import DataError

_PAIR = re.compile(r"[0-9]+:\S+")
# What has no line end in so many bytes is no such file; a sample with a million values has about a
# fifth of it.
_LONGEST_LINE = 1 << 26


def is_svmlight(head: str) -> bool:
    """Whether text begins as such a file does.

    Most lines have at most a label, and then pairs of index and value.
    """
    n_pairs = n_others = 0
    for line in head.split("\n")[:20]:
        cells = line.partition("#")[0].split()
        pairs = cells[1:] if cells and not _PAIR.fullmatch(cells[0]) else cells
        if pairs and all(_PAIR.fullmatch(pair) or pair.startswith("qid:") for pair in pairs):
            n_pairs += 1
        elif pairs:
            n_others += 1
    return n_pairs > n_others or n_pairs == n_others == 1


def read(path: Path, options: TableOptions) -> Contents:
    """Read a sparse table, a line at a time, into a CSR matrix.

    Indices count from 0 where `options.first_index` says so or, without it, where there is an
    index 0; else from 1. `options.n_features` gives the matrix that many columns. A file whose
    lines begin with a pair has no labels.

    Raises
    ------
    DataError
        A damaged line, by its number; query ids; an index beyond `n_features`; values that are not
        finite.
    """
    from sklearn.datasets import load_svmlight_file

    if find_encodings(read_head(path), path)[0].startswith("utf-16"):
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")
    zero_based = "auto" if options.first_index is None else options.first_index == 0
    with open_unpacked(path) as file:
        lines = _Lines(file, path)
        try:
            # Indices are kept as they are: whether one is 0 says from where they count.
            X, y = load_svmlight_file(lines, dtype=np.float64, zero_based=True)
        except (ValueError, OverflowError, IndexError) as error:
            raise DataError(
                f"{path}: line {lines.number} cannot be read ({_reason(error)}): {lines.shown}; mend or remove it"
            ) from error
    if X.shape[0] == 0:
        raise DataError(f"{path}: holds no samples; give a file with at least one")
    if X.nnz == 0:
        raise DataError(f"{path}: holds no values, only labels; give a file with index:value pairs")
    first_index = int(X.indices.min() > 0) if zero_based == "auto" else int(not zero_based)
    X = _with_columns(X, first_index, options.n_features, path)
    bad = np.flatnonzero(~np.isfinite(X.data))
    if len(bad):
        row = int(np.searchsorted(X.indptr, bad[0], side="right"))
        raise DataError(f"{path}: {len(bad):,} values are NaN or infinite, the first in row {row}; mend or remove them")
    labels = as_labels(y, f"{path}, the labels") if lines.labelled else None
    return Contents(X, labels, first_index=first_index)


def _with_columns(X: scipy.sparse.csr_matrix, first_index: int, n_features: int | None, path: Path):  # type: ignore[no-untyped-def]
    largest = int(X.indices.max())
    if largest > np.iinfo(np.int32).max:
        raise DataError(f"{path}: has an index {largest}, larger than any that is known here; renumber its indices")
    if first_index == 1 and X.indices.min() == 0:
        raise DataError(f"{path}: has an index 0, and the files of this model count from 1; renumber its indices")
    n_columns = largest + 1 - first_index
    if n_features is not None and n_columns > n_features:
        raise DataError(
            f"{path}: has an index {largest}, and the model knows {n_features:,} features; remove the others"
        )
    indices = X.indices.astype(np.int32)
    indices -= first_index
    shape = (X.shape[0], n_columns if n_features is None else n_features)
    return scipy.sparse.csr_matrix((X.data, indices, X.indptr), shape=shape)


class _Lines(io.BufferedIOBase):
    """The lines of a file, counted.

    This is what scikit-learn's reader, which takes a file, asks one for.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.number = 0
        self.labelled = True
        self._line = b""
        self._begun = False

    @property
    def shown(self) -> str:
        """The beginning of the line that was read last."""
        return repr(self._line[:40].decode("utf-8", errors="replace").strip())

    def __iter__(self) -> Iterator[bytes]:
        while line := self._file.readline(_LONGEST_LINE):
            if self.number == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            self.number, self._line = self.number + 1, line
            if len(line) == _LONGEST_LINE:
                raise DataError(
                    f"{self._path}: line {self.number} is longer than {_LONGEST_LINE:,} bytes; a line is one sample"
                )
            content = line.partition(b"#")[0]
            first_cells = content.split(None, 2)[:2]
            if not first_cells:
                continue
            if not self._begun:
                self._begun = True
                self.labelled = b":" not in first_cells[0]
            if b"_" in content:  # which Python's float() takes
                raise ValueError("an underscore among its numbers")
            if any(cell.startswith(b"qid:") for cell in first_cells):
                raise DataError(
                    f"{self._path}: line {self.number} has a query id (qid); ranking is not done here, so remove them"
                )
            yield line if self.labelled else b"0 " + line


def _reason(error: Exception) -> str:
    if found := re.fullmatch(r"could not convert string to float: b(['\"].*)", str(error)):
        return f"{found[1][:60]} is no number, which labels and values must be"
    return (next(iter(str(error).splitlines()), "") or type(error).__name__)[:120]

"""Tables that a suite can measure: generated ones, scikit-learn's wine, UCI's Adult and Letter.

A suite describes each in a ``[tables.NAME]`` of its own, with its ``source`` and that source's
arguments. Everything here is float32: what the benchmark compares is solvers, not precisions.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, StrictFloat

from gpusvm.bench.validation import NO_OTHER_KEYS, one_of, validated
from gpusvm.errors import DataError

_FILES = {"adult": Path("adult/a9a.t.gz"), "letter": Path("letter/letter.scale.gz")}
_ADULT_SHAPE = (16_281, 122)
_LETTER_SHAPE = (20_000, 16)
_N_LETTERS = 26


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Samples with their labels.

    Attributes
    ----------
    X : ndarray of shape (n, n_features), float32
    y : ndarray of shape (n,), int64
    """

    X: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, which: slice) -> LabelledSamples:
        """These rows only."""
        return LabelledSamples(self.X[which], self.y[which])

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the shape, the samples and the labels."""
        digest = hashlib.sha256(repr(self.X.shape).encode())
        digest.update(np.ascontiguousarray(self.X).data)
        digest.update(np.ascontiguousarray(self.y).data)
        return digest.hexdigest()


def check_table(values: Any, where: str) -> dict[str, Any]:
    """The checked description of a table, as a suite's file has it. Raises DataError."""
    source = validated(_AnyTable, values, where).source
    described = _DESCRIBED.get(source, _Table)
    return validated(described, values, where, keys=list(described.model_fields)).model_dump(exclude_unset=True)


def load_table(name: str, described: Mapping[str, Any], data_dir: str | None = None) -> LabelledSamples:
    """The table that `described` (from `check_table`) stands for.

    Raises
    ------
    DataError
        Its file is damaged, or its arguments do not go together.
    """
    arguments = {key: value for key, value in described.items() if key != "source"}
    try:
        X, y = _SOURCES[described["source"]](arguments, data_dir)
    except ValueError as error:  # scikit-learn's word on arguments that contradict each other
        raise DataError(f"table {name!r}: {' '.join(str(error).split())}") from error
    except MemoryError as error:
        raise DataError(f"table {name!r}: does not fit into memory; make it smaller") from error
    return LabelledSamples(np.ascontiguousarray(X, dtype=np.float32), np.ascontiguousarray(y, dtype=np.int64))


def missing_file(described: Mapping[str, Any], data_dir: str | None = None) -> str | None:
    """The file whose absence makes a table a generated one; None where there is no such file."""
    file = _FILES.get(described["source"])
    return None if file is None or _find(file, data_dir) is not None else str(file)


def _make_classification(arguments: dict[str, Any], data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_classification

    return make_classification(**arguments)


def _make_blobs(arguments: dict[str, Any], data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's make_blobs, the rows going round the classes.

    The first rows hold as many of each class.
    """
    from sklearn.datasets import make_blobs

    box = {"center_box": tuple(arguments["center_box"])} if "center_box" in arguments else {}
    X, y = make_blobs(**{**arguments, **box}, shuffle=False)
    within_class = np.concatenate([np.arange(n) for n in np.bincount(y)])
    order = np.argsort(within_class, kind="stable")
    return X[order], y[order]


def _wine(arguments: dict[str, Any], data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 178 wines, each feature with mean 0 and variance 1, in a random order."""
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))  # the file is sorted by class
    return ((X - X.mean(axis=0)) / X.std(axis=0))[order], y[order]


def _adult(arguments: dict[str, Any], data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    path = _find(_FILES["adult"], data_dir)
    return _like_adult() if path is None else _read_numbers(path, *_ADULT_SHAPE)


def _letter(arguments: dict[str, Any], data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    path = _find(_FILES["letter"], data_dir)
    return _like_letter() if path is None else _read_numbers(path, *_LETTER_SHAPE)


def _like_adult() -> tuple[np.ndarray, np.ndarray]:
    """People like Adult's: one of several values in each of 14 columns, a quarter of class 1."""
    rng = np.random.default_rng(0)
    n, n_features = _ADULT_SHAPE
    bounds = np.linspace(0, n_features, 15).astype(int)
    weights = rng.normal(size=n_features)
    X = np.zeros((n, n_features), dtype=np.float32)
    for first, end in pairwise(bounds):
        shares = rng.dirichlet(np.full(end - first, 0.7))
        X[np.arange(n), first + rng.choice(end - first, size=n, p=shares)] = 1
    # Noise as large as a third of the signal leaves what no classifier can tell apart, as in
    # Adult.
    score = X @ weights
    score += rng.normal(scale=score.std() / 3, size=n)
    return X, np.where(score > np.quantile(score, 0.76), 1, -1)


def _like_letter() -> tuple[np.ndarray, np.ndarray]:
    """Letters like UCI's: 26 classes of four shapes each, 16 features of 16 levels in [-1, 1]."""
    rng = np.random.default_rng(0)
    n, n_features = _LETTER_SHAPE
    shapes = rng.uniform(3, 12, size=(_N_LETTERS, 4, n_features))
    y = rng.integers(_N_LETTERS, size=n)
    levels = np.rint(shapes[y, rng.integers(4, size=n)] + rng.normal(scale=1.7, size=(n, n_features)))
    return np.clip(levels, 0, 15) / 7.5 - 1, y + 1


def _find(file: Path, data_dir: str | None) -> Path | None:
    """That file, or the same one unzipped, in the folders where gpusvm looks for data."""
    for folder in _folders(data_dir):
        for path in (folder / file, (folder / file).with_suffix("")):
            if path.is_file():
                return path
    return None


def _folders(data_dir: str | None) -> Iterator[Path]:
    if data_dir is not None:
        yield Path(data_dir)
    if from_environment := os.environ.get("GPUSVM_DATA_DIR"):
        yield Path(from_environment).expanduser()
    yield Path("data")


def _read_numbers(path: Path, n: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """A file of lines that are a label and then ``column:value`` pairs, or all values in order."""
    X, y = np.zeros((n, n_features), dtype=np.float32), np.zeros(n, dtype=np.int64)
    shape = f"{n:,} rows of a label and {n_features} features"
    try:
        lines = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).splitlines()
        if len(lines) != n:
            raise DataError(f"{path}: has {len(lines):,} lines, and not {shape}; fetch the file again")
        for row, line in enumerate(lines):
            label, *values = line.split()
            y[row] = int(label)
            if values and b":" not in values[0]:
                X[row] = [float(value) for value in values]
                continue
            for pair in values:
                column, _, value = pair.partition(b":")
                X[row, int(column) - 1] = float(value)
    except OSError as error:  # gzip's own errors among them
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; fetch the file again") from error
    except (EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(f"{path}: is not {shape}: {error}; fetch the file again") from error
    return X, y


_SOURCES: dict[str, Callable[[dict[str, Any], str | None], tuple[np.ndarray, np.ndarray]]] = {
    "make_classification": _make_classification,
    "make_blobs": _make_blobs,
    "wine": _wine,
    "adult": _adult,
    "letter": _letter,
}

_Count = Annotated[int, Field(strict=True, ge=1, le=10**7)]
_Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
_Positive = Annotated[float, Field(strict=True, gt=0)]


class _AnyTable(BaseModel):
    source: Annotated[str, one_of(lambda: list(_SOURCES))]


class _Table(_AnyTable):
    model_config = NO_OTHER_KEYS


class _Generated(_Table):
    """What scikit-learn's function of the same name as the source is given."""

    n_samples: _Count
    n_features: _Count
    random_state: _Seed


class _Classification(_Generated):
    n_informative: _Count | None = None
    n_redundant: Annotated[int, Field(strict=True, ge=0, le=10**7)] | None = None
    n_classes: _Count | None = None
    n_clusters_per_class: _Count | None = None
    flip_y: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    class_sep: _Positive | None = None


class _Blobs(_Generated):
    centers: _Count | None = None
    cluster_std: _Positive | None = None
    center_box: Annotated[list[StrictFloat], Field(min_length=2, max_length=2)] | None = None


_DESCRIBED: dict[str, type[_Table]] = {"make_classification": _Classification, "make_blobs": _Blobs}

"""LIBSVM's text models, as svm-train writes them and svm-predict reads them.

The numbers are those of SVMModel but for rho, which is the intercept with the other sign. The
order of the classes is that in which svm-train met their labels.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from gpusvm.calibration import Calibration
from gpusvm.errors import DataWarning, ModelFileError, UsageError, warn
from gpusvm.io.output import replacing
from gpusvm.kernels import Kernel
from gpusvm.model import FROM_LIBSVM, SVMModel, in_class_order
from gpusvm.params import KERNEL_PARAMETERS, Problem, Stopping
from gpusvm.sparse import Sparse, as_csr, nonzeros_of_row

_KERNELS = {
    "linear": "linear", "polynomial": "poly", "rbf": "rbf", "sigmoid": "sigmoid", "precomputed": "precomputed",
}  # fmt: skip

_TASKS = {
    "c_svc": "c_svc", "nu_svc": "c_svc", "one_class": "one_class", "epsilon_svr": "epsilon_svr",
    "nu_svr": "epsilon_svr",
}  # fmt: skip
"""What a model of each of LIBSVM's types is to us: those of nu predict as the others do."""

_NOT_IN_FILE: dict[str, dict[str, Any]] = {"epsilon_svr": {"epsilon": 0.1}, "one_class": {"nu": 0.5}}
"""Parameters of the training, which no prediction needs, by LIBSVM's defaults."""
_KEYS = (
    "svm_type", "kernel_type", "degree", "gamma", "coef0", "nr_class", "total_sv", "rho", "label", "probA", "probB",
    "nr_sv", "prob_density_marks",
)  # fmt: skip

_LARGEST_WHOLE = 2**31 - 1
"""LIBSVM keeps labels, counts and indices in 32 bits."""

_LARGEST_NUMBER = float(np.finfo(np.float32).max)
"""Predictions are computed in float32 too."""

_AGAIN = "write the model again with svm-train, or copy it again"

_SPARE_BYTES = 2**24
_BYTES_FOR_EACH = 50
"""What a dense array of support vectors may take: so many bytes in all, or so many for each byte
of the file."""


class _DamageError(Exception):
    """What is wrong with a file, where, and what to do."""


def _at(line: int, what: str, cure: str = _AGAIN) -> _DamageError:
    return _DamageError(f"line {line}: {what}; {cure}")


@dataclass
class _Header:
    """What stands before the support vectors.

    It has for each key its values as written, and the line that has them.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    end: int = 0

    def error(self, key: str, what: str, cure: str = _AGAIN) -> _DamageError:
        return _at(self.lines.get(key, self.end), what, cure)

    def words(self, key: str) -> list[str]:
        if key not in self.values:
            raise _at(self.end, f"the support vectors begin, and there was no {key}")
        return self.values[key]

    def word(self, key: str, known: tuple[str, ...]) -> str:
        words = self.words(key)
        if len(words) != 1 or words[0] not in known:
            raise self.error(key, f"{key} is {_quoted(' '.join(words))}, it must be one of {', '.join(known)}")
        return words[0]

    def numbers(self, key: str, count: int) -> list[float]:
        words = self.words(key)
        if len(words) != count:
            raise self.error(key, f"{key} has {len(words):,} values, it must have {count:,}")
        try:
            return [_number(word) for word in words]
        except ValueError as error:
            raise self.error(key, f"{key} has {error}") from None

    def wholes(self, key: str, count: int, low: int) -> list[int]:
        values = self.numbers(key, count)
        for value, word in zip(values, self.values[key], strict=True):
            if not value.is_integer() or not low <= value <= _LARGEST_WHOLE:
                raise self.error(key, f"{key} has {_quoted(word)}, it must be a whole number of at least {low}")
        return [int(value) for value in values]


@dataclass
class _Vectors:
    """Support vectors as the lines have them.

    Coefficients are row after row, features are (index from 0, value).
    """

    coefficients: array[float] = field(default_factory=lambda: array("d"))
    indices: array[int] = field(default_factory=lambda: array("i"))
    values: array[float] = field(default_factory=lambda: array("d"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def __len__(self) -> int:
        return len(self.ends) - 1


def is_libsvm_model(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as a LIBSVM model does, with one of its keys.

    False where there is no such file.
    """
    try:
        if not Path(path).is_file():  # opening a pipe waits for whoever writes to it
            return False
        with Path(path).open("rb") as file:
            first = file.read(64).split(maxsplit=1)
    except OSError:
        return False
    return bool(first) and first[0].decode("latin-1") in _KEYS


def read_libsvm_model(path: str | os.PathLike[str], *, n_features: int | None = None) -> SVMModel:
    """Read a model that svm-train wrote, of whichever type.

    A LIBSVM model says neither C, nu or epsilon nor how many features there were, nor which rows
    of the training data the support vectors are. `problem.C` is then the largest coefficient, and
    `support_indices` count the support vectors (but for a precomputed kernel, where they are in
    the file).

    Parameters
    ----------
    path : path-like
    n_features : int, optional
        Features of the data, for a precomputed kernel training samples; by default as many as the
        support vectors have, which is less where the last ones are zero in all of them.
        Predictions take data of more features all the same, as svm-predict does.

    Returns
    -------
    SVMModel
        With sorted classes; `vote_order` has the order of the file. Support vectors are float64.

    Raises
    ------
    ModelFileError
        The file is missing or damaged: the message names the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            lines = enumerate(file, start=1)
            header = _read_header(lines)
            layout = _Layout.of(header)
            vectors = _read_vectors(lines, layout)
            size = os.fstat(file.fileno()).st_size
        return _assemble(layout, vectors, size, n_features)
    except _DamageError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read it: {error.strerror or error}; check the path") from error


def _read_header(lines: Iterator[tuple[int, bytes]]) -> _Header:
    """The lines up to the one that says SV."""
    header = _Header()
    for number, line in lines:
        header.end = number
        if line.strip() == b"SV":
            return header
        if not line.strip():
            continue
        try:
            key, *words = line.decode("ascii").split()
        except UnicodeDecodeError:
            raise _at(number, "has characters that no LIBSVM model has") from None
        if key not in _KEYS:
            known = f"one of {', '.join(_KEYS)} or SV"
            raise _at(number, f"unknown key {_quoted(key)}, expected {known}")
        if key in header.values:
            raise _at(number, f"{key} was there before, in line {header.lines[key]}")
        header.values[key], header.lines[key] = words, number
    raise _at(header.end, "the file ends before its support vectors: it is truncated")


@dataclass(frozen=True)
class _Layout:
    """A header that was checked.

    It says what the support vectors' lines must look like, and what goes into the model.
    """

    svm_type: str
    kernel: Kernel
    labels: list[int]
    n_support: list[int]
    rho: list[float]
    calibration: Calibration | None
    noise_scale: float | None = None

    @classmethod
    def of(cls, header: _Header) -> _Layout:
        svm_type = header.word("svm_type", tuple(_TASKS))
        if _TASKS[svm_type] != "c_svc":
            return cls._of_function(header, svm_type)
        if "prob_density_marks" in header.values:
            raise header.error("prob_density_marks", f"a model of {svm_type} has none")
        (n_classes,) = header.wholes("nr_class", 1, 1)
        if n_classes < 2:
            raise header.error("nr_class", "it has a single class", "train on data with two classes at least")
        labels = header.wholes("label", n_classes, -_LARGEST_WHOLE - 1)
        if len(set(labels)) < n_classes:
            raise header.error("label", "a label is there twice")
        n_pairs = n_classes * (n_classes - 1) // 2
        (total,) = header.wholes("total_sv", 1, 0)
        n_support = header.wholes("nr_sv", n_classes, 0)
        if sum(n_support) != total:
            raise header.error("nr_sv", f"nr_sv adds up to {sum(n_support):,}, and total_sv is {total:,}")
        return cls(
            svm_type,
            _kernel(header),
            labels,
            n_support,
            header.numbers("rho", n_pairs),
            _calibration(header, n_pairs),
        )

    @classmethod
    def _of_function(cls, header: _Header, svm_type: str) -> _Layout:
        """A regression or a one-class model.

        For these LIBSVM writes two classes and neither labels nor nr_sv.
        """
        if header.wholes("nr_class", 1, 1) != [2]:
            raise header.error("nr_class", f"nr_class of {svm_type} must be 2")
        if "prob_density_marks" in header.values and svm_type == "one_class":
            warn("prob_density_marks, which no prediction needs, are left out of the model", DataWarning)
        for key in ("label", "nr_sv", "probB", *(["probA"] if svm_type == "one_class" else [])):
            if key in header.values:
                raise header.error(key, f"a model of {svm_type} has no {key}")
        scale = header.numbers("probA", 1)[0] if "probA" in header.values else None
        total = header.wholes("total_sv", 1, 0)
        return cls(svm_type, _kernel(header), [], total, header.numbers("rho", 1), None, scale)

    @property
    def n_coefficients(self) -> int:
        """Of each support vector."""
        return max(1, len(self.labels) - 1)


def _calibration(header: _Header, n_pairs: int) -> Calibration | None:
    """What svm-train -b 1 fitted, if it did.

    One of its lines alone is of no use to svm-predict either.
    """
    if not {"probA", "probB"} & header.values.keys():
        return None
    probA, probB = (np.array(header.numbers(name, n_pairs)) for name in ("probA", "probB"))
    return Calibration(probA, probB)


def _kernel(header: _Header) -> Kernel:
    name = _KERNELS[header.word("kernel_type", tuple(_KERNELS))]
    values: dict[str, Any] = {}
    for key in ("degree", "gamma", "coef0"):
        if key in header.values or key in KERNEL_PARAMETERS[name]:
            values[key] = header.wholes(key, 1, 0)[0] if key == "degree" else header.numbers(key, 1)[0]
    try:
        return Kernel(name, **values)
    except ValueError as error:
        raise header.error("gamma", str(error)) from None


def _read_vectors(lines: Iterator[tuple[int, bytes]], layout: _Layout) -> _Vectors:
    """The lines after SV, each checked."""
    vectors, total, number = _Vectors(), sum(layout.n_support), 0
    for number, line in lines:
        if not line.strip():
            continue
        if not line.endswith(b"\n"):  # numbers cut off are numbers too
            raise _at(number, "the file ends within a line: it is truncated", f"{_AGAIN}, or end it with a line break")
        if len(vectors) == total:
            raise _at(number, f"there are more support vectors than total_sv, {total:,}")
        try:
            _take(vectors, line.decode("ascii").split(), layout)
        except UnicodeDecodeError:
            raise _at(number, "has characters that no LIBSVM model has") from None
        except ValueError as error:
            raise _at(number, f"has {error}") from None
    if len(vectors) < total:
        found = f"it has {len(vectors):,} support vectors of {total:,}"
        raise _at(number, f"the file ends too soon: {found}")
    return vectors


def _take(vectors: _Vectors, words: list[str], layout: _Layout) -> None:
    """Add one line. Raises ValueError, which says what the line has, as it follows "has"."""
    n = layout.n_coefficients
    if len(words) < n or any(":" in word for word in words[:n]):
        raise ValueError(f"fewer than {n:,} coefficients, as many as there are classes less one")
    coefficients = [_number(word) for word in words[:n]]
    features = [word.split(":") for word in words[n:]]
    for word, parts in zip(words[n:], features, strict=True):
        if len(parts) != 2:
            raise ValueError(f"{_quoted(word)}, where an index, a colon and a value should be")
    indices = [_index(parts[0]) for parts in features]
    values = [_number(parts[1]) for parts in features]
    if layout.kernel.precomputed:
        if indices != [0] or not values[0].is_integer() or not 1 <= values[0] <= _LARGEST_WHOLE:
            raise ValueError("no number of a training sample, 0:1 or more, after its coefficients")
        indices, values = [int(values[0])], [0.0]
    elif indices and indices[0] == 0:
        raise ValueError("a feature 0: LIBSVM counts features from 1, so count them so in the training data too")
    elif any(before >= after for before, after in pairwise(indices)):
        raise ValueError("features whose indices do not ascend")
    vectors.coefficients.extend(coefficients)
    vectors.indices.extend(index - 1 for index in indices)
    vectors.values.extend(values)
    vectors.ends.append(len(vectors.values))


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{_quoted(word)}, which is no number") from None
    if "_" in word:  # which Python allows
        raise ValueError(f"{_quoted(word)}, which is no number")
    if not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"{_quoted(word)}, which is no finite number up to {_LARGEST_NUMBER:.1e}")
    return value


def _index(word: str) -> int:
    if not word.isdigit() or len(word) > 20 or (index := int(word)) > _LARGEST_WHOLE:
        raise ValueError(f"{_quoted(word)} for a feature's index, which must be a whole number up to {_LARGEST_WHOLE}")
    return index


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:37]}...")


def _assemble(layout: _Layout, vectors: _Vectors, file_bytes: int, n_features: int | None) -> SVMModel:
    indices = np.frombuffer(vectors.indices, dtype=np.int32) if vectors.indices else np.zeros(0, np.int32)
    coefficients = np.array(vectors.coefficients).reshape(len(vectors), layout.n_coefficients)
    width = max(1, int(indices.max(initial=-1)) + 1)
    if n_features is not None and n_features < width:
        raise UsageError(f"n_features is {n_features}, and the support vectors of the model have {width}")
    width = n_features or width
    precomputed = layout.kernel.precomputed
    task = _TASKS[layout.svm_type]
    largest = 1.0 if task == "one_class" else float(np.abs(coefficients).max(initial=0.0))
    model = SVMModel(
        problem=Problem(layout.kernel, C=largest or 1.0, task=task, **_NOT_IN_FILE.get(task, {})),
        stopping=Stopping(),
        classes=np.array(layout.labels, dtype=np.int64),
        support_vectors=np.zeros((len(vectors), 0)) if precomputed else _rows(vectors, indices, width, file_bytes),
        support_indices=indices.astype(np.int64) if precomputed else np.arange(len(vectors)),
        n_support=np.array(layout.n_support),
        dual_coef=np.ascontiguousarray(coefficients.T),
        intercept=-np.array(layout.rho),
        n_features=width,
        n_iter=np.zeros(len(layout.rho), dtype=np.int64),
        calibration=layout.calibration,
        noise_scale=layout.noise_scale,
        provenance={"backend": FROM_LIBSVM, "svm_type": layout.svm_type},
    )
    order = np.argsort(model.classes)
    if np.array_equal(order, np.arange(len(order))):
        return model
    return replace(in_class_order(model, order), vote_order=np.argsort(order))


def _rows(vectors: _Vectors, indices: np.ndarray, n_features: int, file_bytes: int) -> np.ndarray | Sparse:
    """The support vectors (n_sv, n_features) float64; those of very many features stay sparse."""
    ends = np.array(vectors.ends, dtype=np.int64)
    rows = as_csr(csr_array((np.array(vectors.values), indices, ends), shape=(len(vectors), n_features)))
    n_bytes = 8 * len(vectors) * n_features
    return rows if n_bytes > max(_SPARE_BYTES, _BYTES_FOR_EACH * file_bytes) else rows.toarray()


def write_libsvm_model(model: SVMModel, path: str | os.PathLike[str]) -> None:
    """Write `model` as svm-predict reads it, whole or not at all.

    Reading it again gives the same numbers: each is written with as many digits as that takes.
    What a LIBSVM model cannot say is left out: C, the provenance, and preprocessing steps, of
    which a DataWarning tells.

    Parameters
    ----------
    model : SVMModel
    path : str or path
        An older file of this name is replaced.

    Raises
    ------
    UsageError
        The class labels are not whole numbers of 32 bits.
    OutputError
        The file cannot be written.
    """
    labels = _labels_in_32_bits(model) if model.problem.classifies else None
    if model.preprocessing:
        steps = ", ".join(type(step).__name__ for step in model.preprocessing)
        warn(
            f"a LIBSVM model has no place for preprocessing steps ({steps}): give svm-predict features that they have"
            " been applied to (SVMModel.preprocess), not the raw ones",
            DataWarning,
        )
    if model.vote_order is not None:
        assert labels is not None  # a single function has no classes to vote for
        labels, model = labels[model.vote_order], in_class_order(model, model.vote_order)
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(_header_lines(model, labels))
        file.writelines(_vector_lines(model))


def _labels_in_32_bits(model: SVMModel) -> np.ndarray:
    """The class labels as int64. Raises UsageError where LIBSVM cannot have them."""
    classes, cure = model.classes, "train on such labels, or export to sklearn or onnx"
    if classes.dtype.kind not in "iufb":
        raise UsageError(
            f"the class labels are words ({_quoted(str(classes[0]))}, ...), and LIBSVM's are whole numbers; {cure}"
        )
    numbers = classes.astype(np.float64)
    strange = ~((np.abs(numbers + 0.5) <= 2**31) & (numbers == np.floor(numbers)))
    if strange.any():
        label = classes[strange][0]
        raise UsageError(f"the class label {label} is no whole number of 32 bits, as LIBSVM's must be; {cure}")
    return numbers.astype(np.int64)


def _header_lines(model: SVMModel, labels: np.ndarray | None) -> Iterator[str]:
    kernel = model.kernel
    yield f"svm_type {model.problem.task}\n"
    yield f"kernel_type {next(theirs for theirs, ours in _KERNELS.items() if ours == kernel.name)}\n"
    for name in KERNEL_PARAMETERS[kernel.name]:
        yield f"{name} {getattr(kernel, name):.17g}\n"
    yield f"nr_class {2 if labels is None else model.n_classes}\n"
    yield f"total_sv {model.n_support_vectors}\n"
    yield _line("rho", -model.intercept)
    if labels is not None:
        yield _line("label", labels)
    if model.calibration is not None:
        yield _line("probA", model.calibration.probA)
        yield _line("probB", model.calibration.probB)
    if model.noise_scale is not None:
        yield f"probA {model.noise_scale:.17g}\n"
    if labels is not None:
        yield _line("nr_sv", model.n_support)
    yield "SV\n"


def _line(key: str, values: np.ndarray) -> str:
    return " ".join([key, *(f"{value:.17g}" for value in values.tolist())]) + "\n"


def _vector_lines(model: SVMModel) -> Iterator[str]:
    for s in range(model.n_support_vectors):
        words = [f"{value:.17g}" for value in model.dual_coef[:, s].tolist()]
        if model.kernel.precomputed:
            words.append(f"0:{model.support_indices[s] + 1}")
        else:
            present, values = nonzeros_of_row(model.support_vectors, s)
            words += [
                f"{k}:{_shortest(value)}" for k, value in zip((present + 1).tolist(), values.tolist(), strict=True)
            ]
        yield " ".join(words) + " \n"


def _shortest(value: float) -> str:
    """Eight digits, as svm-train writes features, if those are exact; else as many as needed."""
    short = f"{value:.8g}"
    return short if float(short) == value else f"{value:.17g}"

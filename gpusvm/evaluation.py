"""How well a model predicts labelled samples: accuracy, figures per class, confusion matrix."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusvm.errors import DataError
from gpusvm.model import SVMModel
from gpusvm.pairs import pair_index

CHUNK_ROWS = 10_000
"""Samples preprocessed and predicted at a time: float32 copies of them stay small."""

CONFIDENCE_BINS = 15
"""As in Guo et al. 2017."""

_NAMED_LABELS = 10
"""Labels spelled out in an error message."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about some samples.

    Attributes
    ----------
    labels : (n,) array
        The predicted class of each sample, in the dtype of the model's classes; the value of a
        regression.
    decisions : (n, n_pairs) float64 array
        The decision value of each class pair, in the order of `SVMModel.pairs`.
    seconds : float
        From samples to labels, preprocessing included.
    probabilities : (n, n_classes) float64 array, optional
        Of the classes, where they were asked for.
    """

    labels: np.ndarray
    decisions: np.ndarray
    seconds: float
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def samples_per_second(self) -> float:
        """How fast the model predicted."""
        return len(self) / max(self.seconds, 1e-9)


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far probabilities can be trusted: what samples of like confidence turned out to be.

    The confidence of a sample is the probability of the class that was predicted for it. Samples
    are counted in `CONFIDENCE_BINS` of equal width from 0 to 1.

    Attributes
    ----------
    count : (n_bins,) int64 array
        Samples of such a confidence.
    confidence, accuracy : (n_bins,) float64 arrays
        Their mean confidence, and the share of them that was predicted right; NaN where there are
        none.
    log_loss : float
        Of all samples: the mean of minus the logarithm of the true class's probability.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    log_loss: float

    @property
    def expected_calibration_error(self) -> float:
        """The mean difference of confidence and accuracy (Guo et al. 2017, equation 3).

        Each bin counts by its samples.
        """
        there = self.count > 0
        difference = np.abs(self.accuracy[there] - self.confidence[there])
        return float(difference @ self.count[there] / self.count.sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the bins that have samples."""
        bins = zip(self.count.tolist(), self.confidence.tolist(), self.accuracy.tolist(), strict=True)
        return {
            "log_loss": self.log_loss,
            "expected_calibration_error": self.expected_calibration_error,
            "reliability": [
                {"n": count, "confidence": confidence, "accuracy": accuracy}
                for count, confidence, accuracy in bins
                if count
            ],
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions counted against the true labels.

    A figure that has no value, such as the recall of a class with no test samples, is NaN.

    Attributes
    ----------
    classes : (n_classes,) array
    confusion : (n_classes, n_classes) int64 array
        Samples of each true class (rows) by predicted class (columns).
    precision, recall, f1 : (n_classes,) float64 arrays
    support : (n_classes,) int64 array
        Test samples of each class.
    predict_seconds : float, optional
    reliability : Reliability, optional
        Of the probabilities, where there were any.
    """

    classes: np.ndarray
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predict_seconds: float | None = None
    reliability: Reliability | None = None

    @property
    def n(self) -> int:
        """Test samples."""
        return int(self.confusion.sum())

    @property
    def n_errors(self) -> int:
        """Test samples that were labelled wrong."""
        return self.n - int(self.confusion.trace())

    @property
    def accuracy(self) -> float:
        """The share that was labelled right."""
        return int(self.confusion.trace()) / self.n

    @property
    def samples_per_second(self) -> float | None:
        """How fast the model predicted, if that was timed."""
        return None if self.predict_seconds is None else self.n / max(self.predict_seconds, 1e-9)

    def most_confused(self, limit: int = 10) -> list[tuple[int, int, int]]:
        """(true class index, predicted class index, samples), the most frequent mistakes first."""
        errors = self.confusion - np.diag(self.confusion.diagonal())
        largest_first = np.argsort(-errors, axis=None, kind="stable")[:limit]
        pairs = zip(*np.unravel_index(largest_first, errors.shape), strict=True)
        return [(int(i), int(j), int(errors[i, j])) for i, j in pairs if errors[i, j]]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; NaN becomes None, which JSON can say."""
        figures = zip(self.classes.tolist(), self.precision, self.recall, self.f1, self.support.tolist(), strict=True)
        return {
            "n_test": self.n,
            "accuracy": self.accuracy,
            "predict_seconds": self.predict_seconds,
            "samples_per_second": self.samples_per_second,
            **({} if self.reliability is None else self.reliability.to_dict()),
            "classes": self.classes.tolist(),
            "per_class": [
                {
                    "class": label,
                    "precision": _finite(precision),
                    "recall": _finite(recall),
                    "f1": _finite(f1),
                    "support": support,
                }
                for label, precision, recall, f1, support in figures
            ],
            "confusion": self.confusion.tolist(),
        }


def predict_samples(
    model: SVMModel, samples: Any, progress: Callable[[int], None] | None = None, *, probabilities: bool = False
) -> Predictions:
    """Preprocess and predict, chunk by chunk.

    Parameters
    ----------
    model : SVMModel
    samples : (n, height, width) uint8 array, or (n, n_features) array or CSR matrix
    progress : callable, optional
        Called after each chunk with the number of samples done so far.
    probabilities : bool
        Whether to give those of the classes too. Raises UsageError where the model has none.

    Raises
    ------
    DataError
        The images are not of the size, or the rows not of the length, that the model was trained
        on.
    """
    start = time.perf_counter()
    n = samples.shape[0]
    if probabilities:
        model.require_probabilities()
    decisions = np.empty((n, len(model.intercept)))
    for first in range(0, n, CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        decisions[rows] = model.pair_decisions(model.preprocess(samples[rows]))
        if progress is not None:
            progress(min(first + CHUNK_ROWS, n))
    labels, found = model.decided(decisions), model.probabilities(decisions) if probabilities else None
    return Predictions(labels, decisions, time.perf_counter() - start, found)


def reliability(probabilities: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> Reliability:
    """How far probabilities (n, n_classes) can be trusted.

    `true` and `predicted` (n,) are class indices.
    """
    rows = np.arange(len(true))
    confidence, is_right = probabilities[rows, predicted], true == predicted
    place = np.minimum((confidence * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    count = np.bincount(place, minlength=CONFIDENCE_BINS)
    with np.errstate(invalid="ignore"):
        mean, share = (np.bincount(place, values, CONFIDENCE_BINS) / count for values in (confidence, is_right))
    losses = -np.log(np.maximum(probabilities[rows, true], np.finfo(float).tiny))
    return Reliability(count, mean, share, float(losses.mean()))


def describe_reliability(found: Reliability) -> str:
    """How good the probabilities are, on a line."""
    error = found.expected_calibration_error
    return f"Probabilities: log loss {found.log_loss:.4f}, off by {error:.4f} on average (expected calibration error)"


def evaluate_predictions(
    classes: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    predict_seconds: float | None = None,
    probabilities: np.ndarray | None = None,
) -> Evaluation:
    """Count predictions against the truth.

    Parameters
    ----------
    classes : (n_classes,) array
        The labels the model knows.
    true, predicted : (n,) arrays
    predict_seconds : float, optional
        What the predictions took.
    probabilities : (n, n_classes) array, optional

    Raises
    ------
    DataError
        There are no rows, or labels the model has never seen.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} true labels but {len(predicted)} predictions")
    if len(true) == 0:
        raise DataError("there are no samples to evaluate on; name a source that has some")
    indices = class_indices(classes, true), class_indices(classes, predicted)
    every = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(*indices, labels=every, zero_division=np.nan)
    return Evaluation(
        classes=np.asarray(classes),
        confusion=confusion_matrix(*indices, labels=every).astype(np.int64),
        precision=precision,
        recall=recall,
        f1=f1,
        support=support.astype(np.int64),
        predict_seconds=predict_seconds,
        reliability=None if probabilities is None else reliability(probabilities, *indices),
    )


def class_indices(classes: np.ndarray, labels: np.ndarray, where: str = "the labels") -> np.ndarray:
    """The position of each label in `classes`.

    Where only one of the two is text, numbers are compared by how they are written: a folder of
    pictures whose classes all are numbers has integer labels, and the model may know more classes.

    Returns
    -------
    (n,) int64 array

    Raises
    ------
    DataError
        `where` has labels that are not among `classes`; the message names them.
    """
    values, inverse = np.unique(labels, return_inverse=True)
    key: Callable[[Any], Any] = str if _is_text(classes) != _is_text(labels) else _itself
    known = {key(label): index for index, label in enumerate(classes.tolist())}
    unseen = [value for value in values.tolist() if key(value) not in known]
    if unseen:
        raise DataError(
            f"{where}: {_listed(unseen)} among the labels, which the model has never seen; it knows"
            f" {_listed(classes.tolist())}. Evaluate on the data it was made for, or train it on these labels"
        )
    return np.array([known[key(value)] for value in values.tolist()], dtype=np.int64)[inverse.ravel()]


def head_to_head(decisions: np.ndarray, first: np.ndarray, second: np.ndarray, n_classes: int) -> np.ndarray:
    """The decision value by which one class beats another, row by row.

    Parameters
    ----------
    decisions : (n, n_pairs) array
    first, second : (n,) int64 arrays
        Indices of two different classes.
    n_classes : int

    Returns
    -------
    (n,) array
        Positive where the pair's decision function prefers `first`. That can be negative for a
        predicted class, which then lost to `second` and yet won more votes over all pairs.
    """
    pair = pair_index(np.minimum(first, second), np.maximum(first, second), n_classes)
    values = decisions[np.arange(len(decisions)), pair]
    return np.where(first < second, values, -values)


def fraction_equal(true: np.ndarray, predicted: np.ndarray) -> float:
    """The share of equal labels, where either may hold labels that the other does not."""
    if _is_text(true) != _is_text(predicted):
        true, predicted = true.astype(str), predicted.astype(str)
    return float(np.mean(true == predicted))


def _is_text(labels: np.ndarray) -> bool:
    return labels.dtype.kind not in "iufb"


def _itself(label: Any) -> Any:
    return label


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _listed(labels: list[Any]) -> str:
    shown = ", ".join(map(str, labels[:_NAMED_LABELS]))
    more = len(labels) - _NAMED_LABELS
    return f"{shown} and {more} more" if more > 0 else shown

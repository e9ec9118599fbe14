"""A page about a model: how good it is, its mistakes, and the support vectors that weigh most.

The page is one HTML file: its style and its pictures are in it, and it loads nothing. Its text
stands in `templates/evaluation.html` and the files that this one includes; what is put into them
is found here.
"""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gpusvm.data import Dataset, Table
from gpusvm.data.column_figures import column_name
from gpusvm.evaluation import Evaluation, Predictions, Reliability, class_indices, head_to_head
from gpusvm.io.output import write_text
from gpusvm.io.templates import filled
from gpusvm.model import SVMModel
from gpusvm.sparse import dense
from gpusvm.split import Samples, counted
from gpusvm.version import __version__

MAX_MISTAKES = 200
MAX_SUPPORT_VECTORS = 80
MAX_MATRIX_CLASSES = 100
MAX_COLUMNS = 12
"""Above these a page gets too long to read, or too large to open."""

_THUMBNAIL_SIDE = 144
_SMOOTH_SIDE = 64
_SHORT_LABEL = 3
_BOUND_TOLERANCE = 1e-5  # float32 backends return coefficients that miss C by some 1e-7 of it


class Fact(NamedTuple):
    """A line of the page's head: what it is called, what it is, and a file's whole digest."""

    name: str
    value: str
    digest: str = ""


def write_report(
    model: SVMModel,
    evaluation: Evaluation,
    dataset: Samples,
    predictions: Predictions,
    folder: str | os.PathLike[str],
    *,
    title: str = "model",
) -> Path:
    """Write `folder`/index.html, whole or not at all.

    Parameters
    ----------
    model : SVMModel
    evaluation : Evaluation
        Of `predictions` against the labels of `dataset`.
    dataset : Dataset or Table
        The labelled samples that were predicted.
    predictions : Predictions
    folder : path
        Created where it is missing.
    title : str
        What to call the model; its file name, say.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    OutputError
        The page cannot be written.
    """
    page = Path(folder) / "index.html"
    write_text(page, render_report(model, evaluation, dataset, predictions, title=title))
    return page


def render_report(
    model: SVMModel,
    evaluation: Evaluation,
    dataset: Samples,
    predictions: Predictions,
    *,
    title: str = "model",
) -> str:
    """The page that `write_report` writes, as text."""
    labels = evaluation.classes.tolist()
    return filled(
        "report/templates",
        "evaluation.html",
        title=title,
        version=__version__,
        name=dataset.name,
        split=dataset.split,
        unit=dataset.unit,
        labels=labels,
        accuracy=evaluation.accuracy,
        tiles=_tiles(model, evaluation, dataset),
        cards=[
            ("Model", _model_facts(model)),
            ("Training", _training_facts(model, dataset.unit)),
            ("Test", _test_facts(evaluation, dataset)),
        ],
        classes=_classes(evaluation),
        matrix=_matrix(evaluation.confusion) if len(labels) <= MAX_MATRIX_CLASSES else None,
        confused=_most_confused(evaluation),
        reliability=None if evaluation.reliability is None else _reliability(evaluation.reliability),
        **_mistakes(evaluation, dataset, predictions),
        **_support_vectors(model, dataset.unit),
    )


# The head of the page: the one number, and where it comes from.


def _tiles(model: SVMModel, evaluation: Evaluation, dataset: Samples) -> list[tuple[str, str, str]]:
    """The figures beside the accuracy: name, value and a note."""
    tiles = [
        ("wrong", f"{evaluation.n_errors:,}", f"of {counted(dataset)}"),
        ("support vectors", f"{model.n_support_vectors:,}", _share_of_training(model, dataset.unit)),
    ]
    if "fit_seconds" in model.provenance:
        backend = f"by {model.provenance.get('backend', 'an unknown backend')}"
        tiles.append(("trained in", _seconds(model.provenance["fit_seconds"]), backend))
    if evaluation.predict_seconds is not None:
        rate = f"{evaluation.samples_per_second:,.0f} {dataset.unit}s a second"
        tiles.append(("predicted in", _seconds(evaluation.predict_seconds), rate))
    return tiles


def _share_of_training(model: SVMModel, unit: str) -> str:
    n_train = model.provenance.get("n_train")
    return f"{model.n_support_vectors / n_train:.0%} of {n_train:,} training {unit}s" if n_train else ""


def _model_facts(model: SVMModel) -> list[Fact]:
    problem, kernel = model.problem, model.kernel
    facts = [Fact("kernel", kernel.name), Fact("C", f"{problem.C:g}")]
    if kernel.name in ("rbf", "poly", "sigmoid"):
        facts.append(Fact("gamma", f"{kernel.gamma:.6g}"))
    if kernel.name == "poly":
        facts.append(Fact("degree", str(kernel.degree)))
    if kernel.name in ("poly", "sigmoid"):
        facts.append(Fact("coef0", f"{kernel.coef0:g}"))
    if problem.class_weight is not None:
        facts.append(Fact("class weights", f"{min(problem.class_weight):.3g} to {max(problem.class_weight):.3g}"))
    facts += [
        Fact("tolerance", f"{model.stopping.tol:g}"),
        Fact("classes", f"{model.n_classes}, in {len(model.pairs):,} pairs"),
        Fact("support vectors", f"{model.n_support_vectors:,}"),
    ]
    if model.image_shape is not None:
        facts.append(Fact("images", " × ".join(map(str, model.image_shape)) + " pixels"))
    if model.preprocessing:
        facts.append(Fact("preprocessing", ", ".join(type(step).__name__ for step in model.preprocessing)))
    return facts


def _training_facts(model: SVMModel, unit: str = "image") -> list[Fact]:
    """What the provenance says: the keys that are known first, any others as they stand."""
    rest = dict(model.provenance)
    facts: list[Fact] = []
    backend, reason = rest.pop("backend", None), rest.pop("backend_reason", None)
    if backend is not None:
        facts.append(Fact("backend", f"{backend} ({reason})" if reason else str(backend)))
    facts.append(Fact("iterations", f"{int(model.n_iter.sum()):,}"))
    if model.kkt_gap is not None:
        facts.append(Fact("KKT gap", f"{model.kkt_gap.max():.2e}"))
    if model.dual_objective is not None:
        facts.append(Fact("dual objective", f"{model.dual_objective.sum():.6g}"))
    data = rest.pop("dataset", None)
    if "n_train" in rest:
        facts.append(Fact(f"{unit}s", f"{rest.pop('n_train'):,}"))
    if "fit_seconds" in rest:
        facts.append(Fact("seconds", f"{rest.pop('fit_seconds'):.2f}"))
    versions = [f"{key} {rest.pop(key)}" for key in list(rest) if isinstance(rest[key], str) and key != "trained"]
    facts += [Fact(key.replace("_", " "), _plain(value)) for key, value in rest.items() if value is not None]
    if versions:
        facts.append(Fact("versions", ", ".join(versions)))
    source = _dataset_facts(data["name"], data.get("split", ""), data.get("digest", "")) if _is_named(data) else []
    return source + facts


def _is_named(data: Any) -> bool:
    return isinstance(data, dict) and "name" in data


def _test_facts(evaluation: Evaluation, dataset: Samples) -> list[Fact]:
    facts = [Fact(f"{dataset.unit}s", f"{evaluation.n:,}"), Fact("accuracy", f"{evaluation.accuracy:.6f}")]
    if evaluation.predict_seconds is not None:
        facts.append(Fact("seconds", f"{evaluation.predict_seconds:.2f}"))
    return _dataset_facts(dataset.name, dataset.split, dataset.digest) + facts


def _dataset_facts(name: str, split: str, digest: str) -> list[Fact]:
    facts = [Fact("data set", f"{name}, {split} split" if split else name)]
    if digest:
        facts.append(Fact("SHA-256", f"{digest[:16]}…", digest))
    return facts


# Figures of each class, and which classes are taken for which.


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    errors = evaluation.support - evaluation.confusion.diagonal()
    largest = max(int(errors.max()), 1)
    figures = zip(evaluation.precision, evaluation.recall, evaluation.f1, strict=True)
    return [
        {
            "label": label,
            "figures": [_ratio(figure) for figure in of_class],
            "support": int(evaluation.support[c]),
            "errors": int(errors[c]),
            "percent": 100 * errors[c] / largest,
        }
        for c, (label, of_class) in enumerate(zip(evaluation.classes.tolist(), figures, strict=True))
    ]


def _matrix(confusion: np.ndarray) -> list[list[tuple[int, float]]]:
    """Each cell's count and its shade in [0, 1].

    The diagonal is shaded among the diagonal, mistakes among mistakes.
    """
    logs = np.log1p(confusion)
    right = np.diag(logs.diagonal())
    wrong = logs - right
    shades = right / max(right.max(), 1e-9) + wrong / max(wrong.max(), 1e-9)
    return [list(zip(*row, strict=True)) for row in zip(confusion.tolist(), shades.tolist(), strict=True)]


def _most_confused(evaluation: Evaluation) -> list[dict[str, Any]]:
    pairs, labels = evaluation.most_confused(10), evaluation.classes.tolist()
    return [
        {
            "actual": labels[i],
            "predicted": labels[j],
            "count": int(count),
            "share": count / evaluation.support[i],
            "percent": 100 * count / pairs[0][2],
        }
        for i, j, count in pairs
    ]


def _reliability(found: Reliability) -> dict[str, Any]:
    """How far the probabilities can be trusted, by bin of confidence.

    Each bin has its place on a square of side 100.
    """
    n_bins, most = len(found.count), found.count.max()
    return {
        "log_loss": found.log_loss,
        "error": found.expected_calibration_error,
        "bins": [
            {
                "low": k / n_bins,
                "high": (k + 1) / n_bins,
                "count": int(found.count[k]),
                "confidence": found.confidence[k],
                "accuracy": found.accuracy[k],
                "x": 100 * found.confidence[k],
                "y": 100 - 100 * found.accuracy[k],
                "radius": 1.2 + 2.8 * np.sqrt(found.count[k] / most),
            }
            for k in np.flatnonzero(found.count)
        ],
    }


# The mistakes themselves.


@dataclass(frozen=True)
class Mistake:
    """A misclassified sample: its row in the data set, two class indices, and their margin."""

    row: int
    true: int
    predicted: int
    margin: float


def worst_mistakes(evaluation: Evaluation, dataset: Samples, predictions: Predictions) -> list[Mistake]:
    """Every misclassified sample, those first that the model was most sure of.

    The margin is the decision value by which the predicted class beats the true one.
    """
    true = class_indices(evaluation.classes, dataset.require_labels())
    predicted = class_indices(evaluation.classes, predictions.labels)
    rows = np.flatnonzero(true != predicted)
    margins = head_to_head(predictions.decisions[rows], predicted[rows], true[rows], len(evaluation.classes))
    return [
        Mistake(int(rows[k]), int(true[rows[k]]), int(predicted[rows[k]]), float(margins[k]))
        for k in np.argsort(-margins, kind="stable")
    ]


def _mistakes(evaluation: Evaluation, dataset: Samples, predictions: Predictions) -> dict[str, Any]:
    mistakes = worst_mistakes(evaluation, dataset, predictions)
    shown, labels = mistakes[:MAX_MISTAKES], evaluation.classes.tolist()
    listed: list[dict[str, Any]] = [
        {"row": m.row, "actual": labels[m.true], "predicted": labels[m.predicted], "margin": m.margin} for m in shown
    ]
    values: dict[str, Any] = {"n_mistakes": len(mistakes), "mistakes": listed}
    if isinstance(dataset, Dataset):
        for mistake in listed:
            mistake["picture"] = _picture(dataset.images[mistake["row"]])
        # Under a picture there is room for two digits on a line, not for two words.
        long_labels = max(len(str(label)) for label in labels) > _SHORT_LABEL
        return {**values, "columns": None, "long_labels": long_labels}
    columns = range(min(dataset.n_features, MAX_COLUMNS))
    rows = dense(dataset.X[[m.row for m in shown]][:, : len(columns)]).tolist()
    for mistake, row in zip(listed, rows, strict=True):
        mistake["values"] = row
        mistake["row"] = mistake["row"] + 1 if dataset.ids is None else dataset.ids[mistake["row"]]
    return {
        **values,
        "columns": [column_name(dataset, c) for c in columns],
        "id_name": dataset.id_name or "row",
        "n_more_columns": dataset.n_features - len(columns),
    }


# The support vectors that pull hardest.


@dataclass(frozen=True)
class HeavyVector:
    """A support vector: its index, class, summed |coefficients|, and pairs that hold it at C."""

    index: int
    class_index: int
    weight: float
    pairs_at_bound: int


def heaviest_support_vectors(model: SVMModel, limit: int) -> list[HeavyVector]:
    """Those with the largest sum of |dual_coef| over their pairs, largest first.

    The bound of a coefficient is C times the weight of its class.
    """
    owners = np.repeat(np.arange(model.n_classes), model.n_support)
    class_weight = np.ones(model.n_classes) if model.problem.class_weight is None else model.problem.class_weight
    bounds = model.problem.C * np.asarray(class_weight)[owners]
    magnitudes = np.abs(model.dual_coef)
    weights = magnitudes.sum(axis=0)
    at_bound = (magnitudes >= bounds * (1 - _BOUND_TOLERANCE)).sum(axis=0)
    return [
        HeavyVector(int(s), int(owners[s]), float(weights[s]), int(at_bound[s]))
        for s in np.argsort(-weights, kind="stable")[:limit]
    ]


def _support_vectors(model: SVMModel, unit: str) -> dict[str, Any]:
    pictured = unit != Table.unit
    shape = model.image_shape
    if pictured and (shape is None or model.support_vectors.shape[1] != shape[0] * shape[1]):
        return {"vectors": None}
    heavy, labels = heaviest_support_vectors(model, MAX_SUPPORT_VECTORS), model.classes.tolist()
    vectors: list[dict[str, Any]] = [
        {
            "row": int(model.support_indices[v.index]),
            "label": labels[v.class_index],
            "weight": v.weight,
            "pairs_at_bound": v.pairs_at_bound,
        }
        for v in heavy
    ]
    if pictured:
        assert shape is not None
        pictures = _as_bytes(dense(model.support_vectors[[v.index for v in heavy]]).reshape(-1, *shape))
        for vector, picture in zip(vectors, pictures, strict=True):
            vector["picture"] = _picture(picture)
    return {
        "vectors": vectors,
        "pictured": pictured,
        "n_vectors": model.n_support_vectors,
        "n_pairs": model.n_classes - 1,
        "C": f"{model.problem.C:g}",
        "weighted": model.problem.class_weight is not None,
        "any_at_bound": any(v.pairs_at_bound for v in heavy),
    }


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Stretch to the full range of grey, all pictures alike, so that they can be compared."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    """A picture (height, width) uint8 as the source of an <img>; a large one is made smaller."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"source": f"data:image/png;base64,{encoded}", "smooth": min(pixels.shape) > _SMOOTH_SIDE}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _ratio(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{int(value) // 60} min {int(value) % 60} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"

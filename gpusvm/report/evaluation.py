"""A page about a model: how good it is, what it gets wrong, and the support vectors that weigh most.

The page is one HTML file: its style and its pictures are in it, and it loads nothing.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from gpusvm.data import Dataset, Table
from gpusvm.data.column_figures import column_name
from gpusvm.evaluation import Evaluation, Predictions, Reliability, class_indices, head_to_head
from gpusvm.io.output import write_text
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

Facts = list[tuple[str, str]]


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
    sections = [
        _facts_section(model, evaluation, dataset),
        _classes_section(evaluation, dataset.unit),
        _confusion_section(evaluation, dataset.unit),
        *([] if evaluation.reliability is None else [_probabilities_section(evaluation.reliability, dataset.unit)]),
        _mistakes_section(evaluation, dataset, predictions),
        _support_vectors_section(model, dataset.unit),
    ]
    return _PAGE.substitute(
        title=_text(title),
        style=_STYLE,
        hero=_hero(model, evaluation, dataset),
        sections="\n".join(sections),
        version=_text(__version__),
    )


# The head of the page: the one number, and where it comes from.


def _hero(model: SVMModel, evaluation: Evaluation, dataset: Samples) -> str:
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
    return (
        f'<div class="score"><strong>{100 * evaluation.accuracy:.2f}<small>%</small></strong>'
        f"<span>accuracy on {_text(dataset.name)}, {_text(dataset.split)} split</span></div>"
        + '<dl class="tiles">'
        + "".join(
            f"<div><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(note)}</small></dd></div>"
            for name, value, note in tiles
        )
        + "</dl>"
    )


def _share_of_training(model: SVMModel, unit: str) -> str:
    n_train = model.provenance.get("n_train")
    return f"{model.n_support_vectors / n_train:.0%} of {n_train:,} training {unit}s" if n_train else ""


def _facts_section(model: SVMModel, evaluation: Evaluation, dataset: Samples) -> str:
    groups = {
        "Model": _model_facts(model),
        "Training": _training_facts(model, dataset.unit),
        "Test": _test_facts(evaluation, dataset),
    }
    cards = (
        f"<div><h3>{name}</h3><dl>{''.join(f'<dt>{_text(k)}</dt><dd>{v}</dd>' for k, v in facts)}</dl></div>"
        for name, facts in groups.items()
    )
    return f'<section class="facts">{"".join(cards)}</section>'


def _model_facts(model: SVMModel) -> Facts:
    problem, kernel = model.problem, model.kernel
    facts = [("kernel", kernel.name), ("C", f"{problem.C:g}")]
    if kernel.name in ("rbf", "poly", "sigmoid"):
        facts.append(("gamma", f"{kernel.gamma:.6g}"))
    if kernel.name == "poly":
        facts.append(("degree", str(kernel.degree)))
    if kernel.name in ("poly", "sigmoid"):
        facts.append(("coef0", f"{kernel.coef0:g}"))
    if problem.class_weight is not None:
        facts.append(("class weights", f"{min(problem.class_weight):.3g} to {max(problem.class_weight):.3g}"))
    facts += [
        ("tolerance", f"{model.stopping.tol:g}"),
        ("classes", f"{model.n_classes}, in {len(model.pairs):,} pairs"),
        ("support vectors", f"{model.n_support_vectors:,}"),
    ]
    if model.image_shape is not None:
        facts.append(("images", " × ".join(map(str, model.image_shape)) + " pixels"))
    if model.preprocessing:
        facts.append(("preprocessing", ", ".join(type(step).__name__ for step in model.preprocessing)))
    return _escaped(facts)


def _training_facts(model: SVMModel, unit: str = "image") -> Facts:
    """What the provenance says: the keys that are known first, any others as they stand."""
    rest = dict(model.provenance)
    facts: list[tuple[str, str]] = []
    backend, reason = rest.pop("backend", None), rest.pop("backend_reason", None)
    if backend is not None:
        facts.append(("backend", f"{backend} ({reason})" if reason else str(backend)))
    facts.append(("iterations", f"{int(model.n_iter.sum()):,}"))
    if model.kkt_gap is not None:
        facts.append(("KKT gap", f"{model.kkt_gap.max():.2e}"))
    if model.dual_objective is not None:
        facts.append(("dual objective", f"{model.dual_objective.sum():.6g}"))
    data = rest.pop("dataset", None)
    if "n_train" in rest:
        facts.append((f"{unit}s", f"{rest.pop('n_train'):,}"))
    if "fit_seconds" in rest:
        facts.append(("seconds", f"{rest.pop('fit_seconds'):.2f}"))
    versions = [f"{key} {rest.pop(key)}" for key in list(rest) if isinstance(rest[key], str) and key != "trained"]
    facts += [(key.replace("_", " "), _plain(value)) for key, value in rest.items() if value is not None]
    if versions:
        facts.append(("versions", ", ".join(versions)))
    source = _dataset_facts(data["name"], data.get("split", ""), data.get("digest", "")) if _is_named(data) else []
    return source + _escaped(facts)


def _is_named(data: Any) -> bool:
    return isinstance(data, dict) and "name" in data


def _test_facts(evaluation: Evaluation, dataset: Samples) -> Facts:
    facts = [(f"{dataset.unit}s", f"{evaluation.n:,}"), ("accuracy", f"{evaluation.accuracy:.6f}")]
    if evaluation.predict_seconds is not None:
        facts.append(("seconds", f"{evaluation.predict_seconds:.2f}"))
    return _dataset_facts(dataset.name, dataset.split, dataset.digest) + _escaped(facts)


def _dataset_facts(name: str, split: str, digest: str) -> Facts:
    facts = _escaped([("data set", f"{name}, {split} split" if split else name)])
    if digest:
        facts.append(("SHA-256", f'<code title="{_text(digest)}">{_text(digest[:16])}…</code>'))
    return facts


# Figures of each class, and which classes are taken for which.


def _classes_section(evaluation: Evaluation, unit: str) -> str:
    errors = evaluation.support - evaluation.confusion.diagonal()
    largest = max(int(errors.max()), 1)
    rows = (
        f'<tr><th scope="row">{_text(label)}</th>'
        + "".join(
            f"<td>{_ratio(figure[c])}</td>" for figure in (evaluation.precision, evaluation.recall, evaluation.f1)
        )
        + f"<td>{evaluation.support[c]:,}</td><td>{errors[c]:,}</td>"
        + f'<td class="bar"><i style="width:{100 * errors[c] / largest:.1f}%"></i></td></tr>'
        for c, label in enumerate(evaluation.classes.tolist())
    )
    return (
        "<section><h2>Classes</h2>"
        f"<p>Precision: of the {unit}s predicted as this class, how many are of it. Recall: of the {unit}s of"
        " this class, how many were found. F1: their harmonic mean.</p>"
        '<div class="scroll"><table class="classes"><thead><tr>'
        + "".join(
            f'<th scope="col">{name}</th>' for name in ("class", "precision", "recall", "F1", f"{unit}s", "wrong")
        )
        + f'<td class="bar"></td></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _confusion_section(evaluation: Evaluation, unit: str) -> str:
    n_classes = len(evaluation.classes)
    if n_classes > MAX_MATRIX_CLASSES:
        matrix = f"<p>The matrix of {n_classes:,} classes is too large to show; the JSON file has it.</p>"
    else:
        matrix = _confusion_table(evaluation)
    return (
        "<section><h2>Confusion matrix</h2>"
        f"<p>{unit.capitalize()}s of each true class (row) by predicted class (column). Right ones are on the diagonal;"
        " shades grow with the logarithm of the count.</p>"
        f'<div class="columns"><div class="scroll">{matrix}</div>{_most_confused(evaluation, unit)}</div></section>'
    )


def _confusion_table(evaluation: Evaluation) -> str:
    labels = [_text(label) for label in evaluation.classes.tolist()]
    confusion = evaluation.confusion
    right, wrong = _log_shades(confusion)
    head = "".join(f'<th scope="col" title="{label}">{label}</th>' for label in labels)
    rows = []
    for i, true in enumerate(labels):
        cells = []
        for j, predicted in enumerate(labels):
            kind, shade = ("right", right[i]) if i == j else ("wrong", wrong[i, j])
            title = f"{confusion[i, j]:,} of {true} predicted as {predicted}"
            cells.append(_confusion_cell(int(confusion[i, j]), kind, float(shade), title))
        rows.append(f'<tr><th scope="row">{true}</th>{"".join(cells)}</tr>')
    return (
        '<table class="confusion"><thead><tr><td><span>true ↓<br>predicted →</span></td>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _confusion_cell(count: int, kind: str, shade: float, title: str) -> str:
    if not count:
        return "<td>·</td>"
    return f'<td class="{kind}" style="--s:{shade:.2f}" title="{title}">{count:,}</td>'


def _log_shades(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shades in [0, 1] of the diagonal (n_classes,) and of the mistakes (n_classes, n_classes)."""
    logs = np.log1p(confusion)
    right = logs.diagonal()
    wrong = logs - np.diag(right)
    return right / max(right.max(), 1e-9), wrong / max(wrong.max(), 1e-9)


def _most_confused(evaluation: Evaluation, unit: str) -> str:
    pairs = evaluation.most_confused(10)
    if not pairs:
        return ""
    largest, labels = pairs[0][2], [_text(label) for label in evaluation.classes.tolist()]
    rows = (
        f"<tr><td>{_arrow(labels[i], labels[j])}</td><td>{count:,}</td>"
        f"<td>{count / evaluation.support[i]:.1%}</td>"
        f'<td class="bar"><i style="width:{100 * count / largest:.1f}%"></i></td></tr>'
        for i, j, count in pairs
    )
    return (
        '<div><h3>Most frequent mistakes</h3><table class="classes"><thead><tr>'
        f'<th scope="col">true → predicted</th><th scope="col">{unit}s</th><th scope="col">of class</th>'
        '<td class="bar"></td></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


# How far the probabilities can be trusted.


def _probabilities_section(found: Reliability, unit: str) -> str:
    bins = np.flatnonzero(found.count)
    n_bins = len(found.count)
    rows = (
        [
            f"{k / n_bins:.0%} to {(k + 1) / n_bins:.0%}",
            f"{found.count[k]:,}",
            f"{found.confidence[k]:.4f}",
            f"{found.accuracy[k]:.4f}",
        ]
        for k in bins
    )
    table = _plain_table([f"confidence of the {unit}s", f"{unit}s", "confidence", "accuracy"], rows)
    return (
        "<section><h2>Probabilities</h2>"
        f"<p>Confidence is the probability of the class that was predicted. Of {unit}s that it is sure of to 90&nbsp;%,"
        " a model that can be trusted gets 90&nbsp;% right: its points are on the diagonal. Large points stand for"
        f" many {unit}s. Log loss {found.log_loss:.4f}, expected calibration error"
        f" {found.expected_calibration_error:.4f}.</p>"
        f'<div class="columns">{_reliability_curve(found)}{table}</div></section>'
    )


def _reliability_curve(found: Reliability) -> str:
    """Accuracy over confidence, both from 0 to 1, as an SVG."""
    there = np.flatnonzero(found.count)
    points = [(100 * found.confidence[k], 100 - 100 * found.accuracy[k]) for k in there]
    radii = 1.2 + 2.8 * np.sqrt(found.count[there] / found.count.max())
    line = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"/>' for (x, y), r in zip(points, radii, strict=True))
    return (
        '<svg class="curve" viewBox="-16 -6 122 124" role="img" aria-label="accuracy by confidence">'
        '<path class="frame" d="M0 0V100H100V0Z M0 50H100 M50 0V100"/><path class="even" d="M0 100L100 0"/>'
        f'<polyline points="{line}"/>{dots}'
        '<text x="0" y="107">0</text><text x="50" y="107">0.5</text><text x="100" y="107">1</text>'
        '<text x="50" y="115">confidence</text><text x="-5" y="101.5">0</text><text x="-6" y="51.5">0.5</text>'
        '<text x="-5" y="1.5">1</text><text transform="translate(-12 50) rotate(-90)">accuracy</text></svg>'
    )


# The mistakes themselves.


@dataclass(frozen=True)
class Mistake:
    """A misclassified sample: its row in the data set, two class indices, and the margin between them."""

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


def _mistakes_section(evaluation: Evaluation, dataset: Samples, predictions: Predictions) -> str:
    mistakes = worst_mistakes(evaluation, dataset, predictions)
    if not mistakes:
        return f"<section><h2>Misclassified {dataset.unit}s</h2><p>There are none.</p></section>"
    labels = [_text(label) for label in evaluation.classes.tolist()]
    shown = mistakes[:MAX_MISTAKES]
    listed = (
        _pictured_mistakes(shown, labels, dataset)
        if isinstance(dataset, Dataset)
        else _tabulated_mistakes(shown, labels, dataset)
    )
    hidden = len(mistakes) - MAX_MISTAKES
    cut = f" The worst {MAX_MISTAKES} are shown, {hidden:,} more are not." if hidden > 0 else ""
    return (
        f"<section><h2>Misclassified {dataset.unit}s <small>{len(mistakes):,}</small></h2>"
        "<p>True → predicted class, and the margin: the decision value by which the predicted class beats the"
        " true one, largest first. A negative margin means that the true class won that pair, and yet fewer"
        f" votes in all.{cut}</p>{listed}</section>"
    )


def _pictured_mistakes(mistakes: Sequence[Mistake], labels: Sequence[str], dataset: Dataset) -> str:
    # Under a picture there is room for two digits on a line, not for two words.
    line_break = "<br>" if max(map(len, labels)) > _SHORT_LABEL else ""
    figures = (
        _figure(
            dataset.images[m.row],
            f"row {m.row}: true {labels[m.true]}, predicted {labels[m.predicted]}",
            _arrow(labels[m.true], labels[m.predicted], line_break),
            f"{m.margin:+.2f}",
        )
        for m in mistakes
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def _tabulated_mistakes(mistakes: Sequence[Mistake], labels: Sequence[str], table: Table) -> str:
    """The rows with the values of the first columns."""
    columns = range(min(table.n_features, MAX_COLUMNS))
    values = table.X[[m.row for m in mistakes]][:, : len(columns)]
    values = values if isinstance(values, np.ndarray) else values.toarray()
    names = [table.id_name or "row", "true → predicted", "margin", *(column_name(table, c) for c in columns)]
    rows = (
        [
            _text(m.row + 1 if table.ids is None else table.ids[m.row]),
            _arrow(labels[m.true], labels[m.predicted]),
            f"{m.margin:+.2f}",
            *(f"{value:.6g}" for value in row),
        ]
        for m, row in zip(mistakes, values.tolist(), strict=True)
    )
    more = table.n_features - len(columns)
    return _plain_table(names, rows) + (f"<p>{more:,} more columns are not shown.</p>" if more else "")


def _plain_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML already, under headings that are text."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="classes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


# The support vectors that pull hardest.


@dataclass(frozen=True)
class HeavyVector:
    """A support vector: its index, its class, its summed |coefficients|, and the pairs that hold it at C."""

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


def _support_vectors_section(model: SVMModel, unit: str) -> str:
    if unit == Table.unit:
        return _tabulated_support_vectors(model)
    shape = model.image_shape
    if shape is None or model.support_vectors.shape[1] != shape[0] * shape[1]:
        return (
            "<section><h2>Support vectors</h2><p>They are not shown, because the model does not say what size"
            " of image they are.</p></section>"
        )
    heavy = heaviest_support_vectors(model, MAX_SUPPORT_VECTORS)
    labels = [_text(label) for label in model.classes.tolist()]
    pictures = _as_bytes(dense(model.support_vectors[[v.index for v in heavy]]).reshape(-1, *shape))
    figures = (
        _figure(
            picture,
            f"training row {model.support_indices[v.index]}, class {labels[v.class_index]}",
            f"<b>{labels[v.class_index]}</b>",
            f"{v.weight:.1f}",
            _bound_note(v.pairs_at_bound, model.n_classes - 1),
        )
        for v, picture in zip(heavy, pictures, strict=True)
    )
    return (
        "<section><h2>Support vectors"
        f" <small>the {len(heavy)} heaviest of {model.n_support_vectors:,}</small></h2>"
        "<p>As the model sees them, after preprocessing: class, and the magnitudes of the coefficients"
        f" added up over the class’s {_pairs(model.n_classes - 1)}. {_bound_text(model, heavy)}"
        " Mislabelled and odd training images gather here.</p>"
        f'<div class="pictures">{"".join(figures)}</div></section>'
    )


def _tabulated_support_vectors(model: SVMModel) -> str:
    heavy = heaviest_support_vectors(model, MAX_SUPPORT_VECTORS)
    labels = [_text(label) for label in model.classes.tolist()]
    rows = (
        [
            f"{model.support_indices[v.index] + 1}",
            f"<b>{labels[v.class_index]}</b>",
            f"{v.weight:.1f}",
            _bound_note(v.pairs_at_bound, model.n_classes - 1),
        ]
        for v in heavy
    )
    return (
        "<section><h2>Support vectors"
        f" <small>the {len(heavy)} heaviest of {model.n_support_vectors:,}</small></h2>"
        "<p>Rows of the training samples (from 1, in the order they were trained on), and the magnitudes of their"
        f" coefficients added up over the class’s {_pairs(model.n_classes - 1)}."
        f" {_bound_text(model, heavy, 'row')} Mislabelled and odd rows gather here.</p>"
        f"{_plain_table(('training row', 'class', 'weight', ''), rows)}</section>"
    )


def _pairs(count: int) -> str:
    return "one pair" if count == 1 else f"{count} pairs"


def _bound_note(pairs_at_bound: int, n_pairs: int) -> str:
    if not pairs_at_bound:
        return ""
    return "at C" if n_pairs == 1 else f"at C in {pairs_at_bound} of {n_pairs}"


def _bound_text(model: SVMModel, heavy: Sequence[HeavyVector], unit: str = "image") -> str:
    weighted = "" if model.problem.class_weight is None else " times the weight of the class"
    bound = f"its bound, C = {model.problem.C:g}{weighted}"
    if not any(v.pairs_at_bound for v in heavy):
        return f"No coefficient of these is at {bound}."
    return (
        f"“At C” marks those with a coefficient at {bound}: for that pair, the {unit} lies inside the margin"
        " or on the wrong side of it."
    )


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Stretch to the full range of grey, all pictures alike, so that they can be compared."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)


# Pieces of HTML. What comes from a user passes through `_text` once.


def _figure(pixels: np.ndarray, description: str, caption: str, value: str, tag: str = "") -> str:
    """A picture with its captions; `description` and the captions are HTML already."""
    smooth = ' class="smooth"' if min(pixels.shape) > _SMOOTH_SIDE else ""
    mark = f"<em>{tag}</em>" if tag else ""
    return (
        f'<figure title="{description}"><img src="{_data_uri(pixels)}" alt="{description}"{smooth}>'
        f"<figcaption><span>{caption}</span><small>{value}</small>{mark}</figcaption></figure>"
    )


def _data_uri(pixels: np.ndarray) -> str:
    """A picture (height, width) uint8 as a PNG within a URL, made smaller where it is large."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _arrow(true: str, predicted: str, line_break: str = "") -> str:
    return f'<b>{true}</b>{line_break} → <b class="wrong">{predicted}</b>'


def _text(value: Any) -> str:
    """Escape for HTML. Bytes of a file name that are no UTF-8 become question marks."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def _escaped(facts: Iterable[Sequence[str]]) -> Facts:
    return [(name, _text(value)) for name, value in facts]


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


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title · gpusvm report</title>
<style>
$style
</style>
</head>
<body>
<header><h1><span>gpusvm</span> $title</h1>
$hero
</header>
<main>
$sections
</main>
<footer>Written by gpusvm $version</footer>
</body>
</html>
""")

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --line: #e1e4e9; --ink: #1b1f26; --quiet: #5d6673;
  --accent: #1f5fbf; --error: #bf3b17;
  --right: 31 95 191; --wrong: 235 104 52; --right-most: .26; --wrong-most: .82;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101318; --card: #181c23; --line: #2b313b; --ink: #e6e9ee; --quiet: #98a2b0;
    --accent: #7db1ff; --error: #ff8d68;
    --right: 90 150 245; --wrong: 240 96 48; --right-most: .34; --wrong-most: .72;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem); max-width: 78rem;
  background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { margin: 0; font-size: 1.05rem; font-weight: 600; color: var(--quiet); overflow-wrap: anywhere; }
h2 { margin: 0 0 .35rem; font-size: 1.2rem; }
h2 small { margin-left: .4rem; color: var(--quiet); font-size: .85rem; font-weight: 400; }
h3 { margin: 0 0 .5rem; font-size: .95rem; }
p { margin: 0 0 1rem; max-width: 46rem; color: var(--quiet); }
dl, dd, figure { margin: 0; }
code { font: .92em ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
header { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: end; padding-bottom: 1.5rem; }
header h1 { flex-basis: 100%; }
h1 span { font-weight: 400; }
.score strong {
  display: block; color: var(--accent);
  font-size: clamp(3.2rem, 9vw, 5rem); line-height: 1; letter-spacing: -.03em;
}
.score strong small { margin-left: .1em; font-size: .45em; font-weight: 500; }
.score span { color: var(--quiet); overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem 2.25rem; padding-bottom: .1rem; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { font-size: 1.5rem; font-weight: 600; line-height: 1.25; }
.tiles small { display: block; color: var(--quiet); font-size: .85rem; font-weight: 400; }
section {
  margin-bottom: 1.25rem; padding: 1.4rem 1.5rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.5rem 2.5rem; }
.facts dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; font-size: .9rem; }
.facts dt { color: var(--quiet); }
.facts dd { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.columns { display: flex; flex-wrap: wrap; gap: 2rem 3rem; align-items: flex-start; }
.columns > * { min-width: 0; max-width: 100%; }
.columns > :last-child { flex: 1 1 17rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.classes td, .classes th {
  padding: .28rem .9rem .28rem 0; text-align: right; border-bottom: 1px solid var(--line);
}
.classes thead th { color: var(--quiet); font-size: .85rem; font-weight: 500; white-space: nowrap; }
.classes th:first-child, .classes td:first-child { text-align: left; }
.classes { width: 100%; max-width: 46rem; }
.classes .bar { width: 45%; padding-right: 0; }
.bar i { display: block; height: .55rem; border-radius: 3px; background: rgb(var(--wrong) / .75); }
.confusion { border-spacing: 2px; border-collapse: separate; font-size: .9rem; }
.confusion td {
  min-width: 3.1rem; padding: .42rem .35rem; border-radius: 5px; text-align: center; color: var(--quiet);
}
.confusion th {
  max-width: 11rem; padding: .3rem .5rem; font-weight: 600;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.confusion thead th { max-width: 4.6rem; }
.confusion tbody th { position: sticky; left: 0; background: var(--card); text-align: right; }
.confusion thead span { display: block; font-size: .7rem; line-height: 1.2; white-space: nowrap; }
.confusion td.right, .confusion td.wrong { color: var(--ink); }
.confusion td.right { background: rgb(var(--right) / calc(var(--s) * var(--right-most))); font-weight: 600; }
.confusion td.wrong { background: rgb(var(--wrong) / calc(var(--s) * var(--wrong-most))); }
b.wrong { color: var(--error); }
.curve { flex: 0 1 22rem; width: 22rem; max-width: 100%; }
.curve path, .curve polyline { fill: none; stroke: var(--line); stroke-width: .6; }
.curve .even { stroke: var(--quiet); stroke-dasharray: 2 2; }
.curve polyline { stroke: var(--accent); stroke-width: 1; }
.curve circle { fill: var(--accent); }
.curve text { fill: var(--quiet); font-size: 5px; text-anchor: middle; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(90px, 1fr)); gap: 1.1rem .6rem; }
figure { min-width: 0; text-align: center; }
figure img {
  width: 84px; height: 84px; object-fit: contain; image-rendering: pixelated;
  background: #000; border-radius: 6px; outline: 1px solid var(--line);
}
figure img.smooth { image-rendering: auto; }
figcaption { line-height: 1.3; }
figcaption span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption small { color: var(--quiet); font-size: .8rem; font-variant-numeric: tabular-nums; }
figcaption em { display: block; color: var(--error); font-size: .75rem; font-style: normal; }
footer { color: var(--quiet); font-size: .85rem; }
@media (max-width: 42rem) {
  section { padding: 1.1rem 1rem; }
  .classes td, .classes th { padding-right: .6rem; }
  .confusion { border-spacing: 1px; font-size: .75rem; }
  .confusion td { min-width: 1.7rem; padding: .3rem .1rem; }
  .confusion th { padding: .2rem; }
}
@media print { section { break-inside: auto; } figure { break-inside: avoid; } }
""".strip()

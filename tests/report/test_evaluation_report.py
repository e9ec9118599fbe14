"""The report: one page that needs nothing else, escapes what it shows, and shows the right
pictures."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gpusvm.calibration import Calibration
from gpusvm.data import load_dataset
from gpusvm.errors import OutputError
from gpusvm.evaluation import evaluate_predictions, head_to_head, predict_samples
from gpusvm.preprocess import PixelScaler
from gpusvm.report.evaluation import heaviest_support_vectors, render_report, worst_mistakes, write_report

VOID = {"meta", "img", "br"}


class _Balance(HTMLParser):
    """Fails where a tag is closed that is not the one open, and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def image_model(digits_model):
    provenance = {
        "backend": "sklearn",
        "n_train": 1437,
        "fit_seconds": 125.0,
        "some_library": "1.2.3",
        "dataset": {"name": "digits", "split": "train", "digest": "ab" * 32, "n": 1437},
    }
    return replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8), provenance=provenance)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits", "test")


def evaluated(model, dataset):
    predictions = predict_samples(model, dataset.images)
    labels = dataset.require_labels()
    return evaluate_predictions(model.classes, labels, predictions.labels, predictions.seconds), predictions


def rendered(model, dataset, **options) -> str:
    evaluation, predictions = evaluated(model, dataset)
    return render_report(model, evaluation, dataset, predictions, **options)


def with_classes(model, dataset, names):
    """The same model and data with words for classes."""
    names = np.array(names)
    return replace(model, classes=names), replace(dataset, labels=names[dataset.labels])


def pictures(page: str) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in encoded]


def test_page_is_well_formed_and_loads_nothing(image_model, dataset) -> None:
    parser = _Balance()
    page = rendered(image_model, dataset)
    parser.feed(page)
    assert not parser.open
    assert parser.addresses and all(a.startswith("data:image/png;base64,") for a in parser.addresses)
    assert "http:" not in page and "https:" not in page and "<script" not in page
    assert "prefers-color-scheme: dark" in page


def test_page_names_the_model_and_its_origin(image_model, dataset) -> None:
    page = rendered(image_model, dataset, title="digits.svm")
    assert "<title>digits.svm · gpusvm report</title>" in page
    for fact in ("rbf", "0.05", "sklearn", "2 min 5 s", "ab" * 32, dataset.digest, "some_library 1.2.3"):
        assert fact in page
    evaluation, _ = evaluated(image_model, dataset)
    assert f"{100 * evaluation.accuracy:.2f}<small>%" in page


def test_misclassified_images_come_worst_first_with_their_margin(image_model, dataset) -> None:
    evaluation, predictions = evaluated(image_model, dataset)
    mistakes = worst_mistakes(evaluation, dataset, predictions)
    rows = np.flatnonzero(predictions.labels != dataset.labels)
    assert sorted(m.row for m in mistakes) == rows.tolist()
    assert [m.margin for m in mistakes] == sorted((m.margin for m in mistakes), reverse=True)
    worst = mistakes[0]
    assert (worst.true, worst.predicted) == (dataset.labels[worst.row], predictions.labels[worst.row])
    decisions = predictions.decisions[[worst.row]]
    margin = head_to_head(decisions, np.array([worst.predicted]), np.array([worst.true]), 10)
    assert worst.margin == margin[0] > 0
    shown = pictures(render_report(image_model, evaluation, dataset, predictions))[0]
    np.testing.assert_array_equal(shown, dataset.images[worst.row])


def test_page_counts_the_mistakes_it_leaves_out(image_model, dataset, monkeypatch) -> None:
    monkeypatch.setattr("gpusvm.report.evaluation.MAX_MISTAKES", 2)
    monkeypatch.setattr("gpusvm.report.evaluation.MAX_SUPPORT_VECTORS", 3)
    evaluation, predictions = evaluated(image_model, dataset)
    page = render_report(image_model, evaluation, dataset, predictions)
    assert f"The worst 2 are shown, {evaluation.n_errors - 2} more are not." in page
    assert len(pictures(page)) == 2 + 3


def test_a_faultless_model_has_no_mistakes_to_show(image_model, dataset) -> None:
    _, predictions = evaluated(image_model, dataset)
    agreeing = replace(dataset, labels=predictions.labels)
    evaluation = evaluate_predictions(image_model.classes, agreeing.labels, predictions.labels)
    assert "There are none." in render_report(image_model, evaluation, agreeing, predictions)


def test_heaviest_support_vectors_and_their_bound(image_model) -> None:
    problem = replace(image_model.problem, C=2.0, class_weight=(1.0,) * 9 + (0.5,))
    coef = np.zeros_like(image_model.dual_coef)
    coef[0, 0], coef[1, 0] = 2.0, -1.5
    coef[3, -1] = -1.0  # class 9, whose bound is 1
    heavy = heaviest_support_vectors(replace(image_model, problem=problem, dual_coef=coef), 2)
    last = image_model.n_support_vectors - 1
    assert [(v.index, v.class_index, v.weight, v.pairs_at_bound) for v in heavy] == [
        (0, 0, 3.5, 1),
        (last, 9, 1.0, 1),
    ]


def test_support_vectors_at_the_bound_are_marked(image_model, dataset) -> None:
    C = float(np.abs(image_model.dual_coef).max())
    bounded = replace(image_model, problem=replace(image_model.problem, C=C))
    assert "<em>at C in 1 of 9</em>" in rendered(bounded, dataset)
    page = rendered(replace(image_model, problem=replace(image_model.problem, C=1e9)), dataset)
    assert "<em>at C" not in page
    assert "No coefficient of these is at its bound" in page


def test_names_are_escaped(image_model, dataset) -> None:
    names = ["<script>alert(1)</script>", 'a"b', "c&d", *"efghijk"]
    model, data = with_classes(image_model, dataset, names)
    model = replace(model, provenance={"dataset": {"name": "<i>x"}, "<u>": "<s>", "n": ["<q>"]})
    data = replace(data, name="<b>\udcff")
    page = rendered(model, data, title="<h6>")
    _Balance().feed(page)
    for raw in ("<script", "<i>x", "<u>", "<s>", "<q>", "<b>?", "<h6>", 'a"b'):
        assert raw not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;b&gt;?" in page


def test_a_model_without_image_shape_shows_no_support_vectors(image_model, dataset) -> None:
    page = rendered(replace(image_model, image_shape=None), dataset)
    assert "does not say what size of image" in page


def test_large_pictures_are_made_smaller(image_model, dataset) -> None:
    evaluation, predictions = evaluated(image_model, dataset)
    large = replace(dataset, images=np.repeat(np.repeat(dataset.images, 64, axis=1), 32, axis=2))
    page = render_report(image_model, evaluation, large, predictions)
    assert pictures(page)[0].shape == (144, 72)


def test_many_classes_leave_out_the_matrix(image_model, dataset, monkeypatch) -> None:
    monkeypatch.setattr("gpusvm.report.evaluation.MAX_MATRIX_CLASSES", 9)
    assert "too large to show" in rendered(image_model, dataset)


def test_page_is_written_into_a_new_folder(image_model, dataset, tmp_path) -> None:
    evaluation, predictions = evaluated(image_model, dataset)
    page = write_report(image_model, evaluation, dataset, predictions, tmp_path / "new" / "report")
    assert page == tmp_path / "new" / "report" / "index.html"
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_that_cannot_be_made_is_an_error(image_model, dataset, tmp_path) -> None:
    evaluation, predictions = evaluated(image_model, dataset)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(image_model, evaluation, dataset, predictions, tmp_path / "file")


def test_a_model_with_probabilities_shows_how_far_they_can_be_trusted(image_model, dataset):
    model = replace(image_model, calibration=Calibration(np.full(45, -3.0), np.zeros(45), "price", 1.5))
    predictions = predict_samples(model, dataset.images, probabilities=True)
    evaluation = evaluate_predictions(
        model.classes, dataset.labels, predictions.labels, probabilities=predictions.probabilities
    )
    page = render_report(model, evaluation, dataset, predictions)
    _Balance().feed(page)
    assert "<h2>Probabilities</h2>" in page
    found = evaluation.reliability
    assert page.count("<circle ") == (found.count > 0).sum() > 1
    assert f"expected calibration error {found.expected_calibration_error:.4f}" in page
    assert "<h2>Probabilities</h2>" not in rendered(image_model, dataset)

"""Evaluation: counts against the truth, labels of any type, and predictions made chunk by
chunk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from gpusvm import SVC, evaluation
from gpusvm.data import load_dataset
from gpusvm.errors import DataError, UsageError
from gpusvm.evaluation import (
    class_indices,
    evaluate_predictions,
    fraction_equal,
    head_to_head,
    predict_samples,
    reliability,
)
from gpusvm.preprocess import PixelScaler


@pytest.fixture
def random_labels(rng):
    true = rng.integers(0, 4, 300)
    return true, np.where(rng.random(300) < 0.8, true, rng.integers(0, 4, 300))


@pytest.fixture
def image_model(digits_model):
    return replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8))


def test_figures_equal_scikit_learns(random_labels) -> None:
    true, predicted = random_labels
    result = evaluate_predictions(np.arange(4), true, predicted)
    assert result.n == 300
    assert result.accuracy == accuracy_score(true, predicted)
    assert result.n_errors == (true != predicted).sum()
    np.testing.assert_array_equal(result.confusion, confusion_matrix(true, predicted))
    np.testing.assert_allclose(result.f1, f1_score(true, predicted, average=None))
    np.testing.assert_array_equal(result.support, np.bincount(true))


def test_rows_are_true_and_columns_predicted_classes() -> None:
    result = evaluate_predictions(np.array(["cat", "dog"]), np.array(["cat", "cat"]), np.array(["cat", "dog"]))
    assert result.confusion.tolist() == [[1, 1], [0, 0]]


def test_a_class_without_test_images_has_no_recall() -> None:
    result = evaluate_predictions(np.arange(3), np.array([0, 1]), np.array([0, 1]))
    assert np.isnan(result.recall[2]) and np.isnan(result.precision[2])
    assert result.to_dict()["per_class"][2] == {
        "class": 2, "precision": None, "recall": None, "f1": None, "support": 0,
    }  # fmt: skip


def test_to_dict_is_strict_json(random_labels) -> None:
    result = evaluate_predictions(np.arange(5), *random_labels, predict_seconds=0.5)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["n_test"] == 300
    assert read["samples_per_second"] == 600
    assert read["classes"] == [0, 1, 2, 3, 4]
    assert np.array(read["confusion"]).sum() == 300


def test_most_confused_leaves_out_the_diagonal_and_what_never_happened() -> None:
    result = evaluate_predictions(np.arange(3), np.array([0, 0, 0, 0, 1, 2]), np.array([0, 1, 1, 2, 1, 0]))
    assert result.most_confused() == [(0, 1, 2), (0, 2, 1), (2, 0, 1)]
    assert result.most_confused(1) == [(0, 1, 2)]


def test_unseen_labels_are_named() -> None:
    with pytest.raises(DataError, match=r"^test\.csv: 7, 8 among the labels.*it knows 0, 1, 2"):
        class_indices(np.arange(3), np.array([0, 8, 7, 7]), where="test.csv")


def test_many_unseen_labels_are_counted() -> None:
    with pytest.raises(DataError, match="3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 8 more among"):
        class_indices(np.arange(3), np.arange(21))


@pytest.mark.parametrize(
    ("classes", "labels", "indices"),
    [
        (np.array([3, 5]), np.array([5, 3, 5]), [1, 0, 1]),
        (np.array(["10", "9", "cat"]), np.array([9, 10]), [1, 0]),  # a folder without the class "cat"
        (np.array([3.0, 5.0]), np.array([5, 3]), [1, 0]),
        (np.array([False, True]), np.array([1, 0]), [1, 0]),
        (np.array([3, 5]), np.array(["5", "3"]), [1, 0]),
    ],
)
def test_labels_are_matched_across_types(classes, labels, indices) -> None:
    assert class_indices(classes, labels).tolist() == indices


def test_agreement_takes_labels_the_other_side_lacks() -> None:
    assert fraction_equal(np.array([1, 2, 99, 4]), np.array([1, 2, 3, 3])) == 0.5
    assert fraction_equal(np.array([1, 2]), np.array(["1", "x"])) == 0.5


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        evaluate_predictions(np.arange(2), np.array([], dtype=int), np.array([], dtype=int))


def test_predictions_are_the_models_own_whatever_the_chunk(image_model, monkeypatch) -> None:
    images = load_dataset("digits", "test").images
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 100)
    done: list[int] = []
    predictions = predict_samples(image_model, images, done.append)
    X = image_model.preprocess(images)
    np.testing.assert_array_equal(predictions.labels, image_model.predict(X))
    np.testing.assert_allclose(predictions.decisions, image_model.pair_decisions(X), atol=1e-4)
    assert done == [100, 200, 300, 360]
    assert predictions.seconds > 0 and len(predictions) == 360


def test_images_of_another_size_are_an_error(image_model) -> None:
    with pytest.raises(DataError, match="28x28 images, the model expects 8x8"):
        predict_samples(image_model, np.zeros((2, 28, 28), dtype=np.uint8))


def test_head_to_head_reads_the_pair_in_either_direction(image_model) -> None:
    n_pairs = len(image_model.pairs)
    decisions = np.tile(np.arange(1.0, n_pairs + 1), (n_pairs, 1))
    first, second = np.array(image_model.pairs).T
    np.testing.assert_array_equal(head_to_head(decisions, first, second, 10), np.arange(1, n_pairs + 1))
    np.testing.assert_array_equal(head_to_head(decisions, second, first, 10), -np.arange(1.0, n_pairs + 1))


# -- probabilities --------------------------------------------------------------------------------


def test_reliability_is_scikit_learns_log_loss_and_guos_error(rng):
    p = rng.dirichlet(np.full(4, 0.4), size=3000)
    true = (p.cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1)
    found = evaluate_predictions(np.arange(4), true, p.argmax(axis=1), probabilities=p).reliability
    assert found.log_loss == pytest.approx(log_loss(true, p))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == true
    error = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        assert found.count[k] == inside.sum()
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert found.expected_calibration_error == pytest.approx(error)
    assert found.expected_calibration_error < 0.03  # labels were drawn from them
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert reliability(sharper, true, p.argmax(axis=1)).expected_calibration_error > 0.1


def test_a_true_class_without_probability_costs_much_but_not_everything():
    found = reliability(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]), np.array([0, 0]))
    assert 100 < found.log_loss < 1000 and found.expected_calibration_error == 0.5
    assert found.count.tolist() == [0] * 14 + [2]


def test_probabilities_are_given_where_they_are_asked_for(digits, image_model):
    with pytest.raises(UsageError, match="no probabilities"):
        predict_samples(image_model, np.zeros((2, 8, 8), dtype=np.uint8), probabilities=True)
    svc = SVC(probability=True, backend="sklearn").fit(digits[0][:300], digits[1][:300])
    found = predict_samples(svc.model_, digits[2], probabilities=True)
    np.testing.assert_array_equal(found.probabilities, svc.model_.probabilities(found.decisions))
    assert predict_samples(svc.model_, digits[2]).probabilities is None

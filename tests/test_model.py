from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.utils.multiclass import _ovr_decision_function

from gpusvm import SVC, to_onnx
from gpusvm.errors import DataError
from gpusvm.kernels import rbf_offset
from gpusvm.pairs import class_pairs
from gpusvm.voting import one_vs_rest, vote


def definition(model, X):
    """The decision values as SVMModel's docstring defines them, term by term, in float64."""
    X, vectors = X.astype(np.float64), model.support_vectors.astype(np.float64)
    distances = ((X[:, None, :] - vectors[None, :, :]) ** 2).sum(axis=2)
    K = np.exp(-model.kernel.gamma * distances)
    owner = np.repeat(np.arange(model.n_classes), model.n_support)
    columns = []
    for p, (i, j) in enumerate(model.pairs):
        terms = K[:, owner == i] @ model.dual_coef[j - 1, owner == i]
        terms = terms + K[:, owner == j] @ model.dual_coef[i, owner == j]
        columns.append(terms + model.intercept[p])
    return np.stack(columns, axis=1)


def test_decisions_are_the_definition(digits_model, digits):
    X = digits[2][:50]
    expected = definition(digits_model, X)
    np.testing.assert_allclose(digits_model.pair_decisions(X.astype(np.float64)), expected, atol=1e-10)
    np.testing.assert_allclose(digits_model.pair_decisions(X), expected, atol=2e-5)


def test_no_rows_give_no_predictions(digits_model):
    assert digits_model.predict(np.empty((0, 64), np.float32)).shape == (0,)


def test_another_number_of_features_is_an_error(digits_model):
    with pytest.raises(DataError, match=r"\(3, 784\).*64 features"):
        digits_model.predict(np.zeros((3, 784), np.float32))


@given(st.integers(2, 7).flatmap(
    lambda k: arrays(np.float64, (5, k * (k - 1) // 2), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0]))
))  # fmt: skip
def test_votes_and_one_vs_rest_are_scikit_learns_even_in_ties(decisions):
    n_classes = next(k for k in range(2, 8) if k * (k - 1) // 2 == decisions.shape[1])
    expected_votes = np.zeros((5, n_classes), int)
    for p, (i, j) in enumerate(class_pairs(n_classes)):
        winners = np.where(decisions[:, p] > 0, i, j)
        expected_votes[np.arange(5), winners] += 1
    expected = _ovr_decision_function(decisions < 0, -decisions, n_classes)
    for compiled in (False, True):
        found = vote(decisions, n_classes, compiled=compiled)
        np.testing.assert_array_equal(found, expected_votes.argmax(axis=1))
        np.testing.assert_allclose(one_vs_rest(decisions, n_classes, compiled=compiled), expected)


@pytest.fixture(scope="module")
def far_from_origin():
    """A three-class model on samples around 1000 whose spread is 1."""
    rng = np.random.default_rng(7)
    y = np.repeat([0, 1, 2], 60)
    X = (1000 + rng.normal(size=(180, 20)) + y[:, None] * 0.5).astype(np.float32)
    return SVC(gamma=0.05, backend="sklearn").fit(X, y).model_, X


def test_float32_far_from_the_origin_predicts_as_float64_does(far_from_origin):
    model, X = far_from_origin
    expected = definition(model, X)
    np.testing.assert_allclose(model.pair_decisions(X), expected, atol=1e-3)
    np.testing.assert_array_equal(model.predict(X), model.classes[vote(expected, 3)])


def test_float32_far_from_the_origin_in_onnx(far_from_origin):
    import onnxruntime

    model, X = far_from_origin
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    np.testing.assert_allclose(session.run(["decision"], {"X": X})[0], definition(model, X), atol=1e-3)


def test_pixels_are_not_moved(digits_model):
    assert rbf_offset(digits_model.support_vectors) is None
    assert rbf_offset(255 - 255 * digits_model.support_vectors) is None
    assert rbf_offset(np.zeros((0, 4), np.float32)) is None and rbf_offset(np.zeros((3, 4), np.float32)) is None

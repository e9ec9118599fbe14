"""Prediction: by the definition, in bounded memory, the same for any number of threads, by all
three evaluators."""

from __future__ import annotations

import math
import threading
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from gpusvm import SVC, predict
from gpusvm.errors import RangeError
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel
from gpusvm.pairs import class_pairs
from gpusvm.params import Problem, Stopping
from gpusvm.solver import prediction
from gpusvm.voting import vote

KERNELS = [Kernel("rbf", 0.05), Kernel("linear"), Kernel("poly", 0.1, 3, 1.0), Kernel("sigmoid", 0.05, 3, 0.5)]


def synthetic(n_classes, n_features=5, n_each=2, kernel=None, dtype=np.float64, seed=0, density=1.0):
    """A model with random coefficients; class k has `n_each` support vectors, or one more."""
    rng = np.random.default_rng(seed)
    n_support = n_each + np.arange(n_classes) % 2
    n_sv, n_pairs = int(n_support.sum()), n_classes * (n_classes - 1) // 2
    vectors = rng.normal(size=(n_sv, n_features)) * (rng.random((n_sv, n_features)) < density)
    return SVMModel(
        problem=Problem(kernel or Kernel("rbf", 0.1)),
        stopping=Stopping(),
        classes=np.arange(n_classes) * 3,
        support_vectors=vectors.astype(dtype),
        support_indices=np.arange(n_sv),
        n_support=n_support,
        dual_coef=rng.normal(size=(n_classes - 1, n_sv)),
        intercept=rng.normal(size=n_pairs),
        n_features=n_features,
        n_iter=np.ones(n_pairs, dtype=np.int64),
    )


def definition(model, X):
    """The decision values as SVMModel's docstring defines them, in float64."""
    X, vectors = X.astype(np.float64), model.support_vectors.astype(np.float64)
    kernel = model.kernel
    if kernel.name == "rbf":
        K = np.exp(-kernel.gamma * cdist(X, vectors, "sqeuclidean"))
    else:
        inner = X @ vectors.T
        argument = kernel.gamma * inner + kernel.coef0
        K = {"linear": inner, "poly": argument**kernel.degree, "sigmoid": np.tanh(argument)}[kernel.name]
    ends = np.cumsum(model.n_support)
    own = [slice(end - n, end) for n, end in zip(model.n_support, ends, strict=True)]
    sums = np.stack([K[:, one] @ model.dual_coef[:, one].T for one in own])  # of each class, in each of its pairs
    first, second = np.array(class_pairs(model.n_classes)).T
    return (sums[first, :, second - 1] + sums[second, :, first]).T + model.intercept


@cache
def decided(kernel, n_classes, n_features, n_each, density):
    """A model, X (531, n_features), and what the definition decides."""
    rng = np.random.default_rng(n_classes)
    model = synthetic(n_classes, n_features, n_each, kernel, density=density)
    X = rng.normal(size=(531, n_features)) * (rng.random((531, n_features)) < density)
    return model, X, definition(model, X)


def compiled_decisions(model, X, n_threads=2, dtype=np.float64):
    """By the compiled code, however little there is to do."""
    decisions = np.full((len(X), len(model.intercept)), np.nan)
    evaluator = predict.CompiledEvaluator(model, np.dtype(dtype))
    evaluator.blocks.each_block(X, n_threads, decisions.__setitem__)
    return decisions


@pytest.fixture
def compiled_always(monkeypatch):
    for name in ("COMPILED_WORK", "COMPILED_ROWS", "COMPILATION_WORK"):
        monkeypatch.setattr(predict, name, 0)
    monkeypatch.setattr(prediction, "SMALL_WORK", 0)


# -- samples of any size --------------------------------------------------------------------------


def exact(model, X):
    """As `definition`, one value at a time in Python, whose fractions have no range to leave."""
    kernel, decisions = model.kernel, []
    for row in X:
        sums = Fraction(float(model.intercept[0]))
        for vector, coef in zip(model.support_vectors.tolist(), model.dual_coef[0].tolist(), strict=True):
            if kernel.name == "rbf":
                distance = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(row, vector, strict=True))
                value = math.exp(-min(800, Fraction(kernel.gamma) * distance))
            else:
                value = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, vector, strict=True))
            if kernel.name in ("poly", "sigmoid"):
                value = Fraction(kernel.gamma) * value + Fraction(kernel.coef0)
            if kernel.name == "poly":
                value = value**kernel.degree
            if kernel.name == "sigmoid":
                value = math.tanh(max(-50, min(50, value)))
            sums += Fraction(coef) * Fraction(value)
        decisions.append(sums)
    return decisions


@pytest.mark.parametrize("evaluated", ["plain", "compiled"])
@pytest.mark.parametrize("form", [np.asarray, csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float32, 1e14), (np.float32, 1e38), (np.float64, 1e90), (np.float64, 1e152), (np.float64, 1e200),
     (np.float64, 1.7e308)],
)  # fmt: skip
def test_samples_of_any_size_are_decided_rightly_or_refused(request, rng, evaluated, form, kernel, dtype, size):
    """What cannot be computed is no label: NaN counts as a vote for one class or the other."""
    if evaluated == "compiled":
        request.getfixturevalue("compiled_always")
    model = synthetic(2, 4, 20, kernel)
    model = replace(model, support_vectors=form(model.support_vectors))
    X = rng.choice([-1.0, 1.0, 0.5], size=(18, 4)).astype(dtype)
    X[3:] *= dtype(size)
    X[9] = 0
    try:
        decisions = model.pair_decisions(form(X))[:, 0]
    except RangeError as error:
        assert kernel.name != "rbf" and "kernel values" in str(error) and size > 1e90
        return
    expected = exact(replace(model, support_vectors=model.unpacked_vectors), X)
    assert not (kernel.name == "poly" and size > 1e150)
    allowed = Fraction(1e-4) * (1 + max(map(abs, expected)))
    for found, value in zip(decisions.tolist(), expected, strict=True):
        assert abs(Fraction(found) - value) <= allowed
    np.testing.assert_array_equal(model.predict(form(X)), 3 * (decisions <= 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.asarray, csr_array], ids=["dense", "sparse"])
def test_a_model_has_no_label_for_what_is_no_number(form, bad):
    X = np.ones((3, 5))
    X[1, 2] = bad
    with pytest.raises(RangeError, match=r"values up to (nan|inf)"):
        synthetic(3).predict(form(X))


def test_kernel_values_that_are_given_may_be_of_any_size_too():
    model = replace(synthetic(2, kernel=Kernel("precomputed")), n_features=8)
    K = np.ones((2, 8))
    K[1, model.support_indices[0]] = 1.7e308
    with pytest.raises(RangeError, match="scale the features"):
        model.predict(K)
    K[1] = 1
    K[0, 7] = 1.7e308  # of no support vector
    np.testing.assert_array_equal(model.predict(K), model.predict(np.ones((2, 8))))


# -- the definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("n_classes", [2, 3, 5, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_every_evaluator_decides_as_the_definition_says(kernel, n_classes, dtype, density):
    model, X, expected = decided(kernel, n_classes, 30, 25, density)
    scale = np.abs(expected).max()
    atol = scale * (3e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(compiled_decisions(model, X, dtype=dtype), expected, atol=atol)
    plain = np.empty_like(expected)
    predict.ArrayEvaluator(model, np, np.dtype(dtype)).each_block(X, None, plain.__setitem__)
    np.testing.assert_allclose(plain, expected, atol=atol)
    if kernel.name == "linear":
        np.testing.assert_allclose(model.pair_decisions(X), expected, atol=scale * 1e-12)


@pytest.mark.parametrize("scale", [255.0, 1.0, 16.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_are_multiplied_as_such_and_exactly(rng, scale, dtype):
    pixels = rng.integers(0, 256, (700, 33)) * (rng.random((700, 33)) < 0.2)
    X = (pixels / scale).astype(dtype)
    model = synthetic(4, 33, 50, Kernel("rbf", 0.3 * scale**2 / 255**2), dtype)
    model = replace(model, support_vectors=X[: model.n_support_vectors])
    blocks = predict.CompiledEvaluator(model, np.dtype(dtype)).blocks
    if prediction.integer_products_are_exact():
        assert isinstance(blocks._arithmetic(X), prediction.Integers)
        assert not isinstance(blocks._arithmetic(X + dtype(0.001)), prediction.Integers)
    for rows in (X, X + dtype(0.001)):
        expected = definition(model, rows)
        atol = np.abs(expected).max() * (1e-5 if dtype == np.float32 else 1e-12)
        np.testing.assert_allclose(compiled_decisions(model, rows, dtype=dtype), expected, atol=atol)


def test_samples_far_from_the_origin_are_moved(rng):
    model = synthetic(3, 20, 30, Kernel("rbf", 0.05))
    model = replace(model, support_vectors=model.support_vectors + 1000)
    X = 1000 + rng.normal(size=(300, 20))
    np.testing.assert_allclose(compiled_decisions(model, X, dtype=np.float32), definition(model, X), atol=1e-4)
    np.testing.assert_allclose(compiled_decisions(model, X), definition(model, X), atol=1e-10)


def test_a_class_without_support_vectors(rng):
    model = synthetic(5, 6, 4)
    n_support = np.array([0, 7, 0, 11, 4])
    model = replace(model, n_support=n_support)
    X = rng.normal(size=(40, 6))
    np.testing.assert_allclose(compiled_decisions(model, X), definition(model, X), atol=1e-12)
    np.testing.assert_allclose(model.pair_decisions(X), definition(model, X), atol=1e-12)


def test_blocks_and_parts_do_not_change_the_result(digits_model, digits, monkeypatch):
    X = digits[2].astype(np.float64)
    whole, labels = digits_model.pair_decisions(X), digits_model.predict(X)
    monkeypatch.setattr(predict, "BUDGET", 2**17)
    monkeypatch.setattr(prediction, "BUDGET", 2**17)
    small = replace(digits_model)
    np.testing.assert_allclose(small.pair_decisions(X), whole, atol=1e-12)
    np.testing.assert_allclose(compiled_decisions(small, X), whole, atol=1e-12)
    np.testing.assert_array_equal(small.predict(X), labels)


@pytest.mark.parametrize("n_rows", [0, 1, 10])
def test_a_few_rows_start_no_thread_and_compile_nothing(n_rows, monkeypatch, rng):
    model = synthetic(10, 20, 100)
    X = rng.normal(size=(n_rows, 20))
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    assert not predict.evaluator_for(model, X).compiled
    np.testing.assert_array_equal(model.predict(X), model.classes[vote(definition(model, X), 10)])


# -- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 12])
def test_results_do_not_depend_on_the_number_of_threads(compiled_always, dtype, n_classes, rng):
    model = synthetic(n_classes, 17, 300, dtype=dtype)
    X = rng.normal(size=(1003, 17)).astype(dtype)
    assert predict.evaluator_for(model, X).compiled
    alone = model.pair_decisions(X, n_jobs=1)
    for n_jobs in (2, 3, 16):
        np.testing.assert_array_equal(model.pair_decisions(X, n_jobs=n_jobs), alone)
    np.testing.assert_array_equal(model.pair_decisions(X[37:100], n_jobs=2), alone[37:100])
    np.testing.assert_array_equal(model.predict(X, n_jobs=5), model.classes[vote(alone, n_classes)])


def test_an_error_in_a_block_reaches_the_caller(compiled_always, rng):
    model = synthetic(3, 5, 20)

    def fail(rows, decisions):
        raise KeyError(rows)

    with pytest.raises(KeyError):
        predict.evaluator_for(model, X := rng.normal(size=(2000, 5))).each_block(X, 2, fail)


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("result", ["labels", "scores"])
@pytest.mark.parametrize(
    ("n_rows", "n_classes", "n_features", "n_each"),
    [(4_000, 60, 4, 2), (120, 250, 4, 1), (1_000, 2, 10, 8_000), (500, 3, 3_500, 200)],
    ids=["rows", "classes", "support vectors", "features"],
)
def test_memory_is_bounded(monkeypatch, compiled, result, n_rows, n_classes, n_features, n_each, rng):
    monkeypatch.setattr(predict, "BUDGET", predict.BUDGET // 4)
    monkeypatch.setattr(prediction, "BUDGET", prediction.BUDGET // 4)
    limit = 0 if compiled else np.inf
    for name in ("COMPILED_WORK", "COMPILATION_WORK"):
        monkeypatch.setattr(predict, name, limit)
    model = synthetic(n_classes, n_features, n_each)
    X = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    call = model.predict if result == "labels" else model.decision_function
    call(X[:20])
    tracemalloc.start()
    try:
        found = call(X, n_jobs=4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - found.nbytes < predict.BUDGET, f"{peak / 2**20:.0f} MB"


def test_a_thousand_classes(compiled_always, rng):
    model = synthetic(1000, 6, 1)
    X = rng.normal(size=(9, 6))
    expected = definition(model, X)
    for dtype in (None, np.float64):
        np.testing.assert_allclose(model.pair_decisions(X, dtype=dtype), expected, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), model.classes[vote(expected, 1000)])


# -- which evaluator ------------------------------------------------------------------------------


def test_a_prediction_does_not_wait_for_a_compiler_that_costs_more_than_it_saves(digits_model, digits, monkeypatch):
    monkeypatch.setattr(predict, "COMPILED_WORK", 0)
    monkeypatch.setattr(prediction, "is_ready", lambda dtype, sparse: False)
    assert not predict.evaluator_for(digits_model, digits[2]).compiled
    monkeypatch.setattr(prediction, "is_ready", lambda dtype, sparse: True)
    assert predict.evaluator_for(digits_model, digits[2]).compiled


def test_a_linear_kernel_needs_no_support_vectors(digits):
    model = SVC(kernel="linear", backend="sklearn").fit(digits[0], digits[1]).model_
    evaluator = predict.evaluator_for(model, digits[2])
    assert isinstance(evaluator, predict.PrimalEvaluator) and model.primal_weights.dtype == np.float64
    inner = model.pair_decisions(digits[2], dtype=np.float64)
    np.testing.assert_allclose(model.pair_decisions(digits[2]), inner, atol=1e-10)
    # With many classes and few support vectors the weights would be more than those.
    few = synthetic(40, 3, 2, Kernel("linear"))
    assert not isinstance(predict.evaluator_for(few, np.zeros((5, 3))), predict.PrimalEvaluator)


def test_the_compiled_code_takes_float64_where_float32_would_not_do(compiled_always, rng):
    model = synthetic(3, 10, 40, dtype=np.float32)
    model = replace(model, dual_coef=model.dual_coef * 1e6)
    assert not model.float32_suffices
    X = rng.normal(size=(200, 10)).astype(np.float32)
    np.testing.assert_allclose(model.pair_decisions(X), definition(model, X), rtol=1e-9, atol=1e-6)


def test_a_pickled_model_leaves_behind_what_it_can_make_again(digits_model, digits):
    import pickle

    digits_model.predict(digits[2])
    again = pickle.loads(pickle.dumps(digits_model))
    assert not again._evaluators and "primal_weights" not in again.__dict__
    np.testing.assert_array_equal(again.predict(digits[2]), digits_model.predict(digits[2]))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kernel", [Kernel("rbf", gamma=0.3), Kernel("poly", gamma=0.2, degree=2, coef0=1.0)])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("unpacked", [0, 2**24])
def test_sparse_or_not_rows_and_support_vectors_give_the_same(monkeypatch, rng, compiled, kernel, n_classes, unpacked):
    monkeypatch.setattr("gpusvm.model.UNPACKED_BYTES", unpacked)
    monkeypatch.setattr("gpusvm.predict.COMPILED_WORK", 0 if compiled else np.inf)
    monkeypatch.setattr("gpusvm.predict.COMPILED_ROWS", 0)
    model = synthetic(n_classes, n_features=40, n_each=30, kernel=kernel, density=0.1)
    X = rng.normal(size=(150, 40)) * (rng.random((150, 40)) < 0.1)
    expected = model.pair_decisions(X)
    sparse_model = replace(model, support_vectors=csr_array(model.support_vectors))
    for found in (
        model.pair_decisions(csr_array(X)),
        sparse_model.pair_decisions(csr_array(X)),
        sparse_model.pair_decisions(X),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(sparse_model.predict(csr_array(X)), model.predict(X))


def test_sparse_rows_on_wide_sparse_support_vectors_are_never_an_array(rng, monkeypatch):
    model = synthetic(3, n_features=40, n_each=30, density=0.1)
    far = np.sort(rng.choice(10**9, 40, replace=False))

    def widened(rows):
        rows = csr_array(rows)
        return csr_array((rows.data, far[rows.indices], rows.indptr), shape=(rows.shape[0], 10**9))

    wide = replace(model, support_vectors=widened(model.support_vectors), n_features=10**9)
    X = rng.normal(size=(50, 40)) * (rng.random((50, 40)) < 0.1)
    np.testing.assert_allclose(wide.pair_decisions(widened(X)), model.pair_decisions(X), rtol=1e-9, atol=1e-9)


def test_a_sparse_linear_model_of_very_many_features_is_evaluated_without_weights(rng):
    model = synthetic(3, n_features=40, n_each=30, density=0.1, kernel=Kernel("linear"))
    far = np.sort(rng.choice(10**9, 40, replace=False))
    vectors, X = (csr_array(A) for A in (model.support_vectors, rng.normal(size=(50, 40))))
    wide = [csr_array((A.data, far[A.indices], A.indptr), shape=(A.shape[0], 10**9)) for A in (vectors, X)]
    found = replace(model, support_vectors=wide[0], n_features=10**9).pair_decisions(wide[1])
    np.testing.assert_allclose(found, model.pair_decisions(X.toarray()), rtol=1e-9, atol=1e-9)


def listed_decisions(model, X, n_threads=2, dtype=np.float64):
    """By the compiled code for sparse support vectors, however little there is to do."""
    decisions = np.full((X.shape[0], len(model.intercept)), np.nan)
    blocks = predict.CompiledEvaluator(model, np.dtype(dtype)).blocks
    assert isinstance(blocks._arithmetic(X), prediction.Listed)
    blocks.each_block(X, n_threads, decisions.__setitem__)
    return decisions


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(("n_classes", "n_each"), [(2, 600), (3, 60), (20, 60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("most_places", [2**20, 16])
def test_sparse_support_vectors_decide_as_the_definition_says(
    monkeypatch, kernel, n_classes, n_each, dtype, most_places
):
    monkeypatch.setattr("gpusvm.model.UNPACKED_BYTES", 0)
    monkeypatch.setattr(prediction, "SMALL_WORK", 0)
    monkeypatch.setattr(prediction, "MOST_PLACES", most_places)
    monkeypatch.setattr(csr_array, "toarray", lambda *_: pytest.fail("made dense"))
    model, X, expected = decided(kernel, n_classes, 60, n_each, 0.08)
    listed = replace(model, support_vectors=csr_array(model.support_vectors))
    found = listed_decisions(listed, csr_array(X), 1, dtype)
    atol = np.abs(expected).max() * (3e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(found, expected, atol=atol)
    np.testing.assert_array_equal(listed_decisions(listed, csr_array(X), 5, dtype), found)
    np.testing.assert_array_equal(listed_decisions(listed, csr_array(X)[37:100], 2, dtype), found[37:100])
    np.testing.assert_array_equal(listed_decisions(listed, X, 2, dtype), found)
    monkeypatch.setattr(prediction, "BUDGET", 2**17)
    np.testing.assert_array_equal(listed_decisions(listed, csr_array(X)[:50], 2, dtype), found[:50])


def test_sparse_models_of_many_features_are_evaluated_by_compiled_code(rng, monkeypatch):
    monkeypatch.setattr("gpusvm.model.UNPACKED_BYTES", 0)
    monkeypatch.setattr(predict, "COMPILED_WORK", 0)
    monkeypatch.setattr(prediction, "is_ready", lambda dtype, sparse: True)
    model = synthetic(3, 40, 30, density=0.1)
    listed = replace(model, support_vectors=csr_array(model.support_vectors))
    assert predict.evaluator_for(listed, csr_array(np.eye(40))).compiled

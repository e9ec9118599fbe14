"""What every backend promises, written once and run on each."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.svm
from asking import Asked, asked
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, certify
from gpusvm.backends import backend_names, get_backend
from gpusvm.backends.registry import GPU_BACKENDS
from gpusvm.kernels import Kernel


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.gpu] if n in GPU_BACKENDS else []) for n in backend_names()])
def backend(request):
    found = get_backend(request.param)
    available = found.probe()
    if not available.ok:
        pytest.skip(available.reason)
    return found


KERNELS = {
    "rbf": Kernel("rbf", gamma=0.05),
    "linear": Kernel("linear"),
    "poly": Kernel("poly", gamma=0.1, degree=3, coef0=1.0),
    "sigmoid": Kernel("sigmoid", gamma=0.01, coef0=0.0),
}


def reference(params: Asked, X, y, sample_weight=None) -> sklearn.svm.SVC:
    """LIBSVM itself, on all classes at once."""
    problem, stopping, _ = params
    kernel = problem.kernel
    weights = None
    if problem.class_weight is not None:
        weights = dict(zip(np.unique(y).tolist(), problem.class_weight, strict=True))
    svc = sklearn.svm.SVC(
        C=problem.C, kernel=kernel.name, gamma=kernel.gamma, degree=kernel.degree, coef0=kernel.coef0,
        tol=stopping.tol, class_weight=weights, decision_function_shape="ovo",
    )  # fmt: skip
    return svc.fit(X, y, sample_weight=sample_weight)


def assert_same_machine(model, svc, X, atol: float) -> None:
    expected = svc.decision_function(X)
    np.testing.assert_allclose(model.decision_function(X, "ovo"), expected, atol=atol)
    clear = np.abs(np.atleast_2d(expected.T).T).min(axis=1) > atol
    assert clear.mean() > 0.9, "hardly a sample is clear of a tie: the comparison says nothing"
    np.testing.assert_array_equal(model.predict(X)[clear], svc.predict(X)[clear])


AT_ONCE, PAIR_BY_PAIR = 200, 800
"""Digits of which LIBSVM is given all classes together, and so many that each pair is solved by
itself."""

# Two solvers that stop at the same tolerance end within a small multiple of it of each other.
TOL, AGREEMENT = 1e-5, 1e-3


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_agrees_with_libsvm(backend, digits, name, n_classes):
    X, y, X_test, _ = digits
    keep = y[:600] < n_classes
    X, y = X[:600][keep], y[:600][keep]
    params = asked(kernel=KERNELS[name], C=5.0, tol=TOL)
    model = backend.fit(X, y, *params)
    assert_same_machine(model, reference(params, X, y), X_test, AGREEMENT)
    assert certify(model, X, y).max_kkt_gap < 100 * TOL


def test_class_and_sample_weights_act_on_C(backend, digits, rng):
    X, y, X_test, _ = (a[:400] for a in digits)
    sample_weight = rng.uniform(0.1, 3.0, len(y))
    params = asked(kernel=KERNELS["rbf"], C=0.5, tol=TOL, class_weight=tuple(np.linspace(0.2, 2.0, len(np.unique(y)))))
    model = backend.fit(X, y, *params, sample_weight=sample_weight)
    assert_same_machine(model, reference(params, X, y, sample_weight), X_test, AGREEMENT)
    found = certify(model, X, y, sample_weight=sample_weight)
    assert found.max_kkt_gap < 100 * TOL
    assert found.box_violation.max() < 1e-6
    unweighted = backend.fit(X, y, *asked(kernel=KERNELS["rbf"], C=0.5, tol=TOL))
    assert np.abs(unweighted.pair_decisions(X_test) - model.pair_decisions(X_test)).max() > 0.05


def test_samples_of_weight_zero_take_no_part(backend, digits):
    X, y, X_test, _ = (a[:300] for a in digits)
    present = np.arange(len(y)) % 3 > 0
    params = asked(kernel=KERNELS["rbf"], C=5.0, tol=TOL)
    weighted = backend.fit(X, y, *params, sample_weight=present.astype(float))
    removed = backend.fit(X[present], y[present], *params)
    np.testing.assert_allclose(weighted.pair_decisions(X_test), removed.pair_decisions(X_test), atol=AGREEMENT)
    assert present[weighted.support_indices].all()


@pytest.mark.parametrize("nothing", [0.0, -1.0])
def test_a_class_that_has_lost_all_its_weight_is_left_out(backend, digits, nothing):
    X, y, X_test = digits[0][:300], digits[1][:300], digits[2]
    params = asked(KERNELS["rbf"], C=5.0, tol=TOL)
    model = backend.fit(X, y, *params, sample_weight=np.where((y == 3) | (y == 7), nothing, 1.0))
    present = ~np.isin(y, [3, 7])
    rest = backend.fit(X[present], y[present], *params)
    np.testing.assert_array_equal(model.predict(X_test), rest.predict(X_test))
    assert model.classes.tolist() == list(range(10)) and model.n_support[[3, 7]].tolist() == [0, 0]
    assert model.decision_function(X_test).shape == (len(X_test), 10)
    assert certify(model, X, y, sample_weight=present.astype(float)).max_kkt_gap <= 2 * TOL


def test_too_little_weight_is_an_error_in_the_words_of_scikit_learn(backend, digits):
    X, y = digits[0][:100], digits[1][:100]
    with pytest.raises(ValueError, match="all samples have zero or negative weights"):
        backend.fit(X, y, *asked(), sample_weight=np.zeros(100))
    with pytest.raises(ValueError, match="all samples with positive weights belong to the same class"):
        backend.fit(X, y, *asked(), sample_weight=(y == 3).astype(float))


def test_precomputed_kernel_is_the_same_machine(backend, digits):
    X, y, X_test, _ = (a[:300] for a in digits)
    kernel = KERNELS["rbf"]
    direct = backend.fit(X, y, *asked(kernel=kernel, C=5.0, tol=TOL))
    given = backend.fit(kernel(X, X), y, *asked(kernel=Kernel("precomputed"), C=5.0, tol=TOL))
    np.testing.assert_allclose(given.pair_decisions(kernel(X_test, X)), direct.pair_decisions(X_test), atol=AGREEMENT)


def test_model_is_grouped_by_class_and_its_rows_are_the_training_rows(backend, digits):
    X, y = digits[0][:300], digits[1][:300]
    model = backend.fit(X, y, *asked(kernel=KERNELS["rbf"]))
    np.testing.assert_array_equal(X[model.support_indices], model.support_vectors)
    np.testing.assert_array_equal(y[model.support_indices], np.repeat(model.classes, model.n_support))
    assert model.support_vectors.dtype == np.float32
    assert model.dual_coef.dtype == model.intercept.dtype == np.float64
    assert model.n_iter.shape == model.intercept.shape == (45,)
    assert (model.n_iter > 0).all()
    assert model.provenance["backend"] == backend.name
    assert model.provenance["n_train"] == 300


@pytest.mark.parametrize("n", [AT_ONCE, PAIR_BY_PAIR])
def test_progress_reaches_the_last_pair(backend, digits, n):
    calls = []
    backend.fit(
        digits[0][:n],
        digits[1][:n],
        *asked(kernel=KERNELS["rbf"]),
        progress=lambda *c: calls.append(c),
    )
    assert calls[-1][:2] == (45, 45)
    assert [done for done, _, _ in calls] == sorted({done for done, _, _ in calls})


@pytest.mark.parametrize("n", [AT_ONCE, PAIR_BY_PAIR])
def test_stopping_at_max_iter_warns_once_and_says_how_many_pairs(backend, digits, n):
    params = asked(kernel=KERNELS["rbf"], C=100.0, tol=1e-6, max_iter=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = backend.fit(digits[0][:n], digits[1][:n], *params)
    messages = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(messages) == 1 and messages[0].startswith("Solver terminated early (max_iter=2).  Consider")
    assert " of 45 class pairs have not reached tol=1e-06" in messages[0]
    assert np.isfinite(model.dual_coef).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_estimator_takes_any_real_input(backend, digits, dtype):
    X, y = digits[0][:300] * 255, digits[1][:300]
    svc = SVC(gamma=0.05 / 255**2, C=5, backend=backend.name).fit(np.asfortranarray(X.astype(dtype)), y)
    assert svc.score(X, y) > 0.98
    assert svc.backend_ == backend.name


def test_text_labels(backend, digits):
    X, y = digits[0][:200], digits[1][:200]
    names = np.array([f"digit {label}" for label in range(10)])[y]
    svc = SVC(C=5, gamma=0.05, backend=backend.name).fit(X, names)
    assert set(svc.predict(X)) <= set(names)
    assert svc.score(X, names) > 0.98


@pytest.mark.mnist
def test_mnist_reaches_its_known_accuracy(backend):
    from gpusvm.data import load_dataset

    # Of so many, pairs are too large for how native-cpu solves small ones.
    n, accuracy = (5000, 0.9415) if backend.name == "native-cpu" else (2000, 0.9085)
    train, test = load_dataset("mnist", "train", limit=n), load_dataset("mnist", "test", limit=2000)
    X, X_test = (d.images.reshape(len(d), -1).astype(np.float32) / 255 for d in (train, test))
    model = backend.fit(X, train.labels, *asked(kernel=Kernel("rbf", gamma=0.02), C=10.0))
    assert (model.predict(X_test) == test.labels).mean() == pytest.approx(accuracy, abs=0.002)  # LIBSVM's
    found = certify(model, X, train.labels)
    assert found.max_kkt_gap <= 2e-3
    assert 0 <= found.relative_duality_gap < 0.01

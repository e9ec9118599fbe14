from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn.svm
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm import SVR, BackendUnavailableError, UsageError, certify

CPU_BACKENDS = ("sklearn", "native-cpu")
BACKENDS = (*CPU_BACKENDS, pytest.param("native-cuda", marks=pytest.mark.gpu))


def expected_failures(estimator):
    """scikit-learn's own list for its SVR, with its own reason."""
    return {
        f"check_sample_weight_equivalence_on_{kind}_data": (
            "sample_weight is not equivalent to removing/repeating samples."
        )
        for kind in ("dense", "sparse")
    }


@parametrize_with_checks(
    [SVR(backend=name, kernel=kernel) for name in CPU_BACKENDS for kernel in ("rbf", "precomputed")],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_compatible(estimator, check):
    check(estimator)


@pytest.fixture
def curve(rng):
    """X (300, 5), and y (300,) of unit variance that is a smooth function of it and noise; as a
    training and a test."""
    X = rng.normal(size=(450, 5))
    y = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] ** 2 + 0.2 * rng.normal(size=450)
    y = (y - y.mean()) / y.std()
    return X[:300], y[:300], X[300:], y[300:]


def test_parameters_are_scikit_learns():
    ours, theirs = SVR().get_params(), sklearn.svm.SVR().get_params()
    assert set(theirs) <= set(ours)
    shared = set(theirs) - {"cache_size"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
def test_fitted_attributes_are_scikit_learns(curve, kernel):
    X, y, X_test, y_test = curve
    options = {"kernel": kernel, "C": 2.0, "epsilon": 0.05, "gamma": 0.1, "coef0": 0.5}
    ours = SVR(backend="sklearn", **options).fit(X, y)
    theirs = sklearn.svm.SVR(**options).fit(X, y)
    for name in ("support_", "n_support_", "n_iter_", "shape_fit_", "fit_status_", "n_features_in_"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("dual_coef_", "intercept_", "support_vectors_", *(["coef_"] if kernel == "linear" else [])):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(ours.predict(X_test), theirs.predict(X_test), atol=1e-6)
    assert ours.score(X_test, y_test) == pytest.approx(theirs.score(X_test, y_test), abs=1e-6)
    if kernel != "linear":
        with pytest.raises(AttributeError, match="linear"):
            _ = ours.coef_


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"kernel": "linear", "C": 10.0}, {"epsilon": 0.0}, {"epsilon": 3.0}, {"C": 100.0}]
)
def test_solves_libsvms_problem(curve, rng, backend, weighted, options):
    X, y, X_test, _ = curve
    weights = rng.uniform(-0.5, 2.0, len(y)) if weighted else None
    options = {"tol": 1e-4} | options
    ours = SVR(backend=backend, **options).fit(X, y, sample_weight=weights)
    theirs = sklearn.svm.SVR(**options).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(ours.predict(X_test), theirs.predict(X_test), atol=2e-3)
    found = certify(ours.model_, X, y, sample_weight=weights)
    assert found.max_kkt_gap <= 2e-4 and found.box_violation[0] == 0 and found.equality_violation[0] < 1e-12
    assert found.relative_duality_gap < 1e-2
    assert ours.fit_status_ == 0 and ours.model_.converged.all()
    if weighted:
        assert (weights[ours.support_] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_sparse_samples_are_the_same_problem(curve, kernel, backend):
    X, y, X_test, _ = curve
    X, X_test = np.where(X > 0.5, X, 0), np.where(X_test > 0.5, X_test, 0)
    dense = SVR(kernel=kernel, backend=backend).fit(X, y)
    sparse = SVR(kernel=kernel, backend=backend).fit(csr_matrix(X), y)
    theirs = sklearn.svm.SVR(kernel=kernel).fit(csr_matrix(X), y)
    assert type(sparse.support_vectors_) is type(theirs.support_vectors_)
    assert type(sparse.dual_coef_) is type(theirs.dual_coef_)
    np.testing.assert_allclose(sparse.predict(csr_matrix(X_test)), dense.predict(X_test), atol=3e-3)
    if kernel == "linear":
        assert type(sparse.coef_) is type(theirs.coef_)
        np.testing.assert_allclose(sparse.coef_.toarray(), theirs.coef_.toarray(), atol=3e-3)
    assert certify(sparse.model_, csr_matrix(X), y).max_kkt_gap <= 2e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_target_needs_no_support_vectors(curve, backend):
    X, y, X_test, _ = curve
    svr = SVR(backend=backend).fit(X, np.full(len(y), 7.0))
    assert len(svr.support_) == 0 and svr.n_support_.tolist() == [0]
    np.testing.assert_allclose(svr.predict(X_test), 7.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_precomputed_kernel_is_the_same_machine(curve, backend):
    X, y, X_test, _ = curve
    direct = SVR(kernel="linear", tol=1e-6, backend=backend).fit(X, y)
    given = SVR(kernel="precomputed", tol=1e-6, backend=backend).fit(X @ X.T, y)
    np.testing.assert_allclose(given.predict(X_test @ X.T), direct.predict(X_test), atol=1e-4)


def test_weights_cannot_be_changed_since_predictions_would_not_follow(curve):
    svr = SVR(kernel="linear", backend="sklearn").fit(*curve[:2])
    with pytest.raises(ValueError, match="read-only"):
        svr.coef_[0, 0] = 1.0
    with pytest.raises(AttributeError):
        svr.coef_ = np.zeros(5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sparse_samples_without_a_support_vector(curve, backend):
    X, y = csr_matrix(curve[0]), np.full(len(curve[1]), 3.0)
    svr = SVR(kernel="linear", backend=backend).fit(X, y)
    assert svr.dual_coef_.shape == (1, 0) and svr.coef_.shape == (1, 5) and svr.coef_.nnz == 0
    np.testing.assert_allclose(svr.predict(X), 3.0)


def test_integer_targets_and_columns_of_targets(curve):
    X, y, X_test, _ = curve
    whole = np.round(10 * y).astype(np.int64)
    expected = sklearn.svm.SVR().fit(X, whole).predict(X_test)
    np.testing.assert_allclose(SVR(backend="sklearn").fit(X, whole).predict(X_test), expected, atol=1e-6)
    with pytest.warns(UserWarning, match="column-vector"):
        SVR(backend="sklearn").fit(X, whole[:, None])


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_iter_warns_with_its_cure(curve, backend):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svr = SVR(max_iter=3, backend=backend).fit(*curve[:2])
    messages = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(messages) == 1 and messages[0].startswith(
        "Solver terminated early (max_iter=3).  Consider pre-processing your data with StandardScaler"
    )
    assert svr.fit_status_ == 1 and np.isfinite(svr.dual_coef_).all()


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_goes_on_from_where_it_stopped(curve, backend):
    X, y, _, _ = curve
    svr = SVR(max_iter=50, warm_start=True, backend=backend)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        before = certify(svr.fit(X, y).model_, X, y).total_dual_objective
    svr.set_params(max_iter=-1).fit(X, y)
    found = certify(svr.model_, X, y)
    assert found.max_kkt_gap <= 2e-3 and found.total_dual_objective > before
    done = svr.n_iter_
    # At the tolerance itself rounding decides whether there is something left to do; at twice it
    # there is not.
    assert svr.set_params(tol=2e-3).fit(X, y).n_iter_ == 0 < done
    svr.set_params(tol=1e-3)
    svr.set_params(C=0.1).fit(X, y)  # beyond whose bounds the coefficients are
    assert certify(svr.model_, X, y).max_kkt_gap <= 2e-3
    with pytest.raises(UsageError, match=r"sklearn has no warm_start; native-cuda and native-cpu do"):
        svr.set_params(backend="sklearn").fit(X, y)


def test_what_cannot_be_trained_is_refused(curve):
    X, y, _, _ = curve
    with pytest.raises(ValueError, match="Invalid input - all samples have zero or negative weights"):
        SVR(backend="native-cpu").fit(X, y, sample_weight=np.full(len(y), -1.0))
    with pytest.raises(ValueError, match=r"'epsilon' parameter of SVR must be a float in the range \[0\.0, inf\)"):
        SVR(epsilon=-0.1).fit(X, y)
    with pytest.raises(UsageError, match=r"backend sklearnex does not train regression; .*native-cpu.*sklearn.* do"):
        SVR(backend="sklearnex").fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        SVR(backend="sklearn").fit(X, np.where(y > 1, np.nan, y))


def test_native_is_the_one_that_trains_it(curve):
    assert SVR(backend="native").fit(*curve[:2]).backend_ == "native-cpu"
    with pytest.raises(BackendUnavailableError, match="a GPU is required but backend native-cpu runs on the CPU"):
        SVR(require_gpu=True, backend="native-cpu").fit(*curve[:2])


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(curve):
    X, y, X_test, _ = curve
    svr = SVR(backend="sklearn").fit(X, y)
    expected = svr.predict(X_test)
    with pytest.raises(ValueError, match="NaN"):
        svr.fit(np.full_like(X, np.nan), y)
    np.testing.assert_array_equal(svr.predict(X_test), expected)


def test_clone_pickle_search_and_file(curve, tmp_path):
    X, y, X_test, _ = curve
    search = GridSearchCV(SVR(backend="native-cpu"), {"C": [0.01, 10.0]}, cv=3).fit(X, y)
    assert search.best_params_ == {"C": 10.0}
    svr = search.best_estimator_
    assert not hasattr(clone(svr), "model_")
    svr.save(tmp_path / "curve.svm")
    for again in (pickle.loads(pickle.dumps(svr)), SVR.load(tmp_path / "curve.svm")):
        np.testing.assert_array_equal(again.predict(X_test), svr.predict(X_test))
        assert again.epsilon == 0.1 and again.C == 10.0 and again.n_iter_ == svr.n_iter_


def test_float32_data_stay_float32(curve):
    X, y, X_test, _ = curve
    svr = SVR(backend="native-cpu").fit(X.astype(np.float32), y)
    assert svr.support_vectors_.dtype == np.float32
    expected = sklearn.svm.SVR().fit(X, y).predict(X_test)
    np.testing.assert_allclose(svr.predict(X_test.astype(np.float32)), expected, atol=2e-3)

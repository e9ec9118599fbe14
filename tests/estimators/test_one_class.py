from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn.svm
from scipy.sparse import csr_matrix, issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm import SVC, SVR, BackendUnavailableError, OneClassSVM, UsageError, certify

CPU_BACKENDS = ("sklearn", "native-cpu")
BACKENDS = (*CPU_BACKENDS, pytest.param("native-cuda", marks=pytest.mark.gpu))


def expected_failures(estimator):
    """scikit-learn's own list for its OneClassSVM, with its own reason."""
    return {
        f"check_sample_weight_equivalence_on_{kind}_data": (
            "sample_weight is not equivalent to removing/repeating samples."
        )
        for kind in ("dense", "sparse")
    }


@parametrize_with_checks(
    [OneClassSVM(backend=name) for name in CPU_BACKENDS],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_compatible(estimator, check):
    check(estimator)


@pytest.fixture
def cloud(rng):
    """X (600, 6) of two clusters, and a test set (100, 6) half of which is elsewhere."""
    X = rng.normal(size=(600, 6)) + np.where(np.arange(600) % 2, 2.0, -2.0)[:, None]
    return X, np.concatenate([X[:50] + 0.1, rng.uniform(-8, 8, size=(50, 6))])


def test_parameters_are_scikit_learns():
    ours, theirs = OneClassSVM().get_params(), sklearn.svm.OneClassSVM().get_params()
    assert set(theirs) <= set(ours)
    shared = set(theirs) - {"cache_size"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
def test_fitted_attributes_are_scikit_learns(cloud, kernel):
    X, X_test = cloud
    options = {"kernel": kernel, "nu": 0.3, "gamma": 0.1, "coef0": 0.5}
    ours = OneClassSVM(backend="sklearn", **options).fit(X)
    theirs = sklearn.svm.OneClassSVM(**options).fit(X)
    for name in ("support_", "n_support_", "n_iter_", "shape_fit_", "fit_status_", "n_features_in_"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("dual_coef_", "intercept_", "offset_", "support_vectors_", *(["coef_"] if kernel == "linear" else [])):
        assert np.shape(getattr(ours, name)) == np.shape(getattr(theirs, name))
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6, err_msg=name)
    for verb in ("decision_function", "score_samples"):
        np.testing.assert_allclose(getattr(ours, verb)(X_test), getattr(theirs, verb)(X_test), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X_test), theirs.predict(X_test))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"nu": 0.05}, {"kernel": "poly", "coef0": 1.0}, {"gamma": 3.0}])
def test_solves_libsvms_problem(cloud, rng, backend, weighted, options):
    X, X_test = cloud
    weights = rng.uniform(-0.5, 2.0, len(X)) if weighted else None
    options = {"tol": 1e-5} | options
    ours = OneClassSVM(backend=backend, **options).fit(X, sample_weight=weights)
    theirs = sklearn.svm.OneClassSVM(**options).fit(X, sample_weight=weights)
    np.testing.assert_allclose(ours.score_samples(X_test), theirs.score_samples(X_test), atol=1e-3)
    np.testing.assert_allclose(ours.offset_, theirs.offset_, atol=1e-3)
    found = certify(ours.model_, X, sample_weight=weights)
    assert found.max_kkt_gap <= 2e-5 and found.box_violation[0] == 0 and found.equality_violation[0] < 1e-9
    assert found.relative_duality_gap < 1e-3
    assert ours.fit_status_ == 0
    if weighted:
        assert (weights[ours.support_] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_sparse_samples_are_the_same_problem(cloud, backend):
    X, X_test = (np.where(values > 1, values, 0) for values in cloud)
    dense = OneClassSVM(backend=backend, tol=1e-5).fit(X)
    sparse = OneClassSVM(backend=backend, tol=1e-5).fit(csr_matrix(X))
    assert issparse(sparse.support_vectors_) and issparse(sparse.dual_coef_)
    np.testing.assert_allclose(sparse.score_samples(csr_matrix(X_test)), dense.score_samples(X_test), atol=1e-3)
    assert certify(sparse.model_, csr_matrix(X)).max_kkt_gap <= 2e-5


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_nu_bounds_outliers_and_support_vectors(cloud, backend):
    X, _ = cloud
    for nu in (0.05, 0.2, 0.6):
        machine = OneClassSVM(nu=nu, backend=backend, tol=1e-6).fit(X)
        assert (machine.decision_function(X) < -1e-4).mean() <= nu <= len(machine.support_) / len(X)
        assert machine.dual_coef_.sum() == pytest.approx(nu * len(X))


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("n", [400, 600])  # solved by the two ways of that size
def test_where_all_may_be_outside_the_boundary_goes_through_the_innermost(cloud, n, backend):
    X = cloud[0][:n]
    machine = OneClassSVM(nu=1.0, backend=backend).fit(X)
    assert len(machine.support_) == n and (machine.dual_coef_ == 1.0).all()
    np.testing.assert_allclose(machine.offset_[0], machine.score_samples(X).max())
    assert machine.model_.kkt_gap[0] == 0.0 and machine.fit_status_ == 0
    with pytest.raises(ValueError, match="not finite"):  # scikit-learn's answer, and so its backend's
        OneClassSVM(nu=1.0, backend="sklearn").fit(X)


def test_fit_predict_and_labels(cloud):
    X, X_test = cloud
    machine = OneClassSVM(nu=0.1, backend="native-cpu")
    labels = machine.fit_predict(X)
    assert labels.dtype == np.int64 and set(labels.tolist()) == {-1, 1}
    np.testing.assert_array_equal(labels, machine.predict(X))
    np.testing.assert_array_equal(machine.predict(X_test) == 1, machine.decision_function(X_test) > 0)
    assert (machine.predict(X_test[50:]) == -1).mean() > 0.8


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_goes_on_from_where_it_stopped(cloud, backend):
    X, _ = cloud
    machine = OneClassSVM(max_iter=20, warm_start=True, backend=backend, tol=1e-5)
    with pytest.warns(ConvergenceWarning, match="max_iter=20"):
        machine.fit(X)
    machine.set_params(max_iter=-1).fit(X)
    cold = OneClassSVM(backend="native-cpu", tol=1e-5).fit(X)
    assert 0 < machine.n_iter_ < cold.n_iter_
    np.testing.assert_allclose(machine.score_samples(X), cold.score_samples(X), atol=1e-3)
    machine.set_params(nu=0.2).fit(X)  # with another sum of the coefficients, too
    expected = OneClassSVM(nu=0.2, backend="native-cpu", tol=1e-5).fit(X)
    assert machine.dual_coef_.sum() == pytest.approx(0.2 * len(X))
    np.testing.assert_allclose(machine.score_samples(X), expected.score_samples(X), atol=1e-3)


def test_what_cannot_be_trained_is_refused(cloud):
    X, _ = cloud
    for backend in CPU_BACKENDS:
        with pytest.raises(ValueError, match="Invalid input - all samples have zero or negative weights"):
            OneClassSVM(backend=backend).fit(X, sample_weight=np.full(len(X), -1.0))
    with pytest.raises(ValueError, match=r"'nu' parameter of OneClassSVM must be a float in the range \(0\.0, 1\.0\]"):
        OneClassSVM(nu=1.5).fit(X)
    with pytest.raises(
        UsageError, match="cuml does not train novelty detection; native-cuda, native-cpu and sklearn do"
    ):
        OneClassSVM(backend="cuml").fit(X)
    with pytest.raises(BackendUnavailableError, match="auto trains no novelty detection; use --backend native-cuda"):
        OneClassSVM(require_gpu=True).fit(X)


def test_pickle_and_file(cloud, tmp_path):
    X, X_test = cloud
    machine = OneClassSVM(nu=0.2, backend="native-cpu").fit(X)
    machine.save(tmp_path / "cloud.svm")
    for again in (pickle.loads(pickle.dumps(machine)), OneClassSVM.load(tmp_path / "cloud.svm")):
        np.testing.assert_array_equal(again.decision_function(X_test), machine.decision_function(X_test))
        np.testing.assert_array_equal(again.predict(X_test), machine.predict(X_test))
        assert again.nu == 0.2
    for other in (SVR, SVC):
        with pytest.raises(UsageError, match=f"the model is one of one_class, which {other.__name__} is not"):
            other.load(tmp_path / "cloud.svm")

"""`from gpusvm import SVC` where a script had `from sklearn.svm import SVC`."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import sklearn.svm
from scipy.sparse import csr_array
from sklearn.datasets import make_blobs, make_classification
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, certify, load_model

BACKENDS = ("native-cpu", "sklearn")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


# -- a hard margin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_hard_margin_is_scikit_learns(backend, kernel, tmp_path):
    X, y = make_blobs(300, centers=3, cluster_std=0.3, random_state=0)
    ours = SVC(C=np.inf, kernel=kernel, backend=backend, tol=1e-6).fit(X, y)
    theirs = sklearn.svm.SVC(C=np.inf, kernel=kernel, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    found = certify(ours.model_, X, y)
    assert found.max_kkt_gap <= 2e-6 and found.relative_duality_gap < 1e-5
    assert found.box_violation.max() == 0 and np.isfinite(found.primal_objective).all()
    assert ours.fit_status_ == 0
    ours.save(tmp_path / "m.svm")
    assert np.inf == load_model(tmp_path / "m.svm").problem.C
    np.testing.assert_array_equal(SVC.load(tmp_path / "m.svm").decision_function(X), ours.decision_function(X))


def test_a_hard_margin_takes_weights_and_leaves_out_those_of_zero(backend):
    X, y = make_blobs(100, centers=2, cluster_std=0.3, random_state=1)
    X[0], weights = X[y != y[0]][0], np.ones(100)  # a label that would make it inseparable
    weights[0] = 0
    svc = SVC(C=np.inf, kernel="linear", backend=backend).fit(X, y, weights)
    assert svc.fit_status_ == 0 and 0 not in svc.support_
    assert certify(svc.model_, X, y, sample_weight=weights).relative_duality_gap < 0.01


def test_without_a_hard_margin_training_ends_by_max_iter_and_says_so(backend):
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    svc = SVC(C=np.inf, kernel="linear", max_iter=2000, backend=backend)
    with pytest.warns(ConvergenceWarning, match="Solver terminated early"):
        svc.fit(X, y)
    assert svc.fit_status_ == 1
    found = certify(svc.model_, X, y)
    assert np.isinf(found.primal_objective).all() and found.relative_duality_gap == 1


def test_without_a_hard_margin_libsvms_bound_ends_training(backend, monkeypatch):
    monkeypatch.setattr("gpusvm.params.MOST_ITERATIONS", 20_000)
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"with a hard margin \(C=inf\) no machine separates|use a finite C"):
        SVC(C=np.inf, kernel="linear", backend=backend).fit(X, y)


def test_coefficients_without_end_are_an_error_that_says_why(backend):
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    X, y = np.r_[X, X[:5]], np.r_[y, 1 - y[:5]]
    with pytest.raises(ValueError, match="The dual coefficients or intercepts are not finite"):
        SVC(C=np.inf, kernel="sigmoid", backend=backend).fit(X, y)


def test_metrics_of_a_hard_margin_are_json(tmp_path):
    from gpusvm.output import write_json

    write_json(tmp_path / "m.json", {"C": np.inf, "gaps": np.array([1.0, np.nan]), "n": 3})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {"C": "inf", "gaps": [1.0, "nan"], "n": 3}


# -- weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(40), "Invalid input - all samples have zero or negative weights."),
        (-np.ones(40), "Invalid input - all samples have zero or negative weights."),
        (np.where(np.arange(40) < 20, 1.0, -1.0), "all samples with positive weights belong to the same class"),
        (np.ones(39), "sample_weight and X have incompatible shapes"),
        (np.ones((40, 1)), "sample_weight and X have incompatible shapes"),
        (np.full(40, np.nan), "NaN"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_scikit_learns_words(backend, rng, weights, message):
    with pytest.raises(ValueError, match=message):
        SVC(backend=backend).fit(rng.normal(size=(40, 3)), np.arange(40) // 20, sample_weight=weights)


def test_samples_of_zero_or_negative_weight_take_no_part(backend, rng):
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    weights = rng.uniform(-1, 2, 60)
    weights[:5] = 0
    ours = SVC(backend=backend, tol=1e-6).fit(X, y, weights)
    theirs = sklearn.svm.SVC(tol=1e-6).fit(X, y, weights)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    assert (weights[ours.support_] > 0).all()


# -- what else scripts rely on --------------------------------------------------------------------------


def test_weights_of_the_features_cannot_be_changed_in_silence(backend, rng):
    svc = SVC(kernel="linear", backend=backend).fit(rng.normal(size=(20, 3)), np.arange(20) % 2)
    with pytest.raises(AttributeError):
        svc.coef_ = np.ones((1, 3))
    with pytest.raises(ValueError, match="read-only"):
        svc.coef_[0, 0] = 0


def test_sparse_precomputed_values_are_refused_in_scikit_learns_words():
    with pytest.raises(TypeError, match="Sparse precomputed kernels are not supported"):
        SVC(kernel="precomputed").fit(csr_array(np.eye(4)), [0, 1, 0, 1])


def test_an_early_end_is_said_in_words_by_which_scripts_filter(backend, rng):
    X, y = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"Solver terminated early.*", category=ConvergenceWarning)
        SVC(C=100, max_iter=1, backend=backend).fit(X, y)

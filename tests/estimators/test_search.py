"""SVCSearchCV against GridSearchCV over the same SVC."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm import SVC, SVCSearchCV
from gpusvm.kernels import Kernel

GRID = {"C": [0.3, 30.0, 3.0], "gamma": [0.02, 0.2]}


def native(**parameters):
    return SVC(backend="native-cpu", **parameters)


@parametrize_with_checks(
    [SVCSearchCV({"C": [0.1, 1.0]}, cv=2), SVCSearchCV({"C": [0.1, 1.0]}, svc=native(kernel="linear"), cv=2)],
    expected_failed_checks=lambda estimator: {
        f"check_sample_weight_equivalence_on_{kind}_data": "weights are not repetitions in cross-validation"
        for kind in ("dense", "sparse")
    },
)
def test_scikit_learn_compatible(estimator, check):
    check(estimator)


def data(n_classes=3, n=240):
    X, y = make_blobs(n, 5, centers=n_classes, cluster_std=6.0, random_state=7)
    return X, np.array(["ash", "beech", "cedar"])[y]


def compare(X, y, grid=GRID, svc=None, together=True, fit=None, **options):
    svc = svc or native(tol=1e-5)
    theirs = GridSearchCV(svc, grid, **options).fit(X, y, **(fit or {}))
    ours = SVCSearchCV(grid, svc=svc, **options).fit(X, y, **(fit or {}))
    assert ours.solved_together_ == together
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    for name, values in theirs.cv_results_.items():
        found = ours.cv_results_[name]
        if name == "params":
            assert found == values
        elif name.startswith("param_"):
            assert type(found) is type(values)
            np.testing.assert_array_equal(found, values)
        elif "time" not in name:
            np.testing.assert_allclose(found, values, atol=1e-12, err_msg=name)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "multimetric_"):
        assert hasattr(ours, name) == hasattr(theirs, name)
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    return ours, theirs


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", "f1_macro"])
def test_results_are_those_of_grid_search(n_classes, scoring):
    X, y = data(n_classes)
    ours, theirs = compare(X, y, scoring=scoring)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-6)
    assert ours.score(X, y) == theirs.score(X, y)
    assert list(ours.classes_) == list(theirs.classes_)
    assert (ours.cv_results_["mean_fit_time"] > 0).all()


@pytest.mark.parametrize("svc", [
    native(class_weight="balanced"), native(kernel="linear"), native(kernel="poly", degree=2, coef0=1.0),
    native(gamma="scale", decision_function_shape="ovo"),
])  # fmt: skip
def test_other_parameters_are_the_svcs(svc):
    X, y = data()
    X, y = X[y != "ash"][30:], y[y != "ash"][30:]
    compare(StandardScaler().fit_transform(X), y, {"C": [0.1, 3.0]}, svc.set_params(tol=1e-5), cv=3)


def test_grids_may_be_several_and_name_other_parameters():
    X, y = data()
    grids = [
        {"kernel": ["rbf"], "C": [1.0, 10.0], "gamma": ["scale", 0.01]},
        {"kernel": ["linear"], "C": [0.01, 0.1], "class_weight": [None, "balanced", {"ash": 2.0}]},
    ]
    compare(StandardScaler().fit_transform(X), y, grids, cv=3)


def test_samples_far_from_the_origin_are_moved_for_the_rbf_kernel_alone():
    """Its distances stay as they are. Values of a polynomial do not."""
    X, y = data(n=150)
    X = StandardScaler().fit_transform(X) + 15.0
    grids = [
        {"kernel": ["rbf"], "gamma": [0.1, 0.3]},
        {"kernel": ["poly"], "degree": [2], "gamma": [0.02], "coef0": [-10.0], "C": [0.01, 1.0]},
    ]
    compare(X, y, grids, cv=3, scoring="balanced_accuracy")


@pytest.mark.parametrize("cv", [
    3, KFold(3, shuffle=True, random_state=1), StratifiedKFold(4), ShuffleSplit(3, test_size=0.3, random_state=2),
], ids=repr)  # fmt: skip
def test_any_splitter_serves(cv):
    compare(*data(), cv=cv)


def test_groups_stay_together_and_weights_count(rng):
    X, y = data()
    groups, weights = rng.integers(0, 12, len(y)), rng.uniform(0.1, 3, len(y))
    compare(X, y, cv=GroupKFold(3), fit={"groups": groups, "sample_weight": weights})


def test_several_scores_and_a_refit_by_one_of_them():
    scores = {"accuracy": "accuracy", "auc": "roc_auc"}
    ours, _ = compare(*data(2), scoring=scores, refit="auc")
    assert ours.multimetric_


def test_a_refit_by_a_function_of_the_results():
    compare(*data(), refit=lambda results: int(np.argmin(results["mean_test_score"])))


def test_no_refit_leaves_no_machine():
    ours, _ = compare(*data(), refit=False)
    with pytest.raises(AttributeError):
        ours.predict(data()[0])


def test_samples_may_be_sparse():
    X, y = data()
    X[np.abs(X) < 4] = 0
    compare(scipy.sparse.csr_array(X), y)


def test_kernel_values_may_be_given():
    X, y = data()
    K = Kernel("rbf", 0.02)(X, X)
    compare(K, y, {"C": [0.1, 1.0, 10.0]}, native(kernel="precomputed", tol=1e-5))


def test_it_is_the_last_step_of_a_pipeline():
    X, y = data()
    search = make_pipeline(StandardScaler(), SVCSearchCV(GRID, cv=3)).fit(X, y)
    assert search.score(X, y) > 0.7
    assert len(cross_val_predict(clone(search), X, y, cv=3)) == len(y)


@pytest.mark.parametrize("svc", [
    SVC(backend="sklearn"), native(break_ties=True), native(max_iter=10_000), native(cache_size=5.0),
    native(kernel="sigmoid", gamma=0.01),
], ids=repr)  # fmt: skip
def test_what_cannot_be_solved_together_is_fitted_one_by_one(svc):
    n = 90 if svc.cache_size == "auto" else 1500
    X, y = data(n=n)
    compare(X, y, {"C": [0.1, 1.0]}, svc, together=False, cv=3)


def test_a_kernel_that_is_a_function_may_be_searched_from():
    """The samples are then what the function takes, and its values are never taken for
    features."""
    calls = []

    def linear(A, B):
        calls.append(len(A))
        return A @ B.T

    X, y = data(n=90)
    compare(X, y, {"kernel": ["rbf"], "gamma": [0.01, 3.0]}, native(kernel=linear), together=False, cv=3)
    assert not calls


def test_a_score_of_ones_own_sees_the_samples():
    def score(estimator, X, y):
        return float(X[estimator.predict(X) == y, 0].mean())

    compare(*data(), scoring=score, together=False)
    compare(*data(), scoring=make_scorer(lambda y, found: (y == found).mean()), together=False)


def test_training_scores_are_there_when_asked_for():
    ours, _ = compare(*data(), return_train_score=True, together=False)
    assert "mean_train_score" in ours.cv_results_


def test_a_parameter_out_of_its_range_is_the_failure_of_its_trainings():
    X, y = data()
    with pytest.warns(FitFailedWarning):
        ours = SVCSearchCV({"C": [-1.0, 1.0]}, error_score=0.0).fit(X, y)
    assert ours.best_params_ == {"C": 1.0}
    with pytest.raises(ValueError, match="'C' parameter"):
        SVCSearchCV({"C": [-1.0, 1.0]}, error_score="raise").fit(X, y)


def test_the_default_grid_follows_the_data():
    X, y = data()
    search = SVCSearchCV(cv=2, refit=False).fit(X, y)
    scale = 1 / (X.shape[1] * X.var())
    assert min(search.param_grid_["gamma"]) < scale < max(search.param_grid_["gamma"])
    assert max(search.param_grid_["C"]) / min(search.param_grid_["C"]) == pytest.approx(1e5)
    assert set(SVCSearchCV(svc=native(kernel="linear"), cv=2, refit=False).fit(X, y).param_grid_) == {"C"}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(n_jobs):
    X, y = data()
    one = SVCSearchCV(GRID, scoring="neg_mean_absolute_error", n_jobs=n_jobs, refit=False)
    scores = one.fit(X, (y == "ash").astype(int)).cv_results_["mean_test_score"]
    again = SVCSearchCV(GRID, scoring="neg_mean_absolute_error", n_jobs=3, refit=False)
    np.testing.assert_array_equal(again.fit(X, (y == "ash").astype(int)).cv_results_["mean_test_score"], scores)

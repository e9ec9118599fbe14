"""Folds solved together, against trainings one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_blobs
from sklearn.model_selection import KFold, StratifiedKFold

from gpusvm import SVC
from gpusvm.backends.folds import out_of_fold_decisions
from gpusvm.errors import UsageError
from gpusvm.kernels import Kernel
from gpusvm.params import Problem, Resources, Stopping

KERNEL = Kernel("rbf", 0.1)


def data(n_classes, n=300):
    X, y = make_blobs(n, 5, centers=n_classes, cluster_std=4.0, random_state=3)
    return X.astype(np.float32), y


def one_by_one(X, y, folds, n_pairs, **parameters):
    decisions = np.full((len(y), n_pairs), np.nan)
    for train, test in folds:
        svc = SVC(backend="native-cpu", gamma=KERNEL.gamma, decision_function_shape="ovo", **parameters)
        decisions[test] = svc.fit(X[train], y[train]).model_.pair_decisions(X[test])
    return decisions


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("C", [1.0, 50.0])
def test_decisions_are_those_of_trainings_one_by_one(n_classes, form, C):
    X, y = data(n_classes)
    folds = list(StratifiedKFold(4).split(X, y))
    theirs = one_by_one(X, y, folds, n_classes * (n_classes - 1) // 2, C=C, tol=1e-5)
    ours = out_of_fold_decisions(form(X), y, Problem(KERNEL, C), Stopping(tol=1e-5), Resources(), folds)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_kernel_values_may_be_given():
    X, y = data(3)
    K, folds = KERNEL(X, X), list(StratifiedKFold(3).split(X, y))
    theirs = out_of_fold_decisions(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(), folds)
    ours = out_of_fold_decisions(K, y, Problem(Kernel("precomputed")), Stopping(tol=1e-5), Resources(), folds)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_weights_of_classes_and_samples_count(rng):
    X, y = data(3)
    weights, factors = rng.uniform(0.2, 2, len(y)), (1.0, 2.0, 0.5)
    weights[:10] = 0
    folds = list(StratifiedKFold(3).split(X, y))
    found = out_of_fold_decisions(
        X, y, Problem(KERNEL, 1.0, factors), Stopping(tol=1e-5), Resources(), folds, sample_weight=weights
    )
    for train, test in folds:
        svc = SVC(backend="native-cpu", gamma=KERNEL.gamma, class_weight=dict(enumerate(factors)), tol=1e-5)
        theirs = svc.fit(X[train], y[train], weights[train]).model_.pair_decisions(X[test])
        np.testing.assert_allclose(found[test], theirs, atol=1e-4)


def test_a_sigmoid_kernel_finds_what_a_training_finds():
    X, y = data(2)
    folds, kernel = list(StratifiedKFold(3).split(X, y)), Kernel("sigmoid", 0.02)
    found = out_of_fold_decisions(X, y, Problem(kernel, 10.0), Stopping(), Resources(), folds)
    for train, test in folds:
        svc = SVC(backend="native-cpu", kernel="sigmoid", gamma=0.02, C=10.0).fit(X[train], y[train])
        np.testing.assert_array_equal(found[test], svc.model_.pair_decisions(X[test]))


def test_without_memory_for_all_kernel_values_folds_are_trained_one_by_one():
    X, y = data(2, n=1200)
    folds = list(StratifiedKFold(3).split(X, y))
    ample = out_of_fold_decisions(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(), folds)
    scarce = out_of_fold_decisions(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(cache_size=5), folds)
    np.testing.assert_allclose(scarce, ample, atol=1e-4)


def test_a_class_that_a_fold_lacks_has_no_decisions_there():
    X, y = data(3)
    order = np.argsort(y, kind="stable")
    folds = list(KFold(3).split(X[order]))
    found = out_of_fold_decisions(X[order], y[order], Problem(KERNEL), Stopping(), Resources(), folds)
    lacking = np.isnan(found)
    assert (lacking.sum(axis=1) == 2).all(), "of three pairs, that of the two other classes is there"


def test_a_fold_of_one_class_is_refused():
    X, y = data(2)
    order = np.argsort(y, kind="stable")
    folds = list(KFold(2).split(X))
    with pytest.raises(UsageError, match="fold 0 trains on samples of one class"):
        out_of_fold_decisions(X[order], y[order], Problem(KERNEL), Stopping(), Resources(), folds)

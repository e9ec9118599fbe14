"""Folds solved together, against trainings one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_blobs
from sklearn.model_selection import KFold, StratifiedKFold

from gpusvm import SVC
from gpusvm.backends import held_out
from gpusvm.backends.folds import Column, Fold, FoldedData, shares_values, solve_columns, solved_together
from gpusvm.backends.native import backend as native_cpu
from gpusvm.backends.native_cuda import backend as native_cuda
from gpusvm.backends.own_pairs import has_many_small_pairs, own_decisions_of_small
from gpusvm.kernels import Kernel
from gpusvm.pairs import own_pairs
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


def decided(X, y, problem, stopping, resources, folds, sample_weight=None):
    """The decision values (n, n_pairs) of all samples, each held out by a fold."""
    folded = FoldedData(X, y, [Fold(*fold) for fold in folds], problem.class_weight, sample_weight)
    decisions = np.full((X.shape[0], len(folded.pairs)), np.nan)

    def keep(cell):
        decisions[folded.folds[cell.fold].test] = cell.decisions

    solve_columns(folded, [Column([problem.kernel] * len(folds), (problem.C,))], stopping, resources, keep)
    return decisions


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("C", [1.0, 50.0])
def test_decisions_are_those_of_trainings_one_by_one(n_classes, form, C):
    X, y = data(n_classes)
    folds = list(StratifiedKFold(4).split(X, y))
    theirs = one_by_one(X, y, folds, n_classes * (n_classes - 1) // 2, C=C, tol=1e-5)
    ours = decided(form(X), y, Problem(KERNEL, C), Stopping(tol=1e-5), Resources(), folds)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_pairs_that_a_larger_C_does_not_change_decide_as_before():
    """Of some pairs of these classes coefficients are at their bound, of others none is."""
    X, y = make_blobs(300, 5, centers=4, cluster_std=[4.0, 4.0, 0.1, 0.1], random_state=3)
    X, Cs = X.astype(np.float32), (0.3, 1.0, 3.0, 10.0)
    folded = FoldedData(X, y, [Fold(*fold) for fold in StratifiedKFold(3).split(X, y)])
    found = {}
    solve_columns(
        folded, [Column([KERNEL] * 3, Cs)], Stopping(tol=1e-5), Resources(),
        lambda cell: found.__setitem__((cell.c, cell.fold), cell.decisions),
    )  # fmt: skip
    for c, C in enumerate(Cs):
        theirs = one_by_one(X, y, [(fold.train, fold.test) for fold in folded.folds], 6, C=C, tol=1e-5)
        for k, fold in enumerate(folded.folds):
            np.testing.assert_allclose(found[c, k], theirs[fold.test], atol=1e-4)
    unchanged = [(found[c, 0] == found[c + 1, 0]).all(axis=0).sum() for c in range(3)]
    assert any(0 < n < 6 for n in unchanged), unchanged


def test_kernel_values_may_be_given():
    X, y = data(3)
    K, folds = KERNEL(X, X), list(StratifiedKFold(3).split(X, y))
    theirs = decided(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(), folds)
    ours = decided(K, y, Problem(Kernel("precomputed")), Stopping(tol=1e-5), Resources(), folds)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_weights_of_classes_and_samples_count(rng):
    X, y = data(3)
    weights, factors = rng.uniform(0.2, 2, len(y)), (1.0, 2.0, 0.5)
    weights[:10] = 0
    folds = list(StratifiedKFold(3).split(X, y))
    found = decided(X, y, Problem(KERNEL, 1.0, factors), Stopping(tol=1e-5), Resources(), folds, sample_weight=weights)
    for train, test in folds:
        svc = SVC(backend="native-cpu", gamma=KERNEL.gamma, class_weight=dict(enumerate(factors)), tol=1e-5)
        theirs = svc.fit(X[train], y[train], weights[train]).model_.pair_decisions(X[test])
        np.testing.assert_allclose(found[test], theirs, atol=1e-4)


def test_without_memory_for_all_kernel_values_folds_are_trained_one_by_one():
    X, y = data(2, n=1200)
    folds = list(StratifiedKFold(3).split(X, y))
    ample = decided(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(), folds)
    scarce = decided(X, y, Problem(KERNEL), Stopping(tol=1e-5), Resources(cache_size=5), folds)
    np.testing.assert_allclose(scarce, ample, atol=1e-4)


LIMITS = [Stopping(max_iter=10), Stopping(time_limit=1.0)]


@pytest.mark.parametrize(
    ("kernel", "stopping"),
    [(Kernel("sigmoid", 0.02), Stopping()), *((KERNEL, limit) for limit in LIMITS)],
)
def test_what_is_not_the_same_from_another_start_is_trained_by_itself(kernel, stopping):
    X, y = data(2)
    folded = FoldedData(X, y, [Fold(*fold) for fold in StratifiedKFold(3).split(X, y)])
    assert solved_together(folded, KERNEL, [1.0], Stopping())
    assert not solved_together(folded, kernel, [1.0], stopping)


def test_a_fold_that_lacks_a_class_is_trained_by_itself():
    X, y = data(3)
    order = np.argsort(y, kind="stable")
    folded = FoldedData(X[order], y[order], [Fold(*fold) for fold in KFold(3).split(X)])
    assert not solved_together(folded, KERNEL, [1.0], Stopping())


@pytest.mark.parametrize(("n", "cache_size", "shares"), [(300, None, False), (1200, None, True), (1200, 5, False)])
def test_folds_share_kernel_values_where_a_training_needs_all_of_them(n, cache_size, shares):
    X, y = data(2, n)
    folded = FoldedData(X, y, [Fold(*fold) for fold in StratifiedKFold(3).split(X, y)])
    assert shares_values(native_cpu, folded, Problem(KERNEL), Stopping(), Resources(cache_size)) == shares
    assert shares_values(native_cuda, folded, Problem(KERNEL), Stopping(), Resources(cache_size)), "a GPU always does"


@pytest.mark.parametrize("form", ["float64", "float32", "sparse", "precomputed"])
@pytest.mark.parametrize("kernel", ["rbf", "linear", "sigmoid"])
@pytest.mark.parametrize("n_classes", [2, 3, 17])
def test_values_in_own_pairs_are_those_of_all_pairs(rng, form, kernel, n_classes):
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, 6 * n_classes))
    X = rng.normal(size=(n_classes, 4))[y] + rng.normal(size=(len(y), 4))
    weights = np.ones(len(y))
    if n_classes > 2:
        weights[y == 1] = 0  # a class that has no support vectors
    X = {"sparse": scipy.sparse.csr_array(X), "precomputed": X @ X.T}.get(
        form, X.astype("f4" if form == "float32" else "f8")
    )
    svc = SVC(kernel="precomputed" if form == "precomputed" else kernel, gamma=0.2, backend="sklearn")
    model = svc.fit(X, y, weights).model_
    rows = rng.permutation(len(y))[: len(y) // 2]
    expected = np.take_along_axis(model.pair_decisions(X[rows]), own_pairs(n_classes)[y[rows]], axis=1)
    np.testing.assert_allclose(held_out._own_decisions(model, X, rows, y[rows]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["float64", "float32", "sparse", "precomputed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_folds_of_many_small_classes_decide_as_trainings_one_by_one(rng, form, weighted):
    y = np.append(np.arange(12), rng.integers(0, 12, 90))  # of the smallest classes a fold may hold out all
    X = rng.normal(size=(12, 4))[y] * 2 + rng.normal(size=(len(y), 4))
    weights = rng.uniform(0.2, 2, len(y)) if weighted else np.ones(len(y))
    folds = [np.flatnonzero(np.arange(len(y)) % 3 == k) for k in range(3)]
    parts = [Fold(np.setdiff1d(np.arange(len(y)), part), part) for part in folds]
    kernel = Kernel("precomputed") if form == "precomputed" else KERNEL
    X = {"sparse": scipy.sparse.csr_array(X), "precomputed": X @ X.T}.get(
        form, X.astype("f4" if "32" in form else "f8")
    )
    folded = FoldedData(X, y, parts, None, weights)
    stopping = Stopping(tol=1e-6)
    assert has_many_small_pairs(folded, stopping)
    reports = []
    found = own_decisions_of_small(
        folded, Problem(kernel, C=3.0), stopping, Resources(n_jobs=2), lambda *pair: reports.append(pair)
    )
    assert len(reports) == 3 * 66
    for part in folds:
        without = np.where(np.isin(np.arange(len(y)), part), 0.0, weights)
        svc = SVC(kernel=kernel.name, gamma=KERNEL.gamma, C=3.0, tol=1e-6, backend="native-cpu").fit(X, y, without)
        expected = np.take_along_axis(svc.model_.pair_decisions(X[part]), own_pairs(12)[y[part]], axis=1)
        np.testing.assert_allclose(found[part], expected, atol=2e-5)


def test_few_large_or_limited_pairs_are_not_solved_as_many_small_ones():
    for n_classes, n, stopping in ((3, 90, Stopping()), (12, 4800, Stopping()), (12, 90, Stopping(time_limit=9.0))):
        y = np.arange(n) % n_classes
        rows = np.arange(n)
        folded = FoldedData(np.zeros((n, 2)), y, [Fold(rows[::2], rows[1::2])])
        assert not has_many_small_pairs(folded, stopping)

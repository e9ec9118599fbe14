from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn.svm
from asking import asked
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, SVR, OneClassSVM, certificate, certify
from gpusvm.backends import get_backend
from gpusvm.certificate import pair_gap
from gpusvm.errors import DataError
from gpusvm.kernels import Kernel


def test_two_points_by_hand():
    """x = -1, +1 with a linear kernel: alpha = 1/2 each, w = 1, dual and primal objective 1/2."""
    X, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
    model = SVC(kernel="linear", C=10, backend="sklearn").fit(X, y).model_
    found = certify(model, X, y)
    assert found.dual_objective[0] == pytest.approx(0.5)
    assert found.primal_objective[0] == pytest.approx(0.5)
    assert found.max_kkt_gap == pytest.approx(0.0, abs=1e-12)
    assert found.equality_violation[0] == found.box_violation[0] == 0


def by_definition(model, X, y):
    """Gap and objectives of every pair from its own kernel matrix, in float64."""
    results = []
    alphas = np.zeros((model.n_classes - 1, len(y)))
    alphas[:, model.support_indices] = model.dual_coef
    for p, (i, j) in enumerate(model.pairs):
        rows = np.flatnonzero((y == model.classes[i]) | (y == model.classes[j]))
        signs = np.where(y[rows] == model.classes[i], 1.0, -1.0)
        signed = np.where(signs > 0, alphas[j - 1, rows], alphas[i, rows])
        Xp = X[rows].astype(np.float64)
        K = Kernel("rbf", model.kernel.gamma)(Xp, Xp)
        f = K @ signed
        alpha, C = signed * signs, model.problem.C
        v = signs - f
        up = ((signs > 0) & (alpha < C)) | ((signs < 0) & (alpha > 0))
        low = ((signs < 0) & (alpha < C)) | ((signs > 0) & (alpha > 0))
        hinge = np.maximum(0, 1 - signs * (f + model.intercept[p])).sum()
        results.append((v[up].max() - v[low].min(), alpha.sum() - signed @ f / 2, signed @ f / 2 + C * hinge))
    return np.array(results).T


def test_figures_are_their_definitions(digits, digits_model):
    found = certify(digits_model, digits[0], digits[1])
    gap, dual, primal = by_definition(digits_model, digits[0], digits[1])
    np.testing.assert_allclose(found.kkt_gap, gap, atol=1e-9)
    np.testing.assert_allclose(found.dual_objective, dual, rtol=1e-9)
    np.testing.assert_allclose(found.primal_objective, primal, rtol=1e-9)


def test_a_regression_by_hand():
    """x = -1, +1 and y = x, linear kernel, epsilon 0.1: w = 0.9, coefficients -0.45 and 0.45."""
    X = np.array([[-1.0], [1.0]])
    model = SVR(kernel="linear", C=10, backend="sklearn").fit(X, X[:, 0]).model_
    found = certify(model, X, X[:, 0])
    assert model.dual_coef.tolist() == [pytest.approx([-0.45, 0.45])]
    assert found.dual_objective[0] == pytest.approx(0.405) == found.primal_objective[0]
    assert found.max_kkt_gap == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(DataError, match="needs the labels or targets"):
        certify(model, X)
    with pytest.raises(DataError, match=r"got 2 rows and 3 targets, the model was trained on 2 rows"):
        certify(model, X, np.zeros(3))
    with pytest.raises(DataError, match="its rows differ"):
        certify(model, X + 1, X[:, 0])


def test_a_regressions_figures_are_their_definitions(digits):
    X, y, weights = digits[0][:200].astype(float), digits[1][:200].astype(float), np.linspace(0, 2, 200)
    svr = SVR(C=3, epsilon=0.5, gamma=0.02, backend="sklearn").fit(X, y, sample_weight=weights)
    found, f, K = certify(svr.model_, X, y, sample_weight=weights), svr.predict(X), Kernel("rbf", 0.02)(X, X)
    beta = np.zeros(200)
    beta[svr.support_] = svr.dual_coef_[0]
    alpha, star = np.maximum(beta, 0), np.maximum(-beta, 0)
    w2 = beta @ K @ beta
    assert found.dual_objective[0] == pytest.approx(y @ beta - 0.5 * (alpha + star).sum() - w2 / 2, rel=1e-9)
    losses = 3 * weights * np.maximum(0, np.abs(y - f) - 0.5)
    assert found.primal_objective[0] == pytest.approx(w2 / 2 + losses.sum(), rel=1e-7)
    v = np.concatenate([y - 0.5 - K @ beta, y + 0.5 - K @ beta])
    C, alive = 3 * weights, np.tile(weights > 0, 2)
    up, low = np.concatenate([alpha < C, star > 0]) & alive, np.concatenate([alpha > 0, star < C]) & alive
    assert found.max_kkt_gap == pytest.approx(v[up].max() - v[low].min(), abs=1e-9)


def test_a_one_class_models_figures_are_their_definitions(digits):
    X, weights = digits[0][:200].astype(float), np.linspace(0, 2, 200)
    machine = OneClassSVM(nu=0.3, gamma=0.02, backend="sklearn").fit(X, sample_weight=weights)
    found, f, K = certify(machine.model_, X, sample_weight=weights), machine.decision_function(X), Kernel("rbf", 0.02)
    alpha = np.zeros(200)
    alpha[machine.support_] = machine.dual_coef_[0]
    w2 = alpha @ K(X, X) @ alpha
    assert found.dual_objective[0] == pytest.approx(-w2 / 2)
    primal = w2 / 2 - machine.offset_[0] * 0.3 * weights.sum() + weights @ np.maximum(0, -f)
    assert found.primal_objective[0] == pytest.approx(primal)
    assert found.max_kkt_gap <= 2e-3 and found.equality_violation[0] < 1e-12


def test_a_converged_model_is_within_its_tolerance(digits, digits_model):
    found = certify(digits_model, digits[0], digits[1])
    assert found.max_kkt_gap <= 1.01e-3
    assert 0 <= found.relative_duality_gap < 1e-2
    assert found.equality_violation.max() < 1e-10


@pytest.mark.parametrize("wrong", ["coefficients", "intercept", "stopped early"])
def test_a_wrong_model_is_seen_to_be_wrong(digits, digits_model, wrong):
    good = certify(digits_model, digits[0], digits[1])
    if wrong == "coefficients":
        bad = certify(replace(digits_model, dual_coef=digits_model.dual_coef * 1.05), digits[0], digits[1])
        assert bad.max_kkt_gap > 50 * good.max_kkt_gap
    elif wrong == "intercept":
        bad = certify(replace(digits_model, intercept=digits_model.intercept + 0.3), digits[0], digits[1])
        assert bad.relative_duality_gap > 10 * good.relative_duality_gap
    else:
        with pytest.warns(UserWarning, match="max_iter"):
            early = SVC(C=10, gamma=0.05, max_iter=20, backend="sklearn").fit(digits[0], digits[1]).model_
        bad = certify(early, digits[0], digits[1])
        assert bad.max_kkt_gap > 50 * good.max_kkt_gap
        assert bad.total_dual_objective < good.total_dual_objective


def test_a_coefficient_outside_its_box_is_seen(digits, digits_model):
    found = certify(replace(digits_model, problem=replace(digits_model.problem, C=1.0)), digits[0], digits[1])
    assert found.box_violation.max() > 0.1


@pytest.mark.parametrize("other", ["fewer rows", "other order", "other values"])
def test_other_data_are_refused(digits, digits_model, other):
    X, y = digits[0], digits[1]
    if other == "fewer rows":
        X, y = X[:-1], y[:-1]
    elif other == "other order":
        X, y = X[::-1], y[::-1]
    else:
        X = X + 1
    with pytest.raises(DataError, match="training data itself"):
        certify(digits_model, X, y)


@pytest.mark.parametrize("block_values", [2**7, 2**22])
@pytest.mark.parametrize("name", ["rbf", "linear", "poly", "sigmoid", "precomputed"])
def test_the_gap_of_a_pair_is_that_of_its_certificate(digits, rng, monkeypatch, name, block_values):
    monkeypatch.setattr(certificate, "_BLOCK_VALUES", block_values)
    keep = digits[1][:200] < 2
    X, y = digits[0][:200][keep], digits[1][:200][keep]
    weights = rng.uniform(0.1, 2.0, len(y))
    given = Kernel("rbf", gamma=0.02)(X, X) if name == "precomputed" else X
    params = asked(Kernel(name, gamma=0.02), C=0.5, max_iter=15)
    with pytest.warns(ConvergenceWarning):
        model = get_backend("sklearn").fit(given, y, *params, sample_weight=weights)
    ordered = np.argsort(y, kind="stable")
    block = given[ordered][:, ordered] if name == "precomputed" else given[ordered]
    place = np.argsort(ordered)[model.support_indices]
    found = pair_gap(model.kernel, block, int((y == 0).sum()), 0.5 * weights[ordered], place, model.dual_coef[0])
    expected = certify(model, given, y, sample_weight=weights).kkt_gap[0]
    assert found == pytest.approx(expected, rel=1e-6) and found > 2e-3


def test_the_gap_of_distant_samples_is_computed_from_their_float64_distances():
    """From float32 distances, which these samples do not have, the gap of any solution would come
    out as noise."""
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(40, 3)) + 3000.0).astype(np.float32)
    y = np.arange(40) % 2
    order = np.argsort(y, kind="stable")
    svc = sklearn.svm.SVC(C=2.0, gamma=0.3, tol=1e-6).fit(X[order].astype(np.float64), y[order])
    support, dual_coef = svc.support_.astype(np.int64), -svc.dual_coef_[0]
    gap = pair_gap(Kernel("rbf", gamma=0.3), X[order], 20, np.full(40, 2.0), support, dual_coef)
    assert -1e-9 <= gap <= 2e-6


def test_the_gap_of_no_support_vectors_is_that_of_the_start():
    none = np.empty(0, dtype=np.int64)
    assert pair_gap(Kernel("linear"), np.ones((4, 2), np.float32), 2, np.ones(4), none, np.empty(0)) == 2.0

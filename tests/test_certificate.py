from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusvm import SVC, certify
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

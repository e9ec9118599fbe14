"""Probabilities from decision values: each formula against its definition, on random inputs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from gpusvm.calibration import Calibration, fit_sharpness, fit_sigmoids, led_by, price, wu_lin_weng
from gpusvm.pairs import own_pairs


def pair_probabilities(p):
    """r_ij = p_i / (p_i + p_j) for each pair, (n, n_pairs)."""
    return np.stack([p[:, i] / (p[:, i] + p[:, j]) for i, j in combinations(range(p.shape[1]), 2)], axis=1)


def random_probabilities(rng, n, k):
    return rng.dirichlet(np.full(k, 0.5), size=n) * 0.98 + 0.02 / k


# -- sigmoids -------------------------------------------------------------------------------------


def plainly_fitted(values, is_first, weights):
    """Platt's objective, minimised by SciPy."""
    first, second = weights[is_first].sum(), weights[~is_first].sum()
    targets = np.where(is_first, (first + 1) / (first + 2), 1 / (second + 2))

    def loss(parameters):
        z = parameters[0] * values + parameters[1]
        return -weights @ (targets * log_expit(-z) + (1 - targets) * log_expit(z))

    return minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x


def test_sigmoids_are_those_of_a_plain_minimisation(rng):
    values, pair, is_first, weights, expected = [], [], [], [], []
    for p, (n, slope) in enumerate([(400, 1.0), (30, 3.0), (60, 0.0), (50, -1.0), (2000, 0.2)]):
        own = rng.random(n) < rng.uniform(0.2, 0.8)
        f, w = rng.normal(size=n) + slope * np.where(own, 1, -1), rng.uniform(0.2, 2, n)
        values.append(f), pair.append(np.full(n, p)), is_first.append(own), weights.append(w)
        expected.append(plainly_fitted(f, own, w))
    mixed = rng.permutation(sum(map(len, values)))
    arrays = [np.concatenate(parts)[mixed] for parts in (values, pair, is_first, weights)]
    np.testing.assert_allclose(np.column_stack(fit_sigmoids(*arrays, 5)), expected, rtol=1e-3, atol=1e-4)


def test_a_weight_counts_as_so_many_samples(rng):
    values, is_first, times = rng.normal(size=50), rng.random(50) < 0.4, rng.integers(1, 4, 50)
    weighted = fit_sigmoids(values, np.zeros(50, int), is_first, times.astype(float), 1)
    n = times.sum()
    repeated = fit_sigmoids(np.repeat(values, times), np.zeros(n, int), np.repeat(is_first, times), np.ones(n), 1)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_separated_values_do_not_make_for_certainty(scale):
    values = scale * np.array([3.0, 2, 1, -1, -2])
    A, B = fit_sigmoids(values, np.zeros(5, int), values > 0, np.ones(5), 1)
    assert np.isfinite([A, B]).all()
    p = expit(-(A * values + B))
    assert (p[:3] > 0.6).all() and (p[3:] < 0.4).all() and ((p > 0.01) & (p < 0.99)).all()


def test_a_pair_without_samples_is_even(rng):
    A, B = fit_sigmoids(rng.normal(size=9), np.zeros(9, int), np.arange(9) < 4, np.ones(9), 3)
    assert A[1:].tolist() == B[1:].tolist() == [0, 0]


# -- coupling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 7, 40])
def test_pairs_that_agree_give_the_probabilities_they_are_of(rng, n_classes):
    p = random_probabilities(rng, 60, n_classes)
    first = pair_probabilities(p)
    np.testing.assert_allclose(price(logit(first), n_classes, 1.0), p, rtol=1e-9)
    np.testing.assert_allclose(wu_lin_weng(first, n_classes), p, atol=0.005)


@pytest.mark.parametrize("n_classes", [3, 5, 20])
def test_wu_lin_weng_is_the_minimum_to_libsvms_tolerance(rng, n_classes):
    """Its gradient, as LIBSVM stops by it; and close to the solution of the linear system."""
    pairs = list(combinations(range(n_classes), 2))
    first = rng.uniform(0.01, 0.99, (80, len(pairs)))
    found = wu_lin_weng(first, n_classes)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    for row, p in zip(first, found, strict=True):
        r = np.zeros((n_classes, n_classes))
        for (i, j), value in zip(pairs, row, strict=True):
            r[i, j], r[j, i] = value, 1 - value
        Q = np.diag((r * r).sum(axis=0)) - r * r.T
        assert np.abs(Q @ p - p @ Q @ p).max() < 0.005 / n_classes
        system = np.block([[Q, np.ones((n_classes, 1))], [np.ones((1, n_classes)), np.zeros((1, 1))]])
        exact = np.linalg.solve(system, np.append(np.zeros(n_classes), 1))[:-1]
        np.testing.assert_allclose(p, exact, atol=0.02)


def test_many_rows_are_coupled_as_few(rng, monkeypatch):
    first = rng.uniform(0.01, 0.99, (50, 10))
    together = wu_lin_weng(first, 5)
    monkeypatch.setattr("gpusvm.calibration._COUPLED_VALUES", 100)
    np.testing.assert_array_equal(wu_lin_weng(first, 5), together)


@pytest.mark.parametrize("coupling", ["price", "wu_lin_weng"])
def test_extreme_values_give_probabilities(coupling):
    calibration = Calibration(np.full(6, -50.0), np.zeros(6), coupling, 3.0)
    for decisions in (np.full((1, 6), 1e6), np.full((1, 6), -1e6), np.array([[1e6, -1e6, 1e6, 1e6, 1e6, 1e6]])):
        p = calibration.class_probabilities(decisions, 4)
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_the_sharpness_is_found_that_probabilities_were_made_with(rng):
    p = random_probabilities(rng, 20_000, 4)
    logits = logit(pair_probabilities(p))
    sharp = price(logits, 4, 1.7)
    classes = (sharp.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
    assert fit_sharpness(logits, classes, np.ones(len(p)), 4) == pytest.approx(1.7, rel=0.05)


def test_two_classes_have_no_sharpness(rng):
    assert fit_sharpness(rng.normal(size=(9, 1)), rng.integers(0, 2, 9), np.ones(9), 2) == 1.0


@pytest.mark.parametrize("coupling", ["price", "wu_lin_weng"])
def test_classes_in_another_order_have_the_same_probabilities(rng, coupling):
    calibration = Calibration(rng.normal(size=10), rng.normal(size=10), coupling)
    decisions, order = rng.normal(size=(30, 10)), rng.permutation(5)
    first, second = np.array(list(combinations(range(5), 2))).T
    i, j = order[first], order[second]
    place = {pair: p for p, pair in enumerate(combinations(range(5), 2))}
    turned = np.stack(
        [decisions[:, place[min(a, b), max(a, b)]] * (1 if a < b else -1) for a, b in zip(i, j, strict=True)], axis=1
    )
    there = calibration.reordered(order).class_probabilities(turned, 5)
    here = calibration.class_probabilities(decisions, 5)
    np.testing.assert_allclose(there, here[:, order], atol=1e-12 if coupling == "price" else 0.002)


@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_own_pairs_are_each_class_against_each_other_one(n_classes):
    pairs = list(combinations(range(n_classes), 2))
    for c, own in enumerate(own_pairs(n_classes)):
        others = [o for o in range(n_classes) if o != c]
        assert [set(pairs[p]) for p in own] == [{c, o} for o in others]


# -- probabilities that agree with the prediction -------------------------------------------------


def test_the_predicted_class_leads_alone(rng):
    p, winners = random_probabilities(rng, 500, 6), rng.integers(0, 6, 500)
    p[:3], winners[:3] = [[1, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0], np.full(6, 1 / 6)], [5, 1, 3]
    found = led_by(p, winners)
    for as_read in (found, found.astype(np.float32)):
        np.testing.assert_array_equal(as_read.argmax(axis=1), winners)
        assert ((as_read == as_read.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found >= 0).all()
    agreed = p.argmax(axis=1) == winners
    agreed[1] = False  # equal
    np.testing.assert_array_equal(found[agreed], p[agreed])


def test_they_are_the_nearest_that_the_prediction_allows(rng):
    for p, winner in zip(random_probabilities(rng, 15, 5), rng.integers(0, 5, 15), strict=True):
        found = led_by(p[None], np.array([winner]))[0]
        others = [c for c in range(5) if c != winner]
        best = minimize(
            lambda q, p=p: ((q - p) ** 2).sum(), p, method="SLSQP", options={"ftol": 1e-14},
            constraints=[
                {"type": "eq", "fun": lambda q: q.sum() - 1},
                {"type": "ineq", "fun": lambda q, w=winner, o=others: q[w] - q[o]},
            ],
        ).x  # fmt: skip
        np.testing.assert_allclose(found, best, atol=1e-5)


@pytest.mark.parametrize("values", [{"coupling": "softmax"}, {"sharpness": 0.0}, {"sharpness": float("nan")},
                                    {"sharpness": "1"}, {"sharpness": True}, {"coupling": ["price"]}])  # fmt: skip
def test_what_is_no_calibration_is_refused(values):
    with pytest.raises(ValueError, match="must be"):
        Calibration(np.zeros(1), np.zeros(1), **values)

"""Extreme numbers: a converged model, a warning and a finite model, or a ValueError; never NaN,
and never for ever."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, certify

MAX_ITER = 20_000

pytestmark = pytest.mark.parametrize(
    "backend", ["sklearn", "native-cpu", pytest.param("native-cuda", marks=pytest.mark.gpu)]
)


def check(backend, X, y, **parameters):
    svc = SVC(backend=backend, max_iter=MAX_ITER, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            machine = svc.fit(X, y).model_
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            return
    for name in ("dual_coef", "intercept", "support_vectors"):
        assert np.isfinite(getattr(machine, name)).all(), name
    for dtype in (np.float32, np.float64):
        assert np.isfinite(machine.pair_decisions(np.asarray(X, dtype))).all(), dtype
    assert np.isin(machine.predict(np.asarray(X, np.float32)), y).all()
    if not any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        assert certify(machine, X, y).max_kkt_gap <= 2 * svc.tol


@pytest.fixture
def problem(rng):
    """X (60, 5) of three classes that overlap a little, and y."""
    y = np.arange(60) % 3
    return rng.normal(size=(60, 5)) + y[:, None], y


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-20, 1e-10, 1e10, 1e20, 1e30])
def test_features_of_any_size(backend, problem, kernel, scale):
    X, y = problem
    check(backend, X * scale, y, kernel=kernel)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_tiny_and_huge_features_together(backend, problem, kernel):
    X, y = problem
    check(backend, X * np.array([1e-42, 1e-30, 1, 1e10, 1e30]), y, kernel=kernel)


@pytest.mark.parametrize("gamma", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("kernel", ["rbf", "poly", "sigmoid"])
def test_gamma(backend, problem, kernel, gamma):
    check(backend, *problem, kernel=kernel, gamma=gamma)


@pytest.mark.parametrize("C", [1e-8, 1e-4, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_C(backend, problem, kernel, C):
    check(backend, *problem, kernel=kernel, C=C)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_a_quarter_of_a_million_features_of_ten_rows(backend, rng, kernel):
    check(backend, rng.normal(size=(10, 250_000)).astype(np.float32), np.arange(10) % 2, kernel=kernel)


@pytest.mark.parametrize("C", [1.0, 1e12])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_same_rows_with_opposite_labels(backend, rng, kernel, C):
    X = rng.normal(size=(30, 4))
    check(backend, np.tile(X, (4, 1)), np.repeat([0, 1, 0, 1], 30), kernel=kernel, C=C)


@pytest.mark.parametrize("C", [1.0, 1e12])
def test_one_row_alone_with_every_label(backend, C):
    check(backend, np.ones((40, 3)), np.arange(40) % 4, C=C)

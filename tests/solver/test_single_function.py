"""Regression and one-class problems in each way of the solver: a kink at zero, and a sum that is
not zero."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.svm
from scipy.sparse import csr_matrix

from gpusvm.certificate import recomputed_gap
from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.problem import epsilon_svr, one_class
from gpusvm.solver import active_set, growing, solve, tiny, working_set
from gpusvm.sparse import as_csr

KERNEL = Kernel("rbf", gamma=0.3)

WAYS = {"tiny": (200, 2.0), "at once": (600, 2.0), "growing": (2000, 0.5), "active set": (2000, 5.0)}
"""Samples and gamma of a regression that is solved in each way."""


@pytest.fixture
def taken(monkeypatch):
    """The ways that were taken, in their order."""
    ways = []

    def recorded(kind, name):
        original = kind.solve
        monkeypatch.setattr(kind, "solve", lambda self, *args: (ways.append(name), original(self, *args))[1])

    recorded(active_set.ActiveSetSolver, "active set")
    recorded(growing.GrowingSolver, "growing")
    original = tiny._solve_chunk
    monkeypatch.setattr(tiny, "_solve_chunk", lambda *args: (ways.append("tiny"), original(*args))[1])
    return ways


def samples(rng, n):
    X = rng.normal(size=(n, 4))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] + 0.1 * rng.normal(size=n)


def solved(X, problem, kernel=KERNEL, budget_mb=200.0, **stopping):
    (found,) = solve(
        X, [np.arange(X.shape[0])], [problem], kernel, Stopping(**stopping), budget_mb=budget_mb, n_threads=2
    )
    b = found.b
    assert (found.b >= problem.lower).all() and (found.b <= problem.upper).all()
    assert found.b.sum() == pytest.approx(problem.total, abs=1e-12 * (problem.upper - problem.lower).sum())
    assert found.converged and recomputed_gap(kernel, X, problem, b) <= 2 * Stopping(**stopping).tol
    return found, b


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", WAYS)
def test_a_regression_in_each_way(rng, taken, monkeypatch, way, dtype):
    if way == "active set":
        monkeypatch.setattr(working_set, "HARD_FROM", 256)
        monkeypatch.setattr(working_set, "HARD_SHARE", 0.05)
    n, gamma = WAYS[way]
    X, y = samples(rng, n)
    X, kernel, epsilon = X.astype(dtype), Kernel("rbf", gamma=gamma / 4), 0.3 if way == "growing" else 0.1
    found, _ = solved(X, epsilon_svr(y, np.full(n, 2.0), epsilon), kernel)
    assert taken[-1] == ("active set" if way == "at once" else way)
    theirs = sklearn.svm.SVR(C=2.0, epsilon=epsilon, gamma=kernel.gamma).fit(X.astype(float), y)
    beta = np.zeros(n)
    beta[theirs.support_] = theirs.dual_coef_[0]
    Xd = X.astype(float)
    objective = y @ beta - epsilon * abs(beta).sum() - beta @ kernel(Xd, Xd) @ beta / 2
    assert found.objective == pytest.approx(objective, rel=1e-4)
    assert found.bias == pytest.approx(theirs.intercept_[0], abs=5e-3)


@pytest.mark.parametrize("n", [200, 600, 2500])
@pytest.mark.parametrize("nu", [0.05, 0.5])
def test_one_class_in_each_way(rng, n, nu):
    X, _ = samples(rng, n)
    found, _ = solved(X, one_class(np.ones(n), nu))
    theirs = sklearn.svm.OneClassSVM(nu=nu, gamma=KERNEL.gamma).fit(X)
    alpha = np.zeros(n)
    alpha[theirs.support_] = theirs.dual_coef_[0]
    assert found.objective == pytest.approx(-alpha @ KERNEL(X, X) @ alpha / 2, rel=1e-4)
    assert found.bias == pytest.approx(theirs.intercept_[0], abs=5e-3)


@pytest.mark.parametrize("problem", ["regression", "regression of weights", "one class", "one class of weights"])
def test_the_number_of_threads_changes_no_bit(rng, problem):
    n = 2000
    X, y = samples(rng, n)
    weights = rng.uniform(0.1, 3.0, n) if "weights" in problem else np.ones(n)
    stated = one_class(weights, 0.3) if "class" in problem else epsilon_svr(y, weights, 0.1)
    kernel = Kernel("rbf", gamma=1.0)
    found = [solve(X, [np.arange(n)], [stated], kernel, Stopping(), budget_mb=200.0, n_threads=k)[0] for k in (1, 2, 3)]
    assert found[0].converged and recomputed_gap(kernel, X, stated, found[0].b) <= 2e-3
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].b, other.b)
        assert found[0].bias == other.bias


def test_one_class_begins_near_its_solution(rng, monkeypatch):
    """Beyond what is solved at once, from the solution of a part of the samples: fewer steps, and
    the same end."""
    X = rng.normal(size=(3000, 4)) + 4 * rng.normal(size=(5, 4))[rng.integers(5, size=3000)]
    direct, _ = solved(X, one_class(np.ones(3000), 0.2)._replace(any_start=False))
    near, _ = solved(X, one_class(np.ones(3000), 0.2))
    assert near.objective == pytest.approx(direct.objective, rel=1e-6)
    assert near.n_iter < direct.n_iter


@pytest.mark.parametrize("n", [100, 1200, 2000])
@pytest.mark.parametrize("kind", ["sparse", "precomputed", "whole numbers"])
def test_whatever_the_samples_are(rng, n, kind):
    X, y = samples(rng, n)
    if kind == "whole numbers":
        X = rng.integers(0, 3, size=(n, 4)).astype(np.float32)
    elif kind == "sparse":
        X = np.where(X > 1, X, 0.0)
    for problem in (epsilon_svr(y, np.ones(n), 0.2), one_class(np.ones(n), 0.2)):
        direct, _ = solved(X, problem)
        if kind == "sparse":
            other, _ = solved(as_csr(csr_matrix(X)), problem)
        elif kind == "precomputed":
            other, _ = solved(KERNEL(X, X), problem, Kernel("precomputed"))
        else:
            other, _ = solved(X.astype(np.float64), problem)
        assert other.objective == pytest.approx(direct.objective, rel=1e-4)


def test_small_memory_and_large_coefficients(rng, taken):
    """Little memory: a working set that is exchanged. Coefficients of 1e5: float64 kernel
    values."""
    X, y = samples(rng, 2000)
    free, _ = solved(X, epsilon_svr(y, np.full(2000, 2.0), 0.1))
    tight, _ = solved(X, epsilon_svr(y, np.full(2000, 2.0), 0.1), budget_mb=6.0)
    assert tight.objective == pytest.approx(free.objective, rel=1e-4)
    large, _ = solved(X.astype(np.float32), epsilon_svr(1e5 * y, np.full(2000, 2e5), 1e4), tol=1.0)
    assert large.objective == pytest.approx(
        1e10 * solved(X, epsilon_svr(y, np.full(2000, 2.0), 0.1))[0].objective, rel=1e-3
    )


@pytest.mark.parametrize("n", [150, 1200])
def test_going_on_from_the_solution_takes_no_step(rng, n):
    X, y = samples(rng, n)
    _, b = solved(X, epsilon_svr(y, np.ones(n), 0.1))
    again, _ = solved(X, epsilon_svr(y, np.ones(n), 0.1, start=b), tol=2e-3)
    assert again.n_iter == 0
    _, b = solved(X, one_class(np.ones(n), 0.3))
    assert solved(X, one_class(np.ones(n), 0.3, start=b), tol=2e-3)[0].n_iter == 0


@pytest.mark.parametrize("total", [0.1, 0.6])
def test_a_start_is_brought_within_bounds_and_to_the_sum(rng, total):
    bounds, start = rng.uniform(0.5, 2, 50), rng.uniform(-1, 3, 50)
    problem = one_class(bounds, total, start)
    assert (problem.start >= 0).all() and (problem.start <= bounds).all()
    assert problem.total == pytest.approx(total * bounds.sum())
    svr = epsilon_svr(np.zeros(50), bounds, 0.1, start)
    assert (svr.start >= svr.lower).all() and (svr.start <= svr.upper).all() and abs(svr.total) < 1e-12


def test_the_first_samples_begin_at_their_bound():
    """As in LIBSVM, whose path is then taken."""
    assert one_class(np.ones(5), 0.5).start.tolist() == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize("off", [1 - 1e-15, 1 + 1e-15])
def test_a_start_whose_sum_is_right_but_for_rounding_stays_where_it_is(rng, off):
    """To scale it would move variables off the bounds that they are on, and training would go
    on."""
    start = np.concatenate([np.ones(20), rng.random(30), np.zeros(50)])
    nu = start.sum() / 100 * off
    np.testing.assert_array_equal(one_class(np.ones(100), nu, start).start, start)

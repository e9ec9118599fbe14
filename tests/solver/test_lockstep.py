"""The lockstep solver on the host, with kernels by their definition: the outer loop that runs on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.solver import solve_one_vs_one
from gpusvm.solver.lockstep import solve_in_lockstep
from tests.solver.reference_kernels import reference_device

RBF = Kernel("rbf", gamma=0.05)


def problem(X, y, C=10.0):
    members = [np.flatnonzero(y == c) for c in np.unique(y)]
    return np.ascontiguousarray(X, dtype=np.float32), members, [np.full(len(m), C) for m in members]


def check(X, y, kernel=RBF, *, C=10.0, tol=1e-3, device=None, budget_mb=2000.0):
    """Both solvers reach the same optimum; returns the results of the lockstep solver."""
    X, members, bounds = problem(X, y, C)
    device = device or reference_device()
    found = solve_in_lockstep(X, members, bounds, kernel, Stopping(tol=tol), device=device, budget_mb=budget_mb)
    expected = solve_one_vs_one(X, members, bounds, kernel, Stopping(tol=tol), budget_mb=budget_mb, n_threads=1)
    for mine, other in zip(found, expected, strict=True):
        assert mine.converged and mine.kkt_gap <= tol
        assert mine.dual_objective == pytest.approx(other.dual_objective, rel=1e-4, abs=1e-6)
        assert abs(mine.beta.sum()) <= 1e-9 * C * len(mine.beta)
    return found


@pytest.mark.parametrize(
    "kernel",
    [RBF, Kernel("linear"), Kernel("poly", gamma=0.1, coef0=1.0), Kernel("sigmoid", gamma=0.01)],
    ids=lambda k: k.name,
)
def test_every_kernel(digits, kernel):
    check(digits[0][:600], digits[1][:600], kernel)


def test_gradients_are_those_of_the_solution(digits):
    X, members, _ = problem(digits[0], digits[1])
    first = check(digits[0], digits[1])[0]
    rows = np.concatenate(members[:2])
    K = RBF(X[rows].astype(np.float64), X[rows].astype(np.float64))
    v = np.repeat([1.0, -1.0], [len(m) for m in members[:2]]) - K @ first.beta
    upper = np.repeat([10.0, 0.0], [len(m) for m in members[:2]])
    gap = v[first.beta < upper].max() - v[first.beta > upper - 10.0].min()
    assert gap == pytest.approx(first.kkt_gap, abs=1e-4) and gap <= 2e-3


def test_sets_that_grow_over_many_rounds(digits, monkeypatch):
    monkeypatch.setattr("gpusvm.solver.lockstep.FIRST_ACTIVE", 8)
    monkeypatch.setattr("gpusvm.solver.lockstep.MOST_JOINING", 5)
    monkeypatch.setattr("gpusvm.solver.lockstep._FIRST_KERNEL", 8)
    check(digits[0], digits[1])


@pytest.mark.parametrize("gamma", [0.05, 0.5])
def test_sets_that_must_let_members_go(digits, gamma):
    found = check(digits[0], digits[1], Kernel("rbf", gamma=gamma), device=reference_device(largest_active=24))
    assert max((r.beta != 0).sum() for r in found) > 24, "no set was too small: nothing was tested"


def test_ties_of_one_kind_only(rng):
    X = rng.normal(size=(300, 20))
    y = (np.arange(300) < 30).astype(int)
    check(X, y, Kernel("rbf", gamma=50.0), C=1.0, device=reference_device(largest_active=32))


def test_classes_of_very_different_size(rng):
    X = rng.normal(size=(300, 3))
    check(X, np.r_[np.zeros(280, int), np.ones(19, int), 2])


def test_two_samples():
    result = check(np.array([[0.0], [1.0]]), np.array([0, 1]))[0]
    np.testing.assert_allclose(result.beta[0], -result.beta[1])


def test_precomputed(digits):
    X, y = digits[0][:300], digits[1][:300]
    K = RBF(X, X)
    for mine, other in zip(check(K, y, Kernel("precomputed")), check(X, y), strict=True):
        assert mine.dual_objective == pytest.approx(other.dual_objective, rel=1e-4)


def test_distances_that_float32_loses(rng):
    X = rng.normal(size=(200, 5)) + 100 * rng.choice([-1, 1], size=(200, 1))
    check(X, rng.integers(0, 2, 200), Kernel("rbf", gamma=0.5))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 40), n_classes=st.integers(2, 4), C=st.sampled_from([0.01, 1, 100]))
def test_any_small_problem(seed, n, n_classes, C):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(0, n_classes, max(0, n - n_classes))]
    check(np.round(rng.normal(size=(len(y), 3)), 1), y, Kernel("rbf", gamma=0.3), C=C)


# -- limits --------------------------------------------------------------------------------------------


def test_rows_that_do_not_fit_are_computed_again(digits, monkeypatch):
    """A group whose rows outgrow the budget is split; a pair alone gives rows up and computes them again."""
    monkeypatch.setattr("gpusvm.solver.lockstep.PRODUCT_BYTES", 2**16)
    monkeypatch.setattr("gpusvm.solver.lockstep.ROWS_FOR_EACH_PAIR", 8)
    groups = []
    monkeypatch.setattr("gpusvm.solver.lockstep._Group", noted(groups))
    check(digits[0], digits[1], Kernel("rbf", gamma=0.5), device=reference_device(largest_active=32), budget_mb=3.0)
    assert len(groups) > 1 and min(groups) >= 1


def noted(sizes):
    from gpusvm.solver.lockstep import _Group

    class Noted(_Group):
        def __init__(self, X, members, bounds, kernel, pairs, *rest):
            sizes.append(len(pairs))
            super().__init__(X, members, bounds, kernel, pairs, *rest)

    return Noted


@pytest.mark.parametrize("budget_mb", [0.4, 0.6, 1.0])
def test_a_pair_alone_never_outgrows_the_rows_that_fit(rng, monkeypatch, budget_mb):
    monkeypatch.setattr("gpusvm.solver.lockstep.PRODUCT_BYTES", 2**12)
    monkeypatch.setattr("gpusvm.solver.lockstep.ROWS_FOR_EACH_PAIR", 32)
    X = rng.normal(size=(400, 4))
    found = check(X, np.arange(400) % 2, Kernel("rbf", gamma=1.0), device=reference_device(128), budget_mb=budget_mb)
    assert (found[0].beta != 0).sum() > 300


def test_memory_that_runs_out_in_the_middle_is_met_with_smaller_groups(digits):
    class OutOfMemory(Exception):
        pass

    device = reference_device()
    calls = []

    def failing_gather(live, *arrays):
        calls.append(len(live))
        if len(live) > 10:
            raise OutOfMemory("out of memory allocating 1 byte")
        device.gather(live, *arrays)

    small = type(device)(np, failing_gather, device.optimise, device.subtract, 3072, (OutOfMemory,))
    check(digits[0][:500], digits[1][:500], device=small)
    assert calls[0] == 45 and min(calls) <= 10


def test_a_pair_that_does_not_fit_is_an_error_that_names_the_budget(digits):
    X, members, bounds = problem(digits[0], digits[1])
    with pytest.raises(MemoryError, match=r"cache_size=1 MB is too little for a pair of classes of \d+ and \d+"):
        solve_in_lockstep(X, members, bounds, RBF, Stopping(tol=1e-3), device=reference_device(), budget_mb=1.0)


def test_max_iter_bounds_the_steps(digits):
    X, members, bounds = problem(digits[0], digits[1])
    found = solve_in_lockstep(
        X, members, bounds, RBF, Stopping(tol=1e-3, max_iter=5), device=reference_device(), budget_mb=2000.0
    )
    assert all(r.n_iter == 5 and not r.converged and r.kkt_gap > 1e-3 for r in found)


def test_a_tolerance_that_float64_cannot_reach(digits):
    X, members, bounds = problem(digits[0][:200], digits[1][:200])
    found = solve_in_lockstep(X, members, bounds, RBF, Stopping(tol=1e-17), device=reference_device(), budget_mb=2000.0)
    assert max(r.kkt_gap for r in found) < 1e-9 and not all(r.converged for r in found)


def test_progress_names_each_pair_once(digits):
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    calls = []
    solve_in_lockstep(
        X, members, bounds, RBF, Stopping(tol=1e-3), device=reference_device(), budget_mb=2000.0,
        progress=lambda done, pair, result: calls.append((done, pair)),
    )  # fmt: skip
    assert [done for done, _ in calls] == list(range(1, 46)) and len({pair for _, pair in calls}) == 45

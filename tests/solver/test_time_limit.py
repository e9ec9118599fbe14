"""Training that is cut off ends with a model that can be used, and can go on from it."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, UsageError, certify, load_model
from gpusvm.problem import feasible
from gpusvm.solver import working_set
from gpusvm.solver.clock import Clock, Shares


@pytest.fixture
def overlapping(rng):
    """X (900, 6), y of three classes that overlap: hundreds of support vectors."""
    y = np.arange(900) % 3
    return rng.normal(size=(900, 6)) + 0.7 * y[:, None], y


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock on which a second passes between two looks at it, whatever the machine."""
    ticks = itertools.count()
    monkeypatch.setattr("gpusvm.solver.clock.time.monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(working_set, "STEPS_AT_ONCE", 20)
    monkeypatch.setattr("gpusvm.solver.growing.STEPS_AT_ONCE", 20)
    monkeypatch.setattr("gpusvm.solver.active_set.STEPS_AT_ONCE", 20)


def cut_off(X, y, **more):
    svc = SVC(C=10, backend="native-cpu", n_jobs=1, **more)
    with pytest.warns(ConvergenceWarning, match=r"were cut off by time_limit=\d+ .*warm_start=True"):
        return svc.fit(X, y)


def test_training_ends_with_a_model_that_tells_its_gap(overlapping, slow_clock):
    X, y = overlapping
    svc = cut_off(X, y, time_limit=30)
    assert svc.fit_status_ == 1 and not svc.model_.converged.all()
    np.testing.assert_allclose(svc.model_.kkt_gap, certify(svc.model_, X, y).kkt_gap, atol=1e-4)
    assert svc.n_iter_.sum() > 0
    assert svc.score(X, y) > 0.5


def test_every_pair_gets_its_share_of_the_time(overlapping, slow_clock):
    svc = cut_off(*overlapping, time_limit=30)
    assert (svc.n_iter_ > 0).all()


def test_fitting_goes_on_from_where_it_was_cut_off(overlapping, slow_clock, monkeypatch):
    X, y = overlapping
    svc = cut_off(X, y, time_limit=30, warm_start=True)
    begun = svc.n_iter_.sum()
    svc.set_params(time_limit=None).fit(X, y)
    afresh = SVC(C=10, backend="native-cpu", n_jobs=1).fit(X, y)
    assert svc.fit_status_ == 0 and 0 < svc.n_iter_.sum() < afresh.n_iter_.sum()
    assert begun > 0
    objective = svc.model_.dual_objective.sum()
    assert objective == pytest.approx(afresh.model_.dual_objective.sum(), rel=1e-4)
    assert certify(svc.model_, X, y).max_kkt_gap <= 2e-3


def test_fitting_goes_on_after_max_iter(overlapping):
    X, y = overlapping
    svc = SVC(C=10, backend="native-cpu", max_iter=50, warm_start=True)
    with pytest.warns(ConvergenceWarning, match="max_iter=50"):
        svc.fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        svc.set_params(max_iter=-1).fit(X, y)
    assert certify(svc.model_, X, y).max_kkt_gap <= 2e-3


@pytest.mark.parametrize("C", [1.0, 100.0])
def test_another_C_can_go_on_too(overlapping, C):
    X, y = overlapping
    svc = SVC(C=10, backend="native-cpu", warm_start=True).fit(X, y)
    svc.set_params(C=C).fit(X, y)
    assert certify(svc.model_, X, y).max_kkt_gap <= 2e-3
    found = certify(svc.model_, X, y)
    assert found.summary()["box_violation"] <= 1e-9 and found.summary()["equality_violation"] <= 1e-9


def test_other_samples_begin_afresh(overlapping):
    X, y = overlapping
    svc = SVC(C=10, backend="native-cpu", warm_start=True).fit(X, y)
    svc.fit(X[:600] + 0.1, y[:600])
    expected = SVC(C=10, backend="native-cpu").fit(X[:600] + 0.1, y[:600])
    np.testing.assert_array_equal(svc.dual_coef_, expected.dual_coef_)


@pytest.mark.parametrize("asked", [{"time_limit": 5}, {"warm_start": True}])
def test_a_backend_that_cannot_says_so(overlapping, asked):
    with pytest.raises(UsageError, match=rf"backend sklearn has no {next(iter(asked))}; native-cuda and native-cpu do"):
        SVC(backend="sklearn", **asked).fit(*overlapping)


def test_the_model_file_keeps_the_limit(overlapping, slow_clock, tmp_path):
    svc = cut_off(*overlapping, time_limit=30)
    svc.save(tmp_path / "m.svm")
    assert load_model(tmp_path / "m.svm").stopping.time_limit == 30


def test_what_a_problem_does_not_use_is_left_to_the_others(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gpusvm.solver.clock.time.monotonic", lambda: now[0])
    shares = Shares(100.0, {0: 1.0, 1: 1.0, 2: 2.0})
    assert shares.deadline([0], 1) == pytest.approx(25.0)
    now[0] = 1.0  # done early
    assert shares.deadline([1], 1) == pytest.approx(1.0 + 99 / 3)
    now[0] = 2.0
    assert shares.deadline([2], 1) == 100.0
    shares.give_back(1)
    shares.give_back(2)
    assert shares.deadline([1], 1) == pytest.approx(2.0 + 98 / 3), "what is solved in another way has a share again"
    assert Shares(None, {0: 1.0}).deadline([0], 1) == np.inf and not Clock().says_stop()


def test_a_start_is_moved_within_bounds_and_to_a_sum_of_zero(rng):
    for _ in range(50):
        signs = rng.choice([-1.0, 1.0], 20)
        lower, upper = np.minimum(0, 3 * signs), np.maximum(0, 3 * signs)
        b = feasible(rng.normal(size=20) * 5, lower, upper)
        assert (b >= lower).all() and (b <= upper).all() and abs(b.sum()) < 1e-12


def test_a_start_that_rounding_alone_keeps_from_a_sum_of_zero_stays_on_its_bounds(rng):
    b = np.concatenate([np.full(30, 0.1), -rng.random(200)])
    b[30:] *= b[:30].sum() / -b[30:].sum() * (1 + 1e-15)
    np.testing.assert_array_equal(feasible(b, np.minimum(b, 0), np.maximum(b, 0)), b)

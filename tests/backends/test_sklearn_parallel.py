"""The scikit-learn backend under joblib's own ways of running in parallel."""

from __future__ import annotations

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from asking import asked
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC
from gpusvm.backends import get_backend
from gpusvm.backends import sklearn as sklearn_backend
from gpusvm.errors import TrainingError
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import Kernel
from gpusvm.params import Stopping

PARAMS = asked(kernel=Kernel("rbf", gamma=0.05), C=5.0)


def fit(digits, **changes):
    return get_backend("sklearn").fit(digits[0][:300], digits[1][:300], *PARAMS, **changes)


@pytest.fixture
def pair_by_pair(monkeypatch):
    """Pairs as small as the tests' would be given to LIBSVM at once."""
    monkeypatch.setattr(sklearn_backend, "_begins_longer_than_it_solves", lambda data: False)


@pytest.mark.parametrize("joblib_backend", ["loky", "threading", "sequential", "multiprocessing"])
def test_every_joblib_backend_gives_the_same_bits(digits, pair_by_pair, joblib_backend):
    expected = fit(digits)
    with joblib.parallel_config(backend=joblib_backend, n_jobs=2):
        found = fit(digits)
    np.testing.assert_array_equal(found.dual_coef, expected.dual_coef)
    np.testing.assert_array_equal(found.intercept, expected.intercept)


def test_a_dask_cluster_gives_the_same_bits(digits, pair_by_pair):
    import distributed

    expected = fit(digits)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = fit(digits)
    np.testing.assert_array_equal(found.dual_coef, expected.dual_coef)


def test_jobs_default_to_every_core_or_to_what_the_context_says():
    assert effective_jobs(None) == joblib.effective_n_jobs(-1)
    assert effective_jobs(1) == 1
    with joblib.parallel_config(backend="threading", n_jobs=3):
        assert effective_jobs(None) == 3
    with joblib.parallel_config(n_jobs=3):
        assert effective_jobs(None) == 3
    with joblib.parallel_config(n_jobs=1):
        assert effective_jobs(None) == 1
    with joblib.parallel_config(backend="threading"):
        assert effective_jobs(None) == joblib.effective_n_jobs(-1)


def test_inside_another_worker_pairs_do_not_multiply_the_threads():
    inner = joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(effective_jobs)(None) for _ in range(2))
    assert inner == [1, 1]


def test_a_worker_that_is_killed_ends_the_fit_with_one_line(digits, pair_by_pair):
    """As the system does where memory runs out."""
    from joblib.externals.loky import reusable_executor

    def kill_a_worker(done, total, latest):
        if done == 1:
            os.kill(next(iter(reusable_executor._executor._processes)), signal.SIGKILL)

    # 4,950 pairs: the workers cannot be through with them before this process has seen the first.
    X, y = np.random.default_rng(0).random((300, 4), dtype=np.float32), np.arange(300) % 100
    with (
        joblib.parallel_config(backend="loky", n_jobs=2),
        pytest.raises(TrainingError, match=r"a worker process .*; give it more memory, or fewer jobs"),
    ):
        get_backend("sklearn").fit(X, y, *PARAMS, progress=kill_a_worker)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        fit(digits)


def test_an_interrupt_ends_the_fit_and_leaves_no_worker_behind(digits, pair_by_pair):
    calls = []

    def interrupt(done, total, latest):
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fit(digits, progress=interrupt)
    assert calls == [1, 2, 3]
    for _ in range(1200):  # a minute at most: joblib's threads end on their own
        if threading.active_count() <= before:
            break
        time.sleep(0.05)
    assert threading.active_count() <= before


MANY = [("rbf", "dense"), ("linear", "dense"), ("poly", "sparse"), ("rbf", "sparse"), ("precomputed", "dense")]


@pytest.mark.parametrize(("n_classes", "largest"), [(12, 9), (4, 80)], ids=["many", "few"])
@pytest.mark.parametrize(("kernel", "form"), MANY)
def test_small_classes_are_solved_at_once_to_the_same_bits(monkeypatch, rng, kernel, form, n_classes, largest):
    """A class without weights among them, and samples of weight zero."""
    y = np.repeat(np.arange(n_classes), rng.integers(2, largest, n_classes))
    X = rng.normal(size=(n_classes, 6))[y] + rng.normal(size=(len(y), 6))
    X = X @ X.T if kernel == "precomputed" else sparse.csr_array(np.where(X > 0, X, 0)) if form == "sparse" else X
    weights = np.where(y == 3, 0.0, rng.uniform(0.0, 2.0, len(y)) + (rng.random(len(y)) < 0.9))
    calls = []
    at_once = sklearn_backend._solve_at_once
    monkeypatch.setattr(sklearn_backend, "_solve_at_once", lambda *a: calls.append(1) or at_once(*a))
    together = SVC(backend="sklearn", kernel=kernel).fit(X, y, sample_weight=weights).model_
    monkeypatch.setattr(sklearn_backend, "_begins_longer_than_it_solves", lambda data: False)
    by_pairs = SVC(backend="sklearn", kernel=kernel).fit(X, y, sample_weight=weights).model_
    assert calls == [1]
    for name in ("dual_coef", "intercept", "n_iter", "converged", "support_indices"):
        np.testing.assert_array_equal(getattr(together, name), getattr(by_pairs, name), name)
    np.testing.assert_allclose(together.kkt_gap, by_pairs.kkt_gap, rtol=0, atol=1e-12)
    assert together.kkt_gap.max() > 1e-5, "no gap to compare"


@pytest.mark.parametrize(("n_classes", "per_class", "at_once"), [(10, 64, True), (10, 65, False), (2, 5, False)])
def test_larger_classes_and_single_pairs_are_solved_side_by_side(monkeypatch, rng, n_classes, per_class, at_once):
    calls = []
    solve = sklearn_backend._solve_at_once
    monkeypatch.setattr(sklearn_backend, "_solve_at_once", lambda *a: calls.append(1) or solve(*a))
    y = np.repeat(np.arange(n_classes), per_class)
    SVC(backend="sklearn").fit(rng.normal(size=(n_classes, 3))[y], y)
    assert bool(calls) == at_once


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [-1, 30, 60])
def test_pairs_of_many_iterations_are_solved_side_by_side_after_all(monkeypatch, rng, max_iter):
    """At once they would leave cores idle, show no progress, and hold up an interrupt."""
    y = np.repeat(np.arange(4), 15)
    X = rng.normal(size=(4, 3))[y] + rng.normal(size=(60, 3))
    alone, calls = [], []
    solve_pair = sklearn_backend._solve_pair
    monkeypatch.setattr(sklearn_backend, "_solve_pair", lambda p, *rest: alone.append(p) or solve_pair(p, *rest))
    arguments = asked(kernel=Kernel("rbf", gamma=0.3), C=5.0, max_iter=max_iter, n_jobs=1)

    def train():
        return get_backend("sklearn").fit(X, y, *arguments, progress=lambda *call: calls.append(call[:2]))

    monkeypatch.setattr(sklearn_backend, "MOST_AT_ONCE", 40)
    found = train()
    assert len(alone) == (0 if max_iter == 30 else np.count_nonzero(found.n_iter >= 40))
    assert max_iter == 30 or 0 < len(alone) < 6
    assert calls == [(done, 6) for done in range(1, 7)]
    monkeypatch.setattr(sklearn_backend, "_begins_longer_than_it_solves", lambda data: False)
    expected = train()
    for name in ("dual_coef", "intercept", "n_iter", "converged", "support_indices"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


def test_small_pairs_that_libsvm_gives_up_are_not_said_to_lack_precision(monkeypatch, rng):
    monkeypatch.setattr(Stopping, "iterations_allowed", lambda self, n: 30)
    y = np.repeat(np.arange(4), 15)
    with pytest.warns(ConvergenceWarning, match=r"class pairs stopped after 30 iterations before reaching"):
        SVC(backend="sklearn", C=100.0).fit(rng.normal(size=(60, 3)), y)

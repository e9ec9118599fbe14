"""Work that joblib sends past this process: results are the same to the last bit."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_classification

from gpusvm import SVC, SVCSearchCV
from gpusvm.jobs import as_they_finish, run_elsewhere
from gpusvm.params import Resources
from gpusvm.tuning import Search, Settings


@pytest.fixture(scope="module")
def cluster():
    """A client of two workers, which are threads of this process."""
    distributed = pytest.importorskip(
        "distributed", reason='dask.distributed is not installed: pip install "gpusvm[test]"'
    )
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        yield


@pytest.fixture(scope="module")
def problem():
    """Three classes: a pair that is solved whole with others, and two that are not."""
    X, y = make_classification(1800, 12, n_informative=8, n_classes=3, weights=[0.8, 0.12], random_state=1)
    return X.astype(np.float32), y


def on_dask():
    return joblib.parallel_config(backend="dask")


def test_only_what_joblib_is_told_runs_elsewhere(cluster):
    assert not run_elsewhere()
    for name in ("loky", "threading", "sequential"):
        with joblib.parallel_config(backend=name):
            assert not run_elsewhere()
    with on_dask():
        assert run_elsewhere()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("parameters", [{}, {"kernel": "linear"}, {"probability": True}], ids=str)
def test_pairs_of_a_fit_give_the_same_bits(cluster, problem, form, parameters, monkeypatch):
    X, y = form(problem[0]), problem[1]
    svc = SVC(backend="native-cpu", C=3.0, cache_size=200, **parameters)
    here = svc.fit(X, y).model_
    sent = []
    monkeypatch.setattr("gpusvm.backends.native.as_they_finish", _counted(sent))
    with on_dask():
        there = svc.fit(X, y).model_
    assert sent, "no pair went to a worker"
    np.testing.assert_array_equal(there.dual_coef, here.dual_coef)
    np.testing.assert_array_equal(there.intercept, here.intercept)
    if parameters.get("probability"):
        np.testing.assert_array_equal(there.calibration.probA, here.calibration.probA)


def _counted(sent):
    def counted(*arguments):
        for result in as_they_finish(*arguments):
            sent.append(result)
            yield result

    return counted


@pytest.mark.parametrize("cache_size", [200, 2])
def test_columns_of_a_search_give_the_same_bits(cluster, problem, cache_size):
    X, y = problem

    def found():
        search = Search(X, y, Settings(folds=3), Resources(cache_size=cache_size))
        search.run([0.1, 1.0, 10.0], [0.01, 0.1])
        return search.results

    here = found()
    with on_dask():
        there = found()
    assert list(there) == list(here)
    for trial, result in here.items():
        assert result.given_up == there[trial].given_up
        for fold, right in result.right.items():
            np.testing.assert_array_equal(there[trial].right[fold], right)


def test_a_search_by_the_estimator_gives_the_same(cluster, problem):
    grid = {"C": [1, 10], "gamma": [0.01, 0.1]}
    search = SVCSearchCV(grid, cv=3)
    here = search.fit(*problem).cv_results_["mean_test_score"]
    with on_dask():
        there = search.fit(*problem)
    assert there.solved_together_
    np.testing.assert_array_equal(there.cv_results_["mean_test_score"], here)

"""Decision values of held-out samples: those of a machine trained on the others, however the
samples are stored."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from gpusvm.backends.held_out import HeldOut, Training, calibrate, folds, held_out_decisions
from gpusvm.backends.native import backend as native_cpu
from gpusvm.backends.sklearn import backend as sklearn
from gpusvm.errors import DataWarning, muted
from gpusvm.kernels import Kernel
from gpusvm.pairs import own_pairs
from gpusvm.params import Problem, Resources, Stopping


@pytest.fixture(params=["sklearn", "native-cpu", "native-cpu, folds together"])
def backend(request, monkeypatch):
    if "together" in request.param:
        monkeypatch.setattr("gpusvm.solver.working_set.SMALL", 0)  # else so small problems are not
    return sklearn if request.param == "sklearn" else native_cpu


def training(X, y, weights=None, **changes):
    problem = Problem(**{"kernel": Kernel("rbf", 0.3), "C": 2.0} | changes)
    return Training(X, y, problem, Stopping(tol=1e-6), Resources(n_jobs=1), weights)


def trained(backend, asked):
    with muted(ConvergenceWarning):
        return backend.fit(*asked[:-1], sample_weight=asked.sample_weight)


def held_out(backend, asked, codes, weights, n_folds=3, seed=0) -> HeldOut:
    model = trained(backend, asked)
    return held_out_decisions(backend, asked, model, codes, weights, np.random.RandomState(seed), n_folds)


@pytest.mark.parametrize("sizes", [[40, 31, 7, 3], [1, 1], [2, 50], [5]])
def test_folds_hold_each_class_in_proportion(sizes):
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = list(folds(codes, 3, np.random.RandomState(1)))
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(len(codes)))
    for c, size in enumerate(sizes):
        counts = [(codes[places] == c).sum() for places in found]
        assert max(counts) <= -(-size // 3)
    again = list(folds(codes, 3, np.random.RandomState(1)))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("form", ["dense", "sparse", "precomputed"])
def test_they_are_those_of_a_machine_trained_on_the_others(backend, rng, form):
    X, codes = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)
    weights = rng.uniform(0, 2, 90)
    weights[:4] = 0
    asked = training(X, codes * 10, weights)
    if form == "sparse":
        asked = asked._replace(X=csr_array(X))
    elif form == "precomputed":
        K = asked.problem.kernel(X, X)
        asked = training(K, codes * 10, weights, kernel=Kernel("precomputed"))
    found = held_out(backend, asked, codes, weights)
    assert found.rows.tolist() == list(range(4, 90)) and len(found.kept) == 86
    pairs = own_pairs(3)
    whole = trained(backend, asked)
    for places in folds(codes[4:], 3, np.random.RandomState(0)):
        held = places + 4
        others = np.setdiff1d(np.arange(4, 90), held)
        without = trained(backend, training(X[others], codes[others], weights[others]))
        own = np.take_along_axis(without.pair_decisions(X[held]), pairs[codes[held]], axis=1)
        np.testing.assert_allclose(found.own[places], own, atol=1e-4)
    # Of the other pairs the machine of all samples has not seen these.
    everything = whole.pair_decisions(asked.X)[found.rows]
    np.put_along_axis(everything, pairs[codes[found.rows]], found.own, axis=1)
    np.testing.assert_allclose(found.decisions, everything[found.kept], atol=1e-9)


def test_many_pairs_are_kept_of_some_samples_only(backend, rng, monkeypatch):
    monkeypatch.setattr("gpusvm.backends.held_out.KEPT_BYTES", 8 * 3 * 20)
    monkeypatch.setattr("gpusvm.backends.held_out._BLOCK_BYTES", 8 * 3 * 7)
    X, codes = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)
    found = held_out(backend, training(X, codes), codes, np.ones(90))
    assert found.decisions.shape == (20, 3)
    own = np.take_along_axis(found.decisions, own_pairs(3)[codes[found.kept]], axis=1)
    np.testing.assert_array_equal(found.own[found.kept], own)


def test_a_class_that_no_other_sample_shows_loses_all_its_pairs(backend, rng):
    X, codes = rng.normal(size=(41, 3)), np.r_[rng.integers(0, 2, 40), 2]
    X[-1] += 10
    found = held_out(backend, training(X, codes), codes, np.ones(41))
    assert found.own[-1].tolist() == [1.0, 1.0]  # for the first class of (0, 2), and of (1, 2)


@pytest.mark.parametrize("y", [[0, 1], [0, 0, 1], [0, 1, 1]])
def test_where_a_single_class_is_left_it_wins(backend, rng, y):
    codes = np.array(y)
    found = held_out(backend, training(rng.normal(size=(len(y), 2)), codes), codes, np.ones(len(y)))
    alone = np.bincount(codes)[codes] == 1
    np.testing.assert_array_equal(found.own[alone, 0], np.where(codes[alone] == 0, -1.0, 1.0))


def test_few_samples_of_a_class_are_said(backend, rng):
    X, y = rng.normal(size=(41, 3)), np.r_[np.arange(40) % 2, 7]
    with pytest.warns(DataWarning, match=r"3 folds.*fewer samples than that: 7 \(1\); their probabilities say little"):
        calibrate(backend, training(X, y), trained(backend, training(X, y)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(backend, training(X[:40], y[:40]), trained(backend, training(X[:40], y[:40])))


def test_what_a_fold_warns_of_is_not_said_again(backend, rng):
    asked = training(rng.normal(size=(60, 3)), rng.integers(0, 2, 60))._replace(stopping=Stopping(max_iter=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(backend, asked, trained(backend, asked))


def test_progress_goes_through_all_trainings(backend, rng):
    lines, asked = [], training(rng.normal(size=(60, 3)), rng.integers(0, 3, 60))
    calibrate(
        backend, asked, trained(backend, asked), n_folds=3,
        progress=lambda done, total, latest: lines.append((done, total, latest)),
    )  # fmt: skip
    assert [done for done, _, _ in lines] == list(range(4, 13))
    assert {total for _, total, _ in lines} == {12}
    assert "fold 1 of 3" in lines[0][2] and "fold 3 of 3" in lines[-1][2]


def test_weights_on_any_scale_give_the_same(backend, rng):
    X, y = rng.normal(size=(90, 3)), rng.integers(0, 3, 90)
    weights = rng.uniform(0.5, 2, 90)
    one, other = (
        calibrate(backend, asked, trained(backend, asked))
        for asked in (training(X, y, weights), training(X, y, weights * 1e-3, C=2e3))
    )
    np.testing.assert_allclose([one.probA, one.probB], [other.probA, other.probB], rtol=0.02, atol=0.02)

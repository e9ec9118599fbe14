"""Pairs solved one after another in compiled code, against the same pairs on active sets."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gpusvm import SVC, certify
from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.problem import c_svc
from gpusvm.solver import batches, cpu, solve
from gpusvm.solver.working_set import AT_ONCE

KERNELS = [
    Kernel("rbf", gamma=0.2),
    Kernel("linear"),
    Kernel("poly", gamma=0.2, degree=2, coef0=1.0),
    Kernel("sigmoid", gamma=0.02),
]
SIZES = [300, 401, 277]
"""Of three blocks: every two are more than a tiny problem."""


def overlapping(rng, n_features=6, offset=0.0):
    """X (n, n_features) float32 of `SIZES`, the blocks, and the three problems at C = 1."""
    y = np.repeat(np.arange(len(SIZES)), SIZES)
    X = (rng.normal(size=(len(y), n_features)) + 0.7 * y[:, None] + offset).astype(np.float32)
    blocks = [np.flatnonzero(y == block) for block in range(len(SIZES))]
    pairs = [(0, 1), (0, 2), (1, 2)]
    return X, blocks, c_svc(pairs, [np.ones(n) for n in SIZES])


def solved(X, blocks, problems, kernel, stopping=None, n_threads=2, **more):
    return solve(X, blocks, problems, kernel, stopping or Stopping(), budget_mb=200, n_threads=n_threads, **more)


@pytest.fixture
def in_batches(monkeypatch):
    """Records what is solved in batches, and what of it comes back: two lists of ints."""
    served, left = [], []

    def recording(values, problems, *args, **kwargs):
        served.extend(problems)
        came_back = batches.solve_batches(values, problems, *args, **kwargs)
        left.extend(came_back)
        return came_back

    monkeypatch.setattr(cpu, "solve_batches", recording)
    return served, left


@pytest.fixture
def on_active_sets(monkeypatch):
    """Lets nothing be solved in batches from the moment that it is called."""
    return lambda: monkeypatch.setattr(cpu, "serves", lambda *args: False)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_the_steps_are_those_on_an_active_set(rng, in_batches, on_active_sets, kernel):
    given = overlapping(rng)
    found = [solved(*given, kernel, n_threads=n) for n in (1, 2, 3)]
    assert in_batches == ([0, 1, 2] * 3, [])
    on_active_sets()
    expected = solved(*given, kernel)
    for solutions in found:
        for one, other in zip(solutions, expected, strict=True):
            assert np.array_equal(one.b, other.b) and one.n_iter == other.n_iter
            assert one.converged and not one.in_float64 and not one.too_coarse
            np.testing.assert_allclose(
                [one.bias, one.objective, one.kkt_gap], [other.bias, other.objective, other.kkt_gap], rtol=1e-9
            )


def test_a_problem_of_many_steps_is_left_where_it_is(rng, in_batches, on_active_sets, monkeypatch):
    monkeypatch.setattr(batches, "STEPS_AT_ONCE", 50)
    X, blocks, problems = overlapping(rng)
    found = solved(X, blocks, problems, KERNELS[0])
    assert sorted(in_batches[1]) == [0, 1, 2]
    on_active_sets()
    for one, other in zip(found, solved(X, blocks, problems, KERNELS[0]), strict=True):
        assert one.converged and one.n_iter > 50
        np.testing.assert_allclose(one.objective, other.objective, rtol=1e-6)


def test_what_float32_is_too_coarse_for_is_solved_in_float64(rng, in_batches):
    X, blocks, problems = overlapping(rng, offset=300.0)
    found = solved(X, blocks, problems, Kernel("linear"))
    assert sorted(in_batches[1]) == [0, 1, 2]
    assert all(solution.in_float64 for solution in found)


def test_steps_that_are_not_enough_are_told(rng, in_batches):
    found = solved(*overlapping(rng), KERNELS[0], Stopping(max_iter=7))
    assert in_batches[1] == []
    assert [solution.n_iter for solution in found] == [7, 7, 7]
    assert not any(solution.converged for solution in found)


def test_what_is_not_served_is_solved_otherwise(rng, in_batches):
    X, blocks, problems = overlapping(rng)
    kernel = KERNELS[0]
    for samples in (X * (rng.random(X.shape) < 0.2), np.repeat(X, 20, axis=1)):  # sparse, and long ones
        solved(np.ascontiguousarray(samples), blocks, problems, kernel)
    solved(X, blocks, problems, kernel, Stopping(time_limit=1e6))
    begun = [problem._replace(start=np.zeros(problem.n)) for problem in problems]
    solved(X, blocks, begun, kernel)
    solved(kernel(X, X), blocks, problems, Kernel("precomputed"))
    assert in_batches == ([], [])


def test_a_problem_of_more_variables_is_not_served(rng, in_batches):
    n = AT_ONCE // 2 + 1
    X = rng.normal(size=(3 * n, 4)).astype(np.float32)
    blocks = list(np.arange(3 * n).reshape(3, n))
    solved(X, blocks, c_svc([(0, 1), (0, 2), (1, 2)], [np.ones(n)] * 3), KERNELS[0])
    assert in_batches == ([], [])


def test_the_model_is_certified(rng):
    X, y = rng.normal(size=(1200, 5)), np.arange(1200) % 4
    svc = SVC(C=3.0, backend="native-cpu").fit(X + y[:, None], y)
    certificate = certify(svc.model_, X + y[:, None], y)
    assert (certificate.kkt_gap <= 1.1e-3).all()


def test_an_interrupt_ends_the_threads(rng):
    before = threading.active_count()

    def interrupt(*progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solved(*overlapping(rng), KERNELS[0], progress=interrupt)
    assert threading.active_count() == before

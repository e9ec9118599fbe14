"""Chains of C over one matrix of kernel values: each problem against its optimality conditions in
float64."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.solver import path
from gpusvm.solver.path import Chain, solve_chains

CS = np.array([0.1, 1.0, 3.0, 100.0])


def samples(rng, n, d=6, scale=1.0):
    """X, and the rows of its two classes, which overlap."""
    X = (scale * rng.normal(size=(n, d))).astype(np.float32)
    first = X[:, 0] + 0.5 * scale * rng.normal(size=n) > 0
    return X, [np.flatnonzero(first), np.flatnonzero(~first)]


def solved(X, blocks, chains, tol=1e-3, **options):
    found = {}
    options = {"budget_mb": 1000.0, "n_threads": 1, **options}
    solve_chains(X, blocks, chains, Stopping(tol=tol), report=found.__setitem__, **options)
    assert sorted(found) == list(range(len(chains)))
    return [found[k] for k in range(len(chains))]


def held_out(rng, n):
    """A weight for every sample, of which some are zero."""
    return np.where(rng.random(n) < 0.2, 0.0, 1.0)


def violation(K, p, b, bounds):
    v = p - K @ b
    lower, upper = np.where(p > 0, 0, -bounds), np.where(p > 0, bounds, 0)
    assert (b >= lower).all() and (b <= upper).all()
    assert abs(b.sum()) < 1e-9 * max(1, np.abs(b).sum())
    return v[b < upper].max() - v[b > lower].min()


@pytest.mark.parametrize("n", [60, 900, 2500])
@pytest.mark.parametrize("gamma", [0.01, 0.2, 5.0])
def test_every_problem_is_solved_to_its_own_tolerance(rng, n, gamma):
    X, blocks = samples(rng, n)
    kernel, rows = Kernel("rbf", gamma), np.concatenate(blocks)
    K = kernel(X[rows].astype(np.float64), X[rows].astype(np.float64))
    p = np.repeat([1.0, -1.0], [len(block) for block in blocks])
    chains = [Chain((0, 1), kernel, held_out(rng, n), CS) for _ in range(2)]
    for chain, found in zip(chains, solved(X, blocks, chains), strict=True):
        for C, solution, decisions in zip(CS, found.solutions, found.decisions, strict=True):
            assert solution.converged
            assert violation(K, p, solution.b, C * chain.weights) <= 2e-3
            np.testing.assert_allclose(decisions, K @ solution.b + solution.bias, atol=1e-3)


@pytest.mark.parametrize("kernel", [Kernel("linear"), Kernel("poly", 0.3, 2, 1.0)])
def test_decisions_of_held_out_samples_are_scikit_learns(rng, kernel):
    X, blocks = samples(rng, 400)
    weights = held_out(rng, 400) * rng.uniform(0.5, 2, size=400)
    (found,) = solved(X, blocks, [Chain((0, 1), kernel, weights, CS)], tol=1e-5)
    rows, p = np.concatenate(blocks), np.repeat([1, -1], [len(block) for block in blocks])
    kept = weights > 0
    for C, decisions in zip(CS, found.decisions, strict=True):
        theirs = SVC(C=C, kernel=kernel.name, gamma=kernel.gamma, degree=kernel.degree, coef0=kernel.coef0, tol=1e-5)
        theirs.fit(X[rows[kept]].astype(np.float64), p[kept], weights[kept])
        np.testing.assert_allclose(decisions, theirs.decision_function(X[rows].astype(np.float64)), 1e-3, 1e-3)


def test_results_are_the_same_for_any_number_of_threads_and_any_company(rng):
    X, blocks = samples(rng, 700)
    chains = [Chain((0, 1), Kernel("rbf", g), held_out(rng, 700), CS) for g in (0.1, 0.1, 0.1, 1.0, 1.0)]
    alone = [solved(X, blocks, [chain])[0] for chain in chains]
    for n_threads in (1, 2, 4):
        for one, other in zip(alone, solved(X, blocks, chains, n_threads=n_threads), strict=True):
            np.testing.assert_array_equal(one.decisions, other.decisions)


@pytest.mark.parametrize("budget_mb", [1000.0, 4.0], ids=["over shared values", "by itself"])
def test_what_float32_is_too_coarse_for_is_solved_in_float64(rng, budget_mb):
    """Samples far from the origin, for a kernel whose values are large."""
    X, blocks = samples(rng, 600, scale=30.0)
    (found,) = solved(X, blocks, [Chain((0, 1), Kernel("linear"), held_out(rng, 600), CS[:2])], budget_mb=budget_mb)
    assert any(solution.in_float64 for solution in found.solutions)
    assert all(solution.converged for solution in found.solutions)


def test_an_interrupt_ends_every_thread(rng):
    X, blocks = samples(rng, 300)
    chains = [Chain((0, 1), Kernel("rbf", 0.1), held_out(rng, 300), CS) for _ in range(6)]

    def interrupt(index, found):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_chains(X, blocks, chains, Stopping(), budget_mb=100.0, n_threads=2, report=interrupt)


def test_a_failure_in_a_thread_reaches_the_caller(rng, monkeypatch):
    X, blocks = samples(rng, 300)

    def fail(*arguments):
        raise MemoryError("none left")

    monkeypatch.setattr(path, "solve_chain", fail)
    with pytest.raises(MemoryError, match="none left"):
        solved(X, blocks, [Chain((0, 1), Kernel("rbf", 0.1), held_out(rng, 300), CS)], n_threads=2)


def test_steps_are_counted_and_limited(rng):
    X, blocks = samples(rng, 700)
    chain = Chain((0, 1), Kernel("rbf", 0.1), np.ones(700), np.array([100.0]))
    found = {}
    stopping = Stopping(max_iter=50)
    solve_chains(X, blocks, [chain], stopping, budget_mb=100.0, n_threads=1, report=found.__setitem__)
    (solution,) = found[0].solutions
    assert solution.n_iter == 50
    assert not solution.converged


def test_memory_is_used_again_whatever_it_holds(rng, monkeypatch):
    """Groups of several sizes on one thread, the memory of those before full of NaN."""
    X, blocks = samples(rng, 600)
    blocks = [*blocks, np.arange(200)]
    kernels = [Kernel("rbf", gamma) for gamma in (0.1, 0.5, 2.0)]
    chains = [
        Chain(pair, kernel, held_out(rng, sum(len(blocks[k]) for k in pair)), CS)
        for kernel in kernels
        for pair in ((0, 1), (0, 2), (1, 2))
    ]
    expected = solved(X, blocks, chains)
    taken, spoilt = path._Memory.take, []

    def take(self, shape, dtype):
        array = taken(self, shape, dtype)
        array.fill(np.nan)
        spoilt.append(array.base)
        return array

    monkeypatch.setattr(path._Memory, "take", take)
    for one, other in zip(expected, solved(X, blocks, chains), strict=True):
        np.testing.assert_array_equal(one.decisions, other.decisions)
    assert len({id(memory) for memory in spoilt}) < len(spoilt)

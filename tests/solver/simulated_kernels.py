"""The CUDA kernels themselves, run by numba's simulator; `test_cuda_kernels` starts this file in a process of its own.

The simulator runs each thread of a block as a thread of Python, with real barriers: small problems and small
blocks, but the code that runs on a GPU.
"""

from __future__ import annotations

import fake_cuda
import numpy as np
import pytest

from gpusvm.backends import native_cuda
from gpusvm.kernels import Kernel
from gpusvm.model import class_pairs
from gpusvm.params import Stopping
from gpusvm.problem import c_svc
from gpusvm.solver import solve
from gpusvm.solver.cuda import Device, solve_in_lockstep
from gpusvm.solver.cuda_kernels import ITEMS, kernels
from gpusvm.solver.smo import CUT_SHORT, REACHED, STUCK
from tests.solver import reference_kernels
from tests.solver.reference_smo import solve_by_definition

THREADS = 8

GATHER, OPTIMISE, SUBTRACT = kernels(THREADS)


def pair_problems(bounds):
    """C-SVC of every pair of classes."""
    return c_svc(class_pairs(len(bounds)), bounds)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def stores(rng, n_pairs=3, n=21, n_columns=40, q=10):
    """Random rows, a random map of pairs onto columns, and working sets of different sizes."""
    K = rng.normal(size=(n_columns, n_columns)).astype(np.float32)
    order = rng.permutation(n_columns).astype(np.int32)
    slot_of = np.argsort(order).astype(np.int32)
    member = np.stack([rng.permutation(n_columns)[:n] for _ in range(n_pairs)]).astype(np.int32)
    active = np.stack([rng.permutation(n)[:q] for _ in range(n_pairs)]).astype(np.int32)
    return (K + K.T)[order], slot_of, member, active, np.array([q, q - 3, 0], dtype=np.int32)


@pytest.mark.parametrize("n_old", [0, 4])
def test_gather(rng, n_old):
    rows, slot_of, member, active, n_active = stores(rng)
    live, old = np.array([1, 0], dtype=np.int32), np.full(3, n_old, dtype=np.int32)
    found, expected = (np.full((3, 10, 10), np.nan, dtype=np.float32) for _ in range(2))
    GATHER(live, rows, slot_of, member, active, old, n_active, found)
    reference_kernels.gather(live, rows, slot_of, member, active, old, n_active, expected)
    np.testing.assert_array_equal(found, expected)


def test_subtract(rng):
    rows, slot_of, member, active, counts = stores(rng)
    live = np.array([0, 1, 2], dtype=np.int32)
    coefficients = rng.normal(size=active.shape) * (rng.random(active.shape) < 0.7)
    found = rng.normal(size=member.shape)
    expected = found.copy()
    SUBTRACT(live, rows, slot_of, member, active, coefficients, counts, found)
    reference_kernels.subtract(live, rows, slot_of, member, active, coefficients, counts, expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def small_problems(rng, n_pairs=3, n=30, q=20):
    """K, active, n_active, lower, upper, v: kernel values of random points, and pairs at beta = 0."""
    points = rng.normal(size=(n_pairs, n, 3))
    active = np.stack([rng.permutation(n)[:q] for _ in range(n_pairs)]).astype(np.int32)
    chosen = np.take_along_axis(points, active[:, :, None].astype(np.int64), axis=1)
    K = np.exp(-((chosen[:, :, None] - chosen[:, None]) ** 2).sum(axis=3)).astype(np.float32)
    signs = rng.choice([-1.0, 1.0], size=(n_pairs, n))
    n_active = np.array([q, q - 7, 2], dtype=np.int32)
    return K, active, n_active, np.minimum(0, 3 * signs), np.maximum(0, 3 * signs), signs.copy()


def run(optimise, problems, *, target=1e-3, allowed=1000):
    K, active, n_active, lower, upper, v = problems
    n_pairs = len(K)
    out = np.zeros_like(v), np.zeros(active.shape), np.zeros(n_pairs, np.int32), np.full(n_pairs, -1, np.int32)
    live = np.arange(n_pairs, dtype=np.int32)
    targets, most = np.full(n_pairs, target), np.full(n_pairs, allowed, dtype=np.int32)
    optimise(live, K, active, n_active, lower, upper, v.copy(), targets, most, *out)
    return out


@pytest.mark.parametrize("allowed", [1, 3, 1000])
def test_optimise_takes_the_steps_of_the_cpu(rng, monkeypatch, allowed):
    # As Python computes it: compiled code rounds a product and a sum once, and of nearly equals then takes another.
    monkeypatch.setattr(reference_kernels, "solve_working_set", solve_by_definition.py_func)
    problems = small_problems(rng)
    beta, change, steps, status = run(OPTIMISE, problems, allowed=allowed)
    expected = run(reference_kernels.optimise, problems, allowed=allowed)
    np.testing.assert_array_equal(steps, expected[2])
    np.testing.assert_array_equal(status, expected[3])
    np.testing.assert_allclose(beta, expected[0], atol=1e-9)
    np.testing.assert_allclose(change, expected[1], atol=1e-9)
    assert set(status.tolist()) <= {REACHED, CUT_SHORT} and steps.max() <= allowed


def test_optimise_with_more_variables_than_threads_and_ties(rng):
    n = THREADS * ITEMS
    K = np.eye(n, dtype=np.float32)[None]
    signs = np.where(np.arange(n) < n // 3, 1.0, -1.0)[None]
    active = np.arange(n, dtype=np.int32)[None]
    problems = K, active, np.array([n], np.int32), np.minimum(0, 0.5 * signs), np.maximum(0, 0.5 * signs), signs
    beta, _, steps, status = run(OPTIMISE, problems, allowed=40)
    expected = run(reference_kernels.optimise, problems, allowed=40)
    assert steps[0] == expected[2][0] and status[0] == expected[3][0]
    np.testing.assert_allclose(np.sort(beta[0]), np.sort(expected[0][0]), atol=1e-9)


def test_optimise_ends_on_kernel_values_that_are_not_numbers(rng):
    problems = small_problems(rng)
    problems[0][:] = np.nan
    assert (run(OPTIMISE, problems)[3] == STUCK).all()


def test_the_whole_solver(rng):
    X = rng.normal(size=(24, 3)).astype(np.float32)
    y = np.arange(24) % 3
    members = [np.flatnonzero(y == c) for c in range(3)]
    bounds = [np.full(8, 2.0)] * 3
    device = Device(np, *kernels(THREADS), largest_set=12)
    kernel = Kernel("rbf", gamma=0.5)
    found = solve_in_lockstep(
        X, members, pair_problems(bounds), kernel, Stopping(tol=1e-3), device=device, budget_mb=500.0
    )
    expected = solve(X, members, pair_problems(bounds), kernel, Stopping(tol=1e-3), budget_mb=500.0, n_threads=1)
    for mine, other in zip(found, expected, strict=True):
        assert mine.converged
        assert mine.objective == pytest.approx(other.objective, rel=1e-4)


def test_the_kernel_of_the_probe(monkeypatch):
    fake_cuda.install(monkeypatch)
    native_cuda._launch_a_kernel()
    monkeypatch.setattr("fake_cuda.FakeArray.get", lambda self: np.zeros(40))
    with pytest.raises(ArithmeticError):
        native_cuda._launch_a_kernel()

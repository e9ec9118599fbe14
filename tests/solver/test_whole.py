"""SMO over a whole kernel matrix, with shrinking, against LIBSVM and the optimality conditions in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.svm import SVC

from gpusvm.kernels import Kernel
from gpusvm.solver import whole
from gpusvm.solver.operands import Samples
from gpusvm.solver.whole import TILE, kernel_matrix, solve_whole

KERNELS = [Kernel("rbf", gamma=0.2), Kernel("linear"), Kernel("poly", gamma=0.2, degree=2, coef0=1.0)]


@pytest.fixture
def eager(monkeypatch):
    """Shrinks small problems, and looks often at whether to."""
    monkeypatch.setattr(whole, "LEAST_SHRUNK", 10)
    monkeypatch.setattr(whole, "STEPS_AT_ONCE", 5)
    monkeypatch.setattr(whole, "SHRINKS_BELOW", 0.95)
    monkeypatch.setattr(whole, "PACKING_COST", 0.0)


@pytest.fixture
def packed(monkeypatch):
    """The sizes of the problems that shrinking left."""
    sizes = []
    pack = whole._Problem.pack

    def note(problem, active):
        sizes.append(len(active))
        return pack(problem, active)

    monkeypatch.setattr(whole._Problem, "pack", note)
    return sizes


def random_problem(seed, n, kernel=KERNELS[0], dtype=np.float64):
    """K, p, lower, upper of a C-SVC with some noise in its labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    signs = np.where(X[:, 0] + 0.5 * rng.normal(size=n) > 0, 1.0, -1.0)
    signs[:2] = 1.0, -1.0
    C = 10.0 ** rng.integers(-1, 3)
    return kernel(X, X).astype(dtype), signs, np.minimum(0, C * signs), np.maximum(0, C * signs)


def objective(K, p, beta):
    return p @ beta - beta @ K.astype(np.float64) @ beta / 2


def gap(K, p, lower, upper, beta):
    v = p - K.astype(np.float64) @ beta
    return v[beta < upper].max() - v[beta > lower].min()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_the_optimum_is_that_of_libsvm(kernel, dtype, eager, packed):
    for seed in range(6):
        K, p, lower, upper = random_problem(seed, 150, kernel, dtype)
        found = solve_whole(K, p, lower, upper, np.zeros(150), tol=1e-7, steps=10**6)
        assert found.converged and found.gap <= 1e-7
        svc = SVC(C=upper.max(), kernel="precomputed", tol=1e-9).fit(K.astype(np.float64), p)
        beta = np.zeros(150)
        beta[svc.support_] = svc.dual_coef_[0]
        assert objective(K, p, found.beta) == pytest.approx(objective(K, p, beta), rel=1e-6), f"seed {seed}"
        assert gap(K, p, lower, upper, found.beta) <= 1.5e-7, f"seed {seed}"
        np.testing.assert_allclose(found.v, p - K.astype(np.float64) @ found.beta, atol=1e-9)
    assert packed, "nothing was shrunk: the test would not see a mistake in it"


def test_any_linear_term_and_any_start(eager, packed):
    """As in regression and one-class problems: p is not y, and the sum is not zero."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        K = random_problem(seed, 120)[0]
        p, lower = rng.normal(size=120), -rng.choice([0.0, 0.3], 120)
        upper = lower + rng.choice([0.0, 0.3, 2.0], 120)
        start = lower + (upper - lower) * rng.random(120)
        found = solve_whole(K, p, lower, upper, start, tol=1e-6, steps=10**6)
        assert found.converged and gap(K, p, lower, upper, found.beta) <= 1.5e-6, f"seed {seed}"
        assert found.beta.sum() == pytest.approx(start.sum(), abs=1e-9)
        assert (found.beta >= lower).all() and (found.beta <= upper).all()
        assert objective(K, p, found.beta) > objective(K, p, start)
    assert packed


def test_what_was_given_up_too_early_comes_back(monkeypatch, eager, packed):
    """Here variables are given up by chance."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(whole._Part, "not_given_up", lambda part: rng.random(len(part.beta)) < 0.7)
    K, p, lower, upper = random_problem(3, 200)
    found = solve_whole(K, p, lower, upper, np.zeros(200), tol=1e-5, steps=10**6)
    assert found.gap == pytest.approx(gap(K, p, lower, upper, found.beta), abs=1e-9)
    assert min(packed) < 20
    monkeypatch.setattr(whole._Part, "not_given_up", lambda part: np.ones(len(part.beta), dtype=np.bool_))
    more = solve_whole(K, p, lower, upper, found.beta, tol=1e-5, steps=10**6)
    assert more.converged and gap(K, p, lower, upper, more.beta) <= 1.5e-5


def test_the_bits_do_not_depend_on_threads(eager, packed):
    K, p, lower, upper = random_problem(0, 2100, dtype=np.float32)
    alone = solve_whole(K, p, lower, upper, np.zeros(2100), tol=1e-2, steps=10**6)
    with ThreadPoolExecutor(3) as pool:
        together = solve_whole(K, p, lower, upper, np.zeros(2100), tol=1e-2, steps=10**6, pool=pool)
    assert packed
    np.testing.assert_array_equal(alone.beta, together.beta)
    np.testing.assert_array_equal(alone.v, together.v)


def test_columns_beyond_the_variables_are_not_looked_at():
    K, p, lower, upper = random_problem(0, 100)
    wide = np.full((100, 112), np.nan)
    wide[:, :100] = K
    found, expected = (solve_whole(k, p, lower, upper, np.zeros(100), tol=1e-4, steps=10**6) for k in (wide, K))
    np.testing.assert_array_equal(found.beta, expected.beta)


def test_memory_may_be_given(eager, packed):
    """What is in it does not matter, and a piece that is too small is not written beyond."""
    K, p, lower, upper = random_problem(0, 300)
    expected = solve_whole(K, p, lower, upper, np.zeros(300), tol=1e-4, steps=10**6)
    for size in (0, 2000, 300 * 316):
        memory = np.full(size + 8, np.nan)
        args = (K, p, lower, upper, np.zeros(300))
        found = solve_whole(*args, tol=1e-4, steps=10**6, memory=memory[:size])
        np.testing.assert_array_equal(found.beta, expected.beta)
        assert np.isnan(memory[size:]).all()
    assert packed and not np.isnan(memory[0]), "the memory was not used"


def test_it_ends_when_told_to_and_at_the_last_step():
    K, p, lower, upper = random_problem(0, 300)
    few = solve_whole(K, p, lower, upper, np.zeros(300), tol=1e-9, steps=7)
    assert few.n_iter == 7 and not few.converged and few.gap == pytest.approx(gap(K, p, lower, upper, few.beta))
    none = solve_whole(K, p, lower, upper, np.zeros(300), tol=1e-9, steps=10**6, stopped=lambda: True)
    assert none.n_iter == 0 and not none.converged


def test_a_tolerance_beyond_float64_does_not_go_on_for_ever():
    K, p, lower, upper = random_problem(0, 100)
    found = solve_whole(K, p, lower, upper, np.zeros(100), tol=0.0, steps=10**9)
    assert found.gap < 1e-12 and found.n_iter < 10**6


# -- the kernel matrix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["dense", "sparse", "pixels"])
@pytest.mark.parametrize("kernel", [*KERNELS, Kernel("sigmoid", gamma=0.2)], ids=lambda kernel: kernel.name)
def test_kernel_matrix_is_the_kernel_in_float64(rng, kernel, kind, dtype):
    n = TILE + 77
    X = rng.uniform(0.1, 1.0, (n + 10, 20)) * (rng.random((n + 10, 20)) < (0.9 if kind == "dense" else 0.2))
    X = np.rint(255 * X).astype(np.float32) / np.float32(255) if kind == "pixels" else X.astype(dtype)
    rows, out = rng.permutation(n + 10)[:n], np.full((n, n + 3), np.nan, dtype)
    samples = Samples.of(X, kernel) if dtype == np.float32 else Samples(X.astype(np.float64))
    kernel_matrix(kernel, samples, rows, out)
    exact = kernel(X[rows].astype(np.float64), X[rows].astype(np.float64))
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out[:, :n], exact, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(out[:, :n], out[:, :n].T)
    assert np.isnan(out[:, n:]).all(), "wrote where nothing was asked for"
    again = np.empty((n, n), dtype)
    with ThreadPoolExecutor(3) as pool:
        kernel_matrix(kernel, samples, rows, again, pool)
    np.testing.assert_array_equal(again, out[:, :n])


def test_kernel_matrix_is_left_unfinished_when_told_to(rng):
    X = rng.normal(size=(2 * TILE, 3))
    answers = iter([False, True])
    out = np.full((2 * TILE, 2 * TILE), np.nan)
    kernel_matrix(KERNELS[0], Samples(X), np.arange(2 * TILE), out, stopped=lambda: next(answers, True))
    assert np.isfinite(out[:TILE, :TILE]).all() and np.isnan(out[TILE:, TILE:]).all()

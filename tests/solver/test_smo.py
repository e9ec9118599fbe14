"""SMO in vectors takes the path of SMO by its definition, and the path ends at the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from reference_smo import solve_by_definition

from gpusvm.kernels import Kernel
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.smo import BLOCK_BYTES, solve_working_set

BLOCK = BLOCK_BYTES // 8
STEPS = 3000


def rbf(rng, n):
    X = rng.normal(size=(n, 5))
    return Kernel("rbf", gamma=0.3)(X, X)


def linear(rng, n):
    """Of rank 3: nearly every exchange of two has another that is as good."""
    X = rng.normal(size=(n, 3))
    return X @ X.T


def duplicates(rng, n):
    """Curvature is zero between the two of a kind."""
    X = rng.normal(size=(max(1, n // 3), 4))[rng.integers(0, max(1, n // 3), n)]
    return Kernel("rbf", gamma=0.3)(X, X)


def ties(rng, n):
    """Few different values: gradients and gains are equal in many places."""
    X = rng.integers(0, 2, size=(n, 3)).astype(float)
    return X @ X.T


def indefinite(rng, n):
    """Not positive semidefinite, and the diagonal has negative values."""
    K = rng.normal(size=(n, n))
    return K + K.T


KINDS = [rbf, linear, duplicates, ties, indefinite]
SIZES = [1, 2, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, 200]


def random_problem(rng, kind, n, dtype):
    """K, diagonal, beta, v, lower, upper: not every bound is a C, some are zero, and beta may
    begin anywhere."""
    K = kind(rng, n).astype(dtype)
    p = np.where(rng.random(n) < 0.5, 1.0, -1.0) if rng.random() < 0.5 else rng.normal(size=n)
    width = rng.choice([0.0, 0.5, 10.0, 1e3], n)
    lower = np.where(p > 0, 0.0, -width)
    upper = lower + width
    beta = lower.copy() if rng.random() < 0.5 else lower + width * rng.choice([0.0, 0.25, 1.0], n)
    return K, np.diagonal(K).astype(np.float64), beta, p - K.astype(np.float64) @ beta, lower, upper


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_step_is_that_of_the_definition(kind, n, dtype):
    for seed in range(5):
        K, diagonal, beta, v, lower, upper = random_problem(np.random.default_rng(seed), kind, n, dtype)
        found, expected = (beta.copy(), v.copy()), (beta.copy(), v.copy())
        steps = solve_working_set(K, diagonal, *found, lower, upper, 1e-3, STEPS, NONE, NONE)
        assert steps == solve_by_definition(K, diagonal, *expected, lower, upper, 1e-3, STEPS), f"seed {seed}"
        np.testing.assert_array_equal(found[0], expected[0], f"seed {seed}")
        np.testing.assert_array_equal(found[1], expected[1], f"seed {seed}")


def random_regression(rng, kind, n, dtype):
    """The same with a kink at zero: K, diagonal, beta, v, lower, upper, epsilon."""
    K, diagonal, beta, v, lower, upper = random_problem(rng, kind, n, dtype)
    p, width = v + K.astype(np.float64) @ beta + rng.normal(size=n), upper - lower
    beta = np.zeros(n) if rng.random() < 0.5 else width * rng.choice([-1.0, -0.25, 0.0, 0.5, 1.0], n)
    return K, diagonal, beta, p - K.astype(np.float64) @ beta, -width, width, rng.choice([0.01, 0.5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_step_of_a_regression_is_that_of_the_definition(kind, n, dtype):
    for seed in range(5):
        K, diagonal, beta, v, *bounds, epsilon = random_regression(np.random.default_rng(seed), kind, n, dtype)
        found, expected = (beta.copy(), v.copy()), (beta.copy(), v.copy())
        steps = solve_working_set(K, diagonal, *found, *bounds, 1e-3, STEPS, NONE, (epsilon,))
        assert steps == solve_by_definition(K, diagonal, *expected, *bounds, 1e-3, STEPS, epsilon), f"seed {seed}"
        np.testing.assert_array_equal(found[0], expected[0], f"seed {seed}")
        np.testing.assert_array_equal(found[1], expected[1], f"seed {seed}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [7, BLOCK + 1, 200])
@pytest.mark.parametrize("kind", [rbf, duplicates], ids=lambda kind: kind.__name__)
def test_a_regression_ends_where_that_of_two_variables_a_sample_does(kind, n, dtype):
    """LIBSVM's statement: b = (alpha, -alpha*), p = (y - epsilon, y + epsilon). The gradient may
    be float32."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        K, diagonal, _, p, _, upper, epsilon = random_regression(rng, kind, n, np.float32)
        upper, zeros = np.minimum(upper, 10.0), np.zeros(n)
        once, twice = np.zeros(n), np.zeros(2 * n)
        solve_working_set(K, diagonal, once, p.astype(dtype), -upper, upper, 1e-3, 10**6, NONE, (epsilon,))
        doubled = np.concatenate([p - epsilon, p + epsilon])
        bounds = np.concatenate([zeros, -upper]), np.concatenate([upper, zeros])
        solve_working_set(np.tile(K, (2, 2)), np.tile(diagonal, 2), twice, doubled, *bounds, 1e-3, 10**6, NONE, NONE)
        betas = once, twice[:n] + twice[n:]
        objectives = [p @ b - epsilon * abs(b).sum() - b @ K.astype(np.float64) @ b / 2 for b in betas]
        assert objectives[0] == pytest.approx(objectives[1], rel=1e-4, abs=1e-3), f"seed {seed}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [4, 2 * BLOCK, 3 * BLOCK + 6, 6 * BLOCK + 6])
def test_of_equals_the_last_is_taken(n, dtype):
    """All samples are orthogonal and equally far off: the first step may be any, and is the last
    of either class."""
    signs = np.tile([1.0, 1.0, -1.0, -1.0], n)[:n]
    beta, bounds = np.zeros(n), (np.minimum(0, signs), np.maximum(0, signs))
    assert (
        solve_working_set(np.eye(n, dtype=dtype), np.ones(n), beta, signs.astype(dtype), *bounds, 1e-3, 1, NONE, NONE)
        == 1
    )
    assert set(np.flatnonzero(beta)) == {np.flatnonzero(signs > 0)[-1], np.flatnonzero(signs < 0)[-1]}


@pytest.mark.parametrize("n", [*SIZES, 2 * BLOCK, 2 * BLOCK + 1])
@pytest.mark.parametrize("kind", [rbf, linear, duplicates, ties], ids=lambda kind: kind.__name__)
def test_a_gradient_in_float32_ends_at_the_same_optimum(kind, n):
    for seed in range(5):
        K, diagonal, start, v, lower, upper = random_problem(np.random.default_rng(seed), kind, n, np.float32)
        # Of samples of the same kind, a step of float32 is no finer than its gradient: bounds of
        # 1e3 need more of it.
        lower, upper, start = (np.clip(bound, -10.0, 10.0) for bound in (lower, upper, start))
        v = K.astype(np.float64) @ -start + np.where(v > 0, 1.0, -1.0)
        p = v + K.astype(np.float64) @ start
        exact, coarse, gradient = start.copy(), start.copy(), v.astype(np.float32)
        solve_working_set(K, diagonal, exact, v.copy(), lower, upper, 1e-3, 10**5, NONE, NONE)
        solve_working_set(K, diagonal, coarse, gradient, lower, upper, 1e-3, 10**5, NONE, NONE)
        objectives = [b @ p - b @ K.astype(np.float64) @ b / 2 for b in (exact, coarse)]
        assert objectives[1] == pytest.approx(objectives[0], rel=1e-4, abs=1e-3), f"seed {seed}"
        np.testing.assert_allclose(gradient, p - K.astype(np.float64) @ coarse, atol=2e-4, err_msg=f"seed {seed}")
        assert ((coarse >= lower) & (coarse <= upper)).all()
        assert coarse.sum() == pytest.approx(start.sum(), abs=1e-9 * max(1.0, np.abs(upper - lower).sum()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cut_in_the_steps_changes_nothing(dtype):
    K, diagonal, beta, v, lower, upper = random_problem(np.random.default_rng(1), rbf, 150, np.float32)
    v = v.astype(dtype)
    whole, parts = (beta.copy(), v.copy()), (beta.copy(), v.copy())
    steps = solve_working_set(K, diagonal, *whole, lower, upper, 1e-3, 10**6, NONE, NONE)
    taken = 0
    while (more := solve_working_set(K, diagonal, *parts, lower, upper, 1e-3, 7, NONE, NONE)) > 0:
        taken += more
    assert taken == steps > 7
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_working_set_is_the_first_variables_of_a_larger_matrix(dtype):
    K, diagonal, beta, v, lower, upper = random_problem(np.random.default_rng(2), rbf, 100, np.float32)
    v = v.astype(dtype)
    q = 61
    small, large = (beta[:q].copy(), v[:q].copy()), (beta[:q].copy(), v[:q].copy())
    args = (lower[:q], upper[:q], 1e-3, STEPS, NONE, NONE)
    steps = solve_working_set(np.ascontiguousarray(K[:q, :q]), diagonal[:q], *small, *args)
    assert solve_working_set(K, diagonal[:q], *large, *args) == steps > 0
    np.testing.assert_array_equal(small, large)

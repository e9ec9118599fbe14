"""Kernel values between variables that come and go, against the kernel's definition in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpusvm.kernels import Kernel
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.kernel_values import TILE, ActiveMatrix, ComputedValues, GivenValues, ValuesOfTwoBlocks
from gpusvm.solver.operands import Samples

KERNELS = [
    Kernel("rbf", gamma=0.2),
    Kernel("linear"),
    Kernel("poly", gamma=0.2, degree=2, coef0=1.0),
    Kernel("sigmoid", gamma=0.2),
]
EACH = ParallelFor()
COMPUTED = ["dense", "sparse", "pixels", "two blocks"]
CASES = [pytest.param(kernel, kind, id=f"{kernel.name}-{kind}") for kernel in KERNELS for kind in COMPUTED]
CASES.append(pytest.param(KERNELS[0], "given", id="given"))  # of whatever kernel


def never():
    return False


def values_of(rng, kind, kernel, dtype, n):
    """Kernel values of n variables that belong to some of n + 10 samples; and the same from the
    definition."""
    X = rng.uniform(0.1, 1.0, (n + 10, 20)) * (rng.random((n + 10, 20)) < (0.9 if kind == "dense" else 0.2))
    X = np.rint(255 * X).astype(np.float32) / np.float32(255) if kind == "pixels" else X.astype(dtype)
    rows = rng.permutation(n + 10)[:n]
    exact = kernel(X[rows].astype(np.float64), X[rows].astype(np.float64))
    if kind == "given":
        return GivenValues(kernel(X.astype(np.float64), X.astype(np.float64)), rows, dtype), exact
    samples = Samples.of(X, kernel) if dtype == np.float32 else Samples(X.astype(np.float64))
    if kind == "two blocks":
        blocks = rows[: n // 3], rows[n // 3 :]
        within = [kernel(X[block].astype(np.float64), X[block].astype(np.float64)).astype(dtype) for block in blocks]
        return ValuesOfTwoBlocks(kernel, samples, blocks, dtype, lambda k: within[k]), exact
    return ComputedValues(kernel, samples, rows, dtype), exact


def new_memory(dtype):
    return lambda size: np.full(size, np.nan, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "kind"), CASES)
def test_a_matrix_holds_the_kernel_values_of_whatever_variables_are_members(rng, kernel, kind, dtype):
    n = TILE + 77
    values, exact = values_of(rng, kind, kernel, dtype, n)
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    matrix = ActiveMatrix(values, new_memory(dtype), 100)
    with ThreadPoolExecutor(3) as pool:
        threaded = ActiveMatrix(values, new_memory(dtype), n + 16)
        # From few to more, to others, to all but a few, to few, to nearly as many others, to one,
        # to all.
        for share in (0.1, 0.3, 0.3, 0.95, 0.05, 0.06, 0.0, 1.0):
            wanted = rng.random(n) < share
            wanted[5] = True
            matrix.change(wanted, EACH, never)
            threaded.change(wanted, ParallelFor(pool), never)
            members, q = matrix.members, np.count_nonzero(wanted)
            np.testing.assert_array_equal(np.sort(members), np.flatnonzero(wanted))
            K = matrix.K[:, :q]
            np.testing.assert_allclose(K, exact[np.ix_(members, members)], rtol=tolerance, atol=tolerance)
            np.testing.assert_array_equal(K, K.T)
            np.testing.assert_array_equal(K, threaded.K[:, :q])


def test_those_that_stay_keep_their_order_and_their_values(rng):
    """Nothing is computed again: what a member's values were changed to stays."""
    values, _ = values_of(rng, "dense", KERNELS[0], np.float64, 60)
    matrix = ActiveMatrix(values, new_memory(np.float64), 0)
    first = np.arange(60) % 3 != 0
    matrix.change(first, EACH, never)
    matrix.K[:, :40] = np.arange(1600.0).reshape(40, 40)
    kept = rng.random(60) < 0.5
    expected = np.arange(1600.0).reshape(40, 40)[np.ix_(kept[first], kept[first])]
    matrix.change(kept, EACH, never)
    q = len(expected)
    np.testing.assert_array_equal(matrix.members[:q], np.flatnonzero(first & kept))
    np.testing.assert_array_equal(matrix.K[:q, :q], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "kind"), CASES)
def test_sums_over_kernel_values(rng, kernel, kind, dtype):
    n = 2 * TILE + 177
    values, exact = values_of(rng, kind, kernel, dtype, n)
    targets, sources = np.sort(rng.permutation(n)[:1100]), rng.permutation(n)[: TILE + 33]
    coefficients, v = rng.normal(size=len(sources)), rng.normal(size=n)
    expected, found, threaded = v.copy(), v.copy(), v.copy()
    expected[targets] -= exact[np.ix_(targets, sources)] @ coefficients
    values.subtract(found, targets, sources, coefficients, EACH)
    largest = np.abs(exact).max() * np.linalg.norm(coefficients)
    np.testing.assert_allclose(found, expected, atol=(1e-6 if dtype == np.float32 else 1e-13) * largest)
    with ThreadPoolExecutor(3) as pool:
        values.subtract(threaded, targets, sources, coefficients, ParallelFor(pool))
    np.testing.assert_array_equal(found, threaded)


@pytest.mark.parametrize("kind", ["dense", "given"])
def test_a_matrix_is_left_unfinished_when_told_to(rng, kind):
    values, _ = values_of(rng, kind, KERNELS[0], np.float64, 3 * TILE)
    matrix = ActiveMatrix(values, new_memory(np.float64), 3 * TILE)
    answers = iter([False, True])
    matrix.change(np.ones(3 * TILE, dtype=bool), EACH, lambda: next(answers, True))
    assert np.isfinite(matrix.K[:TILE, :TILE]).all() and np.isnan(matrix.K[2 * TILE :, 2 * TILE :]).all()

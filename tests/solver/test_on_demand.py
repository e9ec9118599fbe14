"""Kernel rows computed when they are needed, against the kernel's definition in float64."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gpusvm.kernels import Kernel
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.kernel_values import ActiveMatrix, ComputedValues
from gpusvm.solver.on_demand import LONGEST, NONE, diagonal, row_at, rows_on_demand
from gpusvm.solver.operands import MOST_IN_TILES, Samples
from gpusvm.solver.panels import PANEL_WIDTH
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.sparse_samples import SparseSamples
from gpusvm.sparse import as_csr

KERNELS = [
    Kernel("rbf", gamma=0.2),
    Kernel("linear"),
    Kernel("poly", gamma=0.2, degree=2, coef0=1.0),
    Kernel("sigmoid", gamma=0.2),
]
KINDS = ["dense", "dense in float64", "non-zeros", "pixels", "CSR"]
SIZES = [1, PANEL_WIDTH, 4 * PANEL_WIDTH, 5 * PANEL_WIDTH + 3, 150]


@numba.njit
def fetch(on_demand, K, k):
    return row_at(on_demand, K, k)


def samples_of(rng, kind, n):
    """Some of the samples are equal. Returns them, and X (n, 20) in float64."""
    X = rng.uniform(0.1, 1.0, (n, 20)) * (rng.random((n, 20)) < (0.9 if kind.startswith("dense") else 0.2))
    X = X[rng.integers(0, n, n)]
    X = np.rint(255 * X).astype(np.float32) / np.float32(255) if kind == "pixels" else X.astype(np.float32)
    if kind == "CSR":
        return SparseSamples(as_csr(X)), X.astype(np.float64)
    if kind == "dense in float64":
        return Samples(X.astype(np.float64)), X.astype(np.float64)
    return Samples.of(X, KERNELS[0]), X.astype(np.float64)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_rows_are_computed_once_and_lie_together(rng, kernel, kind, n):
    samples, X = samples_of(rng, kind, n)
    rows = rng.permutation(n)
    exact = kernel(X[rows], X[rows])
    on_demand = rows_on_demand(kernel, samples, rows)
    assert on_demand is not None
    K = np.full((n, n + 5), np.nan, dtype=np.float32)
    wanted = rng.permutation(n)[: max(1, n // 2)]
    for place, k in enumerate(wanted):
        assert fetch(on_demand, K, k) == place
        np.testing.assert_allclose(K[place, :n], exact[k], rtol=2e-6, atol=2e-6)
    K[:] = 7.0
    for place, k in enumerate(wanted):
        assert fetch(on_demand, K, k) == place
    assert (K == 7.0).all() and on_demand.n_there[0] == len(wanted)
    np.testing.assert_allclose(diagonal(on_demand), np.diagonal(exact), rtol=2e-6, atol=2e-6)


def test_the_curvature_between_equal_samples_is_not_positive(rng):
    """Else rounding would decide how far two variables of equal samples move."""
    samples, X = samples_of(rng, "dense", 150)
    on_demand = rows_on_demand(KERNELS[1], samples, np.arange(150))
    K, own = np.empty((150, 160), dtype=np.float32), diagonal(on_demand)
    for k in range(150):
        row = K[fetch(on_demand, K, k)]
        equal = (X[k] == X).all(axis=1)
        np.testing.assert_array_equal(own[k] + own[equal], 2 * row[:150][equal])


@pytest.mark.parametrize("width", [LONGEST + 1, MOST_IN_TILES + 1])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_long_samples_have_no_rows_on_demand(rng, width, share):
    wide = rng.normal(size=(20, int(width / share))) * (rng.random((20, int(width / share))) < 1.2 * share)
    wide = Samples(wide.astype(np.float32))
    assert rows_on_demand(KERNELS[0], wide, np.arange(20)) is None
    matrix = ActiveMatrix(ComputedValues(KERNELS[0], wide, np.arange(20), np.float32), np.empty, 20)
    matrix.take_all(20)
    assert len(matrix.members) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", KERNELS[:3], ids=lambda kernel: kernel.name)
def test_smo_ends_where_it_ends_over_a_complete_matrix(rng, kernel, kind):
    n = 150
    samples, X = samples_of(rng, kind, n)
    values = ComputedValues(kernel, samples, np.arange(n), np.float32)
    whole = ActiveMatrix(values, lambda size: np.empty(size, dtype=np.float32), n)
    whole.change(np.ones(n, dtype=bool), ParallelFor(), lambda: False)
    rows = ActiveMatrix(values, lambda size: np.empty(size, dtype=np.float32), n + PANEL_WIDTH)
    rows.take_all(n)
    y = np.where(X[:, 0] > X[:, 1], 1.0, -1.0)
    bounds = np.where(y > 0, 0.0, -3.0), np.where(y > 0, 3.0, 0.0)
    found = []
    for matrix in (whole, rows):
        b, v = np.zeros(n), y.copy()
        solve_working_set(matrix.K, matrix.diagonal(), b, v, *bounds, 1e-6, 10**6, matrix.on_demand, NONE)
        found.append(b @ y - 0.5 * b @ kernel(X, X) @ b)
    assert found[0] == pytest.approx(found[1], rel=1e-6)

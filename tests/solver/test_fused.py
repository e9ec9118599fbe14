"""Kernel values made in registers, against the kernel's definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gpusvm.kernels import Kernel
from gpusvm.solver.fused import PANELS_TOGETHER, TOGETHER
from gpusvm.solver.operands import IntegerOperand, PanelOperand, Samples, TileOperand
from gpusvm.solver.panels import PANEL_WIDTH, integer_products_are_exact

KERNELS = [Kernel("rbf", gamma=0.3), Kernel("linear")]
SIZES = [(1, 1), (TOGETHER, PANEL_WIDTH), (TOGETHER + 1, PANEL_WIDTH - 1), (5 * TOGETHER - 1, 9 * PANEL_WIDTH + 3)]
FORMS = ["dense", "nonzeros", "pixels"]


def products_of(rng, n_rows, n_columns, n_features, form="dense"):
    """Rows against columns, and both in float64."""
    X = rng.uniform(-1, 1, (n_rows + n_columns, n_features)).astype(np.float32)
    if form != "dense":
        X *= rng.random(X.shape) < 0.3
    pixels = np.rint(np.abs(255 * X)).astype(np.uint8) if form == "pixels" else None
    samples = Samples(X) if pixels is None else Samples(pixels / np.float32(255), pixels, 255.0)
    order = rng.permutation(len(X))
    rows, columns, every = order[:n_rows], order[n_rows:], np.arange(n_features)
    if form == "dense":
        operand = TileOperand(samples, columns)
    elif form == "nonzeros":
        operand = PanelOperand(samples, columns, every)
    elif integer_products_are_exact():
        operand = IntegerOperand(samples, columns, np.ones(n_features, dtype=bool))
    else:
        pytest.skip("this processor does not multiply pixels as integers")
    products = operand.products(samples, rows)
    return products, samples.X[rows].astype(np.float64), samples.X[columns].astype(np.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(("n_rows", "n_columns"), SIZES)
@pytest.mark.parametrize("n_features", [1, 7, 64, 230])
def test_values_and_sums_are_those_of_the_definition(rng, form, kernel, n_rows, n_columns, n_features):
    products, left, right = products_of(rng, n_rows, n_columns, n_features, form)
    exact = kernel(left, right)
    largest = max(1.0, float(np.abs(exact).max()))
    out, places = np.full((n_rows + 5, n_columns + 3), np.nan, np.float32), rng.permutation(n_rows + 5)[:n_rows]
    products.write(kernel, out, places, 0, n_columns)
    np.testing.assert_allclose(out[places, :n_columns], exact, rtol=1e-5, atol=5e-6 * largest)
    assert np.isnan(np.delete(out, places, axis=0)).all() and np.isnan(out[:, n_columns:]).all(), "wrote elsewhere"
    coefficients, sums = rng.normal(size=n_rows), rng.normal(size=n_columns)
    before = sums.copy()
    products.subtract(kernel, coefficients, 0, n_columns, sums)
    np.testing.assert_allclose(sums, before - coefficients @ exact, atol=1e-5 * largest * n_rows)
    inner = products.columns(0, n_columns) * products.right.unit
    np.testing.assert_allclose(inner, left @ right.T, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_other_kernels_and_float64_are_not_served(rng, form):
    products, _, _ = products_of(rng, 3, 3, 5, form)
    assert all(products.serves(kernel, np.float32) for kernel in KERNELS)
    assert not products.serves(Kernel("poly"), np.float32) and not products.serves(Kernel("rbf"), np.float64)


@pytest.mark.parametrize("n_features", [33, 230])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_mirror_image_and_any_part_have_the_same_bits(rng, kernel, form, n_features):
    n_rows, n_columns = 3 * TOGETHER + 2, (PANELS_TOGETHER + 2) * PANEL_WIDTH + 5
    products, _, _ = products_of(rng, n_rows, n_columns, n_features, form)
    n = n_rows + n_columns
    whole, mirrored = np.full((n, n), np.nan, np.float32), np.full((n, n), np.nan, np.float32)
    places = np.arange(n_columns, n)
    products.write(kernel, whole, places, 0, n_columns)
    for start in range(0, n_columns, 48):
        products.write(kernel, mirrored, places, start, min(start + 48, n_columns), mirrored=True)
    np.testing.assert_array_equal(mirrored[n_columns:, :n_columns], whole[n_columns:, :n_columns])
    np.testing.assert_array_equal(mirrored[:n_columns, n_columns:], whole[n_columns:, :n_columns].T)
    assert np.isnan(mirrored[:n_columns, :n_columns]).all() and np.isnan(mirrored[n_columns:, n_columns:]).all()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_value_is_the_same_whichever_sample_is_the_row(rng, kernel):
    X = rng.normal(size=(40, 19)).astype(np.float32)
    samples, every = Samples(X), np.arange(40)
    K = np.empty((40, 40), np.float32)
    TileOperand(samples, every).products(samples, every).write(kernel, K, every, 0, 40)
    np.testing.assert_array_equal(K, K.T)


def test_samples_far_apart_have_the_value_zero():
    X = np.array([[0.0], [3.0], [1e4], [1e15]], np.float32)
    samples, every = Samples(X), np.arange(4)
    K = np.empty((4, 4), np.float32)
    TileOperand(samples, every).products(samples, every).write(Kernel("rbf", gamma=1.0), K, every, 0, 4)
    np.testing.assert_allclose(K[:2, :2], np.exp(-np.array([[0.0, 9.0], [9.0, 0.0]])), rtol=1e-5)
    assert (K[:2, 2:] == 0).all()

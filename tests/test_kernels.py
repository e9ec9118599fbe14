from __future__ import annotations

import fake_cuda
import numpy as np
import pytest
from sklearn.metrics.pairwise import pairwise_kernels

from gpusvm import kernels
from gpusvm.kernels import Kernel, resolve_gamma, squared_norms

PARAMETERS = {
    "rbf": {"gamma": 0.3},
    "linear": {},
    "poly": {"gamma": 0.3, "degree": 4, "coef0": 0.7},
    "sigmoid": {"gamma": 0.3, "coef0": -0.2},
}


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("name", PARAMETERS)
def test_values_are_scikit_learns(rng, name, dtype, rtol):
    X, Y = rng.normal(size=(37, 11)).astype(dtype), rng.normal(size=(23, 11)).astype(dtype)
    found = Kernel(name, **PARAMETERS[name])(X, Y)
    expected = pairwise_kernels(X.astype(np.float64), Y.astype(np.float64), metric=name, **PARAMETERS[name])
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def test_rbf_of_a_point_with_itself_never_exceeds_one(rng):
    X = (1000 * rng.normal(size=(50, 20))).astype(np.float32)
    block = Kernel("rbf", gamma=1e-3)(X, X)
    assert block.max() <= 1.0


def test_norms_may_be_given(rng):
    X, Y = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    kernel = Kernel("rbf", gamma=0.5)
    np.testing.assert_array_equal(kernel(X, Y), kernel(X, Y, Y_norms=squared_norms(Y)))


def test_gamma_names_mean_what_scikit_learn_says(rng):
    X = rng.normal(size=(30, 8)).astype(np.float32)
    assert resolve_gamma("auto", X) == 1 / 8
    assert resolve_gamma("scale", X) == pytest.approx(1 / (8 * X.astype(np.float64).var()))
    assert resolve_gamma("scale", np.ones((4, 3), np.float32)) == 1.0
    assert resolve_gamma(0.25, X) == 0.25


@pytest.mark.parametrize(
    "wrong", [{"name": "laplace"}, {"gamma": np.nan}, {"gamma": -1.0}, {"degree": -1}, {"coef0": np.inf}]
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be"):
        Kernel(**wrong)


def test_a_precomputed_kernel_cannot_be_evaluated():
    with pytest.raises(ValueError, match="precomputed"):
        Kernel("precomputed")(np.eye(2), np.eye(2))


@pytest.mark.parametrize("shape", [(0, 3), (7, 0), (1, 5), (70_000, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_on_a_device_are_a_reduction(monkeypatch, rng, shape, dtype):
    """CuPy makes of an einsum as many products as there are rows."""
    cupy = fake_cuda.install(monkeypatch)
    monkeypatch.setattr(kernels, "SQUARES_BYTES", 100_000)
    X = rng.normal(size=shape).astype(dtype)
    found = kernels.squared_norms(cupy.asarray(X))
    assert type(found) is fake_cuda.FakeArray and found.dtype == dtype and found.shape == shape[:1]
    np.testing.assert_allclose(found.get(), (X.astype(np.float64) ** 2).sum(axis=1), rtol=1e-5)
    assert "einsum" not in {name for name, *_ in cupy.calls}

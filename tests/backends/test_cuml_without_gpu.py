"""The cuML backend's own code, run on stand-ins for CuPy and cuML (see fake_cuda)."""

from __future__ import annotations

import fake_cuda
import numpy as np
import pytest
import sklearn.svm
from asking import asked

from gpusvm.backends.cuml import CumlBackend
from gpusvm.errors import TrainingError
from gpusvm.kernels import Kernel

PARAMS = asked(kernel=Kernel("rbf", gamma=0.05), C=5.0)


@pytest.fixture
def cupy(monkeypatch):
    return fake_cuda.install(monkeypatch)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_loops_the_binary_solver_on_the_device_and_merges(cupy, digits, n_classes):
    keep = digits[1] < n_classes
    X, y = digits[0][keep][:300], digits[1][keep][:300]
    calls = []
    model = CumlBackend().fit(X, y, *PARAMS, progress=lambda *c: calls.append(c))
    n_pairs = n_classes * (n_classes - 1) // 2
    assert len(fake_cuda.FakeCumlSVC.fits) == n_pairs == len(calls)
    assert all(type(a) is np.ndarray for a in (model.support_vectors, model.dual_coef, model.support_indices))
    svc = sklearn.svm.SVC(C=5.0, gamma=0.05, decision_function_shape="ovo").fit(X, y)
    np.testing.assert_allclose(model.decision_function(digits[2], "ovo"), svc.decision_function(digits[2]), atol=1e-4)
    assert model.provenance["cuml"] == "26.10.0"


def test_device_input_is_not_copied_to_the_host(cupy, digits):
    X = cupy.asarray(digits[0][:300])
    assert type(X) is fake_cuda.FakeArray
    model = CumlBackend().fit(X, digits[1][:300], *PARAMS)
    host = CumlBackend().fit(digits[0][:300], digits[1][:300], *PARAMS)
    np.testing.assert_array_equal(model.dual_coef, host.dual_coef)


def test_weights_reach_each_pair(cupy, digits):
    X, y = digits[0][:300], digits[1][:300]
    weights = np.linspace(0.2, 2.0, 10)
    params = asked(kernel=PARAMS[0].kernel, C=0.5, tol=1e-6, class_weight=tuple(weights))
    model = CumlBackend().fit(X, y, *params)
    svc = sklearn.svm.SVC(C=0.5, gamma=0.05, tol=1e-6, class_weight=dict(enumerate(weights)))
    svc.decision_function_shape = "ovo"
    expected = svc.fit(X, y).decision_function(digits[2])
    np.testing.assert_allclose(model.decision_function(digits[2], "ovo"), expected, atol=1e-4)


def test_out_of_memory_names_the_pair_and_what_to_do(cupy, digits, monkeypatch):
    def fail(self, *args, **kwargs):
        raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")

    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "fit", fail)
    with pytest.raises(TrainingError, match=r"pair 0 vs 1 .*out_of_memory.*lower cache_size"):
        CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)


def test_the_model_predicts_device_arrays_on_the_device(cupy, digits_model, digits):
    on_device = digits_model.pair_decisions(cupy.asarray(digits[2]))
    assert type(on_device) is fake_cuda.FakeArray
    np.testing.assert_allclose(on_device.get(), digits_model.pair_decisions(digits[2]), atol=5e-5)
    np.testing.assert_array_equal(digits_model.predict(cupy.asarray(digits[2])), digits_model.predict(digits[2]))


@pytest.mark.parametrize("error", [MemoryError("out of memory allocating"), RuntimeError("cudaErrorMemoryAllocation")])
def test_out_of_memory_on_the_way_to_the_device_says_what_to_do(cupy, digits, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cupy, "asarray", fail, raising=False)
    with pytest.raises(TrainingError, match=r"could not be taken to the GPU .*emory.*--backend sklearn"):
        CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)

"""The cuML backend's own code, run on stand-ins for CuPy and cuML (see fake_cuda)."""

from __future__ import annotations

import inspect

import fake_cuda
import numpy as np
import pytest
import sklearn.svm
from asking import asked, asked_again
from scipy.sparse import csr_array, csr_matrix
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, certify, predict
from gpusvm.backends.cuml import CumlBackend
from gpusvm.errors import TrainingError
from gpusvm.kernels import MOST_SPREAD, Kernel, largest_norm
from gpusvm.sparse import as_csr, is_sparse

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
    assert model.provenance["cuml"] == "26.10.00"


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
    # Float32 on the device against float64 sums on the host: off by no more than rounding each
    # value allows.
    error = digits_model.kernel.value_error(largest_norm(digits_model.support_vectors), np.float32)
    bound = MOST_SPREAD * error * np.linalg.norm(digits_model.dual_coef, axis=1).max()
    assert bound < 5e-5
    np.testing.assert_allclose(on_device.get(), digits_model.pair_decisions(digits[2]), rtol=0, atol=bound)
    np.testing.assert_array_equal(digits_model.predict(cupy.asarray(digits[2])).get(), digits_model.predict(digits[2]))


@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_device_decides_large_blocks_by_one_product_for_all_pairs(cupy, digits, monkeypatch, n_classes):
    """Small blocks are a CPU's: there is a launch for each step of each block."""
    keep = digits[1] < n_classes
    model = CumlBackend().fit(digits[0][keep][:300], digits[1][keep][:300], *PARAMS)
    blocks, rows = [], np.tile(digits[2], (10, 1))
    decide = predict.ArrayEvaluator._decide
    monkeypatch.setattr(
        predict.ArrayEvaluator, "_decide", lambda self, X, parts: (blocks.append(len(X)), decide(self, X, parts))[1]
    )
    found = model.pair_decisions(cupy.asarray(rows))
    assert blocks == [len(rows)], "the rows are cut though memory is there"
    blocks.clear()
    monkeypatch.setattr(predict, "DEVICE_BUDGET", 2**20)
    model._evaluators.clear()
    np.testing.assert_allclose(model.pair_decisions(cupy.asarray(rows)).get(), found.get(), atol=1e-6)
    values = model.n_support_vectors + 2 * 64 + len(model.intercept)
    assert 2**19 < blocks[0] * 4 * values <= 2**20, "the kernel values of a block fill the budget, and no more"


@pytest.mark.parametrize("error", [MemoryError("out of memory allocating"), RuntimeError("cudaErrorMemoryAllocation")])
def test_out_of_memory_on_the_way_to_the_device_says_what_to_do(cupy, digits, monkeypatch, error):
    monkeypatch.setattr(cupy, "asarray", fake_cuda.raising_inside("cupy._creation.from_data", error), raising=False)
    with pytest.raises(TrainingError, match=r"could not be taken to the GPU .*emory.*--backend sklearn"):
        CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)


@pytest.mark.parametrize("output_type", ["numpy", "pandas", "cupy", "input"])
def test_cumls_global_output_type_changes_nothing(cupy, digits, monkeypatch, output_type):
    """``cuml.set_global_output_type`` beats what an estimator says of itself."""
    expected = CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "output_type", output_type)
    found = CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)
    np.testing.assert_array_equal(found.dual_coef, expected.dual_coef)
    assert fake_cuda.FakeCumlSVC.output_type == output_type


def asked_regression(**values):
    return asked(Kernel("rbf", gamma=0.05), **({"task": "epsilon_svr", "epsilon": 0.1} | values))


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_a_regression_is_cumls_in_a_precision_that_holds_the_targets(cupy, digits, scale):
    X, y, weights = digits[0][:300], scale * digits[1][:300], np.linspace(0, 2, 300)
    options = {"C": 5.0 * scale, "epsilon": 0.1 * scale, "tol": 1e-2}
    model = CumlBackend().fit(cupy.asarray(X), y, *asked_regression(**options), sample_weight=weights)
    theirs = sklearn.svm.SVR(gamma=0.05, **options).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(model.predict(X), theirs.predict(X), atol=1e-3 * scale)
    np.testing.assert_array_equal(model.support_vectors, theirs.support_vectors_)
    np.testing.assert_array_equal(model.support_vectors, X[model.support_indices])
    assert model.provenance["cuml"] == "26.10.00"
    gap = certify(model, X, y, sample_weight=weights).max_kkt_gap
    assert model.kkt_gap[0] == pytest.approx(gap, abs=1e-6 * scale)
    assert fake_cuda.FakeCumlSVC.fits[-1]._dual_coef.dtype == (np.float32 if scale == 1 else np.float64)


def test_a_regression_that_cuml_gave_up_has_not_converged(cupy, digits, monkeypatch):
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "gives_up_after", 5)
    with pytest.warns(ConvergenceWarning, match="Training stopped after 5 iterations before reaching"):
        model = CumlBackend().fit(digits[0][:100], digits[1][:100].astype(float), *asked_regression())
    assert model.fit_status == 1


def test_a_failed_regression_says_what_to_do(cupy, digits, monkeypatch):
    monkeypatch.setattr(
        fake_cuda.FakeCumlSVR, "fit", fake_cuda.raising_inside("cuml.svm", RuntimeError("out_of_memory"))
    )
    with pytest.raises(TrainingError, match=r"cuML failed on the regression .*out_of_memory.*lower cache_size"):
        CumlBackend().fit(digits[0][:100], digits[1][:100].astype(float), *asked_regression())


@pytest.mark.parametrize("version", fake_cuda.CUML_SVR_SIGNATURES)
def test_every_call_of_a_regression_fits_the_signatures_of_cuml(cupy, digits, monkeypatch, version):
    constructor, fit = fake_cuda.CUML_SVR_SIGNATURES[version]

    class Recorded(fake_cuda.FakeCumlSVR):
        def __init__(self, *args, **kwargs):
            bind(constructor, inspect.Parameter.KEYWORD_ONLY, args, kwargs)
            super().__init__(*args, **kwargs)

        def fit(self, *args, **kwargs):
            bind(fit, inspect.Parameter.POSITIONAL_OR_KEYWORD, args, kwargs)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr("cuml.svm.SVR", Recorded)
    X, y, weights = digits[0][:100], digits[1][:100].astype(float), np.linspace(0.5, 2, 100)
    CumlBackend().fit(X, y, *asked_regression(cache_size=100.0), sample_weight=weights)
    assert len(fake_cuda.FakeCumlSVC.fits) == 1


@pytest.mark.parametrize("version", fake_cuda.CUML_SIGNATURES)
def test_every_call_fits_the_signatures_of_cuml(cupy, digits, monkeypatch, version):
    """As read in the sources of each version."""
    calls = []
    original = fake_cuda.FakeCumlSVC

    class Recorded(original):
        def __init__(self, *args, **kwargs):
            calls.append((fake_cuda.CUML_SIGNATURES[version][0], True, args, kwargs))
            super().__init__(*args, **kwargs)

        def fit(self, *args, **kwargs):
            calls.append((fake_cuda.CUML_SIGNATURES[version][1], False, args, kwargs))
            return super().fit(*args, **kwargs)

    monkeypatch.setattr("cuml.svm.SVC", Recorded)
    params = asked_again(PARAMS, class_weight=tuple(np.linspace(0.5, 2, 10)), cache_size=100.0)
    CumlBackend().fit(digits[0][:100], digits[1][:100], *params)
    assert len(calls) == 90
    for names, keyword_only, args, kwargs in calls:
        kind = inspect.Parameter.KEYWORD_ONLY if keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        bind(names, kind, args, kwargs)


def bind(names, kind, args, kwargs):
    """Raise TypeError where a function of these parameters does not take the arguments."""
    inspect.Signature([inspect.Parameter(name, kind) for name in names.split()]).bind_partial(*args, **kwargs)


# -- whether a pair has converged -----------------------------------------------------------------


def test_a_pair_that_cuml_gave_up_has_not_converged(cupy, digits, monkeypatch):
    """It gives up where its gap does not change for a while, with no more than a line in its
    log."""
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "gives_up_after", 5)
    with pytest.warns(ConvergenceWarning, match=r"45 of 45 class pairs stopped after 5 iterations"):
        model = CumlBackend().fit(digits[0][:300], digits[1][:300], *PARAMS)
    assert not model.converged.any() and model.fit_status == 1
    np.testing.assert_allclose(model.kkt_gap, certify(model, digits[0][:300], digits[1][:300]).kkt_gap, rtol=1e-6)


def test_a_pair_that_reached_the_tolerance_in_its_last_step_has_converged(cupy, digits):
    X, y = digits[0][:300], digits[1][:300]
    free = CumlBackend().fit(X, y, *PARAMS)
    bounded = CumlBackend().fit(X, y, *asked_again(PARAMS, max_iter=int(free.n_iter.max())))
    assert (bounded.n_iter == free.n_iter).all() and bounded.converged.all()
    assert bounded.kkt_gap.max() <= 2 * PARAMS[1].tol


# -- streams, memory, faults ----------------------------------------------------------------------


def test_every_fit_runs_after_the_callers_stream_and_beside_no_other(cupy, digits):
    keep = digits[1][:200] < 3
    CumlBackend().fit(digits[0][:200][keep], digits[1][:200][keep], *PARAMS)
    assert cupy.events == [
        "wait for the caller's stream", "enter null stream", "fit", "fit", "fit",
        "wait for the device", "leave null stream",
    ]  # fmt: skip


def test_cupys_memory_comes_from_a_pool_of_ours(cupy, digits):
    CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)
    assert cupy.cuda.rmm.bytes == cupy.cuda.default_pool.bytes == 0
    assert cupy.cuda.get_allocator() == cupy.cuda.rmm.malloc


@pytest.mark.parametrize("module", ["cuml.internals.validation", "cupy._core.core", "rmm.pylibrmm.device_buffer"])
@pytest.mark.parametrize(
    "error",
    [AttributeError("module 'numpy' has no attribute 'row_stack'"), TypeError("an unexpected keyword argument")],
)
def test_whatever_the_libraries_raise_names_the_pair_and_what_to_do(cupy, digits, monkeypatch, module, error):
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "fit", fake_cuda.raising_inside(module, error))
    with pytest.raises(TrainingError, match=rf"pair 0 vs 1 \({type(error).__name__}: .*--backend sklearn") as caught:
        CumlBackend().fit(digits[0][:100], digits[1][:100], *PARAMS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, KeyboardInterrupt])
def test_what_the_callers_progress_raises_is_the_callers(cupy, digits, kind):
    with pytest.raises(kind, match="mine"):
        CumlBackend().fit(
            digits[0][:100], digits[1][:100], *PARAMS, progress=fake_cuda.raising_inside("__main__", kind("mine"))
        )


# -- sparse samples -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_samples_reach_cuml_as_csr_on_the_device(cupy, digits, n_classes, dtype):
    keep = digits[1] < n_classes
    X, y = digits[0][keep][:200].astype(dtype), digits[1][keep][:200]
    dense = CumlBackend().fit(X, y, *PARAMS)
    model = CumlBackend().fit(as_csr(csr_array(X)), y, *PARAMS)
    assert is_sparse(model.support_vectors) and model.support_vectors.dtype == dtype
    np.testing.assert_array_equal(model.dual_coef, dense.dual_coef)
    np.testing.assert_array_equal(model.support_vectors.toarray(), dense.support_vectors)
    np.testing.assert_allclose(model.kkt_gap, dense.kkt_gap, atol=1e-6)
    np.testing.assert_allclose(model.pair_decisions(csr_array(digits[2])), dense.pair_decisions(digits[2]), atol=1e-5)


def test_a_sparse_model_takes_rows_on_the_device_and_gives_back_such(cupy, digits):
    keep = digits[1] < 3
    model = CumlBackend().fit(as_csr(csr_array(digits[0][keep][:200])), digits[1][keep][:200], *PARAMS)
    found = model.pair_decisions(cupy.asarray(digits[2]))
    assert type(found) is fake_cuda.FakeArray
    np.testing.assert_array_equal(found.get(), model.pair_decisions(digits[2]))


def test_a_sparse_matrix_of_cupys_is_taken(cupy, digits):
    X, y = csr_matrix(digits[0][:200]), digits[1][:200]
    expected = SVC(backend="sklearn").fit(X, y)
    found = SVC(backend="sklearn").fit(fake_cuda.FakeCsr(X), y)
    np.testing.assert_array_equal(found.dual_coef_.toarray(), expected.dual_coef_.toarray())
    np.testing.assert_array_equal(found.predict(fake_cuda.FakeCsr(X)), expected.predict(X))

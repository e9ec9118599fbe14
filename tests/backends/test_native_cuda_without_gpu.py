"""The native-cuda backend's own code, run on a stand-in for CuPy with kernels by their
definition."""

from __future__ import annotations

import types

import fake_cuda
import numpy as np
import pytest
from asking import asked, asked_again

from gpusvm import SVC
from gpusvm import device as gpusvm_device
from gpusvm.backends import native_cuda
from gpusvm.backends.registry import choose_backend, get_backend
from gpusvm.device import Availability, Driver, probe_cuda
from gpusvm.errors import BackendUnavailableError, TrainingError, UsageError
from gpusvm.kernels import Kernel
from gpusvm.solver.precision import ALLOWED
from tests.solver.cuda_shim.build import needs_compiler
from tests.solver.host_device import altered

pytestmark = needs_compiler

PARAMS = asked(kernel=Kernel("rbf", gamma=0.05), C=5.0, tol=1e-4)
CUDA = native_cuda.NativeCudaBackend()


@pytest.fixture
def few(digits):
    """As `digits`, with so few images to train on that a pair of classes has some sixty."""
    return digits[0][:300], digits[1][:300], digits[2]


def test_reaches_what_the_cpu_reaches(cupy, few):
    lines = []
    found = CUDA.fit(few[0], few[1], *PARAMS, progress=lambda *line: lines.append(line))
    expected = get_backend("native-cpu").fit(few[0], few[1], *PARAMS)
    np.testing.assert_allclose(found.pair_decisions(few[2]), expected.pair_decisions(few[2]), atol=1e-3)
    np.testing.assert_allclose(found.dual_objective, expected.dual_objective, rtol=1e-5)
    # The gaps are float64's, the kernel values that the solver saw float32's: see docs/solver.md,
    # Precision.
    assert found.converged.all() and found.kkt_gap.max() <= (1 + 2 * ALLOWED) * PARAMS[1].tol
    assert lines[-1][:2] == (45, 45) and all("gap" in latest for _, _, latest in lines)
    assert found.provenance["backend"] == "native-cuda" and found.provenance["cache_mb"] == 10240
    assert all(type(a) is np.ndarray for a in (found.support_vectors, found.dual_coef, found.support_indices))


def test_weights_and_a_precomputed_kernel(cupy, digits, rng):
    X, y = digits[0][:300], digits[1][:300]
    weights = rng.uniform(0, 2, 300) * (rng.random(300) < 0.8)
    params = asked_again(PARAMS, class_weight=tuple(np.linspace(0.5, 2, 10)))
    for given, kernel in ((X, PARAMS[0].kernel), (PARAMS[0].kernel(X, X), Kernel("precomputed"))):
        models = [
            get_backend("native-cpu").fit(
                given, y, *asked_again(params, kernel=kernel), sample_weight=weights
            ) if cpu else CUDA.fit(given, y, *asked_again(params, kernel=kernel), sample_weight=weights)
            for cpu in (True, False)
        ]  # fmt: skip
        np.testing.assert_allclose(models[1].dual_objective, models[0].dual_objective, rtol=1e-4)
        assert (weights[models[1].support_indices] > 0).all()


# -- which device, and whether there is one -------------------------------------------------------


def test_native_is_the_gpu_where_it_works(cupy, monkeypatch):
    assert choose_backend("native").backend.name == "native-cuda"
    monkeypatch.undo()
    choice = choose_backend("native")
    assert choice.backend.name == "native-cpu"
    assert "native-cuda cannot run: no NVIDIA driver" in choice.reason


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (Driver(status=None), "no NVIDIA driver"),
        (Driver(status=0, cuda_version=11040, n_devices=1), "the NVIDIA driver is too old: it runs CUDA 11.4"),
        (Driver(status=100, cuda_version=13000), "finds no device"),
        (Driver(status=999, cuda_version=13000), "does not start"),
    ],
)
def test_each_fault_of_the_machine_is_named(monkeypatch, driver, reason):
    monkeypatch.setattr("gpusvm.device.query_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    probe_cuda.cache_clear()
    try:
        with pytest.raises(BackendUnavailableError, match=reason):
            choose_backend("native-cuda")
    finally:
        probe_cuda.cache_clear()


def double(values):
    values *= 2


@pytest.fixture
def probed(monkeypatch):
    """A machine with a device and CuPy, where the solver's kernels do what the test says."""
    fake_cuda.install(monkeypatch)
    there = Availability(True, "Imaginary GPU, 80 GB", detail={"driver_cuda_version": 13000})
    monkeypatch.setattr(native_cuda, "probe_cuda", lambda: there)

    def build(launch):
        device = types.SimpleNamespace(kernels=types.SimpleNamespace(twice=launch))
        monkeypatch.setattr(native_cuda, "solver_device", lambda: device)

    native_cuda._what_is_wrong.cache_clear()
    yield build
    native_cuda._what_is_wrong.cache_clear()


def test_the_probe_says_yes_after_a_kernel_has_run(probed):
    ran = []
    probed(lambda values: (ran.append(None), double(values)))
    assert CUDA.probe().ok and ran
    assert CUDA.probe().ok and len(ran) == 1, "asked again in the same process"


@pytest.mark.parametrize("error", [RuntimeError("CUDA_ERROR_INVALID_IMAGE"), AttributeError("no attribute 'unload'")])
def test_kernels_that_do_not_run_are_told(probed, error):
    probed(fake_cuda.raising_inside("cupy._core.raw", error))
    found = CUDA.probe()
    assert not found.ok
    assert found.reason.endswith(f"but its kernels do not run there: {type(error).__name__}: {error}")


def test_a_kernel_that_writes_something_else_is_no_kernel(probed):
    probed(lambda values: None)
    found = CUDA.probe()
    assert not found.ok and "a kernel that doubles 40 numbers wrote others" in found.reason


def test_the_device_asked_for_is_used_or_refused(cupy, digits):
    CUDA.fit(digits[0][:100], digits[1][:100], *asked_again(PARAMS, device=0))
    assert cupy.used_devices == [0]
    with pytest.raises(UsageError, match=r"device=1: this machine has 1 visible CUDA device"):
        CUDA.fit(digits[0][:100], digits[1][:100], *asked_again(PARAMS, device=1))


def test_training_has_memory_of_its_own_and_gives_it_back(cupy, digits):
    """After ``import cuml``, which any probe of cuML makes, CuPy's own pool has nothing to do
    with CuPy's arrays."""
    model = CUDA.fit(digits[0], digits[1], *PARAMS)
    n = np.sort(np.bincount(digits[1]))[:2].sum()
    assert model.provenance["peak_gpu_mb"] >= 45 * n**2 * 4 / 2**20, "the kernel values of 45 working sets at least"
    assert cupy.cuda.rmm.bytes == cupy.cuda.default_pool.bytes == 0
    assert cupy.cuda.get_allocator() == cupy.cuda.rmm.malloc
    assert gpusvm_device.training_pool().total_bytes() == 0


def test_training_waits_for_the_callers_stream_and_for_the_device(cupy, digits):
    CUDA.fit(digits[0][:100], digits[1][:100], *PARAMS)
    assert cupy.events == [
        "wait for the caller's stream", "enter null stream", "wait for the device", "leave null stream"
    ]  # fmt: skip


# -- faults while training ------------------------------------------------------------------------


def test_memory_that_runs_out_is_met_with_smaller_groups(cupy, few, monkeypatch):
    device, calls = native_cuda.solver_device(), []

    def gather(live, *arrays, **sizes):
        calls.append(len(live))
        if len(live) > 12:
            raise MemoryError("Out of memory allocating 1,073,741,824 bytes")
        device.kernels.gather(live, *arrays, **sizes)

    monkeypatch.setattr(native_cuda, "solver_device", lambda: altered(device, gather=gather))
    model = CUDA.fit(few[0], few[1], *PARAMS)
    assert calls[0] == 45 and model.converged.all()


def test_memory_for_not_even_one_pair_is_an_error_that_names_the_budget(cupy, digits, monkeypatch):
    with pytest.raises(TrainingError, match=r"not enough memory on the GPU.*cache_size=1 MB.*native-cpu"):
        CUDA.fit(digits[0], digits[1], *asked_again(PARAMS, cache_size=0.6))


LOST = "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable"


@pytest.mark.parametrize(
    ("module", "error", "names"),
    [
        ("cupy_backends.cuda.api.runtime", RuntimeError(LOST), "CuPy: RuntimeError: cudaErrorDevicesUnavailable"),
        ("cupy._core.core", TypeError("Unsupported type"), "CuPy: TypeError: Unsupported type"),
        ("cuda.bindings.nvvm", OverflowError("too large"), "CUDA: OverflowError: too large"),
    ],
)
def test_a_device_or_a_library_that_fails_is_a_training_error(cupy, few, monkeypatch, module, error, names):
    failing = altered(native_cuda.solver_device(), smo=fake_cuda.raising_inside(module, error))
    monkeypatch.setattr(native_cuda, "solver_device", lambda: failing)
    with pytest.raises(TrainingError, match="the GPU failed while training") as caught:
        CUDA.fit(few[0], few[1], *PARAMS)
    assert names in str(caught.value) and "gpusvm info" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [RuntimeError, AttributeError])
def test_what_the_callers_progress_raises_is_the_callers(cupy, few, kind):
    with pytest.raises(kind, match="mine"):
        CUDA.fit(few[0], few[1], *PARAMS, progress=fake_cuda.raising_inside("__main__", kind("mine")))


def test_an_interrupt_is_not_swallowed(cupy, few, monkeypatch):
    def interrupt(*line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CUDA.fit(few[0], few[1], *PARAMS, progress=interrupt)


# -- arrays on the device -------------------------------------------------------------------------


class Tensor:
    """What another library's array shows of itself: no NumPy conversion, which would be a copy to
    the host."""

    def __init__(self, values):
        self.values = values.view(fake_cuda.FakeArray)
        self.shape = values.shape

    def __array__(self, *args, **kwargs):
        raise AssertionError("copied to the host")


class DlpackTensor(Tensor):
    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **kwargs):
        raise AssertionError("CuPy's stand-in takes the values as they are")


@pytest.mark.parametrize("kind", ["cupy", "dlpack"])
def test_samples_on_the_device_train_and_predict_there(cupy, few, kind):
    on_device = few[0].view(fake_cuda.FakeArray)
    X = {"cupy": on_device, "dlpack": DlpackTensor(few[0])}[kind]
    svc = SVC(C=5, gamma=0.05, backend="native-cuda").fit(X, few[1].view(fake_cuda.FakeArray))
    host = SVC(C=5, gamma=0.05, backend="native-cuda").fit(few[0], few[1])
    np.testing.assert_array_equal(svc.dual_coef_, host.dual_coef_)
    assert svc.n_features_in_ == 64 and svc.shape_fit_ == few[0].shape
    decisions, labels = svc.decision_function(X), svc.predict(X)
    assert type(decisions) is type(labels) is fake_cuda.FakeArray
    np.testing.assert_array_equal(labels.get(), host.predict(few[0]))
    assert svc.score(X, few[1].view(fake_cuda.FakeArray)) == host.score(few[0], few[1])
    assert svc.model_._evaluators, "the model's arrays are taken to the device again for each prediction"


def test_text_labels_come_back_on_the_host(cupy, few):
    names = np.array([f"digit {c}" for c in range(10)])[few[1]]
    svc = SVC(C=5, gamma=0.05, backend="native-cuda").fit(few[0].view(fake_cuda.FakeArray), names)
    assert type(svc.predict(few[2].view(fake_cuda.FakeArray))) is np.ndarray


def test_a_cpu_backend_takes_samples_off_the_device(cupy, few):
    svc = SVC(C=5, gamma=0.05, backend="native-cpu").fit(few[0].view(fake_cuda.FakeArray), few[1])
    host = SVC(C=5, gamma=0.05, backend="native-cpu").fit(few[0], few[1])
    np.testing.assert_array_equal(svc.dual_coef_, host.dual_coef_)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nan", "contains NaN or infinity"),
        ("beyond float64", "scale the features"),
        ("one dimension", "Expected 2D array with at least one sample"),
        ("another length", None),  # in scikit-learn's words
        ("no rows", "Expected 2D array with at least one sample"),
    ],
)
def test_samples_on_the_device_are_validated(cupy, digits, wrong, message):
    X = digits[0][:50].copy()
    if wrong == "nan":
        X[3, 4] = np.nan
    if wrong == "beyond float64":
        X = X.astype(np.float64)
        X[3, 4] = 1e200
    X = {"one dimension": X[0], "no rows": X[:0]}.get(wrong, X)
    y = digits[1][:49] if wrong == "another length" else digits[1][:50]
    with pytest.raises(ValueError, match=message):
        SVC(backend="native-cuda").fit(X.view(fake_cuda.FakeArray), y)

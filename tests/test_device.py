"""Each way in which a GPU can be missing has its own reason."""

from __future__ import annotations

import subprocess
import sys
import types

import fake_cuda
import numpy as np
import pytest

from gpusvm import device
from gpusvm.backends import cuml as cuml_backend
from gpusvm.backends import native_cuda
from gpusvm.device import Driver, failed_library, gpu_failures, probe_cuda, training_on_gpu
from gpusvm.errors import DataError, TrainingError


@pytest.fixture
def machine(monkeypatch):
    """A machine made of a driver, a CuPy and a cuML; the probes' memory is emptied around the
    test."""

    def build(
        driver: Driver, *, packages: tuple[str, ...] = (), runtime=None, visible: str | None = None, cuml="26.10.00"
    ) -> fake_cuda.FakeCupy:
        monkeypatch.setattr(device, "query_driver", lambda: driver)
        monkeypatch.setattr(device, "installed", lambda name: name in packages)
        monkeypatch.setattr(cuml_backend, "installed", lambda name: name in packages)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        cupy = fake_cuda.install(monkeypatch, runtime=runtime, cuml_version=cuml)
        probe_cuda.cache_clear()
        cuml_backend._probe.cache_clear()
        native_cuda._what_is_wrong.cache_clear()
        return cupy

    yield build
    probe_cuda.cache_clear()
    cuml_backend._probe.cache_clear()
    native_cuda._what_is_wrong.cache_clear()


WORKING = Driver(status=0, cuda_version=13000, n_devices=1)
BOTH = ("cupy", "cuml")


def test_a_working_device_is_described(machine):
    machine(WORKING, packages=BOTH)
    found = probe_cuda()
    assert found.ok and found.reason == "Imaginary GPU, 80 GB"
    assert found.detail["devices"][0]["compute_capability"] == "9.0"
    assert cuml_backend.backend.probe().ok


def test_no_driver(machine):
    machine(Driver(status=None), packages=BOTH)
    assert "no NVIDIA driver" in probe_cuda().reason
    assert cuml_backend.backend.probe().reason == probe_cuda().reason


def test_driver_too_old_for_any_cuda_we_use(machine):
    machine(Driver(status=0, cuda_version=11040, n_devices=1), packages=BOTH)
    assert "too old: it runs CUDA 11.4" in probe_cuda().reason


def test_driver_too_old_for_the_installed_cupy(machine):
    error = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
    machine(
        Driver(status=0, cuda_version=12020, n_devices=1),
        packages=BOTH,
        runtime=fake_cuda.FakeRuntime(error=error),
    )
    found = probe_cuda()
    assert "CUDA 12.2, too old for the installed CuPy (built for CUDA 13.0)" in found.reason
    assert found.hint == 'pip install "gpusvm[cuda12]"'


def test_no_device(machine):
    machine(Driver(status=100, cuda_version=13000), packages=BOTH)
    assert "finds no device" in probe_cuda().reason


def test_devices_hidden_by_the_environment(machine):
    machine(Driver(status=100, cuda_version=13000), packages=BOTH, visible="")
    found = probe_cuda()
    assert "CUDA_VISIBLE_DEVICES is ''" in found.reason and "unset" in found.hint


def test_driver_that_does_not_start(machine):
    machine(Driver(status=999, cuda_version=13000), packages=BOTH)
    assert "cuInit returned 999" in probe_cuda().reason


def test_cupy_missing(machine):
    machine(WORKING)
    found = probe_cuda()
    assert found.reason == "CuPy is not installed" and found.hint == 'pip install "gpusvm[cuda13]"'


def test_cupy_broken(machine):
    machine(WORKING, packages=BOTH, runtime=fake_cuda.FakeRuntime(error=OSError("libcublas.so.13: no such file")))
    assert "but cuBLAS is not (OSError: libcublas" in probe_cuda().reason


def test_cuml_missing(machine):
    machine(WORKING, packages=("cupy",))
    found = cuml_backend.backend.probe()
    assert not found.ok and "cuML is not installed" in found.reason and "cuda13" in found.hint


def test_cuml_broken(machine, monkeypatch):
    machine(WORKING, packages=BOTH)
    monkeypatch.setitem(sys.modules, "cuml.svm", None)
    found = cuml_backend.backend.probe()
    assert not found.ok and "cuML 26.10.00 is broken" in found.reason


# -- a probe that says yes has run something ------------------------------------------------------


WHOLE = 'pip install "cupy-cuda13x[ctk]"'


@pytest.mark.parametrize("asked", ["RawModule", "arange"])
@pytest.mark.parametrize(
    ("error", "reason", "hint"),
    [
        (RuntimeError("NVRTC_ERROR_COMPILATION"), "CuPy is installed but fails: RuntimeError", "gpusvm[cuda13]"),
        (OSError("libcublas.so.13: cannot open"), "CuPy is installed, but cuBLAS is not (OSError: libcublas", WHOLE),
        (
            RuntimeError('Failure finding "libnvrtc.so": No such file: libnvrtc.so*'),
            "CuPy is installed, but the compiler NVRTC is not (RuntimeError: Failure finding",
            WHOLE,
        ),
        (
            RuntimeError('cupy/complex.cuh(8): catastrophic error: cannot open source file "cuda_fp16.h"'),
            "CuPy is installed, but CUDA's headers are not (cuda_fp16.h is missing)",
            WHOLE,
        ),
        (
            RuntimeError(
                "CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an unsupported toolchain."
            ),
            "the compiler NVRTC is newer than the NVIDIA driver, which runs CUDA 13.0",
            'pip install "cuda-toolkit==13.0.*"',
        ),
    ],
    ids=["anything", "cuBLAS", "NVRTC", "headers", "a driver too old for NVRTC"],
)
def test_cupy_that_imports_and_computes_nothing_is_no_device(machine, asked, error, reason, hint):
    cupy = machine(WORKING, packages=BOTH)
    setattr(cupy, asked, fake_cuda.raising_inside("cupy._core.core", error))
    found = probe_cuda()
    assert not found.ok and found.reason.startswith(reason) and hint in found.hint and "\n" not in found.reason


def test_cupy_for_both_cudas_at_once_is_named(machine, monkeypatch):
    cupy = machine(WORKING, packages=BOTH)
    cupy.arange = fake_cuda.raising_inside("cupy._core.core", ImportError("undefined symbol"))
    monkeypatch.setattr(device, "package_versions", lambda names: dict.fromkeys(names, "14.2.0"))
    found = probe_cuda()
    assert "CuPy is installed twice" in found.reason
    assert found.hint == 'pip uninstall -y cupy-cuda12x cupy-cuda13x; pip install "gpusvm[cuda13]"'


def test_a_device_too_old_for_the_kernels_is_named(machine):
    runtime = fake_cuda.FakeRuntime()
    properties = runtime.getDeviceProperties(0) | {"major": 7, "minor": 0}
    runtime.getDeviceProperties = lambda index: properties
    machine(WORKING, packages=BOTH, runtime=runtime)
    assert probe_cuda().reason == "the GPU is too old: its compute capability is 7.0, 7.5 is needed"


def test_a_kernel_that_writes_nothing_is_no_device(machine):
    cupy = machine(WORKING, packages=BOTH)
    cupy.RawModule = lambda **given: types.SimpleNamespace(get_function=lambda name: lambda *launch: None)
    assert "a kernel that doubles 40 numbers wrote others" in probe_cuda().reason


def test_cupy_that_computes_wrong_results_is_no_device(machine):
    cupy = machine(WORKING, packages=BOTH)
    cupy.arange = lambda *args, **kwargs: np.zeros(4, dtype=np.float32).view(fake_cuda.FakeArray)
    found = probe_cuda()
    assert not found.ok and "a product of two small matrices came out as" in found.reason


@pytest.mark.parametrize("version", ["25.10.00", "25.12.00", "26.00.00"])
@pytest.mark.parametrize("known", ["its metadata", "itself"])
def test_a_cuml_too_old_is_refused_by_name(machine, monkeypatch, version, known):
    machine(WORKING, packages=BOTH, cuml=version)
    if known == "its metadata":
        monkeypatch.setattr(cuml_backend, "package_versions", lambda names: {"cuml": version})
        monkeypatch.setitem(sys.modules, "cuml", None)  # not imported
    found = cuml_backend.backend.probe()
    assert not found.ok and f"cuML {version} is too old: 26.2 is needed" in found.reason
    assert found.hint == 'pip install "cuml-cu13>=26.2"'


@pytest.mark.parametrize("version", ["26.02.00", "26.10.00", "27.02.00a5"])
def test_a_cuml_of_any_later_version_is_taken(machine, version):
    machine(WORKING, packages=BOTH, cuml=version)
    found = cuml_backend.backend.probe()
    assert found.ok and found.reason.endswith(f"cuML {version}")
    assert len(fake_cuda.FakeCumlSVC.fits) == 1, "the probe says yes without having trained"


@pytest.mark.parametrize("error", [RuntimeError("cudaErrorNoKernelImageForDevice"), AttributeError("no row_stack")])
def test_a_cuml_that_imports_and_trains_nothing_is_refused(machine, monkeypatch, error):
    machine(WORKING, packages=BOTH)
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "fit", fake_cuda.raising_inside("cuml.svm.svc", error))
    found = cuml_backend.backend.probe()
    assert not found.ok and f"cuML 26.10.00 is broken: {type(error).__name__}: {error}" in found.reason


def test_a_cuml_that_solves_nothing_is_refused(machine, monkeypatch):
    machine(WORKING, packages=BOTH)
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "gives_up_after", 1)
    found = cuml_backend.backend.probe()
    assert not found.ok and "an SVC of eight points was solved to a gap of" in found.reason


# -- training on the device -----------------------------------------------------------------------


def test_training_waits_for_the_caller_and_the_device_and_uses_a_pool_of_its_own(monkeypatch):
    cupy = fake_cuda.install(monkeypatch)
    with training_on_gpu(None) as pool:
        cupy.events.append("train")
        cupy.zeros(1000)
        assert cupy.cuda.get_allocator() == pool.malloc and pool.total_bytes() == 8000
        with pytest.raises(ValueError, match="using_allocator"):  # what `import cuml` does
            cupy.cuda.set_allocator(cupy.cuda.rmm.malloc)
    assert cupy.events == [
        "wait for the caller's stream", "enter null stream", "train", "wait for the device", "leave null stream"
    ]  # fmt: skip
    assert cupy.cuda.get_allocator() == cupy.cuda.rmm.malloc and cupy.cuda.rmm.bytes == 0
    assert pool.total_bytes() == 0, "the memory was not given back"


def test_what_an_asynchronous_kernel_raises_at_the_end_is_a_training_error(monkeypatch):
    cupy = fake_cuda.install(monkeypatch)
    fail = fake_cuda.raising_inside("cupy_backends.cuda.api.runtime", RuntimeError("cudaErrorIllegalAddress"))
    with (
        pytest.raises(TrainingError, match=r"the GPU failed while training \(CuPy: .*IllegalAddress\); do this"),
        gpu_failures("do this"),
        training_on_gpu(None) as pool,
    ):
        pool.malloc(100)
        monkeypatch.setattr(cupy.cuda, "Device", lambda: types.SimpleNamespace(synchronize=fail))
    assert pool.total_bytes() == 0


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("cupyx.scipy.sparse._csr", "CuPy"),
        ("cuda.bindings.driver", "CUDA"),
        ("cupy._core.core", "CuPy"),
        ("cupy_backends.cuda.api.runtime", "CuPy"),
        ("cuml.internals.validation", "cuML"),
        ("rmm.pylibrmm.device_buffer", "RMM"),
        ("numpy", None),
        ("sklearn.utils.validation", None),
        ("__main__", None),
    ],
)
@pytest.mark.parametrize("kind", [AttributeError, TypeError, RuntimeError, NotImplementedError])
def test_whose_failure_an_error_is_shows_in_its_traceback(module, library, kind):
    """As where a library, asked by us, asks NumPy for a function that NumPy no longer has."""
    inner = fake_cuda.raising_inside("numpy", kind("module 'numpy' has no attribute 'row_stack'"))
    called = fake_cuda.calling_inside(module, inner)
    ours = fake_cuda.calling_inside("gpusvm.solver.cuda", called)
    with pytest.raises(kind) as caught:
        fake_cuda.calling_inside("cupy", ours)()
    assert failed_library(caught.value) == library


def interrupted() -> RuntimeError:
    error = RuntimeError("Error calling __set_name__ on '_Options' instance")
    error.__cause__ = KeyboardInterrupt()
    return error


def test_an_interrupt_that_a_library_wraps_is_no_failure_of_it(machine, monkeypatch):
    cupy = machine(WORKING, packages=BOTH)
    with pytest.raises(RuntimeError, match="__set_name__"), gpu_failures("do this"):
        fake_cuda.raising_inside("cupy._core.core", interrupted())()
    monkeypatch.setattr(fake_cuda.FakeCumlSVC, "fit", fake_cuda.raising_inside("cuml.svm.svc", interrupted()))
    monkeypatch.setattr(native_cuda, "_launch_a_kernel", fake_cuda.raising_inside("cupy._core.raw", interrupted()))
    for backend in (cuml_backend.backend, native_cuda.backend):
        with pytest.raises(RuntimeError, match="__set_name__"):
            backend.probe()
    probe_cuda.cache_clear()
    cupy.arange = fake_cuda.raising_inside("cupy", interrupted())
    with pytest.raises(RuntimeError, match="__set_name__"):
        probe_cuda()


def test_errors_of_our_own_and_of_the_caller_pass():
    for error in (DataError("bad"), TypeError("ours"), ValueError("ours")):
        with pytest.raises(type(error)), gpu_failures("do this"):
            fake_cuda.raising_inside("gpusvm.solver.cuda", error)()
    with pytest.raises(KeyboardInterrupt), gpu_failures("do this"):
        raise KeyboardInterrupt


def test_asking_the_real_driver_imports_nothing_and_never_raises():
    """In a process of its own: here CuPy may have been imported before."""
    code = (
        "import sys; from gpusvm.device import query_driver; before = set(sys.modules); driver = query_driver();"
        "print(driver.status, sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, imported = done.stdout.strip().split(" ", 1)
    assert imported == "[]"
    assert status == "None" or int(status) >= 0


# -- copies to the device -------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F", "neither"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_large_array_is_copied_without_page_locked_memory(monkeypatch, rng, order, dtype):
    """``cupy.asarray`` would take page-locked memory of its size."""
    cupy = fake_cuda.install(monkeypatch)
    X = rng.integers(0, 255, (600, 2000)).astype(dtype)
    given = {"C": X, "F": np.asfortranarray(X), "neither": X[::2, ::2]}[order]
    monkeypatch.setattr(device, "LARGE_BYTES", 1000)
    found = device.to_device(given)
    assert type(found) is fake_cuda.FakeArray and found.dtype == dtype
    np.testing.assert_array_equal(found.get(), given)
    assert found.flags.f_contiguous == (order == "F")
    assert {name for name, *_ in cupy.calls} == {"empty"}


def test_small_arrays_and_arrays_of_the_device_go_the_usual_way(monkeypatch):
    cupy = fake_cuda.install(monkeypatch)
    there = cupy.zeros((2000, 2000))
    assert np.shares_memory(device.to_device(there), there)
    assert type(device.to_device(np.arange(5))) is fake_cuda.FakeArray
    assert {name for name, *_ in cupy.calls} == {"zeros", "asarray"}

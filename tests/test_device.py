"""Each way in which a GPU can be missing has its own reason."""

from __future__ import annotations

import subprocess
import sys

import fake_cuda
import pytest

from gpusvm import device
from gpusvm.backends import cuml as cuml_backend
from gpusvm.device import Driver, probe_cuda


@pytest.fixture
def machine(monkeypatch):
    """A machine made of a driver, a CuPy and a cuML; the probes' memory is emptied around the test."""

    def build(driver: Driver, *, packages: tuple[str, ...] = (), runtime=None, visible: str | None = None) -> None:
        monkeypatch.setattr(device, "query_driver", lambda: driver)
        monkeypatch.setattr(device, "installed", lambda name: name in packages)
        monkeypatch.setattr(cuml_backend, "installed", lambda name: name in packages)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        fake_cuda.install(monkeypatch, runtime=runtime)
        probe_cuda.cache_clear()
        cuml_backend._probe.cache_clear()

    yield build
    probe_cuda.cache_clear()
    cuml_backend._probe.cache_clear()


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
    assert "CuPy is installed but fails: OSError: libcublas" in probe_cuda().reason


def test_cuml_missing(machine):
    machine(WORKING, packages=("cupy",))
    found = cuml_backend.backend.probe()
    assert not found.ok and "cuML is not installed" in found.reason and "cuda13" in found.hint


def test_cuml_broken(machine, monkeypatch):
    machine(WORKING, packages=BOTH)
    monkeypatch.setitem(sys.modules, "cuml.svm", None)
    found = cuml_backend.backend.probe()
    assert not found.ok and "cuML is broken" in found.reason


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

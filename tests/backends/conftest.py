"""A machine that seems to have a GPU, for tests of native-cuda's backend where there is none."""

from __future__ import annotations

import fake_cuda
import pytest

from gpusvm.backends import native_cuda
from gpusvm.device import Availability
from tests.solver.host_device import fake_device


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's stand-in, and the solver's kernels on its arrays, compiled for the host."""
    found = fake_cuda.install(monkeypatch)
    device = fake_device(found)
    monkeypatch.setattr(native_cuda, "solver_device", lambda: device)
    monkeypatch.setattr(native_cuda.NativeCudaBackend, "probe", lambda self: Availability(True, "Imaginary GPU, 80 GB"))
    return found

"""What the stand-ins of fake_cuda pretend, held against CuPy itself.

It imports without a driver, so no GPU is needed: ``pip install "gpusvm[gpu-test]"``.
"""

from __future__ import annotations

import inspect
import threading

import fake_cuda
import numpy as np
import pytest
from asking import asked

from gpusvm.backends import native_cuda
from gpusvm.backends.cuml import CumlBackend
from gpusvm.device import failed_library, training_pool
from gpusvm.kernels import Kernel
from tests.solver.host_device import fake_device


@pytest.fixture
def real_cupy():
    return pytest.importorskip("cupy", reason='CuPy is not installed: pip install "gpusvm[gpu-test]"')


def test_every_function_asked_of_cupy_is_there_and_takes_the_arguments(real_cupy, monkeypatch, digits):
    fake = fake_cuda.install(monkeypatch)
    device = fake_device(fake)
    monkeypatch.setattr(native_cuda, "solver_device", lambda: device)
    X, y = digits[0][:300], digits[1][:300]
    for kernel in (Kernel("rbf", gamma=0.05), Kernel("poly", gamma=0.05), Kernel("precomputed")):
        given = X @ X.T if kernel.precomputed else X
        params = asked(kernel=kernel, C=0.5, class_weight=tuple(np.linspace(0.5, 2, 10)))
        for backend in (CumlBackend(), native_cuda.NativeCudaBackend()):
            backend.fit(given, y, *params).decision_function(fake.asarray(given))
    assert {"asarray", "asfortranarray", "zeros"} <= {name for name, *_ in fake.calls}
    for name, n_arguments, named in sorted(fake.calls):
        function = getattr(real_cupy, name)
        if isinstance(function, real_cupy.ufunc):
            assert n_arguments <= function.nargs and set(named) <= {"out", "dtype", "casting"}, name
        else:
            inspect.signature(function).bind(*[None] * n_arguments, **dict.fromkeys(named))


def test_the_fakes_of_cupy_cuda_have_no_name_that_cupy_lacks(real_cupy, monkeypatch):
    fake = fake_cuda.install(monkeypatch)
    own = {"events", "runtime", "used_devices", "default_pool", "rmm", "current"}
    for name in {n for n in dir(fake.cuda) if not n.startswith("_")} - own:
        assert hasattr(real_cupy.cuda, name), name
    for name in ("malloc", "total_bytes", "free_all_blocks"):
        assert callable(getattr(real_cupy.cuda.MemoryPool, name))
    for name in (n for n in dir(fake_cuda.FakeRuntime) if not n.startswith("_")):
        assert callable(getattr(real_cupy.cuda.runtime, name))
    assert real_cupy.cuda.Stream.null.ptr == 0 and callable(real_cupy.cuda.Device.synchronize)


def test_cupy_keeps_an_allocator_for_each_thread_and_refuses_another_meanwhile(real_cupy):
    """So training under a pool of ours disturbs nobody, and cuML has to be imported before."""
    before, pool, elsewhere = real_cupy.cuda.get_allocator(), real_cupy.cuda.MemoryPool(), []
    with real_cupy.cuda.using_allocator(pool.malloc):
        assert real_cupy.cuda.get_allocator() == pool.malloc
        thread = threading.Thread(target=lambda: elsewhere.append(real_cupy.cuda.get_allocator()))
        thread.start()
        thread.join()
        with pytest.raises(ValueError):
            real_cupy.cuda.set_allocator(before)
    assert elsewhere == [before] and real_cupy.cuda.get_allocator() == before


def test_the_pool_is_one_for_the_process(real_cupy):
    assert isinstance(training_pool(), real_cupy.cuda.MemoryPool) and training_pool() is training_pool()


def test_what_cupy_raises_without_a_driver_is_known_as_its_own(real_cupy):
    try:
        real_cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        assert failed_library(error) == "CuPy"
    else:
        pytest.skip("there is a driver here: CuPy raises nothing")

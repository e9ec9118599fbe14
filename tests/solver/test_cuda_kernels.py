"""The CUDA kernels without a GPU: simulated, and compiled for three generations of devices."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SIMULATED = Path(__file__).with_name("simulated_kernels.py")


def test_the_kernels_run_in_the_simulator():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SIMULATED)],
        env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "10 passed" in run.stdout and "skipped" not in run.stdout, run.stdout[-4000:]


needs_compiler = pytest.mark.skipif(
    find_spec("numba_cuda") is None,
    reason='numba-cuda with its compiler is not installed: pip install "gpusvm[cuda13]"',
)

COMPILE = """
import sys
from types import SimpleNamespace
from numba import cuda, types
from numba.cuda import dispatcher
from gpusvm.solver import cuda_kernels

i4, f4, f8 = types.int32, types.float32, types.float64
def array(dtype, ndim):
    return types.Array(dtype, ndim, "C")

capability = tuple(map(int, sys.argv[1:]))
# Functions called by a kernel are compiled for the device at hand; here there is none to ask.
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
lists, places = array(i4, 1), array(i4, 2)
shared = lists, array(f4, 2), lists, places, places
for kernel, arguments in (
    (cuda_kernels.double, (array(f4, 1),)),
    (cuda_kernels._gather, (*shared, lists, lists, array(f4, 3))),
    (cuda_kernels._subtract, (*shared, array(f8, 2), lists, array(f8, 2))),
    (
        cuda_kernels._optimiser(cuda_kernels.THREADS),
        (lists, array(f4, 3), places, lists, *[array(f8, 2)] * 3, array(f8, 1), lists)
        + (*[array(f8, 2)] * 2, lists, lists),
    ),
):
    ptx, _ = cuda.compile_ptx(kernel.py_func, arguments, cc=capability)
    assert ".visible .entry" in ptx, ptx[:500]
    assert "__local_depot" not in ptx, "arrays of a thread are not in registers"
print("compiled")
"""


@needs_compiler
@pytest.mark.parametrize("capability", ["8 0", "9 0", "10 0"])
def test_the_kernels_compile(capability):
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, *capability.split()], capture_output=True, text=True, timeout=1500
    )
    assert run.stdout.strip() == "compiled", run.stdout + run.stderr[-4000:]

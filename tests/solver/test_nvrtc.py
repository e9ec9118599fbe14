"""NVRTC compiles every CUDA source of the solver for every architecture, as CuPy has it compiled,
and what ptxas says of each kernel is within bounds: registers, static shared memory, nothing
spilled.

No GPU is needed: ``pip install "gpusvm[gpu-test]"``, as ``make test`` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import gpusvm.solver
from gpusvm.solver import cuda_rows
from gpusvm.solver.cuda_kernels import KERNELS, KERNELS_OF_VALUES, options, source

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason='NVRTC is not at hand: pip install "gpusvm[gpu-test]"', exc_type=ImportError
)

ARCHITECTURES = (75, 80, 90, 100, 120)
"""The T4 of free notebooks, A100, H100, B200 and the desktop cards of that time."""

SOURCES = sorted(Path(gpusvm.solver.__file__).parent.rglob("*.cu"))

OF_PAIRS = {options(): KERNELS, options("float32"): KERNELS_OF_VALUES, options("float64"): KERNELS_OF_VALUES}
"""With which options pairs.cu is compiled, and which of its kernels there then are."""

VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pairs.cu": tuple(OF_PAIRS),
    "rows.cu": tuple(cuda_rows.options(real, dtype) for real, dtype in cuda_rows.COMPILED),
}
"""With which options a source is compiled, by its name; a source that is not named has one way."""

MOST_REGISTERS = 128
"""Registers of a thread: two blocks of 256 threads on each multiprocessor."""

MORE_REGISTERS: dict[str, int] = {}
"""Kernels that may take more, by name."""

MOST_SHARED = 48 * 1024
"""Bytes of static shared memory of a block: more is refused by every architecture."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of a kernel; registers of a thread, the rest in bytes."""

    registers: int
    shared: int
    stack: int
    spilled: int


_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def usages(log: str) -> dict[str, Usage]:
    """What a log of ``--ptxas-options=-v`` says of each kernel."""
    found = {}
    for kernel in _KERNEL.finditer(log):
        shared = re.search(r"(\d+) bytes smem", kernel["rest"])
        found[kernel["name"]] = Usage(
            registers=int(kernel["registers"]),
            shared=int(shared[1]) if shared else 0,
            stack=int(kernel["stack"]),
            spilled=int(kernel["stores"]) + int(kernel["loads"]),
        )
    return found


@cache
def log_of(code: str, architecture: int, options: tuple[str, ...] = ()) -> str:
    """What NVRTC and ptxas say while they compile `code`; AssertionError where they refuse it."""
    status, program = nvrtc.nvrtcCreateProgram(code.encode(), b"kernels.cu", 0, [], [])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    try:
        # What CuPy's RawModule adds to the options it is given.
        of_cupy = ("-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space")
        given = [option.encode() for option in (*options, *of_cupy, "--ptxas-options=-v")]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = bytearray(size)
        nvrtc.nvrtcGetProgramLog(program, log)
        text = log.decode(errors="replace").strip("\0\n ")
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, f"sm_{architecture}: {text}"
        return text
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def kernel_names(code: str) -> set[str]:
    """The kernels that a source defines, by ``extern "C" __global__ void [...] name(``."""
    return set(re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(", code))


def out_of_bounds(log: str) -> list[str]:
    """Each kernel of a log that takes more than it may, in words."""
    found = []
    for name, usage in usages(log).items():
        if usage.registers > MORE_REGISTERS.get(name, MOST_REGISTERS):
            found.append(f"{name} takes {usage.registers} registers")
        if usage.shared > MOST_SHARED:
            found.append(f"{name} takes {usage.shared} bytes of shared memory")
        if usage.spilled:
            found.append(f"{name} spills {usage.spilled} bytes")
    return found


CASES = [
    pytest.param(path, options, id=" ".join((path.name, *options)))
    for path in SOURCES
    for options in VARIANTS.get(path.name, (("-std=c++17",),))
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("path", "options"), CASES)
def test_every_source_compiles_within_bounds(path, options, architecture):
    code = path.read_text(encoding="utf-8")
    log = log_of(code, architecture, options)
    kernels = OF_PAIRS[options] if path.name == "pairs.cu" else kernel_names(code)
    assert set(usages(log)) == kernels != set(), "a kernel is not in the log"
    assert out_of_bounds(log) == []
    assert "warning" not in log, log


def test_every_kernel_of_pairs_is_in_one_of_its_variants():
    assert set().union(*OF_PAIRS.values()) == kernel_names(source("pairs.cu"))


# -- the test itself ------------------------------------------------------------------------------

PLAIN = """
extern "C" __global__ void __launch_bounds__(256) add(float* x, int n) {
    __shared__ float kept[256];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    kept[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    if (i < n) x[i] += kept[255 - threadIdx.x];
}
"""

SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spill(const float* x, float* y, int n) {
    float a[96];
    #pragma unroll
    for (int k = 0; k < 96; k++) a[k] = x[k * n + threadIdx.x];
    for (int round = 0; round < n; round++)
        #pragma unroll
        for (int k = 0; k < 96; k++) a[k] = a[k] * a[(k * 7 + 5) % 96] + x[round];
    #pragma unroll
    for (int k = 0; k < 96; k++) y[k * n + threadIdx.x] = a[k];
}
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_plain_kernel_takes_is_read_from_the_log(architecture):
    log = log_of(PLAIN, architecture)
    (usage,) = usages(log).values()
    assert kernel_names(PLAIN) == {"add"} and 1024 <= usage.shared <= 2048 + 1024 and 0 < usage.registers < 64
    assert usage.spilled == usage.stack == 0 and out_of_bounds(log) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (SPILLING, "spill spills"),
        (PLAIN.replace("kept[256]", "kept[12 * 1024]").replace("int n", "int n, double* y"), None),
    ],
    ids=["registers are spilled", "as much shared memory as there is"],
)
def test_a_kernel_out_of_bounds_is_found(code, says):
    found = out_of_bounds(log_of(code, 90))
    assert (found == []) if says is None else any(says in line for line in found)


def test_too_many_registers_are_found(monkeypatch):
    monkeypatch.setitem(MORE_REGISTERS, "add", 4)
    assert any("add takes" in line for line in out_of_bounds(log_of(PLAIN, 90)))


@pytest.mark.parametrize(
    ("line", "architecture"),
    [("x[0] = __reduce_max_sync(~0u, (unsigned)n);", 75), ("#include <cuda_runtime.h>", 90)],
    ids=["an instruction that a T4 lacks", "a header that NVRTC lacks"],
)
def test_what_cannot_be_compiled_is_refused(line, architecture):
    code = f"{line}\n{PLAIN}" if line.startswith("#") else PLAIN.replace("__syncthreads();", line)
    with pytest.raises(AssertionError, match=f"sm_{architecture}"):
        log_of(code, architecture)

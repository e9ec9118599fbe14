"""CUDA C compiled by g++ against shim.hpp, and called as CuPy calls its kernels: on NumPy
arrays."""

from __future__ import annotations

import atexit
import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SHIM, MATRICES = (Path(__file__).with_name(name) for name in ("shim.hpp", "mma.hpp"))
"""What every kernel takes, and what those multiplying matrices take: they ask for GPUSVM_SHIM."""

COMPILER = shutil.which("g++")

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="the CUDA kernels are tried on a CPU by g++, which is not installed: apt-get install g++"
)

_ERRORS = {
    1: "threads of a block wait at different barriers, or some have ended",
    2: "memory that is shared is written beyond its end, or there is not so much",
}

_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')

_FLAGS = (
    "-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas",
    "-fvisibility=hidden", "-fno-gnu-unique",  # every library has its own fibers
    "-U_FORTIFY_SOURCE", "-fcf-protection=none",  # which take a change of fibers for an attack
)  # fmt: skip

_WRAPPER = """
static void call_{name}(void **args) {{ shim::call_with(&{name}, args); }}
extern "C" SEEN void types_{name}(char *out) {{ shim::type_names(&{name}, out); }}
extern "C" SEEN int launch_{name}(const int *grid, const int *block, int shared, void **args, unsigned seed,
                                  int skip) {{
    return shim::launch(call_{name}, grid, block, shared, args, seed, skip);
}}
"""


class Module:
    """As ``cupy.RawModule``, for the host.

    Parameters
    ----------
    code : str
        CUDA C.
    options : sequence of str
        Those that begin with ``-D`` count; ``-D__CUDA_ARCH__=750`` is the device to be.
    seed : int
        From which the order of threads is drawn; 0 for their own order.
    skipped_line : int
        Of the code: a barrier in this line is left out.
    """

    def __init__(self, code: str, options: Sequence[str] = (), *, seed: int = 0, skipped_line: int = 0) -> None:
        self.library, self.names = _built(code, tuple(o for o in options if o.startswith("-D")))
        self.seed, self.skipped_line = seed, skipped_line

    def get_function(self, name: str) -> Function:
        assert name in self.names, f"no kernel {name} among {', '.join(self.names)}"
        return Function(self, name)


class Function:
    """As ``cupy.RawKernel``: called with a grid, a block, arrays and NumPy's scalars."""

    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name = module, name
        buffer = ctypes.create_string_buffer(1024)
        getattr(module.library, f"types_{name}")(buffer)
        self.types = buffer.value.decode().split()

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence, *, shared_mem: int = 0) -> None:
        assert len(args) == len(self.types), f"{self.name} takes {len(self.types)} arguments, not {len(args)}"
        assert shared_mem <= self.max_dynamic_shared_size_bytes, f"{self.name} asks for more memory than it said"
        assert all(size > 0 for size in (*grid, *block)), f"{self.name}: CUDA launches no empty grid"
        held = [self._held(k, arg) for k, arg in enumerate(args)]
        pointers = (ctypes.c_void_p * len(held))(*(h.ctypes.data for h in held))
        sizes = [(ctypes.c_int * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
        launch = getattr(self.module.library, f"launch_{self.name}")
        error = launch(*sizes, shared_mem, pointers, self.module.seed, self.module.skipped_line)
        assert error == 0, f"{self.name}: {_ERRORS[error]}"

    def _held(self, k: int, arg: np.ndarray | np.generic) -> np.ndarray:
        """The argument's value, or its address."""
        kind = self.types[k]
        what = f"{self.name}, argument {k}"
        if kind.startswith("*"):
            assert isinstance(arg, np.ndarray), f"{what} is {type(arg).__name__}, not an array"
            assert arg.dtype.str[1:].replace("b1", "u1") == kind[1:], f"{what} is {arg.dtype}, not {kind[1:]}"
            assert arg.flags.c_contiguous, f"{what} is not contiguous"
            return np.array([arg.ctypes.data], dtype=np.uintp)
        assert isinstance(arg, np.generic), f"{what} is {type(arg).__name__}, not a scalar of NumPy"
        assert arg.dtype.str[1:] == kind, f"{what} is {arg.dtype}, not {kind}"
        return np.array([arg])


def barrier_lines(code: str) -> list[int]:
    """The lines of the code that hold a barrier."""
    return [k for k, line in enumerate(code.splitlines(), 1) if re.search(r"__sync(threads|warp)\(\)", line)]


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="gpusvm-shim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _built(code: str, options: tuple[str, ...]) -> tuple[ctypes.CDLL, list[str]]:
    """The code as a library, and the names of its kernels."""
    wrapper_of = {name: _wrapper(name, conditions) for name, conditions in _kernels(code)}
    stem = _folder() / f"module{len(list(_folder().glob('*.cpp')))}"
    wrappers = "".join(wrapper_of.values())
    source, library = stem.with_suffix(".cpp"), stem.with_suffix(".so")
    headers = [SHIM, MATRICES] if "GPUSVM_SHIM" in code else [SHIM]
    includes = "".join(f'#include "{header}"\n' for header in headers)
    source.write_text(f'{includes}#line 1 "kernels.cu"\n{code}\n{wrappers}')
    run = subprocess.run(
        [str(COMPILER), *_FLAGS, *options, str(source), "-o", str(library)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-6000:]
    loaded = ctypes.CDLL(str(library))
    return loaded, [name for name in wrapper_of if hasattr(loaded, f"launch_{name}")]


def _kernels(code: str) -> list[tuple[str, list[str]]]:
    """Each kernel's name, and the lines for the preprocessor that say when there is one."""
    found, asked, begin = [], [], 0
    for kernel in _KERNEL.finditer(code):
        for line in code[begin : kernel.start()].splitlines():
            if line.startswith("#if"):
                asked.append([line])
            elif line.startswith("#el"):
                asked[-1].append(line)
            elif line.startswith("#endif"):
                asked.pop()
        begin = kernel.start()
        found.append((kernel[1], [line for lines in asked for line in lines]))
    return found


def _wrapper(name: str, conditions: list[str]) -> str:
    ends = ["#endif"] * sum(line.startswith("#if") for line in conditions)
    return "\n".join([*conditions, _WRAPPER.format(name=name), *ends, ""])

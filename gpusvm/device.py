"""Whether a CUDA device works here, and if not, exactly what is missing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from gpusvm.errors import GpuSvmError, TrainingError, UsageError
from gpusvm.packages import package_versions

if TYPE_CHECKING:  # the command's help reads this file; numpy is imported by the functions that need it
    import numpy as np


@dataclass(frozen=True)
class Availability:
    """Whether something can run on this machine, and why or why not.

    Attributes
    ----------
    ok : bool
    reason : str
        One phrase that a person can act on.
    hint : str
        The command that mends it, or nothing where no command would.
    detail : dict
        Versions and devices found; plain JSON values.
    """

    ok: bool
    reason: str
    hint: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver itself says, asked without any Python package.

    Attributes
    ----------
    status : int
        CUresult of ``cuInit``: 0 for success; None where there is no driver library.
    cuda_version : int
        Newest CUDA that the driver runs, as 1000 major + 10 minor; 0 if unknown.
    n_devices : int
    """

    status: int | None
    cuda_version: int = 0
    n_devices: int = 0


def query_driver() -> Driver:
    """Ask libcuda for its version and its devices. Takes milliseconds, never raises."""
    try:
        libcuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return Driver(status=None)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    libcuda.cuDriverGetVersion(ctypes.byref(version))
    status = int(libcuda.cuInit(0))
    if status == 0:
        libcuda.cuDeviceGetCount(ctypes.byref(count))
    return Driver(status, version.value, count.value)


def installed(package: str) -> bool:
    """Whether `package` could be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def extra_for(cuda_version: int) -> str:
    """The pip command for a driver's GPU packages: cuda13 from CUDA 13.0 on, else cuda12."""
    return f'pip install "gpusvm[{"cuda13" if cuda_version >= 13000 else "cuda12"}]"'


_CUDA_ERROR_NO_DEVICE = 100
_OLDEST_CUDA = 12000


@cache
def probe_cuda() -> Availability:
    """Whether CuPy can use a CUDA device, asked once in a process. Never raises.

    The driver is asked first, since importing CuPy costs a second that a machine without a GPU
    need not pay. CuPy's runtime reports a missing driver and one too old by the same error
    (cudaErrorInsufficientDriver); asking the driver itself tells them apart.
    """
    driver = query_driver()
    detail: dict[str, Any] = {"driver_cuda_version": driver.cuda_version or None}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.status is None:
        return Availability(False, "no NVIDIA driver (libcuda not found)", detail=detail)
    if driver.status == _CUDA_ERROR_NO_DEVICE or (driver.status == 0 and driver.n_devices == 0):
        if visible is not None:
            reason = f"no CUDA device is visible: CUDA_VISIBLE_DEVICES is {visible!r}"
            return Availability(False, reason, "unset CUDA_VISIBLE_DEVICES", detail)
        return Availability(False, "an NVIDIA driver is installed but finds no device", detail=detail)
    if driver.status != 0:
        reason = f"the NVIDIA driver does not start (cuInit returned {driver.status})"
        return Availability(False, reason, "nvidia-smi", detail)
    if driver.cuda_version < _OLDEST_CUDA:
        reason = f"the NVIDIA driver is too old: it runs CUDA {dotted(driver.cuda_version)}, 12.0 is needed"
        return Availability(False, reason, "update the NVIDIA driver", detail)
    if not installed("cupy"):
        return Availability(False, "CuPy is not installed", extra_for(driver.cuda_version), detail)
    return _ask_cupy(driver, detail)


def _ask_cupy(driver: Driver, detail: dict[str, Any]) -> Availability:
    try:
        import cupy

        runtime = cupy.cuda.runtime
        detail |= {"cupy": cupy.__version__, "runtime_cuda_version": runtime.runtimeGetVersion()}
        count = runtime.getDeviceCount()
        detail["devices"] = [_describe_device(runtime, index) for index in range(count)]
        if count:
            _compute_something(cupy, detail["devices"][0]["compute_capability"])
    except Exception as error:
        if is_interrupt(error):
            raise
        reason, hint = _explained(error, driver, detail)
        return Availability(False, reason, hint, detail)
    if count == 0:
        return Availability(False, "CuPy finds no CUDA device", detail=detail)
    first = detail["devices"][0]
    return Availability(True, f"{first['name']}, {first['memory_mb'] / 1024:.0f} GB", detail=detail)


_TWICE = """
extern "C" __global__ void twice(float* values, int n) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < n) values[k] *= 2.0f;
}
"""

_OLDEST_CAPABILITY = (7, 5)
"""Of devices that the solver's kernels are compiled for, and that CUDA 13 knows."""


def _compute_something(cupy: Any, capability: str) -> None:
    """Run a kernel in CUDA C, one that CuPy writes, and a product by cuBLAS.

    CuPy imports without what each of them needs. Raises whatever CuPy raises, or ArithmeticError
    for a wrong result.
    """
    import numpy as np

    if tuple(map(int, capability.split("."))) < _OLDEST_CAPABILITY:
        oldest = ".".join(map(str, _OLDEST_CAPABILITY))
        raise _DeviceTooOldError(f"the GPU is too old: its compute capability is {capability}, {oldest} is needed")
    values = cupy.asarray(np.arange(40, dtype=np.float32))
    kernel = cupy.RawModule(code=_TWICE, options=("--std=c++17",)).get_function("twice")
    kernel((2,), (32,), (values, np.int32(40)))
    if not np.array_equal(values.get(), 2.0 * np.arange(40)):
        raise ArithmeticError("a kernel that doubles 40 numbers wrote others")
    a = cupy.arange(4, dtype=np.float32).reshape(2, 2)
    found = ((a + 1) @ a).get().tolist()
    if found != [[4.0, 7.0], [8.0, 15.0]]:
        raise ArithmeticError(f"a product of two small matrices came out as {found}")


class _DeviceTooOldError(Exception):
    """Says all that there is to say."""


_PARTS_OF_CUDA = {"nvrtc": "the compiler NVRTC", "cublas": "cuBLAS", "cudart": "the CUDA runtime"}


def _explained(error: Exception, driver: Driver, detail: dict[str, Any]) -> tuple[str, str]:
    """What CuPy raised while it was tried, as a phrase, and the command that mends it.

    The command is empty where none does.
    """
    runtime = detail.get("runtime_cuda_version", 0)
    whole = f'pip install "cupy-cuda{13 if (runtime or driver.cuda_version) >= 13000 else 12}x[ctk]"'
    text = str(error)
    if isinstance(error, _DeviceTooOldError):
        return text, ""
    both = [name for name in ("cupy-cuda12x", "cupy-cuda13x") if package_versions((name,))]
    if len(both) == 2:
        mend = f"pip uninstall -y {' '.join(both)}; {extra_for(driver.cuda_version)}"
        return "CuPy is installed twice, for CUDA 12 and for CUDA 13: they are in each other's way", mend
    if "InsufficientDriver" in text:
        reason = (
            f"the NVIDIA driver runs CUDA {dotted(driver.cuda_version)}, too old for the installed CuPy "
            f"(built for CUDA {dotted(runtime)})"
        )
        return reason, extra_for(driver.cuda_version)
    if re.search("UnsupportedPtxVersion|UNSUPPORTED_PTX_VERSION|PTX .* unsupported toolchain", text):
        runs = dotted(driver.cuda_version)
        mend = f'pip install "cuda-toolkit=={runs}.*"; or update the NVIDIA driver'
        return f"the compiler NVRTC is newer than the NVIDIA driver, which runs CUDA {runs}", mend
    header = re.search(r'open source file "([^"]+)"', text)
    if header is not None:
        return f"CuPy is installed, but CUDA's headers are not ({header[1]} is missing)", whole
    missing = re.search(r"lib(nvrtc|cublas|cudart)\w*(?:\.so[.\d]*)?", text) or re.search(
        r"\"(nvrtc|cublas|cudart)\w*\"|'(nvrtc|cublas|cudart)\w*'", text
    )
    if missing is not None:
        part = _PARTS_OF_CUDA[next(group for group in missing.groups() if group)]
        return f"CuPy is installed, but {part} is not ({one_line(error)})", whole
    return f"CuPy is installed but fails: {one_line(error)}", extra_for(driver.cuda_version)


def _describe_device(runtime: Any, index: int) -> dict[str, Any]:
    properties = runtime.getDeviceProperties(index)
    name = properties["name"]
    return {
        "index": index,
        "name": name.decode() if isinstance(name, bytes) else str(name),
        "memory_mb": round(properties["totalGlobalMem"] / 2**20),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
    }


def dotted(cuda_version: int) -> str:
    """13000 as people write it: 13.0."""
    return f"{cuda_version // 1000}.{cuda_version % 1000 // 10}"


@contextmanager
def on_device(index: int | None) -> Iterator[None]:
    """Work on CUDA device `index` of those that are visible; None leaves the current one.

    Raises
    ------
    UsageError
        There is no such device.
    """
    if index is None:
        yield
        return
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= index < count:
        raise UsageError(f"device={index}: this machine has {count} visible CUDA device(s), counted from 0")
    with cupy.cuda.Device(index):
        yield


@contextmanager
def training_on_gpu(index: int | None) -> Iterator[Any]:
    """Train on CUDA device `index`, or on the current one for None.

    All that the caller's stream has yet to do is done before. Inside, CuPy works on the null
    stream; cuML works on the stream of the thread, which waits for the null stream and no other,
    and is waited for by it. At the end the device has done everything.

    CuPy's memory comes from `training_pool`, which is yielded. Other threads are not touched:
    CuPy keeps the allocator of a ``using_allocator`` for each thread. ``import cuml`` sets CuPy's
    allocator, and CuPy refuses that here: import it before.

    Raises
    ------
    UsageError
        There is no such device.
    """
    import cupy

    with on_device(index):
        cupy.cuda.get_current_stream().synchronize()
        pool = training_pool()
        pool.free_all_blocks()
        try:
            with cupy.cuda.Stream.null, cupy.cuda.using_allocator(pool.malloc):
                yield pool
                cupy.cuda.Device().synchronize()
        except BaseException as error:
            _forget_variables(error)
            raise
        finally:
            pool.free_all_blocks()


def _forget_variables(error: BaseException | None) -> None:
    """Clear the local variables of what ended in this package by `error`, or by its causes.

    Its traceback would hold arrays for as long as somebody holds the error, and their memory could
    not be given back.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback = error.__traceback__
        while traceback is not None:
            if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith("gpusvm."):
                with suppress(RuntimeError):  # it has not ended
                    traceback.tb_frame.clear()
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


@cache
def training_pool() -> Any:
    """The CuPy memory pool that both GPU backends train in; each training gives it back empty.

    A pool of ours, because ``import cuml`` replaces CuPy's by RMM, which by default asks the
    driver for each array and tells nobody how much. It lives as long as the process: an array
    that a caller keeps from a progress callback would not survive its pool.
    """
    import cupy

    return cupy.cuda.MemoryPool()


_GPU_LIBRARIES = {
    "cupy": "CuPy",
    "cupy_backends": "CuPy",
    "cupyx": "CuPy",
    "cuda": "CUDA",
    "cuml": "cuML",
    "cudf": "cuDF",
    "pylibraft": "RAFT",
    "rmm": "RMM",
}


def failed_library(error: BaseException) -> str | None:
    """The GPU library whose failure `error` is, or None where it is our own error or the caller's.

    A library's own exception tells by its type. A TypeError or AttributeError from inside a
    library, of versions that do not fit together for instance, tells by where it was raised: the
    code that ours called last is the library's. A RuntimeError that comes straight from compiled
    code leaves no trace of whose it is.
    """
    if isinstance(error, GpuSvmError) or is_interrupt(error):
        return None
    by_type = _GPU_LIBRARIES.get(type(error).__module__.partition(".")[0])
    if by_type is not None:
        return by_type
    called: str | None = None
    traceback = error.__traceback__
    while traceback is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "gpusvm":
            called = None
        elif called is None:
            called = package
        traceback = traceback.tb_next
    if called is None:
        return "CUDA" if isinstance(error, RuntimeError) else None
    return _GPU_LIBRARIES.get(called)


def is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C is what caused `error`: Python 3.11 makes a RuntimeError of it in places."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause is not None


@contextmanager
def gpu_failures(advice: str) -> Iterator[None]:
    """Let what a GPU library raises end as one line: the library, its error, and `advice`.

    Errors of our own and of the caller's pass through.

    Raises
    ------
    TrainingError
        A GPU library failed, or memory ran out.
    """
    try:
        yield
    except Exception as error:
        library = failed_library(error) or ("memory" if isinstance(error, MemoryError) else None)
        if library is None:
            raise
        raise TrainingError(f"the GPU failed while training ({library}: {one_line(error)}); {advice}") from error


LARGE_BYTES = 2**20
"""From which on `to_device` copies straight from where an array lies."""


def to_device(X: Any) -> Any:
    """X as a CuPy array, in its order; one that lies on the device as it is.

    ``cupy.asarray`` brings an array of the host there by way of page-locked memory of the next
    power of two, which the first fit would wait for: 256 MB for MNIST. A large one is copied from
    where it lies instead.
    """
    import cupy
    import numpy as np

    if type(X) is not np.ndarray or X.nbytes < LARGE_BYTES:
        return cupy.asarray(X)
    in_columns = X.flags.f_contiguous and not X.flags.c_contiguous
    there = cupy.empty(X.shape, dtype=X.dtype, order="F" if in_columns else "C")
    there.set(X if in_columns else np.ascontiguousarray(X))
    return there


PART_BYTES = 8 * 2**20
"""Of the two page-locked parts by which `to_device_in_parts` sends an array."""


def to_device_in_parts(shape: tuple[int, int], dtype: Any, make: Callable[[slice, np.ndarray], bool]) -> Any | None:
    """A CuPy array made on the host in parts: one is on its way while the next is made.

    Parameters
    ----------
    shape : (int, int)
    dtype : dtype
    make : callable
        ``make(rows, into)`` writes these rows of the array to `into`; returns whether it could.

    Returns
    -------
    array or None
        None as soon as a part could not be made.
    """
    import cupy
    import cupyx
    import numpy as np

    there = cupy.empty(shape, dtype=dtype)
    size = max(1, PART_BYTES // (np.dtype(dtype).itemsize * shape[1]))
    buffers = [cupyx.empty_pinned((min(size, shape[0]), shape[1]), dtype) for _ in range(2)]
    arrived = [cupy.cuda.Event(disable_timing=True) for _ in buffers]
    try:
        for part, start in enumerate(range(0, shape[0], size)):
            rows, event = slice(start, min(start + size, shape[0])), arrived[part % 2]
            into = buffers[part % 2][: rows.stop - rows.start]
            event.synchronize()  # at once where it was never recorded
            if not make(rows, into):
                return None
            there[rows].set(into)
            event.record()
    finally:
        for event in arrived:
            event.synchronize()
    return there


def device_of(X: Any) -> int | None:
    """The CUDA device that a CuPy array lies on; None for an array of the host."""
    return getattr(getattr(X, "device", None), "id", None)


_DLPACK_CUDA = 2


def as_device_array(X: Any) -> Any | None:
    """X as a CuPy array that shares its memory, if it lies on a CUDA device; else None.

    Takes CuPy arrays, whatever has ``__cuda_array_interface__`` (Numba, PyTorch), and DLPack
    (PyTorch, JAX).
    """
    if type(X).__module__.partition(".")[0] == "cupy":
        return X
    import numpy as np  # not with this module, which is read where nothing is computed

    if isinstance(X, np.ndarray):
        return None
    if getattr(X, "is_cuda", True) and hasattr(X, "__cuda_array_interface__"):
        import cupy

        return cupy.asarray(X)
    if hasattr(X, "__dlpack_device__") and X.__dlpack_device__()[0] == _DLPACK_CUDA:
        import cupy

        return cupy.from_dlpack(X)
    return None


def one_line(error: BaseException) -> str:
    """An exception as one line of at most a few hundred characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"

"""Stand-ins for CuPy and cuML on a machine without a GPU.

`FakeArray` is a NumPy array that says it is CuPy's and has ``get()``, so that code meant for the
device runs here line by line. `install` puts both packages in place of the real ones for a test.

A stand-in takes no more than the real thing: what is asked of CuPy is written down in
`FakeCupy.calls`, and `tests/test_real_cuda_libraries.py` holds it against CuPy itself where that
is installed. cuML's signatures are in `CUML_SIGNATURES`, as read in its sources.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn.svm


class FakeArray(np.ndarray):
    """A "device" array. As CuPy's it refuses to be mixed with arrays of the host."""

    def get(self) -> np.ndarray:
        return np.asarray(self).copy()

    def set(self, array: np.ndarray) -> None:
        assert type(array) is np.ndarray and (array.shape, array.dtype) == (self.shape, self.dtype)
        assert array.flags.c_contiguous if self.flags.c_contiguous else array.flags.f_contiguous
        np.asarray(self)[...] = array

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        refuse_arrays_of_the_host(ufunc.__name__, (*inputs, *(out or ())))
        if out is not None:
            kwargs["out"] = tuple(None if array is None else np.asarray(array) for array in out)
        result = getattr(ufunc, method)(*map(_of_the_host, inputs), **kwargs)
        if out is not None:
            return out[0]
        return result.view(FakeArray) if isinstance(result, np.ndarray) else result


def _of_the_host(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, FakeArray) else value


def refuse_arrays_of_the_host(name: str, arguments: Iterable[Any]) -> None:
    """Raise TypeError, as CuPy does, where an argument is a NumPy array that is more than a
    number."""
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            refuse_arrays_of_the_host(name, argument)
        elif type(argument) is np.ndarray and argument.ndim:
            raise TypeError(f"{name}: Unsupported type {type(argument)}")


FakeArray.__module__ = "cupy"


class FakeCsr:
    """``cupyx.scipy.sparse.csr_matrix`` of a matrix of SciPy's."""

    def __init__(self, given: Any) -> None:
        assert type(given) is scipy.sparse.csr_matrix, "CuPy takes SciPy's matrices"
        assert given.indices.dtype == given.indptr.dtype == np.int32, "cuML takes indices of 32 bits"
        self._held, self.shape, self.dtype = given.copy(), given.shape, given.dtype

    def get(self) -> scipy.sparse.csr_matrix:
        return self._held


FakeCsr.__module__ = "cupyx.scipy.sparse._csr"


def raising_inside(module: str, error: BaseException) -> Callable[..., Any]:
    """A function that raises `error` as code of that module would, so that a traceback shows the
    module."""

    scope: dict[str, Any] = {"__name__": module, "error": error}
    exec("def fail(*args, **kwargs):\n    raise error", scope)
    return scope["fail"]


def calling_inside(module: str, inner: Callable[[], Any]) -> Callable[..., Any]:
    """A function that calls `inner` as code of that module would."""
    scope: dict[str, Any] = {"__name__": module, "inner": inner}
    exec("def call(*args, **kwargs):\n    return inner()", scope)
    return scope["call"]


class FakeRuntime:
    """CuPy's runtime with one device, or with the error given."""

    def __init__(self, devices: int = 1, error: Exception | None = None) -> None:
        self.devices, self.error = devices, error

    def runtimeGetVersion(self) -> int:
        return 13000

    def getDeviceCount(self) -> int:
        if self.error is not None:
            raise self.error
        return self.devices

    def getDevice(self) -> int:
        return 0

    def memGetInfo(self) -> tuple[int, int]:
        return 30 * 2**30, 80 * 2**30

    def getDeviceProperties(self, index: int) -> dict[str, Any]:
        return {"name": b"Imaginary GPU", "totalGlobalMem": 80 * 2**30, "major": 9, "minor": 0}


class FakePool:
    """CuPy's MemoryPool; all it keeps is how many bytes were asked for since it was last
    emptied."""

    def __init__(self, allocator: Any = None) -> None:
        self.bytes = 0

    def malloc(self, size: int) -> None:
        self.bytes += size

    def total_bytes(self) -> int:
        return self.bytes

    def free_all_blocks(self, stream: Any = None) -> None:
        self.bytes = 0


class FakeCuda:
    """``cupy.cuda``: one device, its streams, and the allocator, which CuPy keeps for each
    thread."""

    def __init__(self, events: list[str], runtime: FakeRuntime) -> None:
        self.events, self.runtime = events, runtime
        self.used_devices: list[int] = []
        self.default_pool, self.rmm = FakePool(), FakePool()
        self.MemoryPool = FakePool
        self.Device = self._device
        self.Stream = types.SimpleNamespace(null=self._logged("null stream"))
        self.current = "the caller's stream"
        self._allocator = self.default_pool.malloc
        self._of_thread = threading.local()

    def Event(self, *, disable_timing: bool = False) -> Any:
        return types.SimpleNamespace(record=lambda: None, synchronize=lambda: None)

    def get_current_stream(self) -> Any:
        return types.SimpleNamespace(synchronize=lambda: self.events.append(f"wait for {self.current}"))

    def _device(self, index: int | None = None) -> Any:
        if index is not None:
            self.used_devices.append(index)
        device = contextlib.nullcontext()
        device.synchronize = lambda: self.events.append("wait for the device")  # type: ignore[attr-defined]
        return device

    def _logged(self, name: str) -> Any:
        outer = self

        class Stream:
            def __enter__(self) -> None:
                self.before, outer.current = outer.current, name
                outer.events.append(f"enter {name}")

            def __exit__(self, *exception: object) -> None:
                outer.current = self.before
                outer.events.append(f"leave {name}")

        return Stream()

    def get_allocator(self) -> Any:
        return getattr(self._of_thread, "allocator", None) or self._allocator

    def set_allocator(self, allocator: Any = None) -> None:
        if getattr(self._of_thread, "allocator", None) is not None:
            raise ValueError("Can't change the global allocator inside `using_allocator` context manager")
        self._allocator = allocator

    @contextlib.contextmanager
    def using_allocator(self, allocator: Any = None) -> Iterator[None]:
        before = getattr(self._of_thread, "allocator", None)
        self._of_thread.allocator = allocator
        try:
            yield
        finally:
            self._of_thread.allocator = before


class FakeRawModule:
    """``cupy.RawModule`` of a source with one kernel, ``twice``, which doubles the first n of
    float32 values."""

    def __init__(self, code: str, *, options: tuple[str, ...] = ()) -> None:
        assert 'extern "C" __global__ void twice(float' in code and isinstance(options, tuple)

    def get_function(self, name: str) -> Callable[..., None]:
        assert name == "twice"

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            values, n = args
            assert type(values) is FakeArray and values.dtype == np.float32 and type(n) is np.int32
            assert grid[0] * block[0] >= n, "not every number has a thread"
            np.asarray(values)[:n] *= 2

        return launch


TAKE_ARRAYS_OF_THE_HOST = ("array", "asarray", "ascontiguousarray", "asfortranarray", "asnumpy")
"""Functions of CuPy that take NumPy's arrays; all others refuse them."""


class FakeCupy(types.ModuleType):
    """NumPy's functions, returning FakeArray.

    Attributes
    ----------
    calls : set of (str, int, tuple of str)
        What was called, with how many positional arguments and which named ones.
    events : list of str
        Streams entered and waited for, and what ran meanwhile, in order.
    """

    def __init__(self, runtime: FakeRuntime | None = None) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.__spec__ = types.SimpleNamespace(name="cupy")  # type: ignore[assignment]
        self.ndarray, self.RawModule = FakeArray, FakeRawModule
        self.calls: set[tuple[str, int, tuple[str, ...]]] = set()
        self.events: list[str] = []
        self.cuda = FakeCuda(self.events, runtime or FakeRuntime())
        self.used_devices = self.cuda.used_devices

    def get_default_memory_pool(self) -> Any:
        return self.cuda.default_pool

    def from_dlpack(self, array: Any) -> FakeArray:
        return array.values

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found

        def on_device(*args: Any, **kwargs: Any) -> Any:
            self.calls.add((name, len(args), tuple(sorted(kwargs))))
            if name not in TAKE_ARRAYS_OF_THE_HOST:
                refuse_arrays_of_the_host(name, (*args, *kwargs.values()))
            result = found(*args, **kwargs)
            if isinstance(result, np.ndarray):
                self.cuda.get_allocator()(result.nbytes)
            return result.view(FakeArray) if type(result) is np.ndarray else result

        return on_device


CUML_SIGNATURES = {
    # cuml/svm/svc.py, SVC.__init__ (all keyword only) and SVC.fit after self, in the wheels of
    # cuml-cu13.
    "26.2.0": (
        "handle C kernel degree gamma coef0 tol cache_size max_iter nochange_steps verbose output_type probability "
        "random_state class_weight decision_function_shape",
        "X y sample_weight convert_dtype",
    ),
    "26.4.0": (
        "C kernel degree gamma coef0 tol cache_size max_iter nochange_steps verbose output_type probability "
        "random_state class_weight decision_function_shape",
        "X y sample_weight convert_dtype",
    ),
    "26.6.0": (
        "C kernel degree gamma coef0 tol cache_size max_iter nochange_steps verbose output_type probability "
        "random_state class_weight decision_function_shape",
        "X y sample_weight convert_dtype",
    ),
    "26.8.0": (
        "C kernel degree gamma coef0 tol cache_size max_iter nochange_steps verbose output_type random_state "
        "class_weight decision_function_shape",
        "X y sample_weight convert_dtype",
    ),
    "26.10.0": (
        "C kernel degree gamma coef0 tol cache_size max_iter nochange_steps verbose output_type random_state "
        "class_weight decision_function_shape",
        "X y sample_weight",
    ),
}
"""Names of the parameters of cuML's SVC, by version."""

CUML_SVR_SIGNATURES = {
    # cuml/svm/svr.py and svm_base: SVMBase.__init__ (all keyword only), with `handle` until 26.4,
    # and SVR.fit.
    version: (
        f"{'handle ' if version == '26.2.0' else ''}C kernel degree gamma coef0 tol epsilon cache_size max_iter "
        "nochange_steps verbose output_type",
        fit,
    )
    for version, (_, fit) in CUML_SIGNATURES.items()
}


class FakeCumlSVC:
    """cuML's binary SVC as its public attributes are: one pair, float32, unsorted support.

    Of the versions in `CUML_SIGNATURES` it takes what all of them take.
    """

    fits: list[FakeCumlSVC] = []  # noqa: RUF012
    output_type: Any = None
    """The global one, as ``cuml.set_global_output_type`` sets it."""

    gives_up_after = -1
    """Steps after which it ends without a word, as cuML does where its gap does not change; -1
    for never."""

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        cache_size: float = 1024.0,
        max_iter: int = -1,
    ) -> None:
        self.params = {name: value for name, value in locals().items() if name != "self"}

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FakeCumlSVC:
        assert len(np.unique(y)) == 2, "the binary solver was given more than two classes"
        return self._fit_as(sklearn.svm.SVC, X, y, sample_weight, np.dtype(np.float32))

    def _fit_as(self, estimator: Any, X: Any, y: Any, sample_weight: Any, dtype: np.dtype) -> Any:
        assert isinstance(X, FakeArray | FakeCsr) and isinstance(y, FakeArray), "data left the device"
        assert X.dtype == dtype and (isinstance(X, FakeCsr) or X.flags.f_contiguous), "cuML would copy the samples"
        assert sample_weight is None or (isinstance(sample_weight, FakeArray) and sample_weight.dtype == dtype)
        sys.modules["cupy"].events.append("fit")  # type: ignore[attr-defined]
        self.fits.append(self)
        params = dict(self.params)
        if self.gives_up_after >= 0:
            params["max_iter"] = self.gives_up_after
        self._keep(estimator(**params), X, y, sample_weight)
        return self

    def _keep(self, machine: Any, X: Any, y: Any, sample_weight: Any) -> None:
        machine._warn_from_fit_status = lambda: None
        X = X.get().toarray() if isinstance(X, FakeCsr) else np.asarray(X)
        machine.fit(X, np.asarray(y), sample_weight=sample_weight)
        backwards = slice(None, None, -1)
        self._support = machine.support_[backwards].astype(np.int32)
        self._dual_coef = machine.dual_coef_[:, backwards].astype(X.dtype)
        self._intercept = machine.intercept_.astype(X.dtype)
        self.n_iter_ = np.asarray(machine.n_iter_, dtype=np.int32)

    def _as_output(self, values: np.ndarray) -> Any:
        if self.output_type in (None, "input", "cupy"):
            return np.array(values).view(FakeArray)
        return {"numpy": values, "pandas": types.SimpleNamespace(values=values)}[self.output_type]

    support_ = property(lambda self: self._as_output(self._support))
    dual_coef_ = property(lambda self: self._as_output(self._dual_coef))
    intercept_ = property(lambda self: self._as_output(self._intercept))


class FakeCumlSVR(FakeCumlSVC):
    """cuML's SVR, in the same way."""

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        epsilon: float = 0.1,
        cache_size: float = 1024.0,
        max_iter: int = -1,
    ) -> None:
        self.params = {name: value for name, value in locals().items() if name not in ("self", "__class__")}

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FakeCumlSVR:
        return self._fit_as(sklearn.svm.SVR, X, y, sample_weight, y.dtype)


@contextlib.contextmanager
def _using_output_type(output_type: Any) -> Iterator[None]:
    before, FakeCumlSVC.output_type = FakeCumlSVC.output_type, output_type
    try:
        yield
    finally:
        FakeCumlSVC.output_type = before


def install(
    monkeypatch: pytest.MonkeyPatch, *, runtime: FakeRuntime | None = None, cuml_version: str = "26.10.00"
) -> FakeCupy:
    """Put the stand-ins into sys.modules until the test ends, as they are once cuML has been
    imported."""
    from gpusvm import device

    cupy = FakeCupy(runtime)
    cuml = types.ModuleType("cuml")
    cuml.__version__ = cuml_version  # type: ignore[attr-defined]
    cuml.__spec__ = types.SimpleNamespace(name="cuml")  # type: ignore[assignment]
    cuml.svm = types.ModuleType("cuml.svm")  # type: ignore[attr-defined]
    cuml.svm.SVC, cuml.svm.SVR = FakeCumlSVC, FakeCumlSVR
    cuml.using_output_type = _using_output_type  # type: ignore[attr-defined]
    cupy.cuda.set_allocator(cupy.cuda.rmm.malloc)
    monkeypatch.setattr(FakeCumlSVC, "fits", [])
    monkeypatch.setattr(FakeCumlSVC, "output_type", None)
    monkeypatch.setattr(FakeCumlSVC, "gives_up_after", -1)
    # The pool of a stand-in must not outlive it.
    monkeypatch.setattr(device, "training_pool", functools.cache(device.training_pool.__wrapped__))
    cupyx_sparse = types.ModuleType("cupyx.scipy.sparse")
    cupyx_sparse.csr_matrix = FakeCsr  # type: ignore[attr-defined]
    cupyx = types.ModuleType("cupyx")
    cupyx.empty_pinned = np.empty  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setitem(sys.modules, "cupyx.scipy", types.ModuleType("cupyx.scipy"))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse", cupyx_sparse)
    for name, module in (("cupy", cupy), ("cuml", cuml), ("cuml.svm", cuml.svm)):
        monkeypatch.setitem(sys.modules, name, module)
    return cupy

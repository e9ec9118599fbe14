"""Stand-ins for CuPy and cuML on a machine without a GPU.

`FakeArray` is a NumPy array that says it is CuPy's and has ``get()``, so that code meant for the
device runs here line by line. `install` puts both packages in place of the real ones for a test.
"""

from __future__ import annotations

import contextlib
import types
from typing import Any

import numpy as np
import pytest
import sklearn.svm


class FakeArray(np.ndarray):
    """A "device" array."""

    def get(self) -> np.ndarray:
        return np.asarray(self).copy()


FakeArray.__module__ = "cupy"


def _wrap(function: Any) -> Any:
    def on_device(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return result.view(FakeArray) if type(result) is np.ndarray else result

    return on_device


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


class FakeCupy(types.ModuleType):
    """NumPy's functions, returning FakeArray."""

    def __init__(self, runtime: FakeRuntime | None = None) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.__spec__ = types.SimpleNamespace(name="cupy")  # type: ignore[assignment]
        self.ndarray = FakeArray
        self.used_devices: list[int] = []
        stream = types.SimpleNamespace(synchronize=lambda: None)
        self.cuda = types.SimpleNamespace(
            runtime=runtime or FakeRuntime(),
            Device=self._device,
            Stream=types.SimpleNamespace(null=contextlib.nullcontext()),
            get_current_stream=lambda: stream,
        )

    def _device(self, index: int) -> contextlib.AbstractContextManager[None]:
        self.used_devices.append(index)
        return contextlib.nullcontext()

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(total_bytes=lambda: 2**20, free_all_blocks=lambda: None)

    def from_dlpack(self, array: Any) -> FakeArray:
        return array.values

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return _wrap(found) if callable(found) and not isinstance(found, type) else found


class FakeCumlSVC:
    """cuML's binary SVC as its public attributes are: one pair, float32, unsorted support."""

    fits: list[FakeCumlSVC] = []  # noqa: RUF012

    def __init__(self, **params: Any) -> None:
        self.params = params

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FakeCumlSVC:
        assert isinstance(X, FakeArray) and isinstance(y, FakeArray), "data left the device"
        assert len(np.unique(y)) == 2, "the binary solver was given more than two classes"
        self.fits.append(self)
        svc = sklearn.svm.SVC(**self.params).fit(np.asarray(X), np.asarray(y), sample_weight=sample_weight)
        backwards = slice(None, None, -1)
        self.support_ = svc.support_[backwards].view(FakeArray)
        self.dual_coef_ = svc.dual_coef_[:, backwards].astype(np.float32).view(FakeArray)
        self.intercept_ = svc.intercept_.astype(np.float32).view(FakeArray)
        self.n_iter_ = svc.n_iter_
        return self


def install(monkeypatch: pytest.MonkeyPatch, *, runtime: FakeRuntime | None = None) -> FakeCupy:
    """Put the stand-ins into sys.modules until the test ends."""
    import sys

    cupy = FakeCupy(runtime)
    cuml = types.ModuleType("cuml")
    cuml.__version__ = "26.10.0"  # type: ignore[attr-defined]
    cuml.__spec__ = types.SimpleNamespace(name="cuml")  # type: ignore[assignment]
    cuml.svm = types.ModuleType("cuml.svm")  # type: ignore[attr-defined]
    cuml.svm.SVC = FakeCumlSVC
    FakeCumlSVC.fits = []
    for name, module in (("cupy", cupy), ("cuml", cuml), ("cuml.svm", cuml.svm)):
        monkeypatch.setitem(sys.modules, name, module)
    return cupy

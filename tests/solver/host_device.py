"""The GPU scheduler's device on the host: NumPy, and the CUDA kernels compiled by g++ against
cuda_shim."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpusvm.kernels import Kernel, largest_entry, largest_norm
from gpusvm.solver.cuda import Device
from gpusvm.solver.cuda_kernels import Kernels
from gpusvm.solver.cuda_rows import DeviceRows
from gpusvm.sparse import is_sparse
from tests.solver.cuda_shim.build import Module

THREADS = 64
"""Of a block of SMO: with fewer than a GPU has, the host is quicker."""


def host_kernels(threads: int = THREADS, **how: Any) -> Kernels:
    return Kernels(partial(Module, **how), threads)


class ProductRows:
    """Kernel rows by their definition, from NumPy's products."""

    def __init__(self, X: Any, kernel: Kernel, dtype: Any, pixels: Any = None) -> None:
        self.X, self.kernel, self.dtype, self.nbytes = X, kernel, np.dtype(dtype), 0
        norm = 0.0 if kernel.precomputed else largest_norm(X)
        self.largest_value = largest_entry(X) if kernel.precomputed else kernel.largest_value(norm)
        self.fits_float32 = kernel.precomputed or kernel.fits_float32(norm)
        self.value_error = kernel.value_error(norm, dtype) if norm else self.largest_value * np.finfo(dtype).eps / 2
        self.work = float(X.shape[1])

    def of(self, kernel: Kernel) -> ProductRows:
        return ProductRows(self.X, kernel, self.dtype)

    def compute(self, samples: Any, slots: Any, out: Any, columns: Any) -> None:
        if not len(samples):
            return
        rows = columns[samples]
        exact = self.X.astype(np.float64) if not is_sparse(self.X) else self.X.toarray().astype(np.float64)
        out[slots] = exact[rows][:, columns] if self.kernel.precomputed else self.kernel(exact[rows], exact[columns])


def host_device(largest_set: int = 3072, **how: Any) -> Device:
    """`how` is for `Module`: ``seed``, ``skipped_line``."""
    return Device(np, host_kernels(**how), ProductRows, largest_set)


def fake_device(cupy: Any, **how: Any) -> Device:
    """The same for the arrays of CuPy's stand-in; `how` is for `host_device`."""
    return replace(host_device(**how), xp=cupy)


def host_rows(X: Any, kernel: Kernel, dtype: Any) -> DeviceRows:
    """Rows by the kernels that run on a GPU."""
    return DeviceRows(X, kernel, dtype, raw_module=Module, xp=np, capability=(8, 0))


class Altered:
    """Kernels of which those named are others."""

    def __init__(self, kernels: Kernels, **others: Any) -> None:
        self.__dict__.update(others)
        self._kernels = kernels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)


def altered(device: Device, **others: Any) -> Device:
    return replace(device, kernels=Altered(device.kernels, **others))  # type: ignore[arg-type]

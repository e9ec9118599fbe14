"""The GPU scheduler's device on the host: NumPy, and the CUDA kernels compiled by g++ against cuda_shim."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpusvm.solver.cuda import Device
from gpusvm.solver.cuda_kernels import Kernels
from tests.solver.cuda_shim.build import Module

THREADS = 64
"""Of a block of SMO: with fewer than a GPU has, the host is quicker."""


def host_kernels(dtype: Any = np.float32, threads: int = THREADS, **how: Any) -> Kernels:
    return Kernels(partial(Module, **how), dtype, threads)


def host_device(largest_set: int = 3072, **how: Any) -> Device:
    """`how` is for `Module`: ``seed``, ``skipped_line``."""
    return Device(np, host_kernels(**how), largest_set)


class Altered:
    """Kernels of which those named are others."""

    def __init__(self, kernels: Kernels, **others: Any) -> None:
        self.__dict__.update(others)
        self._kernels = kernels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)


def altered(device: Device, **others: Any) -> Device:
    return replace(device, kernels=Altered(device.kernels, **others))  # type: ignore[arg-type]

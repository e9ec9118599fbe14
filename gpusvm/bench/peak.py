"""Peak memory of a CUDA device during the timed part of a measurement."""

from __future__ import annotations

import threading
from typing import Any

_SAMPLE_SECONDS = 0.01


class DeviceMemory:
    """Peak use of the CUDA device's memory, sampled every 10 ms.

    It is sampled from `start` to the end of the block. What counts is the device's free memory
    against that when the block was entered: the CUDA context is left out, and other processes on
    the same device are counted in.
    """

    def __init__(self, on_gpu: bool) -> None:
        self._runtime = _cuda_runtime() if on_gpu else None
        self._least_free: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> DeviceMemory:
        self._free_before = self._free()
        return self

    def start(self) -> None:
        """Begin to sample."""
        if self._runtime is not None:
            self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def peak_mb(self) -> float | None:
        """Largest use seen, in MB; None where nothing was sampled."""
        if self._least_free is None:
            return None
        return round(max(0, self._free_before - self._least_free) / 2**20, 1)

    def _sample(self) -> None:
        while not self._stop.is_set():
            free = self._free()
            self._least_free = free if self._least_free is None else min(self._least_free, free)
            self._stop.wait(_SAMPLE_SECONDS)

    def _free(self) -> int:
        return 0 if self._runtime is None else int(self._runtime.memGetInfo()[0])


def _cuda_runtime() -> Any:
    import cupy

    return cupy.cuda.runtime

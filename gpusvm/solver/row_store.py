"""Kernel rows kept in memory, the least recently used ones making room for new ones."""

from __future__ import annotations

import numpy as np


class RowStore:
    """Up to `capacity` rows of `n_columns` float32 or float64, for samples 0 to n_samples - 1.

    Memory is reserved at once and taken up as rows come in. What is thrown out depends only on
    what was asked for before, never on time or threads.

    Parameters
    ----------
    buffer : (>= capacity * n_columns,) array, optional
        Memory to use, so that one store after another can live in the same place; float32 of its
        own if not given.
    """

    def __init__(self, n_samples: int, n_columns: int, capacity: int, buffer: np.ndarray | None = None) -> None:
        self.capacity = min(capacity, n_samples)
        if buffer is None:
            buffer = np.empty(self.capacity * n_columns, dtype=np.float32)
        self.rows = buffer[: self.capacity * n_columns].reshape(self.capacity, n_columns)
        self.slot_of = np.full(n_samples, -1, dtype=np.int64)
        self.sample_in = np.full(self.capacity, -1, dtype=np.int64)
        self.last_use = np.zeros(self.capacity, dtype=np.int64)
        self.n_used, self.clock = 0, 0

    def reserve(self, samples: np.ndarray) -> np.ndarray:
        """Give each of `samples` (m,) a slot, and return those whose rows must now be computed.

        Not more samples than the capacity; none of them is thrown out for another.
        """
        self.clock += 1
        slots = self.slot_of[samples]
        self.last_use[slots[slots >= 0]] = self.clock
        missing = samples[slots < 0]
        if len(missing):
            free = self._free_slots(len(missing))
            self.slot_of[missing] = free
            self.sample_in[free] = missing
            self.last_use[free] = self.clock
        return missing

    def _free_slots(self, count: int) -> np.ndarray:
        fresh = np.arange(self.n_used, min(self.n_used + count, self.capacity))
        self.n_used += len(fresh)
        self.last_use[fresh] = self.clock
        if len(fresh) == count:
            return fresh
        oldest = np.argsort(self.last_use, kind="stable")
        oldest = oldest[self.last_use[oldest] < self.clock][: count - len(fresh)]
        self.slot_of[self.sample_in[oldest]] = -1
        return np.concatenate([fresh, oldest])

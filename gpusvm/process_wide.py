"""Settings that belong to the whole process, held while at least one of our threads needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any


class SharedContext:
    """A context manager that overlapping ``with`` statements share.

    The first enters it, the last leaves it. Of two contexts of their own that overlap, the second
    would find the first one's setting, and would put that back at the end in place of the
    caller's.

    Parameters
    ----------
    make : callable
        Makes the context manager that sets the setting, and puts back on leaving what was there on
        entering.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._n_inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                # Entered and left by one thread, which the last to leave need not be the first to
                # have entered: threadpoolctl lets nobody but the thread that set a limit lift it.
                self._keeper = ThreadPoolExecutor(1)
                self._setting = self._keeper.submit(self._enter).result()
            self._n_inside += 1

    def _enter(self) -> AbstractContextManager[Any]:
        setting = self._make()
        setting.__enter__()
        return setting

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._keeper.submit(self._setting.__exit__, None, None, None).result()
                self._keeper.shutdown()

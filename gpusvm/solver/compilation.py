"""Whether a function of the solver has been compiled on this machine before."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_compiled(function: Any) -> bool:
    """Whether Numba has compiled `function` in this process, or keeps its code on disk: its index file is there."""
    if function.signatures:
        return True
    numba_cache = getattr(function, "_cache", None)
    stem = getattr(getattr(numba_cache, "_impl", None), "filename_base", None)
    if numba_cache is None or stem is None:
        return False
    return any(Path(numba_cache.cache_path).glob(f"{stem}*.nbi"))

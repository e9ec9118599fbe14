"""How the solver's functions are compiled, where their code is kept, and whether it is there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba

from gpusvm.compat import FunctionCache, IndexDataCacheFile

if numba.config.DISABLE_JIT:
    raise ImportError("Numba is told to compile nothing; unset NUMBA_DISABLE_JIT")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with the GIL released; the code is kept on disk where that is possible.

    Numba's own ``cache=True`` refuses to define a function where no folder can be written, and to
    call one where the disk is full or a kept file is damaged. To Numba, a default that is left out
    and a number in the code of a caller have types of their own, for which it would compile a
    function again: so ours have no defaults, and numbers are taken as any other.
    C wrappers are for who takes a function's address, which nobody does: without them compiling
    takes 3 % less.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, no_cfunc_wrapper=True, **options)(function)
        dispatcher.get_call_template = _without_literals(dispatcher.get_call_template)
        with suppress(RuntimeError):  # no folder can be written
            dispatcher._cache = _BestEffortCache(function)
        return dispatcher

    return decorate


def _without_literals(get_call_template: Callable[..., Any]) -> Callable[..., Any]:
    """A dispatcher's `get_call_template`, given plain types of arguments instead of literal ones.

    Numba compiles a function for a compiled caller by this method.
    """

    def get(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return get_call_template(
            tuple(map(numba.types.unliteral, args)), {name: numba.types.unliteral(kind) for name, kind in kws.items()}
        )

    return get


class _BestEffortCache(FunctionCache):
    """Numba's cache of a function's code. A file that cannot be used costs time, and nothing else.

    Functions of one module are compiled into those of another, so code is as old as any file of
    the folder: Numba by itself looks at the function's own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        folder = Path(function.__code__.co_filename).parent
        stamp = [(file.stat().st_mtime, file.stat().st_size) for file in sorted(folder.glob("*.py"))]
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, tuple(stamp))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            with _interrupts_wait():
                return super().load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file raises whatever it likes
            with suppress(OSError):
                self.flush()
            return None

    def kept_signatures(self, target_context: Any) -> list[tuple[Any, ...]]:
        """The types of arguments for which code is kept, of the files as they are now.

        Code for another processor is not: machines may share the folder.
        """
        try:
            keys, codegen = self._cache_file._load_index(), target_context.codegen()
            return [key[0] for key in keys if key == self._index_key(key[0], codegen)]
        except Exception:  # a damaged file, as in `load_overload`
            return []

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, some milliseconds.

    Inside LLVM's callbacks Python would drop it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *interrupt: waiting.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])


def is_kept(function: Any) -> bool:
    """Whether there is a folder where the code of `function` can be kept."""
    return isinstance(function._cache, FunctionCache)


_seen: set[tuple[Any, str]] = set()
"""Functions and dtypes for which code was found on disk: it is not looked for again."""


def is_compiled(function: Any, dtype: Any = "") -> bool:
    """Whether Numba has compiled `function` in this process, or keeps its code on disk.

    With a dtype, whether it has for a first argument of arrays of this dtype.
    """
    key = function, str(dtype)

    def is_meant(signatures: Iterable[tuple[Any, ...]]) -> bool:
        return any(key[1] in str(types[0]) for types in signatures)

    if key not in _seen and not is_meant(function.signatures):
        if not is_kept(function) or not is_meant(function._cache.kept_signatures(function.targetctx)):
            return False
        _seen.add(key)
    return True

"""The CUDA kernels of the lockstep solver: what they are compiled with, and how they are launched.

They are CUDA C, in the ``.cu`` files beside this one. CuPy's ``RawModule`` compiles them where there is a GPU, and
keeps what it compiled; the tests have them compiled for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm.kernels import Array
from gpusvm.solver.smo import CURVATURE_FLOOR, CUT_SHORT, REACHED, STUCK

THREADS = 512
"""Threads of a block of SMO."""

ITEMS = 6
"""Variables of each of them, the bounds of which it holds in registers."""

LARGEST_SET = THREADS * ITEMS
"""Members of a working set: 48 KB of shared memory hold their coefficients and gradients."""

RUN, CONTINUE, CHECK, GRADIENT, FINISHED, START = range(6)
"""What a problem does in a round: SMO on its working set; SMO again, which was cut short; its gradient from scratch,
to see whether it is finished; the same, before it begins; nothing any more; SMO on its first set."""

_TILE, _TILE_ROWS, _PORTION = 32, 8, 256
"""As in pairs.cu."""


@cache
def source(name: str) -> str:
    """The text of one of the ``.cu`` files."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def options(dtype: Any = np.float32, threads: int = THREADS) -> tuple[str, ...]:
    """What pairs.cu is compiled with, for kernel values of `dtype`."""
    names: dict[str, Any] = {
        "VALUE": {"float32": "float", "float64": "double"}[np.dtype(dtype).name],
        "THREADS": threads,
        "ITEMS": LARGEST_SET // threads,
        "REACHED": REACHED,
        "CUT_SHORT": CUT_SHORT,
        "STUCK": STUCK,
        "RUN": RUN,
        "CONTINUE": CONTINUE,
        "CHECK": CHECK,
        "GRADIENT": GRADIENT,
        "FINISHED": FINISHED,
        "START": START,
        "CURVATURE_FLOOR": CURVATURE_FLOOR,
    }
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in names.items()))


class Kernels:
    """The kernels of pairs.cu, called with arrays of the module that they are compiled for.

    Parameters
    ----------
    module : callable
        ``cupy.RawModule``, or what takes its place.
    dtype : dtype
        Of kernel values: float32 or float64.
    threads : int
        Of a block of SMO; a power of two that divides `LARGEST_SET`.
    """

    def __init__(self, module: Callable[..., Any], dtype: Any = np.float32, threads: int = THREADS) -> None:
        self.dtype, self.threads = np.dtype(dtype), threads
        compiled = module(code=source("pairs.cu"), options=options(dtype, threads))
        self._gather, self._smo, self._subtract, self._twice = (
            compiled.get_function(name) for name in ("gather", "smo", "subtract", "twice")
        )
        self._shared_bytes = 2 * 8 * LARGEST_SET
        self._smo.max_dynamic_shared_size_bytes = self._shared_bytes

    def gather(self, live: Array, action: Array, rows: Array, slot_of: Array, member: Array, members: Array,
               n_old: Array, n_members: Array, K: Array, *, most: int, most_new: int) -> None:  # fmt: skip
        """Complete K (n_problems, size, size), the kernel values of the working sets, from position `n_old` on.

        No set has more than `most` members, and to none more than `most_new` have come.
        """
        if not len(live) or not most_new:
            return
        grid = (-(-most // _TILE), -(-most_new // _TILE), len(live))
        self._gather(grid, (_TILE, _TILE_ROWS), (
            live, action, rows, _int(rows.shape[1]), slot_of, member, _int(member.shape[1]), members,
            _int(members.shape[1]), n_old, n_members, K, _int(K.shape[1]),
        ))  # fmt: skip

    def smo(self, live: Array, action: Array, K: Array, members: Array, n_members: Array, lower: Array, upper: Array,
            v: Array, target: Array, at_once: int, b: Array, change: Array, bounds: Array, steps_left: Array,
            moved: Array, status: Array) -> None:  # fmt: skip
        """SMO on each working set until its gap is at most `target`, `at_once` steps at most.

        Changes b, and writes by how much it did, (n_problems, width). Takes from `steps_left` and adds to `moved`.
        """
        if not len(live):
            return
        self._smo((len(live),), (self.threads,), (
            live, action, K, _int(K.shape[1]), members, _int(members.shape[1]), n_members, lower, upper, v,
            _int(v.shape[1]), target, _int(at_once), b, change, bounds, steps_left, moved, status,
        ), shared_mem=self._shared_bytes)  # fmt: skip

    def subtract(self, live: Array, action: Array, rows: Array, slot_of: Array, member: Array, members: Array,
                 n_members: Array, change: Array, support: Array, n_support: Array, b: Array, v: Array, *,
                 begin: int = 0, end: int = 2**31 - 1) -> None:  # fmt: skip
        """v -= K[:, changed] change for problems that run, v -= K[:, support] b for those whose gradient is computed
        from scratch, from place `begin` of the list to `end`."""
        if not len(live):
            return
        grid = (-(-v.shape[1] // _PORTION), len(live))
        self._subtract(grid, (_PORTION,), (
            live, action, rows, _int(rows.shape[1]), slot_of, member, _int(member.shape[1]), members,
            _int(members.shape[1]), n_members, change, support, n_support, _int(begin), _int(end), b, v,
        ))  # fmt: skip

    def twice(self, values: Array) -> None:
        """Double `values` (n,) float32: no part of the solver, but how a probe learns whether kernels run here."""
        self._twice((-(-len(values) // 256),), (256,), (values, _int(len(values))))


def _int(value: int) -> np.int32:
    return np.int32(value)

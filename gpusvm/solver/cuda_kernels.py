"""The CUDA kernels of the lockstep solver: what they are compiled with, and how they are launched.

They are CUDA C, in the ``.cu`` files beside this one. CuPy's ``RawModule`` compiles them where
there is a GPU, and keeps what it compiled; the tests have them compiled for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm.kernels import Array
from gpusvm.solver import working_set
from gpusvm.solver.smo import CURVATURE_FLOOR, CUT_SHORT, REACHED, STUCK

THREADS = 512
"""Threads of a block of SMO."""

ITEMS = 6
"""Variables of each of them, the bounds of which it holds in registers."""

LARGEST_SET = THREADS * ITEMS
"""Members of a working set: 48 KB of shared memory hold their coefficients and gradients."""

SELECTING, ALLOCATING = 512, 1024
"""Threads of a block of `select`, and of `allocate`, which has but one."""

RUN, CONTINUE, CHECK, GRADIENT, FINISHED, START, WARM = range(7)
"""What a problem does in a round: SMO on its working set; SMO again, which was cut short; its
gradient from scratch, to see whether it is finished; the same, before it begins; nothing any more.
START and WARM are what it begins with: the first set is there, the gradient is that of zero; the
first set is there, the gradient is not."""

FIELDS = 8
"""Numbers of a line of the report that `allocate` makes; see pairs.cu."""

FIGURES = 5
"""Numbers at the beginning of a line of what `outcome` writes; see pairs.cu."""

EVERYTHING = 2**31 - 1
"""The end of a list, however long."""

_TILE, _TILE_ROWS, _PORTION = 32, 8, 256
"""As in pairs.cu."""

_STRIPES = 16
"""Blocks that go through the list of one problem."""


KERNELS = frozenset({"place", "select_variables", "want", "allocate", "outcome", "twice"})
"""Of pairs.cu, those that see no kernel values."""

KERNELS_OF_VALUES = frozenset({"gather", "smo", "subtract"})
"""The others, compiled for each type of kernel values."""


@cache
def source(name: str) -> str:
    """The text of one of the ``.cu`` files."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def options(dtype: Any = None, threads: int = THREADS) -> tuple[str, ...]:
    """What pairs.cu is compiled with, for `threads` of a block of SMO.

    What comes of it are the `KERNELS_OF_VALUES` of that `dtype`; without one the `KERNELS`.
    """
    of_values = {} if dtype is None else {"VALUE": {"float32": "float", "float64": "double"}[np.dtype(dtype).name]}
    names: dict[str, Any] = {
        **of_values,
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
        "WARM": WARM,
        "SELECTING": min(SELECTING, threads),
        "ALLOCATING": min(ALLOCATING, 2 * threads),
        "CURVATURE_FLOOR": CURVATURE_FLOOR,
    }
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in names.items()))


class Kernels:
    """The kernels of pairs.cu, called with arrays of the module that they are compiled for.

    Each is compiled when it is first called, those of kernel values for float32 or float64 as the
    arrays have them. `live` (m,) int32 lists the problems that take part; other arrays have a row
    for each problem of the group.

    Parameters
    ----------
    module : callable
        ``cupy.RawModule``, or what takes its place.
    threads : int
        Of a block of SMO; a power of two that divides `LARGEST_SET`.
    """

    def __init__(self, module: Callable[..., Any], threads: int = THREADS) -> None:
        self.module, self.threads = module, threads
        self._functions: dict[tuple[str, np.dtype | None], Any] = {}
        self._shared_bytes = 2 * 8 * LARGEST_SET

    def function(self, name: str, dtype: np.dtype | None = None) -> Any:
        """A kernel, compiled for kernel values of `dtype` where it sees any."""
        if (name, dtype) not in self._functions:
            compiled = self.module(code=source("pairs.cu"), options=options(dtype, self.threads))
            for each in KERNELS if dtype is None else KERNELS_OF_VALUES:
                self._functions[each, dtype] = compiled.get_function(each)
            if dtype is not None:
                self._functions["smo", dtype].max_dynamic_shared_size_bytes = self._shared_bytes
        return self._functions[name, dtype]

    def place(self, sizes: Array, at: Array, first: Array, begins: Array, given: Sequence[Array], p: Array,
              lower: Array, upper: Array, b: Array, v: Array, member: Array) -> None:  # fmt: skip
        """Bring `given`, arrays of all problems, into arrays with a row for each problem.

        `given` are p, lower, upper and perhaps b, (m,) each. `at` (4, n_problems) int64 says where
        each problem begins in them; `first` and `begins` (n_problems, n_blocks) int32 are as in
        pairs.cu.
        """
        (n_problems, n), begun = v.shape, len(given) == 4
        self.function("place")((-(-n // _PORTION), n_problems), (_PORTION,), (
            sizes, at, first, begins, _int(first.shape[1]), *given[:3], given[-1], _int(begun), _int(n), p, lower,
            upper, b, v, member,
        ))  # fmt: skip

    def select(self, live: Array, sizes: Array, p: Array, lower: Array, upper: Array, epsilon: Array, b: Array,
               v: Array, is_member: Array, members: Array, n_members: Array, n_old: Array, growing: Array,
               action: Array, target: Array, gaps: Array, norms: Array, status: Array, steps_left: Array,
               moved: Array, support: Array, n_support: Array, keys: Array, *, largest: int, tol: float,
               largest_value: float) -> None:  # fmt: skip
        """Say what each problem does in this round, and let variables join its working set.

        See pairs.cu.
        """
        self.function("select_variables")((len(live),), (min(SELECTING, self.threads),), (
            live, sizes, _int(v.shape[1]), p, lower, upper, epsilon, b, v, _int(largest),
            _int(working_set.MOST_JOINING), _int(working_set.CHANGING), np.float64(tol), np.float64(largest_value),
            is_member, members, _int(members.shape[1]), n_members, n_old, growing, action, target, gaps, norms, status,
            steps_left, moved, support, n_support, keys,
        ))  # fmt: skip

    def want(self, live: Array, action: Array, member: Array, members: Array, n_members: Array, support: Array,
             n_support: Array, wanted: Array, *, begin: int = 0, end: int = EVERYTHING) -> None:  # fmt: skip
        """Mark in `wanted` (n_columns,) the columns whose rows the round needs."""
        self.function("want")((_STRIPES, len(live)), (_PORTION,), (
            live, action, member, _int(member.shape[1]), members, _int(members.shape[1]), n_members, support,
            n_support, _int(begin), _int(end), wanted,
        ))  # fmt: skip

    def allocate(self, wanted: Array, slot_of: Array, held: Array, missing: Array, slots: Array, gaps: Array,
                 norms: Array, n_members: Array, n_old: Array, action: Array, steps_left: Array, n_support: Array,
                 report: Array, *, capacity: int) -> None:  # fmt: skip
        """Give wanted columns without a row a slot each, list both, write the round's report."""
        self.function("allocate")((1,), (min(ALLOCATING, 2 * self.threads),), (
            wanted, slot_of, _int(len(slot_of)), _int(capacity), held, missing, slots, _int(len(gaps)), gaps, norms,
            n_members, n_old, action, steps_left, n_support, report,
        ))  # fmt: skip

    def gather(self, live: Array, action: Array, rows: Array, slot_of: Array, member: Array, members: Array,
               n_old: Array, n_members: Array, K: Array, *, most: int, most_new: int) -> None:  # fmt: skip
        """Complete K, the kernel values of the working sets, from position `n_old` on.

        K is (n_problems, size, size). No set has more than `most` members, and to none more than
        `most_new` have come.
        """
        grid = (-(-most // _TILE), -(-most_new // _TILE), len(live))
        self.function("gather", rows.dtype)(grid, (_TILE, _TILE_ROWS), (
            live, action, rows, _int(rows.shape[1]), slot_of, member, _int(member.shape[1]), members,
            _int(members.shape[1]), n_old, n_members, K, _int(K.shape[1]),
        ))  # fmt: skip

    def smo(self, live: Array, action: Array, K: Array, members: Array, n_members: Array, lower: Array, upper: Array,
            epsilon: Array, v: Array, target: Array, at_once: int, b: Array, change: Array, bounds: Array,
            steps_left: Array, moved: Array, status: Array) -> None:  # fmt: skip
        """SMO on each working set until its gap is at most `target`, `at_once` steps at most.

        Changes b, and writes by how much it did, (n_problems, width). Takes from `steps_left` and
        adds to `moved`.
        """
        self.function("smo", K.dtype)((len(live),), (self.threads,), (
            live, action, K, _int(K.shape[1]), members, _int(members.shape[1]), n_members, lower, upper, epsilon, v,
            _int(v.shape[1]), target, _int(at_once), b, change, bounds, steps_left, moved, status,
        ), shared_mem=self._shared_bytes)  # fmt: skip

    def subtract(self, live: Array, action: Array, rows: Array, slot_of: Array, member: Array, members: Array,
                 n_members: Array, change: Array, support: Array, n_support: Array, b: Array, v: Array, *,
                 begin: int = 0, end: int = EVERYTHING) -> None:  # fmt: skip
        """v -= K[:, changed] change for those that run, from place `begin` of the list to `end`.

        v -= K[:, support] b for those whose gradient is computed from scratch.
        """
        grid = (-(-v.shape[1] // _PORTION), len(live))
        self.function("subtract", rows.dtype)(grid, (_PORTION,), (
            live, action, rows, _int(rows.shape[1]), slot_of, member, _int(member.shape[1]), members,
            _int(members.shape[1]), n_members, change, support, n_support, _int(begin), _int(end), b, v,
        ))  # fmt: skip

    def outcome(self, listed: Array, sizes: Array, p: Array, lower: Array, upper: Array, epsilon: Array, b: Array,
                v: Array, found: Array, *, vectors: int) -> None:  # fmt: skip
        """Write into `found` a line for each listed problem.

        It holds `FIGURES` numbers, then b, if `vectors` is 1 or 2, and v, if it is 2.
        """
        self.function("outcome")((len(listed),), (min(SELECTING, self.threads),), (
            listed, sizes, _int(v.shape[1]), p, lower, upper, epsilon, b, v, _int(vectors), found,
        ))  # fmt: skip

    def twice(self, values: Array) -> None:
        """Double `values` (n,) float32, by which a probe learns whether kernels run here.

        It is no part of the solver.
        """
        self.function("twice")((-(-len(values) // 256),), (256,), (values, _int(len(values))))


def _int(value: int) -> np.int32:
    return np.int32(value)

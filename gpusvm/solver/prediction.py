"""Decision values of many samples on all CPU cores, by compiled code.

Some rows of X at a time, one thread takes them past all support vectors, 256 by 256: inner
products, kernel values, and what these add to the decision values, while each is still in cache.
Nothing but the decision values of those rows is ever held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from queue import SimpleQueue
from typing import Any, NamedTuple

import numba
import numpy as np

from gpusvm.kernels import Array, Kernel
from gpusvm.pairs import own_pairs
from gpusvm.solver import fused
from gpusvm.solver.compilation import compiled, is_compiled
from gpusvm.solver.kernel_rows import _write_kernel, kernel_numbers
from gpusvm.solver.lists import BLOCK, CsrRows, csr_rows, multiply_lists, norms_of_rows, places_for, turned_around
from gpusvm.solver.operands import (
    LARGEST_PIXEL,
    MOST_IN_TILES,
    PIXEL_SCALES,
    are_whole_numbers,
    as_pixels,
    features_of,
    packed_columns,
    padded,
    squared_norms,
)
from gpusvm.solver.panels import (
    PANEL_WIDTH,
    integer_products_are_exact,
    multiply,
    multiply_integers,
    pack_integer_panels,
    pack_integers,
    pack_nonzeros,
    pack_panels,
)
from gpusvm.solver.tiles import MOST_ROWS as TILE_STEP
from gpusvm.solver.tiles import (
    WEIGHTED_ROWS,
    multiply_tiles,
    pack_rows,
    rows_of_a_tile,
    weight_rows,
)
from gpusvm.sparse import Sparse as Csr
from gpusvm.sparse import as_csr, dense, is_sparse, restricted

TILE_ROWS, TILE_COLUMNS = 120, 256
"""Kernel values computed together: with their inner products they stay in a second-level cache."""

BUDGET = 56 * 2**20
"""Bytes used by a call: half for packed support vectors, half for the work of all threads."""

MOST_ROWS = 8 * TILE_ROWS
"""Rows that a thread takes at once."""

LEAST_ROWS = 96
"""Rows worth a task of their own."""

SMALL_WORK = 2e6
"""Multiplications that are done before another thread has started."""

PACKED_AT_ONCE, MOST_COLUMNS = 2**20, 16 * TILE_COLUMNS
"""Bytes and number of support vectors that are packed together, and multiplied by one call."""

LISTED_ROWS, LISTED_AT_ONCE = 4 * TILE_ROWS, 2**21
"""Rows that meet a block of sparse support vectors together, and bytes of such a block: each needs
the block's features looked up first."""

MOST_PLACES = 2**20
"""Features of sparse rows up to which each thread has a place for each; of more, only for those
that a support vector has."""

LEAST_OF_A_CLASS = 64
"""Support vectors of a class, on average, from which on decision values of more than one pair are
summed in registers, where products are dense: each class has its own call."""

FEW_PAIRS = 3
"""With fewer other classes, coefficients are taken pair by pair, along the support vectors; else
along the pairs."""


def is_ready(dtype: Any, sparse: bool) -> bool:
    """Whether `prepare` was called for these, in this process or in another.

    Then nothing is compiled first.
    """
    last = _add_listed if sparse else _add_dense
    return is_compiled(last, np.dtype(dtype)) and is_compiled(_one_vs_rest)


def prepare(dtype: Any, sparse: bool) -> None:
    """Compile what evaluates models in `dtype`, of sparse support vectors or others, on any data.

    That takes some seconds, once on a machine; see `is_ready`.
    """
    indices, scores = np.zeros(1, dtype=np.int64), np.zeros((1, 2))
    _vote(np.zeros((1, 1)), 2, indices)
    _one_vs_rest(np.zeros((1, 1)), 2, scores)
    rng = np.random.default_rng(0)
    # Those without zeros come last: `_add_dense`.
    for density, scale, k in product((0.1, 1.0), (1.0, 0.7), (2, 3)):
        X = (np.where(rng.random((42, 40)) < density, 1.0, 0.0) * scale).astype(dtype)
        vectors, n_pairs = as_csr(X) if sparse else X, k * (k - 1) // 2
        parts = np.full(k, 42 // k), np.ones((k - 1, 42)), np.zeros(n_pairs)
        blocks = DecisionBlocks(vectors, *parts, Kernel(), np.dtype(dtype))
        blocks.each_block(vectors, 1, lambda rows, decisions: None)


def vote(decisions: np.ndarray, n_classes: int) -> np.ndarray:
    """`gpusvm.voting.vote`, compiled."""
    indices = np.empty(len(decisions), dtype=np.int64)
    _vote(decisions, n_classes, indices)
    return indices


def one_vs_rest(decisions: np.ndarray, n_classes: int) -> np.ndarray:
    """`gpusvm.voting.one_vs_rest`, compiled."""
    scores = np.empty((len(decisions), n_classes))
    _one_vs_rest(decisions, n_classes, scores)
    return scores


class Packed(NamedTuple):
    """Some support vectors as they are multiplied with, from number `begin` on.

    Attributes
    ----------
    begin : int
    panels, norms : arrays, float32, float64 or of integers
        For `Summed`, `panels` are the arrays of rows; for `Listed`, they are `lists.Lists`.
    coef : (n_classes - 1, n) float64 array, or (n, n_classes - 1 and zeros up to a multiple of 16)
        See `FEW_PAIRS`. For `Summed`, (n_classes - 1, n and zeros up to whole groups of rows).
    """

    begin: int
    panels: Any
    norms: np.ndarray
    coef: np.ndarray


class Classes(NamedTuple):
    """Whose support vectors are whose, and which pair is where.

    Attributes
    ----------
    ends : (n_classes,) int64 array
        Where each class's support vectors end.
    first_of : (n_classes,) int64 array
        The pair of classes i < j is at ``first_of[i] + j``.
    """

    ends: np.ndarray
    first_of: np.ndarray

    @classmethod
    def of(cls, n_support: np.ndarray) -> Classes:
        k = len(n_support)
        return cls(np.cumsum(n_support), np.array([i * k - i * (i + 1) // 2 - i - 1 for i in range(k)]))


class Workspace(NamedTuple):
    """A thread's memory, used again for each tile: inner products, kernel values, and sums."""

    inner: np.ndarray
    values: np.ndarray
    slots: np.ndarray
    sums: np.ndarray

    @classmethod
    def make(cls, tile: tuple[int, int], n_rows: int, n_others: int, inner: Any, values: Any) -> Workspace:
        tile = (min(tile[0], -(-n_rows // TILE_STEP) * TILE_STEP), tile[1])
        sums = np.empty((WEIGHTED_ROWS, _padded(n_others)))
        return cls(np.empty(tile, dtype=inner), np.empty(tile, dtype=values), np.arange(tile[0]), sums)


class DecisionBlocks:
    """The decision values of a one-vs-one model, block by block.

    Parameters
    ----------
    support_vectors : (n_sv, n_features) array or CSR
        Grouped by class. CSR never becomes an array.
    n_support : (n_classes,) int array
    dual_coef : (n_classes - 1, n_sv) float64 array
        In LIBSVM's layout.
    intercept : (n_pairs,) float64 array
    kernel : Kernel
        Any but a precomputed one.
    dtype : numpy dtype
        Of kernel values: float32 or float64. Decision values are summed in float64.
    offset : (n_features,) float64 array, optional
        Subtracted from both sides of the kernel.
    """

    def __init__(
        self,
        support_vectors: np.ndarray | Csr,
        n_support: np.ndarray,
        dual_coef: np.ndarray,
        intercept: np.ndarray,
        kernel: Kernel,
        dtype: np.dtype,
        offset: np.ndarray | None = None,
    ) -> None:
        self.vectors, self.dual_coef, self.intercept = support_vectors, dual_coef, intercept
        self.kernel, self.dtype, self.offset = kernel, dtype, offset
        self.classes = Classes.of(n_support)

    def each_block(self, X: Array, n_threads: int, consume: Callable[[slice, np.ndarray], None]) -> None:
        """Call ``consume(rows, decisions)`` for blocks of rows of X, in several threads.

        X (n, n_features) is an array or CSR. `decisions` (m, n_pairs) float64 are overwritten
        after the call. They do not depend on `n_threads`, nor on what other rows X has; but X of
        whole numbers only may be multiplied as such.
        """
        n_rows = X.shape[0]
        work = float(n_rows) * self.vectors.shape[0] * row_length(self.vectors)
        n_threads = 1 if work < SMALL_WORK else n_threads
        arithmetic = self._arithmetic(X)
        n_pairs, n_others = len(self.intercept), len(self.dual_coef)
        d = row_length(X) if isinstance(arithmetic, Listed) else X.shape[1]
        packs = self._packs(arithmetic)
        pack_bytes = (packs[0][1] - packs[0][0]) * self._column_bytes(arithmetic) if packs else 0
        keep = sum(stop - begin for begin, stop in packs) * self._column_bytes(arithmetic) <= BUDGET / 2
        packed = [self._pack(arithmetic, *bounds) for bounds in packs] if keep else None

        # A row as it is, in this arithmetic, and packed; its decision values, twice; and its part
        # of a tile.
        row_bytes = 16 * n_pairs + 4 * self.dtype.itemsize * d + 8 * arithmetic.tile[1]
        thread_bytes = row_bytes + (0 if keep else pack_bytes)
        n_threads = max(1, min(n_threads, int(BUDGET / 2 / thread_bytes)))
        room = BUDGET / 2 / n_threads - (0 if keep else pack_bytes)
        # Small enough that no thread waits long for the last one.
        step = max(LEAST_ROWS, -(-n_rows // (8 * n_threads * TILE_STEP)) * TILE_STEP)
        step = max(1, min(step, MOST_ROWS, int(room / row_bytes), n_rows))
        if step > TILE_STEP:
            step -= step % TILE_STEP
        inner = np.dtype(np.int32) if arithmetic.exact else self.dtype
        numbers = kernel_numbers(self.kernel, inner, arithmetic.unit, self.dtype)
        spaces: SimpleQueue[tuple[Any, np.ndarray]] = SimpleQueue()
        for _ in range(n_threads):
            spaces.put((arithmetic.space(step, n_others, inner, self.dtype), np.empty((step, n_pairs))))

        def one_block(start: int) -> None:
            space, room_for_all = spaces.get()
            try:
                rows = slice(start, min(start + step, n_rows))
                left = arithmetic.pack_left(self._prepared(X[rows], arithmetic))
                decisions = room_for_all[: rows.stop - start]
                arithmetic.begin(space, decisions, self.intercept)
                for number, bounds in enumerate(packs):
                    right = packed[number] if packed is not None else self._pack(arithmetic, *bounds)
                    arithmetic.add(left, right, numbers, self.classes, space, decisions)
                consume(rows, arithmetic.finished(space, decisions))
            finally:
                spaces.put((space, room_for_all))

        starts = range(0, n_rows, step)
        if n_threads == 1 or len(starts) == 1:
            for start in starts:
                one_block(start)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(one_block, starts))

    def _prepared(self, rows: Array, arithmetic: Arithmetic) -> Array:
        """Some rows of X, or support vectors, as `arithmetic` takes them."""
        if isinstance(arithmetic, Listed):  # there is no offset: what is moved is sparse no more
            return as_csr(rows).astype(self.dtype)
        rows = dense(rows)
        if self.offset is not None and not arithmetic.exact:
            rows = rows - self.offset  # in float64, before digits are lost
        return np.ascontiguousarray(rows, dtype=self.dtype)

    def _column_bytes(self, arithmetic: Arithmetic) -> int:
        """Of a support vector as it is packed, at most."""
        return self.dtype.itemsize * arithmetic.packed_numbers(self.vectors) + 8 * _padded(len(self.dual_coef))

    def _packs(self, arithmetic: Arithmetic) -> list[tuple[int, int]]:
        """Which support vectors are packed together."""
        n_bytes, most = arithmetic.packed_at_once
        width = n_bytes // self._column_bytes(arithmetic)
        width -= width % (TILE_COLUMNS if width >= TILE_COLUMNS else PANEL_WIDTH)
        width = max(PANEL_WIDTH, min(width, most))
        return arithmetic.bounds(self.classes.ends, width)

    def _pack(self, arithmetic: Arithmetic, begin: int, stop: int) -> Packed:
        panels, norms = arithmetic.pack_right(self._prepared(self.vectors[begin:stop], arithmetic))
        return Packed(begin, panels, norms, arithmetic.pack_coef(self.dual_coef[:, begin:stop]))

    def _arithmetic(self, X: Array) -> Arithmetic:
        """How inner products are taken, and what is made of them."""
        arithmetic, n_classes = self._products(X), len(self.classes.ends)
        if isinstance(arithmetic, Listed) or (isinstance(arithmetic, Dense) and X.shape[1] > MOST_IN_TILES):
            return arithmetic
        served = self.dtype == np.float32 and self.kernel.name in fused.SERVED
        many_each = isinstance(arithmetic, Dense) and self.vectors.shape[0] >= LEAST_OF_A_CLASS * n_classes
        if served and (n_classes == 2 or many_each):
            return Summed(arithmetic, n_classes)
        return arithmetic

    def _products(self, X: Array) -> Dense | Sparse | Integers | Listed:
        """How inner products are taken: from what the support vectors and X are."""
        if is_sparse(self.vectors):
            return Listed(self.vectors)
        d, like = X.shape[1], self.dtype.type(1)
        entries = X.data.reshape(-1, 1) if is_sparse(X) else X
        present, sparse = features_of(self.vectors, np.arange(len(self.vectors)))
        if sparse and d * LARGEST_PIXEL**2 <= np.iinfo(np.int32).max and integer_products_are_exact():
            for scale in PIXEL_SCALES:
                if are_whole_numbers(self.vectors, scale * like) and are_whole_numbers(entries, scale * like):
                    return Integers(scale, present)
        # Without an offset only: a sparse row that is moved is sparse no more.
        if sparse and self.dtype == np.float32 and self.offset is None:
            return Sparse(np.flatnonzero(present), d)
        return Dense(self.dtype)


class Arithmetic(ABC):
    """How inner products are taken, and what is made of them.

    They are taken in panels of 16 support vectors, if nothing else is said.

    Attributes
    ----------
    unit : float
        What inner products are multiplied with to be those of the samples.
    exact : bool
        Whether they are whole numbers, int32.
    """

    unit: float = 1.0
    exact = False

    tile = TILE_ROWS, TILE_COLUMNS
    packed_at_once = PACKED_AT_ONCE, MOST_COLUMNS

    def space(self, n_rows: int, n_others: int, inner: Any, values: Any) -> Any:
        """A thread's memory for that many rows."""
        return Workspace.make(self.tile, n_rows, n_others, inner, values)

    def begin(self, space: Any, decisions: np.ndarray, intercept: np.ndarray) -> None:
        """Get ready for rows: their decisions (m, n_pairs) begin at the intercepts (n_pairs,)."""
        decisions[:] = intercept

    def finished(self, space: Any, decisions: np.ndarray) -> np.ndarray:
        """The decision values (m, n_pairs), once all support vectors were added."""
        return decisions

    def bounds(self, ends: np.ndarray, width: int) -> list[tuple[int, int]]:
        """Where those packed together begin and end, `width` at most.

        `ends` are those of the classes.
        """
        return _cut(0, int(ends[-1]), width)

    def pack_coef(self, coef: np.ndarray) -> np.ndarray:
        """Coefficients (n_others, n) as `add` takes them."""
        if len(coef) < FEW_PAIRS:
            return np.ascontiguousarray(coef)
        packed = np.zeros((coef.shape[1], _padded(len(coef))))
        packed[:, : len(coef)] = coef.T
        return packed

    @abstractmethod
    def pack_left(self, X: Array) -> tuple[Any, ...]:
        """Rows of X (m, n_features), as `add` takes them."""

    @abstractmethod
    def pack_right(self, X: Array) -> tuple[Any, np.ndarray]:
        """Support vectors (n, n_features): the `panels` and `norms` of `Packed`."""

    @abstractmethod
    def add(
        self,
        left: tuple[Any, ...],
        right: Packed,
        numbers: tuple[Any, ...],
        classes: Classes,
        space: Any,
        decisions: np.ndarray,
    ) -> None:
        """Add what packed support vectors give to the decision values (m, n_pairs) of packed rows.

        `numbers` are from `kernel_rows.kernel_numbers`, `space` is from `space`.
        """

    def packed_numbers(self, vectors: np.ndarray) -> int:
        """How many numbers a support vector takes as it is packed, at most."""
        return vectors.shape[1]


class Dense(Arithmetic):
    """Products of all features, in tiles."""

    def __init__(self, dtype: np.dtype) -> None:
        self.n_together = rows_of_a_tile(dtype)

    def pack_left(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        groups = np.empty((-(-len(X) // self.n_together), self.n_together * X.shape[1]), dtype=X.dtype)
        pack_rows(X, self.n_together, groups)
        return groups, _norms(X)

    def pack_right(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return packed_columns(X), _norms(X)

    def add(self, left: tuple[np.ndarray, ...], right: Packed, *rest: Any) -> None:
        _add_dense(left, right, *rest)


class Sparse(Arithmetic):
    """Products of the non-zeros of float32 rows with the `features` that a support vector has."""

    def __init__(self, features: np.ndarray, n_features: int) -> None:
        self.features = features
        self.position = np.full(n_features, -1, dtype=np.int32)
        self.position[features] = np.arange(len(features), dtype=np.int32)

    def pack_left(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return *pack_nonzeros(X, np.arange(len(X)), self.position), _norms(X)

    def pack_right(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pack_panels(X, np.arange(len(X)), self.features), _norms(X)

    def add(self, left: tuple[np.ndarray, ...], right: Packed, *rest: Any) -> None:
        _add_sparse(left, right, *rest)


class Integers(Arithmetic):
    """Products of pixels, mostly zeros, which are whole numbers over `scale`."""

    exact = True

    def __init__(self, scale: float, present: np.ndarray) -> None:
        self.scale, self.unit = scale, 1.0 / scale**2
        even = np.zeros(-(-len(present) // 2), dtype=np.bool_)
        even |= present[::2]
        even[: len(present) // 2] |= present[1::2]
        self.feature_pairs = np.flatnonzero(even)
        self.position = np.full(len(even), -1, dtype=np.int32)
        self.position[self.feature_pairs] = np.arange(len(self.feature_pairs), dtype=np.int32)

    def _pixels(self, X: np.ndarray) -> np.ndarray:
        pixels = np.empty(X.shape, dtype=np.uint8)
        as_pixels(X, X.dtype.type(self.scale), pixels)
        return pixels

    def pack_left(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        pixels = self._pixels(X)
        return *pack_integers(pixels, np.arange(len(X)), self.position), squared_norms(pixels).astype(np.int32)

    def pack_right(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = self._pixels(X)
        return pack_integer_panels(pixels, np.arange(len(X)), self.feature_pairs), squared_norms(pixels).astype(
            np.int32
        )

    def add(self, left: tuple[np.ndarray, ...], right: Packed, *rest: Any) -> None:
        _add_integers(left, right, *rest)


class Summed(Arithmetic):
    """Decision values summed in registers.

    The support vectors of a class are the rows, X the columns. `products` says how to multiply.
    """

    def __init__(self, products: Dense | Sparse | Integers, n_classes: int) -> None:
        self.products, self.unit, self.exact = products, products.unit, products.exact
        self.dense = isinstance(products, Dense)
        self.pairs, self.n_pairs = own_pairs(n_classes), n_classes * (n_classes - 1) // 2

    def space(self, n_rows: int, n_others: int, inner: Any, values: Any) -> np.ndarray:
        """(n_pairs, n_rows and more) float64."""
        return np.empty((self.n_pairs, _padded(n_rows)))

    def begin(self, space: np.ndarray, decisions: np.ndarray, intercept: np.ndarray) -> None:
        space[:] = 0.0
        decisions[:] = intercept

    def finished(self, space: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        decisions -= space[:, : len(decisions)].T
        return decisions

    def bounds(self, ends: np.ndarray, width: int) -> list[tuple[int, int]]:
        starts = np.concatenate([[0], ends[:-1]]).tolist()
        return [part for start, end in zip(starts, ends.tolist(), strict=True) for part in _cut(start, end, width)]

    def pack_left(self, X: np.ndarray) -> tuple[np.ndarray, ...]:
        panels, norms = self.products.pack_right(X)
        return panels, padded(norms, PANEL_WIDTH)

    def pack_right(self, X: np.ndarray) -> tuple[Any, np.ndarray]:
        *rows, norms = self.products.pack_left(X)
        return tuple(rows), padded(norms, fused.TOGETHER)

    def pack_coef(self, coef: np.ndarray) -> np.ndarray:
        if not self.dense:
            return np.ascontiguousarray(coef)
        packed = np.zeros((len(coef), -(-coef.shape[1] // fused.TOGETHER) * fused.TOGETHER))
        packed[:, : coef.shape[1]] = coef
        return packed

    def add(
        self,
        left: tuple[np.ndarray, ...],
        right: Packed,
        numbers: tuple[Any, ...],
        classes: Classes,
        space: np.ndarray,
        decisions: np.ndarray,
    ) -> None:
        kind, unit, slope = numbers[:3]
        factor = np.float32(unit if kind == fused.SERVED.index("linear") else slope)
        pairs = self.pairs[np.searchsorted(classes.ends, right.begin, side="right")]
        subtract = fused.subtract_values if self.dense else fused.subtract_values_of_nonzeros
        rows = right.panels if self.dense else (right.panels,)
        subtract(kind, factor, *rows, right.norms, *left, right.coef, space, pairs)


class Listed(Arithmetic):
    """Products of sparse rows with sparse support vectors of many features, as `lists`."""

    tile = LISTED_ROWS, BLOCK
    packed_at_once = LISTED_AT_ONCE, BLOCK

    def __init__(self, vectors: Csr) -> None:
        self.n_features, self.features = vectors.shape[1], None
        if self.n_features > MOST_PLACES:
            self.features = np.unique(vectors.indices)
            self.n_features = len(self.features)

    def packed_numbers(self, vectors: Csr) -> int:
        """The zeros of common features among them, and what else is of each non-zero."""
        return 11 * row_length(vectors)

    def _rows(self, X: Csr) -> tuple[CsrRows, np.ndarray]:
        rows = csr_rows(X)
        with np.errstate(over="ignore"):  # as in `_norms`
            norms = norms_of_rows(rows.starts, rows.values).astype(X.dtype)
        return rows if self.features is None else csr_rows(restricted(X, self.features)), norms

    def pack_left(self, X: Csr) -> tuple[Any, ...]:
        return self._rows(X)

    def pack_right(self, X: Csr) -> tuple[Any, np.ndarray]:
        rows, norms = self._rows(X)
        return turned_around(rows, np.arange(X.shape[0]), self.n_features, X.dtype), norms

    def add(self, left: tuple[Any, ...], right: Packed, *rest: Any) -> None:
        _add_listed(left, right, places_for(self.n_features), *rest)


def _padded(n_others: int) -> int:
    return -(-n_others // PANEL_WIDTH) * PANEL_WIDTH


def _cut(start: int, end: int, width: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + width, end)) for begin in range(start, end, width)]


def row_length(X: Array) -> int:
    """Numbers that a row of X (n, n_features) takes: of CSR the non-zeros, on average."""
    return -(-X.nnz // max(1, X.shape[0])) if is_sparse(X) else X.shape[1]


def _norms(X: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of a sample so far away that its kernel values are zero
        return squared_norms(X).astype(X.dtype)


@compiled()
def _add_dense(
    left: tuple[Any, ...],
    right: Packed,
    numbers: tuple[Any, ...],
    classes: Classes,
    space: Workspace,
    decisions: np.ndarray,
) -> None:
    """Add to decisions (m, n_pairs) what some support vectors give to them."""
    m, n = decisions.shape[0], right.norms.shape[0]
    for c in range(0, n, TILE_COLUMNS):
        c_stop = min(c + TILE_COLUMNS, n)
        panels = right.panels[c // PANEL_WIDTH : (c_stop + PANEL_WIDTH - 1) // PANEL_WIDTH]
        for r in range(0, m, TILE_ROWS):
            r_stop = min(r + TILE_ROWS, m)
            n_features = right.panels.shape[1] // PANEL_WIDTH
            n_together = left[0].shape[1] // n_features
            groups = left[0][r // n_together : (r_stop + n_together - 1) // n_together]
            multiply_tiles(groups, panels, n_features, space.inner)
            norms = left[-1][r:r_stop], right.norms[c:c_stop]
            _add_tile(norms, right, c, numbers, classes, space, decisions[r:r_stop])


@compiled()
def _add_sparse(
    left: tuple[Any, ...],
    right: Packed,
    numbers: tuple[Any, ...],
    classes: Classes,
    space: Workspace,
    decisions: np.ndarray,
) -> None:
    """The same for rows given by their non-zeros."""
    m, n = decisions.shape[0], right.norms.shape[0]
    for c in range(0, n, TILE_COLUMNS):
        c_stop = min(c + TILE_COLUMNS, n)
        panels = right.panels[c // PANEL_WIDTH : (c_stop + PANEL_WIDTH - 1) // PANEL_WIDTH]
        for r in range(0, m, TILE_ROWS):
            r_stop = min(r + TILE_ROWS, m)
            multiply(left[0][r : r_stop + 1], left[1], left[2], panels, space.inner)
            norms = left[-1][r:r_stop], right.norms[c:c_stop]
            _add_tile(norms, right, c, numbers, classes, space, decisions[r:r_stop])


@compiled()
def _add_integers(
    left: tuple[Any, ...],
    right: Packed,
    numbers: tuple[Any, ...],
    classes: Classes,
    space: Workspace,
    decisions: np.ndarray,
) -> None:
    """The same for pixels."""
    m, n = decisions.shape[0], right.norms.shape[0]
    for c in range(0, n, TILE_COLUMNS):
        c_stop = min(c + TILE_COLUMNS, n)
        panels = right.panels[c // PANEL_WIDTH : (c_stop + PANEL_WIDTH - 1) // PANEL_WIDTH]
        for r in range(0, m, TILE_ROWS):
            r_stop = min(r + TILE_ROWS, m)
            multiply_integers(left[0][r : r_stop + 1], left[1], left[2], panels, space.inner)
            norms = left[-1][r:r_stop], right.norms[c:c_stop]
            _add_tile(norms, right, c, numbers, classes, space, decisions[r:r_stop])


@compiled()
def _add_listed(
    left: tuple[Any, ...],
    right: Packed,
    places: np.ndarray,
    numbers: tuple[Any, ...],
    classes: Classes,
    space: Workspace,
    decisions: np.ndarray,
) -> None:
    """The same for sparse rows and a block of sparse support vectors."""
    m, n = decisions.shape[0], right.norms.shape[0]
    for r in range(0, m, space.inner.shape[0]):
        r_stop = min(r + space.inner.shape[0], m)
        multiply_lists(left[0], np.arange(r, r_stop), right.panels, places, 0, space.inner, 0, n)
        norms = left[1][r:r_stop], right.norms
        _add_tile(norms, right, 0, numbers, classes, space, decisions[r:r_stop])


@numba.njit(inline="always")  # one level less for the compiler to go through
def _add_tile(
    norms: tuple[Any, ...],
    right: Packed,
    c: int,
    numbers: tuple[Any, ...],
    classes: Classes,
    space: Workspace,
    decisions: np.ndarray,
) -> None:
    """The same for one tile: some rows, and support vectors from the pack's `c`-th on.

    Their inner products are in the workspace.
    """
    kind, unit, slope, coef0, degree, like = numbers
    # Whole arrays are handed on: a compiler does not know of a part that its rows are contiguous.
    _write_kernel(kind, unit, slope, coef0, degree, like, space.inner, *norms, space.values, space.slots, 0)
    _combine(space.values, len(norms[1]), right.coef, right.begin, c, classes, space.sums, decisions)


@compiled(fastmath={"contract", "nsz", "reassoc"})
def _combine(
    values: np.ndarray,
    n: int,
    coef: np.ndarray,
    begin: int,
    c: int,
    classes: Classes,
    some: np.ndarray,
    decisions: np.ndarray,
) -> None:
    """The first n columns of `values` times their support vectors' coefficients, in float64."""
    ends, first_of = classes.ends, classes.first_of
    n_others, m = ends.shape[0] - 1, decisions.shape[0]
    owner = np.searchsorted(ends, begin + c, side="right")
    start = 0
    while start < n:
        stop = min(n, ends[owner] - begin - c)
        if n_others < FEW_PAIRS:
            for r in range(m):
                row = values[r][start:stop]
                for o in range(n_others):
                    weights, total = coef[o, c + start : c + stop], 0.0
                    for s in range(row.shape[0]):
                        total += np.float64(row[s]) * weights[s]
                    decisions[r, first_of[o] + owner if o < owner else first_of[owner] + o + 1] += total
        elif stop > start:
            for first in range(0, m, WEIGHTED_ROWS):
                weight_rows(values, first, start, stop, coef, c, some)
                for r in range(first, min(first + WEIGHTED_ROWS, m)):
                    into, sums = decisions[r], some[r - first]
                    for o in range(owner):
                        into[first_of[o] + owner] += sums[o]
                    after, sums = into[first_of[owner] + owner + 1 :], sums[owner:]
                    for o in range(n_others - owner):
                        after[o] += sums[o]
        start, owner = max(start, stop), owner + 1


@compiled()
def _vote(decisions: np.ndarray, n_classes: int, indices: np.ndarray) -> None:
    votes = np.empty(n_classes, dtype=np.int32)
    for r in range(decisions.shape[0]):
        votes[:] = 0
        p = 0
        for i in range(n_classes - 1):
            later, row = votes[i + 1 :], decisions[r, p : p + n_classes - 1 - i]
            won = np.int32(0)
            for j in range(row.shape[0]):
                first_wins = np.int32(row[j] > 0)
                won += first_wins
                later[j] += np.int32(1) - first_wins
            votes[i] += won
            p += row.shape[0]
        indices[r] = votes.argmax()


@compiled()
def _one_vs_rest(decisions: np.ndarray, n_classes: int, scores: np.ndarray) -> None:
    votes, sums = np.empty(n_classes), np.empty(n_classes)
    for r in range(decisions.shape[0]):
        votes[:] = 0.0
        sums[:] = 0.0
        p = 0
        for i in range(n_classes - 1):
            for j in range(i + 1, n_classes):
                value = decisions[r, p]
                first_wins = value >= 0
                votes[i] += first_wins
                votes[j] += not first_wins
                sums[i] += value
                sums[j] -= value
                p += 1
        for i in range(n_classes):
            scores[r, i] = votes[i] + sums[i] / (3 * (abs(sums[i]) + 1))

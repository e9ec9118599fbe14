"""Kernel values between one problem's variables: a matrix whose rows come and go, and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled
from gpusvm.solver.kernel_rows import CHUNK_COLUMNS, ParallelFor, subtract_combination, write_kernel, write_products
from gpusvm.solver.on_demand import NONE, RowsOnDemand, diagonal, rows_on_demand
from gpusvm.solver.operands import FusedProducts, Samples, Scratch, make_operand
from gpusvm.solver.panels import PANEL_WIDTH

TILE = 512
"""Rows and columns of kernel values that are computed together, and mirrored or summed while they
are in cache."""


LEAST_PARTS, MOST_TARGETS = 8, 4096
"""Parts into which the variables of a sum are cut, for the threads, and how many are in one at
most."""


TOUCHED, _PAGE = 2**20, 512
"""Values of memory that a thread touches at once, and how many of float64 are a page."""


class KernelValues(Protocol):
    """Kernel values between the variables of a problem, which are counted from 0."""

    dtype: Any
    """float32 or float64."""

    def extend(
        self, K: np.ndarray, members: np.ndarray, old: int, parallel_for: ParallelFor, stopped: Callable[[], bool]
    ) -> None:
        """Complete K (q, >= q), symmetric, the values between `members` (q,).

        K lacks rows and columns from `old` on. `stopped` is asked now and then; where it says so,
        K is left unfinished.
        """

    def on_demand(self) -> RowsOnDemand | None:
        """What all rows are computed from, a row at a time; None where that is not possible."""

    def subtract(
        self,
        v: np.ndarray,
        targets: np.ndarray,
        sources: np.ndarray,
        coefficients: np.ndarray,
        parallel_for: ParallelFor,
    ) -> None:
        """v[targets] -= K[targets, sources] @ coefficients, summed in float64; no value is kept.

        `v` (n,) and `coefficients` (s,) are float64, `targets` (t,) and `sources` (s,) int64
        variables.
        """


class ComputedValues:
    """Kernel values of samples: products by whatever suits them, see `operands`.

    The bits of a value depend on nothing but where it lies in a matrix or sum: never on the number
    of threads.

    Parameters
    ----------
    kernel : Kernel
    samples : Samples
    rows : (n,) int64 array
        The sample of each variable.
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(self, kernel: Kernel, samples: Samples, rows: np.ndarray, dtype: Any) -> None:
        self.kernel, self.samples, self.rows, self.dtype = kernel, samples, rows, dtype

    def extend(
        self, K: np.ndarray, members: np.ndarray, old: int, parallel_for: ParallelFor, stopped: Callable[[], bool]
    ) -> None:
        self._extend(K, self.rows[members], old, len(members), parallel_for, stopped)

    def between(self, K: np.ndarray, n_left: int, parallel_for: ParallelFor, stopped: Callable[[], bool]) -> None:
        """Write to K (n, >= n) only values between the first `n_left` variables and the others."""
        self._extend(K, self.rows, n_left, n_left, parallel_for, stopped)

    def _extend(
        self,
        K: np.ndarray,
        rows: np.ndarray,
        old: int,
        width: int,
        parallel_for: ParallelFor,
        stopped: Callable[[], bool],
    ) -> None:
        """The values of `rows` from `old` on, against those before them and below `width`.

        Their mirror image is written too.
        """
        operand = make_operand(self.samples, rows[:width])

        def strip(start: int, stop: int) -> None:
            places = np.arange(old + start, old + stop)
            products = operand.products(self.samples, rows[places])
            own, end = min(places[0] // PANEL_WIDTH * PANEL_WIDTH, width), min(old + stop, width)
            for left in [*range(0, own, TILE), own]:
                right = min(left + TILE, own) if left < own else end
                if stopped():
                    return
                if left == right:
                    continue
                if left < own and isinstance(products, FusedProducts) and products.serves(self.kernel, K.dtype):
                    products.write(self.kernel, K, places, left, right, mirrored=True)
                else:  # on the diagonal, a value and its mirror image are both computed: they need not have equal bits
                    write_products(self.kernel, products, operand, K, places, left, right)
                    _mirror(K, old + start, old + stop, left, right)

        parallel_for(strip, len(rows) - old, TILE)

    def on_demand(self) -> RowsOnDemand | None:
        return rows_on_demand(self.kernel, self.samples, self.rows) if self.dtype == np.float32 else None

    def subtract(
        self,
        v: np.ndarray,
        targets: np.ndarray,
        sources: np.ndarray,
        coefficients: np.ndarray,
        parallel_for: ParallelFor,
    ) -> None:
        sums, places = v[targets], np.arange(TILE)

        def part(start: int, stop: int) -> None:
            operand = make_operand(self.samples, self.rows[targets[start:stop]])
            for first in range(0, len(sources), TILE):
                left, factors = self.rows[sources[first : first + TILE]], coefficients[first : first + TILE]
                product = operand.products(self.samples, left)
                if isinstance(product, FusedProducts) and product.serves(self.kernel, self.dtype):
                    product.subtract(self.kernel, factors, 0, operand.n, sums[start:stop])
                    continue
                for begin in range(0, operand.n, CHUNK_COLUMNS):
                    end = min(begin + CHUNK_COLUMNS, operand.n)
                    tile = _tile(TILE, end - begin, self.dtype)
                    inner, norms = product.columns(begin, end), (product.norms, operand.norms[begin:end])
                    write_kernel(self.kernel, inner, operand.unit, *norms, tile, places, 0)
                    subtract_combination(tile, places[: len(left)], factors, sums[start + begin : start + end], 0)

        # Each part is packed by the thread that multiplies with it. Its size must not follow the
        # number of threads.
        parallel_for(part, len(targets), min(MOST_TARGETS, max(CHUNK_COLUMNS, -(-len(targets) // LEAST_PARTS))))
        v[targets] = sums


_tile = Scratch()


class ValuesOfTwoBlocks(ComputedValues):
    """The same for a problem about two blocks, where the values within a block are shared.

    They are those of the block's other problems too.

    Parameters
    ----------
    kernel, samples, dtype : as for `ComputedValues`
    blocks : two int64 arrays
        The samples of the problem's variables.
    within : callable
        ``within(k)``: the kernel values (n, n) between the samples of the k-th of `blocks`.
    """

    def __init__(
        self,
        kernel: Kernel,
        samples: Samples,
        blocks: Sequence[np.ndarray],
        dtype: Any,
        within: Callable[[int], np.ndarray],
    ) -> None:
        super().__init__(kernel, samples, np.concatenate(blocks), dtype)
        self.sizes, self.within = [len(rows) for rows in blocks], within

    def extend(
        self, K: np.ndarray, members: np.ndarray, old: int, parallel_for: ParallelFor, stopped: Callable[[], bool]
    ) -> None:
        n, n_left = len(self.rows), self.sizes[0]
        if old > 0 or len(members) < n:
            super().extend(K, members, old, parallel_for, stopped)
            return
        K[:n_left, :n_left] = self.within(0)
        K[n_left:n, n_left:n] = self.within(1)
        self.between(K, n_left, parallel_for, stopped)


class GivenValues:
    """The same, where kernel values were given: of variables k and l ``X[rows[k], rows[l]]``."""

    def __init__(self, X: np.ndarray, rows: np.ndarray, dtype: Any) -> None:
        self.X, self.rows, self.dtype = X, rows, dtype

    def extend(
        self, K: np.ndarray, members: np.ndarray, old: int, parallel_for: ParallelFor, stopped: Callable[[], bool]
    ) -> None:
        rows = self.rows[members]

        def strip(start: int, stop: int) -> None:
            if not stopped():
                K[old + start : old + stop, : old + stop] = self.X[
                    np.ix_(rows[old + start : old + stop], rows[: old + stop])
                ]
                _mirror(K, old + start, old + stop, 0, old + stop)

        parallel_for(strip, len(members) - old, TILE)

    def on_demand(self) -> None:
        return None

    def subtract(
        self,
        v: np.ndarray,
        targets: np.ndarray,
        sources: np.ndarray,
        coefficients: np.ndarray,
        parallel_for: ParallelFor,
    ) -> None:
        sums = v[targets]

        def columns(start: int, stop: int) -> None:
            for first in range(0, len(sources), TILE):
                part = coefficients[first : first + TILE]
                tile = self.X[np.ix_(self.rows[sources[first : first + TILE]], self.rows[targets[start:stop]])]
                subtract_combination(
                    tile.astype(self.dtype, copy=False), np.arange(len(part)), part, sums[start:stop], 0
                )

        parallel_for(columns, len(targets))
        v[targets] = sums


class ActiveMatrix:
    """The kernel values between some of a problem's variables, which may leave and join.

    Those that stay keep their order, and what they keep is moved together in place: rows are as
    long as there are members, and close to each other.

    Parameters
    ----------
    values : KernelValues
    memory : callable
        ``memory(size)`` gives a one-dimensional array of at least `size` values; what an earlier
        one holds stays until its values are moved, so that both take memory for that moment.
    expected : int
        Members for which to ask for memory at once.

    Attributes
    ----------
    members : (q,) int64 array
        The variables.
    """

    def __init__(self, values: KernelValues, memory: Callable[[int], np.ndarray], expected: int) -> None:
        self.values, self.memory = values, memory
        self.members = np.empty(0, dtype=np.int64)
        self.flat, self.width = memory(expected * expected), 0
        self.on_demand: RowsOnDemand | tuple[()] = NONE
        self._diagonal: np.ndarray | None = None

    @property
    def K(self) -> np.ndarray:
        """(q, >= q): rows begin multiples of 64 bytes apart, columns from q on mean nothing.

        Where there is something in `on_demand`, it says which row is where.
        """
        q = len(self.members)
        return self.flat[: q * self.width].reshape(q, self.width)

    def diagonal(self) -> np.ndarray:
        """The value (q,) float64 of each member with itself."""
        return (self.K.diagonal() if self._diagonal is None else self._diagonal).astype(np.float64)

    def take_all(self, n: int) -> None:
        """Make all `n` variables the members for good, each row to be computed when it is needed.

        Where the values cannot be computed so, there are no members yet.
        """
        on_demand = self.values.on_demand()
        if on_demand is not None:
            self.members, self.on_demand, self._diagonal = np.arange(n), on_demand, diagonal(on_demand)
            self.width = -(-n // PANEL_WIDTH) * PANEL_WIDTH

    def change(self, wanted: np.ndarray, parallel_for: ParallelFor, stopped: Callable[[], bool]) -> None:
        """Make the variables that `wanted` (n,) marks the members.

        Where `stopped` says so, K is left unfinished.
        """
        kept = np.flatnonzero(wanted[self.members]).astype(np.uint32)
        joining = wanted.copy()
        joining[self.members] = False
        old, before = len(kept), len(self.members)
        if old == before and not joining.any():
            return
        members = np.concatenate([self.members[kept], np.flatnonzero(joining)])
        width = -(-len(members) // PANEL_WIDTH) * PANEL_WIDTH
        if len(members) * width > len(self.flat):
            flat = self.memory(len(members) * width)
            _keep(self.flat, self.width, kept, flat, width)
            self.flat = flat
        else:
            self._touch(before * self.width, len(members) * width, parallel_for)
            narrower = min(width, self.width)
            if old < before or narrower < self.width:
                _keep(self.flat, self.width, kept, self.flat, narrower)
            if narrower < width:
                _widen(self.flat, narrower, old, width)
        self.members, self.width = members, width
        if old < len(members):
            self.values.extend(self.K, members, old, parallel_for, stopped)

    def _touch(self, start: int, stop: int, parallel_for: ParallelFor) -> None:
        """Touch memory that is new, on all threads.

        A system may take 2 s for a GB of it, and much less in parallel.
        """

        def part(first: int, last: int) -> None:
            touched = self.flat[start + first : start + last : _PAGE]
            touched[:] = touched.copy()

        if stop - start > TOUCHED:
            parallel_for(part, stop - start, TOUCHED)

    def subtract(self, v: np.ndarray, places: np.ndarray, coefficients: np.ndarray, parallel_for: ParallelFor) -> None:
        """v -= K[:, places] @ coefficients, summed in float64.

        `v` (q,) and `coefficients` are float64, `places` int64.
        """

        def columns(start: int, stop: int) -> None:
            subtract_combination(self.K, places, coefficients, v[start:stop], start)

        parallel_for(columns, len(v))


@compiled()
def _keep(source: np.ndarray, width: int, kept: np.ndarray, target: np.ndarray, new_width: int) -> None:
    """Move rows and columns `kept`, ascending, to the front.

    `target` may be `source` where rows do not grow. `kept` are uint32: what may be negative must
    be looked at before it is an index.
    """
    for a in range(kept.shape[0]):
        row, place = np.int64(kept[a]) * width, a * new_width
        old, new = source[row : row + width], target[place : place + kept.shape[0]]
        for b in range(kept.shape[0]):
            new[b] = old[kept[b]]


@compiled()
def _widen(flat: np.ndarray, width: int, q: int, new_width: int) -> None:
    """Move `q` rows of q values apart, the last one first."""
    for a in range(q - 1, 0, -1):
        for b in range(q - 1, -1, -1):
            flat[a * new_width + b] = flat[a * width + b]


@compiled()
def _mirror(K: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
    """Mirror what is below the diagonal in the tile K[top:bottom, left:right] across it.

    In squares of 16: a cache line each, instead of single numbers far apart.
    """
    for c in range(left, right, 16):
        for r in range(top, bottom, 16):
            for k in range(c, min(c + 16, right)):
                mirror = K[k]
                for across in range(max(r, k + 1), min(r + 16, bottom)):
                    mirror[across] = K[across, k]

"""Evaluates an SVMModel: the decision values of all class pairs, some rows at a time.

An evaluator's `each_block` hands a function the decision values of one block of rows after
another; votes, scores and whatever else reduce them there, so that the values of all rows are held
only where they are the result. Three evaluators: weights of the features for a linear kernel, the
solver's compiled code for large work on a CPU, and NumPy or CuPy for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gpusvm.errors import RangeError
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import (
    MOST_SPREAD,
    Array,
    Kernel,
    array_module,
    largest_entry,
    largest_norm,
    row_lengths,
    squared_norms,
    working_dtype,
)
from gpusvm.sparse import is_sparse, most_entries, rows_times

if TYPE_CHECKING:
    from gpusvm.model import SVMModel

BUDGET = 64 * 2**20
"""Bytes that a call on a CPU may take beside its result, unless the decision values of one row are
more."""

DEVICE_BUDGET = 3 * 2**29
"""The same on a GPU, which is busy only with large products: 1.5 GB, at most a quarter of its free
memory."""

COMPILED_WORK = 5e8
"""Operations (see `_work`) from which on compiled code is used, where it is kept on disk: 50 ms of
NumPy.

Loading it costs some tenths of a second, once in a process. Whether it is loaded already must not
decide: the same call would give other last digits in another process.
"""

COMPILED_ROWS = 16
"""Rows from which on packing the support vectors pays."""

COMPILATION_WORK = 3e11
"""The same where the code is yet to be compiled, which takes some ten seconds once on a
machine."""

DECISION_ERROR = 2e-4
"""Error of decision values above which float32 input is computed in float64: a fifth of the usual
tolerance."""

FEW_ROWS = 64
"""Rows so few that converting the support vectors to float32 would cost more than it saves."""

FEW_CLASSES = 16
"""Classes up to which a GPU multiplies with one matrix for all pairs, mostly zeros, instead of one
for each class."""

MOST_WEIGHTS = 2**25
"""Weights of the features, of all pairs together, above which sparse support vectors are evaluated
one by one: 256 MB."""

FAR_AWAY = 1e153
"""How far a sample may be away: of support vectors up to 1e150 its squared distances are 1e306,
which float64 has."""

LEAST_GAMMA = 1e-300
"""From where on such a distance gives an RBF value of zero."""

_TRIED = 64
"""Support vectors whose decision values tell how large the error of float32 is."""

Consumer = Callable[[slice, Array], None]
"""Takes some rows, as a slice, and their decision values (m, n_pairs) float64, which it must not
keep."""


class Evaluator(Protocol):
    """A way to evaluate a model's decision functions."""

    compiled: bool
    """Whether compiled code is at hand."""

    def each_block(self, X: Array, n_jobs: int | None, consume: Consumer) -> None:
        """Call `consume` for blocks of rows of X (n, n_features) until all are done.

        It may be called in several threads.
        """


class Sizes(NamedTuple):
    """What of a model bounds its decision values; see `Kernel.decides_within`."""

    vector_length: float
    weight: float


def sizes(model: SVMModel) -> Sizes:
    """The longest support vector's length, and what a decision's coefficients add up to at most.

    The coefficients' absolute values are added.
    """
    vectors = model.support_vectors
    length = 0.0 if model.kernel.precomputed or not vectors.size else math.sqrt(largest_norm(vectors))
    of_classes = [float(np.abs(model.dual_coef[:, own]).sum(axis=1).max(initial=0)) for own in model.class_slices()]
    return Sizes(length, sum(sorted(of_classes)[-2:]))


def in_range(model: SVMModel, X: Array) -> tuple[Array, np.dtype]:
    """X (n, n_features) as it can be evaluated, and the coarsest type with exponents for that.

    Samples too far away for an RBF kernel in float64 are drawn in, to where its values are zero
    all the same.

    Raises
    ------
    RangeError
        Decision values, or what they are made of, may exceed float64; or there are NaN or infinity
        among the samples.
    """
    # Kernel values that are computed when they are looked at: see `require_finite`.
    if not hasattr(X, "size"):
        return X, np.dtype(np.float64)
    kernel, entry = model.kernel, largest_entry(X)
    length = entry if kernel.precomputed else entry * math.sqrt(X.shape[1])
    for dtype in (np.float32, np.float64):
        if kernel.decides_within(length, *model.sizes, dtype):
            return X, np.dtype(dtype)
    if math.isfinite(entry):  # that was a bound
        X = X.astype(np.float64, copy=False)
        entries, lengths = row_lengths(X[:, model.support_indices] if kernel.precomputed else X)
        xp = array_module(lengths)
        with np.errstate(over="ignore"):
            lengths_of_all = entries if kernel.precomputed else entries * lengths
        if kernel.decides_within(float(lengths_of_all.max()), *model.sizes, np.float64):
            return X, np.dtype(np.float64)
        if kernel.name == "rbf" and kernel.gamma > LEAST_GAMMA and kernel.decides_within(0.0, *model.sizes, np.float64):
            factors = xp.where(lengths_of_all > FAR_AWAY, FAR_AWAY / xp.maximum(lengths, 1) / xp.maximum(entries, 1), 1)
            return rows_times(X, factors), np.dtype(np.float64)
    if not kernel.decides_within(0.0, *model.sizes, np.float64):
        raise RangeError(
            f"The model's coefficients add up to {model.sizes.weight:.3g}: decision values with them are not finite in"
            " float64; train it again, on scaled features or with a smaller C"
        )
    raise RangeError(
        f"X holds values up to {entry:.3g}: kernel values with them exceed the largest number of float64 (1e308);"
        " scale the features as in training"
    )


def require_finite(decisions: np.ndarray) -> None:
    """Raise RangeError where one of the decision values (m, n_pairs) is NaN or infinite.

    It would count as a vote.
    """
    if not np.isfinite(decisions).all():
        raise RangeError("The kernel function gave values with which decision values are NaN or infinite; scale them")


def evaluator_for(model: SVMModel, X: Array, dtype: Any = None, coarsest: Any = np.float32) -> Evaluator:
    """What evaluates `model` on X (n, n_features) soonest.

    With a `dtype` it is what keeps to the kernel's definition. Kernel values are kept in
    `coarsest` at least, as `in_range` finds it. Which evaluator it is may follow from what has
    been compiled on this machine, but never from the number of threads.
    """
    xp = array_module(X)
    asked = np.dtype(dtype or working_dtype(X.dtype))
    if dtype is None and _has_fewer_weights(model):
        return _kept(model, xp, np.dtype(np.float64), PrimalEvaluator)
    few = xp is np and X.shape[0] < FEW_ROWS and model.support_vectors.dtype == np.float64
    if asked == np.float32 and ((few and dtype is None) or coarsest == np.float64 or not model.float32_suffices):
        asked = np.dtype(np.float64)
    if dtype is None and xp is np and _compiled_code_pays(model, X, asked):
        return CompiledEvaluator(model, asked)
    return _kept(model, xp, asked, ArrayEvaluator)


def _has_fewer_weights(model: SVMModel) -> bool:
    """Whether a linear kernel's decisions are soonest had from weights of the features."""
    n_pairs = len(model.intercept)
    few = not is_sparse(model.support_vectors) or n_pairs * model.n_features <= MOST_WEIGHTS
    return model.kernel.name == "linear" and n_pairs <= model.n_support_vectors and few


def _kept(model: SVMModel, xp: Any, dtype: np.dtype, kind: Callable[..., Evaluator]) -> Evaluator:
    """The model's evaluator, made once for a device: what it took there stays for later calls."""
    key = (xp.cuda.runtime.getDevice() if xp is not np else None, dtype, kind)
    if key not in model._evaluators:
        model._evaluators[key] = kind(model, xp, dtype)
    return model._evaluators[key]


def _work(model: SVMModel, n_rows: int) -> float:
    """Operations of an evaluation of `n_rows` rows.

    Each kernel value takes products, about fifty for an exponential, and a coefficient for each
    class.
    """
    vectors = model.unpacked_vectors
    length = vectors.nnz / max(1, vectors.shape[0]) if is_sparse(vectors) else model.n_features
    return float(n_rows) * model.n_support_vectors * (length + 50 + model.n_classes)


def _compiled_code_pays(model: SVMModel, X: np.ndarray, dtype: np.dtype) -> bool:
    work = 0.0 if model.kernel.precomputed else _work(model, X.shape[0])
    if work < COMPILED_WORK or X.shape[0] < COMPILED_ROWS or not model.n_features:
        return False
    try:
        from gpusvm.solver.prediction import is_ready, prepare
    except ImportError:  # no Numba, or one that must not compile
        return False
    kind = dtype, is_sparse(model.unpacked_vectors)
    if work >= COMPILATION_WORK and not is_ready(*kind):
        prepare(*kind)
    return is_ready(*kind)


def compile_for_models_of(X: Array, kernel: Kernel) -> None:
    """Compile what will evaluate models trained on X (n, n_features), unless it is compiled.

    Predictions then need not wait, nor do without. Models of sparse samples have arrays of support
    vectors where these are small.
    """
    # These use none, but for linear models with more pairs than support vectors: see above.
    if kernel.precomputed or (kernel.name == "linear" and not is_sparse(X)):
        return
    from gpusvm.solver.prediction import is_ready, prepare

    for sparse in (False, True) if is_sparse(X) else (False,):
        if not is_ready(dtype := working_dtype(X.dtype), sparse):
            prepare(dtype, sparse)


def float32_suffices(model: SVMModel) -> bool:
    """Whether decision values computed in float32 are within `DECISION_ERROR`.

    Each kernel value's error meets a coefficient, as in training; where a bound is too pessimistic
    to tell, the decision values of some support vectors are computed both ways.
    """
    kernel = model.kernel
    if kernel.precomputed or not model.n_support_vectors:
        return True
    vectors = model.support_vectors if model.offset is None else model.support_vectors - model.offset
    largest = largest_norm(vectors)
    if not kernel.fits_float32(largest):
        return False
    size = float(np.linalg.norm(model.dual_coef, axis=1).max())
    if MOST_SPREAD * kernel.value_error(largest, np.float32, most_entries(vectors)) * size <= DECISION_ERROR:
        return True
    tried = np.unique(np.linspace(0, model.n_support_vectors - 1, _TRIED).astype(np.int64))
    rows, found = model.support_vectors[tried], []
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is off
        for dtype in (np.float32, np.float64):
            decisions = np.empty((len(tried), len(model.intercept)))
            ArrayEvaluator(model, np, np.dtype(dtype)).each_block(rows.astype(dtype), 1, decisions.__setitem__)
            found.append(decisions)
        off = np.abs(found[0] - found[1]).max()
    return bool(off <= DECISION_ERROR / 2)


def primal_weights(model: SVMModel) -> np.ndarray:
    """A linear kernel's weights of the features for each pair, (n_pairs, n_features) float64."""
    weights = np.zeros((len(model.intercept), model.n_features))
    for c, own in enumerate(model.class_slices()):
        add_class(model.dual_coef[:, own] @ model.support_vectors[own].astype(np.float64), c, weights.T)
    return weights


def add_class(sums: Array, c: int, into: Array) -> None:
    """Add what the support vectors of class `c` give to its pairs, to the columns of those.

    Parameters
    ----------
    sums : (n_classes - 1, n) array
        For c's k-th other class in row k.
    c : int
    into : (n, n_pairs) array
    """
    n_others = len(sums)
    n_classes = n_others + 1
    if c:
        i = np.arange(c)
        before = i * n_classes - i * (i + 1) // 2 - i - 1 + c  # the places of the pairs (i, c)
        into[:, before] += sums[:c].T
    first = c * n_classes - c * (c + 1) // 2
    into[:, first : first + n_others - c] += sums[c:].T


class PrimalEvaluator:
    """A linear kernel's decisions: one product with the weights of the features, in float64."""

    compiled = False

    def __init__(self, model: SVMModel, xp: Any, dtype: np.dtype) -> None:
        self.weights, self.intercept = xp.asarray(model.primal_weights.T), xp.asarray(model.intercept)
        self.budget = _budget(xp)

    def each_block(self, X: Array, n_jobs: int | None, consume: Consumer) -> None:
        """As `Evaluator` says."""
        width = 0 if is_sparse(X) else X.shape[1]
        step = _rows_within(self.budget, 8 * (width + 3 * len(self.intercept)))
        for start in range(0, X.shape[0], step):
            rows = slice(start, min(start + step, X.shape[0]))
            decisions = X[rows].astype(np.float64, copy=False) @ self.weights
            decisions += self.intercept
            consume(rows, decisions)


class CompiledEvaluator:
    """The solver's compiled code, on as many threads as asked for."""

    compiled = True

    def __init__(self, model: SVMModel, dtype: np.dtype) -> None:
        from gpusvm.solver.prediction import DecisionBlocks

        # It knows pairs alone: a single function is that of a pair whose second class is empty.
        n_support = model.n_support if model.problem.classifies else np.append(model.n_support, 0)
        self.blocks = DecisionBlocks(
            model.unpacked_vectors, n_support, model.dual_coef, model.intercept, model.kernel, dtype,
            model.offset,
        )  # fmt: skip

    def each_block(self, X: np.ndarray, n_jobs: int | None, consume: Consumer) -> None:
        """As `Evaluator` says."""
        self.blocks.each_block(X, effective_jobs(n_jobs), consume)


class ArrayEvaluator:
    """NumPy or CuPy: a kernel block, and its products with coefficients.

    On a device the support vectors are taken there once. On the host they are read where they are,
    or converted some at a time.
    """

    compiled = False

    def __init__(self, model: SVMModel, xp: Any, dtype: np.dtype) -> None:
        self.model, self.xp, self.dtype, self.kernel = model, xp, dtype, model.kernel
        self.on_host = xp is np
        self.slices = list(model.class_slices())
        self.intercept = xp.asarray(model.intercept)
        self.budget = _budget(xp)
        self.offset = self.norms = None
        if self.kernel.precomputed:
            self.columns = xp.asarray(model.support_indices)
        else:
            vectors = self.given = model.unpacked_vectors
            offset = model.offset
            self.offset = None if offset is None else xp.asarray(offset)
            self.converted = offset is not None or vectors.dtype != dtype
            if not self.on_host:
                self.vectors = xp.asarray(self._prepared(vectors, np, offset))
            if self.kernel.uses_norms:
                self.norms = xp.concatenate(
                    [squared_norms(self._vectors(part)) for part in self._parts()] or [xp.zeros(0, dtype=dtype)]
                )
        if not self.on_host:
            # On a device, products with float32 values are float32 too.
            self.coef = xp.asarray(model.dual_coef.astype(dtype))
            self.matrix = xp.asarray(self._matrix()) if 2 < model.n_classes <= FEW_CLASSES else None

    def _prepared(self, rows: Array, xp: Any, offset: Array | None) -> Array:
        """Rows moved to the origin, in float64 before digits are lost, and converted."""
        if is_sparse(rows) and not is_sparse(self.given):
            rows = rows.toarray()
        if is_sparse(rows):
            return rows.astype(self.dtype, copy=False)  # sparse support vectors have no offset
        return xp.ascontiguousarray(rows if offset is None else rows - offset, dtype=self.dtype)

    def _parts(self) -> Iterator[slice]:
        """The support vectors that are taken at once."""
        n = self.model.n_support_vectors
        width = max(1, n)
        if self.on_host:
            # An eighth of the budget for those that are converted, and for 16 rows of kernel
            # values at least.
            width = min(width, max(1, int(self.budget / 8 / (8 * 16))))
            if not self.kernel.precomputed and self.converted and not is_sparse(self.given):
                width = min(width, max(16, int(self.budget / 8 / (8 * max(1, self.model.n_features)))))
        for start in range(0, n, width):
            yield slice(start, min(start + width, n))

    def _vectors(self, part: slice) -> Array:
        if self.on_host:
            return self._prepared(self.given[part], np, self.offset)
        return self.vectors[part]

    def _matrix(self) -> np.ndarray:
        """The coefficients (n_sv, n_pairs) of all support vectors in all pairs: mostly zeros."""
        matrix = np.zeros((self.model.n_support_vectors, len(self.model.intercept)), dtype=self.dtype)
        for c, own in enumerate(self.slices):
            add_class(self.model.dual_coef[:, own].astype(self.dtype), c, matrix[own])
        return matrix

    def each_block(self, X: Array, n_jobs: int | None, consume: Consumer) -> None:
        """As `Evaluator` says."""
        parts = list(self._parts())
        widest = max((part.stop - part.start for part in parts), default=1)
        # Kernel values, their float64 copy and what they are made of; a row; decision values and
        # their votes. A sparse row takes less, but inner products of sparse rows are sparse at
        # first: an index beside each.
        sparse = not self.kernel.precomputed and is_sparse(X) and is_sparse(self.given)
        values, row = (5 * widest, 1) if sparse else (3 * widest, 2 * X.shape[1])
        step = _rows_within(self.budget / 2, 8 * max(values, row, 3 * len(self.intercept)))
        if not self.on_host:
            # There a kernel block is made in place, in its own precision: the budget is for all
            # that is there at once.
            held = widest + 2 * X.shape[1] + len(self.intercept)
            step = _rows_within(self.budget, self.dtype.itemsize * held + 8 * 2 * len(self.intercept))
        for start in range(0, X.shape[0], step):
            rows = slice(start, min(start + step, X.shape[0]))
            consume(rows, self._decide(X[rows], parts))

    def _decide(self, X: Array, parts: list[slice]) -> Array:
        """Decision values (m, n_pairs) of a block of rows."""
        decisions = self.xp.empty((X.shape[0], len(self.intercept)), dtype=np.float64)
        decisions[:] = self.intercept
        rows = None if self.kernel.precomputed else self._prepared(X, self.xp, self.offset)
        for part in parts:
            if rows is None:
                block = X[:, self.columns[part]].astype(self.dtype, copy=False)
            else:
                norms = None if self.norms is None else self.norms[part]
                block = self.kernel(rows, self._vectors(part), Y_norms=norms)
            if not self.on_host and self.matrix is not None:
                decisions += block @ self.matrix[part]
            else:
                self._add_classes(block, part, decisions)
        return decisions

    def _add_classes(self, block: Array, part: slice, decisions: Array) -> None:
        """Add a part's kernel values (m, n) times its coefficients, class by class."""
        for c, own in enumerate(self.slices):
            start, stop = max(own.start, part.start), min(own.stop, part.stop)
            if start < stop:
                values = block[:, start - part.start : stop - part.start]
                if self.on_host:
                    sums = self.model.dual_coef[:, start:stop] @ values.T.astype(np.float64, copy=False)
                else:
                    sums = self.coef[:, start:stop] @ values.T
                add_class(sums, c, decisions)


def _budget(xp: Any) -> float:
    """Bytes for one call's blocks in this array module."""
    if xp is np:
        return BUDGET
    free, _ = xp.cuda.runtime.memGetInfo()
    return min(DEVICE_BUDGET, free / 4)


def _rows_within(budget: float, row_bytes: int) -> int:
    return max(1, int(budget / row_bytes))

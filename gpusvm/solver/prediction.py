"""Decision values of many samples on all CPU cores, by the compiled kernel rows that training uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled, is_compiled
from gpusvm.solver.kernel_rows import CHUNK_COLUMNS, write_kernel
from gpusvm.solver.operands import BlasOperand, Samples, make_operand
from gpusvm.solver.panels import PANEL_WIDTH

ROWS_AT_ONCE = 512
"""Samples whose kernel values are computed together: enough to use each part of an operand that is in cache."""


def is_ready() -> bool:
    """Whether `each_part` runs without being compiled first, which takes some seconds."""
    return is_compiled(_combine)


def prepare() -> None:
    """Compile what training does not, so that predictions find everything ready."""
    _combine(np.zeros((1, 2), dtype=np.float32), 0, np.zeros((1, 2)), np.zeros((1, 1)))


def each_part(
    X: np.ndarray,
    support_vectors: np.ndarray,
    slices: Sequence[slice],
    dual_coef: np.ndarray,
    kernel: Kernel,
    n_threads: int,
    finish: Callable[[slice, list[np.ndarray]], None],
) -> bool:
    """Compute what the support vectors of each class add to the decision values of its pairs, part by part.

    Parameters
    ----------
    X : (n, n_features) float32 array, C order
    support_vectors : (n_sv, n_features) float32 array, C order
        Grouped by class.
    slices : n_classes slices
        Each class's support vectors.
    dual_coef : (n_classes - 1, n_sv) float64 array
        In LIBSVM's layout.
    kernel : Kernel
        Any but a precomputed one.
    n_threads : int
    finish : callable
        Called in those threads with some rows of X, as a slice, and for each class an array
        (rows, n_classes - 1) float64: K(rows, support vectors of the class) times their coefficients.

    Returns
    -------
    bool
        False, and nothing done, where the support vectors are not sparse: one large BLAS product is
        faster there than anything below; or where distances need float64.
    """
    vectors, samples = Samples.of(support_vectors, kernel), Samples.of(X, kernel)
    if (vectors.pixels is None) != (samples.pixels is None) or vectors.scale != samples.scale:
        vectors, samples = Samples(support_vectors), Samples(X)
        if kernel.product_dtype(vectors.norms.max(initial=0.0)) != np.float32:
            return False
    operand = make_operand(vectors, np.arange(len(support_vectors)))
    if isinstance(operand, BlasOperand):
        return False
    # Contiguous, without which the sums below are no vector code.
    coefs = [np.ascontiguousarray(dual_coef[:, own]) for own in slices]

    def one_part(start: int) -> None:
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(X)))
        products, places = operand.products(samples, rows), np.arange(len(rows))
        sums = [np.empty((len(rows), len(coef))) for coef in coefs]
        for own, coef, into in zip(slices, coefs, sums, strict=True):
            first = own.start - own.start % PANEL_WIDTH
            block = np.empty((len(rows), own.stop - first), dtype=np.float32)
            for begin in range(first, own.stop, CHUNK_COLUMNS):
                end = min(begin + CHUNK_COLUMNS, own.stop)
                norms = products.norms, operand.norms[begin:end]
                inner = products.columns(begin, end)
                write_kernel(kernel, inner, operand.unit, *norms, block, places, begin - first)
            _combine(block, own.start - first, coef, into)
        finish(slice(start, start + len(rows)), sums)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(one_part, range(0, len(X), ROWS_AT_ONCE)))
    return True


@compiled(fastmath={"contract", "nsz", "reassoc"})
def _combine(block: np.ndarray, first: int, coef: np.ndarray, into: np.ndarray) -> None:
    """into (m, k) = block (m, first + n) float32, from column `first`, times coef (k, n) transposed, summed in float64.

    Written out because BLAS, called by several threads at once, would start threads of its own in each.
    """
    for r in range(block.shape[0]):
        row = block[r, first:]
        for j in range(coef.shape[0]):
            weights, total = coef[j], 0.0
            for k in range(row.shape[0]):
                total += np.float64(row[k]) * weights[k]
            into[r, j] = total

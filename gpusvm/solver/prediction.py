"""Decision values of many samples on all CPU cores, by the compiled kernel rows that training uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.solver.compilation import compiled, is_compiled
from gpusvm.solver.kernel_rows import EachChunk, KernelRows
from gpusvm.solver.operands import BlasOperand, Samples, make_operand

ROWS_AT_ONCE = 512
"""Samples whose kernel values are computed together: enough to use each part of an operand that is in cache."""


def is_ready() -> bool:
    """Whether `each_part` runs without being compiled first, which takes some seconds."""
    return is_compiled(_combine)


def prepare() -> None:
    """Compile what training does not, so that predictions find everything ready."""
    block, coef, into = np.zeros((1, 2), dtype=np.float32), np.zeros((1, 4)), np.zeros((2, 1))
    _combine(block, coef[:, :2], into[:1])


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
        faster there than anything below.
    """
    vectors, samples = Samples.of(support_vectors, kernel), Samples.of(X, kernel)
    if (vectors.pixels is None) != (samples.pixels is None) or vectors.scale != samples.scale:
        vectors, samples = Samples(support_vectors), Samples(X)
    coef = np.ascontiguousarray(dual_coef)
    with ThreadPoolExecutor(n_threads) as pool:
        operands = list(pool.map(lambda s: make_operand(vectors, np.arange(s.start, s.stop)), slices))
        if any(isinstance(operand, BlasOperand) for operand in operands):
            return False

        def one_part(start: int) -> None:
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(X)))
            places, sums = np.arange(len(rows)), []
            for operand, s in zip(operands, slices, strict=True):
                block = np.empty((len(rows), operand.n), dtype=np.float32)
                KernelRows(kernel, samples, rows, operand).compute(places, block, places, EachChunk())
                sums.append(np.empty((len(rows), len(coef))))
                _combine(block, coef[:, s], sums[-1])
            finish(slice(start, start + len(rows)), sums)

        list(pool.map(one_part, range(0, len(X), ROWS_AT_ONCE)))
    return True


@compiled(fastmath={"contract", "nsz", "reassoc"})
def _combine(block: np.ndarray, coef: np.ndarray, into: np.ndarray) -> None:
    """into (m, k) = block (m, n) float32 times coef (k, n) transposed, summed in float64.

    Written out because BLAS, called by several threads at once, would start threads of its own in each.
    """
    for r in range(block.shape[0]):
        row = block[r]
        for j in range(coef.shape[0]):
            weights, total = coef[j], 0.0
            for k in range(row.shape[0]):
                total += np.float64(row[k]) * weights[k]
            into[r, j] = total

"""Values of one kernel between samples that are cut into blocks, and how exact they are."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from gpusvm.kernels import Kernel, largest_entry
from gpusvm.problem import QP
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.kernel_values import ComputedValues, GivenValues, KernelValues, ValuesOfTwoBlocks
from gpusvm.solver.operands import Samples
from gpusvm.solver.precision import GradientError
from gpusvm.solver.sparse_samples import SparseSamples
from gpusvm.sparse import is_sparse, most_entries

_EXPONENTIAL_UNITS = 4.0
"""By how many times its unit roundoff the compiled float32 exponential is off."""


WITHIN_SHARE = 0.25
"""Of the budget, for kernel values within blocks. Those of MNIST's classes take 1.4 GB, and are
half of all that its pairs need."""


class KernelOfBlocks:
    """Kernel values between samples, and what to know of their rounding.

    Parameters
    ----------
    X : (n_samples, n_features) array, float32 or float64, C order, or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks : sequence of int64 arrays
        The rows of X in each block.
    kernel : Kernel
    within_mb : float
        Memory for values within blocks. Where it holds those of all, and there are more than two,
        so that each is in several problems, they are computed once.

    Attributes
    ----------
    fits_float32 : bool
        Whether float32 has exponents for the values.
    """

    def __init__(self, X: np.ndarray, blocks: Sequence[np.ndarray], kernel: Kernel, within_mb: float = 0.0) -> None:
        self.X, self.blocks, self.kernel = X, blocks, kernel
        if kernel.precomputed:
            self.largest_norm, self.largest_value = 0.0, largest_entry(X)
            self.fits_float32 = bool(self.largest_value < np.finfo(np.float32).max)
        else:
            self.samples = SparseSamples.of(X, kernel) if is_sparse(X) else Samples.of(X, kernel)
            self.largest_norm = float(self.samples.norms.max(initial=0.0)) / self.samples.scale**2
            self.fits_float32 = kernel.fits_float32(self.largest_norm)
        fits = sum(len(rows) ** 2 for rows in blocks) * 4 <= within_mb * 2**20
        self.keeps_within = not kernel.precomputed and self.fits_float32 and len(blocks) > 2 and fits
        self._within: dict[int, np.ndarray] = {}
        self._within_locks = [threading.Lock() for _ in blocks]
        self._exact: Samples | None = None
        self._making_exact = threading.Lock()

    def exact_samples(self) -> Samples:
        """The samples in float64, made when a problem first needs them."""
        with self._making_exact:
            if self._exact is None:
                self._exact = type(self.samples)(self.X.astype(np.float64, copy=False))
        return self._exact

    def values(self, blocks: tuple[int, ...], dtype: type) -> KernelValues:
        """Kernel values in `dtype` between the variables of a problem about `blocks`."""
        parts = [self.blocks[block] for block in blocks]
        if self.keeps_within and dtype == np.float32 and len(set(blocks)) == 2:
            return ValuesOfTwoBlocks(self.kernel, self.samples, parts, dtype, lambda k: self.within(blocks[k]))
        return self.values_of(np.concatenate(parts), dtype)

    def values_of(self, rows: np.ndarray, dtype: type) -> KernelValues:
        """Kernel values in `dtype` between the samples `rows` (n,) of X."""
        if self.kernel.precomputed:
            return GivenValues(self.X, rows, dtype)
        return ComputedValues(self.kernel, self.exact_samples() if dtype == np.float64 else self.samples, rows, dtype)

    def within(self, block: int) -> np.ndarray:
        """Kernel values (n, n) float32 within a block: computed when first needed, and kept."""
        with self._within_locks[block]:
            K = self._within.get(block)
            if K is None:
                rows = self.blocks[block]
                K = np.empty((len(rows), len(rows)), dtype=np.float32)
                values = ComputedValues(self.kernel, self.samples, rows, np.float32)
                values.extend(K, np.arange(len(rows)), 0, ParallelFor(), lambda: False)
                self._within[block] = K
            return K

    def give_up_within(self) -> None:
        """Let go of the values within blocks; whoever needs them again computes them again."""
        self._within = {}

    def gradient_error(self, problem: QP, dtype: type, tol: float) -> GradientError:
        """How to tell whether kernel values of `dtype` are fine enough for the problem."""
        rows, kernel = problem.rows(self.blocks), self.kernel

        def exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            if kernel.precomputed:
                return self.X[np.ix_(rows[left], rows[right])].astype(np.float64)
            return kernel(self.X[rows[left]].astype(np.float64), self.X[rows[right]].astype(np.float64))

        work = 1 if kernel.precomputed else max(1, self.X.size // self.X.shape[0])  # of CSR, size counts non-zeros
        return GradientError(self.value_error(dtype), exact, work, problem.p, tol)

    def value_error(self, dtype: type) -> float:
        """`Kernel.value_error` of values of `dtype`."""
        if self.kernel.precomputed:
            return float(np.finfo(dtype).eps) / 2 * self.largest_value
        if dtype == np.float32 and (self.samples.pixels is not None or self.samples.X.dtype == np.float64):
            # Products are exact, or in float64: what is left of an RBF value is the rounding of
            # its exponential.
            norm = 0.0 if self.kernel.name == "rbf" else self.largest_norm
            return _EXPONENTIAL_UNITS * self.kernel.value_error(norm, dtype)
        return self.kernel.value_error(self.largest_norm, dtype, most_entries(self.X))

"""A kernel that is a function of the caller's.

It is evaluated in blocks to train, and against support vectors to predict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpusvm.compat import num_samples, safe_indexing
from gpusvm.device import as_device_array
from gpusvm.errors import TrainingError
from gpusvm.memory import available_mb
from gpusvm.sparse import is_sparse

_BLOCK_VALUES = 2**22
"""Kernel values that one call in training is asked for, about: 32 MB, and what the function takes
beside them."""

_PROBED = 16
"""Samples whose kernel values tell whether each of them is of two samples alone."""

_SAME = 1e-5
"""Part of the largest kernel value by which values of the same pair may differ: rounding, in
float32 too."""


class CallableKernel:
    """The caller's ``function(X, Y)``, which returns the kernel values (n, m) between samples.

    It is called as scikit-learn's estimators call it. The samples may be anything with a length
    and rows that can be taken: arrays, tables, sparse matrices, lists of texts. Nothing of them
    is checked, as in scikit-learn.

    A kernel value is meant to be a function of two samples alone. Some people's functions are not:
    they expect all training samples as Y, say, or two equal arguments. Those get what scikit-learn
    gives them.

    Parameters
    ----------
    function : callable
    samples : collection of n samples
        Those trained on.
    """

    def __init__(self, function: Callable[[Any, Any], Any], samples: Any) -> None:
        self.function = function
        self.samples = samples.tocsr() if is_sparse(samples) and not hasattr(samples, "__getitem__") else samples
        self.n = int(num_samples(samples))
        self.shape: tuple[int, ...] = tuple(samples.shape) if hasattr(samples, "shape") else (self.n,)
        self.of_two_samples = True
        self._places = np.arange(self.n)

    def matrix(self) -> np.ndarray:
        """The kernel values (n, n) float64 between the training samples.

        Raises
        ------
        ValueError
            The function gives an array of another shape, or NaN or infinity.
        TrainingError
            There is no memory for so many values.
        """
        needed = 8 * self.n**2 / 2**20
        if needed > (available := available_mb()):
            raise TrainingError(
                f"the kernel values between {self.n:,} samples need {needed:,.0f} MB and {available:,.0f} MB are free: "
                "train on fewer samples, or name one of the kernels that gpusvm evaluates itself"
            )
        K = self._in_blocks()
        self.of_two_samples = K is not None and bool(np.isfinite(K).all()) and self._agrees_with(K)
        if K is None or not self.of_two_samples:
            K = self._values(self.samples, self.samples)
        if not np.isfinite(K).all():
            raise ValueError(f"the kernel function {_name(self.function)} gave NaN or infinity")
        return K

    def _in_blocks(self) -> np.ndarray | None:
        """All kernel values, some rows at a time; None where the function needs all rows."""
        step = max(1, _BLOCK_VALUES // max(1, self.n))
        if step >= self.n:
            return self._values(self.samples, self.samples)
        K = np.empty((self.n, self.n))
        try:
            for start in range(0, self.n, step):
                rows = slice(start, min(start + step, self.n))
                K[rows] = self._values(safe_indexing(self.samples, rows), self.samples)
        except Exception:  # whatever it was, the call with all rows will tell
            return None
        return K

    def _agrees_with(self, K: np.ndarray) -> bool:
        """Whether samples taken out of the others have the same values with each other."""
        every_other, between = np.arange(0, self.n, 2), np.arange(1, self.n, 2)
        columns, rows = (
            taken[np.unique(np.linspace(0, len(taken) - 1, count).astype(int))] if len(taken) else taken
            for taken, count in ((every_other, _PROBED), (between, _PROBED - 1))
        )
        if not len(rows):
            return True
        expected = K[np.ix_(rows, columns)]
        try:
            found = self._values(safe_indexing(self.samples, rows), safe_indexing(self.samples, columns))
        except Exception:  # as of a function that fills both halves of a square matrix
            return False
        return bool(np.allclose(found, expected, rtol=0, atol=_SAME * np.abs(expected).max()))

    def keep(self, support: np.ndarray) -> None:
        """Keep only the samples with the indices `support` (k,).

        All are kept where the function cannot do without the others.
        """
        if self.of_two_samples:
            self.samples = safe_indexing(self.samples, support)
            self._places = np.full(self.n, -1)
            self._places[support] = np.arange(len(support))

    def against_training(self, X: Any) -> Any:
        """The kernel values (m, n) between m samples X and those trained on.

        They are computed as they are looked at, where the function is of two samples alone.
        """
        if is_sparse(X) and not hasattr(X, "__getitem__"):
            X = X.tocsr()
        return LazyKernelMatrix(self, X) if self.of_two_samples else self._values(X, self.samples)

    def columns(self, X: Any, wanted: np.ndarray) -> np.ndarray:
        """The kernel values (m, k) float64 between X and some of the training samples.

        Those have the indices `wanted` (k,).
        """
        places = self._places[wanted]
        kept = num_samples(self.samples)
        if len(places) == kept and np.array_equal(places, np.arange(kept)):
            return self._values(X, self.samples)
        return self._values(X, safe_indexing(self.samples, places))

    def _values(self, X: Any, Y: Any) -> np.ndarray:
        found = self.function(X, Y)
        on_device = as_device_array(found)
        found = found.toarray() if is_sparse(found) else found if on_device is None else on_device.get()
        values = np.asarray(found, dtype=np.float64, order="C")
        expected = (num_samples(X), num_samples(Y))
        if values.shape != expected:
            raise ValueError(
                f"the kernel function {_name(self.function)} must give an array of shape {expected} for "
                f"{expected[0]} and {expected[1]} samples; it gave one of shape {values.shape}"
            )
        return values


class LazyKernelMatrix:
    """A matrix (m, n) of a `CallableKernel`'s values, each computed when it is asked for.

    `SVMModel` asks for ``values[rows][:, columns]``: some rows at a time, and only the columns of
    support vectors.
    """

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, kernel: CallableKernel, X: Any) -> None:
        self.kernel, self.X = kernel, X
        self.shape = (int(num_samples(X)), kernel.n)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            rows, columns = key
            return self.kernel.columns(self[rows].X, columns)
        whole = key == slice(None) or key == slice(0, self.shape[0])
        return self if whole else LazyKernelMatrix(self.kernel, safe_indexing(self.X, key))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))

"""SVMModel: a fitted one-vs-one support vector machine, the same whoever trained it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from gpusvm.device import device_of, on_device
from gpusvm.errors import DataError
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import (
    MOST_SPREAD,
    Array,
    Kernel,
    array_module,
    largest_norm,
    near_the_origin,
    rbf_offset,
    squared_norms,
    working_dtype,
)
from gpusvm.params import Problem, Stopping
from gpusvm.preprocess import apply_steps

BLOCK_BYTES = 32 * 2**20
"""Size aimed at for one block of kernel values while predicting: small enough to stay in cache."""

COMPILED_WORK = 3e10
"""Multiplications (rows times support vectors times features) from which on loading the compiled kernels pays."""

COMPILATION_WORK = 1e12
"""The same where they are yet to be compiled, which takes some seconds once on a machine."""

DECISION_ERROR = 2e-4
"""Error of decision values above which float32 input is computed in float64: a fifth of the usual tolerance."""

_TRIED = 64
"""Support vectors whose decision values tell how large that error is."""


def class_pairs(n_classes: int) -> list[tuple[int, int]]:
    """Every pair (i, j) with i < j, in LIBSVM's order: (0, 1), (0, 2), ..., (1, 2), ..."""
    return list(combinations(range(n_classes), 2))


@dataclass(frozen=True, eq=False)
class SVMModel:
    """A one-vs-one machine in LIBSVM's layout.

    With classes i < j, the decision value of their pair is

        f_ij(x) = sum over support vectors s of class i: dual_coef[j - 1, s] k(x, s)
                + sum over support vectors s of class j: dual_coef[i, s] k(x, s) + intercept[ij]

    and a positive value is a vote for class i. (scikit-learn turns the sign of a *two*-class
    machine around in its public attributes; this class does not, ``gpusvm.SVC`` does.)

    Attributes
    ----------
    problem : Problem
        What was minimised; `problem.kernel` holds the resolved gamma.
    stopping : Stopping
        How exactly.
    classes : (n_classes,) array
        The sorted labels.
    support_vectors : (n_sv, n_features) array, float32 or float64
        Grouped by class, in the precision they were trained in; (n_sv, 0) for a precomputed kernel.
    support_indices : (n_sv,) int64 array
        Each support vector's row in the training data.
    n_support : (n_classes,) int64 array
    dual_coef : (n_classes - 1, n_sv) float64 array
        y alpha, with zeros where a support vector of one pair is none in another.
    intercept : (n_classes (n_classes - 1) / 2,) float64 array
    n_features : int
        Columns expected of X; for a precomputed kernel the number of training samples.
    n_iter : (n_pairs,) int64 array
        As the backend's library counts: SMO steps in LIBSVM, outer iterations (of many steps each) in cuML.
    kkt_gap, dual_objective : (n_pairs,) float64 arrays, optional
        As the solver saw them, from a backend that tells.
    converged : (n_pairs,) bool array, optional
        Whether the solver reached `stopping.tol`; None in a model file of a version that did not keep it.
    preprocessing : tuple of transformers
        Fitted steps of `gpusvm.preprocess` that made X from images.
    image_shape : (height, width), optional
        Of the images that the steps expect.
    provenance : dict
        Backend, versions, data set, counts and seconds; plain JSON values.
    """

    problem: Problem
    stopping: Stopping
    classes: np.ndarray
    support_vectors: np.ndarray
    support_indices: np.ndarray
    n_support: np.ndarray
    dual_coef: np.ndarray
    intercept: np.ndarray
    n_features: int
    n_iter: np.ndarray
    kkt_gap: np.ndarray | None = None
    dual_objective: np.ndarray | None = None
    converged: np.ndarray | None = None
    preprocessing: tuple[Any, ...] = ()
    image_shape: tuple[int, int] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    _on_devices: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def kernel(self) -> Kernel:
        return self.problem.kernel

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Class indices of each pair, in the order of `intercept`."""
        return class_pairs(self.n_classes)

    @property
    def n_support_vectors(self) -> int:
        return len(self.support_indices)

    @property
    def fit_status(self) -> int:
        """1 if a pair stopped before it reached `stopping.tol`, else 0; as in scikit-learn."""
        return int(self.converged is not None and not self.converged.all())

    def class_slices(self) -> Iterator[slice]:
        """The columns of `dual_coef` that belong to each class."""
        ends = np.cumsum(self.n_support)
        for count, end in zip(self.n_support.tolist(), ends.tolist(), strict=True):
            yield slice(end - count, end)

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """Apply the steps the model was trained behind.

        Parameters
        ----------
        images : (n, height, width) uint8 array

        Returns
        -------
        (n, height * width) float32 array

        Raises
        ------
        DataError
            The images are not of the size the model was trained on.
        """
        return apply_steps(self.preprocessing, images, self.image_shape)

    def pair_decisions(self, X: Array, dtype: Any = None, n_jobs: int | None = None) -> Array:
        """Decision value of every class pair for every row.

        Parameters
        ----------
        X : (n, n_features) array, NumPy or CuPy
            Preprocessed samples; for a precomputed kernel, kernel values against all training samples.
        dtype : numpy dtype, optional
            Arithmetic of the kernel: by default float64 for input that float32 cannot hold, and where float32 would
            put decision values off by more than `DECISION_ERROR`; else float32.
        n_jobs : int, optional
            Threads to use, as joblib counts; None is every core, or what an enclosing context says.

        Returns
        -------
        (n, n_pairs) float64 array of X's module
            Positive where the first class of the pair wins.

        Raises
        ------
        DataError
            X has another number of columns than the training data.
        """
        xp = array_module(X)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise DataError(f"X has shape {X.shape} but the model expects {self.n_features} features a row")
        dtype = np.dtype(dtype or working_dtype(X.dtype))
        if xp is np and dtype == np.float32:
            compiled = self._compiled_decisions(X, n_jobs)
            if compiled is not None:
                return compiled
        with on_device(device_of(X)):
            return self._decide(X, self._machine(xp, dtype))

    def _decide(self, X: Array, machine: _Machine) -> Array:
        """Decision values block by block."""
        xp = machine.xp
        decisions = xp.empty((len(X), len(self.intercept)), dtype=np.float64)
        row_bytes = machine.dtype.itemsize * max(self.n_support_vectors, self.n_classes**2)
        step = max(16, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, len(X), step):
            machine.decide(X[start : start + step], decisions[start : start + step])
        return decisions

    def _machine(self, xp: Any, dtype: np.dtype) -> _Machine:
        """The arrays to predict with; what was taken to a device stays there for the next call."""
        key = (xp.cuda.runtime.getDevice(), dtype) if xp is not np else None
        machine = self._on_devices.get(key)
        if machine is None:
            machine = _Machine(self, xp, dtype)
            if dtype == np.float32 and not self.float32_suffices:
                machine = _Machine(self, xp, np.dtype(np.float64))
            if key is not None:
                self._on_devices[key] = machine
        return machine

    @cached_property
    def float32_suffices(self) -> bool:
        """Whether decision values computed in float32 are within `DECISION_ERROR`.

        Each kernel value's error meets a coefficient, as in training; where a bound is too pessimistic to tell, the
        decision values of some support vectors are computed both ways.
        """
        if self.kernel.precomputed or not self.n_support_vectors:
            return True
        vectors = near_the_origin(self.support_vectors, self.kernel)
        largest = largest_norm(vectors)
        if not self.kernel.fits_float32(largest):
            return False
        size = float(np.linalg.norm(self.dual_coef, axis=1).max())
        if MOST_SPREAD * self.kernel.value_error(largest, np.float32) * size <= DECISION_ERROR:
            return True
        tried = np.unique(np.linspace(0, self.n_support_vectors - 1, _TRIED).astype(np.int64))
        rows = self.support_vectors[tried]
        single, double = (_Machine(self, np, np.dtype(dtype)) for dtype in (np.float32, np.float64))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is off
            off = np.abs(self._decide(rows.astype(np.float32), single) - self._decide(rows, double)).max()
        return bool(off <= DECISION_ERROR / 2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_devices": {}}

    def _compiled_decisions(self, X: np.ndarray, n_jobs: int | None = None) -> np.ndarray | None:
        """The same through the solver's compiled kernels; None where NumPy serves as well or Numba is missing."""
        work = len(X) * self.n_support_vectors * self.n_features
        if self.kernel.precomputed or work < COMPILED_WORK:
            return None
        try:
            from gpusvm.solver.prediction import each_part, is_ready
        except ImportError:  # no Numba
            return None
        if work < COMPILATION_WORK and not is_ready():
            return None
        if not self.float32_suffices or (self.kernel.name == "rbf" and rbf_offset(self.support_vectors) is not None):
            return None
        rows = np.ascontiguousarray(X, dtype=np.float32)
        decisions = np.empty((len(X), len(self.intercept)))

        def finish(part: slice, sums: list[np.ndarray]) -> None:
            add_up(sums, self.intercept, decisions[part])

        n_threads = effective_jobs(n_jobs)
        slices = list(self.class_slices())
        vectors = self.support_vectors.astype(np.float32, copy=False)
        done = each_part(rows, vectors, slices, self.dual_coef, self.kernel, n_threads, finish)
        return decisions if done else None

    def predict(self, X: Array, n_jobs: int | None = None) -> Array:
        """The class label of each row of `X` (n, n_features), as scikit-learn's SVC votes.

        Of X's module, but for labels that are text: those are always NumPy's.
        Raises DataError where X has another number of columns than the training data.
        """
        return self.labels(vote(self.pair_decisions(X, n_jobs=n_jobs), self.n_classes))

    def labels(self, indices: Array) -> Array:
        """The labels of classes given by their indices (n,)."""
        xp = array_module(indices)
        if xp is np:
            return self.classes[indices]
        numbers = self.classes.dtype.kind in "iufb"
        return xp.asarray(self.classes)[indices] if numbers else self.classes[indices.get()]

    def decision_function(self, X: Array, shape: str = "ovr", n_jobs: int | None = None) -> Array:
        """Decision values, of each pair (``"ovo"``) or of each class (``"ovr"``).

        Returns
        -------
        (n, n_pairs) or (n, n_classes) float64 array
            With two classes, (n,): positive for ``classes[1]``, as in scikit-learn.
        """
        decisions = self.pair_decisions(X, n_jobs=n_jobs)
        if self.n_classes == 2:
            return -decisions[:, 0]
        return decisions if shape == "ovo" else one_vs_rest(decisions, self.n_classes)


class _Machine:
    """A model's arrays in one array module and dtype, ready to evaluate blocks of rows."""

    def __init__(self, model: SVMModel, xp: Any, dtype: np.dtype) -> None:
        self.xp, self.dtype, self.kernel = xp, dtype, model.kernel
        self.slices = list(model.class_slices())
        self.coef = xp.asarray(model.dual_coef.astype(dtype))
        self.intercept = xp.asarray(model.intercept)
        self.offset = None
        if self.kernel.precomputed:
            self.columns, self.norms = xp.asarray(model.support_indices), None
        else:
            vectors = model.support_vectors
            offset = rbf_offset(vectors) if self.kernel.name == "rbf" else None
            if offset is not None:
                self.offset, vectors = xp.asarray(offset), vectors - offset
            self.support_vectors = xp.asarray(vectors.astype(dtype, copy=False))
            self.norms = squared_norms(self.support_vectors) if self.kernel.uses_norms else None

    def decide(self, X: Array, into: Array) -> None:
        """Decision values of a block of rows, from one kernel block, into an (n, n_pairs) array."""
        if self.kernel.precomputed:
            block = X[:, self.columns].astype(self.dtype, copy=False)
        else:
            rows = X if self.offset is None else X - self.offset  # in float64: the offset is
            rows = self.xp.ascontiguousarray(rows, dtype=self.dtype)
            block = self.kernel(rows, self.support_vectors, Y_norms=self.norms)
        add_up([block[:, s] @ self.coef[:, s].T for s in self.slices], self.intercept, into)


def add_up(sums: Sequence[Array], intercept: Array, into: Array) -> None:
    """Write decision values (n, n_pairs) float64 from what each class adds to its pairs.

    ``sums[c]`` (n, n_classes - 1) holds in column k what the support vectors of class c add to the pair of c
    with its k-th other class.
    """
    for p, (i, j) in enumerate(class_pairs(len(sums))):
        into[:, p] = sums[i][:, j - 1]
        into[:, p] += sums[j][:, i]
    into += intercept


def _pair_columns(n_classes: int) -> Iterator[tuple[int, slice]]:
    """For each class i, the columns of its pairs with the classes after it."""
    start = 0
    for i in range(n_classes - 1):
        stop = start + n_classes - 1 - i
        yield i, slice(start, stop)
        start = stop


def vote(decisions: Array, n_classes: int) -> Array:
    """Index of the class with most votes, the first of equals (LIBSVM's svm_predict_values).

    Parameters
    ----------
    decisions : (n, n_pairs) array
        A value above zero is a vote for the first class of the pair, any other for the second.

    Returns
    -------
    (n,) int64 array
    """
    xp = array_module(decisions)
    votes = xp.zeros((len(decisions), n_classes), dtype=np.int64)
    for i, columns in _pair_columns(n_classes):
        first_wins = decisions[:, columns] > 0
        votes[:, i] += first_wins.sum(axis=1)
        votes[:, i + 1 :] += ~first_wins
    return votes.argmax(axis=1)


def one_vs_rest(decisions: Array, n_classes: int) -> Array:
    """Votes of each class, ordered within equal counts by the summed decision values.

    The sum s of a class's decision values is squeezed into (-1/3, 1/3) by s / (3 (|s| + 1)), so
    that it never outweighs a vote: scikit-learn's ``decision_function_shape="ovr"``.

    Parameters
    ----------
    decisions : (n, n_pairs) array

    Returns
    -------
    (n, n_classes) float64 array
    """
    xp = array_module(decisions)
    votes = xp.zeros((len(decisions), n_classes))
    sums = xp.zeros_like(votes)
    for i, columns in _pair_columns(n_classes):
        values = decisions[:, columns]
        first_wins = values >= 0
        votes[:, i] += first_wins.sum(axis=1)
        votes[:, i + 1 :] += ~first_wins
        sums[:, i] += values.sum(axis=1)
        sums[:, i + 1 :] -= values
    return votes + sums / (3 * (xp.abs(sums) + 1))


def describe_pair(classes: np.ndarray, pair: tuple[int, int]) -> str:
    """A pair as people read it: ``3 vs 8``."""
    return f"{classes[pair[0]]} vs {classes[pair[1]]}"

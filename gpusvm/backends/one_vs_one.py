"""One-vs-one training shared by the backends: samples grouped by class, pairs, and their merger.

A backend solves binary problems. This module cuts the training data into them and puts their
solutions together into one SVMModel, in LIBSVM's layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpusvm.kernels import Array, array_module
from gpusvm.model import SVCParams, SVMModel, class_pairs, describe_pair


@dataclass(frozen=True, eq=False)
class GroupedData:
    """Training data sorted by class, so that a class is a slice and a pair is two.

    Attributes
    ----------
    given : (n_given, n_features) array
        The data as given to fit.
    precomputed : bool
        Whether they are kernel values, (n_given, n_given).
    rows : (n,) int64 array
        Where each sample stands in them.
    weights : (n,) float64 array or None
        Factor on C: class weight times sample weight; None where all are one.
    classes : (n_classes,) array
    starts : (n_classes + 1,) int64 array
        Class c is ``X[starts[c]:starts[c + 1]]``.
    """

    given: Array
    precomputed: bool
    rows: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray
    starts: np.ndarray

    @cached_property
    def X(self) -> Array:
        """(n, n_features): a copy of the samples, sorted; of both axes for a precomputed kernel."""
        taken = array_module(self.given).asarray(self.rows)
        return self.given[taken][:, taken] if self.precomputed else self.given[taken]

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Class indices of each pair, in LIBSVM's order."""
        return class_pairs(len(self.classes))

    @property
    def members(self) -> list[np.ndarray]:
        """For each class, the rows of the data given, int64."""
        return [self.rows[self.class_slice(c)] for c in range(len(self.classes))]

    def upper_bounds(self, C: float) -> list[np.ndarray]:
        """For each class, the upper bound on alpha of each of its samples, float64: C times the factor on it."""
        weights = np.ones(len(self.rows)) if self.weights is None else self.weights
        return [C * weights[self.class_slice(c)] for c in range(len(self.classes))]

    def class_slice(self, c: int) -> slice:
        return slice(int(self.starts[c]), int(self.starts[c + 1]))

    def pair_size(self, pair: tuple[int, int]) -> int:
        return sum(int(self.starts[c + 1] - self.starts[c]) for c in pair)

    def pair_weights(self, pair: tuple[int, int]) -> np.ndarray | None:
        """(n_i + n_j,) factors on C, first class first; None where all are one."""
        if self.weights is None:
            return None
        return np.concatenate([self.weights[self.class_slice(c)] for c in pair])


@dataclass(frozen=True, eq=False)
class PairSolution:
    """A solved binary problem; its samples are counted from the first class's first one.

    Attributes
    ----------
    support : (k,) int64 array
        Positions of the support vectors, ascending.
    dual_coef : (k,) float64 array
        y alpha, positive for the first class.
    intercept : float
    n_iter : int
    converged : bool
    kkt_gap, dual_objective : float, optional
        As the solver saw them, where it tells.
    """

    support: np.ndarray
    dual_coef: np.ndarray
    intercept: float
    n_iter: int
    converged: bool = True
    kkt_gap: float | None = None
    dual_objective: float | None = None


def group_by_class(X: Array, y: np.ndarray, params: SVCParams, sample_weight: np.ndarray | None = None) -> GroupedData:
    """Sort the samples by class, keeping their order within one, and drop those of weight zero.

    Raises
    ------
    ValueError
        The samples of positive weight do not cover every class.
    """
    classes, codes = np.unique(y, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    weights = None
    if sample_weight is not None or params.class_weight is not None:
        weights = np.ones(len(order)) if sample_weight is None else sample_weight[order].astype(np.float64)
        if params.class_weight is not None:
            weights = weights * np.asarray(params.class_weight)[codes[order]]
        order, weights = order[weights > 0], weights[weights > 0]
    counts = np.bincount(codes[order], minlength=len(classes))
    if (counts == 0).any():
        empty = classes[counts == 0].tolist()
        raise ValueError(
            f"Invalid input - all samples of class {', '.join(map(str, empty))} have zero or negative weights."
        )
    starts = np.concatenate([[0], np.cumsum(counts)])
    return GroupedData(X, params.kernel.precomputed, order, weights, classes, starts)


def pair_block(X: Array, first: slice, second: slice, *, precomputed: bool, order: str = "C") -> Array:
    """The rows of two classes, one below the other; for a precomputed kernel their square block.

    Takes slices instead of a GroupedData, so that a worker process is sent no more than it needs.
    """
    xp = array_module(X)
    n_first = first.stop - first.start
    n = n_first + second.stop - second.start
    halves = ((slice(0, n_first), first), (slice(n_first, n), second))
    block = xp.empty((n, n if precomputed else X.shape[1]), dtype=X.dtype, order=order)
    for into, rows in halves:
        if precomputed:
            for across, columns in halves:
                block[into, across] = X[rows, columns]
        else:
            block[into] = X[rows]
    return block


def merge(
    data: GroupedData, solutions: Sequence[PairSolution], params: SVCParams, provenance: dict[str, Any]
) -> SVMModel:
    """Put the solutions of all pairs, in the order of `data.pairs`, into one model; see `assemble`."""
    n_classes, n = len(data.classes), len(data.rows)
    coef = np.zeros((n_classes - 1, n))
    for (i, j), solution in zip(data.pairs, solutions, strict=True):
        n_first = data.starts[i + 1] - data.starts[i]
        in_first = solution.support < n_first
        own = solution.support[in_first] + data.starts[i]
        other = solution.support[~in_first] - n_first + data.starts[j]
        coef[j - 1, own] = solution.dual_coef[in_first]
        coef[i, other] = solution.dual_coef[~in_first]
    return assemble(
        data,
        coef,
        intercept=np.array([s.intercept for s in solutions], dtype=np.float64),
        n_iter=np.array([s.n_iter for s in solutions]),
        converged=np.array([s.converged for s in solutions]),
        params=params,
        provenance=provenance,
        kkt_gap=_told([s.kkt_gap for s in solutions]),
        dual_objective=_told([s.dual_objective for s in solutions]),
    )


def _told(values: list[float | None]) -> np.ndarray | None:
    """The values as an array, or None where a solver does not tell them."""
    return None if any(value is None for value in values) else np.array(values, dtype=np.float64)


def assemble(
    data: GroupedData,
    coef: np.ndarray,
    *,
    intercept: np.ndarray,
    n_iter: np.ndarray,
    converged: np.ndarray,
    params: SVCParams,
    provenance: dict[str, Any],
    kkt_gap: np.ndarray | None = None,
    dual_objective: np.ndarray | None = None,
) -> SVMModel:
    """Make a model of coefficients (n_classes - 1, n) given for all of `data`, support vector or not.

    `intercept`, `n_iter` and `converged` have a value for each pair. Warns with ConvergenceWarning
    where pairs did not reach `params.tol`.
    """
    support = np.flatnonzero(coef.any(axis=0))
    owners = np.searchsorted(data.starts, support, side="right") - 1
    _warn_of_early_stops(data, converged, n_iter, params)
    return SVMModel(
        params=params,
        classes=data.classes,
        support_vectors=_take_rows(data, support),
        support_indices=data.rows[support],
        n_support=np.bincount(owners, minlength=len(data.classes)).astype(np.int64),
        dual_coef=coef[:, support],
        intercept=intercept,
        n_features=data.given.shape[1],
        n_iter=n_iter.astype(np.int64),
        kkt_gap=kkt_gap,
        dual_objective=dual_objective,
        converged=converged,
        provenance={**provenance, "n_train": len(data.given)},
    )


def _take_rows(data: GroupedData, positions: np.ndarray) -> np.ndarray:
    """(k, n_features) float32: the samples at these places of the sorted data, on the host."""
    if data.precomputed:
        return np.empty((len(positions), 0), dtype=np.float32)
    taken = data.given[array_module(data.given).asarray(data.rows[positions])]
    return np.ascontiguousarray(taken if isinstance(taken, np.ndarray) else taken.get(), dtype=np.float32)


def _warn_of_early_stops(data: GroupedData, converged: np.ndarray, n_iter: np.ndarray, params: SVCParams) -> None:
    if converged.all():
        return
    first = int(np.argmin(converged))
    limited = 0 <= params.max_iter <= n_iter[first]
    warnings.warn(
        f"{(~converged).sum()} of {len(converged)} class pairs stopped "
        + (f"at max_iter={params.max_iter} " if limited else f"after {n_iter[first]:,} iterations ")
        + f"before reaching tol={params.tol:g} (the first: {describe_pair(data.classes, data.pairs[first])}). "
        + ("Raise max_iter, or scale the features." if limited else "Scale the features, or lower C."),
        ConvergenceWarning,
        stacklevel=5,
    )

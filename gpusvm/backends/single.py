"""Training of a single decision function over all samples: regression and one class.

Shared by the backends, it is what `one_vs_one` is for classes: a backend solves one problem; here
it is stated, and its solution becomes an SVMModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpusvm.backends.one_vs_one import judged, require_finite, told, vectors_of, why_early
from gpusvm.certificate import recomputed_gap
from gpusvm.errors import warn
from gpusvm.kernels import Array, array_module
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Stopping
from gpusvm.problem import QP, Solution, from_support, single_function


@dataclass(frozen=True, eq=False)
class WeightedData:
    """Training data without the samples of no weight.

    Attributes
    ----------
    given : (n_given, n_features) array
        The data as given to fit.
    precomputed : bool
        Whether they are kernel values, (n_given, n_given).
    rows : (n,) int64 array
        Where each sample stands in them.
    y : (n,) float64 array
        Targets; zeros for one class.
    weights : (n,) float64 array or None
        None where all are one.
    """

    given: Array
    precomputed: bool
    rows: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None

    @cached_property
    def X(self) -> Array:
        """(n, n_features): the samples; both axes of them for a precomputed kernel."""
        if len(self.rows) == self.given.shape[0]:
            return self.given
        taken = array_module(self.given).asarray(self.rows)
        return self.given[taken][:, taken] if self.precomputed else self.given[taken]

    def stated(self, problem: Problem, start: SVMModel | None = None) -> QP:
        """The problem over these samples as its one block, from the coefficients of `start` on."""
        bounds = np.ones(len(self.rows)) if self.weights is None else self.weights
        begin = None
        if start is not None:
            begin = from_support(self.given.shape[0], start.support_indices, start.dual_coef[0])[self.rows]
        return single_function(problem, self.y, problem.C * bounds, begin)


def weigh(X: Array, y: np.ndarray, problem: Problem, sample_weight: np.ndarray | None) -> WeightedData:
    """Drop the samples whose weight is not positive.

    Raises
    ------
    ValueError
        No sample has a positive weight (in scikit-learn's words).
    RangeError
        Kernel values may exceed float64.
    """
    problem.kernel.require_range_of(X)
    rows, weights = np.arange(X.shape[0]), None
    if sample_weight is not None:
        rows = np.flatnonzero(sample_weight > 0)
        weights = sample_weight[rows].astype(np.float64)
    if not len(rows):
        raise ValueError("Invalid input - all samples have zero or negative weights.")
    return WeightedData(X, problem.kernel.precomputed, rows, y[rows], weights)


def checked(
    data: WeightedData, problem: Problem, stopping: Stopping, solution: Solution, *, tells_the_end: bool = True
) -> Solution:
    """A library's solution, its gap recomputed.

    Its `b` (n,) has one coefficient for each sample. See
    `gpusvm.backends.one_vs_one.checked_solution`.
    """
    gap = recomputed_gap(problem.kernel, data.X, data.stated(problem), solution.b)
    return judged(solution, gap, stopping, tells_the_end=tells_the_end)


def make_model(
    data: WeightedData, solution: Solution, problem: Problem, stopping: Stopping, provenance: dict[str, Any]
) -> SVMModel:
    """The model of a solution; a ConvergenceWarning where it did not reach `stopping.tol`."""
    if not solution.converged:
        lead, cause, cure = why_early(solution, stopping, problem.C)
        warn(f"{lead}Training {cause} tol={stopping.tol:g}. {cure}", ConvergenceWarning)
    b, intercept = solution.b, np.array([solution.bias])
    require_finite(b[None, :], intercept, problem.C)
    support = np.flatnonzero(b)
    return SVMModel(
        problem=problem,
        stopping=stopping,
        classes=np.empty(0),
        support_vectors=vectors_of(data, support),
        support_indices=data.rows[support],
        n_support=np.array([len(support)], dtype=np.int64),
        dual_coef=b[None, support],
        intercept=intercept,
        n_features=data.given.shape[1],
        n_iter=np.array([solution.n_iter], dtype=np.int64),
        kkt_gap=told([solution.kkt_gap]),
        dual_objective=told([solution.objective]),
        converged=np.array([solution.converged]),
        provenance={**provenance, "n_train": data.given.shape[0]},
    )

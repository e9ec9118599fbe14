"""One-vs-one training shared by the backends: samples grouped by class, pairs, and their merger.

A backend solves binary problems. This module cuts the training data into them and puts their
solutions together into one SVMModel, in LIBSVM's layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from gpusvm.certificate import ACCEPTED, gaps_of_all_pairs, pair_gap
from gpusvm.errors import UsageError, warn
from gpusvm.kernels import Array, array_module, largest_entry
from gpusvm.model import SVMModel, describe_pair
from gpusvm.pairs import class_pairs
from gpusvm.params import Problem, Stopping
from gpusvm.problem import Solution
from gpusvm.sparse import dense, is_sparse

if TYPE_CHECKING:
    from gpusvm.backends.single import WeightedData


MOST_CODES = 2**16
"""Classes that a uint16 counts."""


@dataclass(frozen=True, eq=False)
class GroupedData:
    """Training data sorted by class, so that a class is a slice and a pair is two.

    Attributes
    ----------
    given : (n_given, n_features) array, NumPy, CuPy or CSR
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
        """A sorted copy of the samples, (n, n_features); for a precomputed kernel on both axes."""
        taken = array_module(self.given).asarray(self.rows)
        return self.given[taken][:, taken] if self.precomputed else self.given[taken]

    @cached_property
    def trained(self) -> list[int]:
        """Indices of the classes that have samples."""
        return np.flatnonzero(np.diff(self.starts)).tolist()

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Class indices of each pair to solve, in LIBSVM's order."""
        return [(self.trained[a], self.trained[b]) for a, b in class_pairs(len(self.trained))]

    @property
    def members(self) -> list[np.ndarray]:
        """For each class of `trained`, the rows of the data given, int64."""
        return [self.rows[self.class_slice(c)] for c in self.trained]

    def upper_bounds(self, C: float) -> list[np.ndarray]:
        """The upper bounds on alpha, float64, of the samples of each class of `trained`.

        Each is C times the sample's factor.
        """
        weights = np.ones(len(self.rows)) if self.weights is None else self.weights
        return [C * weights[self.class_slice(c)] for c in self.trained]

    def class_slice(self, c: int) -> slice:
        return slice(int(self.starts[c]), int(self.starts[c + 1]))

    def pair_size(self, pair: tuple[int, int]) -> int:
        return sum(int(self.starts[c + 1] - self.starts[c]) for c in pair)

    def pair_weights(self, pair: tuple[int, int]) -> np.ndarray | None:
        """(n_i + n_j,) factors on C, first class first; None where all are one."""
        if self.weights is None:
            return None
        return np.concatenate([self.weights[self.class_slice(c)] for c in pair])


def group_by_class(X: Array, y: np.ndarray, problem: Problem, sample_weight: np.ndarray | None = None) -> GroupedData:
    """Sort the samples by class, keeping their order within one.

    Those whose weight is not positive are dropped. A class that loses all its samples is left out
    of training, as scikit-learn does it: see `merge`.

    Raises
    ------
    ValueError
        No sample has a positive weight, or only those of one class do (in scikit-learn's words).
    RangeError
        Kernel values may exceed float64.
    """
    problem.kernel.require_range_of(X)
    classes, codes = codes_of(y)
    order = np.argsort(codes, kind="stable")
    weights = None
    if sample_weight is not None or problem.class_weight is not None:
        weights = np.ones(len(order)) if sample_weight is None else sample_weight[order].astype(np.float64)
        if problem.class_weight is not None:
            weights = weights * np.asarray(problem.class_weight)[codes[order]]
        order, weights = order[weights > 0], weights[weights > 0]
    counts = np.bincount(codes[order], minlength=len(classes))
    if not len(order):
        raise ValueError("Invalid input - all samples have zero or negative weights.")
    if (counts > 0).sum() < 2:
        raise ValueError("Invalid input - all samples with positive weights belong to the same class.")
    starts = np.concatenate([[0], np.cumsum(counts)])
    return GroupedData(X, problem.kernel.precomputed, order, weights, classes, starts)


def codes_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels that there are, sorted, and for each of y (n,) its place among them.

    Places are uint16 where that suffices: numbers of 16 bits are sorted in a few passes. Labels
    that are integers close to each other need no sorting.
    """
    least, most = (int(y.min()), int(y.max())) if y.dtype.kind in "iu" and len(y) else (0, MOST_CODES)
    if most - least >= MOST_CODES:
        classes, codes = np.unique(y, return_inverse=True)
        return classes, codes.astype(np.uint16) if len(classes) <= MOST_CODES else codes
    places = (y - y.dtype.type(least) if y.dtype.kind == "u" else y.astype(np.int64) - least).astype(np.int64)
    is_there = np.zeros(most - least + 1, dtype=bool)
    is_there[places] = True
    found = np.flatnonzero(is_there)
    code = np.zeros(len(is_there), dtype=np.uint16)
    code[found] = np.arange(len(found))
    return (found.astype(y.dtype) + y.dtype.type(least)).astype(y.dtype), code[places]


def pair_block(X: Array, first: slice, second: slice, *, precomputed: bool, order: str = "C") -> Array:
    """The rows of two classes, one below the other; for a precomputed kernel their square block.

    CSR stays CSR. Takes slices instead of a GroupedData, so that a worker process is sent no more
    than it needs.
    """
    if is_sparse(X):
        return sparse.vstack([X[first], X[second]], format="csr")
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


class Layout(NamedTuple):
    """What of a model follows from its coefficients alone.

    Attributes
    ----------
    support : (k,) int64 array
        Where the support vectors stand among the sorted samples.
    coef : (n_classes - 1, k) float64 array
        Their coefficients as in LIBSVM.
    vectors : (k, n_features) array
        Themselves, on the host.
    """

    support: np.ndarray
    coef: np.ndarray
    vectors: Array


def layout_of(data: GroupedData, solutions: Sequence[Solution]) -> Layout:
    """The layout of the model with the solutions of `data.pairs`."""
    support, coef = _coefficients(data, solutions)
    return Layout(support, coef, vectors_of(data, support))


def merge(
    data: GroupedData,
    solutions: Sequence[Solution],
    problem: Problem,
    stopping: Stopping,
    provenance: dict[str, Any],
    layout: Layout | None = None,
) -> SVMModel:
    """Put the solutions of `data.pairs`, in their order, into one model.

    Where a class was left out of training, the pairs it would belong to are there too, so that a
    model's layout follows from its classes alone: their decision value is a constant, and the
    class that was trained wins. Warns with ConvergenceWarning where pairs did not reach
    `stopping.tol`. `layout` is theirs, if it is known.

    Raises
    ------
    UsageError
        A solution is not finite.
    """
    n_classes = len(data.classes)
    support, coef, vectors = layout or layout_of(data, solutions)
    solutions = _with_those_left_out(data, solutions)
    converged = np.array([s.converged for s in solutions])
    n_iter = np.array([s.n_iter for s in solutions], dtype=np.int64)
    intercept = np.array([s.bias for s in solutions], dtype=np.float64)
    require_finite(coef, intercept, problem.C)
    _warn_of_early_stops(data.classes, solutions, problem.C, stopping)
    owners = np.searchsorted(data.starts, support, side="right") - 1
    return SVMModel(
        problem=problem,
        stopping=stopping,
        classes=data.classes,
        support_vectors=vectors,
        support_indices=data.rows[support],
        n_support=np.bincount(owners, minlength=n_classes).astype(np.int64),
        dual_coef=coef,
        intercept=intercept,
        n_features=data.given.shape[1],
        n_iter=n_iter,
        kkt_gap=told([s.kkt_gap for s in solutions]),
        dual_objective=told([s.objective for s in solutions]),
        converged=converged,
        provenance={**provenance, "n_train": data.given.shape[0]},
    )


def _coefficients(data: GroupedData, solutions: Sequence[Solution]) -> tuple[np.ndarray, np.ndarray]:
    """The places of the support vectors among the sorted samples, and their coefficients.

    The places are (k,) int64; the coefficients are (n_classes - 1, k) float64, as in LIBSVM.
    """
    starts, parts = data.starts.tolist(), []
    is_support = np.zeros(len(data.rows), dtype=bool)
    for (i, j), solution in zip(data.pairs, solutions, strict=True):
        n_first = starts[i + 1] - starts[i]
        for row, c, b in ((j - 1, i, solution.b[:n_first]), (i, j, solution.b[n_first:])):
            found = np.flatnonzero(b != 0)  # of a mask they are found several times as fast
            is_support[starts[c] + found] = True
            parts.append((row, starts[c] + found, b[found]))
    support = np.flatnonzero(is_support)
    place = np.zeros(len(data.rows), dtype=np.int64)
    place[support] = np.arange(len(support))
    coef = np.zeros((len(data.classes) - 1, len(support)))
    for row, found, values in parts:
        coef[row, place[found]] = values
    return support, coef


def _with_those_left_out(data: GroupedData, solutions: Sequence[Solution]) -> Sequence[Solution]:
    """The solutions of every pair of classes, where `solutions` are those of `data.pairs`."""
    if len(data.trained) == len(data.classes):
        return solutions
    by_pair = dict(zip(data.pairs, solutions, strict=True))
    of_none = {
        there: Solution(np.empty(0), 1.0 if there else -1.0, n_iter=0, converged=True, kkt_gap=0.0, objective=0.0)
        for there in (True, False)
    }
    return [by_pair.get(pair, of_none[pair[0] in data.trained]) for pair in class_pairs(len(data.classes))]


def told(values: list[float | None]) -> np.ndarray | None:
    """The values as an array, or None where a solver does not tell them."""
    return None if any(value is None for value in values) else np.array(values, dtype=np.float64)


def checked_solution(
    problem: Problem,
    stopping: Stopping,
    X: Array,
    n_first: int,
    weights: np.ndarray | None,
    solution: Solution,
    *,
    tells_the_end: bool = True,
) -> Solution:
    """A library's solution of a pair with samples `X`, its gap recomputed.

    What the library saw of the gap was rounded. `solution.converged` is whether the library says
    that it reached the tolerance; one that does not tell is judged by the gap alone. `weights`
    (n,) are the factors on C, and `n_first` samples are of the first class.
    """
    bounds = problem.C * (np.ones(X.shape[0]) if weights is None else weights)
    gap = pair_gap(problem.kernel, X, n_first, bounds, solution.support, solution.dual_coef)
    return judged(solution, gap, stopping, tells_the_end=tells_the_end)


def judged(solution: Solution, gap: float, stopping: Stopping, *, tells_the_end: bool) -> Solution:
    """A library's solution, of which `gap` was recomputed; see `checked_solution`."""
    reached = gap <= ACCEPTED * stopping.tol
    return solution._replace(
        kkt_gap=gap,
        converged=reached and (solution.converged or not tells_the_end),
        too_coarse=solution.too_coarse or (tells_the_end and solution.converged and not reached),
    )


def from_library(
    svc: Any,
    data: GroupedData,
    positions: np.ndarray,
    problem: Problem,
    stopping: Stopping,
    provenance: dict[str, Any],
) -> SVMModel:
    """The model of a library's multi-class SVC; see `solutions_of_library`."""
    return merge(data, solutions_of_library(svc, data, positions, problem, stopping), problem, stopping, provenance)


def solutions_of_library(
    svc: Any, data: GroupedData, positions: np.ndarray, problem: Problem, stopping: Stopping
) -> list[Solution]:
    """Those of `data.pairs`, from a multi-class SVC with attributes in scikit-learn's public form.

    Parameters
    ----------
    svc : fitted estimator
        Fitted on the classes of `data` that have samples, labels in their order.
    data : GroupedData
    positions : (n_fitted,) int64 array
        The place among the sorted samples of each row that `svc` was fitted on.
    problem, stopping
        What it was asked for.
    """
    n_trained = len(data.trained)
    # In a two-class SVC the public coefficients are turned to favour the second class.
    sign = -1.0 if n_trained == 2 else 1.0
    coef = np.zeros((n_trained - 1, len(data.rows)))
    coef[:, positions[svc.support_]] = sign * dense(svc.dual_coef_)
    intercepts = sign * np.asarray(svc.intercept_, dtype=np.float64)
    n_iter = np.broadcast_to(svc.n_iter_, len(data.pairs))
    starts = np.unique(data.starts)  # without the classes that have no samples
    gaps = gaps_of_all_pairs(problem.kernel, data.X, starts, np.concatenate(data.upper_bounds(problem.C)), coef)
    solutions = []
    for p, ((i, j), (a, b)) in enumerate(zip(data.pairs, class_pairs(n_trained), strict=True)):
        first, second = data.class_slice(i), data.class_slice(j)
        signed = np.concatenate([coef[b - 1, first], coef[a, second]])
        ended = stopping.max_iter < 0 or n_iter[p] < stopping.max_iter
        found = Solution(signed, float(intercepts[p]), int(n_iter[p]), converged=bool(ended))
        solutions.append(judged(found, float(gaps[p]), stopping, tells_the_end=True))
    return solutions


def vectors_of(data: GroupedData | WeightedData, positions: np.ndarray) -> Array:
    """The samples at these places of `data.rows`, (k, n_features) on the host.

    They are in their own precision. For a precomputed kernel there is nothing of them: (k, 0).
    """
    if data.precomputed:
        return np.empty((len(positions), 0), dtype=np.float32)
    taken = data.given[array_module(data.given).asarray(data.rows[positions])]
    if is_sparse(taken):
        return taken
    return np.ascontiguousarray(taken if isinstance(taken, np.ndarray) else taken.get())


def _warn_of_early_stops(classes: np.ndarray, solutions: Sequence[Solution], C: float, stopping: Stopping) -> None:
    """Say, of all pairs of classes, how many are not what was asked for, why, and what to do."""
    early = [p for p, solution in enumerate(solutions) if not solution.converged]
    if not early:
        return
    first = solutions[early[0]]
    lead, cause, cure = why_early(first, stopping, C, several=True)
    pair = describe_pair(classes, class_pairs(len(classes))[early[0]])
    warn(
        f"{lead}{len(early)} of {len(solutions)} class pairs {cause} tol={stopping.tol:g} (the first: {pair}). {cure}",
        ConvergenceWarning,
    )


def why_early(solution: Solution, stopping: Stopping, C: float, *, several: bool = False) -> tuple[str, str, str]:
    """Why a training, or `several` problems, ended before the tolerance, and what to do.

    The first of the three is how scikit-learn begins, by which scripts filter it; or nothing. The
    cause is worded to follow "Training".
    """
    if solution.cut_off:
        cause = f"{'were' if several else 'was'} cut off by time_limit={stopping.time_limit:g} before reaching"
        return "", cause, "The model is usable; fit again with warm_start=True to go on from it, or allow more time."
    if 0 <= stopping.max_iter <= solution.n_iter:
        lead = (
            f"Solver terminated early (max_iter={stopping.max_iter}).  "
            "Consider pre-processing your data with StandardScaler or MinMaxScaler. "
        )
        return (
            lead,
            f"{'have' if several else 'has'} not reached",
            f"A larger max_iter lets {'them' if several else 'it'} go on.",
        )
    if solution.too_coarse:
        cause = f"cannot be solved in the precision of {'their' if several else 'its'} kernel values to"
        return "", cause, _cure_of(C, "Scale the features (StandardScaler, for one), lower C, or raise tol.")
    return "", f"stopped after {solution.n_iter:,} iterations before reaching", _cure_of(C)


def _cure_of(C: float, cure: str = "Scale the features, or lower C.") -> str:
    if math.isinf(C):
        return "With a hard margin (C=inf) no model fits these samples, or barely: use a finite C."
    return cure


def require_finite(coef: np.ndarray, intercept: np.ndarray, C: float) -> None:
    """Raise UsageError where coefficients or intercepts are beyond float32.

    A model file refuses them too.
    """
    if not max(largest_entry(coef), largest_entry(intercept)) <= float(np.finfo(np.float32).max):
        raise UsageError(f"The dual coefficients or intercepts are not finite. {_cure_of(C)}")

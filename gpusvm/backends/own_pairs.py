"""Decision values of samples in their own class's pairs; folds of many small classes for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from gpusvm.backends.folds import FoldedData
from gpusvm.backends.native import announce_compilation
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import near_the_origin
from gpusvm.pairs import own_pairs
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.sparse import is_sparse, unpacked_if_smaller

if TYPE_CHECKING:
    from gpusvm.solver.stack import Stack

MANY_PAIRS = 45
"""Pairs of classes from which on it pays to solve those of a fold without Python in between."""


def in_own_pairs(
    values: np.ndarray, codes: np.ndarray, dual_coef: np.ndarray, n_support: np.ndarray, intercept: np.ndarray
) -> np.ndarray:
    """Decision values (m, n_classes - 1) of samples in the pairs that their class is in.

    Coefficients of a sample's own pairs alone meet its kernel values: of 200 classes a hundredth
    of all.

    Parameters
    ----------
    values : (m, n) float64 array
        Kernel values of the samples and the support vectors.
    codes : (m,) int64 array
        The samples' classes, ascending.
    dual_coef : (n_classes - 1, n) float64 array
        As `SVMModel` has them, and the next two.
    n_support : (n_classes,) int64 array
    intercept : (n_pairs,) float64 array
    """
    n_classes = len(n_support)
    intercepts, owners = intercept[own_pairs(n_classes)], np.repeat(np.arange(n_classes), n_support)
    found, filled = np.empty((len(values), n_classes - 1)), np.flatnonzero(n_support)
    starts = np.searchsorted(owners, filled)
    for c in np.unique(codes).tolist():
        places, own = (slice(*np.searchsorted(among, [c, c + 1])) for among in (codes, owners))
        of_others = np.zeros((places.stop - places.start, n_classes))
        if len(filled):
            against = values[places] * coefficients_against(dual_coef, owners, c)
            of_others[:, filled] = np.add.reduceat(against, starts, axis=1)
        found[places] = intercepts[c] + np.delete(of_others, c, axis=1) + values[places, own] @ dual_coef[:, own].T
    return found


def coefficients_against(dual_coef: np.ndarray, owners: np.ndarray, c: int) -> np.ndarray:
    """The coefficient (n,) of each support vector in the pair of its class with `c`.

    A support vector of `c` itself has any one of its own.
    """
    return dual_coef[np.where(owners < c, c - 1, min(c, len(dual_coef) - 1)), np.arange(len(owners))]


def has_many_small_pairs(data: FoldedData, stopping: Stopping) -> bool:
    """Whether `own_decisions_of_small` trains the folds soonest: their pairs are many and tiny."""
    from gpusvm.solver.tiny import SHARED_SAMPLES
    from gpusvm.solver.working_set import SMALL

    small = data.largest_pair() <= SMALL and len(data.order) <= SHARED_SAMPLES
    return small and len(data.pairs) >= MANY_PAIRS and stopping.time_limit is None


def own_decisions_of_small(
    data: FoldedData,
    problem: Problem,
    stopping: Stopping,
    resources: Resources,
    report: Callable[[int, int], None] = lambda pair, fold: None,
) -> np.ndarray:
    """As `folds.own_decisions`, of data that `has_many_small_pairs`.

    The problems are those of `solve_tiny`. Kernel values between all samples serve all folds.
    Pairs of classes that a fold leaves out have constant values, as in a model: see
    `one_vs_one.merge`.
    """
    from gpusvm.solver.tiny import matrix_of

    announce_compilation()
    n_threads, kernel, order = effective_jobs(resources.n_jobs), problem.kernel, data.order
    if kernel.precomputed:
        K = np.ascontiguousarray(data.X[np.ix_(order, order)], dtype=np.float64)
    else:
        kernel.require_range_of(data.X)
        X = near_the_origin(unpacked_if_smaller(data.X), kernel)
        K = matrix_of(X if is_sparse(X) else np.ascontiguousarray(X), order, kernel, n_threads)
    found, codes = np.full((len(order), len(data.classes) - 1), np.nan), data.codes[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    for number, fold in enumerate(data.folds):
        weights = data.weights[number][order]
        kept, held = np.flatnonzero(weights > 0), np.sort(place[fold.test])
        counts = np.bincount(codes[kept], minlength=len(data.classes))
        coef, intercept = _solve_fold(K, kept, counts, problem.C * weights[kept], stopping, n_threads)
        found[order[held]] = in_own_pairs(K[np.ix_(held, kept)], codes[held], coef, counts, intercept)
        for pair in range(len(data.pairs)):
            report(pair, number)
    return found


def _solve_fold(
    K: np.ndarray, kept: np.ndarray, counts: np.ndarray, bounds: np.ndarray, stopping: Stopping, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train every pair of classes on some samples.

    Parameters
    ----------
    K : (n, n) float64 array
        Kernel values of all samples.
    kept : (m,) int64 array
        Those to train on, class by class.
    counts : (n_classes,) int64 array
        How many each class has.
    bounds : (m,) float64 array
        The upper bound of each one's alpha.
    stopping : Stopping
        Without a limit on time.
    n_threads : int

    Returns
    -------
    dual_coef : (n_classes - 1, m) float64 array
    intercept : (n_pairs,) float64 array
    """
    from gpusvm.solver.stack import at_zero

    first, second = np.triu_indices(len(counts), 1)
    solved = (counts[first] > 0) & (counts[second] > 0)
    i, j = first[solved], second[solved]
    sizes = counts[i] + counts[j]
    pair = np.repeat(np.arange(len(i)), sizes)
    within = np.arange(len(pair)) - (np.cumsum(sizes) - sizes)[pair]
    of_first, class_starts = counts[i][pair], np.cumsum(counts) - counts
    is_first = within < of_first
    sample = np.where(is_first, class_starts[i][pair] + within, class_starts[j][pair] + within - of_first)
    p, upper = np.where(is_first, 1.0, -1.0), np.where(is_first, bounds[sample], 0.0)
    stack = at_zero(kept[sample], sizes, p, np.where(is_first, 0.0, -bounds[sample]), upper, stopping)
    _solve_on_threads(K, stack, stopping.tol, n_threads)
    coef = np.zeros((len(counts) - 1, len(kept)))
    coef[np.where(is_first, (j - 1)[pair], i[pair]), sample] = stack.b
    intercept = np.where(counts[first] > 0, 1.0, -1.0)
    intercept[solved] = stack.outcome[:, 0]
    return coef, intercept


def _solve_on_threads(K: np.ndarray, stack: Stack, tol: float, n_threads: int) -> None:
    """Solve all of the stack, some hundredths of a second between two looks at whether to stop."""
    from gpusvm.solver.tiny import CHUNK_VALUES, solve_stack
    from gpusvm.solver.working_set import STEPS_AT_ONCE

    sizes, stop = stack.sizes(), Event()
    ends = np.flatnonzero(np.diff(np.cumsum(sizes**2) // CHUNK_VALUES)) + 1
    bounds = [0, *ends.tolist(), len(sizes)]

    def run(first: int, last: int) -> None:
        while first < last and not stop.is_set():
            first = solve_stack(K, stack, tol, first, last, STEPS_AT_ONCE)

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            list(pool.map(run, bounds[:-1], bounds[1:]))
        except BaseException:  # an interrupt
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise

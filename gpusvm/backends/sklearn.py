"""scikit-learn's SVC (LIBSVM), the class pairs solved side by side on all cores: the reference."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import joblib
import numpy as np
from sklearn import __version__ as sklearn_version
from sklearn.svm import SVC, SVR, OneClassSVM

from gpusvm.backends.base import FROM_NOTHING, Availability, Progress, Resume
from gpusvm.backends.one_vs_one import (
    GroupedData,
    checked_solution,
    group_by_class,
    merge,
    pair_block,
    solutions_of_library,
)
from gpusvm.backends.single import WeightedData, checked, make_model, weigh
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.jobs import as_they_finish, effective_jobs, n_cores
from gpusvm.kernels import near_the_origin
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel, describe_pair
from gpusvm.params import TASKS, Problem, Resources, Stopping
from gpusvm.problem import Solution, from_support
from gpusvm.process_wide import SharedContext
from gpusvm.sparse import dense

LEAST_CACHE_MB = 200.0
"""Cache for one pair if none was asked for, however little memory is free: scikit-learn's default,
and LIBSVM takes no more of it than the pair has kernel values."""


MANY_PAIRS, FEW_SAMPLES, FEWER_SAMPLES = 50, 512, 128
"""From so many pairs of classes on, of no more samples each on average, LIBSVM is given all
classes at once: to begin a pair costs more than to solve it. With fewer pairs that is so where
they have no more than `FEWER_SAMPLES`. On two cores, 200 classes of 10 samples took 10 s instead
of 51 s on a busy machine; 10 classes of 15 samples 11 ms instead of 69 ms, of 60 samples of 784
features 73 ms instead of 186 ms, bit for bit the same models."""

MOST_AT_ONCE = 20_000
"""Iterations of a pair after which it is solved by itself after all: all at once, on one core, end
with the last pair, and no interrupt is seen before. That is some milliseconds for a pair."""


class SklearnBackend:
    """LIBSVM pair by pair. Its training releases the GIL, so threads are enough for all cores.

    The pairs go through joblib: inside ``joblib.parallel_config(backend="loky")`` they run in
    processes, inside ``backend="dask"`` on a cluster.
    """

    name = "sklearn"
    runs = "scikit-learn's SVC (LIBSVM) on all CPU cores"
    tasks = frozenset(TASKS)
    resumable = True
    goes_on = False
    shares_folds = False
    takes_sparse = True

    def probe(self) -> Availability:
        detail = {"scikit-learn": sklearn_version, "cores": n_cores()}
        return Availability(True, f"always available; {n_cores()} cores", detail=detail)

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
        resume: Resume = FROM_NOTHING,
    ) -> SVMModel:
        checkpoint = resume.checkpoint
        if not problem.classifies:
            return self._fit_single(weigh(X, y, problem, sample_weight), problem, stopping, resources, progress)
        data = group_by_class(X, y, problem, sample_weight)
        if checkpoint is not None:
            checkpoint.open(data, problem, stopping, self.name)
        provenance = {"backend": self.name, "scikit-learn": sklearn_version}
        n_jobs = min(effective_jobs(resources.n_jobs), len(data.pairs))
        cache_mb = (resources.cache_size or max(LEAST_CACHE_MB * n_jobs, default_cache_mb())) / n_jobs
        # The largest first: a long pair started last would leave the other cores idle.
        largest_first = sorted(range(len(data.pairs)), key=lambda p: -data.pair_size(data.pairs[p]))
        pairs = _Pairs(data, problem, stopping, cache_mb)
        solved = {} if checkpoint is None else dict(checkpoint.solved)
        if checkpoint is None and _begins_longer_than_it_solves(data):
            solved = _solve_at_once(pairs)
            if progress is not None:
                for done, p in enumerate(solved, start=1):
                    progress(done, len(data.pairs), describe_pair(data.classes, data.pairs[p]))
        if left := [p for p in largest_first if p not in solved]:
            solved = self._solve(pairs, left, solved, n_jobs, progress, checkpoint)
        return merge(data, [solved[p] for p in range(len(data.pairs))], problem, stopping, provenance)

    def _fit_single(
        self,
        data: WeightedData,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        progress: Progress | None,
    ) -> SVMModel:
        X = near_the_origin(data.X, problem.kernel)
        cache_mb = resources.cache_size or max(LEAST_CACHE_MB, default_cache_mb())
        arguments = library_arguments(problem, stopping) | {"max_iter": stopping.iterations_allowed(X.shape[0])}
        kind = _SilentSVR if problem.task == "epsilon_svr" else _SilentOneClassSVM
        fitted = kind(cache_size=max(cache_mb, 1.0), shrinking=stopping.shrinking, **arguments)
        fitted.fit(X, data.y, sample_weight=data.weights)
        found = Solution(
            b=from_support(X.shape[0], fitted.support_, dense(fitted.dual_coef_)[0]),
            bias=float(fitted.intercept_[0]),
            n_iter=int(fitted.n_iter_),
            converged=fitted.fit_status_ == 0,
        )
        if progress is not None:
            progress(1, 1, "LIBSVM")
        found = checked(data, problem, stopping, found)
        return make_model(data, found, problem, stopping, {"backend": self.name, "scikit-learn": sklearn_version})

    def _solve(
        self,
        pairs: _Pairs,
        sequence: list[int],
        solved: dict[int, Solution],
        n_jobs: int,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> dict[int, Solution]:
        data, solutions = pairs.data, dict(solved)
        tasks = (joblib.delayed(_solve_pair)(p, *pairs.arguments(p)) for p in sequence)
        with _filters_as_they_were, closing(as_they_finish(tasks, n_jobs)) as outcomes:
            for p, solution in outcomes:
                solutions[p] = solution
                if checkpoint is not None:
                    checkpoint.add(p, solution)
                if progress is not None:
                    progress(len(solutions), len(data.pairs), describe_pair(data.classes, data.pairs[p]))
        return solutions


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The pairs to solve, and how; `_solve_pair` is sent no more of it than it needs."""

    data: GroupedData
    problem: Problem
    stopping: Stopping
    cache_mb: float

    @cached_property
    def X(self) -> np.ndarray:
        """The samples sorted by class; moved near the origin for the RBF kernel.

        LIBSVM makes the values of that kernel of norms.
        """
        return near_the_origin(self.data.X, self.problem.kernel)

    def arguments(self, p: int) -> tuple[Any, ...]:
        first, second = (self.data.class_slice(c) for c in self.data.pairs[p])
        weights = self.data.pair_weights(self.data.pairs[p])
        return self.X, first, second, weights, self.problem, self.stopping, self.cache_mb


@contextmanager
def _keep_filters() -> Iterator[None]:
    """Put back the warning filters at the end.

    scikit-learn's validation changes and restores them in each of our threads.
    """
    with warnings.catch_warnings():
        # After an interrupt joblib reports the pairs it had under way: nobody asks for those.
        warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning, "joblib")
        yield


_filters_as_they_were = SharedContext(_keep_filters)


def _begins_longer_than_it_solves(data: GroupedData) -> bool:
    """Whether pairs are so small, and so many, that LIBSVM is better given all of them at once."""
    n_pairs, in_a_pair = len(data.pairs), 2 * len(data.rows) / len(data.trained)
    return n_pairs > 1 and in_a_pair <= (FEW_SAMPLES if n_pairs >= MANY_PAIRS else FEWER_SAMPLES)


def _solve_at_once(pairs: _Pairs) -> dict[int, Solution]:
    """What one SVC for all classes finds: it solves the problems of `_solve_pair`, in turn.

    Pairs that take more than `MOST_AT_ONCE` iterations are left out.
    """
    data, problem = pairs.data, pairs.problem
    stopping = replace(pairs.stopping, max_iter=min(MOST_AT_ONCE, pairs.stopping.iterations_allowed(0)))
    arguments = library_arguments(problem, stopping)
    svc = _PairSVC(cache_size=max(pairs.cache_mb, 1.0), shrinking=stopping.shrinking, **arguments)
    labels = np.repeat(np.arange(len(data.classes)), np.diff(data.starts))
    svc.fit(pairs.X, labels, sample_weight=data.weights)
    found = solutions_of_library(svc, data, np.arange(len(data.rows)), problem, stopping)
    final = stopping.max_iter == pairs.stopping.max_iter
    return {p: solution for p, solution in enumerate(found) if final or solution.n_iter < stopping.max_iter}


def _solve_pair(
    index: int,
    X: np.ndarray,
    first: slice,
    second: slice,
    weights: np.ndarray | None,
    problem: Problem,
    stopping: Stopping,
    cache_mb: float,
) -> tuple[int, Solution]:
    """Solve one binary problem; its index comes back too, since pairs finish in any order."""
    n_first, n_second = first.stop - first.start, second.stop - second.start
    n = n_first + n_second
    arguments = library_arguments(problem, stopping) | {"max_iter": stopping.iterations_allowed(n)}
    svc = _PairSVC(cache_size=max(cache_mb, 1.0), shrinking=stopping.shrinking, **arguments)
    block = pair_block(X, first, second, precomputed=problem.kernel.precomputed)
    svc.fit(block, np.repeat([0, 1], [n_first, n_second]), sample_weight=weights)
    # In a two-class SVC the public coefficients are turned to favour the second class.
    found = Solution(
        b=from_support(n, svc.support_, -dense(svc.dual_coef_)[0]),
        bias=-float(svc.intercept_[0]),
        n_iter=int(svc.n_iter_[0]),
        converged=svc.fit_status_ == 0,
    )
    return index, checked_solution(problem, stopping, block, n_first, weights, found)


class _Silent:
    """No ConvergenceWarning of scikit-learn's.

    The model's maker says once, for all pairs, what each would say. Not by a filter: filters
    belong to the process, where another training may be about to say it.
    """

    def _warn_from_fit_status(self) -> None:
        pass


class _PairSVC(_Silent, SVC):
    pass


class _SilentSVR(_Silent, SVR):
    pass


class _SilentOneClassSVM(_Silent, OneClassSVM):
    pass


def library_arguments(problem: Problem, stopping: Stopping) -> dict[str, Any]:
    """The parameters under the names that scikit-learn, scikit-learn-intelex and cuML share."""
    own: dict[str, Any] = {"nu": problem.nu} if problem.task == "one_class" else {"C": problem.C}
    if problem.task == "epsilon_svr":
        own["epsilon"] = problem.epsilon
    kernel = problem.kernel
    return {
        **own,
        "kernel": kernel.name,
        "gamma": kernel.gamma,
        "degree": kernel.degree,
        "coef0": kernel.coef0,
        "tol": stopping.tol,
        "max_iter": stopping.max_iter,
    }


backend = SklearnBackend()

"""scikit-learn's SVC (LIBSVM), the class pairs solved side by side on all cores: the reference."""

from __future__ import annotations

import os
import warnings
from typing import Any

import joblib
import numpy as np
from sklearn import __version__ as sklearn_version
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.checkpoint import Checkpoint
from gpusvm.backends.one_vs_one import GroupedData, PairSolution, group_by_class, merge, pair_block
from gpusvm.jobs import effective_jobs
from gpusvm.memory import available_mb
from gpusvm.model import SVCParams, SVMModel, describe_pair

LEAST_CACHE_MB = 200.0
"""Cache for one pair if none was asked for, however little memory is free: scikit-learn's default, and LIBSVM
takes no more of it than the pair has kernel values."""


class SklearnBackend:
    """LIBSVM pair by pair. Its training releases the GIL, so threads are enough for all cores.

    The pairs go through joblib: inside ``joblib.parallel_config(backend="loky")`` they run in
    processes, inside ``backend="dask"`` on a cluster.
    """

    name = "sklearn"
    runs = "scikit-learn's SVC (LIBSVM) on all CPU cores"
    resumable = True

    def probe(self) -> Availability:
        detail = {"scikit-learn": sklearn_version, "cores": joblib.cpu_count()}
        return Availability(True, f"always available; {joblib.cpu_count()} cores", detail=detail)

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        params: SVCParams,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> SVMModel:
        data = group_by_class(X, y, params, sample_weight)
        if checkpoint is not None:
            checkpoint.open(data, params, self.name)
        n_jobs = min(effective_jobs(params.n_jobs), len(data.pairs))
        cache_mb = params.cache_size / n_jobs if params.cache_size else max(LEAST_CACHE_MB, available_mb() / 3 / n_jobs)
        # The largest first: a long pair started last would leave the other cores idle.
        largest_first = sorted(range(len(data.pairs)), key=lambda p: -data.pair_size(data.pairs[p]))
        solutions = self._solve(data, largest_first, params, cache_mb, n_jobs, progress, checkpoint)
        return merge(data, solutions, params, {"backend": self.name, "scikit-learn": sklearn_version})

    def _solve(
        self,
        data: GroupedData,
        sequence: list[int],
        params: SVCParams,
        cache_mb: float,
        n_jobs: int,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> list[PairSolution]:
        solutions = dict(checkpoint.solved) if checkpoint is not None else {}
        tasks = (
            joblib.delayed(_solve_pair)(
                p,
                data.X,
                data.class_slice(data.pairs[p][0]),
                data.class_slice(data.pairs[p][1]),
                data.pair_weights(data.pairs[p]),
                params,
                cache_mb,
                os.getpid(),
            )
            for p in sequence
            if p not in solutions
        )
        run = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as=_return_as())
        # Filters belong to the process, not to the thread, so they are set here around all threads.
        with warnings.catch_warnings():
            _leave_the_warning_to_merge()
            for p, solution in run(tasks):
                solutions[p] = solution
                if checkpoint is not None:
                    checkpoint.add(p, solution)
                if progress is not None:
                    progress(len(solutions), len(sequence), describe_pair(data.classes, data.pairs[p]))
        return [solutions[p] for p in range(len(sequence))]


def _return_as() -> str:
    """Pairs as they finish, for the sake of progress; multiprocessing can only return all at the end."""
    context, _ = joblib.parallel.get_active_backend(prefer="threads")
    return "generator_unordered" if context.supports_return_generator else "list"


def _solve_pair(
    index: int,
    X: np.ndarray,
    first: slice,
    second: slice,
    weights: np.ndarray | None,
    params: SVCParams,
    cache_mb: float,
    caller_pid: int,
) -> tuple[int, PairSolution]:
    """Solve one binary problem; its index comes back too, since pairs finish in any order."""
    n_first, n_second = first.stop - first.start, second.stop - second.start
    svc = SVC(cache_size=max(cache_mb, 1.0), shrinking=params.shrinking, **library_arguments(params))
    if os.getpid() != caller_pid:
        _leave_the_warning_to_merge()
    svc.fit(
        pair_block(X, first, second, precomputed=params.kernel.precomputed),
        np.repeat([0, 1], [n_first, n_second]),
        sample_weight=weights,
    )
    # In a two-class SVC the public coefficients are turned to favour the second class.
    return index, PairSolution(
        support=svc.support_.astype(np.int64),
        dual_coef=-svc.dual_coef_[0],
        intercept=-float(svc.intercept_[0]),
        n_iter=int(svc.n_iter_[0]),
        converged=svc.fit_status_ == 0,
    )


def _leave_the_warning_to_merge() -> None:
    """merge() says once, for all pairs, what LIBSVM would say for each."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    # After an interrupt joblib reports the pairs it had under way: nobody asks for those.
    warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning, "joblib")


def library_arguments(params: SVCParams) -> dict[str, Any]:
    """The parameters under the names that scikit-learn, scikit-learn-intelex and cuML share."""
    kernel = params.kernel
    return {
        "C": params.C,
        "kernel": kernel.name,
        "gamma": kernel.gamma,
        "degree": kernel.degree,
        "coef0": kernel.coef0,
        "tol": params.tol,
        "max_iter": params.max_iter,
    }


backend = SklearnBackend()

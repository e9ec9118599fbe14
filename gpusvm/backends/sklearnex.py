"""scikit-learn-intelex's SVC (oneDAL), which solves all class pairs itself on all cores."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.one_vs_one import from_library, group_by_class
from gpusvm.backends.sklearn import library_arguments
from gpusvm.device import installed
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Resources, Stopping

MOST_CACHE_MB = 2000.0
"""oneDAL takes its cache for each class pair under way: more than this has not been seen to
pay."""


class SklearnexBackend:
    """A thin adapter: one fit, and its attributes, which are in LIBSVM's layout already."""

    name = "sklearnex"
    runs = "scikit-learn-intelex's SVC (oneDAL) on all CPU cores"
    tasks = frozenset({"c_svc"})
    resumable = False
    goes_on = False
    shares_folds = False
    takes_sparse = False

    def probe(self) -> Availability:
        if not installed("sklearnex"):
            reason = "scikit-learn-intelex is not installed"
            return Availability(False, reason, 'pip install "gpusvm[intel]"')
        try:
            found = version("scikit-learn-intelex")
        except PackageNotFoundError:
            found = "unknown version"
        return Availability(True, f"scikit-learn-intelex {found}", detail={"scikit-learn-intelex": found})

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
    ) -> SVMModel:
        from sklearnex.svm import SVC

        data = group_by_class(X, y, problem, sample_weight)
        counts = np.diff(data.starts)
        codes = np.repeat(np.arange(len(counts)), counts)
        # oneDAL takes the cache for each class pair it works on.
        cache_mb = resources.cache_size or min(MOST_CACHE_MB, default_cache_mb())
        svc = SVC(cache_size=cache_mb, **library_arguments(problem, stopping))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # from_library() warns, in words shared by all
            svc.fit(data.X, codes, sample_weight=data.weights)
        if progress is not None:
            progress(len(data.pairs), len(data.pairs), "all pairs")
        return from_library(
            svc, data, np.arange(len(data.rows)), problem, stopping,
            {"backend": self.name, "scikit-learn-intelex": version("scikit-learn-intelex")},
        )  # fmt: skip


backend = SklearnexBackend()

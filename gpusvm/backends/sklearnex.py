"""scikit-learn-intelex's SVC (oneDAL), which solves all class pairs itself on all cores."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.one_vs_one import assemble, group_by_class
from gpusvm.backends.sklearn import library_arguments
from gpusvm.device import installed
from gpusvm.memory import available_mb
from gpusvm.model import SVCParams, SVMModel


class SklearnexBackend:
    """A thin adapter: one fit, and its attributes, which are in LIBSVM's layout already."""

    name = "sklearnex"
    runs = "scikit-learn-intelex's SVC (oneDAL) on all CPU cores"
    resumable = False

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
        params: SVCParams,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> SVMModel:
        from sklearnex.svm import SVC

        data = group_by_class(X, y, params, sample_weight)
        codes = np.repeat(np.arange(len(data.classes)), np.diff(data.starts))
        # oneDAL takes the cache for each class pair it works on.
        svc = SVC(cache_size=params.cache_size or min(2000.0, available_mb() / 3), **library_arguments(params))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # assemble() warns, in words shared by all
            svc.fit(data.X, codes, sample_weight=data.weights)
        if progress is not None:
            progress(len(data.pairs), len(data.pairs), "all pairs")
        # In a two-class SVC the public coefficients are turned to favour the second class.
        sign = -1.0 if len(data.classes) == 2 else 1.0
        coef = np.zeros((len(data.classes) - 1, len(data.rows)))
        coef[:, svc.support_] = sign * np.asarray(svc.dual_coef_)
        n_iter = np.broadcast_to(svc.n_iter_, len(data.pairs))
        return assemble(
            data,
            coef,
            intercept=sign * np.asarray(svc.intercept_, dtype=np.float64),
            n_iter=n_iter,
            converged=(n_iter < params.max_iter) | (params.max_iter < 0),
            params=params,
            provenance={"backend": self.name, "scikit-learn-intelex": version("scikit-learn-intelex")},
        )


backend = SklearnexBackend()

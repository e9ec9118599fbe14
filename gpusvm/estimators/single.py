"""What SVR and OneClassSVM share: one decision function over all samples."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np

from gpusvm.backends.base import Progress, Resume
from gpusvm.backends.registry import GPU_BACKENDS, choose_backend
from gpusvm.estimators.base import KernelSVM, print_progress
from gpusvm.model import SVMModel


class SingleFunctionSVM(KernelSVM):
    """A kernel SVM of a single decision function."""

    model_: SVMModel

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train on X (n, n_features), and targets y (n,) or None.

        A fit that fails leaves the estimator as it was.
        """
        self._validate_params()
        fitted = copy(self)
        fitted._fit_validated(X, y, sample_weight, print_progress if self.verbose else None)
        self.__dict__ = fitted.__dict__
        return self

    def _fit_validated(self, X: Any, y: Any, sample_weight: Any, progress: Progress | None) -> None:
        choice = choose_backend(self.backend, require_gpu=self.require_gpu, task=self._task)
        X, y = self._validated_for_fit(X, y, on_gpu=choice.backend.name in GPU_BACKENDS)
        y = np.zeros(X.shape[0]) if self._task == "one_class" else y.astype(np.float64, copy=False)
        sample_weight = self._validated_weights(sample_weight, X)
        self._refuse_what_it_lacks(choice.backend, X)
        goes_on = self.warm_start and self._was_fitted_to(X)
        resuming: dict[str, Any] = {"resume": Resume(start=self.model_)} if goes_on else {}
        self.model_ = choice.backend.fit(
            X, y, self._problem(X), self._stopping(), self._resources(X),
            sample_weight=sample_weight, progress=progress, **resuming,
        )  # fmt: skip
        self._fitted_to(X, choice)

    def _decision_values(self, X: Any) -> np.ndarray:
        """f(x) (n,) float64 of each row of X (n, n_features)."""
        X = self._validated(X)
        values: np.ndarray = self.model_.decision_function(X, n_jobs=self.n_jobs)
        return values

    @property
    def n_iter_(self) -> int:
        """Iterations, as the backend counts them."""
        return int(self._fitted("n_iter_").n_iter[0])

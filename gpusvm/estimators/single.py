"""What SVR and OneClassSVM share: one decision function over all samples."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np

from gpusvm.backends.base import Progress
from gpusvm.backends.registry import GPU_BACKENDS, choose_backend
from gpusvm.errors import UsageError
from gpusvm.estimators.base import KernelMachine, in_public, print_progress
from gpusvm.model import SVMModel
from gpusvm.params import Problem
from gpusvm.sparse import all_stored, as_csr, is_sparse, same_rows


class SingleFunctionMachine(KernelMachine):
    """A kernel machine of a single decision function. A subclass names its task, and states the problem."""

    _task: str
    model_: SVMModel

    def _problem(self, X: Any) -> Problem:
        """What is to be solved for X (n, n_features)."""
        raise NotImplementedError

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train on X (n, n_features), and targets y (n,) or None; a fit that fails leaves the estimator as it was."""
        fitted = copy(self)
        fitted._fit_validated(X, y, sample_weight, print_progress if self.verbose else None)
        self.__dict__ = fitted.__dict__
        return self

    def _fit_validated(self, X: Any, y: Any, sample_weight: Any, progress: Progress | None) -> None:
        self._validate_params()
        choice = choose_backend(self.backend, require_gpu=self.require_gpu, task=self._task)
        X, y = self._validated_for_fit(X, y, on_gpu=choice.backend.name in GPU_BACKENDS)
        y = np.zeros(X.shape[0]) if self._task == "one_class" else y.astype(np.float64, copy=False)
        sample_weight = self._validated_weights(sample_weight, X)
        self._refuse_what_it_lacks(choice.backend, X)
        resuming: dict[str, Any] = {"start": self.model_} if self.warm_start and self._is_of(X) else {}
        self.model_ = choice.backend.fit(
            X, y, self._problem(X), self._stopping(), self._resources(X),
            sample_weight=sample_weight, progress=progress, **resuming,
        )  # fmt: skip
        self.backend_, self.backend_reason_ = choice.backend.name, choice.reason
        self.fit_status_ = self.model_.fit_status
        self._fitted_to(X)

    def _is_of(self, X: Any) -> bool:
        """Whether there is a fitted model, and of these very samples."""
        model = self.__dict__.get("model_")
        if model is None or self.shape_fit_ != X.shape:
            return False
        return model.kernel.precomputed or same_rows(X[model.support_indices], model.support_vectors)

    def _decision_values(self, X: Any) -> np.ndarray:
        """f(x) (n,) float64 of each row of X (n, n_features)."""
        X = self._validated(X)
        values: np.ndarray = self.model_.decision_function(X, n_jobs=self.n_jobs)
        return values

    @classmethod
    def from_model(cls, model: SVMModel) -> Self:
        """A fitted estimator around `model`.

        Raises
        ------
        UsageError
            It is a model of another kind.
        """
        problem, stopping, kernel = model.problem, model.stopping, model.kernel
        if problem.task != cls._task:
            raise UsageError(f"the model is one of {problem.task}, which {cls.__name__} is not")
        own = {name: getattr(problem, name) for name in ("C", "epsilon", "nu") if name in cls._parameter_constraints}
        machine = cls(
            **own, kernel=kernel.name, degree=kernel.degree, gamma=kernel.gamma, coef0=kernel.coef0, tol=stopping.tol,
            shrinking=stopping.shrinking, max_iter=stopping.max_iter, time_limit=stopping.time_limit,
        )  # fmt: skip
        machine.model_ = model
        machine.backend_ = str(model.provenance.get("backend", "unknown"))
        machine.backend_reason_ = "trained before, and loaded"
        machine.fit_status_ = model.fit_status
        machine.shape_fit_ = (int(model.provenance.get("n_train", 0)), model.n_features)
        machine.n_features_in_ = model.n_features
        return machine

    @property
    def n_support_(self) -> np.ndarray:
        return self._fitted("n_support_").n_support.astype(np.int32)

    @property
    def n_iter_(self) -> int:
        return int(self._fitted("n_iter_").n_iter[0])

    @property
    def dual_coef_(self) -> Any:
        model = self._fitted("dual_coef_")
        return in_public(all_stored(model.dual_coef)) if is_sparse(model.support_vectors) else model.dual_coef

    @property
    def intercept_(self) -> np.ndarray:
        return self._fitted("intercept_").intercept

    @property
    def coef_(self) -> Any:
        if self.kernel != "linear":
            raise AttributeError("coef_ is only available when using a linear kernel")
        model = self._fitted("coef_")
        if is_sparse(model.support_vectors):
            return in_public(_read_only(as_csr(model.dual_coef) @ model.support_vectors.astype(np.float64)))
        return _read_only(model.primal_weights.copy())


def _read_only(weights: Any) -> Any:
    """As scikit-learn gives them: predictions would not follow a change."""
    values = weights.data if is_sparse(weights) else weights
    values.flags.writeable = False
    return weights

"""SVR: support vector regression as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from gpusvm.estimators.base import on_host, swapped_named
from gpusvm.estimators.single import SingleFunctionSVM
from gpusvm.params import Problem, constraints


class SVR(RegressorMixin, SingleFunctionSVM):
    """Epsilon-support vector regression on the best backend of the machine.

    Parameters are scikit-learn's, with the same names, defaults and meaning, plus the last six.
    Data keep their precision: float32 and float64 as they are, others in whichever of the two
    holds them exactly.

    Parameters
    ----------
    kernel : {'rbf', 'linear', 'poly', 'sigmoid', 'precomputed'} or callable, default='rbf'
        A callable as for `SVC`.
    degree : int, default=3
        Of the polynomial kernel.
    gamma : {'scale', 'auto'} or float, default='scale'
        Kernel coefficient; 'scale' is 1 / (n_features X.var()), 'auto' is 1 / n_features.
    coef0 : float, default=0.0
        Constant term of the polynomial and sigmoid kernels.
    tol : float, default=1e-3
        Largest KKT violation left when training stops, in the unit of the targets.
    C : float, default=1.0
        Penalty of deviations beyond epsilon; positive.
    epsilon : float, default=0.1
        Deviation from the target that costs nothing.
    shrinking : bool, default=True
        LIBSVM's shrinking heuristic, where the backend is LIBSVM.
    cache_size : float or 'auto', default='auto'
        Memory for kernel values in MB; 'auto' is a third of the free memory.
    verbose : bool, default=False
        Print a line when training is done.
    max_iter : int, default=-1
        Iterations allowed; -1 for LIBSVM's own bound, ten million.
    time_limit : float, optional
        Seconds after which training ends with what it has: a model that can be used, its gap on
        it, and a ConvergenceWarning. The backend native-cpu heeds it.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted model where it is of the same samples, as after a
        `time_limit` or a `max_iter`; only for `native-cpu` and `native-cuda`.
    backend : str, default='auto'
        'auto', 'sklearn', 'native-cpu' or 'cuml'.
    require_gpu : bool, default=False
        Raise instead of training on a CPU.
    n_jobs : int, optional
        Threads to train and predict with; None is every core, or what an enclosing
        ``joblib.parallel_config`` says.
    device : int, optional
        CUDA device that a GPU backend uses, counted among those that CUDA_VISIBLE_DEVICES leaves;
        None is the current one.

    Attributes
    ----------
    model_ : SVMModel
        The fitted model: what is saved, and what predicts.
    backend_, backend_reason_ : str
        The backend that trained, and why that one.
    support_ : (n_sv,) int32 array
        Rows of the support vectors in the training data, ascending.
    support_vectors_ : (n_sv, n_features) array, float32 or float64
    n_support_ : (1,) int32 array
    dual_coef_ : (1, n_sv) float64 array
        alpha - alpha*.
    intercept_ : (1,) float64 array
    coef_ : (1, n_features) float64 array
        Weights of the features; linear kernel only.
    n_iter_ : int
    fit_status_ : int
        0 if training reached `tol`, 1 if it stopped before; judged by a gap recomputed in float64.
    shape_fit_ : tuple of int
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str, where X has column names

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from gpusvm import SVR
    >>> X, y = load_diabetes(return_X_y=True)
    >>> svr = SVR(C=100, epsilon=5, backend="sklearn").fit(X[:300], y[:300])
    >>> round(svr.score(X[300:], y[300:]), 2)
    0.47
    """

    _task = "epsilon_svr"

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - the name and form scikit-learn reads
        **SingleFunctionSVM._parameter_constraints,
        **constraints("C", "epsilon"),
    }

    def __init__(
        self,
        *,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        degree: int = 3,
        gamma: float | str = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        C: float = 1.0,
        epsilon: float = 0.1,
        shrinking: bool = True,
        cache_size: float | str = "auto",
        verbose: bool = False,
        max_iter: int = -1,
        time_limit: float | None = None,
        warm_start: bool = False,
        backend: str = "auto",
        require_gpu: bool = False,
        n_jobs: int | None = None,
        device: int | None = None,
    ) -> None:
        self.kernel = kernel
        self.degree = degree
        self.gamma = gamma
        self.coef0 = coef0
        self.tol = tol
        self.C = C
        self.epsilon = epsilon
        self.shrinking = shrinking
        self.cache_size = cache_size
        self.verbose = verbose
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.warm_start = warm_start
        self.backend = backend
        self.require_gpu = require_gpu
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SVR:
        """Train on X (n, n_features) with targets y (n,).

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            For ``kernel="precomputed"``, (n, n) kernel values.
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
            Factor on C for each sample; samples of weight zero or less take no part.

        Returns
        -------
        SVR
            Itself.

        Raises
        ------
        ValueError
            NaN or infinity in X or y, or a parameter out of its range.
        BackendUnavailableError
            The backend asked for cannot run here.
        UsageError
            It does not train regressions.
        """
        return self._fit(X, y, sample_weight)

    def _problem(self, X: Any) -> Problem:
        return Problem(self._resolved_kernel(X), C=float(self.C), task=self._task, epsilon=float(self.epsilon))

    def predict(self, X: Any) -> np.ndarray:
        """The values for samples.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) float64 array
        """
        return self._decision_values(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R squared on samples with these targets, wherever they lie.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        weights = None if sample_weight is None else on_host(sample_weight)
        with swapped_named(X, y):
            return float(r2_score(on_host(y), on_host(self.predict(X)), sample_weight=weights))

"""OneClassSVM: novelty and outlier detection as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import OutlierMixin

from gpusvm.compat import num_samples
from gpusvm.estimators.single import SingleFunctionSVM
from gpusvm.params import Problem, constraints


class OneClassSVM(OutlierMixin, SingleFunctionSVM):
    """One-class SVM: where samples are, and which lie outside, on the machine's best backend.

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
        Largest KKT violation left when training stops. Coefficients are up to 1, and sum to nu
        times the number of samples: decision values grow with it.
    nu : float, default=0.5
        At most this share of the samples lies outside, and at least this share are support
        vectors; in (0, 1].
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
        'auto', 'sklearn' or 'native-cpu'.
    require_gpu : bool, default=False
        Raise instead of training on a CPU: no backend trains this on a GPU.
    n_jobs : int, optional
        Threads to train and predict with; None is every core, or what an enclosing
        ``joblib.parallel_config`` says.
    device : int, optional
        Of no use yet: taken for the sake of the other estimators.

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
    intercept_ : (1,) float64 array
    offset_ : (1,) float64 array
        What is taken from `score_samples` to get the decision function: ``-intercept_``.
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
    >>> from gpusvm import OneClassSVM
    >>> X = [[0.0], [0.44], [0.45], [0.46], [1.0]]
    >>> OneClassSVM(gamma="auto", backend="sklearn").fit_predict(X).tolist()
    [-1, 1, 1, 1, -1]
    """

    _task = "one_class"

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - the name and form scikit-learn reads
        **SingleFunctionSVM._parameter_constraints,
        **constraints("nu"),
    }

    def __init__(
        self,
        *,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        degree: int = 3,
        gamma: float | str = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        nu: float = 0.5,
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
        self.nu = nu
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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> OneClassSVM:
        """Train on X (n, n_features).

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            For ``kernel="precomputed"``, (n, n) kernel values.
        y : ignored
        sample_weight : array-like of shape (n,), optional
            The largest coefficient of each sample; samples of weight zero or less take no part.

        Returns
        -------
        OneClassSVM
            Itself.

        Raises
        ------
        ValueError
            NaN or infinity in X, or a parameter out of its range.
        TypeError
            X is no collection of samples: None, say.
        BackendUnavailableError
            The backend asked for cannot run here.
        UsageError
            It does not train this.
        """
        num_samples(X)  # else the message about an array of no dimensions would show what None became
        return self._fit(X, None, sample_weight)

    def _problem(self, X: Any) -> Problem:
        return Problem(self._resolved_kernel(X), task=self._task, nu=float(self.nu))

    @property
    def offset_(self) -> np.ndarray:
        """What `score_samples` adds to the decision values: minus the intercept, (1,) float64."""
        return -self._fitted("offset_").intercept

    def decision_function(self, X: Any) -> np.ndarray:
        """Signed distance of samples to the boundary: positive for inliers.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) float64 array
        """
        return self._decision_values(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """The decision values before `offset_` is taken from them.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) float64 array
        """
        return self.decision_function(X) + self.offset_[0]

    def predict(self, X: Any) -> np.ndarray:
        """Tell inliers from outliers.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) int64 array
            1 for inliers and -1 for outliers.
        """
        X = self._validated(X)
        return self.model_.predict(X, self.n_jobs)

"""SVC: support vector classification as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from gpusvm.backends.base import FROM_NOTHING, Progress, Resume
from gpusvm.backends.estimate import hint
from gpusvm.backends.held_out import Training, calibrate, default_folds, part_of
from gpusvm.backends.registry import GPU_BACKENDS, Choice, choose_backend, names_of_those
from gpusvm.compat import StrOptions
from gpusvm.errors import SlowBackendWarning, UsageError, warn
from gpusvm.estimators.base import KernelSVM, on_host, print_progress, swapped_named
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import array_module
from gpusvm.model import SVMModel
from gpusvm.params import Problem, constraints


class SVC(ClassifierMixin, KernelSVM):
    """C-support vector classification, one-vs-one, on the best backend of the machine.

    Parameters are scikit-learn's, with the same names, defaults and meaning, plus `time_limit`,
    `warm_start` and the last four. Data keep their precision: float32 and float64 as they are,
    others in whichever of the two holds them exactly.

    Parameters
    ----------
    C : float, default=1.0
        Penalty of the slack variables; positive. Infinity is a hard margin: where no model
        separates the classes, training ends by `max_iter` with a ConvergenceWarning.
    kernel : {'rbf', 'linear', 'poly', 'sigmoid', 'precomputed'} or callable, default='rbf'
        A callable is ``kernel(X, Y)``, the values (n, m) between samples of any kind: X is handed
        on as it is. It is called for blocks of rows in training, whose values are all kept, and
        for support vectors in predictions.
    degree : int, default=3
        Of the polynomial kernel.
    gamma : {'scale', 'auto'} or float, default='scale'
        Kernel coefficient; 'scale' is 1 / (n_features X.var()), 'auto' is 1 / n_features.
    coef0 : float, default=0.0
        Constant term of the polynomial and sigmoid kernels.
    shrinking : bool, default=True
        LIBSVM's shrinking heuristic, where the backend is LIBSVM.
    tol : float, default=1e-3
        Largest KKT violation left when training stops.
    cache_size : float or 'auto', default='auto'
        Memory for kernel values in MB; 'auto' is a third of the free memory.
    class_weight : dict or 'balanced', optional
        Factor on C for each class.
    verbose : bool, default=False
        Print a line for each class pair trained.
    max_iter : int, default=-1
        Iterations allowed for each class pair; -1 for LIBSVM's own bound, ten million.
    time_limit : float, optional
        Seconds after which training ends with what it has: a model that can be used, its gaps on
        it, and a ConvergenceWarning. The backend native-cpu heeds it.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted model where it is of the same samples, as after a
        `time_limit` or a `max_iter`; only for `native-cpu` and `native-cuda`.
    probability : bool, default=False
        Whether there are `predict_proba` and `predict_log_proba`. `fit` then trains again without
        each half of the samples (of up to 2,000: without each third), to see how far decision
        values can be trusted.
    random_state : int, RandomState or None, default=None
        Of those parts. None always draws the same ones: nothing else is random here.
    decision_function_shape : {'ovr', 'ovo'}, default='ovr'
        Whether `decision_function` gives a value for each class, or for each pair of classes.
    break_ties : bool, default=False
        With more than two classes and 'ovr', whether `predict` breaks equal votes by the decision
        values.
    backend : str, default='auto'
        'auto', or a name that ``gpusvm info`` lists.
    require_gpu : bool, default=False
        Raise instead of training on a CPU.
    n_jobs : int, optional
        Class pairs trained side by side on a CPU; None is every core, or what an enclosing
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
    classes_ : (n_classes,) array
    class_weight_ : (n_classes,) float64 array
    support_ : (n_sv,) int32 array
        Rows of the support vectors in the training data, grouped by class.
    support_vectors_ : (n_sv, n_features) array, float32 or float64
        CSR where X was sparse, and then `dual_coef_` and `coef_` are CSR too, as in scikit-learn.
    n_support_ : (n_classes,) int32 array
    dual_coef_ : (n_classes - 1, n_sv) float64 array
    intercept_ : (n_pairs,) float64 array
    coef_ : (n_pairs, n_features) float64 array
        Weights of the features; linear kernel only.
    n_iter_ : (n_pairs,) int32 array
    fit_status_ : int
        0 if every pair reached `tol`, 1 if one stopped before; judged by gaps recomputed in
        float64.
    shape_fit_ : tuple of int
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str, where X has column names

    Notes
    -----
    X may be sparse, of any of SciPy's formats; it is never made dense. The support vectors are
    then sparse too. A model of sparse samples predicts dense ones; as in scikit-learn, one of
    dense samples refuses sparse ones, which its `model_` takes. All backends but sklearnex train
    on sparse samples.

    X may lie on a CUDA device: a CuPy array, or anything with ``__cuda_array_interface__`` or
    DLPack (PyTorch, JAX). A GPU backend then trains on it where it is, and predictions of such an
    X come back as CuPy arrays.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from gpusvm import SVC
    >>> X, y = load_digits(return_X_y=True)
    >>> svc = SVC(C=10, backend="sklearn").fit(X[:1000], y[:1000])
    >>> round(svc.score(X[1000:], y[1000:]), 2)
    0.96
    """

    _task = "c_svc"

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - the name and form scikit-learn reads
        **KernelSVM._parameter_constraints,
        **constraints("C"),
        "probability": ["boolean", StrOptions({"deprecated"})],
        "random_state": ["random_state"],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "decision_function_shape": [StrOptions({"ovr", "ovo"})],
        "break_ties": ["boolean"],
    }

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        degree: int = 3,
        gamma: float | str = "scale",
        coef0: float = 0.0,
        shrinking: bool = True,
        tol: float = 1e-3,
        cache_size: float | str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        verbose: bool = False,
        max_iter: int = -1,
        time_limit: float | None = None,
        warm_start: bool = False,
        probability: bool | str = False,
        random_state: Any = None,
        decision_function_shape: str = "ovr",
        break_ties: bool = False,
        backend: str = "auto",
        require_gpu: bool = False,
        n_jobs: int | None = None,
        device: int | None = None,
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.degree = degree
        self.gamma = gamma
        self.coef0 = coef0
        self.shrinking = shrinking
        self.tol = tol
        self.cache_size = cache_size
        self.class_weight = class_weight
        self.verbose = verbose
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.warm_start = warm_start
        self.probability = probability
        self.random_state = random_state
        self.decision_function_shape = decision_function_shape
        self.break_ties = break_ties
        self.backend = backend
        self.require_gpu = require_gpu
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SVC:
        """Train on X (n, n_features) with labels y (n,).

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, n_features)
            For ``kernel="precomputed"``, (n, n) kernel values.
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
            Factor on C for each sample.

        Returns
        -------
        SVC
            Itself.

        Raises
        ------
        ValueError
            NaN or infinity in X, fewer than two classes, or a parameter out of its range.
        TypeError
            X is sparse and the kernel precomputed.
        BackendUnavailableError
            The backend asked for cannot run here.
        """
        self._validate_params()
        return self.fit_with_progress(X, y, sample_weight, progress=print_progress if self.verbose else None)

    def fit_with_progress(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> SVC:
        """`fit`, calling ``progress(done, total, latest)`` after each class pair.

        With a checkpoint, pairs that an earlier call with the same data and parameters left there
        are not solved again, and pairs solved now are added to it.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
        progress : callable, optional
            Called with how many class pairs are trained, of how many, and the latest.
        checkpoint : Checkpoint, optional

        Returns
        -------
        SVC
            Itself.

        Raises
        ------
        UsageError
            The checkpoint belongs to another training, or the backend keeps none.
        ModelFileError
            The checkpoint is damaged.
        """
        fitted = copy(self)
        fitted._fit(X, y, sample_weight, progress, checkpoint)
        # Only now, so that a fit that fails leaves the estimator as it was.
        self.__dict__ = fitted.__dict__
        return self

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, progress: Progress | None, checkpoint: Checkpoint | None
    ) -> None:
        self._validate_params()
        choice = choose_backend(self.backend, require_gpu=self.require_gpu, task=self._task)
        X, y = self._validated_for_fit(X, y, on_gpu=choice.backend.name in GPU_BACKENDS)
        y = self._validated_targets(y)
        sample_weight = self._validated_weights(sample_weight, X)
        self._say_what_is_faster(choice, X, y)
        self._refuse_what_it_lacks(choice.backend, X)
        if checkpoint is not None and not choice.backend.resumable:
            others = names_of_those(lambda other: other.resumable)
            raise UsageError(f"backend {choice.backend.name} keeps no checkpoint; {others} do")
        goes_on = self.warm_start and self._was_fitted_to(X) and self._has_labels(y)
        resume = Resume(checkpoint, self.__dict__["model_"] if goes_on else None)
        resuming: dict[str, Any] = {} if resume == FROM_NOTHING else {"resume": resume}
        training = Training(X, y, self._problem(X), self._stopping(), self._resources(X), sample_weight)
        n_trainings = 1 + (default_folds(len(y)) if self._has_probabilities else 0)
        try:
            self.model_ = choice.backend.fit(
                *training[:-1], sample_weight=sample_weight, progress=part_of(n_trainings, 0, progress), **resuming
            )
        finally:  # after an interrupt too
            if checkpoint is not None and checkpoint.solved:
                checkpoint.flush()
        if self._has_probabilities:
            seed = 0 if self.random_state is None else self.random_state
            calibration = calibrate(choice.backend, training, self.model_, seed=seed, progress=progress)
            self.model_ = replace(self.model_, calibration=calibration)
        self._fitted_to(X, choice)

    @property
    def _has_probabilities(self) -> bool:
        # "deprecated" is how scikit-learn says False.
        return not isinstance(self.probability, str) and bool(self.probability)

    def _has_labels(self, y: np.ndarray) -> bool:
        """Whether y (n,) has the fitted model's classes, and its support vectors' labels.

        The labels are looked at in the support vectors' places.
        """
        model = self.__dict__["model_"]
        owners = np.repeat(model.classes, model.n_support)
        return np.array_equal(model.classes, self.classes_) and np.array_equal(y[model.support_indices], owners)

    def _say_what_is_faster(self, choice: Choice, X: Any, y: np.ndarray) -> None:
        """Name the faster backend, once, where `auto` found no GPU for a long training."""
        if choice.asked_by or choice.backend.name != "sklearn":
            return
        n_per_class = np.unique(y, return_counts=True)[1].tolist()
        line = hint(n_per_class, X.shape[1], effective_jobs(self.n_jobs))
        if line:
            warn(line, SlowBackendWarning)

    def _validated_targets(self, y: Any) -> np.ndarray:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class")
        self.class_weight_ = factors_of_classes(self.class_weight, self.classes_, y)
        return y

    def _problem(self, X: Any) -> Problem:
        return Problem(
            kernel=self._resolved_kernel(X),
            C=float(self.C),
            class_weight=None if (self.class_weight_ == 1).all() else tuple(self.class_weight_.tolist()),
        )

    def decision_function(self, X: Any) -> np.ndarray:
        """Decision values of samples.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) float64 array with two classes, positive for ``classes_[1]``; else (n, n_classes)
        or, with ``decision_function_shape="ovo"``, (n, n_pairs)
        """
        check_is_fitted(self, "model_")
        X = self._validated(X)
        return self.model_.decision_function(X, self.decision_function_shape, self.n_jobs)

    def predict(self, X: Any) -> np.ndarray:
        """Labels of samples, by the votes of the class pairs.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n,) array

        Raises
        ------
        ValueError
            `break_ties` with ``decision_function_shape="ovo"``, or another number of features than
            in `fit`.
        """
        check_is_fitted(self, "model_")
        if self.break_ties and self.decision_function_shape == "ovo":
            raise ValueError("break_ties must be False when decision_function_shape is 'ovo'")
        if self.break_ties and len(self.classes_) > 2:
            return self.model_.labels(self.decision_function(X).argmax(axis=1))
        return self.model_.predict(self._validated(X), self.n_jobs)

    def _check_proba(self) -> bool:
        if not self._has_probabilities:
            raise AttributeError("predict_proba is not available when probability=False")
        return True

    @available_if(_check_proba)
    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, in the order of `classes_`.

        In every row the class that `predict` gives has the largest one.
        (But for a model that was read from LIBSVM's format: see `SVMModel.probabilities`.)

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n, n_classes) float64 array

        Raises
        ------
        NotFittedError
            It was fitted without probabilities.
        """
        check_is_fitted(self, "model_")
        if self.model_.calibration is None:
            raise NotFittedError("predict_proba is not available when fitted with probability=False")
        by_scores = self.break_ties and self.decision_function_shape == "ovr"
        return self.model_.predict_proba(self._validated(X), self.n_jobs, break_ties=by_scores)

    @available_if(_check_proba)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        (n, n_classes) float64 array
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):  # of a class that took no part
            return array_module(probabilities).log(probabilities)

    @property
    def probA_(self) -> np.ndarray:
        """Of each class pair: see `gpusvm.calibration.Calibration`.

        It is (0,) where there are no probabilities.
        """
        calibration = self._fitted("probA_").calibration
        return np.empty(0) if calibration is None else calibration.probA

    @property
    def probB_(self) -> np.ndarray:
        """As `probA_`."""
        calibration = self._fitted("probB_").calibration
        return np.empty(0) if calibration is None else calibration.probB

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy on samples with these labels, wherever they lie.

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
            return float(accuracy_score(on_host(y), on_host(self.predict(X)), sample_weight=weights))

    @classmethod
    def from_model(cls, model: SVMModel) -> SVC:
        """A fitted SVC around a model.

        Parameters
        ----------
        model : SVMModel

        Returns
        -------
        SVC

        Raises
        ------
        UsageError
            It is a regression or a one-class model.
        """
        svc = super().from_model(model)
        svc.probability = model.calibration is not None
        svc.classes_, svc.class_weight_ = model.classes, np.ones(model.n_classes)
        if model.problem.class_weight is not None:
            svc.class_weight_ = np.array(model.problem.class_weight)
            svc.class_weight = dict(zip(model.classes.tolist(), svc.class_weight_.tolist(), strict=True))
        return svc

    @property
    def n_iter_(self) -> np.ndarray:
        """Iterations of each class pair, as its backend counts them: (n_pairs,) int32."""
        return self._fitted("n_iter_").n_iter.astype(np.int32)

    @property
    def _public_sign(self) -> float:
        """scikit-learn turns a two-class model around, so that it favours ``classes_[1]``."""
        return -1.0 if len(self.classes_) == 2 else 1.0


def factors_of_classes(class_weight: Any, classes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The factors on C of the `classes`, (n_classes,) float64, for training labels y (n,).

    Raises
    ------
    ValueError
        One is negative or NaN, or scikit-learn refuses `class_weight`.
    """
    if class_weight is None:
        return np.ones(len(classes))
    factors: np.ndarray = compute_class_weight(class_weight, classes=classes, y=y)
    if (factors < 0).any():
        raise ValueError(f"class_weight must not be negative; got {class_weight}")
    if np.isnan(factors).any():
        raise ValueError(f"class_weight must be a number for each class that it names; got {class_weight}")
    return factors

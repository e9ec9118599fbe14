"""SVCSearchCV: scikit-learn's GridSearchCV over SVC, with the work of all its trainings shared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets

from gpusvm.backends.base import SharingBackend
from gpusvm.backends.folds import Cell, Column, Fold, FoldedData, fits_memory, sharing, solve_columns, solved_together
from gpusvm.backends.registry import choose_backend
from gpusvm.errors import warn
from gpusvm.estimators.svc import SVC, factors_of_classes
from gpusvm.kernels import Kernel, resolve_gamma
from gpusvm.params import KERNEL_PARAMETERS, Resources
from gpusvm.voting import one_vs_rest, vote

SHARED = frozenset({"C", "gamma", "degree", "coef0", "kernel", "class_weight", "tol"})
"""Parameters that may differ between trainings that are solved together."""

DEFAULT_C = tuple(10.0**k for k in range(-1, 5))
DEFAULT_GAMMA = tuple(10.0 ** (k / 2) for k in range(-3, 3))
"""Times 1 / (n_features X.var())."""


class SVCSearchCV(GridSearchCV):
    """Search for the parameters of `SVC` by cross-validation, all trainings solved together.

    It is scikit-learn's `GridSearchCV` over an `SVC`: the same splitters, scores, ``cv_results_``
    and refit. Kernel values are computed once for each gamma, for every C and fold; C go from
    small to large, each from the solution before; and the decision values of held-out samples come
    with the solutions. Each training is as exact as a fit by itself: its own largest KKT violation
    is within `tol`. Scores may differ where a decision value is nearly zero.

    What cannot be solved together is fitted one by one, with the same result in more time: another
    backend than native-cpu and native-cuda, ``probability=True``, ``break_ties=True``, the sigmoid
    kernel, limits on steps or time, folds that lack a class, parameters other than C, gamma,
    degree, coef0, kernel, class_weight and tol, a `scoring` function of one's own,
    ``return_train_score=True``, metadata routing, and on a CPU pairs of classes whose kernel
    values do not fit into ``cache_size``. ``solved_together_`` says which it was.

    Parameters
    ----------
    param_grid : dict of lists, or list of such dicts, optional
        As for `GridSearchCV`. By default C from 0.1 to 10,000 by powers of ten and, for kernels
        that have it, gamma from 0.03 to 10 times 1 / (n_features X.var()), two to a power of ten.
    svc : SVC, optional
        With the parameters that are not searched for; by default ``SVC(backend="native-cpu")``.
    scoring : str, callable, list, tuple or dict, optional
        By default accuracy.
    n_jobs : int, optional
        Threads, as joblib counts; None is what `svc` says, and there None is every core.
    refit : bool, str or callable, default=True
    cv : int, splitter or iterable, optional
        By default five folds, stratified.
    verbose : int, default=0
    pre_dispatch : int or str, default='2*n_jobs'
        Of trainings that are fitted one by one.
    error_score : 'raise' or float, default=nan
        Score of a training that fails.
    return_train_score : bool, default=False

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_
        As those of `GridSearchCV`. The time of a training that was solved with others is its
        share.
    n_splits_, refit_time_, multimetric_
        As those of `GridSearchCV`.
    param_grid_ : dict or list of dicts
        What was searched: `param_grid`, or the default for X.
    solved_together_ : bool

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from gpusvm import SVCSearchCV
    >>> X, y = load_digits(return_X_y=True)
    >>> search = SVCSearchCV({"C": [1, 10], "gamma": [0.0003, 0.001]}, cv=3)
    >>> search.fit(X, y).best_params_  # doctest: +SKIP
    {'C': 10, 'gamma': 0.001}
    """

    _required_parameters: Sequence[str] = ()
    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - the name and form scikit-learn reads
        **{name: kinds for name, kinds in GridSearchCV._parameter_constraints.items() if name != "estimator"},
        "param_grid": [dict, list, None],
        "svc": [SVC, None],
    }

    def __init__(
        self,
        param_grid: Any = None,
        *,
        svc: SVC | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        self.param_grid = param_grid
        self.svc = svc
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.cv = cv
        self.verbose = verbose
        self.pre_dispatch = pre_dispatch
        self.error_score = error_score
        self.return_train_score = return_train_score

    @property
    def estimator(self) -> SVC:
        """What is searched: `svc`, or the default in its place."""
        return SVC(backend="native-cpu") if self.svc is None else self.svc

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Search on X (n, n_features) with labels y (n,), and train the best on all of them.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, n_features)
            For a precomputed kernel, (n, n) kernel values.
        y : array-like of shape (n,)
        **params : dict
            ``groups`` for the splitter, and ``sample_weight`` (n,) for the trainings.

        Returns
        -------
        SVCSearchCV
            Itself.

        Raises
        ------
        ValueError
            As `SVC.fit`; and where scikit-learn's `GridSearchCV` raises it.
        """
        self._validate_params()
        X_checked, y_checked = X, y
        if not callable(self.estimator.kernel):  # whose samples may be anything, and are never solved together
            X_checked, y_checked = clone(self.estimator)._validated_for_fit(X, y, on_gpu=False)
        check_classification_targets(y_checked)
        self.param_grid_ = default_grid(self.estimator, X_checked) if self.param_grid is None else self.param_grid
        task = None
        if set(params) <= {"groups", "sample_weight"} and not get_config().get("enable_metadata_routing"):
            task = _task(self, X, X_checked, y_checked, params.get("groups"), params.get("sample_weight"))
        self.solved_together_ = task is not None
        if task is None:
            super().fit(X, y, **params)
            return self
        self._take(task.searched(self), task)
        if self.refit:
            weights = {} if params.get("sample_weight") is None else {"sample_weight": params["sample_weight"]}
            start = time.perf_counter()
            self.best_estimator_ = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
            self.best_estimator_.fit(X, y, **weights)
            self.refit_time_ = time.perf_counter() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self

    def _run_search(self, evaluate_candidates: Any) -> None:
        evaluate_candidates(ParameterGrid(self.param_grid_))

    def _take(self, search: GridSearchCV, task: _Task) -> None:
        """Results of the search over what is solved already, with the times that solving took."""
        for name in ("cv_results_", "best_index_", "best_params_", "best_score_", "scorer_", "n_splits_",
                     "multimetric_"):  # fmt: skip
            if hasattr(search, name):
                setattr(self, name, getattr(search, name))
            else:
                self.__dict__.pop(name, None)
        seconds = np.array([task.seconds(k) for k in range(len(task.candidates))])
        self.cv_results_["mean_fit_time"], self.cv_results_["std_fit_time"] = seconds.mean(axis=1), seconds.std(axis=1)


def default_grid(svc: SVC, X: Any) -> dict[str, list[float]]:
    """What `SVCSearchCV` searches on X (n, n_features) where no grid is given."""
    grid = {"C": list(DEFAULT_C)}
    if isinstance(svc.kernel, str) and "gamma" in KERNEL_PARAMETERS[svc.kernel]:
        scale = resolve_gamma("scale", X)
        grid["gamma"] = [factor * scale for factor in DEFAULT_GAMMA]
    return grid


@dataclass
class _Task:
    """Candidates and folds that are solved together, and what came of them."""

    svc: SVC
    y: np.ndarray
    candidates: list[Mapping[str, Any]]
    splits: list[tuple[np.ndarray, np.ndarray]]
    classes: np.ndarray
    sample_weight: Any
    found: dict[tuple[str, int], tuple[np.ndarray, float]] = field(default_factory=dict)
    """Decisions and seconds of each candidate, under its `key`, in each fold."""

    @property
    def names(self) -> list[str]:
        return sorted(set().union(*self.candidates))

    def key(self, params: Mapping[str, Any]) -> str:
        """What tells candidates from each other; equal ones have equal results."""
        given = self.svc.get_params(deep=False)
        return repr([params.get(name, given[name]) for name in self.names])

    def seconds(self, k: int) -> list[float]:
        return [self.found[self.key(self.candidates[k]), fold][1] for fold in range(len(self.splits))]

    def searched(self, search: SVCSearchCV) -> GridSearchCV:
        """scikit-learn's search over the results, in which row numbers stand for samples."""
        grid = [{name: [value] for name, value in params.items()} for params in self.candidates]
        inner = GridSearchCV(
            _Solved(self), grid, scoring=search.scoring, refit=search.refit, cv=self.splits, n_jobs=1,
            verbose=search.verbose, error_score=search.error_score,
        )  # fmt: skip
        # Whether weights count in scores too is a matter of scikit-learn's version.
        weights = {} if self.sample_weight is None else {"sample_weight": self.sample_weight}
        return inner.fit(np.arange(len(self.y))[:, None], self.y, **weights)


class _Solved(SVC):
    """An SVC whose trainings are solved already.

    It is fitted on row numbers, and decides by looking up.
    """

    def __init__(self, task: _Task) -> None:
        super().__init__(**task.svc.get_params(deep=False))
        self.task = task

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return SVC._get_param_names()

    def __sklearn_clone__(self) -> _Solved:
        return _Solved(self.task).set_params(**self.get_params(deep=False))

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> _Solved:
        self.classes_, self.rows_ = self.task.classes, X[:, 0]
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = False  # a row number is no kernel value
        return tags

    def _decisions(self, X: np.ndarray) -> np.ndarray:
        key = self.task.key(self.get_params(deep=False))
        for fold, (train, test) in enumerate(self.task.splits):
            if np.array_equal(train, self.rows_) and np.array_equal(test, X[:, 0]):
                return self.task.found[key, fold][0]
        raise ValueError("these samples are held out by no fold")

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        decisions = self._decisions(X)
        if len(self.classes_) == 2:
            return -decisions[:, 0]
        return decisions if self.decision_function_shape == "ovo" else one_vs_rest(decisions, len(self.classes_))

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[vote(self._decisions(X), len(self.classes_))]


def _task(search: SVCSearchCV, X: Any, X_checked: Any, y: np.ndarray, groups: Any, sample_weight: Any) -> _Task | None:
    """The search, solved; None where it has to be fitted one by one."""
    svc, candidates = search.estimator, list(ParameterGrid(search.param_grid_))
    if search.return_train_score or not _scores_by_decisions(search.scoring) or not candidates:
        return None
    trials = _trials(svc, candidates)
    if trials is None:
        return None
    backend = sharing(choose_backend(svc.backend, require_gpu=svc.require_gpu).backend, X_checked)
    if backend is None or (backend.on_cpu and svc.device is not None):
        return None
    splitter = check_cv(search.cv, y, classifier=True)
    splits = [(_rows(train), _rows(test)) for train, test in splitter.split(X, y, groups)]
    weights = svc._validated_weights(sample_weight, X_checked)
    task = _Task(svc, y, candidates, splits, np.unique(y), sample_weight)
    n_jobs = search.n_jobs if search.n_jobs is not None else svc.n_jobs
    resources = Resources(svc._cache_mb, n_jobs, svc.device)
    members = _by_what_cannot_differ(trials)
    groups_of_trials = [_Group(backend, X_checked, y, splits, [trials[k] for k in own], weights) for own in members]
    if not all(group.may_be_solved(resources) for group in groups_of_trials):
        return None
    for group, own in zip(groups_of_trials, members, strict=True):
        group.solve(resources, task, [task.key(candidates[k]) for k in own])
    return task


def _rows(chosen: Any) -> np.ndarray:
    """Row numbers, which a splitter may have given as a mask."""
    chosen = np.asarray(chosen)
    return np.flatnonzero(chosen) if chosen.dtype == bool else chosen


def _scores_by_decisions(scoring: Any) -> bool:
    """Whether the scores need no more than labels or decision values.

    A function of the user's own may look at X.
    """
    if scoring is None:
        return True
    names = list(scoring.values()) if isinstance(scoring, Mapping) else scoring
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple, set)):
        return False
    known = set(get_scorer_names())
    return all(isinstance(name, str) and name in known for name in names)


def _trials(svc: SVC, candidates: Sequence[Mapping[str, Any]]) -> list[SVC] | None:
    """The SVC of each candidate; None where one is wrong, or is to be fitted by itself."""
    if type(svc) is not SVC or not set().union(*candidates) <= SHARED:
        return None
    try:
        trials = [clone(svc).set_params(**params) for params in candidates]
        for trial in trials:
            trial._validate_params()
    except ValueError:
        return None  # the search says of each what is wrong, and goes on as `error_score` says
    if svc._has_probabilities or svc.break_ties or svc.warm_start or svc.verbose:
        return None
    if any(callable(estimator.kernel) for estimator in (svc, *trials)):
        return None
    return trials


def _by_what_cannot_differ(trials: Sequence[SVC]) -> list[list[int]]:
    """Places of the trials, in groups within which C and kernel parameters alone differ."""
    groups: dict[str, list[int]] = {}
    for k, trial in enumerate(trials):
        groups.setdefault(repr((trial.class_weight, trial.tol)), []).append(k)
    return list(groups.values())


class _Group:
    """Trials that differ by C and their kernels alone."""

    def __init__(
        self,
        backend: SharingBackend,
        X: Any,
        y: np.ndarray,
        splits: Sequence[tuple[np.ndarray, ...]],
        trials: Sequence[SVC],
        sample_weight: np.ndarray | None,
    ) -> None:
        self.backend, self.trials, self.stopping = backend, trials, trials[0]._stopping()
        classes = np.unique(y)
        folds = [Fold(train, test, _class_weight(trials[0].class_weight, classes, y[train])) for train, test in splits]
        self.data = FoldedData(X, y, folds, sample_weight=sample_weight)
        self.kernels: dict[str, tuple[Kernel, ...]] = {}
        for trial in trials:
            key = self.kernel_key(trial)
            if key not in self.kernels:
                self.kernels[key] = tuple(_kernel(trial, X, train) for train, _ in splits)

    @staticmethod
    def kernel_key(trial: SVC) -> str:
        return repr((trial.kernel, trial.gamma, trial.degree, trial.coef0))

    def may_be_solved(self, resources: Resources) -> bool:
        Cs = [float(trial.C) for trial in self.trials]
        together = all(solved_together(self.data, kernels[0], Cs, self.stopping) for kernels in self.kernels.values())
        return together and len(self.data.classes) > 1 and fits_memory(self.backend, self.data, resources)

    def solve(self, resources: Resources, task: _Task, keys: Sequence[str]) -> None:
        """Solve all trials in all folds; leave in `task`, under `keys`, what they decide."""
        Cs: dict[str, list[float]] = {key: [] for key in self.kernels}
        for trial in self.trials:
            Cs[self.kernel_key(trial)].append(float(trial.C))
        names = list(self.kernels)
        columns = [Column(self.kernels[name], tuple(sorted(set(Cs[name])))) for name in names]
        wanted: dict[tuple[int, float], list[str]] = {}
        for trial, key in zip(self.trials, keys, strict=True):
            wanted.setdefault((names.index(self.kernel_key(trial)), float(trial.C)), []).append(key)
        early = 0

        def keep(cell: Cell) -> None:
            nonlocal early
            early += not cell.converged
            for key in wanted[cell.column, columns[cell.column].Cs[cell.c]]:
                task.found[key, cell.fold] = (cell.decisions, cell.seconds)

        solve_columns(self.data, columns, self.stopping, resources, keep, backend=self.backend)
        if early:
            warn(
                f"{early} of {len(task.found)} trainings have not reached tol={self.stopping.tol:g}; scale the features"
                " (StandardScaler, for one), or search among smaller C",
                ConvergenceWarning,
            )


def _class_weight(class_weight: Any, classes: np.ndarray, y: np.ndarray) -> tuple[float, ...] | None:
    """The factors on C of each class, for training labels y."""
    if class_weight is None:
        return None
    present = np.unique(y)
    factors = dict(zip(present.tolist(), factors_of_classes(class_weight, present, y), strict=True))
    return tuple(float(factors.get(label, 1.0)) for label in classes.tolist())


def _kernel(trial: SVC, X: Any, train: np.ndarray) -> Kernel:
    """The kernel of a training on these rows of X."""
    by_rows = isinstance(trial.gamma, str) and trial.kernel != "precomputed"
    return trial._resolved_kernel(X[train] if by_rows else X)

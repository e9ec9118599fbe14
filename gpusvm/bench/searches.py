"""Searches for C and gamma as contenders: ours, and what people run without gpusvm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from gpusvm.backends.base import Availability
from gpusvm.jobs import n_cores
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Resources, Stopping

SEED = 0
"""Of the folds, which are the same for all."""


class Grid(NamedTuple):
    """What is searched: RBF kernels, each C with each gamma, by accuracy in stratified folds."""

    Cs: tuple[float, ...]
    gammas: tuple[float, ...]
    folds: int


@dataclass(frozen=True)
class Found:
    """The best of a grid, trained on all samples.

    Attributes
    ----------
    svc : fitted classifier
        With `predict`.
    model : callable
        Makes an SVMModel of it.
    C, gamma, score : float
        `score` is the mean accuracy in the folds.
    """

    svc: Any
    model: Callable[[], SVMModel]
    C: float
    gamma: float
    score: float

    def predict(self, X: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.svc.predict(X)
        return found

    def to_model(self) -> SVMModel:
        return self.model()

    @property
    def best(self) -> dict[str, float]:
        """For the record."""
        return {"C": float(self.C), "gamma": float(self.gamma), "score": float(self.score)}


@dataclass(frozen=True)
class Searcher:
    """A contender that finds C and gamma, and trains with them: `over` a grid."""

    name: str
    runs: str
    packages: tuple[str, ...]
    probe_with: Callable[[], Availability]
    find: Callable[[np.ndarray, np.ndarray, Grid, Stopping, Resources], Found]
    grid: Grid | None = None
    on_gpu: bool = False
    uses_kernel: bool = True

    def over(self, grid: Grid) -> Searcher:
        return replace(self, grid=grid)

    def probe(self) -> Availability:
        return self.probe_with()

    def fit(self, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, resources: Resources) -> Found:
        assert self.grid is not None  # the worker has seen to it
        return self.find(X, y, self.grid, stopping, resources)

    def settings(self, problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
        assert self.grid is not None
        grid = {"C": list(self.grid.Cs), "gamma": list(self.grid.gammas), "folds": self.grid.folds}
        cache = {} if resources.cache_size is None else {"cache_size": resources.cache_size}
        return {"kernel": "rbf", **grid, "tol": stopping.tol, **cache}


def tuned(X: np.ndarray, y: np.ndarray, grid: Grid, stopping: Stopping, resources: Resources) -> Found:
    """What `gpusvm tune --no-fine` does."""
    from gpusvm.estimators import SVC
    from gpusvm.tuning import Search, Settings

    search = Search(X, y, Settings(tol=stopping.tol, folds=grid.folds, seed=SEED), resources)
    search.run(grid.Cs, grid.gammas)
    best = search.best()
    cache_size = resources.cache_size or "auto"
    svc = SVC(C=best.C, gamma=best.gamma, tol=stopping.tol, cache_size=cache_size, backend="native-cpu").fit(X, y)
    return Found(svc, lambda: svc.model_, best.C, best.gamma, search.results[best].mean)


def searched(X: np.ndarray, y: np.ndarray, grid: Grid, stopping: Stopping, resources: Resources) -> Found:
    """`SVCSearchCV`, all cells in all folds."""
    from gpusvm.estimators import SVC
    from gpusvm.estimators.search import SVCSearchCV

    svc = SVC(tol=stopping.tol, cache_size=resources.cache_size or "auto", backend="native-cpu")
    search = SVCSearchCV({"C": list(grid.Cs), "gamma": list(grid.gammas)}, svc=svc, cv=_folds(grid)).fit(X, y)
    return _found(search, lambda: search.best_estimator_.model_)


def grid_search(module: str, name: str, cache_mb: float) -> Callable[..., Found]:
    """GridSearchCV over the SVC of a module, in as many processes as there are cores."""

    def find(X: np.ndarray, y: np.ndarray, grid: Grid, stopping: Stopping, resources: Resources) -> Found:
        from gpusvm.bench.contenders import model_of

        svc = import_module(module).SVC(tol=stopping.tol, cache_size=resources.cache_size or cache_mb)
        cells = {"C": list(grid.Cs), "gamma": list(grid.gammas)}
        search = GridSearchCV(svc, cells, cv=_folds(grid), n_jobs=n_cores()).fit(X, y)
        C, gamma = search.best_params_["C"], search.best_params_["gamma"]
        problem = Problem(Kernel("rbf", gamma), C)
        return _found(search, lambda: model_of(search.best_estimator_, X, y, problem, stopping, name))

    return find


def _folds(grid: Grid) -> StratifiedKFold:
    return StratifiedKFold(grid.folds, shuffle=True, random_state=SEED)


def _found(search: Any, model: Callable[[], SVMModel]) -> Found:
    best = search.best_params_
    return Found(search.best_estimator_, model, best["C"], best["gamma"], search.best_score_)

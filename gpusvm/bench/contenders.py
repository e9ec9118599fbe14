"""What a benchmark compares: every backend, and peers that are what people use without gpusvm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from sklearn import __version__ as sklearn_version

from gpusvm.backends.base import Availability, Backend
from gpusvm.backends.one_vs_one import from_library, group_by_class
from gpusvm.backends.registry import GPU_BACKENDS, backend_names, get_backend
from gpusvm.backends.sklearn import library_arguments
from gpusvm.bench.searches import Searcher, grid_search, searched, tuned
from gpusvm.device import to_device
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Resources, Stopping

PEER_CACHE_MB = 2000.0
"""Kernel cache given to the peers: their default of 200 MB would make a straw man of them."""

N_NEIGHBORS = 3
"""Of the nearest-neighbour baseline: the number in the classic tables of results on MNIST."""


class Trained(Protocol):
    """What came of a fit."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Labels (n,) of the rows of X (n, n_features), as a user of this contender gets them."""

    def to_model(self) -> SVMModel | None:
        """What was trained as an SVMModel, to be certified; None where it cannot be one."""


class Contender(Protocol):
    """Something that trains and predicts, and can be timed at it.

    Attributes
    ----------
    name, runs : str
        What suites call it, and what it is in a few words.
    on_gpu : bool
    uses_kernel : bool
        Whether a case's kernel and C mean anything to it.
    packages : tuple of str
        Whose versions belong to its figures; see `gpusvm.packages.package_versions`.
    """

    @property
    def name(self) -> str: ...
    @property
    def runs(self) -> str: ...
    @property
    def on_gpu(self) -> bool: ...
    @property
    def uses_kernel(self) -> bool: ...
    @property
    def packages(self) -> tuple[str, ...]: ...

    def probe(self) -> Availability:
        """Whether it can run here, and why not. Never raises."""

    def fit(self, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, resources: Resources) -> Trained:
        """Train on X (n, n_features) float32 with labels y (n,)."""

    def settings(self, problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
        """What it was told, for the record; plain JSON values."""


def peer_names() -> list[str]:
    """The contenders that are not gpusvm's own."""
    return list(_PEERS)


def own_names() -> list[str]:
    """gpusvm's own: its backends, and its searches."""
    return [*backend_names(), *_SEARCHES]


def contender_names() -> list[str]:
    """Every contender's name, whether or not it runs here: our own, then the peers."""
    return [*own_names(), *_PEERS]


def is_search(name: str) -> bool:
    """Whether the contender of that name finds C and gamma by itself, over a case's grid."""
    return name in contender_names() and isinstance(get_contender(name), Searcher)


def get_contender(name: str) -> Contender:
    """The contender of that name. Raises UsageError for a name that does not exist."""
    if make := {**_SEARCHES, **_PEERS}.get(name):
        return make()
    if name not in backend_names():
        raise UsageError(f"nothing to measure is called {name!r}; choose from {', '.join(contender_names())}")
    return BackendContender(get_backend(name))


class BackendContender:
    """A backend of gpusvm behind `gpusvm.SVC`.

    Its validation is timed with it, as peers are timed with theirs. Predictions are made on the
    device by those that train there.
    """

    uses_kernel = True

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.runs = backend.name, backend.runs
        self.on_gpu = backend.name in GPU_BACKENDS
        self.packages = _BACKEND_PACKAGES.get(backend.name, ("numpy", "numba", "cupy"))

    def probe(self) -> Availability:
        return self.backend.probe()

    def fit(self, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, resources: Resources) -> Trained:
        kernel = problem.kernel
        svc = SVC(
            C=problem.C, kernel=kernel.name, gamma=kernel.gamma, degree=kernel.degree, coef0=kernel.coef0,
            tol=stopping.tol, max_iter=stopping.max_iter, cache_size=resources.cache_size or "auto", backend=self.name,
        )  # fmt: skip
        return _Trained(svc.fit(X, y), self.on_gpu)

    def settings(self, problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
        return _kernel_settings(problem, stopping, resources)


@dataclass(frozen=True)
class _Trained:
    svc: SVC
    on_gpu: bool

    def predict(self, X: np.ndarray) -> np.ndarray:
        if self.on_gpu:
            import cupy

            return cupy.asnumpy(self.svc.predict(to_device(X)))
        return self.svc.predict(X)

    def to_model(self) -> SVMModel:
        return self.svc.model_


@dataclass(frozen=True)
class LibrarySVC:
    """A library's own SVC, given all classes at once, with its own predict."""

    name: str
    runs: str
    module: str
    packages: tuple[str, ...]
    probe_with: Callable[[], Availability]
    on_gpu: bool = False
    uses_kernel: bool = True

    def probe(self) -> Availability:
        return self.probe_with()

    def fit(self, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, resources: Resources) -> Trained:
        svc = import_module(self.module).SVC(
            cache_size=resources.cache_size or PEER_CACHE_MB,
            shrinking=stopping.shrinking,
            **library_arguments(problem, stopping),
        )
        return _TrainedSVC(svc.fit(X, y), X, y, problem, stopping, self.name)

    def settings(self, problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
        return {
            **_kernel_settings(problem, stopping, resources),
            "cache_size": resources.cache_size or PEER_CACHE_MB,
        }


@dataclass(frozen=True)
class _TrainedSVC:
    svc: Any
    X: np.ndarray
    y: np.ndarray
    problem: Problem
    stopping: Stopping
    name: str

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.svc.predict(X)

    def to_model(self) -> SVMModel:
        return model_of(self.svc, self.X, self.y, self.problem, self.stopping, self.name)


def model_of(svc: Any, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, name: str) -> SVMModel:
    """The SVMModel of a fitted `sklearn.svm.SVC`, or of a class with the same attributes.

    Parameters
    ----------
    svc : fitted estimator
        With `support_`, `dual_coef_`, `intercept_` and `n_iter_` in scikit-learn's public form.
    X : (n, n_features) float32 array
        What it was fitted on.
    y : (n,) array of labels
    problem, stopping
        What it was asked to minimise, and how exactly.
    name : str
        Kept as the provenance's backend.
    """
    data = group_by_class(X, y, problem)
    positions = np.empty(len(y), dtype=np.int64)
    positions[data.rows] = np.arange(len(y))
    return from_library(svc, data, positions, problem, stopping, {"backend": name})


class NearestNeighbours:
    """scikit-learn's k-nearest-neighbours classifier: what everyone asks an SVM to beat."""

    name = "knn"
    runs = f"scikit-learn's KNeighborsClassifier, {N_NEIGHBORS} neighbours, all CPU cores"
    on_gpu = False
    uses_kernel = False
    packages = ("scikit-learn",)

    def probe(self) -> Availability:
        return _scikit_learn_is_there()

    def fit(self, X: np.ndarray, y: np.ndarray, problem: Problem, stopping: Stopping, resources: Resources) -> Trained:
        from sklearn.neighbors import KNeighborsClassifier

        return _TrainedNeighbours(KNeighborsClassifier(N_NEIGHBORS, n_jobs=-1).fit(X, y))

    def settings(self, problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
        return {"n_neighbors": N_NEIGHBORS}


@dataclass(frozen=True)
class _TrainedNeighbours:
    neighbours: Any

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.neighbours.predict(X)

    def to_model(self) -> None:
        return None


def _kernel_settings(problem: Problem, stopping: Stopping, resources: Resources) -> dict[str, Any]:
    kernel = problem.kernel
    settings: dict[str, Any] = {"kernel": kernel.name, "C": problem.C, "tol": stopping.tol}
    if kernel.name != "linear":
        settings["gamma"] = kernel.gamma
    if kernel.name == "poly":
        settings["degree"] = kernel.degree
    if kernel.name in ("poly", "sigmoid"):
        settings["coef0"] = kernel.coef0
    if stopping.max_iter >= 0:
        settings["max_iter"] = stopping.max_iter
    if resources.cache_size is not None:
        settings["cache_size"] = resources.cache_size
    return settings


def _scikit_learn_is_there() -> Availability:
    return Availability(True, f"scikit-learn {sklearn_version}")


def _libsvm() -> Contender:
    return LibrarySVC(
        name="libsvm",
        runs="scikit-learn's SVC (LIBSVM) as it is, on one CPU core",
        module="sklearn.svm",
        packages=("scikit-learn",),
        probe_with=_scikit_learn_is_there,
    )


def _intelex() -> Contender:
    return LibrarySVC(
        name="intelex",
        runs="scikit-learn-intelex's SVC (oneDAL) as it is, on all CPU cores",
        module="sklearnex.svm",
        packages=("scikit-learn-intelex",),
        probe_with=get_backend("sklearnex").probe,
    )


def _grid_libsvm() -> Contender:
    return Searcher(
        name="grid-libsvm",
        runs="GridSearchCV over scikit-learn's SVC, a process for each core",
        packages=("scikit-learn",),
        probe_with=_scikit_learn_is_there,
        find=grid_search("sklearn.svm", "grid-libsvm", PEER_CACHE_MB),
    )


def _grid_intelex() -> Contender:
    return Searcher(
        name="grid-intelex",
        runs="GridSearchCV over scikit-learn-intelex's SVC, a process for each core",
        packages=("scikit-learn-intelex",),
        probe_with=get_backend("sklearnex").probe,
        find=grid_search("sklearnex.svm", "grid-intelex", PEER_CACHE_MB),
    )


def _tune() -> Contender:
    runs = "the search of gpusvm tune, which gives up what cannot win"
    return Searcher("tune", runs, _OWN_PACKAGES, get_backend("native-cpu").probe, tuned)


def _search() -> Contender:
    return Searcher(
        "search", "SVCSearchCV, all cells in all folds", _OWN_PACKAGES, get_backend("native-cpu").probe, searched
    )


_OWN_PACKAGES = ("numpy", "numba")
_SEARCHES: dict[str, Callable[[], Contender]] = {"tune": _tune, "search": _search}
_PEERS: dict[str, Callable[[], Contender]] = {
    "libsvm": _libsvm,
    "intelex": _intelex,
    "knn": NearestNeighbours,
    "grid-libsvm": _grid_libsvm,
    "grid-intelex": _grid_intelex,
}

_BACKEND_PACKAGES = {
    "sklearn": ("scikit-learn",),
    "sklearnex": ("scikit-learn-intelex",),
    "cuml": ("cuml", "cupy"),
}

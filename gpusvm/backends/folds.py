"""Trainings of the same samples, with other parameters and in other folds, solved together.

See `solver.path`. The caller chooses the backend, among those that share folds: see `sharing`.

Class pair by class pair: the kernel values of a pair serve all folds, and every C. Of two classes
the decision values of held-out samples come with the solution; of more, each fold's model gives
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import joblib
import numpy as np

from gpusvm.backends.base import Backend, Resume, SharingBackend
from gpusvm.backends.native import backend as native_cpu
from gpusvm.backends.one_vs_one import GroupedData, merge
from gpusvm.jobs import as_they_finish, effective_jobs, run_elsewhere
from gpusvm.kernels import Array, Kernel, largest_norm
from gpusvm.memory import default_cache_mb
from gpusvm.pairs import class_pairs
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.problem import Solution
from gpusvm.sparse import is_sparse

if TYPE_CHECKING:
    from gpusvm.solver.path import Chain, Solved


class Fold(NamedTuple):
    """Which samples train, and which are held out.

    Attributes
    ----------
    train, test : int64 arrays
        Rows of the samples. None of `train` is there twice.
    class_weight : tuple of float, optional
        One factor on C for each class; None for that of the problem.
    """

    train: np.ndarray
    test: np.ndarray
    class_weight: tuple[float, ...] | None = None


class Cell(NamedTuple):
    """A training of the search, and what came of it.

    Attributes
    ----------
    column, c, fold : int
        Places of its kernel, its C and its fold.
    decisions : (n_test, n_pairs) float64 array
        Of the held-out samples, positive for the first class of a pair.
    n_iter : int
    converged : bool
    seconds : float
        Its share of the time that a thread took.
    """

    column: int
    c: int
    fold: int
    decisions: np.ndarray
    n_iter: int
    converged: bool
    seconds: float


@dataclass(frozen=True)
class Column:
    """Trainings that differ by C and fold alone.

    Attributes
    ----------
    kernels : sequence of Kernel
        For each fold: ``gamma="scale"`` is another number in each.
    Cs : tuple of float
        Finite, ascending.
    """

    kernels: Sequence[Kernel]
    Cs: tuple[float, ...]


class FoldedData:
    """Samples with their labels and folds, ready to be solved for many kernels and C.

    Parameters
    ----------
    X : (n, n_features) array, float32 or float64, or CSR
        (n, n) kernel values for a precomputed kernel.
    y : (n,) array of labels
    folds : sequence of Fold
    class_weight : tuple of float, optional
        One factor on C for each class.
    sample_weight : (n,) float64 array, optional
        Factor on C for each sample; those of weight zero or less take no part in training.
    """

    def __init__(
        self,
        X: Array,
        y: np.ndarray,
        folds: Sequence[Fold],
        class_weight: tuple[float, ...] | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> None:
        self.X, self.folds = X, folds
        self.classes, codes = np.unique(y, return_inverse=True)
        self.codes = codes
        self.order = np.argsort(codes, kind="stable")
        """The samples, class by class."""
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(self.classes)))])
        self.pairs = class_pairs(len(self.classes))
        self.blocks = [self.order[self.starts[c] : self.starts[c + 1]] for c in range(len(self.classes))]
        given = np.ones(len(y)) if sample_weight is None else np.maximum(np.asarray(sample_weight, np.float64), 0.0)
        self.weights = []
        """For each fold, (n,) factors on C; zero for what is held out."""
        for fold in folds:
            weights, factors = np.zeros(len(y)), fold.class_weight or class_weight
            weights[fold.train] = given[fold.train]
            if factors is not None:
                weights *= np.maximum(np.asarray(factors), 0.0)[codes]
            self.weights.append(weights)

    def has_all_classes(self) -> bool:
        """Whether in every fold every class has samples to train on, each there once."""
        return all(
            all((weights[block] > 0).any() for block in self.blocks) and len(np.unique(fold.train)) == len(fold.train)
            for weights, fold in zip(self.weights, self.folds, strict=True)
        )

    def weights_of_pair(self, fold: int, pair: int) -> np.ndarray:
        """The factors on C (m,) of a pair's samples in a fold, those of its first class first."""
        i, j = self.pairs[pair]
        factors: np.ndarray = self.weights[fold][np.concatenate([self.blocks[i], self.blocks[j]])]
        return factors

    def largest_pair(self) -> int:
        """Samples of the largest pair of classes."""
        return int(sum(sorted(map(len, self.blocks))[-2:]))

    def fold_data(self, fold: int, *, precomputed: bool) -> GroupedData:
        """What trains in a fold, in the form of a training."""
        weights = self.weights[fold][self.order]
        kept = weights > 0
        counts = np.add.reduceat(kept, self.starts[:-1], dtype=np.int64)
        factors = weights[kept]
        starts = np.concatenate([[0], np.cumsum(counts)])
        return GroupedData(
            self.X, precomputed, self.order[kept], None if (factors == 1).all() else factors, self.classes, starts
        )


def sharing(backend: Backend, X: Array) -> SharingBackend | None:
    """The backend where it solves trainings of the samples `X` together, None where not."""
    able = backend.shares_folds and (backend.takes_sparse or not is_sparse(X))
    return cast(SharingBackend, backend) if able else None


def fits_memory(backend: SharingBackend, data: FoldedData, resources: Resources) -> bool:
    """Whether the largest pair of classes fits into memory.

    On a CPU all its kernel values must; elsewhere only those needed, which always do.
    """
    from gpusvm.solver.path import chain_mb

    return not backend.on_cpu or chain_mb(data.largest_pair()) <= (resources.cache_size or default_cache_mb())


def solve_columns(
    data: FoldedData,
    columns: Sequence[Column],
    stopping: Stopping,
    resources: Resources,
    report: Callable[[Cell], None],
    folds: Sequence[int] | None = None,
    look: Callable[[], None] = lambda: None,
    backend: SharingBackend = native_cpu,
) -> None:
    """Train every C of every column in each fold, each exactly, and decide what it holds out.

    Where the kernel values of a pair do not fit in memory, one training after another, each C from
    the one before.

    Parameters
    ----------
    data : FoldedData
        Every class trains in every fold.
    columns : sequence of Column
    stopping : Stopping
        Without limits of its own on steps or time.
    resources : Resources
    report : callable
        Called for each cell, in the caller's thread, as it is done.
    folds : sequence of int, optional
        All by default.
    look : callable
        Called in the caller's thread, some ten times a second where trainings are short. What it
        raises ends the work.
    backend : SharingBackend
        What trains.
    """
    numbers = range(len(data.folds)) if folds is None else folds
    asked = _Asked(data, columns, stopping, resources, report, numbers, look, backend)
    if backend.on_cpu and run_elsewhere():
        _solve_elsewhere(asked)
    elif fits_memory(backend, data, resources):
        _solve_together(asked)
    else:
        _solve_one_by_one(asked)


@dataclass(frozen=True)
class _Asked:
    """What `solve_columns` was asked for: its arguments."""

    data: FoldedData
    columns: Sequence[Column]
    stopping: Stopping
    resources: Resources
    report: Callable[[Cell], None]
    folds: Sequence[int]
    look: Callable[[], None]
    backend: SharingBackend


def _solve_together(asked: _Asked) -> None:
    """`solve_columns` on the kernel values of each pair, which its trainings share."""
    from gpusvm.solver.path import Chain

    data, tasks = asked.data, _Tasks(asked)
    chains, places = [], []
    for column, wanted in enumerate(asked.columns):
        # Folds whose kernel is the same come one after the other.
        in_order = sorted(asked.folds, key=lambda fold: wanted.kernels[fold].gamma)
        for pair, blocks in enumerate(data.pairs):
            for fold in in_order:
                weights = data.weights_of_pair(fold, pair)
                chains.append(Chain(blocks, wanted.kernels[fold], weights, np.array(wanted.Cs)))
                places.append((column, fold, pair))

    def keep(index: int, solved: Solved) -> None:
        tasks.add(*places[index], solved)

    _solve(asked.backend, data, chains, asked.stopping, asked.resources, keep, asked.look)


def _solve(
    backend: SharingBackend,
    data: FoldedData,
    chains: Sequence[Chain],
    stopping: Stopping,
    resources: Resources,
    report: Callable[[int, Solved], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """`solve_chains` of the backend, those of each kind of kernel after the others."""
    computed = {chain.kernel for chain in chains if not chain.kernel.precomputed}
    largest = largest_norm(data.X) if computed else 0.0
    for kernel in computed:
        kernel.require_range(largest)
    for name in dict.fromkeys(chain.kernel.name for chain in chains):
        own = [index for index, chain in enumerate(chains) if chain.kernel.name == name]

        def keep(place: int, solved: Solved, own: list[int] = own) -> None:
            report(own[place], solved)

        backend.solve_chains(data.X, data.blocks, [chains[index] for index in own], stopping, resources, keep, look)


def _solve_elsewhere(asked: _Asked) -> None:
    """`solve_columns` by joblib's workers: a task is a column on one thread, to the same bits."""
    # Every worker gets the memory of this machine: what there is room for decides a problem's
    # path.
    own = replace(asked.resources, cache_size=asked.resources.cache_size or default_cache_mb(), n_jobs=1)
    tasks = (joblib.delayed(_solve_column)(place, asked.data, column, asked.stopping, own, list(asked.folds))
             for place, column in enumerate(asked.columns))  # fmt: skip
    with closing(as_they_finish(tasks, effective_jobs(asked.resources.n_jobs))) as outcomes:
        for cells in outcomes:
            asked.look()
            for cell in cells:
                asked.report(cell)


def _solve_column(
    place: int, data: FoldedData, column: Column, stopping: Stopping, resources: Resources, folds: Sequence[int]
) -> list[Cell]:
    """What a worker does: it may have other threads for other columns, and sends nothing on."""
    cells: list[Cell] = []
    with joblib.parallel_config(backend="threading", n_jobs=1):
        solve_columns(data, [column], stopping, resources, cells.append, folds)
    return [cell._replace(column=place) for cell in cells]


def _solve_one_by_one(asked: _Asked) -> None:
    """`solve_columns` by one training after another, on a CPU."""
    data = asked.data
    for column, wanted in enumerate(asked.columns):
        for fold in asked.folds:
            kernel, start = wanted.kernels[fold], None
            train, test = data.order[data.weights[fold][data.order] > 0], data.folds[fold].test
            train = np.sort(train)
            X, y = data.X[train], data.classes[data.codes[train]]
            X, held_out = (X[:, train], data.X[test][:, train]) if kernel.precomputed else (X, data.X[test])
            for c, C in enumerate(wanted.Cs):
                asked.look()
                begun = time.perf_counter()
                start = native_cpu.fit(
                    X, y, Problem(kernel, C), asked.stopping, asked.resources, sample_weight=data.weights[fold][train],
                    progress=lambda *_: asked.look(), resume=Resume(start=start),
                )  # fmt: skip
                decisions = start.pair_decisions(held_out, n_jobs=asked.resources.n_jobs)
                seconds, converged = time.perf_counter() - begun, start.fit_status == 0
                asked.report(Cell(column, c, fold, decisions, int(start.n_iter.sum()), converged, seconds))


class _Tasks:
    """Puts the pairs of each column and fold together; reports its cells once all are there."""

    def __init__(self, asked: _Asked) -> None:
        self.asked, self.data, self.columns = asked, asked.data, asked.columns
        self.found: dict[tuple[int, int], dict[int, list[Solution]]] = {}
        self.seconds: dict[tuple[int, int], float] = {}

    def add(self, column: int, fold: int, pair: int, solved: Solved) -> None:
        data, test = self.data, self.data.folds[fold].test
        if len(data.pairs) == 1:
            place = np.empty(len(data.order), dtype=np.int64)
            place[data.order] = np.arange(len(data.order))
            seconds = solved.seconds / len(solved.solutions)
            for c, solution in enumerate(solved.solutions):
                decisions = solved.decisions[c][place[test]][:, None]
                self.asked.report(Cell(column, c, fold, decisions, solution.n_iter, solution.converged, seconds))
            return
        trained = data.weights_of_pair(fold, pair) > 0
        waiting = self.found.setdefault((column, fold), {})
        self.seconds[column, fold] = self.seconds.get((column, fold), 0.0) + solved.seconds
        waiting[pair] = [solution._replace(b=solution.b[trained]) for solution in solved.solutions]
        if len(waiting) < len(data.pairs):
            return
        del self.found[column, fold]
        seconds = self.seconds.pop((column, fold)) / len(self.columns[column].Cs)
        kernel = self.columns[column].kernels[fold]
        grouped = data.fold_data(fold, precomputed=kernel.precomputed)
        decisions = np.empty((len(test), len(data.pairs)))
        for c, C in enumerate(self.columns[column].Cs):
            solutions = [waiting[p][c] for p in range(len(data.pairs))]
            # Where no coefficient is at its bound a larger C changes nothing: those pairs decide
            # as before.
            before = [] if c == 0 else [waiting[p][c - 1] for p in range(len(data.pairs))]
            same = np.array([np.array_equal(a.b, b.b) for a, b in zip(solutions, before, strict=False)] or [False])
            if not same.all():
                news = [s._replace(b=np.zeros_like(s.b)) if k else s for s, k in zip(solutions, same, strict=False)]
                model = merge(grouped, news if same.any() else solutions, Problem(kernel, C), self.asked.stopping, {})
                found = self.asked.backend.pair_decisions(model, data.X[test], self.asked.resources)
                decisions = np.where(same, decisions, found)
            n_iter = sum(found.n_iter for found in solutions)
            converged = all(found.converged for found in solutions)
            self.asked.report(Cell(column, c, fold, decisions, n_iter, converged, seconds))


def own_decisions(
    backend: SharingBackend,
    data: FoldedData,
    problem: Problem,
    stopping: Stopping,
    resources: Resources,
    report: Callable[[int, int], None] = lambda pair, fold: None,
) -> np.ndarray:
    """Decision values of every sample in its class's pairs, from models trained without it.

    Each pair's kernel values serve all folds. Other pairs have not seen the sample anyway.

    Parameters
    ----------
    backend : SharingBackend
        What trains.
    data : FoldedData
        For which `shares_values`.
    problem : Problem
        C-SVC; its class weights are those of `data`.
    stopping : Stopping
    resources : Resources
    report : callable
        Called with the places of pair and fold for each training that is done, in the caller's
        thread.

    Returns
    -------
    (n, n_classes - 1) float64 array
        As `voting.own_pairs` orders them, positive for the first class of a pair. NaN for what no
        fold holds out.
    """
    from gpusvm.solver.path import Chain

    chains, places = [], []
    for pair, blocks in enumerate(data.pairs):
        for fold in range(len(data.folds)):
            weights = data.weights_of_pair(fold, pair)
            chains.append(Chain(blocks, problem.kernel, weights, np.array([problem.C])))
            places.append((pair, fold))
    found = np.full((len(data.order), len(data.classes) - 1), np.nan)
    held_out = [_mask(fold.test, len(data.order)) for fold in data.folds]

    def keep(index: int, solved: Solved) -> None:
        pair, fold = places[index]
        i, j = data.pairs[pair]
        halves = np.split(solved.decisions[0], [len(data.blocks[i])])
        # Among the pairs of class i that with a later class j is at j - 1; among those of j, that
        # with i at i.
        for block, values, column in zip((data.blocks[i], data.blocks[j]), halves, (j - 1, i), strict=True):
            own = held_out[fold][block]
            found[block[own], column] = values[own]
        report(pair, fold)

    _solve(backend, data, chains, stopping, resources, keep)
    return found


def _mask(rows: np.ndarray, n: int) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def shares_values(
    backend: SharingBackend, data: FoldedData, problem: Problem, stopping: Stopping, resources: Resources
) -> bool:
    """Whether folds are trained soonest on kernel values that they share, as `own_decisions` does.

    So on a CPU where a training needs all values between a pair's samples anyway. A larger pair
    needs a part of them, which is another one in each fold; and small pairs, of which there may be
    thousands, are solved sooner by compiled code that goes from one to the next. A GPU has the
    rows of all folds, and is full only when many problems work.
    """
    from gpusvm.solver.working_set import AT_ONCE, SMALL

    pays = not backend.on_cpu or SMALL < data.largest_pair() <= AT_ONCE
    fits = pays and fits_memory(backend, data, resources)
    return fits and solved_together(data, problem.kernel, [problem.C], stopping)


def solved_together(data: FoldedData, kernel: Kernel, Cs: Sequence[float], stopping: Stopping) -> bool:
    """Whether trainings with this kernel and these C may be solved by `solve_columns`.

    Not with limits, which are a fit's own; nor with a sigmoid kernel, which is not positive
    semidefinite: it has many stationary points, and another start finds another.
    """
    limited = stopping.max_iter >= 0 or stopping.time_limit is not None
    finite = all(np.isfinite(C) for C in Cs)
    return kernel.name != "sigmoid" and finite and not limited and data.has_all_classes()

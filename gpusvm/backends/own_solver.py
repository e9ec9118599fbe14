"""What the backends of our own solver share: everything but where the problems are solved.

The samples become problems (`gpusvm.problem.QP`), those that a checkpoint has are left out, each
solution is kept and told of as it comes, and all of them become a model.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpusvm.backends.base import Progress, Resume
from gpusvm.backends.one_vs_one import GroupedData, Layout, group_by_class, layout_of, merge
from gpusvm.backends.single import WeightedData, make_model, weigh
from gpusvm.certificate import SignedCoefficients
from gpusvm.kernels import Array, Kernel
from gpusvm.model import SVMModel, describe_pair
from gpusvm.pairs import class_pairs
from gpusvm.params import TASKS, Problem, Resources, Stopping
from gpusvm.problem import QP, Solution, c_svc
from gpusvm.process_wide import SharedContext

MANY = 1000
"""Pairs from which on the garbage collector waits: it would look through all of them again and
again, and find none."""


@contextmanager
def _pause_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_no_collection = SharedContext(_pause_collection)


@dataclass
class Work:
    """Problems over the same samples, to be solved.

    Attributes
    ----------
    X : (n_given, n_features) array
        The samples, as given to fit.
    blocks : list of int64 arrays
        For each block that problems name, the rows of X that are in it.
    problems : list of QP
    kernel, stopping, resources
        What `fit` was asked for.
    report : callable
        Called with the place of each problem that is solved, and its solution.
    solved : dict of int to Solution
        By the places of their problems: to begin with, those of an earlier run.
    meanwhile : callable
        To be called where all coefficients are known and a device computes gaps, once: does on the
        host what needs no gaps.
    """

    X: Array
    blocks: list[np.ndarray]
    problems: list[QP]
    kernel: Kernel
    stopping: Stopping
    resources: Resources
    report: Callable[[int, Solution], None]
    solved: dict[int, Solution] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None

    def begin(self) -> tuple[list[QP], Callable[[int, int, Solution], None]]:
        """The problems not solved yet, and what our solver is to call for each of them.

        It is given the number of those done, the place among these problems, and the solution.
        """
        waiting = [place for place in range(len(self.problems)) if place not in self.solved]

        def keep(done: int, index: int, solution: Solution) -> None:
            self.solved[waiting[index]] = solution
            self.report(waiting[index], solution)

        return [self.problems[place] for place in waiting], keep

    def solutions(self) -> list[Solution]:
        """Those of all problems, in their order."""
        return [self.solved[place] for place in range(len(self.problems))]


class OwnSolverBackend(ABC):
    """A backend that has problems of every kind solved by our own solver."""

    name: str
    tasks = frozenset(TASKS)
    resumable = True
    goes_on = True
    shares_folds = True
    takes_sparse = True

    @abstractmethod
    def solve(self, work: Work) -> dict[str, Any]:
        """Solve what there is to do, so that `work.solved` has all; returns the provenance.

        Raises
        ------
        TrainingError
            Memory ran out.
        """

    def train(
        self,
        X: Array,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None,
        progress: Progress | None,
        resume: Resume,
    ) -> SVMModel:
        """The model of these samples; see `Backend.fit`."""
        if not problem.classifies:
            data = weigh(X, y, problem, sample_weight)
            return self._train_single(data, problem, stopping, resources, progress, resume.start)
        grouped = group_by_class(X, y, problem, sample_weight)
        with _no_collection if len(grouped.pairs) >= MANY else nullcontext():
            return self._train_pairs(grouped, problem, stopping, resources, progress, resume)

    def _train_pairs(
        self,
        data: GroupedData,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        progress: Progress | None,
        resume: Resume,
    ) -> SVMModel:
        checkpoint = resume.checkpoint
        if checkpoint is not None:
            checkpoint.open(data, problem, stopping, self.name)

        def report(index: int, solution: Solution) -> None:
            if checkpoint is not None and not solution.cut_off:
                checkpoint.add(index, solution)
            if progress is not None:
                name = describe_pair(data.classes, data.pairs[index])
                progress(len(work.solved), len(data.pairs), f"{name}, gap {solution.kkt_gap:.1e}")

        work = Work(
            data.given,
            data.members,
            pair_problems(data, problem, resume.start),
            problem.kernel,
            stopping,
            resources,
            report,
        )
        if checkpoint is not None:
            work.solved.update(checkpoint.solved)
        layout: list[Layout] = []
        work.meanwhile = lambda: layout.append(layout_of(data, work.solutions()))
        provenance = self.solve(work)
        solutions = work.solutions()
        provenance["pairs_in_float64"] = sum(solution.in_float64 for solution in solutions)
        return merge(data, solutions, problem, stopping, provenance, *layout)

    def _train_single(
        self,
        data: WeightedData,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        progress: Progress | None,
        start: SVMModel | None,
    ) -> SVMModel:
        def report(index: int, solution: Solution) -> None:
            if progress is not None:
                progress(1, 1, f"gap {solution.kkt_gap:.1e}")

        stated = [data.stated(problem, start)]
        work = Work(data.given, [data.rows], stated, problem.kernel, stopping, resources, report)
        provenance = self.solve(work)
        [solution] = work.solutions()
        return make_model(data, solution, problem, stopping, {**provenance, "in_float64": solution.in_float64})


def pair_problems(data: GroupedData, problem: Problem, start: SVMModel | None = None) -> list[QP]:
    """C-SVC of each pair, from the coefficients of `start` on.

    The blocks are the classes of `data.trained`.
    """
    pairs, bounds = class_pairs(len(data.trained)), data.upper_bounds(problem.C)
    if start is None:
        return c_svc(pairs, bounds)
    coefficients, members = SignedCoefficients(start, data.given.shape[0]), data.members
    begin = [
        coefficients.of_pair(*pair)[np.concatenate([members[a], members[b]])]
        for pair, (a, b) in zip(data.pairs, pairs, strict=True)
    ]
    return c_svc(pairs, bounds, begin)

"""Our own solver, on all CPU cores: `gpusvm.solver` behind the two verbs of a backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from gpusvm.backends.base import FROM_NOTHING, Availability, Progress, Resume
from gpusvm.backends.own_solver import OwnSolverBackend, Work
from gpusvm.device import installed
from gpusvm.errors import TrainingError
from gpusvm.jobs import as_they_finish, effective_jobs, n_cores, run_elsewhere
from gpusvm.kernels import Array, Kernel, near_the_origin
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.predict import compile_for_models_of
from gpusvm.problem import QP, Solution
from gpusvm.sparse import is_sparse, unpacked_if_smaller

if TYPE_CHECKING:
    from gpusvm.solver.path import Chain, Solved


class NativeCpuBackend(OwnSolverBackend):
    """Working sets and SMO on kernel rows, the class pairs side by side; see docs/solver.md."""

    name = "native-cpu"
    runs = "gpusvm's own solver on all CPU cores"
    on_cpu = True

    def probe(self) -> Availability:
        if not installed("numba"):
            return Availability(False, "Numba is not installed", "pip install numba")
        if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            return Availability(False, "Numba is told to compile nothing", "unset NUMBA_DISABLE_JIT")
        detail = {"numba": _numba_version(), "cores": n_cores()}
        return Availability(True, f"always available; {n_cores()} cores", detail=detail)

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
        resume: Resume = FROM_NOTHING,
    ) -> SVMModel:
        announce_compilation()
        compile_for_models_of(X, problem.kernel)
        return self.train(
            X, y, problem, stopping, resources,
            sample_weight=sample_weight, progress=progress, resume=resume,
        )  # fmt: skip

    def solve(self, work: Work) -> dict[str, Any]:
        from gpusvm.solver import solve

        provenance: dict[str, Any] = {"backend": self.name, "numba": _numba_version()}

        def budget_mb() -> float:
            budget = work.resources.cache_size or default_cache_mb()
            provenance["cache_mb"] = round(budget)
            return budget

        problems, keep = work.begin()
        moved, kernel, stopping = near_the_origin(_in_order(work.X), work.kernel), work.kernel, work.stopping
        try:
            # A limit on the time is one for all pairs: it is shared out where they are solved.
            if len(problems) > 1 and stopping.time_limit is None and run_elsewhere():
                _solve_elsewhere(moved, work.blocks, problems, kernel, stopping, budget_mb(), keep)
                return provenance
            solve(
                moved,
                work.blocks,
                problems,
                kernel,
                stopping,
                budget_mb=budget_mb,
                n_threads=effective_jobs(work.resources.n_jobs),
                progress=keep,
            )
        except MemoryError as error:
            raise TrainingError(f"not enough memory to train: {error}") from error
        return provenance

    def solve_chains(
        self,
        X: np.ndarray,
        blocks: Sequence[np.ndarray],
        chains: Sequence[Chain],
        stopping: Stopping,
        resources: Resources,
        report: Callable[[int, Solved], None],
        look: Callable[[], None],
    ) -> None:
        from gpusvm.solver.path import solve_chains

        announce_compilation()
        solve_chains(
            near_the_origin(_in_order(X), chains[0].kernel), blocks, chains, stopping,
            budget_mb=resources.cache_size or default_cache_mb(), n_threads=effective_jobs(resources.n_jobs),
            report=report, look=look,
        )  # fmt: skip

    def pair_decisions(self, model: SVMModel, X: Array, resources: Resources) -> np.ndarray:
        return model.pair_decisions(X, n_jobs=resources.n_jobs)


SHARES = 2
"""Tasks for each worker, where problems are solved elsewhere: none then waits long for the last
one."""


def _solve_elsewhere(
    X: Array,
    blocks: list[np.ndarray],
    problems: list[QP],
    kernel: Kernel,
    stopping: Stopping,
    budget_mb: float,
    keep: Callable[[int, int, Solution], None],
) -> None:
    """`solve`, by joblib's workers, to the same bits: `keep` is told of each problem's solution.

    Small problems stay here. They take less time than the samples take to get there; and they
    share their kernel values, whose last digits may depend on which of them there are.
    """
    from gpusvm.solver import solve
    from gpusvm.solver.working_set import SMALL

    small, large = ([k for k, one in enumerate(problems) if (one.n <= SMALL) == is_small] for is_small in (True, False))
    n_done = 0

    def report(places: Sequence[int], solutions: Sequence[Solution]) -> None:
        nonlocal n_done
        for place, solution in zip(places, solutions, strict=True):
            n_done += 1
            keep(n_done, place, solution)

    if small:
        chosen = [problems[k] for k in small]
        report(small, solve(X, blocks, chosen, kernel, stopping, budget_mb=budget_mb, n_threads=n_cores()))
    n_workers = effective_jobs(None)
    n_tasks = min(len(large), SHARES * n_workers)
    # The largest first, dealt out: tasks are of about one length.
    order = sorted(large, key=lambda k: -problems[k].n)
    tasks = (
        joblib.delayed(_solve_some)(order[t::n_tasks], X, blocks, [problems[k] for k in order[t::n_tasks]], kernel,
                                    stopping, budget_mb)
        for t in range(n_tasks)
    )  # fmt: skip
    with closing(as_they_finish(tasks, n_workers)) as outcomes:
        for places, solutions in outcomes:
            report(places, solutions)


def _solve_some(
    places: list[int],
    X: Array,
    blocks: list[np.ndarray],
    problems: list[QP],
    kernel: Kernel,
    stopping: Stopping,
    budget_mb: float,
) -> tuple[list[int], list[Solution]]:
    """What a worker does, on one thread: it may have others for other tasks."""
    from gpusvm.solver import solve

    return places, solve(X, blocks, problems, kernel, stopping, budget_mb=budget_mb, n_threads=1)


def _in_order(X: Array) -> Array:
    """X (n, n_features) in C order, or CSR."""
    X = unpacked_if_smaller(X)
    return X if is_sparse(X) else np.ascontiguousarray(X)


@cache
def _numba_version() -> str:
    return version("numba")


def announce_compilation() -> None:
    """Say so, once on a machine, before the solver is compiled, which takes 5 to 20 s."""
    from gpusvm.solver.compilation import is_compiled, is_kept
    from gpusvm.solver.smo import solve_working_set

    if not is_compiled(solve_working_set):
        kept = "once; it is kept for later runs"
        lost = "for this run only: no folder to keep it in can be written; set NUMBA_CACHE_DIR to one that can"
        because = kept if is_kept(solve_working_set) else lost
        print(f"gpusvm: compiling the solver for this machine ({because}) ...", file=sys.stderr)


backend = NativeCpuBackend()

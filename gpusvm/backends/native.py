"""Our own solver, on all CPU cores: `gpusvm.solver` behind the two verbs of a backend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import joblib
import numpy as np

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.checkpoint import Checkpoint
from gpusvm.backends.one_vs_one import GroupedData, PairSolution, group_by_class, merge
from gpusvm.device import installed
from gpusvm.errors import TrainingError
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import near_the_origin
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel, class_pairs, describe_pair
from gpusvm.params import Problem, Resources, Stopping

if TYPE_CHECKING:
    from gpusvm.solver import PairResult


class NativeCpuBackend:
    """Active sets and SMO on kernel rows, the class pairs side by side; see docs/solver.md."""

    name = "native-cpu"
    runs = "gpusvm's own solver on all CPU cores"
    resumable = True

    def probe(self) -> Availability:
        if not installed("numba"):
            return Availability(False, "Numba is not installed", "pip install numba")
        detail = {"numba": version("numba"), "cores": joblib.cpu_count()}
        return Availability(True, f"always available; {joblib.cpu_count()} cores", detail=detail)

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
        checkpoint: Checkpoint | None = None,
    ) -> SVMModel:
        announce_compilation()
        from gpusvm.solver import solve_one_vs_one
        from gpusvm.solver.prediction import prepare

        prepare()

        data = group_by_class(X, y, problem, sample_weight)
        if checkpoint is not None:
            checkpoint.open(data, problem, stopping, self.name)
        solved = dict(checkpoint.solved) if checkpoint is not None else {}
        report = report_pairs(data, progress)
        # The solver counts the classes that it is given; of one left out of training it is given nothing.
        ranks = class_pairs(len(data.trained))
        index_of = {pair: index for index, pair in enumerate(ranks)}
        in_float64: set[tuple[int, int]] = set()

        def keep(done: int, pair: tuple[int, int], result: PairResult) -> None:
            index = index_of[pair]
            solved[index] = pair_solution(result)
            if result.in_float64:
                in_float64.add(pair)
            if checkpoint is not None:
                checkpoint.add(index, solved[index])
            report(len(solved), pair, result)

        budget_mb = resources.cache_size or default_cache_mb()
        try:
            solve_one_vs_one(
                near_the_origin(np.ascontiguousarray(X), problem.kernel),
                data.members,
                data.upper_bounds(problem.C),
                problem.kernel,
                stopping,
                budget_mb=budget_mb,
                n_threads=effective_jobs(resources.n_jobs),
                progress=keep,
                pairs=[pair for p, pair in enumerate(ranks) if p not in solved],
            )
        except MemoryError as error:
            raise TrainingError(f"not enough memory to train: {error}") from error
        provenance = {
            "backend": self.name,
            "numba": version("numba"),
            "cache_mb": round(budget_mb),
            "pairs_in_float64": len(in_float64),
        }
        return merge(data, [solved[p] for p in range(len(data.pairs))], problem, stopping, provenance)


def report_pairs(data: GroupedData, progress: Progress | None) -> Callable[[int, tuple[int, int], PairResult], None]:
    """What the solvers call after each pair, in the words that a person reads."""

    def report(done: int, pair: tuple[int, int], result: PairResult) -> None:
        if progress is not None:
            name = describe_pair(data.classes[data.trained], pair)
            progress(done, len(data.pairs), f"{name}, gap {result.kkt_gap:.1e}")

    return report


def pair_solution(result: PairResult) -> PairSolution:
    support = np.flatnonzero(result.beta)
    return PairSolution(
        support=support,
        dual_coef=result.beta[support],
        intercept=result.intercept,
        n_iter=result.n_iter,
        converged=result.converged,
        kkt_gap=result.kkt_gap,
        dual_objective=result.dual_objective,
        too_coarse=result.too_coarse,
    )


def announce_compilation() -> None:
    """Say so, once on a machine, before the solver is compiled: some 20 s in which nothing else happens."""
    from gpusvm.solver.compilation import is_compiled, is_kept
    from gpusvm.solver.smo import solve_working_set

    if not is_compiled(solve_working_set):
        kept = "once; it is kept for later runs"
        lost = "for this run only: no folder to keep it in can be written; set NUMBA_CACHE_DIR to one that can"
        because = kept if is_kept(solve_working_set) else lost
        print(f"gpusvm: compiling the solver for this machine ({because}) ...", file=sys.stderr)


backend = NativeCpuBackend()

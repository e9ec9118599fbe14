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
from gpusvm.errors import TrainingError, UsageError
from gpusvm.jobs import effective_jobs
from gpusvm.kernels import Array, Kernel, rbf_offset
from gpusvm.memory import available_mb
from gpusvm.model import SVCParams, SVMModel, describe_pair

if TYPE_CHECKING:
    from gpusvm.solver import PairResult


class NativeCpuBackend:
    """Active sets and SMO on float32 kernel rows, the class pairs side by side; see docs/solver.md."""

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
        params: SVCParams,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> SVMModel:
        announce_compilation()
        from gpusvm.solver import solve_one_vs_one
        from gpusvm.solver.prediction import prepare

        prepare()

        data = group_by_class(X, y, params, sample_weight)
        if checkpoint is not None:
            checkpoint.open(data, params, self.name)
        solved = dict(checkpoint.solved) if checkpoint is not None else {}
        report = report_pairs(data, progress)
        index_of = {pair: index for index, pair in enumerate(data.pairs)}

        def keep(done: int, pair: tuple[int, int], result: PairResult) -> None:
            index = index_of[pair]
            solved[index] = pair_solution(result)
            if checkpoint is not None:
                checkpoint.add(index, solved[index])
            report(len(solved), pair, result)

        budget_mb = params.cache_size or available_mb() / 3
        try:
            solve_one_vs_one(
                near_the_origin(np.ascontiguousarray(X, dtype=np.float32), params.kernel),
                data.members,
                data.upper_bounds(params.C),
                params.kernel,
                tol=params.tol,
                max_iter=params.max_iter,
                budget_mb=budget_mb,
                n_threads=effective_jobs(params.n_jobs),
                progress=keep,
                pairs=[pair for p, pair in enumerate(data.pairs) if p not in solved],
            )
        except MemoryError as error:
            raise TrainingError(f"not enough memory to train: {error}") from error
        except OverflowError as error:
            raise UsageError(str(error)) from error
        provenance = {"backend": self.name, "numba": version("numba"), "cache_mb": round(budget_mb)}
        return merge(data, [solved[p] for p in range(len(data.pairs))], params, provenance)


def report_pairs(data: GroupedData, progress: Progress | None) -> Callable[[int, tuple[int, int], PairResult], None]:
    """What the solvers call after each pair, in the words that a person reads."""

    def report(done: int, pair: tuple[int, int], result: PairResult) -> None:
        if progress is not None:
            progress(done, len(data.pairs), f"{describe_pair(data.classes, pair)}, gap {result.kkt_gap:.1e}")

    return report


def near_the_origin(X: Array, kernel: Kernel) -> Array:
    """X, or X moved where float32 would otherwise lose the distances between its rows."""
    offset = rbf_offset(X) if kernel.name == "rbf" else None
    return X if offset is None else X - offset


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

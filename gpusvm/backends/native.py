"""Our own solver, on all CPU cores: `gpusvm.solver` behind the two verbs of a backend."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import joblib
import numpy as np

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.one_vs_one import PairSolution, group_by_class, merge
from gpusvm.device import installed
from gpusvm.errors import TrainingError
from gpusvm.kernels import Kernel, rbf_offset
from gpusvm.memory import available_mb
from gpusvm.model import SVCParams, SVMModel, describe_pair


class NativeCpuBackend:
    """Active sets and SMO on float32 kernel rows, the class pairs side by side; see docs/solver.md."""

    name = "native-cpu"
    runs = "gpusvm's own solver on all CPU cores"

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
    ) -> SVMModel:
        announce_compilation()
        from gpusvm.solver import PairResult, solve_one_vs_one
        from gpusvm.solver.prediction import prepare

        prepare()

        data = group_by_class(X, y, params, sample_weight)
        slices = [data.class_slice(c) for c in range(len(data.classes))]
        weights = np.ones(len(data.rows)) if data.weights is None else data.weights

        def report(done: int, pair: tuple[int, int], result: PairResult) -> None:
            if progress is not None:
                latest = f"{describe_pair(data.classes, pair)}, gap {result.kkt_gap:.1e}"
                progress(done, len(data.pairs), latest)

        try:
            results = solve_one_vs_one(
                _near_the_origin(np.ascontiguousarray(X, dtype=np.float32), params.kernel),
                [data.rows[s] for s in slices],
                [params.C * weights[s] for s in slices],
                params.kernel,
                tol=params.tol,
                max_iter=params.max_iter,
                budget_mb=params.cache_size or available_mb() / 3,
                n_threads=joblib.effective_n_jobs(-1 if params.n_jobs is None else params.n_jobs),
                progress=report,
            )
        except MemoryError as error:
            raise TrainingError(f"not enough memory to train: {error}") from error
        return merge(data, [_solution(result) for result in results], params, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        return {"backend": self.name, "numba": version("numba")}


def _near_the_origin(X: np.ndarray, kernel: Kernel) -> np.ndarray:
    """X, or X moved where float32 would otherwise lose the distances between its rows."""
    offset = rbf_offset(X) if kernel.name == "rbf" else None
    return X if offset is None else X - offset


def _solution(result: Any) -> PairSolution:
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

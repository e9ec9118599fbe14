"""Our own solver on a CUDA GPU: `gpusvm.solver.cuda` behind the two verbs of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.native import pair_problems, report_pairs
from gpusvm.backends.one_vs_one import GroupedData, checked_solution, group_by_class, merge, pair_block
from gpusvm.device import gpu_failures, is_interrupt, one_line, probe_cuda, training_on_gpu
from gpusvm.errors import TrainingError
from gpusvm.kernels import near_the_origin
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel
from gpusvm.packages import package_versions
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.problem import Solution

if TYPE_CHECKING:
    from gpusvm.solver.cuda import Device


class NativeCudaBackend:
    """All class pairs in lockstep, one thread block each; see docs/solver.md."""

    name = "native-cuda"
    runs = "gpusvm's own solver on a CUDA GPU"
    tasks = frozenset({"c_svc"})
    resumable = False
    goes_on = False
    shares_folds = False
    takes_sparse = False

    def probe(self) -> Availability:
        device = probe_cuda()
        if not device.ok:
            return device
        wrong = _what_is_wrong()
        return Availability(False, f"{device.reason}, but {wrong}", detail=device.detail) if wrong else device

    def fit(
        self,
        X: Any,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> SVMModel:
        advice = "gpusvm info shows whether it still works, --backend native-cpu trains without it"
        with gpu_failures(advice), training_on_gpu(resources.device) as pool:
            return self._fit(X, y, problem, stopping, resources, sample_weight, progress, pool)

    def _fit(
        self,
        X: Any,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        sample_weight: np.ndarray | None,
        progress: Progress | None,
        pool: Any,
    ) -> SVMModel:
        import cupy

        from gpusvm.solver.cuda import solve_in_lockstep

        budget_mb = resources.cache_size or default_cache_mb(free_mb())
        try:
            data = group_by_class(cupy.asarray(X), y, problem, sample_weight)
            results = solve_in_lockstep(
                near_the_origin(data.given, problem.kernel),
                data.members,
                pair_problems(data, problem),
                problem.kernel,
                stopping,
                device=solver_device(),
                budget_mb=budget_mb,
                progress=report_pairs(data, progress),
            )
        except MemoryError as error:
            raise TrainingError(
                f"not enough memory on the GPU to train: {one_line(error)}; raise cache_size, free memory on "
                "the device, or train with --backend native-cpu"
            ) from error
        provenance = {
            "backend": self.name,
            **package_versions(("cupy",)),
            "cache_mb": round(budget_mb),
            "peak_gpu_mb": round(pool.total_bytes() / 2**20),
        }
        return merge(data, _checked(data, results, problem, stopping), problem, stopping, provenance)


@cache
def _what_is_wrong() -> str:
    """Why the solver's kernels do not run on the current device, empty where they do; asked once in a process.

    Never raises.
    """
    try:
        with training_on_gpu(None):
            _launch_a_kernel()
    except Exception as error:
        if is_interrupt(error):
            raise
        return f"its kernels do not run there: {one_line(error)}"
    return ""


def _launch_a_kernel() -> None:
    """Compile what training uses, launch a kernel and check what it wrote.

    Raises whatever CuPy raises, or ArithmeticError for a wrong result.
    """
    import cupy

    values = cupy.asarray(np.arange(40, dtype=np.float32))
    solver_device().kernels.twice(values)
    if not np.array_equal(values.get(), 2.0 * np.arange(40)):
        raise ArithmeticError("a kernel that doubles 40 numbers wrote others")


def _checked(data: GroupedData, results: Sequence[Solution], problem: Problem, stopping: Stopping) -> list[Solution]:
    """The solutions, their gaps recomputed in float64 on the device: its kernel values are float32."""
    checked = []
    for pair, result in zip(data.pairs, results, strict=True):
        first, second = (data.class_slice(c) for c in pair)
        X = pair_block(data.X, first, second, precomputed=data.precomputed)
        n_first, weights = first.stop - first.start, data.pair_weights(pair)
        checked.append(checked_solution(problem, stopping, X, n_first, weights, result))
    return checked


def free_mb() -> float:
    """Free memory of the current CUDA device, in MB; what CuPy's default pool keeps for itself
    counts as free."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.cuda.runtime.memGetInfo()[0] / 2**20


@cache
def solver_device() -> Device:
    """CuPy, and the kernels compiled by it for the current device."""
    import cupy

    from gpusvm.solver.cuda import Device
    from gpusvm.solver.cuda_kernels import Kernels
    from gpusvm.solver.cuda_rows import DeviceRows

    major, minor = divmod(int(cupy.cuda.Device().compute_capability), 10)
    rows = partial(DeviceRows, raw_module=cupy.RawModule, xp=cupy, capability=(major, minor))
    return Device(cupy, Kernels(cupy.RawModule), rows, out_of_memory=(MemoryError, cupy.cuda.memory.OutOfMemoryError))


backend = NativeCudaBackend()

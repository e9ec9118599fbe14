"""Our own solver on a CUDA GPU: `gpusvm.solver.lockstep` behind the two verbs of a backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.native import pair_solution, report_pairs
from gpusvm.backends.one_vs_one import group_by_class, merge
from gpusvm.device import extra_for, installed, on_device, one_line, probe_cuda
from gpusvm.errors import TrainingError
from gpusvm.kernels import near_the_origin
from gpusvm.memory import default_cache_mb
from gpusvm.model import SVMModel
from gpusvm.packages import package_versions
from gpusvm.params import Problem, Resources, Stopping

if TYPE_CHECKING:
    from gpusvm.solver.lockstep import Device


class NativeCudaBackend:
    """All class pairs in lockstep, one thread block each; see docs/solver.md."""

    name = "native-cuda"
    runs = "gpusvm's own solver on a CUDA GPU"
    resumable = False

    def probe(self) -> Availability:
        device = probe_cuda()
        if device.ok and not installed("numba_cuda"):
            hint = extra_for(device.detail["driver_cuda_version"])
            return Availability(False, f"{device.reason}, but numba-cuda is not installed", hint, device.detail)
        return device

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
        import cupy

        from gpusvm.solver.lockstep import solve_in_lockstep

        with on_device(resources.device), _one_stream():
            budget_mb = resources.cache_size or default_cache_mb(free_mb())
            try:
                data = group_by_class(cupy.asarray(X), y, problem, sample_weight)
                results = solve_in_lockstep(
                    near_the_origin(data.given, problem.kernel),
                    data.members,
                    data.upper_bounds(problem.C),
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
            except Exception as error:
                if not _is_of_the_gpu(error):
                    raise
                raise TrainingError(
                    f"the GPU failed while training ({one_line(error)}); gpusvm info shows whether it still works"
                ) from error
            provenance = {
                "backend": self.name,
                **package_versions(("cupy", "numba-cuda")),
                "cache_mb": round(budget_mb),
                "peak_gpu_mb": round(cupy.get_default_memory_pool().total_bytes() / 2**20),
            }
            return merge(data, [pair_solution(result) for result in results], problem, stopping, provenance)


@contextmanager
def _one_stream() -> Iterator[None]:
    """CuPy and numba-cuda on the same stream, the default one, after what the caller's has yet to do."""
    import cupy

    cupy.cuda.get_current_stream().synchronize()
    with cupy.cuda.Stream.null:
        yield


def _is_of_the_gpu(error: Exception) -> bool:
    """Whether CuPy or numba-cuda raised this: a device lost, a launch refused, a compiler missing."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, RuntimeError) or package in {"cupy", "cupy_backends", "cuda", "numba", "numba_cuda"}


def free_mb() -> float:
    """Free memory of the current CUDA device, in MB; what CuPy's pool keeps for itself counts as free."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.cuda.runtime.memGetInfo()[0] / 2**20


@cache
def solver_device() -> Device:
    """CuPy, and the kernels compiled by numba-cuda."""
    import cupy

    from gpusvm.solver.cuda_kernels import LARGEST_ACTIVE, kernels
    from gpusvm.solver.lockstep import Device

    return Device(cupy, *kernels(), LARGEST_ACTIVE)


backend = NativeCudaBackend()

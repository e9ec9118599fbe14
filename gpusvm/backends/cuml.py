"""cuML's SVC and SVR on the GPU: its binary solver takes each pair in turn.

The samples stay on the device. cuML's own multi-class SVC hands the data back to the host, loops
scikit-learn's OneVsOneClassifier there and ignores sample weights (before 26.10); its binary one
does neither, so the loop is ours.

Read in the sources of cuML 26.2 to 26.10, where versions differ and it matters here:

- 25.10 has no ``n_iter_``; in 25.12 ``max_iter`` bounds outer iterations and precomputed kernels
  are refused. From 26.2 on ``max_iter`` bounds inner steps, and ``n_iter_`` counts them, whatever
  its docstring says: they compare with LIBSVM's. Nothing says whether `tol` was reached: cuML
  also gives up, with a line in its log, where its gap does not change for `nochange_steps`. So
  the gap is computed anew here.
- ``fit`` lost `convert_dtype` in 26.10, the constructor `handle` in 26.4 and `probability` in
  26.8: none is used. float32 columns in Fortran order are taken as they are by all.
- ``cuml.set_global_output_type`` beats an estimator's own `output_type`, hence
  ``using_output_type`` around it all.
- The solver works on the stream of the thread in all of them; from 26.6 on what cuML does with
  CuPy does too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.one_vs_one import GroupedData, checked_solution, group_by_class, merge, pair_block
from gpusvm.backends.single import WeightedData, checked, make_model, weigh
from gpusvm.backends.sklearn import library_arguments
from gpusvm.certificate import ACCEPTED, pair_gap
from gpusvm.device import (
    extra_for,
    failed_library,
    gpu_failures,
    installed,
    is_interrupt,
    one_line,
    probe_cuda,
    to_device,
    training_on_gpu,
)
from gpusvm.errors import TrainingError
from gpusvm.kernels import Array, Kernel, array_module, largest_norm, near_the_origin
from gpusvm.model import SVMModel, describe_pair
from gpusvm.packages import package_versions
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.problem import Solution, from_support
from gpusvm.sparse import is_sparse

ALLOWED = 0.25
"""Part of the tolerance by which rounding may put targets off."""

OLDEST = (26, 2)
"""The first cuML whose SVC is as used here; see the top of this file."""

CACHE_MB = 2000.0
"""Memory of the device for kernel values where the caller asks for none: cuML's default of 1,024
MiB, doubled."""


class CumlBackend:
    """The class pairs one after another through cuML's binary SVC, sliced on the device.

    CuPy's arrays come from the pool of `gpusvm.device.training_pool`. What cuML's C++ code takes,
    its cache of kernel values above all, comes from RMM's current resource, which stays as the
    caller set it.
    """

    name = "cuml"
    runs = "cuML's SVC and SVR on a CUDA GPU"
    tasks = frozenset({"c_svc", "epsilon_svr"})
    resumable = False
    goes_on = False
    shares_folds = False
    takes_sparse = True

    def probe(self) -> Availability:
        return _probe()

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
        advice = "gpusvm info shows whether it still works, --backend sklearn trains without it"
        with gpu_failures(advice):
            import cuml  # noqa: F401 - sets CuPy's allocator, which CuPy refuses from the next line on

            with training_on_gpu(resources.device):
                if not problem.classifies:
                    data = _on_device(weigh, X, y, problem, sample_weight)
                    return self._solve_single(data, problem, stopping, resources, progress)
                data = _on_device(group_by_class, X, y, problem, sample_weight)
                return self._solve(data, problem, stopping, resources, progress)

    def _solve(
        self,
        data: GroupedData,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        progress: Progress | None,
    ) -> SVMModel:
        samples = _samples(data, problem.kernel)
        solutions = []
        for pair in data.pairs:
            try:
                solutions.append(_solve_pair(data, samples, pair, problem, stopping, resources))
            except Exception as error:
                if failed_library(error) is None and not isinstance(error, MemoryError):
                    raise
                what = f"the pair {describe_pair(data.classes, pair)}"
                raise TrainingError(_failure(what, data.pair_size(pair), data.given.shape[1], error)) from error
            if progress is not None:
                progress(len(solutions), len(data.pairs), describe_pair(data.classes, pair))
        return merge(data, solutions, problem, stopping, _provenance())

    def _solve_single(
        self,
        data: WeightedData,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        progress: Progress | None,
    ) -> SVMModel:
        samples = _samples(data, problem.kernel)
        # It takes targets in the samples' precision.
        if np.abs(data.y).max() * np.finfo(np.float32).eps > ALLOWED * stopping.tol:
            samples = samples.astype(np.float64, copy=False)
        arguments = library_arguments(problem, stopping)
        try:
            samples = _as_cuml_takes(samples)
            found = _fit_regression(samples, data.y, data.weights, resources.cache_size or CACHE_MB, arguments)
        except Exception as error:
            if failed_library(error) is None and not isinstance(error, MemoryError):
                raise
            n, n_columns = samples.shape
            raise TrainingError(_failure("the regression", n, n_columns, error)) from error
        if progress is not None:
            progress(1, 1, "cuML")
        found = checked(data, problem, stopping, found, tells_the_end=False)
        return make_model(data, found, problem, stopping, _provenance())


@cache
def _probe() -> Availability:
    """Whether cuML trains on the device, asked once in a process. Never raises."""
    device = probe_cuda()
    if not device.ok:
        return device
    hint = extra_for(device.detail["driver_cuda_version"])
    if not installed("cuml"):
        return Availability(False, f"{device.reason}, but cuML is not installed", hint, device.detail)
    # Before it is imported, which takes ten seconds and changes CuPy.
    version = package_versions(("cuml",)).get("cuml")
    try:
        if version is None or not _is_too_old(version):
            import cuml

            version = cuml.__version__
        if _is_too_old(version):
            oldest = ".".join(map(str, OLDEST))
            name = "cuml-cu13" if "cuda13" in hint else "cuml-cu12"
            reason = f"{device.reason}, but cuML {version} is too old: {oldest} is needed"
            return Availability(False, reason, f'pip install "{name}>={oldest}"', device.detail)
        with training_on_gpu(None):
            _train_something()
    except Exception as error:
        if is_interrupt(error):
            raise
        reason = f"{device.reason}, but cuML {version or ''} is broken: {one_line(error)}".replace("  ", " ")
        return Availability(False, reason, hint, device.detail)
    return Availability(True, f"{device.reason}, cuML {version}", detail=device.detail)


def _is_too_old(version: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST


def _train_something() -> None:
    """Two classes of four points through the very calls that a training makes, its result checked.

    Raises whatever cuML or CuPy raises, or ArithmeticError for a wrong result.
    """
    import cupy

    tol, kernel = 1e-3, Kernel("linear")
    points = np.array([[-3, 0], [-2, 1], [-1, 0], [-2, -1], [1, 0], [2, 1], [3, 0], [2, -1]])
    block = cupy.asarray(points, dtype=np.float32, order="F")
    arguments = {"C": 1.0, "kernel": "linear", "gamma": 1.0, "degree": 3, "coef0": 0.0, "tol": tol, "max_iter": -1}
    found = _fit_binary(block, 4, np.full(8, 2.0), 10.0, arguments)
    gap = pair_gap(kernel, block, 4, np.full(8, 2.0), found.support, found.dual_coef)
    if not gap <= ACCEPTED * tol:
        raise ArithmeticError(f"an SVC of eight points was solved to a gap of {gap:.1e} instead of {tol:g}")


def _provenance() -> dict[str, str]:
    import cuml
    import cupy

    return {"backend": CumlBackend.name, "cuml": cuml.__version__, "cupy": cupy.__version__}


def _on_device(
    prepare: Callable[..., Any], X: Any, y: np.ndarray, problem: Problem, sample_weight: np.ndarray | None
) -> Any:
    """What `prepare`, one of `group_by_class` and `weigh`, makes of them on the device.

    Sparse samples stay on the host, where each problem's gap is recomputed too, until cuML is
    given them.
    """
    if is_sparse(X):
        return prepare(X, y, problem, sample_weight)

    try:
        return prepare(to_device(X), y, problem, sample_weight)
    except Exception as error:
        if failed_library(error) is None and not isinstance(error, MemoryError):
            raise
        raise TrainingError(
            f"the samples could not be taken to the GPU ({one_line(error)}); if memory ran out, they need about "
            f"{2 * X.shape[0] * X.shape[1] * 4 / 2**20:.0f} MB on the device: take fewer, or train with "
            "--backend sklearn"
        ) from error


def _samples(data: GroupedData | WeightedData, kernel: Kernel) -> Array:
    """The samples for cuML: in float32 where that suffices for the kernel, else in float64."""
    if kernel.precomputed:
        return data.X.astype(np.float32, copy=False)
    moved = near_the_origin(data.X, kernel)
    return moved.astype(kernel.product_dtype(largest_norm(moved)), copy=False)


def _as_cuml_takes(samples: Array) -> Array:
    """Samples (n, n_features) on the device: in Fortran order, or as CuPy's CSR."""
    if not is_sparse(samples):
        return array_module(samples).asfortranarray(samples)
    from cupyx.scipy.sparse import csr_matrix as device_csr

    return device_csr(csr_matrix(samples))


def _solve_pair(
    data: GroupedData,
    samples: Array,
    pair: tuple[int, int],
    problem: Problem,
    stopping: Stopping,
    resources: Resources,
) -> Solution:
    first, second = (data.class_slice(c) for c in pair)
    n_first = first.stop - first.start
    # cuML works on columns; made so here, it need not copy the pair once more.
    block = _as_cuml_takes(pair_block(samples, first, second, precomputed=problem.kernel.precomputed, order="F"))
    weights = data.pair_weights(pair)
    arguments = library_arguments(problem, stopping)
    found = _fit_binary(block, n_first, weights, resources.cache_size or CACHE_MB, arguments)
    exact = pair_block(data.X, first, second, precomputed=problem.kernel.precomputed)
    return checked_solution(problem, stopping, exact, n_first, weights, found, tells_the_end=False)


def _fit_binary(
    block: Array, n_first: int, weights: np.ndarray | None, cache_mb: float, arguments: dict[str, Any]
) -> Solution:
    """Solve one pair.

    Parameters
    ----------
    block : (n, n_features) CuPy array, float32 or float64, Fortran order, or CSR
        The pair's samples, first class first; (n, n) kernel values for a precomputed kernel.
    n_first : int
        How many of them are of the first class.
    weights : (n,) float64 array, optional
        Factor on C of each sample.
    cache_mb : float
        For kernel values, in MB.
    arguments : dict
        cuML's own, as `library_arguments` gives them.
    """
    import cuml
    import cupy
    from cuml.svm import SVC

    labels = cupy.zeros(block.shape[0], dtype=block.dtype)
    labels[n_first:] = 1
    with cuml.using_output_type("cupy"):
        svc = SVC(cache_size=cache_mb, **arguments)
        svc.fit(block, labels, sample_weight=None if weights is None else cupy.asarray(weights, dtype=block.dtype))
        # Like scikit-learn's, a positive decision value favours the second class.
        support = svc.support_.get().astype(np.int64)
        dual_coef = -svc.dual_coef_.get().astype(np.float64).ravel()
        intercept = -float(svc.intercept_.get().ravel()[0])
        n_iter = int(np.asarray(svc.n_iter_).ravel()[0])
    # It gives up where its gap does not change for a while, with no more than a line in its log:
    # whether it came to its end is told by the gap alone, as `checked_solution` recomputes it.
    return Solution(from_support(block.shape[0], support, dual_coef), intercept, n_iter, converged=True)


def _fit_regression(
    X: Array, y: np.ndarray, weights: np.ndarray | None, cache_mb: float, arguments: dict[str, Any]
) -> Solution:
    """Solve an epsilon-SVR; the solution's coefficients are alpha - alpha*, one for each sample.

    Parameters are those of `_fit_binary`, with targets `y` (n,) float64.
    """
    import cuml
    import cupy
    from cuml.svm import SVR

    with cuml.using_output_type("cupy"):
        svr = SVR(cache_size=cache_mb, **arguments)
        weights = None if weights is None else cupy.asarray(weights, dtype=X.dtype)
        svr.fit(X, cupy.asarray(y, dtype=X.dtype), sample_weight=weights)
        support = svr.support_.get().astype(np.int64)
        dual_coef = svr.dual_coef_.get().astype(np.float64).ravel()
        intercept = float(svr.intercept_.get().ravel()[0]) if hasattr(svr.intercept_, "get") else float(svr.intercept_)
        n_iter = int(np.asarray(svr.n_iter_).ravel()[0])
    return Solution(from_support(X.shape[0], support, dual_coef), intercept, n_iter, converged=True)


def _failure(what: str, n: int, n_columns: int, error: Exception) -> str:
    need_mb = 2 * n * n_columns * 4 / 2**20
    return (
        f"cuML failed on {what} ({one_line(error)}); if memory ran out, it needs about {need_mb:.0f} MB plus "
        "cache_size on the device: lower cache_size, or train with --backend sklearn"
    )


backend = CumlBackend()

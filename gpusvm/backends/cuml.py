"""cuML's SVC on the GPU: the samples stay on the device, and its binary solver takes each pair in turn.

cuML's own multi-class SVC hands the data back to the host, loops scikit-learn's OneVsOneClassifier
and ignores sample weights; its binary one does neither, so the loop is ours.

cuML's ``max_iter`` bounds inner iterations, and its ``n_iter_`` counts outer ones, each of many inner.
So a model's `n_iter` is not comparable with LIBSVM's, and a fit that ran into a `max_iter` may count as
converged: `gpusvm.certify` tells what was reached.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gpusvm.backends.base import Availability, Progress
from gpusvm.backends.one_vs_one import GroupedData, PairSolution, group_by_class, merge, pair_block
from gpusvm.backends.sklearn import library_arguments
from gpusvm.device import extra_for, installed, on_device, one_line, probe_cuda
from gpusvm.errors import TrainingError
from gpusvm.model import SVMModel, describe_pair
from gpusvm.params import Problem, Resources, Stopping


class CumlBackend:
    """The class pairs one after another through cuML's binary SVC, sliced on the device."""

    name = "cuml"
    runs = "cuML's SVC on a CUDA GPU"
    resumable = False

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
        with on_device(resources.device):
            return self._fit(X, y, problem, stopping, resources, sample_weight, progress)

    def _fit(
        self,
        X: Any,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        sample_weight: np.ndarray | None,
        progress: Progress | None,
    ) -> SVMModel:
        import cuml
        import cupy

        data = _group_on_device(X, y, problem, sample_weight)
        solutions = []
        for pair in data.pairs:
            try:
                solutions.append(_solve_pair(data, pair, problem, stopping, resources))
            except (RuntimeError, MemoryError) as error:
                raise TrainingError(_failure(data, pair, error)) from error
            if progress is not None:
                progress(len(solutions), len(data.pairs), describe_pair(data.classes, pair))
        versions = {"cuml": cuml.__version__, "cupy": cupy.__version__}
        return merge(data, solutions, problem, stopping, {"backend": self.name, **versions})


@cache
def _probe() -> Availability:
    device = probe_cuda()
    if not device.ok:
        return device
    hint = extra_for(device.detail["driver_cuda_version"])
    if not installed("cuml"):
        return Availability(False, f"{device.reason}, but cuML is not installed", hint, device.detail)
    try:
        import cuml
        from cuml.svm import SVC  # noqa: F401
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        reason = f"{device.reason}, but cuML is broken: {type(error).__name__}: {text}"
        return Availability(False, reason, hint, device.detail)
    return Availability(True, f"{device.reason}, cuML {cuml.__version__}", detail=device.detail)


def _group_on_device(X: Any, y: np.ndarray, problem: Problem, sample_weight: np.ndarray | None) -> GroupedData:
    import cupy

    try:
        return group_by_class(cupy.asarray(X), y, problem, sample_weight)
    except (RuntimeError, MemoryError) as error:
        raise TrainingError(
            f"the samples could not be taken to the GPU ({one_line(error)}); if memory ran out, they need about "
            f"{2 * X.shape[0] * X.shape[1] * 4 / 2**20:.0f} MB on the device: take fewer, or train with "
            "--backend sklearn"
        ) from error


def _solve_pair(
    data: GroupedData, pair: tuple[int, int], problem: Problem, stopping: Stopping, resources: Resources
) -> PairSolution:
    import cupy
    from cuml.svm import SVC

    first, second = (data.class_slice(c) for c in pair)
    labels = cupy.zeros(data.pair_size(pair), dtype=np.float32)
    labels[first.stop - first.start :] = 1
    weights = data.pair_weights(pair)
    svc = SVC(cache_size=resources.cache_size or 2000.0, **library_arguments(problem, stopping))
    svc.fit(
        # cuML works on columns; made so here, it need not copy the pair once more.
        pair_block(data.X, first, second, precomputed=problem.kernel.precomputed, order="F"),
        labels,
        sample_weight=None if weights is None else cupy.asarray(weights, dtype=np.float32),
    )
    # Like scikit-learn's, a positive decision value favours the second class.
    support = cupy.asarray(svc.support_).get().astype(np.int64)
    dual_coef = -cupy.asarray(svc.dual_coef_).get().astype(np.float64).ravel()
    n_iter = int(np.asarray(svc.n_iter_).ravel()[0])
    ascending = np.argsort(support)
    return PairSolution(
        support=support[ascending],
        dual_coef=dual_coef[ascending],
        intercept=-float(cupy.asarray(svc.intercept_).get().ravel()[0]),
        n_iter=n_iter,
        # Right without a bound; with one, see the top of this file.
        converged=stopping.max_iter < 0 or n_iter < stopping.max_iter,
    )


def _failure(data: GroupedData, pair: tuple[int, int], error: Exception) -> str:
    need_mb = 2 * data.pair_size(pair) * data.X.shape[1] * 4 / 2**20
    return (
        f"cuML failed on the pair {describe_pair(data.classes, pair)} ({one_line(error)}); "
        f"if memory ran out, the pair needs about {need_mb:.0f} MB plus cache_size on the device: "
        "lower cache_size, or train with --backend sklearn"
    )


backend = CumlBackend()

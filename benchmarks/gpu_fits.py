"""Timed fits of the same samples in one process, after one to warm up, and what came of them.

    python benchmarks/gpu_fits.py PART OUT.json [--dataset mnist] [--limit 60000] [--repeats 3]
    [--warmup 3000]

PART is one of `PARTS`: native-cuda with samples from the host or on the device, or once more after
``import cuml``; cuML through our loop over class pairs, with CuPy's and RMM's default allocators
or with RMM's pool; cuML's own SVC of all classes; native-cpu. Times are from samples in host
memory to a fitted model, and from test samples in host memory to labels in host memory, unless the
part says that samples lie on the device. Each part is a process of its own, since ``import cuml``
changes CuPy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm import SVC, certify
from gpusvm.bench.contenders import PEER_CACHE_MB
from gpusvm.bench.machine import describe_machine
from gpusvm.bench.peak import DeviceMemory
from gpusvm.data import load_dataset
from gpusvm.device import to_device

C, GAMMA, TOL = 10.0, 0.02, 1e-3
"""Of the RBF kernel, whose results on full MNIST are known; see agreement.py."""

WARMUP, REPEATS = 3000, 3
"""Fewer samples than 3,000 take another way than all, and leave kernels to be compiled in the
timed fit."""

Fit = Callable[[Any, np.ndarray], Any]
"""Trains on X (n, n_features) float32 and y (n,): gives an object with `predict`."""


@dataclass(frozen=True)
class Part:
    """What is fitted, how often at most, and where its samples lie."""

    what: str
    prepare: Callable[[], Fit]
    on_gpu: bool = True
    on_device: bool = False
    most_repeats: int = 1_000


def backend(name: str) -> Callable[[], Fit]:
    """gpusvm's SVC with a backend."""
    return lambda: lambda X, y: SVC(C=C, gamma=GAMMA, tol=TOL, backend=name).fit(X, y)


def after_import_of_cuml() -> Fit:
    import cuml  # noqa: F401 - replaces CuPy's allocator by RMM's

    return backend("native-cuda")()


def with_a_pool() -> Fit:
    import rmm

    rmm.reinitialize(pool_allocator=True)
    return backend("cuml")()


def cumls_own() -> Fit:
    from cuml.svm import SVC as CumlSVC

    return lambda X, y: CumlSVC(C=C, kernel="rbf", gamma=GAMMA, tol=TOL, cache_size=PEER_CACHE_MB).fit(X, y)


PARTS = {
    "native-cuda": Part("native-cuda, samples from the host", backend("native-cuda")),
    "native-cuda-device": Part("native-cuda, samples on the device", backend("native-cuda"), on_device=True),
    "cuml": Part("cuML through our loop over pairs, its default allocator", backend("cuml")),
    "cuml-pool": Part("cuML through our loop over pairs, RMM's pool", with_a_pool),
    "cuml-own": Part("cuML's own SVC of all classes", cumls_own, most_repeats=1),
    "native-cuda-after-cuml": Part("native-cuda, after import cuml", after_import_of_cuml),
    "native-cpu": Part("native-cpu, for comparison", backend("native-cpu"), on_gpu=False, most_repeats=1),
}


def measure(part: Part, train: Any, test: Any, repeats: int, warmup: int) -> dict[str, Any]:
    """Fit and predict as the part says; plain JSON values."""
    X, X_test = (data.images.reshape(len(data), -1).astype(np.float32) / 255 for data in (train, test))
    fit = part.prepare()
    given, given_test = (to_device(X), to_device(X_test)) if part.on_device else (X, X_test)
    fit_seconds, predict_seconds = [], []
    with DeviceMemory(part.on_gpu) as device:
        rows = np.unique(np.linspace(0, len(X) - 1, min(warmup, len(X))).astype(int))
        warmup_seconds, model = timed(lambda: fit(X[rows], train.labels[rows]), part.on_gpu)
        model.predict(given_test[:100])
        device.start()
        for _ in range(min(repeats, part.most_repeats)):
            seconds, model = timed(lambda: fit(given, train.labels), part.on_gpu)
            fit_seconds.append(seconds)
            seconds, labels = timed(partial(labels_of, model, given_test), part.on_gpu)
            predict_seconds.append(seconds)
    svm = getattr(model, "model_", None)
    return {
        "what": part.what,
        "n_train": len(X),
        "warmup_seconds": warmup_seconds,
        "fit_seconds": fit_seconds,
        "predict_seconds": predict_seconds,
        "accuracy": float(np.mean(labels == test.labels)),
        "labels": labels.tolist(),
        "n_support_vectors": None if svm is None else svm.n_support_vectors,
        "certificate": None if svm is None else certify(svm, X, train.labels).summary(),
        "provenance": None if svm is None else svm.provenance,
        "peak_gpu_mb": device.peak_mb(),
        "machine": describe_machine(),
    }


def timed(work: Callable[[], Any], on_gpu: bool) -> tuple[float, Any]:
    """Seconds of `work`, what it queued on the device included, and what it gives."""
    start = time.perf_counter()
    result = work()
    if on_gpu:
        import cupy

        cupy.cuda.Device().synchronize()
    return time.perf_counter() - start, result


def labels_of(model: Any, X: Any) -> np.ndarray:
    labels = model.predict(X)
    return labels.get() if hasattr(labels, "get") else np.asarray(labels)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--limit", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--warmup", type=int, default=WARMUP)
    asked = parser.parse_args(arguments)
    train = load_dataset(asked.dataset, "train", limit=asked.limit)
    test = load_dataset(asked.dataset, "test")
    found = measure(PARTS[asked.part], train, test, asked.repeats, asked.warmup)
    asked.out.write_text(json.dumps({"part": asked.part, **found}, allow_nan=False))
    print(f"{found['what']}: fits {', '.join(f'{s:.3f}' for s in found['fit_seconds'])} s")


if __name__ == "__main__":
    main(sys.argv[1:])

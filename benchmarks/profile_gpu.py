"""Where native-cuda spends its time on full MNIST: seconds of each phase, with the device synchronised after each.

    python benchmarks/profile_gpu.py [--limit 60000]

The first fit pays for compilation and is not shown. Compare with the two floors: the products of the kernel rows that
were computed at the device's float32 speed, and the steps of the slowest pair at a few microseconds each.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from gpusvm.backends import get_backend
from gpusvm.data import load_dataset
from gpusvm.kernels import Kernel
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.solver.lockstep import _Group

PHASES = {
    "__init__": "samples, state",
    "fetch": "kernel rows",
    "gather": "kernel values of the active sets",
    "optimise": "SMO and gradients",
    "violators": "choosing violators",
    "join": "active sets",
    "recompute_gradients": "gradients from scratch (with rows)",
    "result": "results to the host",
}


def timed(method: Callable[..., Any], seconds: Counter[str], name: str) -> Callable[..., Any]:
    def run(*arguments: Any, **keywords: Any) -> Any:
        start = time.perf_counter()
        result = method(*arguments, **keywords)
        cupy.cuda.runtime.deviceSynchronize()
        seconds[name] += time.perf_counter() - start
        return result

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=60_000)
    train = load_dataset("mnist", "train", limit=parser.parse_args().limit)
    X = cupy.asarray(train.images.reshape(len(train), -1).astype(np.float32) / 255)
    asked = Problem(Kernel("rbf", gamma=0.02), C=10.0), Stopping(), Resources()
    backend = get_backend("native-cuda")
    backend.fit(X, train.labels, *asked)
    start = time.perf_counter()
    model = backend.fit(X, train.labels, *asked)
    print(f"fit, not profiled: {time.perf_counter() - start:.3f} s")
    print(f"{model.n_iter.sum():,} SMO steps, {model.n_iter.max():,} in the slowest pair")

    seconds: Counter[str] = Counter()
    rows_computed = []
    kernel_rows = _Group.kernel_rows
    _Group.kernel_rows = lambda self, part: (rows_computed.append(len(part)), kernel_rows(self, part))[1]
    for name in PHASES:
        setattr(_Group, name, timed(getattr(_Group, name), seconds, name))
    start = time.perf_counter()
    backend.fit(X, train.labels, *asked)
    total = time.perf_counter() - start
    for name, what in PHASES.items():
        print(f"{seconds[name]:8.3f} s  {what}")
    print(f"{total:8.3f} s  in all, profiled")
    products = 2.0 * sum(rows_computed) * len(train) * X.shape[1]
    print(f"{sum(rows_computed):,} kernel rows: {products / 1e12:.2f} TFLOP of products")


if __name__ == "__main__":
    main()

"""Where native-cuda spends its time on full MNIST: seconds in each kernel.

    python benchmarks/profile_gpu.py [--dataset mnist] [--limit 60000]

The device is waited for after each launch. The first fit pays for compilation and is not shown.
What is left beside the kernels is the host, and copies. Compare with the estimates of
docs/solver.md.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpusvm.backends import get_backend
from gpusvm.data import load_dataset
from gpusvm.kernels import Kernel
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.solver.cuda_kernels import Kernels
from gpusvm.solver.cuda_rows import DeviceRows

NOT_LAUNCHES = ("function", "twice")


def launches() -> Iterator[tuple[type, str]]:
    """The methods that launch kernels: all public ones of `Kernels`, and `DeviceRows.compute`."""
    for name, _ in inspect.getmembers(Kernels, inspect.isfunction):
        if not name.startswith("_") and name not in NOT_LAUNCHES:
            yield Kernels, name
    yield DeviceRows, "compute"


def timed(
    method: Callable[..., Any], seconds: Counter[str], calls: Counter[str], name: str, wait: Callable[[], Any]
) -> Callable[..., Any]:
    def run(*arguments: Any, **keywords: Any) -> Any:
        wait()
        start = time.perf_counter()
        result = method(*arguments, **keywords)
        wait()
        seconds[name] += time.perf_counter() - start
        calls[name] += 1
        return result

    return run


def profile(fit: Callable[[], Any], wait: Callable[[], Any]) -> tuple[float, Counter[str], Counter[str], Any]:
    """Seconds in all, seconds and launches of each kernel, and what `fit` gives."""
    seconds, calls, before = Counter[str](), Counter[str](), {}
    for owner, name in launches():
        before[owner, name] = getattr(owner, name)
        setattr(owner, name, timed(before[owner, name], seconds, calls, name, wait))
    try:
        start = time.perf_counter()
        model = fit()
        return time.perf_counter() - start, seconds, calls, model
    finally:
        for (owner, name), method in before.items():
            setattr(owner, name, method)


def main(arguments: list[str]) -> None:
    import cupy

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--limit", type=int, default=60_000)
    asked = parser.parse_args(arguments)
    train = load_dataset(asked.dataset, "train", limit=asked.limit)
    X = train.images.reshape(len(train), -1).astype(np.float32) / 255  # from the host, as a user has them
    options = Problem(Kernel("rbf", gamma=0.02), C=10.0), Stopping(), Resources()
    backend = get_backend("native-cuda")

    def fit() -> Any:
        return backend.fit(X, train.labels, *options)

    fit()
    start = time.perf_counter()
    fit()
    print(f"fit, not profiled: {time.perf_counter() - start:.3f} s")
    total, seconds, calls, model = profile(fit, cupy.cuda.runtime.deviceSynchronize)
    print(f"{model.n_iter.sum():,} SMO steps, {model.n_iter.max():,} in the slowest pair")
    for name, spent in seconds.most_common():
        print(f"{spent:8.4f} s  {name}, {calls[name]} launches")
    print(f"{total - sum(seconds.values()):8.4f} s  the host, copies, and what is not ours")
    print(f"{total:8.4f} s  in all, profiled")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Regressions and one-class models: native-cpu against scikit-learn.

    python benchmarks/single_function.py [NAME ...] [--runs 3] [--out FILE]

For SVR also against scikit-learn-intelex. Each fit has a fresh process, in which a small one comes
before (it loads or compiles code). Contenders take turns. Every model is certified in float64;
times are medians of the fit's wall time and of the process's CPU time in it. The largest take
minutes with scikit-learn: name problems to run some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

REGRESSION, ONE_CLASS = ("native", "sklearn", "sklearnex"), ("native", "sklearn")

PROBLEMS: dict[str, dict[str, Any]] = {
    "friedman": {"data": ("friedman", 20_000, 50), "C": 1.0, "epsilon": 0.1, "gamma": 0.02},
    "friedman-narrow-tube": {"data": ("friedman", 5_000, 20), "C": 10.0, "epsilon": 0.01, "gamma": 0.05},
    "friedman-no-tube": {"data": ("friedman", 3_000, 10), "C": 1.0, "epsilon": 0.0, "gamma": 0.1},
    "friedman-wide-tube": {"data": ("friedman", 20_000, 50), "C": 1.0, "epsilon": 0.5, "gamma": 0.02},
    "friedman-float32": {"data": ("friedman", 8_000, 50), "C": 1.0, "epsilon": 0.1, "gamma": 0.02, "dtype": "float32"},
    "waves": {"data": ("waves", 10_000, 2), "C": 10.0, "epsilon": 0.1, "gamma": 2.0},
    "outliers": {"data": ("outliers", 4_000, 10), "C": 1.0, "epsilon": 0.2, "gamma": 0.1},
    "linear": {"data": ("linear", 4_000, 50), "kernel": "linear", "C": 0.1, "epsilon": 0.1},
    "polynomial": {"data": ("friedman", 4_000, 8), "kernel": "poly", "C": 0.1, "epsilon": 0.1, "gamma": 0.1,
                   "coef0": 1.0},
    "steps": {"data": ("steps", 6_000, 12), "C": 5.0, "epsilon": 0.2, "gamma": 0.1},
    "one-class": {"data": ("clusters", 20_000, 50), "nu": 0.1, "gamma": 0.02},
    "one-class-half": {"data": ("clusters", 10_000, 20), "nu": 0.5, "gamma": 0.05},
    "one-class-few": {"data": ("clusters", 20_000, 10), "nu": 0.01, "gamma": 0.1},
}  # fmt: skip
"""Standardised features and targets, so that epsilon, C and gamma mean the same throughout."""


def sample(kind: str, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and y (n,), float64, means 0 and variances 1; y means nothing for "clusters"."""
    rng = np.random.default_rng(20261127)
    X = rng.uniform(size=(n, d))
    if kind in ("friedman", "outliers"):
        y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
        y += rng.normal(size=n) if kind == "friedman" else 0.5 * rng.standard_t(1.5, size=n)
    elif kind == "waves":
        y = np.sin(12 * X[:, 0]) * np.cos(9 * X[:, 1]) + 0.1 * rng.normal(size=n)
    elif kind == "steps":
        y = np.floor(4 * X[:, 0]) + (X[:, 1] > 0.5) * np.floor(3 * X[:, 2]) + 0.3 * rng.normal(size=n)
    elif kind == "linear":
        y = X @ rng.normal(size=d) + 0.2 * rng.normal(size=n)
    else:
        X, y = rng.normal(size=(n, d)) + 4 * rng.normal(size=(8, d))[rng.integers(8, size=n)], rng.normal(size=n)
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()


def estimator(contender: str, options: dict[str, Any]) -> Any:
    one_class = "nu" in options
    if contender == "native":
        from gpusvm import SVR, OneClassSVM

        return (OneClassSVM if one_class else SVR)(backend="native-cpu", **options)
    if contender == "sklearnex":
        from sklearnex.svm import SVR as IntelSVR

        return IntelSVR(cache_size=4000, **options)
    import sklearn.svm

    return (sklearn.svm.OneClassSVM if one_class else sklearn.svm.SVR)(cache_size=4000, **options)


def fit(name: str, contender: str) -> dict[str, Any]:
    """What one fit took and reached, in this process."""
    options = dict(PROBLEMS[name])
    kind, n, d = options.pop("data")
    dtype = options.pop("dtype", "float64")
    X, y = sample(kind, n, d)
    X = X.astype(dtype)
    few = slice(0, 2_000)
    estimator(contender, options).fit(X[few], y[few])
    machine = estimator(contender, options)
    wall, cpu = time.perf_counter(), time.process_time()
    machine.fit(X, y)
    figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return figures | certified(machine, X, y, options) | {"load": os.getloadavg()[0]}


def certified(machine: Any, X: np.ndarray, y: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    """Gap and dual objective of a machine, whoever trained it, from float64 kernel values."""
    from gpusvm import certify
    from gpusvm.kernels import Kernel
    from gpusvm.model import SVMModel
    from gpusvm.params import Problem, Stopping

    kernel = Kernel(options.get("kernel", "rbf"), options.get("gamma", 0.0), 3, options.get("coef0", 0.0))
    asked = {"task": "one_class", "nu": options["nu"]} if "nu" in options else {
        "task": "epsilon_svr", "epsilon": options["epsilon"], "C": options["C"],
    }  # fmt: skip
    support = np.sort(machine.support_).astype(np.int64)
    dual_coef = np.asarray(machine.dual_coef_, dtype=np.float64)[:, np.argsort(machine.support_)]
    model = SVMModel(
        problem=Problem(kernel, **asked), stopping=Stopping(), classes=np.empty(0), support_vectors=X[support],
        support_indices=support, n_support=np.array([len(support)]), dual_coef=dual_coef,
        intercept=np.asarray(machine.intercept_, dtype=np.float64).ravel(), n_features=X.shape[1],
        n_iter=np.zeros(1, dtype=np.int64),
    )  # fmt: skip
    found = certify(model, X, y)
    return {
        "kkt_gap": found.max_kkt_gap,
        "dual_objective": found.total_dual_objective,
        "box_violation": float(found.box_violation[0]),
        "support_vectors": len(support),
    }


def in_a_fresh_process(name: str, contender: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--fit", name, contender], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, n_runs: int) -> dict[str, dict[str, Any]]:
    """For each contender the medians of its runs."""
    contenders = ONE_CLASS if "nu" in PROBLEMS[name] else REGRESSION
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    for _ in range(n_runs):
        for contender in contenders:
            runs[contender].append(in_a_fresh_process(name, contender))
    return {
        contender: {key: median(run[key] for run in found) for key in found[0]} for contender, found in runs.items()
    }


def lines(name: str, found: dict[str, dict[str, Any]]) -> list[str]:
    reference = found["sklearn"]["dual_objective"]
    return [
        f"{name:22} {contender:10} {row['wall']:8.2f} s {row['cpu']:8.2f} s of CPU  load {row['load']:4.1f}  "
        f"{row['support_vectors']:6.0f} support vectors  gap {row['kkt_gap']:.1e}  "
        f"objective {row['dual_objective']:.6f} ({(row['dual_objective'] - reference) / abs(reference):+.1e})"
        for contender, row in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(PROBLEMS)}; by default all")
    parser.add_argument("--runs", type=int, default=3, help="fits of each contender, each in a process of its own")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(fit(*arguments.fit)))
        return
    results = {}
    for name in arguments.names or PROBLEMS:
        results[name] = measure(name, arguments.runs)
        print(*lines(name, results[name]), sep="\n", flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Dense features of very different variance: are LIBSVM's objective and labels reached there too?

    python benchmarks/dense.py [--n 60000] [--out FILE]

The features are MNIST's first 500 principal components, each divided by its standard deviation,
every tenth then multiplied with the root of 50: means 0, variances 1 and 50, no zeros. Fits
native-cpu and LIBSVM (through the backend sklearn), certifies both in float64 and compares their
labels for the 10,000 test images. LIBSVM takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm import certify
from gpusvm.backends import get_backend
from gpusvm.bench.machine import describe_machine
from gpusvm.data import load_dataset
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel
from gpusvm.params import Problem, Resources, Stopping

N_FEATURES = 500


def features(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training samples (n, 500) float32, their labels, and test samples (10000, 500) float32."""
    train, test = load_dataset("mnist", "train"), load_dataset("mnist", "test")
    pixels = train.images.reshape(len(train), -1).astype(np.float32) / 255
    mean = pixels.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(pixels, rowvar=False))
    directions = directions[:, ::-1][:, :N_FEATURES].astype(np.float32)
    X = (pixels - mean) @ directions
    scale = np.where(np.arange(N_FEATURES) % 10 == 0, np.sqrt(50.0), 1.0) / X.std(axis=0)
    X_test = (test.images.reshape(len(test), -1).astype(np.float32) / 255 - mean) @ directions
    return (X * scale)[:n].astype(np.float32), train.labels[:n], (X_test * scale).astype(np.float32)


def measure(backend: str, X: np.ndarray, y: np.ndarray, problem: Problem) -> tuple[SVMModel, dict[str, Any]]:
    start = time.perf_counter()
    model = get_backend(backend).fit(X, y, problem, Stopping(), Resources())
    seconds = time.perf_counter() - start
    figures = {"backend": backend, "fit_seconds": round(seconds, 2), "n_support_vectors": model.n_support_vectors}
    return model, figures | certify(model, X, y).summary()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=60_000, help="training samples")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    X, y, X_test = features(arguments.n)
    y_test = load_dataset("mnist", "test").labels
    problem = Problem(Kernel("rbf", gamma=1 / (N_FEATURES * float(X.var()))), C=10.0)
    rows, labels = [], []
    for backend in ("native-cpu", "sklearn"):
        model, figures = measure(backend, X, y, problem)
        labels.append(model.predict(X_test))
        rows.append(figures | {"accuracy": float((labels[-1] == y_test).mean())})
        print(json.dumps(rows[-1]), flush=True)
    objectives = [row["dual_objective"] for row in rows]
    record = {
        "n_train": len(X), "n_features": N_FEATURES, "C": problem.C, "gamma": problem.kernel.gamma, "rows": rows,
        "relative_difference_of_objectives": (objectives[0] - objectives[1]) / objectives[1],
        "labels_that_differ": int((labels[0] != labels[1]).sum()),
        "machine": describe_machine(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    print(json.dumps({key: record[key] for key in ("relative_difference_of_objectives", "labels_that_differ")}))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

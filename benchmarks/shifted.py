"""How native-cpu's cost grows past MNIST: to five times as many images.

    python benchmarks/shifted.py [--n 12000,60000] [--out FILE]

Each n is trained as n images, and as 5 n: each as it is, and moved by a pixel four ways. RBF,
C=10, gamma=0.02. The 10,000 test images stay as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm.backends import get_backend
from gpusvm.bench.machine import describe_machine
from gpusvm.data import load_dataset
from gpusvm.kernels import Kernel
from gpusvm.memory import peak_rss_mb, reset_peak_rss
from gpusvm.params import Problem, Resources, Stopping

SHIFTS = ((1, 1), (-1, 1), (1, 2), (-1, 2))


def shifted(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images (n, 28, 28) and their four neighbours, (5 n, 28, 28), and the labels (5 n,)."""
    moved = [np.roll(images, by, axis=axis) for by, axis in SHIFTS]
    return np.concatenate([images, *moved]), np.tile(labels, 1 + len(SHIFTS))


def measure(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    test = load_dataset("mnist", "test")
    X, X_test = (pixels.reshape(len(pixels), -1).astype(np.float32) / 255 for pixels in (images, test.images))
    reset_peak_rss()
    start = time.perf_counter()
    model = get_backend("native-cpu").fit(
        X, labels, Problem(Kernel("rbf", gamma=0.02), C=10.0), Stopping(), Resources()
    )
    seconds = time.perf_counter() - start
    assert model.kkt_gap is not None
    return {
        "n_train": len(X),
        "fit_seconds": round(seconds, 2),
        "peak_rss_mb": round(peak_rss_mb()),
        "n_support_vectors": model.n_support_vectors,
        "n_iter": int(model.n_iter.sum()),
        "kkt_gap": float(model.kkt_gap.max()),
        "accuracy": float((model.predict(X_test) == test.labels).mean()),
        "cache_mb": model.provenance["cache_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="12000,60000", help="numbers of images before they are moved")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    train = load_dataset("mnist", "train")
    labels = train.require_labels()
    rows = []
    for n in map(int, arguments.n.split(",")):
        for images, y in ((train.images[:n], labels[:n]), shifted(train.images[:n], labels[:n])):
            rows.append(measure(images, y))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        record = {
            "rows": rows, "machine": describe_machine(), "date": datetime.now(UTC).isoformat(timespec="seconds")
        }  # fmt: skip
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

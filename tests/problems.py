"""Random problems of every ordinary kind, and of degenerate ones: the same for a seed, whatever
the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import make_blobs, make_classification


@dataclass(frozen=True, eq=False)
class RandomProblem:
    """A data set X (n, n_features), y (n,), the parameters of an SVC for it, and what it is in a
    few words."""

    X: np.ndarray
    y: np.ndarray
    parameters: dict[str, Any]
    description: str


def ordinary(seed: int) -> RandomProblem:
    """Any kernel; features scaled, unscaled, or of nine orders of magnitude; C from 1e-3 to 1e5; 2
    to 30 classes."""
    rng = np.random.default_rng(seed)
    k = int(rng.choice([2, 2, 2, 3, 4, 5, 8, 12, 30]))
    n, d = int(rng.integers(max(40, 6 * k), 500)), int(rng.integers(2, 40))
    kind, scaling = str(rng.choice(list(_KINDS))), str(rng.choice(list(_SCALINGS)))
    X, y = _KINDS[kind](rng, n, d, k)
    y[:k] = np.arange(k)
    X = _SCALINGS[scaling](rng, X)
    if rng.random() < 0.3:
        X = X.astype(np.float32)
    variance = max(X.astype(np.float64).var(), 1e-12)
    gamma = "scale" if rng.random() < 0.6 else float(10 ** rng.uniform(-3, 1) / X.shape[1] / variance)
    parameters = {
        "kernel": str(rng.choice(["rbf", "rbf", "linear", "poly", "sigmoid"])),
        "C": float(10 ** rng.uniform(-3, 5)),
        "gamma": gamma,
        "degree": int(rng.integers(2, 5)),
        "coef0": float(rng.choice([0.0, 1.0])),
    }
    return RandomProblem(X, y, parameters, f"{kind}, {scaling}, {X.dtype}, {X.shape}, {k} classes, {parameters}")


def degenerate(seed: int) -> RandomProblem:
    """Few samples under a kernel of high degree, or of large gamma and C, many rows twice."""
    rng = np.random.default_rng(10_000 + seed)
    n, d, k = int(rng.integers(20, 120)), int(rng.integers(1, 8)), int(rng.integers(2, 4))
    X = rng.normal(size=(max(k, n // 3), d))[rng.integers(0, max(k, n // 3), n)] * 10 ** rng.uniform(-1, 1)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    parameters = {
        "kernel": str(rng.choice(["poly", "rbf", "sigmoid"])),
        "C": float(10 ** rng.uniform(0, 6)),
        "gamma": float(10 ** rng.uniform(-2, 3)),
        "degree": int(rng.integers(3, 10)),
        "coef0": float(rng.choice([0.0, 1.0, 10.0])),
    }
    return RandomProblem(X, y, parameters, f"{X.shape}, {k} classes, {parameters}")


def _blobs(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return make_blobs(n, d, centers=k, cluster_std=rng.uniform(0.5, 8), random_state=int(rng.integers(2**31)))


def _clusters(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    d = max(d, 8)
    informative = max(5, d // 2)
    return make_classification(
        n, d, n_informative=informative, n_redundant=0, n_classes=k, n_clusters_per_class=1, flip_y=0.05,
        random_state=int(rng.integers(2**31)),
    )  # fmt: skip


def _noise(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n, d)), rng.integers(0, k, n)


def _duplicates(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    different = max(k, n // 4)
    return rng.normal(size=(different, d))[rng.integers(0, different, n)], rng.integers(0, k, n)


def _binary(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    X = rng.integers(0, 2, size=(n, d)).astype(float)
    return X, (X[:, :3].sum(axis=1) * k / 4).astype(int) % k


_KINDS = {"blobs": _blobs, "clusters": _clusters, "noise": _noise, "duplicates": _duplicates, "binary": _binary}

_SCALINGS = {
    "standardised": lambda rng, X: (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-12),
    "unscaled": lambda rng, X: X * 10 ** rng.uniform(-1, 3, X.shape[1]) + 10 ** rng.uniform(0, 3, X.shape[1]),
    "nine orders": lambda rng, X: X * 10 ** rng.uniform(-4.5, 4.5, X.shape[1]),
    "far from the origin": lambda rng, X: X + 10 ** rng.uniform(2, 8),
}

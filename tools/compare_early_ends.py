"""What giving trials up early costs a search in accuracy, and saves in trainings.

    python tools/compare_early_ends.py

Every trial is tried in all folds. From what each labelled right, one can tell which would have
been given up.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_wine,
    make_classification,
    make_gaussian_quantiles,
    make_moons,
)
from sklearn.preprocessing import StandardScaler

from gpusvm.params import Resources
from gpusvm.tuning import Search, Settings

FOLDS = 5
DRAWS = 3
ROUNDS = (1, 2, FOLDS)
"""Folds done at the end of each round; after all but the last, trials are given up."""

SHAPES = (
    (1500, 54, 20, 2, 0.05, 0.7), (2000, 20, 5, 2, 0.1, 1.0), (1500, 10, 8, 3, 0.02, 0.8), (1000, 100, 10, 2, 0.2, 0.5),
    (1200, 30, 20, 6, 0.0, 1.5), (600, 8, 6, 2, 0.3, 1.0), (2500, 15, 10, 2, 0.01, 0.6), (800, 40, 15, 4, 0.1, 1.0),
)  # fmt: skip
"""Samples, features, informative ones, classes, share of wrong labels, distance of classes."""


def data_sets() -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    for seed, (n, d, informative, classes, flip, distance) in enumerate(SHAPES):
        clusters = 2 if classes > 2 else 4
        yield f"make_classification {n} x {d}, {classes} classes", make_classification(
            n, d, n_informative=informative, n_classes=classes, n_clusters_per_class=clusters, flip_y=flip,
            class_sep=distance, random_state=seed,
        )  # fmt: skip
    yield "digits", load_digits(return_X_y=True)
    yield "breast cancer", load_breast_cancer(return_X_y=True)
    yield "wine", load_wine(return_X_y=True)
    yield "moons", make_moons(1500, noise=0.3, random_state=0)
    yield "nested spheres", make_gaussian_quantiles(n_samples=1500, n_features=8, n_classes=4, random_state=1)


def right_in_folds(X: np.ndarray, y: np.ndarray, seed: int) -> list[list[np.ndarray]]:
    """Of each trial of 10 x 10, which held-out samples it labels right, fold by fold."""
    X = StandardScaler().fit_transform(X).astype(np.float32)
    search = Search(X, y, Settings(folds=FOLDS, seed=seed, exhaustive=True), Resources())
    gammas = np.logspace(-1.5, 1.2, 10) / (X.shape[1] * X.var())
    search.run(np.logspace(-1, 3.5, 10).tolist(), gammas.tolist())
    return [[result.right[fold] for fold in range(FOLDS)] for result in search.results.values()]


def cost(right: list[list[np.ndarray]], chance: float) -> tuple[float, float]:
    """Accuracy lost by giving up at `chance` standard deviations; the share of trainings left."""
    alive, n_trainings, begun = list(range(len(right))), 0, 0
    for done in ROUNDS:
        n_trainings += len(alive) * (done - begun)
        begun = done
        so_far = {k: np.concatenate(right[k][:done]) for k in alive}
        best = so_far[max(alive, key=lambda k: so_far[k].sum())]
        only_best = {k: int((best & ~so_far[k]).sum()) for k in alive}
        only_it = {k: int((so_far[k] & ~best).sum()) for k in alive}
        if done < FOLDS:
            alive = [k for k in alive if only_best[k] - only_it[k] <= chance * np.sqrt(only_best[k] + only_it[k])]
    mean = [float(np.mean([fold.mean() for fold in folds])) for folds in right]
    return max(mean) - max(mean[k] for k in alive), n_trainings / (FOLDS * len(right))


def main() -> None:
    everything = []
    for name, (X, y) in data_sets():
        for draw in range(DRAWS):
            everything.append(right_in_folds(X, y, draw))
        print(f"{name}: tried", flush=True)
    for chance in (1.5, 2.0, 2.5, 3.0):
        costs = [cost(right, chance) for right in everything]
        lost, share = (np.array(part) for part in zip(*costs, strict=True))
        print(
            f"{chance}: most lost {lost.max():.4f}, in {np.count_nonzero(lost)} of {len(lost)}; {share.mean():.0%} left"
        )


if __name__ == "__main__":
    main()

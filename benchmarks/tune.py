"""Searches for C and gamma on 5,000 x 54, two classes: ours, and GridSearchCV over scikit-learn's SVCs.

    python benchmarks/tune.py                     ours, all 100 cells in 5 folds
    python benchmarks/tune.py --peers 20          and 20 cells, drawn at random, by each peer in the first fold
    python benchmarks/tune.py --peers 20 --intel  scikit-learn-intelex too

A peer's search is 500 such fits and predictions, n_jobs at a time: its time is estimated from the cells drawn, of which
each is fitted by itself on one core. Times of the process's CPU stand beside wall time: other work on the
machine disturbs them less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from gpusvm.jobs import n_cores
from gpusvm.params import Resources
from gpusvm.tuning import Search, Settings

N_CELLS, N_FOLDS = 100, 5


def samples() -> tuple[np.ndarray, np.ndarray, list[float], list[float]]:
    """X (5000, 54) float32, its labels, and the values of C and gamma."""
    X, y = make_classification(
        5000, 54, n_informative=20, n_redundant=10, n_clusters_per_class=8, flip_y=0.05, class_sep=0.7, random_state=0
    )
    X = X.astype(np.float32)
    gammas = np.logspace(-1.5, 1.2, 10) / (X.shape[1] * X.var())
    return X, y, np.logspace(-1, 3.5, 10).tolist(), gammas.tolist()


def ours(*, exhaustive: bool) -> tuple[float, float, float]:
    """Wall and CPU seconds, and the best mean accuracy."""
    X, y, Cs, gammas = samples()
    search = Search(X, y, Settings(folds=N_FOLDS, exhaustive=exhaustive), Resources())
    wall, cpu = time.perf_counter(), time.process_time()
    search.run(Cs, gammas)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    best = search.results[search.best()].mean
    given_up = sum(result.dropped for result in search.results.values())
    name = "exhaustive" if exhaustive else "by default"
    print(f"gpusvm {name}: {wall:.1f} s, {cpu:.1f} s of CPU; best accuracy {best:.4f}, {given_up} trials given up")
    return wall, cpu, best


def peer(name: str, make: Callable[..., Any], n_drawn: int, seed: int) -> None:
    X, y, Cs, gammas = samples()
    cells = [(C, gamma) for C in Cs for gamma in gammas]
    train, test = next(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y))
    drawn = np.random.default_rng(seed).permutation(N_CELLS)[:n_drawn]
    begun = time.process_time()
    for k in drawn:
        C, gamma = cells[k]
        make(C=C, gamma=gamma).fit(X[train], y[train]).score(X[test], y[test])
    each = (time.process_time() - begun) / n_drawn
    all_cells = each * N_CELLS * N_FOLDS
    print(
        f"{name}: {each:.2f} s of CPU for each of {n_drawn} of {N_CELLS} cells: all in {N_FOLDS} folds {all_cells:.0f}"
        f" s of CPU, {all_cells / n_cores():.0f} s on {n_cores()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=int, default=0, metavar="CELLS")
    parser.add_argument("--intel", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for _ in range(arguments.repeats):
        _, _, full = ours(exhaustive=True)
        _, _, found = ours(exhaustive=False)
        print(f"  the best found is {full - found:.4f} below the full grid's best")
    if arguments.peers:
        peer("scikit-learn", SVC, arguments.peers, arguments.seed)
    if arguments.peers and arguments.intel:
        from sklearnex.svm import SVC as IntelSVC

        peer("scikit-learn-intelex", IntelSVC, arguments.peers, arguments.seed)


if __name__ == "__main__":
    main()

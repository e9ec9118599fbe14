"""Search C and gamma for a data set of the catalogue by cross-validation on its training part.

    python benchmarks/recommended.py [SOURCE] [--limit N] [--deskew]

Prints the mean accuracy for each C and gamma, twice: over shuffled folds, and over folds in the
file's order. A file often holds one writer after another, so folds in its order test on writers
that were not trained on, as a test part from other people does. The test part is never read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from gpusvm.data import load_dataset
from gpusvm.preprocess import apply_steps, build_steps

CS = (1.0, 3.0, 10.0, 30.0)
GAMMAS = (0.02, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, "scale")
N_SEEDS = 5


def show_accuracies(X: np.ndarray, y: np.ndarray, splitters: Iterable[StratifiedKFold]) -> None:
    """A row for each gamma, a column for each C."""
    folds = [fold for splitter in splitters for fold in splitter.split(X, y)]
    print("gamma  " + "".join(f"  C={C:<6g}" for C in CS))
    for gamma in GAMMAS:
        # scikit-learn's own SVC, because the figures must not depend on gpusvm's solvers.
        means = [
            np.mean([SVC(C=C, gamma=gamma).fit(X[train], y[train]).score(X[test], y[test]) for train, test in folds])
            for C in CS
        ]
        print(f"{gamma!s:<7}" + "".join(f"  {mean:<8.4f}" for mean in means), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="digits")
    parser.add_argument("--limit", type=int, help="so many training images, drawn at random")
    parser.add_argument("--deskew", action="store_true")
    given = parser.parse_args()

    data = load_dataset(given.source, "train", limit=given.limit, seed=None if given.limit is None else 0)
    X, y = apply_steps(build_steps(data.image_shape, deskew=given.deskew), data.images), data.require_labels()
    print(f"{data.name}, {len(data):,} training images, 5 shuffled folds, {N_SEEDS} seeds")
    show_accuracies(X, y, [StratifiedKFold(5, shuffle=True, random_state=seed) for seed in range(N_SEEDS)])
    if given.limit is None:
        print("\nThe same, 5 and 10 folds in the file's order")
        show_accuracies(X, y, [StratifiedKFold(5), StratifiedKFold(10)])


if __name__ == "__main__":
    main()

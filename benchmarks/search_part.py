"""A search of 500 trainings: ours in full, and a fifth of GridSearchCV over scikit-learn's SVC.

    python benchmarks/search_part.py [--out FILE]

The table and the grid are the first of `tune.toml`: 5,000 x 54, two classes, 10 x 10 cells, 5
folds. The peer trains and scores every cell in the first fold, in as many processes as there are
cores; five times its time stands for the whole search. Each contender has a fresh process, in
which a small search comes before (it loads or compiles code).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, StratifiedKFold

SUITE = Path(__file__).parent / "tune.toml"
CONTENDERS = ("exhaustive", "default", "scikit-learn")
FOLDS = 5


def table(n: int) -> tuple[np.ndarray, np.ndarray]:
    options = dict(tomllib.loads(SUITE.read_text())["tables"]["two-classes"])
    del options["source"]
    X, y = make_classification(**{**options, "n_samples": n})
    return X.astype(np.float32), y


def grid(X: np.ndarray) -> tuple[list[float], list[float]]:
    case = tomllib.loads(SUITE.read_text())["cases"][0]
    scale = 1.0 / (X.shape[1] * float(X.var()))
    return case["search_C"], [gamma * scale for gamma in case["search_gamma"]]


def search(contender: str, X: np.ndarray, y: np.ndarray, Cs: list[float], gammas: list[float]) -> dict[str, Any]:
    """The best cell, its accuracy over the folds tried, and how many trainings it took."""
    if contender == "scikit-learn":
        from sklearn.svm import SVC

        first = next(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y))
        cells = {"C": Cs, "gamma": gammas}
        found = GridSearchCV(SVC(cache_size=1000), cells, cv=[first], refit=False, n_jobs=-1).fit(X, y)
        return {**found.best_params_, "accuracy": found.best_score_, "trainings": len(Cs) * len(gammas)}
    from gpusvm.params import Resources
    from gpusvm.tuning import Search, Settings

    ours = Search(X, y, Settings(folds=FOLDS, seed=0, exhaustive=contender == "exhaustive"), Resources())
    ours.run(Cs, gammas)
    best = ours.best()
    trainings = sum(len(result.scores) for result in ours.results.values())
    return {"C": best.C, "gamma": best.gamma, "accuracy": ours.results[best].mean, "trainings": trainings}


def measure(contender: str) -> dict[str, Any]:
    """What the search took, in this process."""
    X, y = table(600)
    search(contender, X, y, [1.0, 10.0], [0.001, 0.01])
    X, y = table(5_000)
    Cs, gammas = grid(X)
    begun = time.perf_counter()
    found = search(contender, X, y, Cs, gammas)
    return {"seconds": time.perf_counter() - begun, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    results = {}
    for contender in CONTENDERS:
        command = [sys.executable, __file__, "--one", contender]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[contender] = json.loads(done.stdout.splitlines()[-1])
        print(contender, results[contender], flush=True)
    whole = FOLDS * results["scikit-learn"]["seconds"]
    for contender in CONTENDERS[:-1]:
        print(f"scikit-learn, {whole:.0f} s for all folds, / {contender}: {whole / results[contender]['seconds']:.1f}")
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

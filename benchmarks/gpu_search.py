"""A search for C and gamma on the GPU and on the CPU: the seconds, and whether they find the same.

    python benchmarks/gpu_search.py OUT.json [--backends native-cuda native-cpu] [--limit 5000]
    [--cells 10]

The table and the grid are those of search_part.py: 5,000 x 54, two classes, 10 x 10 cells, 5
folds, every cell trained. A backend warms up with a small search, then searches once. Ends with
status 1 where the accuracy of a cell differs by more than `MOST_APART`, or one's best cell is
worse than the other's by as much in the other's eyes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from search_part import FOLDS, grid, table

from gpusvm.backends import get_backend
from gpusvm.params import Resources
from gpusvm.tuning import Search, Settings

BACKENDS = ("native-cuda", "native-cpu")

MOST_APART = 0.002
"""Of two accuracies of a cell: samples on the edge of a decision, 10 of 5,000, fall on either side
by rounding."""

Accuracies = dict[tuple[float, float], float]
"""Of each cell (C, gamma), the mean over folds."""


def accuracies(backend: str, X: np.ndarray, y: np.ndarray, Cs: list[float], gammas: list[float]) -> Accuracies:
    found = Search(X, y, Settings(folds=FOLDS, exhaustive=True), Resources(), backend=get_backend(backend))
    found.run(Cs, gammas)
    return {(trial.C, trial.gamma): result.mean for trial, result in found.results.items()}


def measure(backend: str, limit: int, cells: int) -> tuple[float, Accuracies]:
    """Seconds of the search, and what it found."""
    X, y = table(min(600, limit))
    accuracies(backend, X, y, [1.0, 10.0], [0.001, 0.01])
    X, y = table(limit)
    Cs, gammas = (values[:cells] for values in grid(X))
    begun = time.perf_counter()
    found = accuracies(backend, X, y, Cs, gammas)
    return time.perf_counter() - begun, found


def wrong(one: Accuracies, other: Accuracies) -> list[str]:
    """What two searches do not agree on."""
    if one.keys() != other.keys():
        return [f"{len(one)} and {len(other)} cells, not the same"]
    apart = max(abs(one[cell] - other[cell]) for cell in one)
    found = [f"a cell's accuracies differ by {apart:.4f}"] if apart > MOST_APART else []
    behind = max(other.values()) - other[max(one, key=lambda cell: one[cell])]
    return [*found, f"the best cell is {behind:.4f} worse for the other"] if behind > MOST_APART else found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--backends", nargs=2, default=BACKENDS)
    parser.add_argument("--limit", type=int, default=5_000)
    parser.add_argument("--cells", type=int, default=10)
    asked = parser.parse_args(arguments)
    searches: dict[str, Any] = {}
    found: list[tuple[float, Accuracies]] = []
    for name in asked.backends:
        seconds, cells = measure(name, asked.limit, asked.cells)
        C, gamma = max(cells, key=lambda cell: cells[cell])
        found.append((seconds, cells))
        searches[name] = {"seconds": seconds, "C": C, "gamma": gamma, "accuracy": cells[C, gamma], "cells": len(cells)}
        print(f"{name}: {seconds:.2f} s, best {cells[C, gamma]:.4f} at C={C:g} gamma={gamma:.3g}", flush=True)
    faults, ratio = wrong(found[0][1], found[1][1]), found[1][0] / found[0][0]
    asked.out.write_text(json.dumps({"searches": searches, "times_as_fast": ratio, "wrong": faults}, allow_nan=False))
    print(f"{asked.backends[0]} is {ratio:.1f} times as fast; {'; '.join(faults) or 'they agree'}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

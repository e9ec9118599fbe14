"""Ways from decision values to class probabilities compared: the table in docs/probabilities.md.

    GPUSVM_DATA_DIR=folder python tools/compare_calibrations.py [digits] [letter] [adult] [mnist]

Each is fitted on the same held-out decision values, and judged on test samples: MNIST's own, a
quarter of the others.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from gpusvm.backends.held_out import HeldOut, Training, default_folds, held_out_decisions
from gpusvm.backends.native import backend
from gpusvm.bench.named_tables import load_table
from gpusvm.calibration import Calibration, fit_sharpness, fit_sigmoids, led_by
from gpusvm.data import load_dataset
from gpusvm.evaluation import reliability
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel
from gpusvm.pairs import own_pairs
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.voting import one_vs_rest

PARAMETERS = {"digits": (10, 0.2), "letter": (10, 1.0), "adult": (1, 0.05), "mnist": (10, 0.02)}
"""C and gamma."""


def samples(name: str) -> list[np.ndarray]:
    """Training samples, test samples, and the classes of each, by their indices."""
    if name == "mnist":
        parts = [load_dataset("mnist", split) for split in ("train", "test")]
        X, T = (part.images.reshape(len(part), -1).astype(np.float32) / 255 for part in parts)
        return [X, T, *(part.require_labels() for part in parts)]
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.astype(np.float32) / 16
    else:
        table = load_table(name, {"source": name}, os.environ.get("GPUSVM_DATA_DIR"))
        X, y = table.X, np.unique(table.y, return_inverse=True)[1]
    return train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)


def fitted_by_temperature(scores: np.ndarray, classes: np.ndarray) -> float:
    """The factor on scores (n, n_classes) whose softmax has the least log loss."""
    own = scores[np.arange(len(classes)), classes][:, None]

    def loss(log_factor: float) -> float:
        return float(np.log(np.exp(np.exp(log_factor) * (scores - own)).sum(axis=1)).mean())

    with np.errstate(over="ignore"):
        return float(np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x))


def candidates(found: HeldOut, codes: np.ndarray, k: int, D: np.ndarray, winners: np.ndarray) -> dict[str, np.ndarray]:
    """For each way, probabilities (n, k) of test samples with decision values D (n, n_pairs)."""
    classes = codes[found.rows]
    pair, is_first = own_pairs(k)[classes], np.arange(k - 1) >= classes[:, None]
    sigmoids = fit_sigmoids(found.own.ravel(), pair.ravel(), is_first.ravel(), np.ones(pair.size), k * (k - 1) // 2)
    platt, kept = Calibration(*sigmoids), classes[found.kept]
    ones = np.ones(len(kept))
    sharpness = fit_sharpness(platt.logits(found.decisions), kept, ones, k)
    ways = {
        "sigmoids, coupled by Wu, Lin, Weng (LIBSVM's way)": platt.class_probabilities(D, k),
        "sigmoids, coupled by Price et al.": Calibration(*sigmoids, "price").class_probabilities(D, k),
        "the same with a temperature (ours)": Calibration(*sigmoids, "price", sharpness).class_probabilities(D, k),
    }
    if k > 2:
        held = np.log(platt.class_probabilities(found.decisions, k))
        factor = fitted_by_temperature(held, kept)
        ways["Wu, Lin, Weng with a temperature"] = softmax(factor * np.log(platt.class_probabilities(D, k)), axis=1)
        factor = fitted_by_temperature(one_vs_rest(found.decisions, k), kept)
        ways["one temperature over votes and margins"] = softmax(factor * one_vs_rest(D, k), axis=1)
    else:
        scores = np.stack([found.decisions[:, 0], -found.decisions[:, 0]], axis=1)
        factor = fitted_by_temperature(scores, kept)
        ways["one temperature over votes and margins"] = softmax(factor * np.stack([D[:, 0], -D[:, 0]], axis=1), axis=1)
    return {name: led_by(p, winners) for name, p in ways.items()}


def compare(name: str, n_folds: int | None = None) -> None:
    """Print a line for each way."""
    X, T, y, t = samples(name)
    n_folds = n_folds or default_folds(len(y))
    C, gamma = PARAMETERS[name]
    training = Training(X, y, Problem(Kernel("rbf", gamma), C=C), Stopping(), Resources())
    model: SVMModel = backend.fit(*training[:-1])
    found = held_out_decisions(backend, training, model, y, np.ones(len(y)), check_random_state(0), n_folds)
    D = model.pair_decisions(T)
    winners = model.vote(D)
    for way, p in candidates(found, y, model.n_classes, D, winners).items():
        result = reliability(p, t, winners)
        error = result.expected_calibration_error
        print(f"{name:8} {n_folds} folds  {way:52} log loss {result.log_loss:.4f}  ECE {error:.4f}", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or PARAMETERS:
        compare(name)

"""Draw the figures of docs/, each to docs/figures/NAME.svg.

    python tools/draw_figures.py [NAME ...]

All show what the solver really does, so they are drawn again where it changes. Two of them take
MNIST. docs/figures/workloads.svg is by `gpusvm bench
benchmarks/results/workloads-2026-11-28-044229.json --plot`.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_wine, make_classification, make_moons
from sklearn.preprocessing import StandardScaler

from gpusvm import SVC, SVCSearchCV
from gpusvm.data import load_dataset
from gpusvm.solver.active_set import ActiveSetSolver
from gpusvm.solver.growing import GrowingSolver

FOLDER = Path(__file__).parents[1] / "docs" / "figures"

# Okabe and Ito's colours, which people tell apart whatever colours they see.
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#333333"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "gpusvm",
}


def c_and_gamma() -> Figure:
    """The border between two classes for three C and three gamma."""
    X, y = make_moons(120, noise=0.28, random_state=3)
    left, right = np.meshgrid(np.linspace(-1.8, 2.8, 48), np.linspace(-1.4, 1.9, 34))
    figure = Figure((7.2, 5.6), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True, sharey=True)
    for row, gamma in zip(axes, (0.2, 2.0, 20.0), strict=True):
        for ax, C in zip(row, (0.1, 1.0, 100.0), strict=True):
            svc = SVC(C=C, gamma=gamma, backend="sklearn").fit(X, y)
            values = svc.decision_function(np.c_[left.ravel(), right.ravel()]).reshape(left.shape)
            ax.set_facecolor("#F6DCCB")
            ax.contourf(left, right, values, levels=[0, 1e9], colors=["#CDE3F0"])
            ax.contour(left, right, values, levels=[0], colors=[INK], linewidths=1.2)
            for label, colour, mark in ((0, ORANGE, "o"), (1, BLUE, "^")):
                ax.plot(*X[y == label].T, mark, color=colour, markersize=2.6, markeredgewidth=0)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_xlabel(f"{len(svc.support_)} support vectors", fontsize=8, labelpad=2)
    for ax, C in zip(axes[0], ("0.1", "1", "100"), strict=True):
        ax.set_title(f"C = {C}")
    for ax, gamma in zip(axes[:, 0], ("0.2", "2", "20"), strict=True):
        ax.set_ylabel(f"gamma = {gamma}", fontsize=10)
    return figure


def working_set() -> Figure:
    """How the working set of a large problem grows, and its gap falls, round by round."""
    train = load_dataset("mnist")
    rows = np.isin(train.labels, (3, 5))
    X = train.images[rows].reshape(-1, 784).astype(np.float32) / 255
    seen: list[tuple[float, int, int]] = []
    violators = GrowingSolver.violators

    def watched(self: GrowingSolver) -> np.ndarray:
        seen.append((self.gap(), len(self.members), int(np.count_nonzero(self.b))))
        return violators(self)

    with mock.patch.object(GrowingSolver, "violators", watched):
        svc = SVC(C=10, gamma=0.02, backend="native-cpu").fit(X, train.labels[rows])
    seen = seen[:-1]  # the last is the same set, its gradient computed again
    gap, members, support = map(np.array, zip(*seen, strict=True))
    rounds = np.arange(1, len(gap) + 1)
    print(f"{len(X):,} images of 3 and 5: {len(svc.support_):,} support vectors, {len(gap)} rounds")

    figure = Figure((7.2, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rounds, members, "-o", color=BLUE, markersize=4)
    left.plot(rounds, support, "-o", color=ORANGE, markersize=4)
    left.annotate("working set", (rounds[-1], members[-1]), (-6, 6), textcoords="offset points", ha="right", color=BLUE)
    left.annotate(
        "support vectors so far", (rounds[-1], support[-1]), (0, -32), textcoords="offset points", ha="right", va="top",
        color=ORANGE,
    )  # fmt: skip
    left.set(title=f"Of {len(X):,} images, the solver looks at", xlabel="round", ylim=(0, members[-1] * 1.15))
    left.yaxis.set_major_formatter("{x:,.0f}")
    right.semilogy(rounds, gap, "-o", color=BLUE, markersize=4)
    right.axhline(1e-3, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
    right.annotate("tol: solved", (1, 1e-3), (0, 4), textcoords="offset points", color=INK)
    right.set(title="Largest violation of optimality (gap)", xlabel="round")
    for ax in (left, right):
        ax.set_xticks(rounds[::2])
    return figure


def three_ways() -> Figure:
    """Which way problems of many sizes go, and how many of their samples are support vectors."""
    found: list[tuple[str, int, float]] = []

    def watched(way: str, solve: Callable) -> Callable:
        def solved(self: Any, *arguments: Any) -> Any:
            solution = solve(self, *arguments)
            if not getattr(self, "has_left", False):
                found.append((way, self.n, np.count_nonzero(self.b) / self.n))
            return solution

        return solved

    with (
        mock.patch.object(GrowingSolver, "solve", watched("growing", GrowingSolver.solve)),
        mock.patch.object(ActiveSetSolver, "solve", watched("active", ActiveSetSolver.solve)),
    ):
        for X, y, C, gamma in _problems():
            svc = SVC(C=C, gamma=gamma, backend="native-cpu").fit(X, y)
            counts, ends = np.unique(y, return_counts=True)[1], np.cumsum(svc.n_support_)
            if max(counts) * 2 > 1536:
                continue  # the methods above saw them
            coefficients = [np.hstack([part]) for part in np.split(svc.dual_coef_, ends[:-1], axis=1)]
            for i in range(len(counts)):
                for j in range(i + 1, len(counts)):
                    n = counts[i] + counts[j]
                    support = np.count_nonzero(coefficients[i][j - 1]) + np.count_nonzero(coefficients[j][i])
                    found.append(("tiny" if n <= 512 else "active", int(n), support / n))

    figure = Figure((7.2, 3.4), layout="constrained")
    ax = figure.subplots()
    for way, colour, mark in (("tiny", GREEN, "s"), ("active", ORANGE, "^"), ("growing", BLUE, "o")):
        points = sorted({(n, round(share, 2)) for kind, n, share in found if kind == way})
        ax.plot(*zip(*points, strict=True), mark, color=colour, markersize=4, markeredgewidth=0, alpha=0.7)
    for edge in (512, 1536):
        ax.axvline(edge, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate(f"{edge:,}", (edge, 1.02), (3, 0), textcoords="offset points", color=GREY, va="bottom", fontsize=8)
    for x, y, words, colour in (
        (52, 0.95, "tiny: many in one\ncompiled call", GREEN),
        (545, 0.95, "all variables\nare active", ORANGE),
        (2100, 0.63, "hard: an active set", ORANGE),
        (14500, 0.13, "easy: a working set\nthat grows", BLUE),
    ):
        ax.text(x, y, words, color=colour, va="top", fontsize=9, linespacing=1.3)
    ax.set(xscale="log", xlim=(50, 50000), ylim=(0, 1.0), xlabel="variables of the problem (samples of both classes)")
    ax.set_ylabel("share that are support vectors")
    ax.set_xticks([100, 1000, 10000], ["100", "1,000", "10,000"])
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    return figure


def _problems() -> list[tuple[np.ndarray, np.ndarray, float, float | str]]:
    """Data sets of many sizes: samples, labels, C, gamma."""
    digits, mnist = load_dataset("digits"), load_dataset("mnist")
    X, y = load_wine(return_X_y=True)
    problems: list[tuple[np.ndarray, np.ndarray, float, float | str]] = [
        (StandardScaler().fit_transform(X), y, 1.0, "scale"),
        (digits.images.reshape(len(digits), -1) / 255, digits.labels, 10.0, 0.2),
    ]
    for n in (600, 2000, 4000, 7000, 60000):
        images = mnist.images[:n].reshape(n, -1).astype(np.float32) / 255
        problems.append((images, mnist.labels[:n], 10.0, 0.02))
    for seed, (n, classes, noise) in enumerate(
        [(300, 3, 0.1), (1200, 4, 0.1), (1400, 2, 0.0), (1400, 2, 0.2), (3000, 4, 0.1), (2500, 2, 0.02), (3500, 2, 0.2),
         (6000, 2, 0.0), (6000, 3, 0.1), (9000, 2, 0.2), (12000, 2, 0.05), (12000, 2, 0.0), (20000, 2, 0.05),
         (5000, 2, 0.3), (15000, 2, 0.1), (7000, 2, 0.15), (2200, 2, 0.3), (2000, 2, 0.1), (17000, 2, 0.2)]
    ):  # fmt: skip
        X, y = make_classification(
            n, 30, n_informative=12, n_classes=classes, flip_y=noise, class_sep=1.5, random_state=seed
        )
        problems.append((X.astype(np.float32), y, 10.0, "scale"))
    return problems


def search() -> Figure:
    """Accuracy in cross-validation for C and gamma, of the table that the tutorial trains on."""
    X, y = load_breast_cancer(return_X_y=True)
    grid = {"C": np.logspace(-1, 3, 9), "gamma": np.logspace(-2, 1, 7) / 30}
    found = SVCSearchCV(grid, cv=5, refit=False).fit(StandardScaler().fit_transform(X), y)
    accuracy = found.cv_results_["mean_test_score"].reshape(9, 7).T
    figure = Figure((6.2, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.imshow(accuracy, cmap="cividis", vmin=0.85, vmax=1.0, aspect="auto", origin="lower", interpolation="nearest")
    best = np.unravel_index(accuracy.argmax(), accuracy.shape)
    for i, j in np.ndindex(accuracy.shape):
        colour = "white" if accuracy[i, j] < 0.94 else "black"
        weight = "bold" if (i, j) == best else "normal"
        ax.text(j, i, f"{100 * accuracy[i, j]:.1f}", ha="center", va="center", fontsize=8, color=colour, weight=weight)
    ax.set_xticks(range(9), ["0.1", "0.32", "1", "3.2", "10", "32", "100", "320", "1,000"])
    ax.set_yticks(range(7), [f"{gamma:.2g}" for gamma in grid["gamma"]])
    ax.set(xlabel="C", ylabel="gamma", title="Accuracy in five folds, in %")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


FIGURES = {"c-and-gamma": c_and_gamma, "working-set": working_set, "three-ways": three_ways, "search": search}


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        for name in names or FIGURES:
            path = FOLDER / f"{name}.svg"
            FIGURES[name]().savefig(path, metadata={"Date": None})
            # A hundredth of a point will do, in what stands in quotes: all numbers but those that
            # are read.
            text = re.sub(
                r'"[^"]*"', lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]), path.read_text(encoding="utf-8")
            )
            path.write_text("\n".join(line.strip() for line in text.splitlines()) + "\n", encoding="utf-8")
            print(f"{path.name}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(sys.argv[1:])

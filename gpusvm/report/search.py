"""A page about a search for C and gamma: its map, and its trials from best to worst.

The page loads nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpusvm.io.output import write_text
from gpusvm.io.templates import filled
from gpusvm.tuning import Result, Search, Trial
from gpusvm.version import __version__

_LOW, _MIDDLE, _HIGH = (68, 1, 84), (33, 145, 140), (253, 231, 37)
"""Viridis at its ends and its middle: as readable in grey."""

CONTRAST = 3.0
"""Power of the shade of an accuracy: what is near the best is told apart, the worst are all
dark."""


def shade(value: float, worst: float, best: float) -> tuple[int, int, int]:
    """The colour of an accuracy, red, green and blue from 0 to 255."""
    place = 1.0 if best <= worst else max(0.0, (value - worst) / (best - worst)) ** CONTRAST
    start, end, part = (_LOW, _MIDDLE, 2 * place) if place < 0.5 else (_MIDDLE, _HIGH, 2 * place - 1)
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(start, end, strict=True))
    return red, green, blue


def write_tuning_report(page: Path, search: Search, *, title: str) -> None:
    """Write the page.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    write_text(page, render_tuning_report(search, title=title))


def render_tuning_report(search: Search, *, title: str) -> str:
    """The page that `write_tuning_report` writes, as text."""
    best = search.best()
    given_up = sum(result.given_up for result in search.results.values())
    facts = (
        f"{len(search.results)} trials of a {search.settings.kernel} kernel in {len(search.data.folds)} folds of"
        f" {search.X.shape[0]:,} samples; {given_up} given up early. Best: {_named(search, best)}, accuracy"
        f" {search.results[best].mean:.4f}."
    )
    return filled(
        "report/templates",
        "search.html",
        title=title,
        version=__version__,
        facts=facts,
        edges=" and the ".join(search.edges()),
        has_gamma=search.settings.has_gamma,
        Cs=sorted({trial.C for trial in search.results}),
        map=_map(search, best),
        trials=_trials(search),
    )


def _named(search: Search, trial: Trial) -> str:
    return f"C={trial.C:.4g}" + (f", gamma={trial.gamma:.4g}" if search.settings.has_gamma else "")


def _map(search: Search, best: Trial) -> list[tuple[float, list[dict[str, Any] | None]]]:
    """For each gamma, a cell for each C; None where the two were not tried together."""
    Cs, gammas = sorted({t.C for t in search.results}), sorted({t.gamma for t in search.results})
    means = [result.mean for result in search.results.values() if result.right]
    worst, top = min(means), max(means)
    return [(gamma, [_cell(search, Trial(C, gamma), best, worst, top) for C in Cs]) for gamma in gammas]


def _cell(search: Search, trial: Trial, best: Trial, worst: float, top: float) -> dict[str, Any] | None:
    result = search.results.get(trial)
    if result is None or not result.right:
        return None
    colour = shade(result.mean, worst, top)
    return {
        "mean": result.mean,
        "given_up": result.given_up,
        "best": trial == best,
        "colour": colour,
        "light": colour[1] > 110,
        "title": f"{_named(search, trial)}: {_accuracies(result)}",
    }


def _accuracies(result: Result) -> str:
    return ", ".join(f"{score:.4f}" for score in result.scores)


def _trials(search: Search) -> list[dict[str, Any]]:
    """What was tried, from best to worst."""
    done = [(trial, result) for trial, result in search.results.items() if result.right]
    done.sort(key=lambda entry: (entry[1].given_up, -len(entry[1].right), -entry[1].mean, entry[0]))
    return [
        {
            "C": trial.C,
            "gamma": trial.gamma,
            "mean": result.mean,
            "std": result.std,
            "scores": _accuracies(result),
            "given_up": result.given_up,
        }
        for trial, result in done
    ]

"""A page about a search for C and gamma: its map, and its trials from best to worst. It loads nothing."""

from __future__ import annotations

import html
from pathlib import Path
from string import Template

from gpusvm.io.output import write_text
from gpusvm.tuning import Result, Search, Trial
from gpusvm.version import __version__

_LOW, _MIDDLE, _HIGH = (68, 1, 84), (33, 145, 140), (253, 231, 37)
"""Viridis at its ends and its middle: as readable in grey."""

CONTRAST = 3.0
"""Power of the shade of an accuracy: what is near the best is told apart, the worst are all dark."""


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
    dropped = sum(result.dropped for result in search.results.values())
    facts = (
        f"{len(search.results)} trials of a {search.settings.kernel} kernel in {len(search.data.folds)} folds of"
        f" {search.X.shape[0]:,} samples; {dropped} given up early. Best: {_named(search, best)}, accuracy"
        f" {search.results[best].mean:.4f}."
    )
    edges = search.edges()
    warning = f"<p>The best has the {' and the '.join(edges)} that was tried.</p>" if edges else ""
    return _PAGE.substitute(
        title=html.escape(title), facts=html.escape(facts), warning=warning, map=_map(search, best),
        trials=_trials(search), version=html.escape(__version__),
    )  # fmt: skip


def _named(search: Search, trial: Trial) -> str:
    return f"C={trial.C:.4g}" + (f", gamma={trial.gamma:.4g}" if search.settings.has_gamma else "")


def _map(search: Search, best: Trial) -> str:
    Cs, gammas = sorted({t.C for t in search.results}), sorted({t.gamma for t in search.results})
    means = [result.mean for result in search.results.values() if result.right]
    head = "".join(f'<th scope="col">{C:.3g}</th>' for C in Cs)
    rows = []
    for gamma in gammas:
        name = f"{gamma:.3g}" if search.settings.has_gamma else ""
        cells = "".join(_cell(search, Trial(C, gamma), best, min(means), max(means)) for C in Cs)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    corner = "gamma \\ C" if search.settings.has_gamma else "C"
    return f'<table class="map"><tr><th>{corner}</th>{head}</tr>{"".join(rows)}</table>'


def _cell(search: Search, trial: Trial, best: Trial, worst: float, top: float) -> str:
    result = search.results.get(trial)
    if result is None or not result.right:
        return "<td></td>"
    red, green, blue = shade(result.mean, worst, top)
    ink = "#000" if green > 110 else "#fff"
    kind = ' class="best"' if trial == best else ""
    title = f"{_named(search, trial)}: {_accuracies(result)}"
    text = f"({100 * result.mean:.2f})" if result.dropped else f"{100 * result.mean:.2f}"
    style = f"background:rgb({red},{green},{blue});color:{ink}"
    return f'<td{kind} style="{style}" title="{html.escape(title)}">{text}</td>'


def _accuracies(result: Result) -> str:
    return ", ".join(f"{score:.4f}" for score in result.scores)


def _trials(search: Search) -> str:
    done = [(trial, result) for trial, result in search.results.items() if result.right]
    done.sort(key=lambda entry: (entry[1].dropped, -len(entry[1].right), -entry[1].mean, entry[0]))
    rows = "".join(
        f"<tr><td>{trial.C:.4g}</td><td>{f'{trial.gamma:.4g}' if search.settings.has_gamma else ''}</td>"
        f"<td>{result.mean:.4f}</td><td>{result.std:.4f}</td><td>{html.escape(_accuracies(result))}</td>"
        f"<td>{'given up' if result.dropped else ''}</td></tr>"
        for trial, result in done
    )
    head = "".join(f"<th>{name}</th>" for name in ("C", "gamma", "accuracy", "deviation", "by fold", ""))
    return f"<table><tr>{head}</tr>{rows}</table>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title: search for C and gamma</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .6rem; text-align: right; }
table.map td { border: 1px solid #fff; }
table.map td.best { outline: 3px solid #d22; outline-offset: -3px; font-weight: bold; }
footer { color: #666; margin-top: 2rem; }
</style>
</head>
<body>
<h1>$title: search for C and gamma</h1>
<p>$facts</p>
$warning
<h2>Accuracy in cross-validation, %</h2>
<p>In brackets: given up after some folds, being worse than the best on the same samples by more than chance.</p>
$map
<h2>Trials</h2>
$trials
<footer>gpusvm $version</footer>
</body>
</html>
""")

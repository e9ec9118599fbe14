"""A record as a picture: bars of seconds for each problem, and how they grow with the samples.

Each contender has its bar. Our backends are coloured, what people use without gpusvm is grey. All
axes of seconds are logarithmic.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from textwrap import fill
from typing import Any

from gpusvm.bench.result_tables import DOUBT, is_doubtful
from gpusvm.errors import DataError, UsageError
from gpusvm.io.output import replacing

FORMATS = (".svg", ".png")

# Okabe and Ito's colours, which people tell apart whatever colours they see.
_OURS = {"native-cpu": "#0072B2", "native-cuda": "#009E73", "sklearn": "#E69F00", "cuml": "#CC79A7"}
_OURS |= {"sklearnex": "#56B4E9", "tune": "#0072B2", "search": "#009E73"}
_DARK = ("#0072B2", "#009E73")  # on which writing is white
_GREYS = ("#A9A9A9", "#CFCFCF", "#8A8A8A", "#BDBDBD")
_INK, _PALE, _WARNING = "#333333", "#E4E4E4", "#B34700"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": _INK,
    "axes.edgecolor": "#8C8C8C",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "gpusvm",  # the same record gives the same file
}

# Inches.
_WIDTH, _NAMES, _PANEL, _BETWEEN = 8.6, 1.95, 3.05, 0.35
_BAR, _BETWEEN_GROUPS, _HEAD, _FOOT, _CURVES = 0.15, 0.13, 0.5, 0.62, 2.6

_PANELS = (("fit_seconds", "Training"), ("predict_seconds", "Predicting the test rows"))
_NAMES_OF_PEERS = {"libsvm": "scikit-learn", "intelex": "scikit-learn-intelex", "knn": "3 nearest neighbours"}


@dataclass(frozen=True)
class _Look:
    """How a contender is shown."""

    name: str
    colour: str
    ours: bool


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raise UsageError where `path` names no format that is written, or matplotlib is missing."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: name a file that ends in {' or '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError('--plot needs matplotlib: pip install "gpusvm[plot]"') from error


def save_plot(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw the content of a record (`Record.to_dict`) as SVG or PNG.

    Raises
    ------
    UsageError
        See `check_plot`.
    DataError
        Nothing of the record was measured.
    OutputError
        The file cannot be written.
    """
    check_plot(path)
    from matplotlib import rc_context

    rows = [row for row in content["rows"] if row["status"] in ("ok", "timeout", "failed")]
    if not any(row["fit_seconds"] for row in rows):
        raise DataError("nothing of this record was measured: there is nothing to draw")
    form = Path(path).suffix.lower().removeprefix(".")
    with rc_context(_STYLE), replacing(path) as temporary:
        dated = {"Date": None} if form == "svg" else {}
        _figure(content, rows).savefig(temporary, format=form, dpi=150, metadata=dated)


def _figure(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Any:
    """Bars of problems measured at one size; below, a row of curves for each of several sizes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    looks = _looks(rows)
    names = dict.fromkeys(row["case"] for row in rows)
    groups = {name: [row for row in rows if row["case"] == name] for name in names}
    grown = {name: found for name, found in groups.items() if len({row["n_train"] for row in found}) > 1}
    single = {name: found for name, found in groups.items() if name not in grown}
    bars = sum(len(found) * _BAR + _BETWEEN_GROUPS for found in single.values())
    bars += 0.35 if single else 0.0  # the axis below them
    height = _HEAD + bars + _CURVES * len(grown) + _FOOT
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    _write_head(figure, content, height)
    if single:
        _draw_bars(figure, single, looks, content["suite"], (_HEAD, bars, height))
    for number, (name, found) in enumerate(grown.items()):
        top = _HEAD + bars + number * _CURVES
        _draw_growth(figure, name, found, looks, (top, height))
    _write_foot(figure, content, rows, height)
    return figure


def _looks(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Look]:
    looks: dict[str, _Look] = {}
    for row in rows:
        contender = row["contender"]
        if contender not in looks:
            ours = contender in _OURS
            n_peers = sum(not look.ours for look in looks.values())
            colour = _OURS[contender] if ours else _GREYS[n_peers % len(_GREYS)]
            looks[contender] = _Look(_NAMES_OF_PEERS.get(contender, contender), colour, ours)
    return looks


def _write_head(figure: Any, content: Mapping[str, Any], height: float) -> None:
    suite = content["suite"]
    title = f"{suite['name']}: {suite['title']}" if "title" in suite else suite["name"]
    figure.text(0.1 / _WIDTH, 1 - 0.14 / height, _plain(title), size=10, weight="bold", va="top")


def _write_foot(figure: Any, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], height: float) -> None:
    machine, suite = content["machine"], content["suite"]
    lines = [
        f"Seconds on a logarithmic axis, medians of {suite['repeats']}, each in a fresh process. "
        f"Coloured: gpusvm's backends; grey: what people use without it.",
        f"{machine['cpu']}, {machine['cores']} cores; GPU: {machine['gpu']['reason']}; {content['started'][:10]}.",
    ]
    if any(is_doubtful(row) for row in rows):
        lines.append(f"{DOUBT} its KKT gap, recomputed in float64, is above twice the tolerance.")
    for number, line in enumerate(lines):
        bottom = (0.1 + 0.15 * (len(lines) - 1 - number)) / height
        figure.text(0.1 / _WIDTH, bottom, _plain(line), size=7, color="#666666", va="bottom")


def _panel(figure: Any, column: int, top: float, inner: float, height: float) -> Any:
    """Axes in inches from the top: column 0 or 1, `inner` high."""
    left = _NAMES + column * (_PANEL + _BETWEEN)
    ax = figure.add_axes((left / _WIDTH, 1 - (top + inner) / height, _PANEL / _WIDTH, inner / height))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    return ax


def _draw_bars(
    figure: Any,
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    looks: Mapping[str, _Look],
    suite: Mapping[str, Any],
    place: tuple[float, float, float],
) -> None:
    """Draw the bars: a panel for fit and one for predict.

    `place` is where they begin, how high they are, and how high the figure is.
    """
    top, bars, height = place
    everything = [row for found in groups.values() for row in found]
    for column, (key, title) in enumerate(_PANELS):
        ax = _panel(figure, column, top, bars - 0.35, height)
        least, most = _range(everything, key, suite if column == 0 else None)
        ax.set_xscale("log")
        ax.set_xlim(least, most * (most / least) ** 0.28)  # room for what stands beside the longest bar
        _seconds_axis(ax.xaxis, least, most)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=_PALE, linewidth=0.7)
        ax.set_title(title, loc="left", size=9)
        y = 0.0
        for number, (name, found) in enumerate(groups.items()):
            if column == 0:
                _name_group(ax, name, y + len(found) * _BAR / 2)
            for row in found:
                _draw_bar(ax, y + _BAR / 2, row, key, looks[row["contender"]], suite, named=number == 0)
                y += _BAR
            y += _BETWEEN_GROUPS
        ax.set_ylim(y, -_BETWEEN_GROUPS / 2)


def _range(rows: Sequence[Mapping[str, Any]], key: str, suite: Mapping[str, Any] | None) -> tuple[float, float]:
    """From where to where seconds are drawn.

    With the suite this reaches as far as what did not end was waited for.
    """
    values = [row[key]["median"] for row in rows if row[key]]
    if suite is not None:
        values += [_allowed(suite, row) for row in rows if row["status"] == "timeout" and not row[key]]
    return min(values) / 3, max(values)


def _allowed(suite: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    own = suite.get("overrides", {}).get(row["contender"], {})
    return float(own.get("timeout_s", suite["timeout_s"]))


def _draw_bar(
    ax: Any, y: float, row: Mapping[str, Any], key: str, look: _Look, suite: Mapping[str, Any], *, named: bool
) -> None:
    """Draw the bar of one contender, its seconds beside it.

    Where `named`, its name is there too: inside the bar if that is long.
    """
    weight, colour, name = ("bold" if look.ours else "normal"), _INK, look.name if named else ""
    length, ended = None, row[key] is not None
    if ended:
        length = row[key]["median"]
        text = _short(length)
        if is_doubtful(row) and key == "fit_seconds":
            text, colour = f"{text} {DOUBT}", _WARNING
        ax.barh(y, length, _BAR * 0.86, color=look.colour, linewidth=0)
    elif row["status"] == "timeout" and key == "fit_seconds":
        length = _allowed(suite, row)
        text, colour = f"not within {_short(length)}", _WARNING
        ax.barh(y, length, _BAR * 0.86, facecolor="white", edgecolor=look.colour, linewidth=0.8, hatch="//////")
    else:
        text, colour = "no result", "#8C8C8C"
    least, most = ax.get_xlim()
    place = {"va": "center_baseline", "size": 7, "xytext": (4, 0), "textcoords": "offset points"}
    if name and length is not None and _PANEL * log10(length / least) / log10(most / least) > 0.1 + 0.062 * len(name):
        ground = None if ended else {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        ax.annotate(name, (least, y), color="white" if look.colour in _DARK else _INK, bbox=ground, **place)
    elif name:
        text = f"{text}, {name}"
    ax.annotate(text, (length or least, y), weight=weight, color=colour, **place)


def _name_group(ax: Any, name: str, y: float) -> None:
    """The problem's name left of its bars: what it is, and below it its size."""
    first, _, rest = name.partition(", ")
    place = {
        "xycoords": ("axes fraction", "data"),
        "ha": "right",
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    ax.annotate(
        _plain(first), (0, y), xytext=(-6, 1 if rest else -3), va="bottom" if rest else "center", size=8, **place
    )
    if rest:
        ax.annotate(_plain(fill(rest, 31)), (0, y), xytext=(-6, -1), va="top", size=6.5, color="#666666", **place)


def _draw_growth(
    figure: Any,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    looks: Mapping[str, _Look],
    place: tuple[float, float],
) -> None:
    """Draw seconds over samples for one problem.

    `place` is where the row of panels begins, and how high the figure is.
    """
    top, height = place
    first, _, rest = name.partition(", ")
    words = "\n".join(filter(None, (first, rest.replace(", ", ",\n"))))
    figure.text((_NAMES - 0.45) / _WIDTH, 1 - (top + 0.1) / height, _plain(words), ha="right", va="top", size=8)
    sizes = sorted({row["n_train"] for row in rows})
    for column, (key, title) in enumerate(_PANELS):
        ax = _panel(figure, column, top + 0.1, _CURVES - 0.75, height)
        ax.set(xscale="log", yscale="log")
        ax.set_title(title, loc="left", size=9)
        ax.grid(color=_PALE, linewidth=0.7)
        ends = [_draw_line(ax, rows, contender, key, look) for contender, look in looks.items()]
        if values := [row[key]["median"] for row in rows if row[key]]:
            _seconds_axis(ax.yaxis, min(values), max(values))
        ax.set_xlim(sizes[0] / 1.15, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.75)  # room for names
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], size=7)
        ax.minorticks_off()
        ax.set_xlabel("training samples", size=7.5, loc="left")
        _name_lines(ax, [end for end in ends if end is not None])


def _draw_line(
    ax: Any, rows: Sequence[Mapping[str, Any]], contender: str, key: str, look: _Look
) -> tuple[float, float, str, _Look] | None:
    """Draw one contender's seconds.

    Returns where they end and what to write there, or None where there are none.
    """
    found = sorted((row for row in rows if row["contender"] == contender), key=lambda row: row["n_train"])
    measured = [(row["n_train"], row[key]["median"], is_doubtful(row)) for row in found if row[key]]
    if not measured:
        return None
    n, seconds, _ = zip(*measured, strict=True)
    ax.plot(n, seconds, "-o", color=look.colour, markersize=3.5, linewidth=2.0 if look.ours else 1.3)
    if key == "fit_seconds":
        for x, y in ((x, y) for x, y, doubt in measured if doubt):
            ax.annotate(DOUBT, (x, y), xytext=(0, 4), textcoords="offset points", ha="center", color=_WARNING)
    unended = any(row["status"] == "timeout" and not row[key] for row in found)
    return n[-1], seconds[-1], f"{look.name}, no more in time" if unended else look.name, look


def _name_lines(ax: Any, ends: Sequence[tuple[float, float, str, _Look]]) -> None:
    """Each line's name at its end, moved up where it would stand on another."""
    low, high = map(log10, ax.get_ylim())
    apart = (high - low) * 0.085
    before: dict[float, float] = {}
    for n, seconds, text, look in sorted(ends, key=lambda end: end[1]):
        y = max(log10(seconds), before.get(n, -99.0) + apart)
        before[n] = y
        weight = "bold" if look.ours else "normal"
        ax.annotate(
            text, (n, 10**y), xytext=(6, 0), textcoords="offset points", va="center_baseline", size=7.5,
            color=look.colour if look.ours else "#666666", weight=weight, annotation_clip=False,
        )  # fmt: skip


def _seconds_axis(axis: Any, least: float, most: float) -> None:
    """Powers of ten, as people say them."""
    powers = [10.0**power for power in range(-5, 6) if least <= 10.0**power <= most * 1.001]
    axis.set_ticks(powers, [_short(power) for power in powers], size=7)
    axis.set_minor_locator(_no_ticks())
    axis.set_tick_params(length=0)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _short(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds:,.0f} s" if seconds >= 99.5 else f"{seconds:.2g} s"


def _plain(text: str) -> str:
    """No formula, even if it has dollar signs."""
    return text.replace("$", r"\$")

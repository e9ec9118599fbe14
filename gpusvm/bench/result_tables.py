"""Tables of a run's rows, for Markdown and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpusvm.bench.suite import BEST_PEER

HEADER = (
    "contender",
    "n",
    "fit s",
    "speed-up",
    "predict s",
    "predict speed-up",
    "accuracy",
    "SV",
    "KKT gap",
    "dual objective",
    "agreement",
    "host MB",
    "GPU MB",
)

NONE = "–"

DOUBT = "(!)"
"""Beside the KKT gap of a model that is not a solution of the problem it was given."""


@dataclass(frozen=True)
class ResultTable:
    """The rows of one case, as text; `note` is about its data, where they are not the suite's."""

    title: str
    cells: tuple[tuple[str, ...], ...]
    note: str = ""


def make_tables(content: Mapping[str, Any]) -> list[ResultTable]:
    """A table for each case of a record's content, with anything measured."""
    tables = []
    for case in content["suite"]["cases"]:
        rows = [row for row in content["rows"] if row["case"] == case["name"]]
        if rows:
            note = " ".join(filter(None, (_data_note(content, case), _best_note(rows))))
            tables.append(ResultTable(case["name"], tuple(_cells(row) for row in rows), note))
    return tables


def _best_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What searches found."""
    found = [
        f"{row['contender']} C={best['C']:.4g}, gamma={best['gamma']:.4g}, {best['score']:.4f} in cross-validation"
        for row in rows
        if (best := row.get("best"))
    ]
    return f"Found: {'; '.join(found)}." if found else ""


def _data_note(content: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    if "dataset" not in case:
        return ""
    data = content["data"]["cases"][case["name"]]
    train = data["train"]
    found = [
        f"{train[key]} {what}" for key, what in (("n_features", "features"), ("n_classes", "classes")) if key in train
    ]
    seen = ", which may be rows that it was trained on" if case.get("test_on_training") else ""
    return f"Data: {', '.join([train['name'], *found])}; tested on {data['test']['n']:,} rows{seen}."


def footnotes(content: Mapping[str, Any]) -> list[str]:
    """What the reader of the tables must know, a line each."""
    suite, machine, data = content["suite"], content["machine"], content["data"]
    notes = [f"{_data(data)}{_compared(suite, content['rows'])}", f"Machine: {describe(machine)}."]
    if least := suite.get("least_timed_s"):
        notes.append(f"What took less than {least:g} s was repeated for that long in its process, and is the median.")
    if any(is_doubtful(row) for row in content["rows"]):
        notes.append(f"{DOUBT} the KKT gap is above twice the tolerance: not a solution of the problem stated.")
    if content["finished"] is None:
        notes.append("The run did not finish: what is missing was not measured.")
    return notes


def _data(data: Mapping[str, Any]) -> str:
    if "train" not in data:
        return ""
    return f"Data: {data['train']['name']}, tested on {data['test']['n']:,} images. "


def _compared(suite: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    reference = suite["reference"]
    if reference == BEST_PEER and any(row["fit_speedup"] for row in rows):
        return "Speed-ups are over the faster peer of each table, agreement is with the one faster to fit."
    if any(row["contender"] == reference and row["fit_seconds"] for row in rows):
        return f"Speed-ups and agreement are against {reference}."
    name = "a peer with a kernel" if reference == BEST_PEER else reference
    return f"Speed-ups and agreement need the reference, which was not measured: {name}."


def describe(machine: Mapping[str, Any]) -> str:
    """A machine on one line."""
    gpu = machine["gpu"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mb'] / 1024:.0f} GB; "
        f"GPU: {gpu['reason']}; {machine['os']}, Python {machine['python']}; {versions}"
    )


def to_markdown(content: Mapping[str, Any]) -> str:
    """The tables of a record's content as a Markdown page."""
    suite = content["suite"]
    parts = [f"# {suite['name']}: {suite.get('title', 'benchmark')}", f"Started {content['started']}."]
    for table in make_tables(content):
        parts += [f"## {table.title}", *([table.note] if table.note else []), markdown_table(table)]
    parts += footnotes(content)
    return "\n\n".join(parts) + "\n"


def markdown_table(table: ResultTable) -> str:
    """One table, its columns aligned so that it reads as plain text too."""
    lines = [HEADER, *(tuple(cell.replace("|", "\\|") for cell in row) for row in table.cells)]
    # A reason can be long, and has the rest of its line to itself.
    widths = [max(len(line[k]) for line in lines if not _is_reason(line, k)) for k in range(len(HEADER))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join(_join(line, widths) for line in [HEADER, rule, *lines[1:]])


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |"


def _is_reason(line: Sequence[str], column: int) -> bool:
    return column == 2 and ": " in line[column]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    fit = _seconds(row["fit_seconds"])
    if row["status"] != "ok":
        trouble = f"{row['status']}: {row['reason']}"
        fit = trouble if row["fit_seconds"] is None else f"{fit}; then {trouble}"
    certificate = row["certificate"] or {}
    return (
        row["contender"],
        f"{row['n_train']:,}",
        fit,
        _number(row["fit_speedup"], ".2f"),
        _seconds(row["predict_seconds"]),
        _number(row["predict_speedup"], ".2f"),
        _number(row["accuracy"], ".4f"),
        _number(row["n_support_vectors"], ",d"),
        _number(certificate.get("kkt_gap"), ".2g") + (f" {DOUBT}" if is_doubtful(row) else ""),
        _number(certificate.get("dual_objective"), ".8g"),
        _number(row["agreement"], ".4f"),
        _number(row["peak_rss_mb"], ",.0f"),
        _number(row["peak_gpu_mb"], ",.0f"),
    )


def is_doubtful(row: Mapping[str, Any]) -> bool:
    """Whether the model of this row is not a solution of the problem it was given."""
    if row["certificate"] is None:
        return False
    return row["certificate"].get("kkt_gap", 0.0) > 2 * row["params"].get("tol", 1e-3)


def _seconds(spread: Mapping[str, Any] | None) -> str:
    """Median, with the smallest and the largest where there are several."""
    if spread is None:
        return NONE
    text = _short(spread["median"])
    if len(spread["all"]) == 1:
        return text
    return f"{text} ({_short(spread['min'])}–{_short(spread['max'])})"


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)

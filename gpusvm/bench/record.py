"""The record of a run: what was measured and on what machine, written to a file and read again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpusvm.bench import checks
from gpusvm.bench.contenders import contender_names
from gpusvm.bench.result_tables import to_markdown
from gpusvm.bench.rows import make_rows
from gpusvm.bench.suite import Suite
from gpusvm.bench.suite_file import parse_suite
from gpusvm.errors import DataError
from gpusvm.io.output import write_json, write_text

SCHEMA = 1

_LARGEST_FILE = 2**28

Key = tuple[str, str | None, int, int]
"""Contender, case (None for a contender without a kernel on the suite's data), training samples, repeat."""


def utc_now() -> str:
    """The time, as a record has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Record:
    """Everything that a run leaves behind; docs/benchmarks.md documents its JSON field by field.

    Attributes
    ----------
    suite : Suite
    machine : dict
        From `describe_machine`.
    data : dict
        Of the training and the test images: name, number, digest; by case, where a case has its own.
    started, finished : str
        UTC, ISO 8601; `finished` is None until every measurement is there.
    measurements : list of dict
        One for each worker process, in the order they were taken.
    """

    suite: Suite
    machine: dict[str, Any]
    data: dict[str, Any]
    started: str = field(default_factory=utc_now)
    finished: str | None = None
    measurements: list[dict[str, Any]] = field(default_factory=list)

    def find(self, key: Key) -> dict[str, Any] | None:
        """The measurement with that key, if it was taken."""
        return next((m for m in self.measurements if _key(m) == key), None)

    def is_unavailable(self, contender: str) -> bool:
        """Whether a worker found that this contender cannot run here."""
        return any(m["contender"] == contender and m["status"] == "unavailable" for m in self.measurements)

    def has_failed(self, contender: str, case: str | None, n_train: int) -> bool:
        """Whether a repeat of this failed or timed out, so that another is not worth its time."""
        return any(
            m["status"] in ("failed", "timeout") and _key(m)[:3] == (contender, case, n_train)
            for m in self.measurements
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {
            "schema": SCHEMA,
            "suite": self.suite.to_dict(),
            "started": self.started,
            "finished": self.finished,
            "machine": self.machine,
            "data": self.data,
            "rows": make_rows(self.suite, self.measurements),
            "measurements": self.measurements,
        }

    def save(self, path: Path) -> None:
        """Write the record to `path`, and its tables as Markdown beside it. Raises OutputError."""
        content = self.to_dict()
        write_json(path, content)
        write_text(path.with_suffix(".md"), to_markdown(content))


def load_record(path: Path) -> Record:
    """Read a record that `Record.save` wrote. Raises DataError where it is none, or of another schema."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{path}: is too large for a benchmark record; {_NAME_ANOTHER}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the record: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}; {_NAME_ANOTHER}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise DataError(f"{path}: is not a benchmark record; {_NAME_ANOTHER}")
    if content["schema"] != SCHEMA:
        found = checks.quote(content["schema"])
        raise DataError(f"{path}: has schema {found}, but this gpusvm reads {SCHEMA}; start a new run")
    return _parse_record(content, str(path))


def _parse_record(content: dict[str, Any], where: str) -> Record:
    values = checks.read_table(content, _RECORD_KEYS, where)
    checks.require(values, ("suite", "started", "machine", "data", "measurements"), where)
    suite = parse_suite(values["suite"], f"{where}: suite")
    _check_data(suite, values["data"], where)
    for number, measurement in enumerate(values["measurements"], start=1):
        label = f"{where}: measurement {number}"
        found = checks.read_table(measurement, _MEASUREMENT_KEYS, label)
        needed = _ALWAYS if found.get("status") != "ok" else (*_ALWAYS, *_WHEN_OK)
        checks.require(found, needed, label)
    return Record(
        suite,
        values["machine"],
        values["data"],
        values["started"],
        values.get("finished"),
        values["measurements"],
    )


def _check_data(suite: Suite, data: dict[str, Any], where: str) -> None:
    """Raise DataError where the data of a case are not described as the tables show them."""
    checks.check(f"{where}: data: cases", checks.table_of(checks.table), data.get("cases", {}))
    for case in suite.cases:
        if case.dataset is None:
            checks.check(f"{where}: data", _DATA, data)
        else:
            label = f"{where}: data of case {checks.quote(case.name)}"
            checks.check(label, _DATA, data.get("cases", {}).get(case.name))


def _key(measurement: dict[str, Any]) -> Key:
    return tuple(measurement[name] for name in ("contender", "case", "n_train", "repeat"))


_NAME_ANOTHER = "name a .json file that gpusvm bench wrote"
_ALWAYS = ("contender", "case", "n_train", "repeat", "status")
_WHEN_OK = ("fit_seconds", "predict_seconds", "load_seconds", "accuracy", "n_test", "test_errors")

_DATA = checks.table_with(
    {"train": checks.table_with({"name": checks.text}), "test": checks.table_with({"n": checks.whole(1)})}
)
_RECORD_KEYS: dict[str, checks.Reader] = {
    "schema": checks.whole(SCHEMA),
    "suite": checks.table,
    "started": checks.text,
    "finished": checks.optional(checks.text),
    "machine": checks.table_with(
        {
            **dict.fromkeys(("cpu", "os", "python"), checks.text),
            "cores": checks.whole(1),
            "memory_mb": checks.whole(1),
            "versions": checks.table_of(checks.text),
            "gpu": checks.table_with({"reason": checks.text}),
        }
    ),
    "data": checks.table,
    "rows": checks.listed,
    "measurements": checks.listed,
}
_MEASUREMENT_KEYS: dict[str, checks.Reader] = {
    "contender": checks.one_of(contender_names),
    "case": checks.optional(checks.text),
    "n_train": checks.whole(2),
    "repeat": checks.whole(0),
    "status": checks.exactly("ok", "unavailable", "failed", "timeout"),
    "reason": checks.text,
    "stderr": checks.listed,
    "at": checks.text,
    "params": checks.table,
    "n_test": checks.whole(1),
    "load_seconds": checks.seconds,
    "warmup_seconds": checks.seconds,
    "fit_seconds": checks.seconds,
    "predict_seconds": checks.seconds,
    "n_fits": checks.whole(1),
    "n_predictions": checks.whole(1),
    "accuracy": checks.fraction,
    "best": checks.table_of(checks.number),
    "n_support_vectors": checks.optional(checks.whole(0)),
    "peak_rss_mb": checks.seconds,
    "peak_gpu_mb": checks.optional(checks.seconds),
    "certificate": checks.optional(checks.table_of(checks.number)),
    "certify_seconds": checks.optional(checks.seconds),
    "versions": checks.table,
    "test_errors": checks.matching(r"(\d{1,9}:\d{1,9}( \d{1,9}:\d{1,9})*)?", "pairs of row:class"),
}

"""The record of a run: what was measured and on what machine, written to a file and read again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpusvm.bench.contenders import contender_names
from gpusvm.bench.result_tables import to_markdown
from gpusvm.bench.rows import make_rows
from gpusvm.bench.suite import Suite
from gpusvm.bench.suite_file import parse_suite
from gpusvm.bench.validation import one_of, quote, validated
from gpusvm.errors import DataError
from gpusvm.io.output import write_json, write_text

SCHEMA = 1

_LARGEST_FILE = 2**28

Key = tuple[str, str | None, int, int]
"""Contender, case (None for a contender without a kernel on the suite's data), training samples,
repeat."""


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
        Of the training and the test images: name, number, digest; by case, where a case has its
        own.
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
    """Read a record that `Record.save` wrote.

    Raises DataError where it is none, or of another schema.
    """
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
        found = quote(content["schema"])
        raise DataError(f"{path}: has schema {found}, but this gpusvm reads {SCHEMA}; start a new run")
    return _parse_record(content, str(path))


def _parse_record(content: dict[str, Any], where: str) -> Record:
    found = validated(_File, content, where)
    suite = parse_suite(found.suite, f"{where}: suite")
    for case in suite.cases:
        own = content["data"] if case.dataset is None else found.data.cases.get(case.name)
        validated(_Data, own, f"{where}: data of {case.name}")
    for number, measurement in enumerate(found.measurements, start=1):
        done = isinstance(measurement, dict) and measurement.get("status") == "ok"
        validated(_Done if done else _Measurement, measurement, f"{where}: measurement {number}")
    return Record(suite, content["machine"], content["data"], found.started, found.finished, found.measurements)


def _key(measurement: dict[str, Any]) -> Key:
    return tuple(measurement[name] for name in ("contender", "case", "n_train", "repeat"))


_NAME_ANOTHER = "name a .json file that gpusvm bench wrote"


class _Part(BaseModel):
    """What tables, pictures and a resumed run read of a part of a record.

    Whatever else the part has may be anything.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Measurement(_Part):
    contender: Annotated[str, one_of(contender_names)]
    case: str | None
    n_train: int
    repeat: int
    status: Literal["ok", "unavailable", "failed", "timeout"]
    reason: str | None = None


class _Done(_Measurement):
    fit_seconds: float
    predict_seconds: float
    load_seconds: float
    accuracy: float
    n_test: Annotated[int, Field(ge=1)]
    test_errors: str
    n_support_vectors: int | None = None
    peak_rss_mb: float | None = None
    peak_gpu_mb: float | None = None
    best: dict[str, float] = Field(default_factory=dict)
    certificate: dict[str, float] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)


class _Samples(_Part):
    name: str
    n: int


class _Data(_Part):
    train: _Samples
    test: _Samples


class _AllData(_Part):
    cases: dict[str, Any] = Field(default_factory=dict)


class _Gpu(_Part):
    reason: str


class _Machine(_Part):
    cpu: str
    os: str
    python: str
    cores: int
    memory_mb: int
    versions: dict[str, str]
    gpu: _Gpu


class _File(_Part):
    suite: dict[str, Any]
    started: str
    finished: str | None = None
    machine: _Machine
    data: _AllData
    measurements: list[Any]

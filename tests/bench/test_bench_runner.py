"""Going through a suite: the order, the record after every measurement, and going on where it
stopped."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusvm.bench.machine import _cpu_model, describe_machine
from gpusvm.bench.record import load_record
from gpusvm.bench.result_tables import make_tables
from gpusvm.bench.runner import Job, _describe, new_run, plan, resumed_run
from gpusvm.bench.suite import Case, Override, Suite
from gpusvm.data import load_dataset
from gpusvm.errors import DataError, OutputError, UsageError
from gpusvm.packages import package_versions

ROOT = Path(__file__).parents[2]

SUITE = Suite(
    name="small",
    dataset="digits",
    sizes=(100, 200),
    cases=(Case("narrow", gamma=1.0), Case("wide", gamma=0.1)),
    backends=("cuml", "sklearn"),
    peers=("libsvm", "knn"),
    repeats=2,
    overrides={"libsvm": Override(repeats=1, sizes=(100,))},
)

ANSWER = {
    "status": "ok",
    "params": {"tol": 1e-3},
    "n_test": 360,
    "load_seconds": 0.1,
    "warmup_seconds": 0.0,
    "fit_seconds": 0.5,
    "predict_seconds": 0.25,
    "accuracy": 0.95,
    "n_support_vectors": 10,
    "peak_rss_mb": 100.0,
    "peak_gpu_mb": None,
    "certificate": {"kkt_gap": 0.001, "dual_objective": 5.0},
    "certify_seconds": 0.1,
    "versions": {"scikit-learn": "1"},
    "test_errors": "3:7",
}

SCRIPT = f"""
import json, sys
spec = json.loads(input())
answer = {ANSWER!r}
if spec["contender"] == "cuml":
    answer = {{"status": "unavailable", "reason": "no GPU"}}
if spec["contender"] == "libsvm":
    sys.exit("crash")
print(json.dumps(answer))
"""
WORKER = (sys.executable, "-S", "-c", SCRIPT)


class Watcher:
    """Notes what it is told, and presses Ctrl-C before the measurement of a given number."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.seen: list[tuple[str, str]] = []

    def started(self, job: Job, number: int, total: int) -> None:
        if number == self.stop_at:
            raise KeyboardInterrupt

    def finished(self, job: Job, number: int, total: int, measurement: dict[str, Any]) -> None:
        self.seen.append((job.contender, measurement["status"]))


def test_repeats_go_round_the_contenders_and_the_reference_is_first() -> None:
    first = [(job.contender, job.repeat) for job in plan(SUITE) if job.case.name == "narrow" and job.n_train == 100]
    assert first == [
        ("sklearn", 0), ("cuml", 0), ("libsvm", 0), ("knn", 0), ("sklearn", 1), ("cuml", 1), ("knn", 1),
    ]  # fmt: skip


def test_what_has_no_kernel_is_measured_in_one_case_only() -> None:
    neighbours = [job for job in plan(SUITE) if job.contender == "knn"]
    assert len(neighbours) == 2 * 2
    assert {job.case_key for job in neighbours} == {None}


def test_sizes_of_one_contender_are_obeyed() -> None:
    assert {job.n_train for job in plan(SUITE) if job.contender == "libsvm"} == {100}


def test_failures_and_what_is_unavailable_are_rows(tmp_path: Path) -> None:
    run, watcher = new_run(SUITE, tmp_path), Watcher()
    run.measure(watcher, WORKER)
    content = json.loads(run.path.read_text())
    assert content["schema"] == 1
    assert content["finished"]
    # Asked once each: what is unavailable for the run, what fails for its case and size.
    assert watcher.seen.count(("cuml", "unavailable")) == 1
    assert watcher.seen.count(("libsvm", "failed")) == 2
    rows = {(row["contender"], row["case"], row["n_train"]): row for row in content["rows"]}
    assert len(rows) == 2 * (2 * 3 + 1)
    assert rows["cuml", "wide", 200]["reason"] == "no GPU"
    assert rows["libsvm", "narrow", 100]["reason"] == "ended with exit code 1: crash"
    assert rows["sklearn", "wide", 200]["fit_seconds"]["all"] == [0.5, 0.5]
    assert rows["knn", "wide", 200]["agreement"] == 1.0
    page = run.path.with_suffix(".md").read_text()
    assert "unavailable: no GPU" in page
    assert "failed: ended with exit code 1: crash" in page


def test_rows_are_kept_when_a_run_is_interrupted_and_it_goes_on_from_them(tmp_path: Path) -> None:
    run = new_run(SUITE, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.measure(Watcher(stop_at=8), WORKER)
    kept = load_record(run.path)
    assert kept.finished is None
    taken = [m for m in kept.measurements if m["status"] != "unavailable"]
    assert len(taken) == 5
    watcher = Watcher()
    again = resumed_run(run.path)
    again.measure(watcher, WORKER)
    assert again.record.measurements[: len(taken)] == taken
    assert again.record.finished is not None
    keys = [tuple(m[k] for k in ("contender", "case", "n_train", "repeat")) for m in again.record.measurements]
    assert len(set(keys)) == len(keys)
    assert watcher.seen.count(("cuml", "unavailable")) == 1
    finished = json.loads(run.path.read_text())["rows"]
    whole = new_run(SUITE, tmp_path / "other")
    whole.measure(command=WORKER)
    assert [{**row} for row in finished] == json.loads(whole.path.read_text())["rows"]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    suite = SUITE.with_options(contenders=["sklearn"], sizes=[100])
    run = new_run(suite, tmp_path)
    run.measure(command=WORKER)
    watcher = Watcher()
    resumed_run(run.path).measure(watcher, WORKER)
    assert watcher.seen == []


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    run = new_run(SUITE, tmp_path)
    run.record.save(run.path)
    content = json.loads(run.path.read_text())
    content["machine"]["cores"] = 999
    run.path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="cores differ"):
        resumed_run(run.path)


def test_figures_of_two_data_sets_are_not_mixed(tmp_path: Path) -> None:
    run = new_run(SUITE, tmp_path)
    run.record.data["train"]["digest"] = "0"
    run.record.save(run.path)
    with pytest.raises(DataError, match="other data"):
        resumed_run(run.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2, but this gpusvm reads 1; start a new run"),
        ({"suite": {}}, "suite: name is missing"),
        ({"machine": {"cpu": "one"}}, "machine: os is missing"),
        ({"data": {"train": {"name": 3}}}, "data of narrow: train: name must be a text, not 3"),
        ({"data": {"cases": []}}, "data: cases must be a table"),
        ({"measurements": {}}, "measurements must be a list"),
        ({"measurements": [3]}, "measurement 1: must be a table"),
        (
            {"measurements": [{**ANSWER, "contender": "sklearn", "case": "wide", "n_train": "5"}]},
            "n_train must be a wh",
        ),
        (
            {"measurements": [{"contender": "knn", "case": None, "n_train": 5, "repeat": 0, "status": "ok"}]},
            "measurement 1: fit_seconds is missing",
        ),
    ],
)
def test_a_record_that_is_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "run.json"
    new_run(SUITE, tmp_path).record.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        load_record(path)


def test_a_record_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    new_run(SUITE, tmp_path).record.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not JSON"):
        load_record(path)


RECORDS = [path for path in (ROOT / "benchmarks" / "results").glob("*.json") if path.with_suffix(".md").exists()]


@pytest.mark.parametrize("path", sorted(RECORDS), ids=lambda path: path.stem)
def test_every_record_of_the_project_is_read(path: Path) -> None:
    """The oldest are of the first version, whatever has been added since."""
    content, record = json.loads(path.read_text()), load_record(path)
    assert record.measurements == content["measurements"]
    assert make_tables(record.to_dict())


def test_more_images_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1,437 training images, not 9,999"):
        new_run(SUITE.with_options(sizes=[9999]), tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        new_run(SUITE, tmp_path / "file")


def test_the_machine_is_described_without_names_of_people_and_places() -> None:
    machine = describe_machine()
    text = json.dumps(machine)
    assert machine["cores"] >= 1
    assert machine["versions"]["gpusvm"]
    assert machine["blas"]
    assert str(Path.home()) not in text
    assert sys.prefix not in text
    assert "filepath" not in text


def test_data_and_machine_are_never_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record in which they were could not be resumed."""
    digits = load_dataset("digits", "train")
    described = _describe(dataclasses.replace(digits, name="."))
    assert described["name"] == Path.cwd().name
    monkeypatch.setattr(Path, "read_text", lambda self: "model name\t: \n")
    assert _cpu_model()


def test_versions_of_what_is_not_installed_are_left_out() -> None:
    assert set(package_versions(["numpy", "no-such-package"])) == {"numpy"}

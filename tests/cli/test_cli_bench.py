"""``gpusvm bench``, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpusvm.bench import runner, worker
from gpusvm.cli.main import app


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: Path) -> dict:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process for each measurement, which imports all anew."""
    monkeypatch.setattr(runner, "run_worker", lambda spec, timeout_s, command: worker.measure(spec))


@pytest.mark.usefixtures("measured_here")
def test_a_suite_runs_to_a_table_and_a_file(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = bench("--backends", "sklearn,cuml,knn", "--sizes", "300", "--repeats", "1", "--out", "found")
    assert done.exit_code == 0
    assert "| sklearn   | 300 |" in done.stdout
    assert "unavailable: " in done.stdout
    assert "[1/3] sklearn, 300 images" in done.stderr
    rows = {row["contender"]: row for row in results(elsewhere / "found")["rows"]}
    assert rows["sklearn"]["status"] == rows["knn"]["status"] == "ok"
    assert rows["sklearn"]["certificate"]["kkt_gap"] < 2e-3
    assert rows["cuml"]["status"] == "unavailable"
    assert rows["cuml"]["reason"]
    (page,) = (elsewhere / "found").glob("*.md")
    assert "| sklearn   | 300 |" in page.read_text()


def test_a_timeout_is_a_row(elsewhere: Path) -> None:
    done = bench("quick", "--backends", "sklearn", "--timeout", "0.001", "--repeats", "1")
    assert done.exit_code == 0
    assert "timeout: took longer than 0.001 s" in done.stdout
    assert results(elsewhere / "bench-results")["rows"][0]["status"] == "timeout"


def test_ctrl_c_says_where_the_rows_are_and_resume_goes_on(elsewhere: Path, request: pytest.FixtureRequest) -> None:
    arguments = ["quick", "--backends", "sklearn,knn", "--sizes", "200", "--repeats", "20", "--out", "found"]
    command = subprocess.Popen(
        [sys.executable, "-m", "gpusvm.cli.main", "bench", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, if we run in the background
    )
    assert command.stderr is not None
    messages = ""
    while "[1/40]" not in messages:
        line = command.stderr.readline()
        assert line, messages
        messages += line
    time.sleep(0.5)  # into the second measurement, or one of those after it
    os.kill(command.pid, signal.SIGINT)
    messages += command.stderr.read()
    assert command.wait() == 130
    (path,) = (elsewhere / "found").glob("*.json")
    assert f"go on with gpusvm bench --resume found/{path.name}" in messages
    content = json.loads(path.read_text())
    n_reported = messages.count("/40]")
    assert n_reported <= len(content["measurements"]) <= n_reported + 1 < 40
    first = content["measurements"][0]
    assert first["status"] == "ok" and first["n_test"] == 360, "measured in a process of its own"
    content["suite"]["repeats"] = 1
    content["measurements"] = content["measurements"][:1]
    path.write_text(json.dumps(content))
    request.getfixturevalue("measured_here")
    done = bench("--resume", str(path))
    assert done.exit_code == 0
    assert "knn, 200 images, repeat 1: fit" in done.stderr
    assert "sklearn, 200 images" not in done.stderr
    assert json.loads(path.read_text())["finished"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nosuch"], 2, "no suite is called 'nosuch'; choose from quick"),
        (["nosuch.toml"], 1, "nosuch.toml: cannot read the suite"),
        (["--sizes", "1,x"], 2, "--sizes must be numbers"),
        (["--backends", "svmlight"], 2, "--backends must be one of"),
        (["--sizes", "100000"], 1, "digits: has 1,437 training images"),
        (["quick", "--resume", "x.json"], 2, "--resume goes on with a run as it was begun"),
        (["--resume", "x.json"], 1, "x.json: cannot read the record"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], code: int, message: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

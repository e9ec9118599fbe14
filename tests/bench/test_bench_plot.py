"""Pictures of records: what is drawn of a row, and that a committed record can be drawn."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpusvm.bench.plot import save_plot
from gpusvm.cli.main import app
from gpusvm.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "results" / "workloads-2026-11-28-044229.json"


@pytest.fixture
def content() -> dict:
    """Adult and wine of that record."""
    found = json.loads(RECORD.read_text())
    found["rows"] = [row for row in found["rows"] if row["case"].startswith(("adult", "wine"))]
    return found


def texts(path: Path) -> list[str]:
    """What is written in an SVG, which keeps text as text."""
    return re.findall(r">([^<>\n]+)</t(?:ext|span)>", path.read_text())


def test_every_contender_is_named_once_a_panel_and_every_time_written(content, tmp_path):
    save_plot(content, tmp_path / "bench.svg")
    found = texts(tmp_path / "bench.svg")
    for name in ("native-cpu", "scikit-learn", "scikit-learn-intelex"):
        assert sum(text.endswith(name) for text in found) == 2, name
    for seconds in ("0.49 s", "12 s", "1.3 s (!)", "19 ms", "1.5 ms"):
        assert any(text.startswith(seconds) for text in found), seconds
    assert {"adult", "wine", "16,281 x 122, 2 classes, RBF"} <= set(found)
    assert [text for text in found if "(!)" in text and "tolerance" in text]


def test_what_did_not_end_in_its_time_is_said_to_be_so(content, tmp_path):
    row = next(row for row in content["rows"] if row["contender"] == "libsvm")
    row.update(
        status="timeout", reason="took longer than 150 s", fit_seconds=None, predict_seconds=None, certificate=None
    )
    content["suite"]["overrides"] = {"libsvm": {"timeout_s": 30}}
    save_plot(content, tmp_path / "bench.svg")
    found = " | ".join(texts(tmp_path / "bench.svg"))
    assert "not within 30 s" in found
    assert "no result" in found


def test_a_problem_of_several_sizes_is_drawn_as_it_grows(content, tmp_path):
    half = deepcopy([row for row in content["rows"] if row["case"].startswith("adult")])
    for row in half:
        row["n_train"] = 8000
    content["rows"] += half
    save_plot(content, tmp_path / "bench.svg")
    found = texts(tmp_path / "bench.svg")
    assert {"8,000", "16,281", "training samples"} <= set(found)
    assert found.count("native-cpu") == 4, "beside the bars of wine, and at the end of adult's lines"


def test_the_same_record_gives_the_same_file(content, tmp_path):
    for name in ("first.svg", "second.svg", "third.png"):
        save_plot(content, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert (tmp_path / "third.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused(content, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.svg or \.png"):
        save_plot(content, tmp_path / "bench.gif")
    for row in content["rows"]:
        row.update(status="unavailable", fit_seconds=None)
    with pytest.raises(DataError, match="nothing to draw"):
        save_plot(content, tmp_path / "bench.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_shown_and_drawn_by_the_command_and_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", str(RECORD), "--plot", "bench.svg"])
    assert done.exit_code == 0, done.output
    assert "| native-cpu | 60,000 |" in done.stdout
    assert "Picture: bench.svg" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["bench.svg"]
    refused = CliRunner().invoke(app, ["bench", str(RECORD), "--repeats", "2"])
    assert refused.exit_code == 2
    assert "is a record" in refused.stderr

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpusvm import load_model
from gpusvm.cli.main import app
from gpusvm.errors import DownloadError


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.svm"
    result = gpusvm("train", "digits", "--backend", "sklearn", "--limit", 300, "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The addresses that a browser was asked to open, on a machine with a screen."""
    found: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: found.append(address) or True)
    return found


def test_export_writes_a_page_beside_the_model(model_path):
    result = gpusvm("export", model_path, "--to", "web")
    assert result.exit_code == 0, result.output
    page = model_path.with_suffix(".html")
    assert f"Wrote {page}. Open it in a browser" in result.stderr
    assert "<title>Handwritten digits · gpusvm</title>" in page.read_text()


def test_a_model_of_a_table_is_refused_in_a_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20)))
    model = tmp_path / "t.svm"
    assert gpusvm("train", tmp_path / "t.csv", "--backend", "sklearn", "--out", model).exit_code == 0
    for command in (["export", model, "--to", "web"], ["demo", model]):
        result = gpusvm(*command)
        assert result.exit_code == 2
        assert "trained on a table, not on images; --to onnx" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "t.html").exists()


def test_demo_opens_the_page_of_a_model(model_path, opened, tmp_path):
    page = tmp_path / "page.html"
    result = gpusvm("demo", model_path, "--out", page)
    assert result.exit_code == 0, result.output
    assert opened == [page.as_uri()] and "opens in the browser" in result.stderr
    assert "/script>" in page.read_text()


def test_demo_opens_nothing_where_that_is_said_or_there_is_no_screen(model_path, opened, tmp_path, monkeypatch):
    assert gpusvm("demo", model_path, "--no-open", "--out", tmp_path / "a.html").exit_code == 0
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    result = gpusvm("demo", model_path, "--out", tmp_path / "b.html")
    assert result.exit_code == 0 and opened == [] and "Open it in a browser" in result.stderr


def test_demo_without_a_model_trains_one(opened, tmp_path, monkeypatch):
    def no_network(*_):
        raise DownloadError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUSVM_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr("gpusvm.data.catalogue.fetch", no_network)
    result = gpusvm("demo", "--backend", "sklearn")
    assert result.exit_code == 0, result.output
    assert "using digits" in result.stderr
    assert opened == [(tmp_path / "digits.html").as_uri()]
    assert load_model(tmp_path / "digits.svm").calibration is not None


def test_demo_does_not_write_over_its_model(model_path):
    result = gpusvm("demo", model_path, "--out", model_path)
    assert result.exit_code == 2 and "is the model itself" in result.stderr

"""The notebook in examples/: a beginner runs it from top to bottom, and so does this test, on
small data."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

import gpusvm.data
from gpusvm.cli.train import BEST_C, BEST_MOVES
from gpusvm.data import load_dataset

NOTEBOOK = Path(__file__).parents[1] / "examples" / "digits.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def test_it_is_kept_without_outputs_and_each_code_cell_follows_a_text(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0::2] == ["markdown"] * (len(kinds) // 2)
    assert kinds[1::2] == ["code"] * (len(kinds) // 2)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells[1::2])


def test_its_best_machine_is_that_of_the_preset(notebook):
    (cell,) = (cell.source for cell in notebook.cells if "train_augmented(" in cell.source)
    assert f'moves_named("{BEST_MOVES}")' in cell
    assert f"SVC(C={BEST_C:g}, " in cell


@pytest.fixture
def few_pictures(monkeypatch):
    """scikit-learn's digits, which need no network, and not all of them."""

    def load(source, split):
        assert source == "digits"
        return load_dataset(source, split, limit={"train": 400, "test": 150}[split])

    monkeypatch.setattr(gpusvm.data, "default_source", lambda progress: ("digits", None))
    monkeypatch.setattr(gpusvm.data, "load_dataset", load)


def test_it_runs_from_top_to_bottom(notebook, few_pictures, tmp_path, monkeypatch, capsys):
    """Cells are plain Python and show pictures by `plt.show`, so they run here as they would in
    Jupyter. What they write goes to a new temporary folder."""
    started_in, temporary = tmp_path / "started-in", tmp_path / "temporary"
    for folder in (started_in, temporary):
        folder.mkdir()
    monkeypatch.chdir(started_in)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    plt.switch_backend("agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(draw_figures()))

    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"cell {number}", "exec"), names)
            assert plt.get_fignums() == [], f"cell {number} draws what it does not show"

    assert shown == [1] * 6
    (folder,) = temporary.glob("digits-*")
    for name in ("submission.csv", "best-submission.csv"):
        lines = (folder / name).read_text().splitlines()
        assert lines[0] == "ImageId,Label"
        numbers, labels = np.array([line.split(",") for line in lines[1:]], dtype=int).T
        np.testing.assert_array_equal(numbers, np.arange(1, 151))
        assert set(labels) == set(range(10))
    page = (folder / "digits.html").read_text()
    assert page.lower().startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert list(started_in.iterdir()) == []
    assert "The same after reading it again: True" in capsys.readouterr().out


def draw_figures() -> int:
    """Draw and close all figures that are open, as Jupyter does; how many there were."""
    numbers = plt.get_fignums()
    for number in numbers:
        plt.figure(number).savefig(io.BytesIO(), bbox_inches="tight")
    plt.close("all")
    return len(numbers)

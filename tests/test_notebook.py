"""The notebook in examples/: a beginner runs it from top to bottom, and so does this test, on
small data."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from gpusvm.cli.train import BEST_C, BEST_MOVES

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


def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    """On scikit-learn's digits, which need no network; what it writes goes to a new temporary
    folder."""
    started_in, temporary = tmp_path / "started-in", tmp_path / "temporary"
    for folder in (started_in, temporary):
        folder.mkdir()
    monkeypatch.setenv("GPUSVM_NOTEBOOK_SMALL", "1")
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(temporary))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))

    # A cell that fails raises CellExecutionError, with the cell and its traceback.
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(started_in)}}).execute()

    (folder,) = temporary.glob("digits-*")
    for name in ("submission.csv", "best-submission.csv"):
        lines = (folder / name).read_text().splitlines()
        assert lines[0] == "ImageId,Label"
        numbers, labels = np.array([line.split(",") for line in lines[1:]], dtype=int).T
        np.testing.assert_array_equal(numbers, np.arange(1, 361))
        assert set(labels) == set(range(10))
    page = (folder / "digits.html").read_text()
    assert page.lower().startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert list(started_in.iterdir()) == []
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "The same after reading it again: True" in printed

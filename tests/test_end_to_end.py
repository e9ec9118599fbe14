"""Real MNIST: from the files to a model, a report and predictions, through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gpusvm import load_model
from gpusvm.cli.main import app
from gpusvm.data import load_dataset

pytestmark = pytest.mark.mnist


def gpusvm(*arguments: object):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of 2,000 images as a file, and what its training said."""
    folder = tmp_path_factory.mktemp("trained")
    model, metrics = folder / "m.svm", folder / "train.json"
    gpusvm("train", "mnist", "--limit", 2000, "--backend", "sklearn", "--out", model, "--json", metrics, "--certify")
    return model, json.loads(metrics.read_text())


def test_train_on_2000_evaluate_and_predict_all_10000(trained, tmp_path):
    model, figures = trained
    assert figures["n_train"] == 2000 and figures["n_test"] == 10_000
    assert figures["accuracy"] == pytest.approx(0.9372, abs=0.0005)
    assert figures["certificate"]["kkt_gap"] <= 2e-3

    gpusvm("evaluate", model, "mnist", "--json", tmp_path / "eval.json", "--report", tmp_path / "report")
    evaluated = json.loads((tmp_path / "eval.json").read_text())
    assert evaluated["accuracy"] == pytest.approx(figures["accuracy"], abs=2e-4)
    assert np.sum(evaluated["confusion"]) == 10_000
    page = (tmp_path / "report" / "index.html").read_text()
    assert "data:image/png;base64," in page and "http://" not in page and "https://" not in page

    folder = load_dataset("mnist", "test")
    np.savez(tmp_path / "images.npz", images=folder.images)
    gpusvm("predict", model, tmp_path / "images.npz", "--out", tmp_path / "p.csv")
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert rows[0] == "ImageId,Label" and len(rows) == 10_001
    predicted = np.array([int(row.split(",")[1]) for row in rows[1:]])
    assert (predicted == folder.labels).mean() == pytest.approx(figures["accuracy"], abs=2e-4)


def test_a_model_predicts_as_its_library_does(trained):
    """The model file against scikit-learn's own SVC, on every twentieth test image.

    scikit-learn takes long for all of them.
    """
    from sklearn.svm import SVC

    train, test = load_dataset("mnist", "train", limit=2000), load_dataset("mnist", "test")
    X, X_test = (d.images.reshape(len(d), -1).astype(np.float32) / 255 for d in (train, test))
    X_test = X_test[::20]
    svc = SVC(C=10, gamma=0.02, decision_function_shape="ovo").fit(X, train.labels)
    model = load_model(trained[0])
    found, expected = model.pair_decisions(X_test), svc.decision_function(X_test)
    assert np.abs(found - expected).max() < 1e-4
    tie = np.abs(expected).min(axis=1) < 1e-4
    assert (model.predict(X_test)[~tie] == svc.predict(X_test)[~tie]).all()

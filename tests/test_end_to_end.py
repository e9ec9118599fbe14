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


def test_train_on_5000_evaluate_and_predict_all_10000(tmp_path):
    model, metrics = tmp_path / "m.svm", tmp_path / "train.json"
    gpusvm(
        "train",
        "mnist",
        "--limit",
        5000,
        "--backend",
        "sklearn",
        "--out",
        model,
        "--json",
        metrics,
        "--certify",
    )
    trained = json.loads(metrics.read_text())
    assert trained["n_train"] == 5000 and trained["n_test"] == 10_000
    assert trained["accuracy"] == pytest.approx(0.9600, abs=0.0005)
    assert trained["certificate"]["kkt_gap"] <= 2e-3

    gpusvm("evaluate", model, "mnist", "--json", tmp_path / "eval.json", "--report", tmp_path / "report")
    evaluated = json.loads((tmp_path / "eval.json").read_text())
    assert evaluated["accuracy"] == pytest.approx(trained["accuracy"], abs=2e-4)
    assert np.sum(evaluated["confusion"]) == 10_000
    page = (tmp_path / "report" / "index.html").read_text()
    assert "data:image/png;base64," in page and "http://" not in page and "https://" not in page

    folder = load_dataset("mnist", "test")
    np.savez(tmp_path / "images.npz", images=folder.images)
    gpusvm("predict", model, tmp_path / "images.npz", "--out", tmp_path / "p.csv")
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert rows[0] == "ImageId,Label" and len(rows) == 10_001
    predicted = np.array([int(row.split(",")[1]) for row in rows[1:]])
    assert (predicted == folder.labels).mean() == pytest.approx(trained["accuracy"], abs=2e-4)


def test_a_model_predicts_as_its_library_does(tmp_path):
    """The model file against scikit-learn's own SVC, which takes long for all test images, on each
    fourth."""
    from sklearn.svm import SVC

    model_path = tmp_path / "m.svm"
    gpusvm("train", "mnist", "--limit", 2000, "--backend", "sklearn", "--out", model_path)
    train, test = load_dataset("mnist", "train", limit=2000), load_dataset("mnist", "test")
    X, X_test = (d.images.reshape(len(d), -1).astype(np.float32) / 255 for d in (train, test))
    X_test = X_test[::4]
    svc = SVC(C=10, gamma=0.02, decision_function_shape="ovo").fit(X, train.labels)
    model = load_model(model_path)
    found, expected = model.pair_decisions(X_test), svc.decision_function(X_test)
    assert np.abs(found - expected).max() < 1e-4
    tie = np.abs(expected).min(axis=1) < 1e-4
    assert (model.predict(X_test)[~tie] == svc.predict(X_test)[~tie]).all()

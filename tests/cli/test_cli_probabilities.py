"""``--proba`` and ``--reject``: a model with probabilities trained, evaluated and applied on the
command line."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from typer.testing import CliRunner

from gpusvm import SVR, load_model
from gpusvm.cli.main import app


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: object):
    result = gpusvm(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """wine in two files, and a model of the first with probabilities."""
    folder = tmp_path_factory.mktemp("wine")
    X, y = load_wine(return_X_y=True)
    words = np.array(["red", "a, b", "white"])[y]
    X, T, y, t = train_test_split(X, words, test_size=60, random_state=0, stratify=y)
    np.savez(folder / "train.npz", X=X, y=y)
    np.savez(folder / "test.npz", X=T, y=t)
    result = done("train", folder / "train.npz", "--test", folder / "test.npz", "--proba", "--backend", "sklearn",
                  "--out", folder / "m.svm", "--json", folder / "m.json")  # fmt: skip
    (folder / "printed").write_text(result.output)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    model, T = load_model(folder / "m.svm"), np.load(folder / "test.npz")["X"]
    return model.predict_proba(model.preprocess(T)), model.predict(model.preprocess(T))


def rows(text):
    return list(csv.reader(io.StringIO(text)))


def test_training_says_how_good_the_probabilities_are(folder, expected):
    figures, true = json.loads((folder / "m.json").read_text()), np.load(folder / "test.npz")["y"]
    loss = log_loss(true, expected[0])
    assert figures["log_loss"] == pytest.approx(loss)
    assert 0 <= figures["expected_calibration_error"] < 0.2
    assert sum(bin_["n"] for bin_ in figures["reliability"]) == 60
    assert f"Probabilities: log loss {loss:.4f}, off by" in (folder / "printed").read_text()


def test_evaluate_says_it_too_and_its_page_has_the_curve(folder, expected):
    result = done("evaluate", folder / "m.svm", folder / "test.npz", "--json", folder / "e.json", "--report", folder)
    loss = log_loss(np.load(folder / "test.npz")["y"], expected[0])
    assert f"Probabilities: log loss {loss:.4f}" in result.stdout
    assert json.loads((folder / "e.json").read_text())["log_loss"] == pytest.approx(loss)
    page = (folder / "index.html").read_text()
    assert "<h2>Probabilities</h2>" in page and '<svg class="curve"' in page and f"Log loss {loss:.4f}" in page


def test_predict_gives_a_column_for_each_class(folder, expected):
    header, *lines = rows(done("predict", folder / "m.svm", folder / "test.npz", "--proba").stdout)
    assert header[2:] == ["p_a, b", "p_red", "p_white"]
    p = np.array([line[2:] for line in lines], dtype=float)
    np.testing.assert_allclose(p, expected[0], rtol=1e-8)
    assert [line[1] for line in lines] == expected[1].tolist()
    assert [header[2 + c].removeprefix("p_") for c in p.argmax(axis=1)] == expected[1].tolist()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_labels_below_a_probability_are_left_empty(folder, expected, share):
    least = {0.0: 1.0, 0.5: round(float(np.median(expected[0].max(axis=1))), 4), 1.0: 0.0}[share]
    result = done("predict", folder / "m.svm", folder / "test.npz", "--reject", least)
    sure = expected[0].max(axis=1) >= least
    found = [line[1] for line in rows(result.stdout)[1:]]
    assert found == np.where(sure, expected[1], "").tolist()
    assert f"; {(~sure).sum()} rejected" in result.stderr
    assert sure.mean() == pytest.approx(share, abs=0.2)


def test_the_accuracy_is_that_of_the_labels_that_are_left(folder, expected):
    data = np.load(folder / "test.npz")
    names = [f"f{k}" for k in range(13)]
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*names, "kind"], *([*x, y] for x, y in zip(data["X"], data["y"], strict=True))])
    result = done("predict", folder / "m.svm", folder / "test.csv", "--label", "kind", "--reject", 0.995)
    sure = expected[0].max(axis=1) >= 0.995
    right = (expected[1] == data["y"])[sure].mean()
    assert f"{(~sure).sum()} rejected; accuracy {right:.4f} on the labels of the others" in result.stderr


def test_both_at_once_keep_the_probabilities_of_what_is_rejected(folder):
    lines = rows(done("predict", folder / "m.svm", folder / "test.npz", "--reject", 1, "--proba").stdout)[1:]
    assert all(line[1] == "" and float(line[2]) >= 0 for line in lines)


def test_the_onnx_form_has_them(folder, expected):
    done("export", folder / "m.svm", "--to", "onnx", "--out", folder / "m.onnx")
    session = onnxruntime.InferenceSession(folder / "m.onnx")
    X = np.load(folder / "test.npz")["X"].astype(session.get_inputs()[0].type.removeprefix("tensor(")[:-1] + "32")
    np.testing.assert_allclose(session.run(["probabilities"], {"X": X})[0], expected[0], atol=1e-3)


@pytest.mark.parametrize("option", [["--proba"], ["--reject", "0.5"]])
def test_a_model_without_probabilities_says_how_to_get_some(folder, option):
    done(
        "train", folder / "train.npz", "--test", folder / "test.npz", "--backend", "sklearn", "--out", folder / "n.svm"
    )
    result = gpusvm("predict", folder / "n.svm", folder / "test.npz", *option)
    assert result.exit_code == 2
    assert f"{option[0]}: {folder / 'n.svm'} has no probabilities; train it with gpusvm train --proba" in result.stderr


def test_a_regression_has_no_classes(folder):
    SVR(backend="sklearn").fit(np.eye(13), np.arange(13)).save(folder / "r.svm")
    result = gpusvm("predict", folder / "r.svm", folder / "test.npz", "--proba")
    assert result.exit_code == 2 and "regression, which has no classes; leave out --proba" in result.stderr


def test_a_reject_that_is_no_probability_is_refused(folder):
    assert gpusvm("predict", folder / "m.svm", folder / "test.npz", "--reject", "1.5").exit_code == 2

"""``gpusvm evaluate``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from gpusvm import save_model
from gpusvm.cli.main import app
from gpusvm.data import load_dataset
from gpusvm.preprocess import PixelScaler


@pytest.fixture(scope="module")
def image_model(digits_model):
    provenance = {"backend": "sklearn", "dataset": {"name": "digits", "split": "train", "digest": "0"}}
    return replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8), provenance=provenance)


@pytest.fixture
def model_path(image_model, tmp_path):
    save_model(image_model, tmp_path / "digits.svm")
    return tmp_path / "digits.svm"


@pytest.fixture
def accuracy(image_model):
    data = load_dataset("digits", "test")
    return float((image_model.predict(image_model.preprocess(data.images)) == data.labels).mean())


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def write_archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_source_and_split_default_to_the_models_own(model_path, accuracy) -> None:
    result = run(model_path)
    assert result.exit_code == 0
    assert "digits, test split: 360 images" in result.stdout
    assert f"Accuracy: {accuracy:.4f}" in result.stdout
    assert "Confusion matrix" in result.stdout and "Most frequent mistakes" in result.stdout


def test_results_fit_80_columns(model_path) -> None:
    assert max(map(len, run(model_path).stdout.splitlines())) <= 80


def test_json_has_the_figures(model_path, accuracy, tmp_path) -> None:
    result = run(model_path, "digits", "--json", tmp_path / "new" / "e.json")
    assert result.exit_code == 0
    read = json.loads((tmp_path / "new" / "e.json").read_text())
    keys = {"n_test", "accuracy", "predict_seconds", "per_class", "confusion", "classes", "model", "source"}
    assert keys <= set(read)
    assert (read["n_test"], read["accuracy"], read["source"]) == (360, accuracy, "digits")
    assert read["model"] == str(model_path)
    assert np.trace(read["confusion"]) == round(360 * accuracy)


def test_report_writes_a_page(model_path, tmp_path) -> None:
    result = run(model_path, "--report", tmp_path / "report")
    assert result.exit_code == 0
    assert "<title>digits.svm" in (tmp_path / "report" / "index.html").read_text()
    assert "Wrote" in result.stderr and "Wrote" not in result.stdout


def test_limit_and_seed_choose_rows(model_path, tmp_path) -> None:
    for seed in (1, 1, 2):
        assert run(model_path, "--limit", 50, "--seed", seed, "--json", tmp_path / f"{seed}").exit_code == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in "12")
    assert first["n_test"] == second["n_test"] == 50
    assert first["digest"] != second["digest"]


def test_a_source_without_test_split_is_used_whole(model_path, tmp_path) -> None:
    data = load_dataset("digits", "test", limit=40)
    source = write_archive(tmp_path / "some.npz", images=data.images, labels=data.labels)
    result = run(model_path, source)
    assert result.exit_code == 0
    assert "has no test split: evaluating on all of it" in result.stderr
    assert "train split: 40 images" in result.stdout


def test_training_images_are_called_so(model_path) -> None:
    assert "may have seen" in run(model_path, "--split", "train").stderr
    assert "may have seen" not in run(model_path).stderr


def test_a_model_that_does_not_say_is_evaluated_on_mnist(image_model, model_path) -> None:
    from gpusvm.cli.evaluate import trained_on

    assert trained_on(image_model) == "digits"
    assert trained_on(replace(image_model, provenance={})) == "mnist"


def test_words_as_classes_are_printed_as_they_are(image_model, tmp_path) -> None:
    names = np.array(["[red]cat", "a class with a very long name", *"cdefghij"])
    save_model(replace(image_model, classes=names), tmp_path / "w.svm")
    data = load_dataset("digits", "test")
    source = write_archive(tmp_path / "w.npz", x_test=data.images, y_test=names[data.labels])
    result = run(tmp_path / "w.svm", source)
    assert result.exit_code == 0
    assert "[red]cat" in result.stdout and "a class with a …" in result.stdout
    assert max(map(len, result.stdout.splitlines()[3:])) <= 80


def test_a_matrix_too_wide_for_the_terminal_is_left_out(image_model) -> None:
    from gpusvm.cli.evaluate import confusion_table
    from gpusvm.evaluation import evaluate_predictions

    predicted = np.roll(np.arange(26), 1)
    evaluation = evaluate_predictions(np.arange(26), np.arange(26), predicted)
    assert confusion_table(evaluation, 80) is None
    assert confusion_table(evaluation, 120) is not None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": np.zeros((3, 9, 9), np.uint8), "y_test": [0, 1, 2]}, "9x9 images, the model expects 8x8"),
        ({"x_test": np.zeros((3, 8, 8), np.uint8), "y_test": [0, 1, 12]}, "12 among the labels"),
        ({"x_test": np.zeros((3, 8, 8), np.uint8)}, "has no labels"),
        ({"x_test": np.zeros((3, 8, 8), np.uint8), "y_test": [0, 1]}, "3 test images but 2 labels"),
    ],
)
def test_data_that_do_not_fit_are_one_line(model_path, tmp_path, arrays, message) -> None:
    source = write_archive(tmp_path / "bad.npz", **arrays)
    result = run(model_path, source, "--json", tmp_path / "e.json")
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.output
    assert not (tmp_path / "e.json").exists()


def test_missing_model_and_unknown_split(model_path, tmp_path) -> None:
    assert run(tmp_path / "none.svm").exit_code == 1
    assert run(model_path, "--split", "dev").exit_code == 2


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_unwritable_output_fails_before_the_work(model_path, tmp_path, option) -> None:
    (tmp_path / "file").write_text("keep")
    result = run(model_path, option, tmp_path / "file" / "x")
    assert result.exit_code == 1
    assert "Accuracy" not in result.stdout
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize("has_steps", [True, False])
def test_a_model_without_steps_is_said_to_see_raw_pixels(digits_model, model_path, tmp_path, has_steps) -> None:
    path = model_path
    if not has_steps:
        save_model(digits_model, path := tmp_path / "raw.svm")
    result = run(path, "digits")
    assert result.exit_code == 0
    assert result.stderr.count("this model has no preprocessing steps of its own") == (not has_steps)

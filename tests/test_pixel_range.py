"""A model remembers the pixels that it was trained on, and images unlike those are not predicted
in silence."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gpusvm.cli.main import app
from gpusvm.io.model_file import load_model
from gpusvm.pixel_range import PixelRange, inverted, remembered, unlike_training


def strokes(rng, n, largest=255):
    """White on black: class 0 a vertical bar, class 1 a horizontal one."""
    images, labels = np.zeros((n, 12, 12), dtype=np.uint8), np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        k = rng.integers(2, 9)
        bar = image[2:-2, k : k + 2] if label == 0 else image[k : k + 2, 2:-2]
        bar[:] = max(1, round(largest * rng.uniform(0.7, 1.0)))
    images[0].flat[0] = largest
    return images, labels


@pytest.fixture(scope="module", params=[255, 16, 1])
def trained(request, tmp_path_factory):
    """The largest pixel, a model file, and test images of the same kind with their labels."""
    rng = np.random.default_rng(0)
    images, labels = strokes(rng, 200, request.param)
    tmp_path = tmp_path_factory.mktemp("trained")
    np.savez(tmp_path / "train.npz", x_train=images, y_train=labels)
    path = tmp_path / "model.svm"
    result = CliRunner().invoke(app, ["train", str(tmp_path / "train.npz"), "--backend", "sklearn", "--out", str(path)])
    assert result.exit_code == 0, result.output
    return request.param, path, *strokes(rng, 40, request.param)


def predicted(tmp_path, model, images, *options):
    """Labels, and what was said, of `gpusvm predict`."""
    np.savez(tmp_path / "test.npz", x_test=images)
    result = CliRunner().invoke(app, ["predict", str(model), str(tmp_path / "test.npz"), *options])
    assert result.exit_code == 0, result.output
    return [int(line.split(",")[1]) for line in result.stdout.splitlines()[1:]], result.stderr


def test_images_like_those_of_the_training_are_predicted_without_a_word(trained, tmp_path):
    _, model, images, labels = trained
    found, said = predicted(tmp_path, model, images)
    assert found == labels.tolist() and "note:" not in said


def test_negatives_are_told_and_turned_around_on_demand(trained, tmp_path):
    largest, model, images, labels = trained
    negatives = largest - images
    found, said = predicted(tmp_path, model, negatives)
    assert "look like negatives" in said and "--invert" in said
    found, said = predicted(tmp_path, model, negatives, "--invert")
    assert found == labels.tolist() and "note:" not in said
    _, said = predicted(tmp_path, model, images, "--invert")
    assert "look like negatives" in said, "what was turned around without need is told too"


def test_negatives_of_images_that_do_not_reach_white_are_told_and_turned_around(tmp_path):
    images, labels = strokes(np.random.default_rng(0), 60, 170)
    np.savez(tmp_path / "train.npz", x_train=images, y_train=labels)
    arguments = ["train", str(tmp_path / "train.npz"), "--backend", "sklearn", "--out", str(tmp_path / "m.svm")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "look like negatives" in predicted(tmp_path, tmp_path / "m.svm", 255 - images)[1]
    found, said = predicted(tmp_path, tmp_path / "m.svm", 255 - images, "--invert")
    assert found == labels.tolist() and "note:" not in said


def test_pixels_of_another_range_are_told(trained, tmp_path):
    largest, model, _, _ = trained
    for other in {255, 16, 1} - {largest}:
        images, _ = strokes(np.random.default_rng(1), 40, other)
        _, said = predicted(tmp_path, model, images)
        assert f"pixels of these images reach {other}, those of the model's training images {largest}" in said


def test_evaluate_says_it_too(trained, tmp_path):
    largest, model, images, labels = trained
    np.savez(tmp_path / "test.npz", x_test=largest - images, y_test=labels)
    arguments = ["evaluate", str(model), str(tmp_path / "test.npz")]
    assert "look like negatives" in CliRunner().invoke(app, arguments).stderr
    path = tmp_path / "figures.json"
    result = CliRunner().invoke(app, [*arguments, "--invert", "--json", str(path)])
    assert "note:" not in result.stderr and json.loads(path.read_text())["accuracy"] == 1.0


@pytest.mark.parametrize("trained", [255], indirect=True)
def test_black_on_white_pictures_for_a_white_on_black_model(trained, tmp_path):
    _, model, images, _ = trained
    Image.fromarray(255 - images[1]).save(tmp_path / "one.png")
    result = CliRunner().invoke(app, ["predict", str(model), str(tmp_path / "one.png")])
    assert "look like negatives" in result.stderr


@pytest.mark.parametrize(
    "said", [None, 3, {}, {"largest": 255}, {"largest": 255, "mean": "x"}, {"largest": 300, "mean": 1.0},
             {"largest": 0, "mean": 0.0}, {"largest": 9, "mean": -1}, {"largest": True, "mean": 0.5}]
)  # fmt: skip
def test_a_model_that_says_nothing_sensible_is_not_compared_with(trained, said):
    _, path, images, _ = trained
    model = load_model(path)
    assert remembered(model) is not None
    model.provenance["pixels"] = said
    assert remembered(model) is None and unlike_training(model, 255 - images) == ""
    assert (inverted(model, images) == 255 - images).all()


def test_a_range_of_pixels():
    assert PixelRange.of(np.array([[[0, 3], [5, 8]]], dtype=np.uint8)) == PixelRange(8, 4.0)

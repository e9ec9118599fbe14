"""``--resize``: pictures of other sizes than each other's, and than the model's; and pixels of
other ranges."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gpusvm import load_model
from gpusvm.cli.main import app
from gpusvm.data import load_dataset


def gpusvm(*arguments: object):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    text = " ".join(result.output.split())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        text += str(result.exception)
    return result.exit_code, text


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Digits 0, 1 and 2 as pictures of many sizes, and all of one."""
    root, data, rng = tmp_path_factory.mktemp("pictures"), load_dataset("digits"), np.random.default_rng(0)
    for number in np.flatnonzero(data.labels < 3)[:240]:
        picture = Image.fromarray(data.images[number])
        for name, size in (("many", tuple(rng.integers(8, 60, 2).tolist())), ("one", (16, 16))):
            path = root / name / str(data.labels[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.resize(size).save(path)
    return root


@pytest.fixture(scope="module")
def model(folders):
    code, text = gpusvm("train", folders / "many", "--resize", "12x10", "--backend", "sklearn", "--out",
                        folders / "m.svm", "--json", folders / "m.json")  # fmt: skip
    assert code == 0 and "images of 10 x 12 pixels" in text
    assert json.loads((folders / "m.json").read_text())["accuracy"] > 0.9
    return folders / "m.svm"


def test_pictures_of_many_sizes_need_the_option(folders):
    code, text = gpusvm("train", folders / "many", "--out", folders / "none.svm")
    assert code == 1 and "all pictures must have one size: bring them to one with --resize" in text
    assert not (folders / "none.svm").exists()


def test_a_model_remembers_that_its_pictures_were_resized(model, folders):
    assert load_model(model).image_shape == (10, 12)
    for command in (("evaluate", model, folders / "many"), ("predict", model, folders / "many" / "1")):
        code, text = gpusvm(*command)
        assert code == 0 and "note: images are brought to 12x10, as those that the model was trained on" in text


def test_a_model_of_one_size_takes_others_when_asked(folders):
    code, _ = gpusvm("train", folders / "one", "--backend", "sklearn", "--out", folders / "one.svm")
    assert code == 0
    few = sorted((folders / "many" / "0").iterdir())[0]
    data = load_dataset("digits")
    few_classes = data.take(np.flatnonzero(data.labels < 3))
    np.savez(folders / "d.npz", images=few_classes.images, labels=few_classes.labels)
    for command in (("evaluate", folders / "one.svm", folders / "d.npz"), ("predict", folders / "one.svm", few)):
        code, text = gpusvm(*command)
        assert code == 1 and "the model expects 16x16; bring them to that size with --resize" in text
    code, text = gpusvm("evaluate", folders / "one.svm", folders / "many", "--resize")
    assert code == 0 and float(text.split("Accuracy: ")[1].split()[0]) > 0.9
    code, text = gpusvm("predict", folders / "one.svm", few, "--resize")
    assert code == 0 and "1 image predicted" in text


def test_data_show_resizes(folders):
    code, text = gpusvm("data", "show", folders / "many", "--resize", "9")
    assert code == 0 and "images of 9x9" in text
    assert gpusvm("data", "show", folders / "many")[0] == 1


@pytest.mark.parametrize("size", ["0x5", "28x", "x28", "big", "-3x3", "5000x5000", "1e3x2", "9" * 30])
def test_sizes_that_are_none_are_refused(folders, size):
    code, text = gpusvm("train", folders / "one", f"--resize={size}", "--out", folders / "none.svm")
    assert code == 2 and "--resize must be WIDTHxHEIGHT, such as 28x28" in text


def test_tables_have_no_size(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "t.npz", X=X, y=(X[:, 0] > 0).astype(int))
    code, text = gpusvm("train", tmp_path / "t.npz", "--resize", "28", "--out", tmp_path / "t.svm")
    assert code == 2 and "--resize is for images" in text
    assert gpusvm("train", tmp_path / "t.npz", "--backend", "sklearn", "--out", tmp_path / "t.svm")[0] == 0
    code, text = gpusvm("predict", tmp_path / "t.svm", tmp_path / "t.npz", "--resize")
    assert code == 2 and "does not say what size its images had" in text


# -- pixels in another range ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranges(tmp_path_factory):
    """The same digits in every range that people keep them in: train and test splits, and a model
    of 0 to 255."""
    root = tmp_path_factory.mktemp("ranges")
    train, test = load_dataset("digits", limit=500), load_dataset("digits", "test", limit=200)
    kinds = {
        "bytes": lambda x: x,
        "sixteen": lambda x: np.rint(x / 255 * 16).astype(np.uint8),
        "sixteen floats": lambda x: np.rint(x / 255 * 16),
        "one": lambda x: (x > 127).astype(np.uint8),
        "bool": lambda x: x > 127,
        "fractions": lambda x: x / 255,
        "flat fractions": lambda x: (x / 255).reshape(len(x), -1),
    }
    for name, change in kinds.items():
        np.savez(root / f"{name}.npz", x_train=change(train.images), y_train=train.labels,
                 x_test=change(test.images), y_test=test.labels)  # fmt: skip
    train_on(root, "bytes")
    return root


def train_on(root, name):
    options = ("--images", "--kernel", "linear", "--backend", "sklearn")
    return gpusvm("train", root / f"{name}.npz", *options, "--out", root / f"{name}.svm", "--json", root / "m.json")


@pytest.mark.parametrize(
    ("name", "said"),
    [("sixteen", "Their pixels reach 16: that is taken for white in place of 255"),
     ("sixteen floats", "Their pixels reach 16"), ("one", "Their pixels reach 1:"), ("bool", "True is 255"),
     ("fractions", "pixels from 0 to 1 were multiplied by 255"),
     ("flat fractions", "pixels from 0 to 1 were multiplied by 255")],
)  # fmt: skip
def test_training_brings_every_range_to_the_same_and_says_so(ranges, name, said):
    code, text = train_on(ranges, name)
    assert code == 0 and said in text
    found = json.loads((ranges / "m.json").read_text())["accuracy"]
    assert found > (0.8 if name in ("one", "bool") else 0.88)  # black and white has less in it


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("name", "said"),
    [("sixteen", "the pixels of these images reach 16, those of the model's training images 255"),
     ("sixteen floats", "reach 16"), ("one", "reach 1,"), ("bool", "True is 255"),
     ("fractions", "were multiplied by 255"), ("flat fractions", "were multiplied by 255")],
)  # fmt: skip
def test_another_range_than_the_model_s_is_mended_or_said(ranges, command, name, said):
    code, text = gpusvm(command, ranges / "bytes.svm", ranges / f"{name}.npz")
    assert code == 0 and said in text
    if command == "evaluate" and "multiplied" in said:
        expected = gpusvm("evaluate", ranges / "bytes.svm", ranges / "bytes.npz")[1]
        accuracy = [word.split("Accuracy: ")[1].split()[0] for word in (text, expected)]
        assert accuracy[0] == accuracy[1]

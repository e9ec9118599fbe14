"""``gpusvm predict``: Kaggle's layout from every kind of input, and nothing else on standard
output."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forks import COMMAND, run_in_a_fork
from PIL import Image
from typer.testing import CliRunner

from gpusvm import SVC, SVR, OneClassSVM, save_model
from gpusvm.cli.main import app
from gpusvm.data import load_dataset
from gpusvm.io.libsvm import write_libsvm_model
from gpusvm.preprocess import PixelScaler


@pytest.fixture(scope="module")
def image_model(digits_model):
    return replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8))


@pytest.fixture
def model_path(image_model, tmp_path):
    save_model(image_model, tmp_path / "digits.svm")
    return tmp_path / "digits.svm"


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", "test", limit=30)


@pytest.fixture(scope="module")
def labels(image_model, data):
    return image_model.predict(image_model.preprocess(data.images)).tolist()


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def rows(text: str) -> list[list[str]]:
    header, *lines = text.splitlines()
    assert header == "ImageId,Label"
    return [line.split(",") for line in lines]


def write_csv(path, images, labels=None):
    pixels = images.reshape(len(images), -1)
    names = [f"pixel{k}" for k in range(pixels.shape[1])]
    table = pixels if labels is None else np.column_stack([labels, pixels])
    header = ",".join(names if labels is None else ["label", *names])
    np.savetxt(path, table, fmt="%d", delimiter=",", header=header, comments="")
    return path


def write_idx(path, images):
    sizes = np.array(images.shape, dtype=">u4").tobytes()
    path.write_bytes(b"\x00\x00\x08\x03" + sizes + images.tobytes())
    return path


def write_npz(path, images):
    np.savez(path, images=images)
    return path


def write_picture(path, image):
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize(("name", "write"), [("i.csv", write_csv), ("i-idx3-ubyte", write_idx), ("i.npz", write_npz)])
def test_rows_are_numbered_from_one(model_path, data, labels, tmp_path, name, write) -> None:
    result = run(model_path, write(tmp_path / name, data.images))
    assert result.exit_code == 0
    assert rows(result.stdout) == [[str(k), str(label)] for k, label in enumerate(labels, start=1)]
    assert "30 images predicted in" in result.stderr and "accuracy" not in result.stderr


def test_output_file_holds_what_would_be_printed(model_path, data, tmp_path) -> None:
    source = write_csv(tmp_path / "i.csv", data.images)
    printed = run(model_path, source).stdout
    result = run(model_path, source, "--out", tmp_path / "new" / "p.csv")
    assert result.exit_code == 0 and result.stdout == ""
    assert (tmp_path / "new" / "p.csv").read_bytes().decode() == printed


def test_labels_in_the_input_give_an_accuracy(model_path, data, labels, tmp_path) -> None:
    result = run(model_path, write_csv(tmp_path / "i.csv", data.images, data.labels))
    accuracy = np.mean(data.labels == labels)
    assert f"accuracy {accuracy:.4f}" in result.stderr
    assert [int(label) for _, label in rows(result.stdout)] == labels


def test_labels_the_model_has_never_seen_count_as_wrong(model_path, data, tmp_path) -> None:
    result = run(model_path, write_csv(tmp_path / "i.csv", data.images, np.full(30, 77)))
    assert result.exit_code == 0 and "accuracy 0.0000" in result.stderr


def test_start_id_shifts_the_numbers(model_path, data, tmp_path) -> None:
    result = run(model_path, write_csv(tmp_path / "i.csv", data.images), "--start-id", 28001)
    assert [row[0] for row in rows(result.stdout)] == [str(k) for k in range(28001, 28031)]


def test_pictures_go_by_their_file_names(model_path, data, labels, tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, image in zip(("b.png", "a.png", 'c "d".png'), data.images, strict=False):
        write_picture(folder / name, image)
    result = run(model_path, folder)
    assert result.stdout == f'ImageId,Label\na.png,{labels[1]}\nb.png,{labels[0]}\n"c ""d"".png",{labels[2]}\n'
    assert run(model_path, folder / "b.png").stdout == f"ImageId,Label\nb.png,{labels[0]}\n"


def test_start_id_makes_no_sense_for_pictures(model_path, data, tmp_path) -> None:
    result = run(model_path, write_picture(tmp_path / "1.png", data.images[0]), "--start-id", 2)
    assert result.exit_code == 2 and result.stdout == ""


def test_words_as_classes(image_model, data, labels, tmp_path) -> None:
    names = np.array(["zero, or none", *"bcdefghij"])
    save_model(replace(image_model, classes=names), tmp_path / "w.svm")
    zero = labels.index(0)
    result = run(tmp_path / "w.svm", write_npz(tmp_path / "i.npz", data.images[[zero]]))
    assert result.stdout == 'ImageId,Label\n1,"zero, or none"\n'


@pytest.mark.parametrize("out", [[], ["--out", "p.csv"]])
def test_another_image_size_is_one_line_and_no_output(model_path, tmp_path, monkeypatch, out) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_npz(tmp_path / "i.npz", np.zeros((2, 28, 28), np.uint8))
    result = run(model_path, source, *out)
    assert result.exit_code == 1 and result.stdout == ""
    assert "28x28 images, the model expects 8x8" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "p.csv").exists()


def test_a_failed_run_leaves_the_old_file(model_path, tmp_path) -> None:
    (tmp_path / "p.csv").write_text("old")
    (tmp_path / "bad.csv").write_text("pixel0,pixel1\n1,x\n")
    assert run(model_path, tmp_path / "bad.csv", "--out", tmp_path / "p.csv").exit_code == 1
    assert (tmp_path / "p.csv").read_text() == "old"


def test_missing_input_and_unwritable_output(model_path, data, tmp_path) -> None:
    assert run(model_path, tmp_path / "none.csv").exit_code == 1
    source = write_csv(tmp_path / "i.csv", data.images)
    result = run(model_path, source, "--out", source / "p.csv")
    assert result.exit_code == 1 and "is not a folder" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_behind_standard_output_is_one_line(model_path, data, tmp_path) -> None:
    table = write_csv(tmp_path / "i.csv", data.images)
    with Path("/dev/full").open("w") as full:
        result = run_in_a_fork(COMMAND, "predict", model_path, table, stdout=full)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard output: cannot write")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(model_path, data, tmp_path) -> None:
    table = write_csv(tmp_path / "i.csv", data.images)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        result = run_in_a_fork(COMMAND, "predict", model_path, table, stdout=gone)
    assert result.returncode == 0
    assert "30 images predicted" in result.stderr
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


def test_a_model_without_steps_is_said_to_see_raw_pixels(digits_model, data, tmp_path) -> None:
    save_model(digits_model, tmp_path / "raw.svm")
    result = run(tmp_path / "raw.svm", write_npz(tmp_path / "i.npz", data.images))
    assert result.exit_code == 0 and "raw pixels 0 to 255" in result.stderr


def test_a_data_sets_name_is_pointed_to_evaluate(model_path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(model_path, "mnist")
    assert result.exit_code == 1 and "gpusvm evaluate MODEL mnist" in result.stderr


def test_a_regression_and_a_one_class_model_predict_a_table_too(tmp_path):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    table = tmp_path / "table.npz"
    np.savez(table, x_test=X.to_numpy())
    for machine in (SVR(backend="sklearn").fit(X, X["a"]), OneClassSVM(backend="sklearn").fit(X)):
        machine.save(tmp_path / "model.svm")
        result = run(tmp_path / "model.svm", table)
        assert result.exit_code == 0, result.output
        found = [float(line.split(",")[1]) for line in result.stdout.splitlines()[1:]]
        np.testing.assert_allclose(found, machine.predict(X))
        refused = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model.svm"), str(table)])
        assert refused.exit_code == 2 and "evaluate takes classifiers" in " ".join(refused.output.split())


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_model_and_data_in_each_others_place_are_named(model_path, data, tmp_path, command):
    table = write_csv(tmp_path / "digits.csv", data.images)

    def said(*arguments):
        result = CliRunner().invoke(app, [command, *map(str, arguments)])
        assert "Traceback" not in result.output and result.stderr.count("\n") == 1
        return result.exit_code, result.stderr

    code, message = said(table, model_path)
    assert code == 2 and f"the model comes first, then the data ({model_path} {table})" in message
    code, message = said(table, table)
    assert code == 1 and f"{table}: is a table and no model" in message
    code, message = said(model_path, model_path)
    assert code == 1 and f"{model_path}: is a model file of gpusvm" in message
    code, message = said(tmp_path, table)
    assert code == 1 and f"{tmp_path}: is a folder of tables and no model" in message


def test_a_model_of_libsvm_is_known_in_either_place(tmp_path, rng):
    X, model, table = rng.normal(size=(40, 3)), tmp_path / "m.csv", tmp_path / "x.csv"
    write_libsvm_model(SVC(backend="sklearn").fit(X, (X[:, 0] > 0).astype(int)).model_, model)
    np.savetxt(table, X, delimiter=",", header="a,b,c", comments="")
    assert "the model comes first" in run(table, model).stderr
    assert "is a LIBSVM model and no data" in run(model, model).stderr


def test_a_damaged_model_is_not_taken_for_data(model_path):
    model_path.write_bytes(model_path.read_bytes()[:-40])
    result = run(model_path, model_path)
    assert result.exit_code == 1 and "not a readable model file" in result.stderr

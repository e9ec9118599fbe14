"""``gpusvm train`` as its users type it."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from forks import COMMAND, run_in_a_fork
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from gpusvm import load_model
from gpusvm.cli.main import app
from gpusvm.cli.progress import pair_progress
from gpusvm.data import load_dataset
from gpusvm.training import recommended_parameters


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def one_line_error(result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.output
    assert lines[-1].startswith("error: ")
    return lines[-1]


METRICS = {
    "backend", "n_train", "n_test", "fit_seconds", "predict_seconds", "accuracy", "n_support_vectors",
    "dual_objective", "kkt_gap", "peak_rss_mb", "peak_gpu_mb",
}  # fmt: skip


def test_digits_from_start_to_model(tmp_path):
    result = gpusvm("train", "digits", "--json", "m.json", "--out", "sub/m.svm")
    assert result.exit_code == 0, result.output
    assert "1,437 images of 8 x 8 pixels" in result.stdout and "45 class pairs" in result.stdout
    assert "Backend: sklearn" in result.stdout
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert set(metrics) >= METRICS
    assert metrics["accuracy"] > 0.955 and metrics["n_train"] == 1437 and metrics["n_test"] == 360
    assert len(metrics["pairs"]) == 45
    model = load_model("sub/m.svm")
    assert model.image_shape == (8, 8)
    assert model.provenance["dataset"]["name"] == "digits"
    test = load_dataset("digits", "test")
    assert (model.predict(model.preprocess(test.images)) == test.labels).mean() == metrics["accuracy"]


def test_what_is_recommended_is_used_where_nothing_else_is_asked_for(tmp_path):
    def trained_with(*options):
        result = gpusvm("train", "digits", *options, "--json", "m.json")
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "m.json").read_text())["parameters"]

    recommended = recommended_parameters("digits")
    assert recommended
    assert trained_with().items() >= recommended.items()
    assert trained_with("--C", 3).items() >= {**recommended, "C": 3}.items()
    assert trained_with("--gamma", 0.1).items() >= {**recommended, "gamma": 0.1}.items()


def test_the_certificate_is_printed_and_recorded(tmp_path):
    result = gpusvm("train", "digits", "--certify", "--json", "m.json")
    assert "Certificate (float64" in result.stdout
    certificate = json.loads((tmp_path / "m.json").read_text())["certificate"]
    assert 0 < certificate["kkt_gap"] <= 1.01e-3
    assert certificate["dual_objective"] > 0


def test_options_reach_the_solver_and_the_model():
    result = gpusvm(
        "train", "digits", "--kernel", "poly", "--C", 2, "--gamma", 0.1, "--degree", 2, "--coef0", 1, "--tol", 1e-4,
        "--binarize", "--deskew", "--test-size", 0.25, "--seed", 3, "--limit", 800, "--balanced",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    model = load_model("digits.svm")
    assert (model.kernel.name, model.kernel.gamma, model.kernel.degree, model.kernel.coef0) == (
        "poly",
        0.1,
        2,
        1.0,
    )
    assert (model.problem.C, model.stopping.tol) == (2.0, 1e-4)
    assert model.problem.class_weight is not None
    assert [type(step).__name__ for step in model.preprocessing] == [
        "Deskewer",
        "PixelScaler",
        "PixelBinarizer",
    ]
    assert model.provenance["n_train"] == 600 and "200 images held out (25%, seed 3)" in result.stdout


@pytest.mark.mnist
def test_the_tutorial_preset_is_the_classic_first_walk(tmp_path):
    result = gpusvm("train", "--preset", "tutorial")
    assert result.exit_code == 0, result.output
    assert "The first rows" in result.stdout
    assert "Images of each class: 0: 479, 1: 563" in result.stdout
    assert "Accuracy: 0.9250 on 1,000 test images" in result.stdout
    assert result.stdout.rstrip().endswith("gpusvm train mnist")
    rows = (tmp_path / "tutorial-predictions.csv").read_text().splitlines()
    assert rows[0] == "ImageId,Label" and rows[1].startswith("1,") and len(rows) == 5001
    truth = load_dataset("mnist", "test", limit=5000).labels
    assert (np.array([int(row.split(",")[1]) for row in rows[1:]]) == truth).mean() > 0.88


def test_without_mnist_the_bundled_digits_are_taken_and_said_so(tmp_path, monkeypatch):
    from gpusvm.errors import DownloadError

    def no_network(*args, **kwargs):
        raise DownloadError("mnist cannot be fetched: no network")

    monkeypatch.setenv("GPUSVM_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr("gpusvm.data.catalogue.fetch", no_network)
    result = gpusvm("train")
    assert result.exit_code == 0, result.output
    assert "digits" in result.stderr and "no network" in result.stderr
    named = gpusvm("train", "mnist")
    assert "no network" in one_line_error(named)


def write_csv(path, images, labels=None):
    columns = ([] if labels is None else ["label"]) + [f"pixel{p}" for p in range(images[0].size)]
    rows = images.reshape(len(images), -1)
    if labels is not None:
        rows = np.column_stack([labels, rows])
    np.savetxt(path, rows, fmt="%d", delimiter=",", header=",".join(columns), comments="")


def test_kaggle_csv_path_train_from_one_and_predict_another():
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    write_csv("train.csv", train.images, train.labels)
    write_csv("test.csv", test.images)
    result = gpusvm("train", "train.csv", "--C", 10, "--out", "k.svm")
    assert result.exit_code == 0, result.output
    assert "held out (20%, seed 0)" in result.stdout
    result = gpusvm("predict", "k.svm", "test.csv", "--out", "submission.csv")
    assert result.exit_code == 0, result.output
    header, *rows = Path("submission.csv").read_text().splitlines()
    assert header == "ImageId,Label" and [r.split(",")[0] for r in rows] == [str(k) for k in range(1, 361)]
    assert (np.array([int(r.split(",")[1]) for r in rows]) == test.labels).mean() > 0.9


# -- bad input: one line, the exit code, nothing half-written -------------------------------------


def test_one_class_only():
    data = load_dataset("digits", "train")
    write_csv("ones.csv", data.images[data.labels == 1], data.labels[data.labels == 1])
    assert "at least two classes" in one_line_error(gpusvm("train", "ones.csv"))


def test_a_csv_without_labels():
    write_csv("test.csv", load_dataset("digits", "test").images)
    assert "label" in one_line_error(gpusvm("train", "test.csv"))


def test_a_truncated_gzip(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(5000))[:-20])
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(100)))
    assert "train-images" in one_line_error(gpusvm("train", tmp_path))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["no-such-thing"], 1, "no-such-thing"),
        (["digits", "--backend", "tpu"], 2, "no backend is called 'tpu'"),
        (["digits", "--gamma", "wide"], 2, "--gamma must be"),
        (["digits", "--C", "-1"], 2, "--C must be a number above 0"),
        (["digits", "--tol", "0"], 2, "--tol must be a number above 0"),
        (["digits", "--coef0", "nan"], 2, "--coef0 must be a finite number"),
        (["digits", "--max-iter", "-2"], 2, "--max-iter must be a whole number of at least -1"),
        (["digits", "--cache-size", "inf"], 2, "--cache-size must be a number above 0"),
        (["digits", "--n-jobs", "0"], 2, "--n-jobs must be a whole number other than 0"),
        (["digits", "--limit", "3", "--test-size", "0.9"], 1, "hold out"),
        (["digits", "--out", "."], 1, "is a folder"),
    ],
)
def test_wrong_arguments(options, code, message):
    assert message in one_line_error(gpusvm("train", *options), code)


def test_an_unwritable_output_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    result = gpusvm("train", "digits", "--out", "file/m.svm")
    assert "file" in one_line_error(result)
    assert "Trained" not in result.stdout


def test_missing_hardware_is_exit_code_3(monkeypatch):
    from gpusvm.device import Availability

    monkeypatch.setattr("gpusvm.backends.cuml._probe", lambda: Availability(False, "no NVIDIA driver"))
    assert "no NVIDIA driver" in one_line_error(gpusvm("train", "digits", "--require-gpu"), 3)
    assert "no NVIDIA driver" in one_line_error(gpusvm("train", "digits", "--backend", "cuml"), 3)


def test_debug_shows_the_traceback():
    result = gpusvm("--debug", "train", "no-such-thing")
    assert result.exit_code == 1 and "Traceback" in result.stderr


def test_an_unknown_option_is_exit_code_2():
    assert gpusvm("train", "digits", "--kernell", "rbf").exit_code == 2


def test_an_interrupt_writes_nothing_and_says_so(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpusvm.cli.train.train_model", interrupt)
    result = gpusvm("train", "digits")
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_arrives_as_another_error_is_one(tmp_path, monkeypatch):
    """As Python 3.11 makes of it where it falls into a ``__set_name__`` of a library being
    imported."""

    def interrupt(*args, **kwargs):
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr("gpusvm.cli.train.train_model", interrupt)
    result = gpusvm("train", "digits")
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


# -- what a class is called, who listens, and what stops a training -------------------------------


def write_pictures(folder, classes, n=12):
    data = load_dataset("digits", "train")
    for digit, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k, image in enumerate(data.images[data.labels == digit][:n]):
            Image.fromarray(image).save(folder / name / f"{k}.png")


def test_a_class_whose_name_looks_like_markup(tmp_path):
    # A name that has a slash cannot be a folder's, so it comes from an .npz.
    data = load_dataset("digits", "train", limit=200)
    np.savez("odd.npz", images=data.images, labels=np.array(["[/x]", "[bold]", *"cdefghij"])[data.labels])
    result = gpusvm("train", "odd.npz", "--certify")
    assert result.exit_code == 0, result.output
    assert gpusvm("evaluate", "odd.svm", "odd.npz").exit_code == 0
    write_pictures(tmp_path / "pictures", ["[x]", "[red]"])
    result = gpusvm("train", "pictures", "--preset", "tutorial")
    assert "[red]: 12, [x]: 12" in result.stdout


def test_the_bar_shows_class_names_as_they_are():
    with pair_progress(Console(file=io.StringIO(), force_terminal=True, width=200)) as progress:
        progress(1, 1, "[/x] vs [bold]")


def test_the_model_is_saved_though_nobody_reads_the_output():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = run_in_a_fork(COMMAND, "train", "digits", "--limit", 300, "--out", "m.svm", stdout=nobody)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert load_model("m.svm").n_classes == 10


def test_an_early_stop_is_one_line_on_standard_error(tmp_path):
    result = gpusvm("train", "digits", "--max-iter", 3, "--backend", "sklearn")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if "max_iter=3" in line]
    assert len(notes) == 1 and notes[0].startswith("note: Solver terminated early (max_iter=3)")
    assert "ConvergenceWarning" not in result.stderr and ".py:" not in result.stderr


@pytest.mark.parametrize(
    ("test_images", "test_labels", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 7], "7 among the labels"),
        (np.zeros((4, 9, 9), np.uint8), [0, 1, 0, 1], "got 9x9 images, the model expects 8x8"),
    ],
)
def test_test_images_that_do_not_fit_are_found_before_the_work(monkeypatch, test_images, test_labels, message):
    data = load_dataset("digits", "train")
    rows = data.labels < 2
    np.savez("two.npz", x_train=data.images[rows], y_train=data.labels[rows], x_test=test_images, y_test=test_labels)
    monkeypatch.setattr("gpusvm.cli.train.train_model", lambda *args: pytest.fail("it was trained"))
    assert message in one_line_error(gpusvm("train", "two.npz"))


# -- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_is_removed_once_the_model_is_saved(tmp_path):
    result = gpusvm("train", "digits", "--backend", "native-cpu", "--checkpoint", "pairs", "--out", "m.svm")
    assert result.exit_code == 0, result.output
    assert "Checkpoint: pairs" in result.stdout
    assert Path("m.svm").exists() and not Path("pairs").exists()


@pytest.mark.parametrize("result", [("--out", "m.svm"), ("--json", "m.svm")])
def test_a_checkpoint_that_is_also_a_result_is_refused(result):
    refused = gpusvm("train", "digits", *result, "--checkpoint", "./m.svm")
    assert "is also where a result is written" in one_line_error(refused, 2)
    assert not Path("m.svm").exists()


KILLED = """
import os, signal
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.cli.main import run

def add_then_die(self, *pair):
    add(self, *pair)
    if len(self.solved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

add, Checkpoint.add = Checkpoint.add, add_then_die
run()
"""
"""The command, killed when three of six class pairs are solved."""


@pytest.mark.parametrize("backend", ["native-cpu", "sklearn"])
def test_a_killed_training_goes_on_to_the_same_model(tmp_path, rng, backend):
    # Of so many, pairs are large enough that native-cpu solves, and keeps, them one by one.
    labels = np.arange(1360) % 4
    images = rng.integers(0, 200, (1360, 8, 8)) + rng.integers(0, 56, (4, 8, 8))[labels]
    np.savez("noise.npz", images=images.astype(np.uint8), labels=labels)
    arguments = ["train", "noise.npz", "--backend", backend]
    killed = run_in_a_fork(KILLED, *arguments, "--checkpoint", "pairs", "--out", "killed.svm")
    assert killed.returncode == -signal.SIGKILL
    assert Path("pairs").exists() and not Path("killed.svm").exists()
    for name, more in (("resumed.svm", ["--checkpoint", "pairs"]), ("whole.svm", [])):
        done = gpusvm(*arguments, *more, "--out", name)
        assert done.exit_code == 0, done.output
    resumed, whole = load_model("resumed.svm"), load_model("whole.svm")
    np.testing.assert_array_equal(resumed.dual_coef, whole.dual_coef)
    np.testing.assert_array_equal(resumed.intercept, whole.intercept)
    assert not Path("pairs").exists()


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """What ``--preset best`` says of few images, and the folder with its model and certificate."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("best")
        patch.chdir(folder)
        return gpusvm("train", "digits", "--preset", "best", "--limit", "700"), folder


@pytest.mark.parametrize("options", [("--resize", "28x28"), ("--kernel", "sigmoid")])
def test_a_gamma_is_recommended_only_for_what_it_was_found_for(options):
    """On images of another size it cost an eighth of the accuracy, without a word."""
    done = gpusvm("train", "digits", *options, "--limit", "300", "--out", "m.svm")
    assert done.exit_code == 0, done.output
    assert "C=10, gamma=scale" in done.stdout


class TestBest:
    def test_stages_model_and_certificate(self, best):
        done, folder = best
        assert done.exit_code == 0, done.output
        stages = [line.split(" s  ")[1].split(",")[0] for line in done.stderr.splitlines() if " s  " in line]
        assert [stage.split(":")[0] for stage in stages] == [
            "Scattering", "First training", "Second training", "Testing",
        ]  # fmt: skip
        assert "Backend: native" in done.stdout and "scattered" in done.stdout
        metrics = json.loads((folder / "digits.json").read_text())
        assert metrics["accuracy"] > 0.94
        assert metrics["certificate"]["kkt_gap"] < 2e-3
        model = load_model(folder / "digits.svm")
        assert [type(step).__name__ for step in model.preprocessing] == [
            "PixelScaler", "Scattering", "Logarithm", "StandardScaler", "PCA",
        ]  # fmt: skip
        assert model.provenance["augment"]["first"]["n_train"] == 700

    def test_scattering_is_not_given_the_gamma_that_suits_pixels(self):
        """With it the accuracy was 0.25, without a word."""
        done = gpusvm("train", "digits", "--scatter", "--limit", "700", "--out", "m.svm", "--json", "m.json")
        assert done.exit_code == 0, done.output
        assert json.loads(Path("m.json").read_text())["accuracy"] > 0.94
        written = gpusvm("export", "m.svm", "--to", "sklearn", "--out", "m.joblib")
        assert "rows of 64 raw pixels" in written.output

    def test_its_model_evaluates_as_any_other(self, best):
        _, folder = best
        again = gpusvm("evaluate", folder / "digits.svm", "--json", "again.json")
        assert again.exit_code == 0, again.output
        assert json.loads(Path("again.json").read_text())["accuracy"] > 0.94

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (("--preset", "best", "--table"), "--preset best is for images"),
            (("--preset", "best", "--proba"), "--proba cannot be had with --augment"),
            (("--augment", "shifts", "--checkpoint", "c"), "--checkpoint cannot be had with --augment"),
            (("--augment", "flips"), "--augment takes shifts"),
            (("--scatter", "--deskew"), "--scatter takes the pixels as they are"),
            (("--scatter", "--binarize"), "--scatter takes the pixels as they are"),
        ],
    )
    def test_what_does_not_go_together(self, options, says):
        assert says in one_line_error(gpusvm("train", "digits", *options), 2)

    def test_tables_are_not_moved_or_scattered(self, tmp_path):
        rows = "\n".join(f"{i},{i % 7},{i % 2}" for i in range(40))
        (tmp_path / "t.csv").write_text("a,b,label\n" + rows)
        for option in (("--augment", "shifts"), ("--scatter",)):
            done = gpusvm("train", "t.csv", *option)
            assert f"{option[0]} is for images, and t.csv is a table" in one_line_error(done, 2) and not done.stdout

    def test_moves_alone(self):
        done = gpusvm("train", "digits", "--augment", "shifts", "--out", "m.svm", "--limit", "500", "--certify")
        assert done.exit_code == 0, done.output
        assert len(load_model("m.svm").provenance["augment"]["moves"]) == 8

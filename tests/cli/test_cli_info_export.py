from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pytest
from forks import COMMAND, run_in_a_fork
from typer.testing import CliRunner

from gpusvm import __version__, load_model
from gpusvm.backends import backend_names
from gpusvm.cli.main import app, run
from gpusvm.data import load_dataset
from gpusvm.device import Availability


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.svm"
    result = gpusvm("train", "digits", "--backend", "sklearn", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_info_lists_every_backend_with_a_reason():
    result = gpusvm("info")
    assert result.exit_code == 0
    for name in backend_names():
        assert name in result.stdout
    assert "auto is" in result.stdout
    facts = json.loads(gpusvm("info", "--json").stdout)
    assert facts["backends"]["sklearn"]["ok"] is True
    assert all(b["reason"] for b in facts["backends"].values())


def test_info_survives_a_wrong_environment_variable(monkeypatch):
    monkeypatch.setenv("GPUSVM_BACKEND", "nonsense")
    result = gpusvm("info")
    assert result.exit_code == 0 and "nonsense" in result.stdout


def test_version_and_help():
    assert gpusvm("--version").stdout.strip() == f"gpusvm {__version__}"
    for command in ("train", "evaluate", "predict", "export", "bench", "info", "data"):
        result = gpusvm(command, "--help")
        assert result.exit_code == 0 and result.stdout.strip()


def test_export_sklearn(model_path):
    result = gpusvm("export", model_path, "--to", "sklearn")
    assert result.exit_code == 0, result.output
    images = load_dataset("digits", "test").images
    model = load_model(model_path)
    found = joblib.load(model_path.with_suffix(".joblib")).predict(images.reshape(len(images), -1))
    assert (found == model.predict(model.preprocess(images))).mean() > 0.99


def test_export_onnx(model_path, tmp_path):
    result = gpusvm("export", model_path, "--to", "onnx", "--out", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    images = load_dataset("digits", "test").images
    model = load_model(model_path)
    rows = images.reshape(len(images), -1).astype(np.float32)
    label = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(["label"], {"X": rows})[0]
    assert (label == model.predict(model.preprocess(images))).mean() > 0.99


def test_export_libsvm_and_back(model_path, tmp_path):
    path = tmp_path / "digits.model"
    result = gpusvm("export", model_path, "--to", "libsvm", "--out", path)
    assert result.exit_code == 0, result.output
    assert "note: a LIBSVM model has no place for preprocessing steps (PixelScaler)" in result.stderr
    images, model = load_dataset("digits", "test").images, load_model(model_path)
    X = model.preprocess(images)
    np.testing.assert_allclose(load_model(path).pair_decisions(X), model.pair_decisions(X), rtol=0, atol=1e-5)


def test_a_libsvm_model_is_taken_wherever_a_model_is(model_path, tmp_path):
    path = tmp_path / "digits.model"
    gpusvm("export", model_path, "--to", "libsvm", "--out", path)
    found = json.loads(gpusvm("info", path, "--json").stdout)
    assert found["classes"] == list(range(10)) and found["features"] == 64
    assert "kernel: name rbf, gamma 0.2" in gpusvm("info", path).stdout
    for command in (["evaluate", path, "digits"], ["export", path, "--to", "onnx"], ["export", path, "--to", "libsvm"]):
        result = gpusvm(*command)
        expected = 2 if command[-1] == "libsvm" else 0
        assert result.exit_code == expected, result.output
    assert "digits.model is the model itself; name another file with --out" in result.stderr
    result = gpusvm("evaluate", path)
    assert result.exit_code == 2 and "does not say what it was trained on" in result.stderr


def test_info_of_a_damaged_libsvm_model_names_the_line(tmp_path):
    (tmp_path / "m.model").write_text("svm_type c_svc\nkernel_typo rbf\n")
    result = gpusvm("info", tmp_path / "m.model")
    assert result.exit_code == 1 and "line 2: unknown key 'kernel_typo'" in result.stderr


def test_export_of_no_model_is_one_line(tmp_path):
    result = gpusvm("export", tmp_path / "none.svm", "--to", "onnx")
    assert result.exit_code == 1 and "no such model file" in result.stderr and "Traceback" not in result.output


def test_train_as_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "gpusvm.cli.main", "train", "digits", "--limit", "300"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Accuracy" in result.stdout and (tmp_path / "digits.svm").exists()
    failed = run_in_a_fork(COMMAND, "train", "nothing-here")
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1


COUNTED = """
import os, signal, sys
from itertools import count
from sklearn.svm import SVC
from gpusvm.cli.main import run

fit, begun, numbers = SVC.fit, open(sys.argv.pop(), "ab", buffering=0), count(1)

def counted(self, *arguments, **options):
    begun.write(b".")
    if next(numbers) == 4:  # in one thread, whenever the others begin
        os.kill(os.getpid(), signal.SIGINT)
    return fit(self, *arguments, **options)

SVC.fit = counted
run()
"""
"""The command; every class pair that LIBSVM begins adds a byte to the file named last, and with
the fourth comes Ctrl-C."""


def test_ctrl_c_ends_a_long_training_and_writes_nothing(tmp_path, monkeypatch, rng):
    # A quarter of a second for each of 45 pairs.
    np.savez(tmp_path / "noise.npz", images=rng.integers(0, 256, (4000, 28, 28), np.uint8), labels=np.arange(4000) % 10)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    begun = tmp_path / "begun"
    command = ["train", tmp_path / "noise.npz", "--backend", "sklearn", "--n-jobs", 2]
    ended = run_in_a_fork(COUNTED, *command, begun)
    assert ended.returncode == 130, ended.stderr
    assert "interrupted" in ended.stderr and "Traceback" not in ended.stderr
    assert 4 <= len(begun.read_bytes()) < 45, "it went through all class pairs first"
    assert list(Path().iterdir()) == []


def test_the_auto_line_has_the_whole_pip_command(monkeypatch):
    from gpusvm.device import Availability, Driver

    hint = 'pip install "gpusvm[cuda13]"'
    monkeypatch.setattr("gpusvm.backends.cuml._probe", lambda: Availability(False, "CuPy is not installed", hint))
    monkeypatch.setattr("gpusvm.device.query_driver", lambda: Driver(0, 13000, 1))
    lines = gpusvm("info").stdout.splitlines()
    assert hint in next(line for line in lines if line.startswith("auto is sklearn:"))
    assert hint in next(line for line in lines if line.startswith("cuml"))


def test_info_describes_each_device(monkeypatch):
    devices = [
        {"index": i, "name": f"Imaginary GPU {i}", "memory_mb": 81920, "compute_capability": "9.0"} for i in range(2)
    ]
    found = Availability(True, "Imaginary GPU 0, 80 GB", detail={"driver_cuda_version": 13000, "devices": devices})
    for module in ("gpusvm.cli.info", "gpusvm.backends.native_cuda"):
        monkeypatch.setattr(f"{module}.probe_cuda", lambda: found)
    result = gpusvm("info")
    assert "the driver runs CUDA 13.0" in result.stdout
    assert "device 1: Imaginary GPU 1, 81920 MB, compute capability 9.0" in result.stdout


def test_ctrl_c_while_the_command_line_is_read_is_one_line(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr("gpusvm.cli.main.app", interrupted)
    monkeypatch.setattr(os, "_exit", ended.append)
    run()
    assert ended == [130]
    assert capsys.readouterr().err == "interrupted; results that were not finished are not written\n"

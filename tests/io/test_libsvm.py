"""LIBSVM's text models: against svm-train and svm-predict where they are installed, and against
its formulas."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy.sparse import csr_array, issparse
from typer.testing import CliRunner

from gpusvm import SVC, SVR, OneClassSVM, certify, load_model, save_model, to_onnx, to_sklearn
from gpusvm.calibration import Calibration
from gpusvm.cli.main import app
from gpusvm.errors import DataError, DataWarning, ModelFileError, UsageError
from gpusvm.io.libsvm import is_libsvm_model, read_libsvm_model, write_libsvm_model
from gpusvm.model import in_class_order
from gpusvm.preprocess import PixelScaler

needs_libsvm = pytest.mark.skipif(
    shutil.which("svm-train") is None, reason="LIBSVM's programs are not installed: apt-get install libsvm-tools"
)

KERNELS = {
    "rbf": (["-t", "2", "-g", "0.3"], {"kernel": "rbf", "gamma": 0.3}),
    "linear": (["-t", "0"], {"kernel": "linear"}),
    "poly": (
        ["-t", "1", "-g", "0.2", "-r", "1", "-d", "3"], {"kernel": "poly", "gamma": 0.2, "coef0": 1.0, "degree": 3}),
    "sigmoid": (["-t", "3", "-g", "0.02", "-r", "-0.1"], {"kernel": "sigmoid", "gamma": 0.02, "coef0": -0.1}),
    "precomputed": (["-t", "4"], {"kernel": "precomputed"}),
}  # fmt: skip
LABELS = {"two": [1, -1], "four": [30, -1, 7, 2], "four sorted": [-5, 0, 1, 9], "seven": [3, 6, 0, 5, 1, 4, 2]}


def problem(rng, labels, n=140, n_test=400, precomputed=False):
    """Overlapping classes, which give equal votes too: X, y in the order of the labels, and test
    rows."""
    y = np.concatenate([labels, rng.choice(labels, n - len(labels))])
    centres = dict(zip(labels, rng.normal(size=(len(labels), 5)), strict=True))
    X = np.array([centres[label] for label in y.tolist()]) + rng.normal(size=(n, 5))
    X[rng.random(X.shape) < 0.2] = 0
    T = rng.normal(size=(n_test, 5)) * 1.5
    return (X @ X.T, y, T @ X.T) if precomputed else (X, y, T)


def write_rows(path, X, y, precomputed=False):
    """A data file of LIBSVM; X has each value as it is printed, so that both sides see the same
    one."""
    lines = []
    for number, (row, label) in enumerate(zip(X.tolist(), y, strict=True), start=1):
        serial = [f"0:{number}"] if precomputed else []
        features = [f"{k}:{v!r}" for k, v in enumerate(row, start=1) if v or precomputed]
        lines.append(" ".join([str(label), *serial, *features]))
    path.write_text("\n".join(lines) + "\n")


def svm_train(folder, X, y, *options):
    write_rows(folder / "train", X, y, precomputed="4" in options[:2])
    subprocess.run(["svm-train", "-q", *options, "train", "m.model"], cwd=folder, check=True)
    return folder / "m.model"


def svm_predict(folder, model, X, precomputed=False):
    write_rows(folder / "test", X, [0] * len(X), precomputed)
    subprocess.run(["svm-predict", "-q", "test", str(model), "out"], cwd=folder, check=True)
    return np.array((folder / "out").read_text().split(), dtype=float)


def defined(path, X):
    """Decision values by LIBSVM's definition (svm_predict_values), from the file read in the
    plainest way: for pairs of labels as the file has them, {(first, second): (n,) values}."""
    head, _, body = path.read_text().partition("SV\n")
    values = {line.split()[0]: line.split()[1:] for line in head.splitlines()}
    k = int(values["nr_class"][0])
    coef, rows = [], []
    for line in body.splitlines():
        words = line.split()
        coef.append([float(word) for word in words[: k - 1]])
        rows.append({int(i): float(v) for i, v in (word.split(":") for word in words[k - 1 :])})
    if values["kernel_type"] == ["precomputed"]:
        K = X[:, [int(row[0]) - 1 for row in rows]]
    else:
        S = np.array([[row.get(i, 0.0) for i in range(1, X.shape[1] + 1)] for row in rows])
        gamma, coef0 = (float(values.get(name, ["0"])[0]) for name in ("gamma", "coef0"))
        K = {
            "linear": lambda: X @ S.T,
            "rbf": lambda: np.exp(-gamma * ((X[:, None] - S[None]) ** 2).sum(axis=2)),
            "polynomial": lambda: (gamma * X @ S.T + coef0) ** int(values["degree"][0]),
            "sigmoid": lambda: np.tanh(gamma * X @ S.T + coef0),
        }[values["kernel_type"][0]]()
    ends = np.cumsum([0, *map(int, values["nr_sv"])])
    found = {}
    for p, (i, j) in enumerate(combinations(range(k), 2)):
        own, other = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        c = np.array(coef).T
        f = K[:, own] @ c[j - 1, own] + K[:, other] @ c[i, other] - float(values["rho"][p])
        found[int(values["label"][i]), int(values["label"][j])] = f
    return found


def check_decisions(model, path, X):
    expected, found = defined(path, X), model.pair_decisions(X)
    for p, (i, j) in enumerate(model.pairs):
        first, second = model.classes[[i, j]].tolist()
        values = expected[first, second] if (first, second) in expected else -expected[second, first]
        np.testing.assert_allclose(found[:, p], values, rtol=1e-9, atol=1e-9)


@needs_libsvm
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_models_of_svm_train_predict_as_svm_predict_does(tmp_path, rng, kernel, labels):
    precomputed = kernel == "precomputed"
    X, y, T = problem(rng, LABELS[labels], precomputed=precomputed)
    path = svm_train(tmp_path, X, y, *KERNELS[kernel][0])
    model = read_libsvm_model(path, n_features=T.shape[1])
    assert model.classes.tolist() == sorted(LABELS[labels])
    check_decisions(model, path, T)
    np.testing.assert_array_equal(model.predict(T), svm_predict(tmp_path, path, T, precomputed))


@needs_libsvm
@pytest.mark.parametrize("options", [["-b", "1"], ["-s", "1", "-n", "0.3"]], ids=["probabilities", "nu_svc"])
@pytest.mark.parametrize("labels", ["two", "four"])
def test_other_models_of_svm_train(tmp_path, rng, labels, options):
    X, y, T = problem(rng, LABELS[labels])
    path = svm_train(tmp_path, X, y, "-g", "0.3", *options)
    model = read_libsvm_model(path)
    check_decisions(model, path, T)
    np.testing.assert_array_equal(model.predict(T), svm_predict(tmp_path, path, T))
    assert (model.calibration is not None) == ("-b" in options)


@needs_libsvm
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_models_of_svm_train_are_written_back_byte_for_byte(tmp_path, rng, kernel, labels):
    X, y, _ = problem(rng, LABELS[labels], precomputed=kernel == "precomputed")
    path = svm_train(tmp_path, X.round(3), y, *KERNELS[kernel][0], "-b", "1")
    save_model(read_libsvm_model(path), tmp_path / "m.svm")  # nothing is lost in our own format either
    write_libsvm_model(load_model(tmp_path / "m.svm"), tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == path.read_bytes()


@needs_libsvm
@pytest.mark.parametrize("labels", ["two", "four"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_svm_predict_reads_our_models(tmp_path, rng, kernel, labels):
    precomputed = kernel == "precomputed"
    X, y, T = problem(rng, LABELS[labels], precomputed=precomputed)
    model = SVC(backend="sklearn", **KERNELS[kernel][1]).fit(X, y).model_
    write_libsvm_model(model, tmp_path / "ours.model")
    np.testing.assert_array_equal(svm_predict(tmp_path, tmp_path / "ours.model", T, precomputed), model.predict(T))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS)
def test_reading_what_was_written_gives_the_same_numbers(tmp_path, rng, kernel, dtype):
    X, y, _ = problem(rng, [0, 1, 2, 3], precomputed=kernel == "precomputed")
    model = SVC(backend="sklearn", **KERNELS[kernel][1]).fit(X.astype(dtype), y).model_
    write_libsvm_model(model, tmp_path / "m.model")
    again = read_libsvm_model(tmp_path / "m.model", n_features=model.n_features)
    for name in ("classes", "n_support", "dual_coef", "intercept", "support_vectors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.kernel == replace(again.kernel, name=model.kernel.name)
    assert again.vote_order is None
    if kernel == "precomputed":
        np.testing.assert_array_equal(again.support_indices, model.support_indices)


@needs_libsvm
@pytest.mark.parametrize("columns", ["all", "fewer", "more"])
def test_the_commands_give_the_labels_of_svm_predict(tmp_path, rng, columns):
    """On a test file that shows as many features as the model, fewer of them, or more."""
    X, y, T = problem(rng, LABELS["four"])
    T = np.hstack([T, np.zeros((len(T), 1))])
    if columns == "fewer":
        T[:, 4] = 0
    elif columns == "more":
        T[:, 5] = rng.normal(size=len(T))
    path = svm_train(tmp_path, X, y, "-g", "0.3")
    expected = svm_predict(tmp_path, path, T)
    write_rows(tmp_path / "labelled", T, expected.astype(int).tolist())
    result = CliRunner().invoke(app, ["predict", str(path), str(tmp_path / "labelled")])
    assert result.exit_code == 0, result.output
    assert [int(line.split(",")[1]) for line in result.stdout.splitlines()[1:]] == expected.tolist()
    result = CliRunner().invoke(app, ["evaluate", str(path), str(tmp_path / "labelled")])
    assert "Accuracy: 1.0000" in result.stdout, result.output


# -- probabilities --------------------------------------------------------------------------------


def svm_probabilities(folder, model, X, precomputed=False):
    """What svm-predict -b 1 prints: {label: (n,) probabilities}, of six digits."""
    write_rows(folder / "test", X, [0] * len(X), precomputed)
    subprocess.run(["svm-predict", "-q", "-b", "1", "test", str(model), "out"], cwd=folder, check=True)
    head, *lines = (folder / "out").read_text().splitlines()
    rows = np.array([line.split()[1:] for line in lines], dtype=float)
    return dict(zip(map(int, head.split()[1:]), rows.T, strict=True))


@needs_libsvm
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_probabilities_are_those_of_svm_predict(tmp_path, rng, kernel, labels):
    precomputed = kernel == "precomputed"
    X, y, T = problem(rng, LABELS[labels], precomputed=precomputed)
    path = svm_train(tmp_path, X, y, *KERNELS[kernel][0], "-b", "1")
    expected, model = svm_probabilities(tmp_path, path, T, precomputed), read_libsvm_model(path, n_features=T.shape[1])
    save_model(model, tmp_path / "m.svm")
    for known in (model, load_model(tmp_path / "m.svm")):
        found = known.predict_proba(T)
        for c, label in enumerate(known.classes.tolist()):
            np.testing.assert_allclose(found[:, c], expected[label], rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(SVC.from_model(model).predict_proba(T), model.predict_proba(T))


@needs_libsvm
@pytest.mark.parametrize("n_classes", [2, 4])
def test_svm_predict_gives_probabilities_of_our_models(tmp_path, rng, n_classes):
    X, y, T = problem(rng, list(range(n_classes)))
    model = SVC(backend="sklearn", probability=True).fit(X, y).model_
    write_libsvm_model(model, tmp_path / "ours.model")
    theirs = svm_probabilities(tmp_path, tmp_path / "ours.model", T)
    again = read_libsvm_model(tmp_path / "ours.model").predict_proba(T)
    np.testing.assert_allclose(np.stack([theirs[c] for c in range(n_classes)], axis=1), again, rtol=2e-5, atol=1e-6)
    if n_classes == 2:  # where there is nothing to couple, but the prediction decides between even ones
        uneven = np.abs(again[:, 0] - 0.5) > 0.05
        np.testing.assert_allclose(model.predict_proba(T)[uneven], again[uneven], atol=1e-5)


# -- the order of the classes ---------------------------------------------------------------------

TIED = """svm_type c_svc
kernel_type linear
nr_class 3
total_sv 0
rho 0 0 0
label 3 1 2
nr_sv 0 0 0
SV
"""
"""By decision values of zero, class 2 gets two votes, class 1 one; with rho -1 1 -1 each gets
one."""


@pytest.mark.parametrize(("rho", "winner"), [("0 0 0", 2), ("-1 1 -1", 3), ("1 -1 1", 3), ("-1 -1 0", 3)])
def test_equal_votes_go_to_the_class_that_comes_first_in_the_file(tmp_path, rho, winner):
    (tmp_path / "m.model").write_text(TIED.replace("rho 0 0 0", f"rho {rho}"))
    model, X = read_libsvm_model(tmp_path / "m.model"), np.zeros((2, 1))
    assert model.predict(X).tolist() == [winner, winner]
    assert to_sklearn(in_class_order(model, model.vote_order)).predict(X).tolist() == [winner, winner]
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    assert session.run(["label"], {"X": X.astype(np.float32)})[0].tolist() == [winner, winner]


def test_classes_in_another_order_make_the_same_machine(digits, digits_model, rng):
    X, order = digits[2], rng.permutation(10)
    gaps = np.arange(45.0)
    model = replace(digits_model, calibration=Calibration(gaps, gaps), kkt_gap=gaps)
    other = in_class_order(model, order)
    decisions, turned = model.pair_decisions(X), other.pair_decisions(X)
    places = {pair: p for p, pair in enumerate(model.pairs)}
    for p, (a, b) in enumerate(other.pairs):
        i, j = order[a], order[b]
        known, sign = places[min(i, j), max(i, j)], 1 if i < j else -1
        np.testing.assert_allclose(turned[:, p], sign * decisions[:, known], rtol=0, atol=1e-5)
        of_pair = (other.calibration.probA[p], other.calibration.probB[p], other.kkt_gap[p])
        assert of_pair == (gaps[known], sign * gaps[known], gaps[known])
    back = in_class_order(other, np.argsort(order))
    for name in ("classes", "support_vectors", "support_indices", "dual_coef", "intercept", "n_support"):
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    np.testing.assert_array_equal(back.calibration.probB, gaps)


# -- what cannot be written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["ant", "bee"], "labels are words .'ant'"), ([0.5, 1.0], "label 0.5 is no whole"), ([1, 2**31], "2147483648 is")],
)
def test_labels_that_libsvm_cannot_have_are_refused(tmp_path, labels, message):
    (tmp_path / "good.model").write_text(GOOD)
    model = replace(load_model(tmp_path / "good.model"), classes=np.array(labels))
    with pytest.raises(UsageError, match=message):
        write_libsvm_model(model, tmp_path / "m.model")
    assert not (tmp_path / "m.model").exists()


@pytest.mark.parametrize("labels", [[1.0, 2.0], [False, True], [-(2**31), 2**31 - 1]])
def test_labels_that_are_whole_numbers_in_another_form_are_written(tmp_path, digits, labels):
    keep = digits[1] < 2
    model = SVC(backend="sklearn").fit(digits[0][keep], np.array(labels)[digits[1][keep]]).model_
    write_libsvm_model(model, tmp_path / "m.model")
    assert read_libsvm_model(tmp_path / "m.model").classes.tolist() == labels


def test_steps_that_are_left_out_are_said(tmp_path, digits_model):
    model = replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8))
    with pytest.warns(DataWarning, match="no place for preprocessing steps .PixelScaler"):
        write_libsvm_model(model, tmp_path / "m.model")
    assert read_libsvm_model(tmp_path / "m.model").preprocessing == ()


# -- what must be refused -------------------------------------------------------------------------

GOOD = """svm_type c_svc
kernel_type rbf
gamma 0.25
nr_class 2
total_sv 3
rho 0.5
label 1 -1
probA -2
probB 0.5
nr_sv 2 1
SV
1 1:0.5 3:1
0.5 2:1
-1.5 1:-1 2:2
"""


def test_the_good_file_is_read(tmp_path):
    (tmp_path / "m.model").write_text(GOOD)
    model = load_model(tmp_path / "m.model")
    assert model.classes.tolist() == [-1, 1] and model.n_features == 3 and model.problem.C == 1.5
    np.testing.assert_array_equal(model.support_vectors, [[-1, 2, 0], [0.5, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(model.dual_coef, [[1.5, -1, -0.5]])
    assert (model.intercept, model.calibration.probA, model.calibration.probB) == ([0.5], [-2], [-0.5])


def without(key):
    return "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))


DAMAGE = {
    "empty line of type": (GOOD.replace("c_svc", ""), "line 1: svm_type is ''"),
    "type": (GOOD.replace("c_svc", "d_svc"), "line 1: svm_type is 'd_svc', it must be one of c_svc"),
    "kernel": (GOOD.replace("rbf", "gauss"), "line 2: kernel_type is 'gauss'"),
    "no gamma": (without("gamma"), "line 10: .*there was no gamma"),
    "negative gamma": (GOOD.replace("0.25", "-1"), "line 3: gamma must be a number of at least 0"),
    "nan": (GOOD.replace("0.25", "nan"), "line 3: gamma has 'nan', which is no finite"),
    "unknown key": (GOOD.replace("nr_sv", "nr_vs"), "line 10: unknown key 'nr_vs', expected one of svm_type"),
    "twice": (GOOD.replace("rho 0.5", "rho 0.5\nrho 0.5"), "line 7: rho was there before, in line 6"),
    "huge nr_class": (GOOD.replace("nr_class 2", "nr_class 2000000000"), "label has 2 values, it must have 2,000,000"),
    "larger nr_class": (GOOD.replace("nr_class 2", "nr_class 9" + 30 * "9"), "line 4: nr_class has '9{31}'"),
    "fraction": (GOOD.replace("nr_class 2", "nr_class 2.5"), "line 4: nr_class has '2.5'"),
    "one class": (GOOD.replace("nr_class 2", "nr_class 1"), "line 4: it has a single class"),
    "huge total_sv": (GOOD.replace("total_sv 3", "total_sv 2000000000"), "line 10: nr_sv adds up to 3, and total_sv"),
    "both lie": (
        GOOD.replace("total_sv 3", "total_sv 2000000000").replace("nr_sv 2 1", "nr_sv 1999999999 1"),
        "line 14: the file ends too soon: it has 3 support vectors of 2,000,000,000"),
    "too few of total_sv": (
        GOOD.replace("total_sv 3", "total_sv 2").replace("nr_sv 2 1", "nr_sv 1 1"),
        "line 14: there are more support vectors than total_sv, 2"),
    "rho": (GOOD.replace("rho 0.5", "rho 0.5 0.5"), "line 6: rho has 2 values, it must have 1"),
    "same labels": (GOOD.replace("1 -1", "1 1"), "line 7: a label is there twice"),
    "words": (GOOD.replace("1 -1", "ant bee"), "line 7: label has 'ant', which is no number"),
    "probA": (GOOD.replace("probA -2", "probA"), "line 8: probA has 0 values"),
    "truncated header": (GOOD[:90], "line 8: the file ends before its support vectors"),
    "truncated": (GOOD[: GOOD.index("0.5 2:1")], "line 12: the file ends too soon: it has 1 support vectors of 3"),
    "cut in a number": (GOOD[:-2], "line 14: the file ends within a line: it is truncated"),
    "no value": (GOOD.replace("2:2", "2"), "line 14: has '2', where an index, a colon"),
    "coefficient": (GOOD.replace("0.5 2:1", "2:1"), "line 13: has fewer than 1 coefficients"),
    "infinite": (GOOD.replace("0.5 2:1", "0.5 2:inf"), "line 13: has 'inf', which is no finite number"),
    "too large": (GOOD.replace("0.5 2:1", "1e300 2:1"), "line 13: has '1e300', which is no finite number up to 3.4e"),
    "underscore": (GOOD.replace("0.5 2:1", "0.5 2:1_0"), "line 13: has '1_0', which is no number"),
    "zero-based": (GOOD.replace("1:0.5 3:1", "0:0.5 3:1"), "line 12: has a feature 0: LIBSVM counts features from 1"),
    "order": (GOOD.replace("1:0.5 3:1", "3:0.5 1:1"), "line 12: has features whose indices do not ascend"),
    "index": (GOOD.replace("3:1", "-3:1"), "line 12: has '-3' for a feature's index"),
    "huge index": (GOOD.replace("3:1", "4294967296:1"), "line 12: has '4294967296' for a feature's index"),
    "no serial": (
        GOOD.replace("rbf\ngamma 0.25", "precomputed"), "line 11: has no number of a training sample, 0:1 or more"),
    "bytes": (GOOD.replace("2:1", "2:\x80"), "line 13: has characters that no LIBSVM model has"),
    "probA alone": (without("probB"), "there was no probB"),
    "probB alone": (without("probA"), "there was no probA"),
    "regression": (GOOD.replace("c_svc", "nu_svr"), "line 7: a model of nu_svr has no label"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_with_its_line(tmp_path, kind):
    text, message = DAMAGE[kind]
    path = tmp_path / "m.model"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFileError, match=message) as refused:
        load_model(path)
    assert str(refused.value).startswith(str(path)) and str(refused.value).isprintable()


def test_support_vectors_of_very_many_features_stay_sparse(tmp_path):
    text = GOOD.replace("3:1", "2000000000:1")
    (tmp_path / "m.model").write_text(text)
    model = load_model(tmp_path / "m.model")
    assert issparse(model.support_vectors) and model.support_vectors.shape == (3, 2_000_000_000)
    narrow = load_model_of(tmp_path, GOOD)
    columns = np.array([0, 1, 1_999_999_999])
    X = np.random.default_rng(0).normal(size=(5, 3))
    wide = csr_array((X.ravel(), np.tile(columns, 5), np.arange(0, 16, 3)), shape=(5, 2_000_000_000))
    np.testing.assert_allclose(model.pair_decisions(wide), narrow.pair_decisions(X), rtol=1e-12)
    write_libsvm_model(model, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_text() == written(tmp_path, narrow).replace("3:1", "2000000000:1")


def load_model_of(folder, text):
    (folder / "given.model").write_text(text)
    return load_model(folder / "given.model")


def written(folder, model):
    write_libsvm_model(model, folder / "written.model")
    return (folder / "written.model").read_text()


def test_a_model_is_known_by_its_content(tmp_path, digits_model):
    save_model(digits_model, tmp_path / "m.model")
    (tmp_path / "l.svm").write_text(GOOD)
    assert is_libsvm_model(tmp_path / "l.svm") and not is_libsvm_model(tmp_path / "m.model")
    assert not is_libsvm_model(tmp_path) and not is_libsvm_model(tmp_path / "nothing")
    assert not is_libsvm_model(Path(os.devnull))


def test_fewer_features_than_the_support_vectors_have_are_refused(tmp_path):
    (tmp_path / "m.model").write_text(GOOD)
    with pytest.raises(UsageError, match="n_features is 2, and the support vectors of the model have 3"):
        read_libsvm_model(tmp_path / "m.model", n_features=2)
    assert read_libsvm_model(tmp_path / "m.model", n_features=9).support_vectors.shape == (3, 9)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "precomputed"])
def test_data_of_more_features_than_the_support_vectors_name_are_taken(tmp_path, rng, kernel):
    text = GOOD.replace("kernel_type rbf", f"kernel_type {kernel}")
    if kernel == "precomputed":
        text = text.replace("1:0.5 3:1", "0:1").replace("2:1\n", "0:2\n").replace("1:-1 2:2", "0:3")
    (tmp_path / "m.model").write_text(text)
    model, X = load_model(tmp_path / "m.model"), rng.normal(size=(20, 6))
    check_decisions(model, tmp_path / "m.model", X)
    assert model.predict(X).shape == (20,)
    with pytest.raises(DataError, match="expects 3 features"):
        model.predict(X[:, :2])
    save_model(model, tmp_path / "m.svm")
    np.testing.assert_array_equal(load_model(tmp_path / "m.svm").pair_decisions(X), model.pair_decisions(X))


def test_estimators_take_samples_of_either_form(tmp_path, rng):
    """The file does not say which one its machine was trained on."""
    (tmp_path / "m.model").write_text(GOOD)
    svc, X = SVC.load(tmp_path / "m.model"), rng.normal(size=(20, 3))
    np.testing.assert_allclose(svc.decision_function(csr_array(X)), svc.decision_function(X), rtol=1e-12)


# -- regressions and one-class models -------------------------------------------------------------

FUNCTIONS = {
    "epsilon_svr": ["-s", "3", "-p", "0.05"], "nu_svr": ["-s", "4", "-n", "0.4"], "one_class": ["-s", "2", "-n", "0.3"],
}  # fmt: skip


def target(rng, kernel):
    X, _, T = problem(rng, [0, 1], precomputed=kernel == "precomputed")
    return X, (np.sin(X[:, 0]) + 0.1 * X[:, 1]).round(6), T


@needs_libsvm
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("svm_type", FUNCTIONS)
def test_functions_of_svm_train_predict_as_svm_predict_does(tmp_path, rng, svm_type, kernel):
    X, y, T = target(rng, kernel)
    path = svm_train(tmp_path, X, y, *KERNELS[kernel][0], *FUNCTIONS[svm_type])
    model = read_libsvm_model(path, n_features=T.shape[1])
    expected = svm_predict(tmp_path, path, T, kernel == "precomputed")  # printed with six digits
    np.testing.assert_allclose(model.predict(T), expected, rtol=1e-5, atol=1e-5)
    save_model(model, tmp_path / "m.svm")
    write_libsvm_model(load_model(tmp_path / "m.svm"), tmp_path / "again.model")
    again = (tmp_path / "again.model").read_bytes()
    if kernel == "precomputed":
        np.testing.assert_array_equal(svm_predict(tmp_path, tmp_path / "again.model", T, True), expected)
    if svm_type != "nu_svr":  # which is written as the regression that it predicts as
        short = read_libsvm_model(path)
        np.testing.assert_array_equal(read_libsvm_model(tmp_path / "again.model").dual_coef, short.dual_coef)
        assert again.startswith(f"svm_type {svm_type}\n".encode())


@needs_libsvm
@pytest.mark.parametrize("estimator", [SVR(C=2.0, gamma=0.3, epsilon=0.05), OneClassSVM(gamma=0.3, nu=0.3)])
def test_svm_predict_reads_our_functions(tmp_path, rng, estimator):
    X, y, T = target(rng, "rbf")
    model = estimator.set_params(backend="sklearn").fit(X, y).model_
    write_libsvm_model(model, tmp_path / "ours.model")
    np.testing.assert_allclose(
        svm_predict(tmp_path, tmp_path / "ours.model", T), model.predict(T), rtol=1e-5, atol=1e-5
    )


def test_densities_of_newer_versions_are_left_out_and_said(tmp_path):
    text = (
        "svm_type one_class\nkernel_type linear\nnr_class 2\ntotal_sv 1\nrho 0.5\nprob_density_marks 1 2\nSV\n1 1:1 \n"
    )
    (tmp_path / "m.model").write_text(text)
    with pytest.warns(DataWarning, match="prob_density_marks, which no prediction needs"):
        model = read_libsvm_model(tmp_path / "m.model")
    assert model.predict(np.array([[0.4], [0.6]])).tolist() == [-1, 1]


@needs_libsvm
def test_the_width_of_a_regression_s_noise_is_kept(tmp_path, rng):
    X, y, _ = target(rng, "rbf")
    path = svm_train(tmp_path, X.round(3), y, "-s", "3", "-b", "1", "-g", "0.3")
    save_model(read_libsvm_model(path), tmp_path / "m.svm")
    write_libsvm_model(load_model(tmp_path / "m.svm"), tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == path.read_bytes()


# -- certificates ---------------------------------------------------------------------------------


def as_svm_train_prints(path):
    """The file with the values of support vectors in eight digits, which is all that svm-train
    writes of them."""
    head, mark, body = path.read_text().partition("SV\n")
    lines = [
        " ".join(
            f"{word.partition(':')[0]}:{float(word.partition(':')[2]):.8g}" if ":" in word else word
            for word in line.split()
        )
        for line in body.splitlines()
    ]
    path.write_text(head + mark + "\n".join(lines) + "\n")


@pytest.mark.parametrize("labels", [[1, -1], [30, -1, 7, 2]])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_the_certificate_of_a_model_that_was_read_is_that_of_the_model(rng, tmp_path, labels, as_sparse):
    X, y, _ = problem(rng, labels)
    X, y = np.vstack([X, X[:9]]), np.concatenate([y, y[:9]])  # some rows twice
    X = np.column_stack([X, np.zeros(len(X))])  # which no support vector has a value of
    model = SVC(C=3.0, backend="sklearn").fit(X, y).model_
    path = tmp_path / "m.model"
    write_libsvm_model(model, path)
    for _ in range(2):
        read = read_libsvm_model(path)
        found = certify(read, csr_array(X) if as_sparse else X, y, C=3.0)
        for name, value in certify(model, X, y).summary().items():
            assert found.summary()[name] == pytest.approx(value, abs=1e-6)
        as_svm_train_prints(path)
    assert certify(read, X, y).max_kkt_gap < 2e-3  # C is the largest coefficient
    assert certify(read, X, y, C=30.0).max_kkt_gap > 0.01
    with pytest.raises(DataError, match=r"support vector \d+ of class .* is not among these rows"):
        certify(read, X * 1.001, y)
    with pytest.raises(UsageError, match="give them for a model of LIBSVM only"):
        certify(model, X, y, C=3.0)


def test_certificates_of_functions_that_were_read(rng, tmp_path):
    X = rng.normal(size=(80, 3))
    y = np.sin(X[:, 0])
    for machine, more in (
        (SVR(epsilon=0.05, backend="sklearn"), {"epsilon": 0.05, "C": 1.0}),
        (OneClassSVM(nu=0.3), {}),
    ):
        model = machine.fit(X, y).model_
        write_libsvm_model(model, tmp_path / "m.model")
        read = read_libsvm_model(tmp_path / "m.model")
        found, expected = certify(read, X, y, **more), certify(model, X, y)
        assert found.summary() == pytest.approx(expected.summary(), abs=1e-9)
    write_libsvm_model(SVR(backend="sklearn").fit(X, y).model_, tmp_path / "m.model")
    read = read_libsvm_model(tmp_path / "m.model")
    with pytest.raises(UsageError, match="does not say epsilon"):
        certify(read, X, y)
    with pytest.raises(DataError, match="rows 1 and 81 are alike and have other targets"):
        certify(read, np.vstack([X, X[:1]]), np.append(y, y[0] + 1), epsilon=0.1)
    text = (tmp_path / "m.model").read_text().replace("epsilon_svr", "nu_svr")
    (tmp_path / "m.model").write_text(text)
    with pytest.raises(UsageError, match="a model of nu_svr is not made"):
        certify(read_libsvm_model(tmp_path / "m.model"), X, y)


def test_evaluate_certifies_a_model_of_libsvm(rng, tmp_path):
    X, y, _ = problem(rng, [1, -1])
    write_rows(tmp_path / "train", X, y)
    write_libsvm_model(SVC(C=3.0, backend="sklearn").fit(X, y).model_, tmp_path / "m.model")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "m.model"), str(tmp_path / "train"), "--certify"])
    assert result.exit_code == 0 and "; for C=3), dual objective" in result.stdout
    write_rows(tmp_path / "train", X[1:], y[1:])
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "m.model"), str(tmp_path / "train"), "--certify"])
    assert result.exit_code == 1 and "is not among these rows" in result.stderr
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "m.model"), str(tmp_path / "train"), "--C", "3"])
    assert result.exit_code == 2


@needs_libsvm
@pytest.mark.parametrize("labels", [[1, -1], [30, -1, 7, 2]])
def test_what_svm_train_wrote_is_certified(rng, tmp_path, labels):
    X, y, _ = problem(rng, labels)
    read = read_libsvm_model(svm_train(tmp_path, X, y, "-c", "2", "-g", "0.3"))
    assert certify(read, X, y, C=2.0).max_kkt_gap < 1.1e-3

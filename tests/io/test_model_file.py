from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array, issparse

from gpusvm import (
    SVC,
    SVR,
    GpuSvmError,
    ModelFileError,
    OneClassSVM,
    load_model,
    read_libsvm_model,
    save_model,
    to_onnx,
    to_sklearn,
    write_libsvm_model,
)
from gpusvm.data import load_dataset
from gpusvm.errors import OutputError, UsageError
from gpusvm.io.model_file import to_sklearn_pipeline
from gpusvm.params import Stopping
from gpusvm.preprocess import Deskewer, PixelBinarizer, PixelScaler

KERNELS = [
    {"kernel": "rbf", "gamma": 0.05},
    {"kernel": "linear"},
    {"kernel": "poly", "gamma": 0.1, "degree": 2, "coef0": 1.0},
    {"kernel": "sigmoid", "gamma": 0.01, "coef0": -0.1},
]


def train(digits, n_classes=10, **options):
    keep = digits[1] < n_classes
    X, y = digits[0][keep][:400], digits[1][keep][:400]
    return SVC(C=5, backend="sklearn", **options).fit(X, y).model_


@pytest.mark.parametrize("kernel", [*KERNELS, {"kernel": "precomputed"}])
@pytest.mark.parametrize("kind", [SVR, OneClassSVM])
def test_a_model_of_a_single_function_comes_back_and_is_scikit_learns(digits, tmp_path, kind, kernel):
    X, y, X_test = digits[0][:150], digits[1][:150], digits[2][:50]
    if kernel["kernel"] == "precomputed":
        X, X_test = X @ X.T, X_test @ X.T
    model = kind(backend="sklearn", **kernel).fit(X, y).model_
    save_model(model, tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    assert (again.problem, again.stopping, again.classes.size) == (model.problem, model.stopping, 0)
    np.testing.assert_array_equal(again.predict(X_test), model.predict(X_test))
    theirs = to_sklearn(again)
    assert type(theirs).__name__ == kind.__name__
    if kernel["kernel"] != "precomputed":  # without its samples theirs cannot predict
        np.testing.assert_allclose(theirs.predict(X_test), model.predict(X_test), atol=1e-4)
        np.testing.assert_array_equal(theirs.n_support_, [model.n_support_vectors])
    with pytest.raises(UsageError, match="ONNX"):
        to_onnx(model)
    write_libsvm_model(model, tmp_path / "m.model")
    in_text = read_libsvm_model(tmp_path / "m.model", n_features=model.n_features)
    np.testing.assert_allclose(in_text.predict(X_test), model.predict(X_test), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -1.0}, "epsilon must be a number of at least 0"),
        ({"task": "one_class", "epsilon": None}, "nu must be a number above 0 and at most 1"),
        ({"task": "nu_svc"}, "task must be one of c_svc, epsilon_svr, one_class"),
        ({"nu": 0.5}, "nu means nothing for epsilon_svr"),
        ({"class_weight": [1.0]}, "class_weight means nothing for epsilon_svr"),
        ({"task": "c_svc"}, "epsilon means nothing for c_svc"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(digits, tmp_path, change, message):
    path = tmp_path / "m.svm"
    save_model(SVR(backend="sklearn").fit(digits[0][:50], digits[1][:50]).model_, path)
    with safe_open(path, "np") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["model"])
    header["problem"] |= change
    save_file(tensors, path, {**metadata, "model": json.dumps(header)})
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_round_trip(digits_model, tmp_path):
    model = replace(digits_model, preprocessing=(PixelScaler(),), image_shape=(8, 8))
    save_model(model, tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    for name in (
        "support_vectors",
        "support_indices",
        "n_support",
        "dual_coef",
        "intercept",
        "classes",
        "n_iter",
    ):
        found, expected = getattr(again, name), getattr(model, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert (again.problem, again.stopping) == (model.problem, model.stopping) and again.provenance == model.provenance
    assert again.image_shape == (8, 8) and again.preprocessing[0].maximum == 255.0


@pytest.mark.parametrize(
    "labels", [np.array(["ant", "bee", "cat"]), np.array([-3, 5, 7], np.int16), np.array([1.0, 2.0, 5.0]),
               np.array([1, 2, 2**60]), np.array([1, 2, 5], np.longdouble)],
)  # fmt: skip
def test_labels_of_every_kind_survive(digits, tmp_path, labels):
    keep = digits[1] < 3
    model = SVC(backend="sklearn").fit(digits[0][keep][:100], labels[digits[1][keep][:100]]).model_
    save_model(model, tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    np.testing.assert_array_equal(again.classes, labels)
    assert again.classes.dtype.kind == labels.dtype.kind


# -- what must be refused -------------------------------------------------------------------------


@pytest.fixture
def saved(digits_model, tmp_path):
    save_model(digits_model, tmp_path / "m.svm")
    return tmp_path / "m.svm"


def rewrite(path, change_tensors=lambda t: None, change_metadata=lambda m: None, change_header=lambda h: None):
    with safe_open(path, framework="numpy") as file:
        tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata())  # noqa: SIM118
    header = json.loads(metadata["model"])
    change_tensors(tensors)
    change_header(header)
    metadata["model"] = json.dumps(header)
    change_metadata(metadata)
    save_file(tensors, path, metadata=metadata)


def nan_coefficient(tensors):
    tensors["dual_coef"][0, 0] = np.nan


DAMAGE = {
    "missing": ({"change_tensors": lambda t: t.pop("dual_coef")}, "array dual_coef is missing"),
    "misshapen": ({"change_tensors": lambda t: t.update(intercept=t["intercept"][:-1])}, "intercept has shape"),
    "other dtype": (
        {"change_tensors": lambda t: t.update(n_support=t["n_support"].astype(np.int32))}, "n_support is int32"),
    "nan": ({"change_tensors": nan_coefficient}, "dual_coef holds NaN"),
    "beyond float32": (
        {"change_tensors": lambda t: t["dual_coef"].fill(1e300)},
        "dual_coef holds numbers beyond float32",
    ),
    "negative counts": ({"change_tensors": lambda t: t.update(n_support=-t["n_support"])}, "n_support does not count"),
    "version": ({"change_metadata": lambda m: m.update(version="99")}, "version '99' is unknown"),
    "long version": ({"change_metadata": lambda m: m.update(version="9" * 9999)}, r"version '9{39} is unknown"),
    "foreign": ({"change_metadata": lambda m: m.update(format="other")}, "not a gpusvm model"),
    "no header": ({"change_metadata": lambda m: m.pop("model")}, "description is damaged"),
    "kernel": ({"change_header": lambda h: h["problem"]["kernel"].update(name="laplace")}, "kernel must be one of"),
    "C": ({"change_header": lambda h: h["problem"].update(C=-1.0)}, "C must be a number above 0; got -1"),
    "unknown parameter": ({"change_header": lambda h: h["problem"].update(nu=0.5)}, "description is damaged"),
    "step": ({"change_header": lambda h: h.update(preprocessing=[{"step": "os.system"}])}, "os.system"),
    "infinity": ({"change_tensors": lambda t: t["support_vectors"].fill(np.inf)}, "support_vectors holds NaN"),
    "objects": ({"change_header": lambda h: h.update(label_dtype="O")}, "label_dtype is 'O'"),
    "no dtype": ({"change_header": lambda h: h.update(label_dtype="(2,")}, "label_dtype is"),
    "labels not finite": (
        {"change_tensors": lambda t: t.update(classes=np.full(10, np.inf)),
         "change_header": lambda h: h.update(label_dtype="float64")}, "labels hold NaN or infinity"),
    "degree": ({"change_header": lambda h: h["problem"]["kernel"].update(degree=10**400)}, "degree must be a whole"),
    "tol": ({"change_header": lambda h: h["stopping"].update(tol=float("nan"))}, "tol must be .*; got nan"),
    "max_iter": ({"change_header": lambda h: h["stopping"].update(max_iter="many")}, "max_iter must be .*'many'"),
    "class_weight": ({"change_header": lambda h: h["problem"].update(class_weight=[np.nan])}, "class_weight holds"),
    "n_features": ({"change_header": lambda h: h.update(n_features="64")}, "n_features is '64'"),
    "n_train": ({"change_header": lambda h: h["provenance"].update(n_train="many")}, "n_train is 'many'"),
    "fit_seconds": ({"change_header": lambda h: h["provenance"].update(fit_seconds=[])}, "fit_seconds is"),
    "dataset": ({"change_header": lambda h: h["provenance"].update(dataset={"digest": 3})}, "dataset does not say"),
    "image_shape": ({"change_header": lambda h: h.update(image_shape=[-8, -8])}, "two positive integers"),
    "label_name": ({"change_header": lambda h: h.update(table={"label_name": 3})}, "label_name is 3"),
    "label_number": (
        {"change_header": lambda h: h.update(table={"label_name": None, "label_number": "1"})}, "label_number is '1'"),
    "first_index": (
        {"change_header": lambda h: h.update(table={"label_name": None, "first_index": 2})}, "first_index is 2"),
    "left_out": (
        {"change_header": lambda h: h.update(table={"label_name": None, "left_out": [1, "2"]})}, "left_out is '2'"),
    "columns": (
        {"change_tensors": lambda t: t.update(columns=np.frombuffer(b'["a"]', np.uint8)),
         "change_header": lambda h: h.update(table={"label_name": None})}, "1 column names for 64 features"),
    "columns no text": (
        {"change_tensors": lambda t: t.update(columns=np.frombuffer(b"[1]", np.uint8)),
         "change_header": lambda h: h.update(table={"label_name": None})}, "column names are no text"),
    "columns no JSON": (
        {"change_tensors": lambda t: t.update(columns=np.frombuffer(b'["a', np.uint8)),
         "change_header": lambda h: h.update(table={"label_name": None})}, "description is damaged"),
    "steps": (
        {"change_header": lambda h: h.update(preprocessing=[{"step": "pixel_scaler", "maximum": 2}] * 9)}, "9 steps"),
    "step arrays": (
        {"change_tensors": lambda t: t.update({"steps.0.scale": np.ones(64)}),
         "change_header": lambda h: h.update(preprocessing=[{"step": "standard_scaler"}])}, "bad arrays for"),
    "another image_shape": ({"change_header": lambda h: h.update(image_shape=[8, 9])}, "image_shape 8x9 does not fit"),
    "deskewer": (
        {"change_header": lambda h: h.update(preprocessing=[{"step": "deskewer", "image_shape": [7, 9]}])},
        "image_shape 7x9 does not fit"),
    "probA alone": ({"change_tensors": lambda t: t.update(probA=np.zeros(45))}, "array probB is missing"),
    "probabilities without arrays": (
        {"change_header": lambda h: h.update(calibration={"coupling": "price", "sharpness": 1.0})}, "probA is missing"),
    "probB misshapen": (
        {"change_tensors": lambda t: t.update(probA=np.zeros(45), probB=np.zeros(44))}, "probB has shape"),
    "probB not finite": (
        {"change_tensors": lambda t: t.update(probA=np.zeros(45), probB=np.full(45, np.nan))}, "probB holds NaN"),
    "coupling": (
        {"change_tensors": lambda t: t.update(probA=np.zeros(45), probB=np.zeros(45)),
         "change_header": lambda h: h.update(calibration={"coupling": "x"})}, "coupling must be one of"),
    "sharpness": (
        {"change_tensors": lambda t: t.update(probA=np.zeros(45), probB=np.zeros(45)),
         "change_header": lambda h: h.update(calibration={"coupling": "price", "sharpness": 0})}, "sharpness must be"),
    "unknown calibration": (
        {"change_tensors": lambda t: t.update(probA=np.zeros(45), probB=np.zeros(45)),
         "change_header": lambda h: h.update(calibration={"probA": 1})}, "description is damaged"),
    "duplicate labels": ({"change_tensors": lambda t: t.update(classes=t["classes"] * 0)}, "not all different"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(saved, kind):
    change, message = DAMAGE[kind]
    rewrite(saved, **change)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


# -- sparse support vectors -----------------------------------------------------------------------


def train_sparse(digits, n_classes=4, dtype=np.float32, **options):
    keep = digits[1] < n_classes
    X, y = digits[0][keep][:300].astype(dtype), digits[1][keep][:300]
    return SVC(C=5, backend="sklearn", **options).fit(csr_array(X), y).model_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_support_vectors_make_the_round_trip(digits, tmp_path, dtype):
    model = train_sparse(digits, dtype=dtype)
    save_model(model, tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    for part in ("data", "indices", "indptr"):
        found, expected = (getattr(m.support_vectors, part) for m in (again, model))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert again.support_vectors.shape == model.support_vectors.shape
    with safe_open(tmp_path / "m.svm", framework="numpy") as file:
        names = set(file.keys())
    assert "support_vectors.data" in names and "support_vectors" not in names


def change(name, value):
    """Set one entry of an array of the sparse support vectors, or put another array in its
    place."""

    def changed(tensors):
        full = f"support_vectors.{name}"
        tensors[full] = value(tensors[full].copy())

    return {"change_tensors": changed}


def with_entry(place, value):
    def changed(array):
        array[place] = value
        return array

    return changed


NO_ROWS = "indices and support_vectors.indptr do not describe sparse rows of 64 features"
SPARSE_DAMAGE = {
    "column beyond": (change("indices", with_entry(3, 64)), NO_ROWS),
    "column far beyond": (change("indices", with_entry(3, 2**31 - 1)), NO_ROWS),
    "negative column": (change("indices", with_entry(0, -1)), NO_ROWS),
    "column twice": (change("indices", lambda a: np.concatenate([a[:1], a[:1], a[2:]])), NO_ROWS),
    "columns in no order": (change("indices", lambda a: np.concatenate([a[1::-1], a[2:]])), NO_ROWS),
    "start beyond": (change("indptr", with_entry(1, 10**12)), NO_ROWS),
    "negative start": (change("indptr", with_entry(1, -5)), NO_ROWS),
    "first start": (change("indptr", with_entry(0, 1)), NO_ROWS),
    "last start": (change("indptr", with_entry(-1, 7)), NO_ROWS),
    "starts missing": (change("indptr", lambda a: a[:-1]), "support_vectors.indptr has shape"),
    "values missing": (change("data", lambda a: a[:-1]), "support_vectors.indices has shape"),
    "misshapen": (change("data", lambda a: a[:, None]), "support_vectors.data has shape"),
    "other dtype": (change("indices", lambda a: a.astype(np.int64)), "support_vectors.indices is int64"),
    "infinity": (change("data", with_entry(0, np.inf)), "support_vectors holds NaN or infinity"),
    "missing": ({"change_tensors": lambda t: t.pop("support_vectors.indices")}, "support_vectors.indices is missing"),
    "all missing": (
        {"change_tensors": lambda t: [t.pop(f"support_vectors.{part}") for part in ("data", "indices", "indptr")]},
        "array support_vectors is missing"),
    "fewer features": ({"change_header": lambda h: h.update(n_features=9)}, "sparse rows of 9 features"),
    "precomputed": ({"change_header": lambda h: h["problem"]["kernel"].update(name="precomputed")}, "has shape"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPARSE_DAMAGE)
def test_damage_to_sparse_support_vectors_is_named(digits, tmp_path, kind):
    save_model(train_sparse(digits), tmp_path / "m.svm")
    changes, message = SPARSE_DAMAGE[kind]
    rewrite(tmp_path / "m.svm", **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(tmp_path / "m.svm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", KERNELS, ids=lambda o: o["kernel"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_sparse_model_becomes_a_sparse_one_of_scikit_learn(digits, options, n_classes):
    model = train_sparse(digits, n_classes, **options)
    svc = to_sklearn(model).set_params(decision_function_shape="ovo")
    assert issparse(svc.support_vectors_) and issparse(svc.dual_coef_)
    for X in (digits[2], csr_array(digits[2])):
        np.testing.assert_allclose(svc.decision_function(X), model.decision_function(digits[2], "ovo"), atol=1e-4)
        np.testing.assert_array_equal(svc.predict(X), model.predict(digits[2]))


def test_a_sparse_model_has_an_onnx_form_as_far_as_a_graph_can_hold_it(digits, monkeypatch):
    model = train_sparse(digits)
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    labels, decisions = session.run(None, {"X": digits[2]})
    np.testing.assert_array_equal(labels, model.predict(digits[2]))
    np.testing.assert_allclose(decisions, model.pair_decisions(digits[2]), atol=1e-4)
    wide = csr_array((model.n_support_vectors, 10**8), dtype=np.float32)
    with pytest.raises(UsageError, match=r"an ONNX graph has no sparse matrices: as an array the .* MB"):
        to_onnx(replace(model, support_vectors=wide, n_features=10**8))


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match=r"truncated or foreign"):
        load_model(saved)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        load_model(tmp_path / "none.svm")
    with pytest.raises(ModelFileError):
        load_model(tmp_path)


def rewrite_header(path, change):
    """Change what safetensors itself reads: names, dtypes, shapes and offsets."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["intercept"].update(data_offsets=h["dual_coef"]["data_offsets"]),
        lambda h: h["dual_coef"].update(data_offsets=[0, 2**40]),
        lambda h: h["dual_coef"].update(data_offsets=[-8, 8]),
        lambda h: h["dual_coef"].update(data_offsets=h["dual_coef"]["data_offsets"][::-1]),
        lambda h: h["dual_coef"].update(shape=[2**62, 2**62]),
        lambda h: h["dual_coef"].update(shape=[9, 10**9]),
        lambda h: h["dual_coef"].update(dtype="OBJECT"),
    ],
    ids=["overlapping", "beyond the end", "negative", "turned around", "overflowing", "too large", "dtype"],
)
def test_a_header_that_lies_is_refused(saved, change):
    rewrite_header(saved, change)
    with pytest.raises(ModelFileError, match="not a readable model file"):
        load_model(saved)


def test_a_header_that_promises_too_much_is_not_read(saved):
    content = saved.read_bytes()
    for n_bytes in (2**22 + 1, 2**63):
        saved.write_bytes(n_bytes.to_bytes(8, "little") + content[8:])
        with pytest.raises(ModelFileError, match=f"its header says it has {n_bytes:,} bytes"):
            load_model(saved)


def test_labels_are_not_spread_out_to_the_longest_of_them(saved):
    labels = ["x" * 2**20, *map(str, range(100_000))]
    rewrite(saved, change_tensors=lambda t: t.pop("classes"), change_header=lambda h: h.update(classes=labels))
    with pytest.raises(ModelFileError, match="class labels are too long"):
        load_model(saved)


def test_a_pipe_is_no_model_file(tmp_path):
    os.mkfifo(tmp_path / "m.svm")
    with pytest.raises(ModelFileError, match="not a file"):
        load_model(tmp_path / "m.svm")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "m.svm").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelFileError):
        load_model(tmp_path / "m.svm")
    assert not (tmp_path / "owned").exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_a_model_or_a_clear_error(digits, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "m.svm"
    save_model(train(digits, n_classes=2), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 3000)))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_model(path).predict(digits[2])
    except GpuSvmError as error:
        assert "\n" not in str(error)


def test_an_unwritable_path_leaves_no_trace(digits_model, tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        save_model(digits_model, tmp_path / "file" / "m.svm")
    with pytest.raises(OutputError, match="is a folder"):
        save_model(digits_model, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- other libraries' forms -----------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("options", KERNELS, ids=lambda o: o["kernel"])
def test_to_sklearn_decides_alike(digits, options, n_classes):
    model = train(digits, n_classes, **options)
    svc = to_sklearn(model)
    np.testing.assert_array_equal(svc.predict(digits[2]), model.predict(digits[2].astype(np.float64)))
    for shape in ("ovr", "ovo"):
        svc.decision_function_shape = shape
        np.testing.assert_allclose(
            svc.decision_function(digits[2]),
            model.decision_function(digits[2].astype(np.float64), shape),
            atol=1e-9,
        )


def test_to_sklearn_with_a_precomputed_kernel(digits):
    X, y, X_test = digits[0][:200], digits[1][:200], digits[2]
    model = SVC(kernel="precomputed", backend="sklearn").fit(X @ X.T, y).model_
    np.testing.assert_array_equal(to_sklearn(model).predict(X_test @ X.T), model.predict(X_test @ X.T))


def test_to_sklearn_pipeline_takes_raw_pixels(digits, digits_model):
    model = replace(digits_model, preprocessing=(PixelScaler(),))
    raw = np.rint(digits[2] * 255).astype(np.uint8)
    np.testing.assert_array_equal(to_sklearn_pipeline(model).predict(raw), digits_model.predict(digits[2]))


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("options", KERNELS, ids=lambda o: o["kernel"])
def test_onnx_decides_alike(digits, options, n_classes):
    model = train(digits, n_classes, **options)
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    label, decision = session.run(None, {"X": digits[2]})
    expected = model.pair_decisions(digits[2].astype(np.float64))
    np.testing.assert_allclose(decision, expected, atol=1e-4)
    clear = np.abs(expected).min(axis=1) > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(label[clear], model.predict(digits[2])[clear])


def test_onnx_holds_the_pixel_steps_and_text_labels(digits):
    names = np.array([f"digit {d}" for d in range(10)])
    binary = (digits[0][:300] > 0.5).astype(np.float32)
    model = SVC(gamma=0.05, backend="sklearn").fit(binary, names[digits[1][:300]]).model_
    model = replace(model, preprocessing=(PixelScaler(), PixelBinarizer(threshold=0.5)))
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    label, _ = session.run(["label", "decision"], {"X": digits[2] * 255})
    expected = model.predict((digits[2] > 0.5).astype(np.float32))
    assert (label == expected).mean() > 0.99 and label[0].startswith("digit ")


def test_onnx_computes_in_float64_what_float32_would_spoil(rng):
    X, y = 1e8 + rng.uniform(0, 1e4, (120, 3)), rng.integers(0, 2, 120)
    model = SVC(gamma=1e-3, C=10, backend="sklearn").fit(X, y).model_
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    found = session.run(["decision"], {"X": X})[0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, model.pair_decisions(X), atol=1e-6)


def test_onnx_refuses_what_a_graph_cannot_hold(digits, digits_model):
    with pytest.raises(UsageError, match="Deskewer has no ONNX form"):
        to_onnx(replace(digits_model, preprocessing=(Deskewer(),)))
    precomputed = SVC(kernel="precomputed", backend="sklearn").fit(np.eye(4), [0, 1, 0, 1]).model_
    with pytest.raises(UsageError, match="precomputed"):
        to_onnx(precomputed)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_an_output_error_and_leaves_the_old_file(digits_model, tmp_path):
    save_model(digits_model, tmp_path / "m.svm")
    old = (tmp_path / "m.svm").read_bytes()
    program = """
import resource, sys
from gpusvm import load_model, save_model
from gpusvm.errors import OutputError
model = load_model(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_model(model, sys.argv[1])
except OutputError as error:
    print("OutputError", error)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "m.svm")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.stdout.startswith("OutputError") and "cannot write" in result.stdout, result.stderr
    assert (tmp_path / "m.svm").read_bytes() == old and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("classes", [np.array([0.5, 1.5]), np.array([1, 2**63 + 1], np.uint64)])
def test_onnx_refuses_labels_that_it_would_change(digits, classes):
    model = replace(train(digits, n_classes=2), classes=classes)
    with pytest.raises(UsageError, match="class label"):
        to_onnx(model)


VERSION_1 = Path(__file__).parent / "models" / "version-1.svm"


def test_a_file_of_version_1_is_still_read():
    """Written by gpusvm 1: support vectors in float32, and the resources of the machine that
    trained it."""
    model = load_model(VERSION_1)
    assert (model.problem.C, model.problem.class_weight, model.stopping) == (2.0, (1.0, 2.0, 1.5), Stopping())
    assert model.support_vectors.dtype == np.float32 and model.classes.tolist() == [1, 4, 7]
    test = load_dataset("digits", "test")
    decisions = model.pair_decisions(model.preprocess(test.images[:20]), dtype=np.float64)
    np.testing.assert_allclose(decisions, np.loadtxt(VERSION_1.with_name("version-1-decisions.csv"), delimiter=","))
    assert SVC.load(VERSION_1).n_jobs is None, "resources belong to the machine at hand"


def test_a_file_keeps_the_problem_and_the_stopping_and_no_resources(digits, tmp_path):
    svc = SVC(C=3.0, tol=1e-4, max_iter=10**6, cache_size=64, n_jobs=1, backend="sklearn")
    svc.fit(digits[0][:100].astype(np.float64), digits[1][:100]).save(tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    assert (again.problem, again.stopping) == (svc.model_.problem, Stopping(tol=1e-4, max_iter=10**6))
    assert again.support_vectors.dtype == np.float64
    assert b"cache_size" not in (tmp_path / "m.svm").read_bytes()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_onnx_gives_the_probabilities(digits, n_classes):
    X, y, T, _ = digits
    svc = SVC(C=10, probability=True, backend="sklearn").fit(X[y < n_classes], y[y < n_classes])
    T = np.concatenate([T, np.random.default_rng(0).uniform(0, 1, T.shape)]).astype(np.float32)
    graph = onnxruntime.InferenceSession(to_onnx(svc.model_).SerializeToString())
    labels, p = graph.run(["label", "probabilities"], {"X": T})
    np.testing.assert_allclose(p, svc.predict_proba(T), atol=2e-4)
    np.testing.assert_array_equal(svc.classes_[p.argmax(axis=1)], labels)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_onnx_brings_probabilities_in_line_with_the_prediction(rng):
    X, y = rng.normal(size=(120, 3)), rng.integers(0, 5, 120)
    model = SVC(probability=True, backend="sklearn").fit(X, y).model_
    model = replace(model, calibration=replace(model.calibration, probB=rng.normal(size=10)))  # which says otherwise
    T = rng.normal(size=(500, 3)).astype(np.float32)
    plain = model.calibration.class_probabilities(model.pair_decisions(T), 5)
    assert (plain.argmax(axis=1) != model.predict(T)).sum() > 50
    p = onnxruntime.InferenceSession(to_onnx(model).SerializeToString()).run(["probabilities"], {"X": T})[0]
    np.testing.assert_allclose(p, model.predict_proba(T), atol=1e-4)
    np.testing.assert_array_equal(p.argmax(axis=1), model.predict(T))


def test_onnx_leaves_out_probabilities_that_a_graph_cannot_hold(digits_model):
    from gpusvm.calibration import Calibration

    model = replace(digits_model, calibration=Calibration(np.full(45, -1.0), np.zeros(45)))
    with pytest.warns(UserWarning, match="labels and decisions only"):
        graph = to_onnx(model)
    assert [output.name for output in graph.graph.output] == ["label", "decision"]

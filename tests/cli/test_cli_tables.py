"""``gpusvm train``, ``evaluate``, ``predict``, ``data show`` and ``export`` on tables, as their
users type them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.datasets import dump_svmlight_file, load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import SVC as Reference
from typer.testing import CliRunner

from gpusvm import SVC, load_model
from gpusvm.cli.main import app
from gpusvm.data import column_figures, load_dataset
from gpusvm.data.table import Contents, Table

NO_PYARROW = 'pyarrow is not installed: pip install "gpusvm[test]"'


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: object):
    result = gpusvm(*arguments)
    assert result.exit_code == 0, result.output
    return result


def one_line_error(*arguments: object, code: int = 1) -> str:
    result = gpusvm(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.fixture
def wine():
    """wine.npz: 178 x 13 with words for labels, columns of very different sizes."""
    data = load_wine()
    X, y = data.data, np.array([f"class {k}" for k in range(3)])[data.target]
    np.savez("wine.npz", X=X, y=y)
    return X, y


@pytest.fixture
def cancer():
    """cancer.npz with a test split of its own."""
    data = load_breast_cancer()
    X, y = data.data, data.target
    np.savez("cancer.npz", X_train=X[:400], y_train=y[:400], X_test=X[400:], y_test=y[400:])
    return X[:400], y[:400], X[400:], y[400:]


# -- train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "scaler"),
    [
        ((), StandardScaler()),
        (("--scale", "maxabs"), MaxAbsScaler()),
        (("--scale", "minmax"), MinMaxScaler()),
        (("--scale", "none"), "passthrough"),
        (("--backend", "native-cpu", "--C", 3, "--gamma", 0.1), StandardScaler()),
    ],
)
def test_training_is_scikit_learns_on_the_same_rows(wine, options, scaler):
    X, y = wine
    done("train", "wine.npz", *options, "--json", "m.json", "--certify")
    metrics = json.loads(Path("m.json").read_text())
    rows = train_test_split(np.arange(178), train_size=0.8, test_size=0.2, random_state=0, stratify=y)
    svc = Reference(C=metrics["parameters"]["C"], gamma=0.1 if "--gamma" in options else "scale")
    expected = make_pipeline(scaler, svc).fit(X[rows[0]], y[rows[0]])
    assert metrics["accuracy"] == pytest.approx(expected.score(X[rows[1]], y[rows[1]]), abs=0.002)
    assert (metrics["n_train"], metrics["n_test"]) == (142, 36)
    assert metrics["certificate"]["kkt_gap"] <= 2e-3
    assert metrics["n_support_vectors"] == pytest.approx(expected[-1].n_support_.sum(), abs=2)
    model = load_model("wine.svm")
    assert (model.predict(model.preprocess(X)) == expected.predict(X)).mean() > 0.99


def test_what_was_found_is_said(wine):
    result = done("train", "wine.npz")
    first, labels, scaling, *_ = result.stdout.splitlines()
    assert first == (
        "Training on 142 rows of 13 features from wine.npz; testing on 36 rows held out (20%, seed 0, stratified)"
    )
    assert labels == "Labels: 3 classes, class 0 (47), class 1 (57), class 2 (38)"
    assert scaling.startswith("Scaling: standard, ") and "--scale none" in scaling
    assert "Accuracy: " in result.stdout and "on 36 test rows" in result.stdout
    assert "images" not in result.output and "kB)" in result.stdout


def test_its_own_test_split_is_taken(cancer):
    result = done("train", "cancer.npz")
    assert "testing on the 169 test rows of cancer.npz" in result.stdout
    expected = make_pipeline(StandardScaler(), Reference()).fit(*cancer[:2]).score(*cancer[2:])
    assert f"Accuracy: {expected:.4f}" in result.stdout


def test_another_file_can_be_the_test(cancer):
    np.savez("train.npz", X=cancer[0], y=cancer[1])
    np.savez("other.npz", X=cancer[2], y=cancer[3])
    result = done("train", "train.npz", "--test", "other.npz")
    assert "on the 169 test rows of other.npz" in result.stdout
    np.savez("narrow.npz", X=cancer[2][:, :7], y=cancer[3])
    assert "has 7 columns of numbers, the model expects 30" in one_line_error(
        "train", "train.npz", "--test", "narrow.npz"
    )
    np.savez("new.npz", X=cancer[2], y=cancer[3] + 5)
    assert "6 among the labels" in one_line_error("train", "train.npz", "--test", "new.npz")


def test_many_classes_are_summed_up(rng):
    X = rng.normal(size=(90, 3))
    np.savez("many.npz", X=X, y=np.arange(90) % 9)
    assert "Labels: 9 classes from 0 to 8, of 8 to 8 rows each" in done("train", "many.npz").stdout


def test_a_class_of_one_row_is_held_out_or_trained_on_but_no_error(rng):
    X, y = rng.normal(size=(30, 3)), np.repeat([0, 1], 15)
    y[3] = 2
    np.savez("rare.npz", X=X, y=y)
    result = done("train", "rare.npz")
    assert "(20%, seed 0)" in result.stdout


def test_a_limit_draws_rows_at_random_since_tables_are_sorted_by_class(wine):
    result = done("train", "wine.npz", "--limit", 60)
    assert "Training on 48 rows of 13 features from wine.npz (60 drawn at random)" in result.stdout
    assert "Labels: 3 classes" in result.stdout
    assert "drawn" not in done("train", "wine.npz", "--limit", 178).stdout
    done("train", "wine.npz", "--limit", 60)
    assert load_model("wine.svm").provenance["n_train"] == 48
    digest = load_model("wine.svm").provenance["dataset"]["digest"]
    done("train", "wine.npz", "--limit", 60)
    assert load_model("wine.svm").provenance["dataset"]["digest"] == digest
    done("train", "wine.npz", "--limit", 60, "--seed", 1)
    assert load_model("wine.svm").provenance["dataset"]["digest"] != digest


def test_columns_left_as_they_are_though_they_differ_are_told(wine):
    assert "column 13 varies" in done("train", "wine.npz", "--scale", "none").stderr
    assert "varies" not in done("train", "wine.npz").stderr


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 1, 60), "the labels are real numbers"),
        (np.arange(60), "60 different labels in 60 rows are no classes"),
        (np.ones(60, dtype=int), "all 60 rows have the label 1; an SVM needs at least two classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_advice(rng, y, message):
    np.savez("t.npz", X=rng.normal(size=(60, 2)), y=y)
    error = one_line_error("train", "t.npz")
    assert message in error and "--label" in error
    assert list(Path().iterdir()) == [Path("t.npz")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--table", "--images"), "--table and --images exclude each other"),
        (("--deskew",), "--deskew is for images, and wine.npz is a table"),
        (("--binarize",), "--binarize is for images"),
    ],
)
def test_options_that_do_not_go_with_a_table(wine, options, message):
    assert message in one_line_error("train", "wine.npz", *options, code=2)


def test_scaling_is_for_tables():
    assert "--scale is for tables" in one_line_error("train", "digits", "--scale", "minmax", code=2)


def test_what_looks_like_images_can_be_read_as_a_table(rng):
    np.savez("bytes.npz", X=rng.integers(0, 256, (60, 64), dtype=np.uint8), y=np.arange(60) % 2)
    assert "images of 8 x 8" in done("train", "bytes.npz").stdout
    assert "48 rows of 64 features" in done("train", "bytes.npz", "--table").stdout
    assert load_model("bytes.svm").image_shape is None
    # The model knows that it is of a table, though the file looks like images.
    assert "rows predicted" in done("predict", "bytes.svm", "bytes.npz").stderr
    assert "60 rows;" in done("evaluate", "bytes.svm", "bytes.npz").stdout


def test_test_images_unlike_the_training_images_are_told(rng):
    train, test = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8), rng.integers(0, 2, (10, 6, 6), dtype=np.uint8)
    np.savez("i.npz", x_train=train, y_train=np.arange(40) % 2, x_test=test, y_test=np.arange(10) % 2)
    assert "the pixels of the test images reach 1, those of the training images 255" in done("train", "i.npz").stderr
    dark = np.where(rng.random((50, 6, 6)) < 0.2, 255, 0).astype(np.uint8)
    np.savez("n.npz", x_train=dark[:40], y_train=np.arange(40) % 2, x_test=255 - dark[40:], y_test=np.arange(10) % 2)
    assert "look like negatives of the training images" in done("train", "n.npz").stderr
    assert "note" not in done("train", "digits").stderr


# -- evaluate, predict, export --------------------------------------------------------------------


def test_evaluation_and_its_page_speak_of_rows(cancer):
    done("train", "cancer.npz")
    result = done("evaluate", "cancer.svm", "--report", "page", "--json", "e.json")
    assert "cancer.npz, test split: 169 rows;" in result.stdout and "image" not in result.output
    assert json.loads(Path("e.json").read_text())["n_test"] == 169
    page = Path("page", "index.html").read_text()
    assert "Misclassified rows" in page and "<img" not in page and "image" not in page.partition("</style>")[2]
    assert "standard" in page.lower() and "training row" in page


def test_predictions_have_row_numbers_and_words(wine):
    X, y = wine
    done("train", "wine.npz")
    np.savez("new.npz", X=X[:50])
    result = done("predict", "wine.svm", "new.npz", "--out", "p.csv")
    header, *rows = Path("p.csv").read_text().splitlines()
    assert header == "row,label" and len(rows) == 50
    assert [row.split(",")[0] for row in rows] == [str(k) for k in range(1, 51)]
    assert np.mean([row.split(",")[1] == label for row, label in zip(rows, y, strict=False)]) > 0.95
    assert "50 rows predicted" in result.stderr
    assert done("predict", "wine.svm", "new.npz", "--start-id", 7).stdout.splitlines()[1].startswith("7,")
    np.savez("wide.npz", X=np.ones((2, 14)))
    assert "has 14 columns of numbers, the model expects 13" in one_line_error("predict", "wine.svm", "wide.npz")
    assert "--invert is for images" in one_line_error("predict", "wine.svm", "new.npz", "--invert", code=2)


def test_a_model_from_python_says_that_it_sees_numbers_as_they_are(wine):
    SVC(backend="sklearn").fit(*wine).save("raw.svm")
    assert "the numbers of the table as they are" in done("predict", "raw.svm", "wine.npz").stderr
    done("train", "wine.npz", "--scale", "none")
    assert "as they are" not in done("predict", "wine.svm", "wine.npz").stderr


def test_exported_pipelines_take_unscaled_rows(wine):
    done("train", "wine.npz")
    model = load_model("wine.svm")
    expected = model.predict(model.preprocess(wine[0]))
    assert "unscaled rows (float32) of 13 columns" in done("export", "wine.svm", "--to", "sklearn").stderr
    np.testing.assert_array_equal(joblib.load("wine.joblib").predict(wine[0]), expected)


# -- data show ------------------------------------------------------------------------------------


def test_show_prints_figures_of_the_columns_and_what_is_odd(wine):
    X, y = wine
    np.savez("odd.npz", X=np.column_stack([X, np.full(178, 5.0), X[:, 2]]), y=y)
    output = done("data", "show", "odd.npz").stdout
    assert "odd.npz, train: 178 rows of 15 features" in output
    line = next(line for line in output.splitlines() if line.startswith("column 13 "))
    assert line.split()[2:] == ["278", "746.893", "1680", "314.022", "121"]
    assert "Constant, so of no use: column 14" in output
    assert "Copies of other columns: column 15 (of column 3)" in output
    assert "column 13 varies 2,530 times as much as column 8" in output
    assert "3 classes" in output and "class 1" in output and "39.9%" in output


@pytest.mark.parametrize(
    ("value", "others", "is_said"),
    [
        (-999, (0, 80), True), (-9999, (0, 8848), True), (-99.9, (-20, 25), True), (9999, (1950, 2020), True),
        (1e20, (0, 1), True), (-1e30, (-5, 5), True), (99, (0, 9), True), (-32768, (-100, 100), True),
        (999.99, (0, 10), True), (888, (0, 3), True), (9.969209968386869e36, (-3, 3), True),
        (99, (18, 90), False), (-99, (-60, 60), False), (120, (0, 10), False), (9, (0, 3), False),
        (99999, (0, 60000), False), (-1, (0, 10), False), (0, (500, 600), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [np.asarray, np.float32, sparse.csr_matrix], ids=["float64", "float32", "sparse"])
def test_values_that_stand_for_missing_ones_are_found(rng, value, others, is_said, form):
    X = np.column_stack([rng.normal(size=60), rng.uniform(*others, 60).round(2)])
    X[[3, 17, 40], 1] = value
    found = column_figures.stand_ins(Table.of(Contents(form(X), None), "t", "train"))
    assert [(each.column, each.value, each.n_rows) for each in found] == (
        [(1, pytest.approx(value, rel=1e-6), 3)] if is_said else []
    )
    X[[3, 17], 1] = X[0, 1]  # once it may be a fluke
    assert not column_figures.stand_ins(Table.of(Contents(form(X), None), "t", "train"))


@pytest.mark.parametrize("command", ["data show", "train", "tune"])
def test_values_that_stand_for_missing_ones_are_said(rng, command):
    table = pd.DataFrame({"bmi": rng.uniform(18, 40, 60).round(1), "dose": rng.normal(size=60)})
    table.loc[[2, 3, 5, 7], "bmi"] = -999
    table.assign(label=np.arange(60) % 2).to_csv("t.csv", index=False)
    grid = ("--C", "1", "--gamma", "0.1", "--no-fine", "--folds", "2") if command == "tune" else ()
    result = done(*command.split(), "t.csv", *grid)
    (line,) = [line for line in result.output.splitlines() if "missing" in line]
    assert "-999 in " in line and " rows of bmi (the others: " in line
    assert "): that may stand for a missing value, and counts as a number; fill it in, or leave out the column" in line


def test_several_such_values_are_told_apart(rng):
    X = np.column_stack([rng.uniform(0, 50, 90), rng.normal(size=90), rng.uniform(0, 1, 90)])
    X[:5, 0], X[5:8, 0], X[8, 1], X[9:12, 2] = -999, -888, 999, 1e20
    np.savez("t.npz", X=X, y=np.arange(90) % 2)
    line = next(line for line in done("data", "show", "t.npz").stdout.splitlines() if "missing" in line)
    for told in ("-999 in 5 rows of column 1", "-888 in 3 rows of column 1", "1e+20 in 3 rows of column 3"):
        assert told in line
    assert "column 2" not in line
    table = Table.of(Contents(sparse.csr_matrix(X), None), "t", "train")
    assert [found[:3] for found in column_figures.stand_ins(table)] == [(0, -999, 5), (0, -888, 3), (2, 1e20, 3)]


def test_a_wide_table_is_cut_short(rng):
    np.savez("wide.npz", X=rng.normal(size=(5, 1000)), y=np.arange(5))
    lines = [line.rstrip() for line in done("data", "show", "wide.npz").stdout.splitlines()]
    assert len(lines) < 60 and "... 976 more" in lines
    assert any(line.startswith("column 1000 ") for line in lines)


def test_labels_that_are_real_numbers_are_shown_as_such(rng):
    np.savez("r.npz", X=rng.normal(size=(5, 2)), y=np.linspace(0.5, 2.5, 5))
    assert "Labels are real numbers, from 0.5 to 2.5: no classes" in done("data", "show", "r.npz").stdout


def test_columns_that_cannot_be_used_are_shown_with_the_others(rng):
    rows = [f"{k},Mr {k},{'mf'[k % 2]},{'' if k % 3 else 20 + k},{k / 7},{'yn'[k % 2]}" for k in range(60)]
    Path("t.csv").write_text("PassengerId,Name,Sex,Age,Fare,label\n" + "\n".join(rows) + "\n")
    output = done("data", "show", "t.csv").stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[0] == "t.csv: 3 columns cannot be used as they stand"
    assert "Name 'Mr 0', 'Mr 1', 'Mr 2' ... (50 or more different words) encode it as numbers, or --drop Name" in lines
    assert "Sex 'm', 'f' encode it as numbers, or --drop Sex" in lines
    assert "Age 40 (66.7%) numbers fill them in, or --drop Age" in lines
    options = "--drop Name --drop Sex --drop Age"
    assert f"Without them ({options}):" in lines and "t.csv, train: 60 rows of 1 feature" in lines
    assert any(line.startswith("Fare 0 4.21429 8.42857") for line in lines) and "2 classes" in lines
    assert one_line_error("train", "t.csv").endswith(f"or leave the columns out ({options})")
    assert "60 rows" not in done("train", "t.csv", *options.split()).stdout


def test_a_table_without_any_column_of_numbers_is_shown_and_then_refused():
    Path("t.csv").write_text("a,b,label\nx,y,1\nz,y,0\nx,z,0\n")
    result = gpusvm("data", "show", "t.csv")
    assert result.exit_code == 1 and "'x', 'z'" in result.stdout
    assert "has no column of features left" in result.stderr


def test_a_table_is_not_drawn(wine):
    assert "--out draws images" in one_line_error("data", "show", "wine.npz", "--out", "w.png", code=2)


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_sparse_columns_are_those_of_dense_ones(seed):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(40, 6)) * (rng.random((40, 6)) < 0.3) * [1, 1e4, 1, 0, 1e-3, 1]
    dense[:, 5] = dense[:, 0]
    tables = [Table.of(Contents(X, None), "t", "train") for X in (dense, sparse.csr_matrix(dense))]
    found = [column_figures.column_figures(table) for table in tables]
    for name in ("least", "mean", "largest", "deviation"):
        np.testing.assert_allclose(getattr(found[1], name), getattr(found[0], name), rtol=1e-12, atol=1e-15)
    for name, figure in {"least": "min", "mean": "mean", "largest": "max", "deviation": "std"}.items():
        np.testing.assert_allclose(getattr(found[0], name), getattr(dense, figure)(axis=0), rtol=1e-12, atol=1e-15)
    for table, figures in zip(tables, found, strict=True):
        assert figures.constant.tolist() == [3]
        assert column_figures.duplicates(table, figures) == [(5, 0)]
        assert column_figures.uneven(figures)[:2] == (4, 1)
        assert column_figures.n_distinct(table, 3) == 1


# -- files without names --------------------------------------------------------------------------


def predicted(*arguments: object) -> list[str]:
    return [line.rpartition(",")[2] for line in done("predict", *arguments).stdout.splitlines()[1:]]


def as_lines(*columns: np.ndarray) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in zip(*(c.tolist() for c in columns), strict=True))


@pytest.mark.parametrize("place", [0, 4])
def test_a_table_without_a_header_is_predicted_with_its_labels_and_without_them(rng, place):
    """Nothing tells the labels of the few rows to predict from numbers; the model knows where they
    stood."""
    y = np.arange(120) % 3
    X = np.round(rng.normal(size=(120, 4)) + y[:, None], 3)
    columns = [*X.T]
    Path("plain.txt").write_text(as_lines(*(c[:5] for c in columns)))
    columns.insert(place, y)
    Path("train.txt").write_text(as_lines(*columns))
    Path("some.txt").write_text(as_lines(*(c[:5] for c in columns)))
    assert f"the {'last' if place else 'first'} column" in done("train", "train.txt").stderr
    model = load_model("train.svm")
    expected = list(map(str, model.predict(model.preprocess(X[:5])).tolist()))
    assert model.table.label_number == place + 1
    assert predicted("train.svm", "plain.txt") == predicted("train.svm", "some.txt") == expected
    assert "Accuracy" in done("evaluate", "train.svm", "some.txt").stdout


@pytest.mark.parametrize(("place", "dropped"), [(0, [3]), (5, [1, 4]), (2, [1, 5]), (5, [2])])
@pytest.mark.parametrize("form", ["txt", "npy"])
def test_columns_dropped_from_a_file_without_a_header_are_remembered(rng, form, place, dropped):
    """Files with or without them, with or without the labels, give the same features, or are
    refused."""
    y = np.arange(120) % 3
    values = np.round(rng.normal(size=(120, 5)) + y[:, None], 3)
    everything = np.insert(values, place, y, axis=1)
    out = [number - 1 for number in dropped]

    def write(name, columns, rows=slice(None)):
        table = everything[rows][:, columns]
        if form == "npy":
            np.save(f"{name}.npy", table)
        else:
            np.savetxt(f"{name}.txt", table, fmt="%.3f")
        return f"{name}.{form}"

    options = [part for number in dropped for part in ("--drop", number)]
    done("train", write("train", range(6)), "--label", place + 1, *options, "--out", "m.svm")
    model = load_model("m.svm")
    assert model.table.left_out == tuple(dropped)
    some = slice(0, 9)
    features = [column for column in range(6) if column not in (place, *out)]
    expected = list(map(str, model.predict(model.preprocess(everything[some][:, features])).tolist()))
    assert predicted("m.svm", write("all", range(6), some)) == expected
    assert predicted("m.svm", write("bare", features, some)) == expected
    assert "Accuracy" in done("evaluate", "m.svm", "all." + form).stdout
    labelled = write("labelled", [c for c in range(6) if c not in out], some)
    unlabelled = write("unlabelled", [c for c in range(6) if c != place], some)
    if len(dropped) > 1:
        assert predicted("m.svm", labelled) == predicted("m.svm", unlabelled) == expected
        assert "Accuracy" in done("evaluate", "m.svm", labelled).stdout
    else:
        said = f"trained without column {dropped[0]}: it is unclear"
        assert said in one_line_error("predict", "m.svm", labelled)
        number = place + 1 - sum(column < place for column in out)
        assert predicted("m.svm", labelled, "--label", number) == expected
        number = out[0] + 1 - (place < out[0])
        assert predicted("m.svm", unlabelled, "--drop", number) == expected
    assert "give it the same columns" in one_line_error("predict", "m.svm", write("few", features[1:], some))


def test_a_sparse_file_counts_its_features_from_where_the_training_file_did(rng):
    """A file to predict need not show the feature 0 by which it is known where the indices
    begin."""
    X, y = (rng.random((80, 5)) < 0.5) * rng.normal(size=(80, 5)), np.arange(80) % 2
    X[:, 1] += 3 * y
    lines = [" ".join([str(label), *(f"{k}:{v!r}" for k, v in enumerate(row) if v)]) for label, row in
             zip(y.tolist(), X.tolist(), strict=True)]  # fmt: skip
    Path("train.libsvm").write_text("\n".join(lines))
    Path("some.libsvm").write_text("\n".join(line for line, row in zip(lines, X, strict=True) if not row[0]))
    done("train", "train.libsvm", "--backend", "sklearn")
    model = load_model("train.svm")
    assert model.table.first_index == 0 and model.n_features == 5
    rows = X[X[:, 0] == 0]
    expected = model.predict(model.preprocess(sparse.csr_matrix(rows)))
    assert predicted("train.svm", "some.libsvm") == list(map(str, expected.tolist()))


# -- files as people have them --------------------------------------------------------------------


def write_csv(path, header, columns, separator=",", decimal="."):
    rows = [separator.join(str(value).replace(".", decimal) for value in row) for row in zip(*columns, strict=True)]
    Path(path).write_text("\n".join([separator.join(header), *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def heart(rng):
    """heart.csv: five named columns, an id, and words for labels in the middle. Returns X and the
    words."""
    n = 120
    X = np.column_stack([rng.integers(30, 80, n), rng.integers(0, 2, n), np.round(rng.normal(240, 50, n), 1)])
    ill = np.where(X[:, 0] + 20 * X[:, 1] + 0.1 * X[:, 2] + rng.normal(size=n) * 3 > 90, "ill", "well")
    ids = [f"P{k:03d}" for k in range(n)]
    write_csv("heart.csv", ["patient_id", "age", "outcome", "sex", "chol"], [ids, X[:, 0], ill, X[:, 1], X[:, 2]])
    return X, ill


def test_a_plain_table_needs_no_option(heart):
    _, ill = heart
    result = done("train", "heart.csv")
    assert "96 rows of 3 features from heart.csv" in result.stdout
    counts = [np.count_nonzero(ill == word) for word in ("ill", "well")]
    assert f"Labels in column outcome: 2 classes, ill ({round(0.8 * counts[0])}), well" in result.stdout
    assert "'outcome' is taken for the labels" in result.stderr and "'patient_id' is an id" in result.stderr
    model = load_model("heart.svm")
    assert model.table.columns == ("age", "sex", "chol") and model.table.label_name == "outcome"


def test_columns_are_found_by_name_in_any_order_and_ids_are_kept(heart):
    X, ill = heart
    done("train", "heart.csv")
    expected = load_model("heart.svm")
    expected = expected.predict(expected.preprocess(X))
    ids = [f"N{k}" for k in range(len(X))]
    write_csv(
        "new.csv", ["ward", "chol", "patient_id", "sex", "age"], [["B3"] * len(X), X[:, 2], ids, X[:, 1], X[:, 0]]
    )
    result = done("predict", "heart.svm", "new.csv")
    header, *rows = result.stdout.splitlines()
    assert header == "patient_id,outcome"
    assert rows == [f"{name},{label}" for name, label in zip(ids, expected, strict=True)]
    assert "'ward'" in result.stderr and "left out" in result.stderr and "accuracy" not in result.stderr
    assert f"accuracy {np.mean(expected == ill):.4f}" in done("predict", "heart.svm", "heart.csv").stderr
    assert f"Accuracy: {np.mean(expected == ill):.4f}" in done("evaluate", "heart.svm", "heart.csv").stdout


def test_a_column_that_is_missing_is_named(heart):
    done("train", "heart.csv")
    write_csv("new.csv", ["age", "sex"], [[40, 50], [0, 1]])
    for command in ("predict", "evaluate"):
        error = one_line_error(command, "heart.svm", "new.csv")
        assert "new.csv: lacks the column 'chol'" in error


def test_drop_and_label_by_name(heart):
    result = done("train", "heart.csv", "--label", "sex", "--drop", "outcome", "--drop", "patient_id")
    assert "96 rows of 2 features" in result.stdout and "Labels in column sex: 2 classes, 0 (" in result.stdout


def test_semicolons_decimal_commas_and_words(rng):
    X = np.round(rng.normal(size=(90, 3)) + np.repeat([0, 2, 4], 30)[:, None], 2)
    words = np.repeat(["öde", "mittel", "üppig"], 30)
    write_csv("blumen.csv", ["Länge", "Breite", "Höhe", "Art"], [*X.T, words], ";", ",")
    result = done("train", "blumen.csv")
    assert "Labels in column Art: 3 classes, mittel (24), öde (24), üppig (24)" in result.stdout
    rows = train_test_split(np.arange(90), train_size=0.8, test_size=0.2, random_state=0, stratify=words)
    expected = make_pipeline(StandardScaler(), Reference()).fit(X[rows[0]], words[rows[0]])
    assert f"Accuracy: {expected.score(X[rows[1]], words[rows[1]]):.4f}" in result.stdout
    assert done("predict", "blumen.svm", "blumen.csv").stdout.splitlines()[0] == "row,Art"


def test_a_sparse_file_stays_sparse(rng):
    dense = rng.random((200, 40)) * (rng.random((200, 40)) < 0.1)
    y = np.where(dense[:, :20].sum(axis=1) > dense[:, 20:].sum(axis=1), 1, -1)
    dump_svmlight_file(dense, y, "words.svm.txt", zero_based=False)
    result = done("train", "words.svm.txt", "--certify", "--out", "m.svm")
    assert "rows of 40 features (sparse: 4 not zero a row)" in result.stdout
    assert "Scaling: maxabs" in result.stdout
    rows = train_test_split(np.arange(200), train_size=0.8, test_size=0.2, random_state=0, stratify=y)
    expected = make_pipeline(MaxAbsScaler(), Reference()).fit(dense[rows[0]], y[rows[0]])
    assert f"Accuracy: {expected.score(dense[rows[1]], y[rows[1]]):.4f}" in result.stdout
    model = load_model("m.svm")
    assert sparse.issparse(model.support_vectors)
    assert done("predict", "m.svm", "words.svm.txt").stdout.splitlines()[1:] == [
        f"{k + 1},{label}" for k, label in enumerate(expected.predict(dense))
    ]
    assert "--scale standard would fill a sparse table" in one_line_error(
        "train", "words.svm.txt", "--scale", "standard", code=2
    )
    page = done("evaluate", "m.svm", "words.svm.txt", "--report", "page")
    assert "200 rows;" in page.stdout and "Misclassified rows" in Path("page", "index.html").read_text()
    assert "Sparse: " in done("data", "show", "words.svm.txt").stdout


def test_a_model_takes_what_it_was_trained_on_and_says_so_of_anything_else(heart, rng):
    done("train", "heart.csv")
    Path("pictures").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("pictures/1.png")
    error = one_line_error("predict", "heart.svm", "pictures")
    assert "holds images, and the model was trained on a table" in error
    assert "holds images, and the model was trained on a table" in one_line_error("evaluate", "heart.svm", "digits")
    done("train", "digits", "--out", "d.svm")
    dump_svmlight_file(np.ones((4, 64)), [0, 1, 0, 1], "t.txt")
    error = one_line_error("predict", "d.svm", "t.txt")
    assert "holds a table, and the model was trained on images of 8 x 8 pixels" in error


def test_pictures_in_parquet_and_transparent_ones_need_no_option(tmp_path):
    pyarrow, parquet = (pytest.importorskip(name, reason=NO_PYARROW) for name in ("pyarrow", "pyarrow.parquet"))
    data = load_dataset("digits", limit=300)
    pictures = []
    for k, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
        ink = np.zeros((8, 8, 4), np.uint8)
        ink[..., 3] = image
        (tmp_path / "ink" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(ink).save(tmp_path / "ink" / str(label) / f"{k:03d}.png")
    parquet.write_table(pyarrow.table({"image": pictures, "label": data.labels}), "digits.parquet")
    for source in ("digits.parquet", "ink"):
        result = done("train", source, "--json", "m.json")
        assert "240 images of 8 x 8 pixels" in result.stdout
        assert json.loads(Path("m.json").read_text())["accuracy"] > 0.93
    assert "put on white" in result.stderr


# -- the cures that messages name -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_arrays_take_labels_and_leave_out_columns_by_number(rng, form):
    X = rng.normal(size=(60, 4))
    X[:, 3] = X[:, 0] > 0
    np.save("m.npy", X)
    np.savez("m.npz", X=X)
    source = f"m.{form}"
    assert "an array y beside X, or say which column holds them: --label NUMBER" in one_line_error("train", source)
    assert "has no column '7', which --label names" in one_line_error("train", source, "--label", 7)
    assert "2 features" in done("train", source, "--label", -1, "--drop", 2).stdout
    assert "accuracy" in done("predict", "m.svm", source, "--drop", 2).stderr
    assert "accuracy" in done("evaluate", "m.svm", source, "--drop", 2).stdout.lower()
    np.save("new.npy", X[:, [0, 2]])
    assert done("predict", "m.svm", "new.npy").stdout == done("predict", "m.svm", source, "--drop", 2).stdout


def test_a_model_of_some_columns_without_names_takes_the_same_file_again(rng):
    rows = [f"{k % 7},{'ab'[k % 2]},{rng.normal():.3f},{'xyz'[k % 3]},{'pq'[k % 2]}" for k in range(60)]
    Path("uci.data").write_text("\n".join(rows) + "\n")
    assert "--drop 2 --drop 4" in one_line_error("train", "uci.data")
    done("train", "uci.data", "--drop", 2, "--drop", 4)
    for command in ("predict", "evaluate"):
        with_options, without = (done(command, "uci.svm", "uci.data", *o) for o in (("--drop", 2, "--drop", 4), ()))
        assert with_options.stdout.splitlines()[3:] == without.stdout.splitlines()[3:]


def test_an_id_among_pixels_can_be_left_out_of_what_is_predicted(rng):
    names = ",".join(f"pixel{k}" for k in range(64))
    rows = [",".join(map(str, [k, k % 2, *rng.integers(0, 256, 64)])) for k in range(30)]
    Path("p.csv").write_text(f"id,label,{names}\n" + "\n".join(rows) + "\n")
    assert "--drop id" in one_line_error("train", "p.csv", "--images")
    done("train", "p.csv", "--images", "--drop", "id")
    done("predict", "p.svm", "p.csv", "--drop", "id")


def test_columns_are_not_named_where_there_are_none(rng):
    for options in (("--label", "x"), ("--drop", "x")):
        assert "name columns of a table, and digits holds images" in one_line_error("train", "digits", *options, code=2)
    X = sparse.random(20, 5, 0.5, format="csr", random_state=0)
    dump_svmlight_file(X, np.arange(20) % 2, "s.svmlight", zero_based=False)
    assert "a svmlight file has none" in one_line_error("train", "s.svmlight", "--drop", 2)


def test_a_column_that_the_model_needs_is_not_dropped(heart):
    done("train", "heart.csv")
    assert "the model needs the column 'age', which --drop" in one_line_error(
        "predict", "heart.svm", "heart.csv", "--drop", "age"
    )


@pytest.mark.parametrize("scale", ["standard", "minmax", "maxabs", "none"])
def test_a_model_of_dense_rows_takes_sparse_ones(rng, scale):
    X, y = rng.normal(size=(60, 4)) * [1, 10, 1, 1] + 3, rng.integers(0, 2, 60)
    np.savez("d.npz", X=X, y=y)
    dump_svmlight_file(X, y, "d.svmlight", zero_based=False)
    done("train", "d.npz", "--scale", scale)
    assert done("predict", "d.svm", "d.svmlight").stdout == done("predict", "d.svm", "d.npz").stdout
    done("evaluate", "d.svm", "d.svmlight")


@pytest.mark.parametrize("first", [0, 1])
def test_a_feature_that_numbers_the_rows_is_said(rng, first):
    # as UCI's glass.data: the rows lie in the order of their classes
    rows = [f"{k + first},{rng.normal():.3f},{rng.normal():.3f},{k // 20}" for k in range(60)]
    Path("g.data").write_text("\n".join(rows) + "\n")
    assert "column 1 numbers the rows" in done("train", "g.data", "--label", 4).stderr
    assert "column 1 numbers the rows" in done("data", "show", "g.data", "--label", 4).stdout
    assert "numbers the rows" not in done("train", "g.data", "--label", 4, "--drop", 1).stderr


def test_a_folder_of_tables_is_not_called_images(heart):
    done("train", "heart.csv")
    Path("folder").mkdir()
    Path("folder/a.csv").write_bytes(Path("heart.csv").read_bytes())
    assert "is a folder of tables; name the one to predict, such as folder/a.csv" in one_line_error(
        "predict", "heart.svm", "folder"
    )
    Path("empty").mkdir()
    assert "empty: is a folder without tables" in one_line_error("predict", "heart.svm", "empty")


def test_a_folder_of_tables_is_trained_and_evaluated_on(wine):
    X, y = wine
    for name, rows in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        lines = [",".join(map(str, [*row, label])) for row, label in zip(X[rows].tolist(), y[rows], strict=True)]
        Path("wine").mkdir(exist_ok=True)
        Path(f"wine/{name}.csv").write_text(f"{','.join(f'x{k}' for k in range(13))},label\n" + "\n".join(lines))
    result = done("train", "wine", "--backend", "sklearn")
    assert "its test part is read from test.csv" in result.stderr and "the 89 test rows of wine" in result.stdout
    assert "wine, test split: 89 rows" in done("evaluate", "wine.svm").stdout
    assert "such as wine/test.csv" in one_line_error("predict", "wine.svm", "wine")
    lines = Path("wine/test.csv").read_text().splitlines()
    Path("wine/test.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    result = done("evaluate", "wine.svm")
    assert "has no labels: evaluating on the train split" in result.stderr and "wine, train split" in result.stdout


def test_columns_that_go_by_their_order_are_said(heart):
    done("train", "heart.csv")
    X, ill = heart
    Path("bare.csv").write_text(
        "".join(f"{a},{b},{c},{word}\n" for (a, b, c), word in zip(X.tolist(), ill, strict=True))
    )
    for command in ("predict", "evaluate"):
        assert "names no columns: they are taken in the order of" in done(command, "heart.svm", "bare.csv").stderr
        assert "in the order of" not in done(command, "heart.svm", "heart.csv").stderr
    done("train", "bare.csv", "--label", -1)
    Path("named.csv").write_text("age,sex,chol,outcome\n" + Path("bare.csv").read_text())
    assert "names columns, and the training data did not" in done("predict", "bare.svm", "named.csv").stderr


def constant(name):
    y = np.arange(60) % 2
    X = np.array([[1.0, 2.5]]).repeat(len(y), axis=0)
    if name == "pictures.npz":
        np.savez(name, images=np.full((len(y), 8, 8), 7, np.uint8), labels=y)
    elif name == "sparse.svmlight":
        dump_svmlight_file(sparse.csr_array(X), y, name)
    else:
        X = X[:, :1] if name == "one.csv" else X
        pd.DataFrame(X, columns=["width", "height"][: X.shape[1]]).assign(label=y).to_csv(name, index=False)


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("two.csv", "all 2 features are constant in the 48 training rows (width, height), so there is nothing"),
     ("one.csv", "the only feature is constant in the 48 training rows (width), so"),
     ("sparse.svmlight", "all 2 features are constant in the 48 training rows, so"),
     ("pictures.npz", "all 48 training images are the same picture, so there is nothing to tell classes by")],
)  # fmt: skip
def test_samples_that_are_all_the_same_are_refused(name, message, command):
    constant(name)
    assert message in one_line_error(command, name)
    assert not list(Path().glob("*.svm"))


def test_one_column_that_is_not_constant_is_enough():
    constant("two.csv")
    table = pd.read_csv("two.csv")
    table.loc[table.index[:30], "width"] = 3.0
    table.to_csv("two.csv", index=False)
    done("train", "two.csv")

"""Parquet: tables of numbers, and encoded pictures as hubs ship them."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from gpusvm.data import Dataset, Table, load_dataset, load_samples
from gpusvm.errors import DataError, DataWarning, UsageError

NO_PYARROW = 'pyarrow is not installed: pip install "gpusvm[test]"'
pa = pytest.importorskip("pyarrow", reason=NO_PYARROW)
pq = pytest.importorskip("pyarrow.parquet", reason=NO_PYARROW)


def write(folder, columns, name="t.parquet"):
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_a_table_of_numbers(tmp_path):
    columns = {"a": [1, 2, 3], "b": [0.5, 1.5, -2.5], "c": [True, False, True], "target": ["u", "v", "u"]}
    with pytest.warns(DataWarning, match="the column 'target' is taken for the labels"):
        table = load_dataset(write(tmp_path, columns))
    assert isinstance(table, Table) and table.columns == ("a", "b", "c") and table.label_name == "target"
    assert table.X.tolist() == [[1, 0.5, 1], [2, 1.5, 0], [3, -2.5, 1]] and table.labels.tolist() == ["u", "v", "u"]


def test_single_precision_words_from_a_list_and_columns_of_a_model(tmp_path):
    columns = {
        "x": pa.array([1.5, 2.5], pa.float32()),
        "word": pa.array(["p", "q"]).dictionary_encode(),
        "y": pa.array([0, 1], pa.int8()),
    }
    path = write(tmp_path, columns)
    table = load_dataset(path, drop=("word",))
    assert table.X.dtype == np.float32 and table.labels.tolist() == [0, 1]
    table = load_samples(path, columns=("x",), kind="table")
    assert table.X.tolist() == [[1.5], [2.5]]
    assert load_dataset(path, label="word", drop=("y",)).labels.tolist() == ["p", "q"]


@pytest.mark.parametrize("as_struct", [True, False])
def test_pictures_as_hubs_ship_them(tmp_path, rng, as_struct):
    images = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    contents = [png(image) for image in images]
    column = [{"bytes": content, "path": None} for content in contents] if as_struct else contents
    data = load_dataset(write(tmp_path, {"image": column, "label": [0, 1, 2, 0, 1, 2]}))
    assert isinstance(data, Dataset) and data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(data.images, images)
    assert load_samples(tmp_path / "t.parquet")[1] == ["1", "2", "3", "4", "5", "6"]


def test_pixels_in_columns_are_images(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 64))
    columns = {f"pixel{k}": pixels[:, k] for k in range(64)} | {"class": list("abcab")}
    data = load_dataset(write(tmp_path, columns))
    assert isinstance(data, Dataset) and data.images.reshape(5, 64).tolist() == pixels.tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x", "y"], "b": [1, 2], "label": [0, 1]}, r"column 1 \(a\): 'x' is not a number.*--drop a"),
        ({"a": [1.0, None], "label": [0, 1]}, r"row 2, column 1 \(a\): the value is missing, as in 1 of 2 rows"),
        ({"a": [1.0, 2.0], "label": [0, None]}, "1 of 2 labels are missing"),
        ({"a": [[1.0], [2.0]], "label": [0, 1]}, r"column 1 \(a\): holds list<.*which is no number.*--drop a"),
        (
            {
                "when": pa.array([0, 1], pa.date32()),
                "a": ["x", None],
                "b": [1.0, None],
                "c": [True, False],
                "label": [0, 1],
            },
            r"2 columns hold no numbers: 'when' \(date32\[day\]\), 'a' \('x'\); values are missing in 'b' \(1 of 2"
            ".*--drop when --drop a --drop b",
        ),
        ({"a": [1.0, 2.0], "label": [[1], [2]]}, r"the labels \(label\): holds list<.*neither numbers nor words"),
        ({"a": pa.array([], pa.float64())}, "holds no samples"),
        ({"image": [b"none", b"none"], "label": [0, 1]}, "row 1: is not a picture"),
        ({"image": [png(np.zeros((2, 2), np.uint8)), None], "label": [0, 1]}, "row 2 has no picture"),
        (
            {"image": [png(np.zeros((2, s), np.uint8)) for s in (2, 3)], "label": [0, 1]},
            "row 2: is 3x2 but .*row 1 is 2x2",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_what_is_wrong_is_said(tmp_path, columns, message):
    path = write(tmp_path, columns)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [["yes", "no"], ["True", "False"], [True, False]])
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_truth_values_are_one_and_zero(tmp_path, values):
    table = load_dataset(write(tmp_path, {"a": values, "b": [0.5, 2.0], "label": ["no", "yes"]}))
    assert table.X.tolist() == [[1.0, 0.5], [0.0, 2.0]] and table.labels.tolist() == ["no", "yes"]


def test_damaged_files(tmp_path):
    content = write(tmp_path, {"a": [1.0, 2.0], "label": [0, 1]}).read_bytes()
    for damaged in (content[:-9], content[:4], content[:20] + b"\xff" * 30 + content[50:]):
        (tmp_path / "d.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"d\.parquet: .*"):
            load_dataset(tmp_path / "d.parquet")


def test_what_to_install_is_said(tmp_path, monkeypatch):
    path = write(tmp_path, {"a": [1.0, 2.0], "label": [0, 1]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r'pip install "gpusvm\[parquet\]"'):
        load_dataset(path)


def test_columns_of_one_name_are_told(tmp_path):
    path = tmp_path / "a.parquet"
    values = [pa.array([1.0, 2.0])] * 2 + [pa.array([0, 1])]
    pq.write_table(pa.table(values, names=["a", "a", "label"]), path)
    with pytest.raises(DataError, match="columns 1 and 2 are both named a; rename one"):
        load_dataset(path)

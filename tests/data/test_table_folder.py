"""Folders of tables, their parts and splits, and test files beside a file."""

import numpy as np
import pytest
from PIL import Image

from gpusvm.data import has_split, load_dataset, load_images, load_samples
from gpusvm.data.table_folder import test_beside as beside
from gpusvm.errors import DataError, DataWarning
from gpusvm.split import load_split

TRAIN = "a,b,label\n1.5,2,0\n3,4,1\n5,6,0\n7,8,1\n9,1,0\n2,2,1\n"
TEST = "a,b,label\n1,2.5,1\n"
SPARSE, SPARSE_TEST = "1 1:2 2:1\n-1 2:3\n1 1:1\n-1 2:2\n", "1 1:2 3:1\n"

pytestmark = pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")


def fill(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("trainDOTcsv", "testDOTcsv"),
        ("TrainDOTcsv", "validationDOTcsv"),
        ("trainDOTtsv", "testDOTtsv"),
        ("heart_trainDOTcsv", "heart-testDOTcsv"),
        ("heartDOTcsv", "heart_testDOTcsv"),
        ("adultDOTdata", "adultDOTtest"),
        ("data__trainDOTcsv", "data__testDOTcsv"),
        ("train__aDOTcsv", "test__bDOTcsv"),
        ("down__training__0000DOTcsv", "down__testing__0000DOTcsv"),
    ],
)
def test_the_splits_are_found_by_the_files_names(tmp_path, names):
    as_tabs = "tsv" in names[0]
    texts = [text.replace(",", "\t") if as_tabs else text for text in (TRAIN, TEST)]
    fill(tmp_path, **dict(zip(names, texts, strict=True)), READMEDOTmd="# about\n", LICENSE="free for all\n")
    assert has_split(tmp_path, "train") and has_split(tmp_path, "test")
    with pytest.warns(DataWarning, match="its train part is read from"):
        assert len(load_dataset(tmp_path)) == 6
    assert load_dataset(tmp_path, "test").X.tolist() == [[1, 2.5]]
    split = load_split(str(tmp_path))
    assert len(split.train) == 6 and split.description == f"the 1 test row of {tmp_path}"


@pytest.mark.parametrize("names", [("a9a", "a9aDOTt"), ("trainDOTlibsvm", "testDOTlibsvm"), ("dDOTtr", "dDOTval")])
def test_sparse_pairs_of_other_widths(tmp_path, names):
    fill(tmp_path, **dict(zip(names, (SPARSE, SPARSE_TEST), strict=True)))
    split = load_split(str(tmp_path))
    assert split.train.X.shape == (4, 3) and split.test.X.toarray().tolist() == [[2, 0, 1]]


def test_npz_files_whatever_their_keys(tmp_path, rng):
    X, y = rng.normal(size=(8, 3)), np.arange(8) % 2
    np.savez(tmp_path / "train.npz", X=X, y=y)
    for keys in ({"X": X[:2], "y": y[:2]}, {"x_test": X[:2], "y_test": y[:2]}):
        np.savez(tmp_path / "test.npz", **keys)
        assert len(load_dataset(tmp_path)) == 8 and len(load_dataset(tmp_path, "test")) == 2


def test_a_lone_file_has_its_own_splits(tmp_path, rng):
    X, y = rng.normal(size=(8, 3)), np.arange(8) % 2
    np.savez(tmp_path / "all.npz", x_train=X, y_train=y, x_test=X[:2], y_test=y[:2])
    assert len(load_dataset(tmp_path)) == 8 and len(load_dataset(tmp_path, "test")) == 2
    (tmp_path / "all.npz").unlink()
    fill(tmp_path, heartDOTcsv=TRAIN)
    assert len(load_dataset(tmp_path)) == 6 and not has_split(tmp_path, "test")


def test_parts_of_a_parquet_table(tmp_path, rng):
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "gpusvm[test]"')
    pq = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed: pip install "gpusvm[test]"')
    X, y = rng.normal(size=(7, 2)), ["u", "v", "u", "v", "u", "v", "u"]

    def write(name, rows, **more):
        (tmp_path / "data").mkdir(exist_ok=True)
        columns = {"a": X[rows, 0], "b": X[rows, 1], "label": y[rows], **more}
        pq.write_table(pa.table(columns), tmp_path / "data" / name)

    write("train-00001-of-00002.parquet", slice(3, 5))
    write("test-00000-of-00001-0a1b2c.parquet", slice(5, 7))
    with pytest.raises(DataError, match=r"part 1 of 2 is missing beside train-00001-of-00002\.parquet"):
        load_dataset(tmp_path)
    write("train-00000-of-00002.parquet", slice(0, 3))
    np.testing.assert_array_equal(load_dataset(tmp_path).X, X[:5])
    assert load_dataset(tmp_path).labels.tolist() == y[:5] and len(load_dataset(tmp_path, "test")) == 2
    with pytest.warns(DataWarning, match="is part 1 of 2; name its folder"):
        load_dataset(tmp_path / "data" / "train-00000-of-00002.parquet")
    write("train-00000-of-00002.parquet", slice(0, 3), c=[1, 2, 3])
    with pytest.raises(DataError, match="has other columns than train-00000"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"aDOTcsv": TRAIN, "bDOTcsv": TEST}, r"several tables \(a.csv, b.csv\).*--test"),
        ({"trainDOTcsv": TRAIN, "trainDOTtsv": TRAIN}, r"several tables \(train.csv, train.tsv\)"),
        ({"x__aDOTcsv": TRAIN, "y__aDOTcsv": TRAIN}, r"several tables \(x/, y/\)"),
        ({"X_trainDOTcsv": TRAIN, "y_trainDOTcsv": TRAIN}, "features and labels in files of their own"),
        ({"train-0000-of-0002DOTcsv": TRAIN, "train-0001-of-0002DOTcsv": TRAIN}, "in parts .*join them"),
        ({"notesDOTmd": "words"}, "found notes.md.*tables, such as train.csv"),
    ],
)
def test_what_is_unclear_is_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        load_dataset(fill(tmp_path, **files))


def test_a_table_among_pictures_does_not_make_a_folder_of_tables(tmp_path):
    Image.new("L", (3, 3)).save(fill(tmp_path, labelsDOTcsv=TRAIN) / "1.png")
    assert load_images(tmp_path)[1] == ["1.png"]


def test_a_folder_to_predict_is_refused_with_its_files(tmp_path):
    with pytest.raises(DataError, match=r"name the one to predict, such as .*test\.csv"):
        load_samples(fill(tmp_path, trainDOTcsv=TRAIN, testDOTcsv=TEST))


@pytest.mark.parametrize("names", [("a9a", "a9a.t"), ("train.csv", "test.csv"), ("h_train.csv", "h_test.csv")])
def test_a_test_file_beside_a_file_is_used_and_said(tmp_path, names):
    texts = (SPARSE, SPARSE_TEST) if names[0] == "a9a" else (TRAIN, TEST)
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).write_text(text)
    assert beside(tmp_path / names[0]) == tmp_path / names[1] and beside(tmp_path / names[1]) is None
    split = load_split(str(tmp_path / names[0]))
    assert len(split.test) == 1 and split.description.endswith(f"{names[1]}, beside it")
    assert "held out" in load_split(str(tmp_path / names[0]), test_size=0.5).description


def test_a_test_file_without_labels_is_not_tested_on_and_one_that_does_not_fit_is_named(tmp_path):
    fill(tmp_path, trainDOTcsv=TRAIN, testDOTcsv="a,b\n1,2\n")
    for source in (tmp_path, tmp_path / "train.csv"):
        with pytest.warns(DataWarning, match="has no labels, and is not tested on"):
            assert "held out" in load_split(str(source)).description
    fill(tmp_path, testDOTcsv="a,label\n1,0\n")
    with pytest.raises(DataError, match=r"lacks the column 'b'.*the test file of train.csv: .*--test-size"):
        load_split(str(tmp_path / "train.csv"))

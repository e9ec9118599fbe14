"""Table: what load_dataset and load_samples give of numbers that are no images."""

import hashlib

import numpy as np
import pytest
import scipy.sparse

from gpusvm.data import Dataset, Table, load_dataset, load_samples
from gpusvm.data.table import Contents
from gpusvm.errors import DataError, DataWarning, UsageError

X = np.array([[0.5, -1.0], [2.0, 3.5], [0.0, 1e6]])
LABELS = np.array([1, 0, 1])


def archive(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_real_numbers_are_a_table(tmp_path):
    table = load_dataset(archive(tmp_path, X=X, y=LABELS))
    assert isinstance(table, Table) and len(table) == 3 and table.n_features == 2
    assert table.X.dtype == np.float64 and table.X.tolist() == X.tolist()
    assert table.require_labels().tolist() == LABELS.tolist() and table.labels.dtype == np.int64
    assert (table.columns, table.label_name, table.name, table.split) == ((), None, str(tmp_path / "data.npz"), "train")
    content = repr((3, 2)).encode() + X.tobytes() + LABELS.tobytes()
    assert table.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((3, 64), dtype=np.uint8), Dataset),
        (np.full((3, 81), 255.0), Dataset),
        (np.full((3, 64), 256), Table),
        (np.full((3, 64), -1), Table),
        (np.full((3, 64), 0.5), Table),
        *((np.full((3, n), 7), Table) for n in (1, 4, 9, 16, 25, 36, 49, 65)),
        (np.full((3, 5), 7), Table),
        (np.zeros((3, 5), dtype=np.uint8), Table),
        (np.zeros((3, 2, 2), dtype=np.uint8), Dataset),
    ],
)
def test_whole_numbers_to_255_that_make_a_square_are_images_and_any_others_a_table(tmp_path, values, kind):
    assert isinstance(load_dataset(archive(tmp_path, X=values)), kind)


def test_pixels_that_were_divided_by_255_are_images(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 64))
    for dtype in (np.float32, np.float64):
        with pytest.warns(DataWarning, match="pixels from 0 to 1 were multiplied by 255"):
            data = load_dataset(archive(tmp_path, X=(pixels / 255).astype(dtype)))
        assert data.images.reshape(5, 64).tolist() == pixels.tolist()
    assert isinstance(load_dataset(archive(tmp_path, X=rng.random((5, 64)))), Table)


def test_small_images_are_those_that_are_called_so(tmp_path):
    for kind, key in ((Dataset, "images"), (Dataset, "train_images"), (Table, "data")):
        assert isinstance(load_dataset(archive(tmp_path, **{key: np.zeros((3, 4), dtype=np.int64)})), kind)
    assert isinstance(load_dataset(archive(tmp_path, images=np.full((3, 4), -1.5))), Table)


def test_what_it_is_can_be_said(tmp_path):
    path = archive(tmp_path, X=np.zeros((3, 4), dtype=np.uint8))
    assert isinstance(load_dataset(path, kind="images"), Dataset)
    table = load_dataset(path, kind="table")
    assert isinstance(table, Table) and table.X.dtype == np.float64
    assert isinstance(load_samples(path, kind="table"), Table)
    images, ids = load_samples(path, kind="images")
    assert images.shape == (3, 2, 2) and ids == ["1", "2", "3"]
    with pytest.raises(UsageError, match="kind must be 'auto', 'images' or 'table', not 'sound'"):
        load_dataset(path, kind="sound")
    with pytest.raises(DataError, match="digits: holds images, not a table"):
        load_dataset("digits", kind="table")


def test_single_precision_is_kept(tmp_path):
    assert load_dataset(archive(tmp_path, X=X.astype(np.float32))).X.dtype == np.float32
    assert load_dataset(archive(tmp_path, X=X[:2].astype(np.float16))).X.dtype == np.float64


@pytest.mark.parametrize(
    ("labels", "expected", "dtype"),
    [
        (np.array([1.0, 2.0, -3.0]), [1, 2, -3], "int64"),
        (np.array([1.0, 2.5, 3.0]), [1.0, 2.5, 3.0], "float64"),
        (np.array([[1], [0], [1]]), [1, 0, 1], "int64"),
        (np.array(["yes", "no", "yes"]), ["yes", "no", "yes"], "<U3"),
        (np.array([True, False, True]), [1, 0, 1], "int64"),
    ],
)
def test_labels_are_whole_numbers_words_or_real_numbers(tmp_path, labels, expected, dtype):
    found = load_dataset(archive(tmp_path, X=X, y=labels)).labels
    assert found.tolist() == expected and found.dtype == dtype


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"X": np.array([[1, np.nan], [np.nan, 0.5]])},
            "2 values in 2 columns .* first is row 2, column 1, .* missing",
        ),
        ({"X": np.array([[1, np.inf], [1, 0.5]])}, "1 values in 1 columns .* row 1, column 2, which is inf"),
        ({"X": X, "y": np.array([1, np.nan, np.nan])}, "2 labels are missing or infinite, the first in row 2"),
        ({"X": X, "y": np.zeros((3, 2))}, r"'y': has shape \(3, 2\)"),
        ({"X": X, "y": LABELS[:2]}, "3 train rows but 2 labels"),
        ({"X": X.astype(complex)}, "features must be numbers"),
        ({"X": np.zeros((0, 2))}, "holds no samples"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, message):
    path = archive(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(str(path))


def test_rows_of_a_table_are_a_table(tmp_path):
    path = archive(tmp_path, X=X, y=LABELS)
    table = load_dataset(path)
    part = table.take(np.array([2, 0]))
    assert part.X.tolist() == [X[2].tolist(), X[0].tolist()] and part.labels.tolist() == [1, 1]
    assert part.digest != table.digest
    assert load_dataset(path, limit=2).digest == table.take(np.arange(2)).digest
    drawn = load_dataset(path, limit=2, seed=0)
    assert len(drawn) == 2 and drawn.digest == load_dataset(path, limit=2, seed=0).digest


def test_sparse_rows():
    contents = Contents(scipy.sparse.csr_matrix(X), LABELS)
    table = Table.of(contents, "a", "train")
    assert len(table) == 3 and table.n_features == 2
    part = table.take(np.array([1]))
    assert part.X.toarray().tolist() == [X[1].tolist()] and part.digest != table.digest


def test_a_table_without_labels_says_how_to_name_them():
    table = Table.of(Contents(X, None, ("age", "bmi")), "heart.csv", "train")
    with pytest.raises(DataError, match=r"heart\.csv: .*--label NAME \(its columns: age, bmi\)"):
        table.require_labels()


def test_labels_of_bytes_are_words(tmp_path):
    found = load_dataset(archive(tmp_path, X=np.full((3, 5), 0.5), y=np.char.encode(["é", "b", "é"], "utf-8")))
    assert found.labels.tolist() == ["é", "b", "é"]

"""Sparse tables in the format of SVMlight and LIBSVM."""

import bz2
import gzip

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from gpusvm.data import Table, load_dataset, load_samples
from gpusvm.errors import DataError
from gpusvm.memory import peak_rss_mb, reset_peak_rss


def write(folder, text, name="t.svmlight"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize("zero_based", [False, True])
def test_it_is_what_scikit_learn_reads(tmp_path, rng, zero_based):
    X = scipy.sparse.random(40, 30, density=0.2, random_state=0, format="csr")
    X[0, 0] = 1.5
    y = rng.integers(0, 3, 40)
    dump_svmlight_file(X, y, str(tmp_path / "t.txt"), zero_based=zero_based)
    table = load_dataset(tmp_path / "t.txt")
    expected, labels = load_svmlight_file(str(tmp_path / "t.txt"))
    assert isinstance(table, Table) and table.X.format == "csr" and table.X.dtype == np.float64
    assert abs(table.X - expected).nnz == 0 and table.labels.tolist() == labels.tolist()
    assert table.labels.dtype == np.int64 and table.first_index == int(not zero_based)
    assert table.X.indices.dtype == np.int32 and table.X.has_sorted_indices


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, bytes, b"\xef\xbb\xbf".__add__])
@pytest.mark.parametrize("name", ["a9a", "a9a.t", "heart_scale", "t.libsvm", "t.gz", "t.csv"])
def test_whatever_its_name_and_packing(tmp_path, pack, name):
    path = write(tmp_path, pack(b"# comment\n\n+1 1:0.5 3:-2 # another\r\n-1 2:1e3\n"), name)
    table = load_dataset(path)
    assert table.X.toarray().tolist() == [[0.5, 0, -2], [0, 1000, 0]] and table.labels.tolist() == [1, -1]


def test_real_labels_and_rows_without_values(tmp_path):
    table = load_dataset(write(tmp_path, "0.5 1:1\n2\n-3 1:2\n"))
    assert table.labels.tolist() == [0.5, 2.0, -3.0] and table.X.toarray().tolist() == [[1], [0], [2]]


def test_without_labels_it_can_be_predicted(tmp_path):
    table = load_samples(write(tmp_path, "1:0.5 3:2\n2:1\n"))
    assert table.labels is None and table.X.toarray().tolist() == [[0.5, 0, 2], [0, 1, 0]]


class TestFilesThatBelongTogether:
    def test_fewer_features_are_made_up_to_those_of_the_model(self, tmp_path):
        table = load_samples(write(tmp_path, "1 1:0.5\n-1 2:1\n"), n_features=5)
        assert table.X.shape == (2, 5)
        with pytest.raises(DataError, match="has an index 2, and the model knows 1 features"):
            load_samples(write(tmp_path, "1 1:0.5\n-1 2:1\n"), n_features=1)

    def test_indices_count_from_where_those_of_the_training_file_did(self, tmp_path):
        path = write(tmp_path, "1 1:0.5\n-1 2:1\n")
        zero = load_samples(path, n_features=3, first_index=0)
        assert zero.X.toarray().tolist() == [[0, 0.5, 0], [0, 0, 1]] and zero.first_index == 0
        assert load_samples(path, n_features=3, first_index=1).X.toarray().tolist() == [[0.5, 0, 0], [0, 1, 0]]
        with pytest.raises(DataError, match="has an index 0, and the files of this model count from 1"):
            load_samples(write(tmp_path, "1 0:0.5\n"), n_features=3, first_index=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:2\n1 2:3\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("1 1:2\n1 2:x\n", r"line 2 cannot be read \('x' is no number, which labels and values must be\): '1 2:x'"),
        ("1 1:2\n# c\n\nx 2:1\n", "line 4 cannot be read"),
        ("1 1:2\n1 2\n", "line 2 cannot be read"),
        ("1 1:2\n1 -2:1\n", "line 2 cannot be read.*Invalid index -2"),
        ("1 1:2\n1 3:1 2:1\n", "line 2 cannot be read.*sorted and unique"),
        ("1 1:2\n1 2:1_0\n", "line 2 cannot be read"),
        ("1 1:2\n1,2 2:1\n", "line 2 cannot be read"),
        ("1 1:2\n1 99999999999999999999:1\n", "line 2 cannot be read"),
        ("1 1:2\n-1 qid:3 1:2\n", r"line 2 has a query id \(qid\)"),
        ("1 1:2\n-1 1:nan\n", "1 values are NaN or infinite, the first in row 2"),
        ("nan 1:2\n-1 1:3\n", "1 labels are missing or infinite, the first in row 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_it_holds_no_images(tmp_path):
    with pytest.raises(DataError, match="holds a table, not images"):
        load_dataset(write(tmp_path, "1 1:2\n"), kind="images")


def test_neither_the_text_nor_a_dense_table_is_in_memory(tmp_path):
    line = "1 " + " ".join(f"{k * 20_001 + 1}:0.123456789012345" for k in range(50)) + "\n"
    path = write(tmp_path, gzip.compress(line.encode() * 20_000, 1))
    load_dataset(write(tmp_path, "1 1:2\n", "small"))  # imports what it needs
    reset_peak_rss()
    before = peak_rss_mb()
    table = load_dataset(path)
    assert table.X.shape[1] > 980_000 and table.X.nnz == 1_000_000
    assert peak_rss_mb() - before < 80  # 12 MB of values and indices; 25 MB of text; 150 GB if it were dense

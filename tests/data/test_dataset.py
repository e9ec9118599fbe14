"""load_dataset, has_split and load_images: sources, splits, limits, digests, and sources that are
none."""

import hashlib
import os

import numpy as np
import pytest

from gpusvm.data import has_split, idx, load_dataset, load_images, load_samples
from gpusvm.errors import DataError, UsageError


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    for stem, n in (("train", 20), ("t10k", 5)):
        idx.write(tmp_path / f"{stem}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 4, 3)))
        idx.write(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(n) % 3)
    return tmp_path


def test_a_folder_of_idx_files(idx_folder):
    train, test = load_dataset(idx_folder), load_dataset(str(idx_folder), "test")
    assert train.images.shape == (20, 4, 3) and len(test) == 5 and train.image_shape == (4, 3)
    assert train.labels.tolist()[:4] == [0, 1, 2, 0] and train.labels.dtype == np.int64
    assert (train.name, train.split, test.split) == (str(idx_folder), "train", "test")
    assert has_split(idx_folder, "train") and has_split(idx_folder, "test")


def test_kaggles_names_with_a_dot_are_known(idx_folder):
    for path in list(idx_folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_dataset(idx_folder)) == 20


def test_a_folder_with_one_split(idx_folder):
    (idx_folder / "t10k-images-idx3-ubyte.gz").unlink()
    assert not has_split(idx_folder, "test")
    with pytest.raises(DataError, match="has no test split"):
        load_dataset(idx_folder, "test")


def test_counts_that_differ(idx_folder):
    idx.write(idx_folder / "train-labels-idx1-ubyte", np.zeros(19))
    with pytest.raises(DataError, match="20 train images but 19 labels"):
        load_dataset(idx_folder)


def test_images_without_labels(idx_folder):
    (idx_folder / "train-labels-idx1-ubyte").unlink()
    data = load_dataset(idx_folder)
    assert data.labels is None
    with pytest.raises(DataError, match="has no labels; a CSV needs a column called 'label'"):
        data.require_labels()


def test_a_missing_label_column(tmp_path):
    (tmp_path / "images.csv").write_text("pixel0,pixel1,pixel2,pixel3\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"images\.csv: has no labels"):
        load_dataset(tmp_path / "images.csv").require_labels()
    (tmp_path / "table.csv").write_text("height,width\n1.5,2\n")
    with pytest.raises(DataError, match=r"table\.csv: no column is recognised as the labels: name it, --label NAME"):
        load_dataset(tmp_path / "table.csv").require_labels()


def test_limit_takes_the_first_rows(idx_folder):
    whole, part = load_dataset(idx_folder), load_dataset(idx_folder, limit=7)
    np.testing.assert_array_equal(part.images, whole.images[:7])
    np.testing.assert_array_equal(part.labels, whole.labels[:7])
    assert len(load_dataset(idx_folder, limit=1000)) == 20


def test_limit_with_a_seed_draws_without_replacement(idx_folder):
    whole = load_dataset(idx_folder)
    a, again, b = (load_dataset(idx_folder, limit=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.images, again.images)
    assert a.digest == again.digest != b.digest
    assert a.labels.tolist() != whole.labels.tolist()
    assert sorted(map(bytes, a.images)) == sorted(map(bytes, whole.images))
    assert len(load_dataset(idx_folder, limit=3, seed=1)) == 3


def test_the_digest_is_of_what_was_loaded(idx_folder):
    data = load_dataset(idx_folder)
    content = repr(data.images.shape).encode() + data.images.tobytes() + data.labels.tobytes()
    assert data.digest == hashlib.sha256(content).hexdigest()
    idx.write(idx_folder / "train-labels-idx1-ubyte", np.ones(20))
    assert load_dataset(idx_folder).digest != data.digest


def test_the_same_data_in_another_format_has_the_same_digest(idx_folder):
    data = load_dataset(idx_folder)
    np.savez(idx_folder / "same.npz", images=data.images, labels=data.labels.astype(np.uint8))
    assert load_dataset(idx_folder / "same.npz").digest == data.digest


def test_digits_is_always_there():
    train, test = load_dataset("digits"), load_dataset("digits", "test")
    assert train.images.shape == (1437, 8, 8) and test.images.shape == (360, 8, 8)
    assert train.images.dtype == np.uint8 and train.images.max() == 255
    assert has_split("digits", "test") and has_split("mnist", "test")


def test_images_to_predict(idx_folder, tmp_path):
    pixels, ids = load_images(idx_folder / "t10k-images-idx3-ubyte.gz")
    assert pixels.shape == (5, 4, 3) and ids == ["1", "2", "3", "4", "5"]
    (tmp_path / "labelled.csv").write_text("label,a,b,c,d\n1,2,3,4,5\n")
    (tmp_path / "plain.csv").write_text("a,b,c,d\n2,3,4,5\n")
    for name in ("labelled.csv", "plain.csv"):
        pixels, ids = load_images(tmp_path / name)
        assert pixels.tolist() == [[[2, 3], [4, 5]]] and ids == ["1"]


def test_an_idx_file_under_any_name(idx_folder):
    path = idx_folder / "pictures.bin"
    (idx_folder / "t10k-images-idx3-ubyte.gz").rename(path)
    assert len(load_images(path)[0]) == 5
    assert load_dataset(path).labels is None and not has_split(path, "test")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "no such data set, file or folder; name mnist"),
        ("mnits", "did you mean mnist"),
        ("fashion_mnist", "did you mean fashion-mnist"),
    ],
)
def test_sources_that_do_not_exist(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    for call in (load_dataset, load_images, lambda name: has_split(name, "train")):
        with pytest.raises(DataError, match=message):
            call(source)


def test_a_file_of_no_known_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="of no known kind; expected an IDX file"):
        load_dataset(tmp_path / "notes.txt")


def test_a_folder_is_not_what_to_predict(idx_folder):
    with pytest.raises(DataError, match="name the one to predict"):
        load_images(idx_folder)


def test_bad_usage(idx_folder):
    with pytest.raises(UsageError, match="limit must be at least 1, not 0"):
        load_dataset(idx_folder, limit=0)
    with pytest.raises(UsageError, match="split must be 'train' or 'test', not 'dev'"):
        load_dataset(idx_folder, "dev")


def test_pipes_and_devices_are_no_data_sets(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("train.csv", "zero.csv"):
        for load in (load_dataset, load_images):
            with pytest.raises(DataError, match="is neither a file nor a folder"):
                load(tmp_path / name)


def test_idx_files_that_are_links_out_of_their_folder_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    idx.write(tmp_path / "images", np.ones((2, 3, 3)))
    (tmp_path / "set" / "train-images-idx3-ubyte").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match="is a link that leads out of"):
        load_dataset(tmp_path / "set")


def test_a_name_with_idx_in_it_does_not_make_a_file_idx(tmp_path):
    (tmp_path / "idx_2021.csv").write_text("a,b,label\n" + "1.5,2,0\n2.5,3,1\n" * 5)
    assert load_dataset(tmp_path / "idx_2021.csv").columns == ("a", "b")


@pytest.mark.parametrize("load", [load_dataset, load_samples])
def test_a_keyword_that_is_none_of_theirs_is_refused_by_name(load):
    with pytest.raises(TypeError, match=rf"{load.__name__}\(\) got an unexpected keyword argument 'labels'"):
        load("digits", labels="y")

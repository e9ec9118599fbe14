"""Pairs of IDX files by the names that MNIST and its successors have."""

import numpy as np
import pytest

from gpusvm.data import has_split, idx, load_dataset, load_images
from gpusvm.errors import DataError, DataWarning

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def write(folder, stem, ending="", images=IMAGES, labels=True):
    idx.write(folder / f"{stem}-images-idx3-ubyte{ending}", images)
    if labels:
        idx.write(folder / f"{stem}-labels-idx1-ubyte{ending}", np.arange(len(images)))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("name", ["", "kmnist-", "some-set-"])
def test_a_folder_of_one_set(tmp_path, name, test, ending):
    write(tmp_path, f"{name}train", ending)
    write(tmp_path, f"{name}{test}", ending, images=IMAGES[:1] + 100)
    train, tested = load_dataset(tmp_path), load_dataset(tmp_path, "test")
    np.testing.assert_array_equal(train.images, IMAGES)
    assert train.labels.tolist() == [0, 1] and tested.images[0, 0, 0] == 100 and tested.labels.tolist() == [0]


def test_emnist_is_turned_upright_and_said(tmp_path):
    write(tmp_path, "emnist-letters-train", ".gz")
    with pytest.warns(DataWarning, match="EMNIST's files hold each image on its side; they were turned upright"):
        data = load_dataset(tmp_path)
    np.testing.assert_array_equal(data.images, IMAGES.transpose(0, 2, 1))
    path = tmp_path / "emnist-letters-train-images-idx3-ubyte.gz"
    with pytest.warns(DataWarning, match="turned upright"):
        np.testing.assert_array_equal(load_images(path)[0], data.images)


def test_of_several_sets_one_must_be_named(tmp_path):
    for name in ("emnist-letters", "emnist-digits"):
        write(tmp_path, f"{name}-train")
        write(tmp_path, f"{name}-test", images=IMAGES[:1])
    with pytest.raises(DataError, match=r"several data sets \(emnist-digits, emnist-letters\); name the images of one"):
        load_dataset(tmp_path)
    path = tmp_path / "emnist-letters-train-images-idx3-ubyte"
    with pytest.warns(DataWarning, match="turned"):
        assert has_split(path, "test") and len(load_dataset(path)) == 2 and len(load_dataset(path, "test")) == 1


def test_a_file_of_test_images_is_all_there_is_when_it_is_named(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "t10k", images=IMAGES[:1] + 100)
    path = tmp_path / "t10k-images-idx3-ubyte"
    assert not has_split(path, "test")
    data = load_dataset(path)
    assert data.images[0, 0, 0] == 100 and data.labels.tolist() == [0]


def test_images_without_labels_and_under_any_name(tmp_path):
    write(tmp_path, "train", labels=False)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "mine.idx")
    assert load_dataset(tmp_path / "mine.idx").labels is None


def test_labels_that_are_named_as_images_are_refused(tmp_path):
    write(tmp_path, "train")
    with pytest.raises(DataError, match="this is an IDX file of labels"):
        load_dataset(tmp_path / "train-labels-idx1-ubyte")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(DataError, match="cannot be read: denied"):
        load_dataset(tmp_path)

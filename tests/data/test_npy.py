"""Arrays in files of their own."""

import pickle

import numpy as np
import pytest

from gpusvm.data import Dataset, Table, has_split, load_dataset, load_samples
from gpusvm.errors import DataError, DataWarning

X, Y = np.arange(12.0).reshape(4, 3) / 7, np.array([0, 1, 0, 1])


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize(
    ("samples", "labels"),
    [("X", "y"), ("X_train", "y_train"), ("heart_X", "heart_y"), ("features", "labels"), ("heart", "heart_labels"),
     ("train_images", "train_labels"), ("data", "target")],
)  # fmt: skip
def test_labels_are_found_beside_the_samples_and_that_is_said(tmp_path, samples, labels):
    save(tmp_path, **{samples: X, labels: Y})
    with pytest.warns(DataWarning, match=rf"labels are taken from {labels}\.npy beside it"):
        table = load_dataset(tmp_path / f"{samples}.npy")
    assert isinstance(table, Table) and table.X.tolist() == X.tolist() and table.labels.tolist() == Y.tolist()


def test_both_splits_as_a_folder_or_by_the_first_file(tmp_path):
    save(tmp_path, X_train=X, y_train=Y, X_test=X[:1], y_test=Y[:1])
    for source in (tmp_path, tmp_path / "X_train.npy"):
        assert has_split(source, "train") and has_split(source, "test")
        assert len(load_dataset(source)) == 4
        test = load_dataset(source, "test")
        assert len(test) == 1 and test.labels.tolist() == [0]


def test_images_are_images(tmp_path):
    save(tmp_path, X=np.zeros((4, 5, 5), dtype=np.uint8), y=np.array(list("abab")))
    data = load_dataset(tmp_path)
    assert isinstance(data, Dataset) and data.image_shape == (5, 5) and data.labels.tolist() == list("abab")
    assert load_samples(tmp_path / "X.npy")[0].shape == (4, 5, 5)


def test_without_labels_it_can_be_predicted_and_says_what_training_needs(tmp_path):
    save(tmp_path, unknown=X)
    table = load_samples(tmp_path / "unknown.npy")
    assert table.labels is None
    with pytest.raises(DataError, match="an array y beside X"):
        table.require_labels()


def test_what_is_wrong_is_said(tmp_path):
    save(tmp_path, X=X, y=Y[:3])
    with pytest.raises(DataError, match="4 train rows but 3 labels"):
        load_dataset(tmp_path)
    np.save(tmp_path / "o.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(DataError, match="Object arrays are pickles"):
        load_dataset(tmp_path / "o.npy")
    content = (tmp_path / "X.npy").read_bytes()
    for damaged in (content[:-1], content + b"x", content[:40], pickle.dumps(X)):
        (tmp_path / "d.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read|is no such file"):
            load_dataset(tmp_path / "d.npy")
    with pytest.raises(DataError, match="name the one to predict"):
        load_samples(tmp_path)


def test_links_out_of_a_folder_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    save(tmp_path, secret=X)
    (tmp_path / "set" / "X.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(DataError, match="is a link that leads out of"):
        load_dataset(tmp_path / "set")

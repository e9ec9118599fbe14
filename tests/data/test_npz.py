"""NumPy archives: the layouts that are understood, and what is said of the others."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusvm.data import load_images, npz
from gpusvm.errors import DataError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1])


def save(folder, **arrays):
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("keys", [("x_train", "y_train"), ("images", "labels"), ("X", "y")])
def test_layouts(tmp_path, keys):
    path = save(tmp_path, **dict(zip(keys, (IMAGES, LABELS), strict=True)))
    images, labels = npz.read(path)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64
    assert npz.has_split(path, "train") and not npz.has_split(path, "test")


def test_keras_layout_has_both_splits(tmp_path):
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:1], y_test=LABELS[:1])
    assert npz.has_split(path, "test")
    images, labels = npz.read(path, "test")
    assert len(images) == len(labels) == 1
    assert len(load_images(path)[0]) == 1


def test_forms_of_images_and_labels(tmp_path):
    images, labels = npz.read(save(tmp_path, X=np.arange(18.0).reshape(2, 9), y=np.array([["a"], ["b"]])))
    assert images.shape == (2, 3, 3) and images.dtype == np.uint8
    assert labels.tolist() == ["a", "b"]
    images, labels = npz.read(save(tmp_path, images=IMAGES[..., None].astype(np.int32)))
    assert images.shape == IMAGES.shape and labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": IMAGES}, r"no train images.*\(other\)"),
        ({"X": IMAGES.astype(float) + 0.5}, "not whole numbers"),
        ({"X": np.full((1, 4), np.nan)}, "NaN"),
        ({"X": np.full((1, 4), 256)}, "range from 256 to 256"),
        ({"X": np.full((1, 4), -1.0)}, "range from -1"),
        ({"X": np.array(["a"])}, "shape"),
        ({"X": np.full((1, 4), "a")}, "dtype"),
        ({"X": np.zeros((2, 3, 4, 3), dtype=np.uint8)}, "must be grey"),
        ({"X": np.zeros((0, 4), dtype=np.uint8)}, "holds no images"),
        ({"X": IMAGES, "y": LABELS[None]}, r"labels must be \(n,\)"),
        ({"X": IMAGES, "y": LABELS + 0.5}, "labels must be integers or strings"),
        ({"X": np.array([[None]])}, "allow_pickle|Object arrays"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, message):
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        npz.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"text", b"\x80\x04N."])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        npz.read(path)


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match="one array, not an archive"):
        npz.read(tmp_path / "data.npz")


def test_a_member_that_promises_too_much(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("X.npy", header.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        npz.read(tmp_path / "data.npz")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return save(tmp_path_factory.mktemp("npz"), X=IMAGES, y=LABELS)


@given(position=st.integers(0, 600), value=st.integers(0, 255), keep=st.integers(0, 900))
@settings(max_examples=200, deadline=None)
def test_damaged_archives_give_images_or_a_data_error(archive, position, value, keep):
    content = bytearray(archive.read_bytes())
    content[position % len(content)] = value
    damaged = archive.with_name("damaged.npz")
    damaged.write_bytes(content[: max(keep, 10)])
    try:
        npz.read(damaged)
    except DataError as error:
        assert "\n" not in str(error)

"""NumPy archives: the layouts that are understood, and what is said of the others."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusvm.data import load_dataset, load_images, npz
from gpusvm.errors import DataError, DataWarning
from gpusvm.memory import peak_rss_mb, reset_peak_rss

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1])


def save(folder, **arrays):
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train"),
        ("images", "labels"),
        ("X", "y"),
        ("X_train", "y_train"),
        ("train_images", "train_labels"),
        ("data", "target"),
    ],
)
def test_layouts(tmp_path, keys):
    path = save(tmp_path, **dict(zip(keys, (IMAGES, LABELS), strict=True)))
    images, labels = npz.read(path)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64
    assert npz.has_split(path, "train") and not npz.has_split(path, "test")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES > 30, "truth values were taken for black and white: True is 255"),
        ((IMAGES / 255).astype(np.float32), "pixels from 0 to 1 were multiplied by 255"),
        (IMAGES / 255, "pixels from 0 to 1 were multiplied by 255"),
        ((IMAGES / 255).astype(np.float16), "pixels from 0 to 1 were multiplied by 255"),
    ],
)
def test_pixels_in_another_range_are_brought_to_bytes_and_said(tmp_path, images, said):
    with pytest.warns(DataWarning, match=said):
        found, _ = npz.read(save(tmp_path, images=images))
    expected = np.where(images, 255, 0) if images.dtype == bool else IMAGES
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("split", ["train", "test"])
def test_whether_it_has_a_split_is_answered_with_its_keys_where_it_has_none(tmp_path, split):
    with pytest.raises(DataError, match=rf"has no {split} samples: no '[xX]_{split}' or .*among its keys \(arr_0\)"):
        npz.has_split(save(tmp_path, arr_0=IMAGES), split)


@pytest.mark.parametrize("keys", [("X_train", "X_test"), ("train_images", "test_images")])
def test_other_names_for_both_splits(tmp_path, keys):
    path = save(tmp_path, **dict(zip(keys, (IMAGES, IMAGES[:1]), strict=True)))
    assert npz.has_split(path, "test") and len(npz.read(path, "test")[0]) == 1
    assert len(npz.read_images(path)) == 1


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
        ({"other": IMAGES}, r"no train samples.*\(other\)"),
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
        ({"X": np.array([[None]])}, "Object arrays are pickles, which could run code"),
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


def archive_of(folder, members, method=zipfile.ZIP_DEFLATED):
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def member(array_bytes, **header):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(array_bytes), 1)} | header
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array_bytes


class Evil:
    def __init__(self, owned):
        self.owned = owned

    def __reduce__(self):
        return (open, (self.owned, "w"))


@pytest.mark.parametrize("key", ["X", "y"])
@pytest.mark.parametrize("form", ["array of objects", "pickle", "header"])
def test_a_pickle_in_an_archive_is_refused_and_not_run(tmp_path, key, form):
    evil = Evil(str(tmp_path / "owned"))
    content = {
        "array of objects": np.array([[evil]], dtype=object),
        "pickle": pickle.dumps(evil),
        "header": member(pickle.dumps(evil), descr="|O", shape=(1,)),
    }[form]
    if form == "array of objects":
        path = save(tmp_path, **{"X": IMAGES, key: content})
    else:
        path = archive_of(tmp_path, {"X.npy": member(bytes(4)), f"{key}.npy": content})
    with pytest.raises(DataError, match="cannot be read"):
        npz.read(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no array at all", "cannot be read"),
        (bytes(50_000_000), "cannot be read"),
        (member(bytes(50_000_000), shape=(1, 4)), "not what the archive holds"),
        (member(bytes(4), shape=(2**40, 2**20)), "not what the archive holds"),
        (member(bytes(4), shape=(2**32, 2**32)), "not what the archive holds"),
        (member(bytes(4), shape=(-1, -4)), "not what the archive holds"),
        (member(b"", descr="<U0", shape=(10**12, 1)), "not what the archive holds"),
    ],
)
def test_a_member_that_is_not_what_it_says_is_not_unpacked(tmp_path, content, message):
    path = archive_of(tmp_path, {"X.npy": content})
    reset_peak_rss()
    before = peak_rss_mb()
    with pytest.raises(DataError, match=message):
        npz.read(path)
    assert peak_rss_mb() - before < 20


# What the directory says of a member: how many bytes it has in the archive, and how many when it
# is unpacked.
LIES = {"the size": (None, 2**31), "both sizes": (2**31, 2**31)}


@pytest.mark.parametrize("lie", LIES)
def test_an_archive_whose_directory_lies(tmp_path, lie):
    path = archive_of(tmp_path, {"X.npy": member(bytes(4))}, zipfile.ZIP_STORED)
    truth, header_size = member(bytes(4)), len(member(b""))
    promise = member(b"", shape=(2**31 - header_size, 1)) + bytes(4)
    packed, unpacked = (len(truth) if size is None else size for size in LIES[lie])
    sizes = struct.pack("<2I", len(truth), len(truth)), struct.pack("<2I", packed, unpacked)
    path.write_bytes(path.read_bytes().replace(truth, promise).replace(*sizes))
    reset_peak_rss()
    before = peak_rss_mb()
    with pytest.raises(DataError, match="cannot be read") as caught:
        npz.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert peak_rss_mb() - before < 20


@pytest.mark.parametrize("lie", LIES)
def test_a_member_larger_than_its_archive_is_not_begun(lie):
    """Python may find that out before us; so here it is not asked."""
    content = member(b"", shape=(2**31 - len(member(b"")), 1)) + bytes(4)
    info = zipfile.ZipInfo("X.npy")
    packed, info.file_size = LIES[lie]
    info.compress_size = len(content) if packed is None else packed
    with pytest.raises(ValueError, match="too small for what it says it holds"):
        npz._promised_bytes(io.BytesIO(content), info, archive_bytes=500)


def test_methods_that_expand_without_bound_are_refused(tmp_path):
    path = archive_of(tmp_path, {"X.npy": member(bytes(50_000_000))}, zipfile.ZIP_BZIP2)
    assert path.stat().st_size < 1000
    with pytest.raises(DataError, match="compressed in another way"):
        npz.read(path)


@pytest.mark.parametrize("name", ["../X.npy", "/X.npy", "X/../../X.npy", "a/X.npy"])
def test_names_that_lead_elsewhere_are_names_of_nothing(tmp_path, name):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = archive_of(folder, {name: member(bytes(4))})
    with pytest.raises(DataError, match="has no train samples"):
        npz.read(path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_sparse_matrices_and_a_column_a_class_are_refused_with_a_cure(tmp_path):
    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.random(20, 9, 0.3, format="csr", random_state=0))
    with pytest.raises(DataError, match=r"is a sparse matrix of SciPy, .*dump_svmlight_file"):
        load_dataset(tmp_path / "s.npz")
    np.savez(tmp_path / "y.npz", X=np.full((4, 3), 0.5), y=np.eye(2)[[0, 1, 0, 1]])
    with pytest.raises(DataError, match=r"has shape \(4, 2\); .* take y\.argmax\(axis=1\)"):
        load_dataset(tmp_path / "y.npz")

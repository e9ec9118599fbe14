"""The IDX reader: what it reads, and what it says of files it cannot."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpusvm.data import idx, pixels
from gpusvm.errors import DataError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
PLAIN = struct.pack(">4I", 0x803, 2, 3, 4) + IMAGES.tobytes()


def write(folder, content, name="train-images-idx3-ubyte"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@pytest.mark.parametrize("name", ["images", "images.gz"])
@given(images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
@settings(max_examples=30, deadline=None)
def test_images_survive_a_round_trip(folder, name, images):
    idx.write(folder / name, images)
    read = idx.read_images(folder / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, images)


@given(labels=hnp.arrays(np.uint8, st.integers(1, 50)))
@settings(max_examples=30, deadline=None)
def test_labels_survive_a_round_trip(folder, labels):
    idx.write(folder / "labels.gz", labels)
    read = idx.read_labels(folder / "labels.gz")
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, labels)


def test_gzip_is_recognised_by_content_not_name(tmp_path):
    path = write(tmp_path, gzip.compress(PLAIN, mtime=0))
    np.testing.assert_array_equal(idx.read_images(path), IMAGES)


def test_several_gzip_members_are_one_file(tmp_path):
    path = write(tmp_path, gzip.compress(PLAIN[:20], mtime=0) + gzip.compress(PLAIN[20:], mtime=0))
    np.testing.assert_array_equal(idx.read_images(path), IMAGES)


@given(content=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_give_only_data_errors(folder, content):
    for name in ("noise", "noise.gz"):
        with pytest.raises(DataError):
            idx.read_images(write(folder, content, name))


@given(tail=st.binary(max_size=80), packed=st.booleans(), cut=st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_damaged_files_give_images_or_a_data_error(folder, tail, packed, cut):
    content = struct.pack(">I", 0x803) + tail
    content = gzip.compress(content, mtime=0)[: len(content) + 30 - cut] if packed else content
    try:
        images = idx.read_images(write(folder, content, "damaged"))
    except DataError:
        return
    assert images.ndim == 3


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a", "is empty"),
        (PLAIN[:10], "a", "12|10 bytes are no IDX header"),
        (PLAIN[:-1], "a", "truncated: its header says 2 images of 3x4"),
        (PLAIN + b"\0", "a", "longer than its header says"),
        (gzip.compress(PLAIN[:-1], mtime=0), "a.gz", "only 23 bytes follow"),
        (gzip.compress(PLAIN + b"\0", mtime=0), "a.gz", "longer than its header says"),
        (gzip.compress(PLAIN, mtime=0)[:-12], "a.gz", "gzip stream ends early"),
        (gzip.compress(PLAIN, mtime=0)[:-8] + bytes(8), "a.gz", "damaged gzip"),
        (PLAIN, "a.gz", "named .gz but is not gzip"),
        (b"<html>not found</html>", "a.gz", "named .gz but is not gzip"),
        (struct.pack(">2I", 0x801, 1) + b"\7", "a", "wrong IDX magic 0x00000801.*an IDX file of labels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a", "wrong IDX magic 0x89504e47"),
        (struct.pack(">4I", 0x803, 0, 28, 28), "a", "holds nothing"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, name, message):
    path = write(tmp_path, content, name)
    with pytest.raises(DataError, match=message) as caught:
        idx.read_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_promises_too_much_allocates_nothing(tmp_path, pack):
    path = write(tmp_path, pack(struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)))
    with pytest.raises(DataError, match="truncated"):
        idx.read_images(path)


def test_no_more_is_unpacked_than_the_header_says(tmp_path, monkeypatch):
    path = write(tmp_path, gzip.compress(PLAIN + bytes(50_000_000), mtime=0), "bomb.gz")
    read = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: read.append(n) or original(self, n))
    with pytest.raises(DataError, match="longer"):
        idx.read_images(path)
    assert sum(read) == len(PLAIN) + 1


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="absent: cannot be read"):
        idx.read_images(tmp_path / "absent")


def test_checksum_is_of_the_decompressed_bytes(tmp_path):
    import hashlib

    right = "sha256:" + hashlib.sha256(PLAIN).hexdigest()
    for name, content in (("a", PLAIN), ("a.gz", gzip.compress(PLAIN, mtime=0))):
        path = write(tmp_path, content, name)
        idx.read_images(path, right)
        assert idx.matches(path, right, len(PLAIN))
        with pytest.raises(DataError, match="not the published file"):
            idx.read_images(path, "md5:" + "0" * 32)
        assert not idx.matches(path, "md5:" + "0" * 32, len(PLAIN))


def test_write_refuses_what_is_no_byte(tmp_path):
    with pytest.raises(DataError, match="0 to 255"):
        idx.write(tmp_path / "a", np.array([256]))
    with pytest.raises(DataError, match="not shape"):
        idx.write(tmp_path / "a", np.zeros((2, 2), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("magic", "shape", "taken_mb"), [(0x803, (1000, 1000, 100), 95), (0x801, (10**8,), 858)])
def test_more_than_there_is_memory_for_is_refused(tmp_path, monkeypatch, magic, shape, taken_mb):
    monkeypatch.setattr(pixels, "available_mb", lambda: 90.0)
    path = write(tmp_path, gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + bytes(10**8)), "a.gz")
    with pytest.raises(DataError, match=f"takes {taken_mb} MB of memory, and 90 MB are free"):
        idx.read_images(path) if magic == 0x803 else idx.read_labels(path)

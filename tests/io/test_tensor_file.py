"""safetensors files that are none, or whose header says what is not so."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from gpusvm.io.tensor_file import LARGEST_HEADER_BYTES, UnreadableError, read_tensors, write_tensors


def accept(metadata):
    pass


def write_raw(path, header, data=b"", length=None):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_arrays_come_back_and_only_those_asked_for(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([True, False]), "c": np.zeros(0)}
    write_tensors(tmp_path / "f", arrays, {"format": "test"})
    found, metadata = read_tensors(tmp_path / "f", ["a", "b", "absent"], accept)
    assert metadata == {"format": "test"} and set(found) == {"a", "b"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == arrays[name].dtype


def test_metadata_are_checked_before_arrays_are_read(tmp_path):
    write_tensors(tmp_path / "f", {"a": np.zeros(3)}, {"format": "another"})

    class OfAnotherKind(Exception):
        pass

    def refuse(metadata):
        raise OfAnotherKind(metadata["format"])

    with pytest.raises(OfAnotherKind, match="another"):
        read_tensors(tmp_path / "f", ["a"], refuse)


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        ({"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}, b""),  # a type that NumPy has not
        ({"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}, bytes(8)),
        ({"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}, bytes(8)),
        ({"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 8]}, bytes(8)),
        ({"dtype": "F64", "shape": [1], "data_offsets": [8, 0]}, bytes(8)),
    ],
)
def test_arrays_that_are_not_there(tmp_path, entry, data):
    path = write_raw(tmp_path / "f", {"__metadata__": {}, "a": entry}, data)
    with pytest.raises(UnreadableError):
        read_tensors(path, ["a"], accept)


@pytest.mark.parametrize("length", [LARGEST_HEADER_BYTES + 1, 2**64 - 1])
def test_a_header_too_long_is_not_read(tmp_path, length):
    path = write_raw(tmp_path / "f", {}, length=length)
    with pytest.raises(UnreadableError, match=f"its header says it has {length:,} bytes"):
        read_tensors(path, ["a"], accept)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here: Windows has no os.mkfifo")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f")
    with pytest.raises(UnreadableError, match="not a file"):
        read_tensors(tmp_path / "f", ["a"], accept)


def test_a_folder_and_nothing_at_all(tmp_path):
    for path in (tmp_path, Path(tmp_path, "absent")):
        with pytest.raises(UnreadableError, match="not a file"):
            read_tensors(path, ["a"], accept)

"""The real MNIST files, where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from gpusvm.data import csv, find_local, load_dataset, verify

pytestmark = [
    pytest.mark.mnist,
    pytest.mark.skipif("GPUSVM_DATA_DIR" not in os.environ, reason="GPUSVM_DATA_DIR is not set"),
]


def test_the_files_are_the_published_ones():
    assert [check.status for check in verify("mnist")] == ["ok"] * 4


def test_the_training_images():
    data = load_dataset("mnist")
    assert data.images.shape == (60_000, 28, 28) and data.images.dtype == np.uint8
    assert np.bincount(data.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_the_test_images():
    data = load_dataset("mnist", "test")
    assert data.images.shape == (10_000, 28, 28)
    assert np.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_its_folder_is_a_source_too():
    folder = find_local("mnist")
    assert load_dataset(Path(folder), "test").digest == load_dataset("mnist", "test").digest


def test_kaggles_csv_gives_the_same_images(tmp_path):
    data = load_dataset("mnist", "test", limit=2000)
    rows = np.column_stack([data.labels, data.images.reshape(len(data), -1)]).tolist()
    header = "label," + ",".join(f"pixel{i}" for i in range(784))
    (tmp_path / "train.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    images, labels = csv.read(tmp_path / "train.csv")
    np.testing.assert_array_equal(images, data.images)
    np.testing.assert_array_equal(labels, data.labels)

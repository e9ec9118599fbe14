"""The samples of one measurement, from a data set to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusvm.bench.named_tables import LabelledSamples, load_table
from gpusvm.bench.spec import Spec
from gpusvm.bench.suite import Case
from gpusvm.data import Dataset, has_split, load_dataset
from gpusvm.errors import DataError
from gpusvm.preprocess import apply_steps, build_steps


class TrainTestData:
    """Training and test samples: images preprocessed as `gpusvm train` would, tables as they are.

    Attributes
    ----------
    X, X_test : (n, n_features) float32 array
    y, y_test : (n,) array of labels
    classes : (n_classes,) array
        The sorted labels of both.

    Raises
    ------
    DataError
        The data cannot be had, or are too few.
    """

    def __init__(self, spec: Spec) -> None:
        if spec.table is None:
            self._load_images(spec)
        else:
            self._load_table(spec, spec.table)
        self.classes = np.union1d(self.y, self.y_test)

    def _load_images(self, spec: Spec) -> None:
        train = load_dataset(
            spec.dataset, "train", limit=spec.n_train, seed=spec.seed, data_dir=spec.data_dir, kind="images"
        )
        test = load_test_images(spec.dataset, spec.test_dataset, spec.n_test, spec.data_dir)
        if len(train) < spec.n_train:
            raise DataError(f"{spec.dataset}: has {len(train):,} training images, not {spec.n_train:,}")
        steps = build_steps(train.image_shape, binarize=spec.binarize, deskew=spec.deskew)
        self.X = apply_steps(steps, train.images, train.image_shape)
        self.X_test = apply_steps(steps, test.images, train.image_shape)
        self.y, self.y_test = train.require_labels(), test.require_labels()

    def _load_table(self, spec: Spec, described: dict[str, Any]) -> None:
        table = load_table(spec.dataset, described, spec.data_dir)
        train, test = split_table(table, spec.dataset, spec.case, spec.n_train)
        self.X, self.y = train.X, train.y
        self.X_test, self.y_test = test.X, test.y


def split_table(table: LabelledSamples, name: str, case: Case, n_train: int) -> tuple[LabelledSamples, LabelledSamples]:
    """The first `n_train` rows to train on, and the case's last `n_test` to predict.

    Raises DataError where there are too few, or the two share rows and the case does not allow it.
    """
    n, n_test = len(table), case.n_test or 0
    if max(n_train, n_test) > n:
        raise DataError(f"{name}: has {n:,} rows, not {max(n_train, n_test):,}")
    if n_train + n_test > n and not case.test_on_training:
        raise DataError(
            f"{name}: has {n:,} rows, too few to train on {n_train:,} and test on {n_test:,} others; "
            "ask for fewer, or set test_on_training"
        )
    return table.rows(slice(n_train)), table.rows(slice(n - n_test, n))


def load_test_images(dataset: str, test_dataset: str | None, n_test: int | None, data_dir: str | None) -> Dataset:
    """The test images of a suite: the data set's own, or another source's.

    Of another source they are its test split, or its training split where it has no other. Raises
    DataError where there are none.
    """
    if test_dataset is None:
        return load_dataset(dataset, "test", limit=n_test, data_dir=data_dir, kind="images")
    split = "test" if has_split(test_dataset, "test", data_dir) else "train"
    return load_dataset(test_dataset, split, limit=n_test, data_dir=data_dir, kind="images")

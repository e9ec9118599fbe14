"""What to train on and what to test on: loaded, held out, and found to go together.

What does not go together is found before hours of training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from gpusvm.data import CATALOGUE, Dataset, Table, has_split, load_dataset
from gpusvm.data.column_figures import column_name, row_numbers
from gpusvm.data.formats import ALWAYS_IMAGES, ALWAYS_TABLES, find_format
from gpusvm.data.images import is_picture
from gpusvm.data.pixels import ImageShape
from gpusvm.data.table_folder import test_beside
from gpusvm.errors import DataError, DataWarning, warn
from gpusvm.evaluation import class_indices
from gpusvm.model import SVMModel, TableLayout
from gpusvm.preprocess import check_image_shape
from gpusvm.sparse import is_sparse, nonzeros_of_row, widened

DEFAULT_TEST_SIZE = 0.2

MOST_RARE_CLASSES = 20
"""So many classes are believed of the smallest table; more must have two rows each, on average."""

_NAMED = 5
"""So many columns are named in a message."""

Samples = Dataset | Table
"""Images or rows, with their labels."""


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on and what to test on.

    `drawn`: at random from more rows of a table. `row_numbers`: the feature that only numbers the
    rows, if one does.
    """

    train: Samples
    test: Samples
    description: str
    drawn: bool = False
    row_numbers: str = ""


@dataclass(frozen=True)
class Reading:
    """How a source is to be read; see `gpusvm.data.load_dataset`."""

    kind: str = "auto"
    label: str | None = None
    drop: tuple[str, ...] = ()
    data_dir: str | None = None
    resize: ImageShape | None = None
    progress: bool = False


def load_split(
    source: str,
    *,
    reading: Reading = Reading(),
    test_source: str | None = None,
    limit: int | None = None,
    test_size: float | None = None,
    seed: int = 0,
) -> Split:
    """Load what to train on and what to test on.

    The test samples are `test_source`, or the source's own where it has some, or those of a file
    that by its name belongs to it (a9a.t beside a9a, test.csv beside train.csv), else a random
    fraction held out. Of a table each class is held out in proportion, where it is large enough.

    Parameters
    ----------
    source : str
        A catalogue name, a file or a folder; see `gpusvm.data.load_dataset`.
    reading : Reading
    test_source : str, optional
        Another source, of the same kind and with the same columns.
    limit : int, optional
        Train on (and hold out of) so many samples: the first images, or rows of a table drawn at
        random, since tables are often sorted by class.
    test_size : float, optional
        Fraction to hold out, also where the source has test samples of its own.
    seed : int
        Of what is drawn and held out.

    Raises
    ------
    DataError
        A source cannot be read, has no labels or such as are no classes, is too small to split,
        its training samples are all the same, or its test samples do not go with the others:
        another size, other columns, or classes that are not among the training samples.
    """
    data = load_dataset(
        source, "train", data_dir=reading.data_dir, progress=reading.progress, kind=reading.kind,
        label=reading.label, drop=reading.drop, resize=reading.resize,
    )  # fmt: skip
    whole, data = data, _limited(data, limit, seed)
    drawn = isinstance(data, Table) and data is not whole
    numbered = _row_numbers(whole)
    _require_classes(data)
    if test_source is not None or test_size is None:
        data, test, where = _find_test(source, test_source, data, reading)
        if test is not None:
            _require_differences(data)
            return Split(data, test, f"the {counted(test, 'test ')} of {where}", drawn, numbered)
    fraction = DEFAULT_TEST_SIZE if test_size is None else test_size
    stratified = isinstance(data, Table) and _can_stratify(data.require_labels(), fraction)
    train, test = _hold_out(data, fraction, seed, stratified)
    _require_differences(train)
    how = f"{fraction:.0%}, seed {seed}{', stratified' if stratified else ''}"
    return Split(train, test, f"{counted(test)} held out ({how})", drawn, numbered)


def _limited(data: Samples, limit: int | None, seed: int) -> Samples:
    """So many of the samples; see `load_split`."""
    if limit is None or limit >= len(data):
        return data
    if isinstance(data, Table):
        return data.take(np.sort(np.random.default_rng(seed).choice(len(data), limit, replace=False)))
    return data.take(np.arange(limit))


def _row_numbers(data: Samples) -> str:
    """The feature that only numbers the rows; "" where none does."""
    if not isinstance(data, Table):
        return ""
    column = row_numbers(data)
    return "" if column is None else column_name(data, column)


def counted(data: Samples, kind: str = "") -> str:
    """How many samples there are, in words: "5 training images"."""
    return plural(len(data), kind + data.unit)


def plural(n: int, one: str, many: str | None = None) -> str:
    """A count of things, by the word for one of them: "1 class", "2 classes"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _require_differences(train: Samples) -> None:
    """Raise DataError where all samples are the same: no model can tell their classes apart."""
    if isinstance(train, Dataset):
        same = all(np.array_equal(image, train.images[0]) for image in train.images)
        what, cure = f"all {counted(train, 'training ')} are the same picture", "check the file"
    else:
        X = train.X
        first = nonzeros_of_row(X, 0)
        same = all(np.array_equal(first, nonzeros_of_row(X, r)) for r in range(X.shape[0]))
        named = f" ({', '.join(train.columns)})" if 0 < len(train.columns) <= _NAMED else ""
        features = "the only feature is" if train.n_features == 1 else f"all {train.n_features:,} features are"
        what = f"{features} constant in the {counted(train, 'training ')}{named}"
        cure = "check the file, its labels (--label), and what is left out (--drop)"
    if same:
        raise DataError(f"{train.name}: {what}, so there is nothing to tell classes by; {cure}")


def _find_test(
    source: str, test_source: str | None, train: Samples, reading: Reading
) -> tuple[Samples, Samples | None, str]:
    """The samples to train on, those to test on, and where they are from; see `load_split`.

    There are none to test on where the source has none with labels.
    """
    where = test_source or source
    is_beside = False
    if test_source is None and not has_split(source, "test", reading.data_dir):
        beside = None if source in CATALOGUE or Path(source).is_dir() else test_beside(Path(source))
        if beside is None:
            return train, None, ""
        where, is_beside = str(beside), True
    try:
        test = _load_test(where, train, reading)
        if test.labels is None and test_source is None:
            name = where if is_beside else f"{where}, test split"
            warn(f"{name}: has no labels, and is not tested on", DataWarning)
            return train, None, ""
        class_indices(np.unique(train.require_labels()), test.require_labels(), where=where)
    except DataError as error:
        if not is_beside:
            raise
        cure = "name another file to test on (--test), or hold out samples (--test-size 0.2)"
        raise DataError(f"{error}; it is taken for the test file of {Path(source).name}: {cure}") from error
    if isinstance(train, Table) and isinstance(test, Table) and is_sparse(train.X) and is_sparse(test.X):
        n_features = max(train.n_features, test.n_features)  # a file need not show its last features
        train, test = (replace(each, X=widened(each.X, n_features)) for each in (train, test))
    return train, test, f"{where}, beside it" if is_beside else where


def _load_test(source: str, train: Samples, reading: Reading) -> Samples:
    """The test samples of a source: its test split where it has one, else all.

    What does not fit the training samples is found here.
    """
    split = "test" if has_split(source, "test", reading.data_dir) else "train"
    if isinstance(train, Dataset):
        images = load_dataset(source, split, data_dir=reading.data_dir, kind="images", resize=reading.resize)
        check_image_shape(images.images, train.image_shape)
        return images
    table = TableLayout.of(train)
    if reading.label is not None and train.columns:
        table = replace(table, label_name=reading.label)
    only_where = Reading(data_dir=reading.data_dir)
    return load_like(source, split, table, train.n_features, only_where, may_have_more=is_sparse(train.X))


def load_like(
    source: str,
    split: str,
    table: TableLayout,
    n_features: int,
    reading: Reading = Reading(),
    limit: int | None = None,
    seed: int | None = None,
    may_have_more: bool = False,
) -> Table:
    """Load a table with just these features.

    They are found by name where both have names, else by their number. With `may_have_more` a
    sparse table may have any number. Of `reading` its kind, label and size mean nothing here.

    Raises
    ------
    DataError
        The source cannot be read, lacks a column, or has another number of them.
    """
    found = load_dataset(
        source, split, limit=limit, seed=seed, data_dir=reading.data_dir, kind="table", label=table.label,
        drop=reading.drop, progress=reading.progress, columns=table.columns, first_index=table.first_index,
        left_out=table.left_out, n_features=None if may_have_more else n_features,
    )  # fmt: skip
    assert isinstance(found, Table)  # a table was asked for
    if not (may_have_more and is_sparse(found.X)):
        require_features(found, n_features)
    say_by_order(found, table)
    return found


def say_by_order(found: Table, table: TableLayout) -> None:
    """Warn where columns are taken by order, though this table or the training's names them."""
    if bool(found.columns) != bool(table.columns):
        what = "names no columns" if table.columns else "names columns, and the training data did not"
        warn(f"{found.name}: {what}: they are taken in the order of the training data", DataWarning)


def fitting(table: Table, model: SVMModel) -> Table:
    """The table, if it has as many features as the model.

    A model from LIBSVM does not say how many there were: it takes more, and of a sparse table
    fewer, which are then followed by zeros, as for svm-predict.

    Raises
    ------
    DataError
        It has another number of features.
    """
    if model.from_libsvm and table.n_features > model.n_features:
        return table
    if model.from_libsvm and table.n_features < model.n_features and is_sparse(table.X):
        return replace(table, X=widened(table.X, model.n_features))
    require_features(table, model.n_features)
    return table


def require_features(table: Table, n_features: int) -> None:
    """Raise DataError unless the table has so many features."""
    if table.n_features != n_features:
        raise DataError(
            f"{table.name}: has {table.n_features:,} columns of numbers, the model expects {n_features:,}: the same as"
            " in training, in the same order; name a column of labels with --label, leave others out of the file"
        )


def require_kind(model: SVMModel, source: str) -> None:
    """Raise DataError where a source, by its format alone, cannot hold what the model takes.

    That is images or a table.
    """
    if source in CATALOGUE:
        holds_images, holds_table = True, False
    else:
        form = find_format(Path(source))
        holds_images, holds_table = form in ALWAYS_IMAGES, form in ALWAYS_TABLES
        if model.table is not None and form == "picture folder" and not any(map(is_picture, Path(source).rglob("*"))):
            raise DataError(f"{source}: is a folder without tables, and the model was trained on one; name a table")
    if model.table is not None and holds_images:
        raise DataError(f"{source}: holds images, and the model was trained on a table; give it a table")
    if model.image_shape is not None and holds_table:
        shape = " x ".join(map(str, model.image_shape))
        raise DataError(f"{source}: holds a table, and the model was trained on images of {shape} pixels; give it such")


def _hold_out(data: Samples, fraction: float, seed: int, stratified: bool) -> tuple[Samples, Samples]:
    try:
        train_rows, test_rows = train_test_split(
            np.arange(len(data)), train_size=1 - fraction, test_size=fraction, random_state=seed,
            stratify=data.labels if stratified else None,
        )  # fmt: skip
    except ValueError as error:
        raise DataError(f"{data.name}: cannot hold out {fraction:.0%} of {len(data)} {data.unit}s: {error}") from error
    train, test = data.take(train_rows), data.take(test_rows)
    _require_two_classes(train)
    return train, test


def _can_stratify(labels: np.ndarray, fraction: float) -> bool:
    """Whether each class can have a sample on either side."""
    counts = np.unique(labels, return_counts=True)[1]
    smaller_side = int(min(fraction, 1 - fraction) * len(labels))
    return bool(counts.min() >= 2 and smaller_side >= len(counts))


def _require_classes(data: Samples) -> None:
    """Raise DataError unless the labels are classes: two at least, and no numbers to predict."""
    labels = data.require_labels()
    if isinstance(data, Table):
        where = data.name if data.label_name is None else f"{data.name}, column {data.label_name}"
        cure = (
            "classes are words or few whole numbers: name their column with --label; to predict numbers, use gpusvm.SVR"
            " in Python"
        )
        if labels.dtype.kind == "f":
            first = next((value for value in labels if value != np.floor(value)), labels[0])
            raise DataError(f"{where}: the labels are real numbers (as {first:g}), and no classes; {cure}")
        n_classes = len(np.unique(labels))
        if n_classes > max(MOST_RARE_CLASSES, len(data) / 2):
            raise DataError(f"{where}: {n_classes:,} different labels in {len(data):,} rows are no classes; {cure}")
    _require_two_classes(data)


def _require_two_classes(data: Samples) -> None:
    labels = np.unique(data.require_labels())
    if len(labels) < 2:
        more = "say which column has them (--label)" if isinstance(data, Table) else "name another source"
        all_of = f"all {counted(data)} have" if len(data) > 1 else f"the only {data.unit} to train on has"
        raise DataError(
            f"{data.name}: {all_of} the label {labels[0]}; an SVM needs at least two classes: take more {data.unit}s,"
            f" with others, or {more}"
        )

"""Parquet: tables of numbers, and encoded pictures as hubs ship them.

It is read by pyarrow (pip install "gpusvm[parquet]").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpusvm.data import columns
from gpusvm.data.columns import Foreign, Words
from gpusvm.data.images import read_encoded
from gpusvm.data.pixels import ImageShape, as_images, look_like_images, require_memory, unlike_others
from gpusvm.data.table import Contents, TableOptions
from gpusvm.errors import DataError, UsageError

_MAGIC = b"PAR1"


def is_parquet(head: bytes) -> bool:
    """Whether a file's first bytes are those of parquet."""
    return head.startswith(_MAGIC)


def read_any(
    path: Path, options: TableOptions, kind: str, resize: ImageShape | None = None, *, files: Sequence[Path] = ()
) -> Contents | tuple[np.ndarray, np.ndarray | None]:
    """Pictures or a table, as `kind` says.

    "auto" is pictures where a column holds them, or all are pixels. With `files` they are read one
    after the other, as the parts of one table, and `path` is what messages name.
    """
    files = files or (path,)
    if kind != "table" and holds_pictures(path, files):
        return read_pictures(path, options, resize, files)
    contents = read(path, options, files)
    is_real = contents.labels is not None and contents.labels.dtype.kind == "f"
    if kind == "table" or is_real or not isinstance(contents.X, np.ndarray):
        return contents
    is_pixels = not unlike_others(contents.columns) and look_like_images(contents.columns, contents.X)
    if kind == "images" or is_pixels:
        return as_images(contents.X, str(path)), contents.labels
    return contents


def holds_pictures(path: Path, files: Sequence[Path]) -> bool:
    """Whether a column holds encoded pictures. Raises DataError if the files cannot be read."""
    with _Opened(path, files) as opened:
        return _picture_column(opened.schema) is not None


def read_pictures(
    path: Path, options: TableOptions, resize: ImageShape | None, files: Sequence[Path]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Encoded pictures, a row each: images as `images.read_pictures` gives, and labels or None.

    Raises
    ------
    DataError
        No such column, a row without a picture, or one that cannot be read; a label that is
        missing.
    """
    with _Opened(path, files) as opened:
        schema = opened.schema
        column = _picture_column(schema)
        if column is None:
            raise DataError(f"{path}: has no column of encoded pictures (bytes); its columns: {_listed(schema.names)}")
        rest = tuple(name for name in schema.names if name != column)
        roles = columns.assign(rest, len(rest), options, path)
        label = roles.label if roles.label is not None else next(iter(roles.features + roles.pending), None)
        table = opened.read([column, *([] if label is None else [rest[label]])])
        contents = [_encoded(value) for value in table.column(column).to_pylist()]
        labels = (
            None if label is None else columns.labels_of(_as_words(table.column(rest[label])), f"{path}, the labels")
        )
    missing = next((row for row, content in enumerate(contents) if content is None), None)
    if missing is not None:
        raise DataError(f"{path}: row {missing + 1} has no picture; leave it out")
    return read_encoded([content for content in contents if content is not None], path, resize), labels


def read(path: Path, options: TableOptions, files: Sequence[Path]) -> Contents:
    """A table of numbers, with labels under a usual name or the one given.

    Raises
    ------
    DataError
        A column that is neither numbers nor words; as `columns.from_columns`.
    """
    with _Opened(path, files) as opened:
        n_rows, names = opened.n_rows, tuple(opened.schema.names)
        if n_rows == 0 or not names:
            raise DataError(f"{path}: holds no samples; give a file with at least one")
        require_memory(8 * n_rows * len(names), str(path))
        dropped = {columns.find_column(name, names, len(names)) for name in options.drop}
        kept = [name for place, name in enumerate(names) if place not in dropped]
        table = opened.read(kept)
        values = [_column(table.column(name)) if name in kept else np.zeros(n_rows) for name in names]
    return columns.from_columns(names, values, options, path)


class _Opened:
    """Parquet files, the parts of one table; pyarrow's errors of a damaged one are DataErrors."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self._path, self._names, self._files = path, files, list[Any]()

    @property
    def schema(self) -> Any:
        return self._files[0].schema_arrow

    @property
    def n_rows(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    def read(self, columns: list[str]) -> Any:
        """The columns of these names, as pyarrow's Table."""
        import pyarrow

        tables = []
        for name, file in zip(self._names, self._files, strict=True):
            self._path = name
            tables.append(file.read(columns=columns))
            if missing := [column for column in columns if column not in tables[-1].column_names]:
                raise ValueError(f"its schema names the column {missing[0]!r:.40}, which is not there")
            if tables[-1].num_rows != file.metadata.num_rows:
                raise ValueError(f"it has {tables[-1].num_rows:,} rows in place of {file.metadata.num_rows:,}")
        return pyarrow.concat_tables(tables, promote_options="permissive")

    def __enter__(self) -> _Opened:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise UsageError(f'{self._path}: parquet needs pyarrow: pip install "gpusvm[parquet]"') from error
        for name in self._names:
            self._path = name
            try:
                self._files.append(pyarrow.parquet.ParquetFile(name))
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                raise self._damaged(error) from error
            found = self._files[-1].schema_arrow.names
            if len(set(found)) < len(found):
                twice = next(name for name in found if found.count(name) > 1)
                first, second = [k for k, name in enumerate(found, 1) if name == twice][:2]
                raise DataError(f"{self._path}: columns {first} and {second} are both named {twice:.40}; rename one")
            if found != self.schema.names:
                raise DataError(f"{name}: has other columns than {self._names[0].name}; they are no parts of one table")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        for file in self._files:
            file.close()
        import pyarrow

        if isinstance(error, (pyarrow.ArrowException, OSError, ValueError)):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return DataError(f"{self._path}: cannot be read as parquet ({reason:.120}); download it again")


def _picture_column(schema: Any) -> str | None:
    """The first column of bytes, or of {bytes, path} as Hugging Face's hub has it."""
    import pyarrow.types as types

    for field in schema:
        kind = field.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if types.is_binary(kind) or types.is_large_binary(kind):
            return field.name
    return None


def _encoded(value: Any) -> bytes | None:
    return value.get("bytes") if isinstance(value, dict) else value


def _column(column: Any) -> np.ndarray | Words | Foreign:
    import pyarrow.types as types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_string(kind) or types.is_large_string(kind):
        return _as_words(column)
    if types.is_boolean(kind):
        column = column.cast("int8")
    elif types.is_decimal(kind):
        column = column.cast("float64")
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)):
        return Foreign(str(column.type), len(column))
    if column.null_count:
        column = column.cast("float64").fill_null(float("nan"))
    return column.to_numpy()


def _as_words(column: Any) -> Words:
    encoded = column.cast("string").combine_chunks().dictionary_encode()
    words = ["" if word is None else word for word in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return Words([*words, ""], codes)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names):.200}" or "none"

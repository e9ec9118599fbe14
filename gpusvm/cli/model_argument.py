"""The model that a command names: read, or said what else stands in its place."""

from __future__ import annotations

from pathlib import Path

from gpusvm.data.formats import find_format
from gpusvm.errors import DataError, ModelFileError, UsageError
from gpusvm.io.model_file import is_model, load_model
from gpusvm.model import SVMModel

_DATA = {
    "idx": "an IDX file", "idx folder": "a folder of IDX files", "picture": "a picture",
    "picture folder": "a folder of pictures", "npz": "an .npz file", "npy": "an .npy file",
    "npy folder": "a folder of .npy files", "csv": "a table", "svmlight": "a table (svmlight)",
    "arff": "a table (ARFF)", "parquet": "a table (parquet)", "table folder": "a folder of tables",
}  # fmt: skip
"""What each of `find_format`'s kinds is called."""


def load_named_model(path: Path, source: Path | str | None = None) -> SVMModel:
    """The model at `path`, for a command that takes the data `source` after it.

    Raises
    ------
    UsageError
        The two are in each other's place.
    ModelFileError
        As `load_model`; where `path` is data, it says so.
    """
    try:
        return load_model(path)
    except ModelFileError:
        if is_model(path):
            raise  # one that is damaged
        if source is not None and is_model(source):
            raise UsageError(
                f"{path} is no model, and {source} is one: the model comes first, then the data ({source} {path})"
            ) from None
        if path.exists() and (kind := _kind_of_data(path)):
            raise ModelFileError(f"{path}: is {kind} and no model; gpusvm train makes a model of data") from None
        raise


def _kind_of_data(path: Path) -> str:
    """What kind of data is at `path`; "" where there is none that can be read."""
    try:
        return _DATA[find_format(path)]
    except (DataError, OSError):
        return ""

"""What a file or folder is, found from its content and, where that does not tell, its name."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import numpy as np

from gpusvm.data import arff, idx, idx_folder, images, npy, parquet, picture_folder, svmlight, table_folder
from gpusvm.data.catalogue import CATALOGUE
from gpusvm.data.packed import read_head
from gpusvm.data.text import decode_head, refuse_what_is_no_table
from gpusvm.errors import DataError

ALWAYS_IMAGES = frozenset({"idx", "idx folder", "picture", "picture folder"})
ALWAYS_TABLES = frozenset({"svmlight", "arff"})
_FORMATS = (
    "an IDX file or a folder with the four of them, a table (.csv, .tsv, .arff, svmlight, parquet), an .npz or .npy,"
    " or a folder of such tables, or of pictures by class"
)
_IDX_NAME = re.compile(r"idx\d|\.idx|ubyte", re.IGNORECASE)
_TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".tab"})


def find_format(path: Path) -> str:
    """What is at `path`.

    Returns
    -------
    str
        "idx", "picture" or a folder of either ("idx folder", "picture folder"); "npz", "npy" or
        "npy folder"; "csv" (any separator), "svmlight", "arff" or "parquet"; or a folder of
        tables, "table folder".

    Raises
    ------
    DataError
        There is nothing there, or its format is not one of these.
    """
    if path.is_dir():
        if idx_folder.is_folder(path):
            return "idx folder"
        if npy.is_folder(path):
            return "npy folder"
        is_table = not picture_folder.is_folder(path) and table_folder.is_folder(path)
        return "table folder" if is_table else "picture folder"
    if not path.exists():
        raise _no_such_source(path)
    if not path.is_file():  # opening a pipe waits for whoever writes to it, and a device may never end
        raise DataError(f"{path}: is neither a file nor a folder; copy what it gives into a file")
    if path.suffix.lower() == ".npz":
        return "npz"
    if images.is_picture(path):
        return "picture"
    if _IDX_NAME.search(path.name) or idx.is_idx(path):
        return "idx"
    return _by_content(path)


def _by_content(path: Path) -> str:
    head = read_head(path)
    if head.startswith(np.lib.format.MAGIC_PREFIX):
        return "npy"
    if parquet.is_parquet(head):
        return "parquet"
    is_named = any(suffix.lower() in _TEXT_SUFFIXES for suffix in path.suffixes)
    if not is_named and (suffix := path.suffix.lower()) in (".npy", ".parquet"):
        raise DataError(
            f"{path}: is named {suffix} and is no such file; write or download it again, or rename it if it is text"
        )
    refuse_what_is_no_table(head, path)
    if not head and not is_named:
        raise DataError(f"{path}: is empty; download or copy it again")
    try:
        text = decode_head(head, path)
    except DataError as error:
        raise error if is_named else _unknown(path) from error
    if arff.is_arff(text):
        return "arff"
    if svmlight.is_svmlight(text):
        return "svmlight"
    first = next((line for line in text.split("\n") if line.strip() and not line.startswith("#")), "")
    if is_named or any(len(first.split(separator)) > 1 for separator in (",", ";", "|", None)):
        return "csv"
    raise _unknown(path)


def _unknown(path: Path) -> DataError:
    return DataError(f"{path}: is of no known kind; expected {_FORMATS}")


def _no_such_source(path: Path) -> DataError:
    similar = difflib.get_close_matches(str(path), CATALOGUE, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"name {', '.join(CATALOGUE)}, or {_FORMATS}"
    return DataError(f"{path}: there is no such data set, file or folder; {hint}")

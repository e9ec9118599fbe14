"""What a file or folder is, found from what is in it and, where that does not tell, from its name."""

from __future__ import annotations

import difflib
from pathlib import Path

from gpusvm.data import idx, idx_folder, images
from gpusvm.data.catalogue import CATALOGUE
from gpusvm.errors import DataError

ALWAYS_IMAGES = frozenset({"idx", "idx folder", "picture", "picture folder"})
_FORMATS = (
    "an IDX file or a folder with the four of them, a .csv in Kaggle's layout, an .npz,"
    " or a folder of pictures by class"
)


def find_format(path: Path) -> str:
    """What is at `path`: "idx", "csv", "npz", "picture", "idx folder" or "picture folder".

    Raises
    ------
    DataError
        There is nothing there, or it is none of these.
    """
    if path.is_dir():
        return "idx folder" if idx_folder.is_folder(path) else "picture folder"
    if not path.exists():
        raise _no_such_source(path)
    if not path.is_file():  # opening a pipe waits for whoever writes to it, and a device may never end
        raise DataError(f"{path}: is neither a file nor a folder; copy what it gives into a file")
    if path.suffix.lower() in (".csv", ".npz"):
        return path.suffix.lower()[1:]
    if images.is_picture(path):
        return "picture"
    if "idx" in path.name or idx.is_idx(path):
        return "idx"
    raise DataError(f"{path}: is of no known kind; expected {_FORMATS}")


def _no_such_source(path: Path) -> DataError:
    similar = difflib.get_close_matches(str(path), CATALOGUE, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"name {', '.join(CATALOGUE)}, or {_FORMATS}"
    return DataError(f"{path}: there is no such data set, file or folder; {hint}")

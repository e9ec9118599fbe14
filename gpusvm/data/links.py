"""Links in a folder that somebody else may have filled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpusvm.errors import DataError


def require_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Raise DataError for the first of the paths that is a link leading out of the folder."""
    root = folder.resolve()
    for path in paths:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise DataError(f"{path}: is a link that leads out of {folder}; put a copy of the file in its place")

"""IDX files in pairs of images and labels, named as MNIST's or its successors' are.

The successors are EMNIST and KMNIST.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpusvm.data import idx
from gpusvm.data.links import require_inside
from gpusvm.errors import DataError, DataWarning, warn

_NAME = re.compile(
    r"(?:(?P<set>.+)-)?(?P<split>train|t10k|test)-(?P<content>images|labels)[-.]idx[13]-ubyte(?:\.gz)?", re.IGNORECASE
)
_TRANSPOSED = "emnist"
"""How the names of sets begin whose files hold each image transposed."""


class _Pair(NamedTuple):
    images: Path
    labels: Path | None


def is_folder(folder: Path) -> bool:
    """Whether the folder holds an IDX file of images."""
    return any(pairs for pairs in _sets(folder).values())


def has_split(source: Path, split: str) -> bool:
    """Whether the folder, or what a file of images is one of, has images for this split.

    Raises DataError as `read` does.
    """
    return split in _pairs(source)


def read(source: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of a split that `has_split` knows of, and their labels where those are there.

    Parameters
    ----------
    source : path
        A folder of one data set, or a file of images: a train file with the test file beside it is
        both splits, any other is what there is to train on.
    split : {"train", "test"}

    Raises
    ------
    DataError
        Several data sets in the folder; a file that `idx.read_images` refuses.
    """
    pair = _pairs(source)[split]
    folder = source if source.is_dir() else source.parent
    require_inside(folder, [path for path in pair if path is not None])
    return read_images(pair.images), None if pair.labels is None else idx.read_labels(pair.labels)


def read_images(path: Path) -> np.ndarray:
    """The images (n, height, width) uint8 of a file, upright.

    EMNIST's, known by their names, are turned.
    """
    images = idx.read_images(path)
    found = _NAME.fullmatch(path.name)
    if found is None or not (found["set"] or "").lower().startswith(_TRANSPOSED):
        return images
    warn(f"{path}: EMNIST's files hold each image on its side; they were turned upright", DataWarning)
    return np.ascontiguousarray(images.transpose(0, 2, 1))


def _pairs(source: Path) -> dict[str, _Pair]:
    if source.is_dir():
        sets = _sets(source)
        if len(sets) > 1:
            example = min(pair.images.name for pairs in sets.values() for pair in pairs.values())
            names = ", ".join(sorted(sets))
            raise DataError(f"{source}: holds several data sets ({names}); name the images of one, such as {example}")
        return next(iter(sets.values()))
    found = _NAME.fullmatch(source.name)
    if found is None or found["content"].lower() != "images":
        return {"train": _Pair(source, None)}
    pairs = _sets(source.parent)[(found["set"] or "").lower()]
    split = _split(found)
    named = {split: pairs[split]._replace(images=source)}
    return pairs | named if split == "train" else {"train": named[split]}


def _sets(folder: Path) -> dict[str, dict[str, _Pair]]:
    """The data sets in a folder that have images: by name, the pairs of their splits."""
    files: dict[tuple[str, str, str], Path] = {}
    try:
        entries = sorted(folder.iterdir(), reverse=True)  # of a file and its gzipped form, the former is the last
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error
    for path in entries:
        if (found := _NAME.fullmatch(path.name)) and path.is_file():
            files[(found["set"] or "").lower(), _split(found), found["content"].lower()] = path
    sets: dict[str, dict[str, _Pair]] = {}
    for (name, split, content), path in files.items():
        if content == "images":
            sets.setdefault(name, {})[split] = _Pair(path, files.get((name, split, "labels")))
    return sets


def _split(found: re.Match[str]) -> str:
    return "train" if found["split"].lower() == "train" else "test"

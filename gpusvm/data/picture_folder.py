"""Folders of pictures: one sub-folder a class, the splits around them, what else may lie there."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np

from gpusvm.data.images import SUFFIXES, is_picture, read_pictures
from gpusvm.data.links import require_inside
from gpusvm.data.pixels import ImageShape
from gpusvm.data.split_names import SPLIT_NAME, TEST_NAMES
from gpusvm.errors import DataError, DataWarning, warn

_JUNK = frozenset({"__MACOSX"})
# Pictures to people, that Pillow reads not at all or only by other programs.
_UNREADABLE = frozenset(
    {".heic", ".heif", ".avif", ".svg", ".jp2", ".jxl", ".tga", ".ico", ".dng", ".raw", ".cr2", ".nef", ".psd", ".eps"}
)
_MOST_NAMED = 5
_DEEPEST = 4
"""Folders below the one that was named in which pictures are looked for."""


def is_folder(folder: Path) -> bool:
    """Whether there are pictures in the folder or in those below."""
    return _has_pictures(folder)


def has_split(folder: Path, split: str) -> bool:
    """Whether the folder has pictures for this split: a folder for each, or else only train."""
    splits = _splits(_unwrapped(folder))
    return split in splits if splits else split == "train"


def read_folder(
    folder: Path, split: str = "train", resize: ImageShape | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a folder of pictures, greyscaled: sub-folders are classes.

    Without any there are no labels. Sub-folders that are called train and test, in any case and in
    whatever way people call them, are those splits: Train/Test, training_set/test_set, train/val,
    train/val/test. A folder around all of that is looked into. The classes take turns in the
    result, so that its first rows show all of them and not only the first class. What is left out
    is said in a DataWarning.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
    labels : ndarray of shape (n,) or None
        int64 where every class name is an integer, else str.

    Raises
    ------
    DataError
        No pictures, an unreadable one, or one whose size differs from the first one's.
    """
    whole, folder = folder, _unwrapped(folder)
    splits = _splits(folder)
    if split in splits:
        require_inside(whole, [splits[split]])
        folder = _unwrapped(splits[split])
    require_inside(whole, _sub_folders(folder))
    classes = {sub.name: _pictures(sub) for sub in _sub_folders(folder)}
    classes = {name: files for name, files in classes.items() if files}
    if not classes:
        if _pictures(folder) and (deeper := _folders_with_pictures(folder)[1:]):
            raise DataError(
                f"{folder}: holds pictures itself and in {_listed(deeper)}; name the folder that holds those of the"
                " classes, or put the others elsewhere"
            )
        return read_flat_folder(folder, resize)[0], None
    for outer in folder.parents:
        if outer.is_relative_to(whole):
            _say_what_is_empty([sub for sub in _sub_folders(outer) if SPLIT_NAME.fullmatch(sub.name)], outer)
    _say_what_is_left_out(folder)
    values = _class_values(list(classes))
    rows = _take_turns([(files, index) for index, files in enumerate(classes.values())])
    require_inside(whole, (file for file, _ in rows))
    images = read_pictures([file for file, _ in rows], folder, resize)
    return images, values[[index for _, index in rows]]


def read_flat_folder(folder: Path, resize: ImageShape | None = None) -> tuple[np.ndarray, list[str]]:
    """Pictures lying in `folder`, sorted by name: images (n, height, width) uint8, and the names.

    Raises
    ------
    DataError
        As `read_folder`; also where the pictures lie in sub-folders.
    """
    files = _pictures(folder)
    if not files and any(_holds_pictures(sub) for sub in _sub_folders(folder)):
        raise DataError(f"{folder}: its pictures lie in sub-folders; name one of those")
    if not files:
        raise DataError(f"{folder}: holds no pictures{_found_instead(folder)}")
    _say_what_is_unreadable([folder], folder)
    require_inside(folder, files)
    return read_pictures(files, folder, resize), [file.name for file in files]


def _splits(folder: Path) -> dict[str, Path]:
    """The folders of the splits by "train" and "test".

    Empty unless there is one to train on and one to test on.
    """
    subs = _sub_folders(folder)
    require_inside(folder, subs)
    subs = [sub for sub in subs if _has_pictures(sub)]
    found = {sub: match for sub in subs if (match := SPLIT_NAME.fullmatch(sub.name))}
    if len({match["prefix"] for match in found.values()}) != 1:
        return {}  # none; or crash_test and bullet_train, which are classes
    named = {sub: match["name"].lower() for sub, match in found.items()}
    to_train = [sub for sub, name in named.items() if name.startswith("train")]
    to_test = sorted((sub for sub in named if sub not in to_train), key=lambda sub: TEST_NAMES.index(named[sub]))
    if not to_train or not to_test:
        return {}
    others = [sub for sub in subs if sub not in named]
    if others or len(to_train) > 1:
        found_there = _listed([sub.name for sub in subs])
        raise DataError(
            f"{folder}: holds pictures in {found_there}, and it is unclear whether these are splits or classes;"
            " leave one folder to train on and one to test on, or name the one that holds the classes"
        )
    if _is_flat(_unwrapped(to_test[0])) and not _is_flat(_unwrapped(to_train[0])):
        return {"train": to_train[0]}  # as in a competition, whose test pictures have no labels
    return {"train": to_train[0], "test": to_test[0]}


def _is_flat(folder: Path) -> bool:
    return not any(_holds_pictures(sub) for sub in _sub_folders(folder))


def _unwrapped(folder: Path) -> Path:
    """The folder of classes or splits in a folder that holds no other pictures.

    Archives often unpack to such a folder.
    """
    while not _holds_pictures(folder):
        subs = [sub for sub in _sub_folders(folder) if _has_pictures(sub)]
        if len(subs) != 1 or _holds_pictures(subs[0]):
            return folder
        require_inside(folder, subs)
        folder = subs[0]
    return folder


def _say_what_is_left_out(folder: Path) -> None:
    """Warn of pictures in a folder of classes that belong to none, and of what cannot be read."""
    stray = _pictures(folder)
    if stray:
        names = _listed([file.name for file in stray])
        warn(f"{folder}: {len(stray):,} pictures beside the folders of classes are left out: {names}", DataWarning)
    nested = [sub for of_class in _sub_folders(folder) for sub in _sub_folders(of_class) if _has_pictures(sub)]
    deeper = [str(sub.relative_to(folder)) for sub in nested]
    if deeper:
        warn(f"{folder}: pictures deeper than the folders of classes are left out: {_listed(deeper)}", DataWarning)
    _say_what_is_empty(_sub_folders(folder), folder)
    _say_what_is_unreadable(_sub_folders(folder), folder)


def _say_what_is_empty(folders: Sequence[Path], where: Path) -> None:
    """Warn of those of the folders, of classes or splits, that hold no pictures."""
    if names := [folder.name for folder in folders if not _has_pictures(folder)]:
        hold = "folders hold no pictures that can be read, and are"
        hold = hold if len(names) > 1 else "folder holds no pictures that can be read, and is"
        warn(f"{where}: {len(names):,} {hold} left out: {_listed(names)}", DataWarning)


def _say_what_is_unreadable(folders: Sequence[Path], where: Path) -> None:
    if kinds := _unreadable_kinds(entry.name for folder in folders for entry in _entries(folder)):
        warn(f"{where}: pictures of unknown formats are left out ({kinds}); save them as PNG or JPEG", DataWarning)


def _unreadable_kinds(names: Iterable[str]) -> str:
    """How many of these files are pictures of which unknown formats; "" for none."""
    counts = Counter(suffix for name in names if (suffix := Path(name).suffix.lower()) in _UNREADABLE)
    return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))


def _found_instead(where: Path) -> str:
    """What a folder without pictures holds, and what it should."""
    deeper = _folders_with_pictures(where)
    if not deeper and (kinds := _unreadable_kinds(name for _, _, names in os.walk(where) for name in names)):
        return f" that can be read, but others ({kinds}); save them as PNG or JPEG"
    names = deeper or sorted(entry.name for entry in _entries(where))
    found = f"; it is empty. {_EXPECTED}"
    if deeper:
        found = f" that can be used: there are some in {_listed(names)}. {_EXPECTED}"
    elif names:
        found = f"; found {_listed(names)}. {_EXPECTED}"
    return found


_EXPECTED = (
    "Expected one sub-folder for each class, or train and test with those in them, of files ending in"
    f" {', '.join(sorted(SUFFIXES))}; or tables, such as train.csv and test.csv; or name one of the files"
)


def _folders_with_pictures(where: Path) -> list[str]:
    """Some folders below, by their path from here."""
    walk = (Path(folder) for folder, _, names in os.walk(where) if any(is_picture(Path(name)) for name in names))
    return sorted(str(folder.relative_to(where)) for folder in islice(walk, 100))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _has_pictures(folder: Path, depth: int = _DEEPEST) -> bool:
    if _holds_pictures(folder):
        return True
    return depth > 0 and any(_has_pictures(sub, depth - 1) for sub in _sub_folders(folder))


def _take_turns(classes: list[tuple[list[Path], int]]) -> list[tuple[Path, int]]:
    """The first file of every class, then the second of every class that has one, and so on."""
    turns = zip_longest(*([(file, index) for file in files] for files, index in classes))
    return [row for row in chain.from_iterable(turns) if row is not None]


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir() and entry.name not in _JUNK)


def _pictures(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if is_picture(entry) and entry.is_file())


def _holds_pictures(folder: Path) -> bool:
    return any(is_picture(entry) and entry.is_file() for entry in _entries(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _class_values(names: list[str]) -> np.ndarray:
    """Class names as integers where all are, and stay apart as such ("3" and "03" do not)."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        values = np.array([int(name) for name in names], dtype=np.int64)
        if len(np.unique(values)) == len(names):
            return values
    return np.array(names)

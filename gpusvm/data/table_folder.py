"""Folders of tables: a file for each split, or its parts as hubs ship them.

Also test files that lie beside a file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpusvm.data import svmlight
from gpusvm.data.links import require_inside
from gpusvm.data.packed import read_head
from gpusvm.data.split_names import SPLIT_NAME, TEST_NAMES
from gpusvm.data.text import decode_head
from gpusvm.errors import DataError

_PACKED = frozenset({".gz", ".bz2"})
_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".arff", ".parquet", ".npz", ".data", ".libsvm", ".svmlight"})
# Endings of LIBSVM's data sets (a9a, a9a.t; dna.scale.tr, dna.scale.val) and of UCI's (adult.data,
# adult.test).
_ENDINGS = {".t": "test", ".test": "test", ".tr": "train", ".train": "train", ".val": "val"}
_PART = re.compile(r"(?P<base>.*?)[-_.]?(?P<number>\d{4,6})-of-(?P<count>\d{4,6})(?:-[0-9a-z]+)?", re.IGNORECASE)
# What Spark and Hugging Face's converter call the parts of a table: part-00000-1b2c.snappy, 0000.
_NUMBERED = re.compile(r"(?:part-)?\d{4,6}(?:-.*)?", re.IGNORECASE)
_MOST_NAMED = 6
_DEEPEST = 2
"""Folders below the one that was named in which tables are looked for."""


@dataclass
class _Set:
    """Files that belong together, by what they are for.

    That is "train", "test", "val" and so on, or "whole" where nothing is said.
    """

    files: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    @property
    def train(self) -> list[Path]:
        return self.files.get("whole") or self.files.get("train") or self.files.get("training") or []

    @property
    def test(self) -> list[Path]:
        return next((self.files[name] for name in TEST_NAMES if name in self.files), [])


def is_folder(folder: Path) -> bool:
    """Whether the folder, or one in it, holds tables."""
    return _has_tables(folder)


def parts(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split, "train" and perhaps "test": one, or a table's parts in order.

    Raises
    ------
    DataError
        It is unclear which tables these are, or a part of one is missing.
    """
    whole, folder = folder, _unwrapped(folder)
    files = _tables(folder)
    found = _of_one_set(folder, files) if files else _of_sub_folders(folder)
    splits = {split: in_order(of_split, folder) for split, of_split in found.items() if of_split}
    require_inside(whole, (file for of_split in splits.values() for file in of_split))
    return splits


def test_beside(file: Path) -> Path | None:
    """The file to test on that lies beside one to train on.

    It is a9a.t for a9a, heart_test.csv for heart_train.csv.
    """
    try:
        siblings = [entry for entry in file.parent.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    except OSError:
        return None
    key, split, _ = _role(file.name)
    names_test = [entry for entry in siblings if _role(entry.name)[0] == key and entry != file and _is_table(entry)]
    found = _sets([file, *names_test])[key]
    test = [entry for entry in found.test if entry != file]
    return test[0] if split in ("whole", "train", "training") and len(test) == 1 else None


def part_of(file: Path) -> tuple[int, int] | None:
    """Which part of how many a file is, from 1, if its name says so: train-00000-of-00002."""
    found = _PART.fullmatch(_stem(file.name))
    return None if found is None or int(found["count"]) < 2 else (int(found["number"]) + 1, int(found["count"]))


def in_order(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """The parts of a table in their order.

    Raises DataError where they are not parts of one, or some are missing.
    """
    if len(files) == 1 and part_of(files[0]) is None:
        return tuple(files)
    numbers = {part: file for file in files if (part := part_of(file)) is not None}
    counts = {count for _, count in numbers}
    if len(numbers) == len(files) and len(counts) == 1:
        count = counts.pop()
        if missing := [number for number in range(1, count + 1) if (number, count) not in numbers]:
            raise DataError(
                f"{folder}: part {missing[0]} of {count} is missing beside {sorted(files)[0].name}; download it too"
            )
    elif not all(_NUMBERED.fullmatch(_stem(file.name)) for file in files):
        raise _unclear(folder, [file.name for file in files])
    if any(file.suffix.lower() != ".parquet" for file in files):
        raise DataError(
            f"{folder}: holds a table in parts ({_listed(files)}), which is read of parquet only; join them"
        )
    return tuple(sorted(files))


def _of_one_set(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    sets = _sets(files)
    named = [each for each in sets.values() if each.train and (each.test or "whole" not in each.files)]
    if not named and len(sets) == 1 and next(iter(sets.values())).train:
        named = list(sets.values())
    if len(named) != 1:
        if {"x", "y"} <= {key.lower() for key in sets}:
            raise DataError(
                f"{folder}: has features and labels in files of their own ({_listed(files)}); put the labels into a"
                " column beside the features"
            )
        raise _unclear(folder, [file.name for file in files])
    return {"train": named[0].train, "test": named[0].test}


def _of_sub_folders(folder: Path) -> dict[str, list[Path]]:
    """The tables of folders train and test."""
    subs = [sub for sub in _sub_folders(folder) if _has_tables(sub)]
    found = _Set()
    for sub in subs:
        match = SPLIT_NAME.fullmatch(sub.name)
        found.files[match["name"].lower() if match else ""] = _tables(sub)
    if "" in found.files or not found.train:
        raise _unclear(folder, [f"{sub.name}/" for sub in subs])
    return {"train": found.train, "test": found.test}


def _sets(files: Iterable[Path]) -> dict[str, _Set]:
    sets: dict[str, _Set] = defaultdict(_Set)
    for file in files:
        key, split, _ = _role(file.name)
        sets[key].files[split].append(file)
    return sets


def _role(name: str) -> tuple[str, str, bool]:
    """What a file belongs to, and what of it it is; whether a name says that it is a table."""
    bare = _unpacked_name(name)
    stem, suffix = _split_suffix(bare)
    if suffix in _ENDINGS:
        return stem.lower(), _ENDINGS[suffix], False
    is_named = suffix in _SUFFIXES
    base = stem if is_named or suffix == ".txt" else bare
    if part := _PART.fullmatch(base):
        base = part["base"]
    elif _NUMBERED.fullmatch(base):
        base = ""
    if found := SPLIT_NAME.fullmatch(base):
        return (found["prefix"] or "").lower(), found["name"].lower(), is_named
    return base.lower(), "whole", is_named


def _is_table(file: Path) -> bool:
    """Whether a file is a table by its name; of LIBSVM's names, which say little, by content."""
    _, split, is_named = _role(file.name)
    suffix = _split_suffix(_unpacked_name(file.name))[1]
    if is_named or (suffix == ".txt" and split != "whole"):
        return True
    if suffix == ".test" and file.with_name(f"{_unpacked_name(file.name)[: -len(suffix)]}.data").is_file():
        return True
    if suffix in {".safetensors", ".svm", ".json", ".md", ".txt", ".py", ".sh", ".html"}:
        return False
    try:
        return svmlight.is_svmlight(decode_head(read_head(file), file))
    except DataError:
        return False


def _tables(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_file() and _is_table(entry))


def _has_tables(folder: Path, depth: int = _DEEPEST) -> bool:
    return bool(_tables(folder)) or (depth > 0 and any(_has_tables(sub, depth - 1) for sub in _sub_folders(folder)))


def _unwrapped(folder: Path) -> Path:
    """The folder with tables in a folder that holds no others.

    Archives often unpack to such a folder, and hubs have data/.
    """
    while not _tables(folder):
        subs = [sub for sub in _sub_folders(folder) if _has_tables(sub)]
        if len(subs) != 1:
            return folder
        require_inside(folder, subs)
        folder = subs[0]
    return folder


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir() and entry.name != "__MACOSX")


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith((".", "_"))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _unpacked_name(name: str) -> str:
    stem, suffix = _split_suffix(name)
    return stem if suffix in _PACKED else name


def _stem(name: str) -> str:
    return _split_suffix(_unpacked_name(name))[0]


def _split_suffix(name: str) -> tuple[str, str]:
    path = Path(name)
    return path.stem, path.suffix.lower()


def _unclear(folder: Path, names: list[str]) -> DataError:
    shown = ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED:,} more" if names[_MOST_NAMED:] else "")
    return DataError(
        f"{folder}: holds several tables ({shown}), and it is unclear which to train on; name that one, and with --test"
        " another to test on, or call them train and test"
    )


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:_MOST_NAMED]) + (" ..." if files[_MOST_NAMED:] else "")

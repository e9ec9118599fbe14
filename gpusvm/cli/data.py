"""What ``gpusvm data`` does with data sets known by name: lists, fetches and verifies them."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from gpusvm.cli.console import messages, plain_table, results
from gpusvm.data import catalogue
from gpusvm.data.catalogue import CATALOGUE, FileCheck, find_local
from gpusvm.errors import DataError


def print_list(data_dir: Path | None) -> None:
    """Print which data sets are known by name, and where they are on this machine."""
    table = plain_table("name", "train", "test", "what", "where")
    for name, entry in CATALOGUE.items():
        folder = find_local(name, data_dir)
        place: str | Text
        if not entry.files:
            place = "inside scikit-learn"
        elif folder is None:
            place = Text(f"not on this machine: gpusvm data fetch {name}", style="yellow")
        else:
            place = str(folder)
        table.add_row(name, f"{entry.n_train:,}", f"{entry.n_test:,}", entry.title, place)
    results().print(table)


def fetch(name: str, data_dir: Path | None) -> None:
    """Download a data set, unless a good copy is already here, and print its folder."""
    folder = catalogue.fetch(name, data_dir, progress=True)
    messages().print(f"{name} is complete and verified, in")
    results().print(str(folder), soft_wrap=True)


def verify(name: str | None, data_dir: Path | None) -> None:
    """Print what the files of a data set, or of all, are like.

    Raises DataError where one is not as published.
    """
    checked = {each: catalogue.verify(each, data_dir) for each in ([name] if name else CATALOGUE)}
    table = plain_table("data set", "file", "", "where")
    for each, files in checked.items():
        for file in files:
            table.add_row(each, file.name, _status(file), str(file.path or ""))
        if not files:
            table.add_row(each, "", _mark("ok"), "inside scikit-learn")
    results().print(table)
    bad = [each for each, files in checked.items() if _is_bad(files, was_named=name is not None)]
    if bad:
        wrong = [f"{file.path or file.name} ({file.status})" for file in checked[bad[0]] if file.status != "ok"]
        raise DataError(
            f"{', '.join(bad)}: not as published: {', '.join(wrong)}; gpusvm data fetch {bad[0]} gets what is missing"
            " or wrong"
        )


def _mark(status: str) -> Text:
    return Text(status, style="green" if status == "ok" else "yellow" if status == "missing" else "red")


def _status(file: FileCheck) -> Text:
    return _mark(file.status)


def _is_bad(files: list[FileCheck], *, was_named: bool) -> bool:
    """A set nobody fetched is in order unless it was asked for by name; half a set never is."""
    is_absent = all(file.status == "missing" for file in files)
    return any(file.status != "ok" for file in files) and (was_named or not is_absent)

"""ARFF, Weka's format: the attributes with their types, and then rows as in a CSV.

The rows go through the parser of text tables. SciPy's reader passes over surplus cells without a
word, gives up where quotes first come in a later row, and refuses attributes of text even where
they are to be left out.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from gpusvm.data import delimited
from gpusvm.data.columns import LABEL_NAMES
from gpusvm.data.dialect import Layout
from gpusvm.data.packed import read_head
from gpusvm.data.table import Contents, TableOptions
from gpusvm.data.text import LONGEST_LINE, blocks, find_encodings, open_text
from gpusvm.errors import DataError, DataWarning, warn

_ATTRIBUTE = re.compile(
    r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s'"{]+)\s*(\{.*\}|\S.*)""", re.IGNORECASE
)
_NUMERIC = frozenset({"numeric", "real", "integer"})
_TYPES = (*_NUMERIC, "string", "date")


def is_arff(head: str) -> bool:
    """Whether text begins as such a file does: with @relation, after comments (%)."""
    lines = (line.strip() for line in head.split("\n"))
    first = next((line for line in lines if line and not line.startswith("%")), "")
    return first.lower().startswith("@relation")


def read(path: Path, options: TableOptions) -> Contents:
    """Read a table: numeric attributes are numbers, all others words; as `delimited.read`.

    Raises
    ------
    DataError
        A damaged line, by its number; a class that is not among those declared; the sparse form.
    """
    for encoding in find_encodings(read_head(path), path):
        try:
            with open_text(path, encoding) as stream:
                return _read(stream, encoding, path, options)
        except UnicodeError:
            continue
    raise DataError(f"{path}: is no text in UTF-8; save it as that")


@dataclass(frozen=True)
class _Attribute:
    name: str
    values: frozenset[str] | None  # of a nominal one


def _read(stream: TextIO, encoding: str, path: Path, options: TableOptions) -> Contents:
    attributes, n_lines = _read_header(stream, path)
    names = tuple(attribute.name for attribute in attributes)
    is_open = options.label is None and not options.columns and not any(name.lower() in LABEL_NAMES for name in names)
    if is_open and attributes[-1].values is not None:
        warn(f"{path}: the last attribute, {names[-1]!r}, is taken for the labels", DataWarning)
        options = replace(options, label=names[-1])
    layout = Layout(path, encoding, ",", ".", names, len(names), n_lines + 1, (), comment="%", quote="'")
    contents = delimited.read_rows(blocks(stream, path, n_lines + 1), layout, options)
    if contents.label_name is not None and contents.labels is not None and contents.labels.dtype.kind == "U":
        _require_declared(attributes[names.index(contents.label_name)], contents.labels, path)
    return contents


def _read_header(stream: TextIO, path: Path) -> tuple[list[_Attribute], int]:
    """The attributes, and the number of the line @data, at which the stream then stands after."""
    attributes: list[_Attribute] = []
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        stripped = line.strip()
        if stripped.lower().startswith("@data"):
            if not attributes:
                break
            return attributes, number
        if stripped.lower().startswith("@attribute"):
            attributes.append(_attribute(stripped, number, path))
        elif stripped and not stripped.startswith("%") and not stripped.lower().startswith("@relation"):
            raise DataError(f"{path}: line {number} ({stripped!r:.40}) is no @attribute; mend or remove it")
    raise DataError(f"{path}: has no @data after its attributes; it is truncated: download it again")


def _attribute(line: str, number: int, path: Path) -> _Attribute:
    found = _ATTRIBUTE.fullmatch(line)
    kind = found[2].strip() if found else ""
    is_known = kind.startswith("{") or kind.lower().split("[")[0].split(" ")[0] in _TYPES
    if found is None or not is_known:
        raise DataError(f"{path}: line {number} ({line!r:.60}) is no attribute of a known type; mend it")
    values = None
    if kind.startswith("{"):
        values = frozenset(
            _unquoted(value) for value in next(csv.reader([kind[1:-1]], quotechar="'", skipinitialspace=True))
        )
    return _Attribute(_unquoted(found[1]), values)


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _require_declared(attribute: _Attribute, labels: np.ndarray, path: Path) -> None:
    if attribute.values is None:
        return
    strange = set(np.unique(labels).tolist()) - attribute.values
    if strange:
        word = min(strange)
        row = int(np.argmax(labels == word)) + 1
        raise DataError(
            f"{path}: row {row} has {attribute.name:.40} {word!r:.40}, which is none of the values that its attribute"
            " declares; mend one of the two"
        )

"""What the values of a suite must be: one reader for each kind, and the message where one is not."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpusvm.errors import DataError, GpuSvmError
from gpusvm.params import RANGES

Reader = Callable[[Any], Any]
"""Gives back the value in its final form, or raises Expected."""

NOTHING = object()


class Expected(Exception):
    """What a value should have been, in words that follow "must be"; `item` is the one at fault in a list."""

    def __init__(self, what: str, item: Any = NOTHING) -> None:
        super().__init__(what)
        self.what, self.item = what, item


def check(label: str, read: Reader, value: Any, error: type[GpuSvmError] = DataError) -> Any:
    """The value as `read` gives it. Raises `error`, with `label` in front, where it is not as it must be."""
    try:
        return read(value)
    except Expected as expected:
        each, wrong = ("", value) if expected.item is NOTHING else (": each", expected.item)
        raise error(f"{label}{each} must be {expected.what}, not {quote(wrong)}") from None


def read_table(table: Any, keys: Mapping[str, Reader], where: str) -> dict[str, Any]:
    """The checked values of a table. Raises DataError naming the key that is unknown or wrong."""
    if not isinstance(table, dict):
        raise DataError(f"{where}: must be a table of keys and values, not {quote(table)}")
    for key in table:
        if key not in keys:
            similar = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(keys)}"
            raise DataError(f"{where}: unknown key {quote(key)}; {hint}")
    return {key: check(f"{where}: {key}", keys[key], value) for key, value in table.items()}


def require(values: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raise DataError where one of the keys is missing."""
    if missing := [key for key in keys if key not in values]:
        raise DataError(f"{where}: {missing[0]} is missing; a suite needs {', '.join(keys)}")


def quote(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a whole number of thousands of digits
        return f"such a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def whole(least: int, most: int = 10**9) -> Reader:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Expected(f"a whole number of at least {least}")
        return value

    return read


def positive(value: Any) -> float:
    if not _is_number(value) or value <= 0:
        raise Expected("a number above 0")
    return float(value)


def number(value: Any) -> float:
    if not _is_number(value):
        raise Expected("a number")
    return float(value)


def parameter(name: str) -> Reader:
    """A numeric parameter of training, whose range is `gpusvm.params`'s."""
    found = RANGES[name]

    def read(value: Any) -> Any:
        if value is None or not found.holds(value):
            raise Expected(found.words)
        return int(value) if found.whole else float(value)

    return read


def gamma(value: Any) -> float | str:
    if value in ("scale", "auto"):
        return str(value)
    try:
        return parameter("gamma")(value)
    except Expected as expected:
        raise Expected(f"{expected.what}, 'scale' or 'auto'") from None


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Expected("true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise Expected("a line of text")
    return value


def one_of(names: Callable[[], list[str]]) -> Reader:
    def read(value: Any) -> str:
        if value not in names():
            raise Expected(f"one of {', '.join(names())}")
        return str(value)

    return read


def list_of(read_item: Reader) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise Expected("a list with something in it")
        items = tuple(_read_item(read_item, item) for item in value)
        if len(set(items)) < len(items):
            raise Expected("a list without repetitions")
        return items

    return read


def _read_item(read: Reader, item: Any) -> Any:
    try:
        return read(item)
    except Expected as expected:
        raise Expected(expected.what, item) from None


def tables(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Expected("a list of tables, each opened by [[cases]]")
    return value


def optional(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def exactly(*values: str) -> Reader:
    return one_of(lambda: list(values))


def fraction(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise Expected("a number from 0 to 1")
    return float(value)


def seconds(value: Any) -> float:
    if not _is_number(value) or value < 0:
        raise Expected("a number of at least 0")
    return float(value)


def table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Expected("a table")
    return value


def table_with(keys: Mapping[str, Reader]) -> Reader:
    """A table that has these keys at least; the others may be anything."""

    def read(value: Any) -> dict[str, Any]:
        for key, read_value in keys.items():
            if key not in table(value):
                raise Expected(f"a table with {key}")
            try:
                read_value(value[key])
            except Expected as expected:
                raise Expected(f"a table in which {key} is {expected.what}") from None
        return dict(value)

    return read


def table_of(read_value: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        return {key: _read_item(read_value, item) for key, item in table(value).items()}

    return read


def matching(pattern: str, what: str) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Expected(what)
        return value

    return read


def listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Expected("a list")
    return value

"""What pydantic finds wrong with a suite or a record, as a line of plain words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from gpusvm.errors import DataError, GpuSvmError
from gpusvm.params import RANGES

T = TypeVar("T")

NO_OTHER_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")
"""Of what people write: a key that is unknown is a mistake, and so is an infinite number, but for
a C."""

_KEY = "[key]"
"""Pydantic's place of a key, whose own name stands before it."""
_MISSING = ("missing", "missing_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_LISTS = ("list_type", "tuple_type")
_TABLES = ("dict_type", "dataclass_type", "model_type")


def validated(kind: type[T], values: Any, where: str, *, keys: Sequence[str] = ()) -> T:
    """The values as `kind`, a pydantic model or dataclass.

    Parameters
    ----------
    kind : type
    values : dict
        As they stand in the file.
    where : str
        The file, and the place in it; begins the message.
    keys : sequence of str, optional
        What a key that is unknown may have been meant for.

    Raises
    ------
    DataError
        Names the first value that is wrong, what it is and what it must be.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as found:
        raise complaint(found, where, keys=keys) from None


def complaint(
    found: ValidationError,
    where: str = "",
    *,
    keys: Sequence[str] = (),
    names: dict[str, str] | None = None,
    error: type[GpuSvmError] = DataError,
) -> GpuSvmError:
    """The error of ours that stands for pydantic's.

    `names` are other names for the outermost keys.
    """
    faults = found.errors(include_url=False, include_context=False)
    fault = next((each for each in faults if each["type"] in _UNKNOWN), faults[0])
    *outer, last = fault["loc"] or ("",)
    if fault["type"] in _UNKNOWN:
        similar = difflib.get_close_matches(str(last), keys, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else f"; there are {', '.join(keys)}" if keys else ""
        return error(_joined(where, _place([*outer, _KEY]), f"unknown key {quote(last)}{hint}"))
    place = _place(fault["loc"], names or {})
    if fault["type"] in _MISSING:
        return error(_joined(where, f"{place} is missing"))
    if fault["type"] in _LISTS and isinstance(fault["input"], dict):
        return error(_joined(where, f"{place} must be a list, each opened by [[{last}]]"))
    must_be = "must be a table" if fault["type"] in _TABLES else _in_plain_words(fault["msg"])
    value = "" if ", not " in must_be else f", not {quote(fault['input'])}"
    return error(_joined(where, f"{place} {must_be}{value}".strip()))


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _place(path: Sequence[str | int], names: dict[str, str] | None = None) -> str:
    """Where a value is: ("cases", 0, "C") is "case 1: C", and ("sizes", 1) is "sizes: each"."""
    parts: list[str] = []
    for number, key in enumerate(path, start=1):
        if not isinstance(key, int):
            parts.append((names or {}).get(str(key), str(key)))
        elif number == len(path):
            parts.append("each")
        else:
            parts[-1] = f"{parts[-1].removesuffix('s')} {key + 1}"
    return ": ".join(part for part in parts if part != _KEY)


def _in_plain_words(message: str) -> str:
    """Pydantic's "Input should be a valid integer" as "must be a whole number"."""
    text = message.removeprefix("Value error, ")
    for theirs, ours in (
        ("Input should", "must"),
        ("Tuple should", "must"),
        ("List should", "must"),
        (" after validation", ""),
        ("a valid integer", "a whole number"),
        ("a valid number", "a number"),
        ("a finite number", "a number"),
        ("a valid boolean", "true or false"),
        ("a valid string", "a text"),
        ("a valid tuple", "a list"),
        ("a valid list", "a list"),
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
        ("greater than", "above"),
    ):
        text = text.replace(theirs, ours)
    return text


def quote(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a whole number of thousands of digits
        return f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


# What the values of suites have in common.


def one_of(names: Callable[[], list[str]]) -> AfterValidator:
    """One of the names that the function gives."""

    def check(value: str) -> str:
        if value not in names():
            raise ValueError(f"must be one of {', '.join(names())}")
        return value

    return AfterValidator(check)


def parameter(name: str) -> Callable[[Any], Any]:
    """What checks a parameter of training, whose range is `gpusvm.params`'s."""
    found = RANGES[name]

    def check(value: Any) -> Any:
        if not found.holds(value):
            raise ValueError(f"must be {found.words}")
        return value if value is None else int(value) if found.whole else float(value)

    return check


def gamma_of_a_case(value: Any) -> float | str:
    """A number, "scale" or "auto". Raises ValueError for anything else."""
    if value in ("scale", "auto"):
        return str(value)
    if value is None or not RANGES["gamma"].holds(value):
        raise ValueError(f"must be {RANGES['gamma'].words}, 'scale' or 'auto'")
    return float(value)


def without_repetitions(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values. Raises ValueError where two are the same."""
    if len(set(values)) < len(values):
        raise ValueError("must be a list without repetitions")
    return values


def line_of_text(value: str) -> str:
    """The text. Raises ValueError where it would not stay on one line, or could not be seen."""
    if not value.isprintable():
        raise ValueError("must be a line of text")
    return value

"""What is public is described in full, in numpydoc's sections: ruff sees to the rest of the
form."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import gpusvm
import gpusvm.data
import gpusvm.preprocess

HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)


def sections(documented: Any) -> dict[str, str]:
    """The sections of a docstring by their headings."""
    parts = HEADING.split(inspect.getdoc(documented) or "")
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def names(section: str) -> list[str]:
    """What a section describes: `C, epsilon : float` describes two."""
    entries = [line.partition(" : ")[0] for line in section.splitlines() if line and not line[0].isspace()]
    return [name.strip().lstrip("*") for entry in entries for name in entry.split(",")]


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    """Properties and methods of a class, and of the classes of ours that it inherits from."""
    for base in reversed(kind.__mro__):
        for name, member in vars(base).items() if base.__module__.startswith("gpusvm") else ():
            if isinstance(member, property | cached_property):
                found = member
            elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
                found = getattr(kind, name)
            else:
                continue
            if not name.startswith("_"):
                yield name, found


def public() -> Iterator[tuple[str, Any]]:
    """Each public thing by its full name: functions, classes, their methods and properties."""
    modules: tuple[ModuleType, ...] = (gpusvm, gpusvm.data, gpusvm.preprocess)
    for module in modules:
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found):
                yield f"{module.__name__}.{name}", found
                members = dict(public_members(found))
                yield from ((f"{module.__name__}.{name}.{own}", member) for own, member in members.items())
            elif inspect.isfunction(found):
                yield f"{module.__name__}.{name}", found


EVERYTHING = dict(public())
CALLED = {
    name: found
    for name, found in EVERYTHING.items()
    if callable(found) and not (inspect.isclass(found) and issubclass(found, BaseException))
}


def parameters(called: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(called).parameters if name not in ("self", "cls")]


def test_the_public_names_are_found() -> None:
    assert {"gpusvm.SVC", "gpusvm.SVC.predict", "gpusvm.SVC.coef_", "gpusvm.data.Table.of"} <= EVERYTHING.keys()


def test_everything_public_has_a_docstring() -> None:
    assert [name for name, found in EVERYTHING.items() if not inspect.getdoc(found)] == []


def test_every_parameter_is_described_in_its_order() -> None:
    """A class that is its fields describes them as attributes."""
    for name, called in CALLED.items():
        found = sections(called)
        described = names(found.get("Parameters", ""))
        if inspect.isclass(called) and not described:
            described = [own for own in names(found.get("Attributes", "")) if own in parameters(called)]
        assert described == parameters(called), name


def test_what_comes_back_is_described() -> None:
    for name, called in CALLED.items():
        if not inspect.isclass(called):
            returned = inspect.signature(called).return_annotation
            described = bool({"Returns", "Yields"} & sections(called).keys())
            assert described == (returned not in (None, "None")), name


def test_a_docstring_that_lacks_something_would_be_seen() -> None:
    def incomplete(a: int, b: int) -> int:
        """Add.

        Parameters
        ----------
        a : int
        """
        return a + b

    assert names(sections(incomplete)["Parameters"]) != parameters(incomplete)
    assert "Returns" not in sections(incomplete)

"""Packages that import what they are asked for, when they are asked (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazily(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``, which import its names when asked for them.

    For a type checker the package imports the same names under ``if TYPE_CHECKING``; a test
    compares the two. Its modules can be asked for in the same way, so ``gpusvm.data.load_dataset``
    works after ``import gpusvm``.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    names : mapping
        For each module of the package, the names that are taken from it.
    """
    module_of = {name: module for module, found in names.items() for name in found}

    def __getattr__(name: str) -> Any:
        module = module_of.get(name, name)
        if name not in module_of and (name.startswith("_") or find_spec(f"{package}.{name}") is None):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value: Any = import_module(f"{package}.{module}")
        except AttributeError as error:  # which would be taken for our saying that there is no such name
            raise ImportError(f"{package}.{module} cannot be imported: {error}") from error
        value = getattr(value, name) if name in module_of else value
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return __getattr__, __dir__

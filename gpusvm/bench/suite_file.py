"""Reading suites: finding the TOML file, and checking all of it before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from gpusvm.bench.named_tables import check_table
from gpusvm.bench.suite import Case, Override, Suite
from gpusvm.bench.validation import quote, validated
from gpusvm.errors import DataError, UsageError

SUITES_FOLDER = Path("benchmarks")
"""Where a suite named without a path is looked for first; then among those inside the package."""

# Many times the size of any suite; what tomllib takes for dotted keys grows with the square of
# their length.
_LARGEST_FILE = 2**14


def load_suite(source: str | Path) -> Suite:
    """Read a suite from a file, or by name from ``benchmarks/`` or from inside the package.

    Raises
    ------
    UsageError
        There is no suite of that name.
    DataError
        The file is missing, no TOML, or no suite.
    """
    path = find_suite(str(source))
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(
            f"{source}: cannot read the suite: {error.strerror}; check the path, or name one of "
            f"{', '.join(suite_names())}"
        ) from error
    if len(content) > _LARGEST_FILE:
        raise DataError(f"{source}: is larger than {_LARGEST_FILE:,} bytes, too large for a suite; name another file")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: is not valid TOML: {error}; mend it there") from error
    return parse_suite(table, str(source))


def find_suite(source: str) -> Path:
    """The file of a suite given as a path or as a name. Raises UsageError for an unknown name."""
    if source.endswith(".toml") or "/" in source or Path(source).is_file():
        return Path(source)
    for folder in (SUITES_FOLDER, _bundled_folder()):
        if (folder / f"{source}.toml").is_file():
            return folder / f"{source}.toml"
    raise UsageError(f"no suite is called {source!r}; choose from {', '.join(suite_names())}, or give a .toml file")


def default_suite() -> str:
    """The suite where none is named.

    It is ``full`` where the project's benchmarks/ is, else ``quick``.
    """
    return "full" if (SUITES_FOLDER / "full.toml").is_file() else "quick"


def suite_names() -> list[str]:
    """The suites that can be named without a path."""
    return sorted({path.stem for folder in (SUITES_FOLDER, _bundled_folder()) for path in folder.glob("*.toml")})


def _bundled_folder() -> Path:
    return Path(str(files("gpusvm.bench"))) / "suites"


def parse_suite(table: Any, where: str) -> Suite:
    """The suite in a parsed file; `where` names the file in messages.

    Raises DataError for an unknown key, a missing one, or a value of the wrong type or out of
    range.
    """
    suite = validated(Suite, _with_names(table), where, keys=_KEYS)
    for name, described in suite.tables.items():
        check_table(described, f"{where}: [tables.{name}]")
    if not suite.contenders:
        raise DataError(f"{where}: measures nothing: list backends, peers, or both")
    names = [case.name for case in suite.cases]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{where}: two cases are called {twice!r}; give each its own name")
    for case in suite.cases:
        _check_data(suite, case, where)
    if stray := next((name for name in suite.overrides if name not in suite.contenders), None):
        raise DataError(f"{where}: [overrides.{stray}] is for a contender that the suite does not list")
    return suite


def _with_names(table: Any) -> Any:
    """The same with a name for each case that has none: what its other keys say."""
    if not isinstance(table, dict) or not isinstance(table.get("cases"), list):
        return table
    cases = [{"name": _describe(case), **case} if isinstance(case, dict) else case for case in table["cases"]]
    return {**table, "cases": cases}


def _check_data(suite: Suite, case: Case, where: str) -> None:
    """Raise DataError where it is not clear what a case is measured on, and by whom."""
    label = f"{where}: case {quote(case.name)}"
    if case.dataset is None:
        own = next((key for key in ("sizes", "n_test") if getattr(case, key) is not None), None)
        if own or case.test_on_training:
            raise DataError(f"{label}: {own or 'test_on_training'} is for a case with a dataset of its own; name it")
        if missing := next((key for key in ("dataset", "sizes") if not getattr(suite, key)), None):
            raise DataError(f"{where}: {missing} is missing; a suite needs it, or each case its own")
    elif not case.sizes:
        raise DataError(f"{label}: sizes is missing; a case with a dataset of its own needs it")
    if suite.table_of(case) is not None and (case.dataset is None or case.n_test is None):
        raise DataError(f"{label}: is measured on a table, and needs dataset, sizes and n_test of its own")
    if case.search_C or case.search_gamma or case.folds:
        if missing := next((key for key in ("search_C", "search_gamma") if not getattr(case, key)), None):
            raise DataError(f"{label}: {missing} is missing; a search needs search_C and search_gamma")
        if case.kernel != "rbf":
            raise DataError(f"{label}: searches are for the rbf kernel, not {case.kernel}")
    if why := suite.unfit(case):
        raise DataError(f"{label}: {why}")
    if stray := next((name for name in case.once if name not in suite.contenders), None):
        raise DataError(f"{label}: once names {stray}, which the suite does not list")


def _describe(values: Mapping[str, Any]) -> str:
    settings = " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value if isinstance(value, str) else quote(value)}"
        for key, value in values.items()
        if key not in ("kernel", "sizes", "n_test", "test_on_training", "once")
    )
    return f"{values.get('kernel', 'rbf')} {settings}".strip()


_KEYS = [each.name for kind in (Suite, Case, Override) for each in fields(kind)]

"""Reading suites: finding the TOML file, and checking all of it before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from gpusvm.bench import checks
from gpusvm.bench.contenders import contender_names, own_names, peer_names
from gpusvm.bench.named_tables import check_table
from gpusvm.bench.suite import BEST_PEER, CONTENDER, REPEATS, SIZES, Case, Override, Suite
from gpusvm.errors import DataError, UsageError
from gpusvm.params import KERNEL_NAMES

SUITES_FOLDER = Path("benchmarks")
"""Where a suite named without a path is looked for first; then among those inside the package."""

# Many times the size of any suite; what tomllib takes for dotted keys grows with the square of their length.
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
    """The suite where none is named: ``full`` where the project's benchmarks/ is, else ``quick``."""
    return "full" if (SUITES_FOLDER / "full.toml").is_file() else "quick"


def suite_names() -> list[str]:
    """The suites that can be named without a path."""
    return sorted({path.stem for folder in (SUITES_FOLDER, _bundled_folder()) for path in folder.glob("*.toml")})


def _bundled_folder() -> Path:
    return Path(str(files("gpusvm.bench"))) / "suites"


def parse_suite(table: Any, where: str) -> Suite:
    """The suite in a parsed file; `where` names the file in messages.

    Raises DataError for an unknown key, a missing one, or a value of the wrong type or out of range.
    """
    values = checks.read_table(table, _SUITE_KEYS, where)
    checks.require(values, ("name", "cases"), where)
    values["tables"] = {
        name: check_table(table, f"{where}: [tables.{name}]") for name, table in values.get("tables", {}).items()
    }
    values["cases"] = _cases(values["cases"], where)
    values["overrides"] = _overrides(values.get("overrides", {}), where)
    suite = Suite(**values)
    if not suite.contenders:
        raise DataError(f"{where}: measures nothing: list backends, peers, or both")
    for case in suite.cases:
        _check_data(suite, case, where)
    if stray := next((name for name in suite.overrides if name not in suite.contenders), None):
        raise DataError(f"{where}: [overrides.{stray}] is for a contender that the suite does not list")
    return suite


def _cases(tables: list[Any], where: str) -> tuple[Case, ...]:
    cases = []
    for number, table in enumerate(tables, start=1):
        values = checks.read_table(table, _CASE_KEYS, f"{where}: case {number}")
        values.setdefault("name", _describe(values))
        cases.append(Case(**values))
    names = [case.name for case in cases]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{where}: two cases are called {twice!r}; give each its own name")
    return tuple(cases)


def _check_data(suite: Suite, case: Case, where: str) -> None:
    """Raise DataError where it is not clear what a case is measured on, and by whom."""
    label = f"{where}: case {checks.quote(case.name)}"
    if case.dataset is None:
        own = next((key for key in ("sizes", "n_test") if getattr(case, key) is not None), None)
        if own or case.test_on_training:
            raise DataError(f"{label}: {own or 'test_on_training'} is for a case with a dataset of its own; name it")
        checks.require({key: True for key in ("dataset", "sizes") if getattr(suite, key)}, ("dataset", "sizes"), where)
    elif case.sizes is None:
        raise DataError(f"{label}: sizes is missing; a case with a dataset of its own needs it")
    if suite.table_of(case) is not None and (case.dataset is None or case.n_test is None):
        raise DataError(f"{label}: is measured on a table, and needs dataset, sizes and n_test of its own")
    if case.search_C or case.search_gamma or case.folds:
        checks.require({key: 1 for key in _GRID if getattr(case, key)}, _GRID, label)
        if case.kernel != "rbf":
            raise DataError(f"{label}: searches are for the rbf kernel, not {case.kernel}")
    if why := suite.unfit(case):
        raise DataError(f"{label}: {why}")
    if stray := next((name for name in case.once if name not in suite.contenders), None):
        raise DataError(f"{label}: once names {stray}, which the suite does not list")


_GRID = ("search_C", "search_gamma")


def _describe(values: Mapping[str, Any]) -> str:
    settings = " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
        if key not in ("kernel", "sizes", "n_test", "test_on_training", "once")
    )
    return f"{values.get('kernel', 'rbf')} {settings}".strip()


def _overrides(table: dict[str, Any], where: str) -> dict[str, Override]:
    overrides = {}
    for name, values in table.items():
        label = f"{where}: [overrides.{name}]"
        checks.check(label, CONTENDER, name)
        overrides[name] = Override(**checks.read_table(values, _OVERRIDE_KEYS, label))
    return overrides


_SUITE_KEYS: dict[str, checks.Reader] = {
    "name": checks.matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "a word that can begin a file's name (letters, digits, dots, dashes)",
    ),
    "title": checks.text,
    "dataset": checks.text,
    "test_dataset": checks.text,
    "n_test": checks.whole(1),
    "seed": checks.whole(0),
    "binarize": checks.flag,
    "deskew": checks.flag,
    "backends": checks.list_of(checks.one_of(own_names)),
    "peers": checks.list_of(checks.one_of(peer_names)),
    "reference": checks.one_of(lambda: [*contender_names(), BEST_PEER]),
    "sizes": SIZES,
    "repeats": REPEATS,
    "warmup": checks.whole(2),
    "timeout_s": checks.positive,
    "least_timed_s": checks.seconds,
    "tables": checks.table,
    "cases": checks.tables,
    "overrides": checks.table,
}
_CASE_KEYS: dict[str, checks.Reader] = {
    "name": checks.text,
    "dataset": checks.text,
    "sizes": SIZES,
    "n_test": checks.whole(1),
    "test_on_training": checks.flag,
    "once": checks.list_of(CONTENDER),
    "kernel": checks.one_of(lambda: [name for name in KERNEL_NAMES if name != "precomputed"]),
    "gamma": checks.gamma,
    "search_C": checks.list_of(checks.parameter("C")),
    "search_gamma": checks.list_of(checks.positive),
    "folds": checks.whole(2, 1000),
    **{name: checks.parameter(name) for name in ("C", "degree", "coef0", "tol", "max_iter", "cache_size")},
}
_OVERRIDE_KEYS: dict[str, checks.Reader] = {"repeats": REPEATS, "timeout_s": checks.positive, "sizes": SIZES}

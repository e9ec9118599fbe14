"""Reading suites: what is shipped, what is accepted, and what is said about the rest."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from gpusvm.bench.suite import Suite
from gpusvm.bench.suite_file import default_suite, find_suite, load_suite, parse_suite, suite_names
from gpusvm.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]

GOOD = """
name = "small"
dataset = "digits"
sizes = [300, 600]
backends = ["sklearn"]
peers = ["knn"]

[[cases]]
kernel = "rbf"
C = 10
gamma = 0.02

[overrides.knn]
repeats = 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.toml"
    path.write_text(text)
    return path


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return load_suite(write(tmp_path, GOOD))


def test_a_suite_has_what_its_file_says(suite: Suite) -> None:
    assert suite.contenders == ("sklearn", "knn")
    assert suite.sizes == (300, 600)
    assert suite.cases[0].name == "rbf C=10 gamma=0.02"
    assert suite.repeats_of("sklearn", suite.cases[0]) == 3
    assert suite.repeats_of("knn", suite.cases[0]) == 1


def test_a_suite_survives_json(suite: Suite) -> None:
    assert parse_suite(json.loads(json.dumps(suite.to_dict())), "record") == suite


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda path: path.stem)
def test_every_suite_of_the_project_is_valid(path: Path) -> None:
    assert load_suite(path).name == path.stem


def test_quick_is_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "quick" in suite_names()
    assert default_suite() == "quick"
    assert load_suite("quick").dataset == "digits"


def test_in_the_project_full_is_the_default_and_names_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert default_suite() == "full"
    assert find_suite("gpu") == Path("benchmarks/gpu.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sizes", "size"), "unknown key 'size'; did you mean sizes?"),
        (("C = 10", "Gamma = 10"), "case 1: unknown key 'Gamma'; did you mean gamma?"),
        (('"sklearn"', '"sklaern"'), "backends: each must be one of"),
        (('["sklearn"]', '"sklearn"'), "backends must be a list, not 'sklearn'"),
        (("[300, 600]", "[300, 300]"), "sizes must be a list without repetitions"),
        (("[300, 600]", "[300, 0]"), "sizes: each must be at least 2, not 0"),
        (("[300, 600]", "[300.5]"), "sizes: each must be a whole number, not 300.5"),
        (("[300, 600]", "[300]\ntimeout_s = 0"), "timeout_s must be above 0, not 0"),
        (("[300, 600]", "[300]\ndeskew = 1"), "deskew must be true or false, not 1"),
        (('"small"', '"../small"'), "name must be a word that can begin a file's name"),
        (("C = 10", "C = true"), "case 1: C must be a number above 0, not True"),
        (('kernel = "rbf"', 'kernel = "precomputed"'), "kernel must be one of rbf, linear, poly, sigmoid"),
        (("gamma = 0.02", 'gamma = "small"'), "gamma must be a number of at least 0, 'scale' or 'auto'"),
        (("repeats = 1", "repeats = 0"), "overrides: knn: repeats must be at least 1, not 0"),
        (("overrides.knn", "overrides.libsvm"), "[overrides.libsvm] is for a contender that the suite does not list"),
        (('dataset = "digits"', ""), "dataset is missing"),
        (('name = "small"', ""), "name is missing"),
        (('backends = ["sklearn"]\npeers = ["knn"]', ""), "measures nothing"),
        (("[[cases]]", "[cases]"), "cases must be a list, each opened by [[cases]]"),
        (("[[cases]]", "[[cases]]\nC = 10\nkernel = 'rbf'\ngamma = 0.02\n[[cases]]"), "two cases are called"),
        (("[[cases]]", "[[cases"), "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = GOOD.replace(*change)
    if message.startswith("measures"):
        text = text.replace("[overrides.knn]\nrepeats = 1", "")
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml: cannot read the suite"):
        load_suite(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no suite is called 'fulll'; choose from"):
        load_suite("fulll")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not valid TOML"):
        load_suite(path)


def test_a_folder_is_no_suite(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(DataError, match="cannot read the suite"):
        load_suite(folder)


def test_options_replace_what_the_suite_says(suite: Suite) -> None:
    changed = suite.with_options(contenders=["libsvm", "cuml"], sizes=[100], repeats=2, timeout_s=5)
    assert (changed.backends, changed.peers) == (("cuml",), ("libsvm",))
    assert changed.sizes == (100,)
    assert changed.overrides == {}
    assert changed.timeout_of("libsvm") == 5
    assert parse_suite(json.loads(json.dumps(changed.to_dict())), "record") == changed


SEARCHED = {"search_C": [1, 10], "search_gamma": [0.1, 1]}


@pytest.mark.parametrize(
    ("contender", "case", "message"),
    [
        ("tune", {}, "tune searches for C and gamma, and the case has no search_C"),
        ("sklearn", SEARCHED, "sklearn searches for nothing; search_C and search_gamma are for tune, search, grid-"),
        ("tune", {"search_C": [1]}, "search_gamma is missing"),
        ("tune", SEARCHED | {"kernel": "linear"}, "searches are for the rbf kernel, not linear"),
        ("tune", {"search_C": [0]}, "search_C: each must be a number above 0"),
    ],
)
def test_a_case_with_a_grid_is_for_those_who_search(contender: str, case: dict, message: str) -> None:
    table = {"name": "x", "dataset": "digits", "sizes": [10], "backends": [contender], "cases": [case]}
    with pytest.raises(DataError, match=message):
        parse_suite(table, "here")


def test_searches_and_others_do_not_mix_by_options() -> None:
    table = {"name": "x", "dataset": "digits", "sizes": [10], "backends": ["tune"], "cases": [SEARCHED]}
    suite = parse_suite(table, "here")
    assert parse_suite(json.loads(json.dumps(suite.to_dict())), "record") == suite
    with pytest.raises(UsageError, match=r"--backends: in case .* knn searches for nothing"):
        suite.with_options(contenders=["tune", "knn"])


def test_an_option_for_all_sets_aside_what_one_contender_had(suite: Suite) -> None:
    assert suite.with_options(repeats=5).repeats_of("knn", suite.cases[0]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contenders": ["sklaern"]}, "--backends must be one of"),
        ({"sizes": [1]}, "--sizes: each must be at least 2, not 1"),
        ({"repeats": 0}, "--repeats must be at least 1, not 0"),
        ({"timeout_s": -1.0}, "--timeout must be above 0"),
    ],
)
def test_wrong_options_are_wrong_usage(suite: Suite, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        suite.with_options(**options)


def test_a_value_that_no_message_could_quote_is_named_by_its_type(tmp_path: Path) -> None:
    """Its repr raises an error in some versions of Python; in others the message has its
    beginning."""
    path = write(tmp_path, f"title{'.a' * 3000} = 1\n{GOOD}")
    try:
        repr(tomllib.loads(path.read_text())["title"])
        shown = r"\{'a': .{50,100}\.\.\."
    except RecursionError:
        shown = "a value of type dict that is too large to show"
    with pytest.raises(DataError, match=f"title must be a text, not {shown}$"):
        load_suite(path)


def test_a_suite_without_end_is_not_read_to_it() -> None:
    with pytest.raises(DataError, match="is larger than 16,384 bytes"):
        load_suite("/dev/zero")

"""Every block of code in the README and the docs runs, and the examples in public docstrings.

A page's blocks run one after another in a folder of small data: Python in one namespace, `gpusvm`
commands as typed. The comment ``<!-- not run: why -->`` before a block leaves it out. Of other
commands it is checked that what they name is there: make's targets, scripts, extras of the
package.
"""

from __future__ import annotations

import doctest
import hashlib
import importlib
import re
import shlex
import shutil
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import dump_svmlight_file, load_breast_cancer
from typer.testing import CliRunner

from gpusvm.cli.main import app
from gpusvm.data import CATALOGUE, Dataset, catalogue, idx, load_dataset
from gpusvm.errors import SlowBackendWarning

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "sh", "text", "toml"}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    left_out: str
    """Why it is not run; empty where it is."""


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"(?:<!-- not run: ([^>]+) -->\n+)?^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(match[2], match[3], line, match[1] or ""))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_says_what_it_is(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    hidden = re.findall(r"^ {4}(?:gpusvm|pip|from|import) .*$", outside, re.M)
    assert hidden == [], "code in a fence is run; indented it would not be"


RUN = [
    page for page in PAGES if any(block.language in ("python", "sh") and not block.left_out for block in blocks(page))
]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run(page, small_data, monkeypatch):
    monkeypatch.chdir(small_data)
    names: dict = {"__name__": "page", **given()}
    for block in blocks(page):
        if block.left_out:
            continue
        where = f"{name_of(page)}, line {block.line}"
        if block.language == "python":
            run_python(block.code, where, names)
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line, comments=True), where, monkeypatch)


def given() -> dict:
    """What pages speak of as if the reader had it: samples and labels."""
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return {"X": X[:300], "y": y[:300], "X_new": X[300:320]}


def run_python(code: str, where: str, names: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowBackendWarning)
        exec(compile(code, where, "exec"), names)


def run_command(words: list[str], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match words:
        case []:
            pass
        case ["gpusvm", *arguments]:
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, f"{where}: {shlex.join(words)}\n{done.output}"
        case ["export", setting]:
            monkeypatch.setenv(*setting.split("=", 1))
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), where
        case ["pip", "install", what]:
            named = re.search(r"\[(.*)\]", what)
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert what.startswith("cupy-") or named is None or set(named[1].split(",")) <= set(extras), where
        case ["python" | "bash", script, *_]:
            assert (ROOT / script).is_file(), where
        case _:
            pytest.fail(f"{where}: no rule for {shlex.join(words)}")


@pytest.fixture
def small_data(files, tmp_path, monkeypatch) -> Path:
    """A folder with the files that pages name, and an MNIST of 80 enlarged digits in the
    catalogue's place."""
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    folder = Path(shutil.copytree(files, tmp_path / "reader"))
    monkeypatch.setenv("GPUSVM_DATA_DIR", str(folder / "sets"))
    put_in_the_catalogue(folder / "sets" / "mnist", monkeypatch)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """That folder, written once."""
    folder = tmp_path_factory.mktemp("pages")
    digits = load_dataset("digits")
    write_small_mnist(folder / "sets" / "mnist", digits)
    frame = load_breast_cancer(as_frame=True).frame.iloc[::3]
    frame.to_csv(folder / "cancer.csv", index=False)
    heart = frame.iloc[:, [0, 1, 2, 3, -1]]
    heart.assign(name=[f"n{k}" for k in range(len(heart))], remarks="none").to_csv(folder / "patients.csv", index=False)
    heart.to_csv(folder / "heart.csv", index=False)
    frame.to_csv(folder / "new.csv", index=False)
    dump_svmlight_file(frame.iloc[:, :-1].to_numpy(), frame["target"], str(folder / "a9a"))
    for split, n in (("train", 60), ("test", 20)):
        for k in range(n):
            place = folder / "letters" / split / "ab"[digits.labels[k] % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.images[k]).save(place / f"{k:03}.png")
    (folder / "scans").mkdir()
    for k in range(5):
        Image.fromarray(digits.images[k]).save(folder / "scans" / f"{k}.png")
    Image.fromarray(255 - np.kron(digits.images[0], np.ones((6, 6), np.uint8))).save(folder / "scan.png")
    return folder


def write_small_mnist(folder: Path, digits: Dataset) -> None:
    images = np.zeros((110, 28, 28), np.uint8)
    images[:, 6:22, 6:22] = np.kron(digits.images[:110], np.ones((2, 2), np.uint8))
    folder.mkdir(parents=True)
    arrays = (images[:80], digits.labels[:80], images[80:], digits.labels[80:110])
    for file, array in zip(CATALOGUE["mnist"].files, arrays, strict=True):
        idx.write(folder / file.name, array)


def put_in_the_catalogue(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for file in CATALOGUE["mnist"].files:
        content = (mnist / file.name).read_bytes()
        files.append(catalogue.CatalogueFile(file.name, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)))
    monkeypatch.setitem(CATALOGUE, "mnist", replace(CATALOGUE["mnist"], files=tuple(files)))


def public() -> dict[str, object]:
    """What the three modules say is public, by its full name."""
    modules = {name: importlib.import_module(name) for name in ("gpusvm", "gpusvm.data", "gpusvm.preprocess")}
    return {f"{name}.{thing}": getattr(module, thing) for name, module in modules.items() for thing in module.__all__}


@pytest.mark.parametrize("name", [name for name, thing in public().items() if ">>>" in (thing.__doc__ or "")])
def test_the_examples_of_a_docstring_run(name, small_data, monkeypatch):
    monkeypatch.chdir(small_data)
    thing = public()[name]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(thing, name, globs={}):
        report: list[str] = []
        runner.run(test, out=report.append)
        assert runner.failures == 0, "".join(report)


def test_every_public_name_is_on_the_site():
    """The estimators, models and functions have their place in the API reference."""
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    on_it = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", pages, re.M)}
    assert {name.rpartition(".")[2] for name in public()} - on_it == {"__version__"}

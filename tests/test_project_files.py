"""The files around the package: workflows call targets that exist, versions agree, what a release
takes is there."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def parsed(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def jobs(file: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Each job of a workflow, once for each entry of its matrix, with that entry."""
    for job in parsed(file)["jobs"].values():
        for entry in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
            yield job, entry


def filled(text: str, entry: dict[str, str]) -> str:
    """A line of a workflow with the matrix's entry in its place."""
    return re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: str(entry[found[1]]), text)


def steps(file: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    for job, entry in jobs(file):
        for step in job.get("steps", []):
            yield step, entry


def supported_pythons() -> set[str]:
    prefix = "Programming Language :: Python :: 3."
    return {"3." + line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_run_targets_that_exist_on_pythons_that_are_supported(file: Path) -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    for step, entry in steps(file):
        for words in re.findall(r"^make (.*)$", filled(step.get("run", ""), entry), re.MULTILINE):
            named = {word for word in words.split() if "=" not in word}
            assert named <= TARGETS, words
        if "python-version" in step.get("with", {}):
            python = filled(step["with"]["python-version"], entry)
            assert python in supported_pythons()
            assert tuple(map(int, python.split("."))) >= tuple(map(int, oldest.split(".")))


def test_every_supported_python_runs_the_suite() -> None:
    tested = {entry["python"] for job, entry in jobs(GITHUB / "workflows" / "checks.yml") if "python" in entry}
    assert tested == supported_pythons()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_may_do_little_and_end(file: Path) -> None:
    """Read the repository alone, but for the jobs that publish; in bounded time; by actions of a
    stated version."""
    workflow = parsed(file)
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        granted = {what for what, how in job.get("permissions", {}).items() if how == "write"}
        assert granted <= {"publish": {"id-token"}, "announce": {"contents"}}.get(name, set()), name
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
        else:
            assert 0 < job["timeout-minutes"] <= 90, name
    for step, _ in steps(file):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("file", sorted(GITHUB.rglob("*.yml")), ids=lambda file: file.name)
def test_what_github_reads_is_yaml(file: Path) -> None:
    assert isinstance(parsed(file), dict)


def test_hooks_before_a_commit_run_what_the_environment_has() -> None:
    for repository in parsed(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            program = hook["entry"].split()[0]
            assert program.removeprefix(".venv/bin/") in {"ruff", "mypy"}


@pytest.fixture(scope="module")
def release_notes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / "tools" / "release_notes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_files_name_one_version(release_notes: ModuleType) -> None:
    assert len(set(release_notes.versions().values())) == 1, release_notes.versions()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of a project that can be released as 1.2.0."""
    (tmp_path / "gpusvm").mkdir()
    (tmp_path / "gpusvm" / "version.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 - 2030-01-31\n\n- New.\n\n## 1.1.0 - 2029-01-31\n")
    return tmp_path


def test_release_notes_are_the_versions_part_of_the_changelog(release_notes: ModuleType, project: Path) -> None:
    assert release_notes.release_notes("v1.2.0", project) == "- New.\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("gpusvm/version.py", '__version__ = "1.1.0"\n', "gpusvm/version.py says 1.1.0"),
        ("CITATION.cff", "version: 1.3.0\n", "CITATION.cff says 1.3.0"),
        ("CITATION.cff", "title: none\n", "CITATION.cff names no version"),
        ("CHANGELOG.md", "## 1.1.0 - 2029-01-31\n", "CHANGELOG.md says 1.1.0"),
        ("CHANGELOG.md", "## 1.2.0 (unreleased)\n\n- New.\n", 'no heading "## 1.2.0 - YEAR-MONTH-DAY"'),
    ],
)
def test_a_release_is_refused_where_files_disagree(
    release_notes: ModuleType, project: Path, file: str, text: str, said: str
) -> None:
    (project / file).write_text(text)
    with pytest.raises(SystemExit, match=re.escape(said)):
        release_notes.release_notes("v1.2.0", project)

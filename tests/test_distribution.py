"""What the wheel and the sdist hold: the package, and nothing else of the project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "gpusvm", "tests", "benchmarks", "docs", "tools")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built from a copy: building leaves files where it is done."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source)
    for what in ("build_sdist", "build_wheel"):
        command = [sys.executable, "-c", BUILD, what, str(dist)]
        subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    return dist


def package_files() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed", "bench/suites/*.toml", "solver/*.cu", "io/web_page/*", "report/templates/*")
        for path in (ROOT / "gpusvm").rglob(pattern)
    }


def test_the_wheel_is_the_package(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    metadata = {name for name in names if PurePosixPath(name).parts[0].endswith(".dist-info")}
    assert names - metadata == package_files()
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_sdist_adds_what_it_takes_to_build(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    described = {name for name in names if name.startswith("gpusvm.egg-info/")}
    assert names - described == package_files() | {
        "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "PKG-INFO", "setup.cfg"
    }  # fmt: skip

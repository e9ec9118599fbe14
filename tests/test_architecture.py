"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpusvm

PACKAGE = Path(gpusvm.__file__).parent


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_only_its_backend_imports_cuml():
    importers = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if "cuml" in imported(file)}
    assert importers == {str(Path("backends", "cuml.py"))}


HEAVY = ("cupy", "cuml", "numba", "matplotlib", "onnx", "onnxruntime", "sklearnex", "dask")
"""Each costs a second or so to import, and its import may fail."""


def loaded_by(code: str, names: tuple[str, ...], folder: Path) -> list[str]:
    """Which of the packages a process that runs `code` has imported at its end.

    Empty ones stand for them, so that an import is seen where the package itself is not installed.
    """
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("")
    code += f"\nprint(sorted(set(sys.modules) & set({names})), file=sys.stderr)"
    # Devices are hidden, since with one that works `gpusvm info` has to import CuPy and cuML.
    environment = {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stderr.splitlines()[-1])


def test_importing_gpusvm_brings_in_nothing_heavy(tmp_path):
    assert loaded_by("import sys, gpusvm, gpusvm.cli.main", (*HEAVY, "pooch"), tmp_path) == []


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["data", "list"]], ids=" ".join)
def test_the_commands_that_should_answer_at_once_bring_in_nothing_heavy(arguments, tmp_path):
    """`make bench-startup` times them."""
    code = f"""
import sys
from gpusvm.cli.main import app
try:
    app({arguments})
except SystemExit as end:
    assert not end.code
"""
    assert loaded_by(code, HEAVY, tmp_path) == []


def test_no_file_is_read_by_what_can_run_code():
    """No pickle in any form, no eval, no archive unpacked to files: what a reader cannot call, no file can trigger."""
    forbidden_modules = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "tarfile", "runpy"}
    forbidden_calls = {"eval", "exec", "load_pickle", "extract", "extractall", "unpack_archive", "fromfile", "memmap"}
    for file in PACKAGE.rglob("*.py"):
        assert not imported(file) & forbidden_modules, file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called.rpartition(".")[2] not in forbidden_calls, f"{file}: {called}"
                assert called not in ("joblib.load", "np.load", "numpy.load"), f"{file}: {called}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", file
            if isinstance(node, ast.keyword) and node.arg == "verify":
                assert ast.unparse(node.value) != "False", f"{file}: TLS certificates are not checked"


def test_numba_cuda_is_not_used():
    """It does not work beside a current NumPy: kernels for a GPU are CUDA C, compiled by CuPy."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            whole = [f"{getattr(node, 'module', None) or ''}.{name}".lstrip(".") for name in names]
            assert not [name for name in whole if name.startswith(("numba.cuda", "numba_cuda"))], file

"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

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


def test_importing_gpusvm_brings_in_nothing_heavy():
    code = (
        "import sys, gpusvm, gpusvm.cli.main;"
        "print(sorted(set(sys.modules) & {'cupy','cuml','numba','matplotlib','pooch','onnx','sklearnex','dask'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


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

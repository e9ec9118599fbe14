"""Every call of CuPy in the package and its scripts fits the signatures of the CuPy that is
installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from cupy_calls import n_calls, signature_of, wrong_calls

import gpusvm

cupy = pytest.importorskip("cupy", reason='CuPy is not installed: pip install "gpusvm[gpu-test]"')

PACKAGE = Path(gpusvm.__file__).parent
SCRIPTS = PACKAGE.parent / "benchmarks"


def uses_cupy(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    if not re.search(r"\b(cupy|xp|array_module)\b", text):  # few have them, and parsing all takes a second
        return False
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return bool(names & {"cupy", "xp", "array_module"})


FILES = sorted(file for folder in (PACKAGE, SCRIPTS) for file in folder.rglob("*.py") if uses_cupy(file))


OF_THE_HOST = ("norms.max: got an unexpected keyword argument 'initial'",)
"""What is found wrong, and is asked of NumPy's arrays: the norms of sparse samples, in
cuda_rows.py."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE.parent)))
def test_every_call_of_cupy_is_one_that_cupy_takes(file):
    found = wrong_calls(file.read_text(encoding="utf-8"), cupy)
    assert [what for what in found if not what.endswith(OF_THE_HOST)] == []


def test_the_files_of_the_gpus_path_are_looked_at():
    looked_at = {file.name: n_calls(file.read_text(encoding="utf-8"), cupy) for file in FILES}
    assert {"cuda.py", "native_cuda.py", "cuml.py", "device.py", "kernels.py", "predict.py"} <= set(looked_at)
    assert looked_at["cuda.py"] > 20 and looked_at["device.py"] > 8 and sum(looked_at.values()) > 120


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("xp.argsort(a, axis=1, stable=True)", "unexpected keyword argument 'stable'"),
        ("xp.maximum(a, b, where=c)", "unexpected keyword argument 'where'"),
        ("self.xp.zeros((3, 4), like=a)", "unexpected keyword argument 'like'"),
        ("xp.no_such_function(a)", "cupy has no no_such_function"),
        ("xp.float33", "cupy has no float33"),
        ("array_module(a).flatnonzero(a, 0)", "too many positional arguments"),
        ("cupy.cuda.Stream(nonblocking=True)", "unexpected keyword argument 'nonblocking'"),
        ("cupy.cuda.runtime.memGetInfo(0)", "too many positional arguments"),
        ("runtime = cupy.cuda.runtime\nruntime.getDevices()", "has no getDevices"),
        ("cupy.RawModule(code=a, flags=())", "unexpected keyword argument 'flags'"),
        ("cupy.RawModule(code=a).get_kernel('f')", "RawModule has no get_kernel"),
        ("m = cupy.RawModule(code=a)\nm.get_function()", "missing a required argument: 'name'"),
        ("xp.zeros(3).sum(where=a)", "unexpected keyword argument 'where'"),
        ("a.astype(float, copy=False, order=None, more=1)", "unexpected keyword argument 'more'"),
        ("a.argsort(1, 'stable', None)", "too many positional arguments"),
        ("cupy.cuda.get_current_stream().wait()", "Stream has no wait"),
        ("pool = cupy.cuda.MemoryPool()\npool.free(1)", "MemoryPool has no free"),
        ("from cupy.cuda import no_such_thing", "cupy.cuda has no no_such_thing"),
        ("from cupy.cuda import runtime as made\nmade.memGetInfo(0)", "too many positional arguments"),
    ],
)
@pytest.mark.parametrize("where", ["at the top", "in a function"])
def test_a_wrong_call_is_found(line, says, where):
    if where == "in a function":
        line = "def f(self, a, b, c, xp):\n" + "".join(f"    {part}\n" for part in line.splitlines())
    found = wrong_calls(line, cupy)
    assert found and all(says in what for what in found), found


@pytest.mark.parametrize(
    "line",
    [
        "xp.argsort(a, axis=1, kind='stable')",
        "xp.maximum(a, b, out=a)",
        "a.astype(xp.float32, copy=False)",
        "xp.asarray(a, dtype=b, order='F')",
        "xp.einsum('ij,ij->i', a, a)",
        "cupy.RawModule(code=a, options=('-std=c++17',)).get_function('f')",
        "xp.concatenate(*a, **b)",
        "np.argsort(a, stable=True)",
        "a.get('key')",
        "cupy.cuda.Device(0).synchronize()",
        "cupy.cuda.Device().synchronize()",
    ],
)
def test_a_right_call_passes(line):
    assert wrong_calls(line, cupy) == []


def test_a_signature_of_compiled_code_is_read_from_its_docstring():
    names = list(signature_of(cupy.RawModule).parameters)
    assert names[:3] == ["code", "path", "options"]
    assert list(signature_of(cupy.maximum).parameters)[:3] == ["x1", "x2", "out"]
    assert list(signature_of(cupy.ndarray.get).parameters)[:2] == ["self", "stream"]

"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gpusvm
from gpusvm.cli.main import app

PACKAGE = Path(gpusvm.__file__).parent
ARCHITECTURE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")

MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
"""The files of the package by their names within it: ``solver.smo``; a folder's `__init__` by the
folder's."""


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def nodes_of(file: Path) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(tree_of(file)))


def rows_of_the_table() -> list[set[str]]:
    """The rooms of each row of "Who may import whom", from top to bottom."""
    table = ARCHITECTURE.partition("### Who may import whom")[2].partition("\n\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [set(re.findall("`([a-z_.]+)`", row)) for row in rows]


LEVELS = {room: level for level, row in enumerate(rows_of_the_table()) for room in row}


def room_of(module: str) -> str:
    """The room of a module: itself where the table names it (``io.output``), else what stands at
    the top."""
    return module if module in LEVELS else module.partition(".")[0]


def runs(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a syntax tree but what is for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from runs(child)


def modules_imported(file: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in runs(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            named = {name for name in within if name.removeprefix("gpusvm.") in MODULES}
            found |= named or {node.module}
    return {name.removeprefix("gpusvm.") for name in found if name.startswith("gpusvm.")}


def test_imports_go_up_the_table():
    rooms = {room_of(module) for module in MODULES} - {""}
    assert rooms - {"svm"} == set(LEVELS), "each room has its place in docs/architecture.md"
    wrong = [
        f"{module} imports {other}"
        for module, file in MODULES.items()
        if module and room_of(module) in LEVELS
        for other in sorted(modules_imported(file))
        if room_of(other) != room_of(module) and not LEVELS[room_of(other)] < LEVELS[room_of(module)]
    ]
    assert wrong == []


def test_what_is_said_to_decide_is_there():
    """Files named in "Where is it decided", and the functions, classes and numbers named beside
    them."""
    table = ARCHITECTURE.partition("### Where is it decided")[2].partition("\n### ")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 15
    for row in rows:
        names = [name for cell in row for name in re.findall("`([^`]+)`", cell)]
        files = [PACKAGE / name for name in names if name.endswith(".py")]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        absent = [n for n in names if n.isidentifier() and n != "tol" and not re.search(rf"\b{n}\b", text)]
        assert files and absent == [], row


def test_every_file_has_its_line_in_the_house():
    house = ARCHITECTURE.partition("## The house")[2].partition("Data flows one way")[0]
    assert [str(file) for file in MODULES.values() if file.name != "__init__.py" and file.name not in house] == []


@cache
def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    found = set()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(("package", "importer"), [("cuml", "backends/cuml.py"), ("resource", "memory.py")])
def test_only_one_file_imports_what_not_every_machine_has(package, importer):
    assert [file for file in MODULES.values() if package in imported(file)] == [PACKAGE / importer]


HEAVY = ("cupy", "cuml", "numba", "matplotlib", "onnx", "onnxruntime", "sklearnex", "dask")
"""Each costs a second or so to import, and its import may fail."""

NUMERIC = ("numpy", "scipy", "sklearn", "joblib", "safetensors", "PIL", "threadpoolctl")
"""What every training needs, and no help text; a second together."""

NETWORK = ("requests", "urllib3")


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


def test_importing_gpusvm_brings_in_nothing(tmp_path):
    code = "import sys, gpusvm, gpusvm.data, gpusvm.estimators; dir(gpusvm)"
    assert (
        loaded_by(
            code,
            (*HEAVY, *NUMERIC, *NETWORK, "pandas", "pyarrow", "psutil", "jinja2", "pydantic", "rich", "typer"),
            tmp_path,
        )
        == []
    )


def test_estimators_and_info_bring_in_what_they_compute_with_and_no_more(tmp_path):
    """Beside scikit-learn, which brings in rich and pandas itself where they are installed."""
    code = f"""
import sys
from gpusvm import SVC, SVR, OneClassSVM, SVCSearchCV
assert not set(sys.modules) & {{"typer", "PIL", "safetensors"}}
{running(["info"])}
"""
    assert loaded_by(code, HEAVY + NETWORK, tmp_path) == []


def running(*commands: list[str]) -> str:
    """Code that runs commands one after the other."""
    return f"""
from gpusvm.cli.main import app
for arguments in {commands}:
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code
"""


def test_the_commands_that_should_answer_at_once_bring_in_nothing_heavy(tmp_path):
    """`make bench-startup` times them."""
    quick = ["--help"], ["--version"], ["data", "list"], ["data", "--help"], ["train", "--help"], ["tune", "--help"]
    code = "import sys" + running(*quick)
    assert loaded_by(code, (*HEAVY, *NUMERIC, *NETWORK, "pandas", "psutil", "jinja2"), tmp_path) == []


def test_printing_the_version_draws_nothing(tmp_path):
    assert loaded_by("import sys" + running(["--version"]), ("rich",), tmp_path) == []


LAZY_PACKAGES = sorted(file for file in PACKAGE.rglob("__init__.py") if "lazily(" in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", LAZY_PACKAGES, ids=lambda file: str(file.parent.relative_to(PACKAGE.parent)))
def test_what_a_package_imports_when_asked_is_what_type_checkers_see(file):
    package = ".".join(file.parent.relative_to(PACKAGE.parent).parts)
    (choice,) = [node for node in tree_of(file).body if isinstance(node, ast.If)]
    seen = {
        node.module.removeprefix(f"{package}."): tuple(alias.name for alias in node.names)
        for node in choice.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith(package)
    }
    (call,) = [node for node in nodes_of(file) if isinstance(node, ast.Call)]
    assert ast.literal_eval(call.args[1]) == seen
    module = importlib.import_module(package)
    names = {name for found in seen.values() for name in found}
    assert names <= set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_lazy_package_has_its_modules_and_no_other_name():
    assert gpusvm.data.catalogue.CATALOGUE is gpusvm.data.CATALOGUE
    assert gpusvm.errors.DataError is gpusvm.DataError
    with pytest.raises(AttributeError, match="module 'gpusvm' has no attribute 'SVX'"):
        gpusvm.SVX  # noqa: B018
    assert not hasattr(gpusvm, "__wrapped__")


def test_the_help_lists_every_command_with_its_summary():
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    commands = {file.stem for file in (PACKAGE / "cli" / "commands").glob("[!_]*.py")}
    for command in commands:
        assert re.search(rf"\b{command} +[A-Z]\w+", listed), command


MOST_PARAMETERS, MOST_LINES = 8, 50
KERNEL_DECORATORS = {"compiled", "intrinsic", "numba.njit"}
LAUNCHES = PACKAGE / "solver" / "cuda_kernels.py"
"""Its methods hand a kernel what it takes, one to one."""


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for file in MODULES.values():
        for node in nodes_of(file):
            if isinstance(node, ast.FunctionDef):
                yield file, node


def is_kernel(file: Path, function: ast.FunctionDef) -> bool:
    """Whether it is compiled, or the launch of one that is: a kernel takes arrays, and is not cut
    for its length."""
    decorators = {ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in function.decorator_list}
    return bool(decorators & KERNEL_DECORATORS) or file == LAUNCHES


def parameters_of(function: ast.FunctionDef) -> list[str]:
    given = function.args
    variadic = [each for each in (given.vararg, given.kwarg) if each is not None]
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *variadic)]
    return [name for name in named if name not in ("self", "cls")]


def test_no_function_takes_more_than_eight_parameters():
    """But the constructor of an estimator, as scikit-learn has it, a command, and a kernel."""
    found = [
        f"{file.relative_to(PACKAGE)}: {function.name} takes {len(parameters_of(function))}"
        for file, function in functions()
        if len(parameters_of(function)) > MOST_PARAMETERS
        and not is_kernel(file, function)
        and not (file.parent.name == "estimators" and function.name == "__init__")
        and file.parent != PACKAGE / "cli" / "commands"
    ]
    assert found == []


def test_no_body_is_longer_than_fifty_lines():
    """But a kernel's. A docstring is no part of it."""
    found = []
    for file, function in functions():
        first = function.body[1 if ast.get_docstring(function) else 0 :]
        n_lines = function.end_lineno - first[0].lineno + 1 if first else 0
        if n_lines > MOST_LINES and not is_kernel(file, function):
            found.append(f"{file.relative_to(PACKAGE)}: {function.name} has {n_lines}")
    assert found == []


def test_no_file_is_read_by_what_can_run_code():
    """No pickle in any form, no eval, no archive unpacked to files: what a reader cannot call, no
    file can trigger."""
    forbidden_modules = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "tarfile", "runpy"}
    forbidden_calls = {"eval", "exec", "load_pickle", "extract", "extractall", "unpack_archive", "fromfile", "memmap"}
    for file in PACKAGE.rglob("*.py"):
        assert not imported(file) & forbidden_modules, file
        for node in nodes_of(file):
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
        for node in nodes_of(file):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            whole = [f"{getattr(node, 'module', None) or ''}.{name}".lstrip(".") for name in names]
            assert not [name for name in whole if name.startswith(("numba.cuda", "numba_cuda"))], file

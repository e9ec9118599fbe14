"""Compiled code is kept where that is possible, and the solver runs where it is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import FunctionCache

import gpusvm
from gpusvm.compat import Dispatcher
from gpusvm.solver.compilation import compiled, is_compiled, is_kept

TRAIN = """
import numpy as np
from gpusvm import SVC
rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
print(SVC(backend="native-cpu", kernel="precomputed").fit(X @ X.T, y).model_.n_support_vectors)
"""
"""A training for which little is compiled: not what predicts, nor what computes kernel values."""


@pytest.mark.skipif(sys.platform == "win32", reason="finds its folders without HOME")
def test_training_where_no_folder_can_be_written_is_done_with_a_notice(tmp_path):
    # A file in place of __pycache__ is in the way of root too, whom no permission stops.
    shutil.copytree(Path(gpusvm.__file__).parent, tmp_path / "gpusvm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "gpusvm" / "solver" / "__pycache__").write_text("")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    environment |= {
        "HOME": str(tmp_path / "gpusvm" / "__init__.py" / "home"),
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_OPT": "0",  # slow code, soon compiled
    }
    done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("gpusvm: "))
    assert "compiling the solver for this machine (for this run only: no folder" in line


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A module whose function `twice` Numba keeps in `tmp_path`."""
    path = tmp_path / "kept.py"
    path.write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import kept

    yield kept
    del sys.modules["kept"]


def kept_files(folder):
    return sorted((folder / "__pycache__").glob("*.nb?"))


def test_code_is_kept_and_taken_from_there(source, tmp_path):
    assert compiled()(source.twice)(3) == 6 and len(kept_files(tmp_path)) == 2
    again = compiled()(source.twice)
    assert again(3) == 6 and is_kept(again) and sum(again._cache_hits.values()) == 1


def test_for_which_dtypes_code_is_kept_is_known_without_loading_it(source, tmp_path, monkeypatch):
    compiled()(source.twice)(np.ones(3, np.float32))
    again = compiled()(source.twice)
    assert is_compiled(again) and is_compiled(again, np.dtype(np.float32))
    assert not is_compiled(again, np.dtype(np.float64)) and again.signatures == []
    again(np.ones(3))
    assert is_compiled(again, np.dtype(np.float64))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(type(again.targetctx.codegen()), "magic_tuple", lambda self: ("another processor",))
        assert not is_compiled(compiled()(source.twice))
    assert is_compiled(compiled()(source.twice))
    for path in kept_files(tmp_path):
        path.write_bytes(b"damaged")
    assert not is_compiled(compiled()(source.twice))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("size", [0, 20])
def test_a_damaged_file_is_compiled_anew_and_mended(source, tmp_path, suffix, size):
    compiled()(source.twice)(3)
    (path,) = (path for path in kept_files(tmp_path) if path.suffix == suffix)
    path.write_bytes(path.read_bytes()[:size])
    assert compiled()(source.twice)(3) == 6
    again = compiled()(source.twice)
    assert again(3) == 6 and sum(again._cache_hits.values()) == 1


def test_a_full_disk_costs_the_copy_alone(source, tmp_path, monkeypatch):
    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", no_space)
    function = compiled()(source.twice)
    assert function(3) == 6 and function(np.float32(0.5)) == 1


def test_ctrl_c_while_kept_code_is_loaded_waits_and_is_not_lost(source, monkeypatch):
    loaded = []

    def load(self, sig, target_context):
        os.kill(os.getpid(), signal.SIGINT)
        loaded.append(sum(range(1000)))  # where the interrupt would have come

    monkeypatch.setattr(FunctionCache, "load_overload", load)
    # A shell may have started the tests with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiled()(source.twice)(3)
        assert loaded and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_number_in_the_code_of_a_caller_has_nothing_compiled_again():
    @compiled()
    def place(first, k):
        return first + k

    @compiled()
    def caller(k):
        return place(0, k) + place(k, 1) + place(first=2, k=k)

    assert caller(5) == 18 and place(7, 8) == 15
    assert len(place.signatures) == 1


def test_no_compiled_function_has_defaults():
    """One that is left out has a type of its own, for which Numba compiles the function again."""
    modules = [import_module(f"gpusvm.solver.{file.stem}") for file in Path(gpusvm.solver.__file__).parent.glob("*.py")]
    functions = {thing for module in modules for thing in vars(module).values() if isinstance(thing, Dispatcher)}
    assert len(functions) > 40
    assert [function.py_func.__qualname__ for function in functions if function.py_func.__defaults__] == []


def test_a_numba_that_must_not_compile_is_said_to_be_and_passed_over():
    """Its functions would be Python's, hours where compiled ones take seconds."""
    code = """
import numpy as np
from gpusvm import SVC, predict
from gpusvm.errors import BackendUnavailableError
X, y = np.random.default_rng(0).random((60, 3)), np.arange(60) % 3
predict.COMPILED_WORK = predict.COMPILATION_WORK = 0
svc = SVC().fit(X, y)
svc.predict(X)
print(svc.model_.provenance["backend"])
try:
    SVC(backend="native-cpu").fit(X, y)
except BackendUnavailableError as error:
    print(error)
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "sklearn",
        "backend native-cpu cannot run here: Numba is told to compile nothing; try: unset NUMBA_DISABLE_JIT",
    ]

"""Fixtures shared by the whole suite, and the rule by which GPU tests are skipped."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from gpusvm.data import find_local, load_dataset
from gpusvm.device import probe_cuda
from gpusvm.jobs import n_cores

SEED_VARIABLE = "GPUSVM_TEST_SEED"
SEED = int(os.environ.get(SEED_VARIABLE, 20260101))
"""Where all random tests begin: the same examples in every run, unless the variable names another
seed."""

# No deadline: what property tests assert does not depend on how fast the machine is.
# No database: examples that failed in an earlier run would be tried here and nowhere else.
settings.register_profile(
    "fixed", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, print_blob=True
)
settings.load_profile("fixed")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = SEED  # before Hypothesis's own plugin reads it
    if n_processes := config.getoption("numprocesses", None):
        # Theirs to inherit. BLAS threads of several processes on the same cores would wait for
        # each other, spinning.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, n_cores() // n_processes)))
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep what collecting the tests has made out of garbage collections: it stays to the end."""
    gc.freeze()
    gc.enable()


def pytest_report_header() -> str:
    return f"random tests: seed {SEED}; {SEED_VARIABLE}=NUMBER names another"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.write_line(f"to try the same again: {SEED_VARIABLE}={SEED}")


BEGUN_FIRST = (
    "estimators/test_svc.py",
    "solver/test_nvrtc.py",
    "faults/test_faults.py",
    "solver/test_native_cpu.py",
    "cli/test_cli_train.py",
    "test_predict.py",
    "estimators/test_scikit_learns_tests.py",
    "solver/test_cuda_scheduler.py",
    "test_notebook.py",
    "test_truth.py",
)
"""Files that take longest, so that of two processes none is left with one at the end. Of the first
two, one compiles most of what all need, and keeps it, and the other needs nothing compiled: else
both would compile the same."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        found = probe_cuda()
        if not found.ok:
            pytest.skip(f"no GPU to test on: {found.reason}")
    if item.get_closest_marker("mnist") and find_local("mnist") is None:
        pytest.skip("MNIST is not on this machine: set GPUSVM_DATA_DIR, or gpusvm data fetch mnist")


@pytest.fixture(autouse=True)
def _private_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test depends on the caller's choice of backend, or writes into the caller's cache."""
    monkeypatch.delenv("GPUSVM_BACKEND", raising=False)
    monkeypatch.setenv("GPUSVM_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    if "GPUSVM_DATA_DIR" in os.environ:
        monkeypatch.setenv("GPUSVM_DATA_DIR", str(Path(os.environ["GPUSVM_DATA_DIR"]).absolute()))


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X_train (1437, 64) float32 in [0, 1], y_train, X_test (360, 64), y_test."""
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    return *(_flat(train)), *(_flat(test))


def _flat(data) -> tuple[np.ndarray, np.ndarray]:
    return data.images.reshape(len(data), -1).astype(np.float32) / 255, data.require_labels()


@pytest.fixture(scope="session")
def digits_model(digits):
    """The digits model of the scikit-learn backend, trained once."""
    from gpusvm import SVC

    return SVC(C=10, gamma=0.05, backend="sklearn").fit(digits[0], digits[1]).model_

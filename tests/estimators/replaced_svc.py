"""A pytest plugin: SVC of scikit-learn is ours, and how each test failed goes to the file that OUTCOMES names.

It is for scikit-learn's own tests, in a process of their own: ``python -m pytest -p replaced_svc --pyargs ...``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import sklearn.svm

import gpusvm
import gpusvm.backends.sklearn  # it trains with scikit-learn's own SVC, which it takes before that is replaced

OUTCOMES = "GPUSVM_TEST_OUTCOMES"

sklearn.svm.SVC = sklearn.svm._classes.SVC = gpusvm.SVC

_outcomes: dict[str, str] = {}
"""For each test the end of its traceback, empty where it did not fail."""


def pytest_runtest_logreport(report) -> None:
    if report.when == "call" or report.failed:
        _outcomes[report.nodeid.rpartition("::")[2]] = report.longreprtext[-2000:] if report.failed else ""


def pytest_sessionfinish() -> None:
    Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes))

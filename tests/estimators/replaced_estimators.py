"""A pytest plugin: scikit-learn's SVC, SVR and OneClassSVM are ours, and how each test failed is
written down.

It goes to the file that OUTCOMES names.

It is for scikit-learn's own tests, in a process of their own: ``python -m pytest -p
replaced_estimators --pyargs ...``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import sklearn.svm

import gpusvm
import gpusvm.backends.sklearn  # it trains with scikit-learn's own, which it takes before they are replaced

OUTCOMES = "GPUSVM_TEST_OUTCOMES"

for name in ("SVC", "SVR", "OneClassSVM"):
    for module in (sklearn.svm, sklearn.svm._classes):
        setattr(module, name, getattr(gpusvm, name))

_outcomes: dict[str, str] = {}
"""For each test the end of its traceback, empty where it did not fail."""


def pytest_runtest_logreport(report) -> None:
    if report.when == "call" or report.failed:
        _outcomes[report.nodeid.rpartition("::")[2]] = report.longreprtext[-2000:] if report.failed else ""


def pytest_sessionfinish() -> None:
    Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes))
    _outcomes.clear()

"""The benchmark harness: suites of measurements, each taken in a fresh process.

A suite (`suite`, read by `suite_file`) says what to measure, and the contenders (`contenders`) are
what can be measured. The runner (`runner`) goes through the suite; each measurement is a `spec`
given to a worker (`worker`, run by `process`). The record (`record`) holds what came of it and on
what machine (`machine`); `rows` and `table` show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily

if TYPE_CHECKING:
    from gpusvm.bench.record import Record
    from gpusvm.bench.runner import Run, new_run, resumed_run
    from gpusvm.bench.suite import Case, Suite
    from gpusvm.bench.suite_file import load_suite
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "record": ("Record",),
            "runner": ("Run", "new_run", "resumed_run"),
            "suite": ("Case", "Suite"),
            "suite_file": ("load_suite",),
        },
    )

__all__ = ["Case", "Record", "Run", "Suite", "load_suite", "new_run", "resumed_run"]

"""From measurements to rows and tables: what is compared, and what stands where there is no
figure."""

from __future__ import annotations

from typing import Any

import pytest

from gpusvm.bench.result_tables import HEADER, make_tables, markdown_table, to_markdown
from gpusvm.bench.rows import agreement, make_rows
from gpusvm.bench.suite import Case, Override, Suite

SUITE = Suite(
    name="small",
    dataset="digits",
    sizes=(100,),
    cases=(Case("narrow", gamma=1.0), Case("wide", gamma=0.1)),
    backends=("sklearn", "cuml"),
    peers=("knn",),
)


def measured(contender: str, case: str | None = "narrow", repeat: int = 0, **figures: Any) -> dict[str, Any]:
    return {
        "contender": contender,
        "case": case,
        "n_train": 100,
        "repeat": repeat,
        "status": "ok",
        "n_test": 10,
        "fit_seconds": 2.0,
        "predict_seconds": 1.0,
        "load_seconds": 0.1,
        "accuracy": 0.9,
        "n_support_vectors": 50,
        "peak_rss_mb": 100.0,
        "peak_gpu_mb": None,
        "params": {"tol": 1e-3},
        "certificate": {"kkt_gap": 0.001, "dual_objective": 5.0} if repeat == 0 else None,
        "test_errors": "3:7",
        "versions": {},
    } | figures


def trouble(contender: str, status: str, case: str | None = "narrow", repeat: int = 0) -> dict[str, Any]:
    place = {"contender": contender, "case": case, "n_train": 100, "repeat": repeat}
    return place | {"status": status, "reason": "because | of that"}


def row_of(measurements: list[dict[str, Any]], contender: str, case: str = "narrow") -> dict[str, Any]:
    rows = make_rows(SUITE, measurements)
    return next(row for row in rows if row["contender"] == contender and row["case"] == case)


def content_of(measurements: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "memory_mb": 1024,
        "os": "an OS",
        "python": "3.11",
        "versions": {"numpy": "2"},
        "gpu": {"reason": "none"},
    }
    data = {"train": {"name": "digits", "n": 100}, "test": {"name": "digits", "n": 10}}
    rows = make_rows(SUITE, measurements)
    return {
        "suite": SUITE.to_dict(),
        "started": "now",
        "finished": None,
        "machine": machine,
        "data": data,
        "rows": rows,
    }


def test_repeats_become_median_smallest_and_largest() -> None:
    measurements = [measured("sklearn", repeat=k, fit_seconds=s) for k, s in enumerate((3.0, 1.0, 2.5))]
    row = row_of(measurements, "sklearn")
    assert row["fit_seconds"] == {"median": 2.5, "min": 1.0, "max": 3.0, "all": [3.0, 1.0, 2.5]}
    assert row["certificate"]["kkt_gap"] == 0.001
    assert row["agreement"] == 1.0
    assert row["fit_speedup"] == 1.0


def test_speedup_and_agreement_are_against_the_reference() -> None:
    row = row_of(
        [measured("sklearn"), measured("cuml", fit_seconds=0.5, test_errors="3:7 4:1", peak_gpu_mb=9.0)], "cuml"
    )
    assert row["fit_speedup"] == 4.0
    assert row["agreement"] == pytest.approx(0.9)
    assert row["peak_gpu_mb"] == 9.0


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("", "", 10), ("1:2", "1:2", 10), ("1:2", "1:3", 9), ("1:2", "", 9), ("1:2 3:4", "5:6", 7)],
)
def test_agreement_counts_images_not_errors(one: str, other: str, alike: int) -> None:
    found = agreement({"n_test": 10, "test_errors": one}, {"n_test": 10, "test_errors": other})
    assert found == pytest.approx(alike / 10)


def test_without_the_reference_nothing_is_compared() -> None:
    row = row_of([measured("cuml")], "cuml")
    assert row["fit_speedup"] is None
    assert row["agreement"] is None
    assert "not measured: sklearn" in to_markdown(content_of([measured("cuml")]))


def test_unavailable_holds_for_every_case() -> None:
    measurements = [trouble("cuml", "unavailable")]
    assert [row["status"] for row in make_rows(SUITE, measurements)] == ["unavailable", "unavailable"]


def test_a_contender_without_a_kernel_is_in_every_case() -> None:
    rows = make_rows(SUITE, [measured("knn", case=None)])
    assert [(row["case"], row["kind"]) for row in rows] == [("narrow", "peer"), ("wide", "peer")]


def test_a_failure_after_a_success_keeps_the_figures_and_says_so() -> None:
    row = row_of([measured("sklearn"), trouble("sklearn", "timeout", repeat=1)], "sklearn")
    assert row["status"] == "timeout"
    assert row["fit_seconds"]["all"] == [2.0]
    assert row["reason"] == "because | of that"


def test_sizes_that_a_contender_skips_have_no_row() -> None:
    suite = Suite(**{**vars(SUITE), "overrides": {"knn": Override(sizes=(50,))}})
    assert not [row for row in make_rows(suite, [measured("knn", case=None)]) if row["contender"] == "knn"]


def test_the_markdown_has_a_table_a_case_and_every_reason() -> None:
    content = content_of([measured("sklearn"), trouble("cuml", "failed"), measured("sklearn", case="wide")])
    page = to_markdown(content)
    assert "## narrow" in page
    assert "## wide" in page
    assert "failed: because \\| of that" in page
    assert "did not finish" in page
    for line in markdown_table(make_tables(content)[0]).splitlines():
        assert line.replace("\\|", "").count("|") == len(HEADER) + 1


def test_a_large_gap_is_marked() -> None:
    wrong = measured("cuml", certificate={"kkt_gap": 0.5, "dual_objective": 4.0})
    assert "0.5 (!)" in to_markdown(content_of([wrong]))
    assert "(!)" not in to_markdown(content_of([measured("cuml")]))

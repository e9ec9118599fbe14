"""From measurements to rows: the repeats of one contender at one size in one case, taken together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gpusvm.bench.contenders import peer_names
from gpusvm.bench.suite import Case, Suite

Measurement = dict[str, Any]


def make_rows(suite: Suite, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A row for each case, size and contender with anything measured, in that order.

    A contender without a kernel is measured once at each size, and has a row in every case.
    """
    rows = []
    for case in suite.cases:
        for n_train in suite.sizes:
            taken = {
                name: _taken(measurements, name, case, n_train)
                for name in suite.contenders
                if suite.measures(name, n_train)
            }
            reference = _succeeded(taken.get(suite.reference, []))
            rows += [
                {
                    "contender": name,
                    "kind": "peer" if name in peer_names() else "backend",
                    "case": case.name,
                    "n_train": n_train,
                    **_figures(own, case),
                    **_comparison(_succeeded(own), reference),
                }
                for name, own in taken.items()
                if own
            ]
    return rows


def _taken(measurements: Sequence[Measurement], contender: str, case: Case, n_train: int) -> list[Measurement]:
    own = [m for m in measurements if m["contender"] == contender]
    here = [m for m in own if m["n_train"] == n_train and m["case"] in (None, case.name)]
    # A contender is found unavailable once, for the whole run.
    unavailable = [m for m in own if m["status"] == "unavailable"]
    return [m for m in here if m["status"] != "unavailable"] or unavailable[:1]


def _succeeded(measurements: Sequence[Measurement]) -> list[Measurement]:
    return [m for m in measurements if m["status"] == "ok"]


def _figures(measurements: Sequence[Measurement], case: Case) -> dict[str, Any]:
    done = _succeeded(measurements)
    trouble = next((m for m in measurements if m["status"] != "ok"), {})
    first = done[0] if done else {}
    certificates = [m["certificate"] for m in done if m.get("certificate")]
    return {
        "status": trouble.get("status", "ok"),
        "reason": trouble.get("reason"),
        "params": first.get("params", asdict(case)),
        "fit_seconds": _spread(done, "fit_seconds"),
        "predict_seconds": _spread(done, "predict_seconds"),
        "load_seconds": _spread(done, "load_seconds"),
        "n_test": first.get("n_test"),
        "accuracy": first.get("accuracy"),
        "n_support_vectors": first.get("n_support_vectors"),
        "peak_rss_mb": _largest(done, "peak_rss_mb"),
        "peak_gpu_mb": _largest(done, "peak_gpu_mb"),
        "certificate": certificates[0] if certificates else None,
        "versions": first.get("versions", {}),
    }


def _spread(measurements: Sequence[Measurement], name: str) -> dict[str, Any] | None:
    values = [m[name] for m in measurements]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


def _largest(measurements: Sequence[Measurement], name: str) -> float | None:
    return max((m[name] for m in measurements if m.get(name) is not None), default=None)


def _comparison(own: Sequence[Measurement], reference: Sequence[Measurement]) -> dict[str, Any]:
    if not own or not reference:
        return {"fit_speedup": None, "predict_speedup": None, "agreement": None}
    return {
        "fit_speedup": _speedup(own, reference, "fit_seconds"),
        "predict_speedup": _speedup(own, reference, "predict_seconds"),
        "agreement": agreement(own[0], reference[0]),
    }


def _speedup(own: Sequence[Measurement], reference: Sequence[Measurement], name: str) -> float | None:
    seconds = statistics.median(m[name] for m in own)
    return statistics.median(m[name] for m in reference) / seconds if seconds > 0 else None


def agreement(one: Measurement, other: Measurement) -> float | None:
    """Fraction of the test images that two measurements predict alike; None where these differ in number.

    Each names its wrong predictions only. An image that neither names is right in both; one that
    both name is predicted alike if the class is the same.
    """
    if one["n_test"] != other["n_test"]:
        return None
    different = set(one["test_errors"].split()) ^ set(other["test_errors"].split())
    images = {error.partition(":")[0] for error in different}
    return 1 - len(images) / one["n_test"]

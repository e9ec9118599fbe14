"""From measurements to rows: one contender's repeats at one size in one case, taken together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpusvm.bench.contenders import get_contender, peer_names
from gpusvm.bench.suite import BEST_PEER, Case, Suite

Measurement = dict[str, Any]


def make_rows(suite: Suite, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A row for each case, size and contender with anything measured, in that order.

    A contender without a kernel is measured once at each size of the suite's data, and has a row
    in every case on them.
    """
    rows = []
    for case in suite.cases:
        for n_train in suite.sizes_of(case):
            taken = {
                name: _taken(measurements, name, case, n_train)
                for name in suite.contenders
                if suite.measures(name, n_train)
            }
            done = {name: _succeeded(own) for name, own in taken.items()}
            fitting, predicting = (_reference(suite, done, f"{what}_seconds") for what in ("fit", "predict"))
            rows += [
                {
                    "contender": name,
                    "kind": "peer" if name in peer_names() else "backend",
                    "case": case.name,
                    "n_train": n_train,
                    **_figures(own, case),
                    **_comparison(done[name], fitting, predicting),
                }
                for name, own in taken.items()
                if own
            ]
    return rows


def _taken(measurements: Sequence[Measurement], contender: str, case: Case, n_train: int) -> list[Measurement]:
    own = [m for m in measurements if m["contender"] == contender]
    names = (None, case.name) if case.dataset is None else (case.name,)
    here = [m for m in own if m["n_train"] == n_train and m["case"] in names]
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
        **({"best": first["best"]} if "best" in first else {}),
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


def _reference(suite: Suite, done: Mapping[str, Sequence[Measurement]], figure: str) -> Sequence[Measurement]:
    """What the rows of one case and size are compared with.

    That is the suite's reference. Where this is the best peer, it is of the peers with a kernel
    the quickest by `figure`. Empty where there is none.
    """
    if suite.reference != BEST_PEER:
        return done.get(suite.reference, [])
    rivals = [done[name] for name in suite.peers if done.get(name) and get_contender(name).uses_kernel]
    return min(rivals, key=lambda measurements: _median(measurements, figure), default=[])


def _comparison(
    own: Sequence[Measurement], fitting: Sequence[Measurement], predicting: Sequence[Measurement]
) -> dict[str, Any]:
    """One contender against the references of its case and size."""
    return {
        "fit_speedup": _speedup(own, fitting, "fit_seconds"),
        "predict_speedup": _speedup(own, predicting, "predict_seconds"),
        "agreement": agreement(own[0], fitting[0]) if own and fitting else None,
    }


def _speedup(own: Sequence[Measurement], reference: Sequence[Measurement], figure: str) -> float | None:
    if not own or not reference or _median(own, figure) <= 0:
        return None
    return _median(reference, figure) / _median(own, figure)


def _median(measurements: Sequence[Measurement], figure: str) -> float:
    return statistics.median(m[figure] for m in measurements)


def agreement(one: Measurement, other: Measurement) -> float | None:
    """Fraction of the test images that two measurements predict alike.

    None where their numbers of test images differ. Each names its wrong predictions only. An image
    that neither names is right in both; one that both name is predicted alike if the class is the
    same.
    """
    if one["n_test"] != other["n_test"]:
        return None
    different = set(one["test_errors"].split()) ^ set(other["test_errors"].split())
    images = {error.partition(":")[0] for error in different}
    return 1 - len(images) / one["n_test"]

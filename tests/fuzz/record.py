"""Records of a benchmark, which `gpusvm bench --resume` reads: values that no run has written."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz.json_values import edit
from fuzz.mutation import mutate
from gpusvm.bench.record import Record, load_record
from gpusvm.bench.result_tables import to_markdown
from gpusvm.bench.suite_file import load_suite

_MEASURED = {
    "contender": "sklearn", "case": "rbf C=1 gamma=scale", "n_train": 1000, "repeat": 0, "status": "ok",
    "fit_seconds": 0.5, "predict_seconds": 0.1, "load_seconds": 0.01, "accuracy": 0.5, "n_test": 4,
    "test_errors": "0:1 2:3", "n_support_vectors": 3, "peak_rss_mb": 100.0, "peak_gpu_mb": None,
    "certificate": {"kkt_gap": 0.001, "dual_objective": 2.0}, "versions": {"scikit-learn": "1.6"},
}  # fmt: skip
_FAILED = {
    "contender": "knn", "case": None, "n_train": 1000, "repeat": 0, "status": "failed", "reason": "no luck",
    "stderr": ["no luck"],
}  # fmt: skip


def _seed() -> dict[str, Any]:
    suite = load_suite("quick")
    machine = {
        "cpu": "one", "cores": 2, "memory_mb": 4096, "os": "Debian", "python": "3.12", "versions": {"numpy": "2"},
        "gpu": {"ok": False, "reason": "none"},
    }  # fmt: skip
    data = {"train": {"name": "digits", "n": 1000}, "test": {"name": "digits", "n": 4}}
    record = Record(suite, machine, data, measurements=[_MEASURED, _FAILED])
    return record.to_dict()


_SEED = json.dumps(_seed())


def generate(rng: Random) -> tuple[str, bytes]:
    content = json.loads(_SEED)
    if (kind := rng.random()) < 0.8:
        for _ in range(rng.choice((1, 1, 2))):
            edit(rng, rng.choice([content, content["measurements"], content["suite"]]))
            if not isinstance(content.get("measurements"), list) or not isinstance(content.get("suite"), dict):
                break
    text = json.dumps(content).encode()
    return "run.json", mutate(rng, text) if kind >= 0.7 else text


def read(path: Path) -> Any:
    return load_record(path)


def use(result: Any) -> None:
    """What resuming and showing a run do with it."""
    result.find(("sklearn", None, 1000, 0))
    result.has_failed("knn", None, 1000)
    to_markdown(result.to_dict())

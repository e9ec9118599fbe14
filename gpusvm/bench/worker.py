"""The process that takes one measurement; `gpusvm.bench.process` starts it.

It reads a `Spec` as one line of JSON on standard input and writes one line of JSON on standard
output: ``{"status": "ok", ...}`` with the figures, or another status with a ``reason``. Whatever
the libraries print goes to standard error. It ends as soon as its standard input is closed, so
that no measurement outlives the command that asked for it.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import threading
import time
import traceback
from typing import IO, Any

import numpy as np

from gpusvm.bench.contenders import Contender, Trained, get_contender
from gpusvm.bench.peak import DeviceMemory
from gpusvm.bench.searches import Found, Searcher
from gpusvm.bench.spec import Spec
from gpusvm.bench.train_test_data import TrainTestData
from gpusvm.certificate import certify
from gpusvm.errors import GpuSvmError, TrainingError
from gpusvm.memory import peak_rss_mb, reset_peak_rss
from gpusvm.model import SVMModel
from gpusvm.packages import package_versions
from gpusvm.params import Problem, Resources, Stopping


def main() -> None:
    """Take the measurement that standard input asks for."""
    answer_file = _keep_standard_output()
    spec = Spec.from_line(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_when_abandoned, daemon=True).start()
    answer = _answer(spec)
    answer_file.write(json.dumps(answer, allow_nan=False) + "\n")
    answer_file.flush()
    sys.stderr.flush()
    # Libraries that crash while they are torn down must not take a finished measurement with them.
    os._exit(0)


def measure(spec: Spec) -> dict[str, Any]:
    """Train, predict, and judge what was predicted; see docs/benchmarks.md for the figures.

    Raises
    ------
    GpuSvmError
        The data cannot be had, or training failed.
    """
    contender = get_contender(spec.contender)
    found = contender.probe()
    if not found.ok:
        return {"status": "unavailable", "reason": found.reason}
    start = time.perf_counter()
    data = TrainTestData(spec)
    load_seconds = time.perf_counter() - start
    asked = spec.case.asked(data.X)
    if isinstance(contender, Searcher):
        contender = contender.over(spec.case.grid(data.X))
    with DeviceMemory(contender.on_gpu) as device:
        warmup_seconds = _warm_up(contender, data, asked, spec.warmup)
        reset_peak_rss()
        device.start()
        fit_times, trained = _timed(contender, lambda: contender.fit(data.X, data.y, *asked), spec.least_timed_s)
        predict_times, labels = _timed(contender, lambda: trained.predict(data.X_test), spec.least_timed_s)
    memory = {"peak_rss_mb": round(peak_rss_mb(), 1), "peak_gpu_mb": device.peak_mb()}
    model = trained.to_model()
    return {
        "status": "ok",
        "params": contender.settings(*asked),
        "n_test": len(data.y_test),
        "load_seconds": load_seconds,
        "warmup_seconds": warmup_seconds,
        "fit_seconds": statistics.median(fit_times),
        "predict_seconds": statistics.median(predict_times),
        "n_fits": len(fit_times),
        "n_predictions": len(predict_times),
        "accuracy": float(np.mean(labels == data.y_test)),
        **({"best": trained.best} if isinstance(trained, Found) else {}),
        "n_support_vectors": None if model is None else model.n_support_vectors,
        **memory,
        **_certificate(model, data, spec.certify),
        "versions": _versions(contender, model),
        "test_errors": encode_errors(labels, data.y_test, data.classes),
    }


def encode_errors(predicted: np.ndarray, actual: np.ndarray, classes: np.ndarray) -> str:
    """The test images predicted wrongly, as ``row:class row:class ...``.

    The class is the predicted one, as an index into the sorted `classes`. With the true labels
    this is the whole prediction, so that two of them can be compared later.
    """
    wrong = np.flatnonzero(predicted != actual)
    codes = np.searchsorted(classes, predicted[wrong])
    return " ".join(f"{row}:{code}" for row, code in zip(wrong.tolist(), codes.tolist(), strict=True))


def _timed(contender: Contender, work: Any, least_seconds: float) -> tuple[list[float], Any]:
    """Seconds that `work` takes, what it queued on the device included, and what it gives.

    It is done again until all of them took `least_seconds` together: one fit of a millisecond
    would say more about the timer than about the fit.
    """
    times: list[float] = []
    while not times or sum(times) < least_seconds:
        start = time.perf_counter()
        result = work()
        if contender.on_gpu:
            import cupy

            cupy.cuda.Device().synchronize()
        times.append(time.perf_counter() - start)
    return times, result


def _warm_up(contender: Contender, data: TrainTestData, asked: tuple[Problem, Stopping, Resources], n: int) -> float:
    """Seconds of a small fit and predict.

    These import, start threads and compile what is done once.
    """
    # Evenly spaced, so that data sorted by class still give more than one class.
    rows = np.unique(np.linspace(0, len(data.y) - 1, n).astype(int))
    start = time.perf_counter()
    trained: Trained = contender.fit(data.X[rows], data.y[rows], *asked)
    trained.predict(data.X_test[:n])
    return time.perf_counter() - start


def _certificate(model: SVMModel | None, data: TrainTestData, wanted: bool) -> dict[str, Any]:
    if model is None or not wanted:
        return {"certificate": None, "certify_seconds": None}
    start = time.perf_counter()
    summary = certify(model, data.X, data.y).summary()
    if not all(math.isfinite(value) for value in summary.values()):
        figures = ", ".join(f"{name}={value}" for name, value in summary.items())
        raise TrainingError(f"the trained model is not finite: {figures}")
    return {"certificate": summary, "certify_seconds": time.perf_counter() - start}


def _versions(contender: Contender, model: SVMModel | None) -> dict[str, str]:
    versions = package_versions(contender.packages)
    # A library that was put in place without pip is known to its backend alone.
    provenance = {} if model is None else model.provenance
    return versions | {name: str(provenance[name]) for name in contender.packages if name in provenance}


def _answer(spec: Spec) -> dict[str, Any]:
    try:
        return measure(spec)
    except GpuSvmError as error:
        return _failed(str(error))
    except MemoryError as error:
        traceback.print_exc()
        return _failed(f"out of memory: {error}" if str(error) else "out of memory")
    except Exception as error:
        traceback.print_exc()
        return _failed(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason[:1000]}


def _keep_standard_output() -> IO[str]:
    """Standard output, kept for the answer.

    What else is printed, from C too, goes to standard error.
    """
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _exit_when_abandoned() -> None:
    os.read(0, 1)
    os._exit(1)

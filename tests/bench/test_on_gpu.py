"""The parts of benchmarks/on_gpu.sh, run where there is no GPU: on a CPU backend, and on the
stand-ins of fake_cuda."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
import sklearn.svm

from gpusvm.backends import native_cuda
from gpusvm.backends.base import Availability
from gpusvm.data import load_dataset
from gpusvm.solver.cuda import Device
from tests.solver.cuda_shim.build import needs_compiler
from tests.solver.host_device import host_kernels, host_rows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

needs_bash = pytest.mark.skipif(
    shutil.which("bash") is None, reason="benchmarks/on_gpu.sh is run by bash, which is not installed"
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def cuda(monkeypatch, script):
    """CuPy's and cuML's stand-ins, cuML's own SVC for any number of classes, and a backend that
    says it is there."""
    cupy = fake_cuda.install(monkeypatch)
    for name in ("native_cuda.NativeCudaBackend", "cuml.CumlBackend"):
        monkeypatch.setattr(f"gpusvm.backends.{name}.probe", lambda self: Availability(True, "Imaginary GPU, 80 GB"))
    rmm = types.ModuleType("rmm")
    rmm.asked = []
    rmm.reinitialize = lambda **given: rmm.asked.append(given)
    monkeypatch.setitem(sys.modules, "rmm", rmm)
    return cupy


def measured(script: Any, name: str, out: Path) -> dict[str, Any]:
    script("gpu_fits").main(
        [name, str(out / f"fits-{name}.json"), "--dataset", "digits", "--limit", "200", "--warmup", "60"]
    )
    return json.loads((out / f"fits-{name}.json").read_text())


def expected_accuracy() -> float:
    train, test = load_dataset("digits", "train", limit=200), load_dataset("digits", "test")
    X, X_test = (data.images.reshape(len(data), -1).astype(np.float32) / 255 for data in (train, test))
    return sklearn.svm.SVC(C=10.0, gamma=0.02).fit(X, train.labels).score(X_test, test.labels)


@pytest.mark.parametrize("name", ["cuml", "cuml-pool"])
def test_cuml_is_fitted_again_and_again_from_the_host(cuda, script, tmp_path, name):
    found = measured(script, name, tmp_path)
    assert len(found["fit_seconds"]) == len(found["predict_seconds"]) == 3
    assert found["certificate"]["kkt_gap"] < 2e-3 and found["accuracy"] == pytest.approx(expected_accuracy(), abs=0.01)
    assert len(fake_cuda.FakeCumlSVC.fits) == 45 * 4, "a fit to warm up, and three"
    assert sys.modules["rmm"].asked == ([{"pool_allocator": True}] if name == "cuml-pool" else [])


def test_cumls_own_svc_is_given_all_classes_once(cuda, script, tmp_path, monkeypatch):
    fits = []

    class Own:
        def __init__(self, *, C, kernel, gamma, tol, cache_size):
            self.svc = sklearn.svm.SVC(C=C, kernel=kernel, gamma=gamma, tol=tol, cache_size=cache_size)

        def fit(self, X, y):
            fits.append(len(X))
            self.svc.fit(X, y)
            return self

        def predict(self, X):
            return fake_cuda.FakeCupy().asarray(self.svc.predict(X))

    monkeypatch.setattr("cuml.svm.SVC", Own)
    found = measured(script, "cuml-own", tmp_path)
    assert fits == [60, 200] and found["certificate"] is None and found["accuracy"] == expected_accuracy()


@pytest.mark.parametrize("name", ["native-cuda", "native-cuda-device", "native-cuda-after-cuml"])
def test_native_cuda_is_asked_for_with_samples_from_where_the_part_says(cuda, script, tmp_path, monkeypatch, name):
    given = []

    def fit(self, X, y, *asked, **more):
        given.append(type(X))
        from gpusvm.backends import get_backend

        return get_backend("native-cpu").fit(np.asarray(X), y, *asked, **more)

    monkeypatch.setattr(native_cuda.NativeCudaBackend, "fit", fit)
    found = measured(script, name, tmp_path)
    where = fake_cuda.FakeArray if name == "native-cuda-device" else np.ndarray
    assert given == [np.ndarray, where, where, where]
    assert found["peak_gpu_mb"] is not None and found["n_train"] == 200


def test_the_table_is_last_and_says_what_did_not_run(cuda, script, tmp_path, capsys):
    for name in ("cuml", "native-cpu"):
        measured(script, name, tmp_path)
    capsys.readouterr()
    assert script("gpu_table").main(tmp_path) == 1
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("native-cuda: did not run") and lines[-1].startswith("| native-cpu, for comparison |")
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert list(kept["parts"]) == ["cuml", "native-cpu"] and kept["parts"]["cuml"]["wrong"] == []
    assert "labels" not in kept["parts"]["cuml"] and kept["machine"]["cores"] >= 1


def part(**changes: Any) -> dict[str, Any]:
    certificate = {"kkt_gap": 1e-3, "dual_objective": 13134.8}
    return {
        "what": "a part", "n_train": 60_000, "fit_seconds": [0.2, 0.1, 0.3], "predict_seconds": [0.05],
        "accuracy": 0.9853, "labels": [0, 1] * 5000, "n_support_vectors": 13_370,
        "certificate": certificate, "peak_gpu_mb": 1000.0,
        "machine": {"gpu": {"reason": "a GPU"}}, "provenance": {},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"accuracy": 0.97}, "accuracy 0.97"),
        ({"certificate": {"kkt_gap": 1e-2, "dual_objective": 13134.8}}, "gap 1.0e-02"),
        ({"labels": [1, 1] * 5000}, "5000 labels differ from native-cuda's"),
        ({"labels": [1, 1] * 5000, "certificate": None}, None),
        ({"peak_gpu_mb": 40_000.0}, "40000 MB of device memory"),
    ],
)
def test_a_part_that_disagrees_is_named(script, changes, says):
    found = script("gpu_table").wrong(part(**changes), part())
    assert found == [] if says is None else says in found


def test_all_parts_together_are_a_success(script, tmp_path, capsys):
    table = script("gpu_table")
    for k, name in enumerate(table.REQUIRED):
        (tmp_path / f"fits-{name}.json").write_text(json.dumps({"part": name, **part(fit_seconds=[0.1 * (k + 1)])}))
    assert table.main(tmp_path) == 0
    assert "| a part | 0.100 (0.100 to 0.100) | 0.050 | 0.9853 | 1.0e-03 | 13134.800 | 1000 | 3.0 |" in (
        capsys.readouterr().out
    )


def test_the_profile_times_every_launch_and_puts_all_back(script):
    profile = script("profile_gpu")
    names = {f"{owner.__name__}.{name}" for owner, name in profile.launches()}
    assert {"Kernels.gather", "Kernels.smo", "Kernels.subtract", "DeviceRows.compute"} <= names
    assert "Kernels.twice" not in names
    before = {name: getattr(owner, name) for owner, name in profile.launches()}
    waited: Counter[str] = Counter()
    _, seconds, calls, model = profile.profile(lambda: "model", lambda: waited.update(["wait"]))
    assert model == "model" and not seconds and not calls and not waited
    assert {name: getattr(owner, name) for owner, name in profile.launches()} == before


def test_a_launch_is_waited_for_before_and_after(script):
    profile, events = script("profile_gpu"), []
    seconds, calls = Counter(), Counter()
    run = profile.timed(lambda x: events.append(x), seconds, calls, "launch", lambda: events.append("wait"))
    run("run")
    assert events == ["wait", "run", "wait"] and calls == {"launch": 1} and seconds["launch"] > 0


@needs_compiler
def test_each_kernel_is_timed_by_itself_and_waited_for(script, monkeypatch):
    """On the shim: what is launched is what training launches, with arrays that the kernels
    take."""
    micro, waits = script("gpu_micro"), Counter()
    for name, few in (("STEPS", 30), ("REPEATS", 2), ("WARM_UP", 1)):
        monkeypatch.setattr(micro, name, few)
    shape = micro.Shape(samples=320, features=20, classes=2, rows=40, members=64, joining=48)
    device = Device(np, host_kernels(), host_rows)
    found = list(micro.measure(device, shape, lambda: waits.update(["wait"])))
    assert [one.name for one in found] == [
        "rows of bytes", "16 rows of bytes", "rows by tf32", "gather", "subtract", "both", "smo", "select",
    ]  # fmt: skip
    assert all(one.seconds > 0 and one.found and one.estimate for one in found)
    assert waits["wait"] == 2 * 7 * (micro.WARM_UP + micro.REPEATS), "seven launches, waited for before and after"
    by_name = {one.name: one.found for one in found}
    assert by_name["select"].endswith("64 joined each set") and "of 1 problems of 64 members" in by_name["smo"]
    steps = re.match(r"([\d.]+) us a step", by_name["smo"])
    assert steps and float(steps[1]) < 1e6 * found[6].seconds, "more than one step was taken"


def test_the_hosts_part_of_a_fit_is_timed_without_a_gpu(script, capsys):
    host = script("host_time")
    host.main(["--repeats", "1"])
    out = capsys.readouterr().out
    assert all(name in out for name in host.PHASES) and "in all, of 1 fits" in out and "not in it:" in out
    found, counts = host.measure(1)
    assert set(host.PHASES) <= set(found[0]) and counts.reads["report"] == len(host.ENDING)
    assert counts.launches["smo"] == len([n for n in host.MISSING if n]) + 1, "one in each round but the last ones"
    in_rounds = sum(counts.launches[name] for name in ("select_variables", "want", "allocate", "gather", "smo"))
    assert in_rounds <= 5 * len(host.ENDING)


def test_a_search_is_timed_and_compared(script, tmp_path, capsys):
    """Between two CPU trainings of the same: what it says of them is right, and the table keeps
    it."""
    search, out = script("gpu_search"), tmp_path / "search.json"
    assert search.main([str(out), "--backends", "native-cpu", "native-cpu", "--limit", "200", "--cells", "2"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("they agree")
    found = json.loads(out.read_text())
    assert found["searches"]["native-cpu"]["cells"] == 4 and found["times_as_fast"] > 0 and found["wrong"] == []
    script("gpu_table").main(tmp_path)
    assert json.loads((tmp_path / "gpu.json").read_text())["search"] == found


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({(1.0, 0.1): 0.9, (10.0, 0.1): 0.95}, None),
        ({(1.0, 0.1): 0.9, (10.0, 0.1): 0.96}, "differ by 0.0100"),
        ({(1.0, 0.1): 0.96, (10.0, 0.1): 0.95}, "is 0.0100 worse for the other"),
        ({(1.0, 0.1): 0.9}, "not the same"),
    ],
)
def test_searches_that_disagree_are_told(script, other, says):
    found = script("gpu_search").wrong({(1.0, 0.1): 0.9, (10.0, 0.1): 0.95}, other)
    assert found == [] if says is None else any(says in what for what in found)


# -- the script itself ----------------------------------------------------------------------------

SCRIPT = BENCHMARKS / "on_gpu.sh"


def test_the_script_knows_every_part_and_native_cuda_goes_first(script):
    parts = re.findall(r"^part \d+ (\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert set(parts) == set(script("gpu_table").REQUIRED) <= set(script("gpu_fits").PARTS)
    assert parts.index("native-cuda") < parts.index("cuml") < parts.index("native-cuda-after-cuml")
    assert SCRIPT.read_text().rstrip().splitlines()[-2].startswith("$python benchmarks/gpu_table.py")


def test_the_time_limits_fit_into_eight_minutes():
    """Where every part takes all it may, what is last gets what is left."""
    text = SCRIPT.read_text()
    assert "limit=${GPU_SECONDS:-470}" in text
    assert all(int(seconds) <= 120 for seconds in re.findall(r"(?:^part|run) (\d+)", text, re.MULTILINE))


@needs_bash
def test_without_a_gpu_the_script_ends_with_a_table_and_status_1(tmp_path):
    """Python does not run here: each part has failed at once, and what follows does its part all
    the same."""
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\ncase "$1" in */gpu_table.py) exec {sys.executable} "$@";; *) exit 3;; esac\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "out")], env={**os.environ, "PYTHON": str(stub)}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "native-cuda: did not run" in done.stdout
    assert done.stdout.count("failed") >= 8 and (tmp_path / "out" / "fits-cuml.log").exists()


@needs_bash
def test_no_part_begins_when_the_time_is_over(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "out")], env={**os.environ, "PYTHON": "true", "GPU_SECONDS": "0"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout.count("no time left") >= 9

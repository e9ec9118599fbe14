"""The worker: one measurement, judged."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from gpusvm import SVMModel
from gpusvm.backends.base import Availability
from gpusvm.backends.registry import get_backend
from gpusvm.bench import contenders, worker
from gpusvm.bench.contenders import contender_names, get_contender, model_of
from gpusvm.bench.process import WORKER
from gpusvm.bench.spec import Spec
from gpusvm.bench.suite import Case
from gpusvm.certificate import certify
from gpusvm.data import load_dataset
from gpusvm.errors import DataError, UsageError

CASE = Case("rbf", C=10.0, gamma="scale")


def spec_of(contender: str, n_train: int = 300, **changes: Any) -> Spec:
    return Spec(contender=contender, case=CASE, dataset="digits", n_train=n_train, warmup=50, **changes)


def require(contender: str) -> None:
    found = get_contender(contender).probe()
    if not found.ok:
        pytest.skip(found.reason)


def test_the_process_answers_with_one_line() -> None:
    pipe = subprocess.PIPE
    process = subprocess.Popen([*WORKER, str(os.getpid())], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(spec_of("sklearn").to_line())
    process.stdin.flush()
    lines = process.stdout.read().decode().splitlines()
    _, errors = process.communicate()
    assert process.returncode == 0
    assert errors == b""
    answer = json.loads(lines[0])
    assert len(lines) == 1
    assert answer["status"] == "ok"
    assert answer["n_test"] == 360
    assert 0.85 < answer["accuracy"] < 1
    assert answer["certificate"]["kkt_gap"] < 2e-3
    assert 20 < answer["peak_rss_mb"] < 4000
    assert answer["peak_gpu_mb"] is None


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return worker.measure(spec_of("sklearn"))


@pytest.mark.parametrize("name", ["sklearn", "sklearnex", "libsvm", "intelex"])
def test_every_svm_solves_the_same_problem(name: str, reference: dict[str, Any]) -> None:
    require(name)
    answer = worker.measure(spec_of(name))
    assert answer["certificate"]["kkt_gap"] < 2e-3
    objective = reference["certificate"]["dual_objective"]
    assert answer["certificate"]["dual_objective"] == pytest.approx(objective, rel=1e-4)
    assert abs(answer["n_support_vectors"] - reference["n_support_vectors"]) <= 3
    assert answer["accuracy"] == pytest.approx(reference["accuracy"], abs=0.01)
    assert answer["params"]["gamma"] == reference["params"]["gamma"] > 0


@pytest.mark.parametrize("name", ["tune", "search", "grid-libsvm", "grid-intelex"])
def test_every_search_finds_the_same(name: str) -> None:
    require(name)
    case = Case("searched", search_C=(0.01, 10.0), search_gamma=(0.01, 1.0), folds=3)
    answer = worker.measure(replace(spec_of(name), case=case))
    assert answer["best"]["C"] == answer["params"]["C"][1] == 10.0
    assert answer["best"]["gamma"] == answer["params"]["gamma"][1] == pytest.approx(100 * answer["params"]["gamma"][0])
    assert answer["best"]["score"] == pytest.approx(0.99, abs=0.005)
    assert answer["accuracy"] > 0.85
    assert answer["certificate"]["kkt_gap"] < 2e-3


def test_the_neighbours_have_no_certificate() -> None:
    answer = worker.measure(spec_of("knn"))
    assert answer["params"] == {"n_neighbors": 3}
    assert answer["certificate"] is None
    assert answer["n_support_vectors"] is None
    assert answer["accuracy"] > 0.85


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("module", ["sklearn.svm", "sklearnex.svm"])
def test_a_librarys_machine_becomes_the_same_model(module: str, n_classes: int) -> None:
    svc_class = pytest.importorskip(module, reason=f'{module} is not installed: pip install "gpusvm[test]"').SVC
    data = load_dataset("digits", limit=400)
    rows = np.flatnonzero(data.require_labels() < n_classes)
    X, y = data.images[rows].reshape(len(rows), -1).astype(np.float32) / 255, data.require_labels()[rows]
    asked_for = CASE.asked(X)
    svc = svc_class(C=10.0, gamma=asked_for[0].kernel.gamma).fit(X, y)
    model = model_of(svc, X, y, *asked_for[:2], "peer")
    np.testing.assert_array_equal(model.predict(X), svc.predict(X))
    np.testing.assert_allclose(model.decision_function(X), svc.decision_function(X), atol=1e-4)
    assert certify(model, X, y).max_kkt_gap < 2e-3


@dataclass(frozen=True)
class Tampered:
    """scikit-learn's backend with its coefficients spoilt: fast, confident and wrong."""

    factor: float
    name: str = "tampered"
    runs: str = "nonsense"
    on_gpu: bool = False
    uses_kernel: bool = True
    packages: tuple[str, ...] = ()

    def probe(self) -> Availability:
        return Availability(True, "")

    def fit(self, X: np.ndarray, y: np.ndarray, *asked_for: Any) -> Any:
        model = get_backend("sklearn").fit(X, y, *asked_for)
        noise = np.random.default_rng(0).uniform(1, self.factor, model.dual_coef.shape)
        return _Tampered(replace(model, dual_coef=model.dual_coef * noise))

    def settings(self, *asked_for: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Tampered:
    model: SVMModel

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict(X)

    def to_model(self) -> SVMModel:
        return self.model


@pytest.mark.parametrize("factor", [1.5, 100.0])
def test_a_wrong_model_is_seen_to_be_wrong(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setitem(contenders._PEERS, "tampered", lambda: Tampered(factor))
    answer = worker.measure(spec_of("tampered"))
    assert answer["certificate"]["kkt_gap"] > 0.05
    assert answer["certificate"]["equality_violation"] > 1e-3


def test_a_model_that_is_not_finite_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contenders._PEERS, "tampered", lambda: Tampered(np.finfo(float).max))
    with np.errstate(all="ignore"):
        answer = worker._answer(spec_of("tampered"))
    assert answer["status"] == "failed"
    assert "not finite" in answer["reason"]


def test_what_cannot_run_here_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tampered, "probe", lambda self: Availability(False, "no such hardware"))
    monkeypatch.setitem(contenders._PEERS, "tampered", lambda: Tampered(1.0))
    assert worker.measure(spec_of("tampered")) == {"status": "unavailable", "reason": "no such hardware"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("two\nlines"), DataError("bad data")])
def test_an_exception_is_an_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "measure", fail)
    answer = worker._answer(spec_of("sklearn"))
    assert answer["status"] == "failed"
    assert answer["reason"] in ("out of memory", "RuntimeError: two lines", "bad data")


def test_without_enough_images_nothing_is_measured() -> None:
    with pytest.raises(DataError, match="has 1,437 training images, not 5,000"):
        worker.measure(spec_of("sklearn", n_train=5000))


def test_preprocessing_and_the_number_of_test_images_are_the_suites() -> None:
    plain = worker.measure(spec_of("sklearn", n_test=100, certify=False))
    binary = worker.measure(spec_of("sklearn", n_test=100, certify=False, binarize=True, deskew=True))
    assert plain["n_test"] == binary["n_test"] == 100
    assert plain["certificate"] is None
    assert plain["params"]["gamma"] != binary["params"]["gamma"]


def test_errors_name_the_image_and_what_was_predicted() -> None:
    classes = np.array(["a", "b", "c"])
    actual, predicted = np.array(["a", "b", "c", "a"]), np.array(["a", "c", "c", "b"])
    assert worker.encode_errors(predicted, actual, classes) == "1:2 3:1"
    assert worker.encode_errors(actual, actual, classes) == ""


def test_every_contender_has_a_name_and_a_description() -> None:
    for name in contender_names():
        assert get_contender(name).name == name
        assert get_contender(name).runs
    with pytest.raises(UsageError, match="nothing to measure is called 'svmlight'"):
        get_contender("svmlight")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuml", "native-cuda"])
def test_a_gpu_backend_is_measured_on_its_device(name: str) -> None:
    require(name)
    answer = worker.measure(spec_of(name, n_train=1000))
    assert answer["certificate"]["kkt_gap"] < 1e-2
    assert answer["peak_gpu_mb"] > 0
    assert answer["versions"]["cupy"]

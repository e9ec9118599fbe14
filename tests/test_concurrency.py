"""Threads and processes that share a model, or train at the same time, change nothing for each
other."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

from gpusvm import SVC, predict

BACKENDS = ["sklearn", "native-cpu"]
WAIT_SECONDS = 300
"""For what always happens, on the busiest machine too; a test that waits so long has failed."""


def of_larger_classes(digits):
    """X and y of some images, whose classes are so large that LIBSVM is not given all at once."""
    return digits[0][:800], digits[1][:800]


def process_wide() -> tuple[list[int], list[tuple]]:
    """What belongs to the whole process: the number of BLAS threads, and the filters of
    warnings."""
    blas_threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert blas_threads
    return blas_threads, list(warnings.filters)


@pytest.fixture(scope="module")
def strokes(digits):
    """Images with few pixels that are not zero, as the compiled predictions want them, and their
    model."""
    few = digits[0][:600]
    X = np.where(np.random.default_rng(0).random(few.shape) < 0.3, few, 0)
    return X, SVC(C=10, gamma=0.05, backend="sklearn").fit(X, digits[1][:600]).model_


@pytest.mark.parametrize("arithmetic", ["NumPy", "compiled"])
def test_sixteen_threads_predict_as_one(strokes, monkeypatch, arithmetic):
    X, machine = strokes[0][:300], strokes[1]
    limit = 0 if arithmetic == "compiled" else np.inf
    for name in ("COMPILED_WORK", "COMPILATION_WORK"):
        monkeypatch.setattr(predict, name, limit)
    assert predict.evaluator_for(machine, X).compiled == (arithmetic == "compiled")
    alone = machine.pair_decisions(X)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda _: machine.pair_decisions(X), range(32)))
    assert all(np.array_equal(found, alone) for found in together)


def test_four_processes_predict_as_one(digits, digits_model):
    X = digits[2]
    alone = digits_model.pair_decisions(X)
    # Forks of a process without our state, which alone imports what they need.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["pytest", "gpusvm.model"])
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        together = list(pool.map(digits_model.pair_decisions, [X] * 8))
    assert all(np.array_equal(found, alone) for found in together)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trainings_side_by_side_give_the_models_of_one_after_the_other(digits, backend):
    X, y = of_larger_classes(digits)
    machines = [SVC(C=C, gamma=0.05, backend=backend) for C in (0.1, 1.0, 10.0, 100.0)]
    alone = [machine.fit(X, y).model_ for machine in machines]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda machine: SVC(**machine.get_params()).fit(X, y).model_, machines))
    for one, other in zip(alone, together, strict=True):
        for name in ("support_vectors", "support_indices", "dual_coef", "intercept"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_of_several_trainings_warns_that_it_stopped_early(digits, backend):
    X, y = of_larger_classes(digits)
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        list(pool.map(lambda _: SVC(backend=backend, max_iter=3).fit(X, y), range(8)))
    assert [warning.category for warning in caught] == [ConvergenceWarning] * 8


class Failure(Exception):
    pass


def set_blas_threads(n):
    """Set for good: while a thread that has set a limit lives, threadpoolctl ignores all
    others."""
    setter = threading.Thread(target=threadpool_limits, args=(n, "blas"))
    setter.start()
    setter.join()


@pytest.fixture
def three_blas_threads():
    before, _ = process_wide()
    set_blas_threads(3)
    yield
    set_blas_threads(before[0])


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize("first_fails", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_overlapping_trainings_leave_the_process_as_it_was(digits, backend, first_fails):
    """The second begins inside the first, and ends after it."""
    X, y = of_larger_classes(digits)
    first_is_inside, second_is_inside, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def first_progress(*_):
        first_is_inside.set()
        assert second_is_inside.wait(WAIT_SECONDS)
        if first_fails:
            raise Failure

    def second_progress(*_):
        second_is_inside.set()
        assert first_is_out.wait(WAIT_SECONDS)

    def first():
        try:
            SVC(backend=backend).fit_with_progress(X, y, progress=first_progress)
        finally:
            first_is_out.set()

    def second():
        assert first_is_inside.wait(WAIT_SECONDS)
        SVC(backend=backend).fit_with_progress(X, y, progress=second_progress)

    with ThreadPoolExecutor(2) as pool:
        before = process_wide()
        trainings = [pool.submit(first), pool.submit(second)]
        failures = [training.exception(WAIT_SECONDS) for training in trainings]
        after = process_wide()
    assert [type(failure) for failure in failures] == [Failure if first_fails else type(None), type(None)]
    assert after == before

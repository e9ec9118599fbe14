"""All that native-cpu trains, native-cuda trains too: on a stand-in for CuPy, its kernels compiled
for the host."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import replace
from functools import partial
from itertools import count, product

import fake_cuda
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gpusvm import SVC, SVR, OneClassSVM, certify
from gpusvm import device as gpusvm_device
from gpusvm.backends import native_cuda
from gpusvm.certificate import recomputed_gap
from gpusvm.errors import TrainingError, UsageError
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.kernels import Kernel
from gpusvm.problem import c_svc, epsilon_svr, one_class
from gpusvm.solver import cuda, cuda_gaps, cuda_rows
from gpusvm.solver.cuda_kernels import FIGURES
from gpusvm.sparse import as_csr, is_sparse, same_rows
from tests.solver.cuda_shim.build import Module, needs_compiler
from tests.solver.host_device import altered, host_device, host_rows

pytestmark = [needs_compiler, pytest.mark.usefixtures("cupy")]

# Two solvers that stop at the same tolerance end within a small multiple of it of each other.
TOL, AGREEMENT = 1e-5, 1e-3

KERNELS = {
    "rbf": {"kernel": "rbf", "gamma": 0.2},
    "linear": {"kernel": "linear"},
    "poly": {"kernel": "poly", "gamma": 0.2, "degree": 3, "coef0": 1.0},
    "sigmoid": {"kernel": "sigmoid", "gamma": 0.02, "coef0": -0.1},
}
MACHINES = {
    "three classes": partial(SVC, C=3.0, decision_function_shape="ovo"),
    "two classes": partial(SVC, C=3.0),
    "regression": partial(SVR, C=1.0, epsilon=0.1),
    "regression without a tube": partial(SVR, C=0.5, epsilon=0.0),
    "one class": partial(OneClassSVM, nu=0.3),
}
FORMS = {"array": np.asarray, "sparse": as_csr}


def samples(rng, machine, n=160, d=8):
    """X (n, d), half of it zeros, and labels or targets for the machine."""
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.5)
    score = X @ rng.normal(size=d) + 0.3 * rng.normal(size=n)
    if machine.startswith("regression"):
        return X, score
    k = 2 if machine == "two classes" else 3
    return X, np.digitize(score, np.quantile(score, np.arange(1, k) / k))


def both(machine, X, y, *, sample_weight=None, **options):
    """The machine as native-cuda and native-cpu train it."""
    asked = {"tol": TOL, **options}
    return [
        MACHINES[machine](backend=name, **asked).fit(X, y, sample_weight=sample_weight)
        for name in ("native-cuda", "native-cpu")
    ]


def assert_alike(machine, found, expected, X):
    decide = "predict" if machine.startswith("regression") else "decision_function"
    np.testing.assert_allclose(getattr(found, decide)(X), getattr(expected, decide)(X), atol=AGREEMENT)
    objectives = found.model_.dual_objective, expected.model_.dual_objective
    np.testing.assert_allclose(*objectives, rtol=1e-5, atol=1e-5)
    assert found.fit_status_ == 0 and found.model_.kkt_gap.max() <= 2 * TOL


@pytest.mark.parametrize(("kernel", "form"), [*product(KERNELS, FORMS), ("precomputed", "array")])
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_is_the_one_of_native_cpu(rng, machine, kernel, form):
    X, y = samples(rng, machine, n=90)
    X = X @ X.T if kernel == "precomputed" else FORMS[form](X)
    weights = rng.uniform(0.0, 2.0, len(y)) * (rng.random(len(y)) < 0.9)
    for sample_weight in (None, weights):
        found, expected = both(machine, X, y, sample_weight=sample_weight, **KERNELS.get(kernel, {"kernel": kernel}))
        assert_alike(machine, found, expected, X)
        own = certify(found.model_, X, y, sample_weight=sample_weight)
        np.testing.assert_allclose(own.kkt_gap, found.model_.kkt_gap, atol=1e-9)
        assert own.box_violation.max() <= 1e-9 and own.equality_violation.max() <= 1e-9
        assert sample_weight is None or (sample_weight[found.support_] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_samples_stay_sparse(rng, dtype, monkeypatch):
    X, y = samples(rng, "three classes", d=30)
    X = as_csr((X * (rng.random(X.shape) < 0.3)).astype(dtype))
    given = []
    device = native_cuda.solver_device()
    rows = lambda X, *more, **named: (given.append(X), device.rows(X, *more, **named))[1]  # noqa: E731
    monkeypatch.setattr(native_cuda, "solver_device", lambda: replace(device, rows=rows))
    model = SVC(backend="native-cuda").fit(X, y).model_
    assert given and all(is_sparse(one) for one in given)
    assert is_sparse(model.support_vectors) and model.support_vectors.dtype == dtype
    assert same_rows(model.support_vectors, X[model.support_indices])


# -- where samples go -----------------------------------------------------------------------------


@pytest.fixture
def device_rows(cupy, monkeypatch):
    """The kernels' own rows instead of products of NumPy; gives a list of what was brought to the
    device."""
    brought = []

    def to_device(array):
        brought.append(array)
        return real(array)

    real = gpusvm_device.to_device
    monkeypatch.setattr(cuda_rows, "to_device", to_device)
    make = partial(cuda_rows.DeviceRows, raw_module=Module, xp=cupy, capability=(8, 0))
    device = replace(native_cuda.solver_device(), rows=make)
    monkeypatch.setattr(native_cuda, "solver_device", lambda: device)
    return brought


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("kind", ["pixels", "reals", "far from the origin"])
def test_samples_are_brought_once_and_pixels_as_bytes(device_rows, digits, rng, kind, where):
    X, y = digits[0][:120], digits[1][:120] % 3
    X = {"pixels": X, "reals": X + 0.01 * rng.normal(size=X.shape), "far from the origin": X + 1000.3}[kind]
    X = X.astype(np.float32)
    expected = SVC(backend="native-cpu", gamma=0.05, tol=TOL, decision_function_shape="ovo").fit(X, y)
    given = X.view(fake_cuda.FakeArray) if where == "device" else X
    found = SVC(backend="native-cuda", gamma=0.05, tol=TOL, decision_function_shape="ovo").fit(given, y)
    np.testing.assert_allclose(found.decision_function(X), expected.decision_function(X), atol=AGREEMENT)
    assert certify(found.model_, X, y).max_kkt_gap <= 2 * TOL
    from_host = [array for array in device_rows if type(array) is np.ndarray]
    if where == "device":
        assert not from_host
    else:
        assert [array.dtype for array in from_host] == [np.uint8 if kind == "pixels" else np.float32]
        assert all(array.shape == X.shape for array in from_host)


@pytest.mark.parametrize("name", ["SVR", "OneClassSVM"])
def test_other_machines_take_samples_on_the_device(rng, name):
    machine = {"SVR": SVR, "OneClassSVM": OneClassSVM}[name](backend="native-cuda", warm_start=True)
    X, y = samples(rng, "regression")
    on_device = X.view(fake_cuda.FakeArray)
    found = machine.fit(on_device, y.view(fake_cuda.FakeArray))
    expected = type(machine)(backend="native-cuda").fit(X, y)
    np.testing.assert_array_equal(found.dual_coef_, expected.dual_coef_)
    assert type(found.predict(on_device)) is fake_cuda.FakeArray
    begun = found.n_iter_
    assert machine.fit(on_device, y).n_iter_ < begun, "it began afresh"


# -- starts and ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("machine", ["three classes", "regression", "one class"])
def test_goes_on_from_its_own_model(rng, machine, form):
    X, y = samples(rng, machine, n=300)
    X = FORMS[form](X)
    first = MACHINES[machine](backend="native-cuda", gamma=0.5, max_iter=20, warm_start=True, tol=TOL)
    with pytest.warns(ConvergenceWarning, match="max_iter=20"):
        first.fit(X, y)
    begun = first.model_.dual_objective.sum()
    first.set_params(max_iter=-1).fit(X, y)
    afresh, cpu = both(machine, X, y, gamma=0.5)
    assert_alike(machine, first, cpu, X)
    assert first.model_.dual_objective.sum() > begun
    assert np.sum(first.n_iter_) < np.sum(afresh.n_iter_)


@pytest.mark.parametrize("changed", [{"C": 0.3}, {"C": 30.0}])
def test_another_C_can_go_on_too(rng, changed):
    X, y = samples(rng, "three classes")
    svc = SVC(backend="native-cuda", warm_start=True, tol=TOL).fit(X, y)
    svc.set_params(**changed).fit(X, y)
    expected = SVC(backend="native-cpu", tol=TOL, **changed).fit(X, y)
    np.testing.assert_allclose(svc.model_.dual_objective, expected.model_.dual_objective, rtol=1e-5)


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock on which a second passes between two looks at it, and launches of few steps."""
    ticks = count()
    monkeypatch.setattr("gpusvm.solver.clock.time.monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(cuda, "STEPS_AT_ONCE", 20)


@pytest.mark.parametrize("machine", ["three classes", "regression", "one class"])
def test_a_time_limit_leaves_a_model_that_tells_its_gap(rng, machine, slow_clock, monkeypatch):
    X, y = samples(rng, machine, n=400)
    asked = MACHINES[machine](backend="native-cuda", gamma=2.0, time_limit=9, warm_start=True)
    with pytest.warns(ConvergenceWarning, match=r"cut off by time_limit=9 .*warm_start=True"):
        found = asked.fit(X, y)
    assert found.fit_status_ == 1 and np.all(found.n_iter_ > 0)
    np.testing.assert_allclose(found.model_.kkt_gap, certify(found.model_, X, y).kkt_gap, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found.set_params(time_limit=None).fit(X, y)
    assert found.fit_status_ == 0


# -- checkpoints ----------------------------------------------------------------------------------


class CutOff(Exception):
    pass


def one_pair_in_each_round(monkeypatch):
    """Pairs end at different times: a group has one problem."""
    device = native_cuda.solver_device()

    def gather(live, *arrays, **sizes):
        if len(live) > 1:
            raise MemoryError("one at a time")
        device.kernels.gather(live, *arrays, **sizes)

    monkeypatch.setattr(native_cuda, "solver_device", lambda: altered(device, gather=gather))


@pytest.mark.parametrize(("form", "probability"), [("array", False), ("sparse", False), ("array", True)])
def test_goes_on_from_a_checkpoint_to_the_same_model(digits, tmp_path, monkeypatch, form, probability):
    one_pair_in_each_round(monkeypatch)
    X, y = FORMS[form](digits[0][:120]), digits[1][:120] % 4
    svc = SVC(C=5, gamma=0.05, backend="native-cuda", probability=probability)
    path, told = tmp_path / "pairs", []

    def cut_off(done, total, latest):
        if done == 2:
            raise CutOff

    with pytest.raises(CutOff):
        svc.fit_with_progress(X, y, progress=cut_off, checkpoint=Checkpoint(path))
    svc.fit_with_progress(X, y, progress=lambda done, *more: told.append(done), checkpoint=Checkpoint(path))
    assert min(told) == 3, "pairs that were done have been solved again"
    whole = SVC(C=5, gamma=0.05, backend="native-cuda", probability=probability).fit(X, y)
    for field in ("dual_coef", "intercept", "support_indices", "n_iter", "converged", "kkt_gap", "dual_objective"):
        np.testing.assert_array_equal(getattr(svc.model_, field), getattr(whole.model_, field))
    with pytest.raises(UsageError, match="the checkpoint of a training with other data"):
        SVC(C=6, gamma=0.05, backend="native-cuda").fit_with_progress(X, y, checkpoint=Checkpoint(path))


def test_a_finished_checkpoint_needs_no_solving_but_its_gaps_are_recomputed(digits, tmp_path, monkeypatch):
    X, y = digits[0][:150], digits[1][:150] % 3
    svc = SVC(C=5, gamma=0.05, backend="native-cuda")
    svc.fit_with_progress(X, y, checkpoint=Checkpoint(tmp_path / "pairs"))
    monkeypatch.setattr("gpusvm.solver.cuda.solve_in_lockstep", None)
    again = SVC(C=5, gamma=0.05, backend="native-cuda")
    again.fit_with_progress(X, y, checkpoint=Checkpoint(tmp_path / "pairs"))
    np.testing.assert_array_equal(again.model_.dual_coef, svc.model_.dual_coef)
    np.testing.assert_array_equal(again.model_.kkt_gap, svc.model_.kkt_gap)


# -- probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("machine", ["two classes", "three classes"])
def test_probabilities_are_those_of_native_cpu(rng, machine, form):
    X, y = samples(rng, machine)
    X = FORMS[form](X)
    found, expected = both(machine, X, y, gamma=0.2, probability=True)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=2e-3)


# -- gaps -----------------------------------------------------------------------------------------


def stated(rng, kind, blocks):
    """Problems of a kind, and coefficients within their bounds that no solver has seen."""
    n = [len(block) for block in blocks]
    if kind == "pairs":
        problems = c_svc([(0, 1), (0, 2), (1, 2), (2, 3), (0, 3)], [rng.uniform(0.5, 2.0, k) for k in n])
    elif kind == "regression":
        problems = [epsilon_svr(rng.normal(size=n[0]), rng.uniform(0.5, 2.0, n[0]), 0.2)]
    else:
        problems = [one_class(rng.uniform(0.5, 2.0, n[0]), 0.4)]
    drawn = [rng.uniform(problem.lower, problem.upper) * (rng.random(problem.n) < 0.4) for problem in problems]
    for b, problem in zip(drawn, problems, strict=True):
        b[:3] = problem.upper[:3]
    return problems, drawn


@pytest.mark.parametrize("rows_mb", [1e-6, 0.02, 512.0])
@pytest.mark.parametrize("together", [1, 2, 100])
@pytest.mark.parametrize("kind", ["pairs", "regression", "one class"])
def test_gaps_are_those_of_the_certificate(rng, monkeypatch, kind, together, rows_mb):
    monkeypatch.setattr(cuda_gaps, "MOST_TOGETHER", together)
    kernel, X = Kernel("rbf", gamma=0.2), rng.normal(size=(70, 4))
    blocks = np.split(rng.permutation(70), [30, 45, 60]) if kind == "pairs" else [rng.permutation(70)[:50]]
    problems, drawn = stated(rng, kind, blocks)
    rows = host_rows(X, kernel, np.float64)
    meanwhile: list[int] = []
    found = cuda_gaps.recomputed_gaps(
        blocks, problems, drawn, rows, host_device(), rows_mb, lambda: meanwhile.append(1)
    )
    assert meanwhile == [1]
    expected = [
        recomputed_gap(kernel, X[problem.rows(blocks)], problem, b) for problem, b in zip(problems, drawn, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gaps_of_problems_without_support_vectors(rng):
    kernel, X = Kernel("linear"), rng.normal(size=(9, 2))
    [problem] = c_svc([(0, 1)], [np.ones(4), np.ones(5)])
    rows = host_rows(X, kernel, np.float64)
    blocks = [np.arange(4), np.arange(4, 9)]
    found = cuda_gaps.recomputed_gaps(blocks, [problem], [np.zeros(9)], rows, host_device(), 1.0)
    assert found.tolist() == [2.0]
    one_sided = problem._replace(lower=np.zeros(9), upper=np.zeros(9))
    assert cuda_gaps.recomputed_gaps(blocks, [one_sided], [np.zeros(9)], rows, host_device(), 1.0).tolist() == [0.0]


def test_a_solver_that_is_wrong_is_found_out(digits, monkeypatch):
    """Whatever the solver says: the model converged only if the gap that is recomputed says so."""

    def wrong(*arguments, progress, **named):
        solutions = solve(*arguments, progress=lambda *told: None, **named)
        for k, solution in enumerate(solutions):
            progress(k + 1, k, solution._replace(b=0.9 * solution.b))

    solve = cuda.solve_in_lockstep
    monkeypatch.setattr("gpusvm.solver.cuda.solve_in_lockstep", wrong)
    with pytest.warns(ConvergenceWarning, match="6 of 6 class pairs"):
        svc = SVC(C=5, gamma=0.05, backend="native-cuda").fit(digits[0][:200], digits[1][:200] % 4)
    assert not svc.model_.converged.any() and svc.model_.kkt_gap.min() > 0.01


# -- interrupts -----------------------------------------------------------------------------------


@pytest.fixture
def groups_alive(monkeypatch):
    """How many groups of problems still hold arrays whenever the pool is emptied."""
    groups, alive = weakref.WeakSet(), []
    begin = cuda._Group.__init__

    def init(self, *arguments):
        groups.add(self)
        begin(self, *arguments)

    empty = fake_cuda.FakePool.free_all_blocks

    def free_all_blocks(self, stream=None):
        alive.append(len(groups))
        empty(self, stream)

    monkeypatch.setattr(cuda._Group, "__init__", init)
    monkeypatch.setattr(fake_cuda.FakePool, "free_all_blocks", free_all_blocks)
    return alive


@pytest.mark.parametrize("where", ["progress", "select", "smo", "gaps"])
@pytest.mark.parametrize("machine", ["three classes", "regression"])
def test_an_interrupt_ends_training_at_once_and_gives_the_memory_back(rng, monkeypatch, groups_alive, machine, where):
    X, y = samples(rng, machine)
    n_launches = 0

    def interrupt(*arguments, **named):
        nonlocal n_launches
        n_launches += 1
        raise KeyboardInterrupt

    if where == "progress":
        monkeypatch.setattr("gpusvm.estimators.svc.print_progress", interrupt)
        monkeypatch.setattr("gpusvm.estimators.single.print_progress", interrupt)
    elif where == "gaps":
        monkeypatch.setattr(cuda_gaps._Support, "lists", interrupt)
    else:
        device = native_cuda.solver_device()
        monkeypatch.setattr(native_cuda, "solver_device", lambda: altered(device, **{where: interrupt}))
    estimator = MACHINES[machine](backend="native-cuda", verbose=True)
    with pytest.raises(KeyboardInterrupt) as held:
        estimator.fit(X, y)
    assert n_launches == 1 and not hasattr(estimator, "model_")
    assert groups_alive[-1] == 0, f"{held} keeps arrays of the device"
    assert gpusvm_device.training_pool().total_bytes() == 0


def test_memory_of_a_training_that_failed_is_given_back(digits, groups_alive):
    with pytest.raises(TrainingError, match="not enough memory on the GPU"):
        SVC(tol=1e-4, C=5, gamma=0.05, backend="native-cuda", cache_size=0.2).fit(digits[0][:300], digits[1][:300] % 2)
    assert groups_alive[-1] == 0


def test_the_host_looks_after_every_part_of_the_gaps(rng, monkeypatch):
    """So that Ctrl-C is heard while kernels run: nothing else waits for the device there."""
    kernel, X = Kernel("rbf", gamma=0.2), rng.normal(size=(40, 3))
    [problem] = c_svc([(0, 1)], [np.ones(20), np.ones(20)])
    looked = []

    class Watched(cuda.Device):
        def to_host(self, array):
            looked.append(array.shape)
            return super().to_host(array)

    device = Watched(**vars(host_device()))
    rows = host_rows(X, kernel, np.float64)
    b = np.where(np.arange(40) < 20, 0.5, -0.5)
    blocks = [np.arange(20), np.arange(20, 40)]
    cuda_gaps.recomputed_gaps(blocks, [problem], [b], rows, device, 10 * 40 * 8 / 2**20)
    assert looked == [(1, 1)] * 4 + [(1, FIGURES)]
    looked.clear()
    monkeypatch.setitem(cuda.MOST_WORK, np.dtype(np.float64), 20 * 40 * 3)
    cuda_gaps.recomputed_gaps(blocks, [problem], [b], rows, device, 1.0)
    assert looked == [(1, 1)] * 2 + [(1, FIGURES)]

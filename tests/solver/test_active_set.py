"""SMO on active variables that leave and join, against LIBSVM and the optimality conditions in
float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.svm import SVC

import gpusvm
from gpusvm.kernels import Kernel
from gpusvm.problem import QP
from gpusvm.solver import active_set, working_set
from gpusvm.solver.active_set import ActiveSetSolver
from gpusvm.solver.clock import Clock
from gpusvm.solver.growing import GrowingSolver
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.kernel_values import ActiveMatrix, GivenValues
from gpusvm.solver.precision import GradientError
from gpusvm.solver.working_set import HARD_FROM

KERNELS = [Kernel("rbf", gamma=0.2), Kernel("linear"), Kernel("poly", gamma=0.2, degree=2, coef0=1.0)]


@pytest.fixture
def eager(monkeypatch):
    """Solves small problems on few of their variables at a time."""
    monkeypatch.setattr(working_set, "AT_ONCE", 20)
    monkeypatch.setattr(working_set, "LEAST_ROOM", 0.3)
    monkeypatch.setattr(working_set, "STAYING", 0.95)


@pytest.fixture
def sets(monkeypatch):
    """The sizes of the active sets, one after another."""
    sizes = []
    change = ActiveMatrix.change

    def note(matrix, wanted, *args):
        sizes.append(np.count_nonzero(wanted))
        return change(matrix, wanted, *args)

    monkeypatch.setattr(ActiveMatrix, "change", note)
    return sizes


def random_problem(seed, n, kernel=KERNELS[0], dtype=np.float64):
    """K, p, lower, upper of a C-SVC with some noise in its labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    signs = np.where(X[:, 0] + 0.5 * rng.normal(size=n) > 0, 1.0, -1.0)
    signs[:2] = 1.0, -1.0
    C = 10.0 ** rng.integers(-1, 3)
    return kernel(X, X).astype(dtype), signs, np.minimum(0, C * signs), np.maximum(0, C * signs)


def solve(K, p, lower, upper, start=None, *, tol=1e-7, steps=10**6, room=10**6, pool=None, clock=None):
    n = len(p)
    values = GivenValues(K, np.arange(n), K.dtype.type)
    exact = lambda left, right: K[np.ix_(left, right)].astype(np.float64)  # noqa: E731
    solver = ActiveSetSolver(
        QP((0,), p, lower, upper, start), values, room=room, memory=lambda size: np.empty(size, K.dtype), tol=tol,
        steps=steps, parallel_for=ParallelFor(pool), error=GradientError(0.0, exact, 1, p, tol),
    )  # fmt: skip
    return solver.solve(clock)


def objective(K, p, b):
    return p @ b - b @ K.astype(np.float64) @ b / 2


def gap(K, p, lower, upper, b):
    v = p - K.astype(np.float64) @ b
    return v[b < upper].max() - v[b > lower].min()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_the_optimum_is_that_of_libsvm(kernel, dtype, eager, sets):
    for seed in range(6):
        K, p, lower, upper = random_problem(seed, 150, kernel, dtype)
        found = solve(K, p, lower, upper)
        assert found.converged and found.kkt_gap <= 1e-7
        svc = SVC(C=upper.max(), kernel="precomputed", tol=1e-9).fit(K.astype(np.float64), p)
        b = np.zeros(150)
        b[svc.support_] = svc.dual_coef_[0]
        assert objective(K, p, found.b) == pytest.approx(objective(K, p, b), rel=1e-6), f"seed {seed}"
        assert found.objective == pytest.approx(objective(K, p, found.b), rel=1e-9)
        assert gap(K, p, lower, upper, found.b) <= 1.5e-7, f"seed {seed}"
    assert min(sets) < 60 and max(sets) < 150, "all variables were active: the test would not see a mistake"


def test_all_variables_of_a_moderate_problem_are_active_at_once(sets):
    K, p, lower, upper = random_problem(0, 150)
    assert solve(K, p, lower, upper).converged
    assert sets == [150]


def test_any_linear_term_and_any_start(eager, sets):
    """As in regression and one-class problems: p is not y, and the sum is not zero."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        K = random_problem(seed, 120)[0]
        p, lower = rng.normal(size=120), -rng.choice([0.0, 0.3], 120)
        upper = lower + rng.choice([0.0, 0.3, 2.0], 120)
        start = lower + (upper - lower) * rng.random(120)
        found = solve(K, p, lower, upper, start, tol=1e-6)
        assert found.converged and gap(K, p, lower, upper, found.b) <= 1.5e-6, f"seed {seed}"
        assert found.b.sum() == pytest.approx(start.sum(), abs=1e-9)
        assert (found.b >= lower).all() and (found.b <= upper).all()
        assert objective(K, p, found.b) > objective(K, p, start)
    assert len(sets) > 20, "two rounds each at least"


@pytest.mark.parametrize("room", [2, 3, 10, 40])
def test_little_room_suffices(room, eager, sets):
    """Also less than there are variables between their bounds: then they take turns."""
    for seed in range(3):
        K, p, lower, upper = random_problem(seed, 120)
        found = solve(K, p, lower, upper, room=room, tol=1e-4)
        assert found.converged and gap(K, p, lower, upper, found.b) <= 1.5e-4, f"seed {seed}"
    assert max(sets) == room


def test_the_bits_do_not_depend_on_threads(eager, sets):
    K, p, lower, upper = random_problem(0, 2100, dtype=np.float32)
    alone = solve(K, p, lower, upper, tol=1e-2)
    with ThreadPoolExecutor(3) as pool:
        together = solve(K, p, lower, upper, tol=1e-2, pool=pool)
    assert len(sets) > 4
    np.testing.assert_array_equal(alone.b, together.b)
    assert alone.bias == together.bias


def test_a_start_near_the_optimum_takes_few_steps(eager, sets):
    K, p, lower, upper = random_problem(1, 400)
    found = solve(K, p, lower, upper, tol=1e-5)
    sets.clear()
    again = solve(K, p, lower, upper, found.b, tol=1e-5)
    assert again.n_iter == 0 and again.converged
    assert len(sets) == 1 and sets[0] < 400


def test_it_ends_when_told_to_and_at_the_last_step(eager):
    K, p, lower, upper = random_problem(0, 300)
    few = solve(K, p, lower, upper, tol=1e-9, steps=7)
    assert few.n_iter == 7 and not few.converged and few.kkt_gap == pytest.approx(gap(K, p, lower, upper, few.b))
    stopped = solve(K, p, lower, upper, tol=1e-9, clock=Clock(lambda: True))
    assert stopped.n_iter == 0 and not stopped.converged
    late = solve(K, p, lower, upper, tol=1e-9, clock=Clock(deadline=0.0))
    assert late.cut_off and late.kkt_gap == pytest.approx(gap(K, p, lower, upper, late.b))


@pytest.mark.parametrize("n", [15, 100])
def test_a_tolerance_beyond_float64_does_not_go_on_for_ever(n, eager):
    K, p, lower, upper = random_problem(0, n)
    found = solve(K, p, lower, upper, tol=0.0, steps=10**9)
    assert found.kkt_gap < 1e-12 and found.n_iter < 10**6


def test_a_gradient_that_steps_may_have_spoilt_is_recomputed(eager, monkeypatch):
    """Rounding beyond what is allowed is made up here: each step leaves the gradients of others
    off by 0.01."""
    optimise = ActiveSetSolver.optimise

    def sloppy(solver, *args):
        taken = optimise(solver, *args)
        solver.v[solver.chosen] += 0.01 * (solver.n_iter > 0)
        return taken

    monkeypatch.setattr(ActiveSetSolver, "optimise", sloppy)
    K, p, lower, upper = random_problem(4, 150)
    monkeypatch.setattr(active_set, "ALLOWED_DRIFT", 0.0)
    found = solve(K, p, lower, upper, tol=1e-3)
    assert found.kkt_gap == pytest.approx(gap(K, p, lower, upper, found.b), abs=1e-9)
    assert found.converged


def far_from_the_origin(rng, n, deviations):
    """Float64 samples, and their labels. Kernel values of a linear kernel are 10 times the square
    of `deviations`."""
    X = deviations + rng.normal(size=(n, 10))
    return X, (X[:, 0] + rng.normal(size=n) > deviations).astype(int)


def test_float32_values_that_are_too_coarse_are_left_at_once(rng, eager, sets):
    """Their rounding moves the gradient by more than a step does: thousands of rounds went
    nowhere."""
    X, y = far_from_the_origin(rng, 150, 1e6)
    signs, K = np.where(y > 0, 1.0, -1.0), X @ X.T
    exact = lambda left, right: K[np.ix_(left, right)]  # noqa: E731
    solver = ActiveSetSolver(
        QP((0,), signs, np.minimum(0, signs), np.maximum(0, signs), None),
        GivenValues(K.astype(np.float32), np.arange(150), np.float32),
        room=10**6, memory=lambda size: np.empty(size, np.float32), tol=1e-3, steps=10**6, parallel_for=ParallelFor(),
        error=GradientError(float(np.finfo(np.float32).eps) * K.max(), exact, 1, signs, 1e-3),
    )  # fmt: skip
    found = solver.solve()
    assert found.too_coarse and not found.converged and len(sets) < 20


def test_a_problem_that_no_precision_solves_is_given_up(eager, sets):
    """Kernel values are 1e300: rounds do not raise the objective, and what rounding leaves is
    beyond any gap."""
    rng = np.random.default_rng(0)
    K = rng.normal(size=(150, 5))
    K = 1e300 * (K @ K.T)
    p = np.where(rng.random(150) < 0.5, 1.0, -1.0)
    found = solve(K, p, np.minimum(0, p), np.maximum(0, p), tol=1e-3, steps=10**7)
    assert not found.converged and len(sets) < 100
    assert np.isfinite(found.b).all()


def test_what_float32_is_too_coarse_for_stays_in_float64_from_one_way_to_the_next(rng, monkeypatch):
    begun = []
    original = ActiveSetSolver.__init__

    def noted(self, problem, values, **more):
        begun.append(values.dtype)
        original(self, problem, values, **more)

    monkeypatch.setattr(ActiveSetSolver, "__init__", noted)
    for module in ("cpu", "working_set"):
        monkeypatch.setattr(f"gpusvm.solver.{module}.SMALL", 8)
    monkeypatch.setattr("gpusvm.solver.cpu._Ways.is_solved_at_once", lambda self, n: False)
    monkeypatch.setattr(GrowingSolver, "is_hard", lambda self, arriving: self.in_float64)
    X, y = far_from_the_origin(rng, 150, 1e4)
    model = gpusvm.SVC(kernel="linear", backend="native-cpu").fit(X, y).model_
    assert begun == [np.float64] and model.converged.all()
    assert gpusvm.certify(model, X, y).max_kkt_gap < 2e-3


@pytest.mark.parametrize(
    ("n_chosen", "share", "is_hard"),
    [(128, 0.8, False), (128, 0.9, True), (800, 0.6, False), (HARD_FROM, 0.6, True), (HARD_FROM, 0.3, False)],
)
def test_a_hard_problem_is_told_by_its_violators_at_once_where_most_are(rng, n_chosen, share, is_hard):
    """A share of all variables, outside the set, has gradients beyond the gap's middle; the others
    have its middle."""
    n = 4000
    order = rng.permutation(n)
    chosen, v = np.zeros(n, dtype=bool), np.zeros(n)
    chosen[order[:n_chosen]] = True
    violating = order[n_chosen : n_chosen + int(share * n)]
    v[violating] = np.resize([1.0, -1.0], len(violating))
    b, lower, upper = np.zeros(n), -np.ones(n), np.ones(n)
    found = working_set.is_hard(*(a[None, :] for a in (b, v, lower, upper)), 0.0, chosen[None, :], 1e-3)
    assert found.tolist() == [is_hard]

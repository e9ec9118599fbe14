"""The lockstep solver on the host, with its kernels compiled for it: all that runs on a GPU."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusvm.kernels import Kernel
from gpusvm.pairs import class_pairs
from gpusvm.params import Stopping
from gpusvm.problem import c_svc, epsilon_svr, one_class
from gpusvm.solver import solve, working_set
from gpusvm.solver.cuda import MOST_WORK, Device, solve_in_lockstep
from gpusvm.solver.cuda_kernels import CHECK, RUN
from gpusvm.solver.cuda_problems import DeviceProblems
from gpusvm.solver.growing import GrowingSolver
from gpusvm.solver.kernel_rows import subtract_combination
from gpusvm.solver.working_set import STEPS_AT_ONCE
from tests.solver import reference_kernels
from tests.solver.cuda_shim.build import Function, needs_compiler
from tests.solver.host_device import ProductRows, altered, host_device, host_kernels, host_rows

pytestmark = needs_compiler

RBF = Kernel("rbf", gamma=0.05)


def pair_problems(bounds):
    """C-SVC of every pair of classes."""
    return c_svc(class_pairs(len(bounds)), bounds)


def problem(X, y, C=10.0):
    members = [np.flatnonzero(y == c) for c in np.unique(y)]
    return np.ascontiguousarray(X, dtype=np.float32), members, [np.full(len(m), C) for m in members]


def check(X, y, kernel=RBF, *, C=10.0, tol=1e-3, device=None, budget_mb=2000.0):
    """Both solvers reach the same optimum; returns the results of the lockstep solver."""
    X, members, bounds = problem(X, y, C)
    device = device or host_device()
    found = solve_in_lockstep(
        X, members, pair_problems(bounds), kernel, Stopping(tol=tol), device=device, budget_mb=budget_mb
    )
    expected = solve(X, members, pair_problems(bounds), kernel, Stopping(tol=tol), budget_mb=budget_mb, n_threads=1)
    for mine, other in zip(found, expected, strict=True):
        assert mine.converged and mine.kkt_gap <= tol
        assert mine.objective == pytest.approx(other.objective, rel=1e-4, abs=1e-6)
        assert abs(mine.b.sum()) <= 1e-9 * C * len(mine.b)
    return found


@pytest.mark.parametrize(
    "kernel",
    [RBF, Kernel("linear"), Kernel("poly", gamma=0.1, coef0=1.0), Kernel("sigmoid", gamma=0.01)],
    ids=lambda k: k.name,
)
def test_every_kernel(digits, kernel):
    check(digits[0][:600], digits[1][:600], kernel)


def test_gradients_are_those_of_the_solution(digits):
    X, members, _ = problem(digits[0], digits[1])
    first = check(digits[0], digits[1])[0]
    rows = np.concatenate(members[:2])
    K = RBF(X[rows].astype(np.float64), X[rows].astype(np.float64))
    v = np.repeat([1.0, -1.0], [len(m) for m in members[:2]]) - K @ first.b
    upper = np.repeat([10.0, 0.0], [len(m) for m in members[:2]])
    gap = v[first.b < upper].max() - v[first.b > upper - 10.0].min()
    assert gap == pytest.approx(first.kkt_gap, abs=1e-4) and gap <= 2e-3


def test_sets_that_grow_over_many_rounds(digits, monkeypatch):
    monkeypatch.setattr("gpusvm.solver.working_set.FIRST", 8)
    monkeypatch.setattr("gpusvm.solver.working_set.MOST_JOINING", 5)
    monkeypatch.setattr("gpusvm.solver.cuda._FIRST_KERNEL", 8)
    check(digits[0], digits[1])


@pytest.mark.parametrize("gamma", [0.05, 0.5])
def test_sets_that_must_let_members_go(digits, gamma):
    few = digits[1] < 5
    found = check(digits[0][few], digits[1][few], Kernel("rbf", gamma=gamma), device=host_device(largest_set=24))
    assert max((r.b != 0).sum() for r in found) > 24, "no set was too small: nothing was tested"


def test_ties_of_one_kind_only(rng):
    X = rng.normal(size=(300, 20))
    y = (np.arange(300) < 30).astype(int)
    check(X, y, Kernel("rbf", gamma=50.0), C=1.0, device=host_device(largest_set=32))


def test_classes_of_very_different_size(rng):
    X = rng.normal(size=(300, 3))
    check(X, np.r_[np.zeros(280, int), np.ones(19, int), 2])


def test_two_samples():
    result = check(np.array([[0.0], [1.0]]), np.array([0, 1]))[0]
    np.testing.assert_allclose(result.b[0], -result.b[1])


def test_precomputed(digits):
    X, y = digits[0][:300], digits[1][:300]
    K = RBF(X, X)
    for mine, other in zip(check(K, y, Kernel("precomputed")), check(X, y), strict=True):
        assert mine.objective == pytest.approx(other.objective, rel=1e-4)


def test_distances_that_float32_loses(rng):
    X = rng.normal(size=(200, 5)) + 100 * rng.choice([-1, 1], size=(200, 1))
    check(X, rng.integers(0, 2, 200), Kernel("rbf", gamma=0.5))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 40), n_classes=st.integers(2, 4), C=st.sampled_from([0.01, 1, 100]))
def test_any_small_problem(seed, n, n_classes, C):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(0, n_classes, max(0, n - n_classes))]
    check(np.round(rng.normal(size=(len(y), 3)), 1), y, Kernel("rbf", gamma=0.3), C=C)


# -- limits ---------------------------------------------------------------------------------------


def test_problems_wait_where_not_all_their_rows_fit(digits, monkeypatch):
    """Some wait for the others with what they have; a problem alone gives rows up and computes
    them again."""
    monkeypatch.setattr("gpusvm.solver.cuda.ROWS_FOR_EACH", 8)
    device, n_live = host_device(largest_set=32), []

    def smo(live, *arrays):
        n_live.append(len(live))
        device.kernels.smo(live, *arrays)

    few = digits[1] < 5
    X, y = digits[0][few][:250], digits[1][few][:250]
    check(X, y, Kernel("rbf", gamma=0.5), device=altered(device, smo=smo), budget_mb=0.23)
    assert n_live[0] == 10 and min(n_live) < 5
    assert len(n_live) > n_live.index(min(n_live)) + 1, "those that waited went on"


@pytest.mark.parametrize("budget_mb", [0.4, 0.6, 1.0])
def test_a_pair_alone_never_outgrows_the_rows_that_fit(rng, monkeypatch, budget_mb):
    monkeypatch.setattr("gpusvm.solver.cuda.ROWS_FOR_EACH", 32)
    X = rng.normal(size=(400, 4))
    found = check(X, np.arange(400) % 2, Kernel("rbf", gamma=1.0), device=host_device(128), budget_mb=budget_mb)
    assert (found[0].b != 0).sum() > 300


def test_memory_that_runs_out_in_the_middle_is_met_with_smaller_groups(digits):
    class OutOfMemory(Exception):
        pass

    device = host_device()
    calls = []

    def failing_gather(live, *arrays, **sizes):
        calls.append(len(live))
        if len(live) > 10:
            raise OutOfMemory("out of memory allocating 1 byte")
        device.kernels.gather(live, *arrays, **sizes)

    small = replace(altered(device, gather=failing_gather), out_of_memory=(OutOfMemory,))
    check(digits[0][:500], digits[1][:500], device=small)
    assert calls[0] == 45 and min(calls) <= 10


def test_a_pair_that_does_not_fit_is_an_error_that_names_the_budget(digits):
    X, members, bounds = problem(digits[0], digits[1])
    with pytest.raises(MemoryError, match=r"cache_size=0 MB is too little for a problem of \d+ and \d+ samples"):
        solve_in_lockstep(
            X, members, pair_problems(bounds), RBF, Stopping(tol=1e-3), device=host_device(), budget_mb=0.3
        )


def test_max_iter_bounds_the_steps(digits):
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    found = solve_in_lockstep(
        X,
        members,
        pair_problems(bounds),
        RBF,
        Stopping(tol=1e-3, max_iter=5),
        device=host_device(),
        budget_mb=2000.0,
    )
    assert all(r.n_iter == 5 and not r.converged and r.kkt_gap > 1e-3 for r in found)


@pytest.mark.parametrize("warm", [False, True])
def test_wherever_the_time_runs_out_a_solution_tells_of_its_own_coefficients(rng, monkeypatch, warm):
    """In the rounds too in which gradients are computed from scratch: before that there are
    none."""
    X, kernel = rng.normal(size=(90, 3)), Kernel("rbf", gamma=1.0)
    blocks, bounds = np.split(np.arange(90), [40]), [np.full(40, 2.0), np.full(50, 2.0)]
    K = kernel(X, X)
    starts = [np.concatenate([rng.uniform(0, 1, 40), -rng.uniform(0, 1, 50)])] if warm else None
    [stated] = c_svc([(0, 1)], bounds, starts)
    monkeypatch.setattr("gpusvm.solver.cuda.STEPS_AT_ONCE", 20)
    cut_off = set()
    for looks in range(12):
        left = iter([False] * looks)
        monkeypatch.setattr("gpusvm.solver.cuda.Clock.is_past", lambda self, left=left: next(left, True))
        [found] = solve_in_lockstep(
            X, blocks, [stated], kernel, Stopping(tol=1e-3, time_limit=1e9), device=host_device(), budget_mb=2000.0
        )
        v = stated.p - K @ found.b
        gap = v[found.b < stated.upper].max() - v[found.b > stated.lower].min()
        assert found.kkt_gap == pytest.approx(gap, abs=1e-3) and found.cut_off == (not found.converged)
        assert v[found.b > stated.lower].min() - 1e-3 <= found.bias <= v[found.b < stated.upper].max() + 1e-3
        cut_off.add(found.cut_off)
    assert cut_off == {False, True}


def test_a_tolerance_that_float64_cannot_reach(digits):
    few = digits[1] < 4
    X, members, bounds = problem(digits[0][few][:80], digits[1][few][:80])
    found = solve_in_lockstep(
        X, members, pair_problems(bounds), RBF, Stopping(tol=1e-17), device=host_device(), budget_mb=2000.0
    )
    assert max(r.kkt_gap for r in found) < 1e-9 and not all(r.converged for r in found)


def test_progress_names_each_pair_once(digits):
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    calls = []
    solve_in_lockstep(
        X, members, pair_problems(bounds), RBF, Stopping(tol=1e-3), device=host_device(), budget_mb=2000.0,
        progress=lambda done, pair, result: calls.append((done, pair)),
    )  # fmt: skip
    assert [done for done, _ in calls] == list(range(1, 46)) and len({pair for _, pair in calls}) == 45


def sets_of_the_cpu(monkeypatch, run):
    """The working sets one after another, members in their order."""
    taken, join = [], GrowingSolver.join

    def noted(self, arriving):
        join(self, arriving)
        taken.append(self.members.copy())

    with monkeypatch.context() as patch:
        patch.setattr(GrowingSolver, "join", noted)
        run()
    return taken


def device_that_computes_as_the_cpu_does(ends, largest, taken):
    """Two gradients within rounding of each other are common: after a step of SMO, those of its
    two variables are.

    `ends` are those of the problem's blocks. Notes the sets that `select` takes.
    """
    device, starts = host_device(largest_set=largest), [0, *ends[:-1]]

    def select(live, *arrays, **numbers):
        device.kernels.select(live, *arrays, **numbers)
        members, n_members, action = arrays[8], arrays[9], arrays[12]
        if action[0] == RUN:
            taken.append(members[0, : n_members[0]].copy())

    def smo(
        live, action, K, members, n_members, lower, upper, epsilon, v, target, at_once, b, change, bounds, left, moved,
        status,
    ):  # fmt: skip
        if action[0] == RUN:
            chosen = members[0, : n_members[0]]
            own = K[0, : len(chosen), : len(chosen)]
            found, steps, status[0] = reference_kernels.smo(
                own, *(a[0, chosen] for a in (b, v, lower, upper)), target[0], min(at_once, left[0]), epsilon[0]
            )
            change[0, : len(chosen)], b[0, chosen] = found - b[0, chosen], found
            left[0], moved[0] = left[0] - steps, moved[0] + steps

    def subtract(live, action, rows, slot_of, member, members, n_members, change, support, n_support, b, v):
        if action[0] == CHECK:
            chosen = support[0, : n_support[0]]
            values = b[0, chosen]
        else:
            chosen, values = members[0, : n_members[0]], change[0, : n_members[0]]
        for first, last in zip(starts, ends, strict=True):
            moved = (chosen >= first) & (chosen < last) & (values != 0)
            slots = slot_of[member[0, chosen[moved]]].astype(np.int64)
            for begin, end in zip(starts, ends, strict=True):
                block = np.ascontiguousarray(rows[:, member[0, begin:end]])
                subtract_combination(block, slots, values[moved], v[0, begin:end], 0)

    return altered(device, select=select, smo=smo, subtract=subtract)


def regression(y, C):
    return [epsilon_svr(y + 0.1 * np.sin(np.arange(len(y))), np.full(len(y), C), 0.3)]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(
    ("gamma", "C", "largest"), [(0.05, 10.0, 3072), (0.05, 10.0, 200), (0.5, 1.0, 64), (0.02, 100.0, 3072)]
)
def test_both_schedulers_take_the_same_sets(digits, monkeypatch, gamma, C, largest, task):
    """The same problem, round by round: sets that start, that grow, and that are exchanged."""
    keep = np.isin(digits[1], [3, 8])
    X, members, bounds = problem(np.tile(digits[0][keep], (3, 1)), np.tile(digits[1][keep], 3), C)
    X += np.random.default_rng(0).normal(scale=0.05, size=X.shape).astype(np.float32)
    assert len(X) > working_set.SMALL, "a problem solved whole takes one set"
    # Given kernel values: both have the same, to the last bit.
    K = Kernel("rbf", gamma=gamma)(X, X)
    K = np.maximum(K, K.T)  # products of BLAS are not symmetric to the last bit
    problems = pair_problems(bounds)
    if task == "regression":
        problems, members = regression(np.tile(digits[1][keep], 3).astype(float), C), [np.arange(len(X))]
    arguments = (K, members, problems, Kernel("precomputed"), Stopping())
    monkeypatch.setattr("gpusvm.solver.cpu.LARGEST_SET", largest)
    monkeypatch.setattr("gpusvm.solver.cpu.LEAST_SET", 8)
    # The CPU has another way for problems like these, which the GPU has not.
    monkeypatch.setattr("gpusvm.solver.cpu._Ways.is_solved_at_once", lambda self, n: False)
    monkeypatch.setattr("gpusvm.solver.cpu._Ways.has_room_for_a_hard_one", lambda self, dtype: False)
    ours = sets_of_the_cpu(monkeypatch, lambda: solve(*arguments, budget_mb=2000.0, n_threads=1))
    theirs = []
    device = device_that_computes_as_the_cpu_does(np.cumsum([len(m) for m in members]).tolist(), largest, theirs)
    solve_in_lockstep(*arguments, device=device, budget_mb=2000.0)
    assert len(ours) > 3
    for round_, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_array_equal(mine, other, err_msg=f"round {round_}")


# -- what a problem may be ------------------------------------------------------------------------


def check_single(X, problem, kernel=RBF, *, tol=1e-3, device=None):
    """One problem over all samples, by both solvers."""
    arguments = (X, [np.arange(X.shape[0])], [problem], kernel, Stopping(tol=tol))
    found = solve_in_lockstep(*arguments, device=device or host_device(), budget_mb=500.0)[0]
    expected = solve(*arguments, budget_mb=500.0, n_threads=1)[0]
    assert found.converged and found.kkt_gap <= tol
    assert found.objective == pytest.approx(expected.objective, rel=1e-4, abs=1e-6)
    assert found.b.sum() == pytest.approx(expected.b.sum(), abs=1e-6)
    return found, expected


@pytest.mark.parametrize("n", [150, 700])
@pytest.mark.parametrize("centre", [0.0, 1e4])
def test_regression(rng, n, centre):
    """Targets near zero and far from it."""
    X = rng.normal(size=(n, 3)).astype(np.float32)
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=n) + centre
    found, expected = check_single(X, epsilon_svr(y, np.full(n, 2.0), 0.1))
    assert found.bias == pytest.approx(expected.bias, abs=0.01)


@pytest.mark.parametrize("n", [150, 700])
def test_one_class(rng, n):
    check_single(rng.normal(size=(n, 3)).astype(np.float32), one_class(np.ones(n), 0.2))


def test_a_warm_start_saves_steps(digits):
    X, members, bounds = problem(digits[0], digits[1])
    cold = solve_in_lockstep(X, members, pair_problems(bounds), RBF, Stopping(), device=host_device(), budget_mb=500.0)
    warm_problems = [p._replace(start=s.b) for p, s in zip(pair_problems(bounds), cold, strict=True)]
    warm = solve_in_lockstep(X, members, warm_problems, RBF, Stopping(), device=host_device(), budget_mb=500.0)
    for mine, other in zip(warm, cold, strict=True):
        assert mine.converged and mine.objective == pytest.approx(other.objective, rel=1e-4)
    assert sum(s.n_iter for s in warm) < 0.2 * sum(s.n_iter for s in cold)


@pytest.mark.parametrize(("tol", "in_float64"), [(1e-2, False), (1e-6, True)])
def test_a_problem_for_which_float32_is_too_coarse_goes_on_in_float64(rng, tol, in_float64):
    X = rng.normal(size=(100, 4))
    y = (X[:, 1] + 0.1 * rng.normal(size=100) > 0).astype(int)
    members, kernel = [np.flatnonzero(y == c) for c in range(2)], Kernel("rbf", gamma=0.5)
    problems = c_svc([(0, 1)], [np.full(len(m), 10.0) for m in members])
    found = solve_in_lockstep(X, members, problems, kernel, Stopping(tol=tol), device=host_device(), budget_mb=500.0)[0]
    assert found.converged and found.in_float64 == in_float64
    rows = np.concatenate(members)
    v = problems[0].p - kernel(X[rows], X[rows]) @ found.b
    assert v[found.b < problems[0].upper].max() - v[found.b > problems[0].lower].min() <= 1.5 * tol


def test_a_gradient_that_is_being_computed_anew_is_not_held_against_float32(digits):
    """Its errors are measured whenever they may be large, but not in the round in which it is
    p."""
    X, members, bounds = problem(digits[0][:400], digits[1][:400])

    class Rows(ProductRows):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            self.value_error = 1.0

    device = replace(host_device(), rows=Rows)
    found = solve_in_lockstep(X, members, pair_problems(bounds), RBF, Stopping(), device=device, budget_mb=500.0)
    assert all(s.converged and not s.in_float64 for s in found)


def test_time_that_runs_out_leaves_a_solution(digits):
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    found = solve_in_lockstep(
        X, members, pair_problems(bounds), RBF, Stopping(time_limit=1e-9), device=host_device(), budget_mb=500.0
    )
    assert len(found) == 45 and all(s.cut_off and not s.converged and s.kkt_gap > 1e-3 for s in found)


def test_an_interrupt_ends_it_between_two_launches(digits):
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    device = host_device()

    def smo(*arrays):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_in_lockstep(
            X, members, pair_problems(bounds), RBF, Stopping(), device=altered(device, smo=smo), budget_mb=500.0
        )


@pytest.mark.parametrize("at", ["the read of a round", "a launch"])
def test_ctrl_c_leaves_the_loop_at_once(digits, at):
    """The host hears it between two launches, each of which is short."""
    X, members, bounds = problem(digits[0][:400], digits[1][:400])
    device, done = host_device(), []

    def noted(name):
        def launch(*arrays, **numbers):
            done.append(name)
            getattr(device.kernels, name)(*arrays, **numbers)
            if name == "smo":
                assert arrays[10] == STEPS_AT_ONCE
            if at == "a launch" and name == "smo":
                signal.raise_signal(signal.SIGINT)

        return launch

    class Interrupted(Device):
        def to_host(self, array):
            done.append("read")
            if at != "a launch" and done.count("read") == 2:
                signal.raise_signal(signal.SIGINT)
            return super().to_host(array)

    names = ("select", "want", "allocate", "gather", "smo", "subtract")
    kernels = altered(device, **{name: noted(name) for name in names}).kernels
    interrupted = Interrupted(np, kernels, device.rows)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            solve_in_lockstep(X, members, pair_problems(bounds), RBF, Stopping(), device=interrupted, budget_mb=500.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done[-1] == ("smo" if at == "a launch" else "read")


def test_many_rows_are_computed_some_at_a_time_and_waited_for(digits, monkeypatch):
    X, members, bounds = problem(digits[0][:300], digits[1][:300])
    arguments = (X, members, pair_problems(bounds), RBF, Stopping())
    parts = []

    class Rows(ProductRows):
        def compute(self, samples, slots, out, columns):
            parts.append(len(samples))
            super().compute(samples, slots, out, columns)

    class Waiting(Device):
        def to_host(self, array):
            if array.shape == (1,):
                parts.append("wait")
            return super().to_host(array)

    def found():
        parts.clear()
        return solve_in_lockstep(*arguments, device=Waiting(np, host_kernels(), Rows), budget_mb=500.0)

    expected = found()
    assert "wait" not in parts
    monkeypatch.setitem(MOST_WORK, np.dtype(np.float32), 50 * X.size)
    for mine, other in zip(found(), expected, strict=True):
        np.testing.assert_array_equal(mine.b, other.b)
    assert parts[:6] == [50, "wait", 50, "wait", 50, "wait"] and max(p for p in parts if p != "wait") == 50


# -- what a round costs ---------------------------------------------------------------------------


class Counted(Device):
    """A device that counts what is copied to the host; `Module` counts the launches."""

    n_reads = 0

    def to_host(self, array):
        Counted.n_reads += 1
        return super().to_host(array)


def test_a_round_is_at_most_eight_launches_and_one_small_read(digits, monkeypatch):
    X, members, bounds = problem(digits[0][:500], digits[1][:500])
    launches, results, original, outcomes = [], [], Function.__call__, DeviceProblems.outcomes
    for name, few in (("SMALL", 20), ("FIRST", 16), ("MOST_JOINING", 8)):
        monkeypatch.setattr(working_set, name, few)

    def counted(self, *arguments, **more):
        launches.append(self.name)
        original(self, *arguments, **more)

    monkeypatch.setattr(Function, "__call__", counted)

    def counted_outcomes(self, places, **more):
        results.append(len(places))
        return outcomes(self, places, **more)

    monkeypatch.setattr(DeviceProblems, "outcomes", counted_outcomes)
    monkeypatch.setattr(Counted, "n_reads", 0)
    device = Counted(np, host_kernels(), host_rows)
    solve_in_lockstep(X, members, pair_problems(bounds), RBF, Stopping(), device=device, budget_mb=2000.0)
    n_rounds = launches.count("select_variables")
    in_rounds = launches[launches.index("select_variables") :]
    assert n_rounds > 6 and len(in_rounds) <= 8 * n_rounds
    assert sum(results) == 45, "each solution is read once, with those that end in the same round"
    assert Counted.n_reads == n_rounds + len(results) and len(results) < n_rounds

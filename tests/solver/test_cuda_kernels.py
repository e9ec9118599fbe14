"""The CUDA kernels without a GPU: compiled for the host, and compared with their definitions."""

from __future__ import annotations

import faulthandler
import os
import signal

import numpy as np
import pytest

from gpusvm.problem import QP
from gpusvm.solver import working_set
from gpusvm.solver.cuda_kernels import (
    CHECK,
    CONTINUE,
    FIGURES,
    FINISHED,
    GRADIENT,
    LARGEST_SET,
    RUN,
    START,
    WARM,
    Kernels,
    source,
)
from gpusvm.solver.cuda_problems import DeviceProblems, figures_of, in_one
from gpusvm.solver.iterate import figures, solution_of
from gpusvm.solver.smo import CUT_SHORT, REACHED, STUCK
from tests.solver import reference_kernels
from tests.solver.cuda_shim.build import Module, barrier_lines, needs_compiler
from tests.solver.host_device import host_device, host_kernels
from tests.solver.reference_smo import solve_by_definition

pytestmark = needs_compiler

INT = np.int32
DTYPES = [np.float32, np.float64]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def stores(rng, dtype, n_problems=4, n=90, n_columns=130, q=70):
    """Random rows, a random map of problems onto columns, and working sets of different sizes."""
    K = rng.normal(size=(n_columns, n_columns)).astype(dtype)
    order = rng.permutation(n_columns).astype(INT)
    slot_of = np.argsort(order).astype(INT)
    member = np.stack([rng.permutation(n_columns)[:n] for _ in range(n_problems)]).astype(INT)
    members = np.stack([rng.permutation(n)[:q] for _ in range(n_problems)]).astype(INT)
    return (K + K.T)[order], slot_of, member, members, np.array([q, q - 3, 0, q][:n_problems], dtype=INT)


def actions(n_problems, **others):
    action = np.full(n_problems, RUN, dtype=INT)
    for problem, other in others.items():
        action[int(problem[1:])] = other
    return action


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_old", [0, 1, 40])
def test_gather(rng, dtype, n_old):
    rows, slot_of, member, members, n_members = stores(rng, dtype)
    live, old = np.array([1, 0, 2, 3], dtype=INT), np.full(4, n_old, dtype=INT)
    found, expected = (np.full((4, 75, 75), np.nan, dtype=dtype) for _ in range(2))
    host_kernels().gather(
        live, actions(4, p3=FINISHED), rows, slot_of, member, members, old, n_members, found, most=70, most_new=70
    )
    reference_kernels.gather(live[:3], rows, slot_of, member, members, old, n_members, expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subtract_what_changed(rng, dtype):
    rows, slot_of, member, members, n_members = stores(rng, dtype)
    change = rng.normal(size=members.shape) * (rng.random(members.shape) < 0.7)
    found = rng.normal(size=member.shape)
    expected = found.copy()
    host_kernels().subtract(
        np.arange(4, dtype=INT), actions(4, p3=FINISHED), rows, slot_of, member, members, n_members, change,
        np.zeros_like(member), np.zeros_like(n_members), np.full_like(found, np.nan), found,
    )  # fmt: skip
    reference_kernels.subtract(range(3), rows, slot_of, member, members, change, n_members, expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_subtract_a_whole_gradient_in_parts(rng):
    rows, slot_of, member, members, n_members = stores(rng, np.float32, n=300, n_columns=320, q=290)
    b, found = rng.normal(size=member.shape), rng.normal(size=member.shape)
    expected = found.copy()
    support = np.zeros_like(member)
    support[:, :290] = members
    for begin, end in ((0, 100), (100, 290), (290, 400)):
        host_kernels().subtract(
            np.arange(4, dtype=INT), actions(4, p0=CHECK, p1=CHECK, p2=CHECK, p3=CHECK), rows, slot_of, member,
            np.full_like(members, 10**6), np.full(4, 10**6, dtype=INT), np.full((4, 290), np.nan), support, n_members,
            b, found, begin=begin, end=end,
        )  # fmt: skip
    coefficients = np.take_along_axis(b, members.astype(np.int64), axis=1)
    reference_kernels.subtract(range(4), rows, slot_of, member, members, coefficients, n_members, expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)


# -- SMO ------------------------------------------------------------------------------------------


EPSILONS = [0.0, 0.2]
"""Of a classification, and of a regression."""


def small_problems(rng, dtype=np.float32, n_problems=3, n=300, q=200, epsilon=0.0):
    """K, members, n_members, lower, upper, v: kernel values of random points, and problems at b =
    0."""
    points = rng.normal(size=(n_problems, n, 3))
    members = np.stack([rng.permutation(n)[:q] for _ in range(n_problems)]).astype(INT)
    chosen = np.take_along_axis(points, members[:, :, None].astype(np.int64), axis=1)
    K = np.exp(-((chosen[:, :, None] - chosen[:, None]) ** 2).sum(axis=3)).astype(dtype)
    signs = rng.choice([-1.0, 1.0], size=(n_problems, n))
    n_members = np.array([q, q - 57, 2], dtype=INT)
    if epsilon > 0:
        return K, members, n_members, np.full_like(signs, -3.0), np.full_like(signs, 3.0), np.sin(points.sum(axis=2))
    return K, members, n_members, np.minimum(0, 3 * signs), np.maximum(0, 3 * signs), signs.copy()


def run(kernels, problems, *, target=1e-3, allowed=5000, at_once=10**6, b=None, epsilon=0.0):
    """The coefficients, how they changed, and the steps and status of each problem."""
    K, members, n_members, lower, upper, v = problems
    count = len(K)
    b = np.zeros_like(v) if b is None else b
    change, bounds = np.zeros(members.shape), np.empty((count, 2, members.shape[1]))
    left, moved, status = np.full(count, allowed, np.int64), np.full(count, 7, np.int64), np.full(count, -1, INT)
    kernels.smo(
        np.arange(count, dtype=INT), actions(count), K, members, n_members, lower, upper, np.full(count, epsilon),
        v.copy(), np.full(count, target), at_once, b, change, bounds, left, moved, status,
    )  # fmt: skip
    np.testing.assert_array_equal(allowed - left, moved - 7)
    return b, change, moved - 7, status


def by_definition(problems, *, target=1e-3, allowed=5000, epsilon=0.0):
    K, members, n_members, lower, upper, v = problems
    b, change = np.zeros_like(v), np.zeros(members.shape)
    steps, status = np.zeros(len(K), np.int64), np.zeros(len(K), INT)
    for k, q in enumerate(n_members):
        chosen = members[k, :q]
        b[k, chosen], steps[k], status[k] = reference_kernels.smo(
            K[k, :q, :q], *(a[k, chosen] for a in (b, v, lower, upper)), target, allowed, epsilon
        )
        change[k, :q] = b[k, chosen]
    return b, change, steps, status


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("allowed", [1, 3, 20])
def test_smo_takes_the_steps_of_the_cpu(rng, monkeypatch, dtype, epsilon, allowed):
    # As Python computes it: compiled code rounds a product and a sum once, and of nearly equals
    # then takes another.
    definition = solve_by_definition.py_func
    monkeypatch.setattr(reference_kernels, "solve_working_set", lambda *given: definition(*given[:8], epsilon))
    problems = small_problems(rng, dtype, epsilon=epsilon)
    found, expected = (
        run(host_kernels(), problems, allowed=allowed, epsilon=epsilon),
        by_definition(problems, allowed=allowed, epsilon=epsilon),
    )
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("target", [1e-3, 1e-7])
def test_smo_reaches_the_optimum(rng, dtype, epsilon, target):
    problems = K, members, n_members, lower, upper, v = small_problems(rng, dtype, epsilon=epsilon)
    b, change, steps, status = run(host_kernels(), problems, target=target, epsilon=epsilon)
    expected = by_definition(problems, target=target, epsilon=epsilon)
    assert (status == REACHED).all()
    for k, q in enumerate(n_members):
        chosen, own = members[k, :q], K[k, :q, :q].astype(np.float64)
        mine, other = b[k, chosen], expected[0][k, chosen]
        assert mine.sum() == pytest.approx(0, abs=1e-9)
        bounds = (a[k, chosen] for a in (lower, upper))
        assert reference_kernels.gap(mine, v[k, chosen] - own @ mine, *bounds, epsilon) <= target * 1.001
        objectives = [v[k, chosen] @ c - c @ own @ c / 2 - epsilon * abs(c).sum() for c in (mine, other)]
        assert objectives[0] == pytest.approx(objectives[1], rel=1e-5, abs=1e-5)
        assert steps[k] <= 1.3 * expected[2][k] + 10
    np.testing.assert_allclose(np.take_along_axis(b, members.astype(np.int64), axis=1), change)


def test_smo_resolves_gradients_far_from_zero(rng):
    """Floats around a million are 0.06 apart: the search must not take what they cannot tell for
    reached."""
    problems = small_problems(rng, np.float64)
    far = (*problems[:5], problems[5] + 1e6)
    b, _, _, status = run(host_kernels(), far, target=1e-6)
    near = run(host_kernels(), problems, target=1e-6)
    assert (status == REACHED).all()
    np.testing.assert_allclose(b, near[0], atol=1e-3)


def test_smo_in_parts_goes_on_where_it_was(rng):
    problems = K, members, n_members, _, _, v = small_problems(rng)
    whole = run(host_kernels(), problems)
    b, v, steps = np.zeros_like(v), v.copy(), 0
    for _ in range(1000):
        part = run(host_kernels(), (*problems[:5], v), at_once=40, b=b)
        steps += part[2]
        for k, q in enumerate(n_members):
            v[k, members[k, :q]] -= K[k, :q, :q].astype(np.float64) @ part[1][k, :q]
        if (part[3] == REACHED).all():
            break
        assert set(part[3].tolist()) <= {REACHED, CUT_SHORT}
    np.testing.assert_allclose(steps, whole[2], rtol=0.1, atol=5)
    np.testing.assert_allclose(b, whole[0], atol=0.05)


def test_smo_with_a_full_set_and_ties(rng):
    n = LARGEST_SET
    K = np.eye(n, dtype=np.float32)[None]
    signs = np.where(np.arange(n) < n // 3, 1.0, -1.0)[None]
    problems = (
        K,
        np.arange(n, dtype=INT)[None],
        np.array([n], INT),
        np.minimum(0, 0.5 * signs),
        np.maximum(0, 0.5 * signs),
        signs,
    )
    b, _, steps, status = run(host_kernels(threads=512), problems, allowed=40)
    expected = by_definition(problems, allowed=40)
    assert steps[0] == expected[2][0] and status[0] == expected[3][0]
    np.testing.assert_allclose(b, expected[0], atol=1e-9)


@pytest.mark.parametrize("broken", ["kernel values", "gradients"])
def test_smo_ends_on_numbers_that_are_none(rng, broken):
    problems = small_problems(rng)
    problems[0 if broken == "kernel values" else 5][:] = np.nan
    assert (run(host_kernels(), problems)[3][:2] == STUCK).all()


def test_a_device_without_reductions_of_a_warp(rng):
    """A T4 has them by shuffles."""
    problems = small_problems(rng, q=60)
    old = Kernels(lambda code, options: Module(code, (*options, "-D__CUDA_ARCH__=750")), threads=64)
    for mine, other in zip(run(old, problems), run(host_kernels(), problems), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_kernel_of_the_probe():
    values = np.arange(300, dtype=np.float32)
    host_kernels().twice(values)
    np.testing.assert_array_equal(values, 2.0 * np.arange(300))


# -- which variables, and which rows --------------------------------------------------------------


class Selecting:
    """The state of some problems in the middle of training, and `select` on it. Many gradients are
    equal."""

    def __init__(self, rng, *, n=700, largest=300, n_mine=100, decimals=1, action=RUN, largest_value=2.0, epsilon=0.0):
        self.largest_value = largest_value
        self.sizes = np.array([n, n - 13, 40, n, n], dtype=INT)
        self.largest, self.tol, count = largest, 0.05, len(self.sizes)
        shape = (count, n)
        self.p, self.v = rng.normal(size=shape), np.round(rng.normal(size=shape), decimals)
        self.lower, self.upper = -rng.choice([0.0, 1.0], size=shape), rng.choice([1.0, 2.0], size=shape)
        self.b = np.where(rng.random(shape) < 0.5, self.lower, self.upper)
        self.b = np.where(rng.random(shape) < 0.3, 0.5 * self.upper, self.b)
        self.epsilon = np.full(count, epsilon)
        if epsilon > 0:
            self.b = np.where(rng.random(shape) < 0.3, 0.0, self.b)
        for array in (self.v, self.b, self.lower, self.upper):
            for k, size in enumerate(self.sizes):
                array[k, size:] = 0.0
        self.is_member = np.zeros(shape, dtype=np.uint8)
        self.members = np.full((count, largest), -1, dtype=INT)
        self.n_members = np.minimum(n_mine, self.sizes // 2).astype(INT)
        for k, size in enumerate(self.sizes):
            mine = rng.permutation(size)[: self.n_members[k]]
            self.members[k, : len(mine)], self.is_member[k, mine] = mine, 1
        self.n_old, self.growing = np.zeros(count, INT), np.ones(count, INT)
        self.action, self.status = np.full(count, action, dtype=INT), np.full(count, REACHED, dtype=INT)
        self.target, self.gaps, self.norms = np.zeros(count), np.zeros(count), np.zeros(count)
        self.steps_left, self.moved = np.full(count, 1000, np.int64), np.full(count, 5, np.int64)
        self.support, self.n_support = np.full(shape, -1, dtype=INT), np.zeros(count, dtype=INT)
        self.keys = np.zeros(shape, dtype=np.uint64)

    def run(self, kernels):
        self.before = {name: value.copy() for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        kernels.select(
            np.arange(len(self.sizes), dtype=INT)[::-1].copy(), self.sizes, self.p, self.lower, self.upper,
            self.epsilon, self.b, self.v, self.is_member, self.members, self.n_members, self.n_old, self.growing,
            self.action, self.target, self.gaps, self.norms, self.status, self.steps_left, self.moved, self.support,
            self.n_support, self.keys,
            largest=self.largest, tol=self.tol, largest_value=self.largest_value,
        )  # fmt: skip

    def state(self, k):
        """As `working_set` wants it."""
        arrays = self.b, self.v, self.lower, self.upper
        return [*(array[k : k + 1, : self.sizes[k]] for array in arrays), self.epsilon[k]]

    def set_before(self, k):
        return self.before["members"][k, : self.before["n_members"][k]]

    def expected_members(self, k):
        """By the definition, in their order."""
        mine, limit = self.set_before(k), min(self.largest, self.sizes[k])
        chosen = self.before["is_member"][k : k + 1, : self.sizes[k]].astype(bool)
        coming = working_set.joining(*self.state(k), chosen, self.tol, limit)
        if self.before["growing"][k] and len(mine) + coming.sum() <= limit:
            return np.r_[mine, np.flatnonzero(coming[0])], len(mine), 1
        wanted = working_set.exchanged(*self.state(k), chosen, self.tol, limit)
        return np.r_[mine[wanted[0, mine]], np.flatnonzero(wanted[0] & ~chosen[0])], 0, 0


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize(("largest", "n_mine"), [(700, 100), (300, 100), (300, 250), (64, 30)])
def test_the_sets_are_those_of_the_policy(rng, monkeypatch, largest, n_mine, decimals, epsilon):
    monkeypatch.setattr(working_set, "CHANGING", 200)
    found = Selecting(rng, largest=largest, n_mine=n_mine, decimals=decimals, epsilon=epsilon)
    found.growing[3] = 0
    found.run(host_kernels())
    most, least = working_set.extremes(found.b, found.v, found.lower, found.upper, epsilon)
    np.testing.assert_array_equal(found.gaps, most - least)
    np.testing.assert_allclose(found.norms, np.linalg.norm(found.b, axis=1))
    for k in range(len(found.sizes)):
        members, old, growing = found.expected_members(k)
        np.testing.assert_array_equal(found.members[k, : found.n_members[k]], members, err_msg=str(k))
        np.testing.assert_array_equal(np.flatnonzero(found.is_member[k]), np.sort(members))
        assert set(found.is_member[k].tolist()) <= {0, 1}
        assert (found.n_old[k], found.growing[k], found.action[k], found.moved[k]) == (old, growing, RUN, 0)
        target = working_set.target(found.gaps[k : k + 1], found.tol, len(members) == found.sizes[k])
        assert found.target[k] == max(target, working_set.rounding(found.b[k : k + 1], 2.0))


def test_what_a_problem_does_next(rng):
    found = Selecting(rng)
    found.status[0] = CUT_SHORT  # goes on
    found.moved[1], found.growing[1] = 0, 0  # nothing moves
    found.steps_left[3] = 0
    found.v[4] = 0.0  # at its optimum
    found.run(host_kernels())
    assert found.action.tolist() == [CONTINUE, CHECK, RUN, CHECK, CHECK]
    np.testing.assert_array_equal(found.n_members[[0, 1, 3, 4]], found.before["n_members"][[0, 1, 3, 4]])
    for k in (1, 3, 4):
        np.testing.assert_array_equal(found.support[k, : found.n_support[k]], np.flatnonzero(found.b[k]))
        np.testing.assert_array_equal(found.v[k, : found.sizes[k]], found.p[k, : found.sizes[k]])
    found.v[[3, 4]] = found.before["v"][[3, 4]]
    found.run(host_kernels())
    assert found.action.tolist() == [CONTINUE, RUN, found.action[2], FINISHED, FINISHED]


def test_how_a_problem_begins(rng):
    found = Selecting(rng, action=START)
    found.action[1:] = WARM
    found.run(host_kernels())
    assert found.action.tolist() == [RUN, *[GRADIENT] * 4]
    np.testing.assert_array_equal(found.n_support[1:], (found.b[1:] != 0).sum(axis=1))
    found.run(host_kernels())
    assert found.action.tolist()[1:] == [RUN] * 4
    np.testing.assert_array_equal(found.n_members[1:], found.before["n_members"][1:])
    assert (found.n_old[1:] == 0).all()


def allocated(kernels, rng, capacity, held, n_columns=500):
    """`want` and `allocate` on random lists; returns what was asked for and all that was
    written."""
    n_problems, n = 3, 300
    member = np.stack([rng.permutation(n_columns)[:n] for _ in range(n_problems)]).astype(INT)
    members, n_members = member[:, :80] % n, np.array([80, 60, 70], dtype=INT)
    support, n_support = np.stack([rng.permutation(n) for _ in range(3)]).astype(INT), np.full(3, 90, dtype=INT)
    action = np.array([RUN, CHECK, FINISHED], dtype=INT)
    slot_of = np.full(n_columns, -1, dtype=INT)
    slot_of[rng.permutation(n_columns)[:held]] = rng.permutation(held)
    before, wanted = slot_of.copy(), np.zeros(n_columns, dtype=np.uint8)
    taken, missing, slots = np.array([held], dtype=INT), np.full(n_columns, -1, INT), np.full(n_columns, -1, INT)
    report, gaps = np.full((4, 8), np.nan), rng.normal(size=3)
    steps = np.array([2**40, 5, 0], dtype=np.int64)
    kernels.want(np.arange(3, dtype=INT), action, member, members, n_members, support, n_support, wanted)
    asked = np.flatnonzero(wanted)
    kernels.allocate(wanted, slot_of, taken, missing, slots, gaps, gaps + 1, n_members, np.full(3, 10, INT), action,
                     steps, n_support, report, capacity=capacity)  # fmt: skip
    expected = np.union1d(member[0, members[0]], member[1, support[1, :90]])
    np.testing.assert_array_equal(asked, expected)
    assert not wanted.any()
    np.testing.assert_array_equal(report[:3].T, [gaps, gaps + 1, n_members, n_members - 10, action, steps, n_support,
                                                 np.zeros(3)])  # fmt: skip
    return asked, before, slot_of, int(taken[0]), missing, slots, report[3, :2].astype(int)


def test_missing_rows_get_slots_in_their_order(rng):
    asked, before, slot_of, held, missing, slots, (n_missing, n_wanted) = allocated(host_kernels(), rng, 450, 120)
    lacking = asked[before[asked] < 0]
    assert (n_missing, n_wanted, held) == (len(lacking), len(asked), 120 + len(lacking)) and 0 < len(lacking) < len(
        asked
    )
    np.testing.assert_array_equal(missing[:n_missing], lacking)
    np.testing.assert_array_equal(slots[:n_missing], 120 + np.arange(n_missing))
    np.testing.assert_array_equal(slot_of[lacking], slots[:n_missing])
    others = np.setdiff1d(np.arange(500), lacking)
    np.testing.assert_array_equal(slot_of[others], before[others])


def test_rows_that_no_longer_fit_are_given_up(rng):
    asked, _, slot_of, held, missing, slots, (n_missing, n_wanted) = allocated(host_kernels(), rng, 200, 120)
    assert n_missing == n_wanted == held == len(asked)
    np.testing.assert_array_equal(missing[:n_missing], asked)
    np.testing.assert_array_equal(np.flatnonzero(slot_of >= 0), asked)
    np.testing.assert_array_equal(slot_of[asked], np.arange(len(asked)))
    np.testing.assert_array_equal(slots[:n_missing], np.arange(len(asked)))


def test_more_rows_than_fit_change_nothing(rng):
    asked, before, slot_of, held, _, _, (n_missing, n_wanted) = allocated(host_kernels(), rng, 100, 90)
    assert (n_missing, n_wanted, held) == (0, len(asked), 90)
    np.testing.assert_array_equal(slot_of, before)


# -- the problems, and what has come of them ------------------------------------------------------


def regressions_and_classes(rng, epsilon):
    """Blocks, and problems over one, two and three of them; some begin somewhere."""
    sizes = (40, 300, 70)
    blocks = np.split(rng.permutation(1000)[: sum(sizes)], np.cumsum(sizes)[:-1])
    problems = []
    for chosen in ((0, 1), (2,), (1, 0, 2), (0, 2)):
        n = sum(sizes[block] for block in chosen)
        bound = rng.choice([0.5, 1.0, np.inf], size=n)
        start = rng.uniform(-0.5, 0.5, size=n) * (rng.random(n) < 0.5)
        problems.append(QP(chosen, rng.normal(size=n), -bound, bound, start, epsilon))
    return blocks, problems


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("begun", [False, True])
def test_problems_are_brought_with_a_row_for_each(rng, epsilon, begun):
    blocks, problems = regressions_and_classes(rng, epsilon)
    starts = [problem.start for problem in problems] if begun else None
    found = DeviceProblems(blocks, problems, host_device(), starts)
    assert found.n == max(problem.n for problem in problems)
    for k, problem in enumerate(problems):
        np.testing.assert_array_equal(found.columns[found.member[k, : problem.n]], problem.rows(blocks))
        b = problem.start if begun else np.zeros(problem.n)
        for name, expected in (("p", problem.p), ("lower", problem.lower), ("upper", problem.upper), ("b", b)):
            np.testing.assert_array_equal(getattr(found, name)[k, : problem.n], expected)
            assert not getattr(found, name)[k, problem.n :].any()
    np.testing.assert_array_equal(found.v, found.p)
    assert found.epsilon.tolist() == [epsilon] * 4 and found.n_variables.tolist() == [p.n for p in problems]


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("vectors", [0, 1, 2])
def test_what_has_come_of_problems(rng, epsilon, vectors):
    blocks, problems = regressions_and_classes(rng, epsilon)
    problems[1] = problems[1]._replace(lower=np.zeros(70), upper=np.zeros(70), start=np.zeros(70))
    problems[2].start[:200] = problems[2].upper[:200] = 0.25
    found = DeviceProblems(blocks, problems, host_device(), [problem.start for problem in problems])
    found.v[:] = rng.normal(size=found.v.shape)
    places = np.array([2, 0, 1])
    for k, line in zip(places, found.outcomes(places, vectors=vectors), strict=True):
        problem, n = problems[k], problems[k].n
        mine, expected = (
            figures_of(line), figures(problem.start, found.v[k, :n], problem.p, problem.lower, problem.upper, epsilon)
        )  # fmt: skip
        np.testing.assert_allclose(mine, expected, rtol=1e-12)
        assert (mine.most, mine.least, mine.n_free) == (expected.most, expected.least, expected.n_free)
        given = [array[k] for array in (found.b, found.v)][:vectors]
        np.testing.assert_array_equal(line[FIGURES:], np.concatenate([*given, []]))


def test_gradients_that_are_not_numbers_have_no_gap(rng):
    blocks, problems = regressions_and_classes(rng, 0.0)
    found = DeviceProblems(blocks, problems, host_device(), [problem.start for problem in problems])
    found.v[:, 3:5] = np.nan
    for line in found.outcomes(np.arange(4), vectors=1):
        told = solution_of(line[FIGURES:], figures_of(line), n_iter=1, tol=1e9)
        assert not told.converged and np.isnan(told.objective)


def test_parts_of_one_array_are_not_copied(rng):
    whole = rng.normal(size=100)
    parts = [whole[10:60], whole[30:31], whole[31:90]]
    assert np.shares_memory(in_one(parts)[0], whole) and len(in_one(parts)[0]) == 80
    others = [parts[1:2] + parts[:1], [p.copy() for p in parts], [whole[::2], whole[1::2]], [whole[:2], whole[90:]]]
    for given in (parts, [whole, whole], *others):
        one, offsets = in_one(given)
        for array, offset in zip(given, offsets, strict=True):
            np.testing.assert_array_equal(one[offset : offset + len(array)], array)
        assert len(one) <= sum(map(len, given))


# -- the order of threads -------------------------------------------------------------------------


def everything(rng, **how):
    """What the kernels write, run one after another on the same random input."""
    kernels = host_kernels(**how)
    rows, slot_of, member, members, n_members = stores(rng, np.float32)
    K = np.zeros((4, 70, 70), dtype=np.float32)
    live, old = np.arange(4, dtype=INT), np.full(4, 20, INT)
    kernels.gather(live, actions(4), rows, slot_of, member, members, old, n_members, K, most=70, most_new=50)
    rows, slot_of, member, members, n_members = stores(rng, np.float32, n=600, n_columns=700, q=550)
    v, change = rng.normal(size=member.shape), rng.normal(size=members.shape)
    support, none = np.zeros_like(member), np.zeros_like(n_members)
    kernels.subtract(live, actions(4), rows, slot_of, member, members, n_members, change, support, none, v, v)
    written = []
    for largest, n_mine in ((300, 100), (300, 250)):
        state = Selecting(rng, largest=largest, n_mine=n_mine, largest_value=1e16)
        state.action[4], state.v[3] = WARM, 0.0
        state.run(kernels)
        written += [state.members, state.is_member, state.support[3:, :40], state.gaps, state.norms, state.v]
        written += [state.action, state.n_members, state.n_support, state.target]
    written += allocated(kernels, rng, 450, 120)[2:]
    problems = small_problems(rng, q=60)
    problems[5][:] += 3.0  # the middle of the gap is not zero
    blocks, stated = regressions_and_classes(rng, 0.2)
    placed = DeviceProblems(blocks, stated, host_device(**how), [problem.start for problem in stated])
    written += [placed.outcomes(np.arange(4), vectors=2), placed.member]
    return *written, K, v, *run(kernels, problems, allowed=30)


def same(found, expected):
    return all(np.array_equal(mine, other, equal_nan=True) for mine, other in zip(found, expected, strict=True))


def test_results_do_not_depend_on_the_order_of_threads():
    expected = everything(np.random.default_rng(0))
    for seed in range(1, 6):
        assert same(everything(np.random.default_rng(0), seed=seed), expected), seed


def notices(line):
    """Whether anything changes without the barrier in this line."""
    expected = everything(np.random.default_rng(0))
    for seed in range(1, 30):
        try:
            if not same(everything(np.random.default_rng(0), seed=seed, skipped_line=line), expected):
                return True
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("line", barrier_lines(source("pairs.cu")))
def test_a_barrier_that_is_missing_is_noticed(line):
    """Each of them: the shim's order of threads brings to light what would be a race.

    In a process of its own, since places that are wrong may end it, or keep it from ending.
    """
    everything(np.random.default_rng(0))  # compiles, once for all
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a handler of Python's would wait for what hangs
        signal.alarm(30)
        os._exit(int(notices(line)))
    _, status = os.waitpid(child, 0)
    assert status != 0, f"nothing changes without the barrier in line {line}"


def test_a_barrier_that_some_threads_miss_is_an_error():
    code = """extern "C" __global__ void odd(int *out) {
        if (threadIdx.x % 2) __syncthreads();
        if (threadIdx.x < 8) __syncthreads();
        out[threadIdx.x] = 1;
    }"""
    with pytest.raises(AssertionError, match="different barriers"):
        Module(code).get_function("odd")((1,), (64,), (np.zeros(64, INT),))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (np.zeros(4), "float64, not f4"),
        (np.zeros((4, 2), np.float32)[:, 0], "not contiguous"),
        ([1.0], "not an array"),
    ],
)
def test_arguments_that_a_gpu_would_misread_are_errors(argument, words):
    function = host_kernels().function("twice")
    with pytest.raises(AssertionError, match=words):
        function((1,), (32,), (argument, INT(4)))
    with pytest.raises(AssertionError, match="not a scalar of NumPy"):
        function((1,), (32,), (np.zeros(4, np.float32), 4))

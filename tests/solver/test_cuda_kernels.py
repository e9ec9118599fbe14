"""The CUDA kernels without a GPU: compiled for the host, and compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from gpusvm.solver.cuda_kernels import CHECK, FINISHED, LARGEST_SET, RUN, Kernels, source
from gpusvm.solver.smo import CUT_SHORT, REACHED, STUCK
from tests.solver import reference_kernels
from tests.solver.cuda_shim.build import Module, barrier_lines, needs_compiler
from tests.solver.host_device import host_kernels
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
    host_kernels(dtype).gather(
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
    host_kernels(dtype).subtract(
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


# -- SMO -----------------------------------------------------------------------------------------------


def small_problems(rng, dtype=np.float32, n_problems=3, n=300, q=200):
    """K, members, n_members, lower, upper, v: kernel values of random points, and problems at b = 0."""
    points = rng.normal(size=(n_problems, n, 3))
    members = np.stack([rng.permutation(n)[:q] for _ in range(n_problems)]).astype(INT)
    chosen = np.take_along_axis(points, members[:, :, None].astype(np.int64), axis=1)
    K = np.exp(-((chosen[:, :, None] - chosen[:, None]) ** 2).sum(axis=3)).astype(dtype)
    signs = rng.choice([-1.0, 1.0], size=(n_problems, n))
    n_members = np.array([q, q - 57, 2], dtype=INT)
    return K, members, n_members, np.minimum(0, 3 * signs), np.maximum(0, 3 * signs), signs.copy()


def run(kernels, problems, *, target=1e-3, allowed=5000, at_once=10**6, b=None):
    """The coefficients, how they changed, and the steps and status of each problem."""
    K, members, n_members, lower, upper, v = problems
    count = len(K)
    b = np.zeros_like(v) if b is None else b
    change, bounds = np.zeros(members.shape), np.empty((count, 2, members.shape[1]))
    left, moved, status = np.full(count, allowed, np.int64), np.full(count, 7, np.int64), np.full(count, -1, INT)
    kernels.smo(
        np.arange(count, dtype=INT), actions(count), K, members, n_members, lower, upper, v.copy(),
        np.full(count, target), at_once, b, change, bounds, left, moved, status,
    )  # fmt: skip
    np.testing.assert_array_equal(allowed - left, moved - 7)
    return b, change, moved - 7, status


def by_definition(problems, *, target=1e-3, allowed=5000):
    K, members, n_members, lower, upper, v = problems
    b, change = np.zeros_like(v), np.zeros(members.shape)
    steps, status = np.zeros(len(K), np.int64), np.zeros(len(K), INT)
    for k, q in enumerate(n_members):
        chosen = members[k, :q]
        b[k, chosen], steps[k], status[k] = reference_kernels.smo(
            K[k, :q, :q], *(a[k, chosen] for a in (b, v, lower, upper)), target, allowed
        )
        change[k, :q] = b[k, chosen]
    return b, change, steps, status


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("allowed", [1, 3, 20])
def test_smo_takes_the_steps_of_the_cpu(rng, monkeypatch, dtype, allowed):
    # As Python computes it: compiled code rounds a product and a sum once, and of nearly equals then takes another.
    monkeypatch.setattr(reference_kernels, "solve_working_set", solve_by_definition.py_func)
    problems = small_problems(rng, dtype)
    found, expected = run(host_kernels(dtype), problems, allowed=allowed), by_definition(problems, allowed=allowed)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [1e-3, 1e-7])
def test_smo_reaches_the_optimum(rng, dtype, target):
    problems = K, members, n_members, lower, upper, v = small_problems(rng, dtype)
    b, change, steps, status = run(host_kernels(dtype), problems, target=target)
    expected = by_definition(problems, target=target)
    assert (status == REACHED).all()
    for k, q in enumerate(n_members):
        chosen, own = members[k, :q], K[k, :q, :q].astype(np.float64)
        mine, other = b[k, chosen], expected[0][k, chosen]
        assert mine.sum() == pytest.approx(0, abs=1e-9)
        assert reference_kernels.gap(mine, v[k, chosen] - own @ mine, *(a[k, chosen] for a in (lower, upper))) <= (
            target * 1.001
        )
        objectives = [v[k, chosen] @ c - c @ own @ c / 2 for c in (mine, other)]
        assert objectives[0] == pytest.approx(objectives[1], rel=1e-5, abs=1e-5)
        assert steps[k] <= 1.3 * expected[2][k] + 10
    np.testing.assert_allclose(np.take_along_axis(b, members.astype(np.int64), axis=1), change)


def test_smo_resolves_gradients_far_from_zero(rng):
    """Floats around a million are 0.06 apart: the search must not take what they cannot tell for reached."""
    problems = small_problems(rng, np.float64)
    far = (*problems[:5], problems[5] + 1e6)
    b, _, _, status = run(host_kernels(np.float64), far, target=1e-6)
    near = run(host_kernels(np.float64), problems, target=1e-6)
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


# -- the order of threads ------------------------------------------------------------------------------


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
    problems = small_problems(rng, q=60)
    problems[5][:] += 3.0  # the middle of the gap is not zero
    return K, v, *run(kernels, problems, allowed=30)


def same(found, expected):
    return all(np.array_equal(mine, other, equal_nan=True) for mine, other in zip(found, expected, strict=True))


def test_results_do_not_depend_on_the_order_of_threads():
    expected = everything(np.random.default_rng(0))
    for seed in range(1, 6):
        assert same(everything(np.random.default_rng(0), seed=seed), expected), seed


@pytest.mark.parametrize("line", barrier_lines(source("pairs.cu")))
def test_a_barrier_that_is_missing_is_noticed(line):
    """Each of them: the shim's order of threads brings to light what would be a race."""
    expected = everything(np.random.default_rng(0))
    for seed in range(1, 30):
        try:
            if not same(everything(np.random.default_rng(0), seed=seed, skipped_line=line), expected):
                return
        except AssertionError:
            return
    pytest.fail(f"nothing changes without the barrier in line {line}")


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
    function = host_kernels()._twice
    with pytest.raises(AssertionError, match=words):
        function((1,), (32,), (argument, INT(4)))
    with pytest.raises(AssertionError, match="not a scalar of NumPy"):
        function((1,), (32,), (np.zeros(4, np.float32), 4))

"""The parts of the solver, each against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusvm.kernels import MOST_SPREAD, Kernel
from gpusvm.solver.cpu import plan_memory, tournament
from gpusvm.solver.kernel_of_blocks import KernelOfBlocks
from gpusvm.solver.kernel_rows import GivenRows, KernelRows, ParallelFor, gather, subtract_combination, write_kernel
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.operands import (
    MOST_IN_TILES,
    PIXEL_SCALES,
    BlasOperand,
    IntegerOperand,
    PanelOperand,
    Samples,
    TileOperand,
    make_operand,
    whole_numbers,
)
from gpusvm.solver.panels import integer_products_are_exact
from gpusvm.solver.row_store import RowStore
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.tiles import WEIGHTED_ROWS, multiply_tiles, pack_columns, pack_rows, rows_of_a_tile, weight_rows

KERNELS = [
    Kernel("rbf", gamma=0.3),
    Kernel("linear"),
    Kernel("poly", gamma=0.3, degree=3, coef0=0.5),
    Kernel("sigmoid", gamma=0.3, coef0=-0.2),
]

LINEAR = KERNELS[1]


def sparse_samples(rng, n, d, density=0.2):
    X = rng.uniform(0.1, 1.0, (n, d)) * (rng.random((n, d)) < density)
    return X.astype(np.float32)


# -- products -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 1.0])
def test_panels_multiply(rng, n, density):
    X = sparse_samples(rng, 150, 37, density)
    left, right = rng.permutation(150)[:23], rng.permutation(150)[:n]
    samples = Samples(X)
    operand = PanelOperand(samples, right, np.flatnonzero(X[right].any(axis=0)))
    found = operand.products(samples, left).columns(0, n)
    expected = X[left].astype(np.float64) @ X[right].astype(np.float64).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


needs_integers = pytest.mark.skipif(
    not integer_products_are_exact(), reason="this processor has no AVX2: pixels are multiplied as float32"
)


@needs_integers
@pytest.mark.parametrize("d", [1, 2, 37, 784])
@pytest.mark.parametrize("n", [1, 16, 100])
def test_integer_panels_multiply_exactly(rng, n, d):
    pixels = (rng.integers(0, 256, (150, d)) * (rng.random((150, d)) < 0.5)).astype(np.uint8)
    pixels[:4] = 255
    samples = Samples.of(pixels.astype(np.float32) / np.float32(255), LINEAR)
    np.testing.assert_array_equal(samples.pixels, pixels)
    left, right = rng.permutation(150)[:23], rng.permutation(150)[:n]
    operand = IntegerOperand(samples, right, pixels[right].any(axis=0))
    exact = pixels[left].astype(np.int64) @ pixels[right].astype(np.int64).T
    np.testing.assert_array_equal(operand.products(samples, left).columns(0, n), exact)
    assert operand.unit == pytest.approx(1 / 255**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", PIXEL_SCALES)
def test_whole_numbers_are_told_to_the_last_bit(scale, dtype, rng):
    """As their definition tells them: every one of them, its neighbours, what overflows and what
    is no number."""
    every = np.arange(-3, 300).astype(dtype) / dtype(scale)
    limits = np.finfo(dtype)
    others = np.array([-0.0, np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, 1e-30, 3e9])
    near = [np.nextafter(every, dtype(towards)) for towards in (-np.inf, np.inf)]
    drawn = (rng.random(1000) * 300 / scale).astype(dtype)
    for x in np.concatenate([every, *near, others.astype(dtype), drawn]):
        with np.errstate(all="ignore"):
            whole = np.rint(x * dtype(scale))
            is_one = bool(0 <= whole <= 255 and whole / dtype(scale) == x)
        for row in (np.array([[x]]), np.append(np.zeros(40, dtype), x)[None, :]):  # alone, and as vector code
            found = whole_numbers(row, scale)
            assert (found is not None) == is_one, x
            assert found is None or found[0, -1] == whole


@pytest.mark.parametrize("kind", ["not whole", "negative", "too large", "nearly whole", "too many features"])
def test_what_is_not_pixels_is_not_taken_for_them(rng, kind):
    X = rng.integers(1, 256, (20, 10)).astype(np.float32)
    if kind == "not whole":
        X[3, 4] += 0.5
    elif kind == "negative":
        X[3, 4] = -1
    elif kind == "too large":
        X[3, 4] = 256
    elif kind == "nearly whole":
        X = X / np.float32(255)
        X[3, 4] = np.nextafter(X[3, 4], np.float32(2))
    else:
        X = np.ones((2, 40_000), np.float32)
    assert Samples.of(X, LINEAR).pixels is None


def test_any_part_of_a_product_has_the_same_bits(rng):
    samples = Samples(sparse_samples(rng, 300, 60))
    left, right = np.arange(50), np.arange(50, 300)
    operand = PanelOperand(samples, right, np.arange(60))
    whole = operand.products(samples, left).columns(0, 250).copy()
    np.testing.assert_array_equal(operand.products(samples, left[7:8]).columns(0, 250), whole[7:8])
    np.testing.assert_array_equal(operand.products(samples, left).columns(32, 101), whole[:, 32:101])


def test_operand_follows_the_data(rng):
    rows = np.arange(80)
    assert isinstance(make_operand(Samples.of(sparse_samples(rng, 80, 40, 0.2), LINEAR), rows), PanelOperand)
    assert isinstance(make_operand(Samples.of(sparse_samples(rng, 80, 40, 0.9), LINEAR), rows), TileOperand)
    assert isinstance(make_operand(Samples(sparse_samples(rng, 80, 40, 0.9).astype(np.float64)), rows), BlasOperand)
    many = sparse_samples(rng, 80, MOST_IN_TILES + 1, 0.9)
    assert isinstance(make_operand(Samples.of(many, LINEAR), rows), BlasOperand)
    wide = np.zeros((80, 400), np.float32)
    wide[:, :20] = sparse_samples(rng, 80, 20, 0.9)
    assert isinstance(make_operand(Samples.of(wide, LINEAR), rows), TileOperand), (
        "features that none has are not sparsity"
    )
    if integer_products_are_exact():
        pixels = np.rint(255 * sparse_samples(rng, 80, 40, 0.2)) / np.float32(255)
        assert isinstance(make_operand(Samples.of(pixels, LINEAR), rows), IntegerOperand)


# -- kernel values --------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("pixels", [False, True])
def test_rows_are_the_kernel_in_float64(rng, kernel, density, pixels):
    X = sparse_samples(rng, 5000, 30, density)
    if pixels:
        X = np.rint(255 * X) / np.float32(255)
    given, left, right = Samples.of(X, kernel), np.arange(40), np.arange(100, 5000)
    operands = make_operand(given, left), make_operand(given, right)
    store, slots = np.full((50, len(right)), np.nan, np.float32), rng.permutation(50)[:7]
    samples = rng.permutation(40)[:7]
    KernelRows(kernel, given, left, operands[1]).compute(samples, store, slots, ParallelFor())
    exact = kernel(X[left[samples]].astype(np.float64), X[right].astype(np.float64))
    np.testing.assert_allclose(store[slots], exact, rtol=1e-5, atol=2e-6)
    assert np.isnan(np.delete(store, slots, axis=0)).all(), "wrote where nothing was asked for"


def test_exponential_in_float64_is_numpys_to_two_units_in_the_last_place(rng):
    x = np.concatenate([-rng.uniform(0, 708, 100_000), -rng.exponential(1, 100_000), -np.logspace(-99, 0, 1001), [0]])
    into, zeros = np.empty((1, len(x) + 2)), np.zeros(len(x) + 2)
    inner = np.append(x, [-709.0, -1e300])[None, :] / 2
    write_kernel(Kernel("rbf", gamma=1.0), inner, 1.0, zeros[:1], zeros, into, np.array([0]), 0)
    exact = np.exp(x)
    assert (np.abs(into[0, :-2] - exact) <= 2 * np.spacing(exact)).all()
    assert into[0, -3] == 1.0 and (into[0, -2:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (13, 17, 5), (240, 256, 54)])
def test_tiles_are_products(rng, dtype, m, n, d):
    X, Y = rng.normal(size=(m, d)).astype(dtype), rng.normal(size=(n, d)).astype(dtype)
    together = rows_of_a_tile(dtype)
    groups = np.empty((-(-m // together), together * d), dtype)
    panels = np.empty((-(-n // 16), 16 * d), dtype)
    pack_rows(X, together, groups)
    pack_columns(Y, panels)
    out = np.empty((together * len(groups), 16 * len(panels)), dtype)
    multiply_tiles(groups, panels, d, out)
    atol = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out[:m, :n], X.astype(float) @ Y.astype(float).T, atol=atol)
    assert (out[m:] == 0).all() and (out[:, n:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weighted_rows_are_products_in_float64(rng, dtype):
    values, weights = rng.normal(size=(3 * WEIGHTED_ROWS, 40)).astype(dtype), rng.normal(size=(50, 32))
    out = np.empty((WEIGHTED_ROWS, 32))
    weight_rows(values, WEIGHTED_ROWS, 3, 31, weights, 7, out)
    expected = values[WEIGHTED_ROWS : 2 * WEIGHTED_ROWS, 3:31].astype(float) @ weights[10:38]
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_exponential_is_accurate_over_its_whole_range():
    x = np.concatenate([np.linspace(-87, 0, 100_001), -np.logspace(-8, 0, 1001), [-88.0, -1e4, -1e30, 0.0]])
    x = x.astype(np.float32)
    inner = (x / 2)[None, :]  # with zero norms the distance is -2 inner, here -x
    into, zeros = np.empty_like(inner), np.zeros(len(x), np.float32)
    write_kernel(Kernel("rbf", gamma=1.0), inner, 1.0, zeros[:1], zeros, into, np.array([0]), 0)
    exact = np.exp(x.astype(np.float64))
    normal = x > -87
    np.testing.assert_allclose(into[0][normal], exact[normal], rtol=5e-7)
    assert (into[0][~normal] == 0).all() or np.abs(into[0][~normal] - exact[~normal]).max() < 1e-37
    assert into[0][-1] == 1.0


def test_given_rows_are_taken_as_they_are(rng):
    K = rng.normal(size=(20, 20)).astype(np.float32)
    into = np.zeros((4, 5), np.float32)
    GivenRows(K, np.array([3, 8, 9]), np.arange(10, 15)).compute(
        np.array([2, 0]), into, np.array([1, 3]), ParallelFor()
    )
    np.testing.assert_array_equal(into[[1, 3]], K[[9, 3], 10:15])


@pytest.mark.parametrize("m", [0, 1, 3, 4, 9])
def test_subtracting_a_combination(rng, m):
    rows, v = rng.normal(size=(12, 2500)).astype(np.float32), rng.normal(size=2500)
    slots, coefficients = rng.permutation(12)[:m], rng.normal(size=m)
    expected = v - coefficients @ rows[slots].astype(np.float64)
    subtract_combination(rows, slots, coefficients, v, 0)
    np.testing.assert_allclose(v, expected, atol=1e-12)


def test_gathering_fills_both_halves(rng):
    rows, into = rng.normal(size=(40, 90)).astype(np.float32), np.zeros((60, 60), np.float32)
    slots, columns, places = rng.permutation(40)[:21], rng.permutation(90)[:30], rng.permutation(60)[:30]
    gather(rows, slots, columns, into, 5, places)
    values = rows[slots][:, columns]
    disjoint = (places < 5) | (places >= 26)
    np.testing.assert_array_equal(into[5:26][:, places[disjoint]], values[:, disjoint])
    np.testing.assert_array_equal(into[places[disjoint]][:, 5:26], values[:, disjoint].T)


# -- memory and order -----------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=6, unique=True), max_size=30), st.integers(6, 20))
def test_row_store_keeps_what_was_asked_for_last(requests, capacity):
    store = RowStore(20, 1, capacity)
    held: dict[int, float] = {}
    for clock, request in enumerate(requests):
        samples = np.array(request)
        missing = store.reserve(samples)
        assert set(missing) == {s for s in request if s not in held}
        store.rows[store.slot_of[missing], 0] = missing + 100 * clock
        for s in missing:
            held[int(s)] = s + 100 * clock
        assert len(set(store.slot_of[samples])) == len(samples)
        for s in list(held):
            if store.slot_of[s] < 0:
                assert s not in request, "a sample asked for was thrown out"
                del held[s]
            else:
                assert store.rows[store.slot_of[s], 0] == np.float32(held[s])
        assert len(held) <= capacity


@pytest.mark.parametrize("n_classes", [2, 3, 4, 9, 10, 33])
def test_tournament_has_every_pair_once_in_rounds_of_disjoint_pairs(n_classes):
    sequence = tournament(n_classes)
    assert sorted(sequence) == [(i, j) for i in range(n_classes) for j in range(i + 1, n_classes)]
    per_round = n_classes // 2
    for start in range(0, len(sequence), per_round):
        players = [c for pair in sequence[start : start + per_round] for c in pair]
        assert len(players) == len(set(players))


@given(
    st.lists(st.integers(1, 60_000), min_size=2, max_size=20),
    st.floats(1, 20_000),
    st.integers(1, 64),
)
def test_a_memory_plan_stays_within_its_budget_or_refuses(counts, budget_mb, n_threads):
    try:
        plan = plan_memory(counts, budget_mb, n_threads)
    except MemoryError as error:
        assert "are needed" in str(error)
        return
    own = sum(4 * rows * n for rows, n in zip(plan.own_rows, counts, strict=True))
    pair = 4 * plan.largest_set**2 + 2 * plan.cross_bytes
    largest = 4 * max(counts)
    slack = 8 * largest * plan.n_side_by_side + 2**12  # a row or two of rounding
    assert own + pair * plan.n_side_by_side <= budget_mb * 2**20 + slack + _least(counts, plan)
    assert all(rows >= min(n, plan.largest_set) for rows, n in zip(plan.own_rows, counts, strict=True))


def _least(counts, plan) -> int:
    """What the smallest problems take whatever the budget: two classes' rows of a few samples."""
    return 16 * plan.largest_set * (max(counts) + plan.largest_set) if plan.largest_set < 64 else 0


# -- the small problem ----------------------------------------------------------------------------


def optimum_by_libsvm(K, signs, C):
    from sklearn.svm import SVC

    svc = SVC(C=C, kernel="precomputed", tol=1e-9).fit(K, signs)
    beta = np.zeros(len(signs))
    beta[svc.support_] = svc.dual_coef_[0]
    return beta


def objective(K, signs, beta):
    return signs @ beta - beta @ K @ beta / 2


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
def test_smo_reaches_the_optimum(rng, C):
    X = rng.normal(size=(60, 5))
    signs = np.where(X[:, 0] + rng.normal(size=60) > 0, 1.0, -1.0)
    K = Kernel("rbf", gamma=0.2)(X, X).astype(np.float32)
    beta, v = np.zeros(60), signs.copy()
    lower, upper = np.minimum(0, C * signs), np.maximum(0, C * signs)
    diagonal = np.diagonal(K).astype(np.float64)
    steps = solve_working_set(K, diagonal, beta, v, lower, upper, 1e-6, 10**7, NONE, NONE)
    assert 0 < steps < 10**7
    exact = K.astype(np.float64)
    np.testing.assert_allclose(v, signs - exact @ beta, atol=1e-9 * max(1, C))
    assert abs(beta.sum()) < 1e-10 * max(1, C) and (beta >= lower).all() and (beta <= upper).all()
    best = optimum_by_libsvm(exact, signs, C)
    assert objective(exact, signs, beta) == pytest.approx(objective(exact, signs, best), rel=1e-6)


def test_smo_stops_at_its_last_step_and_at_an_optimum():
    K = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)
    beta, v = np.zeros(2), np.array([1.0, -1.0])
    args = (K, np.ones(2), beta, v, np.array([0.0, -10.0]), np.array([10.0, 0.0]))
    assert solve_working_set(*args, 1e-3, 0, NONE, NONE) == 0
    assert solve_working_set(*args, 1e-3, 10, NONE, NONE) == 1
    np.testing.assert_allclose(beta, [0.5, -0.5])
    assert solve_working_set(*args, 1e-3, 10, NONE, NONE) == 0


def test_smo_ends_where_rounding_allows_no_further_step(rng):
    X = rng.normal(size=(40, 3))
    signs = np.where(X[:, 0] > 0, 1.0, -1.0)
    K = Kernel("rbf", gamma=0.2)(X, X).astype(np.float32)
    beta, v = np.zeros(40), signs.copy()
    bounds = np.minimum(0, 10 * signs), np.maximum(0, 10 * signs)
    most = 10**7
    assert solve_working_set(K, np.diagonal(K).astype(np.float64), beta, v, *bounds, 0.0, most, NONE, NONE) < most
    assert np.isfinite(beta).all()


def test_smo_ends_on_kernel_values_that_are_not_numbers():
    K = np.full((4, 4), np.nan, np.float32)
    signs = np.array([1.0, 1.0, -1.0, -1.0])
    beta = np.zeros(4)
    bounds = np.minimum(0, signs), np.maximum(0, signs)
    assert solve_working_set(K, np.full(4, np.nan), beta, signs.copy(), *bounds, 1e-3, 1000, NONE, NONE) == 0
    np.testing.assert_array_equal(beta, 0)


@pytest.mark.parametrize("kind", ["any sign", "positive", "largest first", "mostly zeros"])
@pytest.mark.parametrize("d", [3, 54, 500, 784, 2000])
def test_no_kernel_value_is_further_off_than_value_error_says(d, kind, rng):
    """However its product is taken: in tiles up to 512 features, by BLAS beyond, in panels where
    most are zeros."""
    X = rng.normal(size=(40, d)) if kind == "any sign" else 1 + 0.1 * rng.normal(size=(40, d))
    if kind == "largest first":
        X /= np.arange(1, d + 1)
    if kind == "mostly zeros":
        X *= rng.random((40, d)) < 0.15
    X, rows = X.astype(np.float32), np.arange(40)
    exact, norm = X.astype(np.float64), float((X.astype(np.float64) ** 2).sum(axis=1).max())
    for kernel in (Kernel("rbf", 2 / norm), LINEAR, Kernel("poly", 1 / norm, 3, 1.0), Kernel("sigmoid", 1 / norm)):
        values = KernelOfBlocks(X, [rows], kernel)
        K = np.empty((40, 40), dtype=np.float32)
        values.values((0,), np.float32).extend(K, rows, 0, ParallelFor(), lambda: False)
        off, expected = np.abs(K - kernel(exact, exact)), values.value_error(np.float32)
        assert off.max() <= MOST_SPREAD * expected and np.sqrt(np.mean(off**2)) <= expected, kernel

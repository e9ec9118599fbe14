"""Products of sparse samples against their definition, and native-cpu on sparse samples against
itself on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from asking import asked
from scipy import sparse

from gpusvm import certify
from gpusvm.backends import get_backend
from gpusvm.kernels import Kernel
from gpusvm.solver import kernel_of_blocks, lists
from gpusvm.solver.kernel_rows import KernelRows, ParallelFor
from gpusvm.solver.kernel_values import ComputedValues
from gpusvm.solver.operands import IntegerOperand, PanelOperand, Samples
from gpusvm.solver.panels import integer_products_are_exact
from gpusvm.solver.sparse_samples import ListsOperand, SparseSamples, without_empty_features
from gpusvm.sparse import as_csr, same_rows

NATIVE = get_backend("native-cpu")
KERNELS = [
    Kernel("rbf", gamma=0.3),
    Kernel("linear"),
    Kernel("poly", gamma=0.3, degree=3, coef0=0.5),
    Kernel("sigmoid", gamma=0.3, coef0=-0.2),
]
LINEAR = KERNELS[1]


def zipf_rows(rng, n, d, n_draws, dtype=np.float64):
    """CSR (n, d) with features of which some are in most rows, and most in one or two."""
    rows, features = np.repeat(np.arange(n), n_draws), rng.zipf(1.3, n * n_draws) % d
    X = as_csr(sparse.coo_array((np.ones(n * n_draws), (rows, features)), shape=(n, d)))
    X.data[:] = rng.uniform(0.1, 1.0, X.nnz)
    return X.astype(dtype)


def random_rows(rng, n, d, density, dtype=np.float64):
    """CSR (n, d) with empty rows and columns."""
    X = rng.uniform(0.1, 1.0, (n, d)) * (rng.random((n, d)) < density)
    X[n // 3 : n // 3 + 2], X[:, d // 2] = 0, 0
    return as_csr(sparse.csr_array(X.astype(dtype)))


def whole_rows(rng, n, d, density, largest=255, scale=1.0):
    X = rng.integers(1, largest + 1, (n, d)) * (rng.random((n, d)) < density)
    return as_csr(sparse.csr_array((X / np.float32(scale)).astype(np.float32)))


# -- products -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "density"), [(1, 0.5), (2, 0.0), (37, 0.1), (500, 0.02), (40, 1.0)])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_lists_multiply(rng, dtype, d, density, n):
    X = random_rows(rng, 150, d, density, dtype)
    samples = SparseSamples(X)
    left, right = rng.permutation(150)[:23], rng.permutation(150)[:n]
    operand = ListsOperand(samples, right)
    products = operand.products(samples, left)
    found, exact = products.columns(0, n), (X[left] @ X[right].T).toarray()
    assert found.dtype == dtype
    np.testing.assert_allclose(found, exact, rtol=1e-5 if dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(operand.norms, X.toarray()[right].astype(np.float64).__pow__(2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(products.norms, X.toarray()[left].astype(np.float64).__pow__(2).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 63, 64, 511, 512, 513, 1200])
def test_lists_multiply_features_that_are_common_and_such_that_are_not(rng, dtype, n):
    X = zipf_rows(rng, 1300, 5000, 40, dtype)
    samples, left, right = SparseSamples(X), rng.permutation(1300)[:70], rng.permutation(1300)[:n]
    operand = ListsOperand(samples, right)
    exact = (X[left].astype(np.float64) @ X[right].astype(np.float64).T).toarray()
    rtol = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(operand.products(samples, left).columns(0, n), exact, rtol=rtol)
    counts = np.bincount(X[right[: lists.BLOCK]].indices)
    assert len(operand.block(0).common) == (counts >= lists.COMMON_FROM).sum()
    assert n < 64 or 0 < len(operand.block(0).common) < len(operand.block(0).features)


needs_integers = pytest.mark.skipif(
    not integer_products_are_exact(), reason="this processor has no AVX2: pixels are multiplied as float32"
)


@needs_integers
@pytest.mark.parametrize("kind", [IntegerOperand, ListsOperand])
@pytest.mark.parametrize("d", [1, 2, 37, 784])
def test_whole_numbers_multiply_exactly(rng, kind, d):
    X = whole_rows(rng, 150, d, 0.3, scale=255.0)
    samples = SparseSamples.of(X, LINEAR)
    pixels = np.rint(X.toarray() * 255).astype(np.int64)
    left, right = rng.permutation(150)[:23], rng.permutation(150)[:100]
    present = without_present(samples, right)
    operand = IntegerOperand(samples, right, present) if kind is IntegerOperand else ListsOperand(samples, right)
    products = operand.products(samples, left)
    np.testing.assert_array_equal(products.columns(0, 100), pixels[left] @ pixels[right].T)
    np.testing.assert_array_equal(products.norms, (pixels[left] ** 2).sum(axis=1))
    assert operand.unit == pytest.approx(1 / 255**2) and products.norms.dtype == np.int32


def without_present(samples, rows):
    present = np.zeros(samples.X.shape[1], dtype=np.bool_)
    present[samples.X[rows].indices] = True
    return present


@pytest.mark.parametrize("density", [0.1, 0.3])
@pytest.mark.parametrize("pixels", [False, True])
def test_panels_are_those_of_the_array_bit_for_bit(rng, density, pixels):
    X = whole_rows(rng, 150, 37, density) if pixels else random_rows(rng, 150, 37, density, np.float32)
    left, right = rng.permutation(150)[:23], rng.permutation(150)[:100]
    found, expected = SparseSamples.of(X, LINEAR), Samples.of(X.toarray(), LINEAR)
    operands = [samples.operand(right) for samples in (found, expected)]
    assert type(operands[0]) is type(operands[1])
    assert isinstance(operands[0], IntegerOperand if pixels and integer_products_are_exact() else PanelOperand)
    products = [operand.products(samples, left) for operand, samples in zip(operands, (found, expected), strict=True)]
    np.testing.assert_array_equal(products[0].columns(0, 100).copy(), products[1].columns(0, 100))
    np.testing.assert_array_equal(products[0].norms, products[1].norms)
    np.testing.assert_array_equal(operands[0].norms, operands[1].norms)


def test_the_operand_follows_the_data(rng):
    rows = np.arange(80)
    kinds = {
        ListsOperand: random_rows(rng, 80, 900, 0.01, np.float32),
        PanelOperand: random_rows(rng, 80, 40, 0.3, np.float32),
    }
    for kind, X in kinds.items():
        assert type(SparseSamples.of(X, LINEAR).operand(rows)) is kind
    assert type(SparseSamples(random_rows(rng, 80, 40, 0.3, np.float64)).operand(rows)) is ListsOperand
    with_many_features = random_rows(rng, 4, 20_000, 0.3, np.float32)
    assert type(SparseSamples.of(with_many_features, LINEAR).operand(np.arange(4))) is ListsOperand


@pytest.mark.parametrize("kind", ["not whole", "negative", "too large", "too long"])
def test_what_is_not_pixels_is_not_taken_for_them(rng, kind):
    X = whole_rows(rng, 20, 50, 0.3)
    if kind == "too long":
        X = as_csr(sparse.csr_array(np.ones((2, 17_000), np.float32)))
    else:
        X.data[3] = {"not whole": 1.5, "negative": -1, "too large": 256}[kind]
    assert SparseSamples.of(X, LINEAR).pixels is None


def test_any_part_of_a_product_has_the_same_bits(rng):
    samples = SparseSamples(zipf_rows(rng, 1300, 5000, 40, np.float32))
    left, right = np.arange(50), np.arange(50, 1300)
    whole = ListsOperand(samples, right).products(samples, left).columns(0, 1250).copy()
    operand = ListsOperand(samples, right)  # its blocks are not turned around yet
    np.testing.assert_array_equal(operand.products(samples, left[7:8]).columns(0, 1250), whole[7:8])
    for start, stop in ((1040, 1041), (32, 101), (496, 528), (512, 1024), (16, 1250)):
        np.testing.assert_array_equal(operand.products(samples, left).columns(start, stop), whole[:, start:stop])


def test_whole_numbers_in_lists_are_multiplied_exactly_where_features_are_common(rng):
    X = zipf_rows(rng, 700, 5000, 40)
    X.data[:] = rng.integers(1, 256, X.nnz)
    samples = SparseSamples(X.astype(np.float32), X.data.astype(np.uint8))
    products = ListsOperand(samples, np.arange(70, 700)).products(samples, np.arange(70)).columns(0, 630)
    assert products.dtype == np.int32
    np.testing.assert_array_equal(products, (X[:70] @ X[70:].T).toarray())


@pytest.mark.parametrize("n_features", [60, 10**6, 2**31 - 1])
def test_features_that_no_row_has_are_left_out(rng, n_features):
    X = random_rows(rng, 30, 60, 0.1)
    features = np.unique(X.indices)
    wide = sparse.csr_array((X.data, X.indices, X.indptr), shape=(30, n_features))
    assert same_rows(without_empty_features(wide), as_csr(X[:, features]))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("d", [30, 2000])
def test_kernel_values_are_their_definition(rng, kernel, d):
    X = random_rows(rng, 700, d, 0.1 if d == 30 else 0.01, np.float32)
    samples, rows = SparseSamples.of(X, kernel), rng.permutation(700)[:600]
    exact = kernel(X.astype(np.float64), X.astype(np.float64))
    K = np.empty((600, 608), dtype=np.float32)
    ComputedValues(kernel, samples, rows, np.float32).extend(K, np.arange(600), 0, ParallelFor(), lambda: False)
    np.testing.assert_allclose(K[:, :600], exact[np.ix_(rows, rows)], rtol=2e-6, atol=2e-6)
    into = np.empty((3, 650), dtype=np.float32)
    own, others = np.arange(50), np.arange(50, 700)
    KernelRows(kernel, samples, own, samples.operand(others)).compute(
        np.array([4, 0, 9]), into, np.array([2, 0, 1]), ParallelFor()
    )
    np.testing.assert_allclose(into[[2, 0, 1]], exact[np.ix_([4, 0, 9], others)], rtol=2e-6, atol=2e-6)


# -- training -------------------------------------------------------------------------------------


def labelled(rng, n, d, density, k=2):
    X = random_rows(rng, n, d, density)
    score = X @ rng.normal(size=d) + 0.05 * rng.normal(size=n)
    return X, np.digitize(score, np.quantile(score, np.arange(1, k) / k))


WAYS = {"tiny": 300, "at once": 900, "growing or active": 2500}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("d", "density"), [(60, 0.15), (4000, 0.01)])
def test_each_way_ends_where_it_does_on_the_array(rng, way, d, density):
    X, y = labelled(rng, WAYS[way], d, density)
    params = asked(Kernel("rbf", gamma=0.2), C=2.0)
    found, expected = (NATIVE.fit(rows, y, *params) for rows in (X, X.toarray()))
    certificates = [certify(model, X, y) for model in (found, expected)]
    assert certificates[0].max_kkt_gap <= 2e-3
    np.testing.assert_allclose(certificates[0].dual_objective, certificates[1].dual_objective, rtol=1e-4)
    np.testing.assert_allclose(found.dual_objective, certificates[0].dual_objective, rtol=1e-6)


def test_zeros_and_ones_are_trained_bit_for_bit_as_the_array(rng):
    X, y = labelled(rng, 2500, 60, 0.15)
    X.data[:] = 1.0
    params = asked(Kernel("rbf", gamma=0.05), C=1.0, cache_size=100)
    found, expected = (NATIVE.fit(rows, y, *params) for rows in (X, X.toarray()))
    np.testing.assert_array_equal(found.dual_coef, expected.dual_coef)
    np.testing.assert_array_equal(found.intercept, expected.intercept)


@pytest.mark.parametrize(("d", "density"), [(60, 0.15), (3000, 0.01)])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("cache_size", [100, 6])
def test_the_bits_do_not_depend_on_the_number_of_threads(rng, d, density, n_classes, cache_size):
    X, y = labelled(rng, 3000, d, density, n_classes)
    params = [asked(Kernel("rbf", gamma=0.5), C=1.0, n_jobs=jobs, cache_size=cache_size) for jobs in (1, 2, 5)]
    fits = [NATIVE.fit(X, y, *param) for param in params]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.dual_coef, fits[0].dual_coef)
        np.testing.assert_array_equal(other.intercept, fits[0].intercept)


@pytest.mark.parametrize("n", [300, 2000])
def test_what_float32_cannot_solve_goes_on_in_float64(rng, n):
    X, y = labelled(rng, n, 400, 0.05)
    X.data *= 1e16  # squares beyond float32
    model = NATIVE.fit(X, y, *asked(Kernel("linear"), C=1.0))
    assert model.provenance["pairs_in_float64"] == 1
    assert certify(model, X, y).max_kkt_gap <= 2e-3


def test_far_from_the_origin_products_are_taken_in_float64(rng):
    """A feature that all rows have: moved away from, it would be sparse no more."""
    X, y = labelled(rng, 1800, 400, 0.03)
    X = as_csr(sparse.hstack([np.full((1800, 1), 3e3) + rng.random((1800, 1)), X], format="csr"))
    model = NATIVE.fit(X, y, *asked(Kernel("rbf", gamma=0.2), C=2.0))
    expected = NATIVE.fit(X.toarray(), y, *asked(Kernel("rbf", gamma=0.2), C=2.0))
    assert certify(model, X.toarray(), y).max_kkt_gap <= 2e-3
    np.testing.assert_allclose(model.dual_objective, expected.dual_objective, rtol=1e-4)


def test_a_matrix_without_zeros_is_solved_as_the_array_that_it_is(rng, monkeypatch):
    X, y = rng.normal(size=(600, 8)), np.arange(600) % 2
    monkeypatch.setattr(kernel_of_blocks, "SparseSamples", None)
    found, expected = (
        NATIVE.fit(rows, y, *asked(Kernel("rbf", gamma=0.2))) for rows in (as_csr(sparse.csr_array(X)), X)
    )
    np.testing.assert_array_equal(found.dual_coef, expected.dual_coef)
    assert same_rows(found.support_vectors, X[found.support_indices]) and sparse.issparse(found.support_vectors)


def test_training_takes_memory_for_the_nonzeros_alone(rng, monkeypatch):
    """As an array the samples would be 16 GB, and their features alone 64 MB for each row that is
    packed."""
    n, d = 1000, 2**21
    columns = np.sort(rng.integers(0, d, (n, 20)), axis=1)
    X = as_csr(sparse.csr_array((rng.random(n * 20), columns.ravel(), np.arange(0, 20 * n + 1, 20)), shape=(n, d)))
    X = sparse.csr_array((X.data, X.indices % 2**19, X.indptr), shape=(n, d))
    monkeypatch.setattr(sparse.csr_array, "toarray", refuse_large(sparse.csr_array.toarray))
    y = (np.asarray(X.sum(axis=1)) > np.median(np.asarray(X.sum(axis=1)))).astype(int)
    model = NATIVE.fit(as_csr(X), y, *asked(Kernel("rbf", gamma=0.1)))
    assert certify(model, X, y).max_kkt_gap <= 2e-3
    assert model.predict(as_csr(X)).shape == (n,)


def refuse_large(toarray):
    def small_alone(X, *args, **kwargs):
        assert X.shape[0] * X.shape[1] <= 10**7, "made dense"
        return toarray(X, *args, **kwargs)

    return small_alone


def test_it_goes_on_from_its_own_model(rng):
    from gpusvm import SVC

    X, y = labelled(rng, 700, 300, 0.05)
    svc = SVC(C=10.0, tol=1e-4, backend="native-cpu", warm_start=True).fit(X, y)
    again = svc.fit(X.tocoo(), y)
    assert again.n_iter_[0] < 20


def test_a_checkpoint_of_sparse_samples_is_taken_up(rng, tmp_path):
    from gpusvm import SVC
    from gpusvm.errors import UsageError
    from gpusvm.io.checkpoint import Checkpoint

    X, y = labelled(rng, 300, 40, 0.1, k=3)
    first = SVC(backend="native-cpu").fit_with_progress(X, y, checkpoint=Checkpoint(tmp_path / "c"))
    second = SVC(backend="native-cpu").fit_with_progress(X.tocsc(), y, checkpoint=Checkpoint(tmp_path / "c"))
    np.testing.assert_array_equal(first.dual_coef_.toarray(), second.dual_coef_.toarray())
    other = X.copy()
    other.indices[0] = next(f for f in range(40) if f not in X.indices[X.indptr[0] : X.indptr[1]])
    with pytest.raises(UsageError, match="other data"):
        SVC(backend="native-cpu").fit_with_progress(as_csr(other), y, checkpoint=Checkpoint(tmp_path / "c"))

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.svm import SVC

from gpusvm.kernels import Kernel, largest_entry, largest_norm, resolve_gamma, squared_norms
from gpusvm.sparse import all_stored, as_csr, is_well_formed, same_rows, unpacked_if_smaller


def random_csr(rng, n, d, density=0.2, dtype=np.float64):
    """Some rows and columns are empty."""
    X = sparse.random(n, d, density, format="csr", random_state=rng, dtype=np.float64).toarray() - 0.3 * rng.random()
    X[X < 0] = 0
    X[: n // 5], X[:, : d // 4] = 0, 0
    return sparse.csr_array(X.astype(dtype))


def messy(csr):
    """The same values with columns in no order, one of them given in two parts, zeros stored, and
    64-bit indices."""
    rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    order = np.lexsort((np.random.default_rng(0).random(csr.nnz), rows))
    columns, values = csr.indices[order].astype(np.int64), csr.data[order]
    entry = csr.indptr[np.flatnonzero(np.diff(csr.indptr))[0]]
    indptr = csr.indptr.astype(np.int64) + 2 * (csr.indptr > entry)
    columns = np.insert(columns, entry, [columns[entry], csr.shape[1] - 1])
    values = np.insert(values, entry, [values[entry] / 2, 0])
    values[entry + 2] /= 2
    found = sparse.csr_array(csr.shape, dtype=csr.dtype)
    found.data, found.indices, found.indptr = values, columns, indptr
    return found


FORMATS = {
    "csr": lambda X: X,
    "messy": messy,
    "csc": lambda X: X.tocsc(),
    "coo": lambda X: X.tocoo(),
    "lil": lambda X: X.tolil(),
    "matrix": sparse.csr_matrix,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_format_is_brought_into_one_form(rng, kind, dtype):
    X = random_csr(rng, 30, 12, dtype=dtype)
    given = FORMATS[kind](X)
    before = given.copy()
    found = as_csr(given)
    assert same_rows(found, X) and found.indices.dtype == np.int32 and found.dtype == dtype
    assert is_well_formed(found.data, found.indices, found.indptr, 12) and found.data.all()
    np.testing.assert_array_equal(given.toarray(), before.toarray())
    if kind == "messy":
        np.testing.assert_array_equal(given.indices, before.indices)


def test_what_has_the_form_already_is_not_copied(rng):
    X = random_csr(rng, 30, 12)
    assert np.shares_memory(as_csr(X).data, X.data) and np.shares_memory(as_csr(X).indices, X.indices)


def test_scipys_flags_are_not_believed(rng):
    X = messy(random_csr(rng, 30, 12))
    X.has_sorted_indices = X.has_canonical_format = True
    np.testing.assert_allclose(as_csr(X).toarray(), random_csr(np.random.default_rng(20260101), 30, 12).toarray())


@pytest.mark.parametrize("shape", [(5, 1), (1, 7), (6, 4)])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_figures_of_a_matrix_are_those_of_its_array(rng, shape, density):
    X = np.where(rng.random(shape) < density, rng.normal(size=shape), 0)
    csr = as_csr(sparse.coo_array(X))
    np.testing.assert_allclose(squared_norms(csr), squared_norms(X))
    assert largest_norm(csr) == pytest.approx(largest_norm(X)) and resolve_gamma("auto", csr) == 1 / shape[1]
    assert resolve_gamma("scale", csr) == pytest.approx(resolve_gamma("scale", X))
    if density:
        assert largest_entry(csr) == largest_entry(X)


def test_gamma_scale_is_scikit_learns(rng):
    X, y = random_csr(rng, 40, 9), np.arange(40) % 2
    assert resolve_gamma("scale", as_csr(X)) == pytest.approx(SVC(gamma="scale").fit(X, y)._gamma)


@pytest.mark.parametrize("name", ["rbf", "linear", "poly", "sigmoid"])
@pytest.mark.parametrize("left", [np.asarray, as_csr])
@pytest.mark.parametrize("right", [np.asarray, as_csr])
def test_kernel_values_are_those_of_arrays(rng, name, left, right):
    X, Y = random_csr(rng, 12, 9).toarray(), random_csr(rng, 8, 9).toarray()
    kernel = Kernel(name, gamma=0.3, degree=3, coef0=0.5)
    found = kernel(*(make(sparse.csr_array(A)) if make is as_csr else A for make, A in ((left, X), (right, Y))))
    assert type(found) is np.ndarray and found.flags.c_contiguous
    np.testing.assert_allclose(found, kernel(X, Y), rtol=1e-12)


def test_features_that_nobody_has_cost_nothing(rng):
    X, Y = random_csr(rng, 12, 9), random_csr(rng, 8, 9)
    far = np.array([0, 3, 4, 5, 6, 7, 8, 9, 2**31 - 2])
    wide = [sparse.csr_array((A.data, far[A.indices], A.indptr), shape=(A.shape[0], 2**31 - 1)) for A in (X, Y)]
    kernel = Kernel("rbf", gamma=0.3)
    np.testing.assert_allclose(kernel(*wide), kernel(X.toarray(), Y.toarray()), rtol=1e-12)
    nothing = sparse.csr_array((3, 2**31 - 1), dtype=np.float64)
    np.testing.assert_array_equal(Kernel("linear")(wide[0], nothing), np.zeros((12, 3)))


def test_an_array_is_taken_only_where_it_is_smaller(rng):
    X = random_csr(rng, 30, 12, density=0.1)
    assert unpacked_if_smaller(X) is X
    full = as_csr(sparse.csr_array(rng.random((30, 12)) + 1))
    assert type(unpacked_if_smaller(full)) is np.ndarray
    wide = sparse.csr_array((10**6, 10**9), dtype=np.float32)
    assert unpacked_if_smaller(wide) is wide


def test_zeros_can_be_stored():
    values = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    found = all_stored(values)
    assert found.nnz == 6
    np.testing.assert_array_equal(found.toarray(), values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"indices": [0, 5, 1]}, {"indices": [0, -1, 1]}, {"indices": [2, 1, 1]}, {"indices": [1, 1, 1]},
        {"indptr": [0, 2]}, {"indptr": [1, 2, 3]}, {"indptr": [0, 4, 3]}, {"indptr": []}, {"indptr": [0, -1, 3]},
        {"indices": [0, 1]},
    ],
)  # fmt: skip
def test_arrays_that_are_no_rows_are_found_out(wrong):
    right = {"data": np.ones(3), "indices": np.array([0, 2, 1]), "indptr": np.array([0, 2, 3])}
    assert is_well_formed(**right, n_features=3)
    changed = right | {name: np.array(values, dtype=np.int64) for name, values in wrong.items()}
    assert not is_well_formed(**changed, n_features=3)

"""What every backend that takes sparse samples promises of them, in training and in prediction."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.svm
from asking import asked
from scipy import sparse

from gpusvm import SVC, SVR, OneClassSVM, UsageError, certify, load_model
from gpusvm.backends import backend_names, get_backend
from gpusvm.backends.registry import GPU_BACKENDS
from gpusvm.kernels import Kernel
from gpusvm.sparse import as_csr, is_sparse, same_rows

KERNELS = {
    "rbf": {"kernel": "rbf", "gamma": 0.3},
    "linear": {"kernel": "linear"},
    "poly": {"kernel": "poly", "gamma": 0.2, "degree": 3, "coef0": 1.0},
    "sigmoid": {"kernel": "sigmoid", "gamma": 0.02, "coef0": -0.1},
}
TAKING = [name for name in backend_names() if get_backend(name).takes_sparse]
# Two solvers that stop at the same tolerance end within a small multiple of it of each other.
TOL, AGREEMENT = 1e-5, 1e-3


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.gpu] if n in GPU_BACKENDS else []) for n in TAKING])
def name(request):
    found = get_backend(request.param).probe()
    if not found.ok:
        pytest.skip(found.reason)
    return request.param


def problem(rng, n=150, d=30, density=0.15, k=2, dtype=np.float64):
    """X (n, d) as CSR with empty rows and columns, and labels that its features decide, mostly."""
    X = sparse.random_array((n, d), density=density, format="csr", rng=rng).toarray()
    X[: n // 20], X[:, : d // 5] = 0, 0
    score = X @ rng.normal(size=d) + 0.1 * rng.normal(size=n)
    y = np.digitize(score, np.quantile(score, np.arange(1, k) / k))
    return as_csr(sparse.csr_array(X.astype(dtype))), y


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("k", [2, 4])
def test_trains_the_machine_that_libsvm_trains_on_the_array(name, rng, kernel, k):
    X, y = problem(rng, k=k)
    X_test, _ = problem(rng)
    options = {"C": 5.0, "tol": TOL, "decision_function_shape": "ovo", **KERNELS[kernel]}
    ours = SVC(backend=name, **options).fit(X, y)
    theirs = sklearn.svm.SVC(**options).fit(X.toarray(), y)
    for rows in (X_test, X_test.toarray()):
        np.testing.assert_allclose(
            ours.decision_function(rows), theirs.decision_function(X_test.toarray()), atol=AGREEMENT
        )
    assert certify(ours.model_, X, y).max_kkt_gap <= 2 * TOL
    np.testing.assert_allclose(
        certify(ours.model_, X, y).dual_objective, certify(ours.model_, X.toarray(), y).dual_objective, rtol=1e-9
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_support_vectors_are_rows_of_x_in_its_precision(name, rng, dtype):
    X, y = problem(rng, k=3, dtype=dtype)
    model = get_backend(name).fit(X, y, *asked(Kernel("rbf", gamma=0.3), C=5.0))
    assert is_sparse(model.support_vectors) and model.support_vectors.dtype == dtype
    assert same_rows(model.support_vectors, X[model.support_indices])
    assert model.n_features == 30 and model.provenance["n_train"] == 150


@pytest.mark.parametrize(
    "make", [sparse.csr_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_matrix, sparse.lil_array]
)
def test_every_format_of_scipy_gives_the_same_bits(name, rng, make):
    X, y = problem(rng)
    expected = SVC(backend=name).fit(X, y)
    found = SVC(backend=name).fit(make(X), y)
    np.testing.assert_array_equal(found.dual_coef_.toarray(), expected.dual_coef_.toarray())
    np.testing.assert_array_equal(found.predict(make(X)), expected.predict(X))
    np.testing.assert_array_equal(found.decision_function(make(X)), expected.decision_function(X))
    assert found.score(make(X), y) == expected.score(X, y) > 0.8


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_array])
@pytest.mark.parametrize("estimator", [SVC, SVR, OneClassSVM])
def test_indices_of_64_bits_are_as_good_as_those_of_32(name, rng, tmp_path, estimator, make):
    """scikit-learn refuses them; SciPy makes them of coordinates that are int64."""
    X, y = problem(rng)
    coordinates = sparse.coo_array(X)
    rows, columns = (part.astype(np.int64) for part in coordinates.coords)
    wide = make(sparse.coo_array((coordinates.data, (rows, columns)), shape=X.shape))
    if wide.format != "coo":
        wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    if estimator is OneClassSVM and "one_class" not in get_backend(name).tasks:
        with pytest.raises(UsageError, match=f"backend {name} does not train"):
            estimator(backend=name).fit(wide)
        return
    weights = rng.uniform(0.5, 2, len(y))
    expected = estimator(backend=name, gamma=0.3).fit(X, y, sample_weight=weights)
    found = estimator(backend=name, gamma=0.3).fit(wide, y, sample_weight=weights)
    found.save(tmp_path / "m.svm")
    loaded = estimator.load(tmp_path / "m.svm")
    for each in (found, loaded):
        np.testing.assert_array_equal(each.dual_coef_.toarray(), expected.dual_coef_.toarray())
        np.testing.assert_array_equal(each.predict(wide), expected.predict(X))
        assert each.support_vectors_.indices.dtype == np.int32
    objective = certify(found.model_, wide, y, sample_weight=weights).dual_objective
    np.testing.assert_array_equal(objective, certify(expected.model_, X, y, sample_weight=weights).dual_objective)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.int64])
def test_whole_numbers_and_booleans(name, rng, dtype):
    X, y = problem(rng)
    counts = (3 * X).astype(np.int64)
    counts.data[:] = np.maximum(counts.data, 1)
    svc = SVC(backend=name, gamma=0.1).fit(as_csr(counts).astype(dtype), y)
    dense = SVC(backend=name, gamma=0.1).fit(counts.toarray().astype(dtype), y)
    assert svc.support_vectors_.dtype == dense.support_vectors_.dtype
    np.testing.assert_allclose(svc.decision_function(X), dense.decision_function(X.toarray()), atol=5e-3)


def test_weights_and_a_class_without_any(name, rng):
    X, y = problem(rng, k=3)
    weights = np.where(y == 1, 0.0, rng.uniform(0.5, 2.0, len(y)))
    options = {"C": 2.0, "gamma": 0.3, "tol": TOL, "class_weight": {0: 2.0}}
    sparse_one = SVC(backend=name, **options).fit(X, y, sample_weight=weights)
    dense_one = SVC(backend=name, **options).fit(X.toarray(), y, sample_weight=weights)
    expected = dense_one.decision_function(X.toarray())
    np.testing.assert_allclose(sparse_one.decision_function(X), expected, atol=AGREEMENT)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "X", [np.zeros((12, 5)), np.arange(12.0)[:, None] % 3, np.eye(12)], ids=["zero", "column", "eye"]
)
def test_matrices_at_the_edge(name, kernel, X):
    y = np.arange(12) % 2
    options = {"C": 1.0, "tol": TOL, **KERNELS[kernel]}
    found = SVC(backend=name, **options).fit(sparse.csr_array(X), y)
    expected = sklearn.svm.SVC(**options).fit(X, y)
    for rows in (sparse.csr_array(X), X):
        np.testing.assert_allclose(found.decision_function(rows), expected.decision_function(X), atol=AGREEMENT)


def test_attributes_are_those_of_scikit_learns_sparse_machine(name, rng):
    X, y = problem(rng, k=3)
    ours = SVC(kernel="linear", backend=name, tol=TOL).fit(X, y)
    theirs = sklearn.svm.SVC(kernel="linear", tol=TOL).fit(X.copy(), y)
    for attribute in ("support_vectors_", "dual_coef_", "coef_"):
        found, expected = getattr(ours, attribute), getattr(theirs, attribute)
        assert type(found) is type(expected) and found.shape == expected.shape, attribute
    assert ours.dual_coef_.nnz == theirs.dual_coef_.nnz or name != "sklearn"
    np.testing.assert_allclose(ours.coef_.toarray(), theirs.coef_.toarray(), atol=AGREEMENT)


def test_saved_and_loaded_it_decides_alike(name, rng, tmp_path):
    X, y = problem(rng, k=3, dtype=np.float32)
    svc = SVC(backend=name).fit(X, y)
    svc.save(tmp_path / "m.svm")
    again = load_model(tmp_path / "m.svm")
    assert same_rows(again.support_vectors, svc.model_.support_vectors)
    assert again.support_vectors.indices.dtype == np.int32
    np.testing.assert_allclose(again.pair_decisions(X), svc.model_.pair_decisions(X), rtol=0, atol=1e-13)


def test_the_callers_matrix_stays_as_it_is(name, rng):
    X, y = problem(rng)
    given = sparse.csr_matrix(X)
    given.indices, given.data = given.indices[::-1].copy(), given.data[::-1].copy()
    given.indices = np.sort(given.indices)[::-1].copy()  # in no form that anybody asks for
    before = given.indices.copy(), given.data.copy(), given.dtype
    SVC(backend=name, C=0.1).fit(given, y).predict(given)
    np.testing.assert_array_equal(given.indices, before[0])
    np.testing.assert_array_equal(given.data, before[1])


def test_sparse_kernel_values_are_refused_in_the_words_of_scikit_learn(name):
    svc = SVC(kernel="precomputed", backend=name)
    with pytest.raises(TypeError, match=r"^Sparse precomputed kernels are not supported\.$"):
        svc.fit(sparse.eye_array(4, format="csr"), [0, 1, 0, 1])
    fitted = svc.fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="cannot use sparse input in 'SVC' trained on dense data"):
        fitted.predict(sparse.eye_array(4, format="csr"))
    with pytest.raises(TypeError, match="Sparse precomputed"):
        fitted.model_.predict(sparse.eye_array(4, format="csr"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_value_errors(name, rng, bad):
    X, y = problem(rng)
    X.data[3] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        SVC(backend=name).fit(X, y)


def test_a_backend_that_takes_none_names_those_that_do(monkeypatch, rng):
    X, y = problem(rng)
    refused = [name for name in backend_names() if name not in TAKING]
    for name in refused:
        monkeypatch.setattr(type(get_backend(name)), "probe", type(get_backend("sklearn")).probe)
        with pytest.raises(
            UsageError, match=rf"{name} takes no sparse X; cuml, native-cuda, native-cpu and sklearn do"
        ):
            SVC(backend=name).fit(X, y)
        assert not SVC(backend=name).__sklearn_tags__().input_tags.sparse
    assert all(SVC(backend=name).__sklearn_tags__().input_tags.sparse for name in TAKING)

"""Samples in compressed sparse rows (CSR): recognised, brought into one form, and compared.

They are made dense only where that takes little memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

Sparse = Any
"""What sparse samples are inside gpusvm: a `scipy.sparse.csr_array` with column indices ascending
and none twice in a row, and no zero stored; indices are int32 unless there are 2^31 non-zeros."""


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix or array of SciPy, in whatever format."""
    return sparse.issparse(X)


def as_csr(X: Any, dtype: Any = None) -> Sparse:
    """X (n, n_features) in the form described at `Sparse`; X itself stays as it is.

    X is in any of SciPy's sparse formats. Its values keep their type, or are converted to `dtype`.
    Memory is shared with X where X has that form already. Raises ValueError where its indices
    point outside: see `require_indices_inside`.
    """
    require_indices_inside(X)
    csr = sparse.csr_array(X, dtype=dtype)
    if csr.indices.dtype != np.int32 and max(csr.nnz, *csr.shape) < 2**31:
        narrow = csr.indices.astype(np.int32), csr.indptr.astype(np.int32)
        csr = sparse.csr_array((csr.data, *narrow), shape=csr.shape)
    if csr.nnz and not (_is_canonical(csr) and csr.data.all()):
        csr = csr.copy()
        csr.sum_duplicates()  # it sorts too
        csr.eliminate_zeros()
    return csr


def require_indices_inside(X: Any) -> None:
    """Raise ValueError where indices of X point outside: compiled code would write there.

    X is in any of SciPy's formats. SciPy itself looks when it makes a matrix, and not at what is
    written into its arrays afterwards.
    """
    if not is_sparse(X) or X.format not in ("csr", "csc", "bsr", "coo"):
        return
    if X.format == "coo":
        inside = all(_below(indices, bound) for indices, bound in zip(X.coords, X.shape, strict=True))
    else:
        bound = {"csr": X.shape[-1], "csc": X.shape[0], "bsr": X.shape[-1] // getattr(X, "blocksize", (1, 1))[1]}
        ends = X.indptr
        inside = _below(X.indices, bound[X.format]) and ends[0] == 0 and ends[-1] <= len(X.indices)
        inside = inside and bool((ends[1:] >= ends[:-1]).all())
    if not inside:
        raise ValueError(
            f"the sparse X is damaged: its indices point outside its shape {X.shape}; make it anew from its entries"
        )


def _below(indices: np.ndarray, bound: int) -> bool:
    return not len(indices) or bool(0 <= indices.min() <= indices.max() < bound)


def _is_canonical(csr: Sparse) -> bool:
    """Whether columns ascend within each row.

    SciPy's flags do not tell: they are asserted by whoever made the array.
    """
    ascends = np.diff(csr.indices) > 0
    starts = csr.indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < csr.nnz)] - 1] = True  # from one row to the next
    return bool(ascends.all())


def is_well_formed(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_features: int) -> bool:
    """Whether these arrays, of whatever origin, are rows in the form described at `Sparse`."""
    if not (len(indptr) and indptr[0] == 0 and indptr[-1] == len(data) == len(indices)):
        return False
    if (np.diff(indptr) < 0).any() or (len(indices) and not 0 <= indices.min() <= indices.max() < n_features):
        return False
    rows = sparse.csr_array((len(indptr) - 1, n_features), dtype=data.dtype)
    rows.data, rows.indices, rows.indptr = data, indices, indptr
    return _is_canonical(rows)


def unpacked_if_smaller(X: Any, allowed: int = 0) -> Any:
    """X (n, n_features) as an array where an array takes no more memory than CSR.

    That is where most entries are not zero. X is also made an array where that takes no more than
    the bytes `allowed`.
    """
    if not is_sparse(X):
        return X
    stored = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    return X.toarray() if X.shape[0] * X.shape[1] * X.dtype.itemsize <= max(stored, allowed) else X


def widened(X: Any, n_features: int) -> Any:
    """X (n, fewer), an array or CSR, with columns of zeros up to `n_features`."""
    if is_sparse(X):
        return sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], n_features))
    return np.hstack([X, np.zeros((len(X), n_features - X.shape[1]), dtype=X.dtype)])


def dense(X: Any) -> np.ndarray:
    """X as an array, wherever zeros are stored or not: for what is known to be small."""
    return X.toarray() if is_sparse(X) else np.asarray(X)


def all_stored(values: np.ndarray) -> Sparse:
    """An array (n, m) as CSR in which zeros are stored too.

    That is the form of scikit-learn's sparse dual coefficients.
    """
    n, m = values.shape
    indptr = m * np.arange(n + 1, dtype=np.int32)
    return sparse.csr_array((values.ravel(), np.tile(np.arange(m, dtype=np.int32), n), indptr), shape=values.shape)


def nonzeros_of_row(X: Any, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The features, ascending, that are not zero in row r of X, array or CSR; and their values."""
    if is_sparse(X):
        own = slice(X.indptr[r], X.indptr[r + 1])
        return X.indices[own], X.data[own]
    present = np.flatnonzero(X[r])
    return present, X[r, present]


def same_rows(A: Any, B: Any) -> bool:
    """Whether two arrays (n, n_features), each dense or CSR, hold the same values."""
    if A.shape != B.shape:
        return False
    if not is_sparse(A) and not is_sparse(B):
        return bool(np.array_equal(A, B))
    A, B = as_csr(A), as_csr(B)
    return all(np.array_equal(getattr(A, part), getattr(B, part)) for part in ("indptr", "indices", "data"))


def most_entries(X: Any) -> int:
    """The most entries that a row of X (n, d) has: all features where X is not sparse."""
    return int(np.diff(X.indptr).max(initial=0)) if is_sparse(X) else int(X.shape[1])


def squared_norms(X: Sparse) -> np.ndarray:
    """The squared Euclidean norm of each row of X (n, n_features), as (n,) in X's dtype."""
    norms = np.zeros(X.shape[0], dtype=X.dtype)
    filled = np.flatnonzero(np.diff(X.indptr))
    if len(filled):
        norms[filled] = np.add.reduceat(X.data * X.data, X.indptr[filled])
    return norms


def rows_times(X: Any, factors: Any) -> Any:
    """X (n, n_features), an array or CSR, with each row multiplied by its factor, of (n,)."""
    if not is_sparse(X):
        return X * factors[:, None]
    data = X.data * np.repeat(factors, np.diff(X.indptr))
    return sparse.csr_array((data, X.indices, X.indptr), shape=X.shape)


def variance(X: Sparse) -> float:
    """The variance over all entries of X (n, n_features), its zeros included, in float64."""
    n = float(X.shape[0]) * X.shape[1]
    mean = X.data.sum(dtype=np.float64) / n
    off = X.data.astype(np.float64) - mean
    return float((off @ off + (n - X.nnz) * mean * mean) / n)


def inner_products(X: Any, Y: Any) -> np.ndarray:
    """Inner products (n, m) between rows of X (n, n_features) and of Y (m, n_features).

    At least one of the two is CSR.
    """
    if is_sparse(X) and is_sparse(Y) and X.shape[1] > X.nnz + Y.nnz:
        X, Y = _narrowed(X, Y)  # SciPy would go through all features, and take memory for each
    found = X @ Y.T
    return found.toarray() if is_sparse(found) else np.ascontiguousarray(found)


def _narrowed(X: Sparse, Y: Sparse) -> tuple[Sparse, Sparse]:
    """The same with the features that some row of Y has, and no others."""
    features, columns = np.unique(Y.indices, return_inverse=True)
    narrow_Y = sparse.csr_array((Y.data, columns.ravel(), Y.indptr), shape=(Y.shape[0], len(features)))
    return restricted(X, features), narrow_Y


def restricted(X: Sparse, features: np.ndarray) -> Sparse:
    """X (n, n_features) with these `features` (k,), ascending, and no others: (n, k)."""
    places = np.searchsorted(features, X.indices)
    known = np.append(features, -1)[places] == X.indices
    indptr = np.concatenate([[0], np.cumsum(known)])[X.indptr]
    return sparse.csr_array((X.data[known], places[known], indptr), shape=(X.shape[0], len(features)))

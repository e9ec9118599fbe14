"""Recomputing, from the training data and in float64, how far a model is from the optimum it claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpusvm.errors import DataError
from gpusvm.kernels import Array, Kernel, array_module, near_the_origin, squared_norms
from gpusvm.model import SVMModel
from gpusvm.sparse import as_csr, is_sparse, same_rows, unpacked_if_smaller

ACCEPTED = 2.0
"""A gap recomputed in float64 is accepted up to so many times the tolerance: what a solver saw of it was rounded."""

_BLOCK_VALUES = 2**22
"""Kernel values at hand at once while a gap is recomputed: 32 MB."""

_BOUND_TOLERANCE = 1e-6
"""A coefficient within this fraction of its upper bound counts as at the bound: float32 keeps C no closer."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was found for each class pair; see `certify` for the definitions. All (n_pairs,) float64."""

    kkt_gap: np.ndarray
    dual_objective: np.ndarray
    primal_objective: np.ndarray
    box_violation: np.ndarray
    equality_violation: np.ndarray

    @property
    def max_kkt_gap(self) -> float:
        return float(self.kkt_gap.max())

    @property
    def total_dual_objective(self) -> float:
        """Sum over the pairs: one number by which two solvers of the same problem compare."""
        return float(self.dual_objective.sum())

    @property
    def relative_duality_gap(self) -> float:
        """(primal - dual) / primal of the worst pair: how far from optimal the objective can be at most."""
        scale = np.maximum(np.abs(self.primal_objective), np.finfo(float).tiny)
        finite = np.isfinite(scale)
        gaps = np.where(finite, self.primal_objective - self.dual_objective, 1.0) / np.where(finite, scale, 1.0)
        return float(gaps.max())

    def summary(self) -> dict[str, float]:
        """The figures that go into a row of a table."""
        return {
            "kkt_gap": self.max_kkt_gap,
            "dual_objective": self.total_dual_objective,
            "relative_duality_gap": self.relative_duality_gap,
            "box_violation": float(self.box_violation.max()),
            "equality_violation": float(self.equality_violation.max()),
        }


def certify(model: SVMModel, X: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray | None = None) -> Certificate:
    """Recompute each pair's KKT violation and objectives from the training data, in float64.

    For a pair with labels y = +1 (its first class) and -1, coefficients alpha, upper bounds
    C_k = C class_weight sample_weight and gradient G_k = y_k sum_l alpha_l y_l k(x_k, x_l) - 1:

    - ``kkt_gap`` is m(alpha) - M(alpha), the largest KKT violation: the maximum of -y_k G_k over
      samples that may move up, less its minimum over those that may move down; LIBSVM stops
      where it falls to ``tol`` [1]_.
    - ``dual_objective`` is sum(alpha) - 1/2 alpha' Q alpha, which training maximises.
    - ``primal_objective`` is 1/2 ||w||^2 + sum C_k max(0, 1 - y_k f(x_k)); no smaller than the dual
      one, and equal to it at the optimum. Where C is infinite (a hard margin), f is first multiplied so
      that no sample is within the margin; the objective is infinite where one is on the wrong side.
    - ``box_violation`` and ``equality_violation`` are max(alpha_k - C_k, -alpha_k, 0) and
      abs(sum y_k alpha_k), each divided by the largest C_k, or alpha_k where that is infinite: zero but for rounding.

    Parameters
    ----------
    model : SVMModel
    X : (n, n_features) array, or sparse matrix of SciPy
        The training data after preprocessing, in the order given to fit.
    y : (n,) array of labels
    sample_weight : (n,) array, optional
        As given to fit.

    Raises
    ------
    DataError
        X or y is not what the model was trained on.

    References
    ----------
    .. [1] R.-E. Fan, P.-H. Chen, C.-J. Lin, "Working set selection using second order information
       for training support vector machines", JMLR 6 (2005), equations 6 to 9.
    """
    y = np.asarray(y)
    X = as_csr(X) if is_sparse(X) else X
    _check_same_data(model, X, y)
    outputs = model.pair_decisions(X, dtype=np.float64)
    if array_module(outputs) is not np:
        outputs = outputs.get()
    bounds = _upper_bounds(model, y, sample_weight)
    coefficients = SignedCoefficients(model, len(y))
    members = [np.flatnonzero(y == label) for label in model.classes]
    found = [
        _certify_pair(
            signed=coefficients.of_pair(i, j)[rows],
            outputs=outputs[rows, p] - model.intercept[p],
            bounds=bounds[rows],
            signs=np.repeat([1.0, -1.0], [len(members[i]), len(members[j])]),
            intercept=model.intercept[p],
        )
        for p, (i, j) in enumerate(model.pairs)
        for rows in [np.concatenate([members[i], members[j]])]
    ]
    return Certificate(*(np.array(column) for column in zip(*found, strict=True)))


def _certify_pair(
    signed: np.ndarray, outputs: np.ndarray, bounds: np.ndarray, signs: np.ndarray, intercept: float
) -> tuple[float, float, float, float, float]:
    """The five figures of `Certificate` for one pair; `signed` is y alpha, `outputs` f without intercept."""
    alive = bounds > 0
    if not alive.any():  # of two classes left out of training there is nothing to say
        return (0.0, 0.0, 0.0, 0.0, 0.0)
    signed, outputs, bounds, signs = signed[alive], outputs[alive], bounds[alive], signs[alive]
    alpha = signed * signs
    scale = bounds.max() if np.isfinite(bounds.max()) else max(alpha.max(), np.finfo(float).tiny)
    gap = _gap(signed, signs - outputs, bounds, signs)
    with np.errstate(over="ignore", invalid="ignore"):  # of a hard margin that does not exist
        squared_norm = float(signed @ outputs)
    return (
        float(gap),
        float(alpha.sum() - squared_norm / 2),
        _primal_objective(squared_norm, signs * (outputs + intercept), bounds),
        float(max((alpha - bounds).max(), (-alpha).max(), 0.0) / scale),
        float(abs(signed.sum()) / scale),
    )


def _primal_objective(squared_norm: float, margins: np.ndarray, bounds: np.ndarray) -> float:
    """1/2 ||w||^2 + sum C_k max(0, 1 - m_k) of a machine with ||w||^2, its margins m_k and C_k (n,); see `certify`."""
    hard = np.isinf(bounds)
    if hard.any():
        least = float(margins[hard].min())
        if least <= 0:
            return float("inf")
        factor = max(1.0, 1.0 / least)
        squared_norm, margins = factor**2 * squared_norm, factor * margins
    hinge = np.maximum(0.0, 1.0 - margins[~hard])
    return float(squared_norm / 2 + bounds[~hard] @ hinge)


def _gap(signed: np.ndarray, violation: np.ndarray, bounds: np.ndarray, signs: np.ndarray) -> float:
    """m(alpha) - M(alpha) from y alpha, -y_k G_k, the upper bounds and y, all (n,) float64."""
    alpha = signed * signs
    below, above = alpha < bounds * (1 - _BOUND_TOLERANCE), alpha > 0
    up = np.where(signs > 0, below, above)
    down = np.where(signs > 0, above, below)
    return float(violation[up].max() - violation[down].min()) if up.any() and down.any() else 0.0


def pair_gap(
    kernel: Kernel, X: Array, n_first: int, bounds: np.ndarray, support: np.ndarray, dual_coef: np.ndarray
) -> float:
    """The largest KKT violation of one class pair, recomputed from float64 kernel values; see `certify`.

    Parameters
    ----------
    kernel : Kernel
    X : (n, n_features) array, NumPy, CuPy or CSR
        The samples of the pair, its first class first; (n, n) values of a precomputed kernel.
    n_first : int
        Samples of the first class.
    bounds : (n,) float64 array
        The upper bound of each sample's alpha, above zero.
    support : (k,) int64 array
        Rows of X that are support vectors.
    dual_coef : (k,) float64 array
        y alpha, positive for the first class.
    """
    X = unpacked_if_smaller(X)
    xp, n = array_module(X), X.shape[0]
    signs = np.where(np.arange(n) < n_first, 1.0, -1.0)
    signed = np.zeros(n)
    signed[support] = dual_coef
    rows, coefficients = xp.asarray(support), xp.asarray(dual_coef)
    outputs = xp.zeros(n)
    if not kernel.precomputed:
        X = near_the_origin(X.astype(np.float64, copy=False), kernel)
        vectors = X[rows]
        norms = squared_norms(vectors) if kernel.uses_norms else None
    step = max(16, _BLOCK_VALUES // max(1, len(support)))
    for start in range(0, n if len(support) else 0, step):
        part = X[start : start + step]
        values = part[:, rows].astype(np.float64) if kernel.precomputed else kernel(part, vectors, Y_norms=norms)
        outputs[start : start + step] = values @ coefficients
    on_host = outputs if xp is np else outputs.get()
    return _gap(signed, signs - on_host, bounds, signs)


class SignedCoefficients:
    """y alpha of each training sample, pair by pair, from a model's compact layout."""

    def __init__(self, model: SVMModel, n: int) -> None:
        self.model, self.n = model, n
        self.slices = list(model.class_slices())

    def of_pair(self, i: int, j: int) -> np.ndarray:
        values = np.zeros(self.n)
        for own, other in ((i, j - 1), (j, i)):
            columns = self.slices[own]
            values[self.model.support_indices[columns]] = self.model.dual_coef[other, columns]
        return values


def _upper_bounds(model: SVMModel, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    factors = np.ones(len(y))
    if model.problem.class_weight is not None:
        factors *= np.asarray(model.problem.class_weight)[np.searchsorted(model.classes, y)]
    if sample_weight is not None:
        factors *= np.asarray(sample_weight, dtype=np.float64)
    taking_part = factors > 0  # an infinite C would make NaN of a weight of zero
    return np.where(taking_part, model.problem.C * np.where(taking_part, factors, 1.0), 0.0)


def _check_same_data(model: SVMModel, X: Any, y: np.ndarray) -> None:
    n_trained = model.provenance.get("n_train", len(y))
    if X.shape[0] != len(y) or len(y) != n_trained or not np.isin(y, model.classes).all():
        raise DataError(
            f"a certificate needs the training data itself: got {X.shape[0]} rows and {len(y)} labels, "
            f"the model was trained on {n_trained} rows of {model.n_classes} classes"
        )
    owners = np.repeat(model.classes, model.n_support)
    if (model.support_indices >= len(y)).any() or not np.array_equal(y[model.support_indices], owners):
        raise DataError("a certificate needs the training data itself, in the order given to fit")
    if not model.kernel.precomputed and model.n_support_vectors:
        rows = X[model.support_indices]
        rows = rows if isinstance(rows, np.ndarray) or is_sparse(rows) else rows.get()
        if not same_rows(rows.astype(model.support_vectors.dtype), model.support_vectors):
            raise DataError("a certificate needs the training data itself: its rows differ from the model's")

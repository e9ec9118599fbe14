"""How far a model is from the optimum it claims, recomputed from the training data in float64."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpusvm.errors import DataError, UsageError
from gpusvm.kernels import Array, Kernel, array_module, near_the_origin, squared_norms
from gpusvm.model import SVMModel, describe_pair
from gpusvm.problem import QP, c_svc, from_support, single_function
from gpusvm.sparse import as_csr, is_sparse, same_rows, unpacked_if_smaller

ACCEPTED = 2.0
"""A gap recomputed in float64 is accepted up to so many times the tolerance: what a solver saw of
it was rounded."""

_BLOCK_VALUES = 2**22
"""Kernel values at hand at once while a gap is recomputed: 32 MB."""

_BOUND_TOLERANCE = 1e-6
"""A coefficient within this fraction of its upper bound counts as at the bound: float32 keeps C no
closer."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was found for each class pair, or for the single function; see `certify`.

    Attributes
    ----------
    kkt_gap, dual_objective, primal_objective : (n_pairs,) float64 arrays
        As `certify` defines them.
    box_violation, equality_violation : (n_pairs,) float64 arrays
        Likewise.
    """

    kkt_gap: np.ndarray
    dual_objective: np.ndarray
    primal_objective: np.ndarray
    box_violation: np.ndarray
    equality_violation: np.ndarray

    @property
    def max_kkt_gap(self) -> float:
        """The largest violation of all pairs: at most `tol` where training did what was asked."""
        return float(self.kkt_gap.max())

    @property
    def total_dual_objective(self) -> float:
        """Sum over the pairs: one number by which two solvers of the same problem compare."""
        return float(self.dual_objective.sum())

    @property
    def relative_duality_gap(self) -> float:
        """(primal - dual) / primal of the worst pair.

        That is how far from optimal the objective can be at most.
        """
        scale = np.maximum(np.abs(self.primal_objective), np.finfo(float).tiny)
        finite = np.isfinite(scale)
        gaps = np.where(finite, self.primal_objective - self.dual_objective, 1.0) / np.where(finite, scale, 1.0)
        return float(gaps.max())

    def summary(self) -> dict[str, float]:
        """The figures that go into a row of a table.

        Returns
        -------
        dict of str to float
        """
        return {
            "kkt_gap": self.max_kkt_gap,
            "dual_objective": self.total_dual_objective,
            "relative_duality_gap": self.relative_duality_gap,
            "box_violation": float(self.box_violation.max()),
            "equality_violation": float(self.equality_violation.max()),
        }


def certify(
    model: SVMModel,
    X: np.ndarray,
    y: np.ndarray | None = None,
    *,
    sample_weight: np.ndarray | None = None,
    C: float | None = None,
    epsilon: float | None = None,
) -> Certificate:
    """Recompute each pair's KKT violation and objectives from the training data, in float64.

    Every problem is of one form (see `gpusvm.problem.QP`): over variables b, to maximise p' b -
    epsilon sum(abs(b)) - 1/2 b' K b for lower <= b <= upper and sum(b) = s. For a pair of classes
    b is y alpha, with labels y = +1 (its first class) and -1, p = y, and C_k = C class_weight
    sample_weight on the side of y; for the others see `gpusvm.problem`. With the gradient v = p -
    K b:

    - ``kkt_gap`` is m(b) - M(b), the largest KKT violation: the maximum over variables that may
      grow of the slope v - epsilon (v + epsilon below zero), less the minimum over those that may
      shrink of the slope v + epsilon (v - epsilon above zero); LIBSVM stops where it falls to
      ``tol`` [1]_.
    - ``dual_objective`` is what training maximises.
    - ``primal_objective`` is 1/2 ||w||^2 + s bias + the sum of max over lower_k <= t <= upper_k of
      t (v_k - bias) - epsilon abs(t); no smaller than the dual one, and equal to it at the
      optimum. The terms are C_k max(0, 1 - y_k f(x_k)) for a pair, C_k max(0, abs(y_k - f(x_k)) -
      epsilon) for a regression, and sample_weight_k max(0, -f(x_k)) for a one-class model. Where C
      is infinite (a hard margin), f of a pair is first multiplied so that no sample is within the
      margin; the objective is infinite where one is on the wrong side, or beyond epsilon.
    - ``box_violation`` and ``equality_violation`` are max(b_k - upper_k, lower_k - b_k, 0) and
      abs(sum(b) - s), each divided by the largest upper_k - lower_k, or abs(b_k) where that is
      infinite: zero but for rounding.

    Parameters
    ----------
    model : SVMModel
    X : (n, n_features) array, or sparse matrix of SciPy
        The training data after preprocessing, in the order given to fit.
    y : (n,) array of labels, or of a regression's targets
        Not asked for by a one-class model.
    sample_weight : (n,) array, optional
        As given to fit.
    C, epsilon : float, optional
        Of a model of LIBSVM, whose file does not say them: `C` is by default the largest
        coefficient, and where the model is optimal for a larger C without a coefficient as large,
        it is for that, too. `epsilon` is needed for a regression. Its -w go into `sample_weight`.
        Its support vectors are looked for among the rows of X, to the eight digits that svm-train
        writes.

    Returns
    -------
    Certificate
        All its arrays have one entry for each pair, in the order of `SVMModel.pairs`, or one for a
        single function.

    Raises
    ------
    DataError
        X or y is not what the model was trained on.
    UsageError
        C or epsilon for a model that says them, or none for one that does not; a model of nu-SVC
        or nu-SVR, whose problem is not told by its file.

    References
    ----------
    .. [1] R.-E. Fan, P.-H. Chen, C.-J. Lin, "Working set selection using second order information
       for training support vector machines", JMLR 6 (2005), equations 6 to 9.
    """
    if model.problem.task == "one_class":
        y = np.zeros(X.shape[0])
    elif y is None:
        raise DataError("a certificate needs the labels or targets that the model was trained on")
    y = np.asarray(y)
    X = as_csr(X) if is_sparse(X) else X
    if model.from_libsvm:
        model = _as_trained(model, X, y, C, epsilon)
    elif C is not None or epsilon is not None:
        raise UsageError("C and epsilon are in the model; give them for a model of LIBSVM only")
    _check_same_data(model, X, y)
    outputs = model.pair_decisions(X, dtype=np.float64)
    if array_module(outputs) is not np:
        outputs = outputs.get()
    outputs -= model.intercept
    state = _each_pair if model.problem.classifies else _single_function
    found = [
        _certify_problem(problem, b, outputs[rows, p], model.intercept[p], classifies=model.problem.classifies)
        for p, (problem, rows, b) in enumerate(state(model, y, _upper_bounds(model, y, sample_weight)))
    ]
    return Certificate(*(np.array(column) for column in zip(*found, strict=True)))


def describe_certificate(model: SVMModel, certificate: Certificate) -> str:
    """What was found, on a line."""
    worst = model.pairs[int(certificate.kkt_gap.argmax())]
    asked = f"for C={model.problem.C:g}" if model.from_libsvm else f"asked for {model.stopping.tol:g}"
    return (
        f"Certificate (float64, from the training data): KKT gap {certificate.max_kkt_gap:.2e} "
        f"(worst pair {describe_pair(model.classes, worst)}; {asked}), "
        f"dual objective {certificate.total_dual_objective:.6g}, "
        f"relative duality gap {certificate.relative_duality_gap:.1e}"
    )


Stated = tuple[QP, np.ndarray, np.ndarray]
"""A problem, the row of the data that each of its variables belongs to, and the variables' values
in a model."""


def _each_pair(model: SVMModel, y: np.ndarray, bounds: np.ndarray) -> Iterator[Stated]:
    coefficients = SignedCoefficients(model, len(y))
    members = [np.flatnonzero((y == label) & (bounds > 0)) for label in model.classes]
    for i, j in model.pairs:
        rows = np.concatenate([members[i], members[j]])
        problem, *_ = c_svc([(0, 1)], [bounds[members[i]], bounds[members[j]]])
        yield problem, rows, coefficients.of_pair(i, j)[rows]


def _single_function(model: SVMModel, y: np.ndarray, bounds: np.ndarray) -> Iterator[Stated]:
    rows = np.flatnonzero(bounds > 0)
    coefficients = from_support(len(bounds), model.support_indices, model.dual_coef[0])[rows]
    problem = single_function(model.problem, y[rows], bounds[rows])
    yield problem, rows, coefficients


def _certify_problem(
    problem: QP, b: np.ndarray, outputs: np.ndarray, bias: float, *, classifies: bool
) -> tuple[float, float, float, float, float]:
    """The five figures of `Certificate` for one problem; `outputs` are K b."""
    p, lower, upper = problem.p, problem.lower, problem.upper
    if not len(b):  # of two classes left out of training there is nothing to say
        return (0.0, 0.0, 0.0, 0.0, 0.0)
    scale = (upper - lower).max()
    if np.isinf(scale):
        scale = max(np.abs(b).max(), np.finfo(float).tiny)
    with np.errstate(over="ignore", invalid="ignore"):  # of a hard margin that does not exist
        squared_norm = float(b @ outputs)
    return (
        qp_gap(problem, b, p - outputs),
        float(p @ b - problem.epsilon * np.abs(b).sum() - squared_norm / 2),
        _primal_objective(problem, squared_norm, outputs + bias, bias, classifies=classifies),
        float(max((b - upper).max(), (lower - b).max(), 0.0) / scale),
        float(abs(b.sum() - problem.total) / scale),
    )


def _primal_objective(
    problem: QP, squared_norm: float, decisions: np.ndarray, bias: float, *, classifies: bool
) -> float:
    """See `certify`; `decisions` are f at each variable's sample, (n,) float64."""
    hard = np.isinf(problem.upper - problem.lower)
    if hard.any() and classifies:
        least = float((problem.p * decisions)[hard].min())
        if least <= 0:
            return float("inf")
        factor = max(1.0, 1.0 / least)
        squared_norm, decisions = factor**2 * squared_norm, factor * decisions
    off = problem.p - decisions
    off = np.sign(off) * np.maximum(np.abs(off) - problem.epsilon, 0.0)
    sides = np.where(off > 0, problem.upper, problem.lower)
    # An infinite side times zero would be no number; of a pair, what is left beyond it is
    # rounding.
    beyond = (off != 0) & (sides != 0) & ~(hard & classifies)
    return float(squared_norm / 2 + problem.total * bias + (sides[beyond] * off[beyond]).sum())


def qp_gap(problem: QP, b: np.ndarray, v: np.ndarray) -> float:
    """m(b) - M(b) from the gradient v = p - K b, (n,) float64."""
    at_bound = 1 - _BOUND_TOLERANCE
    up = np.where(problem.upper > 0, b < problem.upper * at_bound, b < problem.upper)
    down = np.where(problem.lower < 0, b > problem.lower * at_bound, b > problem.lower)
    kink = problem.epsilon
    grow, shrink = v + np.where(b < 0, kink, -kink), v + np.where(b > 0, -kink, kink)
    return float(grow[up].max() - shrink[down].min()) if up.any() and down.any() else 0.0


def pair_gap(
    kernel: Kernel, X: Array, n_first: int, bounds: np.ndarray, support: np.ndarray, dual_coef: np.ndarray
) -> float:
    """The largest KKT violation of one class pair, from float64 kernel values; see `certify`.

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
    pair, *_ = c_svc([(0, 1)], [bounds[:n_first], bounds[n_first:]])
    return recomputed_gap(kernel, X, pair, from_support(X.shape[0], support, dual_coef))


def recomputed_gap(kernel: Kernel, X: Array, problem: QP, b: np.ndarray) -> float:
    """The largest KKT violation of a problem, from float64 kernel values; see `certify`.

    Parameters
    ----------
    kernel : Kernel
    X : (n, n_features) array, NumPy, CuPy or sparse
        The samples of the problem's blocks, each once and in their order; (n, n) values of a
        precomputed kernel.
    problem : QP
    b : (n,) float64 array
        Its variables.
    """
    X = unpacked_if_smaller(X, 8 * _BLOCK_VALUES)
    xp, n = array_module(X), X.shape[0]
    support = np.flatnonzero(b)
    rows, coefficients = xp.asarray(support), xp.asarray(b[support])
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
    return qp_gap(problem, b, problem.p - on_host)


def gaps_of_all_pairs(kernel: Kernel, X: Array, starts: np.ndarray, bounds: np.ndarray, coef: np.ndarray) -> np.ndarray:
    """The largest KKT violation of every pair of classes, as `pair_gap` finds it.

    Each kernel value is computed once.

    Parameters
    ----------
    kernel : Kernel
    X : (n, n_features) NumPy array or CSR
        The samples, grouped by class; (n, n) values of a precomputed kernel.
    starts : (k + 1,) int64 array
        Class c is ``X[starts[c]:starts[c + 1]]``; none is empty.
    bounds : (n,) float64 array
        The upper bound of each sample's alpha, above zero.
    coef : (k - 1, n) float64 array
        y alpha in LIBSVM's layout: those of a sample of class i against class j are in row j - 1
        where i < j, else j.

    Returns
    -------
    (k (k - 1) / 2,) float64 array
        In the order of `pairs.class_pairs`.
    """
    k, n = len(starts) - 1, X.shape[0]
    X = unpacked_if_smaller(X, 8 * _BLOCK_VALUES)
    if not kernel.precomputed:
        X = near_the_origin(X.astype(np.float64, copy=False), kernel)
    norms = squared_norms(X) if kernel.uses_norms else None
    owners = np.repeat(np.arange(k), np.diff(starts))
    most, least = np.full((k, k), -np.inf), np.full((k, k), np.inf)
    step = max(1, _BLOCK_VALUES // n)
    for i in range(k):
        others = np.delete(np.arange(k), i)
        signs = np.where(others > i, 1.0, -1.0)
        # Of a sample of another class, what it has in its pair with class i.
        theirs = np.where(owners < i, coef[max(i - 1, 0)], coef[min(i, k - 2)])
        for first in range(starts[i], starts[i + 1], step):
            rows = slice(first, min(first + step, starts[i + 1]))
            values = X[rows].astype(np.float64) if kernel.precomputed else kernel(X[rows], X, Y_norms=norms)
            own = values[:, starts[i] : starts[i + 1]] @ coef[:, starts[i] : starts[i + 1]].T
            outputs = own + np.add.reduceat(values * theirs, starts[:-1], axis=1)[:, others]
            alpha, v = coef[:, rows].T * signs, signs - outputs
            grows = alpha < bounds[rows, None] * (1 - _BOUND_TOLERANCE)
            up, down = np.where(signs > 0, grows, alpha > 0), np.where(signs > 0, alpha > 0, grows)
            most[i, others] = np.maximum(most[i, others], np.where(up, v, -np.inf).max(axis=0))
            least[i, others] = np.minimum(least[i, others], np.where(down, v, np.inf).min(axis=0))
    pairs = np.triu_indices(k, 1)
    gaps = np.maximum(most[pairs], most.T[pairs]) - np.minimum(least[pairs], least.T[pairs])
    return np.where(np.isfinite(gaps), gaps, 0.0)


class SignedCoefficients:
    """y alpha of each training sample, pair by pair, from a model's compact layout."""

    def __init__(self, model: SVMModel, n: int) -> None:
        self.model, self.n = model, n
        self.slices = list(model.class_slices())

    def of_pair(self, i: int, j: int) -> np.ndarray:
        """Of the samples of classes i and j, first class first: (n_i + n_j,) float64."""
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
    classifies = model.problem.classifies
    if X.shape[0] != len(y) or len(y) != n_trained or (classifies and not np.isin(y, model.classes).all()):
        raise DataError(
            f"a certificate needs the training data itself: got {X.shape[0]} rows and {len(y)} "
            f"{'labels' if classifies else 'targets'}, the model was trained on {n_trained} rows"
            f"{f' of {model.n_classes} classes' if classifies else ''}"
        )
    owners = np.repeat(model.classes, model.n_support) if classifies else None
    in_range = (model.support_indices < len(y)).all()
    if not in_range or (owners is not None and not np.array_equal(y[model.support_indices], owners)):
        raise DataError("a certificate needs the training data itself, in the order given to fit")
    if not model.kernel.precomputed and model.n_support_vectors and not model.from_libsvm:
        rows = X[model.support_indices]
        rows = rows if isinstance(rows, np.ndarray) or is_sparse(rows) else rows.get()
        if not same_rows(rows.astype(model.support_vectors.dtype), model.support_vectors):
            raise DataError("a certificate needs the training data itself: its rows differ from the model's")


def _as_trained(model: SVMModel, X: Any, y: np.ndarray, C: float | None, epsilon: float | None) -> SVMModel:
    """A model of LIBSVM with what its file does not say.

    That is its problem, and which rows of X are its support vectors.
    """
    svm_type = model.provenance.get("svm_type")
    if svm_type in ("nu_svc", "nu_svr"):
        raise UsageError(f"a certificate of a model of {svm_type} is not made: its file does not say what it solved")
    problem = model.problem if C is None else replace(model.problem, C=C)
    if problem.task == "epsilon_svr":
        if epsilon is None:
            raise UsageError("LIBSVM's file does not say epsilon (svm-train -p, 0.1 if not given): give epsilon")
        problem = replace(problem, epsilon=epsilon)
    elif problem.task == "one_class":
        # LIBSVM's coefficients sum to nu n.
        problem = replace(problem, nu=float(model.dual_coef.sum()) / max(1, len(y)))
    if model.kernel.precomputed:
        return replace(model, problem=problem)
    return replace(model, problem=problem, support_indices=_found_rows(model, X, y))


def _found_rows(model: SVMModel, X: Any, y: np.ndarray) -> np.ndarray:
    """The row of X (n, n_features) that each support vector is: (n_sv,) int64.

    It is a row of the support vector's class. Raises DataError where there is none, or where rows
    that are alike have several targets.
    """
    owners = (
        np.repeat(model.classes, model.n_support) if model.problem.classifies else np.zeros(model.n_support_vectors)
    )
    labels = y if model.problem.classifies else np.zeros(X.shape[0])
    for rounded in (False, True):
        places: dict[Hashable, deque[int]] = defaultdict(deque)
        for row, key in enumerate(_row_keys(X, labels, rounded)):
            places[key].append(row)
        keys = list(_row_keys(model.support_vectors, owners, rounded))
        if not model.problem.classifies:
            _require_one_target(y, (places[key] for key in set(keys)))
        found = [places[key].popleft() if places[key] else -1 for key in keys]
        if -1 not in found:
            return np.array(found, dtype=np.int64)
    place = found.index(-1)
    of_class = f" of class {owners[place]}" if model.problem.classifies else ""
    raise DataError(
        f"a certificate needs the training data itself: support vector {place + 1}{of_class} of the LIBSVM model is not"
        " among these rows; give them as svm-train had them, scaled if they were"
    )


def _row_keys(X: Any, labels: np.ndarray, rounded: bool) -> Iterator[Hashable]:
    """What tells the rows of X apart: the label, and places and values of non-zeros.

    The values have eight digits if `rounded`.
    """
    X = as_csr(X.get() if array_module(X) is not np else X)
    data = X.data.astype(np.float64)
    if rounded:
        values, places = np.unique(data, return_inverse=True)
        data = np.array([float(f"{value:.8g}") for value in values.tolist()])[places]
    for label, start, stop in zip(labels.tolist(), X.indptr[:-1], X.indptr[1:], strict=True):
        yield label, X.indices[start:stop].tobytes(), data[start:stop].tobytes()


def _require_one_target(y: np.ndarray, alike: Iterator[deque[int]]) -> None:
    """Raise DataError where rows that are alike have several targets.

    The file does not say which of them a coefficient belongs to.
    """
    for rows in alike:
        if len(set(y[list(rows)].tolist())) > 1:
            raise DataError(
                f"rows {rows[0] + 1} and {rows[1] + 1} are alike and have other targets: LIBSVM's file does not say"
                " which of them a coefficient belongs to, so there is no certificate"
            )

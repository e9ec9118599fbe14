"""Class probabilities from decision values.

Here is how they are fitted, and how those of the pairs become those of classes. Everything is a
function of arrays. What a calibration is fitted on are decision values of samples that the model
was not trained on (`gpusvm.backends.held_out`): on its own training samples a model is too sure of
itself.

References
----------
.. [1] J. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin
   Classifiers (1999).
.. [2] H.-T. Lin, C.-J. Lin, R. C. Weng, "A note on Platt's probabilistic outputs for support
   vector machines", Machine Learning 68 (2007).
.. [3] T.-F. Wu, C.-J. Lin, R. C. Weng, "Probability estimates for multi-class classification by
   pairwise coupling", JMLR 5 (2004).
.. [4] D. Price, S. Knerr, L. Personnaz, G. Dreyfus, "Pairwise neural network classifiers with
   probabilistic outputs", NIPS 7 (1995).
.. [5] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
   ICML (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, logsumexp, softmax

from gpusvm.pairs import class_pairs, pair_columns, pairs_reordered

COUPLINGS = ("price", "wu_lin_weng")
"""How probabilities of pairs become those of classes: see `Calibration`."""

MOST_NEWTON_STEPS = 100
SMALLEST_STEP = 1e-10
SMALL_GRADIENT = 1e-5
RIDGE = 1e-12
SUFFICIENT_DECREASE = 1e-4
"""Of the fit of a sigmoid, as in [2]_: bounds of its steps, when it ends, and what keeps its
matrix invertible."""

LEAST_PROBABILITY = 1e-7
"""Probabilities of pairs that are coupled stay so far from 0 and 1, as in LIBSVM."""

LEAD = 1e-6
"""By what share the predicted class is put above others that would be as probable: float32 shows
it too."""

LARGEST_EXPONENT = 600.0
"""Of an exponential, and its inverse, that are far from the ends of float64, and the sum of many
too."""

MOST_SHARPNESS = 1e3
_COUPLED_VALUES = 2**20
"""Entries of the rows' matrices that are coupled at a time: 8 MB, a few times over."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """How decision values of class pairs become probabilities of classes.

    The probability that a sample of one of two classes is of the first is 1 / (1 + exp(probA f +
    probB)), f being its decision value (Platt [1]_). Those of all pairs, r_ij = 1 - r_ji, give
    those of the classes by

    - ``"price"``: p_i in proportion to q_i to the power of `sharpness`, where 1 / q_i = 1 + the
      sum of r_ji / r_ij over the other classes j (Price et al. [4]_, with a temperature as in
      [5]_);
    - ``"wu_lin_weng"``: p minimises the sum over pairs of (r_ji p_i - r_ij p_j)^2, as LIBSVM
      computes it ([3]_, second approach).

    Attributes
    ----------
    probA, probB : (n_pairs,) float64 arrays
    coupling : {"price", "wu_lin_weng"}
    sharpness : float
        The inverse of the temperature; of "price" only.
    """

    probA: np.ndarray
    probB: np.ndarray
    coupling: str = "wu_lin_weng"
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling must be one of {', '.join(COUPLINGS)}; got {self.coupling!r:.40}")
        if type(self.sharpness) not in (int, float) or not 0 < self.sharpness <= MOST_SHARPNESS:
            raise ValueError(f"sharpness must be above 0 and at most {MOST_SHARPNESS:g}; got {self.sharpness!r:.40}")

    def class_probabilities(self, decisions: np.ndarray, n_classes: int) -> np.ndarray:
        """The probabilities (n, n_classes) float64 of decision values (n, n_pairs).

        Each row sums to one.
        """
        if self.coupling == "price":
            return price(self.logits(decisions), n_classes, self.sharpness)
        first = np.clip(expit(self.logits(decisions)), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return wu_lin_weng(first, n_classes)

    def logits(self, decisions: np.ndarray) -> np.ndarray:
        """log(r_ij / r_ji) of decision values (n, n_pairs)."""
        return -(self.probA * decisions + self.probB)

    def reordered(self, order: np.ndarray) -> Calibration:
        """The same for classes in another order.

        `order` (n_classes,) is as `pairs.pairs_reordered` takes it.
        """
        columns, signs = pairs_reordered(order)
        return Calibration(self.probA[columns], signs * self.probB[columns], self.coupling, self.sharpness)


# -- fitting --------------------------------------------------------------------------------------


def fit_sigmoids(
    values: np.ndarray, pair: np.ndarray, is_first: np.ndarray, weights: np.ndarray, n_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Platt's sigmoid of each pair of classes, of all pairs at once.

    They are found by the Newton method of Lin, Lin and Weng [2]_.

    Parameters
    ----------
    values : (m,) float64 array
        Decision values of held-out samples, each for a pair that its class belongs to.
    pair : (m,) int64 array
        Which pair each value is of.
    is_first : (m,) bool array
        Whether the sample is of the pair's first class.
    weights : (m,) float64 array
        Of the samples; they count as many samples as they sum to.
    n_pairs : int

    Returns
    -------
    probA, probB : (n_pairs,) float64 arrays
    """

    def summed(terms: np.ndarray) -> np.ndarray:
        return np.bincount(pair, terms, n_pairs)

    n_first, n_second = summed(weights * is_first), summed(weights * ~is_first)
    # Targets short of 0 and 1: the posterior means of the labels, so that few samples do not make
    # for certainty.
    targets = np.where(is_first, ((n_first + 1) / (n_first + 2))[pair], (1 / (n_second + 2))[pair])
    A, B = np.zeros(n_pairs), np.log((n_second + 1) / (n_first + 1))

    def loss(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        z = A[pair] * values + B[pair]
        return summed(weights * (targets * z - log_expit(z)))

    at_present = loss(A, B)
    for _ in range(MOST_NEWTON_STEPS):
        p = expit(-(A[pair] * values + B[pair]))
        slope, curvature = weights * (targets - p), weights * p * (1 - p)
        gradient = summed(slope * values), summed(slope)
        unfinished = np.maximum(*map(np.abs, gradient)) >= SMALL_GRADIENT
        if not unfinished.any():
            break
        step = _newton_step(gradient, summed(curvature * values**2), summed(curvature * values), summed(curvature))
        expected = gradient[0] * step[0] + gradient[1] * step[1]
        length = np.where(unfinished, 1.0, 0.0)
        while True:
            reached = loss(A + length * step[0], B + length * step[1])
            too_long = (length > 0) & ~(reached < at_present + SUFFICIENT_DECREASE * length * expected)
            if not too_long.any():
                break
            length[too_long] /= 2
            length[length < SMALLEST_STEP] = 0
        A, B, at_present = A + length * step[0], B + length * step[1], reached
        if not length.any():
            break
    return A, B


def _newton_step(
    gradient: tuple[np.ndarray, np.ndarray], h11: np.ndarray, h12: np.ndarray, h22: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step of each pair: minus the inverse of its 2 x 2 Hessian times its gradient."""
    h11, h22 = h11 + RIDGE, h22 + RIDGE
    determinant = h11 * h22 - h12 * h12
    g1, g2 = gradient
    return -(h22 * g1 - h12 * g2) / determinant, -(h11 * g2 - h12 * g1) / determinant


def fit_sharpness(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray, n_classes: int) -> float:
    """The `sharpness` of the coupling "price" of least log loss.

    Parameters
    ----------
    logits : (n, n_pairs) float64 array
        Of held-out samples: see `Calibration.logits`.
    classes : (n,) int64 array
        Their classes' indices.
    weights : (n,) float64 array
    n_classes : int
    """
    from scipy.optimize import minimize_scalar

    if n_classes == 2:
        return 1.0  # the sigmoid itself
    scores = log_shares(logits, n_classes)
    scores -= scores[np.arange(len(classes)), classes][:, None]

    def loss(log_sharpness: float) -> float:
        return float(weights @ np.log(np.exp(np.exp(log_sharpness) * scores).sum(axis=1)))

    with np.errstate(over="ignore"):
        return float(
            np.exp(minimize_scalar(loss, bounds=(-np.log(MOST_SHARPNESS), np.log(MOST_SHARPNESS)), method="bounded").x)
        )


# -- coupling -------------------------------------------------------------------------------------


def log_shares(logits: np.ndarray, n_classes: int) -> np.ndarray:
    """log q_i (n, n_classes) float64 of logits (n, n_pairs): see "price" at `Calibration`."""
    # Where logits allow it, one exponential for both classes of a pair.
    if np.abs(logits).max(initial=0.0) <= LARGEST_EXPONENT:
        sums = np.ones((len(logits), n_classes))
        for i, columns in pair_columns(n_classes):
            odds = np.exp(-logits[:, columns])
            sums[:, i] += odds.sum(axis=1)
            sums[:, i + 1 :] += 1 / odds
        return -np.log(sums)
    total = np.zeros((len(logits), n_classes))  # log(1 + ...), one class after the other
    for i, columns in pair_columns(n_classes):
        against = logits[:, columns]
        total[:, i] = np.logaddexp(total[:, i], logsumexp(-against, axis=1))
        total[:, i + 1 :] = np.logaddexp(total[:, i + 1 :], against)
    return -total


def price(logits: np.ndarray, n_classes: int, sharpness: float) -> np.ndarray:
    """The coupling "price" of the pairs' logits (n, n_pairs): (n, n_classes) float64."""
    return softmax(sharpness * log_shares(logits, n_classes), axis=1)


def wu_lin_weng(first: np.ndarray, n_classes: int) -> np.ndarray:
    """The coupling of Wu, Lin and Weng [3]_.

    The steps and the stopping rule are those of LIBSVM's `multiclass_probability`.

    Parameters
    ----------
    first : (n, n_pairs) float64 array
        The probability of the first class of each pair, strictly between 0 and 1.
    n_classes : int

    Returns
    -------
    (n, n_classes) float64 array
    """
    if n_classes == 2:
        return np.column_stack([first[:, 0], 1 - first[:, 0]])
    result = np.empty((len(first), n_classes))
    rows = max(1, _COUPLED_VALUES // n_classes**2)
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        result[part] = _coupled(first[part], n_classes)
    return result


def _coupled(first: np.ndarray, n_classes: int) -> np.ndarray:
    n, k = len(first), n_classes
    i, j = np.array(class_pairs(k)).T
    r = np.zeros((n, k, k))
    r[:, i, j], r[:, j, i] = first, 1 - first
    Q = -r * r.swapaxes(1, 2)
    every = np.arange(k)
    Q[:, every, every] = (r * r).sum(axis=1)
    result, rows, p = np.empty((n, k)), np.arange(n), np.full((n, k), 1 / k)
    for _ in range(max(100, k)):
        Qp = np.einsum("nij,nj->ni", Q, p)
        pQp = (p * Qp).sum(axis=1)
        unfinished = np.abs(Qp - pQp[:, None]).max(axis=1) >= 0.005 / k
        result[rows[~unfinished]] = p[~unfinished]
        if not unfinished.any():
            return result
        rows, p, Q, Qp, pQp = rows[unfinished], p[unfinished], Q[unfinished], Qp[unfinished], pQp[unfinished]
        for t in range(k):
            own = Q[:, t, t]
            step = (pQp - Qp[:, t]) / own
            pQp = (pQp + step * (step * own + 2 * Qp[:, t])) / (1 + step) ** 2
            Qp = (Qp + step[:, None] * Q[:, t]) / (1 + step)[:, None]
            p[:, t] += step
            p /= (1 + step)[:, None]
    result[rows] = p
    return result


def led_by(probabilities: np.ndarray, winners: np.ndarray) -> np.ndarray:
    """The nearest probabilities of which that of the predicted class alone is the largest.

    Votes and products of probabilities do not always agree. Where they do not, the predicted class
    and those above it share what they have equally: the projection, in squares as in
    Kullback-Leibler divergence, onto the probabilities that the prediction allows.

    Parameters
    ----------
    probabilities : (n, n_classes) float64 array
    winners : (n,) int64 array
        The predicted class of each row.
    """
    every = np.arange(len(winners))
    rivals = probabilities.copy()
    rivals[every, winners] = -1.0
    rows = np.flatnonzero(rivals.max(axis=1, initial=-1.0) >= probabilities[every, winners] * (1 - LEAD))
    if not len(rows):
        return probabilities
    own, every, who = probabilities[rows, winners[rows]], np.arange(len(rows)), winners[rows]
    # Means of the predicted class and its first rivals, the largest first: they rise as long as a
    # rival is above.
    largest_first = -np.sort(-rivals[rows], axis=1)[:, :-1]
    sums = np.cumsum(np.column_stack([own, largest_first]), axis=1)
    level = (sums / np.arange(1, sums.shape[1] + 1)).max(axis=1)
    result = probabilities.copy()
    shared = np.minimum(probabilities[rows], level[:, None])
    shared[every, who] = level * (1 + LEAD)
    result[rows] = shared / shared.sum(axis=1, keepdims=True)
    return result

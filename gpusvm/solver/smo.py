"""The small problem: SMO on a working set whose kernel values are all at hand.

Signed coefficients beta = y alpha are used throughout, with bounds lower <= beta <= upper, where
(lower, upper) is (0, C) for y = +1 and (-C, 0) for y = -1. The dual of C-SVC is then

    maximise  y' beta - 1/2 beta' K beta    subject to  sum(beta) = 0,  lower <= beta <= upper,

its gradient is v = y - K beta, and the optimality conditions of Keerthi et al. (2001) read: with
up = {k: beta_k < upper_k} and low = {k: beta_k > lower_k}, the gap max(v[up]) - min(v[low]) is not positive.
"""

from __future__ import annotations

import numpy as np

from gpusvm.solver.compilation import compiled

CURVATURE_FLOOR = 1e-12
"""Stands for K_ii + K_jj - 2 K_ij where that is not positive, as in LIBSVM (its TAU)."""

NOT_A_CANDIDATE = -1e300

REACHED, CUT_SHORT, STUCK = 0, 1, 2
"""How SMO ended: at its tolerance, after the steps allowed, or where rounding allows no further step."""


@compiled(fastmath={"nnan", "nsz", "contract", "arcp", "reassoc"})
def solve_working_set(
    K: np.ndarray,
    diagonal: np.ndarray,
    beta: np.ndarray,
    v: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    tol: float,
    max_iter: int,
) -> int:
    """Sequential minimal optimisation with second-order selection, on the first q variables of K.

    Ends at the tolerance, after `max_iter` steps, or where rounding allows no further step.

    Each step takes i, the largest v of those that may grow, and j, the one that may shrink whose
    exchange with i gains most by the second-order model (Fan, Chen, Lin 2005, WSS 2), and moves
    as much of beta from j to i as curvature and bounds allow. Of equals the last is taken, as LIBSVM does: a kernel
    that is not positive semidefinite (sigmoid) has many stationary points, and the path decides which one is found.

    Parameters
    ----------
    K : (>= q, >= q) array, float32 or float64
        Kernel values; row k, column l for variables k and l.
    diagonal : (q,) float64 array
        K_kk.
    beta, v : (q,) float64 arrays, changed in place
        Coefficients and gradient. On return v is the gradient at the new beta, up to terms from outside.
    lower, upper : (q,) float64 arrays
    tol : float
        Stop where the gap is no larger.
    max_iter : int
        Stop after so many steps.

    Returns
    -------
    int
        Steps taken.
    """
    q = beta.shape[0]
    n_steps = 0
    while n_steps < max_iter:
        i, v_i = -1, NOT_A_CANDIDATE
        least_low = -NOT_A_CANDIDATE
        for k in range(q):
            if beta[k] < upper[k] and v[k] >= v_i:
                v_i, i = v[k], k
            if beta[k] > lower[k] and v[k] < least_low:
                least_low = v[k]
        if v_i - least_low <= tol:
            break
        row_i = K[i]
        j, best, a_j = -1, 0.0, 1.0
        for k in range(q):
            difference = v_i - v[k]
            if difference > 0.0 and beta[k] > lower[k]:
                a = diagonal[i] + diagonal[k] - 2.0 * np.float64(row_i[k])
                if a <= 0.0:
                    a = CURVATURE_FLOOR
                gain = difference * difference / a
                if gain >= best:
                    best, j, a_j = gain, k, a
        if j < 0:
            break  # kernel values that are not numbers
        step = (v_i - v[j]) / a_j
        room_i, room_j = upper[i] - beta[i], beta[j] - lower[j]
        if step >= room_i or step >= room_j:
            step = min(room_i, room_j)
        # A variable that reaches its bound is put on it exactly, whatever the rounding.
        beta_i = upper[i] if step == room_i else beta[i] + step
        beta_j = lower[j] if step == room_j else beta[j] - step
        if beta_i == beta[i] and beta_j == beta[j]:
            break  # a tolerance finer than float64 can follow
        beta[i], beta[j] = beta_i, beta_j
        row_j = K[j]
        for k in range(q):
            v[k] -= step * (np.float64(row_i[k]) - np.float64(row_j[k]))
        n_steps += 1
    return n_steps

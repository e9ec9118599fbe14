"""SMO by its definition, one variable after another: what the vector code must agree with to the last bit."""

from __future__ import annotations

import numba
import numpy as np

from gpusvm.solver.smo import CURVATURE_FLOOR, NOT_A_CANDIDATE


@numba.njit(fastmath={"nnan", "nsz", "contract", "arcp", "reassoc"})
def solve_by_definition(K, diagonal, beta, v, lower, upper, tol, max_iter):
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

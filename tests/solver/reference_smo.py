"""SMO by its definition, one variable after another: what the vector code must agree with to the
last bit."""

from __future__ import annotations

import numba
import numpy as np

from gpusvm.solver.smo import CURVATURE_FLOOR, NOT_A_CANDIDATE


@numba.njit(fastmath={"nnan", "nsz", "contract", "arcp", "reassoc"})
def solve_by_definition(K, diagonal, beta, v, lower, upper, tol, max_iter, epsilon=0.0):
    q = beta.shape[0]
    n_steps = 0
    while n_steps < max_iter:
        i, v_i = -1, NOT_A_CANDIDATE
        least_low = -NOT_A_CANDIDATE
        for k in range(q):
            grow = v[k] + epsilon if beta[k] < 0.0 else v[k] - epsilon
            shrink = v[k] - epsilon if beta[k] > 0.0 else v[k] + epsilon
            if beta[k] < upper[k] and grow >= v_i:
                v_i, i = grow, k
            if beta[k] > lower[k] and shrink < least_low:
                least_low = shrink
        if v_i - least_low <= tol:
            break
        row_i = K[i]
        j, best, a_j, v_j = -1, 0.0, 1.0, 0.0
        for k in range(q):
            shrink = v[k] - epsilon if beta[k] > 0.0 else v[k] + epsilon
            difference = v_i - shrink
            if difference > 0.0 and beta[k] > lower[k]:
                a = diagonal[i] + diagonal[k] - 2.0 * np.float64(row_i[k])
                if a <= 0.0:
                    a = CURVATURE_FLOOR
                gain = difference * difference / a
                if gain >= best:
                    best, j, a_j, v_j = gain, k, a, shrink
        if j < 0:
            break  # kernel values that are not numbers
        step = (v_i - v_j) / a_j
        highest = 0.0 if epsilon > 0.0 and beta[i] < 0.0 else upper[i]
        lowest = 0.0 if epsilon > 0.0 and beta[j] > 0.0 else lower[j]
        room_i, room_j = highest - beta[i], beta[j] - lowest
        if step >= room_i or step >= room_j:
            step = min(room_i, room_j)
        # A variable that reaches its bound is put on it exactly, whatever the rounding.
        beta_i = highest if step == room_i else beta[i] + step
        beta_j = lowest if step == room_j else beta[j] - step
        if beta_i == beta[i] and beta_j == beta[j]:
            break  # a tolerance finer than float64 can follow
        beta[i], beta[j] = beta_i, beta_j
        row_j = K[j]
        for k in range(q):
            v[k] -= step * (np.float64(row_i[k]) - np.float64(row_j[k]))
        n_steps += 1
    return n_steps

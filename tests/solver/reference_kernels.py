"""The kernels of pairs.cu by their definition, in NumPy and with the CPU's SMO."""

from __future__ import annotations

import numpy as np

from gpusvm.solver import working_set
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.smo import CUT_SHORT, REACHED, STUCK, solve_working_set


def gather(live, rows, slot_of, member, members, n_old, n_members, K):
    for k in live:
        columns = member[k, members[k, : n_members[k]]]
        new = columns[n_old[k] :]
        block = rows[slot_of[new]][:, columns]
        K[k, n_old[k] : n_members[k], : n_members[k]] = block
        K[k, : n_members[k], n_old[k] : n_members[k]] = block.T


def smo(K, b, v, lower, upper, target, allowed, epsilon=0.0):
    """One problem's coefficients, steps and how it ended."""
    b, v = b.copy(), v.copy()
    K = np.ascontiguousarray(K)
    kink = (epsilon,) if epsilon > 0 else NONE
    steps = solve_working_set(K, np.diagonal(K).astype(np.float64), b, v, lower, upper, target, allowed, NONE, kink)
    status = CUT_SHORT if steps == allowed else REACHED if gap(b, v, lower, upper, epsilon) <= target else STUCK
    return b, steps, status


def gap(b, v, lower, upper, epsilon=0.0):
    most, least = working_set.extremes(*(a[None] for a in (b, v, lower, upper)), epsilon)
    return most[0] - least[0]


def subtract(live, rows, slot_of, member, samples, coefficients, counts, v):
    for k in live:
        columns = member[k, samples[k, : counts[k]]]
        v[k] -= coefficients[k, : counts[k]] @ rows[slot_of[columns]][:, member[k]].astype(np.float64)

"""The kernels of the lockstep solver by their definition, in NumPy and with the CPU's SMO."""

from __future__ import annotations

import numpy as np

from gpusvm.solver.cuda import Device
from gpusvm.solver.smo import CUT_SHORT, REACHED, STUCK, solve_working_set


def gather(live, rows, slot_of, member, active, n_old, n_active, K):
    for p in live:
        columns = member[p, active[p, : n_active[p]]]
        new = columns[n_old[p] :]
        block = rows[slot_of[new]][:, columns]
        K[p, n_old[p] : n_active[p], : n_active[p]] = block
        K[p, : n_active[p], n_old[p] : n_active[p]] = block.T


def optimise(live, K, active, n_active, lower, upper, v, target, allowed, beta, change, steps, status):
    for p in live:
        q = n_active[p]
        chosen = active[p, :q]
        b, g, low, high = (array[p, chosen] for array in (beta, v, lower, upper))
        values = np.ascontiguousarray(K[p, :q, :q])
        diagonal = np.diagonal(values).astype(np.float64)
        steps[p] = solve_working_set(values, diagonal, b, g, low, high, target[p], allowed[p])
        change[p, :q] = b - beta[p, chosen]
        beta[p, chosen] = b
        status[p] = CUT_SHORT if steps[p] == allowed[p] else REACHED if gap(b, g, low, high) <= target[p] else STUCK


def gap(beta, v, lower, upper):
    grow, shrink = v[beta < upper], v[beta > lower]
    return grow.max() - shrink.min() if len(grow) and len(shrink) else -np.inf


def subtract(live, rows, slot_of, member, samples, coefficients, counts, v):
    for p in live:
        columns = member[p, samples[p, : counts[p]]]
        v[p] -= coefficients[p, : counts[p]] @ rows[slot_of[columns]][:, member[p]].astype(np.float64)


def reference_device(largest_set: int = 3072) -> Device:
    return Device(np, gather, optimise, subtract, largest_set)

"""What the lockstep solver does on a GPU, as CUDA kernels: one block for each class pair.

They are written with numba-cuda, whose simulator (``NUMBA_ENABLE_CUDASIM=1``) runs the same code on a CPU: so
they are tested where there is no GPU. The problem and the names are those of `smo`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numba
from numba import cuda

from gpusvm.solver.smo import CURVATURE_FLOOR, CUT_SHORT, NOT_A_CANDIDATE, REACHED, STUCK

# Ten class pairs do not fill a GPU, and nothing is to be done about it.
warnings.filterwarnings("ignore", message="Grid size", module="numba")

THREADS = 256
"""Threads of a block. A power of two: the reductions halve it."""

ITEMS = 12
"""Variables of each thread in SMO, held in registers."""

LARGEST_ACTIVE = THREADS * ITEMS


def kernels(threads: int = THREADS) -> tuple[Any, Any, Any]:
    """The three kernels for blocks of so many threads (the simulator is slow with many): gather, optimise, subtract.

    Each is called with arrays on the device:

    - ``gather(live, rows, slot_of, member, active, n_old, n_active, K)``: complete K (n_pairs, q, q) float32, the
      kernel values of the active sets, for members from position ``n_old`` on.
    - ``optimise(live, K, active, n_active, lower, upper, v, target, allowed, beta, change, steps, status)``: SMO on
      each active set until its gap is at most ``target``; writes beta, and by how much it changed.
    - ``subtract(live, rows, slot_of, member, samples, coefficients, counts, v)``: v -= K[:, samples] coefficients.

    `live` (n_live,) int32 lists the pairs to work on. `member` (n_pairs, n) int32 gives the column of each sample of
    a pair in `rows` (capacity, n_columns) float32, whose row ``slot_of[column]`` holds that sample's kernel values.
    """

    def launch(kernel: Any, n_tiles: Any) -> Any:
        def run(live: Any, *arrays: Any) -> None:
            if len(live):
                kernel[(len(live), n_tiles(*arrays)), threads](live, *arrays)

        return run

    def one_tile(*arrays: Any) -> int:
        return 1

    def tiles_of_samples(*arrays: Any) -> int:
        return -(-arrays[-1].shape[1] // threads)

    def tiles_of_active(*arrays: Any) -> int:
        return -(-arrays[3].shape[1] // threads)

    return (
        launch(_gather, tiles_of_active),
        launch(_optimiser(threads), one_tile),
        launch(_subtract, tiles_of_samples),
    )


@cuda.jit(cache=False)
def double(values):  # type: ignore[no-untyped-def]
    """Double `values` (n,): no part of the solver, but how a probe learns whether kernels run
    here."""
    i = cuda.grid(1)
    if i < values.shape[0]:
        values[i] = 2.0 * values[i]


@cuda.jit(cache=False)
def _gather(live, rows, slot_of, member, active, n_old, n_active, K):  # type: ignore[no-untyped-def]
    """A thread for each column; the rows from n_old on, and their mirror images."""
    p = live[cuda.blockIdx.x]
    q, old = n_active[p], n_old[p]
    c = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if c < q:
        column = member[p, active[p, c]]
        for r in range(old, q):
            value = rows[slot_of[member[p, active[p, r]]], column]
            K[p, r, c] = value
            if c < old:
                K[p, c, r] = value


@cuda.jit(cache=False)
def _subtract(live, rows, slot_of, member, samples, coefficients, counts, v):  # type: ignore[no-untyped-def]
    """A thread for each sample of a pair, so that a block reads neighbouring kernel values together."""
    p = live[cuda.blockIdx.x]
    k = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if k < member.shape[1]:
        column = member[p, k]
        total = 0.0
        for s in range(counts[p]):
            coefficient = coefficients[p, s]
            if coefficient != 0.0:
                total += coefficient * rows[slot_of[member[p, samples[p, s]]], column]
        v[p, k] -= total


def _optimiser(threads: int) -> Any:
    """The SMO kernel for blocks of `threads`, whose shared arrays must have a size known when it is compiled."""

    @cuda.jit(device=True)
    def largest(values, places):  # type: ignore[no-untyped-def]
        """Bring the largest of the block's values, and its place (the larger of equals), to the front."""
        t = cuda.threadIdx.x
        cuda.syncthreads()
        half = threads // 2
        while half > 0:
            if t < half:
                other = values[t + half]
                if other > values[t] or (other == values[t] and places[t + half] > places[t]):
                    values[t] = other
                    places[t] = places[t + half]
            cuda.syncthreads()
            half //= 2

    @cuda.jit(cache=False)
    def optimise(  # type: ignore[no-untyped-def]
        live, K, active, n_active, lower, upper, v, target, allowed, beta, change, steps, status
    ):
        p, t = live[cuda.blockIdx.x], cuda.threadIdx.x
        q = n_active[p]
        values = cuda.shared.array(threads, numba.float64)
        others = cuda.shared.array(threads, numba.float64)
        places = cuda.shared.array(threads, numba.int32)
        # What the owners of i and j tell the block: v, beta, the room to move, and the curvature of i.
        told = cuda.shared.array(6, numba.float64)
        b = cuda.local.array(ITEMS, numba.float64)
        g = cuda.local.array(ITEMS, numba.float64)
        low = cuda.local.array(ITEMS, numba.float64)
        high = cuda.local.array(ITEMS, numba.float64)
        diagonal = cuda.local.array(ITEMS, numba.float64)
        for m in range(ITEMS):
            k = t + m * threads
            if k < q:
                sample = active[p, k]
                b[m], g[m] = beta[p, sample], v[p, sample]
                low[m], high[m] = lower[p, sample], upper[p, sample]
                diagonal[m] = K[p, k, k]
        n_steps, ended = 0, CUT_SHORT
        while n_steps < allowed[p]:
            best, place, least = NOT_A_CANDIDATE, -1, NOT_A_CANDIDATE
            for m in range(ITEMS):
                k = t + m * threads
                if k < q:
                    if b[m] < high[m] and g[m] >= best:
                        best, place = g[m], k
                    if b[m] > low[m] and -g[m] > least:
                        least = -g[m]
            values[t], places[t], others[t] = best, place, least
            largest(values, places)
            i, v_i = places[0], values[0]
            cuda.syncthreads()
            places[t] = t
            largest(others, places)
            if v_i + others[0] <= target[p]:
                ended = REACHED
                break
            for m in range(ITEMS):  # an index known when this is compiled keeps the arrays in registers
                if t + m * threads == i:
                    told[0], told[1], told[2] = b[m], high[m] - b[m], diagonal[m]
            cuda.syncthreads()
            best, place = 0.0, -1
            for m in range(ITEMS):
                k = t + m * threads
                if k < q and b[m] > low[m] and v_i > g[m]:
                    difference = v_i - g[m]
                    a = max(told[2] + diagonal[m] - 2.0 * K[p, i, k], CURVATURE_FLOOR)
                    gain = difference * difference / a
                    if gain >= best:
                        best, place = gain, k
            values[t], places[t] = best, place
            largest(values, places)
            j = places[0]
            if values[0] <= 0.0:
                ended = STUCK
                break
            for m in range(ITEMS):
                if t + m * threads == j:
                    a = max(told[2] + diagonal[m] - 2.0 * K[p, i, j], CURVATURE_FLOOR)
                    told[3], told[4], told[5] = b[m], b[m] - low[m], (v_i - g[m]) / a
            cuda.syncthreads()
            step = min(told[5], min(told[1], told[4]))
            new_i, new_j = told[0] + step, told[3] - step
            if new_i == told[0] and new_j == told[3]:
                ended = STUCK
                break
            for m in range(ITEMS):
                k = t + m * threads
                if k < q:
                    g[m] -= step * (numba.float64(K[p, i, k]) - numba.float64(K[p, j, k]))
                    # A variable that reaches its bound is put on it exactly, whatever the rounding.
                    if k == i:
                        b[m] = high[m] if step == told[1] else new_i
                    elif k == j:
                        b[m] = low[m] if step == told[4] else new_j
            n_steps += 1
            cuda.syncthreads()
        for m in range(ITEMS):
            k = t + m * threads
            if k < q:
                sample = active[p, k]
                change[p, k] = b[m] - beta[p, sample]
                beta[p, sample] = b[m]
        if t == 0:
            steps[p], status[p] = n_steps, ended

    return optimise

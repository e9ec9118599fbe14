"""Chains of C on a GPU: those of one kernel in lockstep, over the same kernel rows.

`path` is the same on a CPU.

Every pair of classes in every fold is a chain, and all of them take part in a round together. Rows
of kernel values are computed once, as a chain first needs them, and serve all folds, all pairs of
their class and every C. A chain that has solved its problem for one C takes up the next at once,
with the working set that it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from gpusvm.kernels import Array, Kernel
from gpusvm.params import Stopping
from gpusvm.problem import Solution
from gpusvm.solver.cuda import Device, Following, Session, solve_each
from gpusvm.solver.path import Chain, Solved, start_of_next


def solve_chains_on_device(
    X: Array,
    blocks: Sequence[np.ndarray],
    chains: Sequence[Chain],
    stopping: Stopping,
    *,
    device: Device,
    budget_mb: float,
    report: Callable[[int, Solved], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """Solve chains of problems over the same samples, each exactly: its gap within the tolerance.

    A kernel is done after the other. Kernel values are float32; what that proves too coarse for
    goes on with float64, with all later C of its chain, which have larger coefficients.

    Parameters
    ----------
    X : (n_samples, n_features) array of NumPy or the device's module, float32 or float64; or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks : sequence of int64 arrays
        The rows of X in each block; on the host, as are the chains.
    chains : sequence of Chain
    stopping : Stopping
        Without a time limit.
    device : Device
    budget_mb : float
        Device memory to use, in MB. Chains for which there is no room wait until others are done.
    report : callable
        ``report(index, solved)`` for each chain as it is done. Its seconds are those from where
        its kernel was begun to its end, divided by the number of chains of this kernel.
    look : callable
        Called in every round. What it raises ends the work.

    Raises
    ------
    MemoryError
        Not even one problem fits.
    """
    by_kernel: dict[Kernel, list[int]] = {}
    for index, chain in enumerate(chains):
        by_kernel.setdefault(chain.kernel, []).append(index)
    for kernel, indices in by_kernel.items():
        own = {index: _Underway(chains[index], blocks) for index in indices}
        problems = {index: chain.problem for index, chain in own.items()}
        finished = _OfOneKernel(own, report).finished
        solve_each(X, blocks, problems, kernel, stopping, finished, Session(device, budget_mb, look))


class _OfOneKernel:
    """Chains that are solved together, and how much time they take."""

    def __init__(self, chains: dict[int, _Underway], report: Callable[[int, Solved], None]) -> None:
        self.chains, self.report = chains, report
        self.n_chains, self.begun = len(chains), time.perf_counter()

    def finished(self, index: int, solution: Solution, v: np.ndarray) -> Following | None:
        chain = self.chains[index]
        chain.add(solution, v)
        following = chain.following(v)
        if following is None:
            seconds = (time.perf_counter() - self.begun) / self.n_chains
            self.report(index, Solved(chain.solutions, chain.decisions, seconds))
            del self.chains[index]
        return following


class _Underway:
    """A chain being solved: what came of its first C, and the problem of the one after them."""

    def __init__(self, chain: Chain, blocks: Sequence[np.ndarray]) -> None:
        self.chain, self.sizes = chain, [len(blocks[block]) for block in chain.blocks]
        self.solutions: list[Solution] = []
        self.decisions = np.empty((len(chain.Cs), len(chain.weights)))
        self.problem = chain.problem(0, self.sizes)

    def add(self, solution: Solution, v: np.ndarray) -> None:
        """Keep the solution of the problem; `v` (n,) is its gradient."""
        self.decisions[len(self.solutions)] = self.problem.p - v + solution.bias
        self.solutions.append(solution._replace(b=solution.b.copy()))  # it is a part of a larger array

    def following(self, v: np.ndarray) -> Following | None:
        """The problem of the next C, begun at the last solution; None after the last C.

        `v` (n,) is the gradient of that solution.
        """
        c = len(self.solutions)
        if c == len(self.chain.Cs):
            return None
        b, v = self.solutions[-1].b.copy(), v.copy()  # which are changed
        problem = self.chain.problem(c, self.sizes)
        start_of_next(b, v, problem.p, problem.lower, problem.upper, self.chain.Cs[c] / self.chain.Cs[c - 1])
        self.problem = problem._replace(start=b)
        return Following(self.problem, v)

"""Many problems over the same samples, of every C and fold, from one matrix of kernel values.

A search for C and gamma, and probabilities from folds, solve C-SVC of the same samples again and
again. Kernel values depend neither on C nor on the fold. So a matrix of them is computed once for
each gamma, and every problem is solved on it as it is: a sample that its fold holds out has both
bounds at zero, where nothing can move, and its place in the gradient v = p - K b, which is kept
for all samples, gives its decision value p - v + bias for nothing.

From one C to the next the coefficients go on (Chu et al. 2015), as they are or scaled with C,
whichever gives the larger dual objective: both are feasible, and the gradient of either follows
from the one at hand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpusvm.kernels import Kernel
from gpusvm.params import Stopping
from gpusvm.problem import QP, Solution, feasible
from gpusvm.solver.compilation import compiled
from gpusvm.solver.cpu import one_blas_thread, solve
from gpusvm.solver.iterate import make_solution
from gpusvm.solver.kernel_of_blocks import WITHIN_SHARE, KernelOfBlocks
from gpusvm.solver.kernel_rows import ParallelFor
from gpusvm.solver.on_demand import NONE
from gpusvm.solver.smo import solve_working_set
from gpusvm.solver.working_set import SMALL

GATHERED_BELOW = 0.7
"""Share of the variables below which steps are taken on a copy of their kernel values: rows are
shorter, and near."""

NEARLY_DONE, FINAL, MARGIN, LARGEST_MARGIN = 0.3, 0.9, 0.5, 0.1
"""As in `working_set`, at the scale of C-SVC, which is 2."""

STEPS_AT_ONCE = 20_000
"""Steps between two looks at whether to stop, and after which a float32 gradient is computed
anew."""

_REACHED, _LAST_STEP, _STUCK, _STOPPED = 0.0, 1.0, 2.0, 3.0
"""How a problem ended: at its tolerance, after its last step, where rounding allows no further
step, or interrupted."""

_MOST_FAILED = 3
"""Gaps in a row, none much smaller than one before, after which float32 steps, then a problem, are
given up."""

_WAIT_SECONDS = 0.1
_MB = 2**20


class Chain(NamedTuple):
    """Problems that differ by C alone.

    Attributes
    ----------
    blocks : (int, int)
        The samples of the two classes, as in `QP`.
    kernel : Kernel
    weights : (n,) float64 array
        Factor on C of each sample of the blocks; zero for one that is held out.
    Cs : (m,) float64 array
        Finite, ascending.
    """

    blocks: tuple[int, int]
    kernel: Kernel
    weights: np.ndarray
    Cs: np.ndarray

    def problem(self, c: int, sizes: Sequence[int]) -> QP:
        """That of ``Cs[c]``; `sizes` are the numbers of samples of its blocks."""
        p, bounds = np.repeat([1.0, -1.0], sizes), self.Cs[c] * self.weights
        return QP(self.blocks, p, np.where(p > 0, 0.0, -bounds), np.where(p > 0, bounds, 0.0))


class Solved(NamedTuple):
    """What came of a `Chain`.

    Attributes
    ----------
    solutions : list of Solution
        For each C, with coefficients of all samples of the blocks, zero for those held out.
    decisions : (m, n) float64 array
        Decision values of these samples, positive for the first class.
    seconds : float
        That its thread took; on a GPU its share of them.
    """

    solutions: list[Solution]
    decisions: np.ndarray
    seconds: float


def chain_mb(n: int) -> float:
    """Memory in MB that a chain about `n` samples takes.

    It is for its kernel values, and for a copy of those that steps need.
    """
    return (8 if n <= SMALL else 4) * n * n * (1 + GATHERED_BELOW**2) / _MB


def largest_copy(n: int) -> int:
    """The most kernel values of `n` samples that are copied, in rows that are filled up."""
    q = int(GATHERED_BELOW * n) + 1
    return q * (-(-q // 16) * 16)


def solve_chains(
    X: np.ndarray,
    blocks: Sequence[np.ndarray],
    chains: Sequence[Chain],
    stopping: Stopping,
    *,
    budget_mb: float,
    n_threads: int,
    report: Callable[[int, Solved], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """Solve chains of problems over the same samples, each exactly: its gap within the tolerance.

    The result for a chain depends on nothing but the chain, to the last bit: not on `n_threads`,
    nor on the others. Chains that follow each other and have blocks and kernel in common are
    solved on the same kernel values.

    Parameters
    ----------
    X : (n_samples, n_features) array, float32 or float64, C order, or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    blocks : sequence of int64 arrays
        The rows of X in each block.
    chains : sequence of Chain
    stopping : Stopping
        Without a time limit.
    budget_mb : float
        Memory for kernel values. As many chains as it has room for are solved side by side, and
        one at least; see `chain_mb`.
    n_threads : int
    report : callable
        ``report(index, solved)``, in the caller's thread, for each chain as it is done.
    look : callable
        Called in the caller's thread ten times a second. What it raises ends the work.
    """
    largest = max((chain_mb(len(chain.weights)) for chain in chains), default=1.0)
    # Float64 values take twice the memory of float32 ones, and are there beside them where they
    # are needed. What a problem finds room for must not follow from the number of threads: it
    # decides its path.
    has_room = 3 * largest <= budget_mb
    each = 3 * largest if has_room else largest
    within = sum(len(rows) ** 2 for rows in blocks) * 4 / _MB
    left = budget_mb - (within if len(blocks) > 2 and within <= WITHIN_SHARE * budget_mb else 0.0)
    side_by_side = max(1, min(n_threads, int(left / each), len(chains)))
    with one_blas_thread:
        setting = _Setting(X, blocks, stopping, budget_mb, has_room_for_float64=has_room)
        _Workers(setting, chains, side_by_side).run(report, look)


class _Setting:
    """What all chains have in common, and kernels.

    A kernel is made when a chain first needs it, and kept for the next few.
    """

    def __init__(
        self,
        X: np.ndarray,
        blocks: Sequence[np.ndarray],
        stopping: Stopping,
        budget_mb: float,
        *,
        has_room_for_float64: bool,
    ) -> None:
        self.has_room_for_float64 = has_room_for_float64
        self.X, self.blocks, self.stopping, self.budget_mb = X, blocks, stopping, budget_mb
        self.stop, self.memory = np.zeros(1, dtype=np.uint8), _Memory()
        self._kernels: dict[Kernel, KernelOfBlocks] = {}
        self._lock = threading.Lock()

    def kernel(self, kernel: Kernel) -> KernelOfBlocks:
        with self._lock:
            if kernel not in self._kernels:
                for oldest in list(self._kernels)[:-1]:
                    del self._kernels[oldest]
                for before in self._kernels.values():
                    before.give_up_within()
                self._kernels[kernel] = KernelOfBlocks(
                    self.X, self.blocks, kernel, WITHIN_SHARE * self.budget_mb
                )  # fmt: skip
            return self._kernels[kernel]

    def matrix(self, chain: Chain, dtype: type | None = None) -> np.ndarray:
        """Kernel values (n, >= n) between the samples of the chain's blocks.

        If no `dtype` is given, they are float32 where they are many and float32 holds them.
        """
        shared, n = self.kernel(chain.kernel), len(chain.weights)
        if dtype is None:
            dtype = np.float32 if shared.fits_float32 and n > SMALL else np.float64
        K = self.memory.take((n, -(-n // 16) * 16), np.dtype(dtype))
        shared.values(chain.blocks, dtype).extend(K, np.arange(n), 0, ParallelFor(), self.is_stopped)
        return K

    def is_stopped(self) -> bool:
        return bool(self.stop[0])

    def solve(self, chain: Chain, group: _Group) -> Solved:
        K: Any = group.K
        assert K is not None
        begun = time.perf_counter()
        n, m = len(chain.weights), len(chain.Cs)
        sizes = [len(self.blocks[block]) for block in chain.blocks]
        p = np.repeat([1.0, -1.0], sizes)
        B, V, outcome = np.empty((m, n)), np.empty((m, n)), np.zeros((m, 2))
        steps = self.stopping.iterations_allowed(int(np.count_nonzero(chain.weights)))
        copies = self.memory.take((largest_copy(n),), K.dtype)
        solve_chain(K, p, chain.weights, chain.Cs, self.stopping.tol, steps, self.stop, copies, B, V, outcome)
        self.memory.give_back(copies)
        exact = K.dtype == np.float64
        shared = self.kernel(chain.kernel)
        solutions, decisions = [], np.empty((m, n))
        for c in range(m):
            if self.is_stopped():
                break
            problem = chain.problem(c, sizes)._replace(start=B[c])
            error = shared.gradient_error(problem, K.dtype.type, self.stopping.tol)
            rounding = error.rounding(B[c], V[c], problem.lower, problem.upper, exact=exact)
            n_iter, tol = int(outcome[c, 0]), self.stopping.tol
            found = make_solution(problem, B[c], V[c], n_iter=n_iter, tol=tol, rounding=rounding, in_float64=exact)
            v = V[c]
            may_go_on = outcome[c, 1] != _LAST_STEP
            if not found.converged and may_go_on and not exact and self.has_room_for_float64:
                found, v = self._in_float64(problem, chain, found, group)
            if not found.converged and may_go_on:
                found, v = self._by_itself(problem, chain, found)
            solutions.append(found)
            decisions[c] = p - v + found.bias
        return Solved(solutions, decisions, time.perf_counter() - begun)

    def _in_float64(self, problem: QP, chain: Chain, begun: Solution, group: _Group) -> tuple[Solution, np.ndarray]:
        """The solution of a problem on float64 kernel values, and its gradient.

        Float32 ones were too coarse for it. It goes on from where it is.
        """
        with group.making_exact:
            if group.exact is None:
                group.exact = self.matrix(chain, np.float64)
        b, steps = begun.b.copy(), self.stopping.iterations_allowed(int(np.count_nonzero(chain.weights)))
        v = problem.p - group.exact[:, : problem.n] @ b
        copies = self.memory.take((largest_copy(problem.n),), group.exact.dtype)
        taken, _ = _solve(group.exact, b, v, problem.lower, problem.upper, self.stopping.tol, steps, self.stop, copies)
        self.memory.give_back(copies)
        error = self.kernel(chain.kernel).gradient_error(problem, np.float64, self.stopping.tol)
        rounding = error.rounding(b, v, problem.lower, problem.upper, exact=True)
        n_iter, tol = begun.n_iter + int(taken), self.stopping.tol
        found = make_solution(problem, b, v, n_iter=n_iter, tol=tol, rounding=rounding, in_float64=True)
        return found, v

    def _by_itself(self, problem: QP, chain: Chain, begun: Solution) -> tuple[Solution, np.ndarray]:
        """The solution of a problem by `solve`, and its gradient in float64.

        For a problem that the chain's kernel values were too coarse for. It goes on from where it
        is.
        """
        trained = [np.flatnonzero(part) for part in np.split(chain.weights, [len(self.blocks[chain.blocks[0]])])]
        rows = [self.blocks[block][part] for block, part in zip(chain.blocks, trained, strict=True)]
        places = np.concatenate([trained[0], len(self.blocks[chain.blocks[0]]) + trained[1]])
        p, lower, upper = problem.p[places], problem.lower[places], problem.upper[places]
        part = QP((0, 1), p, lower, upper, feasible(begun.b[places], lower, upper))
        found = solve(
            self.X, rows, [part], chain.kernel, self.stopping, budget_mb=self.budget_mb, n_threads=1
        )[0]  # fmt: skip
        b = np.zeros(problem.n)
        b[places] = found.b
        v, support = problem.p.copy(), np.flatnonzero(b)
        values = self.kernel(chain.kernel).values(chain.blocks, np.float64)
        values.subtract(v, np.arange(problem.n), support, b[support], ParallelFor())
        return found._replace(b=b, n_iter=begun.n_iter + found.n_iter), v


class _Memory:
    """Memory for arrays, taken again for others when it is given back.

    To touch new memory may cost a second a GB.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with anything in it."""
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        with self._lock:
            self._free.sort(key=len)
            enough = next((k for k, free in enumerate(self._free) if len(free) >= n_bytes), None)
            if enough is not None:
                return self._free.pop(enough)[:n_bytes].view(dtype).reshape(shape)
            # None is large enough, and the largest goes: there are never more than were used at
            # once.
            del self._free[-1:]
        return np.empty(n_bytes, dtype=np.uint8).view(dtype).reshape(shape)

    def give_back(self, array: np.ndarray) -> None:
        """The array that `take` gave."""
        assert isinstance(array.base, np.ndarray)
        with self._lock:
            self._free.append(array.base)


class _Group:
    """Chains with the same kernel values, computed by the first thread that takes one of them."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.n_left, self.begun = 0, False
        self.K: np.ndarray | None = None
        self.exact: np.ndarray | None = None
        """The values in float64, made when a problem first needs them."""
        self.making_exact = threading.Lock()

    def let_go(self, memory: _Memory) -> None:
        for held in (self.K, self.exact):
            if held is not None:
                memory.give_back(held)
        self.K = self.exact = None


class _Workers:
    """Threads that solve the chains, group by group.

    Each thread begins a group of its own while there is one left.
    """

    def __init__(self, setting: _Setting, chains: Sequence[Chain], n_threads: int) -> None:
        self.setting, self.chains, self.n_threads = setting, chains, n_threads
        self.groups: list[_Group] = []
        for index, chain in enumerate(chains):
            before = chains[index - 1] if index else None
            if before is None or (before.blocks, before.kernel) != (chain.blocks, chain.kernel):
                self.groups.append(_Group())
            self.groups[-1].waiting.append(index)
            self.groups[-1].n_left += 1
        self.changed = threading.Condition()
        self.done: list[tuple[int, Solved]] = []
        self.failure: BaseException | None = None

    def run(self, report: Callable[[int, Solved], None], look: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.n_threads)]
        n_reported = 0
        try:
            for thread in threads:
                thread.start()
            while n_reported < len(self.chains):
                with self.changed:
                    if not self.done and self.failure is None:
                        self.changed.wait(_WAIT_SECONDS)
                    if self.failure is not None:
                        raise self.failure
                    news, self.done = self.done, []
                look()
                for index, solved in news:
                    report(index, solved)
                    n_reported += 1
        finally:
            self.setting.stop[0] = 1
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _work(self) -> None:
        try:
            own: _Group | None = None
            while (taken := self._next(own)) is not None:
                own, index = taken
                solved = self.setting.solve(self.chains[index], own)
                with self.changed:
                    own.n_left -= 1
                    if own.n_left == 0:
                        own.let_go(self.setting.memory)
                    self.done.append((index, solved))
                    self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.failure = self.failure or error
                self.changed.notify_all()

    def _next(self, own: _Group | None) -> tuple[_Group, int] | None:
        """A group and the index of its next chain, or None where no more are to begin.

        The group is the thread's own, else a new one, else another thread's.
        """
        while True:
            with self.changed:
                if self.setting.is_stopped() or self.failure is not None:
                    return None
                if own is not None and own.waiting:
                    return own, own.waiting.pop(0)
                new = next((group for group in self.groups if not group.begun), None)
                if new is not None and sum(g.begun and g.n_left > 0 for g in self.groups) < self.n_threads:
                    new.begun = True
                else:
                    ready = next((group for group in self.groups if group.waiting and group.K is not None), None)
                    if ready is not None:
                        return ready, ready.waiting.pop(0)
                    if not any(group.waiting for group in self.groups):
                        return None
                    self.changed.wait(_WAIT_SECONDS)
                    continue
            K = self.setting.matrix(self.chains[new.waiting[0]])
            with self.changed:
                new.K, own = K, new
                self.changed.notify_all()


# -- compiled -------------------------------------------------------------------------------------


@compiled(fastmath={"contract", "nsz"})
def solve_chain(
    K: np.ndarray,
    p: np.ndarray,
    weights: np.ndarray,
    Cs: np.ndarray,
    tol: float,
    steps: int,
    stop: np.ndarray,
    copies: np.ndarray,
    B: np.ndarray,
    V: np.ndarray,
    outcome: np.ndarray,
) -> None:
    """C-SVC for each of `Cs`, ascending, one from the solution of the one before.

    Parameters
    ----------
    K : (n, >= n) array, float32 or float64, C order
        Kernel values.
    p : (n,) float64 array
        The labels, +1 and -1.
    weights : (n,) float64 array
        Factor on C for each sample; zero for one that is held out.
    Cs : (m,) float64 array
    tol : float
    steps : int
        Steps allowed for each.
    stop : (1,) uint8 array
        The caller may write 1 to it, from another thread, to end the work.
    copies : (`largest_copy(n)`,) array of K's type, written to
        Memory for kernel values of some variables.
    B, V : (m, n) float64 arrays, written to
        Coefficients, and the gradients p - K b.
    outcome : (m, 2) float64 array, written to
        For each C the steps taken, and how it ended.
    """
    n = p.shape[0]
    b, v = np.zeros(n), p.copy()
    lower, upper = np.zeros(n), np.zeros(n)
    for c in range(Cs.shape[0]):
        for k in range(n):
            if p[k] > 0:
                upper[k] = Cs[c] * weights[k]
            else:
                lower[k] = -Cs[c] * weights[k]
        if c > 0:
            start_of_next(b, v, p, lower, upper, Cs[c] / Cs[c - 1])
        taken, ended = _solve(K, b, v, lower, upper, tol, steps, stop, copies)
        outcome[c, 0], outcome[c, 1] = taken, ended
        B[c], V[c] = b, v
        if ended == _STOPPED:
            return


@compiled(fastmath={"contract", "nsz"})
def start_of_next(
    b: np.ndarray, v: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray, ratio: float
) -> None:
    """Multiply b by `ratio`, the growth of its bounds, if that is the better start; v follows.

    All arrays are (n,) float64.
    """
    # p' b - 1/2 b' K b at t b, where K b = p - v.
    linear, quadratic = 0.0, 0.0
    for k in range(b.shape[0]):
        linear += p[k] * b[k]
        quadratic += b[k] * (p[k] - v[k])
    if ratio * linear - ratio * ratio * quadratic / 2 <= linear - quadratic / 2:
        return
    for k in range(b.shape[0]):
        # A variable at its bound stays on it exactly, whatever the rounding.
        at_bound = b[k] * ratio
        b[k] = min(max(at_bound, lower[k]), upper[k])
        v[k] = p[k] - ratio * (p[k] - v[k])


@compiled()
def _extremes(b: np.ndarray, v: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """The largest v of those that may grow, and the least of those that may shrink."""
    most, least = -np.inf, np.inf
    for k in range(b.shape[0]):
        if b[k] < upper[k]:
            most = max(most, v[k])
        if b[k] > lower[k]:
            least = min(least, v[k])
    return most, least


@compiled(fastmath={"contract", "nsz"})
def _solve(
    K: np.ndarray,
    b: np.ndarray,
    v: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    tol: float,
    steps: int,
    stop: np.ndarray,
    copies: np.ndarray,
) -> tuple[int, float]:
    """Optimise b, and v with it, to `tol`; returns the steps taken and how it ended."""
    n = b.shape[0]
    taken, n_failed, smallest, in_float32 = 0, 0, np.inf, True
    most, least = _extremes(b, v, lower, upper)
    gap = most - least
    members = np.empty(n, np.int64)
    while gap > tol:
        if stop[0] != 0:
            return taken, _STOPPED
        if taken >= steps:
            return taken, _LAST_STEP
        q = _active(b, v, lower, upper, (most + least) / 2, min(MARGIN * gap, LARGEST_MARGIN), members)
        target = max(gap / 10, FINAL * tol) if gap > NEARLY_DONE else FINAL * tol
        allowed = min(steps - taken, STEPS_AT_ONCE)
        if q < GATHERED_BELOW * n:
            own = members[:q]
            width = (q + 15) // 16 * 16
            values = copies[: q * width].reshape(q, width)
            _gather(K, own, values)
            now = _step(K, values, own, b, v, lower, upper, target, allowed, in_float32)
        else:
            now = _step(K, K, np.arange(n), b, v, lower, upper, target, allowed, in_float32)
        taken += now
        most, least = _extremes(b, v, lower, upper)
        gap = most - least
        if now < allowed:
            # It reached its target, or rounding stopped it. Gaps that fall no more are given up,
            # in float64 first.
            n_failed = 0 if gap < 0.9 * smallest else n_failed + 1
            if n_failed >= _MOST_FAILED or now == 0:
                if not in_float32:
                    return taken, _STUCK
                in_float32, n_failed = False, 0
        smallest = min(smallest, gap)
    return taken, _REACHED


@compiled()
def _active(
    b: np.ndarray,
    v: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    middle: float,
    margin: float,
    members: np.ndarray,
) -> int:
    """Write the variables to solve next to `members`, and return how many they are.

    They are those between their bounds, and those that violate the conditions or nearly do.
    """
    q = 0
    for k in range(b.shape[0]):
        grows, shrinks = b[k] < upper[k], b[k] > lower[k]
        if (grows and shrinks) or (grows and v[k] > middle - margin) or (shrinks and v[k] < middle + margin):
            members[q] = k
            q += 1
    return q


@compiled()
def _gather(K: np.ndarray, members: np.ndarray, out: np.ndarray) -> None:
    """The values between `members` (q,), ascending, to out (q, >= q)."""
    q = members.shape[0]
    for r in range(q):
        row, into = K[members[r]], out[r]
        for c in range(q):
            into[c] = row[np.uint64(members[c])]


@compiled(fastmath={"contract", "nsz"})
def _step(
    K: np.ndarray,
    values: np.ndarray,
    members: np.ndarray,
    b: np.ndarray,
    v: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    target: float,
    allowed: int,
    in_float32: bool,
) -> int:
    """SMO on `members` (q,), whose kernel values are in `values`; returns the steps.

    v of all variables follows.
    """
    beta, low, up = b[members], lower[members], upper[members]
    diagonal = np.empty(members.shape[0])
    for k in range(members.shape[0]):
        diagonal[k] = values[k, k]
    if in_float32:
        done = solve_working_set(
            values, diagonal, beta, v[members].astype(K.dtype), low, up, target, allowed, NONE, NONE
        )
    else:
        done = solve_working_set(values, diagonal, beta, v[members], low, up, target, allowed, NONE, NONE)
    for k in range(members.shape[0]):
        j = members[k]
        change = beta[k] - b[j]
        if change != 0.0:
            b[j] = beta[k]
            row = K[j]
            for i in range(v.shape[0]):
                v[i] -= change * row[i]
    return done

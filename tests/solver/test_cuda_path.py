"""Chains of C on a GPU, its kernels run on the host: each problem against float64, and all against
those on a CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusvm.kernels import Kernel
from gpusvm.pairs import class_pairs
from gpusvm.params import Stopping
from gpusvm.solver.cuda import _Group
from gpusvm.solver.cuda_kernels import RUN
from gpusvm.solver.cuda_path import solve_chains_on_device
from gpusvm.solver.path import Chain, solve_chains
from gpusvm.solver.precision import ALLOWED
from tests.solver.cuda_shim.build import needs_compiler
from tests.solver.host_device import ProductRows, altered, host_device, host_rows
from tests.solver.test_path import held_out, samples, violation

pytestmark = needs_compiler

CS = np.array([0.1, 1.0, 3.0, 100.0])
RBF = Kernel("rbf", 0.2)


@pytest.fixture
def few_members(monkeypatch):
    """Working sets that begin with few variables, and of which few join at once."""
    for name in ("SMALL", "FIRST", "MOST_JOINING"):
        monkeypatch.setattr(f"gpusvm.solver.working_set.{name}", 16)


def solved(X, blocks, chains, stopping=None, device=None, budget_mb=500.0, **options):
    found = {}
    solve_chains_on_device(
        X, blocks, chains, stopping or Stopping(), device=device or host_device(), budget_mb=budget_mb,
        report=found.__setitem__, **options,
    )  # fmt: skip
    assert sorted(found) == list(range(len(chains)))
    return [found[k] for k in range(len(chains))]


def solved_on_cpu(X, blocks, chains, stopping=None):
    found = {}
    solve_chains(
        X, blocks, chains, stopping or Stopping(), budget_mb=500.0, n_threads=1, report=found.__setitem__
    )  # fmt: skip
    return [found[k] for k in range(len(chains))]


def classes(rng, n, n_classes, d=6):
    """X, and the rows of its classes, which overlap."""
    y = rng.integers(0, n_classes, n)
    X = (rng.normal(size=(n_classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32)
    return X, [np.flatnonzero(y == c) for c in range(n_classes)]


def chains_of(rng, blocks, kernels, n_folds=2, Cs=CS, weighted=False):
    """A chain for each kernel, pair of blocks and fold."""
    chains = []
    for kernel in kernels:
        for i, j in class_pairs(len(blocks)):
            n = len(blocks[i]) + len(blocks[j])
            for _ in range(n_folds):
                weights = held_out(rng, n) * (rng.uniform(0.5, 2.0, n) if weighted else 1.0)
                chains.append(Chain((i, j), kernel, weights, Cs))
    return chains


def check(X, blocks, chains, tol=1e-3, **options):
    """Each problem is solved to its own tolerance, as on a CPU; returns what was found."""
    stopping = Stopping(tol=tol)
    found = solved(X, blocks, chains, stopping, **options)
    for chain, mine, theirs in zip(chains, found, solved_on_cpu(X, blocks, chains, stopping), strict=True):
        rows = np.concatenate([blocks[block] for block in chain.blocks])
        values = X[np.ix_(rows, rows)] if chain.kernel.precomputed else None
        K = chain.kernel(*[X[rows].astype(np.float64)] * 2) if values is None else values.astype(np.float64)
        p = np.repeat([1.0, -1.0], [len(blocks[block]) for block in chain.blocks])
        assert len(mine.solutions) == len(chain.Cs) and mine.seconds > 0
        for c, (own, other) in enumerate(zip(mine.solutions, theirs.solutions, strict=True)):
            assert own.converged and own.kkt_gap <= tol
            assert violation(K, p, own.b, chain.Cs[c] * chain.weights) <= (1 + 2 * ALLOWED) * tol
            assert own.objective == pytest.approx(other.objective, rel=1e-4, abs=1e-6)
            np.testing.assert_allclose(mine.decisions[c], K @ own.b + own.bias, atol=1e-3)
            # Where no variable is free, any bias of an interval is optimal.
            without_bias = [mine.decisions[c] - own.bias, theirs.decisions[c] - other.bias]
            np.testing.assert_allclose(*without_bias, atol=max(1e-3, 5 * tol))
    return found


# -- what a chain may be --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [60, 220])
def test_two_classes_with_several_kernels(rng, n):
    X, blocks = samples(rng, n)
    check(X, blocks, chains_of(rng, blocks, [Kernel("rbf", gamma) for gamma in (0.02, 0.2, 5.0)]), tol=1e-4)


def test_sets_that_grow_over_many_rounds(rng, few_members):
    X, blocks = samples(rng, 220)
    check(X, blocks, chains_of(rng, blocks, [RBF, Kernel("rbf", 1.0)], Cs=CS[:3]))


@pytest.mark.parametrize("kernel", [RBF, Kernel("linear"), Kernel("poly", 0.1, 2, 1.0)], ids=lambda k: k.name)
def test_several_classes_with_weights(rng, kernel):
    X, blocks = classes(rng, 160, 3)
    check(X, blocks, chains_of(rng, blocks, [kernel], Cs=CS[:3], weighted=True), tol=1e-5)


def test_kernel_values_may_be_given(rng):
    X, blocks = samples(rng, 200)
    K = RBF(X, X)
    chains = chains_of(rng, blocks, [Kernel("precomputed")])
    computed = solved(X, blocks, [chain._replace(kernel=RBF) for chain in chains])
    for given, other in zip(check(K, blocks, chains), computed, strict=True):
        np.testing.assert_allclose(given.decisions, other.decisions, atol=2e-3)


def test_a_class_may_be_alone_in_a_fold_but_for_one_sample(rng):
    X, blocks = samples(rng, 80)
    weights = np.ones(80)
    weights[len(blocks[0]) + 1 :] = 0
    check(X, blocks, [Chain((0, 1), RBF, weights, CS)])


def test_a_C_that_changes_nothing_costs_no_step(rng):
    X, blocks = samples(rng, 100)
    X[blocks[0], 0] += 20  # far apart: no coefficient is at its bound
    (found,) = check(X, blocks, [Chain((0, 1), RBF, held_out(rng, 100), np.array([50.0, 100.0, 1000.0]))])
    assert found.solutions[0].n_iter > 0
    for solution in found.solutions[1:]:
        assert solution.n_iter == 0
        np.testing.assert_array_equal(solution.b, found.solutions[0].b)


def test_each_C_begins_where_the_one_before_ended(rng):
    X, blocks = samples(rng, 200)
    chain = Chain((0, 1), RBF, np.ones(200), np.geomspace(1.0, 4.0, 9))
    (together,) = solved(X, blocks, [chain])
    alone = solved(X, blocks, [chain._replace(Cs=chain.Cs[c : c + 1]) for c in range(9)])
    assert together.solutions[0].n_iter == alone[0].solutions[0].n_iter
    saved = sum(other.solutions[0].n_iter for other in alone) - sum(own.n_iter for own in together.solutions)
    assert saved > 0.1 * sum(other.solutions[0].n_iter for other in alone)
    for own, other in zip(together.solutions, alone, strict=True):
        assert own.objective == pytest.approx(other.solutions[0].objective, rel=1e-4)


# -- precision ------------------------------------------------------------------------------------


def test_what_float32_is_too_coarse_for_goes_on_in_float64(rng):
    X, blocks = samples(rng, 120, d=4)
    chains = chains_of(rng, blocks, [RBF], Cs=np.array([0.001, 0.01, 10.0]))
    for found in check(X, blocks, chains, tol=1e-6):
        assert [solution.in_float64 for solution in found.solutions] == [False, False, True]


def test_a_tolerance_that_float64_cannot_reach_ends_each_C(rng):
    X, blocks = samples(rng, 60)
    chain = Chain((0, 1), RBF, held_out(rng, 60), CS[:3])
    (found,) = solved(X, blocks, [chain], Stopping(tol=1e-17))
    rows, p = np.concatenate(blocks), np.repeat([1.0, -1.0], [len(block) for block in blocks])
    K = RBF(X[rows].astype(np.float64), X[rows].astype(np.float64))
    for C, solution, decisions in zip(chain.Cs, found.solutions, found.decisions, strict=True):
        assert not solution.converged and solution.in_float64
        np.testing.assert_allclose(decisions, K @ solution.b + solution.bias, atol=1e-9)
        assert violation(K, p, solution.b, C * chain.weights) < 1e-9


# -- what is shared, and what is not --------------------------------------------------------------


def test_rows_are_computed_once_for_all_folds_pairs_and_C(rng, monkeypatch):
    X, blocks = classes(rng, 150, 3)
    n_computed, compute = {"float32": 0, "float64": 0}, ProductRows.compute

    def counted(self, rows, *arguments):
        n_computed[self.dtype.name] += len(rows)
        compute(self, rows, *arguments)

    monkeypatch.setattr(ProductRows, "compute", counted)
    solved(X, blocks, chains_of(rng, blocks, [RBF], n_folds=4))
    assert n_computed["float32"] == len(X) and n_computed["float64"] <= len(X)


def test_results_are_the_same_in_any_company(rng):
    X, blocks = classes(rng, 140, 3)
    chains = chains_of(rng, blocks, [RBF, Kernel("rbf", 1.0)], Cs=CS[:3])
    device = replace(host_device(), rows=host_rows)
    for k, found in enumerate(solved(X, blocks, chains, device=device)):
        (alone,) = solved(X, blocks, [chains[k]], device=device)
        np.testing.assert_array_equal(found.decisions, alone.decisions)


def test_a_problem_given_up_leaves_a_set_whose_values_were_not_brought(rng, monkeypatch, few_members):
    """It ends with variables that have just joined. The next C needs their kernel values."""
    X, blocks = samples(rng, 150)
    given_up, ended = [], _Group.ended

    def given_up_once(self, live, report, clock):
        found = ended(self, live, report, clock)
        if not given_up and report.action[0] == RUN and 0 < report.n_new[0] < report.n_members[0]:
            given_up.append(True)
            found[:] = True
        return found

    def in_float64(X, kernel, dtype):
        rows = ProductRows(X, kernel, dtype)
        rows.fits_float32 = False  # else it would go on in float64
        return rows

    monkeypatch.setattr(_Group, "ended", given_up_once)
    chain = Chain((0, 1), RBF, held_out(rng, 150), CS)
    stopping = Stopping(max_iter=2000)
    (found,) = solved(X, blocks, [chain], stopping, device=replace(host_device(), rows=in_float64))
    (expected,) = solved_on_cpu(X, blocks, [chain], stopping)
    assert given_up and not found.solutions[0].converged
    for own, other in zip(found.solutions[1:], expected.solutions[1:], strict=True):
        assert own.converged and own.objective == pytest.approx(other.objective, rel=1e-4)


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget_mb", [0.25, 0.5])
def test_chains_wait_where_not_all_their_rows_fit(rng, monkeypatch, budget_mb):
    monkeypatch.setattr("gpusvm.solver.cuda.ROWS_FOR_EACH", 16)
    X, blocks = classes(rng, 180, 3)
    device, n_live = host_device(largest_set=48), []

    def smo(live, *arrays):
        n_live.append(len(live))
        device.kernels.smo(live, *arrays)

    chains = chains_of(rng, blocks, [Kernel("rbf", 1.0)], Cs=CS[:3])
    check(X, blocks, chains, device=altered(device, smo=smo), budget_mb=budget_mb)
    assert min(n_live) < len(chains)


def test_memory_that_runs_out_in_the_middle_is_met_with_smaller_groups(rng, few_members):
    class OutOfMemory(Exception):
        pass

    X, blocks = classes(rng, 120, 3)
    device, calls = host_device(), []

    def gather(live, *arrays, **sizes):
        calls.append(len(live))
        if len(calls) > 3 and len(live) > 2:
            raise OutOfMemory("out of memory allocating 1 byte")
        device.kernels.gather(live, *arrays, **sizes)

    small = replace(altered(device, gather=gather), out_of_memory=(OutOfMemory,))
    check(X, blocks, chains_of(rng, blocks, [RBF]), device=small)
    assert calls[0] == 6 and min(calls) <= 2


def test_members_are_exchanged_where_sets_are_too_small(rng):
    X, blocks = samples(rng, 150)
    found = check(X, blocks, chains_of(rng, blocks, [Kernel("rbf", 1.0)]), device=host_device(largest_set=24))
    assert max(np.count_nonzero(solution.b) for solution in found[0].solutions) > 24


def test_a_chain_that_does_not_fit_is_an_error_that_names_the_budget(rng):
    X, blocks = samples(rng, 600)
    with pytest.raises(MemoryError, match=r"cache_size=0 MB is too little for a problem of \d+ and \d+ samples"):
        solved(X, blocks, [Chain((0, 1), RBF, np.ones(600), CS)], budget_mb=0.3)


def test_steps_are_counted_and_limited_for_each_C(rng):
    X, blocks = samples(rng, 100)
    (found,) = solved(X, blocks, [Chain((0, 1), RBF, np.ones(100), CS)], Stopping(max_iter=5))
    assert all(solution.n_iter == 5 and not solution.converged for solution in found.solutions)
    assert not any(solution.in_float64 for solution in found.solutions)


@pytest.mark.parametrize("where", ["look", "report"])
def test_what_the_caller_raises_ends_the_work(rng, where):
    X, blocks = samples(rng, 60)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    options = {"report": lambda *arguments: None, where: interrupt}
    with pytest.raises(KeyboardInterrupt):
        solve_chains_on_device(
            X, blocks, [Chain((0, 1), RBF, np.ones(60), CS)], Stopping(), device=host_device(), budget_mb=100.0,
            **options,
        )  # fmt: skip

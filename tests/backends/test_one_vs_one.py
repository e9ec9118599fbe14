"""Labels and problems of pairs, as the backends share them."""

from __future__ import annotations

import numpy as np
import pytest

from gpusvm.backends import one_vs_one
from gpusvm.problem import c_svc


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 1, 7], dtype=np.int64),
        np.array([-128, 127, 0], dtype=np.int8),
        np.array([2**64 - 1, 2**64 - 3], dtype=np.uint64),
        np.array([-(2**63), -(2**63) + 5], dtype=np.int64),
        np.array([-(2**63), 2**63 - 1, 4], dtype=np.int64),
        np.array([0, 2**16 - 1], dtype=np.uint32),
        np.array([0, 2**16], dtype=np.int32),
        np.array([True, False, True]),
        np.array([0.5, -1.5, 0.5]),
        np.array(["b", "a", "b"]),
        np.arange(2**16 + 5, dtype=np.int64)[::-1],
        np.arange(2**16 + 5, dtype=np.int64) * 3,
    ],
    ids=lambda labels: f"{labels.dtype} {labels[0]}",
)
def test_codes_are_those_of_numpy(labels):
    classes, codes = one_vs_one.codes_of(labels)
    expected, places = np.unique(labels, return_inverse=True)
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(codes, places)
    assert classes.dtype == labels.dtype and (codes.dtype == np.uint16) == (len(classes) <= 2**16)


@pytest.mark.parametrize("C", [2.0, np.inf, None])
@pytest.mark.parametrize("sizes", [(4, 7, 1), (0, 3, 2), (0, 0, 2), (0, 0, 0)])
def test_problems_of_pairs_by_their_definition(rng, sizes, C):
    """Of classes without samples too, which a certificate asks for."""
    bounds = [np.full(n, C) if C else rng.uniform(size=n) for n in sizes]
    pairs = [(0, 1), (0, 2), (1, 2)]
    problems = c_svc(pairs, bounds)
    for (i, j), problem in zip(pairs, problems, strict=True):
        none = [np.zeros(len(bounds[c])) for c in (i, j)]
        assert problem.blocks == (i, j)
        np.testing.assert_array_equal(problem.p, np.concatenate([none[0] + 1, none[1] - 1]))
        np.testing.assert_array_equal(problem.upper, np.concatenate([bounds[i], none[1]]))
        np.testing.assert_array_equal(problem.lower, np.concatenate([none[0], -bounds[j]]))
    if all(sizes):
        share = np.shares_memory(problems[1].upper, problems[2].upper)
        assert share == bool(C), "with one bound for all, problems share their arrays"

"""The order of class pairs, LIBSVM's: where a pair stands, and which pairs a class has."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np


def class_pairs(n_classes: int) -> list[tuple[int, int]]:
    """Every pair (i, j) with i < j, in LIBSVM's order: (0, 1), (0, 2), ..., (1, 2), ..."""
    return list(combinations(range(n_classes), 2))


def pair_index(low: np.ndarray, high: np.ndarray, n_classes: int) -> np.ndarray:
    """Where the pairs (low, high), low < high, stand in the order of `class_pairs`.

    Before those of class i, of k classes, lie i (2k - i - 1) / 2.
    """
    return low * (2 * n_classes - low - 1) // 2 + high - low - 1


def own_pairs(n_classes: int) -> np.ndarray:
    """For each class, its pairs with each other class in their order.

    Their indices: (n_classes, n_classes - 1) int64.
    """
    i = np.arange(n_classes)[:, None]
    others = np.arange(n_classes - 1) + (np.arange(n_classes - 1) >= i)
    return pair_index(np.minimum(i, others), np.maximum(i, others), n_classes)


def pairs_reordered(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pairs of classes in another order stand now, and which of them turn around.

    Parameters
    ----------
    order : (n_classes,) int64 array
        For each place in the other order, the index that its class has now.

    Returns
    -------
    columns : (n_pairs,) int64 array
        For each pair of the other order, its index in the present one.
    signs : (n_pairs,) float64 array
        -1 where its classes have changed places, so that decision values, coefficients and
        intercepts change sign.
    """
    n_classes = len(order)
    first, second = np.triu_indices(n_classes, 1)
    i, j = order[first], order[second]
    columns = pair_index(np.minimum(i, j), np.maximum(i, j), n_classes)
    return columns, np.where(i < j, 1.0, -1.0)


def pair_columns(n_classes: int) -> Iterator[tuple[int, slice]]:
    """For each class i, the columns of its pairs with the classes after it."""
    start = 0
    for i in range(n_classes - 1):
        stop = start + n_classes - 1 - i
        yield i, slice(start, stop)
        start = stop

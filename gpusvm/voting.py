"""What the decision values of class pairs say about classes: votes, one-against-rest scores."""

from __future__ import annotations

import numpy as np

from gpusvm.kernels import Array, array_module
from gpusvm.pairs import pair_columns


def vote(decisions: Array, n_classes: int, *, compiled: bool = False) -> Array:
    """Index of the class with most votes, the first of equals (LIBSVM's svm_predict_values).

    Parameters
    ----------
    decisions : (n, n_pairs) array
        A value above zero is a vote for the first class of the pair, any other for the second.
    compiled : bool
        Whether to use the solver's compiled code: the same result, sooner with many classes.

    Returns
    -------
    (n,) int64 array
    """
    if compiled:
        from gpusvm.solver import prediction

        return prediction.vote(decisions, n_classes)
    xp = array_module(decisions)
    votes = xp.zeros((len(decisions), n_classes), dtype=np.int64)
    for i, columns in pair_columns(n_classes):
        first_wins = decisions[:, columns] > 0
        votes[:, i] += first_wins.sum(axis=1)
        votes[:, i + 1 :] += ~first_wins
    return votes.argmax(axis=1)


def one_vs_rest(decisions: Array, n_classes: int, *, compiled: bool = False) -> Array:
    """Votes of each class, ordered within equal counts by the summed decision values.

    The sum s of a class's decision values is squeezed into (-1/3, 1/3) by s / (3 (|s| + 1)), so
    that it never outweighs a vote: scikit-learn's ``decision_function_shape="ovr"``.

    Parameters
    ----------
    decisions : (n, n_pairs) array
    compiled : bool
        As for `vote`.

    Returns
    -------
    (n, n_classes) float64 array
    """
    if compiled:
        from gpusvm.solver import prediction

        return prediction.one_vs_rest(decisions, n_classes)
    xp = array_module(decisions)
    votes = xp.zeros((len(decisions), n_classes))
    sums = xp.zeros_like(votes)
    for i, columns in pair_columns(n_classes):
        values = decisions[:, columns]
        first_wins = values >= 0
        votes[:, i] += first_wins.sum(axis=1)
        votes[:, i + 1 :] += ~first_wins
        sums[:, i] += values.sum(axis=1)
        sums[:, i + 1 :] -= values
    return votes + sums / (3 * (xp.abs(sums) + 1))

"""Scaling of the features of a table, by scikit-learn's transformers.

A kernel adds up differences of all features, so one in thousands beside one in hundredths would be
all that counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusvm.errors import DataError, UsageError
from gpusvm.params import Scaling

_NAMED_COLUMNS = 5


def default_scaling(X: Any) -> Scaling:
    """What suits samples: standardisation, or for a sparse matrix what leaves its zeros alone.

    Parameters
    ----------
    X : (n, n_features) array or CSR matrix

    Returns
    -------
    {"standard", "maxabs"}
    """
    return "standard" if isinstance(X, np.ndarray) else "maxabs"


def fit_scaling(scaling: Scaling, X: Any, columns: tuple[str, ...] = ()) -> list[Any]:
    """The fitted step of a scaling, as a list of none or one.

    Columns that are constant become 0 under "standard", and the lower end of [0, 1] under
    "minmax".

    Parameters
    ----------
    scaling : {"none", "standard", "maxabs", "minmax"}
        Standardisation to mean 0 and standard deviation 1; division by the largest absolute value;
        to [0, 1].
    X : (n, n_features) array or CSR matrix
        The training samples, and no others.
    columns : tuple of str
        Names of the features, for messages; () where they have none.

    Returns
    -------
    list of transformers

    Raises
    ------
    UsageError
        The scaling would make a sparse matrix dense.
    DataError
        Numbers so large that they have no standard deviation.
    """
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

    if scaling == "none":
        return []
    if scaling != "maxabs" and not isinstance(X, np.ndarray):
        raise UsageError(f"--scale {scaling} would fill a sparse table with numbers; use --scale maxabs or none")
    kind = {"standard": StandardScaler, "maxabs": MaxAbsScaler, "minmax": MinMaxScaler}[scaling]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        step = kind().fit(X.astype(np.float64, copy=False))
    # scikit-learn scales by 1 where the variance overflows.
    spread = step.var_ if scaling == "standard" else step.scale_
    bad = np.flatnonzero(~np.isfinite(spread) | (step.scale_ <= 0))
    if len(bad):
        names = [columns[j] if columns else str(j + 1) for j in bad[:_NAMED_COLUMNS]]
        raise DataError(
            f"the numbers in column {', '.join(names)} are too large, or too small, to be scaled; divide"
            " them, --drop the column, or use --scale none"
        )
    return [step]

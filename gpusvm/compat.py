"""Private names of other libraries: those that we use, why, and in which versions they were seen.

They may go or change in any release, unannounced. `tests/test_compat.py` looks at each, so that a
new version tells in a test what to check. A name is imported when it is first asked for: ``from
gpusvm.compat import Interval``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

SEEN = {"scikit-learn": ("1.6", "1.9"), "numba": ("0.60", "0.68"), "joblib": ("1.4", "1.6")}
"""The oldest version that we take of a library, and the newest in which all of this was looked
at."""


@dataclass(frozen=True)
class Borrowed:
    """A private name of a library.

    Attributes
    ----------
    library : str
        As in `SEEN`.
    path : str
        Its module and its name in it, a dot between.
    why : str
        What we use it for, and why there is no public way.
    parameters : tuple of str
        Those of its parameters that we give, if it is called.
    attributes : tuple of str
        Its own attributes that we read, override or set.
    """

    library: str
    path: str
    why: str
    parameters: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


BORROWED = {
    "Interval": Borrowed(
        "scikit-learn", "sklearn.utils._param_validation.Interval",
        "ranges of parameters in the words of scikit-learn's own estimators", ("type", "left", "right", "closed"),
    ),
    "StrOptions": Borrowed(
        "scikit-learn", "sklearn.utils._param_validation.StrOptions",
        "words that a parameter may be, checked as scikit-learn's own estimators check them", ("options",),
    ),
    "safe_indexing": Borrowed(
        "scikit-learn", "sklearn.utils._safe_indexing",
        "rows of whatever samples a kernel function takes: lists, tables, sparse", ("X", "indices"),
    ),
    "num_samples": Borrowed(
        "scikit-learn", "sklearn.utils.validation._num_samples",
        "how many samples there are of whatever kind, with scikit-learn's errors", ("x",),
    ),
    "FunctionCache": Borrowed(
        "numba", "numba.core.caching.FunctionCache",
        "keeps compiled code on disk; cache=True fails where no folder can be written or a file is damaged",
        ("py_func",), ("load_overload", "save_overload", "flush", "cache_path", "_index_key"),
    ),
    "IndexDataCacheFile": Borrowed(
        "numba", "numba.core.caching.IndexDataCacheFile",
        "the kept code's index, with a stamp of all files of the folder and not of the function's own",
        ("cache_path", "filename_base", "source_stamp"), ("_load_index",),
    ),
    "Dispatcher": Borrowed(
        "numba", "numba.core.dispatcher.Dispatcher",
        "a compiled function: its types without those of literals, and for which it is compiled already", (),
        ("get_call_template", "signatures"),
    ),
    "cgutils": Borrowed(
        "numba", "numba.core.cgutils",
        "builds loops and addresses in compiled code; numba.extending has no such functions",
    ),
    "joblib_parallel": Borrowed(
        "joblib", "joblib.parallel",
        "whether a parallel_config says n_jobs: joblib's answer is 1 also where nobody said anything", (),
        ("_backend", "default_parallel_config", "get_active_backend"),
    ),
}  # fmt: skip
"""By the names under which they are imported from here."""

LIBSVM_ATTRIBUTES = {
    "sparse": "_sparse", "n_support": "_n_support", "dual_coef": "_dual_coef_", "intercept": "_intercept_",
    "probA": "_probA", "probB": "_probB", "gamma": "_gamma", "probability": "_effective_probability",
    "n_iter": "_num_iter",
}  # fmt: skip
"""What a fitted SVC, SVR or OneClassSVM of scikit-learn keeps beside its public attributes, and
predicts with.

There is no public way to make such an estimator of known coefficients, as `to_sklearn` does.
"""

ESTIMATOR_ATTRIBUTES = ("_parameter_constraints", "_validate_params", "_get_param_names")
"""What scikit-learn's estimators check their parameters by; ours set and call the same."""


def __getattr__(name: str) -> Any:
    if name not in BORROWED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = BORROWED[name].path.rpartition(".")
    return getattr(import_module(module), own)


def set_libsvm_attributes(estimator: Any, **values: Any) -> None:
    """Give a scikit-learn estimator what it predicts with: a value for each attribute.

    The attributes are those of `LIBSVM_ATTRIBUTES`.
    """
    for name, attribute in LIBSVM_ATTRIBUTES.items():
        setattr(estimator, attribute, values[name])

"""What a training is asked for: the problem, when to stop, and what it may use.

The range of each parameter stands here alone, and so do the names of what can be asked for.
Nothing heavy is imported here, since the command's help reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from gpusvm.kernels import Kernel

_LARGEST_WHOLE = 2**31 - 1
"""LIBSVM and cuML keep whole numbers in 32 bits."""


@dataclass(frozen=True)
class Range:
    """The values that a numeric parameter may have.

    Attributes
    ----------
    low : float
        The least value, or the bound that it must exceed.
    high : float
        The largest value, where there is one.
    whole : bool
        Whether it is a whole number; else any finite one.
    includes_low : bool
    includes_infinity : bool
    includes_zero : bool
        False for a number of jobs as joblib counts them: -1 is every core, and 0 means nothing.
    optional : bool
        Whether it may be None.
    """

    low: float
    high: float = math.inf
    whole: bool = False
    includes_low: bool = True
    includes_infinity: bool = False
    includes_zero: bool = True
    optional: bool = False

    def holds(self, value: Any) -> bool:
        """Whether `value` is a number of this range, no bool, or None where that is allowed."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        try:
            number = float(value)
        except OverflowError:  # a whole number that no float can hold
            return False
        if self.whole and abs(number) > _LARGEST_WHOLE:
            return False
        if not math.isfinite(number) and not (self.includes_infinity and number == math.inf):
            return False
        if number == 0 and not self.includes_zero:
            return False
        return number <= self.high and (number >= self.low if self.includes_low else number > self.low)

    @property
    def words(self) -> str:
        """What the value must be, as it follows "must be"."""
        kind = "a whole number" if self.whole else "a number"
        if not self.includes_zero:
            return f"{kind} other than 0"
        if self.low == -math.inf:
            return "a finite number"
        most = "" if self.high == math.inf else f" and at most {self.high:g}"
        return f"{kind} {'of at least' if self.includes_low else 'above'} {self.low:g}{most}"

    def constraints(self) -> list[Any]:
        """The same in the form that scikit-learn's estimators check."""
        from gpusvm.compat import Interval  # takes a second, and the command's help reads this file

        unbounded = self.low == -math.inf
        high = _LARGEST_WHOLE if self.whole else None if self.high == math.inf else self.high
        left = self.includes_low and not unbounded
        right = self.includes_infinity or (high is not None and (left or not self.whole))
        interval = Interval(
            Integral if self.whole else Real, None if unbounded else self.low, high, closed=_CLOSED[left, right]
        )
        return [interval, None] if self.optional else [interval]


_CLOSED = {(True, True): "both", (True, False): "left", (False, True): "right", (False, False): "neither"}
"""scikit-learn's word for an interval that includes its left, and its right end."""

RANGES: Mapping[str, Range] = {
    "C": Range(0.0, includes_low=False, includes_infinity=True),
    "epsilon": Range(0.0),
    "nu": Range(0.0, includes_low=False, high=1.0),
    "gamma": Range(0.0),
    "degree": Range(0, whole=True),
    "coef0": Range(-math.inf),
    "tol": Range(0.0, includes_low=False),
    "max_iter": Range(-1, whole=True),
    "time_limit": Range(0.0, includes_low=False, optional=True),
    "cache_size": Range(0.0, includes_low=False, optional=True),
    "n_jobs": Range(-math.inf, whole=True, includes_zero=False, optional=True),
    "device": Range(0, whole=True, optional=True),
}
"""The range of each numeric parameter, whichever way it comes in: Python, command line, suite or
model file."""

TASKS = {"c_svc": "classification", "epsilon_svr": "regression", "one_class": "novelty detection"}
"""The problems that can be stated, under LIBSVM's names, and what each is for."""

TASK_PARAMETERS = {"c_svc": ("C",), "epsilon_svr": ("C", "epsilon"), "one_class": ("nu",)}
"""Which numbers of a `Problem` mean something for each of them."""


KERNEL_PARAMETERS = {
    "rbf": ("gamma",),
    "linear": (),
    "poly": ("degree", "gamma", "coef0"),
    "sigmoid": ("gamma", "coef0"),
    "precomputed": (),
}
"""The parameters that each kernel has; of the others a `Kernel` holds values that mean nothing."""

KERNEL_NAMES = tuple(KERNEL_PARAMETERS)

Scaling = Literal["none", "standard", "maxabs", "minmax"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
"""How the features of a table can be scaled; see `gpusvm.preprocess.scaling`."""

MOVE_NAMES = ("shifts", "rotations", "scales", "shears", "thickness")
"""Sets of moves of images; see `gpusvm.preprocess.augment`."""


def constraints(*names: str) -> dict[str, list[Any]]:
    """What scikit-learn's estimators check of these numeric parameters."""
    return {name: RANGES[name].constraints() for name in names}


def require(name: str, value: Any, *, label: str = "") -> None:
    """Raise ValueError where `value` is outside the range of parameter `name`.

    `label`, if there is one, stands for the name in the message.
    """
    found = RANGES[name]
    if not found.holds(value):
        raise ValueError(f"{label or name} must be {found.words}; got {_quoted(value)}")


def _quoted(value: Any) -> str:
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except (RecursionError, ValueError):  # nested too deep, or thousands of digits
        return f"such a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."


@dataclass(frozen=True)
class Problem:
    """What is minimised: an SVM with this kernel, penalty and weights. A model file stores it.

    Attributes
    ----------
    kernel : Kernel
    C : float
        Penalty of the slack variables; infinite for a hard margin; means nothing for "one_class",
        and is 1.
    class_weight : tuple of float, optional
        One factor on C for each class, in the order of the sorted class labels; None for all ones.
    task : str
        One of `TASKS`.
    epsilon : float, optional
        Deviation from a target that costs nothing; for "epsilon_svr", and only there.
    nu : float, optional
        Share of the samples that may be outside at most; for "one_class", and only there.
    """

    kernel: Kernel
    C: float = 1.0
    class_weight: tuple[float, ...] | None = None
    task: str = "c_svc"
    epsilon: float | None = None
    nu: float | None = None

    def __post_init__(self) -> None:
        require("C", self.C)
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}; got {_quoted(self.task)}")
        for name, task in (("epsilon", "epsilon_svr"), ("nu", "one_class")):
            if self.task == task:
                require(name, getattr(self, name))
            elif getattr(self, name) is not None:
                raise ValueError(f"{name} means nothing for {self.task}; got {_quoted(getattr(self, name))}")
        if self.task == "one_class" and self.C != 1.0:
            raise ValueError(f"C means nothing for one_class; got {_quoted(self.C)}")
        if self.class_weight is not None and not self.classifies:
            raise ValueError(f"class_weight means nothing for {self.task}")

    @property
    def classifies(self) -> bool:
        """Whether there are classes, and a decision function for each pair of them.

        Else there is one function.
        """
        return self.task == "c_svc"


@dataclass(frozen=True)
class Stopping:
    """How exactly the problem is solved, and after how much work it is given up.

    A model file stores it.

    Attributes
    ----------
    tol : float
        Largest KKT violation left when the solver stops.
    max_iter : int
        Iterations allowed for each class pair; -1 for LIBSVM's own bound, see
        `iterations_allowed`.
    shrinking : bool
        Whether LIBSVM may set variables aside that seem to have reached a bound.
    time_limit : float, optional
        Seconds after which training ends with what it has; None for no such limit.
    """

    tol: float = 1e-3
    max_iter: int = -1
    shrinking: bool = True
    time_limit: float | None = None

    def __post_init__(self) -> None:
        require("tol", self.tol)
        require("max_iter", self.max_iter)
        require("time_limit", self.time_limit)

    def iterations_allowed(self, n: int) -> int:
        """Iterations after which a pair of `n` samples is given up.

        Without a `max_iter`, LIBSVM's own bound: ten million, or 100 for each sample where that is
        more. (scikit-learn's copy of LIBSVM has none, and can run without end.)

        Parameters
        ----------
        n : int
            Samples of the pair.

        Returns
        -------
        int
        """
        return self.max_iter if self.max_iter >= 0 else min(max(MOST_ITERATIONS, 100 * n), _LARGEST_WHOLE)


MOST_ITERATIONS = 10_000_000
"""Iterations after which LIBSVM gives up a problem of up to 100,000 samples (svm.cpp,
`max_iter`)."""


@dataclass(frozen=True)
class Resources:
    """What training and prediction may use.

    It belongs to the machine at hand: no model file stores it.

    Attributes
    ----------
    cache_size : float, optional
        Memory for kernel values in MB; None for `gpusvm.memory.default_cache_mb`.
    n_jobs : int, optional
        Class pairs solved side by side on a CPU, as joblib counts; None is every core, or what an
        enclosing ``joblib.parallel_config`` says.
    device : int, optional
        CUDA device of a GPU backend, counted among the visible ones; None is the current one.
    """

    cache_size: float | None = None
    n_jobs: int | None = None
    device: int | None = None

    def __post_init__(self) -> None:
        require("cache_size", self.cache_size)
        require("device", self.device)
        require("n_jobs", self.n_jobs)

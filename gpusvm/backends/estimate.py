"""About how long a training of given sizes takes, so that a long one can name a faster backend.

The time also depends on how hard the classes are to tell apart, and on the parameters, which sizes
do not show. So these are estimates to choose a backend by, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SECONDS = 5.0
"""scikit-learn's expected time below which there is nothing to say."""
LEAST_SPEEDUP = 2.0
"""How many times faster `native-cpu` must be expected to be before it is recommended."""


@dataclass(frozen=True)
class Cost:
    """What one core needs, in seconds, for the parts of the work.

    `per_pair` is of each class pair, `per_sample` of each sample in each pair, and `per_value` of
    each value in a pair's kernel matrix, at few features and with two classes.
    """

    per_pair: float
    per_sample: float
    per_value: float


COSTS = {
    "sklearn": Cost(per_pair=5e-5, per_sample=2.0e-5, per_value=1.0e-7),
    "native-cpu": Cost(per_pair=2e-5, per_sample=6e-6, per_value=4.7e-9),
}
"""Fitted by hand to `MEASURED`."""

DOUBLING_FEATURES = 1000
"""So many features make a kernel value cost twice what it costs with none: below, the rest
dominates."""


@dataclass(frozen=True)
class Measurement:
    """Fit times of both backends on one problem, in seconds.

    Measured on `n_cores` cores of the machine that `source` names.
    """

    what: str
    n_per_class: tuple[int, ...]
    n_features: int
    sklearn_seconds: float
    native_seconds: float
    source: str
    n_cores: int = 2


_UNRECORDED = "27 November 2026, an Intel Xeon with AVX-512 that did other work too, not kept in benchmarks/results"
MEASURED = (
    Measurement("MNIST", (6_000,) * 10, 784, 95.5, 6.0, "full-2026-11-25-100421.json"),
    Measurement("MNIST again", (6_000,) * 10, 784, 79.3, 4.72, "full-2026-11-23-083650.json"),
    Measurement("MNIST, linear kernel", (6_000,) * 10, 784, 91.1, 14.0, "kernels-2026-11-25-102540.json"),
    Measurement("Adult (a9a.t)", (12_435, 3_846), 122, 12.2, 0.70, _UNRECORDED),
    Measurement("make_classification, 2 classes", (10_000,) * 2, 54, 29.0, 2.2, _UNRECORDED),
    Measurement("make_classification, 3 classes", (10_000,) * 3, 100, 18.2, 2.3, _UNRECORDED),
    Measurement("letter", (577,) * 26, 16, 8.5, 1.3, _UNRECORDED),
    Measurement("200 classes of 10 samples", (10,) * 200, 64, 1.3, 0.50, _UNRECORDED),
)


def expected_seconds(backend_name: str, n_per_class: Sequence[int], n_features: int, n_cores: int) -> float:
    """Fit time to expect, from the sizes alone; within a factor of 4 of everything in `MEASURED`.

    Parameters
    ----------
    backend_name : str
        ``"sklearn"`` or ``"native-cpu"``.
    n_per_class : sequence of int
        Samples of each class.
    n_features, n_cores : int

    Returns
    -------
    float
        Seconds; 0 where there are not two classes to tell apart.

    Raises
    ------
    KeyError
        Nothing is known of that backend.

    Notes
    -----
    The work of a pair of m samples, one among k classes, is
    per_pair + per_sample m + per_value m^2 (1 + n_features / 1000) / (k - 1).
    Division by k - 1 is what the measurements say: the more classes, the easier each pair. A pair
    is counted on one core, which `native-cpu` can better where there are more cores than pairs.
    """
    cost = COSTS[backend_name]
    sizes = sorted((n for n in n_per_class if n > 0), reverse=True)
    k, n_samples = len(sizes), sum(sizes)
    if k < 2:
        return 0.0
    per_value = cost.per_value * (1 + n_features / DOUBLING_FEATURES) / (k - 1)
    n_pairs, largest = k * (k - 1) // 2, sizes[0] + sizes[1]
    # The sums over all pairs (i, j) of n_i + n_j and of (n_i + n_j)^2, without a loop over the
    # pairs.
    members, values = (k - 1) * n_samples, (k - 2) * sum(n * n for n in sizes) + n_samples**2
    total = cost.per_pair * n_pairs + cost.per_sample * members + per_value * values
    longest = cost.per_pair + cost.per_sample * largest + per_value * largest**2
    return max(total / min(n_cores, n_pairs), longest)


def hint(n_per_class: Sequence[int], n_features: int, n_cores: int) -> str:
    """One line that recommends `native` where scikit-learn is expected to be slow; else empty.

    For where `auto` falls to scikit-learn. Empty for a short job, and where `native-cpu` is not
    expected to be at least twice as fast. Parameters as in `expected_seconds`.
    """
    slow = expected_seconds("sklearn", n_per_class, n_features, n_cores)
    fast = expected_seconds("native-cpu", n_per_class, n_features, n_cores)
    if slow < LEAST_SECONDS or slow < LEAST_SPEEDUP * fast:
        return ""
    return (
        f"scikit-learn is expected to take about {_rounded(slow)} on these {sum(n_per_class):,} samples; "
        f'--backend native about {_rounded(fast)} (gpusvm\'s own exact solver; in Python backend="native")'
    )


def _rounded(seconds: float) -> str:
    """Seconds, minutes or hours to one significant figure: an estimate can bear no more."""
    unit, length = ("s", 1) if seconds < 90 else ("min", 60) if seconds < 90 * 60 else ("h", 3600)
    return f"{float(f'{seconds / length:.1g}'):g} {unit}"

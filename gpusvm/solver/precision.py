"""When float32 kernel values are too coarse for the tolerance.

That is told from the data and from the coefficients reached. Problems that are solved whole in
`tiny` are float64 throughout; any other begins in float32 where its kernel fits
(`KernelOfBlocks.fits_float32`), and goes on in float64 once what stands here says so.

The gradient v = y - K beta is summed in float64, but the values of K are rounded. Each rounding
error meets a coefficient, so what they do to v grows with the norm of beta: with C, with the
number of support vectors, and with the size of the kernel values. A bound from C alone would send
most problems to float64 in vain. So the coefficients reached are looked at instead: by a bound
where it suffices, else by evaluating the gradient of some samples in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpusvm.kernels import MOST_SPREAD
from gpusvm.solver import working_set
from gpusvm.solver.compilation import compiled

SAMPLED = 64
"""Samples whose gradients are evaluated in float64, at least. The largest error of all may be
twice theirs."""

SAMPLING_WORK = 2**23
"""Multiplications up to which the gradients of more samples are evaluated."""

ALLOWED = 0.25
"""Part of the tolerance by which a gradient may be off. A gap is a difference of two: it is then
off by half."""

ALLOWED_DRIFT = 0.01
"""Part of the tolerance that the rounding of all steps together may be; beyond it the gradient is
recomputed."""


@compiled()
def drift_of(v: np.ndarray, diagonal: np.ndarray, lower: np.ndarray, upper: np.ndarray, n_iter: int) -> float:
    """A bound on what the rounding of `n_iter` steps has added to a gradient `v` (n,).

    That of a step is at most half a unit. `diagonal` are the kernel values of variables with
    themselves, and the bounds are those of all variables.
    """
    largest_v, largest_value, largest_range = 0.0, 0.0, 0.0
    for k in range(v.shape[0]):
        largest_v = max(largest_v, abs(v[k]))
        largest_range = max(largest_range, upper[k] - lower[k])
    for k in range(diagonal.shape[0]):
        largest_value = max(largest_value, abs(diagonal[k]))
    return np.finfo(np.float64).eps * n_iter * (largest_v + 2.0 * largest_value * largest_range)


class GradientError:
    """How far rounded kernel values put the gradient of one pair off.

    Parameters
    ----------
    value_error : float
        The standard deviation of what rounding adds to a kernel value, at most:
        `Kernel.value_error`.
    exact : callable
        ``exact(left, right)``: kernel values (k, m) in float64 of the pair's samples `left` (k,)
        against `right` (m,).
    work : int
        Multiplications for each of those values.
    signs : (n,) float64 array
        y, so that the exact gradient is y - K beta.
    tol : float
    """

    def __init__(
        self,
        value_error: float,
        exact: Callable[[np.ndarray, np.ndarray], np.ndarray],
        work: int,
        signs: np.ndarray,
        tol: float,
    ) -> None:
        self.value_error, self.exact, self.work = value_error, exact, work
        self.signs, self.allowed = signs, ALLOWED * tol
        self._measured_at = 0.0

    @classmethod
    def none(cls) -> GradientError:
        """Of a problem that is solved as well as its kernel values allow."""
        return cls(0.0, lambda left, right: np.empty((0, 0)), 1, np.empty(0), 1.0)

    def bound(self, beta: np.ndarray) -> float:
        """A bound on the error of any sample's gradient.

        It holds as long as the errors of kernel values are independent.
        """
        return MOST_SPREAD * self.value_error * float(np.linalg.norm(beta))

    def is_too_large(self, beta: np.ndarray, v: np.ndarray, extremes: np.ndarray, *, final: bool) -> bool:
        """Whether the gradient `v` (n,) at `beta` (n,) may be off by more than `tol` allows.

        `extremes` are the samples that define the gap: they are always among those looked at. On
        the way to the optimum, not `final`, the samples are only looked at again once the
        coefficients have doubled.
        """
        size = float(np.linalg.norm(beta))
        if not self.is_due(size, final=final):
            return False
        self._measured_at = size
        return self.measure(beta, v, extremes) > self.allowed

    def is_due(self, size: float, *, final: bool) -> bool:
        """Whether coefficients of norm `size` are so large that the error must be measured.

        On the way, not `final`, it is measured again only once they have doubled.
        """
        if MOST_SPREAD * self.value_error * size <= self.allowed:
            return False
        return final or size >= 2 * self._measured_at

    def rounding(
        self,
        b: np.ndarray,
        v: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        epsilon: float = 0.0,
        *,
        exact: bool,
        final: bool = True,
    ) -> float:
        """How far the gradient `v` (n,) at `b` (n,) may be off, or 0 where that is small enough.

        Kernel values that are `exact`, of float64, have nothing to be measured against: there the
        bound must do, and it is asked for at the end alone, since nothing follows. `final` is as
        for `is_too_large`.
        """
        if exact:
            bound = self.bound(b) if final else 0.0
            return bound if bound > self.allowed else 0.0
        grow, shrink = working_set.slopes(b, v, lower, upper, epsilon)
        worst = np.array([grow.argmax(), shrink.argmin()])
        return self.allowed if self.is_too_large(b, v, worst, final=final) else 0.0

    def measure(self, beta: np.ndarray, v: np.ndarray, extremes: np.ndarray) -> float:
        """The largest error of the gradient, judged by samples spread over the pair.

        Where they are only a part of the pair, it is twice what was seen.
        """
        support = np.flatnonzero(beta)
        count = max(SAMPLED, SAMPLING_WORK // max(1, len(support) * self.work))
        spread = np.linspace(0, len(v) - 1, min(count, len(v))).astype(np.int64)
        samples = np.union1d(spread, extremes)
        true = self.signs[samples] - self.exact(samples, support) @ beta[support]
        seen = float(np.abs(v[samples] - true).max())
        return seen if len(samples) == len(v) else 2 * seen

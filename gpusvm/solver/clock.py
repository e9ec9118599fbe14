"""When a solver must stop before it is done: because it was interrupted, or because its time has run out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Clock:
    """What a problem's solver looks at between its steps.

    Parameters
    ----------
    interrupted : callable
        Whether the result is wanted no more.
    deadline : float
        Of `time.monotonic`: when to end with what there is.
    """

    def __init__(self, interrupted: Callable[[], bool] = lambda: False, deadline: float = math.inf) -> None:
        self.interrupted, self.deadline = interrupted, deadline

    def is_past(self) -> bool:
        return time.monotonic() >= self.deadline

    def says_stop(self) -> bool:
        return self.interrupted() or self.is_past()


class Shares:
    """Divides what is left of a time limit between the problems that are not begun yet, by their weights.

    What a problem does not use is left to those after it.

    Parameters
    ----------
    seconds : float, optional
        From now on; None for no limit.
    weights : sequence of float
        About how much work each problem is.
    n_side_by_side : int
    """

    def __init__(self, seconds: float | None, weights: list[float], n_side_by_side: int) -> None:
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.weights, self.left = weights, sum(weights)
        self.n_side_by_side = n_side_by_side

    def deadline(self, index: int) -> float:
        """Until when problem `index`, begun now, may go on. Called once for each problem, by one thread at a time."""
        if math.isinf(self.end):
            return self.end
        now = time.monotonic()
        share = min(1.0, self.n_side_by_side * self.weights[index] / max(self.left, self.weights[index]))
        self.left -= self.weights[index]
        return min(self.end, now + max(0.0, self.end - now) * share)

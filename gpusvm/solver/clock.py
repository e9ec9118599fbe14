"""When a solver must stop before it is done: it was interrupted, or its time has run out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping


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
    """Divides what is left of a time limit between problems not done yet, by their weights.

    What a problem does not use is left to those after it.

    Parameters
    ----------
    seconds : float, optional
        From now on; None for no limit.
    weights : mapping of int to float
        About how much work each problem is.
    """

    def __init__(self, seconds: float | None, weights: Mapping[int, float]) -> None:
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.weights, self.left = weights, sum(weights.values())
        self._lock = threading.Lock()

    def deadline(self, indices: Iterable[int], n_side_by_side: int) -> float:
        """Until when these problems, begun now one after another, may go on.

        `n_side_by_side` such sequences of problems run side by side.
        """
        if math.isinf(self.end):
            return self.end
        with self._lock:
            now, weight = time.monotonic(), sum(self.weights[index] for index in indices)
            share = min(1.0, n_side_by_side * weight / max(self.left, weight))
            self.left -= weight
        return min(self.end, now + max(0.0, self.end - now) * share)

    def give_back(self, index: int) -> None:
        """Count a begun problem among those to do again: it is to be solved in another way."""
        with self._lock:
            self.left += self.weights[index]

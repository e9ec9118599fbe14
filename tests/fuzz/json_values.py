"""JSON whose values are not what a reader expects."""

from __future__ import annotations

from random import Random
from typing import Any

from fuzz.mutation import EXTREMES

VALUES = (
    None, True, False, "", "x", "float64", "1", "x" * 9999, "é\n\x1b", [], {}, [[]], [1, 2], [2, 2], [0.5] * 3,
    {"a": 1}, 0, -1, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**400, ["a", "b", "c"], ["a"] *
    3, "O", "U5", "M8[s]", "(2,", "V0", "int8", "rbf", "poly", "sigmoid", {"step": "deskewer", "image_shape":
    None}, [{"step": "deskewer", "image_shape": [3, 3]}], [{"step": "__import__"}], *EXTREMES,
)  # fmt: skip


def edit(rng: Random, value: Any) -> None:
    """Change something somewhere in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], (dict, list)) and value[key] and rng.random() < 0.7:
        edit(rng, value[key])
    elif rng.random() < 0.1:
        del value[key]
    elif rng.random() < 0.1 and isinstance(value, dict):
        value[rng.choice(("x", "", "classes", "gamma", "step"))] = rng.choice(VALUES)
    else:
        value[key] = rng.choice(VALUES)

"""What backends are asked for in tests, in one call with the names that scikit-learn's SVC has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpusvm.kernels import Kernel
from gpusvm.params import Problem, Resources, Stopping

Asked = tuple[Problem, Stopping, Resources]

_OF_PROBLEM = ("kernel", "C", "class_weight", "task", "epsilon", "nu")
_OF_STOPPING = ("tol", "max_iter", "shrinking")


def asked(kernel: Kernel | None = None, **values: Any) -> Asked:
    """The three arguments of a backend's fit; what is not named has its default."""
    return asked_again((Problem(kernel or Kernel()), Stopping(), Resources()), **values)


def asked_again(before: Asked, **values: Any) -> Asked:
    """The same with other values."""
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for name, value in values.items():
        parts[0 if name in _OF_PROBLEM else 1 if name in _OF_STOPPING else 2][name] = value
    problem, stopping, resources = (replace(part, **changed) for part, changed in zip(before, parts, strict=True))
    return problem, stopping, resources

"""Suites: what a benchmark measures.

`gpusvm.bench.suite_file` reads them, and docs/benchmarks.md explains their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from gpusvm.bench import checks
from gpusvm.bench.contenders import contender_names, peer_names
from gpusvm.errors import UsageError
from gpusvm.kernels import Kernel, resolve_gamma
from gpusvm.params import Problem, Resources, Stopping

REPEATS = checks.whole(1, 1000)
SIZES = checks.list_of(checks.whole(2))
CONTENDER = checks.one_of(contender_names)


@dataclass(frozen=True)
class Case:
    """One problem of a suite: a kernel and what is minimised with it."""

    name: str
    kernel: str = "rbf"
    C: float = 1.0
    gamma: float | str = "scale"
    degree: int = 3
    coef0: float = 0.0
    tol: float = 1e-3
    max_iter: int = -1
    cache_size: float | None = None

    def asked(self, X: np.ndarray) -> tuple[Problem, Stopping, Resources]:
        """The problem on the training data X (n, n_features), with gamma resolved there; how exactly; with what."""
        kernel = Kernel(self.kernel, resolve_gamma(self.gamma, X), self.degree, self.coef0)
        return Problem(kernel, self.C), Stopping(self.tol, self.max_iter), Resources(self.cache_size)


@dataclass(frozen=True)
class Override:
    """What one contender does differently; None keeps the suite's."""

    repeats: int | None = None
    timeout_s: float | None = None
    sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Suite:
    """What to measure: every case at every size with every contender, several times each.

    Attributes
    ----------
    name : str
        Also the beginning of the result files' names.
    title : str
    dataset, test_dataset : str
        Sources for `gpusvm.data.load_dataset`. `test_dataset` is None for the data set's own test images.
    sizes : tuple of int
        Numbers of training images: the first ones, or a random draw where there is a `seed`.
    n_test : int, optional
        How many of the test images; None for all.
    binarize, deskew : bool
    backends, peers : tuple of str
    reference : str
        The contender that speed-up and agreement are counted from.
    repeats : int
    warmup : int
        Samples of the fit that comes before timing and pays for imports, threads and compilation.
    timeout_s : float
        Allowed to a measurement's whole process.
    cases : tuple of Case
    overrides : dict of str to Override
    """

    name: str
    dataset: str
    sizes: tuple[int, ...]
    cases: tuple[Case, ...]
    title: str = ""
    test_dataset: str | None = None
    n_test: int | None = None
    seed: int | None = None
    binarize: bool = False
    deskew: bool = False
    backends: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    reference: str = "sklearn"
    repeats: int = 3
    warmup: int = 500
    timeout_s: float = 1800.0
    overrides: dict[str, Override] = field(default_factory=dict)

    @property
    def contenders(self) -> tuple[str, ...]:
        return self.backends + self.peers

    def repeats_of(self, contender: str) -> int:
        return self._override(contender).repeats or self.repeats

    def timeout_of(self, contender: str) -> float:
        return self._override(contender).timeout_s or self.timeout_s

    def measures(self, contender: str, n_train: int) -> bool:
        """Whether the contender takes part at that size."""
        sizes = self._override(contender).sizes
        return sizes is None or n_train in sizes

    def _override(self, contender: str) -> Override:
        return self.overrides.get(contender, Override())

    def with_options(
        self,
        *,
        contenders: Sequence[str] | None = None,
        sizes: Sequence[int] | None = None,
        repeats: int | None = None,
        timeout_s: float | None = None,
    ) -> Suite:
        """This suite with what the command line asks for, which also sets aside overrides of the same.

        Raises UsageError for a contender that does not exist or a number out of range.
        """
        changes: dict[str, Any] = {}
        if contenders is not None:
            names = checks.check("--backends", checks.list_of(CONTENDER), list(contenders), UsageError)
            changes["backends"] = tuple(name for name in names if name not in peer_names())
            changes["peers"] = tuple(name for name in names if name in peer_names())
        lifted: dict[str, None] = {}
        for key, option, read, value in (
            ("sizes", "--sizes", SIZES, None if sizes is None else list(sizes)),
            ("repeats", "--repeats", REPEATS, repeats),
            ("timeout_s", "--timeout", checks.positive, timeout_s),
        ):
            if value is not None:
                changes[key] = checks.check(option, read, value, UsageError)
                lifted[key] = None
        taking_part = self.contenders if contenders is None else contenders
        overrides = {name: replace(old, **lifted) for name, old in self.overrides.items() if name in taking_part}
        return replace(self, overrides=overrides, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As `parse_suite` reads it: plain JSON values, and no key whose value is None or empty."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        cases = [_plain(asdict(case)) for case in self.cases]
        overrides = {name: _plain(asdict(override)) for name, override in self.overrides.items()}
        return _plain({**own, "cases": cases, "overrides": overrides})


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}
    return {key: value for key, value in lists.items() if value not in (None, "", [])}

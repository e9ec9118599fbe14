"""Suites: what a benchmark measures.

`gpusvm.bench.suite_file` reads them, and docs/benchmarks.md explains their keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, PlainValidator, StrictBool, ValidationError
from pydantic.dataclasses import dataclass

from gpusvm.bench.contenders import contender_names, is_search, own_names, peer_names
from gpusvm.bench.searches import Grid
from gpusvm.bench.validation import (
    NO_OTHER_KEYS,
    complaint,
    gamma_of_a_case,
    line_of_text,
    one_of,
    parameter,
    without_repetitions,
)
from gpusvm.errors import UsageError
from gpusvm.kernels import Kernel, resolve_gamma
from gpusvm.params import KERNEL_NAMES, Problem, Resources, Stopping

DEFAULT_FOLDS = 5

BEST_PEER = "best-peer"
"""As a suite's reference: of each row, the peer that was fastest at it."""

_T = TypeVar("_T")
_Each = Annotated[tuple[_T, ...], AfterValidator(without_repetitions)]
"""A list in the file, a tuple here."""

_Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
_Size = Annotated[int, Field(strict=True, ge=2, le=10**9)]
_Sizes = _Each[_Size]
_Repeats = Annotated[int, Field(strict=True, ge=1, le=1000)]
_Positive = Annotated[float, Field(strict=True, gt=0)]
_Line = Annotated[str, AfterValidator(line_of_text)]
_Contender = Annotated[str, one_of(contender_names)]
_KERNELS = [name for name in KERNEL_NAMES if name != "precomputed"]


def _name_of_files(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("must be a word that can begin a file's name (letters, digits, dots, dashes)")
    return name


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Case:
    """One problem of a suite: a kernel, what is minimised with it, and any data of its own.

    Attributes
    ----------
    name : str
    kernel, C, gamma, degree, coef0, tol, max_iter, cache_size
        As in `gpusvm.SVC`.
    dataset : str, optional
        A source for `gpusvm.data.load_dataset`, or one of the suite's tables; None for the
        suite's.
    sizes : tuple of int, optional
        Numbers of training samples; with a `dataset` only.
    n_test : int, optional
        Number of test samples, the last ones of a table; with a `dataset` only.
    test_on_training : bool
        Whether a table too small for both may be tested on samples that it was trained on.
    search_C, search_gamma : tuple of float
        What contenders that search try: see `grid`. Empty where none does.
    folds : int, optional
        By which they judge; five by default.
    once : tuple of str
        Contenders that are measured once in this case, however many repeats the suite has.
    """

    name: _Line
    kernel: Annotated[str, one_of(lambda: _KERNELS)] = "rbf"
    C: Annotated[float, PlainValidator(parameter("C"))] = 1.0
    gamma: Annotated[float | str, PlainValidator(gamma_of_a_case)] = "scale"
    degree: Annotated[int, PlainValidator(parameter("degree"))] = 3
    coef0: Annotated[float, PlainValidator(parameter("coef0"))] = 0.0
    tol: Annotated[float, PlainValidator(parameter("tol"))] = 1e-3
    max_iter: Annotated[int, PlainValidator(parameter("max_iter"))] = -1
    cache_size: Annotated[float | None, PlainValidator(parameter("cache_size"))] = None
    dataset: _Line | None = None
    sizes: _Sizes | None = None
    n_test: _Count | None = None
    test_on_training: StrictBool = False
    search_C: _Each[Annotated[float, PlainValidator(parameter("C"))]] = ()
    search_gamma: _Each[_Positive] = ()
    folds: Annotated[int, Field(strict=True, ge=2, le=1000)] | None = None
    once: _Each[_Contender] = ()

    def asked(self, X: np.ndarray) -> tuple[Problem, Stopping, Resources]:
        """The problem on the training data X (n, n_features), when to stop, and the resources.

        gamma is resolved on X.
        """
        kernel = Kernel(self.kernel, resolve_gamma(self.gamma, X), self.degree, self.coef0)
        return Problem(kernel, self.C), Stopping(self.tol, self.max_iter), Resources(self.cache_size)

    def grid(self, X: np.ndarray) -> Grid:
        """What is searched on the training data X (n, n_features).

        The gammas are `search_gamma` times 1 / (n_features X.var()).
        """
        scale = resolve_gamma("scale", X)
        return Grid(self.search_C, tuple(factor * scale for factor in self.search_gamma), self.folds or DEFAULT_FOLDS)


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Override:
    """What one contender does differently; None keeps the suite's."""

    repeats: _Repeats | None = None
    timeout_s: _Positive | None = None
    sizes: _Sizes | None = None


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Suite:
    """What to measure: every case at every size with every contender, several times each.

    Attributes
    ----------
    name : str
        Also the beginning of the result files' names.
    title : str
    dataset, test_dataset : str, optional
        Sources for `gpusvm.data.load_dataset`. `test_dataset` is None for the data set's own test
        images. Of the cases that name no `dataset`, as are the next two.
    sizes : tuple of int
        Numbers of training images: the first ones, or a random draw where there is a `seed`.
    n_test : int, optional
        How many of the test images; None for all.
    tables : dict of str to dict
        Tables that a case can name as its `dataset`; see `gpusvm.bench.named_tables`.
    binarize, deskew : bool
    backends, peers : tuple of str
    reference : str
        The contender that speed-up and agreement are counted from, or BEST_PEER.
    repeats : int
    warmup : int
        Samples of the fit that comes before timing and pays for imports, threads and compilation.
    timeout_s : float
        Allowed to a measurement's whole process.
    least_timed_s : float
        A fit or a prediction that takes less is repeated until they took that long together.
    cases : tuple of Case
    overrides : dict of str to Override
    """

    name: Annotated[str, AfterValidator(_name_of_files)]
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]
    dataset: _Line | None = None
    sizes: _Sizes = ()
    title: Annotated[str, AfterValidator(line_of_text)] = ""
    test_dataset: _Line | None = None
    n_test: _Count | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    binarize: StrictBool = False
    deskew: StrictBool = False
    backends: _Each[Annotated[str, one_of(own_names)]] = ()
    peers: _Each[Annotated[str, one_of(peer_names)]] = ()
    reference: Annotated[str, one_of(lambda: [*contender_names(), BEST_PEER])] = "sklearn"
    repeats: _Repeats = 3
    warmup: _Size = 500
    timeout_s: _Positive = 1800.0
    least_timed_s: Annotated[float, Field(strict=True, ge=0)] = 0.0
    tables: dict[str, dict[str, Any]] = Field(default_factory=dict)
    overrides: dict[_Contender, Override] = Field(default_factory=dict)

    @property
    def contenders(self) -> tuple[str, ...]:
        return self.backends + self.peers

    @property
    def datasets(self) -> tuple[str, ...]:
        """The name of every data set, each once."""
        return tuple(dict.fromkeys(self.dataset_of(case) for case in self.cases))

    def dataset_of(self, case: Case) -> str:
        name = case.dataset or self.dataset
        assert name is not None  # `parse_suite` has seen to it
        return name

    def sizes_of(self, case: Case) -> tuple[int, ...]:
        return case.sizes or self.sizes

    def n_test_of(self, case: Case) -> int | None:
        return self.n_test if case.dataset is None else case.n_test

    def test_dataset_of(self, case: Case) -> str | None:
        return self.test_dataset if case.dataset is None else None

    def table_of(self, case: Case) -> dict[str, Any] | None:
        """What the case's table is, where its data are a table."""
        return self.tables.get(self.dataset_of(case))

    def repeats_of(self, contender: str, case: Case) -> int:
        return 1 if contender in case.once else self._override(contender).repeats or self.repeats

    def timeout_of(self, contender: str) -> float:
        return self._override(contender).timeout_s or self.timeout_s

    def measures(self, contender: str, n_train: int) -> bool:
        """Whether the contender takes part at that size."""
        sizes = self._override(contender).sizes
        return sizes is None or n_train in sizes

    def unfit(self, case: Case) -> str:
        """Why a contender cannot be measured in the case. Empty if all can.

        Contenders that search need a grid, and others can do nothing with one.
        """
        for name in self.contenders:
            if is_search(name) and not case.search_C:
                return f"{name} searches for C and gamma, and the case has no search_C and search_gamma"
            if case.search_C and not is_search(name):
                searches = ", ".join(filter(is_search, contender_names()))
                return f"{name} searches for nothing; search_C and search_gamma are for {searches}"
        return ""

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
        """This suite with what the command line asks for.

        Overrides of the same settings are set aside. A case with sizes of its own is measured at
        its largest in place of any above that.

        Raises UsageError for a contender that does not exist or a number out of range.
        """
        changes: dict[str, Any] = {}
        if contenders is not None:
            if stray := next((name for name in contenders if name not in contender_names()), None):
                raise UsageError(f"--backends must be one of {', '.join(contender_names())}, not {stray!r}")
            changes["peers"] = tuple(name for name in contenders if name in peer_names())
            changes["backends"] = tuple(name for name in contenders if name not in peer_names())
        asked: dict[str, Any] = {"sizes": sizes and tuple(sizes), "repeats": repeats, "timeout_s": timeout_s}
        for_all = {name: value for name, value in asked.items() if value is not None}
        taking_part = self.contenders if contenders is None else contenders
        lifted: dict[str, Any] = dict.fromkeys(for_all)
        overrides = {name: replace(old, **lifted) for name, old in self.overrides.items() if name in taking_part}
        try:
            cases = tuple(_with_options(case, for_all, taking_part) for case in self.cases)
            changed = replace(self, cases=cases, overrides=overrides, **changes, **for_all)
        except ValidationError as found:
            raise complaint(found, names=_OPTIONS, error=UsageError) from None
        for case in cases:
            if why := changed.unfit(case):
                raise UsageError(f"--backends: in case {case.name!r} {why}")
        return changed

    def to_dict(self) -> dict[str, Any]:
        """As `parse_suite` reads it: plain JSON values, and no key that is None or empty."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        cases = [_plain({**asdict(case), "test_on_training": case.test_on_training or None}) for case in self.cases]
        overrides = {name: _plain(asdict(override)) for name, override in self.overrides.items()}
        return _plain({**own, "cases": cases, "overrides": overrides})


_OPTIONS = {
    "sizes": "--sizes", "repeats": "--repeats", "timeout_s": "--timeout",
    "backends": "--backends", "peers": "--backends",
}  # fmt: skip
"""What sets a key on the command line."""


def _with_options(case: Case, changes: Mapping[str, Any], taking_part: Sequence[str]) -> Case:
    once = () if "repeats" in changes else tuple(name for name in case.once if name in taking_part)
    sizes = case.sizes
    if sizes is not None and "sizes" in changes:
        sizes = tuple(dict.fromkeys(min(size, max(sizes)) for size in changes["sizes"]))
    return replace(case, once=once, sizes=sizes)


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}
    return {key: value for key, value in lists.items() if value not in (None, "", [])}

"""One measurement as the worker is told it: a line of JSON on its standard input."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from gpusvm.bench.suite import Case
from gpusvm.bench.validation import NO_OTHER_KEYS


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Spec:
    """What to measure, and nothing about how it compares.

    Attributes
    ----------
    contender : str
    case : Case
    dataset, test_dataset, n_test, seed, binarize, deskew, warmup, least_timed_s
        As in `Suite`.
    n_train : int
        Training samples.
    table : dict, optional
        What `dataset` is, where it is one of the suite's tables.
    data_dir : str, optional
        Where catalogue names are looked for first.
    certify : bool
        Whether to recompute, after the timed parts, how far the model is from the optimum.
    """

    contender: str
    case: Case
    dataset: str
    n_train: int
    test_dataset: str | None = None
    n_test: int | None = None
    seed: int | None = None
    binarize: bool = False
    deskew: bool = False
    warmup: int = 500
    least_timed_s: float = 0.0
    table: dict[str, Any] | None = None
    data_dir: str | None = None
    certify: bool = True

    def to_line(self) -> bytes:
        return TypeAdapter(Spec).dump_json(self) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Spec:
        return TypeAdapter(Spec).validate_json(line)

"""One measurement as the worker is told it: a line of JSON on its standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gpusvm.bench.suite import Case


@dataclass(frozen=True)
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
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Spec:
        values = json.loads(line)
        return cls(**{**values, "case": Case.from_json(values["case"])})

"""Finished class pairs on disk, so that a training that was cut off goes on from them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpusvm.errors import ModelFileError, UsageError
from gpusvm.io.tensor_file import UnreadableError, read_tensors, write_tensors
from gpusvm.kernels import Array
from gpusvm.pairs import class_pairs
from gpusvm.params import Problem, Stopping
from gpusvm.problem import Solution, from_support
from gpusvm.sparse import is_sparse
from gpusvm.version import __version__

if TYPE_CHECKING:
    from gpusvm.backends.one_vs_one import GroupedData

FORMAT = "gpusvm-checkpoint"
VERSION = "2"

SHARE_OF_TIME = 0.1
"""Of the time that training takes, at most so much goes into writing: each time the file is
written whole."""

_DTYPES = {
    "pair": "int64",
    "n_support": "int64",
    "n_iter": "int64",
    "support": "int64",
    "dual_coef": "float64",
    "bias": "float64",
    "kkt_gap": "float64",
    "objective": "float64",
    "converged": "bool",
    "too_coarse": "bool",
}
_OF_SUPPORT = ("support", "dual_coef")
_ROUNDING = 1e-12
"""Part of a pair's largest bound by which LIBSVM's coefficients, a sum and a difference, may go
beyond their own."""


class Checkpoint:
    """The file in which a backend leaves the pairs that it has solved.

    Parameters
    ----------
    path : str or path
        It need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.solved: dict[int, Solution] = {}
        self._digest = ""
        self._next_write = 0.0

    def open(self, data: GroupedData, problem: Problem, stopping: Stopping, backend: str) -> None:
        """Take up the pairs of an earlier run into `solved`.

        Raises
        ------
        UsageError
            The file is of other data, other parameters, another backend or another version of
            gpusvm.
        ModelFileError
            The file is damaged, or no checkpoint.
        """
        self.solved, self._digest = {}, _digest(data, problem, stopping, backend)
        if not self.path.exists():
            return
        digest, tensors = _read(self.path)
        if digest != self._digest:
            raise UsageError(
                f"{self.path}: the checkpoint of a training with other data, parameters, backend or version of "
                "gpusvm; name another file, or remove this one"
            )
        try:
            self.solved = _solutions(tensors, data, problem.C)
        except ValueError as error:
            raise ModelFileError(f"{self.path}: a damaged checkpoint ({error}); remove it to start again") from error

    def add(self, index: int, solution: Solution) -> None:
        """Keep the solution of pair `index`.

        It is on disk at once or, where writing takes long, with a later pair.
        """
        self.solved[index] = solution
        if time.monotonic() >= self._next_write:
            self.flush()

    def flush(self) -> None:
        """Write what there is. Raises OutputError where it cannot be written."""
        start = time.monotonic()
        solutions = list(self.solved.values())
        tensors = {name: _column(name, solutions) for name in _DTYPES if name not in ("pair", "n_support")}
        tensors["pair"] = np.array(list(self.solved), dtype=np.int64)
        tensors["n_support"] = np.array([len(s.support) for s in solutions], dtype=np.int64)
        metadata = {"format": FORMAT, "version": VERSION, "digest": self._digest}
        write_tensors(self.path, tensors, metadata)
        now = time.monotonic()
        self._next_write = now + (now - start) / SHARE_OF_TIME

    def remove(self) -> None:
        """Remove the file: the training is done, and its model saved."""
        self.path.unlink(missing_ok=True)


def _column(name: str, solutions: list[Solution]) -> np.ndarray:
    """One field of all solutions, one after the other; NaN for what a solver does not tell."""
    values = [getattr(solution, name) for solution in solutions]
    if name in _OF_SUPPORT:
        return np.concatenate([np.empty(0), *values]).astype(_DTYPES[name])
    return np.array([np.nan if value is None else value for value in values]).astype(_DTYPES[name])


def _digest(data: GroupedData, problem: Problem, stopping: Stopping, backend: str) -> str:
    """SHA-256 of all that the solutions depend on."""
    asked = [
        backend,
        __version__,
        asdict(problem),
        asdict(replace(stopping, time_limit=None)),
        data.given.shape,
        str(data.given.dtype),
    ]
    found = hashlib.sha256(json.dumps(asked).encode())
    for array in (*_parts(data.given), data.rows, data.starts, data.weights):
        found.update(b"none" if array is None else array.tobytes())
    return found.hexdigest()


def _parts(given: Array) -> list[np.ndarray]:
    """The arrays that make up the samples, on the host."""
    if is_sparse(given):
        return [given.data, given.indices, given.indptr]
    return [np.ascontiguousarray(given if isinstance(given, np.ndarray) else given.get())]


def _read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    try:
        tensors, metadata = read_tensors(path, _DTYPES, lambda found: _check_version(path, found))
    except UnreadableError as error:
        raise ModelFileError(f"{path}: a damaged checkpoint ({error}); remove it to start again") from error
    return metadata.get("digest", ""), tensors


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise ModelFileError(f"{path}: not a checkpoint of this gpusvm; name another file")


def _solutions(tensors: dict[str, np.ndarray], data: GroupedData, C: float) -> dict[int, Solution]:
    """The solution of each pair in the file.

    Raises ValueError where one does not belong to this training.
    """
    for name, dtype in _DTYPES.items():
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].ndim != 1:
            raise ValueError(f"array {name} is not a list of {dtype}")
    pairs, counts = tensors["pair"], tensors["n_support"]
    if len(np.unique(pairs)) != len(pairs) or ((pairs < 0) | (pairs >= len(data.pairs))).any():
        raise ValueError("its pairs are not those of the data")
    if ((counts < 0) | (counts > len(tensors["support"]))).any():
        raise ValueError("it does not count its support vectors")
    for name in _DTYPES:
        if len(tensors[name]) != (counts.sum() if name in _OF_SUPPORT else len(pairs)):
            raise ValueError(f"array {name} has the wrong length")
    bounds, ends, solved = data.upper_bounds(C), np.cumsum(counts), {}
    for k, (pair, end, count) in enumerate(zip(pairs.tolist(), ends.tolist(), counts.tolist(), strict=True)):
        support, coef = (tensors[name][end - count : end] for name in _OF_SUPPORT)
        first, second = (bounds[rank] for rank in class_pairs(len(data.trained))[pair])
        if not (_is_feasible(support, coef, first, second) and np.isfinite(tensors["bias"][k])):
            raise ValueError(f"pair {pair} is not a solution")
        gap, objective = (float(tensors[name][k]) for name in ("kkt_gap", "objective"))
        solved[pair] = Solution(
            b=from_support(len(first) + len(second), support, coef),
            bias=float(tensors["bias"][k]),
            n_iter=int(tensors["n_iter"][k]),
            converged=bool(tensors["converged"][k]),
            too_coarse=bool(tensors["too_coarse"][k]),
            kkt_gap=None if np.isnan(gap) else gap,
            objective=None if np.isnan(objective) else objective,
        )
    return solved


def _is_feasible(support: np.ndarray, coef: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the support vectors are samples of the pair, in order, and y alpha in bounds.

    `support` (k,) int64 and `coef` (k,) float64 are those of `Solution`; `first` and `second`
    (n_i,) and (n_j,) float64, the upper bounds on alpha of the samples of the two classes.
    """
    upper = np.concatenate([first, np.zeros(len(second))])
    lower = np.concatenate([np.zeros(len(first)), -second])
    if not ((support >= 0).all() and (support < len(upper)).all() and (np.diff(support) > 0).all()):
        return False
    largest = max(first.max(), second.max())
    if not np.isfinite(coef).all():
        return False
    slack = _ROUNDING * (largest if np.isfinite(largest) else np.abs(coef).max(initial=0.0))
    return bool(((coef >= lower[support] - slack) & (coef <= upper[support] + slack)).all())

"""The search for C and gamma of `gpusvm tune`: coarse, then fine around the best, over folds.

Each trial, a C with a gamma, is trained in every fold and judged by the share of held-out samples
that it labels right. Folds come in rounds. After each, a trial is given up that labels so many
fewer samples right than the best so far, on the very same samples, that chance does not explain
it: it will not win any more.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import compute_class_weight

from gpusvm.backends.base import SharingBackend
from gpusvm.backends.folds import Cell, Column, Fold, FoldedData, solve_columns
from gpusvm.backends.native import backend as native_cpu
from gpusvm.errors import DataError, UsageError
from gpusvm.io.output import write_json
from gpusvm.kernels import Array, Kernel, resolve_gamma
from gpusvm.params import KERNEL_PARAMETERS, Resources, Stopping
from gpusvm.sparse import is_sparse
from gpusvm.voting import vote

COARSE_C = tuple(10.0**k for k in range(-1, 4))
COARSE_GAMMA = tuple(10.0 ** (k / 2) for k in range(-4, 3))
"""Times 1 / (n_features X.var())."""

FINE_C = tuple(10.0 ** (k / 4) for k in range(-2, 3))
FINE_GAMMA = tuple(10.0 ** (k / 8) for k in range(-2, 3))
"""Times the best of the coarse grid."""

CHANCE = 2.0
"""Standard deviations of the difference between two trials above which the worse one is given
up."""

FORMAT = 1


class Trial(NamedTuple):
    """What is tried. The gamma is 0 of a kernel that has none."""

    C: float
    gamma: float


@dataclass
class Result:
    """What came of a trial.

    Attributes
    ----------
    right : dict of int to (n_test,) bool array
        For each fold done, which of its held-out samples were labelled right.
    given_up : bool
        Whether it was given up, since it cannot win any more.
    seconds : float
        Of a thread's time.
    """

    right: dict[int, np.ndarray] = field(default_factory=dict)
    given_up: bool = False
    seconds: float = 0.0

    @property
    def scores(self) -> list[float]:
        """The accuracy in each fold done."""
        return [float(self.right[fold].mean()) for fold in sorted(self.right)]

    @property
    def mean(self) -> float:
        """Of the scores; NaN before the first."""
        return float(np.mean(self.scores)) if self.right else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the scores; NaN before the first."""
        return float(np.std(self.scores)) if self.right else math.nan


class OutOfTime(Exception):
    """The time limit of a search has passed."""


@dataclass(frozen=True)
class Settings:
    """What a search trains, beside C and gamma, and how it judges.

    Attributes
    ----------
    kernel : str
        "rbf", "linear" or "poly".
    degree : int
    coef0 : float
    tol : float
    balanced : bool
        Whether classes are weighed inversely to how frequent they are among a fold's training
        samples.
    folds : int
    seed : int
        Of the folds.
    exhaustive : bool
        Whether no trial is given up.
    """

    kernel: str = "rbf"
    degree: int = 3
    coef0: float = 0.0
    tol: float = 1e-3
    balanced: bool = False
    folds: int = 5
    seed: int = 0
    exhaustive: bool = False

    def with_gamma(self, gamma: float) -> Kernel:
        """The kernel with this gamma."""
        return Kernel(self.kernel, gamma, self.degree, self.coef0)

    @property
    def has_gamma(self) -> bool:
        """Whether the kernel has a gamma to be found."""
        return "gamma" in KERNEL_PARAMETERS[self.kernel]


class Search:
    """Trials, and what came of them.

    Parameters
    ----------
    X : (n, n_features) array, float32 or float64, or CSR
    y : (n,) array of labels
    settings : Settings
    resources : Resources
    keep_in : path, optional
        File in which results are kept as they come, and from which those of an earlier, equal
        search are taken.
    deadline : float
        Of `time.monotonic`.
    watch : callable, optional
        Called without arguments as results come and about ten times a second.
    backend : SharingBackend
        What trains.

    Attributes
    ----------
    results : dict of Trial to Result
    timed_out : bool

    Raises
    ------
    DataError
        A class has a single sample.
    UsageError
        The file belongs to another search, or is none.
    """

    def __init__(
        self,
        X: Array,
        y: np.ndarray,
        settings: Settings,
        resources: Resources,
        *,
        keep_in: Path | None = None,
        deadline: float = math.inf,
        watch: Callable[[], None] | None = None,
        backend: SharingBackend = native_cpu,
    ) -> None:
        self.X, self.settings, self.resources, self.backend = X, settings, resources, backend
        self.deadline, self.watch = deadline, watch or (lambda: None)
        self.scale = resolve_gamma("scale", X)
        self.data = FoldedData(X, y, _folds(y, settings))
        self.codes = np.searchsorted(self.data.classes, y)
        self.results: dict[Trial, Result] = {}
        self.timed_out = False
        self.started = time.monotonic()
        self.n_done, self.n_planned = 0, 0
        self.kept = None if keep_in is None else _Kept(keep_in, _digest(X, y, settings))

    def default_grid(self) -> tuple[list[float], list[float]]:
        """C and gamma to begin with."""
        return list(COARSE_C), [factor * self.scale for factor in COARSE_GAMMA]

    def run(self, Cs: Sequence[float], gammas: Sequence[float]) -> None:
        """Try every C with every gamma that was not tried yet, as far as the time allows."""
        trials = [Trial(C, gamma) for gamma in (gammas if self.settings.has_gamma else [0.0]) for C in sorted(set(Cs))]
        new = [trial for trial in dict.fromkeys(trials) if trial not in self.results]
        self.results |= {trial: Result() for trial in new}
        n_folds = len(self.data.folds)
        rounds = [range(n_folds)] if self.settings.exhaustive else [range(1), range(1, 2), range(2, n_folds)]
        self.n_planned += len(new) * n_folds
        try:
            for folds in rounds:
                self._solve([trial for trial in new if not self.results[trial].given_up], folds)
                if not self.settings.exhaustive:
                    self._give_up(new)
        except OutOfTime:
            self.timed_out = True
        finally:
            if self.kept is not None:
                self.kept.write()

    def run_fine(self) -> None:
        """Try a closer grid around the best."""
        best = self.best()
        self.run([best.C * factor for factor in FINE_C], [best.gamma * factor for factor in FINE_GAMMA])

    def best(self) -> Trial:
        """The trial of the best mean accuracy in all folds.

        Of equals it is the one of smaller C, then of smaller gamma. Where the time allowed none of
        them all folds, it is one of those with most folds done.
        """
        most = max(len(result.right) for result in self.results.values())
        if most == 0:
            raise UsageError("the time limit ended the search before its first result; allow more time")
        tried = [trial for trial, result in self.results.items() if len(result.right) == most]
        return min(tried, key=lambda trial: (-self.results[trial].mean, trial))

    def edges(self) -> list[str]:
        """Which of the best's parameters are the least or most tried: "largest C", for one."""
        found, best = [], self.best()
        for name in ("C", "gamma") if self.settings.has_gamma else ("C",):
            values = sorted({getattr(trial, name) for trial in self.results})
            for word, edge in (("smallest", values[0]), ("largest", values[-1])):
                if getattr(best, name) == edge:
                    found.append(f"{word} {name}")
        return found

    def seconds_left(self) -> float:
        """About how long it will take from here, of what is planned."""
        elapsed = time.monotonic() - self.started
        return math.nan if not self.n_done else elapsed * (self.n_planned - self.n_done) / self.n_done

    # -- a round of folds -------------------------------------------------------------------------

    def _solve(self, trials: Sequence[Trial], folds: Sequence[int]) -> None:
        """Train the trials in these folds, but for what was kept."""
        columns: dict[tuple[float, tuple[int, ...]], list[float]] = {}
        for gamma in sorted({trial.gamma for trial in trials}):
            Cs = tuple(trial.C for trial in trials if trial.gamma == gamma)
            missing = tuple(fold for fold in folds if not self._take_kept(gamma, Cs, fold))
            if missing:
                columns.setdefault((gamma, missing), []).extend(Cs)
        for missing in sorted({missing for _, missing in columns}):
            chosen = [(gamma, tuple(Cs)) for (gamma, those), Cs in columns.items() if those == missing]
            self._solve_columns(chosen, missing)

    def _solve_columns(self, columns: Sequence[tuple[float, tuple[float, ...]]], folds: Sequence[int]) -> None:
        n_folds = len(self.data.folds)
        found: dict[tuple[int, int], dict[int, Cell]] = {}

        def keep(cell: Cell) -> None:
            gamma, Cs = columns[cell.column]
            cells = found.setdefault((cell.column, cell.fold), {})
            cells[cell.c] = cell
            # C follow from each other: they are kept together, so that a search that goes on is
            # the same search.
            if len(cells) == len(Cs):
                rights = [self._right(cells[c]) for c in range(len(Cs))]
                seconds = [cells[c].seconds for c in range(len(Cs))]
                self._add(gamma, Cs, cell.fold, rights, seconds)
                if self.kept is not None:
                    self.kept.add(gamma, Cs, cell.fold, rights, seconds)
            self._look()

        solve_columns(
            self.data,
            [Column([self.settings.with_gamma(gamma)] * n_folds, Cs) for gamma, Cs in columns],
            Stopping(tol=self.settings.tol), self.resources, keep, folds, self._look, self.backend,
        )  # fmt: skip

    def _right(self, cell: Cell) -> np.ndarray:
        found: np.ndarray = vote(cell.decisions, len(self.data.classes)) == self.codes[self.data.folds[cell.fold].test]
        return found

    def _add(
        self, gamma: float, Cs: Sequence[float], fold: int, rights: Sequence[np.ndarray], seconds: Sequence[float]
    ) -> None:
        for C, right, taken in zip(Cs, rights, seconds, strict=True):
            result = self.results[Trial(C, gamma)]
            result.right[fold] = right
            result.seconds += taken
            self.n_done += 1

    def _take_kept(self, gamma: float, Cs: tuple[float, ...], fold: int) -> bool:
        found = None if self.kept is None else self.kept.find(gamma, Cs, fold, len(self.data.folds[fold].test))
        if found is None:
            return False
        self._add(gamma, Cs, fold, *found)
        return True

    def _look(self) -> None:
        self.watch()
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def _give_up(self, trials: Sequence[Trial]) -> None:
        """Give up trials that are worse than the best by more than chance.

        They are compared in the folds that both have done.
        """
        best = self.results[self.best()]
        for trial in trials:
            result = self.results[trial]
            if result.given_up or result is best:
                continue
            both = sorted(set(result.right) & set(best.right))
            only_best = sum(int((best.right[fold] & ~result.right[fold]).sum()) for fold in both)
            only_it = sum(int((result.right[fold] & ~best.right[fold]).sum()) for fold in both)
            # Of samples on which the two differ, either is right as often as the other, if they
            # are equally good.
            if only_best - only_it > CHANCE * math.sqrt(only_best + only_it):
                result.given_up = len(result.right) < len(self.data.folds)
                self.n_planned -= len(self.data.folds) - len(result.right)


def _folds(y: np.ndarray, settings: Settings) -> list[Fold]:
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise DataError(
            f"class {classes[counts.argmin()]} has a single sample to train on, which cannot be held out as well;"
            " leave it out, or add others"
        )
    if settings.folds > len(y) // 2:
        raise UsageError(f"--folds must be at most {len(y) // 2} for {len(y)} samples; got {settings.folds}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        n = min(settings.folds, int(counts.max()))
        splits = list(StratifiedKFold(n, shuffle=True, random_state=settings.seed).split(np.zeros(len(y)), y))
    weights = [
        tuple(compute_class_weight("balanced", classes=classes, y=y[train]).tolist()) if settings.balanced else None
        for train, _ in splits
    ]
    return [Fold(train, test, weight) for (train, test), weight in zip(splits, weights, strict=True)]


def _digest(X: Array, y: np.ndarray, settings: Settings) -> str:
    """What a search is told by: its samples, and what is trained and judged."""
    found = hashlib.sha256(repr((FORMAT, settings, X.shape, str(X.dtype))).encode())
    for part in (X.data, X.indices, X.indptr) if is_sparse(X) else (np.ascontiguousarray(X),):
        found.update(part.tobytes())
    found.update(repr(y.tolist()).encode())
    return found.hexdigest()


class _Kept:
    """Results in a file: JSON, written whole from time to time."""

    EVERY_SECONDS = 2.0

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        self.entries: dict[str, Any] = {}
        self.written = time.monotonic()
        self.complete = True
        if path.exists():
            self.entries = _read(path, digest)

    @staticmethod
    def _name(gamma: float, Cs: Sequence[float], fold: int) -> str:
        return json.dumps([gamma, list(Cs), fold])

    def find(self, gamma: float, Cs: Sequence[float], fold: int, n: int) -> tuple[list[np.ndarray], list[float]] | None:
        """Which of the `n` held-out samples each C labelled right, and the seconds it took.

        None if that is not there.
        """
        entry = self.entries.get(self._name(gamma, Cs, fold))
        if entry is None:
            return None
        try:
            rights = [np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=n) for bits in entry["right"]]
            seconds = [float(taken) for taken in entry["seconds"]]
        except (KeyError, TypeError, ValueError):
            raise _foreign(self.path) from None
        if len(rights) != len(Cs) or len(seconds) != len(Cs) or any(len(right) != n for right in rights):
            raise _foreign(self.path)
        return [right.astype(bool) for right in rights], seconds

    def add(
        self, gamma: float, Cs: Sequence[float], fold: int, rights: Sequence[np.ndarray], seconds: Sequence[float]
    ) -> None:
        bits = [np.packbits(right).tobytes().hex() for right in rights]
        entry = {"right": bits, "seconds": list(seconds)}
        self.entries[self._name(gamma, Cs, fold)] = entry
        self.complete = False
        if time.monotonic() - self.written > self.EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        if not self.complete:
            write_json(self.path, {"gpusvm_search": FORMAT, "digest": self.digest, "results": self.entries})
        self.written, self.complete = time.monotonic(), True


def _read(path: Path, digest: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise _foreign(path) from None
    if not isinstance(content, dict) or content.get("gpusvm_search") != FORMAT:
        raise _foreign(path)
    if content.get("digest") != digest:
        raise UsageError(f"{path}: belongs to a search on other samples or with other options; name another file")
    results = content.get("results")
    if not isinstance(results, dict) or not all(isinstance(entry, dict) for entry in results.values()):
        raise _foreign(path)
    return results


def _foreign(path: Path) -> UsageError:
    return UsageError(f"{path}: holds no results of a search, or is damaged; name another file, or remove it")

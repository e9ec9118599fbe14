"""Decision values of samples that a model has not seen, and class probabilities fitted on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from gpusvm.backends.base import Backend, Progress, Resume
from gpusvm.backends.folds import Fold, FoldedData, own_decisions, shares_values, sharing
from gpusvm.backends.own_pairs import (
    coefficients_against,
    has_many_small_pairs,
    in_own_pairs,
    own_decisions_of_small,
)
from gpusvm.calibration import Calibration, fit_sharpness, fit_sigmoids
from gpusvm.errors import DataWarning, muted, warn
from gpusvm.kernels import array_module, working_dtype
from gpusvm.model import SVMModel, describe_pair
from gpusvm.pairs import own_pairs
from gpusvm.params import Problem, Resources, Stopping
from gpusvm.sparse import is_sparse

FEW, FOLDS_OF_FEW, FOLDS = 2000, 3, 2
"""Into how many parts the samples are cut, each of which is held out once: those of few samples,
and of more.

Halves of many samples give the same log loss as thirds, in half of the time; see
docs/probabilities.md."""

KEPT_ROWS, KEPT_BYTES = 5000, 2**26
"""Samples on whose decision values of all pairs the sharpness is fitted; and what these values may
take."""

EACH_BY_ITSELF = 64
"""Held-out samples of a class, on average, from which on each class is evaluated by itself, by the
support vectors of its own pairs; of fewer, each call costs more than it saves."""

WORTH_A_START = 256
"""Samples of a class, on average, from which on a fold's training begins where the model itself
ended: small pairs are solved as soon from nothing."""

CERTAIN = 1e6
"""The logarithm of the odds against a class that took no part in training."""

_BLOCK_BYTES = 2**27
_NAMED = 5


class Training(NamedTuple):
    """What a backend was asked for: the arguments of its `fit`."""

    X: Any
    y: np.ndarray
    problem: Problem
    stopping: Stopping
    resources: Resources
    sample_weight: np.ndarray | None = None


class HeldOut(NamedTuple):
    """Decision values of samples that the model was trained without.

    Attributes
    ----------
    rows : (n,) int64 array
        The samples, but those that have no weight.
    own : (n, n_classes - 1) float64 array
        Of each sample, in the pairs of its class with each other one: see `voting.own_pairs`.
    kept : (m,) int64 array
        Places in `rows` of those samples for which the values of all pairs were kept.
    decisions : (m, n_pairs) float64 array
        These.
    """

    rows: np.ndarray
    own: np.ndarray
    kept: np.ndarray
    decisions: np.ndarray


def calibrate(
    backend: Backend,
    training: Training,
    model: SVMModel,
    *,
    seed: Any = 0,
    n_folds: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Class probabilities for a model.

    A model is trained for each fold, without its samples and with the same parameters. What it
    says of them is what the calibration is fitted on. A sample counts as much as in training, its
    class weight included: so probabilities are even where the decision value is zero.

    Parameters
    ----------
    backend : Backend
    training : Training
    model : SVMModel
        What the backend made of it.
    seed : int or RandomState
        Of the folds, which hold each class in proportion.
    n_folds : int, optional
        By default `default_folds`.
    progress : Progress, optional
        Called after each class pair of each fold.
    """
    n_folds = n_folds or default_folds(len(training.y))
    classes, codes = np.unique(training.y, return_inverse=True)
    weights = factors(training, codes)
    _warn_of_few(classes, codes[weights > 0], n_folds)
    found = held_out_decisions(backend, training, model, codes, weights, check_random_state(seed), n_folds, progress)
    own, others = codes[found.rows], len(classes) - 1
    weights = weights[found.rows] * (len(found.rows) / weights[found.rows].sum())
    pair = own_pairs(len(classes))[own]
    is_first = np.arange(others) >= own[:, None]  # of a pair with a class that comes later
    probA, probB = fit_sigmoids(
        found.own.ravel(), pair.ravel(), is_first.ravel(), np.repeat(weights, others), len(classes) * others // 2
    )
    untrained = np.bincount(own, minlength=len(classes)) == 0
    _rule_out(probA, probB, untrained)
    calibration = Calibration(probA, probB, "price")
    if np.count_nonzero(~untrained) == 2:
        return calibration  # the sigmoid itself
    logits = calibration.logits(found.decisions)
    return replace(calibration, sharpness=fit_sharpness(logits, own[found.kept], weights[found.kept], len(classes)))


def default_folds(n: int) -> int:
    """How many folds `n` samples are cut into."""
    return FOLDS if n > FEW else FOLDS_OF_FEW


def factors(training: Training, codes: np.ndarray) -> np.ndarray:
    """The factor on C of each sample, (n,) float64: sample weight times class weight.

    Zero where that is negative. `codes` (n,) are the samples' classes, by their indices.
    """
    weights = np.ones(len(codes)) if training.sample_weight is None else training.sample_weight.astype(np.float64)
    if training.problem.class_weight is not None:
        weights = weights * np.asarray(training.problem.class_weight)[codes]
    return np.maximum(weights, 0.0)


def _warn_of_few(classes: np.ndarray, codes: np.ndarray, n_folds: int) -> None:
    counts = np.bincount(codes, minlength=len(classes))
    few = np.flatnonzero((counts < n_folds) & (counts > 0))
    if len(few):
        named = ", ".join(f"{classes[c]} ({counts[c]})" for c in few[:_NAMED].tolist())
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        warn(
            f"probabilities are fitted in {n_folds} folds, and of some classes there are fewer samples than that:"
            f" {named}{more}; their probabilities say little. Train on more samples of them",
            DataWarning,
        )


def _rule_out(probA: np.ndarray, probB: np.ndarray, untrained: np.ndarray) -> None:
    """Set the sigmoids of the pairs of classes that took no part.

    Those are where `untrained`, (n_classes,) bool, is true. Their probability is zero, and that
    of the others is as if they were not there.
    """
    first, second = np.triu_indices(len(untrained), 1)
    without = untrained[first] | untrained[second]
    probA[without] = 0.0
    probB[without] = CERTAIN * (untrained[first].astype(float) - untrained[second])[without]


def folds(codes: np.ndarray, n_folds: int, random: np.random.RandomState) -> Iterator[np.ndarray]:
    """The places (m,) int64 of each fold's samples, ascending.

    The samples of each class are dealt out at random. Where a class has fewer samples than there
    are folds, each of them is held out by itself.
    """
    shuffled = random.permutation(len(codes))
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    fold = np.empty(len(codes), dtype=np.int64)
    fold[by_class] = np.arange(len(codes)) % n_folds
    for k in range(n_folds):
        if len(places := np.flatnonzero(fold == k)):
            yield places


def held_out_decisions(
    backend: Backend,
    training: Training,
    model: SVMModel,
    codes: np.ndarray,
    weights: np.ndarray,
    random: np.random.RandomState,
    n_folds: int,
    progress: Progress | None = None,
) -> HeldOut:
    """Train without each fold in turn, and evaluate it in the pairs of its samples' classes.

    Of the other pairs the model itself has not seen these samples: their values are its own.

    Of a class that has all its samples in one fold, the model without them knows nothing: it
    prefers any other class to it, as in LIBSVM.

    Parameters
    ----------
    model : SVMModel
        The model, trained on all samples.
    codes : (n,) int64 array
        The samples' classes, by their indices.
    weights : (n,) float64 array
        Their factors on C; samples of no weight take no part.
    """
    rows, n_classes = np.flatnonzero(weights > 0), int(codes.max()) + 1
    n_pairs, columns = n_classes * (n_classes - 1) // 2, own_pairs(n_classes)
    held = [rows[places] for places in folds(codes[rows], n_folds, random)]
    folded = _folded(backend, training, rows, held)
    if folded is not None:
        data, solve = folded
        report = _pair_of_fold(data, progress)
        own = solve(data, training.problem, training.stopping, training.resources, report)[rows]
    else:
        own = _one_by_one(backend, training, model, codes, rows, held, progress)
    room = max(1, min(KEPT_ROWS, KEPT_BYTES // (8 * n_pairs)))
    kept = np.sort(random.permutation(len(rows))[:room])
    decisions = _decisions(model, training, rows[kept], np.arange(n_pairs))
    np.put_along_axis(decisions, columns[codes[rows[kept]]], own[kept], axis=1)
    return HeldOut(rows, own, kept, decisions)


def _folded(
    backend: Backend, training: Training, rows: np.ndarray, held: Sequence[np.ndarray]
) -> tuple[FoldedData, Callable[..., np.ndarray]] | None:
    """The samples in folds that are solved together, and what does so.

    None where each fold is to be trained by itself.
    """
    trains = sharing(backend, training.X)
    if trains is None:
        return None
    data = FoldedData(
        training.X, training.y, [Fold(np.setdiff1d(rows, part), part) for part in held],
        training.problem.class_weight, training.sample_weight,
    )  # fmt: skip
    if shares_values(trains, data, training.problem, training.stopping, training.resources):
        return data, partial(own_decisions, trains)
    are_small = trains.on_cpu and has_many_small_pairs(data, training.stopping)
    return (data, own_decisions_of_small) if are_small else None


def _pair_of_fold(data: FoldedData, progress: Progress | None) -> Callable[[int, int], None]:
    """What reports each pair of each fold, as the trainings that follow the one of all samples."""
    n_pairs, n_folds = len(data.pairs), len(data.folds)
    done = n_pairs

    def report(pair: int, fold: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            name = describe_pair(data.classes, data.pairs[pair])
            progress(done, n_pairs * (1 + n_folds), f"fold {fold + 1} of {n_folds}, {name}")

    return report


def _one_by_one(
    backend: Backend,
    training: Training,
    model: SVMModel,
    codes: np.ndarray,
    rows: np.ndarray,
    held: Sequence[np.ndarray],
    progress: Progress | None,
) -> np.ndarray:
    """As `folds.own_decisions`, of `rows` alone: by a training for each of the folds `held`."""
    n_classes = int(codes.max()) + 1
    columns = own_pairs(n_classes)
    own = np.empty((len(codes), n_classes - 1))
    for fold, part in enumerate(held):
        left = np.unique(codes[np.setdiff1d(rows, part)])
        if len(left) == 1:
            own[part] = 1.0 if left[0] == 0 else -1.0
            continue
        without = _trained_without(backend, training, model, part, fold, len(held), progress)
        if len(part) < EACH_BY_ITSELF * n_classes:
            if array_module(training.X) is np:
                own[part] = _own_decisions(without, training.X, part, codes[part])
            else:
                own[part] = _decisions(without, training, part, columns[codes[part]])
            continue
        for c in np.unique(codes[part]).tolist():
            members = part[codes[part] == c]
            own[members] = _decisions(_of_class(without, c), training, members, columns[c])
    return own[rows]


def _trained_without(
    backend: Backend,
    training: Training,
    model: SVMModel,
    held: np.ndarray,
    fold: int,
    n_folds: int,
    progress: Progress | None,
) -> SVMModel:
    """The model without the samples `held`.

    Trained from `model` on, where the backend can do so and it pays.
    """
    weights = np.ones(len(training.y)) if training.sample_weight is None else training.sample_weight.astype(np.float64)
    weights[held] = 0.0
    limit = training.stopping.time_limit
    goes_on = backend.goes_on and len(training.y) >= WORTH_A_START * model.n_classes
    resume: dict[str, Any] = {"resume": Resume(start=model)} if goes_on else {}
    stopping = replace(training.stopping, time_limit=None if limit is None else limit / n_folds)
    with muted(ConvergenceWarning):  # of which the model itself has told
        return backend.fit(
            training.X, training.y, training.problem, stopping, training.resources,
            sample_weight=weights, progress=part_of(1 + n_folds, 1 + fold, progress), **resume,
        )  # fmt: skip


def part_of(n_trainings: int, training: int, progress: Progress | None) -> Progress | None:
    """The progress of one of several trainings, as part of the whole.

    All have the same number of class pairs.
    """
    if progress is None or n_trainings == 1:
        return progress

    def report(done: int, total: int, latest: str) -> None:
        where = f"fold {training} of {n_trainings - 1}, {latest}" if training else latest
        progress(training * total + done, n_trainings * total, where)

    return report


def _of_class(model: SVMModel, c: int) -> SVMModel:
    """The model reduced to the support vectors of class `c`'s pairs: it decides only those."""
    if model.n_classes == 2:
        return model
    owners = np.repeat(np.arange(model.n_classes), model.n_support)
    needed = (coefficients_against(model.dual_coef, owners, c) != 0) | (owners == c)
    return replace(
        model,
        support_vectors=model.support_vectors[needed],
        support_indices=model.support_indices[needed],
        n_support=np.bincount(owners[needed], minlength=model.n_classes),
        dual_coef=np.ascontiguousarray(model.dual_coef[:, needed]),
    )


def _own_decisions(model: SVMModel, X: Any, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The decision values (m, n_classes - 1) of these rows of X in the pairs of their class.

    X is on the host. `codes` (m,) are the classes of the rows.
    """
    found = np.empty((len(rows), model.n_classes - 1))
    in_order = np.argsort(codes, kind="stable")
    step = max(1, _BLOCK_BYTES // (24 * max(1, model.n_support_vectors)))
    for start in range(0, len(rows), step):
        block = in_order[start : start + step]
        values = _kernel_values(model, X, rows[block])
        found[block] = in_own_pairs(values, codes[block], model.dual_coef, model.n_support, model.intercept)
    return found


def _kernel_values(model: SVMModel, X: Any, rows: np.ndarray) -> np.ndarray:
    """Kernel values (m, n_sv) float64 between rows of X and the support vectors.

    Computed in the precision of a prediction.
    """
    if model.kernel.precomputed:
        return X[rows][:, model.support_indices].astype(np.float64)
    dtype = working_dtype(X.dtype) if model.float32_suffices else np.float64
    samples, vectors = X[rows], model.support_vectors
    if model.offset is not None and not is_sparse(vectors):
        samples, vectors = samples - model.offset, vectors - model.offset
    return model.kernel(samples.astype(dtype), vectors.astype(dtype)).astype(np.float64)


def _decisions(model: SVMModel, training: Training, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The decision values of these rows in some pairs, (m, n_columns), on the host.

    `columns` are the places of the pairs: (n_columns,) int64 of all rows, or (m, n_columns) of
    each.
    """
    found = np.empty((len(rows), columns.shape[-1]))
    step = max(1, _BLOCK_BYTES // (8 * len(model.intercept)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        samples = training.X[array_module(training.X).asarray(part)]
        decisions = model.pair_decisions(samples, n_jobs=training.resources.n_jobs)
        decisions = decisions if isinstance(decisions, np.ndarray) else decisions.get()
        if columns.ndim == 1:
            found[start : start + step] = decisions[:, columns]
        else:
            found[start : start + step] = np.take_along_axis(decisions, columns[start : start + step], axis=1)
    return found

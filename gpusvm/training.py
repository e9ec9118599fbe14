"""From images or a table to a finished model: preprocess, fit, record where it all came from."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sklearn.base import clone

from gpusvm.backends.base import Progress
from gpusvm.data import CATALOGUE, Dataset, Table
from gpusvm.data.table import digest_of
from gpusvm.errors import DataError, UsageError
from gpusvm.estimators import SVC
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.jobs import effective_jobs
from gpusvm.memory import require_address_space
from gpusvm.model import SVMModel, TableLayout
from gpusvm.params import Scaling
from gpusvm.pixel_range import PixelRange, white_of
from gpusvm.preprocess import (
    apply_steps,
    build_steps,
    default_scaling,
    fit_scaling,
    fit_scattering,
)
from gpusvm.preprocess.augment import Move, moved_copies
from gpusvm.split import Samples, counted, plural
from gpusvm.version import __version__

LIBRARIES_MB = 512.0
THREAD_MB = 100.0
"""Address space that compilers, BLAS, and each thread's stack and heap reserve, most of which they
never touch."""


MOST_ROWS = 100_000
"""Images that a model names as those it moved: its file's header has no room for millions."""


MOST_MOVES = 1000
"""Moves of each image that are believed of a file."""


def steps_for(
    data: Samples,
    *,
    binarize: bool = False,
    deskew: bool = False,
    scatter: bool = False,
    scaling: Scaling | None = None,
    n_jobs: int | None = None,
) -> list[Any]:
    """The steps of a training: pixels to [0, 1] for images, scaling of the features for a table.

    Parameters
    ----------
    data : Dataset or Table
        The training samples, which a scaling learns from.
    binarize, deskew : bool
        Of images only; see `gpusvm.preprocess.build_steps`.
    scatter : bool
        Of images only, and with neither of the two: their scattering; see
        `gpusvm.preprocess.fit_scattering`.
    n_jobs : int, optional
        Threads of the scattering.
    scaling : {"none", "standard", "maxabs", "minmax"}, optional
        Of tables only; by default "standard", or "maxabs" where the table is sparse.

    Raises
    ------
    UsageError
        What is asked for is not for samples of this kind.
    """
    if isinstance(data, Dataset):
        if scaling is not None:
            raise UsageError(f"--scale is for tables, and {data.name} holds images: pixels always become 0 to 1")
        if scatter:
            return _scattering_of(data, binarize or deskew, n_jobs)
        return build_steps(data.image_shape, binarize=binarize, deskew=deskew, maximum=white_of(data.images))
    if binarize or deskew or scatter:
        asked = "--binarize" if binarize else "--deskew" if deskew else "--scatter"
        raise UsageError(f"{asked} is for images, and {data.name} is a table; leave it out, or read it with --images")
    return fit_scaling(scaling or default_scaling(data.X), data.X, data.columns)


def _scattering_of(data: Dataset, has_other_steps: bool, n_jobs: int | None) -> list[Any]:
    if has_other_steps:
        raise UsageError("--scatter takes the pixels as they are; leave out --binarize and --deskew")
    try:
        return fit_scattering(data.images, white_of(data.images), n_jobs=n_jobs)
    except ValueError as error:
        raise UsageError(f"--scatter: {error}; bring the images to a smaller size with --resize") from error


def recommended_parameters(source: str) -> dict[str, Any]:
    """SVC parameters known to do well on a catalogue entry; none, for the defaults, elsewhere."""
    entry = CATALOGUE.get(source)
    return dict(entry.recommended) if entry is not None else {}


def train_model(
    svc: SVC,
    data: Samples,
    steps: Sequence[Any],
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> SVMModel:
    """Fit `svc` on the preprocessed samples, and give its model the steps and its provenance.

    Raises
    ------
    GpuSvmError
        The backend is unavailable or fails.
    MemoryError
        ``ulimit -v`` leaves too little for the samples and the libraries.
    """
    _require_memory(data, svc.n_jobs)
    X, y = apply_steps(steps, data.samples), data.require_labels()
    start = time.perf_counter()
    svc.fit_with_progress(X, y, progress=progress, checkpoint=checkpoint)
    fit_seconds = time.perf_counter() - start
    model = replace(
        svc.model_,
        preprocessing=tuple(steps),
        image_shape=data.image_shape if isinstance(data, Dataset) else None,
        table=TableLayout.of(data) if isinstance(data, Table) else None,
        provenance={
            **svc.model_.provenance,
            "backend_reason": svc.backend_reason_,
            "gpusvm": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "fit_seconds": round(fit_seconds, 3),
            **({"pixels": PixelRange.of(data.images)._asdict()} if isinstance(data, Dataset) else {}),
            **({"resized": True} if isinstance(data, Dataset) and data.resized else {}),
            "dataset": {"name": data.name, "split": data.split, "digest": data.digest, "n": len(data)},
        },
    )
    svc.model_ = model
    return model


def train_augmented(
    svc: SVC,
    data: Dataset,
    steps: Sequence[Any],
    moves: Sequence[Move],
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SVMModel:
    """Train, move the support vectors' images, and train again on those and what became of them.

    The model's training samples are then the images of the first training's support vectors, in
    the order of their rows, followed by all of them after each move; `training_samples` gives
    them. Its provenance says so.

    Parameters
    ----------
    svc : SVC
        Its gamma and its weights of classes are resolved in the first training, for both.
    data : Dataset
    steps : sequence of transformers
    moves : sequence of Move
        At least one.
    progress : callable, optional
        Called for the class pairs of either training.
    say : callable
        Told what begins, in words.

    Raises
    ------
    GpuSvmError
        The backend is unavailable or fails.
    UsageError
        `svc` is asked for probabilities: the folds that they are learned from would share images.
    """
    if svc.probability is True:
        raise UsageError("--augment cannot give probabilities: moved copies of an image would be in several folds")
    say(f"First training, on {counted(data)}")
    first = train_model(svc, data, steps, progress)
    rows = np.sort(first.support_indices)
    samples = _moved(data, rows, moves)
    more = f"{len(rows):,} support vectors, and {plural(len(moves), 'move')} of each"
    say(f"Second training, on {counted(samples)}: {more}")
    weights = None if svc.class_weight is None else dict(zip(first.classes, svc.class_weight_, strict=True))
    again = clone(svc).set_params(gamma=first.kernel.gamma, class_weight=weights)
    model = train_model(again, samples, steps, progress)
    found = {name: first.provenance[name] for name in ("n_train", "fit_seconds")}
    model = replace(
        model,
        provenance={
            **model.provenance,
            **{name: first.provenance[name] for name in ("pixels", "dataset", "backend_reason")},
            "fit_seconds": round(first.provenance["fit_seconds"] + model.provenance["fit_seconds"], 3),
            "augment": {
                "moves": [move.to_dict() for move in moves],
                "first": {**found, "n_support_vectors": first.n_support_vectors},
                **({"rows": rows.tolist()} if len(rows) <= MOST_ROWS else {}),
            },
        },
    )
    svc.__dict__ = again.__dict__
    svc.model_ = model
    return model


def training_samples(model: SVMModel, data: Samples) -> Samples:
    """The samples that a model was trained on in the end, from its data set.

    They are others than `data` where it was augmented.

    Raises
    ------
    DataError
        They cannot be had from `data`.
    """
    found = model.provenance.get("augment")
    if not isinstance(found, dict) or not isinstance(data, Dataset):
        return data
    try:
        rows, moves = np.asarray(found["rows"], dtype=np.int64), [Move.read(each) for each in found["moves"]]
        if (1 + len(moves)) * len(rows) != model.provenance["n_train"] or len(moves) > MOST_MOVES:
            raise ValueError
        if rows.ndim != 1 or not 0 <= rows.min() <= rows.max() < len(data):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{data.name}: does not have the images that the model was trained on, or the model does not name them"
        ) from error
    return _moved(data, rows, moves)


def _moved(data: Dataset, rows: np.ndarray, moves: Sequence[Move]) -> Dataset:
    images = moved_copies(data.images[rows], moves)
    labels = np.tile(data.require_labels()[rows], 1 + len(moves))
    return replace(data, images=images, labels=labels, digest=digest_of(images, labels))


def _require_memory(data: Samples, n_jobs: int | None) -> None:
    n_values = data.samples.size  # of a sparse table, those that are there
    copies_mb = 4 * n_values * 4 / 2**20
    require_address_space(LIBRARIES_MB + effective_jobs(n_jobs) * THREAD_MB + copies_mb, f"training on {counted(data)}")

"""From images to a finished model: split, preprocess, fit, and record where it all came from."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from gpusvm.backends.base import Progress
from gpusvm.backends.checkpoint import Checkpoint
from gpusvm.data import CATALOGUE, Dataset, has_split, load_dataset
from gpusvm.errors import DataError
from gpusvm.estimators import SVC
from gpusvm.evaluation import class_indices
from gpusvm.jobs import effective_jobs
from gpusvm.memory import require_address_space
from gpusvm.model import SVMModel
from gpusvm.pixel_range import PixelRange
from gpusvm.preprocess import apply_steps, check_image_shape
from gpusvm.version import __version__

DEFAULT_TEST_SIZE = 0.2

LIBRARIES_MB = 512.0
THREAD_MB = 100.0
"""Address space that compilers, BLAS, and each thread's stack and heap reserve, most of which they never touch."""


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on and what to test on."""

    train: Dataset
    test: Dataset
    description: str


def load_split(
    source: str,
    *,
    limit: int | None = None,
    test_size: float | None = None,
    seed: int = 0,
    data_dir: str | None = None,
    progress: bool = False,
) -> Split:
    """Load what to train on and what to test on.

    The test images are the source's own where it has some, else a random fraction held out.

    Parameters
    ----------
    source : str
        A catalogue name, a file or a folder; see `gpusvm.data.load_dataset`.
    limit : int, optional
        Train on (and hold out of) so many images, the first ones.
    test_size : float, optional
        Fraction to hold out, also where the source has test images of its own.
    seed : int
        Of the choice of held-out images.

    Raises
    ------
    DataError
        The source cannot be read, has no labels, is too small to split, or has test images of another
        size or of classes that are not among the training images.
    """
    data = load_dataset(source, "train", limit=limit, data_dir=data_dir, progress=progress, kind="images")
    _require_two_classes(data)
    if test_size is None and has_split(source, "test", data_dir):
        test = load_dataset(source, "test", data_dir=data_dir, kind="images")
        _require_same_kind(data, test)
        return Split(data, test, f"the {len(test):,} test images of {data.name}")
    fraction = DEFAULT_TEST_SIZE if test_size is None else test_size
    train, test = _hold_out(data, fraction, seed)
    return Split(train, test, f"{len(test):,} images held out ({fraction:.0%}, seed {seed})")


def _hold_out(data: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    try:
        train_rows, test_rows = train_test_split(
            np.arange(len(data)), train_size=1 - fraction, test_size=fraction, random_state=seed
        )
    except ValueError as error:
        raise DataError(f"{data.name}: cannot hold out {fraction:.0%} of {len(data)} images: {error}") from error
    train, test = data.take(train_rows), data.take(test_rows)
    _require_two_classes(train)
    return train, test


def _require_two_classes(data: Dataset) -> None:
    labels = np.unique(data.require_labels())
    if len(labels) < 2:
        raise DataError(
            f"{data.name}: all {len(data)} images have the label {labels[0]}; an SVM needs at least two classes, "
            "so take more images (--limit) or another source"
        )


def _require_same_kind(train: Dataset, test: Dataset) -> None:
    """What would stop the evaluation is found before hours of training."""
    where = f"{test.name}, test split"
    check_image_shape(test.images, train.image_shape)
    class_indices(np.unique(train.require_labels()), test.require_labels(), where=where)


def recommended_parameters(source: str) -> dict[str, Any]:
    """SVC parameters known to do well on a catalogue entry; those of scikit-learn's SVC elsewhere."""
    entry = CATALOGUE.get(source)
    return dict(entry.recommended) if entry is not None else {}


def train_model(
    svc: SVC,
    data: Dataset,
    steps: Sequence[Any],
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> SVMModel:
    """Fit `svc` on the preprocessed images, and give its model the steps and its provenance.

    Raises
    ------
    GpuSvmError
        The backend is unavailable or fails.
    MemoryError
        ``ulimit -v`` leaves too little for the images and the libraries.
    """
    _require_memory(data, svc.n_jobs)
    X, y = apply_steps(steps, data.images), data.require_labels()
    start = time.perf_counter()
    svc.fit_with_progress(X, y, progress=progress, checkpoint=checkpoint)
    fit_seconds = time.perf_counter() - start
    model = replace(
        svc.model_,
        preprocessing=tuple(steps),
        image_shape=data.image_shape,
        provenance={
            **svc.model_.provenance,
            "backend_reason": svc.backend_reason_,
            "gpusvm": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "fit_seconds": round(fit_seconds, 3),
            "pixels": PixelRange.of(data.images)._asdict(),
            "dataset": {"name": data.name, "split": data.split, "digest": data.digest, "n": len(data)},
        },
    )
    svc.model_ = model
    return model


def _require_memory(data: Dataset, n_jobs: int | None) -> None:
    copies_mb = 4 * data.images.size * 4 / 2**20
    require_address_space(
        LIBRARIES_MB + effective_jobs(n_jobs) * THREAD_MB + copies_mb, f"training on {len(data):,} images"
    )

"""From images or a table to a finished model: preprocess, fit, and record where it all came from."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gpusvm.backends.base import Progress
from gpusvm.backends.checkpoint import Checkpoint
from gpusvm.data import CATALOGUE, Dataset, Table
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.jobs import effective_jobs
from gpusvm.memory import require_address_space
from gpusvm.model import SVMModel, TableLayout
from gpusvm.pixel_range import PixelRange, white_of
from gpusvm.preprocess import Scaling, apply_steps, build_steps, default_scaling, fit_scaling
from gpusvm.split import Samples, counted
from gpusvm.version import __version__

LIBRARIES_MB = 512.0
THREAD_MB = 100.0
"""Address space that compilers, BLAS, and each thread's stack and heap reserve, most of which they never touch."""


def steps_for(
    data: Samples, *, binarize: bool = False, deskew: bool = False, scaling: Scaling | None = None
) -> list[Any]:
    """The steps of a training: pixels to [0, 1] for images, scaling of the features for a table.

    Parameters
    ----------
    data : Dataset or Table
        The training samples, which a scaling learns from.
    binarize, deskew : bool
        Of images only; see `gpusvm.preprocess.build_steps`.
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
        return build_steps(data.image_shape, binarize=binarize, deskew=deskew, maximum=white_of(data.images))
    if binarize or deskew:
        asked = "--binarize" if binarize else "--deskew"
        raise UsageError(f"{asked} is for images, and {data.name} is a table; leave it out, or read it with --images")
    return fit_scaling(scaling or default_scaling(data.X), data.X, data.columns)


def recommended_parameters(source: str) -> dict[str, Any]:
    """SVC parameters known to do well on a catalogue entry; those of scikit-learn's SVC elsewhere."""
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


def _require_memory(data: Samples, n_jobs: int | None) -> None:
    n_values = data.samples.size  # of a sparse table, those that are there
    copies_mb = 4 * n_values * 4 / 2**20
    require_address_space(LIBRARIES_MB + effective_jobs(n_jobs) * THREAD_MB + copies_mb, f"training on {counted(data)}")

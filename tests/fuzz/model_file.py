"""Model files: a safetensors header that lies, arrays that are not what they should be, a
description gone wild."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from fuzz.json_values import edit
from fuzz.mutation import mutate
from fuzz.tensors import edit_array, put_together, take_apart
from gpusvm import SVC, SVR, OneClassSVM, load_model, save_model, to_sklearn
from gpusvm.calibration import Calibration
from gpusvm.cli.evaluate import trained_on
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel, TableLayout
from gpusvm.params import Problem, Stopping
from gpusvm.preprocess import Deskewer, PixelBinarizer, PixelScaler, fit_scaling
from gpusvm.report import evaluation as report
from gpusvm.sparse import as_csr


def _seed(n_classes: int, **changes: Any) -> bytes:
    n_sv, n_pairs = 2 * n_classes, n_classes * (n_classes - 1) // 2
    values: dict[str, Any] = {
        "problem": Problem(Kernel(gamma=0.5)),
        "stopping": Stopping(),
        "classes": np.arange(n_classes),
        "support_vectors": np.linspace(0, 1, n_sv * 4, dtype=np.float32).reshape(n_sv, 4),
        "support_indices": np.arange(n_sv),
        "n_support": np.full(n_classes, 2),
        "dual_coef": np.ones((n_classes - 1, n_sv)),
        "intercept": np.zeros(n_pairs),
        "n_features": 4,
        "n_iter": np.ones(n_pairs, dtype=np.int64),
        "provenance": {"backend": "sklearn", "n_train": 20},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.svm")
        save_model(SVMModel(**values | changes), path)
        return path.read_bytes()


_STEPS = (Deskewer((2, 2)), PixelScaler(), PixelBinarizer(0.5))
_SCALED = tuple(fit_scaling("standard", np.arange(8.0).reshape(2, 4)) + fit_scaling("minmax", np.eye(2, 4)))
_SEEDS = (
    _seed(2, preprocessing=_SCALED, table=TableLayout(("a", "b", "c", "d"), "y")),
    _seed(3, preprocessing=_STEPS, image_shape=(2, 2), kkt_gap=np.zeros(3), dual_objective=np.zeros(3)),
    _seed(3, vote_order=np.array([2, 0, 1]), calibration=Calibration(np.zeros(3), np.zeros(3))),
    _seed(3, calibration=Calibration(np.linspace(-2, 0, 3), np.linspace(-1, 1, 3), "price", 1.5)),
    _seed(2, classes=np.array(["ant", "bee"]), problem=Problem(Kernel("poly"), class_weight=(1.0, 2.0))),
    _seed(2, support_vectors=as_csr(csr_array(np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4], [0, 0, 5, 6.0]])))),
    _seed(2, problem=Problem(Kernel("precomputed")), support_vectors=np.zeros((4, 0), np.float32)),
)  # fmt: skip


def generate(rng: Random) -> tuple[str, bytes]:
    content = rng.choice(_SEEDS)
    if (kind := rng.random()) < 0.35:
        return "m.svm", mutate(rng, content)
    metadata, arrays = take_apart(content)
    description = json.loads(metadata["model"])
    if kind < 0.6:
        edit(rng, description)
    elif kind < 0.8:
        edit_array(rng, arrays)
    return "m.svm", put_together(rng, metadata | {"model": json.dumps(description)}, arrays, lie=kind >= 0.8)


def read(path: Path) -> Any:
    return load_model(path)


def use(result: Any) -> None:
    """Predict, convert and describe, as the commands and the report do."""
    with np.errstate(all="ignore"):
        if result.image_shape is not None and np.prod(result.image_shape, dtype=float) < 100:
            result.predict(result.preprocess(np.zeros((2, *result.image_shape), np.uint8)))
        if 0 <= result.n_features < 100:
            result.predict(result.preprocess(np.zeros((2, 1, result.n_features), np.uint8)))
            result.predict(np.zeros((2, result.n_features)))
            if result.calibration is not None:
                assert np.allclose(result.predict_proba(np.zeros((2, result.n_features))).sum(axis=1), 1)
            result.predict(result.preprocess(np.zeros((2, result.n_features))))
    to_sklearn(result)
    {"c_svc": SVC, "epsilon_svr": SVR, "one_class": OneClassSVM}[result.problem.task].from_model(result)
    trained_on(result), report._model_facts(result), report._training_facts(result)

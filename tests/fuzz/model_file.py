"""Model files: a safetensors header that lies, arrays that are not what they should be, a description gone wild."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.mutation import EXTREMES, mutate
from gpusvm import SVC, load_model, report, save_model, to_sklearn
from gpusvm.cli.evaluate import trained_on
from gpusvm.kernels import Kernel
from gpusvm.model import SVCParams, SVMModel
from gpusvm.preprocess import Deskewer, PixelBinarizer, PixelScaler

_VALUES = (
    None, True, False, "", "x", "float64", "1", "x" * 9999, "é\n\x1b", [], {}, [[]], [1, 2], [2, 2], [0.5] * 3,
    {"a": 1}, 0, -1, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**400, ["a", "b", "c"], ["a"] *
    3, "O", "U5", "M8[s]", "(2,", "V0", "int8", "rbf", "poly", "sigmoid", {"step": "deskewer", "image_shape":
    None}, [{"step": "deskewer", "image_shape": [3, 3]}], [{"step": "__import__"}], *EXTREMES,
)  # fmt: skip
_DTYPES = (
    "F64", "F32", "F16", "BF16", "I64", "I32", "U64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3",
    "C64", "Q", "", None, 1,
)  # fmt: skip
_NUMBERS = (0.0, -1.0, 1e308, -1e308, 5e-324, np.nan, np.inf, -np.inf, 2**62, -(2**63), 3.0)


def _seed(n_classes: int, **changes: Any) -> bytes:
    n_sv, n_pairs = 2 * n_classes, n_classes * (n_classes - 1) // 2
    values: dict[str, Any] = {
        "params": SVCParams(kernel=Kernel(gamma=0.5)),
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
_SEEDS = (
    _seed(3, preprocessing=_STEPS, image_shape=(2, 2), kkt_gap=np.zeros(3), dual_objective=np.zeros(3)),
    _seed(2, classes=np.array(["ant", "bee"]), params=SVCParams(kernel=Kernel("poly"), class_weight=(1.0, 2.0))),
    _seed(2, params=SVCParams(kernel=Kernel("precomputed")), support_vectors=np.zeros((4, 0), np.float32)),
)  # fmt: skip


def _unpack(content: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Header, description and arrays of a valid file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__")
    dtypes = {"F64": "<f8", "F32": "<f4", "I64": "<i8"}
    arrays = {}
    for name, entry in header.items():
        values = np.frombuffer(content[end:][slice(*entry["data_offsets"])], dtypes[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return metadata, json.loads(metadata["model"]), arrays


def generate(rng: Random) -> tuple[str, bytes]:
    content = rng.choice(_SEEDS)
    if (kind := rng.random()) < 0.35:
        return "m.svm", mutate(rng, content)
    metadata, description, arrays = _unpack(content)
    if kind < 0.6:
        _edit(rng, description)
    elif kind < 0.8:
        _edit_array(rng, arrays)
    header, data = _layout(metadata | {"model": json.dumps(description)}, arrays)
    if kind >= 0.8:
        for _ in range(rng.choice((1, 1, 2))):
            _edit_header(rng, header)
    text = json.dumps(header).encode()
    length = rng.choice(EXTREMES) if rng.random() < 0.02 else len(text)
    return "m.svm", struct.pack("<Q", length % 2**64) + text + data


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
    to_sklearn(result)
    SVC.from_model(result)
    trained_on(result), report._machine_facts(result), report._training_facts(result)


def _layout(metadata: dict[str, str], arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    names = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "u8": "U64", "b1": "BOOL"}
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[array.dtype.str[1:]], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    return header, data


def _edit(rng: Random, value: Any) -> None:
    """Change something somewhere in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], (dict, list)) and value[key] and rng.random() < 0.7:
        _edit(rng, value[key])
    elif rng.random() < 0.1:
        del value[key]
    elif rng.random() < 0.1 and isinstance(value, dict):
        value[rng.choice(("x", "", "classes", "gamma", "step"))] = rng.choice(_VALUES)
    else:
        value[key] = rng.choice(_VALUES)


def _edit_array(rng: Random, arrays: dict[str, np.ndarray]) -> None:
    name = rng.choice(list(arrays))
    array = arrays[name].copy()
    kind = rng.randrange(5)
    if kind == 0 and array.size:
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = np.array(rng.choice(_NUMBERS)).astype(array.dtype)
    elif kind == 1:
        with np.errstate(all="ignore"):
            array = array.astype(rng.choice(("f8", "f4", "f2", "i8", "i4", "u8", "b1")))
    elif kind == 2:
        array = array[: rng.randint(0, len(array))]
    elif kind == 3:
        array = np.concatenate([array] * rng.randint(2, 3), axis=rng.randrange(array.ndim))
    arrays[name] = array
    if kind == 4:
        del arrays[name]


def _edit_header(rng: Random, header: dict[str, Any]) -> None:
    name = rng.choice(list(header))
    entry = header[name]
    if not isinstance(entry, dict) or rng.random() < 0.1:
        header[rng.choice((name, "x", "../x", "", "x" * 9999))] = rng.choice((entry, *_VALUES))
        return
    key = rng.choice(list(entry) or ["dtype"])
    if key == "dtype":
        entry[key] = rng.choice(_DTYPES)
    elif isinstance(entry.get(key), list) and entry[key] and rng.random() < 0.8:
        i = rng.randrange(len(entry[key]))
        near = entry[key][i] + rng.choice((-8, 8, 1)) if isinstance(entry[key][i], int) else 0
        entry[key][i] = rng.choice((*EXTREMES, near))
    else:
        entry[key] = rng.choice(_VALUES)

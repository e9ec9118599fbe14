"""safetensors files: taken apart, spoilt, and put together, by a header that may lie."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

import numpy as np

from fuzz.json_values import VALUES
from fuzz.mutation import EXTREMES

_DTYPES = (
    "F64", "F32", "F16", "BF16", "I64", "I32", "U64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3",
    "C64", "Q", "", None, 1,
)  # fmt: skip
_NUMBERS = (0.0, -1.0, 1e308, -1e308, 5e-324, np.nan, np.inf, -np.inf, 2**62, -(2**63), 3.0)
_NAMES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "u8": "U64", "u1": "U8", "b1": "BOOL"}
_CODES = {name: code for code, name in _NAMES.items()}


def take_apart(content: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a valid file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        values = np.frombuffer(content[end:][slice(*entry["data_offsets"])], _CODES[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return metadata, arrays


def put_together(rng: Random, metadata: dict[str, Any], arrays: dict[str, np.ndarray], *, lie: bool) -> bytes:
    """A file of these arrays; with `lie`, the header says something else of them."""
    header, data = _layout(metadata, arrays)
    if lie:
        for _ in range(rng.choice((1, 1, 2))):
            _edit_header(rng, header)
    text = json.dumps(header).encode()
    length = rng.choice(EXTREMES) if rng.random() < 0.02 else len(text)
    return struct.pack("<Q", length % 2**64) + text + data


def edit_array(rng: Random, arrays: dict[str, np.ndarray]) -> None:
    """Change one of the arrays: a value, its type, its length; or leave it out."""
    name = rng.choice(list(arrays))
    array = arrays[name].copy()
    kind = rng.randrange(5)
    if kind == 0 and array.size:
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = np.array(rng.choice(_NUMBERS)).astype(array.dtype)
    elif kind == 1:
        with np.errstate(all="ignore"):
            array = array.astype(rng.choice(("f8", "f4", "f2", "i8", "i4", "u8", "u1", "b1")))
    elif kind == 2:
        array = array[: rng.randint(0, len(array))]
    elif kind == 3:
        array = np.concatenate([array] * rng.randint(2, 3), axis=rng.randrange(array.ndim))
    arrays[name] = array
    if kind == 4:
        del arrays[name]


def _layout(metadata: dict[str, str], arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype.str[1:]], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    return header, data


def _edit_header(rng: Random, header: dict[str, Any]) -> None:
    name = rng.choice(list(header))
    entry = header[name]
    if not isinstance(entry, dict) or rng.random() < 0.1:
        header[rng.choice((name, "x", "../x", "", "x" * 9999))] = rng.choice((entry, *VALUES))
        return
    key = rng.choice(list(entry) or ["dtype"])
    if key == "dtype":
        entry[key] = rng.choice(_DTYPES)
    elif isinstance(entry.get(key), list) and entry[key] and rng.random() < 0.8:
        i = rng.randrange(len(entry[key]))
        near = entry[key][i] + rng.choice((-8, 8, 1)) if isinstance(entry[key][i], int) else 0
        entry[key][i] = rng.choice((*EXTREMES, near))
    else:
        entry[key] = rng.choice(VALUES)

"""NumPy archives: headers that lie, members that are no arrays, names that lead elsewhere,
pickles."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.mutation import EXTREMES, mutate
from gpusvm.data import npz
from gpusvm.data.table import Contents

_NAMES = ("x_train", "y_train", "x_test", "images", "labels", "X", "y")
_STRANGE_NAMES = ("../X", "/X", "X/../X", "C:\\X", "X\x00", "", ".", "X.npy", "é" * 40, "\x1b[31m", "a\nb")
_DESCRIPTIONS = (
    "'|u1'", "'<f8'", "'>i4'", "'|b1'", "'<U3'", "'|S5'", "'|O'", "'O'", "'<U1000000000'", "'<U0'", "'|V0'",
    "'|V8'", "'<M8[s]'", "'<c16'", "'<f2'", "'(2,)u1'", "'(1000000,1000)u1'", "[('a', '|u1')]", "[('a', '|O')]",
    "[]", "'u1,u1'", "None", "3", "''", "('|u1', (3,))", "'|u1' * 9", "__import__('os')",
)  # fmt: skip
_NUMBERS = ("0", "1", "3", "4", "-1", "1.0", "True", "None", "'3'", "()", *map(str, EXTREMES))


class Payload:
    """What a pickle in an archive would run; `ran` tells whether it did."""

    ran = False

    def __reduce__(self) -> Any:
        return (_run, ())


def _run() -> None:
    Payload.ran = True


_PICKLE = pickle.dumps([Payload()])
_BOMB = bytes(8 << 20)


def generate(rng: Random) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            name = rng.choice(_NAMES) if rng.random() < 0.9 else rng.choice(_STRANGE_NAMES)
            info = zipfile.ZipInfo(name + rng.choice((".npy", ".npy", ".npy", "", ".pkl")))
            method = rng.choices((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2), (60, 39, 1))[0]
            archive.writestr(info, member(rng), method, compresslevel=1)
    content = buffer.getvalue()
    return "a.npz", mutate(rng, content) if rng.random() < 0.4 else content


def read(path: Path) -> Any:
    try:
        if npz.has_split(path, "train"):
            return npz.read_any(path, "train", "auto")
        found = npz.read_samples(path, "auto")
        return found if isinstance(found, Contents) else (found, None)
    finally:
        assert not Payload.ran, "a pickle was run"


def use(result: Any) -> None:
    if isinstance(result, Contents):
        assert result.X.ndim == 2 and result.X.size and result.X.dtype.kind == "f" and np.isfinite(result.X).all()
        assert result.labels is None or result.labels.dtype.kind in "iUf"
        return
    images, labels = result
    assert images.ndim == 3 and images.size and images.dtype.name == "uint8"
    assert labels is None or labels.dtype.kind in "iU"


def member(rng: Random) -> bytes:
    """An array as numpy.save writes it, or what pretends to be one."""
    kind = rng.random()
    if kind < 0.03:
        return rng.choice((_PICKLE, b"", b"no array", b"\x93NUMPY", rng.randbytes(30)))
    if kind < 0.032:
        return rng.choice((_BOMB, _header("'|u1'", "(8, 1024, 1024)") + _BOMB, _header("'|u1'", "(1, 4)") + _BOMB))
    description, shape = rng.choice((("'|u1'", "(2, 3, 4)"), ("'|u1'", "(6, 4)"), ("'<i8'", "(3,)")))
    if rng.random() < 0.2:
        description = rng.choice(_DESCRIPTIONS)
    if rng.random() < 0.2:
        shape = "(" + "".join(f"{rng.choice(_NUMBERS)}, " for _ in range(rng.choice((0, 1, 2, 3, 4, 33)))) + ")"
    data = _PICKLE if "O" in description else bytes(rng.choice((24, 24, 24, 0, 8, 192)))
    return _header(description, shape, rng) + data


def _header(description: str, shape: str, rng: Random | None = None) -> bytes:
    text = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}"
    version, length = b"\x01\x00", None
    if rng is not None and rng.random() < 0.2:
        strange = ("(" * 5000, "{" + text, "[" * 90 + "]" * 90, "1" * 9000)
        text = rng.choice((text.replace("False", rng.choice(_NUMBERS)), *strange))
        version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"))
        length = rng.choice((None, rng.choice(EXTREMES)))
    body = text.encode() + b"\n"
    size = struct.Struct("<H" if version[0] == 1 else "<I")
    return b"\x93NUMPY" + version + size.pack((len(body) if length is None else length) % (1 << 8 * size.size)) + body

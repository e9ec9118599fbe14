"""IDX files, plain and gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutation import EXTREMES, mutate, splice
from gpusvm.data import idx

_IMAGES = struct.pack(">4I", 0x803, 3, 4, 5) + bytes(range(60))
_LABELS = struct.pack(">2I", 0x801, 6) + bytes(range(6))
_BOMB_BYTES = 8 << 20
_BOMBS = tuple(
    gzip.compress(struct.pack(">4I", 0x803, n, 1024, 1024) + bytes(_BOMB_BYTES)) for n in (1, 8, 9, 1000, 2**32 - 1)
)


def generate(rng: Random) -> tuple[str, bytes]:
    name, content = _plain(rng)
    return name, mutate(rng, content) if rng.random() < 0.5 else content


def generate_gzip(rng: Random) -> tuple[str, bytes]:
    if rng.random() < 0.002:
        return "images-bomb.gz", rng.choice(_BOMBS)
    name, content = _plain(rng)
    cut = rng.randint(0, len(content)) if rng.random() < 0.1 else len(content)
    packed = b"".join(_gzip(rng, part) for part in (content[:cut], content[cut:]) if part)
    return f"{name}.gz", mutate(rng, packed) if rng.random() < 0.6 else packed


def read(path: Path) -> Any:
    return (idx.read_labels if path.name.startswith("labels") else idx.read_images)(path)


def use(result: Any) -> None:
    assert result.size and result.dtype.name in ("uint8", "int64")


def _plain(rng: Random) -> tuple[str, bytes]:
    name, content = rng.choice((("images", _IMAGES), ("labels", _LABELS)))
    kind = rng.random()
    if kind < 0.4:
        n_dimensions = content[3]
        dimensions = [rng.choice((*EXTREMES, 1, 2, 3, 4, 5)) % 2**32 for _ in range(n_dimensions)]
        magic = rng.choice((0x801, 0x803, 0x800 + n_dimensions, rng.choice(EXTREMES) % 2**32))
        content = struct.pack(f">{1 + n_dimensions}I", magic, *dimensions) + bytes(rng.choice((0, 1, 60, 4096)))
    elif kind < 0.6:
        content = splice(rng, content, rng.choice((_IMAGES, _LABELS)))
    return name, content


def _gzip(rng: Random, content: bytes) -> bytes:
    packed = gzip.compress(content, compresslevel=1, mtime=0)
    if rng.random() < 0.1:
        return packed[:-8] + struct.pack("<2I", *(rng.choice(EXTREMES) % 2**32 for _ in range(2)))
    return packed

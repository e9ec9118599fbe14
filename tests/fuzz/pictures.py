"""Pictures: sizes that lie, chunks that are damaged, and formats under another one's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from fuzz.mutation import EXTREMES, mutate, splice
from gpusvm.data import images


def _encode(format_name: str, mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 90).convert(mode).save(buffer, format_name, **options)
    return buffer.getvalue()


_SEEDS = {
    "png": tuple(_encode("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA")),
    "jpg": (*(_encode("JPEG", mode) for mode in ("L", "RGB", "CMYK")), _encode("JPEG", "RGB", progressive=True)),
    "bmp": tuple(_encode("BMP", mode) for mode in ("L", "RGB", "P", "1")),
    "gif": (_encode("GIF", "L"), _encode("GIF", "P", interlace=1)),
}
# Formats that Pillow reads, some through other programs, and that are not ours under any name.
_FOREIGN = (
    *(_encode(name, "RGB") for name in ("EPS", "TIFF", "PPM", "PCX", "ICO", "TGA", "WEBP", "PDF")),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 7\n%%EndComments\nshowpage\n", b"SIMPLE  =", b"GRIB", b"BUFR",
)  # fmt: skip
_TEXT_BOMB = b"x\0\0" + zlib.compress(bytes(1 << 24))
_SIDES = tuple(value % 2**32 for value in EXTREMES)


def generate(rng: Random) -> tuple[str, bytes]:
    suffix = rng.choice(tuple(_SEEDS))
    content = rng.choice(_SEEDS[suffix])
    kind = rng.random()
    if kind < 0.25 and suffix == "png":
        content = _edit_chunk(rng, content)
    elif kind < 0.3:
        content = _resize(rng, suffix, content)
    elif kind < 0.35:
        return f"a.{suffix}", rng.choice(_FOREIGN)
    elif kind < 0.4:
        content = splice(rng, content, rng.choice(_SEEDS[rng.choice(tuple(_SEEDS))]))
    else:
        content = mutate(rng, content)
    return f"a.{suffix}", content


def read(path: Path) -> Any:
    return images.read_pictures([path], path)


def use(result: Any) -> None:
    assert result.ndim == 3 and len(result) == 1 and result.dtype.name == "uint8"


def _edit_chunk(rng: Random, content: bytes) -> bytes:
    """A PNG with one chunk changed, moved, dropped or doubled, and its checksum right again."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    i = rng.randrange(len(chunks))
    name, data = chunks[i]
    if rng.random() < 0.5:
        chunks[i] = (name, mutate(rng, data))
    else:
        strange = (b"iCCP", _TEXT_BOMB), (b"zTXt", _TEXT_BOMB), (b"tRNS", data)
        chunks[i : i + rng.choice((0, 1))] = [*[(name, data)] * rng.choice((0, 1, 2)), rng.choice(strange)]
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _resize(rng: Random, suffix: str, content: bytes) -> bytes:
    """The same bytes under another width and height."""
    sides = (100_000, 100_000), (2048, 2048), (2049, 2048), (10**6, 9), (rng.choice(_SIDES), rng.choice(_SIDES))
    width, height = rng.choice(sides)
    changed = bytearray(content)
    if suffix == "png":
        changed[16:24] = struct.pack(">2I", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif suffix == "bmp":
        changed[18:26] = struct.pack("<2I", width, height)
    elif suffix == "gif":
        for place in (6, changed.find(b",", 13) + 5):
            changed[place : place + 4] = struct.pack("<2H", width % 2**16, height % 2**16)
    else:
        place = max(changed.find(b"\xff\xc0"), changed.find(b"\xff\xc2")) + 5
        changed[place : place + 4] = struct.pack(">2H", height % 2**16, width % 2**16)
    return bytes(changed)

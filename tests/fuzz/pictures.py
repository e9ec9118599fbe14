"""Pictures: sizes that lie, chunks that are damaged, and formats under another one's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from fuzz.mutation import EXTREMES, mutate, splice
from gpusvm.data import images


def _encode(format_name: str, mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.effect_noise((9, 7), 90)
    if mode.startswith("I;16"):
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):  # see-through in places
        picture = Image.merge("LA", (picture, picture.rotate(180))).convert(mode)
    else:
        picture = picture.convert(mode)
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _turned(orientation: int) -> dict[str, Any]:
    """The option by which a picture is saved with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


_SEEDS = {
    "png": (
        *(_encode("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16")),
        _encode("PNG", "P", transparency=3), _encode("PNG", "P", transparency=bytes(range(0, 250, 25))),
        _encode("PNG", "L", transparency=100), _encode("PNG", "L", **_turned(6)),
    ),
    "jpg": (
        *(_encode("JPEG", mode) for mode in ("L", "RGB", "CMYK")), _encode("JPEG", "RGB", progressive=True),
        _encode("JPEG", "L", **_turned(5)), _encode("JPEG", "RGB", **_turned(8)),
    ),
    "bmp": tuple(_encode("BMP", mode) for mode in ("L", "RGB", "P", "1")),
    "gif": (_encode("GIF", "L"), _encode("GIF", "P", interlace=1), _encode("GIF", "P", transparency=3)),
    "webp": (
        *(_encode("WEBP", mode, lossless=True) for mode in ("L", "RGB", "RGBA")),
        _encode("WEBP", "RGB", quality=20), _encode("WEBP", "RGB", **_turned(3)),
    ),
    "tif": (
        *(_encode("TIFF", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "I")),
        *(_encode("TIFF", "RGB", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        _encode("TIFF", "1", compression="group4"), _encode("TIFF", "L", **_turned(7)),
    ),
    "pgm": (_encode("PPM", "L"), _encode("PPM", "RGB"), _encode("PPM", "1"), b"P2 3 2 15\n1 2 3 4 5 15\n",
            b"P3\n# x\n1 1 255\n1 2 3", b"P5 2 2 65535\n01234567"),
}  # fmt: skip
# Formats that Pillow reads, some through other programs, and that are not ours under any name.
_FOREIGN = (
    *(_encode(name, "RGB") for name in ("EPS", "PCX", "ICO", "TGA", "PDF")),
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
        content = rng.choice(_FOREIGN)
    elif kind < 0.4:
        content = splice(rng, content, rng.choice(_SEEDS[rng.choice(tuple(_SEEDS))]))
    else:
        content = mutate(rng, content)
    return f"{rng.choice(('as-is', 'smaller'))}.{suffix}", content


def read(path: Path) -> Any:
    return images.read_pictures([path], path, resize=(3, 5) if path.stem == "smaller" else None)


def use(result: Any) -> None:
    assert result.ndim == 3 and len(result) == 1 and result.dtype.name == "uint8" and result.size


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
    elif suffix == "pgm":
        changed[:] = content[:3] + b"%d %d 255\n" % (width, height) + content[3:]
    elif suffix == "webp":
        place = max(content.find(b"VP8X") + 12, 24)  # the canvas, or what is there in a file without one
        changed[place : place + 6] = struct.pack("<2I", width, height)[:6]
    elif suffix == "tif":
        _set_tiff_sides(changed, width, height)
    elif suffix == "gif":
        for place in (6, changed.find(b",", 13) + 5):
            changed[place : place + 4] = struct.pack("<2H", width % 2**16, height % 2**16)
    else:
        place = max(changed.find(b"\xff\xc0"), changed.find(b"\xff\xc2")) + 5
        changed[place : place + 4] = struct.pack(">2H", height % 2**16, width % 2**16)
    return bytes(changed)


def _set_tiff_sides(content: bytearray, width: int, height: int) -> None:
    """Entries 256 and 257 of the first directory, in the byte order that the file begins with."""
    order = "<" if content[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", content, 4)
    (n_entries,) = struct.unpack_from(f"{order}H", content, place)
    for entry in range(place + 2, place + 2 + 12 * n_entries, 12):
        (tag,) = struct.unpack_from(f"{order}H", content, entry)
        if tag in (256, 257):
            struct.pack_into(f"{order}HHII", content, entry, tag, 4, 1, width if tag == 256 else height)

"""Damage that suits any format: flipped bits, lengths gone wild, slices cut, doubled, moved."""

from __future__ import annotations

import struct
from random import Random

EXTREMES = (
    *(sign * 2**bits + step for sign in (1, -1) for bits in (0, 7, 8, 15, 16, 31, 32, 63, 64) for step in (-1, 0, 1)),
    0, 10, 1000, 10**5, 10**9, 10**12,
)  # fmt: skip


def mutate(rng: Random, content: bytes) -> bytes:
    """`content` with one to four random changes."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_CHANGES)(rng, changed)
    return bytes(changed)


def splice(rng: Random, first: bytes, second: bytes) -> bytes:
    """The head of one and the tail of the other."""
    return first[: rng.randint(0, len(first))] + second[rng.randint(0, len(second)) :]


def _flip_bit(rng: Random, content: bytearray) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(rng: Random, content: bytearray) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_integer(rng: Random, content: bytearray) -> None:
    code, size = rng.choice((("H", 2), ("I", 4), ("Q", 8)))
    if len(content) >= size:
        # Half of them near the start, where formats keep their lengths.
        place = rng.randint(0, min(len(content) - size, rng.choice((64, len(content)))))
        value = rng.choice(EXTREMES) % (1 << 8 * size)
        content[place : place + size] = struct.pack(rng.choice("<>") + code, value)


def _truncate(rng: Random, content: bytearray) -> None:
    del content[rng.randint(0, len(content)) :]


def _cut(rng: Random, content: bytearray) -> None:
    start, stop = _slice(rng, content)
    del content[start:stop]


def _double(rng: Random, content: bytearray) -> None:
    start, stop = _slice(rng, content)
    content[start:start] = content[start:stop] * rng.choice((1, 1, 2, 20))


def _move(rng: Random, content: bytearray) -> None:
    start, stop = _slice(rng, content)
    place = rng.randint(0, len(content))
    content[place : place + stop - start] = content[start:stop]


def _insert(rng: Random, content: bytearray) -> None:
    place = rng.randint(0, len(content))
    content[place:place] = rng.choice((rng.randbytes(rng.randint(1, 16)), bytes(rng.choice((1, 8, 1000)))))


def _slice(rng: Random, content: bytearray) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((1, 4, 16, 64)))


_CHANGES = (_flip_bit, _set_byte, _set_integer, _set_integer, _truncate, _cut, _double, _move, _insert)

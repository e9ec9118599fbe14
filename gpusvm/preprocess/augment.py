"""Virtual samples: the images that matter, moved a little in ways that keep their labels.

Only the support vectors of a first training are moved, since what becomes of the other images is
mostly far from any border too. A second training, on the support vectors and what became of them,
then knows what moving does not change.

References
----------
B. Schoelkopf, C. Burges, V. Vapnik, "Incorporating invariances in support vector learning
machines", ICANN 1996.
D. DeCoste, B. Schoelkopf, "Training invariant support vector machines", Machine Learning 46
(2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np

from gpusvm.errors import UsageError
from gpusvm.params import MOVE_NAMES

_BLOCK_IMAGES = 2048
"""Images at once: four copies of them in float32 are under way."""


@dataclass(frozen=True)
class Move:
    """A small change of images.

    They are made thicker, sheared, scaled and turned about their centre, then shifted.

    Attributes
    ----------
    right, down : float
        Pixels.
    rotation : float
        Degrees, clockwise.
    scale : float
        Above 1 makes strokes larger; positive.
    shear : float
        How far a row moves to the right for each row that it is below the centre, in pixels.
    thickness : float
        From -1 to 1: how far each pixel goes towards the largest (below 0 the smallest) of itself
        and its four neighbours. 0.5 makes strokes about a pixel thicker.
    """

    right: float = 0.0
    down: float = 0.0
    rotation: float = 0.0
    scale: float = 1.0
    shear: float = 0.0
    thickness: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.to_dict(everything=True).items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not abs(value) < 1e6 or (name == "scale" and value < 1e-3):
                raise ValueError(
                    f"{name} of a move must be a number{' above 0' * (name == 'scale')}; got {value!r:.40}"
                )
        if abs(self.thickness) > 1:
            raise ValueError(f"thickness of a move must be a number from -1 to 1; got {self.thickness!r:.40}")

    def to_dict(self, everything: bool = False) -> dict[str, float]:
        """What it changes, as plain JSON values: ``{"right": 1, "down": -1}``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in values.items() if everything or value != usual[name]}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The moved images (n, height, width) uint8.

        They are interpolated bilinearly, with zeros from beyond the border.
        """
        n, height, width = images.shape
        sources, weights = self._sources(height, width)
        result = np.empty((n, height * width), dtype=np.uint8)
        for start in range(0, n, _BLOCK_IMAGES):
            rows = slice(start, start + _BLOCK_IMAGES)
            before = _thickened(images[rows], self.thickness).reshape(-1, height * width)
            values = np.zeros(before.shape, dtype=np.float32)
            for source, weight in zip(sources, weights, strict=True):
                values += weight * before[:, source]
            result[rows] = np.rint(values)
        return result.reshape(images.shape)

    @classmethod
    def read(cls, described: Any) -> Move:
        """What `to_dict` described, from a model file.

        Raises ValueError or TypeError for anything else.
        """
        return cls(**described)

    def _sources(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The four pixels that each pixel is made of, as indices, and their weights.

        Both have shape (4, height * width): intp and float32.
        """
        y, x = np.mgrid[:height, :width].reshape(2, -1)
        centre = np.array([[(height - 1) / 2], [(width - 1) / 2]])
        cosine, sine = np.cos(np.deg2rad(self.rotation)), np.sin(np.deg2rad(self.rotation))
        turned = np.array([[cosine, sine], [-sine, cosine]])  # of (y, x), clockwise as rows go down
        sheared = np.array([[1.0, 0.0], [self.shear, 1.0]])
        forth = self.scale * turned @ sheared
        from_y, from_x = np.linalg.solve(forth, np.array([y - self.down, x - self.right]) - centre) + centre
        top, left = np.floor(from_y + 1e-9), np.floor(from_x + 1e-9)
        lower, right = from_y - top, from_x - left
        sources, weights = [], []
        for step_y, step_x in product((0, 1), (0, 1)):
            at_y, at_x = top + step_y, left + step_x
            inside = (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
            share = (lower if step_y else 1 - lower) * (right if step_x else 1 - right)
            sources.append(np.where(inside, at_y * width + at_x, 0).astype(np.intp))
            weights.append(np.where(inside, share, 0.0).astype(np.float32))
        return np.array(sources), np.array(weights)


def _thickened(images: np.ndarray, thickness: float) -> np.ndarray:
    """Images (n, height, width) float32 with thicker strokes; thinner for `thickness` below 0."""
    values = images.astype(np.float32)
    if not thickness:
        return values
    extreme = np.maximum if thickness > 0 else np.minimum
    reached = values.copy()
    for axis in (1, 2):
        ahead, behind = ([slice(None)] * 3 for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        for to, source in ((tuple(ahead), tuple(behind)), (tuple(behind), tuple(ahead))):
            extreme(reached[to], values[source], out=reached[to])
    return np.asarray((1 - abs(thickness)) * values + abs(thickness) * reached, dtype=np.float32)


MOVES: dict[str, tuple[Move, ...]] = {
    "shifts": tuple(Move(right=x, down=y) for y, x in product((-1, 0, 1), repeat=2) if (y, x) != (0, 0)),
    "rotations": tuple(Move(rotation=degrees) for degrees in (-12, -6, 6, 12)),
    "scales": (Move(scale=0.9), Move(scale=1.1)),
    "shears": (Move(shear=-0.15), Move(shear=0.15)),
    "thickness": (Move(thickness=-0.5), Move(thickness=0.5)),
}
assert tuple(MOVES) == MOVE_NAMES
"""Sets of moves, by the words that ``gpusvm train --augment`` takes."""


def moves_named(words: str) -> tuple[Move, ...]:
    """The moves of a list as ``shifts,rotations``.

    Raises UsageError for a word that `MOVES` does not have.
    """
    names = [word.strip() for word in words.split(",")]
    unknown = [name for name in names if name not in MOVES]
    if unknown:
        raise UsageError(f"--augment takes {', '.join(MOVES)}, or several with commas between; got {unknown[0]!r:.40}")
    return tuple(move for name in dict.fromkeys(names) for move in MOVES[name])


def moved_copies(images: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """Images (n, height, width) uint8, followed by all of them after each move.

    That is ((1 + moves) n, height, width).
    """
    return np.concatenate([images, *(move(images) for move in moves)])

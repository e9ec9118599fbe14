"""What a model remembers of its training images' pixels, to tell images that are not like them.

A model given the negatives of its images, or pixels of another range, answers as readily as ever,
and wrongly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpusvm.model import SVMModel

OTHER_RANGE = 4.0
"""Factor between the largest pixels from which on two ranges are not the same: 0..1, 0..16 and
0..255 are not."""

OTHER_BRIGHTNESS = 0.25
"""Part of the range by which mean brightness must differ for images to be taken for negatives."""


class PixelRange(NamedTuple):
    """The largest pixel of some images, and the mean of all."""

    largest: int
    mean: float

    @classmethod
    def of(cls, images: np.ndarray) -> PixelRange:
        """Of images (n, height, width) uint8, at least one."""
        return cls(int(images.max()), round(float(images.mean()), 2))


def white_of(images: np.ndarray) -> int:
    """The pixel that stands for white in images (n, height, width) uint8.

    It is 255, unless all are far darker.

    Pixels of 0 and 1, or of 0 to 16 as in scikit-learn's digits, would be all but black beside
    255, and a kernel or a penalty that suits pixels of 0 to 1 would not suit them.
    """
    largest = int(images.max(initial=0))
    return largest if 0 < largest * OTHER_RANGE <= 255 else 255


def remembered(model: SVMModel) -> PixelRange | None:
    """The pixel range of the model's training images; None where the model does not say.

    Models from before it was remembered, and from Python, do not.
    """
    found: Any = model.provenance.get("pixels")
    if not isinstance(found, dict):
        return None
    largest, mean = found.get("largest"), found.get("mean")
    if type(largest) is not int or not isinstance(mean, (int, float)) or isinstance(mean, bool):
        return None
    return PixelRange(largest, float(mean)) if 0 < largest <= 255 and 0 <= mean <= largest else None


def inverted(model: SVMModel, images: np.ndarray) -> np.ndarray:
    """The negatives of images (n, height, width) uint8, in the range of the model.

    In the range of bytes where the images exceed that, or the model does not say.
    """
    known = remembered(model)
    largest = np.uint8(255 if known is None or images.max(initial=0) > known.largest else known.largest)
    negatives: np.ndarray = largest - images
    return negatives


def unlike_training(model: SVMModel, images: np.ndarray) -> str:
    """What sets images (n, height, width) uint8 apart from the model's, and what to do.

    Empty where nothing does.
    """
    known = remembered(model)
    if known is None or images.size == 0:
        return ""
    here = PixelRange.of(images)
    if _is_other_range(known, here):
        return (
            f"the pixels of these images reach {here.largest}, those of the model's training images {known.largest}:"
            " predictions may be wrong; bring them to the same range"
        )
    if _are_negatives(known, here):
        return (
            f"these images look like negatives of the model's training images (mean brightness {here.mean:.0f}, there"
            f" {known.mean:.0f}): predictions may be wrong; --invert turns them around"
        )
    return ""


def unlike_each_other(train: np.ndarray, test: np.ndarray) -> str:
    """What sets test images apart from training images, both (n, height, width) uint8.

    Empty where nothing does.
    """
    known, here = PixelRange.of(train), PixelRange.of(test)
    if known.largest and _is_other_range(known, here):
        return (
            f"the pixels of the test images reach {here.largest}, those of the training images {known.largest}: the"
            " accuracy will mean little; bring them to the same range"
        )
    if _are_negatives(known, here):
        return (
            f"the test images look like negatives of the training images (mean brightness {here.mean:.0f}, there"
            f" {known.mean:.0f}): the accuracy will mean little; invert either"
        )
    return ""


def _is_other_range(known: PixelRange, here: PixelRange) -> bool:
    return max(here.largest, 1) * OTHER_RANGE <= known.largest or here.largest >= OTHER_RANGE * known.largest


def _are_negatives(known: PixelRange, here: PixelRange) -> bool:
    white = 255 if here.largest > known.largest else known.largest  # those of images that do not reach white reach it
    apart, as_negatives = abs(here.mean - known.mean), abs(white - here.mean - known.mean)
    return apart > OTHER_BRIGHTNESS * known.largest and as_negatives < apart / 2

"""The samples that a model is given: of its size, like its training samples, or said not to be."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from gpusvm.data import Dataset, Table
from gpusvm.data.pixels import ImageShape
from gpusvm.errors import UsageError
from gpusvm.model import SVMModel
from gpusvm.pixel_range import inverted, unlike_training


def note_raw(console: Console, model: SVMModel, data: Dataset | Table | None = None) -> None:
    """Say that a model without steps of its own sees samples as they are.

    Most models were trained on scaled ones.
    """
    is_table = isinstance(data, Table)
    # `gpusvm train --scale none` and LIBSVM's users meant it.
    meant = model.from_libsvm if is_table else False
    if model.preprocessing or meant or (model.table is not None and "dataset" in model.provenance):
        return
    if model.from_libsvm:
        console.print(
            "note: a LIBSVM model has no preprocessing steps: it is given raw pixels 0 to 255; if it was trained on"
            " others, use it from Python: gpusvm.load_model(path).predict(X)",
            soft_wrap=True,
        )
    else:
        what = "the numbers of the table as they are" if is_table else "raw pixels 0 to 255"
        console.print(
            f"note: this model has no preprocessing steps of its own (it was saved from Python): it is given {what};"
            " if it was trained on others, save it with SVC.save(path, preprocessing=steps)",
            soft_wrap=True,
        )


def size_for(console: Console, model: SVMModel, asked: bool) -> ImageShape | None:
    """The size to bring images to for a model, or None to leave them as they are.

    It is the model's own, if that was asked for or its training images were brought to it, too.

    Raises
    ------
    UsageError
        It was asked for, and the model does not say what size its images had.
    """
    shape = model.image_shape
    if asked and shape is None:
        raise UsageError("the model does not say what size its images had; leave --resize out, and bring them to it")
    if shape is None or asked:
        return shape
    if model.provenance.get("resized") is not True:
        return None
    console.print(
        f"note: images are brought to {shape[1]}x{shape[0]}, as those that the model was trained on", soft_wrap=True
    )
    return shape


def like_training(console: Console, model: SVMModel, data: Dataset | Table, *, invert: bool) -> Any:
    """The samples, or the negatives of images.

    Says so where images are unlike those that the model was trained on.
    """
    if isinstance(data, Table):
        if invert:
            raise UsageError(f"--invert is for images, and {data.name} is a table; leave it out")
        return data.X
    images = inverted(model, data.images) if invert else data.images
    if difference := unlike_training(model, images):
        console.print(f"note: {difference}", soft_wrap=True)
    return images

"""``gpusvm predict``: labels for images that may have none, in Kaggle's layout."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gpusvm.cli.console import discard, image_progress, like_training, messages, note_raw_pixels
from gpusvm.data import load_dataset, load_images
from gpusvm.errors import OutputError, UsageError
from gpusvm.evaluation import agreement, predict_images
from gpusvm.model_file import load_model
from gpusvm.output import check_writable, replacing


def predict(
    model: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    images: Annotated[
        Path,
        typer.Argument(metavar="input", help="IDX file, CSV, .npz, a picture or a folder of them.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Write the CSV here; default: standard output.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Take the images' negatives: black for white.")] = False,
    start_id: Annotated[int, typer.Option(min=0, help="ImageId of the first row.")] = 1,
) -> None:
    """Predict the labels of images: a CSV of ImageId,Label."""
    notes = messages()
    check_writable(out)
    machine = load_model(model)
    note_raw_pixels(notes, machine)
    pixels, ids, true = _load(images)
    pixels = like_training(notes, machine, pixels, invert=invert)
    ids = _renumbered(ids, start_id)
    with image_progress(notes, len(pixels)) as progress:
        predictions = predict_images(machine, pixels, progress)
    text = to_csv(ids, predictions.labels)
    if out is None:
        _print(text)
    else:
        with replacing(out) as temporary:
            temporary.write_bytes(text)
    accuracy = "" if true is None else f"; accuracy {agreement(true, predictions.labels):.4f} on its labels"
    notes.print(
        f"{len(predictions):,} image{'s' if len(predictions) > 1 else ''} predicted in {predictions.seconds:.2f} s"
        f" ({predictions.images_per_second:,.0f} a second){accuracy}{f'; wrote {out}' if out else ''}",
        soft_wrap=True,
    )


def to_csv(ids: Sequence[str], labels: np.ndarray) -> bytes:
    """Rows of ImageId,Label under that header, quoted where a name needs it.

    File names that are no UTF-8 keep their bytes.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("ImageId", "Label"))
    writer.writerows(zip(ids, labels.tolist(), strict=True))
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _load(path: Path) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """Images, their ids, and the labels where the file is a CSV that has them."""
    if path.suffix.lower() == ".csv" and path.is_file():
        data = load_dataset(path, kind="images")
        return data.images, [str(number) for number in range(1, len(data) + 1)], data.labels
    return *load_images(path), None


def _renumbered(ids: list[str], start_id: int) -> list[str]:
    if start_id == 1:
        return ids
    if not ids[0].isdigit():  # a picture's name has a suffix
        raise UsageError("--start-id numbers rows, but pictures go by their file names; leave it out")
    return [str(number) for number in range(start_id, start_id + len(ids))]


def _print(text: bytes) -> None:
    try:
        typer.echo(text, nl=False)
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return  # the reader has seen enough (``| head``)
        raise OutputError(f"standard output: cannot write: {error.strerror}; use --out, or free some space") from error

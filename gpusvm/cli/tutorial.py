"""What ``gpusvm train --preset tutorial`` adds: a first look at the data, sample predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from gpusvm.cli.predict import to_csv
from gpusvm.data import Dataset, has_split, load_dataset
from gpusvm.io.output import replacing
from gpusvm.model import SVMModel
from gpusvm.split import Split
from gpusvm.training import recommended_parameters

IMAGES = 5_000


def show_first_rows(console: Console, data: Dataset) -> None:
    """The first look at a data set: a few rows as numbers, and how many each class has."""
    labels, pixels = data.require_labels(), data.images.reshape(len(data), -1)
    middle = pixels.shape[1] // 2
    console.print(f"The first rows (label, then pixels {middle} to {middle + 9} of {pixels.shape[1]}):")
    for label, row in zip(labels[:5], pixels[:5, middle : middle + 10], strict=False):
        console.print(f"  {label!s:>6}  " + " ".join(f"{value:3d}" for value in row))
    counts = ", ".join(f"{v}: {c}" for v, c in zip(*np.unique(labels, return_counts=True), strict=True))
    console.print(f"Images of each class: {counts}")


def finish(console: Console, model: SVMModel, source: str, path: Path, data_dir: str | None, split: Split) -> None:
    """Write sample predictions as ImageId,Label, and say where to go from here."""
    if has_split(source, "test", data_dir):
        resize = model.image_shape if isinstance(split.train, Dataset) and split.train.resized else None
        images = load_dataset(source, "test", limit=IMAGES, data_dir=data_dir, kind="images", resize=resize).images
    else:
        images = split.test.samples
    labels = model.predict(model.preprocess(images))
    with replacing(path) as temporary:
        temporary.write_bytes(
            to_csv(("ImageId", "Label"), [str(number) for number in range(1, len(labels) + 1)], labels)
        )
    console.print(f"Sample predictions: {path} ({len(labels):,} rows of ImageId,Label)", soft_wrap=True)
    tuned = "all images with tuned parameters, does much better"
    full = tuned if recommended_parameters(source) else "with all images, in shades of grey"
    console.print(
        f"\nThat was the first walk: {len(split.train):,} images, black-and-white pixels, textbook parameters.\n"
        f"The full run, {full}:\n\n    gpusvm train {source}\n",
        soft_wrap=True,
    )

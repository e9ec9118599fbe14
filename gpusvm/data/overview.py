"""A data set at a glance: class counts, pixel histogram, and both with pictures as a PNG."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np

from gpusvm.data.dataset import Dataset
from gpusvm.data.table import Table
from gpusvm.errors import UsageError
from gpusvm.io.output import replacing

N_BINS = 16
_PICTURES_A_ROW, _PICTURE_ROWS = 10, 4
_MOST_CLASSES = 40
_LEAST_SHARE = 0.05  # percent; the histogram's lower edge
_INK, _PALE = "#2f5d8a", "#b9c6d3"


def class_counts(data: Dataset | Table) -> list[tuple[int | str, int]]:
    """Each class with its number of samples, in order; empty where there are no labels."""
    if data.labels is None:
        return []
    classes, counts = np.unique(data.labels, return_counts=True)
    return list(zip(classes.tolist(), counts.tolist(), strict=True))


def pixel_histogram(images: np.ndarray) -> list[tuple[int, int, int]]:
    """How often pixel values occur: (lowest, highest, count) of each bin.

    Zero, the background of most images, has a bin of its own; the others are 16 values wide.

    Parameters
    ----------
    images : ndarray of shape (n, height, width), uint8
    """
    counts = np.bincount(images.reshape(-1), minlength=256)
    width = 256 // N_BINS
    bins = [(0, 0, int(counts[0]))]
    for low in range(0, 256, width):
        first = max(low, 1)
        bins.append((first, low + width - 1, int(counts[first : low + width].sum())))
    return bins


def save_overview(data: Dataset, path: str | os.PathLike[str]) -> None:
    """Write a PNG with the first images, the class counts and the pixel histogram.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    OutputError
        The file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError('a PNG needs matplotlib: pip install "gpusvm[plot]", or leave out --out') from error
    n_rows = min(_PICTURE_ROWS, ceil(len(data) / _PICTURES_A_ROW))
    heights = (0.55 + 1.1 * n_rows, 3.8)  # inches
    figure = Figure(figsize=(10, sum(heights)), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    above, below = cast(Any, figure.subfigures(2, 1, height_ratios=heights))
    height, width = data.image_shape
    title = f"{_label(Path(data.name).name, 60)}, {data.split}: {len(data):,} images of {width}x{height}"
    above.text(0.045, 1 - 0.3 / heights[0], title, fontsize=14, fontweight="bold", va="center")
    _draw_pictures(above, data, n_rows, top=1 - 0.72 / heights[0])
    margins = {"left": 0.075, "right": 0.965, "bottom": 0.22, "top": 0.88, "wspace": 0.22}
    counts_axes, histogram_axes = below.subplots(1, 2, gridspec_kw=margins)
    _draw_counts(counts_axes, data)
    _draw_histogram(histogram_axes, data.images)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_pictures(figure: Any, data: Dataset, n_rows: int, top: float) -> None:
    margins = {"left": 0.045, "right": 0.965, "bottom": 0.01, "top": top, "wspace": 0.12, "hspace": 0.32}
    grid = figure.subplots(n_rows, _PICTURES_A_ROW, gridspec_kw=margins, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if number < len(data):
            axes.imshow(data.images[number], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if data.labels is not None:
                axes.set_title(_label(data.labels[number]), fontsize=9, pad=2)


def _draw_counts(axes: Any, data: Dataset) -> None:
    _plain_axes(axes, "Images per class")
    counts = class_counts(data)
    if not counts:
        axes.text(0.5, 0.5, "no labels", ha="center", va="center", transform=axes.transAxes, color="gray")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if len(counts) > _MOST_CLASSES:
        axes.set_title(f"Images per class (first {_MOST_CLASSES} of {len(counts)})", loc="left", fontsize=11)
        counts = counts[:_MOST_CLASSES]
    names = [_label(name) for name, _ in counts]
    positions = range(len(counts))
    axes.bar(positions, [count for _, count in counts], color=_INK, width=0.75)
    if max(map(len, names)) * len(names) > 40:
        axes.set_xticks(positions, names, rotation=60, ha="right", fontsize=8)
    else:
        axes.set_xticks(positions, names, fontsize=9)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _draw_histogram(axes: Any, images: np.ndarray) -> None:
    _plain_axes(axes, "Pixel values, share of all pixels (log scale)")
    bins = pixel_histogram(images)
    shares = [100 * count / images.size for _, _, count in bins]
    axes.bar(range(len(bins)), shares, color=[_PALE, *[_INK] * N_BINS], width=0.9)
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_SHARE, 100)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.set_minor_formatter("")
    ticks = [0, *range(1, len(bins), 2)]
    axes.set_xticks(ticks, [str(bins[tick][0]) for tick in ticks])
    axes.set_xlabel(f"pixel value: 0 alone, then from the number on, {256 // N_BINS} a bar", fontsize=9)


def _plain_axes(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)


def _label(text: Any, n_characters: int = 12) -> str:
    """Short enough for its place, and no formula even if it has dollar signs."""
    whole = str(text)
    short = whole if len(whole) <= n_characters else whole[: n_characters - 1] + "…"
    return short.replace("$", r"\$")

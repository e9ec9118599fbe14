"""Data sets: what can be read, where it is looked for, and how it comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily

if TYPE_CHECKING:
    from gpusvm.data.catalogue import (
        CATALOGUE,
        CatalogueEntry,
        FileCheck,
        default_source,
        fetch,
        find_local,
        verify,
    )
    from gpusvm.data.dataset import Dataset, has_split, load_dataset, load_images, load_samples
    from gpusvm.data.digit_form import as_digit
    from gpusvm.data.table import Table
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "catalogue": (
                "CATALOGUE",
                "CatalogueEntry",
                "FileCheck",
                "default_source",
                "fetch",
                "find_local",
                "verify",
            ),
            "dataset": ("Dataset", "has_split", "load_dataset", "load_images", "load_samples"),
            "digit_form": ("as_digit",),
            "table": ("Table",),
        },
    )

__all__ = [
    "CATALOGUE",
    "CatalogueEntry",
    "Dataset",
    "FileCheck",
    "Table",
    "as_digit",
    "default_source",
    "fetch",
    "find_local",
    "has_split",
    "load_dataset",
    "load_images",
    "load_samples",
    "verify",
]

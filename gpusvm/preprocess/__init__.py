"""Steps that are stored with a model, as scikit-learn transformers: of pixels, or of tables.

`pixels` makes float32 in [0, 1] of bytes, `scattering` and `components` make of those what hardly
changes where strokes bend, `scaling` brings the features of a table to one size, and `stored` says
what a model file keeps of them. `apply_steps` is the one path that training and prediction take
through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily

if TYPE_CHECKING:
    from gpusvm.preprocess.components import Logarithm, fit_scattering
    from gpusvm.preprocess.pixels import Deskewer, PixelBinarizer, PixelScaler, build_steps, check_image_shape
    from gpusvm.preprocess.scaling import default_scaling, fit_scaling
    from gpusvm.preprocess.scattering import Scattering
    from gpusvm.preprocess.stored import (
        STEP_ARRAYS,
        apply_steps,
        check_steps,
        describe_steps,
        read_steps,
        step_arrays,
        step_from_dict,
        step_to_dict,
    )
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "components": ("Logarithm", "fit_scattering"),
            "pixels": ("Deskewer", "PixelBinarizer", "PixelScaler", "build_steps", "check_image_shape"),
            "scaling": ("default_scaling", "fit_scaling"),
            "scattering": ("Scattering",),
            "stored": (
                "STEP_ARRAYS",
                "apply_steps",
                "check_steps",
                "describe_steps",
                "read_steps",
                "step_arrays",
                "step_from_dict",
                "step_to_dict",
            ),
        },
    )

__all__ = [
    "STEP_ARRAYS",
    "Deskewer",
    "Logarithm",
    "PixelBinarizer",
    "PixelScaler",
    "Scattering",
    "apply_steps",
    "build_steps",
    "check_image_shape",
    "check_steps",
    "default_scaling",
    "describe_steps",
    "fit_scaling",
    "fit_scattering",
    "read_steps",
    "step_arrays",
    "step_from_dict",
    "step_to_dict",
]

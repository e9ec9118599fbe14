"""A model of images as one page to draw on.

The model is computed in the browser, and the page shows what it says of the drawing. The page is
one HTML file that loads nothing. Its parts lie in `web_page/`; what is put into them comes from
here. The support vectors are deflated, as bytes where the model's steps allow it, and in base64.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from importlib.resources import files
from typing import Any

import numpy as np

from gpusvm.data.digit_form import INK_SHARE, default_box
from gpusvm.data.pixels import ImageShape
from gpusvm.errors import DataWarning, UsageError, warn
from gpusvm.io.output import write_text
from gpusvm.io.templates import filled
from gpusvm.model import SVMModel, in_class_order
from gpusvm.params import TASKS
from gpusvm.preprocess import PixelBinarizer, PixelScaler, step_to_dict
from gpusvm.sparse import dense
from gpusvm.version import __version__

PAGE_STEPS = ("pixel_scaler", "pixel_binarizer", "deskewer")
"""Steps that the page computes, by their names in a model file: those in the table STEPS of
`web_page/model.js`."""

MOST_BYTES = 40 * 2**20
"""A larger page opens slowly, or not at all on a phone."""

_TITLES = {"mnist": "Handwritten digits", "digits": "Handwritten digits", "fashion-mnist": "Clothes"}
_KERNELS = {"rbf": "RBF", "linear": "Linear", "poly": "Polynomial", "sigmoid": "Sigmoid"}
_SCRIPTS = ("digit_form.js", "strokes.js", "model.js", "page.js")


def write_page(model: SVMModel, path: str | os.PathLike[str], *, title: str = "model") -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    model : SVMModel
        Of images, for classes.
    path : path
    title : str
        What the page calls the model.

    Raises
    ------
    UsageError
        The page cannot compute such a model, or would be larger than `MOST_BYTES`.
    OutputError
        The page cannot be written.
    """
    write_text(path, render_page(model, title=title))


def render_page(model: SVMModel, *, title: str = "model") -> str:
    """The page that `write_page` writes, as text."""
    require_pictures(model)
    if model.vote_order is not None:
        model = in_class_order(model, model.vote_order)
    vectors, unit = _packable(model)
    height, width = model.image_shape  # type: ignore[misc]
    page = filled(
        "io/web_page",
        "page.html",
        title=title,
        version=__version__,
        about=_about(model),
        seen=f"{height} × {width} pixels, cut out, scaled and centred as the training images are.",
        style=_part("page.css"),
        script="\n".join(_part(name) for name in _SCRIPTS),
        model=_as_json(_description(model, vectors, unit)),
        vectors=_packed(vectors),
        coefficients=_packed(model.dual_coef.astype("<f8")),
    )
    if len(page.encode()) > MOST_BYTES:
        raise UsageError(
            f"the page would be {len(page) / 2**20:.0f} MB, and browsers are slow to open one above"
            f" {MOST_BYTES / 2**20:.0f} MB: it has {model.n_support_vectors:,} support vectors of {model.n_features:,}"
            " features; train on fewer or smaller images"
        )
    return page


def require_pictures(model: SVMModel) -> None:
    """Raise UsageError for a model that the page cannot show.

    That is one that is not of images and classes, was trained on precomputed kernel values, or has
    steps that the page cannot compute.
    """
    instead = "--to onnx and --to sklearn write it for other programs"
    if not model.problem.classifies:
        raise UsageError(f"a page shows classes, and this is a model of {TASKS[model.problem.task]}; {instead}")
    if model.table is not None:
        raise UsageError(f"a page is drawn on, and this model was trained on a table, not on images; {instead}")
    if model.image_shape is None:
        raise UsageError(
            "a page is drawn on, and this model does not say what size its images had, if it was trained on images:"
            " save it with SVC.save(path, image_shape=(height, width))"
        )
    if model.kernel.precomputed:
        raise UsageError(
            "a page computes kernel values, and this model was trained on precomputed ones; train on images"
        )
    names = [step_to_dict(step)["step"] for step in model.preprocessing]
    unknown = [name for name in names if name not in PAGE_STEPS]
    if unknown:
        raise UsageError(f"a page cannot compute the step {unknown[0]}, only {', '.join(PAGE_STEPS)}; train without it")


def title_of(model: SVMModel, otherwise: str) -> str:
    """What a page calls a model: by its training data, if these have a name; else `otherwise`."""
    data = model.provenance.get("dataset")
    return _TITLES.get(data.get("name", ""), otherwise) if isinstance(data, dict) else otherwise


def _packable(model: SVMModel) -> tuple[np.ndarray, float]:
    """The support vectors (n_sv, n_features) as bytes, and the unit they were divided by.

    Where bytes cannot hold them, they are float32 and the unit is 1.0.
    """
    vectors = dense(model.support_vectors)
    scalers = [step.maximum for step in model.preprocessing if isinstance(step, PixelScaler)]
    for unit in {1.0, *scalers}:
        whole = np.rint(vectors * np.float64(unit))
        if whole.min() >= 0 and whole.max() <= 255:
            as_bytes = whole.astype(np.uint8)
            if (as_bytes.astype(np.float32) / np.float32(unit) == vectors.astype(np.float32)).all():
                return as_bytes, unit
    return vectors.astype("<f4"), 1.0


def _description(model: SVMModel, vectors: np.ndarray, unit: float) -> dict[str, Any]:
    """The page's JSON: all of the model but the two large arrays.

    It also says how a drawing becomes an image such as the model's.
    """
    kernel, shape = model.kernel, model.image_shape
    assert shape is not None
    images = vectors.reshape(-1, *shape)
    dark_ink = _is_dark_on_light(images)
    return {
        "classes": [str(label) for label in model.classes.tolist()],
        "shape": list(shape),
        "box": list(_usual_box(images, dark_ink)),
        "dark_ink": dark_ink,
        "white": _white(model),
        "steps": [step_to_dict(step) for step in model.preprocessing],
        "kernel": {"name": kernel.name, "gamma": kernel.gamma, "degree": kernel.degree, "coef0": kernel.coef0},
        "vectors": vectors.dtype.name,
        "unit": unit,
        "largest": float(vectors.max()) or 1.0,
        "n_support": model.n_support.tolist(),
        "intercept": model.intercept.tolist(),
        "calibration": _calibration(model),
    }


def _calibration(model: SVMModel) -> dict[str, Any] | None:
    found = model.calibration
    if found is None:
        return None
    if found.coupling != "price":
        warn("a page cannot couple probabilities as LIBSVM does: this one shows votes", DataWarning)
        return None
    return {"probA": found.probA.tolist(), "probB": found.probB.tolist(), "sharpness": found.sharpness}


def _white(model: SVMModel) -> int:
    """The pixel that is white in the model's images: what its steps divide by, else 255."""
    for step in model.preprocessing:
        if isinstance(step, PixelScaler):
            return int(min(255, max(1, round(step.maximum))))
        if isinstance(step, PixelBinarizer):
            break
    return 255


def _is_dark_on_light(images: np.ndarray) -> bool:
    """Whether most pixels along the edges of images (n, height, width) are light."""
    edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    return bool(np.median(edges) > images.max() / 2)


def _usual_box(images: np.ndarray, dark_ink: bool) -> ImageShape:
    """What characters fill of images (n, height, width).

    It is MNIST's proportion, or what is usual where that is another.
    """
    largest, shape = images.max(), images.shape[1:]
    inked = images <= (1 - INK_SHARE) * largest if dark_ink else images >= INK_SHARE * largest
    fill = np.maximum(*(_lengths(inked.any(axis=axis)) / shape[2 - axis] for axis in (1, 2)))
    usual, default = float(np.median(fill)), default_box(shape)
    if abs(usual * max(shape) - max(default)) <= 1:
        return default
    return max(1, round(usual * shape[0])), max(1, round(usual * shape[1]))


def _lengths(inked: np.ndarray) -> np.ndarray:
    """From the first to the last that is true in each row (n, m): (n,), m where none is."""
    n = inked.shape[1]
    lengths = n - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
    return np.where(inked.any(axis=1), lengths, n)


def _about(model: SVMModel) -> str:
    """What the model is, in a line or two."""
    kernel, n_train = model.kernel, model.provenance.get("n_train")
    parameters = f"C {model.problem.C:g}" + ("" if kernel.name == "linear" else f", gamma {kernel.gamma:.3g}")
    of_training = f" of {n_train:,} training images" if isinstance(n_train, int) else ""
    return (
        f"A support vector machine that tells apart {model.n_classes} classes of images by {model.n_support_vectors:,}"
        f" support vectors{of_training}. {_KERNELS[kernel.name]} kernel, {parameters}."
    )


def _part(name: str) -> str:
    return files("gpusvm.io").joinpath("web_page", name).read_text(encoding="utf-8").rstrip("\n")


def _as_json(value: Any) -> str:
    """JSON that no text in it can end the element of."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(
        zlib.compress(np.ascontiguousarray(array).tobytes(), 9 if array.nbytes < 2**20 else 6)
    ).decode("ascii")

"""Taking samples through a model's steps, and the form in which a model file keeps those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpusvm.errors import DataError, ModelFileError
from gpusvm.preprocess.components import Logarithm
from gpusvm.preprocess.pixels import (
    Deskewer,
    PixelBinarizer,
    PixelScaler,
    check_image_shape,
    is_finite,
    is_image_shape,
    is_positive,
)
from gpusvm.preprocess.scattering import Scattering
from gpusvm.sparse import is_sparse

_MOST_STEPS = 8
"""Steps that a model file can hold."""

_ARRAYS = ("mean", "scale", "min", "offset", "components")
"""Arrays that a step can have."""

STEP_ARRAYS = {f"steps.{k}.{name}": (k, name) for k in range(_MOST_STEPS) for name in _ARRAYS}
"""What arrays of steps are called in a model file: the step's place, and what the array is to
it."""

_BLOCK_ROWS = 4096
"""Rows at once: of a float32 table in float64 while it is scaled, of images that become wider on
the way."""


def apply_steps(steps: Sequence[Any], samples: Any, image_shape: tuple[int, int] | None = None) -> Any:
    """Take images, or the rows of a table, through the steps, in training and in prediction alike.

    Parameters
    ----------
    steps : sequence of transformers
        From `build_steps`, `fit_scaling` or `step_from_dict`; may be empty.
    samples : (n, height, width) uint8 array, or (n, n_features) array or CSR matrix
    image_shape : tuple of two int, optional
        The size that the model was trained on. By default what the steps themselves know, if they
        do.

    Returns
    -------
    (n, height * width) float32 array, or (n, n_features) array or CSR matrix
        Steps from `fit_scattering` make (n, n_components) of images. A table keeps its precision.
        It is scaled in float64 whatever that is: of features with a large mean float32 would keep
        too few digits.

    Raises
    ------
    DataError
        The images have another size, or the table another number of columns.
    """
    if samples.ndim == 3:
        for expected in [image_shape, *(getattr(step, "image_shape", None) for step in steps)]:
            if expected is not None:
                check_image_shape(samples, expected)
        X = samples.reshape(len(samples), -1)
        _check_columns(steps, X)
        if not any(map(_changes_width, steps)):
            return _transformed(steps, X)
        blocks = [_transformed(steps, X[i : i + _BLOCK_ROWS]) for i in range(0, max(1, len(X)), _BLOCK_ROWS)]
        return np.concatenate(blocks)
    _check_columns(steps, samples)
    return _scaled(steps, samples)


def _transformed(steps: Sequence[Any], X: np.ndarray) -> np.ndarray:
    """Rows of pixels (n, n_pixels) taken through the steps, float32."""
    for step in steps:
        X = step.transform(X)
    return X.astype(np.float32, copy=False)


def _check_columns(steps: Sequence[Any], X: Any) -> None:
    """Raise DataError unless X (n, n_features) has as many columns as the steps know of."""
    for step in steps:
        expected = getattr(step, "n_features_in_", None)
        if expected not in (None, X.shape[1]):
            raise DataError(f"got rows of {X.shape[1]} features, the model expects {expected}")
        if _changes_width(step):
            return


def _changes_width(step: Any) -> bool:
    """Whether rows have another length after a step."""
    return isinstance(step, Scattering) or hasattr(step, "components_")


def _scaled(steps: Sequence[Any], X: Any) -> Any:
    """Rows (n, n_features) of a table taken through the steps, in float64."""
    if not steps or not X.shape[0]:
        return X
    if is_sparse(X) and any(hasattr(step, "mean_") or hasattr(step, "min_") for step in steps):
        X = X.toarray()  # after such a step zeros are no longer zeros
    dtype = X.dtype if X.dtype.kind == "f" else np.dtype(np.float64)
    if not isinstance(X, np.ndarray) or dtype == np.float64:
        scaled = X
        for step in steps:
            scaled = step.transform(scaled.astype(np.float64, copy=False))
        return scaled.astype(dtype, copy=False)
    starts = range(0, len(X), _BLOCK_ROWS)
    return np.concatenate([_scaled(steps, X[i : i + _BLOCK_ROWS].astype(np.float64)).astype(dtype) for i in starts])


def check_steps(steps: Sequence[Any], image_shape: Any, n_features: int) -> None:
    """Make sure that a model can have these steps.

    Parameters
    ----------
    steps : sequence of transformers
    image_shape : (height, width) or None
    n_features : int
        What the model takes.

    Raises
    ------
    ModelFileError
        The steps do not follow each other, or do not make `n_features` of such images.
    """
    try:
        width = n_features
        for step in reversed(steps):
            width = _width_before(step, width)
        if image_shape is not None:
            Deskewer(image_shape)._check_parameters(width)
    except ValueError as error:
        raise ModelFileError(str(error)) from error


def _width_before(step: Any, width: int) -> int:
    """The length of the rows that a step makes rows of `width` from.

    Raises ValueError where it makes no such rows.
    """
    if isinstance(step, Scattering):
        n_pixels = int(np.prod(step.image_shape or (0,), dtype=object))
        step._check_parameters(n_pixels)
        before, after = n_pixels, step.n_features_out
    elif hasattr(step, "components_"):
        after, before = step.components_.shape
    elif hasattr(step, "_check_parameters"):
        step._check_parameters(width)
        return width
    else:
        before = after = step.n_features_in_
    if after != width:
        raise ValueError(f"a step makes {after} features, where {width} are expected")
    return before


_COUNTS = ("J", "L")
"""Parameters that are whole numbers."""


class _Kept(NamedTuple):
    """What a model file keeps of a kind of step: parameters, and arrays that it learned.

    `in_fit`: parameters of the step that mean nothing once it is fitted, and are not kept.
    """

    kind: type
    parameters: tuple[str, ...]
    arrays: tuple[str, ...] = ()
    in_fit: tuple[str, ...] = ("copy",)


_OF_PCA_IN_FIT = (
    *("n_components", "copy", "svd_solver", "tol", "iterated_power", "n_oversamples", "power_iteration_normalizer"),
    "random_state",
)


def _kinds() -> dict[str, _Kept]:
    """The steps that a model file can hold, by the name that they have there."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

    return {
        "pixel_scaler": _Kept(PixelScaler, ("maximum",)),
        "pixel_binarizer": _Kept(PixelBinarizer, ("threshold",)),
        "deskewer": _Kept(Deskewer, ("image_shape",)),
        "standard_scaler": _Kept(StandardScaler, (), ("mean", "scale")),
        "max_abs_scaler": _Kept(MaxAbsScaler, (), ("scale",)),
        "min_max_scaler": _Kept(MinMaxScaler, (), ("min", "scale")),
        "scattering": _Kept(Scattering, ("image_shape", "J", "L")),
        "logarithm": _Kept(Logarithm, (), ("offset",), in_fit=("epsilon",)),
        "pca": _Kept(PCA, (), ("mean", "components"), in_fit=_OF_PCA_IN_FIT),
    }


def describe_steps(steps: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Steps as JSON values, and their arrays under the names of `STEP_ARRAYS`, for `read_steps`.

    Parameters
    ----------
    steps : sequence of transformers

    Returns
    -------
    descriptions : list of dict
    arrays : dict of str to array

    Raises
    ------
    ModelFileError
        A step that a model file cannot hold, or too many.
    """
    if len(steps) > _MOST_STEPS:
        raise ModelFileError(
            f"a model file holds up to {_MOST_STEPS} steps, not {len(steps)}; put some of them together"
        )
    learned = [step_arrays(step) for step in steps]
    arrays = {key: learned[k][name] for key, (k, name) in STEP_ARRAYS.items() if k < len(steps) and name in learned[k]}
    return [step_to_dict(step) for step in steps], arrays


def read_steps(descriptions: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    """The steps that `describe_steps` described; `arrays` may hold others too.

    Parameters
    ----------
    descriptions : sequence
    arrays : mapping of str to array

    Returns
    -------
    tuple of transformers

    Raises
    ------
    ModelFileError
        Too many steps, or one that `step_from_dict` refuses.
    """
    if len(descriptions) > _MOST_STEPS:
        raise ModelFileError(f"it has {len(descriptions)} steps; a model file holds up to {_MOST_STEPS}")
    learned: list[dict[str, np.ndarray]] = [{} for _ in descriptions]
    for key, (k, name) in STEP_ARRAYS.items():
        if key in arrays and k < len(learned):
            learned[k][name] = arrays[key]
    return tuple(step_from_dict(*pair) for pair in zip(descriptions, learned, strict=True))


def step_to_dict(step: Any) -> dict[str, Any]:
    """A step as plain JSON values, without its arrays.

    An example is `{"step": "pixel_scaler", "maximum": 255.0}`.

    Parameters
    ----------
    step : transformer

    Returns
    -------
    dict

    Raises
    ------
    ModelFileError
        A step that a model file cannot hold, or a scaler that is not fitted or has other
        parameters than its usual.
    """
    name, kept = _kept(step)
    found = step.get_params()
    if kept.arrays:
        usual = kept.kind().get_params()
        changed = [key for key in usual if key not in kept.in_fit and found[key] != usual[key]]
        if changed:
            value = f"{changed[0]}={found[changed[0]]!r:.40}"
            raise ModelFileError(f"a model file cannot hold a {kept.kind.__name__} with {value}")
    return {"step": name, **{key: _plain(key, found[key]) for key in kept.parameters}}


def step_arrays(step: Any) -> dict[str, np.ndarray]:
    """The arrays of a step, by name.

    They are (n_features,) float64, but those of PCA: (n_features,) and (n_components, n_features),
    in float32 or float64, as they were fitted.

    Parameters
    ----------
    step : transformer

    Returns
    -------
    dict of str to array

    Raises
    ------
    ModelFileError
        A step that a model file cannot hold, or that is not fitted.
    """
    kept = _kept(step)[1]
    if kept.arrays and not hasattr(step, "n_features_in_"):
        raise ModelFileError(f"a model file cannot hold a {kept.kind.__name__} that is not fitted")
    dtype = None if "components" in kept.arrays else np.float64
    return {name: np.ascontiguousarray(getattr(step, f"{name}_"), dtype=dtype) for name in kept.arrays}


def _kept(step: Any) -> tuple[str, _Kept]:
    kinds = _kinds()
    for name, kept in kinds.items():
        if type(step) is kept.kind:
            return name, kept
    raise ModelFileError(f"a model file cannot hold a {type(step).__name__}; it knows the steps {', '.join(kinds)}")


def step_from_dict(description: Any, arrays: Mapping[str, np.ndarray] | None = None) -> Any:
    """The step that `step_to_dict` described, with the arrays that `step_arrays` gave.

    Parameters
    ----------
    description : dict
    arrays : mapping of str to array, optional

    Returns
    -------
    transformer

    Raises
    ------
    ModelFileError
        An unknown step, or parameters or arrays that it does not have or that are out of range.
    """
    kinds = _kinds()
    if not isinstance(description, dict) or description.get("step") not in list(kinds):
        raise ModelFileError(
            f"unknown preprocessing step {description!r:.80}; the model needs a newer gpusvm, or is damaged"
        )
    name = description["step"]
    kept, arrays = kinds[name], arrays or {}
    parameters = {key: value for key, value in description.items() if key != "step"}
    if set(parameters) != set(kept.parameters) or not _are_valid(parameters):
        raise ModelFileError(f"bad parameters for preprocessing step {name}: {parameters!r:.80}; train the model again")
    if set(arrays) != set(kept.arrays) or not _are_fitted(arrays):
        raise ModelFileError(f"bad arrays for preprocessing step {name}; train the model again")
    if parameters.get("image_shape") is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    step = kept.kind(**parameters)
    for key, values in arrays.items():
        setattr(step, f"{key}_", values)
        step.n_features_in_ = values.shape[-1]
    return step


def _are_fitted(arrays: Mapping[str, np.ndarray]) -> bool:
    values = list(arrays.values())
    dtypes = (np.float64,) if "components" not in arrays else (np.float32, np.float64)
    return all(
        array.dtype == values[0].dtype
        and array.dtype in dtypes
        and array.ndim == (2 if name == "components" else 1)
        and array.shape[-1] == values[0].shape[-1]
        and np.isfinite(array).all()
        for name, array in arrays.items()
    ) and all(np.all(arrays.get(name, 1.0) > 0) for name in ("scale", "offset"))


def _are_valid(parameters: dict[str, Any]) -> bool:
    checks: dict[str, Callable[[Any], bool]] = {
        "maximum": is_positive,
        "threshold": is_finite,
        "image_shape": lambda value: value is None or is_image_shape(value),
        **dict.fromkeys(_COUNTS, lambda value: type(value) is int and value > 0),
    }
    return all(checks[name](value) for name, value in parameters.items())


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [int(item) for item in value]
    if name in _COUNTS:
        return int(value)
    return None if value is None else float(value)

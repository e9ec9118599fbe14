"""Models on disk and in other libraries' forms: save and load (safetensors), to_sklearn, to_onnx.

Loading a model file runs no code from it: safetensors holds arrays and strings, nothing else.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from gpusvm.calibration import Calibration
from gpusvm.compat import set_libsvm_attributes
from gpusvm.errors import ModelFileError, UsageError
from gpusvm.io.libsvm import is_libsvm_model, read_libsvm_model
from gpusvm.io.tensor_file import UnreadableError, read_header, read_tensors, write_tensors
from gpusvm.kernels import Kernel
from gpusvm.model import SVMModel, TableLayout, in_class_order
from gpusvm.params import TASKS, Problem, Stopping
from gpusvm.preprocess import STEP_ARRAYS, check_steps, describe_steps, read_steps
from gpusvm.sparse import Sparse, all_stored, as_csr, is_sparse, is_well_formed

FORMAT = "gpusvm-model"
VERSION = 3
"""Versions 1 and 2 are still read. Version 1 kept the resources of the training machine too, and
support vectors in float32; neither had sparse support vectors."""

_REQUIRED = {
    "support_vectors": ("float32", "float64"),
    "support_indices": ("int64",),
    "n_support": ("int64",),
    "dual_coef": ("float64",),
    "intercept": ("float64",),
    "n_iter": ("int64",),
}
_SPARSE = {
    "support_vectors.data": ("float32", "float64"),
    "support_vectors.indices": ("int32",),
    "support_vectors.indptr": ("int64",),
}
"""What sparse support vectors are in a file, in place of `support_vectors`."""
_OPTIONAL = {
    "kkt_gap": ("float64",),
    "dual_objective": ("float64",),
    "converged": ("bool",),
    "vote_order": ("int64",),
}
_CALIBRATION = {"probA": ("float64",), "probB": ("float64",)}
"""Of a classifier with probabilities: both, or none. A regression may have probA alone, its
`noise_scale`."""
_LARGEST_COUNT = 2**31
"""What counts of samples and features stay below: LIBSVM's whole numbers have 32 bits."""

_NAMES = {*_REQUIRED, *_SPARSE, *_OPTIONAL, *_CALIBRATION, "classes", "columns", *STEP_ARRAYS}
"""The arrays that a model file can have; any others are not read."""

_LABEL_DTYPES = ("int64", "uint64", "float64", "bool")
_LABELS_AS_TRAINED = (
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "float96", "float128", "bool"),
)
# A text label takes as much memory as the longest one does.
_LARGEST_LABELS = 2**24


def save_model(model: SVMModel, path: str | os.PathLike[str]) -> None:
    """Write `model` to `path`, whole or not at all.

    The schema is in docs/model-file.md.

    Parameters
    ----------
    model : SVMModel
    path : str or path
        An older file of this name is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    tensors = {name: np.ascontiguousarray(getattr(model, name)) for name in _REQUIRED if name != "support_vectors"}
    tensors |= _vectors_as_tensors(model.support_vectors)
    for name in _OPTIONAL:
        if getattr(model, name) is not None:
            tensors[name] = np.ascontiguousarray(getattr(model, name))
    if model.calibration is not None:
        tensors |= {name: np.ascontiguousarray(getattr(model.calibration, name)) for name in _CALIBRATION}
    if model.noise_scale is not None:
        tensors["probA"] = np.array([model.noise_scale])
    steps, arrays = describe_steps(model.preprocessing)
    tensors |= arrays
    header: dict[str, Any] = {
        "problem": _problem_to_dict(model.problem),
        "stopping": asdict(model.stopping),
        "n_features": int(model.n_features),
        "preprocessing": steps,
        "image_shape": None if model.image_shape is None else [int(size) for size in model.image_shape],
        "table": None if model.table is None else _described_table(model.table),
        "provenance": model.provenance,
    }
    if model.calibration is not None:
        header["calibration"] = {
            "coupling": model.calibration.coupling, "sharpness": float(model.calibration.sharpness),
        }  # fmt: skip
    if model.table is not None and model.table.columns:
        tensors["columns"] = np.frombuffer(json.dumps(model.table.columns).encode(), dtype=np.uint8)
    labels = np.asarray(model.classes)
    if not model.problem.classifies:
        pass
    elif labels.dtype.kind in "iufb":
        wide = {"i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_}[labels.dtype.kind]
        tensors["classes"] = labels.astype(wide)
        header["label_dtype"] = labels.dtype.name
    else:
        header["classes"] = [str(label) for label in labels]
    metadata = {"format": FORMAT, "version": str(VERSION), "model": json.dumps(header)}
    write_tensors(Path(path), tensors, metadata)


def _vectors_as_tensors(vectors: Any) -> dict[str, np.ndarray]:
    if not is_sparse(vectors):
        return {"support_vectors": np.ascontiguousarray(vectors)}
    parts = (vectors.data, vectors.indices.astype(np.int32, copy=False), vectors.indptr.astype(np.int64, copy=False))
    return dict(zip(_SPARSE, parts, strict=True))


def _problem_to_dict(problem: Problem) -> dict[str, Any]:
    """The problem without what means nothing for its task.

    A classifier's is the same as before there were other tasks.
    """
    values = {name: value for name, value in asdict(problem).items() if value is not None or name == "class_weight"}
    if problem.classifies:
        del values["task"]
    return values | {"C": "inf" if math.isinf(problem.C) else problem.C}


def load_model(path: str | os.PathLike[str]) -> SVMModel:
    """Read a model file, gpusvm's or LIBSVM's. No code in it is run.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    SVMModel
        With its preprocessing steps, if it has some.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, not a model of gpusvm or LIBSVM, of an unknown version, or
        its arrays are missing, of the wrong shape, or hold NaN or infinity.
    """
    if is_libsvm_model(path):
        return read_libsvm_model(path)
    tensors, metadata = _read(Path(path))
    try:
        return _assemble(tensors, metadata)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}; train the model again") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        text = " ".join(str(error).split())[:120]
        raise ModelFileError(f"{path}: the model's description is damaged ({text}); train the model again") from error


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as a model of gpusvm or LIBSVM does.

    False where there is no such file.
    """
    path = Path(path)
    if is_libsvm_model(path):
        return True
    try:
        return path.is_file() and f'"format":"{FORMAT}"'.encode() in read_header(path)
    except (UnreadableError, OSError):
        return False


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file; gpusvm train --out writes one")
    try:
        return read_tensors(path, _NAMES, lambda found: _check_version(path, found))
    except UnreadableError as error:
        raise ModelFileError(f"{path}: not a readable model file ({error}); it may be truncated or foreign") from error


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path}: not a gpusvm model; gpusvm train --out writes one")
    if metadata.get("version") not in _READERS:
        raise ModelFileError(
            f"{path}: model file version {metadata.get('version')!r:.40} is unknown, this gpusvm reads "
            f"versions {', '.join(_READERS)}; update gpusvm, or train the model again"
        )


def _assemble(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> SVMModel:
    header = json.loads(metadata["model"])
    _check_dtypes(tensors)
    problem, stopping = _READERS[metadata["version"]](header)
    classes = _classes(tensors, header) if problem.classifies else np.empty(0)
    n_features = _whole(header["n_features"], "n_features")
    if "support_vectors" not in tensors:
        tensors["support_vectors"] = _sparse_vectors(tensors, n_features)
    _check_shapes(tensors, len(classes), 0 if problem.kernel.precomputed else n_features)
    _check_values(tensors, n_features if problem.kernel.precomputed else None)
    of_classes = {"vote_order", "probB", *(() if problem.task == "epsilon_svr" else ("probA",))}
    if not problem.classifies and (strange := sorted(of_classes & set(tensors))):
        raise ModelFileError(f"array {strange[0]} means nothing without classes")
    if problem.class_weight is not None and len(problem.class_weight) != len(classes):
        raise ModelFileError("it has another number of class weights than of classes")
    steps = read_steps(header["preprocessing"], tensors)
    check_steps(steps, header["image_shape"], n_features)
    shape = header["image_shape"]
    return SVMModel(
        problem=problem,
        stopping=stopping,
        classes=classes,
        n_features=n_features,
        preprocessing=steps,
        image_shape=None if shape is None else (int(shape[0]), int(shape[1])),
        table=_table(header.get("table"), tensors.get("columns"), n_features),
        calibration=_calibration(header.get("calibration"), tensors) if problem.classifies else None,
        noise_scale=float(tensors["probA"][0]) if not problem.classifies and "probA" in tensors else None,
        provenance=_provenance(header["provenance"]),
        **{name: tensors[name] for name in (*_REQUIRED, *_OPTIONAL) if name in tensors},
    )


def _calibration(described: Any, tensors: dict[str, np.ndarray]) -> Calibration | None:
    """The probabilities that the file describes, if any. Raises ModelFileError or ValueError."""
    missing = [name for name in _CALIBRATION if name not in tensors]
    if missing:
        if described is not None or len(missing) < len(_CALIBRATION):
            raise ModelFileError(f"array {missing[0]} is missing")
        return None
    described = {"coupling": "wu_lin_weng"} if described is None else described  # of a model read from LIBSVM's format
    return Calibration(tensors["probA"], tensors["probB"], **described)


def _described_table(table: TableLayout) -> dict[str, Any]:
    described = asdict(table)
    del described["columns"]  # which may be many, and are stored as an array
    return described


def _table(described: Any, columns: np.ndarray | None, n_features: int) -> TableLayout | None:
    """The layout of the table that the file describes, if it does. Raises ModelFileError."""
    if described is None:
        return None
    label_name = described["label_name"]
    if not isinstance(label_name, str | None):
        raise ModelFileError(f"label_name is {label_name!r:.40}")
    label_number, first_index = described.get("label_number"), described.get("first_index")
    if label_number is not None:
        _whole(label_number, "label_number")
    if first_index not in (None, 0, 1) or isinstance(first_index, bool | float):
        raise ModelFileError(f"first_index is {first_index!r:.40}")
    left_out = described.get("left_out", [])
    if not isinstance(left_out, list):
        raise ModelFileError(f"left_out is {left_out!r:.40}")
    for number in left_out:
        _whole(number, "left_out")
    if columns is None:
        return TableLayout((), label_name, label_number, first_index, tuple(left_out))
    if columns.dtype != np.uint8 or columns.ndim != 1:
        raise ModelFileError("its column names are no text")
    names = json.loads(columns.tobytes().decode())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFileError("its column names are no text")
    if len(names) != n_features or len(set(names)) != n_features:
        raise ModelFileError(f"it has {len(names)} column names for {n_features} features, or one twice")
    return TableLayout(tuple(names), label_name, label_number, first_index)


def _asked(header: dict[str, Any]) -> tuple[Problem, Stopping]:
    """What the file says was asked for. Raises ValueError for a number out of its range."""
    problem = dict(header["problem"])
    kernel = Kernel(**problem.pop("kernel"))
    if problem["C"] == "inf":  # JSON has no such number
        problem["C"] = math.inf
    weights = problem.pop("class_weight")
    weights = None if weights is None else tuple(map(float, weights))
    if not np.isfinite(weights or 0).all():
        raise ModelFileError("class_weight holds NaN or infinity")
    stopping = Stopping(**header["stopping"])
    if not isinstance(stopping.shrinking, bool):
        raise ModelFileError(f"shrinking is {stopping.shrinking!r:.40}")
    return Problem(kernel=kernel, class_weight=weights, **problem), stopping


def _asked_in_version_1(header: dict[str, Any]) -> tuple[Problem, Stopping]:
    """The problem and when to stop, from the one table that version 1 has.

    That had the resources of the training machine too: they mean nothing here.
    """
    values = dict(header["params"])
    for name in ("cache_size", "n_jobs", "device"):
        values.pop(name, None)
    stopping = {name: values.pop(name) for name in ("tol", "max_iter", "shrinking")}
    return _asked({"problem": values, "stopping": stopping})


_READERS = {"1": _asked_in_version_1, "2": _asked, str(VERSION): _asked}


def _provenance(values: dict[str, Any]) -> dict[str, Any]:
    """Anything goes, but for what the report and the scikit-learn form rely on."""
    values = dict(values)
    _whole(values.get("n_train", 0), "n_train")
    seconds = values.get("fit_seconds", 0)
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ModelFileError(f"fit_seconds is {seconds!r:.40}")
    data = values.get("dataset")
    if isinstance(data, dict) and not all(isinstance(data.get(key, ""), str) for key in ("name", "split", "digest")):
        raise ModelFileError("dataset does not say in words which one it is")
    return values


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST_COUNT:
        raise ModelFileError(f"{name} is {value!r:.40}, it must be a whole number")
    return value


def _label_dtype(name: Any) -> np.dtype:
    """Only numbers: NumPy would take nearly any string or table for a dtype, of objects too."""
    if name not in _LABELS_AS_TRAINED:
        raise ModelFileError(f"label_dtype is {name!r:.40}")
    return np.dtype(name)


def _classes(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> np.ndarray:
    if "classes" in tensors:
        stored = tensors["classes"]
        if stored.ndim != 1 or stored.dtype.name not in _LABEL_DTYPES:
            raise ModelFileError("its class labels are not a list of numbers")
        classes = stored.astype(_label_dtype(header["label_dtype"]))
    else:
        labels = [str(label) for label in header["classes"]]
        if 4 * len(labels) * max(map(len, labels), default=0) > _LARGEST_LABELS:
            raise ModelFileError("its class labels are too long")
        classes = np.array(labels)
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ModelFileError("its class labels hold NaN or infinity")
    if len(classes) < 2 or len(np.unique(classes)) != len(classes):
        raise ModelFileError("its class labels are fewer than two, or not all different")
    return classes


def _check_dtypes(tensors: dict[str, np.ndarray]) -> None:
    required = _REQUIRED
    if "support_vectors" not in tensors and _SPARSE.keys() & tensors.keys():
        required = {name: dtypes for name, dtypes in _REQUIRED.items() if name != "support_vectors"} | _SPARSE
    for name, dtypes in (required | _OPTIONAL | _CALIBRATION).items():
        if name not in tensors:
            if name in required:
                raise ModelFileError(f"array {name} is missing")
        elif tensors[name].dtype.name not in dtypes:
            raise ModelFileError(f"array {name} is {tensors[name].dtype}, expected {' or '.join(dtypes)}")


def _sparse_vectors(tensors: dict[str, np.ndarray], n_features: int) -> Sparse:
    """The support vectors as CSR, once each of its arrays fits the others and the features."""
    data, indices, indptr = (tensors[name] for name in _SPARSE)
    n_sv = len(tensors["support_indices"].ravel())
    for name, shape in zip(_SPARSE, [(len(data.ravel()),), (len(data.ravel()),), (n_sv + 1,)], strict=True):
        if tensors[name].shape != shape:
            raise ModelFileError(f"array {name} has shape {tensors[name].shape}, expected {shape}")
    if not is_well_formed(data, indices, indptr, n_features):
        raise ModelFileError(
            "arrays support_vectors.indices and support_vectors.indptr do not describe sparse rows of "
            f"{n_features} features"
        )
    return as_csr(csr_array((data, indices, indptr), shape=(n_sv, n_features)))


def _check_shapes(tensors: dict[str, np.ndarray], n_classes: int, n_columns: int) -> None:
    """`n_classes` is 0 where there is a single function."""
    n_sv, n_pairs = len(tensors["support_indices"].ravel()), max(1, n_classes * (n_classes - 1) // 2)
    expected = {
        "support_vectors": (n_sv, n_columns),
        "support_indices": (n_sv,),
        "n_support": (max(1, n_classes),),
        "dual_coef": (max(1, n_classes - 1), n_sv),
        "intercept": (n_pairs,),
        "n_iter": (n_pairs,),
        "kkt_gap": (n_pairs,),
        "dual_objective": (n_pairs,),
        "converged": (n_pairs,),
        "vote_order": (n_classes,),
        "probA": (n_pairs,),
        "probB": (n_pairs,),
    }
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            raise ModelFileError(f"array {name} has shape {tensors[name].shape}, expected {shape}")


def _check_values(tensors: dict[str, np.ndarray], n_columns: int | None) -> None:
    for name in {"support_vectors", "dual_coef", "intercept", "probA", "probB"} & {*tensors}:
        values = tensors[name].data if is_sparse(tensors[name]) else tensors[name]
        if not np.isfinite(values).all():
            raise ModelFileError(f"array {name} holds NaN or infinity")
    for name in ("dual_coef", "intercept"):  # float64 in the file
        if np.abs(tensors[name]).max(initial=0) > np.finfo(np.float32).max:
            raise ModelFileError(f"array {name} holds numbers beyond float32, in which predictions are computed")
    order = tensors.get("vote_order")
    if order is not None and not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ModelFileError("vote_order does not name each class once")
    counts, indices = tensors["n_support"], tensors["support_indices"]
    if (counts < 0).any() or (counts > len(indices)).any() or counts.sum() != len(indices):
        raise ModelFileError("n_support does not count the support vectors")
    if (indices < 0).any() or (n_columns is not None and (indices >= n_columns).any()):
        raise ModelFileError("support_indices point outside the training data")


def to_sklearn(model: SVMModel) -> Any:
    """A fitted estimator of scikit-learn with the same support vectors and decisions.

    It is a ``sklearn.svm.SVC``, `SVR` or `OneClassSVM`. Sparse support vectors stay sparse. Of a
    model with probabilities it has those too, but coupled as LIBSVM does it.

    The model's preprocessing steps are not part of it; `to_sklearn_pipeline` keeps them.

    Parameters
    ----------
    model : SVMModel

    Returns
    -------
    sklearn.svm.SVC, sklearn.svm.SVR or sklearn.svm.OneClassSVM
    """
    from sklearn.svm import SVC, SVR, OneClassSVM

    if model.vote_order is not None and model.n_classes > 2:
        model = in_class_order(model, model.vote_order)  # equal votes go to the class that is first in classes_
    problem, kernel = model.problem, model.kernel
    svc: Any = {"c_svc": SVC, "epsilon_svr": SVR, "one_class": OneClassSVM}[problem.task](**model.parameters)
    sign = -1.0 if model.n_classes == 2 else 1.0
    if problem.classifies:
        svc.classes_ = model.classes
        svc.class_weight_ = np.ones(model.n_classes) if problem.class_weight is None else np.array(problem.class_weight)
    svc.support_ = model.support_indices.astype(np.int32)
    vectors = model.support_vectors.astype(np.float64)
    # LIBSVM counts those of a single function among the first of two classes.
    n_support = model.n_support if problem.classifies else np.append(model.n_support, 0)
    dual_coef = np.ascontiguousarray(model.dual_coef)
    sparse = is_sparse(vectors)
    if sparse:
        vectors, dual_coef = csr_matrix(vectors), csr_matrix(all_stored(dual_coef))
    svc.support_vectors_ = np.empty((0, 0)) if kernel.precomputed else vectors
    svc.dual_coef_, svc.intercept_ = sign * dual_coef, sign * model.intercept
    calibration, n_iter = model.calibration, model.n_iter.astype(np.int32)
    if calibration is not None:
        svc.probability = True
    set_libsvm_attributes(
        svc,
        sparse=sparse,
        n_support=n_support.astype(np.int32),
        dual_coef=dual_coef,
        intercept=model.intercept.copy(),
        probA=np.empty(0) if calibration is None else calibration.probA.copy(),
        probB=np.empty(0) if calibration is None else calibration.probB.copy(),
        gamma=kernel.gamma,
        probability=calibration is not None,
        n_iter=n_iter,
    )
    svc.fit_status_ = model.fit_status
    svc.n_iter_ = n_iter if problem.classifies else int(n_iter[0])
    if problem.task == "one_class":
        svc.offset_ = -svc.intercept_
    svc.n_features_in_ = model.n_features
    n_train = model.n_features if kernel.precomputed else int(model.provenance.get("n_train", 0))
    svc.shape_fit_ = (n_train, model.n_features)
    return svc


def to_sklearn_pipeline(model: SVMModel) -> Any:
    """The preprocessing steps, fitted, and the classifier, as one ``sklearn.pipeline.Pipeline``.

    It takes flattened images (n, height * width) of raw pixels, or rows of a table with its
    columns in the model's order. Unpickling it elsewhere needs gpusvm only for steps of pixels.
    """
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*model.preprocessing, to_sklearn(model))


def to_onnx(model: SVMModel) -> Any:
    """The model, its steps included, as an ONNX graph of standard operators (opset 17).

    Input ``X`` is float32 (n, n_features): raw pixels or table rows where the model has steps.
    Outputs are ``label`` (n,), int64 or string, and ``decision`` (n, n_pairs) float32, positive
    where the first class of a pair wins; of a model with probabilities also ``probabilities`` (n,
    n_classes) float32, in the order of `classes` (but of one from LIBSVM, of which a DataWarning
    tells). A model whose decisions float32 would spoil takes and gives float64 instead. The kernel
    is written as matrix products rather than as the operator SVMClassifier, which runtimes
    evaluate one row and one support vector at a time.

    Parameters
    ----------
    model : SVMModel

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    UsageError
        The package onnx is missing, sparse support vectors would be too large without their zeros
        left out, or the model deskews, has a precomputed kernel, or has class labels that are
        neither text nor fit int64, which the graph cannot express.
    """
    from gpusvm.io.onnx_graph import build_graph

    if model.kernel.precomputed:
        raise UsageError("a model with a precomputed kernel has no ONNX form; its kernel is not in the model")
    if not model.problem.classifies:
        raise UsageError(
            f"a model of {TASKS[model.problem.task]} has no ONNX form yet; to_sklearn gives it to skl2onnx"
        )
    return build_graph(model)

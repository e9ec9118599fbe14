"""A model as an ONNX graph: kernel block, pair decisions, votes, label."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpusvm.calibration import LEAD
from gpusvm.errors import DataWarning, UsageError, warn
from gpusvm.kernels import rbf_offset, squared_norms
from gpusvm.model import SVMModel
from gpusvm.pairs import own_pairs, pairs_reordered
from gpusvm.preprocess import PixelBinarizer, PixelScaler, step_arrays
from gpusvm.sparse import dense

_OPSET = 17
_IR_VERSION = 8
_LARGEST_SHIFT = 100.0
"""Features that scaling moves by more lose digits in float32 that decisions need."""
_LARGEST_CONSTANT = 2**31 - 2**20
"""Bytes: a graph is one protobuf message, which may have 2 GB."""


class _Graph:
    """Nodes and constants under construction; every method returns the name of its result.

    Numbers are float32 or float64, as `dtype` says.
    """

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.real = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        array = np.ascontiguousarray(value, dtype=self.dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def apply(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        result = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [result], **attributes))
        return result


def build_graph(model: SVMModel) -> Any:
    """See `gpusvm.io.model_file.to_onnx`."""
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise UsageError('exporting to ONNX needs the package onnx: pip install "gpusvm[onnx]"') from error

    graph = _Graph(onnx, np.dtype(np.float32 if float32_graph_suffices(model) else np.float64))
    X = _preprocess(graph, model, "X")
    decision = _decisions(graph, model, X)
    label_type, winner = _labels(graph, model, decision)
    n_pairs = len(model.intercept)
    outputs = [
        helper.make_tensor_value_info("label", label_type, ["n"]),
        helper.make_tensor_value_info("decision", graph.real, ["n", n_pairs]),
    ]
    if model.calibration is not None and _has_closed_form(model):
        _probabilities(graph, model, decision, winner)
        outputs.append(helper.make_tensor_value_info("probabilities", graph.real, ["n", model.n_classes]))
    built = helper.make_graph(
        graph.nodes,
        "gpusvm",
        [helper.make_tensor_value_info("X", graph.real, ["n", model.n_features])],
        outputs,
        graph.constants,
    )
    proto = helper.make_model(built, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="gpusvm")
    proto.ir_version = _IR_VERSION
    onnx.checker.check_model(proto)
    return proto


def _preprocess(graph: _Graph, model: SVMModel, X: str) -> str:
    for step in model.preprocessing:
        if isinstance(step, PixelScaler):
            X = graph.apply("Div", X, graph.constant("pixel_maximum", step.maximum))
        elif isinstance(step, PixelBinarizer):
            above = graph.apply("Greater", X, graph.constant("pixel_threshold", step.threshold))
            X = graph.apply("Cast", above, to=graph.real)
        elif _is_scaler(step):
            X = _scale(graph, step_arrays(step), X)
        else:
            name = type(step).__name__
            raise UsageError(f"the step {name} has no ONNX form; train without it to export to ONNX")
    return X


def float32_graph_suffices(model: SVMModel) -> bool:
    """Whether features and decisions are precise enough in float32.

    Where they are, the graph takes and gives float32.
    """
    shifts = [np.abs(_offset(step_arrays(step))) for step in model.preprocessing if _is_scaler(step)]
    return model.float32_suffices and all(shift.max(initial=0) <= _LARGEST_SHIFT for shift in shifts)


def _is_scaler(step: Any) -> bool:
    """Whether it is a step that divides features, and may move them before."""
    return hasattr(step, "scale_")


def _offset(learned: dict[str, np.ndarray]) -> np.ndarray:
    """By how much a scaler moves features (n_features,), in the units of its output."""
    if "mean" in learned:
        return learned["mean"] / learned["scale"]
    return learned.get("min", np.zeros(1))


def _scale(graph: _Graph, learned: dict[str, np.ndarray], X: str) -> str:
    """The arithmetic of scikit-learn's StandardScaler, MaxAbsScaler or MinMaxScaler."""
    step = len(graph.nodes)
    scale = graph.constant(f"feature_scale_{step}", learned["scale"])
    if "min" in learned:
        return graph.apply("Add", graph.apply("Mul", X, scale), graph.constant(f"feature_min_{step}", learned["min"]))
    if "mean" in learned:
        X = graph.apply("Sub", X, graph.constant(f"feature_mean_{step}", learned["mean"]))
    return graph.apply("Div", X, scale)


def _decisions(graph: _Graph, model: SVMModel, X: str) -> str:
    block = _kernel_block(graph, model, X)
    weights = np.zeros((model.n_support_vectors, len(model.intercept)))
    slices = list(model.class_slices())
    for p, (i, j) in enumerate(model.pairs):
        weights[slices[i], p] = model.dual_coef[j - 1, slices[i]]
        weights[slices[j], p] = model.dual_coef[i, slices[j]]
    sums = graph.apply("MatMul", block, graph.constant("pair_coef", weights))
    return graph.apply("Add", sums, graph.constant("intercept", model.intercept), output="decision")


def _dense_vectors(model: SVMModel, dtype: np.dtype) -> np.ndarray:
    """The support vectors as an array. Raises UsageError where a graph could not hold it."""
    n_bytes = model.n_support_vectors * model.n_features * dtype.itemsize
    if n_bytes > _LARGEST_CONSTANT:
        raise UsageError(
            f"an ONNX graph has no sparse matrices: as an array the {model.n_support_vectors:,} support vectors of "
            f"{model.n_features:,} features are {n_bytes / 2**20:,.0f} MB, and a graph holds at most 2,048 MB; export "
            "to sklearn, or train on fewer features"
        )
    return dense(model.support_vectors)


def _kernel_block(graph: _Graph, model: SVMModel, X: str) -> str:
    kernel, vectors = model.kernel, _dense_vectors(model, graph.dtype)
    offset = rbf_offset(vectors) if kernel.name == "rbf" else None
    if offset is not None:
        X, vectors = graph.apply("Sub", X, graph.constant("offset", offset)), vectors - offset
    inner = graph.apply("MatMul", X, graph.constant("support_vectors", vectors.T))
    gamma = graph.constant("gamma", kernel.gamma)
    if kernel.name == "linear":
        return inner
    if kernel.name == "rbf":
        norms = graph.apply("ReduceSumSquare", X, axes=[1], keepdims=1)
        sums = graph.apply("Add", norms, graph.constant("support_norms", squared_norms(vectors)[None, :]))
        twice = graph.apply("Mul", inner, graph.constant("two", 2.0))
        distances = graph.apply("Max", graph.apply("Sub", sums, twice), graph.constant("zero_distance", 0.0))
        return graph.apply("Exp", graph.apply("Neg", graph.apply("Mul", distances, gamma)))
    affine = graph.apply("Add", graph.apply("Mul", inner, gamma), graph.constant("coef0", kernel.coef0))
    if kernel.name == "sigmoid":
        return graph.apply("Tanh", affine)
    return graph.apply("Pow", affine, graph.constant("degree", kernel.degree))


def _labels(graph: _Graph, model: SVMModel, decision: str) -> tuple[int, str]:
    """Add the votes and the winner to the graph.

    Returns the ONNX type of the labels, and the winners' places in the voting order.
    """
    proto = graph.onnx.TensorProto
    classes = model.classes
    if model.vote_order is not None:
        columns, signs = pairs_reordered(model.vote_order)
        graph.constants.append(graph.onnx.numpy_helper.from_array(columns, "vote_columns"))
        gathered = graph.apply("Gather", decision, "vote_columns", axis=1)
        decision, classes = graph.apply("Mul", gathered, graph.constant("vote_signs", signs)), classes[model.vote_order]
    # votes = wins (e_first - e_second) + how often each class is the second of a pair
    swing = np.zeros((len(model.intercept), model.n_classes))
    for p, (i, j) in enumerate(model.pairs):
        swing[p, i], swing[p, j] = 1.0, -1.0
    as_second = np.arange(model.n_classes)
    wins = graph.apply("Greater", decision, graph.constant("no_decision", 0.0))
    swings = graph.apply("MatMul", graph.apply("Cast", wins, to=graph.real), graph.constant("swing", swing))
    votes = graph.apply("Add", swings, graph.constant("as_second", as_second))
    winner = graph.apply("ArgMax", votes, axis=1, keepdims=0)
    is_text = _has_text_labels(classes)
    labels = [str(label) for label in classes] if is_text else classes.astype(np.int64)
    label_type = proto.STRING if is_text else proto.INT64
    graph.constants.append(graph.onnx.helper.make_tensor("labels", label_type, [model.n_classes], list(labels)))
    graph.apply("Gather", "labels", winner, output="label")
    return int(label_type), winner


def _has_closed_form(model: SVMModel) -> bool:
    """Whether a graph can hold the model's probabilities.

    Where it cannot, a DataWarning says that they are left out.
    """
    if model.calibration is not None and model.calibration.coupling == "price":
        return True
    warn(
        "an ONNX graph cannot couple probabilities as LIBSVM does: this one has labels and decisions only", DataWarning
    )
    return False


def _probabilities(graph: _Graph, model: SVMModel, decision: str, winner: str) -> None:
    """`calibration.price` and `calibration.led_by`, in the graph.

    They are for a model whose votes are in the order of its classes.
    """
    calibration, k = model.require_probabilities(), model.n_classes
    assert model.vote_order is None
    scaled = graph.apply("Mul", decision, graph.constant("probA", calibration.probA))
    against = graph.apply("Add", scaled, graph.constant("probB", calibration.probB))  # log(r_ji / r_ij)
    # For each class the pairs it belongs to, as log(r_ji / r_ij) of that class i, and a zero for
    # the 1 of the sum.
    columns, every = own_pairs(k), np.arange(k)
    signs = np.where(np.arange(k - 1) >= every[:, None], 1.0, -1.0)
    for name, values in (("own_pairs", columns.ravel()), ("by_class", np.array([0, k, k - 1]))):
        graph.constants.append(graph.onnx.numpy_helper.from_array(values.astype(np.int64), name))
    gathered = graph.apply("Mul", graph.apply("Gather", against, "own_pairs", axis=1),
                           graph.constant("own_signs", signs.ravel()))  # fmt: skip
    by_class = graph.apply("Reshape", gathered, "by_class")
    most = graph.apply("Relu", graph.apply("ReduceMax", by_class, axes=[2], keepdims=1))
    terms = graph.apply("Exp", graph.apply("Sub", by_class, most))
    sums = graph.apply("Add", graph.apply("ReduceSum", terms, _axis(graph, 2), keepdims=1),
                       graph.apply("Exp", graph.apply("Neg", most)))  # fmt: skip
    total = graph.apply("Squeeze", graph.apply("Add", graph.apply("Log", sums), most), _axis(graph, 2))
    shares = graph.apply("Mul", total, graph.constant("sharpness", -calibration.sharpness))
    _led_by(graph, graph.apply("Softmax", shares, axis=1), winner, k)


def _led_by(graph: _Graph, probabilities: str, winner: str, n_classes: int) -> None:
    """The output `probabilities`, in which the predicted class leads.

    Here each row is brought in line, which changes those that already are by a millionth.
    """
    for name, values in (("n_classes", np.array([n_classes])), ("no_and_yes", np.array([0, 1]))):
        graph.constants.append(graph.onnx.numpy_helper.from_array(values.astype(np.int64), name))
    chosen = graph.apply("OneHot", winner, "n_classes", "no_and_yes", axis=1)
    chosen = graph.apply("Cast", chosen, to=graph.real)
    rivals = graph.apply("Sub", probabilities, graph.apply("Mul", chosen, graph.constant("two_off", 2.0)))
    own = graph.apply("ReduceSum", graph.apply("Mul", probabilities, chosen), _axis(graph, 1), keepdims=1)
    largest_first = f"sorted_{len(graph.nodes)}"
    graph.nodes.append(
        graph.onnx.helper.make_node("TopK", [rivals, "n_classes"], [largest_first, f"{largest_first}_places"], axis=1)
    )
    # The predicted class comes first, and once more, less 2, at the end, where no mean is the
    # largest.
    ordered = graph.apply("Concat", own, largest_first, axis=1)
    graph.constants.append(graph.onnx.numpy_helper.from_array(np.array(1, dtype=np.int64), "along"))
    counts = graph.constant("counts", np.arange(1, n_classes + 2))
    means = graph.apply("Div", graph.apply("CumSum", ordered, "along"), counts)
    level = graph.apply("ReduceMax", means, axes=[1], keepdims=1)
    others = graph.apply("Min", probabilities, level)
    lead = graph.apply("Mul", graph.apply("Mul", level, chosen), graph.constant("lead", 1 + LEAD))
    rest = graph.apply("Mul", others, graph.apply("Sub", graph.constant("one", 1.0), chosen))
    led = graph.apply("Add", lead, rest)
    total = graph.apply("ReduceSum", led, _axis(graph, 1), keepdims=1)
    graph.apply("Div", led, total, output="probabilities")


def _axis(graph: _Graph, axis: int) -> str:
    """A constant that names it, where an operator takes its axes as an input."""
    name = f"axis_{axis}_{len(graph.constants)}"
    graph.constants.append(graph.onnx.numpy_helper.from_array(np.array([axis], dtype=np.int64), name))
    return name


def _has_text_labels(classes: np.ndarray) -> bool:
    """Whether the output `label` is text; else it is int64.

    Raises UsageError for labels that are neither.
    """
    if classes.dtype.kind not in "iub":
        if classes.dtype.kind == "f":
            raise UsageError("class labels that are fractions have no ONNX form; train on whole numbers or on text")
        return True
    if classes.dtype.kind == "u" and classes.max() > np.iinfo(np.int64).max:
        raise UsageError(f"the class label {classes.max()} does not fit ONNX's int64; train on smaller numbers or text")
    return False

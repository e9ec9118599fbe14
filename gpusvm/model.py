"""SVMModel: a fitted support vector machine, the same whoever trained it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpusvm.calibration import Calibration, led_by
from gpusvm.data.table import Table
from gpusvm.device import device_of, on_device
from gpusvm.errors import DataError, UsageError
from gpusvm.kernels import Array, Kernel, array_module, rbf_offset, working_dtype
from gpusvm.pairs import class_pairs, pairs_reordered
from gpusvm.params import TASK_PARAMETERS, Problem, Stopping
from gpusvm.predict import Sizes, evaluator_for, float32_suffices, in_range, primal_weights, require_finite, sizes
from gpusvm.preprocess import apply_steps
from gpusvm.sparse import Sparse, as_csr, is_sparse, unpacked_if_smaller, widened
from gpusvm.voting import one_vs_rest, vote

UNPACKED_BYTES = 2**24
"""Bytes that sparse support vectors may take as an array, kept beside them, for the sake of faster
predictions."""

FROM_LIBSVM = "libsvm"
"""The backend in the provenance of a model that was read from LIBSVM's format."""


@dataclass(frozen=True)
class TableLayout:
    """What a model remembers of the columns of the table that it was trained on.

    Attributes
    ----------
    columns : tuple of str
        The names of the features in their order; () where the table had none.
    label_name : str, optional
        The column that held the labels.
    label_number : int, optional
        The number of that column, from 1, where the table had no header.
    first_index : int, optional
        From where a svmlight file counted its features: 0 or 1.
    left_out : tuple of int
        The numbers of the columns that were neither, from 1, where the table had no header.
    """

    columns: tuple[str, ...] = ()
    label_name: str | None = None
    label_number: int | None = None
    first_index: int | None = None
    left_out: tuple[int, ...] = ()

    @classmethod
    def of(cls, table: Table) -> TableLayout:
        """What is remembered of this table."""
        return cls(table.columns, table.label_name, table.label_number, table.first_index, table.left_out)

    @property
    def label(self) -> str | None:
        """The label column's name or number, as `gpusvm.data.load_samples` takes it."""
        return self.label_name if self.label_number is None else str(self.label_number)


@dataclass(frozen=True, eq=False)
class SVMModel:
    """A fitted model in LIBSVM's layout: one-vs-one for classes, or a single function.

    A regression or one-class model has a single decision function f(x) = sum of dual_coef[0, s]
    k(x, s) over all support vectors s, + intercept[0]. f is the prediction of a regression; a
    one-class model takes x for an inlier where f is positive.

    With classes i < j, the decision value of their pair is

        f_ij(x) = sum over support vectors s of class i: dual_coef[j - 1, s] k(x, s)
                + sum over support vectors s of class j: dual_coef[i, s] k(x, s) + intercept[ij]

    and a positive value is a vote for class i. (scikit-learn turns the sign of a *two*-class
    model around in its public attributes; this class does not, ``gpusvm.SVC`` does.)

    Attributes
    ----------
    problem : Problem
        What was minimised; `problem.kernel` holds the resolved gamma.
    stopping : Stopping
        How exactly.
    classes : (n_classes,) array
        The sorted labels; (0,) for a model that has no classes.
    support_vectors : (n_sv, n_features) array, float32 or float64
        Grouped by class, in the precision they were trained in; (n_sv, 0) for a precomputed
        kernel. Of a training on sparse samples they are CSR (`sparse.Sparse`). Either kind of
        model evaluates either kind of sample.
    support_indices : (n_sv,) int64 array
        Each support vector's row in the training data.
    n_support : (n_classes,) int64 array
        (1,) for a single function, as `dual_coef`, `intercept` and whatever else is of each pair
        then have one row.
    dual_coef : (n_classes - 1, n_sv) float64 array
        y alpha, with zeros where a support vector of one pair is none in another; alpha - alpha*
        of a regression.
    intercept : (n_classes (n_classes - 1) / 2,) float64 array
    n_features : int
        Columns expected of X; for a precomputed kernel the number of training samples.
    n_iter : (n_pairs,) int64 array
        As the backend's library counts: SMO steps in LIBSVM, outer iterations (of many steps each)
        in cuML.
    kkt_gap, dual_objective : (n_pairs,) float64 arrays, optional
        As the solver saw them, from a backend that tells.
    converged : (n_pairs,) bool array, optional
        Whether the solver reached `stopping.tol`; None in a model file of a version that did not
        keep it.
    vote_order : (n_classes,) int64 array, optional
        The classes, by their indices, in the order in which equal votes are decided: that of the
        labels in a LIBSVM model; None for the order of `classes`.
    calibration : Calibration, optional
        How decision values become class probabilities, in a model that was trained for them.
    noise_scale : float, optional
        Of a regression's targets around its values (a Laplace distribution), from a LIBSVM model
        that was trained with -b 1, kept to be written back. Nothing here uses it.
    preprocessing : tuple of transformers
        Fitted steps of `gpusvm.preprocess` that made X from images or from the rows of a table.
    image_shape : (height, width), optional
        Of the images that the steps expect.
    table : TableLayout, optional
        The columns of the table that the steps expect.
    provenance : dict
        Backend, versions, data set, counts and seconds; plain JSON values.
    """

    problem: Problem
    stopping: Stopping
    classes: np.ndarray
    support_vectors: np.ndarray | Sparse
    support_indices: np.ndarray
    n_support: np.ndarray
    dual_coef: np.ndarray
    intercept: np.ndarray
    n_features: int
    n_iter: np.ndarray
    kkt_gap: np.ndarray | None = None
    dual_objective: np.ndarray | None = None
    converged: np.ndarray | None = None
    vote_order: np.ndarray | None = None
    calibration: Calibration | None = None
    noise_scale: float | None = None
    preprocessing: tuple[Any, ...] = ()
    image_shape: tuple[int, int] | None = None
    table: TableLayout | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    _evaluators: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def kernel(self) -> Kernel:
        """The kernel, with its gamma as a number."""
        return self.problem.kernel

    @property
    def parameters(self) -> dict[str, Any]:
        """What scikit-learn's estimator is given for such a training, under its names.

        Weights of classes are left out.
        """
        kernel, stopping = self.kernel, self.stopping
        return {
            **{name: getattr(self.problem, name) for name in TASK_PARAMETERS[self.problem.task]},
            "kernel": kernel.name,
            "degree": kernel.degree,
            "gamma": kernel.gamma,
            "coef0": kernel.coef0,
            "tol": stopping.tol,
            "shrinking": stopping.shrinking,
            "max_iter": stopping.max_iter,
        }

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0 for a single function."""
        return len(self.classes)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Class indices of each pair, in the order of `intercept`; none for a single function."""
        return class_pairs(self.n_classes)

    @property
    def n_support_vectors(self) -> int:
        """How many support vectors there are, each counted once."""
        return len(self.support_indices)

    @property
    def fit_status(self) -> int:
        """1 if a pair stopped before it reached `stopping.tol`, else 0; as in scikit-learn."""
        return int(self.converged is not None and not self.converged.all())

    @property
    def from_libsvm(self) -> bool:
        """Whether it was read from LIBSVM's format, which does not say the number of features."""
        return self.provenance.get("backend") == FROM_LIBSVM

    def class_slices(self) -> Iterator[slice]:
        """The columns of `dual_coef` that belong to each class; all of them to a single function.

        Yields
        ------
        slice
        """
        ends = np.cumsum(self.n_support)
        for count, end in zip(self.n_support.tolist(), ends.tolist(), strict=True):
            yield slice(end - count, end)

    def preprocess(self, samples: Any) -> Any:
        """Apply the steps the model was trained behind.

        Parameters
        ----------
        samples : (n, height, width) uint8 array, or (n, n_features) array or CSR matrix
            Images, or the rows of a table with its columns in the order of `table.columns`.

        Returns
        -------
        (n, height * width) float32 array, or (n, n_features) array or CSR matrix
            A table in the precision that it came in.

        Raises
        ------
        DataError
            The images are not of the size, or the rows not of the length, that the model was
            trained on.
        """
        return apply_steps(self.preprocessing, samples, self.image_shape)

    def pair_decisions(self, X: Array, dtype: Any = None, n_jobs: int | None = None) -> Array:
        """Decision value of every class pair, or of the single function, for every row.

        Parameters
        ----------
        X : (n, n_features) array, NumPy or CuPy, or sparse matrix of SciPy
            Preprocessed samples; for a precomputed kernel, kernel values against all training
            samples.
        dtype : numpy dtype, optional
            Arithmetic of the kernel: by default float64 for input that float32 cannot hold, and
            where float32 would put decision values off by more than `predict.DECISION_ERROR`; else
            float32. Where it is named, the kernel is evaluated as its definition says, without
            compiled code or weights of features.
        n_jobs : int, optional
            Threads to use, as joblib counts; None is every core, or what an enclosing context
            says.

        Returns
        -------
        (n, n_pairs) float64 array of X's module
            Positive where the first class of the pair wins.

        Raises
        ------
        DataError
            X has another number of columns than the training data.
        RangeError
            Values in X are so large that decision values may exceed float64.
        """
        return self._reduced(X, lambda decisions, _: decisions, (len(self.intercept),), np.float64, n_jobs, dtype)

    def _reduced(
        self,
        X: Array,
        reduce: Callable[[Array, bool], Array],
        shape: tuple[int, ...],
        result_dtype: Any,
        n_jobs: int | None,
        dtype: Any = None,
    ) -> Array:
        """What `reduce` makes of the decision values of each block of rows: (n, *shape).

        Decision values of all rows would be 14 MB for each row of a model with 1,900 classes.
        `reduce` is given those of a block, (m, n_pairs), and is told whether compiled code is at
        hand. It is called in several threads.
        """
        xp = array_module(X)
        if self.from_libsvm and X.ndim == 2 and X.shape[1] > self.n_features:
            return self._widened(X.shape[1])._reduced(X, reduce, shape, result_dtype, n_jobs, dtype)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise DataError(f"X has shape {X.shape} but the model expects {self.n_features} features a row")
        if is_sparse(X):
            X = self._as_samples(X)
        elif xp is not np and is_sparse(self.support_vectors):
            with on_device(device_of(X)):  # sparse support vectors stay on the host
                return xp.asarray(self._reduced(X.get(), reduce, shape, result_dtype, n_jobs, dtype))
        with on_device(device_of(X)):
            result = xp.empty((X.shape[0], *shape), dtype=result_dtype)
            X, coarsest = in_range(self, X)
            is_lazy = not hasattr(X, "size")
            evaluator = evaluator_for(self, X, dtype, coarsest)

            def keep(rows: slice, decisions: Array) -> None:
                if is_lazy:
                    require_finite(decisions)
                result[rows] = reduce(decisions, evaluator.compiled)

            evaluator.each_block(X, n_jobs, keep)
        return result

    def _widened(self, n_features: int) -> SVMModel:
        """The same for data of more features; its support vectors are zero in those added."""
        key = ("widened", n_features)
        if key not in self._evaluators:
            vectors = self.support_vectors
            if not self.kernel.precomputed:
                vectors = widened(vectors, n_features)
            self._evaluators[key] = replace(self, n_features=n_features, support_vectors=vectors)
        return self._evaluators[key]

    def _as_samples(self, X: Any) -> Sparse:
        """A sparse matrix of whatever format and type, ready to be evaluated."""
        if self.kernel.precomputed:
            raise TypeError("Sparse precomputed kernels are not supported.")
        return as_csr(X, working_dtype(X.dtype))

    @cached_property
    def float32_suffices(self) -> bool:
        """Whether decision values computed in float32 are within `predict.DECISION_ERROR`."""
        return float32_suffices(self)

    @cached_property
    def sizes(self) -> Sizes:
        """What bounds its decision values."""
        return sizes(self)

    @cached_property
    def offset(self) -> np.ndarray | None:
        """What to move both sides of an RBF kernel by: (n_features,) float64; None for nothing."""
        return rbf_offset(self.support_vectors) if self.kernel.name == "rbf" else None

    @cached_property
    def unpacked_vectors(self) -> Array:
        """The support vectors as they are evaluated soonest.

        That is as an array where it takes little memory, else as CSR.
        """
        return unpacked_if_smaller(self.support_vectors, UNPACKED_BYTES)

    @cached_property
    def primal_weights(self) -> np.ndarray:
        """The features' weights for each class pair, (n_pairs, n_features) float64.

        For a linear kernel only.
        """
        return primal_weights(self)

    def __getstate__(self) -> dict[str, Any]:
        recomputed = ("primal_weights", "unpacked_vectors")
        state = {name: value for name, value in self.__dict__.items() if name not in recomputed}
        return {**state, "_evaluators": {}}

    def predict(self, X: Array, n_jobs: int | None = None) -> Array:
        """The class label of each sample, as scikit-learn's SVC votes.

        A regression gives its values, float64, and a one-class model 1 for inliers and -1 for
        outliers, int64. Of X's module, but for labels that are text: those are always NumPy's.
        Beside them, a call takes a fixed amount of memory (`predict.BUDGET`), whatever the number
        of rows.

        Parameters
        ----------
        X : (n, n_features) array, NumPy or CuPy, or sparse matrix of SciPy
            Preprocessed samples.
        n_jobs : int, optional
            Threads to use, as joblib counts; None is every core, or what an enclosing context
            says.

        Returns
        -------
        (n,) array

        Raises
        ------
        DataError
            X has another number of columns than the training data.
        RangeError
            Values in X are so large that decision values may exceed float64.
        """
        if not self.problem.classifies:
            return self.decided(self.pair_decisions(X, n_jobs=n_jobs))

        def winners(decisions: Array, compiled: bool) -> Array:
            return self.vote(decisions, compiled=compiled)

        return self.labels(self._reduced(X, winners, (), np.int64, n_jobs))

    def decided(self, decisions: Array) -> Array:
        """What `predict` makes of decision values.

        Parameters
        ----------
        decisions : (n, n_pairs) array

        Returns
        -------
        (n,) array
        """
        if self.problem.classifies:
            return self.labels(self.vote(decisions))
        values = decisions[:, 0]
        return values if self.problem.task == "epsilon_svr" else array_module(values).where(values > 0, 1, -1)

    def vote(self, decisions: Array, *, compiled: bool = False) -> Array:
        """The class with most votes; see `voting.vote`.

        Parameters
        ----------
        decisions : (n, n_pairs) array
        compiled : bool
            Whether compiled code may count the votes.

        Returns
        -------
        (n,) int64 array
            Indices of classes.
        """
        if self.vote_order is None:
            return vote(decisions, self.n_classes, compiled=compiled)
        xp = array_module(decisions)
        columns, signs = map(xp.asarray, pairs_reordered(self.vote_order))
        places = vote(decisions[:, columns] * signs, self.n_classes, compiled=compiled)
        return xp.asarray(self.vote_order)[places]

    def labels(self, indices: Array) -> Array:
        """The labels of classes.

        Parameters
        ----------
        indices : (n,) int64 array

        Returns
        -------
        (n,) array
        """
        xp = array_module(indices)
        if xp is np:
            return self.classes[indices]
        numbers = self.classes.dtype.kind in "iufb"
        return xp.asarray(self.classes)[indices] if numbers else self.classes[indices.get()]

    def predict_proba(self, X: Array, n_jobs: int | None = None, *, break_ties: bool = False) -> Array:
        """The probability of each class for each sample; see `probabilities`.

        Parameters
        ----------
        X : (n, n_features) array, NumPy or CuPy, or sparse matrix of SciPy
            Preprocessed samples.
        n_jobs : int, optional
            As for `predict`.
        break_ties : bool
            As for `probabilities`.

        Returns
        -------
        (n, n_classes) float64 array of X's module

        Raises
        ------
        UsageError
            The model has no probabilities.
        DataError, RangeError
            As for `predict`.
        """
        self.require_probabilities()

        def found(decisions: Array, _: bool) -> Array:
            return self.probabilities(decisions, break_ties=break_ties)

        return self._reduced(X, found, (self.n_classes,), np.float64, n_jobs)

    def require_probabilities(self) -> Calibration:
        """What turns decision values into probabilities, for what cannot do without.

        Returns
        -------
        Calibration

        Raises
        ------
        UsageError
            The model has none.
        """
        if self.calibration is None:
            raise UsageError("the model has no probabilities: train it with --proba, or SVC(probability=True)")
        return self.calibration

    def probabilities(self, decisions: Array, *, break_ties: bool = False) -> Array:
        """Class probabilities of decision values; the rows sum to one.

        The class that `predict` gives has the largest one. (A model that was read from LIBSVM's
        format gives LIBSVM's own, by which `svm-predict -b 1` chooses the class: there it may be
        another than that of the votes.)

        Parameters
        ----------
        decisions : (n, n_pairs) array
        break_ties : bool
            Whether the prediction breaks equal votes by `decision_function`, as
            ``SVC(break_ties=True)`` does.

        Returns
        -------
        (n, n_classes) float64 array

        Raises
        ------
        UsageError
            The model has no probabilities.
        """
        calibration, xp = self.require_probabilities(), array_module(decisions)
        if xp is not np:
            with on_device(device_of(decisions)):
                return xp.asarray(self.probabilities(decisions.get(), break_ties=break_ties))
        if self.vote_order is None:
            found = calibration.class_probabilities(decisions, self.n_classes)
        else:
            # In LIBSVM's order of the classes, for its result is no limit but what it has after
            # some steps.
            columns, signs = pairs_reordered(self.vote_order)
            there = calibration.reordered(self.vote_order)
            found = np.empty((len(decisions), self.n_classes))
            found[:, self.vote_order] = there.class_probabilities(decisions[:, columns] * signs, self.n_classes)
        if calibration.coupling == "wu_lin_weng":
            return found
        if break_ties and self.n_classes > 2:
            return led_by(found, one_vs_rest(decisions, self.n_classes).argmax(axis=1))
        return led_by(found, self.vote(decisions))

    def decision_function(self, X: Array, shape: str = "ovr", n_jobs: int | None = None) -> Array:
        """Decision values, of each pair (``"ovo"``) or of each class (``"ovr"``).

        Parameters
        ----------
        X : (n, n_features) array, NumPy or CuPy, or sparse matrix of SciPy
            Preprocessed samples.
        shape : {"ovr", "ovo"}
        n_jobs : int, optional
            As for `predict`.

        Returns
        -------
        (n, n_pairs) or (n, n_classes) float64 array
            With two classes, (n,): positive for ``classes[1]``, as in scikit-learn. (n,) of a
            single function, too.
        """
        if not self.problem.classifies:
            return self._reduced(X, lambda decisions, _: decisions[:, 0], (), np.float64, n_jobs)
        if self.n_classes == 2:
            return self._reduced(X, lambda decisions, _: -decisions[:, 0], (), np.float64, n_jobs)
        if shape == "ovo":
            return self.pair_decisions(X, n_jobs=n_jobs)

        def scores(decisions: Array, compiled: bool) -> Array:
            return one_vs_rest(decisions, self.n_classes, compiled=compiled)

        return self._reduced(X, scores, (self.n_classes,), np.float64, n_jobs)


def describe_pair(classes: np.ndarray, pair: tuple[int, int]) -> str:
    """A pair as people read it: ``3 vs 8``."""
    return f"{classes[pair[0]]} vs {classes[pair[1]]}"


def in_class_order(model: SVMModel, order: np.ndarray) -> SVMModel:
    """The same model with its classes in another order.

    What belongs to a class or a pair is moved, and turned where the pair is turned around.

    Parameters
    ----------
    model : SVMModel
    order : (n_classes,) int64 array
        For each place in the new order, the index that its class has in `model`.

    Returns
    -------
    SVMModel
        Its `vote_order` is the order of its own classes, that is None.
    """
    columns, signs = pairs_reordered(order)
    slices = list(model.class_slices())
    rows = np.concatenate([np.arange(slices[c].start, slices[c].stop) for c in order])
    places, parts = np.arange(len(order)), []
    for place, c in enumerate(order):
        others = np.delete(order, place)
        turned = (np.delete(places, place) > place) != (others > c)
        parts.append(model.dual_coef[others - (others > c), slices[c]] * np.where(turned, -1.0, 1.0)[:, None])
    weights = model.problem.class_weight
    per_pair: dict[str, Any] = {
        name: None if getattr(model, name) is None else getattr(model, name)[columns]
        for name in ("n_iter", "kkt_gap", "dual_objective", "converged")
    }
    return replace(
        model,
        problem=replace(model.problem, class_weight=None if weights is None else tuple(weights[c] for c in order)),
        classes=model.classes[order],
        support_vectors=model.support_vectors[rows],
        support_indices=model.support_indices[rows],
        n_support=model.n_support[order],
        dual_coef=np.concatenate(parts, axis=1),
        intercept=signs * model.intercept[columns],
        calibration=None if model.calibration is None else model.calibration.reordered(order),
        vote_order=None,
        **per_pair,
    )

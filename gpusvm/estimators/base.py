"""What the estimators share: validation of samples wherever they lie, and the fitted SVMModel."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from gpusvm.backends.base import Backend
from gpusvm.backends.registry import Choice, names_of_those, takes_sparse
from gpusvm.compat import StrOptions
from gpusvm.device import as_device_array, device_of, on_device
from gpusvm.errors import UsageError
from gpusvm.estimators.callable_kernel import CallableKernel
from gpusvm.kernels import Kernel, array_module, resolve_gamma, working_dtype
from gpusvm.model import SVMModel, TableLayout
from gpusvm.params import KERNEL_NAMES, RANGES, Problem, Resources, Stopping, constraints
from gpusvm.sparse import Sparse, all_stored, as_csr, is_sparse, require_indices_inside, same_rows


class KernelSVM(BaseEstimator, metaclass=ABCMeta):
    """A kernel SVM whose `fit` leaves an `SVMModel` as `model_`.

    Its subclasses state the problem.
    """

    _task: str
    """One of `params.TASKS`: what a subclass trains."""

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - the name and form scikit-learn reads
        **constraints("degree", "coef0", "tol", "max_iter", "time_limit", "n_jobs", "device"),
        "kernel": [StrOptions(set(KERNEL_NAMES)), callable],
        "gamma": [StrOptions({"scale", "auto"}), *RANGES["gamma"].constraints()],
        "cache_size": [StrOptions({"auto"}), *replace(RANGES["cache_size"], optional=False).constraints()],
        "shrinking": ["boolean"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "backend": [str],
        "require_gpu": ["boolean"],
    }

    @abstractmethod
    def _problem(self, X: Any) -> Problem:
        """What is to be solved for X (n, n_features)."""

    def _validated_for_fit(self, X: Any, y: Any, *, on_gpu: bool) -> tuple[Any, Any]:
        """X (n, n_features) and y (n,), checked as scikit-learn does.

        X stays on its device where `on_gpu`, and stays sparse where it is sparse. An estimator
        that needs no y may be given None.

        Raises
        ------
        ValueError
            NaN or infinity in X, another shape, or for a precomputed kernel no square matrix.
        TypeError
            X is sparse and the kernel precomputed.
        """
        self.__dict__.pop("_callable_kernel", None)
        if callable(self.kernel):
            return self._validated_for_callable(X, y)
        X = sparse_on_host(X)
        self._refuse_sparse_kernel_values(X)
        X_device = as_device_array(X)
        if X_device is None:
            with swapped_named(X, y):
                checked = validate_data(self, X, y, dtype=_dtypes(X), order="C", accept_sparse="csr")
            X, y = checked if isinstance(checked, tuple) else (checked, None)
            X = as_csr(X) if is_sparse(X) else X
        else:
            X, y = self._validated_on_device(X_device, y)
            X = X if on_gpu else X.get()
        if self.kernel == "precomputed" and X.shape[0] != X.shape[1]:
            raise ValueError(
                f"Precomputed matrix must be a square matrix. Input is a {X.shape[0]}x{X.shape[1]} matrix."
            )
        return X, y

    def _validated_for_callable(self, X: Any, y: Any) -> tuple[np.ndarray, Any]:
        """Kernel values (n, n) between samples X, which are not checked, and y (n,) or None."""
        if y is not None:
            y = column_or_1d(np.asarray(on_host(y)), warn=True)
            check_consistent_length(X, y)
        self._callable_kernel = CallableKernel(self.kernel, X)
        for checked in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(checked, None)
        return self._callable_kernel.matrix(), y

    def _fitted_to(self, X: Any, choice: Choice) -> None:
        """Say how `model_` was trained on X (n, n_features); keep of X what predictions need."""
        self.backend_, self.backend_reason_ = choice.backend.name, choice.reason
        self.fit_status_ = self.model_.fit_status
        self.shape_fit_ = X.shape
        if "_callable_kernel" in self.__dict__:
            self.shape_fit_ = self._callable_kernel.shape
            self._callable_kernel.keep(self.model_.support_indices)

    def _was_fitted_to(self, X: Any) -> bool:
        """Whether X (n, n_features) has a fitted model's support vectors in the same rows.

        False where there is no fitted model.
        """
        model = self.__dict__.get("model_")
        if model is None or self.shape_fit_ != X.shape:
            return False
        return model.kernel.precomputed or same_rows(on_host(X[model.support_indices]), model.support_vectors)

    def _validated_on_device(self, X: Any, y: Any) -> tuple[Any, Any]:
        """X and y checked as scikit-learn does, for X (n, n_features) that stays on its device."""
        with on_device(device_of(X)):
            X = _checked_on_device(X.astype(working_dtype(X.dtype), order="C", copy=False))
        if y is not None:
            y = column_or_1d(np.asarray(on_host(y)), warn=True)
            check_consistent_length(np.empty(X.shape[0]), y)
        self.n_features_in_ = int(X.shape[1])
        self.__dict__.pop("feature_names_in_", None)
        return X, y

    def _validated_weights(self, sample_weight: Any, X: Any) -> np.ndarray | None:
        """The sample weights (n,) float64 on the host, or None.

        Those that are zero or negative take their samples out of training: see `group_by_class`.
        """
        if sample_weight is None:
            return None
        weights = np.asarray(on_host(sample_weight), dtype=np.float64)
        if weights.shape != (X.shape[0],):
            raise ValueError(f"sample_weight and X have incompatible shapes: {weights.shape} vs {X.shape}")
        if not np.isfinite(weights).all():
            raise ValueError("Input sample_weight contains NaN or infinity.")
        return weights

    def _validated(self, X: Any) -> Any:
        """X ready to predict: sparse, on the host, or where it lies on a device."""
        check_is_fitted(self, "model_")
        if "_callable_kernel" in self.__dict__:
            return self._callable_kernel.against_training(X)
        X = sparse_on_host(X)
        model = self.model_
        # A LIBSVM model does not say which form its training data had.
        if is_sparse(X) and not is_sparse(model.support_vectors) and not model.from_libsvm:  # in scikit-learn's words
            name = type(self).__name__
            raise ValueError(f"cannot use sparse input in {name!r} trained on dense data; give it X.toarray()")
        self._refuse_sparse_kernel_values(X)
        X_device = as_device_array(X)
        if X_device is not None:
            with on_device(device_of(X_device)):
                return _checked_on_device(X_device)
        return validate_data(self, X, dtype=_dtypes(X), reset=False, accept_sparse="csr")

    def _refuse_sparse_kernel_values(self, X: Any) -> None:
        if is_sparse(X) and self.kernel == "precomputed":
            raise TypeError("Sparse precomputed kernels are not supported.")  # scikit-learn's words

    def _refuse_what_it_lacks(self, backend: Backend, X: Any) -> None:
        """Raise UsageError where the backend takes no such X, or lacks what is asked for.

        That is a sparse X (n, n_features), a time limit, or a start from the fitted model.
        """
        if is_sparse(X) and not backend.takes_sparse:
            others = names_of_those(lambda other: other.takes_sparse)
            raise UsageError(f"backend {backend.name} takes no sparse X; {others} do, or give it X.toarray()")
        if not backend.goes_on and (self.time_limit is not None or self.warm_start):
            asked = "time_limit" if self.time_limit is not None else "warm_start"
            others = names_of_those(lambda other: other.goes_on)
            raise UsageError(f"backend {backend.name} has no {asked}; {others} do")

    def _resolved_kernel(self, X: Any) -> Kernel:
        name = "precomputed" if callable(self.kernel) else self.kernel
        # A precomputed kernel has no use for gamma, and its "variance" would mean nothing.
        with on_device(device_of(X)):
            gamma = 0.0 if name == "precomputed" else resolve_gamma(self.gamma, X)
        return Kernel(name, gamma, int(self.degree), float(self.coef0))

    def _stopping(self) -> Stopping:
        return Stopping(
            tol=float(self.tol),
            max_iter=int(self.max_iter),
            shrinking=bool(self.shrinking),
            time_limit=None if self.time_limit is None else float(self.time_limit),
        )

    @property
    def _cache_mb(self) -> float | None:
        """What `Resources` call its `cache_size`."""
        return None if isinstance(self.cache_size, str) else float(self.cache_size)

    def _resources(self, X: Any) -> Resources:
        return Resources(
            cache_size=self._cache_mb,
            n_jobs=self.n_jobs,
            device=device_of(X) if self.device is None else self.device,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        preprocessing: Sequence[Any] = (),
        image_shape: tuple[int, int] | None = None,
    ) -> None:
        """Write the fitted model to `path`; see `gpusvm.load_model`.

        Parameters
        ----------
        path : str or path
        preprocessing : sequence of transformers
            The steps of `gpusvm.preprocess` that made X from images, or fitted scalers of
            scikit-learn that made it from a table. With them in the file, ``gpusvm evaluate`` and
            ``predict`` take samples through the same steps. Left out, the model keeps those it
            has.
        image_shape : (height, width), optional
            Of those images.

        Raises
        ------
        OutputError
            The file cannot be written.
        ModelFileError
            A step that a model file cannot hold.
        UsageError
            The kernel is a function, which a file without code cannot hold.
        """
        from gpusvm.io.model_file import save_model

        check_is_fitted(self, "model_")
        if "_callable_kernel" in self.__dict__:
            raise UsageError(
                f"a model file holds no code, and the kernel {self.kernel!r} is a function: pickle this estimator "
                "(joblib.dump), or train with kernel='precomputed' on the values that it gives"
            )
        model = replace(
            self.model_,
            preprocessing=tuple(preprocessing) or self.model_.preprocessing,
            image_shape=image_shape or self.model_.image_shape,
            table=self.model_.table or self._table_layout(),
        )
        save_model(model, path)

    def _table_layout(self) -> TableLayout | None:
        """The columns of the DataFrame that X was, if it was one."""
        names = self.__dict__.get("feature_names_in_")
        return None if names is None else TableLayout(tuple(map(str, names)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A fitted estimator from a model file, whoever trained it.

        `predict` takes X as the model was trained on it. Steps that the file has stay on
        ``svc.model_`` and are not applied by the estimator:
        ``svc.predict(svc.model_.preprocess(images))``.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Self
            An instance of the class that it is called on.

        Raises
        ------
        ModelFileError
            See `gpusvm.load_model`.
        """
        from gpusvm.io.model_file import load_model

        model = load_model(path)
        estimator = cls.from_model(model)
        if model.table is not None and model.table.columns and not model.preprocessing:
            # Behind steps X is what they give, and an array as a rule.
            estimator.feature_names_in_ = np.array(model.table.columns, dtype=object)
        return estimator

    @classmethod
    def from_model(cls, model: SVMModel) -> Self:
        """A fitted estimator around a model.

        Parameters
        ----------
        model : SVMModel

        Returns
        -------
        Self
            An instance of the class that it is called on.

        Raises
        ------
        UsageError
            It is a model of another kind.
        """
        if model.problem.task != cls._task:
            raise UsageError(f"the model is one of {model.problem.task}, which {cls.__name__} is not")
        estimator = cls(**model.parameters, time_limit=model.stopping.time_limit)
        estimator.model_ = model
        estimator.backend_ = str(model.provenance.get("backend", "unknown"))
        estimator.backend_reason_ = "trained before, and loaded"
        estimator.fit_status_ = model.fit_status
        estimator.shape_fit_ = (int(model.provenance.get("n_train", 0)), model.n_features)
        estimator.n_features_in_ = model.n_features
        return estimator

    @property
    def support_(self) -> np.ndarray:
        """Rows of the support vectors in the training data, grouped by class: (n_sv,) int32."""
        return self._fitted("support_").support_indices.astype(np.int32)

    @property
    def support_vectors_(self) -> Any:
        """The support vectors (n_sv, n_features), in the precision that they were trained in.

        Sparse where X was.
        """
        return in_public(self._fitted("support_vectors_").support_vectors)

    @property
    def n_support_(self) -> np.ndarray:
        """How many support vectors each class has: (n_classes,) int32.

        For a single function it is (1,).
        """
        return self._fitted("n_support_").n_support.astype(np.int32)

    @property
    def dual_coef_(self) -> Any:
        """The coefficients of the support vectors, (n_classes - 1, n_sv) float64.

        Their signs are scikit-learn's.
        """
        model = self._fitted("dual_coef_")
        coef = self._public_sign * model.dual_coef
        return in_public(all_stored(coef)) if is_sparse(model.support_vectors) else coef

    @property
    def intercept_(self) -> np.ndarray:
        """The constant of each decision function, (n_pairs,) float64.

        Its sign is scikit-learn's.
        """
        return self._public_sign * self._fitted("intercept_").intercept

    @property
    def coef_(self) -> Any:
        """Weights of the features, (n_pairs, n_features) float64, of a linear kernel.

        Raises AttributeError for any other kernel.
        """
        # Of a fitted model its own kernel counts, not one that set_params has named since.
        kernel = self.model_.kernel.name if "model_" in self.__dict__ else self.kernel
        if kernel != "linear":
            raise AttributeError("coef_ is only available when using a linear kernel")
        model = self._fitted("coef_")
        from_sparse = is_sparse(model.support_vectors)
        weights: Any = self._public_sign * (_sparse_weights(model) if from_sparse else model.primal_weights)
        # Read-only, because it is computed from the coefficients: to change it would change
        # nothing.
        (weights.data if from_sparse else weights).flags.writeable = False
        return in_public(weights)

    @property
    def _public_sign(self) -> float:
        """The factor on `model_`'s coefficients, intercepts and weights where they are shown."""
        return 1.0

    def _fitted(self, attribute: str) -> SVMModel:
        if "model_" not in self.__dict__:
            raise AttributeError(f"this {type(self).__name__} is not fitted yet, so it has no {attribute}")
        return self.model_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        tags.input_tags.sparse = self.kernel != "precomputed" and takes_sparse(self.backend)
        return tags


def _dtypes(X: Any) -> Any:
    """The types that scikit-learn may make of X.

    An array goes to the type that holds it; a table keeps float32 or float64.
    """
    if (isinstance(X, np.ndarray) or is_sparse(X)) and X.dtype.kind in "biuf":
        return working_dtype(X.dtype)
    return [np.float64, np.float32]


def _sparse_weights(model: SVMModel) -> Sparse:
    """The weights of the features, (n_pairs, n_features) float64.

    For sparse support vectors and a linear kernel.
    """
    coef, vectors = as_csr(model.dual_coef), model.support_vectors.astype(np.float64)
    if not model.problem.classifies:
        return coef @ vectors
    own = list(model.class_slices())
    weights = [
        coef[j - 1 : j, own[i]] @ vectors[own[i]] + coef[i : i + 1, own[j]] @ vectors[own[j]] for i, j in model.pairs
    ]
    return sparse.vstack(weights, format="csr")


def _checked_on_device(X: Any) -> Any:
    """X (n, n_features), a CuPy array.

    Raises ValueError for another shape, no rows, no features, NaN or infinity.
    """
    if X.ndim != 2 or not X.size:
        raise ValueError(f"Expected 2D array with at least one sample and one feature, got shape {X.shape}")
    if X.dtype.kind == "f" and not bool(array_module(X).isfinite(X).all()):
        raise ValueError("Input X contains NaN or infinity.")
    return X


def sparse_on_host(X: Any) -> Any:
    """A sparse matrix of CuPy as SciPy's; anything else as it is.

    Raises ValueError for indices that point outside.
    """
    X = X.get() if type(X).__module__.startswith("cupyx.scipy.sparse") else X
    require_indices_inside(X)
    return X


def in_public(values: Any) -> Any:
    """A fitted attribute as scikit-learn gives it.

    A sparse one is the kind of CSR that scikit-learn's configuration names; before 1.9 it was
    always a matrix.
    """
    if not is_sparse(values):
        return values
    kind = sparse.csr_array if get_config().get("sparse_interface") == "sparray" else sparse.csr_matrix
    return kind(values)


@contextmanager
def swapped_named(X: Any, y: Any) -> Iterator[None]:
    """Where X or y is refused inside, say so if the two seem to be in each other's place.

    They do where X has one dimension and y has rows of several numbers.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        try:
            first, second = np.shape(X), np.shape(y)
        except ValueError:  # lists of different lengths
            raise error from None
        if len(first) == 1 and len(second) == 2 and first[0] == second[0] and second[1] > 1:
            raise ValueError(
                f"X has one dimension, {first}, and y has two, {second}: they seem to be in each other's place;"
                " the samples X (n, n_features) come first, then y (n,)"
            ) from error
        raise


def on_host(values: Any) -> Any:
    """Labels or weights as the host's array, wherever they are."""
    found = as_device_array(values)
    return values if found is None else found.get()


def print_progress(done: int, total: int, latest: str) -> None:
    """The line of ``verbose=True`` for each problem solved."""
    print(f"[gpusvm] {done}/{total} class pairs trained ({latest})", flush=True)

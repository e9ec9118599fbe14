"""`from gpusvm import SVC` where a script had `from sklearn.svm import SVC`."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.svm
from scipy.sparse import bsr_array, coo_array, csc_array, csr_array, lil_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris, make_blobs, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpusvm.svm
from gpusvm import SVC, SVR, OneClassSVM, SVCSearchCV, TrainingError, certify, load_model

BACKENDS = ("native-cpu", "sklearn")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_the_estimators_are_found_where_scikit_learn_has_its_own():
    for name in gpusvm.svm.__all__:
        assert getattr(gpusvm.svm, name) is getattr(gpusvm, name)
        assert name in sklearn.svm.__all__


# -- a hard margin --------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_hard_margin_is_scikit_learns(backend, kernel, tmp_path):
    X, y = make_blobs(300, centers=3, cluster_std=0.3, random_state=0)
    ours = SVC(C=np.inf, kernel=kernel, backend=backend, tol=1e-6).fit(X, y)
    theirs = sklearn.svm.SVC(C=np.inf, kernel=kernel, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    found = certify(ours.model_, X, y)
    assert found.max_kkt_gap <= 2e-6 and found.relative_duality_gap < 1e-5
    assert found.box_violation.max() == 0 and np.isfinite(found.primal_objective).all()
    assert ours.fit_status_ == 0
    ours.save(tmp_path / "m.svm")
    assert np.inf == load_model(tmp_path / "m.svm").problem.C
    np.testing.assert_array_equal(SVC.load(tmp_path / "m.svm").decision_function(X), ours.decision_function(X))


def test_a_hard_margin_takes_weights_and_leaves_out_those_of_zero(backend):
    X, y = make_blobs(100, centers=2, cluster_std=0.3, random_state=1)
    X[0], weights = X[y != y[0]][0], np.ones(100)  # a label that would make it inseparable
    weights[0] = 0
    svc = SVC(C=np.inf, kernel="linear", backend=backend).fit(X, y, weights)
    assert svc.fit_status_ == 0 and 0 not in svc.support_
    assert certify(svc.model_, X, y, sample_weight=weights).relative_duality_gap < 0.01


def test_without_a_hard_margin_training_ends_by_max_iter_and_says_so(backend):
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    svc = SVC(C=np.inf, kernel="linear", max_iter=2000, backend=backend)
    with pytest.warns(ConvergenceWarning, match="Solver terminated early"):
        svc.fit(X, y)
    assert svc.fit_status_ == 1
    found = certify(svc.model_, X, y)
    assert np.isinf(found.primal_objective).all() and found.relative_duality_gap == 1


def test_without_a_hard_margin_libsvms_bound_ends_training(backend, monkeypatch):
    monkeypatch.setattr("gpusvm.params.MOST_ITERATIONS", 20_000)
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"with a hard margin \(C=inf\) no machine separates|use a finite C"):
        SVC(C=np.inf, kernel="linear", backend=backend).fit(X, y)


def test_coefficients_without_end_are_an_error_that_says_why(backend):
    X, y = make_classification(100, n_features=4, flip_y=0.3, random_state=0)
    X, y = np.r_[X, X[:5]], np.r_[y, 1 - y[:5]]
    with pytest.raises(ValueError, match="The dual coefficients or intercepts are not finite"):
        SVC(C=np.inf, kernel="sigmoid", backend=backend).fit(X, y)


def test_metrics_of_a_hard_margin_are_json(tmp_path):
    from gpusvm.io.output import write_json

    write_json(tmp_path / "m.json", {"C": np.inf, "gaps": np.array([1.0, np.nan]), "n": 3})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {"C": "inf", "gaps": [1.0, "nan"], "n": 3}


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(40), "Invalid input - all samples have zero or negative weights."),
        (-np.ones(40), "Invalid input - all samples have zero or negative weights."),
        (np.where(np.arange(40) < 20, 1.0, -1.0), "all samples with positive weights belong to the same class"),
        (np.ones(39), "sample_weight and X have incompatible shapes"),
        (np.ones((40, 1)), "sample_weight and X have incompatible shapes"),
        (2.0, "sample_weight and X have incompatible shapes"),
        (np.array(1), "sample_weight and X have incompatible shapes"),
        (np.full(40, np.nan), "NaN"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_scikit_learns_words(backend, rng, weights, message):
    with pytest.raises(ValueError, match=message):
        SVC(backend=backend).fit(rng.normal(size=(40, 3)), np.arange(40) // 20, sample_weight=weights)


def test_samples_of_zero_or_negative_weight_take_no_part(backend, rng):
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    weights = rng.uniform(-1, 2, 60)
    weights[:5] = 0
    ours = SVC(backend=backend, tol=1e-6).fit(X, y, weights)
    theirs = sklearn.svm.SVC(tol=1e-6).fit(X, y, weights)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    assert (weights[ours.support_] > 0).all()


# -- what else scripts rely on --------------------------------------------------------------------


def test_weights_of_the_features_cannot_be_changed_in_silence(backend, rng):
    svc = SVC(kernel="linear", backend=backend).fit(rng.normal(size=(20, 3)), np.arange(20) % 2)
    with pytest.raises(AttributeError):
        svc.coef_ = np.ones((1, 3))
    with pytest.raises(ValueError, match="read-only"):
        svc.coef_[0, 0] = 0


def test_sparse_precomputed_values_are_refused_in_scikit_learns_words():
    with pytest.raises(TypeError, match="Sparse precomputed kernels are not supported"):
        SVC(kernel="precomputed").fit(csr_array(np.eye(4)), [0, 1, 0, 1])
    for machine in (SVC, SVR, OneClassSVM):
        with pytest.raises(ValueError, match=r"cannot use sparse input in .* trained on dense data"):
            machine(kernel="precomputed").fit(np.eye(4), [0, 1, 0, 1]).predict(csr_array(np.eye(4)))


def test_an_early_end_is_said_in_words_by_which_scripts_filter(backend, rng):
    X, y = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"Solver terminated early.*", category=ConvergenceWarning)
        SVC(C=100, max_iter=1, backend=backend).fit(X, y)


# -- kernels that are functions -------------------------------------------------------------------


def linear(X, Y):
    return X @ Y.T


class Recorded:
    """A kernel that remembers how many samples it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, X, Y):
        self.calls.append((len(X), len(Y)))
        return np.asarray(X) @ np.asarray(Y).T


def common_letters(X, Y):
    """Of texts: the inner product of how often they have each letter."""
    letters = "abcdefgh"
    counts = [np.array([[text.count(letter) for letter in letters] for text in texts], dtype=float) for texts in (X, Y)]
    return counts[0] @ counts[1].T


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_function_is_a_kernel_as_in_scikit_learn(backend, digits, n_classes):
    keep = digits[1] < n_classes
    X, y, X_test = digits[0][keep].astype(np.float64), digits[1][keep], digits[2]
    ours = SVC(kernel=linear, tol=1e-5, backend=backend).fit(X, y)
    theirs = sklearn.svm.SVC(kernel=linear, tol=1e-5).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X_test), theirs.decision_function(X_test), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X_test), theirs.predict(X_test))
    assert ours.shape_fit_ == theirs.shape_fit_ and not hasattr(ours, "n_features_in_")


def test_a_function_is_called_in_blocks_and_for_predictions_with_support_vectors(backend, monkeypatch, rng):
    monkeypatch.setattr("gpusvm.estimators.callable_kernel._BLOCK_VALUES", 120 * 50)
    monkeypatch.setattr("gpusvm.predict.BUDGET", 2 * 8 * 3 * 240 * 30)
    X, y, kernel = rng.normal(size=(120, 3)), rng.integers(0, 2, 120), Recorded()
    svc = SVC(kernel=kernel, backend=backend).fit(X, y)
    assert [call for call in kernel.calls if call[1] == 120] == [(50, 120), (50, 120), (20, 120)]
    kernel.calls.clear()
    svc.predict(X)
    assert len(kernel.calls) > 1 and sum(rows for rows, _ in kernel.calls) == 120
    assert {columns for _, columns in kernel.calls} == {len(svc.support_)}
    np.testing.assert_allclose(
        svc.decision_function(X), SVC(kernel="linear", backend=backend).fit(X, y).decision_function(X), atol=5e-3
    )


@pytest.mark.parametrize("container", [list, np.array, pd.Series])
def test_samples_of_a_function_may_be_anything(backend, container):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), 12, p=p)) for p in rng.dirichlet(np.ones(8), 90)]
    y = np.array(["many a" if text.count("a") > 1 else "few" for text in texts])
    ours = SVC(kernel=common_letters, tol=1e-6, backend=backend).fit(container(texts[:60]), y[:60])
    theirs = sklearn.svm.SVC(kernel=common_letters, tol=1e-6).fit(texts[:60], y[:60])
    values = ours.decision_function(container(texts[60:]))
    np.testing.assert_allclose(values, theirs.decision_function(texts[60:]), atol=1e-4)
    assert ours.score(texts[60:], y[60:]) == theirs.score(texts[60:], y[60:])


def test_a_function_gets_a_table_or_a_sparse_matrix_as_it_is(backend, rng):
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    y = (table["a"] > 0).to_numpy()
    by_name = SVC(kernel=lambda X, Y: np.outer(X["a"], Y["a"]), backend=backend).fit(table, y)
    assert by_name.score(table, y) > 0.9
    for convert in (csr_array, coo_array, lil_array):
        sparse = SVC(kernel=linear, backend=backend).fit(convert(table.to_numpy()), y)
        assert sparse.score(convert(table.to_numpy()), y) > 0.9


def centred(X, Y):
    """No function of two samples: the training samples' mean is taken off, which must be those
    given as Y."""
    mean = Y.mean(axis=0)
    return (X - mean) @ (Y - mean).T


def symmetric(X, Y):
    """Fills the lower half of a square from the upper one."""
    K = np.zeros((len(X), len(Y)))
    for i in range(len(X)):
        for j in range(i, len(Y)):
            K[i, j] = K[j, i] = X[i] @ Y[j]
    return K


@pytest.mark.parametrize("function", [centred, symmetric])
@pytest.mark.parametrize("values_at_once", [2**22, 40 * 16])
def test_a_function_that_needs_all_training_samples_gets_them(backend, function, values_at_once, monkeypatch, rng):
    monkeypatch.setattr("gpusvm.estimators.callable_kernel._BLOCK_VALUES", values_at_once)
    X = rng.normal(size=(40, 3)) + 5
    y = (X[:, 0] > 5).astype(int)
    ours = SVC(kernel=function, backend=backend, tol=1e-5).fit(X, y)
    theirs = sklearn.svm.SVC(kernel=function, tol=1e-5).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda X, Y: X, r"must give an array of shape \(20, 20\).*gave one of shape \(20, 3\)"),
        (lambda X, Y: np.full((len(X), len(Y)), np.nan), "NaN"),
        (lambda X, Y: 1 / 0, "division"),
    ],
)
def test_what_a_function_gives_is_checked(backend, function, message, rng):
    with pytest.raises((ValueError, ZeroDivisionError), match=message):
        SVC(kernel=function, backend=backend).fit(rng.normal(size=(20, 3)), np.arange(20) % 2)


@pytest.mark.parametrize("large", [1e308, np.nan, np.inf])
def test_a_function_that_gives_no_numbers_for_other_samples_decides_nothing(backend, large, rng):
    X, y = rng.normal(size=(30, 2)), np.arange(30) % 3
    svc = SVC(kernel=lambda A, B: np.where(A[:, :1] > 50, large, 1.0) * (A @ B.T), backend=backend, C=100).fit(X, y)
    assert len(svc.predict(X)) == 30
    with pytest.raises(ValueError, match="decision values are NaN or infinite"), np.errstate(all="ignore"):
        svc.predict(np.array([[100.0, 100.0]]))


def test_memory_for_a_functions_values_is_checked_beforehand(monkeypatch):
    kernel = Recorded()
    monkeypatch.setattr("gpusvm.estimators.callable_kernel.available_mb", lambda: 100.0)
    with pytest.raises(TrainingError, match="between 5,000 samples need 191 MB and 100 MB are free"):
        SVC(kernel=kernel, backend="sklearn").fit(np.zeros((5000, 1)), np.arange(5000) % 2)
    assert not kernel.calls


def test_a_machine_with_a_function_is_pickled_but_not_saved(backend, tmp_path, rng):
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    svc = SVC(kernel=linear, backend=backend).fit(X, y)
    with pytest.raises(ValueError, match=r"holds no code.*joblib\.dump"):
        svc.save(tmp_path / "m.svm")
    assert not (tmp_path / "m.svm").exists()
    again = pickle.loads(pickle.dumps(svc))
    np.testing.assert_array_equal(again.decision_function(X), svc.decision_function(X))
    assert not hasattr(clone(svc), "model_")
    given = svc.set_params(kernel="linear").fit(X, y)
    assert given.n_features_in_ == 3 and given.support_vectors_.shape[1] == 3


@pytest.mark.parametrize(("ours", "theirs"), [(SVR, sklearn.svm.SVR), (OneClassSVM, sklearn.svm.OneClassSVM)])
def test_other_machines_take_functions_too(backend, ours, theirs, rng):
    X = rng.normal(size=(60, 3))
    found = ours(kernel=rbf_kernel, tol=1e-6, backend=backend).fit(X, X[:, 0])
    expected = theirs(kernel=rbf_kernel, tol=1e-6).fit(X, X[:, 0])
    verb = "decision_function" if hasattr(expected, "decision_function") else "predict"
    np.testing.assert_allclose(getattr(found, verb)(X), getattr(expected, verb)(X), atol=1e-4)


# -- scripts that people have: the same outcome, or the same error --------------------------------

IRIS = load_iris(as_frame=True)
X, NAMES = IRIS.data, IRIS.target.map(dict(enumerate(IRIS.target_names)))
CANCER, MALIGNANT = load_breast_cancer(return_X_y=True)
SCALED = CANCER / CANCER.max(axis=0)
TEXTS = [f"{said} {when}" for said in ("good fun", "nice film", "bad awful", "dull film") for when in ("now", "ever")]


def search(S):
    grid = {"svc__C": [0.1, 1, 10], "svc__gamma": [0.01, "scale"]}
    found = GridSearchCV(make_pipeline(StandardScaler(), S()), grid, cv=3).fit(X, NAMES)
    return found.cv_results_["mean_test_score"], found.best_params_, found.predict(X)


def one_against_the_rest(S):
    return OneVsRestClassifier(S(kernel="linear", tol=1e-5)).fit(X, NAMES).decision_function(X)


def held_out(S):
    return cross_val_predict(S(tol=1e-5), SCALED, MALIGNANT, method="decision_function", cv=3)


def calibrated(S):
    return CalibratedClassifierCV(S(tol=1e-5), ensemble=False, cv=3).fit(SCALED, MALIGNANT).predict_proba(SCALED)


def texts(S):
    pipeline = make_pipeline(TfidfVectorizer(), S(kernel="linear", tol=1e-5)).fit(TEXTS, np.arange(8) // 4)
    return pipeline.decision_function(TEXTS), pipeline[-1].coef_.toarray()


def regions(S):
    svc = S(gamma=0.7, tol=1e-5).fit(X.iloc[:, :2].to_numpy(), NAMES)
    grid = np.meshgrid(np.arange(4, 8, 0.2), np.arange(2, 4.5, 0.2))
    return svc.decision_function(np.column_stack([axis.ravel() for axis in grid]))


def kernel_values(S):
    K = rbf_kernel(X, gamma=0.3)
    svc = S(kernel="precomputed", tol=1e-5).fit(K, NAMES)
    return svc.decision_function(K), cross_val_score(S(kernel="precomputed"), K, NAMES, cv=3), svc.shape_fit_


def choice_of_kernels(S):
    grid = {"kernel": [laplacian_kernel, "rbf"], "C": [1, 10]}
    return GridSearchCV(S(), grid, cv=3).fit(X, NAMES).cv_results_["mean_test_score"]


def columns(S):
    svc = S().fit(X, NAMES)
    return svc.predict(X.to_numpy()), svc.feature_names_in_, svc.n_features_in_, svc.classes_.dtype.kind


def a_column_of_labels(S):
    return S().fit(X, NAMES.to_frame()).predict(X)


SCRIPTS = [search, one_against_the_rest, held_out, calibrated, texts, regions, kernel_values, choice_of_kernels,
           columns, a_column_of_labels]  # fmt: skip

MISTAKES = {
    "columns in another order": lambda S: S().fit(X, NAMES).predict(X[X.columns[::-1]]),
    "fewer columns": lambda S: S().fit(X, NAMES).predict(X.to_numpy()[:, :2]),
    "two targets": lambda S: S().fit(X, np.c_[IRIS.target, IRIS.target]),
    "numbers as labels": lambda S: S().fit(X, np.linspace(0, 1, 150)),
    "no labels": lambda S: S().fit(X, None),
    "one class": lambda S: S().fit(X, np.zeros(150)),
    "fewer labels": lambda S: S().fit(X, NAMES[:-1]),
    "missing values": lambda S: S().fit(np.where(X > 5, np.nan, X), NAMES),
    "words as features": lambda S: S().fit([["a", "b"], ["c", "d"]], [0, 1]),
    "one sample, flat": lambda S: S().fit(X.to_numpy(), NAMES).predict(X.to_numpy()[0]),
    "no samples": lambda S: S().fit(np.empty((0, 3)), []),
    "not fitted": lambda S: S().predict(X),
    "no square matrix": lambda S: S(kernel="precomputed").fit(X, NAMES),
    "another matrix": lambda S: S(kernel="precomputed").fit(rbf_kernel(X), NAMES).predict(X),
    "a weight of no class": lambda S: S(class_weight={"rose": 2}).fit(X, NAMES),
    "C out of range": lambda S: S(C=-1).fit(X, NAMES),
    "gamma of no meaning": lambda S: S(gamma="wide").fit(X, NAMES),
}


def outcome(script, S):
    """What the script gives or raises, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = script(S)
        except Exception as error:
            found = (type(error).__name__, str(error))
    found = found if isinstance(found, tuple) else (found,)
    return found, sorted({(one.category.__name__, str(one.message)) for one in caught})


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_scripts_give_what_they_gave(backend, script, monkeypatch):
    monkeypatch.setenv("GPUSVM_BACKEND", backend)
    (ours, our_warnings), (theirs, their_warnings) = outcome(script, SVC), outcome(script, sklearn.svm.SVC)
    assert our_warnings == their_warnings
    for found, expected in zip(ours, theirs, strict=True):
        if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, atol=1e-3)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_as_before(backend, mistake, monkeypatch):
    monkeypatch.setenv("GPUSVM_BACKEND", backend)
    assert outcome(MISTAKES[mistake], SVC) == outcome(MISTAKES[mistake], sklearn.svm.SVC)


ODD = [None, 0, -1, 1, 2.5, np.nan, np.inf, "", "auto", "balanced", "rbf", True, np.float32(1), np.int64(3), 2**31,
       [1], {}, {0: 1}, {9: 1}, np.arange(2), 1j, b"rbf", "ovo", np.random.RandomState(0), object()]  # fmt: skip
"""Values of which each is right for some parameters, and wrong for the others."""

WIDER = {"cache_size": ("'auto'",), "verbose": ("2147483648",), "nu": ("1", "True", "np.float32(1.0)")}
"""What is taken here and refused there; see docs/drop-in.md."""


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SVC, sklearn.svm.SVC), (SVR, sklearn.svm.SVR), (OneClassSVM, sklearn.svm.OneClassSVM)]
)
def test_odd_values_are_refused_of_the_same_parameters(ours, theirs):
    X, y = np.array([[0.0, 1], [1, 0], [2, 1], [3, 3]]), [0, 0, 1, 1]

    def takes(machine):
        try:
            machine.fit(X, y)
        except (TypeError, ValueError, OverflowError):
            return False
        return True

    warnings.simplefilter("ignore", ConvergenceWarning)  # pytest keeps it to this test
    for name in theirs().get_params():
        more = {} if name == "max_iter" else {"max_iter": 100}
        for value in ODD:
            if repr(value) in WIDER.get(name, ()):
                continue
            found = takes(ours(**{name: value}, **more, backend="native-cpu"))
            assert found == takes(theirs(**{name: value}, **more)), (name, value)


def test_arguments_in_each_others_place_are_named(backend):
    y, message = IRIS.target, "they seem to be in each other's place"
    for machine, target in ((SVC, NAMES), (SVC, y), (SVR, y)):
        fitted = machine(backend=backend).fit(X, target)
        for verb in (fitted.fit, fitted.score):
            for samples in (X, X.to_numpy(), X.to_numpy().tolist()):
                with pytest.raises(ValueError, match=message):
                    verb(target, samples)
    with pytest.raises(ValueError, match="inhomogeneous"):
        SVC(backend=backend).fit([[1.0], [2.0, 3.0]], [0, 1])


def test_a_negative_weight_of_a_class_is_refused(backend):
    with pytest.raises(ValueError, match="class_weight must not be negative"):
        SVC(class_weight={"setosa": -1.0}, backend=backend).fit(X, NAMES)


@pytest.mark.parametrize("weight", [np.nan, None])
def test_a_weight_of_a_class_that_is_no_number_is_refused(backend, weight):
    with pytest.raises(ValueError, match="class_weight must be a number for each class"):
        SVC(class_weight={"setosa": weight}, backend=backend).fit(X, NAMES)


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_a_search_refuses_weights_of_classes_as_a_fit_does(weight):
    found = SVCSearchCV({"class_weight": [{"setosa": weight}]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="class_weight must"):
        found.fit(X, NAMES)


@pytest.mark.parametrize("machine", [SVC, SVR, OneClassSVM])
def test_weights_of_features_are_those_of_the_kernel_that_was_trained(backend, machine):
    fitted = machine(kernel="rbf", backend=backend).fit(X, IRIS.target).set_params(kernel="linear")
    assert not hasattr(fitted, "coef_")
    fitted.fit(X, IRIS.target).set_params(kernel="rbf")
    assert fitted.coef_.shape[1] == X.shape[1]


@pytest.mark.parametrize("given", [None, 3, np.float64(3)])
def test_what_is_no_collection_of_samples_is_named_as_before(given, backend):
    for ours, theirs in ((SVC, sklearn.svm.SVC), (SVR, sklearn.svm.SVR), (OneClassSVM, sklearn.svm.OneClassSVM)):
        with pytest.raises((TypeError, ValueError)) as expected:
            theirs().fit(given, [0, 1])
        with pytest.raises(expected.type) as found:
            ours(backend=backend).fit(given, [0, 1])
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("index", [-1, 150, 2**30])
@pytest.mark.parametrize("convert", [csr_array, csc_array, bsr_array, coo_array])
def test_a_sparse_matrix_whose_indices_point_outside_is_refused(backend, convert, index):
    good, y = convert(X.to_numpy()), IRIS.target
    bad = good.copy()
    (bad.coords[0] if bad.format == "coo" else bad.indices)[7] = index
    for machine in (SVC, SVR, OneClassSVM):
        fitted = machine(kernel="linear", backend=backend).fit(good, y)
        for verb in (fitted.predict, lambda samples, fitted=fitted: fitted.fit(samples, y)):
            with pytest.raises(ValueError, match="indices point outside its shape"):
                verb(bad)


@pytest.mark.parametrize("estimator", [SVC(), SVR(), OneClassSVM()])
def test_names_of_columns_survive_a_file(tmp_path, estimator, recwarn):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    estimator.fit(X, (X["a"] > 0).astype(int)).save(tmp_path / "m.svm")
    loaded = type(estimator).load(tmp_path / "m.svm")
    assert loaded.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))
    assert not recwarn.list
    with pytest.raises(ValueError, match="Feature names must be in the same order as they were in fit"):
        loaded.predict(X[["b", "a"]])

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn.svm
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm import SVC, BackendUnavailableError, TrainingError, load_model
from gpusvm.backends import get_backend
from gpusvm.backends.registry import GPU_BACKENDS
from gpusvm.data import load_dataset
from gpusvm.errors import SlowBackendWarning
from gpusvm.preprocess import apply_steps, build_steps


def expected_failures(estimator):
    """scikit-learn's own list for its SVC, with its own reason."""
    reason = "sample_weight is not equivalent to removing/repeating samples."
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in ("dense", "sparse")}


@parametrize_with_checks(
    [SVC(backend=name, kernel=kernel) for name in ("sklearn", "native-cpu") for kernel in ("rbf", "precomputed")],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_compatible(estimator, check):
    check(estimator)


@pytest.fixture
def svc():
    return SVC(C=10, gamma=0.05, backend="sklearn")


def test_default_parameters_are_scikit_learns():
    ours, theirs = SVC().get_params(), sklearn.svm.SVC().get_params()
    # Ours defaults to a share of the free memory; theirs marks probability as going away.
    shared = set(ours) & set(theirs) - {"cache_size", "probability"}
    assert set(theirs) <= set(ours), "scripts that name any of scikit-learn's parameters go on working"
    assert len(shared) >= 12
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_random_state_is_taken_and_changes_nothing(digits):
    X, y = digits[0][:200], digits[1][:200]
    models = [SVC(random_state=state, backend="sklearn").fit(X, y) for state in (None, 0, np.random.RandomState(1))]
    for model in models[1:]:
        np.testing.assert_array_equal(model.dual_coef_, models[0].dual_coef_)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("shape", ["ovr", "ovo"])
def test_fitted_attributes_are_scikit_learns(digits, n_classes, shape):
    X, y, X_test, _ = digits
    keep = y < n_classes
    X, y = X[keep][:500].astype(np.float64), y[keep][:500]
    options = {"C": 10, "gamma": 0.05, "decision_function_shape": shape}
    ours = SVC(backend="sklearn", **options).fit(X, y)
    theirs = sklearn.svm.SVC(**options).fit(X, y)
    for name in ("support_", "n_support_", "classes_", "n_iter_", "shape_fit_", "fit_status_"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("dual_coef_", "intercept_", "support_vectors_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(ours.decision_function(X_test), theirs.decision_function(X_test), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X_test), theirs.predict(X_test))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_linear_weights(digits, n_classes):
    keep = digits[1] < n_classes
    X, y = digits[0][keep][:200], digits[1][keep][:200]
    ours = SVC(kernel="linear", backend="sklearn").fit(X, y)
    theirs = sklearn.svm.SVC(kernel="linear").fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    with pytest.raises(AttributeError, match="linear"):
        _ = SVC(backend="sklearn").fit(X, y).coef_


def test_break_ties_follows_the_decision_values(digits):
    svc = SVC(C=0.01, gamma=0.05, break_ties=True, backend="sklearn").fit(digits[0][:300], digits[1][:300])
    expected = svc.decision_function(digits[2]).argmax(axis=1)
    np.testing.assert_array_equal(svc.predict(digits[2]), svc.classes_[expected])
    svc.set_params(decision_function_shape="ovo")
    with pytest.raises(ValueError, match="break_ties must be False when decision_function_shape is 'ovo'"):
        svc.predict(digits[2])


def test_works_in_pipelines_searches_and_cross_validation(digits, svc):
    X, y = digits[0][:400], digits[1][:400]
    pipeline = make_pipeline(StandardScaler(with_std=False), svc)
    search = GridSearchCV(pipeline, {"svc__C": [0.01, 10]}, cv=3, n_jobs=2).fit(X, y)
    assert search.best_params_ == {"svc__C": 10}
    assert cross_val_score(svc, X, y, cv=3).mean() > 0.93
    assert search.best_estimator_.score(digits[2], digits[3]) > 0.9


def test_clone_and_pickle(digits, svc):
    fitted = svc.fit(digits[0][:300], digits[1][:300])
    assert not hasattr(clone(fitted), "model_")
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.decision_function(digits[2]), fitted.decision_function(digits[2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_value_errors(digits, svc, bad):
    X = digits[0][:100].copy()
    X[3, 5] = bad
    with pytest.raises(ValueError):
        svc.fit(X, digits[1][:100])
    assert not hasattr(svc, "model_")
    svc.fit(np.nan_to_num(X, posinf=0.0), digits[1][:100])


def test_values_that_float64_cannot_square_are_a_value_error(digits, svc):
    X = digits[0][:100].astype(np.float64)
    X[0, 0] = 1e300
    with pytest.raises(ValueError, match="scale the features"):
        svc.fit(X, digits[1][:100])
    assert not hasattr(svc, "model_")
    svc.fit(np.minimum(X, 1e30), digits[1][:100])


@pytest.mark.parametrize(
    "wrong",
    [{"C": 0}, {"C": -1}, {"gamma": "wide"}, {"gamma": -0.1}, {"kernel": "laplace"}, {"tol": 0}, {"max_iter": -2},
     {"degree": 2.5}, {"cache_size": 0}, {"decision_function_shape": "all"}],
)  # fmt: skip
def test_parameters_out_of_range_are_value_errors(digits, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SVC(**wrong).fit(digits[0][:50], digits[1][:50])


def test_one_class_is_a_value_error(svc):
    with pytest.raises(ValueError, match="greater than one; got 1 class"):
        svc.fit(np.eye(4), np.ones(4))


def test_a_backend_that_cannot_run_is_an_error(digits, monkeypatch):
    from gpusvm.device import Availability

    monkeypatch.setattr("gpusvm.backends.cuml._probe", lambda: Availability(False, "no device"))
    with pytest.raises(BackendUnavailableError, match="no device"):
        SVC(backend="cuml").fit(digits[0][:50], digits[1][:50])
    with pytest.raises(BackendUnavailableError, match="GPU is required"):
        SVC(require_gpu=True).fit(digits[0][:50], digits[1][:50])


def test_verbose_prints_each_pair(digits, capsys):
    SVC(verbose=True, backend="sklearn").fit(digits[0][:100], digits[1][:100])
    assert "[gpusvm] 45/45 class pairs trained" in capsys.readouterr().out


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.5, 3: 2.0}])
def test_save_and_load_keep_everything_that_predicts(digits, tmp_path, class_weight):
    svc = SVC(C=10, gamma=0.05, class_weight=class_weight, backend="sklearn").fit(digits[0][:300], digits[1][:300])
    svc.save(tmp_path / "m.svm")
    again = SVC.load(tmp_path / "m.svm")
    np.testing.assert_array_equal(again.decision_function(digits[2]), svc.decision_function(digits[2]))
    np.testing.assert_array_equal(again.class_weight_, svc.class_weight_)
    assert again.backend_ == "sklearn" and again.n_features_in_ == 64
    refitted = clone(again).set_params(backend="sklearn").fit(digits[0][:300], digits[1][:300])
    np.testing.assert_allclose(refitted.dual_coef_, svc.dual_coef_)
    assert load_model(tmp_path / "m.svm").n_support_vectors == len(svc.support_)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", sorted(GPU_BACKENDS))
def test_full_round_on_a_gpu(digits, tmp_path, backend):
    if not (found := get_backend(backend).probe()).ok:
        pytest.skip(found.reason)
    svc = SVC(C=10, gamma=0.05, backend=backend, require_gpu=True).fit(digits[0], digits[1])
    svc.save(tmp_path / "m.svm")
    host = SVC.load(tmp_path / "m.svm")
    assert host.score(digits[2], digits[3]) == svc.score(digits[2], digits[3]) > 0.93
    assert found.detail["devices"]


def test_save_can_store_the_steps_that_made_X(digits, tmp_path):
    train = load_dataset("digits", "train")
    steps = build_steps(train.image_shape)
    svc = SVC(C=10, backend="sklearn").fit(apply_steps(steps, train.images), train.labels)
    svc.save(tmp_path / "m.svm", preprocessing=steps, image_shape=train.image_shape)
    again = SVC.load(tmp_path / "m.svm")
    images = load_dataset("digits", "test").images
    np.testing.assert_array_equal(again.predict(again.model_.preprocess(images)), svc.predict(digits[2]))
    again.save(tmp_path / "again.svm")
    assert SVC.load(tmp_path / "again.svm").model_.image_shape == (8, 8)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(digits, monkeypatch):
    svc = SVC(backend="sklearn").fit(digits[0][:200], digits[1][:200])
    before = dict(vars(svc))

    def fail(*args, **kwargs):
        raise TrainingError("out of memory")

    monkeypatch.setattr(type(get_backend("sklearn")), "fit", fail)
    with pytest.raises(TrainingError):
        svc.fit(digits[0][:100, :9], digits[1][:100] % 3)
    assert vars(svc) == before
    fresh = SVC(backend="sklearn")
    with pytest.raises(TrainingError):
        fresh.fit(digits[0][:100], digits[1][:100])
    with pytest.raises(NotFittedError):
        fresh.predict(digits[0])


def test_a_usage_error_is_a_value_error(digits):
    with pytest.raises(ValueError, match="no backend is called 'tpu'"):
        SVC(backend="tpu").fit(digits[0][:100], digits[1][:100])


def test_auto_says_once_what_would_be_faster(monkeypatch):
    monkeypatch.setattr("gpusvm.estimators.svc.hint", lambda sizes, n_features, n_cores: f"native is faster on {sizes}")
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2
    with pytest.warns(SlowBackendWarning, match=r"native is faster on \[15, 15\]") as caught:
        SVC().fit(X, y)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SVC(backend="sklearn").fit(X, y)  # who asked for it by name need not be told
        SVC(backend="native-cpu").fit(X, y)


def test_set_params_on_a_loaded_estimator_takes_effect(digits, tmp_path, monkeypatch):
    SVC(backend="sklearn", n_jobs=1).fit(digits[0][:100], digits[1][:100]).save(tmp_path / "m.svm")
    svc = SVC.load(tmp_path / "m.svm")
    assert svc.n_jobs is None
    asked = []

    def predict(self, X, n_jobs=None):
        asked.append(n_jobs)

    monkeypatch.setattr(type(svc.model_), "predict", predict)
    for n_jobs in (8, 3):
        svc.set_params(n_jobs=n_jobs).predict(digits[2])
    assert asked == [8, 3]


def test_max_iter_of_zero_is_taken_and_said(digits):
    for backend in ("sklearn", "native-cpu"):
        with pytest.warns(ConvergenceWarning, match="max_iter=0"):
            svc = SVC(max_iter=0, backend=backend).fit(digits[0][:50], digits[1][:50])
        assert svc.fit_status_ == 1 and svc.predict(digits[2]).shape == (360,)


def test_bagging_over_a_rare_class(digits):
    """A bootstrap that misses a class gives its samples the weight zero."""
    y = (digits[1][:120] % 2) + 2 * (np.arange(120) < 2)
    bag = BaggingClassifier(SVC(backend="native-cpu"), n_estimators=8, random_state=0).fit(digits[0][:120], y)
    assert set(bag.predict(digits[2])) <= {0, 1, 2, 3}


@pytest.mark.parametrize("backend", ["sklearn", "native-cpu"])
@pytest.mark.parametrize(("offset", "gamma"), [(1e8, 1.0), (1.7e9, 1e-3)])
def test_float64_rows_predict_as_themselves(backend, offset, gamma):
    rng = np.random.default_rng(0)
    X, y = offset + rng.uniform(0, 1e4, (200, 3)), rng.integers(0, 2, 200)
    svc = SVC(gamma=gamma, C=10, backend=backend).fit(X, y)
    assert svc.support_vectors_.dtype == np.float64
    assert svc.score(X, y) == sklearn.svm.SVC(gamma=gamma, C=10).fit(X, y).score(X, y)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
def test_input_keeps_its_precision(dtype, rng):
    X = rng.integers(0, 2, (40, 3)).astype(dtype) if dtype == "bool" else rng.integers(0, 200, (40, 3)).astype(dtype)
    y = np.arange(40) % 2
    svc = SVC(backend="native-cpu", gamma=0.001).fit(X, y)
    assert svc.support_vectors_.dtype == (np.float64 if dtype in ("int32", "int64", "float64") else np.float32)
    np.testing.assert_array_equal(svc.support_vectors_, X[svc.support_].astype(np.float64))

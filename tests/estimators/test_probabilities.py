"""SVC(probability=True): probabilities that agree with `predict`, whatever it is trained on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC as Reference

from gpusvm import SVC, load_model, to_sklearn
from gpusvm.errors import UsageError

OPTIONS = (
    {}, {"class_weight": "balanced"}, {"class_weight": {"p": 9.0}}, {"C": 1e-3}, {"C": 1e4}, {"kernel": "linear"},
    {"kernel": "sigmoid", "gamma": 3.0},
)  # fmt: skip


@pytest.fixture(params=["native-cpu", "sklearn"])
def backend(request):
    return request.param


def overlapping(n=400, n_classes=3, seed=0):
    X, y = make_classification(
        n, n_features=5, n_informative=4, n_redundant=0, n_classes=n_classes, flip_y=0.1, class_sep=0.7,
        random_state=seed,
    )  # fmt: skip
    return X, y


def check(svc, X):
    """Rows that sum to one, and the same largest class as `predict`."""
    p = svc.predict_proba(X)
    assert p.shape == (X.shape[0], len(svc.classes_)) and p.dtype == np.float64
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(svc.classes_[p.argmax(axis=1)], svc.predict(X))
    return p


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_most_probable_class_is_the_predicted_one(backend, n_classes, options):
    X, y = overlapping(300, n_classes)
    keep = (y != 0) | (np.arange(300) % 4 == 0)  # classes of different sizes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        svc = SVC(backend=backend, probability=True, **options).fit(X[keep], np.array(list("pqrstu"))[y[keep]])
    check(svc, np.random.default_rng(1).normal(size=(2000, 5)) * 1.5)


def test_broken_ties_are_broken_in_probabilities_too(backend):
    X, y = overlapping(200, 6)
    T = np.random.default_rng(1).normal(size=(3000, 5))
    plain = SVC(backend=backend, probability=True).fit(X, y)
    broken = clone(plain).set_params(break_ties=True).fit(X, y)
    assert (plain.predict(T) != broken.predict(T)).any()
    check(plain, T), check(broken, T)


@pytest.mark.parametrize("form", ["sparse", "precomputed", "callable", "float32"])
def test_samples_of_any_form_give_the_same(backend, form):
    X, y = overlapping(300)
    X, T = X.astype(np.float32).astype(float), np.random.default_rng(1).normal(size=(50, 5))
    T = T.astype(np.float32).astype(float)
    p = check(SVC(kernel="linear", backend=backend, probability=True, tol=1e-5).fit(X, y), T)
    svc = SVC(kernel="linear", backend=backend, probability=True, tol=1e-5)
    if form == "sparse":
        X, T = csr_array(X), csr_array(T)
    elif form == "precomputed":
        svc.kernel, X, T = form, X @ X.T, T @ X.T
    elif form == "callable":
        svc.kernel = lambda A, B: A @ B.T
    else:
        X, T = X.astype(form), T.astype(form)
    np.testing.assert_allclose(check(svc.fit(X, y), T), p, atol=2e-3)


def test_weights_of_zero_take_samples_out_of_the_probabilities_too(backend):
    X, y = overlapping(300)
    wrong, weights = np.r_[y, (y + 1) % 3], np.repeat([1.0, 0.0], 300)
    without = SVC(backend=backend, probability=True).fit(X, y).predict_proba(X)
    with_them = SVC(backend=backend, probability=True, gamma=1 / (5 * X.var())).fit(np.r_[X, X], wrong, weights)
    np.testing.assert_allclose(with_them.predict_proba(X), without, atol=0.05)


@pytest.mark.parametrize("left_out", [0, 1, 2])
@pytest.mark.parametrize("by", ["sample_weight", "class_weight"])
def test_a_class_without_weight_is_never_probable_and_changes_nothing(backend, left_out, by):
    X, y = overlapping(300)
    there = y != left_out
    expected = SVC(backend=backend, probability=True, gamma=0.2).fit(X[there], y[there])
    svc = SVC(backend=backend, probability=True, gamma=0.2)
    if by == "class_weight":
        svc.set_params(class_weight={left_out: 0.0}).fit(X, y)
    else:
        svc.fit(X, y, there.astype(float))
    p = check(svc, X)
    assert (p[:, left_out] == 0).all() and (svc.predict_log_proba(X)[:, left_out] == -np.inf).all()
    np.testing.assert_allclose(np.delete(p, left_out, axis=1), expected.predict_proba(X), atol=1e-6)


def test_a_class_of_one_sample_is_told_of(backend):
    X, y = overlapping(100)
    y[y == 2] = 1
    y[0] = 2
    with pytest.warns(UserWarning, match=r"fewer samples than that: 2 \(1\)"):
        svc = SVC(backend=backend, probability=True).fit(X, y)
    check(svc, X)


@pytest.mark.parametrize(("name", "n_classes"), [("native-cpu", 100), ("sklearn", 30)])
def test_many_classes(name, n_classes):
    X, y = make_blobs(10 * n_classes, 8, centers=n_classes, center_box=(-6, 6), random_state=0)
    n = 8 * n_classes
    svc = SVC(backend=name, probability=True, C=10).fit(X[:n], y[:n])
    p = check(svc, X[n:])
    assert log_loss(y[n:], p, labels=svc.classes_) < 0.5


def test_fits_are_the_same_each_time_and_other_with_another_seed(backend):
    X, y = overlapping(200)

    def probabilities(**options):
        return SVC(backend=backend, probability=True, **options).fit(X, y).predict_proba(X)

    np.testing.assert_array_equal(probabilities(), probabilities())
    np.testing.assert_array_equal(probabilities(), probabilities(random_state=0))
    assert (probabilities(random_state=1) != probabilities()).any()
    probabilities(random_state=np.random.RandomState(3))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_they_are_worth_as_much_as_those_of_a_calibrated_classifier(backend, n_classes):
    X, y = overlapping(1500, n_classes, seed=3)
    X, T, y, t = train_test_split(X, y, test_size=0.5, random_state=0)
    ours = SVC(backend=backend, probability=True).fit(X, y)
    theirs = CalibratedClassifierCV(Reference(), ensemble=False).fit(X, y)
    assert log_loss(t, ours.predict_proba(T)) <= log_loss(t, theirs.predict_proba(T)) + 0.01


def test_a_saved_model_keeps_them(backend, tmp_path):
    X, y = overlapping(200)
    svc = SVC(backend=backend, probability=True).fit(X, y)
    svc.save(tmp_path / "m.svm")
    loaded = SVC.load(tmp_path / "m.svm")
    assert loaded.probability is True
    np.testing.assert_allclose(loaded.predict_proba(X), svc.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(load_model(tmp_path / "m.svm").predict_proba(X), svc.predict_proba(X), rtol=1e-9)
    np.testing.assert_array_equal([loaded.probA_, loaded.probB_], [svc.probA_, svc.probB_])


def test_logarithms(backend):
    X, y = overlapping(200)
    svc = SVC(backend=backend, probability=True).fit(X, y)
    np.testing.assert_array_equal(svc.predict_log_proba(X), np.log(svc.predict_proba(X)))


@pytest.mark.parametrize("probability", [True, np.True_])  # the latter from an array of what a search tries
def test_with_probability_there_are_some(backend, probability):
    X, y = overlapping(100)
    check(SVC(backend=backend, probability=probability).fit(X, y), X)


@pytest.mark.parametrize("probability", [False, np.False_, "deprecated"])
def test_without_probability_there_are_none(probability):
    X, y = overlapping(200)
    svc = SVC(backend="sklearn", probability=probability).fit(X, y)
    assert not hasattr(svc, "predict_proba") and not hasattr(svc, "predict_log_proba")
    assert svc.probA_.shape == svc.probB_.shape == (0,)
    assert svc.model_.calibration is None
    with pytest.raises(UsageError, match="no probabilities: train it with"):
        svc.model_.predict_proba(X)
    svc.probability = True
    with pytest.raises(NotFittedError, match="predict_proba is not available when fitted with probability=False"):
        svc.predict_proba(X)


def test_scikit_learns_form_has_libsvms_coupling():
    X, y = overlapping(300, 2)
    svc = SVC(backend="sklearn", probability=True).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = to_sklearn(svc.model_).predict_proba(X)
    undecided = np.abs(svc.predict_proba(X)[:, 0] - 0.5) < 1e-3  # where the prediction decides
    np.testing.assert_allclose(svc.predict_proba(X)[~undecided], theirs[~undecided], atol=0.005)


def test_verbose_counts_all_trainings(capsys, backend):
    X, y = overlapping(100, 2)
    SVC(backend=backend, probability=True, verbose=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("[gpusvm] 1/4 class pairs") and "fold 3 of 3" in lines[-1]

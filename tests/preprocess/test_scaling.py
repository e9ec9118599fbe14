"""Scaling of a table's features: what is learned, what a model file keeps, and what other forms
make of it."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import SVC as Reference

from gpusvm import SVC, load_model
from gpusvm.errors import DataError, ModelFileError, UsageError
from gpusvm.io.model_file import to_onnx, to_sklearn_pipeline
from gpusvm.preprocess import apply_steps, default_scaling, describe_steps, fit_scaling, read_steps

KINDS = {"standard": StandardScaler, "maxabs": MaxAbsScaler, "minmax": MinMaxScaler}


@pytest.fixture
def table(rng):
    """Columns of very different sizes, one of them constant; three classes."""
    X = rng.normal(size=(120, 5)) * [1, 1e3, 1e-4, 1, 0] + [0, 1e5, 0, -3, 7]
    return X, (X[:, 0] + (X[:, 1] - 1e5) / 1e3 > 0).astype(int) + (X[:, 2] > 1e-4)


@pytest.mark.parametrize("scaling", KINDS)
def test_is_scikit_learns(table, scaling):
    X, _ = table
    found = apply_steps(fit_scaling(scaling, X[:80]), X)
    np.testing.assert_array_equal(found, KINDS[scaling]().fit(X[:80]).transform(X))


@pytest.mark.parametrize("scaling", KINDS)
def test_a_float32_table_is_scaled_in_float64(rng, scaling):
    """Times of the day in seconds since 1970 differ in digits that float32 arithmetic loses."""
    X = (rng.normal(size=(9000, 2)) * 500 + 1.7e9).astype(np.float32)
    found = apply_steps(fit_scaling(scaling, X), X)
    assert found.dtype == np.float32
    expected = KINDS[scaling]().fit_transform(X.astype(np.float64))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_whole_numbers_are_scaled_too():
    X = np.array([[1], [3]])
    assert apply_steps(fit_scaling("standard", X), X).tolist() == [[-1], [1]]


def test_a_constant_column_becomes_zero_and_stays_finite_for_other_values():
    X = np.array([[7.0, 1.0], [7.0, 2.0]])
    steps = fit_scaling("standard", X)
    assert apply_steps(steps, X)[:, 0].tolist() == [0, 0]
    assert apply_steps(steps, np.array([[8.0, 1.0]]))[0, 0] == 1


def test_a_sparse_table_stays_sparse():
    X = sparse.csr_matrix(np.array([[0, -4.0, 0], [2, 0, 0], [0, 1, 0]]))
    assert default_scaling(X) == "maxabs"
    scaled = apply_steps(fit_scaling("maxabs", X), X)
    assert sparse.issparse(scaled) and scaled.format == "csr"
    assert scaled.toarray().tolist() == [[0, -1, 0], [1, 0, 0], [0, 0.25, 0]]
    for scaling in ("standard", "minmax"):
        with pytest.raises(UsageError, match="--scale maxabs or none"):
            fit_scaling(scaling, X)


def test_numbers_without_a_standard_deviation_are_refused_by_column():
    X = np.array([[1.0, -1e300], [2.0, 1e300]])
    with pytest.raises(DataError, match="column b are too large"):
        fit_scaling("standard", X, ("a", "b"))


def test_none_leaves_everything_as_it_is(table):
    X = table[0].astype(np.float32)
    assert fit_scaling("none", X) == []
    assert apply_steps([], X) is X


def test_another_number_of_columns_is_refused(table):
    steps = fit_scaling("standard", table[0])
    with pytest.raises(DataError, match="rows of 4 features, the model expects 5"):
        apply_steps(steps, table[0][:, :4])


# -- in files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", KINDS)
def test_a_model_keeps_its_scaling_bit_for_bit(table, tmp_path, scaling):
    X, y = table
    steps = fit_scaling(scaling, X)
    svc = SVC(backend="sklearn").fit(apply_steps(steps, X), y)
    svc.save(tmp_path / "m.svm", preprocessing=steps)
    again = load_model(tmp_path / "m.svm")
    np.testing.assert_array_equal(again.preprocess(X), apply_steps(steps, X))
    np.testing.assert_array_equal(again.predict(again.preprocess(X)), svc.predict(apply_steps(steps, X)))


def test_the_columns_of_a_data_frame_are_kept(table, tmp_path):
    pandas = pytest.importorskip("pandas", reason='pandas is not installed: pip install "gpusvm[test]"')
    X, y = table
    frame = pandas.DataFrame(X, columns=["a", "höhe", "c;", 'd"', "e\n"])
    SVC(backend="sklearn").fit(frame, y).save(tmp_path / "m.svm")
    assert load_model(tmp_path / "m.svm").table.columns == tuple(frame.columns)


@pytest.mark.parametrize("scaling", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_forms_of_the_model_scale_too(table, scaling, dtype):
    onnxruntime = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "gpusvm[test]"')
    X, y = table
    X = X.astype(dtype)
    steps = fit_scaling(scaling, X)
    svc = SVC(backend="sklearn").fit(apply_steps(steps, X), y)
    svc.model_.__dict__["preprocessing"] = tuple(steps)
    expected = svc.predict(apply_steps(steps, X))
    np.testing.assert_array_equal(to_sklearn_pipeline(svc.model_).predict(X.astype(np.float64)), expected)
    session = onnxruntime.InferenceSession(to_onnx(svc.model_).SerializeToString())
    wanted = {"tensor(float)": np.float32, "tensor(double)": np.float64}[session.get_inputs()[0].type]
    label, _ = session.run(None, {"X": X.astype(wanted)})
    assert (label == expected).mean() > 0.99


def test_onnx_is_float64_where_scaling_would_lose_digits(rng):
    onnxruntime = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "gpusvm[test]"')
    X = rng.normal(size=(60, 2)) * [1, 500] + [0, 1.7e9]
    y = (X[:, 1] > 1.7e9).astype(int)
    steps = fit_scaling("standard", X)
    svc = SVC(backend="sklearn").fit(apply_steps(steps, X), y)
    svc.model_.__dict__["preprocessing"] = tuple(steps)
    session = onnxruntime.InferenceSession(to_onnx(svc.model_).SerializeToString())
    assert session.get_inputs()[0].type == "tensor(double)"
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], svc.predict(apply_steps(steps, X)))


@pytest.mark.parametrize(
    "step",
    [StandardScaler(with_mean=False), MinMaxScaler((0, 2)), MaxAbsScaler()],
    ids=["another parameter", "another range", "not fitted"],
)
def test_steps_that_no_file_can_hold(step):
    if not isinstance(step, MaxAbsScaler):
        step.fit(np.ones((2, 3)))
    with pytest.raises(ModelFileError, match="cannot hold a"):
        describe_steps([step])


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("steps.0.mean"),
        lambda arrays: arrays.update({"steps.0.min": np.ones(2)}),
        lambda arrays: arrays.update({"steps.0.scale": np.ones(3)}),
        lambda arrays: arrays.update({"steps.0.scale": np.zeros(2)}),
        lambda arrays: arrays.update({"steps.0.scale": np.array([1.0, np.nan])}),
        lambda arrays: arrays.update({"steps.0.scale": np.ones(2, np.float32)}),
        lambda arrays: arrays.update({"steps.0.mean": np.ones((1, 2))}),
    ],
)
def test_damaged_arrays_of_a_step_are_refused(change):
    descriptions, arrays = describe_steps(fit_scaling("standard", np.array([[1.0, 2], [3, 5]])))
    read_steps(descriptions, arrays)
    change(arrays)
    with pytest.raises(ModelFileError, match="bad arrays for preprocessing step standard_scaler"):
        read_steps(descriptions, arrays)


def test_scaled_training_is_scikit_learns_training(table):
    X, y = table
    steps = fit_scaling("standard", X)
    ours = SVC(backend="sklearn").fit(apply_steps(steps, X), y)
    theirs = Reference().fit(StandardScaler().fit_transform(X), y)
    np.testing.assert_allclose(ours.model_.intercept, theirs._intercept_, atol=1e-12)

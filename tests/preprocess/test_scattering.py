"""Scattering against its definition by direct convolution, and the steps behind it, fitted and in
a model file."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm import SVC, load_model, to_onnx
from gpusvm.data import load_dataset
from gpusvm.errors import DataError, ModelFileError, UsageError
from gpusvm.io.model_file import to_sklearn_pipeline
from gpusvm.preprocess import (
    Logarithm,
    Scattering,
    apply_steps,
    check_steps,
    components,
    describe_steps,
    fit_scattering,
    read_steps,
    scattering,
    step_from_dict,
    step_to_dict,
    stored,
)


def convolved(image, kernel):
    """Circular convolution, pixel by pixel, in complex128."""
    rows, columns = np.indices(image.shape)
    shifted = (np.roll(kernel, (y, x), axis=(0, 1)) * image[y, x] for y, x in zip(rows.flat, columns.flat, strict=True))
    return sum(shifted)


def wavelet(shape, j, direction, L):
    """Morlet's wavelet written out, on 11 x 11 copies of the torus; its values add up to zero."""
    sigma, xi, slant, angle = 0.8 * 2**j, 3 * np.pi / 4 / 2**j, 4 / L, np.pi * direction / L
    height, width = shape
    y, x = np.mgrid[-5 * height : 6 * height, -5 * width : 6 * width]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    gauss = slant / (2 * np.pi * sigma**2) * np.exp(-(u**2 + slant**2 * v**2) / (2 * sigma**2))
    wave = gauss * np.exp(1j * xi * u)
    wave -= gauss * (wave.sum() / gauss.sum())
    return wave.reshape(11, height, 11, width).sum(axis=(0, 2))


def gaussian(shape, J):
    sigma = 0.8 * 2 ** (J - 1)
    height, width = shape
    y, x = np.mgrid[-5 * height : 6 * height, -5 * width : 6 * width]
    gauss = np.exp(-(x**2 + y**2) / (2 * sigma**2)).reshape(11, height, 11, width).sum(axis=(0, 2))
    return gauss / gauss.sum()


def by_definition(image, J, L):
    """Scattering of a padded image, path by path: the order that `Scattering` documents."""

    def averaged(values, j):
        kernel = gaussian(image.shape, J)[:: 2**j, :: 2**j] * 4**j
        return convolved(values, kernel).real[:: 2 ** (J - j), :: 2 ** (J - j)]

    def moduli(values, j, k, direction):
        kernel = wavelet(image.shape, k, direction, L)[:: 2**j, :: 2**j] * 4**j
        return np.abs(convolved(values, kernel))[:: 2 ** (k - j), :: 2 ** (k - j)]

    first = {(j, theta): moduli(image, 0, j, theta) for j in range(J) for theta in range(L)}
    second = [
        averaged(moduli(first[j, theta], j, k, other), k)
        for j in range(J)
        for k in range(j + 1, J)
        for theta in range(L)
        for other in range(L)
    ]
    return np.array([averaged(image, 0), *(averaged(u, j) for (j, _), u in first.items()), *second])


@pytest.mark.parametrize(
    ("shape", "padded", "J", "L"),
    [((8, 8), (8, 8), 1, 1), ((13, 6), (16, 8), 2, 3), ((8, 16), (8, 16), 3, 2), ((10, 8), (12, 8), 2, 8)],
)
def test_it_is_the_definition(rng, shape, padded, J, L):
    images = rng.random((3, *shape))
    found = Scattering(shape, J, L).fit_transform(images.reshape(3, -1)).astype(np.float64)
    top, left = (padded[0] - shape[0]) // 2, (padded[1] - shape[1]) // 2
    for image, row in zip(images, found, strict=True):
        whole = np.zeros(padded)
        whole[top : top + shape[0], left : left + shape[1]] = image
        expected = by_definition(whole, J, L)
        assert len(row) == expected.size == Scattering(shape, J, L).n_features_out
        np.testing.assert_allclose(row, expected.ravel(), rtol=1e-5, atol=2e-6)


def test_mnists_images_become_217_coefficients_at_16_places():
    assert Scattering((28, 28)).n_features_out == 217 * 16


def test_blocks_and_threads_do_not_show(rng, monkeypatch):
    X = rng.random((37, 64)).astype(np.float32)
    whole = Scattering((8, 8), 2, 4).transform(X)
    np.testing.assert_array_equal(Scattering((8, 8), 2, 4, n_jobs=1).transform(X), whole)
    monkeypatch.setattr(scattering, "_BLOCK_IMAGES", 5)
    np.testing.assert_allclose(Scattering((8, 8), 2, 4).transform(X), whole, atol=1e-6)


def test_the_devices_path_gives_the_same(rng, monkeypatch):
    """Over NumPy, in blocks of its own: what CuPy is asked for, its signatures are held
    against."""
    X = rng.random((9, 48)).astype(np.float32)
    step = Scattering((6, 8), 2, 4)
    monkeypatch.setattr(scattering, "_DEVICE_BYTES", 4 * 8 * 16 * 64)
    np.testing.assert_allclose(step._on_device(X), step.transform(X), atol=1e-6)


def test_it_hardly_changes_where_strokes_move(rng):
    images = np.zeros((2, 32, 32))
    images[0, 8:24, 14:17] = images[1, 8:24, 15:18] = 1
    near, far = Scattering((32, 32)).transform(images.reshape(2, -1)), images.reshape(2, -1)
    moved = [np.linalg.norm(rows[0] - rows[1]) / np.linalg.norm(rows[0]) for rows in (near, far)]
    assert moved[0] < moved[1] / 5


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Scattering((4, 4)), "4x4 does not fit rows of 64"),
        (Scattering(None), "two positive integers"),
        (Scattering((8, 8), J=0), "J must be a whole number from 1 to 6"),
        (Scattering((8, 8), J=10**9), "J must be a whole number"),
        (Scattering((8, 8), L=2.0), "L must be a whole number"),
        (Scattering((64, 1), J=6), None),
        (Scattering((1, 64), J=True), "J must be"),
    ],
)
def test_bad_parameters(step, message):
    if message is None:
        assert step.fit_transform(np.ones((1, 64))).shape == (1, step.n_features_out)
        return
    with pytest.raises(ValueError, match=message):
        step.fit(np.ones((2, 64)))


def test_images_that_are_too_large_are_refused():
    with pytest.raises(ValueError, match="above 256 pixels a side"):
        Scattering((1, 257)).fit(np.ones((1, 257)))


@parametrize_with_checks([Logarithm()])
def test_sklearn_compatible(estimator, check):
    check(estimator)


class TestLogarithm:
    def test_it_is_relative_to_the_mean(self, rng):
        X = rng.random((20, 3)) * [1, 1e-6, 1e6]
        expected = np.log(X + 0.3 * X.mean(axis=0)) - np.log(0.3 * X.mean(axis=0))
        np.testing.assert_allclose(Logarithm(0.3).fit_transform(X), expected, rtol=1e-5, atol=1e-6)

    def test_features_that_are_always_zero_stay_so(self):
        assert Logarithm().fit_transform([[0.0, 1], [0, 2]])[:, 0].tolist() == [0, 0]

    def test_negative_numbers_are_refused(self):
        with pytest.raises(ValueError, match="Negative"):
            Logarithm().fit([[1.0, -1.0]])
        with pytest.raises(ValueError, match="epsilon must be positive"):
            Logarithm(0).fit([[1.0, 1.0]])


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def steps(digits):
    return fit_scattering(digits.images, 16, n_components=40)


@pytest.fixture(scope="module")
def model(digits, steps):
    svc = SVC(C=10, backend="sklearn").fit(apply_steps(steps, digits.images[:1000]), digits.labels[:1000])
    svc.model_.__dict__.update(preprocessing=tuple(steps), image_shape=(8, 8))
    return svc.model_


class TestSteps:
    def test_they_are_scikit_learns_pipeline(self, digits, steps):
        X = apply_steps(steps, digits.images)
        assert X.shape == (len(digits), 40) and X.dtype == np.float32
        raw = digits.images.reshape(len(digits), -1)
        np.testing.assert_allclose(X, make_pipeline(*steps).transform(raw), atol=1e-4)
        np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-4)
        again = make_pipeline(*map(clone, steps)).fit_transform(raw)
        np.testing.assert_allclose(np.abs(again), np.abs(X), atol=1e-2)

    def test_blocks_of_rows_do_not_show(self, digits, steps, monkeypatch):
        whole = apply_steps(steps, digits.images[:100])
        monkeypatch.setattr(stored, "_BLOCK_ROWS", 33)
        np.testing.assert_allclose(apply_steps(steps, digits.images[:100]), whole, atol=1e-4)

    def test_they_are_learned_from_some_of_many_images(self, digits, monkeypatch):
        monkeypatch.setattr(components, "FITTED_ON", 100)
        some = fit_scattering(digits.images, 16, n_components=500)
        assert some[-1].components_.shape[0] == 100
        assert apply_steps(some, digits.images[:3]).shape == (3, 100)

    @pytest.mark.parametrize(
        ("shape", "J"), [((28, 28), 3), ((32, 100), 3), ((16, 16), 2), ((12, 20), 2), ((8, 8), 1), ((2, 9), 1)]
    )
    def test_small_images_have_fewer_scales(self, rng, shape, J):
        steps = fit_scattering(rng.integers(0, 256, (4, *shape), dtype=np.uint8))
        assert steps[1].J == J

    def test_another_image_size_is_refused(self, digits, steps):
        with pytest.raises(DataError, match="expects 8x8"):
            apply_steps(steps, digits.images[:, :7])


class TestInAModelFile:
    def test_predictions_are_the_same(self, digits, model, tmp_path):
        svc = SVC.from_model(model)
        svc.save(tmp_path / "m.svm")
        again = load_model(tmp_path / "m.svm")
        X = model.preprocess(digits.images)
        np.testing.assert_array_equal(again.preprocess(digits.images), X)
        np.testing.assert_array_equal(again.pair_decisions(X), model.pair_decisions(X))
        assert (again.predict(X[1000:]) == digits.labels[1000:]).mean() > 0.95

    def test_scikit_learns_form_has_the_steps(self, digits, model):
        X, raw = model.preprocess(digits.images), digits.images.reshape(len(digits), -1)
        assert (to_sklearn_pipeline(model).predict(raw) == model.predict(X)).mean() > 0.999

    def test_onnx_has_no_such_step(self, model):
        pytest.importorskip("onnx", reason='onnx is not installed: pip install "gpusvm[onnx]"')
        with pytest.raises(UsageError, match="Scattering has no ONNX form"):
            to_onnx(model)

    def test_what_they_look_like(self, steps):
        descriptions, arrays = describe_steps(steps)
        assert descriptions[1] == {"step": "scattering", "image_shape": [8, 8], "J": 1, "L": 8}
        assert [each["step"] for each in descriptions[2:]] == ["logarithm", "standard_scaler", "pca"]
        assert arrays["steps.4.components"].shape == (40, steps[1].n_features_out)
        check_steps(read_steps(descriptions, arrays), (8, 8), 40)

    @pytest.mark.parametrize(
        "description",
        [
            {"step": "scattering"},
            {"step": "scattering", "image_shape": [8, 8], "J": 1},
            {"step": "scattering", "image_shape": [8, 8], "J": 1.0, "L": 8},
            {"step": "scattering", "image_shape": [8, 8], "J": True, "L": 8},
            {"step": "scattering", "image_shape": [8], "J": 1, "L": 8},
            {"step": "scattering", "image_shape": [8, 8], "J": 1, "L": -8},
            {"step": "pca"},
            {"step": "pca", "whiten": True},
            {"step": "logarithm"},
            {"step": "logarithm", "epsilon": 0.1},
        ],
    )
    def test_descriptions_that_are_refused(self, description):
        with pytest.raises(ModelFileError, match="preprocessing step"):
            step_from_dict(description)

    @pytest.mark.parametrize(
        "change",
        [
            lambda arrays: arrays.pop("steps.4.components"),
            lambda arrays: arrays.update({"steps.4.components": np.ones(3, np.float32)}),
            lambda arrays: arrays.update({"steps.4.components": arrays["steps.4.components"].astype(np.float64)}),
            lambda arrays: arrays.update({"steps.4.components": arrays["steps.4.components"].astype(np.float16)}),
            lambda arrays: arrays.update({"steps.4.components": arrays["steps.4.components"][:, 1:]}),
            lambda arrays: arrays["steps.4.components"].__setitem__((0, 0), np.inf),
            lambda arrays: arrays["steps.2.offset"].__setitem__(0, 0),
            lambda arrays: arrays["steps.2.offset"].__setitem__(0, np.nan),
            lambda arrays: arrays.update({"steps.2.offset": np.ones((1, 9))}),
            lambda arrays: arrays.update({"steps.2.components": np.ones((1, 9))}),
        ],
    )
    def test_damaged_arrays_are_refused(self, steps, change):
        descriptions, arrays = describe_steps(steps)
        arrays = {name: values.copy() for name, values in arrays.items()}
        change(arrays)
        with pytest.raises(ModelFileError, match="bad arrays for preprocessing step"):
            read_steps(descriptions, arrays)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"image_shape": [8, 7]}, "8x8 does not fit"),
            ({"image_shape": [64, 1]}, "makes"),
            ({"image_shape": [7, 7]}, "does not fit|makes"),
            ({"image_shape": None}, "two positive integers"),
            ({"image_shape": [2**20, 2**20]}, "above 256 pixels"),
            ({"J": 2}, "makes"),
            ({"J": 2**40}, "J must be"),
            ({"L": 17}, "L must be"),
        ],
    )
    def test_steps_that_do_not_follow_each_other_are_refused(self, steps, change, message):
        descriptions, arrays = describe_steps(steps)
        descriptions[1] = descriptions[1] | change
        with pytest.raises(ModelFileError, match=message):
            check_steps(read_steps(descriptions, arrays), [8, 8], 40)

    @pytest.mark.parametrize(("shape", "width"), [([8, 8], 41), ([8, 9], 40), ([8, 7], 40)])
    def test_they_fit_the_models_images_and_features(self, steps, shape, width):
        with pytest.raises(ModelFileError):
            check_steps(steps, shape, width)

    def test_components_that_are_scaled_have_no_file(self, steps):
        whitened = clone(steps[-1]).set_params(whiten=True).fit(np.random.default_rng(0).random((50, 50)))
        with pytest.raises(ModelFileError, match="cannot hold a PCA with whiten=True"):
            step_to_dict(whitened)

"""The preprocessing steps as scikit-learn transformers, as a sequence, and in a model file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpusvm.data import load_dataset
from gpusvm.errors import DataError, ModelFileError
from gpusvm.preprocess import (
    Deskewer,
    PixelBinarizer,
    PixelScaler,
    apply_steps,
    build_steps,
    check_image_shape,
    pixels,
    step_from_dict,
    step_to_dict,
)


def moments(image):
    """mu11, mu02 and the centre (x, y) of one image, written out as in the textbook."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = image.sum()
    cx, cy = (x * image).sum() / mass, (y * image).sum() / mass
    return ((x - cx) * (y - cy) * image).sum(), ((y - cy) ** 2 * image).sum(), (cx, cy)


# Deskewer is left out: it takes images, and the checks' data have whatever number of columns.
@parametrize_with_checks([PixelScaler(), PixelBinarizer()])
def test_sklearn_compatible(estimator, check):
    check(estimator)


class TestScalerAndBinarizer:
    def test_bytes_become_zero_to_one(self):
        X = PixelScaler().fit_transform(np.array([[0, 51, 255]], dtype=np.uint8))
        assert X.dtype == np.float32
        np.testing.assert_array_equal(X, np.array([[0, 0.2, 1]], dtype=np.float32))

    def test_threshold_is_in_the_units_of_the_input(self):
        X = np.array([[0, 1, 100, 101]], dtype=np.uint8)
        assert PixelBinarizer().fit_transform(X).tolist() == [[0, 1, 1, 1]]
        assert PixelBinarizer(threshold=100).fit_transform(X).tolist() == [[0, 0, 0, 1]]

    @pytest.mark.parametrize("step", [PixelScaler(0), PixelScaler("x"), PixelBinarizer(np.nan), PixelBinarizer(None)])
    def test_bad_parameters(self, step):
        with pytest.raises(ValueError, match="must be a"):
            step.fit(np.ones((1, 4)))

    @pytest.mark.parametrize("step", [PixelScaler(), PixelBinarizer(), Deskewer()])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_nan_and_infinity_are_refused(self, step, bad):
        step.fit_transform(np.array([[1.0, 2.0, 0, 0]]))
        with pytest.raises(ValueError):
            step.fit_transform(np.array([[1.0, bad, 0, 0]]))

    @pytest.mark.parametrize("step", [PixelScaler(), PixelBinarizer(), Deskewer()])
    def test_the_input_is_left_alone(self, step):
        X = np.random.default_rng(0).random((3, 9)).astype(np.float32)
        before = X.copy()
        step.fit_transform(X)
        np.testing.assert_array_equal(X, before)


class TestDeskewer:
    def test_a_slanted_line_stands_up(self):
        slanted = np.zeros((7, 7))
        for row in range(1, 6):
            slanted[row, 6 - row] = 200
        upright = Deskewer().fit_transform(slanted.reshape(1, -1)).reshape(7, 7)
        np.testing.assert_allclose(upright[1:6, 3], 200)
        assert upright.sum() == slanted.sum()

    @given(ink=hnp.arrays(np.uint8, (6, 7)))
    @settings(max_examples=100, deadline=None)
    def test_mu11_is_zero_and_mass_and_centre_stay(self, ink):
        # A wide margin, so that nothing is pushed over the edge.
        image = np.zeros((6, 67))
        image[:, 30:37] = ink
        upright = Deskewer(image_shape=(6, 67)).fit_transform(image.reshape(1, -1)).reshape(6, 67).astype(float)
        assert upright.min() >= 0 and upright.max() <= 255
        if ink.sum() == 0:
            assert not upright.any()
            return
        _, mu02, centre = moments(image)
        if mu02 > 1e-9:
            mu11, _, centre_after = moments(upright)
            assert abs(mu11) < 1e-4 * image.sum()
            np.testing.assert_allclose(upright.sum(), image.sum(), rtol=1e-5)
            np.testing.assert_allclose(centre_after, centre, atol=1e-3)

    def test_images_without_a_slant_pass_untouched(self):
        images = np.zeros((3, 5, 5), dtype=np.uint8)
        images[1, 2] = [1, 2, 3, 4, 5]
        images[2, 1:4, 2] = 9
        result = Deskewer().fit_transform(images.reshape(3, 25))
        np.testing.assert_array_equal(result, images.reshape(3, 25))

    def test_chunks_do_not_show(self, monkeypatch):
        X = np.random.default_rng(0).integers(0, 256, (11, 20))
        whole = Deskewer((4, 5)).fit_transform(X)
        monkeypatch.setattr(pixels, "_DESKEW_ROWS", 3)
        np.testing.assert_array_equal(Deskewer((4, 5)).fit_transform(X), whole)

    def test_wild_slants_stay_within_the_image(self):
        image = np.zeros((2, 28))
        image[0, 0] = image[1, 27] = 255
        image[1, 0] = 1
        assert np.isfinite(Deskewer((2, 28)).fit_transform(image.reshape(1, -1))).all()

    def test_real_digits_become_upright(self):
        images = load_dataset("digits").images
        before = np.mean([abs(moments(i)[0] / moments(i)[1]) for i in images[:200].astype(float)])
        upright = Deskewer().fit_transform(images.reshape(len(images), -1)).reshape(images.shape)
        after = np.mean([abs(moments(i)[0] / moments(i)[1]) for i in upright[:200].astype(float)])
        assert after < before / 5

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            (None, "6 pixels are no square image"),
            ((2, 2), "2x2 does not fit rows of 6"),
            ((2, 3, 1), "two positive integers"),
            ((-2, -3), "two positive integers"),
            ("23", "two positive integers"),
        ],
    )
    def test_shapes_that_do_not_fit(self, shape, message):
        with pytest.raises(ValueError, match=message):
            Deskewer(shape).fit(np.ones((1, 6)))


class TestSteps:
    images = np.random.default_rng(1).integers(0, 256, (5, 4, 6), dtype=np.uint8)

    @pytest.mark.parametrize("binarize", [False, True])
    @pytest.mark.parametrize("deskew", [False, True])
    def test_order_and_result(self, binarize, deskew):
        steps = build_steps((4, 6), binarize=binarize, deskew=deskew)
        kinds = [Deskewer] * deskew + [PixelScaler] + [PixelBinarizer] * binarize
        assert [type(step) for step in steps] == kinds
        X = apply_steps(steps, self.images)
        assert X.shape == (5, 24) and X.dtype == np.float32 and X.min() >= 0 and X.max() <= 1
        fitted = make_pipeline(*map(clone, steps)).fit_transform(self.images.reshape(5, 24))
        np.testing.assert_array_equal(X, fitted)

    def test_no_steps_give_float32_rows(self):
        X = apply_steps([], self.images)
        assert X.dtype == np.float32
        np.testing.assert_array_equal(X, self.images.reshape(5, 24))

    def test_another_image_size_is_refused(self):
        message = "got 4x6 images, the model expects 28x28; bring them to that size with --resize"
        with pytest.raises(DataError, match=message):
            check_image_shape(self.images, (28, 28))
        with pytest.raises(DataError, match=message):
            apply_steps(build_steps((28, 28)), self.images, image_shape=(28, 28))
        with pytest.raises(DataError, match="expects 6x4"):
            apply_steps(build_steps((6, 4), deskew=True), self.images)


class TestInAModelFile:
    @pytest.mark.parametrize(
        "step",
        [PixelScaler(), PixelScaler(16), PixelBinarizer(0.5), Deskewer(), Deskewer((4, 6)), Deskewer([4, 6])],
    )
    def test_a_step_survives_json(self, step):
        again = step_from_dict(json.loads(json.dumps(step_to_dict(step))))
        assert type(again) is type(step)
        X = TestSteps.images[:, :4, :4].reshape(5, 16) if step.get_params() == {"image_shape": None} else None
        X = TestSteps.images.reshape(5, 24) if X is None else X
        np.testing.assert_array_equal(again.transform(X), step.transform(X))

    def test_what_it_looks_like(self):
        assert step_to_dict(PixelScaler()) == {"step": "pixel_scaler", "maximum": 255.0}
        assert step_to_dict(Deskewer((4, 6))) == {"step": "deskewer", "image_shape": [4, 6]}

    def test_fitted_steps_too(self):
        step = PixelScaler(np.float64(10)).fit(np.ones((2, 3)))
        assert json.loads(json.dumps(step_to_dict(step))) == {"step": "pixel_scaler", "maximum": 10}

    @pytest.mark.parametrize(
        "description",
        [
            None, [], {}, "pixel_scaler",
            {"step": "rotate"}, {"step": None}, {"step": []},
            {"step": "pixel_scaler"},
            {"step": "pixel_scaler", "maximum": 0},
            {"step": "pixel_scaler", "maximum": "255"},
            {"step": "pixel_scaler", "maximum": float("nan")},
            {"step": "pixel_scaler", "maximum": 10**400},
            {"step": "pixel_scaler", "maximum": 5e-324},
            {"step": "pixel_scaler", "maximum": 1e39},
            {"step": "pixel_scaler", "maximum": True},
            {"step": "pixel_scaler", "maximum": 255, "threshold": 1},
            {"step": "pixel_binarizer", "threshold": None},
            {"step": "deskewer", "image_shape": [28]},
            {"step": "deskewer", "image_shape": [28, 28.0]},
            {"step": "deskewer", "image_shape": "28x28"},
        ],
    )  # fmt: skip
    def test_what_it_cannot_be(self, description):
        with pytest.raises(ModelFileError, match="preprocessing step") as caught:
            step_from_dict(description)
        assert "\n" not in str(caught.value)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["step", "maximum", "threshold", "image_shape"]), inner, max_size=3)
            ),
            max_leaves=6,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_anything_else_is_a_model_file_error(self, description):
        with pytest.raises(ModelFileError):
            step_from_dict(description)

    def test_a_step_that_no_file_can_hold(self):
        with pytest.raises(ModelFileError, match="cannot hold a dict"):
            step_to_dict({})

"""Moves of images against a reference, and trainings on moved support vectors."""

import json

import numpy as np
import pytest
from scipy.ndimage import affine_transform, maximum_filter, minimum_filter

from gpusvm import SVC, certify, load_model
from gpusvm.data import load_dataset
from gpusvm.errors import DataError, UsageError
from gpusvm.io.model_file import save_model
from gpusvm.preprocess.augment import MOVES, Move, moved_copies, moves_named
from gpusvm.training import steps_for, train_augmented, train_model, training_samples


def reference(image, move):
    """SciPy's interpolation, asked for where each pixel comes from."""
    angle = np.deg2rad(move.rotation)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(move.scale * turned @ np.array([[1, 0], [move.shear, 1]]))
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - back @ (centre + np.array([move.down, move.right]))
    padded = affine_transform(np.pad(image.astype(float), 9), back, offset + 9 - back @ [9.0, 9.0], order=1)
    return padded[9:-9, 9:-9]


class TestMove:
    @pytest.mark.parametrize(
        "move",
        [
            Move(), Move(right=1), Move(down=-2), Move(right=0.3, down=0.6), Move(rotation=17), Move(rotation=-90),
            Move(scale=0.8), Move(scale=1.3), Move(shear=0.4),
            Move(right=1.5, down=-0.5, rotation=10, scale=1.1, shear=-0.2),
        ],
        ids=lambda move: str(move.to_dict()),
    )  # fmt: skip
    @pytest.mark.parametrize("shape", [(28, 28), (7, 12)])
    def test_it_is_scipys_interpolation(self, rng, move, shape):
        images = rng.integers(0, 256, (5, *shape), dtype=np.uint8)
        found = move(images)
        assert found.dtype == np.uint8 and found.shape == images.shape
        for image, moved in zip(images, found, strict=True):
            np.testing.assert_allclose(moved, reference(image, move), atol=0.51)

    @pytest.mark.parametrize("thickness", [-1, -0.5, 0.25, 1])
    def test_strokes_become_thicker_or_thinner(self, rng, thickness):
        images = rng.integers(0, 256, (3, 6, 9), dtype=np.uint8)
        cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=bool)
        reached = (maximum_filter if thickness > 0 else minimum_filter)(images, footprint=cross, mode="nearest")
        expected = images + abs(thickness) * (reached.astype(float) - images)
        np.testing.assert_allclose(Move(thickness=thickness)(images), expected, atol=0.51)

    def test_directions(self):
        image = np.zeros((1, 5, 5), dtype=np.uint8)
        image[0, 0, 2] = 9
        assert Move(right=1)(image)[0, 0, 3] == Move(down=1)(image)[0, 1, 2] == Move(rotation=90)(image)[0, 2, 4] == 9
        assert Move(shear=1)(image)[0, 0, 0] == 9

    def test_whole_shifts_are_exact_and_lose_what_leaves(self, rng):
        image = rng.integers(0, 256, (1, 4, 6), dtype=np.uint8)
        expected = np.zeros((4, 6))
        expected[1:, :4] = image[0, :3, 2:]
        np.testing.assert_array_equal(Move(right=-2, down=1)(image)[0], expected)

    def test_blocks_do_not_show(self, rng, monkeypatch):
        images = rng.integers(0, 256, (7, 5, 5), dtype=np.uint8)
        whole = Move(rotation=20)(images)
        monkeypatch.setattr("gpusvm.preprocess.augment._BLOCK_IMAGES", 3)
        np.testing.assert_array_equal(Move(rotation=20)(images), whole)

    @pytest.mark.parametrize(
        "values",
        [
            {"scale": 0},
            {"scale": -1},
            {"right": np.nan},
            {"down": np.inf},
            {"rotation": "9"},
            {"shear": True},
            {"thickness": 2},
        ],
    )
    def test_what_it_cannot_be(self, values):
        with pytest.raises(ValueError, match="of a move must be a number"):
            Move(**values)

    @pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
    def test_it_survives_json(self, moves):
        assert tuple(Move.read(json.loads(json.dumps(move.to_dict()))) for move in moves) == moves
        assert Move() not in moves

    def test_names(self):
        assert moves_named("rotations, shifts,rotations") == MOVES["rotations"] + MOVES["shifts"]
        assert len(MOVES["shifts"]) == 8
        with pytest.raises(UsageError, match=r"--augment takes shifts, rotations, .*got 'flips'"):
            moves_named("shifts,flips")

    def test_copies_follow_the_originals(self, rng):
        images, moves = rng.integers(0, 256, (3, 5, 5), dtype=np.uint8), (Move(right=1), Move(down=1))
        copies = moved_copies(images, moves)
        np.testing.assert_array_equal(copies, np.concatenate([images, moves[0](images), moves[1](images)]))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits").take(np.arange(600))


MOVED = (Move(right=1), Move(rotation=8))


@pytest.fixture(scope="module")
def trained(digits):
    said = []
    svc = SVC(C=10, backend="native-cpu", class_weight={3: 2.0})
    model = train_augmented(svc, digits, steps_for(digits), MOVED, say=said.append)
    return svc, model, said


class TestTraining:
    def test_it_is_a_training_on_the_support_vectors_and_their_copies(self, digits, trained):
        _, model, said = trained
        first = train_model(SVC(C=10, backend="native-cpu", class_weight={3: 2.0}), digits, steps_for(digits))
        rows = np.sort(first.support_indices)
        assert model.provenance["augment"]["rows"] == rows.tolist()
        assert model.provenance["augment"]["moves"] == [{"right": 1}, {"rotation": 8}]
        assert (
            model.provenance["n_train"] == 3 * len(rows) and model.provenance["dataset"] == first.provenance["dataset"]
        )
        assert model.kernel == first.kernel and model.problem.class_weight == first.problem.class_weight
        X = first.preprocess(np.concatenate([digits.images[rows], *(move(digits.images[rows]) for move in MOVED)]))
        alone = SVC(C=10, gamma=first.kernel.gamma, backend="native-cpu", class_weight={3: 2.0})
        alone.fit(X, np.tile(digits.labels[rows], 3))
        np.testing.assert_array_equal(alone.model_.dual_coef, model.dual_coef)
        assert [text.split(",")[0] for text in said] == ["First training", "Second training"]

    def test_the_estimator_is_the_second_machine(self, digits, trained):
        svc, model, _ = trained
        assert svc.model_ is model
        X = model.preprocess(digits.images)
        np.testing.assert_array_equal(svc.predict(X), model.predict(X))

    def test_it_can_be_certified_from_its_file(self, digits, trained, tmp_path):
        save_model(trained[1], tmp_path / "m.svm")
        model = load_model(tmp_path / "m.svm")
        data = training_samples(model, digits)
        assert len(data) == model.provenance["n_train"]
        assert certify(model, model.preprocess(data.samples), data.labels).kkt_gap.max() < 2e-3

    def test_other_models_were_training_samples_the_data_as_they_are(self, digits):
        model = train_model(SVC(backend="native-cpu"), digits, steps_for(digits))
        assert training_samples(model, digits) is digits

    @pytest.mark.parametrize(
        "change",
        [
            {"rows": [0, 10**6]}, {"rows": [-1, 3]}, {"rows": None}, {"rows": [[1]]}, {"rows": []}, {"rows": [10**30]},
            {"moves": [{"right": "x"}]}, {"moves": [{"up": 1}]}, {"moves": 3}, {"moves": [{}] * 10**5}, {"moves": []},
        ],
        ids=lambda change: str(change)[:30],
    )  # fmt: skip
    def test_a_file_that_names_other_images_is_refused(self, digits, trained, change):
        model = trained[1]
        augment = model.provenance["augment"] | change
        damaged = type("Model", (), {"provenance": model.provenance | {"augment": augment}})
        with pytest.raises(DataError, match="does not have the images"):
            training_samples(damaged, digits)

    def test_probabilities_are_refused(self, digits):
        with pytest.raises(UsageError, match="cannot give probabilities"):
            train_augmented(SVC(probability=True), digits, steps_for(digits), MOVED)

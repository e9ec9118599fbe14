"""Expected fit times: near what was measured, and one line where another backend is worth
naming."""

from __future__ import annotations

from itertools import combinations

import pytest

from gpusvm.backends import estimate
from gpusvm.backends.estimate import COSTS, LEAST_SECONDS, MEASURED, _rounded, expected_seconds, hint

MNIST = ((6_000,) * 10, 784, 2)


@pytest.mark.parametrize("measured", MEASURED, ids=lambda measured: measured.what)
@pytest.mark.parametrize("backend", ["sklearn", "native-cpu"])
def test_estimates_are_within_a_factor_of_four(backend, measured):
    seconds = measured.sklearn_seconds if backend == "sklearn" else measured.native_seconds
    expected = expected_seconds(backend, measured.n_per_class, measured.n_features, measured.n_cores)
    assert seconds / 4 <= expected <= seconds * 4


@pytest.mark.parametrize("backend", COSTS)
@pytest.mark.parametrize("sizes", [(40, 700), (40, 700, 3_000), (5, 5, 5, 90)])
def test_the_closed_form_is_the_sum_over_pairs(backend, sizes):
    cost, n_features = COSTS[backend], 250
    by_hand = sum(
        cost.per_pair + cost.per_sample * (a + b) + cost.per_value * (a + b) ** 2 * 1.25 / (len(sizes) - 1)
        for a, b in combinations(sizes, 2)
    )
    assert expected_seconds(backend, sizes, n_features, 1) == pytest.approx(by_hand)


@pytest.mark.parametrize("backend", COSTS)
def test_more_of_anything_takes_longer_and_more_cores_less(backend):
    base = expected_seconds(backend, *MNIST)
    assert expected_seconds(backend, (7_000,) * 10, 784, 2) > base
    assert expected_seconds(backend, (6_000,) * 11, 784, 2) > base
    assert expected_seconds(backend, (6_000,) * 10, 2_000, 2) > base
    assert expected_seconds(backend, (6_000,) * 10, 784, 4) == pytest.approx(base / 2)
    # Not below the longest pair, which has one core.
    one_pair = expected_seconds(backend, (10_000,) * 2, 54, 1)
    assert expected_seconds(backend, (10_000,) * 2, 54, 64) == one_pair


@pytest.mark.parametrize("sizes", [(), (500,), (500, 0)])
def test_less_than_two_classes_take_no_time(sizes):
    assert expected_seconds("sklearn", sizes, 10, 2) == 0
    assert hint(sizes, 10, 2) == ""


def test_a_backend_of_which_nothing_is_known_is_an_error():
    with pytest.raises(KeyError):
        expected_seconds("cuml", *MNIST)


@pytest.mark.parametrize(
    ("sizes", "n_features"),
    [((6_000,) * 10, 784), ((12_435, 3_846), 122), ((10_000,) * 3, 100), ((30_000,) * 10, 784)],
)
def test_a_long_job_gets_one_line_with_both_times_and_the_cure(sizes, n_features):
    line = hint(sizes, n_features, 2)
    assert "\n" not in line and "about" in line and f"{sum(sizes):,} samples" in line
    assert line.index("scikit-learn") < line.index("--backend native") < line.index('backend="native"')


def test_the_line():
    assert hint(*MNIST) == (
        "scikit-learn is expected to take about 70 s on these 60,000 samples; "
        '--backend native about 5 s (gpusvm\'s own exact solver; in Python backend="native")'
    )


@pytest.mark.parametrize(
    ("sizes", "n_features"),
    [((143,) * 10, 64), ((500,) * 10, 784), ((2_000,) * 2, 100)],
)
def test_a_short_job_gets_no_line(sizes, n_features):
    assert expected_seconds("sklearn", sizes, n_features, 2) < LEAST_SECONDS
    assert hint(sizes, n_features, 2) == ""


def test_no_line_where_native_is_not_expected_to_be_faster_by_enough(monkeypatch):
    assert hint(*MNIST)
    slow, fast = (expected_seconds(backend, *MNIST) for backend in ("sklearn", "native-cpu"))
    monkeypatch.setattr(estimate, "LEAST_SPEEDUP", 1.1 * slow / fast)
    assert hint(*MNIST) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0.4 s"), (9.6, "10 s"), (14, "10 s"), (84, "80 s"), (89, "90 s"), (90, "2 min"), (253, "4 min"),
        (3_000, "50 min"), (5_300, "90 min"), (5_500, "2 h"), (200_000, "60 h"),
    ],
)  # fmt: skip
def test_times_have_one_significant_figure(seconds, text):
    assert _rounded(seconds) == text

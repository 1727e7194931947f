"""Centres of classes: right without noise, bounded by the declared sensitivity, noised at the declared scale."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.privacy.test_class_moments import _Recorder
from tfdpgen.privacy import ClassCentres, NoiseSource, epsilon_of
from tfdpgen.privacy.statistics import Centres

_RADIUS = 2.0


def _released(features: np.ndarray, labels: np.ndarray, noise: NoiseSource, multiplier: float = 1.0) -> Centres:
    return ClassCentres(multiplier, _RADIUS).release([(features, labels)], features.shape[1], 3, noise)


def test_without_noise_they_are_the_means_and_the_distance_from_them() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    features = rng.normal(0, 0.2, (90, 4)) + labels[:, None] / 3
    centres = ClassCentres(1e-9, _RADIUS).release([(features, labels)], 4, 3, NoiseSource())
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    np.testing.assert_allclose(centres.means, means, atol=1e-6)
    distance = np.sqrt(np.mean(np.sum(np.square(features - means[labels]), axis=1)))
    assert centres.distance == pytest.approx(distance, rel=1e-5)


def test_what_noise_adds_to_the_means_is_taken_off_the_distance() -> None:
    """On average; without that, its root mean square would be off by a third here."""
    features, labels = np.random.default_rng(0).normal(0, 0.2, (3000, 40)), np.arange(3000) % 3
    squares = [_released(features, labels, NoiseSource(), 8.0).distance ** 2 for _ in range(300)]
    true = np.mean(np.sum(np.square(features), axis=1))
    standard_error = np.std(squares) / np.sqrt(len(squares))
    assert np.mean(squares) == pytest.approx(true, abs=5 * standard_error)
    assert 10 * standard_error < 40 * (8.0 * 1.5 / 1000) ** 2 * _RADIUS**2  # what is taken off would be seen


def _vector(centres: Centres, counts: np.ndarray) -> np.ndarray:
    """What noise is added to, from centres that were released without any."""
    means, distance = centres.means / _RADIUS, centres.distance / _RADIUS
    # The recorder's scale of noise is taken off the square though there is no noise.
    of_means = np.sum(np.square(means), axis=1) - means.shape[1] * 1.5**2 / counts**2
    square = distance**2 * counts.sum() + counts @ of_means
    return np.concatenate([counts / 2, (means * counts[:, None]).ravel(), [square]])


@settings(max_examples=60)
@given(length=st.floats(0.01, 100.0), label=st.integers(0, 2), seed=st.integers(0, 1000))
def test_no_row_moves_the_noised_vector_by_more_than_the_sensitivity(length: float, label: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    others, other_labels = rng.normal(0, 0.5, (60, 4)), np.arange(60) % 3
    row = rng.normal(size=(1, 4))
    row *= length / np.linalg.norm(row)
    recorder = _Recorder()
    counts = np.full(3, 20.0)
    without = _vector(_released(others, other_labels, recorder), counts)
    more = _released(np.concatenate([others, row]), np.append(other_labels, label), recorder)
    with_row = _vector(more, counts + np.eye(3)[label])
    (sensitivity,) = recorder.scales
    assert sensitivity == pytest.approx(1.5)
    moved = np.linalg.norm(with_row - without)
    assert moved <= sensitivity * (1 + 1e-6)
    if length >= _RADIUS:
        assert moved == pytest.approx(sensitivity)


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_the_noise_has_the_declared_scale(factor: float, accepted: bool) -> None:
    """Of means, where counts are many enough to be known."""
    features, labels = np.zeros((300_000, 400)), np.arange(300_000) % 3
    centres = _released(features, labels, NoiseSource(), 3.0)
    noise = (centres.means / _RADIUS * 100_000).ravel()
    assert bool(scipy.stats.kstest(noise / (factor * 3.0 * 1.5), "norm").pvalue > 1e-4) is accepted


def test_the_counts_and_the_square_are_noised_like_the_sums() -> None:
    """Means of rows of norm 1 show the counts' noise, and the distance of one row that of the square."""
    classes = 2000
    features, labels = np.full((40 * classes, 1), _RADIUS), np.arange(40 * classes) % classes
    means = ClassCentres(1.0, _RADIUS).release([(features, labels)], 1, classes, NoiseSource()).means.ravel() / _RADIUS
    # (40 + a) / (40 + 2 b) for a and b normal: to first order 1 + (a - 2 b) / 40.
    assert np.std(means) == pytest.approx(1.5 * np.sqrt(1 + 2**2) / 40, rel=0.15)
    features, labels = np.full((300_000, 1), _RADIUS / 2), np.arange(300_000) % 3
    features[np.arange(300_000) % 2 == 0] *= -1
    squares = [_released(features, labels, NoiseSource(), 400.0).distance ** 2 for _ in range(200)]
    # (n / 4 + a) / (n + 2 b + 2 c + 2 d): to first order 1 / 4 + (a - (b + c + d) / 2) / n; without the square's .65.
    expected = 400 * 1.5 * np.sqrt(1 + 3 / 2**2) / 300_000
    assert np.std(np.array(squares) / _RADIUS**2) == pytest.approx(expected, rel=0.25)


def test_noise_makes_no_distance_too_small_to_measure_in() -> None:
    """Of rows that lie in one place, far from where they are measured from: an estimate would vanish half the time."""
    features, labels = np.tile([[0.9 * _RADIUS, 0.0]], (3000, 1)), np.zeros(3000, np.int64)
    squares = [
        ClassCentres(20.0, _RADIUS).release([(features, labels)], 2, 1, NoiseSource()).distance ** 2 / _RADIUS**2
        for _ in range(50)
    ]
    standard_error = 20 * 1.5 * np.sqrt(1 + 4 * 0.9**2 + 4 * 0.9**4) / 3000
    assert min(squares) > 1.7 * standard_error
    assert np.median(squares) == pytest.approx(2 * standard_error, rel=0.2)


def test_blocks_add_up_and_values_that_are_not_finite_count_as_zeros() -> None:
    features, labels = np.random.default_rng(0).normal(0, 0.3, (9, 2)), np.arange(9) % 3
    features[4] = [np.nan, np.inf]
    at_once = _released(features, labels, _Recorder())
    assert np.all(np.isfinite(at_once.means))
    blocks = [(features[:4], labels[:4]), (features[4:], labels[4:])]
    by_blocks = ClassCentres(1.0, _RADIUS).release(blocks, 2, 3, _Recorder())
    np.testing.assert_allclose(by_blocks.means, at_once.means, atol=1e-12)
    assert by_blocks.distance == pytest.approx(at_once.distance)


def test_its_cost_is_that_of_one_gaussian_and_bad_arguments_are_named() -> None:
    assert epsilon_of(ClassCentres(4.0, 7.0).event, 1e-5) == epsilon_of(ClassCentres(4.0, 1.0).event, 1e-5)
    assert ClassCentres(4.0, 1.0).event.noise_multiplier == 4.0
    for wrong in ({"noise_multiplier": 0.0}, {"radius": 0.0}, {"radius": np.inf}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ClassCentres(**{"noise_multiplier": 1.0, "radius": 1.0, **wrong})

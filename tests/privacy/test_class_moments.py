"""Class moments: right without noise, bounded by the declared sensitivity, noised at the declared scale."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdpgen.privacy import ClassMoments, NoiseSource, PrivacyBudget, epsilon_of
from tfdpgen.privacy.accounting import calibrate_noise_multiplier
from tfdpgen.privacy.statistics import Moments

_RADIUS = 2.0
_COUNT, _SQUARE = 0.5, 2.0


class _Recorder(NoiseSource):
    """A source whose noise is zero, and that remembers the scale it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.scales: set[float] = set()

    def numpy_generator(self) -> np.random.Generator:
        recorder = self

        class Generator:
            def normal(self, scale: float, size: tuple[int, ...]) -> np.ndarray:
                recorder.scales.add(scale)
                return np.zeros(size)

        return Generator()


def _released(features: np.ndarray, labels: np.ndarray, noise: NoiseSource, multiplier: float = 1.0) -> Moments:
    return ClassMoments(multiplier, _RADIUS).release([(features, labels)], features.shape[1], 3, noise)


def _vector(moments: Moments) -> np.ndarray:
    """What noise is added to, from moments that were released without any."""
    means = moments.means / _RADIUS
    covariances = moments.covariances / _RADIUS**2
    divisors = np.maximum(moments.counts, 1.0)[:, None]
    squares = (covariances + means[:, :, None] * means[:, None, :]) * divisors[:, :, None]
    parts = (_COUNT * moments.counts, means * divisors, _SQUARE * squares)
    return np.concatenate([part.ravel() for part in parts])


def test_without_noise_the_moments_are_the_moments() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(0, 0.3, (90, 4)), np.arange(90) % 3
    moments = _released(features, labels, _Recorder())
    np.testing.assert_allclose(moments.counts, 30.0)
    for label in range(3):
        rows = features[labels == label]
        np.testing.assert_allclose(moments.means[label], rows.mean(axis=0), atol=1e-12)
        covariance = moments.factors[label] @ moments.factors[label].T
        np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), atol=1e-12)


@settings(max_examples=60)
@given(length=st.floats(0.01, 100.0), label=st.integers(0, 2), seed=st.integers(0, 1000))
def test_no_row_moves_the_noised_vector_by_more_than_the_sensitivity(length: float, label: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    others, other_labels = rng.normal(0, 0.5, (12, 4)), np.arange(12) % 3
    row = rng.normal(size=(1, 4))
    row *= length / np.linalg.norm(row)
    recorder = _Recorder()
    without = _vector(_released(others, other_labels, recorder))
    with_row = _vector(_released(np.concatenate([others, row]), np.append(other_labels, label), recorder))
    (sensitivity,) = recorder.scales
    assert sensitivity == pytest.approx(np.sqrt(0.25 + 1 + 4))
    moved = np.linalg.norm(with_row - without)
    assert moved <= sensitivity * (1 + 1e-9)
    if length >= _RADIUS:
        assert moved == pytest.approx(sensitivity)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_squares_may_weigh_more_and_then_get_less_noise(weight: float) -> None:
    features, labels = np.random.default_rng(0).normal(0, 0.3, (90, 4)), np.arange(90) % 3
    recorder = _Recorder()
    weighted = ClassMoments(1.0, _RADIUS, weight).release([(features, labels)], 4, 3, recorder)
    assert list(recorder.scales) == pytest.approx([np.sqrt(0.25 + 1 + weight**2)])
    for first, second in zip(weighted, _released(features, labels, _Recorder()), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-12)
    # Of an empty class nothing but noise is left: the sums' scale against that of the squares.
    empty = ClassMoments(3.0, _RADIUS, weight).release(
        [(np.zeros((0, 300)), np.zeros(0, np.int64))], 300, 1, NoiseSource()
    )
    means = empty.means[0] / _RADIUS * max(empty.counts[0], 1.0)
    assert np.std(means) == pytest.approx(3.0 * np.sqrt(0.25 + 1 + weight**2), rel=0.2)


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_the_noise_has_the_declared_scale(factor: float, accepted: bool) -> None:
    empty = np.zeros((0, 400)), np.zeros(0, np.int64)
    moments = ClassMoments(3.0, _RADIUS).release([empty], 400, 3, NoiseSource())
    noise = (moments.means / _RADIUS * np.maximum(moments.counts, 1.0)[:, None]).ravel()
    scale = 3.0 * np.sqrt(0.25 + 1 + 4)
    assert bool(scipy.stats.kstest(noise / (factor * scale), "norm").pvalue > 1e-4) is accepted


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (2 / 3, False), (1.5, False)])
@pytest.mark.parametrize("weight", [2.0, 4.0])
def test_the_squares_have_the_declared_scale_too(weight: float, factor: float, accepted: bool) -> None:
    """Of an empty class: what is above the diagonal is the mean of two draws."""
    empty = np.zeros((0, 60)), np.zeros(0, np.int64)
    moments = ClassMoments(3.0, _RADIUS, weight).release([empty], 60, 3, NoiseSource())
    means = moments.means / _RADIUS
    seconds = moments.covariances / _RADIUS**2 + means[:, :, None] * means[:, None, :]
    noise = weight * seconds * np.maximum(moments.counts, 1.0)[:, None, None]
    above = noise[:, *np.triu_indices(60, 1)].ravel() * np.sqrt(2)
    scale = 3.0 * np.sqrt(0.25 + 1 + weight**2)
    assert bool(scipy.stats.kstest(above / (factor * scale), "norm").pvalue > 1e-4) is accepted


def test_the_counts_are_noised_like_everything_else() -> None:
    """How many rows a class has is private too: with many classes, their counts show the noise's scale."""
    classes = 2000
    features, labels = np.zeros((classes, 1)), np.arange(classes)
    counts = ClassMoments(3.0, _RADIUS).release([(features, labels)], 1, classes, NoiseSource()).counts
    scale = 3.0 * np.sqrt(0.25 + 1 + 4) / _COUNT
    assert scipy.stats.kstest((counts - 1.0) / scale, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest((counts - 1.0) / (wrong * scale), "norm").pvalue < 1e-9


def test_values_that_are_not_finite_count_as_zeros_and_blocks_add_up() -> None:
    features, labels = np.random.default_rng(0).normal(0, 0.3, (9, 2)), np.arange(9) % 3
    features[4] = [np.nan, np.inf]
    at_once = _released(features, labels, _Recorder())
    assert all(np.all(np.isfinite(part)) for part in at_once)
    blocks = [(features[:4], labels[:4]), (features[4:], labels[4:])]
    for one, other in zip(at_once, ClassMoments(1.0, _RADIUS).release(blocks, 2, 3, _Recorder()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_its_cost_is_that_of_one_gaussian() -> None:
    multiplier = calibrate_noise_multiplier(lambda z: ClassMoments(z, 1.0).event, PrivacyBudget(1.0, 1e-5))
    assert epsilon_of(ClassMoments(multiplier, 7.0).event, 1e-5) == pytest.approx(1.0, rel=1e-3)
    for wrong in ({"noise_multiplier": 0.0}, {"radius": 0.0}, {"radius": np.inf}, {"square_weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ClassMoments(**{"noise_multiplier": 1.0, "radius": 1.0, **wrong})

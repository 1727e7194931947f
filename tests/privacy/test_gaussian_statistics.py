"""Gaussian statistics: exact without noise, noise of the declared scale, no more sensitivity than they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans, GroupStatistics, Statistics
from tfdpgen.privacy.mechanisms.noisy_counts import LabelCounts, NoisyCounts

_D, _CLASSES = 5, 3
_MEANS = ClassMeans(_CLASSES, _D, radius=2.0)
_GROUPS = GroupStatistics(_CLASSES, _D)


def _examples(num: int, length: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, _D))
    features *= length / np.linalg.norm(features, axis=1, keepdims=True)
    return features, rng.integers(_CLASSES, size=num)


def _grouped(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.concatenate([features, groups[:, None]], axis=1)


def test_class_means_without_noise_are_means_counts_and_distances() -> None:
    features, labels = _examples(400, length=1.5)
    features += labels[:, None] * 0.1
    means = _MEANS.with_noise(1e-9).result(_MEANS.sum_of(features, labels))
    expected = np.stack([features[labels == label].mean(axis=0) for label in range(_CLASSES)])
    np.testing.assert_allclose(means.means, expected, atol=1e-6)
    np.testing.assert_allclose(means.counts, np.bincount(labels))
    distance = math.sqrt(np.mean(np.sum(np.square(features - expected[labels]), axis=1)))
    assert means.scale == pytest.approx(distance, rel=1e-4)


def test_one_class_is_all_examples_whatever_their_labels() -> None:
    features, labels = _examples(400, length=1.5)
    overall = ClassMeans(1, _D, radius=2.0).with_noise(1e-9)
    means = overall.result(overall.sum_of(features, labels))
    np.testing.assert_allclose(means.means[0], features.mean(axis=0), atol=1e-6)
    assert means.counts == pytest.approx([400])
    distance = math.sqrt(np.mean(np.sum(np.square(features - features.mean(axis=0)), axis=1)))
    assert means.scale == pytest.approx(distance, rel=1e-4)


def test_the_scale_is_the_distance_from_the_noisy_means() -> None:
    features, labels = _examples(3000, length=1.0)
    mechanism = _MEANS.with_noise(20.0)
    scales, distances = [], []
    for seed in range(30):
        total = mechanism.sum_of(features, labels)
        noise = np.random.default_rng(seed).normal(scale=mechanism.stddev, size=total.shape)
        means = mechanism.result(total + noise)
        scales.append(means.scale)
        distances.append(math.sqrt(np.mean(np.sum(np.square(features - means.means[labels]), axis=1))))
    assert np.mean(scales) == pytest.approx(np.mean(distances), rel=0.03)


def test_group_statistics_without_noise_are_moments_of_each_group() -> None:
    features, groups = _examples(500, length=0.8)
    features[:, 0] *= 0.3
    found = _GROUPS.with_noise(1e-9).result(_GROUPS.sum_of(_grouped(features, groups), groups))
    for group in range(_CLASSES):
        of_group = features[groups == group]
        assert found.counts[group] == pytest.approx(len(of_group))
        np.testing.assert_allclose(found.means[group], of_group.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.covariances[group], np.cov(of_group.T, bias=True), atol=1e-6)
        factor = found.factors(_D)[group]
        np.testing.assert_allclose(factor @ factor.T, np.cov(of_group.T, bias=True), atol=1e-6)


def test_the_noise_of_covariances_has_the_declared_scale() -> None:
    mechanism = GroupStatistics(1, 40).with_noise(3.0)
    total = np.zeros(mechanism.size)
    total[0] = 0.5 * 1000  # a thousand examples, all zeros
    noise = np.random.default_rng(0).normal(scale=mechanism.stddev, size=total.shape)
    found = mechanism.result(total + noise)
    upper = found.covariances[0][np.triu_indices(40, 1)]
    assert np.std(upper) == pytest.approx(found.stddev[0], rel=0.1)
    assert np.std(np.diagonal(found.covariances[0])) == pytest.approx(math.sqrt(2) * found.stddev[0], rel=0.35)
    largest = np.linalg.eigvalsh(found.covariances[0])[-1]
    assert largest == pytest.approx(mechanism.edge / found.counts[0], rel=0.15)


def test_shrinkage_drops_noise_and_takes_off_what_it_adds() -> None:
    d, stddev, rng = 200, 0.01, np.random.default_rng(1)
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    edge = 2 * stddev * math.sqrt(d)
    strength = 2 * edge
    noise = rng.normal(scale=stddev, size=(d, d))
    noisy = strength * np.outer(direction, direction) + (noise + noise.T) / math.sqrt(2)
    (factor,) = Statistics(np.ones(1), np.zeros((1, d)), noisy[None], np.array([stddev])).factors(d)
    lengths = np.sum(np.square(factor), axis=0)
    assert lengths[0] < np.linalg.eigvalsh(noisy)[-1]
    found = factor[:, 0] / math.sqrt(lengths[0])
    assert lengths[0] == pytest.approx(strength * (found @ direction) ** 2, rel=0.05)
    assert lengths[1:].sum() < 0.2 * lengths[0]  # at the edge, a little of the noise may be left
    kept = np.where(np.linalg.eigvalsh(noisy) > 0, np.linalg.eigvalsh(noisy), 0).sum()
    assert kept > 5 * strength  # what its positive half would have been


@pytest.mark.parametrize("place", [0, 20, 40])
@pytest.mark.parametrize("length", [0.3, 1.0, 50.0])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_one_example_moves_a_sum_by_at_most_the_sensitivity(place: int, length: float, seed: int) -> None:
    features, labels = _examples(40, seed=seed)
    more, label = _examples(1, length=length, seed=seed + 1)
    inserted = np.insert(features, place, more[0], axis=0), np.insert(labels, place, label[0])
    for mechanism, arrange in (
        (_MEANS, lambda values, groups: values),
        (_GROUPS, _grouped),
        (NoisyCounts(_D), lambda values, groups: values),
        (LabelCounts(_CLASSES), lambda values, groups: values[:, :0]),
    ):
        before = mechanism.sum_of(arrange(features, labels), labels)
        after = mechanism.sum_of(arrange(*inserted), inserted[1])
        assert np.linalg.norm(after - before) <= mechanism.sensitivity * (1 + 1e-9)
    if length >= 2.0:  # longer than the radius: all of the sensitivity
        moved = _MEANS.sum_of(*inserted) - _MEANS.sum_of(features, labels)
        assert np.linalg.norm(moved) == pytest.approx(_MEANS.sensitivity)
        moved = _GROUPS.sum_of(_grouped(*inserted), inserted[1]) - _GROUPS.sum_of(_grouped(features, labels), labels)
        assert np.linalg.norm(moved) == pytest.approx(_GROUPS.sensitivity)


_EVERY = [_MEANS, _GROUPS, NoisyCounts(_D), LabelCounts(_CLASSES)]


@pytest.mark.parametrize("mechanism", _EVERY, ids=lambda mechanism: mechanism.name)
def test_a_result_is_a_function_of_the_noised_sum_alone(mechanism: Any) -> None:
    """Whatever was added up before, by this very mechanism."""
    noised = np.random.default_rng(5).normal(scale=30.0, size=mechanism.size)
    results = []
    for num in (20, 300):
        made = mechanism.with_noise(1.0)
        features, labels = _examples(num, length=0.5 + 1 / num, seed=num)
        made.sum_of(_grouped(features, labels) if mechanism is _GROUPS else features, labels)
        results.append(made.result(noised))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_counts_as_nothing(bad: float) -> None:
    features, labels = _examples(10)
    broken = features.copy()
    broken[3, 2] = bad
    nothing = features.copy()
    nothing[3] = 0.0
    np.testing.assert_array_equal(_MEANS.sum_of(broken, labels), _MEANS.sum_of(nothing, labels))
    np.testing.assert_array_equal(
        _GROUPS.sum_of(_grouped(broken, labels), labels), _GROUPS.sum_of(_grouped(nothing, labels), labels)
    )
    votes = NoisyCounts().sum_of(np.array([[bad], [1.0]]), labels[:2])
    assert abs(votes[0]) <= 2.0


def test_label_counts_are_shares_of_the_classes() -> None:
    labels = np.array([0, 2, 2, 2, 99, -1])  # two of which are none
    mechanism = LabelCounts(4).with_noise(1.0)
    np.testing.assert_array_equal(mechanism.sum_of(np.zeros((6, 0)), labels), [2, 0, 3, 1])
    np.testing.assert_allclose(mechanism.result(np.array([2.0, -5.0, 3.0, 1.0])), [2 / 6, 0, 3 / 6, 1 / 6])
    np.testing.assert_allclose(mechanism.result(np.array([-2.0, -5.0, -3.0, -1.0])), np.full(4, 0.25))


def test_a_class_without_examples_is_noise_like_any_other() -> None:
    features, labels = _examples(50)
    means = _MEANS.with_noise(1.0).result(_MEANS.sum_of(features[labels != 1], labels[labels != 1]))
    assert means.counts[1] == 1.0
    assert np.all(np.isfinite(means.means))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ClassMeans(0, 3, 1.0), "num_classes"),
        (lambda: ClassMeans(3, 3, math.inf), "radius"),
        (lambda: GroupStatistics(3, 0), "num_features"),
        (lambda: GroupStatistics(3, 3, square_weight=0.0), "square_weight"),
        (lambda: GroupStatistics(3, 3, noise_multiplier=0.0), "noise_multiplier"),
        (lambda: NoisyCounts(0), "num_counts"),
        (lambda: LabelCounts(0), "num_classes"),
    ],
)
def test_bad_values_are_named(make: object, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()  # type: ignore[operator]


def test_noise_alone_is_hardly_ever_taken_for_a_covariance() -> None:
    """The largest eigenvalue of noise is beyond the edge in one case of six, and by the margin in one of a hundred."""
    d, rng = 40, np.random.default_rng(0)
    taken = 0
    for _ in range(300):
        noise = np.triu(rng.normal(size=(d, d)), 1)
        noise += noise.T + np.diag(math.sqrt(2) * rng.normal(size=d))
        (factor,) = Statistics(np.ones(1), np.zeros((1, d)), noise[None], np.ones(1)).factors(d)
        taken += bool(np.any(factor))
    assert taken <= 12

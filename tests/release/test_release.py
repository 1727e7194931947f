"""A release: samples are a function of labels and seed, and a training set is samples with labels that are theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec
from tfdpgen.features.scattering import num_features
from tfdpgen.privacy import DPSGD
from tfdpgen.release import Augmentation, Labeller, Release, sample_latents

_SPEC = DataSpec((8, 8, 1), 3)
_LABELS = np.arange(60) % 3
_CHANGES = Augmentation(rotation=30.0, temperature=5.0)


def _release(*, has_labeller: bool) -> Release:
    latents, labels = tf.keras.Input((4,)), tf.keras.Input((), dtype=tf.int64)
    dense = tf.keras.layers.Dense(64, activation="sigmoid", kernel_initializer=tf.keras.initializers.Orthogonal(2.0, 0))
    images = tf.keras.layers.Reshape((8, 8, 1))(dense(latents))
    generator = tf.keras.Model([latents, labels], images)
    plan = DPSGD(num_examples=100, expected_batch_size=10, steps=5, noise_multiplier=2.0)
    kernel = np.random.default_rng(0).normal(size=(num_features(_SPEC.image_shape), 3)).astype(np.float32) / 8
    labeller = Labeller(kernel, np.zeros(3, np.float32)) if has_labeller else None
    return Release(
        generator, _SPEC, plan.event, plan.statement(1e-3), "test", labeller, _CHANGES if has_labeller else None
    )


def test_the_temperature_scales_the_latents() -> None:
    release = _release(has_labeller=False)
    latents = sample_latents(60, 4, tf.constant([7, 0], tf.int64))
    for temperature in (1.0, 0.25):
        images = release.generator([temperature * latents, tf.constant(_LABELS)])
        np.testing.assert_array_equal(release.sample(_LABELS, 7, temperature), np.rint(255 * images.numpy()))
    assert release.sample(_LABELS, 7, 0.25).std() < 0.5 * release.sample(_LABELS, 7).std()


def test_labels_cycle_or_have_the_shares_that_were_paid_for() -> None:
    release = _release(has_labeller=False)
    np.testing.assert_array_equal(release.labels(7), [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(release.labels(4, start=5), release.labels(9)[5:])
    uneven = dataclasses.replace(release, label_distribution=(0.0, 0.9, 0.1))
    for start, num in ((0, 100), (990, 500), (0, 20_000)):
        labels = uneven.labels(num, start)
        counts = np.bincount(labels, minlength=3)
        np.testing.assert_allclose(counts / num, [0.0, 0.9, 0.1], atol=2 / num)
        np.testing.assert_array_equal(labels, uneven.labels(start + num)[start:])
    (empty_at_the_end,) = {tuple(dataclasses.replace(release, label_distribution=(1.0, 0.0, 0.0)).labels(50))}
    assert set(empty_at_the_end) == {0}


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_out_of_range_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="`temperature`"):
        _release(has_labeller=False).sample([0], 0, temperature)


def test_without_a_labeller_a_training_set_is_the_samples_with_their_labels() -> None:
    release = _release(has_labeller=False)
    examples = release.training_set(_LABELS, 7)
    np.testing.assert_array_equal(examples.images, release.sample(_LABELS, 7))
    np.testing.assert_array_equal(examples.labels, _LABELS)
    np.testing.assert_array_equal(examples.soft_labels, np.eye(3)[_LABELS])
    assert not examples.is_augmented.any()


@pytest.mark.parametrize("seed", [7, (7, 2), (-7, 2)])
def test_with_one_other_samples_follow_augmented_and_relabelled(seed: int | tuple[int, int]) -> None:
    release = _release(has_labeller=True)
    examples = release.training_set(_LABELS, seed)
    plain = [part[:60] for part in examples]
    images, labels, soft_labels, is_augmented = (part[60:] for part in examples)
    for part, expected in zip(plain, _release(has_labeller=False).training_set(_LABELS, seed), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert release.labeller is not None
    assert is_augmented.all()
    assert (images.dtype, labels.dtype, soft_labels.dtype) == (np.uint8, np.int64, np.float32)
    np.testing.assert_allclose(soft_labels, release.labeller.probabilities(images, 5.0), atol=1e-4)
    np.testing.assert_array_equal(labels, soft_labels.argmax(axis=1))
    assert np.any(labels != _LABELS)  # it is the labeller that labels
    unmoved = Release(**{**vars(release), "augmentation": Augmentation(0, 0, 0, 0, 0, 0)}).training_set(_LABELS, seed)
    assert np.mean(np.abs(unmoved.images[60:].astype(float) - images)) > 2  # they are augmented
    assert np.mean(np.abs(unmoved.images[60:].astype(float) - unmoved.images[:60])) > 20  # and other samples
    for part, again in zip(examples, release.training_set(_LABELS, seed), strict=True):
        np.testing.assert_array_equal(part, again)
    assert np.any(images != release.training_set(_LABELS, 8).images[60:])


def test_augmented_without_a_labeller_they_keep_the_labels_that_they_were_sampled_for() -> None:
    release = dataclasses.replace(_release(has_labeller=False), augmentation=_CHANGES)
    examples = release.training_set(_LABELS, 7)
    np.testing.assert_array_equal(examples.labels, np.tile(_LABELS, 2))
    np.testing.assert_array_equal(examples.soft_labels, np.eye(3)[np.tile(_LABELS, 2)])
    np.testing.assert_array_equal(examples.images, _release(has_labeller=True).training_set(_LABELS, 7).images)


@pytest.mark.parametrize("has_labeller", [False, True])
def test_it_survives_the_disk_and_nothing_may_be_asked_for(has_labeller: bool, tmp_path: Path) -> None:
    release = _release(has_labeller=has_labeller)
    release.save(tmp_path)
    names = {"generator.keras", "release.json", *(["labeller.npz"] if has_labeller else [])}
    assert {path.name for path in tmp_path.iterdir()} == names
    loaded = Release.load(tmp_path)
    for part, expected in zip(loaded.training_set(_LABELS, 3), release.training_set(_LABELS, 3), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert loaded.augmentation == release.augmentation
    assert [len(part) for part in loaded.training_set([], 0)] == [0, 0, 0, 0]

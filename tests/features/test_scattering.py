"""Scattering: of the documented shape, of one image alone, stable where images move, and telling them apart."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data.stroke_images import random_stroke_images
from tfdpgen.features.scattering import normalised, num_channels, num_features, scattering


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1), (9, 15, 1), (5, 4, 3)])
def test_the_shape_is_the_documented_one(shape: tuple[int, int, int]) -> None:
    images = tf.random.stateless_uniform([3, *shape], seed=[0, 0])
    features = scattering(images)
    assert features.shape == (3, -(-shape[0] // 4), -(-shape[1] // 4), num_channels(shape[2]))
    assert num_channels(1) == 81
    rows = normalised(features).numpy()
    assert rows.shape == (3, np.prod(features.shape[1:])) == (3, num_features(shape))
    assert np.all(np.isfinite(rows))
    assert np.all(np.linalg.norm(rows, axis=1) <= np.sqrt(rows.shape[1]) * (1 + 1e-5))


def test_features_are_of_one_image_alone() -> None:
    images = tf.random.stateless_uniform([4, 12, 12, 1], seed=[1, 2])
    together = normalised(scattering(images))
    alone = tf.concat([normalised(scattering(images[i : i + 1])) for i in range(4)], axis=0)
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_first_order_coefficients_see_direction_and_not_brightness() -> None:
    across = np.sin(np.arange(32) * 3 * np.pi / 4)[None, None, :, None] * np.ones([1, 32, 1, 1])
    features = scattering(tf.constant(across, tf.float32)).numpy().mean(axis=(0, 1, 2))
    constant = scattering(tf.ones([1, 32, 32, 1])).numpy().mean(axis=(0, 1, 2))
    assert constant[0] == pytest.approx(1.0, rel=1e-3)
    assert np.abs(constant[1:]).max() < 1e-3  # wavelets have mean 0
    turned = scattering(tf.constant(across.transpose(0, 2, 1, 3), tf.float32)).numpy().mean(axis=(0, 1, 2))
    assert features[1:].max() > 0.05
    assert np.linalg.norm(features[1:] - turned[1:]) > 0.5 * np.linalg.norm(features[1:])


def test_a_small_shift_changes_features_less_than_another_drawing_does() -> None:
    drawings = random_stroke_images(np.random.default_rng(0), 20, (28, 28)).astype(np.float32) / 255
    features = normalised(scattering(drawings)).numpy()
    moved = normalised(scattering(np.roll(drawings, 1, axis=2))).numpy()
    shift = np.linalg.norm(features - moved, axis=1).mean()
    other = np.linalg.norm(features - np.roll(features, 1, axis=0), axis=1).mean()
    assert shift < 0.6 * other

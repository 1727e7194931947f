"""Features describe an image, their inverse makes it again, and each image is treated alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import fft

from tfdpgen.data.stroke_images import random_stroke_images
from tfdpgen.features.autoencoder import Autoencoder
from tfdpgen.features.dct import DCT, low_frequency_basis
from tfdpgen.networks.layers import get_weights, set_weights

_SHAPES = [(28, 28, 1), (16, 20, 3), (9, 15, 1)]


def _smooth(shape: tuple[int, int, int], num: int = 6) -> np.ndarray:
    """Images of few low frequencies, between .1 and .9."""
    basis = low_frequency_basis(shape, 6)
    values = np.random.default_rng(0).normal(size=(num, basis.shape[1])) @ basis.T
    values = 0.5 + 0.4 * values / np.abs(values).max(axis=1, keepdims=True)
    return values.reshape(num, *shape).astype(np.float32)


@pytest.mark.parametrize("shape", _SHAPES)
def test_the_basis_is_orthonormal_and_lowest_frequencies_come_first(shape: tuple[int, int, int]) -> None:
    basis = low_frequency_basis(shape, 12)
    assert basis.shape[1] == 12 + (4 if shape[2] == 3 else 0)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    assert np.ptp(basis[:, 0]) < 1e-12  # a constant
    waves = basis.T.reshape(-1, *shape)
    waves = waves[np.ptp(waves, axis=3).max(axis=(1, 2)) < 1e-12]  # of brightness
    rows, columns = np.divmod([np.abs(fft.dctn(wave[:, :, 0])).argmax() for wave in waves], shape[1])
    frequencies = (rows / shape[0]) ** 2 + (columns / shape[1]) ** 2
    assert np.all(np.diff(frequencies) > -1e-12)


def test_colours_are_described_more_coarsely_than_brightness() -> None:
    shape = (16, 20, 3)
    waves = low_frequency_basis(shape, 40).T.reshape(-1, *shape)
    is_grey = np.ptp(waves, axis=3).max(axis=(1, 2)) < 1e-12
    assert (is_grey.sum(), len(waves)) == (40, 48)
    np.testing.assert_allclose(waves[~is_grey].sum(axis=3), 0, atol=1e-12)  # differences, of no brightness


@pytest.mark.parametrize("shape", _SHAPES)
def test_the_dct_gives_back_what_it_can_say(shape: tuple[int, int, int]) -> None:
    features, images = DCT(shape, 40), _smooth(shape)
    made = features.inverse_transform(features.transform(images))
    np.testing.assert_allclose(made, images, atol=1e-5)
    assert features.size == (48 if shape[2] == 3 else 40)
    assert np.linalg.norm(features.transform(np.zeros((1, *shape), np.float32))) < features.radius


@pytest.mark.parametrize("shape", _SHAPES)
def test_inverses_are_stock_layers_that_keras_saves(shape: tuple[int, int, int], tmp_path: Any) -> None:
    spaces: list[Any] = [DCT(shape, 10), Autoencoder(shape, 10, 4, 0)]
    for number, space in enumerate(spaces):
        values = tf.keras.Input((space.size,))
        model = tf.keras.Model(values, space.inverse_transform(values))
        model.save(tmp_path / f"{number}.keras")
        loaded = tf.keras.models.load_model(tmp_path / f"{number}.keras", compile=False)
        points = np.random.default_rng(1).normal(size=(3, space.size)).astype(np.float32)
        np.testing.assert_array_equal(loaded(points), model(points))
        np.testing.assert_allclose(model(points), space.inverse_transform(tf.constant(points)), atol=1e-6)


@pytest.mark.parametrize("make", [DCT, lambda shape, size: Autoencoder(shape, size, 4, 0)])
def test_each_image_is_treated_alone(make: Any) -> None:
    space, images = make((28, 28, 1), 20), _smooth((28, 28, 1))
    together = np.asarray(space.transform(images))
    for place, image in enumerate(images):
        np.testing.assert_allclose(space.transform(image[None])[0], together[place], rtol=1e-4, atol=1e-5)


def test_an_autoencoder_of_strokes_learns_and_keeps_its_weights() -> None:
    images = random_stroke_images(np.random.default_rng(0), 500, (16, 16))
    space = Autoencoder((16, 16, 1), 8, 8, seed=1)
    before = np.mean(np.square(np.asarray(space.inverse_transform(space.transform(images / 255.0))) - images / 255.0))
    space.train(images, steps=150)
    made = np.asarray(space.inverse_transform(space.transform(images / 255.0)))
    assert np.mean(np.square(made - images / 255.0)) < 0.5 * before
    other = Autoencoder((16, 16, 1), 8, 8, seed=2)
    set_weights([other.encoder, other.decoder], get_weights([space.encoder, space.decoder]))
    np.testing.assert_array_equal(other.inverse_transform(other.transform(images / 255.0)), made)

"""Encoder and decoder of a conditional variational autoencoder (Kingma & Welling 2014; Sohn et al. 2015).

    encoder = build_encoder((8, 8, 1), num_classes=10, latent_dim=8, hidden_units=(128,), seed=0)
    decoder = build_decoder((8, 8, 1), num_classes=10, latent_dim=8, hidden_units=(128,), seed=0)
    mean, log_variance = encoder([images, labels])
    logits = decoder([latents, labels])

Dense layers throughout, which treat each example alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.networks.layers import Seeded, one_hot

keras = tf.keras

CLASS_LOGITS = "class_logits"


def build_encoder(
    image_shape: tuple[int, int, int], num_classes: int, latent_dim: int, hidden_units: Sequence[int], seed: int
) -> keras.Model:
    """q(z | x, y): [images float32 [n, h, w, c] in [0, 1], labels int64 [n]] -> mean, log variance [n, latent_dim]."""
    seeded = Seeded(seed)
    images = keras.Input(image_shape, name="images")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    hidden = keras.layers.Rescaling(2.0, offset=-1.0, name="centre")(images)
    hidden = keras.layers.Concatenate()([keras.layers.Flatten()(hidden), one_hot(labels, num_classes)])
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=seeded.he())(hidden)
    mean = keras.layers.Dense(latent_dim, kernel_initializer=seeded.glorot(), name="mean")(hidden)
    log_variance = keras.layers.Dense(latent_dim, kernel_initializer="zeros", name="log_variance")(hidden)
    return keras.Model([images, labels], [mean, log_variance], name="encoder")


def build_decoder(
    image_shape: tuple[int, int, int], num_classes: int, latent_dim: int, hidden_units: Sequence[int], seed: int
) -> keras.Model:
    """p(x | z, y) as logits: [latents float32 [n, latent_dim], labels int64 [n]] -> float32 [n, h, w, c].

    Beside the network, each class has logits of its own (layer `CLASS_LOGITS`), which can start from a mean image.
    """
    seeded = Seeded(seed)
    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    classes = one_hot(labels, num_classes)
    pixels = math.prod(image_shape)
    hidden = keras.layers.Concatenate()([latents, classes])
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=seeded.he())(hidden)
    variation = keras.layers.Dense(pixels, kernel_initializer=seeded.glorot(), name="variation")(hidden)
    base = keras.layers.Dense(pixels, use_bias=False, kernel_initializer="zeros", name=CLASS_LOGITS)(classes)
    logits = keras.layers.Reshape(image_shape)(keras.layers.Add()([variation, base]))
    return keras.Model([latents, labels], logits, name="decoder")


def generator_of(decoder: keras.Model) -> keras.Model:
    """The decoder as a generator of images in [0, 1]: its mean image, float32 [n, h, w, c]."""
    images = keras.layers.Activation("sigmoid", dtype="float32", name="images")(decoder.output)
    return keras.Model(decoder.inputs, images, name="generator")


def build_unconditional(
    image_shape: tuple[int, int, int], latent_dim: int, hidden_units: Sequence[int], seed: int
) -> tuple[keras.Model, keras.Model]:
    """An autoencoder that knows no classes.

    Returns:
      Encoder, images float32 [n, h, w, c] in [0, 1] -> mean, log variance [n, latent_dim], and decoder, latents
      [n, latent_dim] -> logits [n, h, w, c].
    """
    seeded = Seeded(seed)
    images = keras.Input(image_shape, name="images")
    hidden = keras.layers.Flatten()(images)
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=seeded.he())(hidden)
    mean = keras.layers.Dense(latent_dim, kernel_initializer=seeded.glorot(), name="mean")(hidden)
    log_variance = keras.layers.Dense(latent_dim, kernel_initializer="zeros", name="log_variance")(hidden)
    latents = keras.Input((latent_dim,), name="latents")
    hidden = latents
    for units in reversed(hidden_units):
        hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=seeded.he())(hidden)
    logits = keras.layers.Dense(math.prod(image_shape), kernel_initializer=seeded.glorot())(hidden)
    decoder = keras.Model(latents, keras.layers.Reshape(image_shape)(logits), name="decoder")
    return keras.Model(images, [mean, log_variance], name="encoder"), decoder


def class_gaussians(means: npt.NDArray[np.floating], factors: npt.NDArray[np.floating], latent_dim: int) -> keras.Model:
    """Latents of a Gaussian of each class: [z float32 [n, latent_dim], labels int64 [n]] -> m_y + F_y z, [n, d].

    Args:
      means: [num_classes, d].
      factors: [num_classes, d, latent_dim]; F_y F_y^T is the covariance of class y.
      latent_dim: of z.
    """
    num_classes, size, _ = factors.shape
    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    classes = one_hot(labels, num_classes)
    # The row of z in the place of its class, and zeros elsewhere, turns a factor of each class into one matrix.
    placed = keras.layers.Dot(axes=1)([keras.layers.Reshape((1, num_classes))(classes), _as_row(latents, latent_dim)])
    spread = keras.layers.Dense(size, use_bias=False, name="factors")
    centre = keras.layers.Dense(size, use_bias=False, name="means")
    result = keras.layers.Add()([spread(keras.layers.Flatten()(placed)), centre(classes)])
    model = keras.Model([latents, labels], result, name="class_gaussians")
    spread.set_weights([factors.transpose(0, 2, 1).reshape(num_classes * latent_dim, size).astype(np.float32)])
    centre.set_weights([means.astype(np.float32)])
    return model


def _as_row(latents: tf.Tensor, latent_dim: int) -> tf.Tensor:
    """[n, d] -> [n, 1, d]."""
    return keras.layers.Reshape((1, latent_dim))(latents)

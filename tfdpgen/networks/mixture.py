"""A mixture of Gaussians for each class, as a network that turns latents into samples.

    model = build_mixture(weights, means, factors)
    values = model([latents, labels])                 # latents float32 [n, 1 + q], labels int64 [n] -> [n, d]

The first latent chooses the component, the others are the component's. A model of stock Keras layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import special

keras = tf.keras


def build_mixture(
    weights: npt.NDArray[np.floating], means: npt.NDArray[np.floating], factors: npt.NDArray[np.floating]
) -> keras.Model:
    """M + F z of a component of the label's class: [latents [n, 1 + q], labels int64 [n]] -> float32 [n, d].

    Args:
      weights: [classes, components], each row adding up to 1.
      means: [classes * components, d].
      factors: [classes * components, d, q]; F F^T is the covariance of a component.
    """
    groups, size, rank = factors.shape
    latents = keras.Input((1 + rank,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    component = choose_component(weights, latents[:, 0], labels)
    factor = keras.layers.Reshape((size, rank))(_looked_up(factors.reshape(groups, -1), "factors")(component))
    values = _looked_up(means, "means")(component) + tf.linalg.matvec(factor, latents[:, 1:])
    return keras.Model([latents, labels], values, name="mixture")


def choose_component(weights: npt.NDArray[np.floating], latent: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The component's number in [0, classes * components), int64 [n]: where a standard normal latent lies.

    The line is cut into an interval for each component of the class, as probable as the component.

    Args:
      weights: [classes, components], each row adding up to 1.
      latent: float32 [n], a Keras tensor.
      labels: int64 [n], a Keras tensor.
    """
    classes, components = weights.shape
    # Beyond the reach of a float32 normal lies the end of the last interval, and of those with a weight of 0.
    cuts = np.clip(special.ndtri(np.clip(np.cumsum(weights, axis=1), 0.0, 1.0)), -10.0, 10.0)[:, :-1]
    places = _looked_up(np.concatenate([cuts, np.full((classes, 1), 10.0)], axis=1), "cuts")(labels)
    above = tf.reduce_sum(tf.cast(latent[:, None] > places, tf.int64), axis=1)
    return labels * components + tf.minimum(above, components - 1)


def _looked_up(table: npt.NDArray[np.floating], name: str) -> keras.layers.Layer:
    """A layer int64 [n] -> float32 [n, k] that gives lines of a table [m, k]."""
    layer = keras.layers.Embedding(len(table), table.shape[1], trainable=False, name=name)
    layer.build(None)
    layer.set_weights([table.astype(np.float32)])
    return layer

"""A conditional critic of feature vectors and the Wasserstein loss that trains it.

    critic = build_feature_critic(num_features=200, num_classes=10, hidden_units=64, seed=0)
    loss = wasserstein_loss(critic, real, real_labels, fakes, fake_labels, shares)

Sources: Gulrajani et al. 2017, "Improved training of Wasserstein GANs" (gradient penalty); an output for each class, of
which a loss takes that of the label: Mescheder et al. 2018, as in `gan.py`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdpgen.networks.layers import Seeded

_PENALTY = 10.0  # of Gulrajani et al. 2017


def build_feature_critic(num_features: int, num_classes: int, hidden_units: int, seed: int) -> tf.keras.Model:
    """Features float32 [n, num_features] -> scores float32 [n, num_classes]: how real one is as one of each class."""
    seeded = Seeded(seed)
    features = tf.keras.Input((num_features,), name="features")
    hidden = features
    for _ in range(2):
        hidden = tf.keras.layers.Dense(hidden_units, kernel_initializer=seeded.he())(hidden)
        hidden = tf.keras.layers.LeakyReLU(0.2)(hidden)
    scores = tf.keras.layers.Dense(num_classes, kernel_initializer=seeded.glorot(), name="scores")(hidden)
    return tf.keras.Model(features, scores, name="critic")


def scores_of(critic: tf.keras.Model, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The scores of features [n, d] as ones of their labels [n]: float32 [n]."""
    return tf.gather(critic(features), labels, axis=1, batch_dims=1)


def wasserstein_loss(
    critic: tf.keras.Model,
    real: tf.Tensor,
    real_labels: tf.Tensor,
    fakes: tf.Tensor,
    fake_labels: tf.Tensor,
    shares: tf.Tensor,
) -> tf.Tensor:
    """The critic's loss with gradient penalty: float32 [].

    Args:
      critic: of `build_feature_critic`.
      real: features [b, d].
      real_labels: int64 [b].
      fakes: features [m, d].
      fake_labels: int64 [m].
      shares: uniform in [0, 1), [b, 1]: of the real one in each point that the penalty is taken at.
    """
    between = shares * real + (1 - shares) * tf.gather(fakes, tf.range(real.shape[0]) % fakes.shape[0])
    slopes = tf.sqrt(tf.reduce_sum(slopes_of(critic, between, real_labels) ** 2, axis=1) + 1e-12)
    apart = tf.reduce_mean(scores_of(critic, fakes, fake_labels)) - tf.reduce_mean(scores_of(critic, real, real_labels))
    return apart + _PENALTY * tf.reduce_mean((slopes - 1) ** 2)


def slopes_of(critic: tf.keras.Model, features: tf.Tensor, labels: tf.Tensor) -> Any:
    """Gradients of the scores with respect to the features: float32 [n, d]."""
    with tf.GradientTape() as tape:
        tape.watch(features)
        scores = scores_of(critic, features, labels)
    return tape.gradient(scores, features)

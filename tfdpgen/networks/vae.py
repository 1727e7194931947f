"""Encoders and decoders of variational autoencoders (Kingma & Welling 2014), conditional ones (Sohn et al. 2015) too.

    encoder = build_encoder(num_features=50, num_groups=10, latent_dim=8, hidden_units=(128,), seed=0)
    decoder = build_decoder(num_features=50, num_groups=10, latent_dim=8, hidden_units=(128,), seed=0)
    set_gaussians(encoder, decoder, means, factors, variance=0.05)
    mean, log_variance = encoder([features, groups])      # groups one-hot, float32 [n, num_groups]
    features = decoder([latents, groups])

The conditional ones describe feature vectors, of which each belongs to a group. They have a linear half, which no
training changes: a Gaussian of each group and its posterior, which is the best that there is for data that are
Gaussian (probabilistic PCA, Tipping & Bishop 1999). A network of dense layers corrects it, in which the last layer
starts with zeros. Everything treats each example alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import special

from tfdpgen.networks.layers import Seeded

keras = tf.keras

_MEANS, _FACTORS, _PROJECTIONS, _WIDTHS = "means", "factors", "projections", "widths"


def build_encoder(
    num_features: int, num_groups: int, latent_dim: int, hidden_units: Sequence[int], seed: int
) -> keras.Model:
    """q(z | x, group): features and groups one-hot -> mean, log variance, both float32 [n, latent_dim].

    Features are float32 [n, num_features], groups float32 [n, num_groups].
    """
    seeded = Seeded(seed)
    features = keras.Input((num_features,), name="features")
    groups = keras.Input((num_groups,), name="groups")
    hidden = _hidden([features, groups], hidden_units, seeded)
    outputs = []
    for name, base in (
        ("mean", _linear(features, groups, num_features, latent_dim, _PROJECTIONS)),
        ("log_variance", _frozen(latent_dim, _WIDTHS)(groups)),
    ):
        correction = keras.layers.Dense(latent_dim, kernel_initializer="zeros", name=f"{name}_correction")(hidden)
        outputs.append(keras.layers.Add(name=name)([base, correction]))
    return keras.Model([features, groups], outputs, name="encoder")


def build_decoder(
    num_features: int, num_groups: int, latent_dim: int, hidden_units: Sequence[int], seed: int
) -> keras.Model:
    """The mean of p(x | z, group): [latents [n, latent_dim], groups one-hot [n, num_groups]] -> [n, num_features].

    All float32.
    """
    seeded = Seeded(seed)
    latents = keras.Input((latent_dim,), name="latents")
    groups = keras.Input((num_groups,), name="groups")
    hidden = _hidden([latents, groups], hidden_units, seeded)
    correction = keras.layers.Dense(num_features, kernel_initializer="zeros", name="correction")(hidden)
    base = _linear(latents, groups, latent_dim, num_features, _FACTORS)
    return keras.Model([latents, groups], keras.layers.Add()([base, correction]), name="decoder")


def set_gaussians(
    encoder: keras.Model,
    decoder: keras.Model,
    means: npt.NDArray[np.floating],
    factors: npt.NDArray[np.floating],
    variance: float,
) -> None:
    """Makes the linear halves those of a Gaussian for each group, and of its exact posterior.

    Args:
      encoder: from `build_encoder`, with d features, g groups and l latents.
      decoder: from `build_decoder`, with as many.
      means: [g, d].
      factors: [g, d, l], the decoder's; what it makes has covariance F F^T.
      variance: of what an example differs by from what the decoder makes, in each feature.
    """
    groups, _, latents = factors.shape
    posteriors = np.linalg.inv(np.eye(latents) + factors.transpose(0, 2, 1) @ factors / variance)
    projections = posteriors @ factors.transpose(0, 2, 1) / variance
    decoder.get_layer(_FACTORS).set_weights([factors.transpose(0, 2, 1).reshape(groups * latents, -1)])
    decoder.get_layer(f"{_FACTORS}_{_MEANS}").set_weights([means])
    encoder.get_layer(_PROJECTIONS).set_weights([projections.transpose(0, 2, 1).reshape(-1, latents)])
    encoder.get_layer(f"{_PROJECTIONS}_{_MEANS}").set_weights([-np.einsum("gld,gd->gl", projections, means)])
    encoder.get_layer(_WIDTHS).set_weights([np.log(np.diagonal(posteriors, axis1=1, axis2=2))])


def build_grouping(num_features: int, num_classes: int, num_groups: int) -> keras.Model:
    """[features float32 [n, d], labels int64 [n]] -> float32 one-hot [n, num_groups], by the nearest mean of the class.

    Each class has as many groups; its means are zeros until `set_grouping`. Nothing in it is trained.
    """
    of_class = num_groups // num_classes
    features = keras.Input((num_features,), name="features")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    means = keras.layers.Embedding(num_classes, of_class * num_features, trainable=False, name=_MEANS)(labels)
    means = keras.layers.Reshape((of_class, num_features))(means)
    distances = tf.reduce_sum(tf.square(means - keras.layers.Reshape((1, num_features))(features)), axis=2)
    nearest = tf.one_hot(tf.argmin(distances, axis=1), of_class)
    outer = [
        keras.layers.Reshape((num_classes, 1))(tf.one_hot(labels, num_classes)),
        keras.layers.Reshape((1, of_class))(nearest),
    ]
    groups = keras.layers.Flatten()(keras.layers.Multiply()(outer))
    return keras.Model([features, labels], groups, name="grouping")


def set_grouping(grouping: keras.Model, means: npt.NDArray[np.floating]) -> None:
    """Gives a model of `build_grouping` its means, [num_groups, d], those of a class beside each other."""
    layer = grouping.get_layer(_MEANS)
    layer.set_weights([means.reshape(layer.input_dim, -1)])


def component_posterior(weights: npt.NDArray[np.floating], groups: tf.Tensor) -> list[tf.Tensor]:
    """Mean and log variance, both [n, 1], of the latent that chooses a component: its interval's middle and width.

    Args:
      weights: [classes, components], each row adding up to 1; see `mixture.choose_component`.
      groups: one-hot [n, classes * components], a Keras tensor.
    """
    below = np.cumsum(np.concatenate([np.zeros((len(weights), 1)), weights], axis=1), axis=1)
    ends = np.clip(special.ndtri(np.clip(below, 0.0, 1.0)), -8.0, 8.0)
    middles, widths = (ends[:, 1:] + ends[:, :-1]) / 2, np.maximum(ends[:, 1:] - ends[:, :-1], 1e-3)
    columns = []
    for values in (middles, np.log(np.square(widths) / 12)):
        layer = keras.layers.Dense(1, use_bias=False, trainable=False)
        columns.append(layer(groups))
        layer.set_weights([values.reshape(-1, 1)])
    return columns


def _hidden(inputs: Sequence[tf.Tensor], hidden_units: Sequence[int], seeded: Seeded) -> tf.Tensor:
    """Dense layers with ReLU on all inputs side by side."""
    hidden = keras.layers.Concatenate()(inputs)
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=seeded.he())(hidden)
    return hidden


def _frozen(units: int, name: str) -> keras.layers.Layer:
    """A matrix that no training changes, zeros at first."""
    return keras.layers.Dense(units, use_bias=False, kernel_initializer="zeros", trainable=False, name=name)


def _linear(inputs: tf.Tensor, groups: tf.Tensor, size: int, units: int, name: str) -> tf.Tensor:
    """A matrix and an offset of each group, which no training changes: [n, size] -> [n, units]."""
    num_groups = groups.shape[1]
    # The row in the place of its group, and zeros elsewhere, turns a matrix of each group into one.
    placed = [keras.layers.Reshape((num_groups, 1))(groups), keras.layers.Reshape((1, size))(inputs)]
    placed = keras.layers.Flatten()(keras.layers.Multiply()(placed))
    return keras.layers.Add()([_frozen(units, name)(placed), _frozen(units, f"{name}_{_MEANS}")(groups)])

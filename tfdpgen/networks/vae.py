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

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import special

from tfdpgen.networks.layers import Seeded, one_hot

keras = tf.keras

_MEANS, _FACTORS, _PROJECTIONS, _WIDTHS = "means", "factors", "projections", "widths"
_EDGE = 1e6  # how steep the selector's steps are


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


def build_selector(probabilities: npt.NDArray[np.floating]) -> keras.Model:
    """One of the groups of a class, drawn by one latent: [z float32 [n, 1], labels int64 [n]] -> one-hot [n, c * k].

    Where z is standard normal, group j of class y is number y * k + j and comes with its probability. The line of z is
    cut into k intervals for each class.

    Args:
      probabilities: [c, k], each row adding up to 1, of the groups of each class.
    """
    num_classes, size = probabilities.shape
    latents = keras.Input((1,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    classes = one_hot(labels, num_classes)
    cuts = _frozen(size - 1, "cuts")
    above = keras.layers.Subtract()(
        [keras.layers.Flatten()(keras.layers.RepeatVector(size - 1)(latents)), cuts(classes)]
    )
    above = keras.layers.ReLU(max_value=1.0)(keras.layers.Rescaling(_EDGE, offset=0.5)(above))
    shares = keras.layers.Dense(size, trainable=False, name="shares")
    outer = [keras.layers.Reshape((num_classes, 1))(classes), keras.layers.Reshape((1, size))(shares(above))]
    model = keras.Model([latents, labels], keras.layers.Flatten()(keras.layers.Multiply()(outer)), name="selector")
    cuts.set_weights([interval_ends(probabilities)[:, 1:-1]])
    steps = np.zeros((size - 1, size))
    steps[np.arange(size - 1), np.arange(1, size)] = 1.0
    steps[np.arange(size - 1), np.arange(size - 1)] = -1.0
    shares.set_weights([steps, np.eye(size)[0]])
    return model


def interval_ends(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Ends of the intervals [c, k + 1] into which `build_selector` cuts the line for each class; from -8 to 8."""
    below = np.cumsum(np.concatenate([np.zeros((len(probabilities), 1)), probabilities], axis=1), axis=1)
    return np.clip(special.ndtri(np.clip(below, 0.0, 1.0)), -8.0, 8.0)


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
    decoder = keras.Model(latents, keras.layers.Reshape(image_shape)(logits), name="unconditional_decoder")
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

"""A mixture of Gaussians for each class, as networks: one that samples, and one that takes noise off.

    model = build_mixture(weights, means, factors)
    values = model([latents, labels])                 # latents float32 [n, 1 + q], labels int64 [n] -> [n, d]

    denoiser = build_denoiser(basis, image_shape, num_classes=10, components=8, rank=100, variance=0.002)
    set_mixture(denoiser, weights, means, factors)
    mean, deviation = denoiser([noisy_images, noise_levels, labels])

In the first, the first latent chooses the component, the others are the component's. The second is exact: for images
that are samples of the mixture it is the best denoiser that there is. Both are of stock Keras layers.
"""

from __future__ import annotations

import math

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
      factors: [classes * components, d, q]; F F^T is the covariance of a component. [1, d, q] where all share one.
    """
    groups, size, rank = factors.shape
    latents = keras.Input((1 + rank,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    component = choose_component(weights, latents[:, 0], labels)
    place = component if groups > 1 else tf.zeros_like(component)
    factor = keras.layers.Reshape((size, rank))(_looked_up(factors.reshape(groups, -1), "factors")(place))
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


def build_denoiser(
    basis: npt.NDArray[np.floating],
    origin: float,
    image_shape: tuple[int, int, int],
    num_classes: int,
    components: int,
    covariances: int,
    rank: int,
    variance: float,
) -> keras.Model:
    """What clean images are, given noisy ones: [images [n, h, w, c], noise levels [n, 1], labels int64 [n]] -> two.

    Images are those of a component of their class, sampled from a Gaussian with covariance B F F^T B^T + v I, and the
    noise is normal with the standard deviation that the noise level says. Outputs are the posterior mean float32 [n, h,
    w, c] and the root mean square of what pixels differ by from it [n, 1], both exact (Bishop 2006, section 2.3.3).
    All weights are those of `set_mixture`; until then, means are at the origin and F is 0.

    Args:
      basis: B float [h * w * c, d], of orthonormal columns.
      origin: pixel value that a mean of 0 stands for.
      image_shape: (h, w, c).
      num_classes: of labels.
      components: of each class.
      covariances: num_classes * components, or 1 where all share one.
      rank: columns of F, at most d.
      variance: v, of each pixel.
    """
    pixels, size = basis.shape
    images = keras.Input(image_shape, name="images")
    levels = keras.Input((1,), name="noise_levels")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    place = labels if covariances > 1 else tf.zeros_like(labels)
    of_place = components if covariances > 1 else 1

    def table(name: str, lines: int, index: tf.Tensor, *shape: int) -> tf.Tensor:
        layer = keras.layers.Embedding(
            lines, math.prod(shape), embeddings_initializer="zeros", trainable=False, name=name
        )
        return keras.layers.Reshape(shape)(layer(index))

    def fixed(kernel: npt.NDArray[np.floating], bias: npt.NDArray[np.floating], name: str) -> keras.layers.Layer:
        layer = keras.layers.Dense(kernel.shape[1], trainable=False, name=name)
        layer.build((None, len(kernel)))
        layer.set_weights([kernel, bias])
        return layer

    features = fixed(basis, -origin * basis.sum(axis=0), "dct")(keras.layers.Flatten()(images))
    means = table("means", num_classes, labels, components, size)
    axes = table("axes", num_classes if covariances > 1 else 1, place, of_place, rank, size)
    variances = table("variances", num_classes if covariances > 1 else 1, place, of_place, rank)
    log_weights = table("log_weights", num_classes, labels, components)

    noise = keras.layers.Reshape((1, 1))(tf.square(levels))  # [n, 1, 1]
    along, other = variances + (variance + noise), variance + noise  # variances of noisy images
    differences = features[:, None, :] - means
    scores = tf.linalg.matvec(axes, differences)  # [n, components, rank], along the axes of a component
    squares = tf.reduce_sum(tf.square(differences), axis=2) / other[:, 0]
    squares -= tf.reduce_sum(tf.square(scores) * (1 / other - 1 / along), axis=2)
    likelihoods = log_weights - (squares + tf.reduce_sum(tf.math.log(along / other), axis=2)) / 2
    shares = keras.layers.Softmax()(likelihoods)[:, :, None]

    kept = variance / other  # of what differs from a mean in no direction of F
    moves = tf.linalg.matvec(axes, scores * ((variances + variance) / along - kept), transpose_a=True)
    found = tf.reduce_sum(shares * (means * (1 - kept) + moves), axis=1)
    rest = keras.layers.Reshape((1, 1, 1))(kept) * (images - origin)
    back = fixed(basis.T, np.full(pixels, origin), "inverse_dct")(found)
    mean = keras.layers.Add(name="mean")([keras.layers.Reshape(image_shape)(back), rest])

    left = tf.reduce_sum(shares * ((variances + variance) * noise / along - variance * noise / other), axis=[1, 2])
    total = keras.layers.Reshape((1,))(left) / pixels + (variance * noise / other)[:, 0]
    return keras.Model([images, levels, labels], [mean, tf.sqrt(total)], name="mixture_denoiser")


def set_mixture(
    denoiser: keras.Model,
    weights: npt.NDArray[np.floating],
    means: npt.NDArray[np.floating],
    factors: npt.NDArray[np.floating],
) -> None:
    """Gives a model of `build_denoiser` its mixture.

    Args:
      denoiser: with as many classes and components.
      weights: [classes, components], each row adding up to 1.
      means: [classes * components, d].
      factors: [classes * components, d, q], of orthogonal columns, with q of at most `rank`; [1, d, q] where all share
        one.
    """
    classes, components = weights.shape
    groups, size, used = factors.shape
    lines, rank = len(denoiser.get_layer("variances").get_weights()[0]), denoiser.get_layer("axes").output_dim
    rank = rank // size // (groups // lines)
    variances = np.zeros((groups, rank))
    variances[:, :used] = np.square(factors).sum(axis=1)
    axes = np.zeros((groups, rank, size))
    axes[:, :used] = factors.transpose(0, 2, 1) / np.sqrt(np.maximum(variances[:, :used, None], 1e-12))
    for name, values in (
        ("means", means.reshape(classes, components * size)),
        ("axes", axes.reshape(lines, -1)),
        ("variances", variances.reshape(lines, -1)),
        ("log_weights", np.log(np.maximum(weights, 1e-12))),
    ):
        denoiser.get_layer(name).set_weights([values.astype(np.float32)])


def _looked_up(table: npt.NDArray[np.floating], name: str) -> keras.layers.Layer:
    """A layer int64 [n] -> float32 [n, k] that gives lines of a table [m, k]."""
    layer = keras.layers.Embedding(len(table), table.shape[1], trainable=False, name=name)
    layer.build(None)
    layer.set_weights([table.astype(np.float32)])
    return layer

"""Generator and critic of a conditional GAN on images: convolutions in the manner of DCGAN (Radford et al. 2016).

    generator = build_generator((28, 28, 1), num_classes=10, latent_dim=64, filters=32, seed=0)
    critic = build_critic((28, 28, 1), num_classes=10, filters=32, seed=0)
    images = generator([latents, labels])
    scores = critic(images)                  # [n, num_classes]: how real an image is as one of each class

The critic has an output for each class and sees no label: the score of an image is the output of its label (Mescheder
et al. 2018, "Which training methods for GANs do actually converge?"). That is the projection critic of Miyato & Koyama
2018 without the term that all classes share. The critic holds no normalisation: what mixes the examples of a batch
cannot be clipped example by example. The generator sees no private example, and is normalised over the batch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.networks.layers import Seeded, one_hot, scaled_columns

keras = tf.keras

_SMALLEST_SIDE = 7  # of the feature maps where the generator starts and the critic ends, at most
_MOST_DOUBLINGS = 2  # of the number of filters


def build_generator(
    image_shape: tuple[int, int, int], num_classes: int, latent_dim: int, filters: int, seed: int
) -> keras.Model:
    """[latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in [0, 1].

    Args:
      image_shape: (h, w, c); sides that are not a power of 2 times the smallest are cropped from larger ones.
      num_classes: of labels.
      latent_dim: size of a latent vector.
      filters: of the feature maps of half the image's sides; twice as many at a quarter, four times from there on.
      seed: of the initial weights.
    """
    seeded = Seeded(seed)
    height, width, channels = image_shape
    halvings = _halvings(height, width)
    sizes = [filters * 2 ** min(level, _MOST_DOUBLINGS) for level in reversed(range(halvings))]
    side = 2**halvings
    start = (math.ceil(height / side), math.ceil(width / side), sizes[0])

    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    hidden = keras.layers.Concatenate()([latents, one_hot(labels, num_classes)])
    hidden = keras.layers.Dense(math.prod(start), use_bias=False, kernel_initializer=seeded.he())(hidden)
    hidden = _normalised(keras.layers.Reshape(start)(hidden))
    for size in sizes[1:]:
        # Kernels of twice the stride: every pixel is made of as many terms, and no grid shows (Odena et al. 2016).
        layer = keras.layers.Conv2DTranspose(size, 4, 2, padding="same", use_bias=False, kernel_initializer=seeded.he())
        hidden = _normalised(layer(hidden))
    logits = keras.layers.Conv2DTranspose(channels, 4, 2, padding="same", kernel_initializer=seeded.glorot())(hidden)
    above, left = start[0] * side - height, start[1] * side - width
    if above or left:
        logits = keras.layers.Cropping2D(((above // 2, above - above // 2), (left // 2, left - left // 2)))(logits)
    images = keras.layers.Activation("sigmoid", dtype="float32", name="images")(logits)
    return keras.Model([latents, labels], images, name="generator")


def build_feature_generator(
    scales: npt.NDArray[np.floating], num_classes: int, latent_dim: int, hidden_units: int, seed: int
) -> keras.Model:
    """[latents float32 [n, latent_dim], labels int64 [n]] -> features float32 [n, d], by dense layers.

    Args:
      scales: [d], what each feature is multiplied by at the end: about its standard deviation.
      num_classes: of labels.
      latent_dim: size of a latent vector.
      hidden_units: of each of three layers.
      seed: of the initial weights.
    """
    seeded = Seeded(seed)
    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    hidden = keras.layers.Concatenate()([latents, one_hot(labels, num_classes)])
    for _ in range(3):
        hidden = keras.layers.Dense(hidden_units, use_bias=False, kernel_initializer=seeded.he())(hidden)
        hidden = _normalised(hidden)
    features = keras.layers.Dense(len(scales), kernel_initializer=seeded.glorot())(hidden)
    return keras.Model([latents, labels], scaled_columns(scales, "scales")(features), name="feature_generator")


def build_critic(image_shape: tuple[int, int, int], num_classes: int, filters: int, seed: int) -> keras.Model:
    """Images float32 [n, h, w, c] in [0, 1] -> scores float32 [n, num_classes], each example on its own.

    Args:
      image_shape: (h, w, c).
      num_classes: number of scores.
      filters: of the first convolution; twice as many in the second, four times from there on.
      seed: of the initial weights.
    """
    seeded = Seeded(seed)
    height, width, _ = image_shape
    kernel = 5 if min(height, width) >= 16 else 3
    images = keras.Input(image_shape, name="images")
    hidden = keras.layers.Rescaling(2.0, offset=-1.0)(images)
    for level in range(max(2, _halvings(height, width))):
        size = filters * 2 ** min(level, _MOST_DOUBLINGS)
        layer = keras.layers.Conv2D(size, kernel, 2, padding="same", kernel_initializer=seeded.he())
        hidden = keras.layers.LeakyReLU(0.2)(layer(hidden))
    layer = keras.layers.Dense(num_classes, kernel_initializer=seeded.glorot(), name="scores")
    return keras.Model(images, layer(keras.layers.Flatten()(hidden)), name="critic")


def _normalised(hidden: tf.Tensor) -> tf.Tensor:
    """Batch normalisation and a ReLU."""
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(hidden))


def _halvings(height: int, width: int) -> int:
    """How often the sides are halved until the longer one is small; at least once."""
    return max(1, math.ceil(math.log2(max(height, width) / _SMALLEST_SIDE)))

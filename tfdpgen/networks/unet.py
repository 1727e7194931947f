"""A small U-Net that treats each example alone: residual blocks of convolutions at a few resolutions.

    network = build_unet((28, 28, 2), channels=1, num_conditions=18, filters=16, seed=0)
    images = network([inputs, conditions])            # [n, 28, 28, 2], [n, 18] -> float32 [n, 28, 28, 1]

Each resolution has half the sides of the one before and twice the filters; what was seen on the way down is laid beside
what comes up again (Ronneberger, Fischer & Brox 2015, "U-Net"). The conditions, such as a noise level and a label, move
the features of every block (Ho, Jain & Abbeel 2020). There is no normalisation: what mixes the examples of a batch
cannot be clipped example by example, and so shallow a network does without. Large images are first cut into patches, so
that an example costs the same whatever its size (Peebles & Xie 2023, "DiT").
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfdpgen.networks.layers import Seeded

keras = tf.keras

_LARGEST_SIDE, _SMALLEST_SIDE = 32, 7  # of the feature maps at the highest and the lowest resolution, about
_MOST_DOUBLINGS = 2  # of the number of filters
_CONDITIONED = 64  # units that the conditions pass through


def build_unet(
    input_shape: tuple[int, int, int], channels: int, num_conditions: int, filters: int, seed: int
) -> keras.Model:
    """[inputs float32 [n, h, w, c], conditions float32 [n, num_conditions]] -> float32 [n, h, w, channels].

    The last layer starts with zeros, and so does the output.

    Args:
      input_shape: (h, w, c); sides that are no multiple of the strides are padded and cropped.
      channels: of the output.
      num_conditions: numbers that every block is told.
      filters: at the highest resolution, which is at most about 32 by 32.
      seed: of the initial weights.
    """
    seeded = Seeded(seed)
    height, width, _ = input_shape
    patch = 2 ** max(0, round(math.log2(max(height, width) / _LARGEST_SIDE)))
    levels = max(1, round(math.log2(max(height, width) / patch / _SMALLEST_SIDE)))
    side = patch * 2**levels
    below, right = -height % side, -width % side

    inputs, conditions = keras.Input(input_shape, name="inputs"), keras.Input((num_conditions,), name="conditions")
    known = keras.layers.Dense(_CONDITIONED, "swish", kernel_initializer=seeded.he())(conditions)
    hidden = keras.layers.ZeroPadding2D(((0, below), (0, right)))(inputs) if below or right else inputs
    hidden = _convolution(seeded, filters, 3 if patch == 1 else 2 * patch, patch)(hidden)
    passed = []
    for level in range(levels):
        hidden = _block(hidden, known, _size(filters, level), seeded)
        passed.append(hidden)
        hidden = _convolution(seeded, _size(filters, level + 1), 4, 2)(hidden)
    hidden = _block(hidden, known, _size(filters, levels), seeded)
    for level in reversed(range(levels)):
        size = _size(filters, level)
        # Kernels of twice the stride: every pixel is made of as many terms, and no grid shows (Odena et al. 2016).
        larger = keras.layers.Conv2DTranspose(size, 4, 2, padding="same", kernel_initializer=seeded.he())(hidden)
        hidden = _block(keras.layers.Concatenate()([larger, passed[level]]), known, size, seeded)
    hidden = keras.layers.Activation("swish")(hidden)
    last: Any = {"padding": "same", "kernel_initializer": "zeros", "name": "last"}
    if patch == 1:
        outputs = keras.layers.Conv2D(channels, 3, **last)(hidden)
    else:
        outputs = keras.layers.Conv2DTranspose(channels, 2 * patch, patch, **last)(hidden)
    if below or right:
        outputs = keras.layers.Cropping2D(((0, below), (0, right)))(outputs)
    return keras.Model([inputs, conditions], outputs, name="unet")


def _block(inputs: tf.Tensor, known: tf.Tensor, size: int, seeded: Seeded) -> tf.Tensor:
    """Two convolutions beside a way around them (He et al. 2016); the conditions move what is between the two."""
    hidden = _convolution(seeded, size)(keras.layers.Activation("swish")(inputs))
    moved = keras.layers.Dense(size, kernel_initializer="zeros")(known)
    hidden = keras.layers.Add()([hidden, keras.layers.Reshape((1, 1, size))(moved)])
    hidden = _convolution(seeded, size)(keras.layers.Activation("swish")(hidden))
    if inputs.shape[-1] != size:
        inputs = _convolution(seeded, size, 1)(inputs)
    return keras.layers.Add()([inputs, hidden])


def _convolution(seeded: Seeded, size: int, kernel: int = 3, stride: int = 1) -> keras.layers.Layer:
    return keras.layers.Conv2D(size, kernel, stride, padding="same", kernel_initializer=seeded.glorot())


def _size(filters: int, level: int) -> int:
    """Filters at a level; 0 has the highest resolution."""
    return filters * 2 ** min(level, _MOST_DOUBLINGS)

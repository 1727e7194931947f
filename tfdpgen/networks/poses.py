"""Poses: where an image's brightness lies and how it leans, taken off an image and given back to it.

    poses = measured(images)                       # float32 [n, 3] of images float32 [n, h, w, c]
    upright = moved(images, poses)                 # in the middle, not leaning
    images = moved(upright, poses, back=True)      # up to interpolation

Images of things that are drawn or photographed here or there, upright or leaning, are far from Gaussian in their
pixels; with the pose described by numbers of its own, what is left is closer to it. Everything is a function of one
image at a time and of constants: it costs no privacy and mixes no examples. On Keras tensors it makes layers of stock
Keras.

Source: normalisation by image moments, Hu 1962, "Visual pattern recognition by moment invariants".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

NUM_POSES = 3  # numbers of a pose
_LEAST_LIGHT = 4e-5  # for each pixel: an image without any has its middle in the middle
_MOST_SHEAR = 1.0
_LEAST_HEIGHT = (
    0.1  # standard deviation of the rows, as a share of the height, below which leaning is not measured well
)


def measured(images: Any) -> Any:
    """The pose of each image, float32 [n, 3]: shift to the right and down in pixels, and pixels of lean for each row.

    The shift is that of the centre of brightness (the mean over channels) from the image's middle, the lean what makes
    columns and rows uncorrelated; at most one pixel for each row.

    Args:
      images: float32 [n, h, w, c], not negative.
    """
    height, width, _ = images.shape[1:]
    y, x = _centred(height), _centred(width)
    light = tf.reduce_mean(images, axis=-1)
    by_row, by_column = tf.reduce_sum(light, axis=2), tf.reduce_sum(light, axis=1)
    mass = tf.reduce_sum(by_row, axis=1, keepdims=True) + _LEAST_LIGHT * height * width
    right = tf.reduce_sum(by_column * x, axis=1, keepdims=True) / mass
    down = tf.reduce_sum(by_row * y, axis=1, keepdims=True) / mass
    of_rows = tf.reduce_sum(by_row * y * y, axis=1, keepdims=True) / mass - down * down
    products = tf.reduce_sum(tf.reduce_sum(light * x, axis=2) * y, axis=1, keepdims=True) / mass - right * down
    lean = products / tf.maximum(of_rows, (_LEAST_HEIGHT * height) ** 2)
    return tf.concat([right, down, tf.clip_by_value(lean, -_MOST_SHEAR, _MOST_SHEAR)], axis=1)


def moved(images: Any, poses: Any, back: bool = False) -> Any:
    """Images without their pose or, with `back`, with it; bilinear, edges continued.

    Args:
      images: float32 [n, h, w, c].
      poses: float32 [n, 3], as `measured` has them.
      back: gives an image that has no pose the one that is named.

    Returns:
      float32 [n, h, w, c].
    """
    height, width, _ = images.shape[1:]
    right, down, lean = poses[:, 0:1], poses[:, 1:2], poses[:, 2:3]
    y = _centred(height)
    # Constants stand on the right: Keras saves them as lists, which have no operators of their own.
    if back:
        rows = -down + y
        columns = -(right + lean * rows)
    else:
        rows, columns = down + y, right + lean * y
    upper, lower, part = _neighbours(rows, height)
    part = part[:, :, None, None]
    between = tf.gather(images, upper, axis=1, batch_dims=1) * (1.0 - part)
    between += tf.gather(images, lower, axis=1, batch_dims=1) * part
    left, after, part = _neighbours(columns[:, :, None] + _centred(width), width)
    part = part[:, :, :, None]
    result = tf.gather(between, left, axis=2, batch_dims=2) * (1.0 - part)
    return result + tf.gather(between, after, axis=2, batch_dims=2) * part


def _centred(size: int) -> np.ndarray:
    """Places along a side, from its middle: float32 [size]."""
    return np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)


def _neighbours(places: Any, size: int) -> tuple[Any, Any, Any]:
    """Pixels before and after places from the middle, and how much the latter counts; cut off at the edges."""
    inside = tf.clip_by_value(places + (size - 1) / 2, 0.0, float(size - 1))
    before = tf.floor(inside)
    first = tf.cast(before, tf.int32)
    return first, tf.minimum(first + 1, size - 1), inside - before

"""Deskewing: shift and shear of an image, taken off before its DCT coefficients and given back afterwards.

    features = DeskewedDCT((28, 28, 1), num_coefficients=150)
    features.transform(images)                        # [n, 150]: shift right, shift down, shear, 147 coefficients

Images of things that are drawn here or there, upright or leaning, are far from Gaussian in their pixels; with shift and
shear as numbers of their own, what is left is closer to it. Everything is a function of one image and of constants. On
Keras tensors it makes layers of stock Keras.

Source: normalisation by image moments, Hu 1962, "Visual pattern recognition by moment invariants".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.features.dct import DCT

_NUMBERS = 3  # shift to the right, shift down, shear
_SCALES = (1.0, 1.0, 0.18)  # of shifts as shares of a side, and of the shear, times the root of the number of pixels
_LEAST_LIGHT = 4e-5  # for each pixel: an image without any has its middle in the middle
_MOST_SHEAR = 1.0
_LEAST_HEIGHT = 0.1  # standard deviation over lines, as a share of the height, below which a shear is not measured well


def measure_skew(images: Any) -> Any:
    """Shift and shear of each image, float32 [n, 3]: pixels to the right, pixels down, pixels of shear for each line.

    The shift is that of the centre of brightness (the mean over channels) from the image's middle; the shear is what
    makes horizontal and vertical places uncorrelated, at most one pixel for each line.

    Args:
      images: float32 [n, h, w, c], not negative.
    """
    height, width, _ = images.shape[1:]
    y, x = _centred(height), _centred(width)
    light = tf.reduce_mean(images, axis=-1)
    by_line, by_column = tf.reduce_sum(light, axis=2), tf.reduce_sum(light, axis=1)
    mass = tf.reduce_sum(by_line, axis=1, keepdims=True) + _LEAST_LIGHT * height * width
    right = tf.reduce_sum(by_column * x, axis=1, keepdims=True) / mass
    down = tf.reduce_sum(by_line * y, axis=1, keepdims=True) / mass
    over_lines = tf.reduce_sum(by_line * y * y, axis=1, keepdims=True) / mass - down * down
    products = tf.reduce_sum(tf.reduce_sum(light * x, axis=2) * y, axis=1, keepdims=True) / mass - right * down
    shear = products / tf.maximum(over_lines, (_LEAST_HEIGHT * height) ** 2)
    return tf.concat([right, down, tf.clip_by_value(shear, -_MOST_SHEAR, _MOST_SHEAR)], axis=1)


def deskew(images: Any, skew: Any, *, inverse: bool = False) -> Any:
    """Images without this shift and shear or, with `inverse`, with them; bilinear, edges continued.

    Args:
      images: float32 [n, h, w, c].
      skew: float32 [n, 3], as `measure_skew` has it.
      inverse: shifts and shears an image that is upright and in the middle.

    Returns:
      float32 [n, h, w, c].
    """
    height, width, _ = images.shape[1:]
    right, down, shear = skew[:, 0:1], skew[:, 1:2], skew[:, 2:3]
    y = _centred(height)
    # Constants stand on the right: Keras saves them as lists, which have no operators of their own.
    if inverse:
        lines = -down + y
        columns = -(right + shear * lines)
    else:
        lines, columns = down + y, right + shear * y
    upper, lower, part = _neighbours(lines, height)
    part = part[:, :, None, None]
    between = tf.gather(images, upper, axis=1, batch_dims=1) * (1.0 - part)
    between += tf.gather(images, lower, axis=1, batch_dims=1) * part
    left, after, part = _neighbours(columns[:, :, None] + _centred(width), width)
    part = part[:, :, :, None]
    result = tf.gather(between, left, axis=2, batch_dims=2) * (1.0 - part)
    return result + tf.gather(between, after, axis=2, batch_dims=2) * part


class DeskewedDCT:
    """Shift, shear and the lowest DCT coefficients of what is left without them: as many features as `DCT` has.

    Args:
      image_shape: (h, w, c).
      num_coefficients: of each channel; the highest three give way to shift and shear.

    Attributes:
      size: d, how many features there are.
      radius: as that of `DCT`.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_coefficients: int) -> None:
        height, width, _ = image_shape
        self._dct = DCT(image_shape, num_coefficients)
        self.size, self.radius = self._dct.size, self._dct.radius
        self._dct.basis = self._dct.basis[:, : self.size - _NUMBERS]
        self._scales = (np.array(_SCALES) * math.sqrt(height * width) / [width, height, 1.0]).astype(np.float32)

    def transform(self, images: Any) -> Any:
        """float32 [n, h, w, c] in [0, 1] -> [n, d]."""
        skew = measure_skew(images)
        return tf.concat([skew * self._scales, self._dct.transform(deskew(images, skew))], axis=1)

    def inverse_transform(self, values: Any) -> Any:
        """[n, d] -> images float32 [n, h, w, c] in [0, 1]; of Keras tensors it makes Keras layers."""
        numbers = tf.keras.layers.Dense(_NUMBERS, use_bias=False, trainable=False, name="skew")
        numbers.build((None, _NUMBERS))
        numbers.set_weights([np.diag(1 / self._scales)])
        skew = numbers(values[:, :_NUMBERS])
        return deskew(self._dct.inverse_transform(values[:, _NUMBERS:]), skew, inverse=True)


def _centred(size: int) -> np.ndarray:
    """Places along a side, from its middle: float32 [size]."""
    return np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)


def _neighbours(places: Any, size: int) -> tuple[Any, Any, Any]:
    """Pixels before and after places from the middle, and how much the latter counts; cut off at the edges."""
    inside = tf.clip_by_value(places + (size - 1) / 2, 0.0, float(size - 1))
    before = tf.floor(inside)
    first = tf.cast(before, tf.int32)
    return first, tf.minimum(first + 1, size - 1), inside - before

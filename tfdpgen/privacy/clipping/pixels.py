"""Patches and cells of images of any dimensions, gathered pixel by pixel.

Where each pixel comes from is known from the shapes alone, so one gather with constant indices does it; padding is one
more pixel, of zeros. On CPUs that is several times faster than to slice, pad and concatenate.

    index = window_index((28, 28), counts=(14, 14), taps=(4, 4), strides=(2, 2), before=(1, 1))     # [196, 16]
    patches = gather_pixels(images, index)                                                          # [b, 196, 16, k]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf


def window_index(
    sizes: Sequence[int],
    counts: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> npt.NDArray[np.int32]:
    """Which pixels make up each window.

    Args:
      sizes: of the image, one for each spatial axis, as are all that follow.
      counts: of windows.
      taps: pixels of a window.
      strides: between windows.
      before: pixels of padding in front of the image.
      dilation: between the pixels of a window; by default 1.

    Returns:
      int32 [prod(counts), prod(taps)]: positions in the flattened image, prod(sizes) where there is padding.
    """
    rank = len(sizes)
    position, inside = np.zeros([1] * (2 * rank), np.int64), np.ones([1] * (2 * rank), bool)
    for axis, size in enumerate(sizes):
        rate = 1 if dilation is None else dilation[axis]
        at = np.arange(counts[axis])[:, None] * strides[axis] + np.arange(taps[axis]) * rate - before[axis]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = counts[axis], taps[axis]
        inside = inside & ((at >= 0) & (at < size)).reshape(shape)
        position = position * size + at.reshape(shape)
    index = np.where(inside, position, math.prod(sizes))
    return index.reshape(math.prod(counts), math.prod(taps)).astype(np.int32)


def gather_pixels(images: tf.Tensor, index: npt.NDArray[np.int32]) -> tf.Tensor:
    """Float [b, *index.shape, k] of images float [b, *sizes, k], with zeros for the position after the last pixel."""
    count = images.shape[1:-1].num_elements()
    pixels = tf.reshape(images, [-1, count, images.shape[-1]])
    if index.max() == count:
        pixels = tf.pad(pixels, [[0, 0], [0, 1], [0, 0]])
    return tf.gather(pixels, index, axis=1)


@functools.cache
def patch_index(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: str,
) -> npt.NDArray[np.int32]:
    """The `window_index` of a convolution with "same" or "valid" padding, as TensorFlow places it."""
    counts, before = [], []
    for size, taps, stride, rate in zip(sizes, kernel, strides, dilation, strict=True):
        reach = (taps - 1) * rate + 1
        count = math.ceil(size / stride) if padding == "same" else (size - reach) // stride + 1
        counts.append(count)
        before.append(max((count - 1) * stride + reach - size, 0) // 2)
    return window_index(sizes, counts, kernel, strides, before, dilation)

"""Gradients of the kernels of convolutions of any rank, forwards (Conv2D) and backwards (Conv2DTranspose).

Each position of the smaller image sees one patch of the larger, so the kernel's gradient is a `Product` of patches with
what stands at those positions. In two dimensions the patches are only made where no other way to the norm is cheaper.

    kernel_gradient(channels_last(layer, a), channels_last(layer, g), (3, 3), (2, 2), (1, 1), "same")
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import (
    Explicit,
    PerExampleGradient,
    Product,
    formed_cost,
    gram_cost,
    kept_cost,
    making_cost,
)
from tfdpgen.privacy.clipping.gram import cells_cost, squared_norms_by_cells
from tfdpgen.privacy.clipping.pixels import gather_pixels, patch_index

# Up to this many numbers in a patch times its channels, a convolution with an identity for a kernel makes the patches
# faster than a gather does, which copies runs of as many numbers as there are channels.
_FEW_CHANNELS = 512


@dataclasses.dataclass(frozen=True)
class PatchProduct(PerExampleGradient):
    """sum_t patch_t(patched_i) other_it^T, a gradient of a kernel [height, width, k, c] of one group.

    Attributes:
      patched: float [b * views, height, width, k], of which patches are taken.
      other: float [b * views, rows, columns, c], one vector for each patch.
      kernel: height and width of a patch.
      strides: between patches.
      dilation: between the pixels of a patch.
      padding: "same" or "valid".
      views: consecutive rows that make one example.
    """

    patched: tf.Tensor
    other: tf.Tensor
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: str
    views: int = 1

    @property
    def tensors(self) -> tuple[tf.Tensor, ...]:
        return self.patched, self.other

    def formed(self) -> PerExampleGradient:
        sizes, patches = self._sizes(), math.prod(self._sizes()[:2])
        by_patches = min(gram_cost(*sizes), formed_cost(*sizes))
        if kept_cost(*sizes) < by_patches and making_cost(patches) + kept_cost(*sizes) < self._cells_cost():
            return self.product().formed()
        return self

    def squared_norms(self) -> tf.Tensor:
        if self._cells_cost() >= formed_cost(*self._sizes()):
            return self.product().squared_norms()
        return squared_norms_by_cells(self.patched, self.other, self.kernel, self.strides, self.padding, self.views)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        if self.dilation != (1, 1):  # the CPU kernel for the filter's gradient has no dilation
            return self.product().weighted_sum(weights)
        if self.views > 1:
            weights = tf.repeat(weights, self.views)
        patched, other = self.tensors
        scale = tf.reshape(weights, [-1, 1, 1, 1])
        if patched.shape[1:].num_elements() < other.shape[1:].num_elements():
            patched = patched * scale
        else:
            other = other * scale
        return tf.raw_ops.Conv2DBackpropFilter(
            input=patched,
            filter_sizes=[*self.kernel, patched.shape[3], other.shape[3]],
            out_backprop=other,
            strides=[1, *self.strides, 1],
            padding=self.padding.upper(),
        )

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> PatchProduct:
        return dataclasses.replace(self, patched=tensors[0], other=tensors[1])

    def merged(self, views: int) -> PatchProduct:
        return dataclasses.replace(self, views=views * self.views)

    def joined(self, others: Sequence[Any]) -> Product:
        return self.product().joined([other.product() for other in others])

    def product(self) -> Product:
        """The same with the patches made."""
        depth = cast(int, self.patched.shape[3])
        size = math.prod(self.kernel) * depth
        if self.dilation == (1, 1) and size * depth <= _FEW_CHANNELS:
            picks = tf.reshape(tf.eye(size, dtype=self.patched.dtype), [*self.kernel, depth, size])
            padding: Any = self.padding.upper()
            patches = tf.nn.conv2d(self.patched, picks, self.strides, padding)
        else:
            patches = patches_of(self.patched, self.kernel, self.strides, self.dilation, self.padding)
        positions = self.views * self.other.shape[1:3].num_elements()
        c = self.other.shape[3]
        shape = [*self.kernel, depth, c]
        return Product(
            tf.reshape(patches, [-1, 1, positions, size]),
            tf.reshape(self.other, [-1, 1, positions, c]),
            lambda value: tf.reshape(value, shape),
        )

    def _sizes(self) -> tuple[int, int, int]:
        """Positions and the sizes of a patch and of what meets it, as of a `Product`."""
        k, rows, columns, c = (cast(int, size) for size in (self.patched.shape[3], *self.other.shape[1:]))
        return self.views * rows * columns, math.prod(self.kernel) * k, c

    def _cells_cost(self) -> float:
        """Operations for norms without patches."""
        if self.dilation != (1, 1):
            return math.inf
        return cells_cost(self.patched, self.other, self.kernel, self.strides, self.views)


def channels_last(layer: tf.keras.layers.Layer, images: tf.Tensor) -> tf.Tensor:
    """`images` with the channels on the last axis, whatever the layer's data format.

    Raises:
      ValueError: where the spatial shape is not static.
    """
    if cast(Any, layer).data_format == "channels_first":
        images = tf.transpose(images, [0, *range(2, images.shape.rank), 1])
    if None in images.shape[1:]:
        raise ValueError(
            f"Layer {layer.name!r} should be called with inputs of one static shape; got {images.shape}. Give "
            "`keras.Input` all sizes."
        )
    return images


def kernel_gradient(
    patched: tf.Tensor,
    other: tf.Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str,
    groups: int = 1,
) -> PerExampleGradient:
    """The gradient of a kernel [*kernel, k / groups, c] over patches of `patched`; all channels last.

    Args:
      patched: float [b, *sizes, k].
      other: float [b, *positions, c], one vector for each patch.
      kernel: one number for each spatial axis, as are the next two.
      strides: between patches.
      dilation: between the pixels of a patch.
      padding: "same" or "valid".
      groups: channels k and c fall into so many groups that do not meet.
    """
    if groups == 1 and len(kernel) == 2:
        return PatchProduct(patched, other, _pair(kernel), _pair(strides), _pair(dilation), padding)
    size, positions = math.prod(kernel), other.shape[1:-1].num_elements()
    k, c = cast(int, patched.shape[-1]) // groups, cast(int, other.shape[-1]) // groups
    patches = tf.reshape(patches_of(patched, kernel, strides, dilation, padding), [-1, positions, size, groups, k])
    outputs = tf.reshape(other, [-1, positions, groups, c])

    def arrange(value: tf.Tensor) -> tf.Tensor:
        by_group = tf.reshape(value, [groups, size, k, c])
        return tf.reshape(tf.transpose(by_group, [1, 2, 0, 3]), [*kernel, k, groups * c])

    return Product(
        tf.reshape(tf.transpose(patches, [0, 3, 1, 2, 4]), [-1, groups, positions, size * k]),
        tf.transpose(outputs, [0, 2, 1, 3]),
        arrange,
    )


def depthwise_kernel_gradient(
    patched: tf.Tensor,
    other: tf.Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str,
) -> Product:
    """The gradient of a depthwise kernel [*kernel, k, multiplier], where each channel is a group of its own."""
    channels, positions, size = cast(int, patched.shape[-1]), other.shape[1:-1].num_elements(), math.prod(kernel)
    multiplier = cast(int, other.shape[-1]) // channels
    patches = tf.reshape(patches_of(patched, kernel, strides, dilation, padding), [-1, positions, size, channels])
    outputs = tf.reshape(other, [-1, positions, channels, multiplier])
    return Product(
        tf.transpose(patches, [0, 3, 1, 2]),
        tf.transpose(outputs, [0, 2, 1, 3]),
        lambda value: tf.reshape(tf.transpose(value, [1, 0, 2]), [*kernel, channels, multiplier]),
    )


def bias_gradient(g: tf.Tensor) -> Explicit:
    """The gradient of a bias that every position shares; g is channels last."""
    return Explicit(tf.reduce_sum(g, axis=list(range(1, g.shape.rank - 1))))


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    """The two numbers of a two-dimensional convolution."""
    first, second = sizes
    return first, second


def patches_of(
    images: tf.Tensor, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: str
) -> tf.Tensor:
    """All patches float [b, positions, prod(kernel), k] of images float [b, *sizes, k], in any dimensions."""
    sizes = tuple(images.shape[1:-1])
    return gather_pixels(images, patch_index(sizes, tuple(kernel), tuple(strides), tuple(dilation), padding))

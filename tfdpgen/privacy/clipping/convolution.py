"""Gradients of the kernels of two-dimensional convolutions, forwards (Conv2D) and backwards (Conv2DTranspose).

Each position of the smaller image sees one patch of the larger, so the kernel's gradient is a `Product` of patches with
what stands at those positions. The patches are only made where no other way to the norm is cheaper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import PerExampleGradient, Product
from tfdpgen.privacy.clipping.gram import squared_norms_by_cells


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

    def squared_norms(self) -> tf.Tensor:
        if self.dilation == (1, 1):
            norms = squared_norms_by_cells(
                self.patched, self.other, self.kernel, self.strides, self.padding, self.views
            )
            if norms is not None:
                return norms
        return self.product().squared_norms()

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        if self.dilation != (1, 1):  # the CPU kernel for the filter's gradient has no dilation
            return dataclasses.replace(self, views=1).product().weighted_sum(weights)
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
        patches = tf.image.extract_patches(
            self.patched,
            sizes=[1, *self.kernel, 1],
            strides=[1, *self.strides, 1],
            rates=[1, *self.dilation, 1],
            padding=self.padding.upper(),
        )
        positions = self.views * self.other.shape[1:3].num_elements()
        k, c = patches.shape[3], self.other.shape[3]
        shape = [*self.kernel, self.patched.shape[3], c]
        return Product(
            tf.reshape(patches, [-1, 1, positions, k]),
            tf.reshape(self.other, [-1, 1, positions, c]),
            lambda value: tf.reshape(value, shape),
        )

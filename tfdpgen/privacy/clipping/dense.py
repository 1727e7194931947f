"""Dense layers: the kernel's gradient is A_i^T G_i with A = a and G = g, over any axes between batch and features."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient, Product
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Dense)
class DenseRule(LayerRule):
    """`tf.keras.layers.Dense` on inputs of rank 2 or more."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        positions = tf.reduce_prod(tf.shape(a)[1:-1]) if None in a.shape[1:-1] else a.shape[1:-1].num_elements()
        inputs = tf.reshape(a, [-1, 1, positions, a.shape[-1]])
        outputs = tf.reshape(g, [-1, 1, positions, layer.units])
        kernel = Product(inputs, outputs)
        return [kernel, Explicit(tf.reduce_sum(outputs, axis=[1, 2]))] if layer.use_bias else [kernel]

"""Dense layers: the kernel's gradient is A_i^T G_i with A = a and G = g, over any axes between batch and features."""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Dense)
class DenseRule(LayerRule):
    """`tf.keras.layers.Dense` on inputs of rank 2 or more."""

    def check(self, layer: tf.keras.layers.Layer) -> str | None:
        return None

    def factors(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        batch = tf.shape(a)[0]
        positions = tf.reduce_prod(tf.shape(a)[1:-1])
        inputs = tf.reshape(a, [batch, positions, a.shape[-1]])
        outputs = tf.reshape(g, [batch, positions, layer.units])
        if a.shape.rank == 2:
            inputs, outputs = tf.ensure_shape(inputs, [None, 1, None]), tf.ensure_shape(outputs, [None, 1, None])
        return inputs, outputs, tf.reduce_sum(outputs, axis=1) if layer.use_bias else None

    def weighted_sum(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor, weights: tf.Tensor
    ) -> list[tf.Tensor]:
        weighted = g * tf.reshape(weights, [-1] + [1] * (g.shape.rank - 1))
        inputs, outputs = tf.reshape(a, [-1, a.shape[-1]]), tf.reshape(weighted, [-1, layer.units])
        kernel = tf.matmul(inputs, outputs, transpose_a=True)
        return [kernel, tf.reduce_sum(outputs, axis=0)] if layer.use_bias else [kernel]

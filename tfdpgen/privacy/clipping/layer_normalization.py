"""LayerNormalization: z = gamma x + beta, x the input normalised within each example (Ba et al. 2016).

x is computed again from the input. The gradients by gamma and beta are as small as they are, and are formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.LayerNormalization)
class LayerNormalizationRule(LayerRule):
    """`tf.keras.layers.LayerNormalization` over any axes but that of the examples."""

    def check(self, layer: tf.keras.layers.Layer) -> str | None:
        if list(layer.axis) != sorted(layer.axis):
            return f"has axis={list(layer.axis)}; its rule needs axes in ascending order"
        return None

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        mean, variance = tf.nn.moments(a, layer.axis, keepdims=True)
        normalised = (a - mean) * tf.math.rsqrt(variance + layer.epsilon)
        shared = [axis for axis in range(1, a.shape.rank) if axis not in layer.axis]
        by_weight = [normalised * g] * layer.scale + [g] * layer.center
        return [Explicit(tf.reduce_sum(value, axis=shared)) for value in by_weight]

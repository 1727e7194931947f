"""PReLU: z = max(a, 0) - alpha max(-a, 0), with a slope for each feature that the shared axes leave."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.PReLU)
class PReLURule(LayerRule):
    """`tf.keras.layers.PReLU` with any shared axes."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        slopes = -tf.nn.relu(-a) * g
        return [Explicit(tf.reduce_sum(slopes, axis=list(layer.shared_axes or []), keepdims=True))]

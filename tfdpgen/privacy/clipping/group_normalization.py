"""GroupNormalization: z = gamma x + beta, x the input normalised within groups of channels (Wu & He 2018).

x is computed again from the input. The gradients by gamma and beta hold one number for each channel, and are formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.GroupNormalization)
class GroupNormalizationRule(LayerRule):
    """`tf.keras.layers.GroupNormalization` with any groups and axis of channels."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        rank, axis = a.shape.rank, layer.axis % a.shape.rank
        order = [*(i for i in range(rank) if i != axis), axis]
        a, g = (tf.transpose(value, order) for value in (a, g))
        channels = a.shape[-1]
        # [b, positions, groups, channels of one group]: a group is normalised over its positions and channels.
        grouped = tf.reshape(a, [tf.shape(a)[0], -1, layer.groups, channels // layer.groups])
        mean, variance = tf.nn.moments(grouped, [1, 3], keepdims=True)
        normalised = tf.reshape((grouped - mean) * tf.math.rsqrt(variance + layer.epsilon), tf.shape(a))
        by_weight = [normalised * g] * layer.scale + [g] * layer.center
        shared = list(range(1, rank - 1))
        return [Explicit(tf.reduce_sum(value, axis=shared)) for value in by_weight]

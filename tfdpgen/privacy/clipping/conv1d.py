"""Conv1D: a convolution over images of height 1."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import bias_gradient, channels_last, kernel_gradient
from tfdpgen.privacy.clipping.gradients import PerExampleGradient, Rearranged
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Conv1D)
class Conv1DRule(LayerRule):
    """`tf.keras.layers.Conv1D` with any stride, dilation, groups, padding ("causal" too) and data format."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        a, g = channels_last(layer, a), channels_last(layer, g)
        (taps,), (rate,), padding = layer.kernel_size, layer.dilation_rate, layer.padding
        if padding == "causal":
            a, padding = tf.pad(a, [[0, 0], [(taps - 1) * rate, 0], [0, 0]]), "valid"
        kernel = kernel_gradient(
            a[:, tf.newaxis], g[:, tf.newaxis], (1, taps), (1, *layer.strides), (1, rate), padding, layer.groups
        )
        kernel = Rearranged(kernel, layer.kernel.shape)
        return [kernel, bias_gradient(g)] if layer.use_bias else [kernel]

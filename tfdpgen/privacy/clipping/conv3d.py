"""Conv3D: each output position sees one block of the input, and g stands at those positions."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import bias_gradient, channels_last, kernel_gradient
from tfdpgen.privacy.clipping.gradients import PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Conv3D)
class Conv3DRule(LayerRule):
    """`tf.keras.layers.Conv3D` with any strides, dilation, groups, padding and data format."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        a, g = channels_last(layer, a), channels_last(layer, g)
        kernel = kernel_gradient(
            a, g, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, layer.groups
        )
        return [kernel, bias_gradient(g)] if layer.use_bias else [kernel]

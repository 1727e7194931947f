"""DepthwiseConv2D: a convolution of each channel on its own."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import bias_gradient, channels_last, depthwise_kernel_gradient
from tfdpgen.privacy.clipping.gradients import PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.DepthwiseConv2D)
class DepthwiseConv2DRule(LayerRule):
    """`tf.keras.layers.DepthwiseConv2D` with any multiplier, strides, dilation, padding and data format."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        a, g = channels_last(layer, a), channels_last(layer, g)
        kernel = depthwise_kernel_gradient(a, g, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
        return [kernel, bias_gradient(g)] if layer.use_bias else [kernel]

"""SeparableConv2D: a depthwise convolution, then a dense layer at each position.

What stands between the two is not recorded; it is computed again, which costs as much as the depthwise forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import bias_gradient, channels_last, depthwise_kernel_gradient
from tfdpgen.privacy.clipping.gradients import PerExampleGradient, Product
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.SeparableConv2D)
class SeparableConv2DRule(LayerRule):
    """`tf.keras.layers.SeparableConv2D` with any multiplier, strides, dilation, padding and data format."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        a, g = channels_last(layer, a), channels_last(layer, g)
        between = tf.nn.depthwise_conv2d(
            a, layer.depthwise_kernel, [1, *layer.strides, 1], layer.padding.upper(), dilations=layer.dilation_rate
        )
        positions, channels = between.shape[1:3].num_elements(), between.shape[3]
        pointwise = Product(
            tf.reshape(between, [-1, 1, positions, channels]),
            tf.reshape(g, [-1, 1, positions, layer.filters]),
            lambda value: tf.reshape(value, layer.pointwise_kernel.shape),
        )
        depthwise = depthwise_kernel_gradient(
            a,
            tf.tensordot(g, layer.pointwise_kernel[0, 0], [[3], [1]]),
            layer.kernel_size,
            layer.strides,
            layer.dilation_rate,
            layer.padding,
        )
        return [depthwise, pointwise, bias_gradient(g)] if layer.use_bias else [depthwise, pointwise]

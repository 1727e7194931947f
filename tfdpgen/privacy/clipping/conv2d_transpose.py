"""Conv2DTranspose: a convolution run backwards, so the patches are taken from g and meet the input."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import bias_gradient, channels_last, kernel_gradient
from tfdpgen.privacy.clipping.gradients import PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Conv2DTranspose)
class Conv2DTransposeRule(LayerRule):
    """`tf.keras.layers.Conv2DTranspose` with any strides, dilation, padding, output_padding and data format."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        a, g = channels_last(layer, a), channels_last(layer, g)
        kernel = kernel_gradient(g, a, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
        return [kernel, bias_gradient(g)] if layer.use_bias else [kernel]

"""Conv2D: each output position sees one patch of the input, and g stands at those positions."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import PatchProduct
from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Conv2D)
class Conv2DRule(LayerRule):
    """`tf.keras.layers.Conv2D`, channels last, one group; any strides, dilation and padding."""

    def check(self, layer: tf.keras.layers.Layer) -> str | None:
        if layer.data_format != "channels_last" or layer.groups != 1:
            return (
                f"has data_format={layer.data_format!r} and groups={layer.groups}; its rule needs channels_last and 1"
            )
        return None

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        kernel = PatchProduct(a, g, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
        return [kernel, Explicit(tf.reduce_sum(g, axis=[1, 2]))] if layer.use_bias else [kernel]

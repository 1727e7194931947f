"""Conv2DTranspose: a convolution run backwards, so the patches are taken from g and meet the input."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdpgen.privacy.clipping.convolution import PatchProduct
from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


@register(tf.keras.layers.Conv2DTranspose)
class Conv2DTransposeRule(LayerRule):
    """`tf.keras.layers.Conv2DTranspose`, channels last, not dilated, without output_padding."""

    def check(self, layer: tf.keras.layers.Layer) -> str | None:
        if layer.data_format != "channels_last" or layer.dilation_rate != (1, 1) or layer.output_padding is not None:
            return (
                f"has data_format={layer.data_format!r}, dilation_rate={layer.dilation_rate}, "
                f"output_padding={layer.output_padding}; its rule needs channels_last, (1, 1) and None"
            )
        return None

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        kernel = PatchProduct(g, a, layer.kernel_size, layer.strides, (1, 1), layer.padding)
        return [kernel, Explicit(tf.reduce_sum(g, axis=[1, 2]))] if layer.use_bias else [kernel]

"""Conv2DTranspose: a convolution run backwards, so the patches are taken from g and meet the input."""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.privacy.clipping.gram import squared_norms_by_cells
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

    def factors(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        patches = tf.image.extract_patches(
            g,
            sizes=[1, *layer.kernel_size, 1],
            strides=[1, *layer.strides, 1],
            rates=[1, 1, 1, 1],
            padding=layer.padding.upper(),
        )
        positions = a.shape[1:3].num_elements()
        inputs = tf.reshape(patches, [-1, positions, patches.shape[-1]])
        outputs = tf.reshape(a, [-1, positions, a.shape[-1]])
        return inputs, outputs, tf.reduce_sum(g, axis=[1, 2]) if layer.use_bias else None

    def kernel_squared_norms(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> tf.Tensor | None:
        return squared_norms_by_cells(g, a, layer.kernel_size, layer.strides, layer.padding)

    def weighted_sum(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor, weights: tf.Tensor
    ) -> list[tf.Tensor]:
        weighted = g * tf.reshape(weights, [-1, 1, 1, 1])
        kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=weighted,
            filter_sizes=layer.kernel.shape,
            out_backprop=a,
            strides=[1, *layer.strides, 1],
            padding=layer.padding.upper(),
        )
        return [kernel, tf.reduce_sum(weighted, axis=[0, 1, 2])] if layer.use_bias else [kernel]

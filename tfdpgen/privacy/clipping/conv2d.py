"""Conv2D: each output position sees one patch of the input, so A holds the patches and G = g at those positions."""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.privacy.clipping.gram import squared_norms_by_cells
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

    def factors(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        patches = tf.image.extract_patches(
            a,
            sizes=[1, *layer.kernel_size, 1],
            strides=[1, *layer.strides, 1],
            rates=[1, *layer.dilation_rate, 1],
            padding=layer.padding.upper(),
        )
        positions = g.shape[1:3].num_elements()
        inputs = tf.reshape(patches, [-1, positions, patches.shape[-1]])
        outputs = tf.reshape(g, [-1, positions, layer.filters])
        return inputs, outputs, tf.reduce_sum(outputs, axis=1) if layer.use_bias else None

    def kernel_squared_norms(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> tf.Tensor | None:
        if layer.dilation_rate != (1, 1):
            return None
        return squared_norms_by_cells(a, g, layer.kernel_size, layer.strides, layer.padding)

    def weighted_sum(
        self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor, weights: tf.Tensor
    ) -> list[tf.Tensor]:
        weighted = g * tf.reshape(weights, [-1, 1, 1, 1])
        if layer.dilation_rate == (1, 1):
            kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=a,
                filter_sizes=layer.kernel.shape,
                out_backprop=weighted,
                strides=[1, *layer.strides, 1],
                padding=layer.padding.upper(),
            )
        else:  # the CPU kernel for the filter's gradient has no dilation
            inputs, outputs, _ = self.factors(layer, a, weighted)
            kernel = tf.reshape(tf.einsum("btk,btc->kc", inputs, outputs), layer.kernel.shape)
        return [kernel, tf.reduce_sum(weighted, axis=[0, 1, 2])] if layer.use_bias else [kernel]

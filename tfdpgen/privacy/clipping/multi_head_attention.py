"""MultiHeadAttention: four EinsumDense layers, which are clipped as such; nothing else in it holds weights."""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.privacy.clipping.registry import register_composite

register_composite(tf.keras.layers.MultiHeadAttention)

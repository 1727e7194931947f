"""Random networks of all layers that have rules: book-keeping equals the jacobian oracle in all that it computes."""

from __future__ import annotations

import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.privacy.oracle import assert_equals_oracle, batch_for

keras = tf.keras
layers = tf.keras.layers

_ACTIVATIONS = st.sampled_from([None, "tanh", "softplus", "sigmoid"])
_CLIPS = st.sampled_from([0.05, 1.0, 1e9])
_MODES = st.sampled_from(["flat", "per_layer", "automatic"])


def _convolution(draw: st.DrawFn, hidden: tf.Tensor) -> layers.Layer:
    """A convolution of any kind that fits on the images."""
    small = min(hidden.shape[1:3]) < 4
    dilated = draw(st.booleans())
    common = {
        "kernel_size": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "strides": 1 if dilated else draw(st.integers(1, 2)),
        "padding": "same" if dilated or small else draw(st.sampled_from(["same", "valid"])),
        "dilation_rate": 2 if dilated else 1,
        "activation": draw(_ACTIVATIONS),
        "use_bias": draw(st.booleans()),
    }
    kind = draw(st.sampled_from(["plain", "grouped", "transposed", "depthwise", "separable"]))
    if kind == "plain":
        return layers.Conv2D(draw(st.integers(1, 5)), **common)
    if kind == "grouped":
        groups = draw(st.sampled_from([n for n in (1, 2, 3) if hidden.shape[3] % n == 0]))
        return layers.Conv2D(groups * draw(st.integers(1, 2)), groups=groups, **common)
    if kind == "transposed":
        return layers.Conv2DTranspose(draw(st.integers(1, 4)), **common)
    common["depth_multiplier"] = draw(st.integers(1, 2))
    return layers.DepthwiseConv2D(**common) if kind == "depthwise" else layers.SeparableConv2D(3, **common)


def _any_rank(draw: st.DrawFn, hidden: tf.Tensor) -> layers.Layer:
    """A layer that takes inputs of any rank."""
    kind = draw(st.sampled_from(["dense", "einsum", "layer norm", "group norm", "prelu"]))
    if kind == "dense":
        return layers.Dense(draw(st.integers(1, 6)), draw(_ACTIVATIONS), use_bias=draw(st.booleans()))
    if kind == "einsum":
        return layers.EinsumDense(
            "...x,xy->...y", draw(st.integers(1, 4)), bias_axes=draw(st.sampled_from([None, "y"]))
        )
    if kind == "layer norm":
        return layers.LayerNormalization(epsilon=0.1)
    if kind == "group norm":
        return layers.GroupNormalization(draw(st.sampled_from([1, -1])), epsilon=0.1)
    return layers.PReLU(alpha_initializer="random_normal")


@st.composite
def image_networks(draw: st.DrawFn) -> keras.Model:
    """Stacks of up to three layers on images, with skips around some and one layer that may be called twice."""
    inputs = keras.Input((draw(st.integers(3, 7)), draw(st.integers(3, 7)), draw(st.integers(1, 4))))
    hidden = inputs
    for _ in range(draw(st.integers(1, 3))):
        before = hidden
        hidden = (_convolution if draw(st.booleans()) else _any_rank)(draw, hidden)(hidden)
        if before.shape == hidden.shape and draw(st.booleans()):
            hidden = layers.Add()([before, hidden])
    if draw(st.booleans()):
        shared = layers.Dense(hidden.shape[-1], "tanh")
        hidden = shared(shared(hidden))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))


@st.composite
def sequence_networks(draw: st.DrawFn) -> keras.Model:
    """Embedded indices through convolutions of one dimension and attention."""
    inputs = keras.Input((draw(st.integers(2, 6)),), dtype="int32")
    hidden = layers.Embedding(4, draw(st.integers(1, 4)))(inputs)
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["convolution", "attention", "other"]))
        if kind == "convolution":
            padding = draw(st.sampled_from(["same", "causal"]))
            hidden = layers.Conv1D(draw(st.integers(1, 4)), draw(st.integers(1, 3)), padding=padding)(hidden)
        elif kind == "attention":
            hidden = layers.MultiHeadAttention(draw(st.integers(1, 2)), draw(st.integers(1, 3)))(hidden, hidden)
        else:
            hidden = _any_rank(draw, hidden)(hidden)
    return keras.Model(inputs, hidden)


@settings(max_examples=20)
@given(network=image_networks(), seed=st.integers(0, 2**30), clip=_CLIPS, mode=_MODES)
def test_networks_on_images_equal_the_oracle(network: keras.Model, seed: int, clip: float, mode: str) -> None:
    assert_equals_oracle(network, batch_for(network, seed, 3), clip, mode)


@settings(max_examples=20)
@given(network=sequence_networks(), seed=st.integers(0, 2**30), clip=_CLIPS, mode=_MODES)
def test_networks_on_sequences_equal_the_oracle(network: keras.Model, seed: int, clip: float, mode: str) -> None:
    indices = tf.random.stateless_uniform([3, *network.input_shape[1:]], [seed, 0], maxval=4, dtype=tf.int32)
    assert_equals_oracle(network, indices, clip, mode)

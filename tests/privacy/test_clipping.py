"""Book-keeping equals the jacobian oracle, and networks that cannot be clipped row by row are refused."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdpgen.privacy.clipping import (
    JacobianTape,
    PerExampleTape,
    check_network,
    clipped_gradient_sum,
    jacobian_clipped_gradient_sum,
    per_example_gradients,
)
from tfdpgen.privacy.clipping.gram import squared_norms_by_cells, squared_norms_from_grams
from tfdpgen.privacy.clipping.registry import rule_for

keras = tf.keras
layers = tf.keras.layers

_ACTIVATIONS = st.sampled_from([None, "relu", "tanh", "softplus"])


@st.composite
def dense_networks(draw: st.DrawFn) -> keras.Model:
    """Random stacks of Dense layers, on inputs of rank 2 or 3."""
    inputs = keras.Input(draw(st.sampled_from([(5,), (3, 4)])))
    hidden = inputs
    for _ in range(draw(st.integers(1, 3))):
        hidden = layers.Dense(draw(st.integers(1, 6)), draw(_ACTIVATIONS), use_bias=draw(st.booleans()))(hidden)
    return keras.Model(inputs, layers.Flatten()(hidden))


@st.composite
def conv_networks(draw: st.DrawFn) -> keras.Model:
    """Random stacks of Conv2D, Conv2DTranspose and Dense layers."""
    inputs = keras.Input((draw(st.integers(5, 9)), draw(st.integers(5, 9)), draw(st.sampled_from([1, 3]))))
    hidden = inputs
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from([layers.Conv2D, layers.Conv2DTranspose]))
        dilated = kind is layers.Conv2D and draw(st.booleans())
        hidden = kind(
            draw(st.integers(1, 5)),
            kernel_size=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            strides=1 if dilated else draw(st.integers(1, 2)),
            dilation_rate=2 if dilated else 1,
            padding="same"
            if dilated
            else draw(st.sampled_from(["same", "valid"] if hidden.shape[1] > 4 else ["same"])),
            activation=draw(_ACTIVATIONS),
            use_bias=draw(st.booleans()),
        )(hidden)
        if draw(st.booleans()):
            hidden = layers.LeakyReLU(0.2)(hidden)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))


def _losses(network: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Some loss for each example, not linear in the outputs."""
    return tf.reduce_sum(tf.square(network(images) - 0.3), axis=1)


def _batch(network: keras.Model, seed: int, size: int = 5) -> tf.Tensor:
    return tf.random.stateless_normal([size, *network.input_shape[1:]], [seed, 0])


def _assert_equals_oracle(network: keras.Model, images: tf.Tensor, clip: float) -> None:
    variables = network.trainable_variables
    with JacobianTape(network) as oracle_tape:
        oracle_losses = _losses(network, images)
    gradients = per_example_gradients(oracle_tape, oracle_losses, variables)
    expected_norms = np.sqrt(sum(np.square(g.numpy()).reshape(len(images), -1).sum(1) for g in gradients))
    expected = jacobian_clipped_gradient_sum(oracle_tape, oracle_losses, variables, clip)

    with PerExampleTape(network) as tape:
        losses = _losses(network, images)
    actual = clipped_gradient_sum(tape, losses, variables, clip)
    np.testing.assert_allclose(actual.norms, expected_norms, rtol=1e-5, atol=1e-6)
    scale = max(float(np.abs(value).max()) for value in expected.sums)
    for ours, theirs in zip(actual.sums, expected.sums, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


@settings(max_examples=15)
@given(network=dense_networks(), seed=st.integers(0, 2**30), clip=st.sampled_from([0.05, 1.0, 1e9]))
def test_dense_networks_equal_the_oracle(network: keras.Model, seed: int, clip: float) -> None:
    _assert_equals_oracle(network, _batch(network, seed), clip)


@settings(max_examples=15)
@given(network=conv_networks(), seed=st.integers(0, 2**30), clip=st.sampled_from([0.05, 1.0, 1e9]))
def test_convolutional_networks_equal_the_oracle(network: keras.Model, seed: int, clip: float) -> None:
    _assert_equals_oracle(network, _batch(network, seed), clip)


def _dense(units: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, "tanh"), layers.Dense(2)])


def test_the_gram_form_of_the_norm_equals_the_oracle() -> None:
    # 4 positions against a 3x3x32 -> 64 kernel: forming the product would be the dearer way.
    network = keras.Sequential([keras.Input((2, 2, 32)), layers.Conv2D(64, 3, padding="same"), layers.Flatten()])
    _assert_equals_oracle(network, _batch(network, 0), 0.1)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("size", "kernel", "strides"), [(4, 3, 1), (5, 4, 2), (4, (4, 2), 2), (4, 2, 2), (4, (3, 4), (3, 2))]
)
@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
def test_norms_by_cells_equal_the_oracle(kind: type, size: int, kernel: object, strides: object, padding: str) -> None:
    # So many channels at so few positions that forming the product is always the dearer way.
    network = keras.Sequential(
        [keras.Input((size, size, 64)), kind(96, kernel, strides=strides, padding=padding), layers.Flatten()]
    )
    layer, images = network.layers[0], _batch(network, 0, 3)
    gradient = rule_for(layer).gradients(layer, images, layer(images))[0]
    args = (gradient.kernel, gradient.strides, gradient.padding)
    assert squared_norms_by_cells(gradient.patched, gradient.other, *args) is not None
    _assert_equals_oracle(network, images, 0.1)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-4, 1e-2])
def test_norms_from_grams_are_not_too_small_where_large_entries_cancel(spread: float) -> None:
    """Two opposite halves nearly cancel: in float32 the plain product of Gram matrices would come out as anything."""
    rng = np.random.default_rng(0)
    a = np.repeat(rng.normal(size=(200, 1, 30)), 8, axis=1)
    g = np.repeat(rng.normal(size=(200, 1, 20)), 8, axis=1) * np.array([1, -1] * 4)[:, np.newaxis]
    a, g = (x * (1 + spread * rng.normal(size=x.shape)) for x in (a, g))
    a, g = a.astype(np.float32), g.astype(np.float32)
    exact = np.square(np.einsum("btk,btc->bkc", a.astype(np.float64), g.astype(np.float64))).sum(axis=(1, 2))
    grams = (tf.matmul(x, x, transpose_b=True) for x in (tf.constant(a[:, None]), tf.constant(g[:, None])))
    assert np.all(np.sqrt(squared_norms_from_grams(*grams)) >= np.sqrt(exact) * (1 - 1e-5))


def test_a_layer_that_is_called_twice_counts_with_the_sum_of_its_calls() -> None:
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    network = keras.Model(inputs, shared(shared(inputs)))
    _assert_equals_oracle(network, _batch(network, 3), 0.1)


def test_each_example_is_clipped_on_its_own() -> None:
    network, images, clip = _dense(), _batch(_dense(), 1, 6), 0.01
    with PerExampleTape(network) as tape:
        losses = _losses(network, images)
    together = clipped_gradient_sum(tape, losses, network.trainable_variables, clip).sums
    alone = []
    for i in range(6):
        with PerExampleTape(network) as tape:
            losses = _losses(network, images[i : i + 1])
        alone.append(clipped_gradient_sum(tape, losses, network.trainable_variables, clip).sums)
        norm = float(tf.linalg.global_norm(alone[-1]))
        assert norm == pytest.approx(clip, rel=1e-5)  # so small a clip binds for every example
    for total, *parts in zip(together, *alone, strict=True):
        np.testing.assert_allclose(total, sum(parts), rtol=1e-4, atol=1e-7)


def test_padding_and_empty_batches_contribute_zero() -> None:
    network = _dense()
    images = _batch(network, 1, 4)
    weights = tf.constant([1.0, 0.0, 1.0, 0.0])
    with PerExampleTape(network) as tape:
        losses = _losses(network, images) * weights
    padded = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    with PerExampleTape(network) as tape:
        losses = _losses(network, tf.gather(images, [0, 2]))
    plain = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    for ours, theirs in zip(padded, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    with PerExampleTape(network) as tape:
        losses = _losses(network, images) * 0.0
    for value in clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums:
        np.testing.assert_array_equal(value, np.zeros(value.shape))


def test_a_gradient_that_is_not_finite_contributes_zero() -> None:
    network = _dense()
    images = _batch(network, 1, 3)
    poisoned = tf.tensor_scatter_nd_update(images, [[1]], [[np.nan, 0.0, np.inf, 0.0]])
    with PerExampleTape(network) as tape:
        losses = _losses(network, poisoned)
    actual = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    with PerExampleTape(network) as tape:
        losses = _losses(network, tf.gather(images, [0, 2]))
    expected = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_tape_leaves_the_layers_as_they_were() -> None:
    network = _dense()
    before = network(_batch(network, 1)).numpy()
    with pytest.raises(RuntimeError, match="on purpose"), PerExampleTape(network):
        raise RuntimeError("on purpose")
    assert all("call" not in vars(layer) for layer in network.layers)
    assert network.layers[0].activation is keras.activations.tanh
    np.testing.assert_array_equal(network(_batch(network, 1)), before)


def test_losses_have_to_be_one_for_each_example() -> None:
    network = _dense()
    with PerExampleTape(network) as tape:
        loss = tf.reduce_mean(_losses(network, _batch(network, 0)))
    with pytest.raises(ValueError, match="rank 1"):
        clipped_gradient_sum(tape, loss, network.trainable_variables, 1.0)


def test_variables_of_another_network_are_refused() -> None:
    network, other = _dense(), _dense()
    with PerExampleTape(network) as tape:
        losses = _losses(network, _batch(network, 0))
    with pytest.raises(ValueError, match="do not: dense"):
        clipped_gradient_sum(tape, losses, other.trainable_variables, 1.0)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.BatchNormalization(name="culprit"), "mixes the examples"),
        (layers.LayerNormalization(name="culprit"), "has no rule"),
        (
            layers.Lambda(lambda x: x - tf.reduce_mean(x, axis=0), name="culprit"),
            "not known to treat each example alone",
        ),
        (layers.Conv2D(4, 3, groups=2, name="culprit"), "groups=2"),
        (layers.Conv2DTranspose(4, 3, dilation_rate=2, name="culprit"), "dilation_rate"),
    ],
)
def test_layers_that_cannot_be_clipped_are_refused_by_name(layer: layers.Layer, reason: str) -> None:
    inner = keras.Sequential([keras.Input((8, 8, 2)), layer, layers.Flatten()])
    network = keras.Sequential([keras.Input((8, 8, 2)), inner, layers.Dense(1)])
    with pytest.raises(ValueError, match=f"'culprit'.*{reason}"):
        check_network(network)
    with pytest.raises(ValueError, match="'culprit'"):
        PerExampleTape(network)


def test_weights_outside_of_layers_are_refused() -> None:
    class Loose(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)
            self.scale = self.add_weight("loose", shape=[])

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.dense(inputs) * self.scale

    network = Loose()
    network(tf.zeros([1, 3]))
    with pytest.raises(ValueError, match="loose"):
        check_network(network)

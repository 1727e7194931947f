"""Book-keeping equals the jacobian oracle, and networks that cannot be clipped example by example are refused."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.privacy.oracle import assert_equals_oracle, batch_for, losses_of
from tfdpgen.privacy.clipping import PerExampleTape, check_network, clipped_gradient_sum
from tfdpgen.privacy.clipping.gradients import formed_cost
from tfdpgen.privacy.clipping.gram import squared_norms_from_grams
from tfdpgen.privacy.clipping.registry import rule_for

keras = tf.keras
layers = tf.keras.layers


def _dense(units: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, "tanh"), layers.Dense(2)])


def test_the_gram_form_of_the_norm_equals_the_oracle() -> None:
    # 4 positions against a 3x3x32 -> 64 kernel: forming the product would be the dearer way.
    network = keras.Sequential([keras.Input((2, 2, 32)), layers.Conv2D(64, 3, padding="same"), layers.Flatten()])
    assert_equals_oracle(network, batch_for(network, 0), 0.1)


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
    layer, images = network.layers[0], batch_for(network, 0, 3)
    gradient = rule_for(layer).gradients(layer, images, layer(images))[0]
    assert gradient.formed() is gradient
    assert gradient._cells_cost() < formed_cost(*gradient._sizes())
    assert_equals_oracle(network, images, 0.1)


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


def test_each_example_is_clipped_on_its_own() -> None:
    network, images, clip = _dense(), batch_for(_dense(), 1, 6), 0.01
    with PerExampleTape(network) as tape:
        losses = losses_of(network, images)
    together = clipped_gradient_sum(tape, losses, network.trainable_variables, clip).sums
    alone = []
    for i in range(6):
        with PerExampleTape(network) as tape:
            losses = losses_of(network, images[i : i + 1])
        alone.append(clipped_gradient_sum(tape, losses, network.trainable_variables, clip).sums)
        norm = float(tf.linalg.global_norm(alone[-1]))
        assert norm == pytest.approx(clip, rel=1e-5)  # so small a clip binds for every example
    for total, *parts in zip(together, *alone, strict=True):
        np.testing.assert_allclose(total, sum(parts), rtol=1e-4, atol=1e-7)


def test_padding_and_empty_batches_contribute_zero() -> None:
    network = _dense()
    images = batch_for(network, 1, 4)
    weights = tf.constant([1.0, 0.0, 1.0, 0.0])
    with PerExampleTape(network) as tape:
        losses = losses_of(network, images) * weights
    padded = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    with PerExampleTape(network) as tape:
        losses = losses_of(network, tf.gather(images, [0, 2]))
    plain = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    for ours, theirs in zip(padded, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    with PerExampleTape(network) as tape:
        losses = losses_of(network, images) * 0.0
    for value in clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums:
        np.testing.assert_array_equal(value, np.zeros(value.shape))


def test_a_gradient_that_is_not_finite_contributes_zero() -> None:
    network = _dense()
    images = batch_for(network, 1, 3)
    poisoned = tf.tensor_scatter_nd_update(images, [[1]], [[np.nan, 0.0, np.inf, 0.0]])
    with PerExampleTape(network) as tape:
        losses = losses_of(network, poisoned)
    actual = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    with PerExampleTape(network) as tape:
        losses = losses_of(network, tf.gather(images, [0, 2]))
    expected = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_tape_leaves_the_layers_as_they_were() -> None:
    network = _dense()
    before = network(batch_for(network, 1)).numpy()
    with pytest.raises(RuntimeError, match="on purpose"), PerExampleTape(network):
        raise RuntimeError("on purpose")
    assert all("call" not in vars(layer) for layer in network.layers)
    assert network.layers[0].activation is keras.activations.tanh
    np.testing.assert_array_equal(network(batch_for(network, 1)), before)


def test_losses_have_to_be_one_for_each_example() -> None:
    network = _dense()
    with PerExampleTape(network) as tape:
        loss = tf.reduce_mean(losses_of(network, batch_for(network, 0)))
    with pytest.raises(ValueError, match="rank 1"):
        clipped_gradient_sum(tape, loss, network.trainable_variables, 1.0)


def test_variables_of_another_network_are_refused() -> None:
    network, other = _dense(), _dense()
    with PerExampleTape(network) as tape:
        losses = losses_of(network, batch_for(network, 0))
    with pytest.raises(ValueError, match="do not: dense"):
        clipped_gradient_sum(tape, losses, other.trainable_variables, 1.0)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.BatchNormalization(name="culprit"), "mixes the examples"),
        (layers.LocallyConnected2D(2, 3, name="culprit"), "has no rule"),
        (
            layers.Lambda(lambda x: x - tf.reduce_mean(x, axis=0), name="culprit"),
            "not known to treat each example alone",
        ),
        (layers.LayerNormalization(axis=[2, 1], name="culprit"), "ascending order"),
        (layers.EinsumDense("abcd,dd->abd", output_shape=(8, 2), name="culprit"), "repeats a label"),
        (layers.Dense(2, dtype="float16", name="culprit"), "float16"),
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


@pytest.mark.parametrize("l2_norm_clip", [0.05, 0.5, 50.0])
@pytest.mark.parametrize("clip_mode", ["flat", "per_layer", "automatic"])
def test_every_clip_mode_bounds_what_one_example_adds(clip_mode: str, l2_norm_clip: float) -> None:
    network = _dense()
    assert_equals_oracle(network, batch_for(network, 0), l2_norm_clip, clip_mode)
    for i in range(4):
        with PerExampleTape(network) as tape:
            losses = 100.0 * losses_of(network, batch_for(network, i, 1))
        sums = clipped_gradient_sum(tape, losses, network.trainable_variables, l2_norm_clip, clip_mode).sums
        assert float(tf.linalg.global_norm(sums)) <= l2_norm_clip * (1 + 1e-5)
        if clip_mode == "per_layer":  # the two layers have two weights each
            for layer in (sums[:2], sums[2:]):
                assert float(tf.linalg.global_norm(layer)) <= l2_norm_clip / np.sqrt(2) * (1 + 1e-5)
        elif clip_mode == "automatic":
            assert float(tf.linalg.global_norm(sums)) > 0.8 * l2_norm_clip


def _of_views(views: int):
    """Losses [b, views] of inputs that are perturbed once for each view."""

    def losses_fn(network: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
        noise = tf.random.stateless_normal([inputs.shape[0] * views, *inputs.shape[1:]], [5, 5])
        return tf.reshape(losses_of(network, tf.repeat(inputs, views, axis=0) + noise), [-1, views])

    return losses_fn


@pytest.mark.parametrize(
    "network",
    [
        keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(2)]),
        keras.Sequential([keras.Input((3, 4)), layers.Dense(9, "tanh"), layers.LayerNormalization(), layers.Dense(2)]),
        keras.Sequential([keras.Input((4, 4, 64)), layers.Conv2D(96, 3, strides=3), layers.Flatten()]),
        keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2DTranspose(3, 3, 2), layers.Conv2D(4, 3, groups=1)]),
        keras.Sequential([keras.Input((6, 2)), layers.Conv1D(4, 3, groups=2), layers.PReLU(), layers.Flatten()]),
    ],
    ids=["dense", "rank 3", "by cells", "transposed", "groups"],
)
@pytest.mark.parametrize("clip_mode", ["flat", "per_layer"])
def test_views_of_one_example_are_averaged_before_the_clip(network: keras.Model, clip_mode: str) -> None:
    assert_equals_oracle(network, batch_for(network, 0), 0.3, clip_mode, losses_fn=_of_views(3))


def test_views_of_an_embedded_sentence_are_averaged_before_the_clip() -> None:
    network = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(5, 3), layers.Dense(2)])

    def losses_fn(network: keras.Model, indices: tf.Tensor) -> tf.Tensor:
        rolled = tf.stack([tf.roll(indices, 1, axis=1) % 3, indices], axis=1)
        return tf.reshape(losses_of(network, tf.reshape(rolled, [-1, 4])), [-1, 2])

    indices = tf.constant(np.random.default_rng(0).integers(0, 5, size=(6, 4)), tf.int32)
    assert_equals_oracle(network, indices, 0.05, losses_fn=losses_fn)


def test_views_may_meet_a_network_that_saw_each_example_once() -> None:
    """As the decoder of a VAE sees several latent draws of what the encoder saw once."""
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh")])
    decoder = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    both = keras.Model(encoder.inputs, decoder(encoder.outputs[0]))

    def losses_fn(network: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
        noise = tf.random.stateless_normal([3 * inputs.shape[0], 3], [5, 5])
        latents = tf.repeat(encoder(inputs), 3, axis=0) + noise
        return tf.reshape(losses_of(decoder, latents), [-1, 3])

    assert_equals_oracle(both, batch_for(encoder, 0), 0.3, losses_fn=losses_fn)


def test_views_of_one_example_bound_what_it_adds_however_many_they_are() -> None:
    network, inputs = _dense(), batch_for(_dense(), 0, 1)
    with PerExampleTape(network) as tape:
        losses = 1000.0 * _of_views(8)(network, inputs)
    sums = clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1).sums
    assert float(tf.linalg.global_norm(sums)) == pytest.approx(0.1, rel=1e-4)


def test_views_need_rows_for_every_view() -> None:
    network = _dense()
    with PerExampleTape(network) as tape:
        losses = tf.reshape(losses_of(network, batch_for(network, 0, 6)), [2, 3])[:, :2]
    with pytest.raises(ValueError, match="6 rows"):
        clipped_gradient_sum(tape, losses, network.trainable_variables, 0.1)

"""DPKerasAdam: the update of tensorflow-privacy's optimizer, at zero noise exactly and with noise in distribution."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfdpgen.installation import tensorflow_privacy
from tfdpgen.privacy import DPKerasAdam, DPKerasAdamW, DPKerasSGD, NoiseSource
from tfdpgen.privacy.clipping import register_per_example

keras = tf.keras
layers = tf.keras.layers
_STOCK = tensorflow_privacy("privacy.optimizers.dp_optimizer_keras")
DPKerasAdamOptimizer, DPKerasSGDOptimizer = _STOCK.DPKerasAdamOptimizer, _STOCK.DPKerasSGDOptimizer


def _network(seed: int = 0) -> keras.Model:
    tf.keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="tanh"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def _images(size: int = 6) -> tf.Tensor:
    return tf.random.stateless_uniform([size, 8, 8, 1], [1, 2])


def _losses(network: keras.Model, images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(network(images) - 1.0), axis=1)


def _fast_step(
    optimizer: DPKerasAdam, network: keras.Model, images: tf.Tensor, weights: tf.Tensor | float = 1.0
) -> None:
    with optimizer.gradient_tape(network) as tape:
        losses = _losses(network, images) * weights
    optimizer.minimize(losses, network.trainable_variables, tape=tape)


def _stock_step(optimizer: DPKerasAdamOptimizer, network: keras.Model, images: tf.Tensor) -> None:
    with tf.GradientTape() as tape:
        losses = _losses(network, images)
    optimizer.minimize(losses, network.trainable_variables, tape=tape)


def _assert_same_weights(ours: keras.Model, theirs: keras.Model, atol: float = 2e-6) -> None:
    for a, b in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("clipping", ["book_keeping", "jacobian"])
def test_without_noise_the_update_is_the_stock_optimizers(clipping: str) -> None:
    ours, theirs = _network(), _network()
    optimizer = DPKerasAdam(0.5, 0.0, learning_rate=0.01, clipping=clipping)
    stock = DPKerasAdamOptimizer(0.5, 0.0, learning_rate=0.01)
    for _ in range(3):
        _fast_step(optimizer, ours, _images())
        _stock_step(stock, theirs, _images())
    _assert_same_weights(ours, theirs, atol=1e-5)


def test_without_noise_and_clip_the_update_is_adams() -> None:
    ours, theirs = _network(), _network()
    optimizer = DPKerasAdam(float("inf"), 0.0, learning_rate=0.01)
    adam = tf.keras.optimizers.legacy.Adam(0.01)
    for _ in range(3):
        _fast_step(optimizer, ours, _images())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_losses(theirs, _images()))
        adam.minimize(loss, theirs.trainable_variables, tape=tape)
    _assert_same_weights(ours, theirs, atol=1e-5)


def test_the_divisor_is_the_expected_batch_size_whatever_was_drawn() -> None:
    network, images = _network(), _images()
    optimizer = DPKerasAdam(0.5, 0.0, expected_batch_size=12)
    with optimizer.gradient_tape(network) as tape:
        losses = _losses(network, images) * tf.constant([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    sums = optimizer.clipped_gradient_sum(losses, network.trainable_variables, tape)
    for noised, total in zip(optimizer.noised_gradients(sums), sums, strict=True):
        np.testing.assert_allclose(noised, total / 12.0, rtol=1e-6)


def _noise_of(optimizer: object, network: keras.Model, fast: bool) -> np.ndarray:
    """What one step adds to gradients that are zero, before Adam: the noise of the step."""
    images = _images()
    if fast:
        with optimizer.gradient_tape(network) as tape:
            losses = _losses(network, images) * 0.0
    else:
        with tf.GradientTape() as tape:
            losses = _losses(network, images) * 0.0
    pairs = optimizer._compute_gradients(losses, network.trainable_variables, tape=tape)
    return np.concatenate([gradient.numpy().ravel() for gradient, _ in pairs])


def _wide_network() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(400)])


def test_the_noise_has_the_declared_scale() -> None:
    """A Kolmogorov-Smirnov test that accepts the right scale and rejects two thirds and three halves of it."""
    clip, noise_multiplier, expected = 0.7, 1.3, 32
    optimizer = DPKerasAdam(clip, noise_multiplier, expected_batch_size=expected)
    noise = _noise_of(optimizer, _wide_network(), fast=True)
    scale = clip * noise_multiplier / expected
    assert scipy.stats.kstest(noise / scale, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(noise / (scale * wrong), "norm").pvalue < 1e-9


def test_the_noise_has_the_stock_optimizers_distribution() -> None:
    ours = _noise_of(DPKerasAdam(0.7, 1.3), _wide_network(), fast=True)
    theirs = _noise_of(DPKerasAdamOptimizer(0.7, 1.3), _wide_network(), fast=False)
    assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-6
    assert scipy.stats.ks_2samp(ours, theirs * 1.5).pvalue < 1e-9


def test_noise_is_fresh_in_every_step_and_no_global_seed_reaches_it() -> None:
    def two_steps() -> np.ndarray:
        tf.keras.utils.set_random_seed(7)
        optimizer = DPKerasAdam(1.0, 1.0)
        network = _wide_network()

        @tf.function
        def step() -> list[tf.Tensor]:
            return optimizer.noised_gradients([tf.zeros_like(v) for v in network.trainable_variables], 1.0)

        return np.stack([np.concatenate([value.numpy().ravel() for value in step()]) for _ in range(2)])

    first, second = two_steps(), two_steps()
    for a, b in [(first[0], first[1]), (first[0], second[0]), (first[1], second[1])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
        assert not np.any(a == b)


def test_an_insecure_source_repeats_itself_and_says_so() -> None:
    source = NoiseSource.insecure(3)
    assert not source.is_secure
    assert NoiseSource().is_secure
    a = _noise_of(DPKerasAdam(1.0, 1.0, noise=source), _wide_network(), fast=True)
    b = _noise_of(DPKerasAdam(1.0, 1.0, noise=NoiseSource.insecure(3)), _wide_network(), fast=True)
    np.testing.assert_array_equal(a, b)


def test_an_ordinary_tape_is_refused_with_what_to_do() -> None:
    network, optimizer = _network(), DPKerasAdam(1.0, 1.0)
    with tf.GradientTape() as tape:
        losses = _losses(network, _images())
    with pytest.raises(ValueError, match="gradient_tape"):
        optimizer.minimize(losses, network.trainable_variables, tape=tape)


def test_gradients_that_never_met_the_noise_are_refused() -> None:
    network = _network()
    with pytest.raises(AssertionError, match="not differentially private"):
        DPKerasAdam(1.0, 1.0).apply_gradients([(tf.zeros_like(v), v) for v in network.trainable_variables])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"l2_norm_clip": 0.0, "noise_multiplier": 1.0}, "l2_norm_clip"),
        ({"l2_norm_clip": float("inf"), "noise_multiplier": 1.0}, "l2_norm_clip"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": -1.0}, "noise_multiplier"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": float("nan")}, "noise_multiplier"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "num_microbatches": 2}, "num_microbatches"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 0}, "expected_batch_size"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "clipping": "none"}, "clipping"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "clip_mode": "none"}, "clip_mode"),
        ({"l2_norm_clip": float("inf"), "noise_multiplier": 0.0, "clip_mode": "per_layer"}, "l2_norm_clip"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        DPKerasAdam(**arguments)


def test_without_noise_sgd_is_the_stock_sgd() -> None:
    ours, theirs = _network(), _network()
    optimizer = DPKerasSGD(0.5, 0.0, learning_rate=0.1, momentum=0.9)
    stock = DPKerasSGDOptimizer(0.5, 0.0, learning_rate=0.1, momentum=0.9)
    for _ in range(3):
        _fast_step(optimizer, ours, _images())
        _stock_step(stock, theirs, _images())
    _assert_same_weights(ours, theirs, atol=1e-5)


def test_without_noise_and_clip_the_update_is_adam_w() -> None:
    """Against Keras's own AdamW, whose epsilon and bias correction are those of the legacy Adam."""
    ours, theirs = _network(), _network()
    optimizer = DPKerasAdamW(float("inf"), 0.0, learning_rate=0.01, weight_decay=0.3)
    adam_w = tf.keras.optimizers.AdamW(0.01, weight_decay=0.3)
    for _ in range(3):
        _fast_step(optimizer, ours, _images())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_losses(theirs, _images()))
        adam_w.minimize(loss, theirs.trainable_variables, tape=tape)
    _assert_same_weights(ours, theirs, atol=1e-5)
    adam = _network()
    for _ in range(3):
        _fast_step(DPKerasAdam(float("inf"), 0.0, learning_rate=0.01), adam, _images())
    with pytest.raises(AssertionError):  # without the decay it is another update
        _assert_same_weights(ours, adam, atol=1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [(DPKerasAdam, "Adam"), (DPKerasSGD, "SGD"), (DPKerasAdamW, "Adam")])
def test_the_optimizers_are_subclasses_of_tensorflow_privacys(ours: type, theirs: str) -> None:
    bases = {(base.__module__, base.__qualname__.rpartition(".")[2]) for base in ours.__mro__}
    assert ("tensorflow_privacy.privacy.optimizers.dp_optimizer_keras", "DPOptimizerClass") in bases
    assert issubclass(ours, getattr(tf.keras.optimizers.legacy, theirs))
    assert "l2_norm_clip:" in ours.__doc__


def test_examples_that_are_left_out_are_counted() -> None:
    network, optimizer = _network(), DPKerasAdam(1.0, 0.0)
    before = network.get_weights()
    images = tf.concat([_images(3), tf.fill([2, 8, 8, 1], np.nan)], axis=0)
    for count in (2, 4):
        _fast_step(optimizer, network, images)
        assert int(optimizer.non_finite_examples) == count
    assert all(np.isfinite(weight).all() for weight in network.get_weights())
    assert any(np.any(a != b) for a, b in zip(network.get_weights(), before, strict=True))


@pytest.mark.parametrize("clip_mode", ["flat", "per_layer", "automatic"])
def test_no_clip_mode_lets_one_example_move_the_sum_by_more_than_the_clip(clip_mode: str) -> None:
    """The noise is scaled to the clip, so this is the sensitivity that is accounted."""
    network, clip = _network(), 0.2
    optimizer = DPKerasAdam(clip, 1.0, clip_mode=clip_mode)

    def sums(scale: float) -> list[tf.Tensor]:
        with optimizer.gradient_tape(network) as tape:
            losses = _losses(network, _images()) * tf.constant([1.0, 1.0, 1.0, 1.0, 1.0, scale])
        return optimizer.clipped_gradient_sum(losses, network.trainable_variables, tape)

    without = sums(0.0)
    for scale in (0.1, 1.0, 1e4):
        moved = tf.linalg.global_norm([a - b for a, b in zip(sums(scale), without, strict=True)])
        assert float(moved) <= clip * (1 + 1e-4)


def test_the_jacobian_path_stops_where_one_example_would_take_the_others_with_it() -> None:
    network, optimizer = _network(), DPKerasAdam(1.0, 0.0, clipping="jacobian")
    images = tf.concat([_images(3), tf.fill([1, 8, 8, 1], np.nan)], axis=0)
    before = network.get_weights()
    step = tf.function(_fast_step)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        step(optimizer, network, images)
    for after, weight in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, weight)


def test_the_jacobian_path_takes_any_layer_and_counts_each_weight_once() -> None:
    """A layer made of layers, and one that has no rule, against one backward pass for each example."""

    @register_per_example
    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.local, self.dense = layers.LocallyConnected1D(2, 2), layers.Dense(3)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.dense(self.local(inputs))

    tf.keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4, 2)), Block(), layers.Flatten()])
    with pytest.raises(ValueError, match=r"'block'.*clipping=.jacobian"):
        DPKerasAdam(0.3, 0.0).gradient_tape(network)
    optimizer, images = DPKerasAdam(0.3, 0.0, clipping="jacobian"), tf.random.stateless_normal([4, 4, 2], [0, 0])
    with optimizer.gradient_tape(network) as tape:
        losses = _losses(network, images)
    sums = optimizer.clipped_gradient_sum(losses, network.trainable_variables, tape)
    expected = [np.zeros(variable.shape) for variable in network.trainable_variables]
    for i in range(4):
        with tf.GradientTape() as tape:
            loss = _losses(network, images[i : i + 1])
        gradients = tape.gradient(loss, network.trainable_variables)
        scale = min(1.0, 0.3 / float(tf.linalg.global_norm(gradients)))
        expected = [total + scale * gradient for total, gradient in zip(expected, gradients, strict=True)]
    for ours, theirs in zip(sums, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_products_of_ten_bits_are_refused_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"] if kind == "GPU" else [])
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(True)
        with pytest.raises(ValueError, match="enable_tensor_float_32_execution"):
            DPKerasAdam(1.0, 1.0).gradient_tape(_network())
        tf.config.experimental.enable_tensor_float_32_execution(False)
        DPKerasAdam(1.0, 1.0).gradient_tape(_network())
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)

"""Comparison of book-keeping with the jacobian: norms, clipped sums and the update that follows from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfdpgen.privacy import DPKerasSGD
from tfdpgen.privacy.clipping import (
    ClipMode,
    JacobianTape,
    PerExampleTape,
    clipped_gradient_sum,
    jacobian_clipped_gradient_sum,
    per_example_gradients,
)

keras = tf.keras

TOLERANCE = 1e-5


def batch_for(network: keras.Model, seed: int, size: int = 5) -> tf.Tensor:
    """Normal inputs of the network's shape."""
    return tf.random.stateless_normal([size, *network.input_shape[1:]], [seed, 0])


def losses_of(network: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
    """Some loss float [b] for each example, not linear in the outputs."""
    outputs = network(inputs)
    return tf.reduce_sum(tf.square(outputs - 0.3), axis=list(range(1, outputs.shape.rank)))


def assert_equals_oracle(
    network: keras.Model,
    inputs: tf.Tensor,
    l2_norm_clip: float,
    clip_mode: ClipMode = "flat",
    losses_fn: Callable[[keras.Model, tf.Tensor], tf.Tensor] = losses_of,
) -> None:
    """Norms, sums and updates of both paths agree to a relative 1e-5."""
    variables = network.trainable_variables
    with JacobianTape(network) as oracle_tape:
        losses = losses_fn(network, inputs)
        if losses.shape.rank == 2:
            losses = tf.reduce_mean(losses, axis=1)
    gradients = per_example_gradients(oracle_tape, losses, variables)
    norms = np.sqrt(sum(np.square(g.numpy().astype(np.float64)).reshape(len(g), -1).sum(1) for g in gradients))
    expected = jacobian_clipped_gradient_sum(oracle_tape, losses, variables, l2_norm_clip, clip_mode)

    with PerExampleTape(network) as tape:
        losses = losses_fn(network, inputs)
    actual = clipped_gradient_sum(tape, losses, variables, l2_norm_clip, clip_mode)
    np.testing.assert_allclose(actual.norms, norms, rtol=TOLERANCE, atol=1e-6)
    scale = max(float(np.abs(value).max()) for value in expected.sums)
    for ours, theirs, variable in zip(actual.sums, expected.sums, variables, strict=True):
        assert ours.shape == variable.shape
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * scale)
    _assert_same_updates(network, inputs, l2_norm_clip, clip_mode, losses_fn, scale)


def _assert_same_updates(
    network: keras.Model,
    inputs: tf.Tensor,
    l2_norm_clip: float,
    clip_mode: ClipMode,
    losses_fn: Callable[[keras.Model, tf.Tensor], tf.Tensor],
    scale: float,
) -> None:
    """One step of the optimizer by either path moves the weights by the same, which are then put back."""
    before = network.get_weights()
    moves = []
    for clipping in ("book_keeping", "jacobian"):
        optimizer = DPKerasSGD(
            l2_norm_clip, 0.0, expected_batch_size=1, clipping=clipping, clip_mode=clip_mode, learning_rate=1.0 / scale
        )
        with optimizer.gradient_tape(network) as tape:
            losses = losses_fn(network, inputs)
        optimizer.minimize(losses, network.trainable_variables, tape=tape)
        moves.append([after - weight for after, weight in zip(network.get_weights(), before, strict=True)])
        network.set_weights(before)
    for ours, theirs, weight in zip(*moves, before, strict=True):
        rounding = 1e-6 * np.abs(weight).max(initial=0.0)
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE + rounding)

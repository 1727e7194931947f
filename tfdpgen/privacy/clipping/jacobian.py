"""Clipped gradient sums from the jacobian: any layer, exact, and slow. The oracle for the fast path.

One difference is left: an example whose gradient is not finite spoils those of its whole batch here, since the backward
pass for another example's loss multiplies it by zero, and 0 * nan is nan. Leaving all of them out would let one example
move the sum by more than the clip, so this path stops instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdpgen.privacy.clipping.bookkeeping import ClippedSum
from tfdpgen.privacy.clipping.check import check_network
from tfdpgen.privacy.clipping.factors import ClipMode, clip_factors
from tfdpgen.privacy.clipping.registry import leaf_layers

keras = tf.keras


class JacobianTape(tf.GradientTape):
    """A gradient tape that knows its networks' layers, for `jacobian_clipped_gradient_sum`.

    Args:
      *networks: built Keras models, which have to treat each example alone.

    Raises:
      ValueError: for a network with a layer that mixes examples or is not known not to.
    """

    def __init__(self, *networks: keras.Model) -> None:
        super().__init__(persistent=True)
        for network in networks:
            check_network(network, needs_rules=False)
        layers = [layer for network in networks for layer in leaf_layers(network) if layer.trainable_weights]
        self.layers = list({id(layer): layer for layer in layers}.values())  # networks may share layers


def per_example_gradients(
    tape: tf.GradientTape, losses: tf.Tensor, variables: Sequence[tf.Variable]
) -> list[tf.Tensor]:
    """The gradients of each loss, one tensor [b, *variable.shape] for each variable. They are private.

    One backward pass for each loss: TensorFlow's vectorised jacobian is faster, and wrong for grouped convolutions.
    """
    return tape.jacobian(
        losses,
        list(variables),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
        experimental_use_pfor=False,
    )


def jacobian_clipped_gradient_sum(
    tape: JacobianTape,
    losses: tf.Tensor,
    variables: Sequence[tf.Variable],
    l2_norm_clip: float | tf.Tensor,
    clip_mode: ClipMode = "flat",
) -> ClippedSum:
    """As `clipped_gradient_sum`; same arguments and sensitivity.

    Raises:
      tf.errors.InvalidArgumentError: when run, if a gradient is not finite. That it was raised is a private fact.
    """
    if losses.shape.rank == 2:
        with tape:
            losses = tf.reduce_mean(losses, axis=1)
    gradients = {
        id(variable): tf.reshape(gradient, [-1, variable.shape.num_elements()])
        for variable, gradient in zip(variables, per_example_gradients(tape, losses, variables), strict=True)
    }
    groups, left = [], set(gradients)  # a layer made of layers holds their weights too: each counts once
    for layer in tape.layers:
        group = [id(weight) for weight in layer.trainable_weights if id(weight) in left]
        left.difference_update(group)
        groups += [group] if group else []
    squared_norms = [
        tf.add_n([tf.reduce_sum(tf.square(gradients[name]), axis=1) for name in group]) for group in groups
    ]
    factors, norms = clip_factors(squared_norms, l2_norm_clip, clip_mode)
    check: Any = tf.debugging.assert_equal(
        tf.reduce_all(tf.math.is_finite(norms)),
        True,
        'A gradient is not finite, and with clipping="jacobian" it cannot be left out without the others of its batch. '
        'Keep the losses finite, or give the layer a rule and use clipping="book_keeping".',
    )
    with tf.control_dependencies([check] if check is not None else []):
        sums = {
            name: tf.linalg.matvec(gradients[name], factor, transpose_a=True)
            for group, factor in zip(groups, factors, strict=True)
            for name in group
        }
    return ClippedSum([tf.reshape(sums[id(variable)], variable.shape) for variable in variables], norms)

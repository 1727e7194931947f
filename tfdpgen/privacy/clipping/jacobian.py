"""Clipped gradient sums from the jacobian: any layer, exact, and slow. The oracle for the fast path."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def per_example_gradients(
    tape: tf.GradientTape, losses: tf.Tensor, variables: Sequence[tf.Variable]
) -> list[tf.Tensor]:
    """The gradients of each loss, one tensor [b, *variable.shape] for each variable. They are private."""
    return tape.jacobian(losses, list(variables), unconnected_gradients=tf.UnconnectedGradients.ZERO)


def jacobian_clipped_gradient_sum(
    tape: tf.GradientTape, losses: tf.Tensor, variables: Sequence[tf.Variable], l2_norm_clip: float | tf.Tensor
) -> list[tf.Tensor]:
    """As `clipped_gradient_sum`, with any tape that watched the variables; same sensitivity and edge cases."""
    gradients = [
        tf.reshape(gradient, [tf.shape(losses)[0], variable.shape.num_elements()])
        for gradient, variable in zip(per_example_gradients(tape, losses, variables), variables, strict=True)
    ]
    norms = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient), axis=1) for gradient in gradients]))
    finite = tf.math.is_finite(norms)
    factors = tf.where(norms <= l2_norm_clip, tf.ones_like(norms), l2_norm_clip / norms)
    factors = tf.where(finite, factors, tf.zeros_like(norms))
    return [
        tf.reshape(
            tf.linalg.matvec(tf.where(finite[:, None], gradient, 0.0), factors, transpose_a=True), variable.shape
        )
        for gradient, variable in zip(gradients, variables, strict=True)
    ]

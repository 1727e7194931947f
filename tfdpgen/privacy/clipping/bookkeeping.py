"""Clipped per-example gradient sums from ONE backward pass (book-keeping; Bu et al. 2022, arXiv 2210.00038).

DP-SGD needs sum_i c_i g_i, where g_i is example i's gradient and c_i = min(1, C / ||g_i||). The g_i themselves are
never needed. The tape keeps, for every layer, its input a and the gradient g of the losses by its pre-activation; both
exist anyway in plain training. From them come all norms, hence the c_i, and then the weighted sum, which is the
ordinary weight gradient with g replaced by c_i g.

    with PerExampleTape(network) as tape:
        losses = loss_fn(labels, network(images))                # rank 1: one loss for each example
    sums = clipped_gradient_sum(tape, losses, network.trainable_variables, l2_norm_clip=1.0)

Norms: with the kernel's gradient A_i^T G_i over T positions, ||A_i^T G_i||^2 is either the sum over the k x c product,
or <A_i A_i^T, G_i G_i^T>, which never forms that product and is cheaper where T (k + c) < k c.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.gram import squared_norms_from_grams
from tfdpgen.privacy.clipping.registry import check_network, leaf_layers, rule_for

keras = tf.keras


class PerExampleTape(tf.GradientTape):
    """A gradient tape that also keeps each trainable layer's input and pre-activation, for `clipped_gradient_sum`.

    Args:
      *networks: built Keras models; every call of one of their layers inside the tape is recorded, so layers that are
        called more than once count with the sum of their calls. They have to treat each example alone, and so has
        whatever is computed between them.

    Raises:
      ValueError: for a network with a layer that cannot be clipped example by example (see `check_network`).
    """

    def __init__(self, *networks: keras.Model) -> None:
        super().__init__(watch_accessed_variables=False)
        for network in networks:
            check_network(network)
        self._layers = [layer for network in networks for layer in leaf_layers(network) if layer.trainable_weights]
        self.records: dict[int, list[tuple[tf.Tensor, tf.Tensor]]] = collections.defaultdict(list)

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The layers whose weights can be differentiated by."""
        return self._layers

    def __enter__(self) -> PerExampleTape:
        super().__enter__()
        for layer in self._layers:
            # In the instance's dictionary, past Keras's attribute tracking: removed again when the tape ends.
            layer.__dict__["call"] = self._recorder(layer)
        return self

    def __exit__(self, *details: Any) -> None:
        for layer in self._layers:
            layer.__dict__.pop("call", None)
        super().__exit__(*details)

    def _recorder(self, layer: keras.layers.Layer) -> Any:
        """The layer's call, with its activation applied after the pre-activation was recorded and watched."""
        call, layer_of_any_type = type(layer).call.__get__(layer), cast(Any, layer)

        @tf.autograph.experimental.do_not_convert
        def recording_call(inputs: tf.Tensor) -> tf.Tensor:
            activation = getattr(layer, "activation", None)
            if activation is not None:
                layer_of_any_type.activation = None
            try:
                outputs = call(inputs)
            finally:
                if activation is not None:
                    layer_of_any_type.activation = activation
            self.watch(outputs)
            self.records[id(layer)].append((inputs, outputs))
            return outputs if activation is None else activation(outputs)

        return recording_call


def clipped_gradient_sum(
    tape: PerExampleTape, losses: tf.Tensor, variables: Sequence[tf.Variable], l2_norm_clip: float | tf.Tensor
) -> list[tf.Tensor]:
    """sum_i min(1, C / ||g_i||) g_i over the examples, where g_i is the gradient of losses[i] by all `variables`.

    Unit of privacy: one example. Sensitivity: adding or removing one example moves the result by at most
    `l2_norm_clip` in L2 norm over all variables together. An example with loss 0 everywhere (padding) contributes zero,
    and so does one whose gradient is not finite; an empty batch gives zeros.

    Args:
      tape: the tape under which `losses` were computed; it can be used once.
      losses: float [b], one for each example, each depending on its own example only.
      variables: trainable weights of the tape's networks.
      l2_norm_clip: C, at least 0; infinity sums without clipping.

    Returns:
      One tensor for each of `variables`, in their order and shapes; zeros for those that were not used.

    Raises:
      ValueError: if `losses` is not of rank 1, or a variable does not belong to the tape's networks.
    """
    sums, _ = _clip_and_sum(tape, losses, variables, l2_norm_clip)
    return sums


def per_example_norms(tape: PerExampleTape, losses: tf.Tensor, variables: Sequence[tf.Variable]) -> tf.Tensor:
    """L2 norms float [b] of the gradients of each loss by all `variables`. They are private figures."""
    _, norms = _clip_and_sum(tape, losses, variables, 1.0)
    return norms


def _clip_and_sum(
    tape: PerExampleTape, losses: tf.Tensor, variables: Sequence[tf.Variable], l2_norm_clip: float | tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The clipped sum and the norms before clipping."""
    if losses.shape.rank != 1:
        raise ValueError(f"`losses` should be of rank 1, one loss for each example; got shape {losses.shape}.")
    wanted = {id(variable) for variable in variables}
    known = {id(weight) for layer in tape.layers for weight in layer.trainable_weights}
    if not wanted <= known:
        names = [variable.name for variable in variables if id(variable) not in known]
        raise ValueError(f"`variables` should belong to the tape's networks; these do not: {', '.join(names)}.")

    used = [layer for layer in tape.layers if tape.records[id(layer)] and _touches(layer, wanted)]
    calls = [(layer, a, z) for layer in used for a, z in tape.records[id(layer)]]
    outputs = [z for _, _, z in calls]
    gradients: Any = tape.gradient(losses, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    by_layer: dict[int, list[tuple[tf.Tensor, tf.Tensor]]] = collections.defaultdict(list)
    for (layer, a, _), g in zip(calls, gradients, strict=True):
        by_layer[id(layer)].append((a, g))

    squared_norms = tf.zeros_like(losses)
    for layer in used:
        squared_norms += _squared_norms(layer, by_layer[id(layer)], wanted)
    norms = tf.sqrt(squared_norms)
    finite = tf.math.is_finite(norms)
    factors = tf.where(norms <= l2_norm_clip, tf.ones_like(norms), l2_norm_clip / norms)
    factors = tf.where(finite, factors, tf.zeros_like(norms))

    sums: dict[int, tf.Tensor] = {}
    for layer in used:
        rule = rule_for(layer)
        for a, g in by_layer[id(layer)]:
            # 0 * nan is nan: examples that are left out have to be zero on both sides of the product.
            a, g = _zero_where_not(finite, a), _zero_where_not(finite, g)
            for weight, value in zip(layer.trainable_weights, rule.weighted_sum(layer, a, g, factors), strict=True):
                sums[id(weight)] = sums[id(weight)] + value if id(weight) in sums else value
    return [sums.get(id(variable), tf.zeros_like(variable)) for variable in variables], norms


def _touches(layer: keras.layers.Layer, wanted: set[int]) -> bool:
    """Whether any of the layer's weights is among the wanted ones."""
    return any(id(weight) in wanted for weight in layer.trainable_weights)


def _squared_norms(
    layer: keras.layers.Layer, pairs: Sequence[tuple[tf.Tensor, tf.Tensor]], wanted: set[int]
) -> tf.Tensor:
    """Squared norms [b] of the layer's per-example gradients, over all of its calls together."""
    factors = [rule_for(layer).factors(layer, a, g) for a, g in pairs]
    inputs = _joined([part[0] for part in factors])
    outputs = _joined([part[1] for part in factors])
    kernel, *bias = layer.trainable_weights
    # Factors that a short cut makes superfluous are never computed in a graph.
    result = tf.zeros_like(inputs[:, 0, 0])
    if id(kernel) in wanted:
        short_cut = rule_for(layer).kernel_squared_norms(layer, *pairs[0]) if len(pairs) == 1 else None
        result += _squared_product_norms(inputs, outputs) if short_cut is None else short_cut
    if bias and id(bias[0]) in wanted:
        bias_gradient = tf.add_n([part[2] for part in factors if part[2] is not None])
        result += tf.reduce_sum(tf.square(bias_gradient), axis=1)
    return result


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Several calls of one layer are more positions of one product."""
    return parts[0] if len(parts) == 1 else tf.concat(list(parts), axis=1)


def _squared_product_norms(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """||A_i^T G_i||_F^2 for each example, by the cheaper of the two forms."""
    positions, k, c = inputs.shape[1], cast(int, inputs.shape[2]), cast(int, outputs.shape[2])
    if positions == 1:
        squares = tf.reduce_sum(tf.square(inputs), axis=2) * tf.reduce_sum(tf.square(outputs), axis=2)
        return squares[:, 0]
    if positions is not None and positions * (k + c) < k * c:
        return squared_norms_from_grams(
            tf.matmul(inputs, inputs, transpose_b=True), tf.matmul(outputs, outputs, transpose_b=True)
        )
    return tf.reduce_sum(tf.square(tf.matmul(inputs, outputs, transpose_a=True)), axis=[1, 2])


def _zero_where_not(keep: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values` with the rows zeroed where `keep` is false."""
    return tf.where(tf.reshape(keep, [-1] + [1] * (values.shape.rank - 1)), values, tf.zeros_like(values))

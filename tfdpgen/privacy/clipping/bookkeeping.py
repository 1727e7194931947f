"""Clipped per-example gradient sums from ONE backward pass (book-keeping; Bu et al. 2022, arXiv 2210.00038).

DP-SGD needs sum_i c_i g_i, where g_i is example i's gradient and c_i = min(1, C / ||g_i||). The g_i themselves are
never needed. The tape keeps, for every layer, its input a and the gradient g of the losses by its pre-activation; both
exist anyway in plain training. From them come all norms, hence the c_i, and then the weighted sum, which is the
ordinary weight gradient with g replaced by c_i g.

    with PerExampleTape(network) as tape:
        losses = loss_fn(labels, network(images))                # rank 1: one loss for each example
    sums = clipped_gradient_sum(tape, losses, network.trainable_variables, l2_norm_clip=1.0)

Several views of one example (augmentations, latent draws) are averaged before the clip and so cost no privacy (De et
al. 2022, "Unlocking high-accuracy differentially private image classification through scale", section 3.2):

    with PerExampleTape(network) as tape:
        views = augment(tf.repeat(images, 4, axis=0))            # rows 4 i to 4 i + 3 are views of example i
        losses = tf.reshape(loss_fn(tf.repeat(labels, 4), network(views)), [-1, 4])
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.check import check_network
from tfdpgen.privacy.clipping.factors import ClipMode, clip_factors
from tfdpgen.privacy.clipping.gradients import PerExampleGradient
from tfdpgen.privacy.clipping.registry import leaf_layers, rule_for

keras = tf.keras


class ClippedSum(NamedTuple):
    """What the examples of one physical batch add up to; all of it is private until noise was added.

    Attributes:
      sums: one tensor for each variable.
      norms: L2 norms float [b] of the gradients before the clip; not finite where the example was left out.
    """

    sums: list[tf.Tensor]
    norms: tf.Tensor


class _Gradient(NamedTuple):
    """The per-example gradient of one weight, over all calls of its layer."""

    layer: keras.layers.Layer
    variable: tf.Variable
    gradient: PerExampleGradient


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
        layers = [layer for network in networks for layer in leaf_layers(network) if layer.trainable_weights]
        self._layers = list({id(layer): layer for layer in layers}.values())  # networks may share layers
        weights = [id(weight) for layer in self._layers for weight in layer.trainable_weights]
        if len(set(weights)) != len(weights):
            raise ValueError("`networks` should not share weights in different layers; share a layer, which is exact.")
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
        def recording_call(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
            activation = getattr(layer, "activation", None)
            if activation is not None:
                layer_of_any_type.activation = None
            try:
                outputs = call(inputs, *args, **kwargs)
            finally:
                if activation is not None:
                    layer_of_any_type.activation = activation
            self.watch(outputs)
            self.records[id(layer)].append((inputs, outputs))
            return outputs if activation is None else activation(outputs)

        recording_call.is_recorder = True  # pyright: ignore[reportFunctionMemberAccess]  # for `check_network`
        return recording_call


def clipped_gradient_sum(
    tape: PerExampleTape,
    losses: tf.Tensor,
    variables: Sequence[tf.Variable],
    l2_norm_clip: float | tf.Tensor,
    clip_mode: ClipMode = "flat",
) -> ClippedSum:
    """sum_i c_i g_i over the examples, where g_i is the gradient of example i's loss by all `variables`.

    Unit of privacy: one example. Sensitivity: adding or removing one example moves the sum by at most `l2_norm_clip` in
    L2 norm over all variables together. An example with loss 0 everywhere (padding) contributes zero, and so does one
    whose gradient is not finite; an empty batch gives zeros.

    Args:
      tape: the tape under which `losses` were computed; it can be used once.
      losses: float [b], one for each example, each depending on its own example only; or float [b, views], of which
        the mean over views is the example's loss. The networks may then have been called with b * views rows, `views`
        consecutive ones for each example, or with b.
      variables: trainable weights of the tape's networks.
      l2_norm_clip: C, at least 0; infinity sums without clipping.
      clip_mode: "flat", "per_layer" or "automatic"; see `tfdpgen.privacy.clipping.factors`.

    Returns:
      The sums, in the order and shapes of `variables` (zeros for those that were not used), and the norms.

    Raises:
      ValueError: if `losses` is not of rank 1 or 2, a variable does not belong to the tape's networks, or a network was
        called with another number of rows.
    """
    if losses.shape.rank not in (1, 2):
        raise ValueError(
            "`losses` should be of rank 1, one loss for each example, or of rank 2, one for each example and view; "
            f"got shape {losses.shape}."
        )
    wanted = {id(variable) for variable in variables}
    known = {id(weight) for layer in tape.layers for weight in layer.trainable_weights}
    if not wanted <= known:
        names = [variable.name for variable in variables if id(variable) not in known]
        raise ValueError(f"`variables` should belong to the tape's networks; these do not: {', '.join(names)}.")

    layers = [layer for layer in tape.layers if _touches(layer, wanted)]
    records = [(layer, a, z) for layer in layers for a, z in tape.records[id(layer)]]
    views = losses.shape[1] if losses.shape.rank == 2 else 1
    if views is None:
        raise ValueError(f"`losses` should have a static number of views; got shape {losses.shape}.")
    outputs: Any = tape.gradient(
        losses,
        [z for _, _, z in records],
        output_gradients=tf.fill(tf.shape(losses), tf.cast(1 / views, losses.dtype)) if views > 1 else None,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    gradients: list[_Gradient] = []
    for layer in layers:
        calls = [
            _of_examples(rule_for(layer).gradients(layer, a, g), _views_of(layer, g, losses, views))
            for (of, a, _), g in zip(records, outputs, strict=True)
            if of is layer
        ]
        for variable, *parts in zip(layer.trainable_weights, *calls, strict=True) if calls else ():
            if id(variable) in wanted:
                whole = parts[0].joined(parts[1:]) if len(parts) > 1 else parts[0]
                gradients.append(_Gradient(layer, variable, whole.formed()))

    zeros = tf.zeros_like(losses if losses.shape.rank == 1 else losses[:, 0])
    layer_norms = [
        sum((part.gradient.squared_norms() for part in gradients if part.layer is layer), start=zeros)
        for layer in layers
    ]
    factors, norms = clip_factors(layer_norms, l2_norm_clip, clip_mode) if layers else ([], zeros)
    factor_of = {id(layer): factor for layer, factor in zip(layers, factors, strict=True)}
    sums = {
        id(part.variable): part.gradient.weighted_sum(factor_of[id(part.layer)])
        for part in _without_rows_that_are_not_finite(gradients, norms)
    }
    return ClippedSum([sums.get(id(variable), tf.zeros_like(variable)) for variable in variables], norms)


def _touches(layer: keras.layers.Layer, wanted: set[int]) -> bool:
    """Whether any of the layer's weights is among the wanted ones."""
    return any(id(weight) in wanted for weight in layer.trainable_weights)


def _views_of(layer: keras.layers.Layer, g: tf.Tensor, losses: tf.Tensor, views: int) -> int:
    """How many rows of this call make one example: 1, or all of its views."""
    rows, examples = g.shape[0], losses.shape[0]
    if rows is not None and examples is not None:
        if rows == examples * views:
            return views
        if rows == examples:
            return 1
    elif views == 1:
        tf.debugging.assert_equal(
            tf.shape(g)[0], tf.shape(losses)[0], f"`losses` should hold one number for each row of {layer.name!r}."
        )
        return 1
    raise ValueError(
        f"`losses` has shape {losses.shape}, but layer {layer.name!r} was called with {rows} rows; expected one row, "
        "or one for each view, of every example, in batches of a static size."
    )


def _of_examples(gradients: Sequence[PerExampleGradient], views: int) -> Sequence[PerExampleGradient]:
    """The gradients of one call of a layer, with the views of each example added up."""
    return [gradient.merged(views) for gradient in gradients] if views > 1 else gradients


def _without_rows_that_are_not_finite(gradients: Sequence[_Gradient], norms: tf.Tensor) -> list[_Gradient]:
    """The same with zeros for examples that are left out, since 0 * nan is nan; copied only where there are any."""
    as_they_are = [tensor for part in gradients for tensor in part.gradient.tensors]
    if not as_they_are:
        return []
    finite = tf.math.is_finite(norms)

    def zeroed() -> list[tf.Tensor]:
        return [_zero_where_not(finite, tensor) for tensor in as_they_are]

    values = iter(cast(Any, tf.cond(tf.reduce_all(finite), lambda: as_they_are, zeroed)))
    return [
        part._replace(gradient=part.gradient.with_tensors([next(values) for _ in part.gradient.tensors]))
        for part in gradients
    ]


def _zero_where_not(keep: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values`, of which one or more consecutive rows make an example, with zeros where `keep` is false."""
    keep = tf.repeat(keep, tf.shape(values)[0] // tf.maximum(tf.size(keep), 1))
    return tf.where(tf.reshape(keep, [-1] + [1] * (values.shape.rank - 1)), values, tf.zeros_like(values))

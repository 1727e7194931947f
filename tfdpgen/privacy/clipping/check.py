"""Refuses networks whose examples' gradients could not be clipped one by one, by name and before any budget is spent.

    check_network(network)                               # ValueError: which layer, why, and what to do

Besides layers that are not in `registry.py`, these are models with a `call` of their own, whose computation no list of
layers describes; settings that make a known layer compute across examples; and layers that draw random numbers, since
what belongs to an example has to be drawn by `NoiseSource.examples` (`tfdpgen.privacy.noise`).
"""

from __future__ import annotations

import functools
import numbers
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.privacy.clipping.registry import (
    ACTIVATION_LAYERS,
    ACTIVATIONS,
    NEED_RANK_2,
    PER_EXAMPLE_LAYERS,
    RANDOM_LAYERS,
    RULES,
    leaf_layers,
)

keras = tf.keras


def check_network(network: Any, *, needs_rules: bool = True) -> None:
    """Refuses a network whose examples' gradients could not be clipped one by one.

    Args:
      network: a built Keras model from stock layers: functional or sequential, as are the models within it.
      needs_rules: whether weights need a `LayerRule` (book-keeping); the jacobian path does without, but a layer of
        one's own has to be declared by `register_per_example` all the same.

    Raises:
      ValueError: names the layer, why it is refused and what to do.
    """
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(f"`network` should be a built Keras model; got {network!r}.")
    of_any_rank: set[int] = set()  # layers in models that take inputs of other ranks than they were built with
    for model in network._flatten_layers(include_self=True, recursive=True):
        if isinstance(model, keras.Model) and type(model) not in _models():
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) should be functional (`keras.Model(inputs, outputs)`) "
                "or a `keras.Sequential`; it is of a class of its own, whose `call` may mix the examples of a batch "
                "unseen. Build it from layers."
            )
        if not isinstance(model, keras.Model):
            continue
        if _has_call_of_its_own(model):
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) has had its `call` replaced, which may mix the "
                "examples of a batch unseen. Build it from layers."
            )
        if not model._is_graph_network:
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) should know the shapes of its inputs, as functional "
                "models do; it was built by a call with several tensors, so that nothing is known of its layers' axes. "
                "Build it as `keras.Model(inputs, outputs)`."
            )
        if isinstance(model, keras.Sequential) and not model._has_explicit_input_shape:
            of_any_rank |= {id(layer) for layer in model.layers}
    for layer in network._flatten_layers(include_self=False, recursive=True):
        if _is_stock(layer) and _has_call_of_its_own(layer):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) has had its `call` replaced, which may mix the "
                "examples of a batch unseen. Make it a layer of its own, and register that."
            )
        if _draws(layer):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) draws random numbers by the place of an example in the "
                "batch, from generators that a public seed reaches: one more example then changes what the others "
                "draw. Leave it out, or draw by `noise.examples()` and multiply or add the result."
            )
        if _mixes_examples(layer, is_of_any_rank=id(layer) in of_any_rank):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) mixes the examples of a batch: one example then moves "
                "the gradients of all others, and clipping each gradient bounds nothing. Remove it, or normalise each "
                "example on its own."
            )
    held: dict[int, str] = {}
    for layer in leaf_layers(network):
        name = f"Layer {layer.name!r} ({type(layer).__name__})"
        activation = getattr(layer, "activation", None)
        if activation is not None and not _keeps_examples_apart(activation):
            raise ValueError(
                f"{name} has the activation {getattr(activation, '__name__', activation)!r}, which is not known to "
                "treat each example alone. Use one of Keras's by its name, such as 'relu' or 'tanh', or declare a "
                "function of your own by `register_activation`."
            )
        for weight in layer.trainable_weights:
            if needs_rules and id(weight) in held:
                raise ValueError(
                    f"{name} shares the weight {weight.name!r} with layer {held[id(weight)]!r}, and the norms of two "
                    "layers do not add up to that of one weight. Call one layer twice instead, which is exact."
                )
            held[id(weight)] = layer.name
        if layer.trainable_weights and needs_rules:
            problem = _problem_with_rule(layer)
            if problem:
                raise ValueError(
                    f"{name} {problem}. Layers with rules: {', '.join(sorted(kind.__name__ for kind in RULES))}. "
                    'Use one of them, register a rule, or choose clipping="jacobian", which is exact and slow.'
                )
        elif not _is_known(layer):
            raise ValueError(
                f"{name} is not known to treat each example alone, so a clipped gradient might not bound one example's "
                "influence. Use stock layers that do, such as Dense, Conv2D, LeakyReLU, Reshape or Concatenate, or "
                "declare a layer of your own by `register_per_example`."
            )
    loose = [weight.name for weight in network.trainable_weights if id(weight) not in held]
    if loose:
        raise ValueError(f"`network` holds weights outside of its layers, which no rule covers: {', '.join(loose)}.")


@functools.cache
def _models() -> frozenset[type]:
    """The types of models whose computation is that of their layers; the functional one has no public name."""
    inputs = keras.Input([1])
    return frozenset({type(keras.Model(inputs, inputs)), keras.Sequential})


def _is_known(layer: keras.layers.Layer) -> bool:
    """Whether a layer is known to treat each example alone, unless its settings say otherwise."""
    if type(layer) in PER_EXAMPLE_LAYERS | RANDOM_LAYERS or type(layer) in RULES:
        return True
    # Those of Keras's layers that learn compute each example from itself; of the others, some normalise over all.
    return _is_stock(layer) and bool(layer.trainable_weights)


def _is_stock(layer: keras.layers.Layer) -> bool:
    """Whether a layer is exactly of one of Keras's own types."""
    return getattr(keras.layers, type(layer).__name__, None) is type(layer)


def _has_call_of_its_own(layer: keras.layers.Layer) -> bool:
    """Whether somebody has replaced the `call` of this one layer; that a tape records it is none of it."""
    call = vars(layer).get("call")
    return call is not None and not getattr(call, "is_recorder", False)


def _keeps_examples_apart(activation: Any) -> bool:
    """Whether an activation is known to compute each example from itself alone."""
    if isinstance(activation, keras.layers.Layer):
        axes = _integers(getattr(activation, "axis", -1))
        return type(activation) in ACTIVATION_LAYERS and axes == [-1] and not _has_call_of_its_own(activation)
    return any(activation is known for known in ACTIVATIONS)


def _draws(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers in training."""
    names = ("stddev", "rate") if type(layer) in RANDOM_LAYERS else ("dropout", "recurrent_dropout")
    return any(isinstance(value := getattr(layer, name, 0.0), numbers.Real) and value != 0 for name in names)


def _mixes_examples(layer: keras.layers.Layer, *, is_of_any_rank: bool = False) -> bool:
    """Whether the layer is known to compute across the axis of the examples, or by an example's place in the batch.

    Where inputs may be of another rank than its calls so far, an axis that is counted from the end may be that one.
    """
    if any("BatchNormalization" in base.__name__ for base in type(layer).__mro__):
        return True
    if getattr(layer, "stateful", False) or getattr(layer, "time_major", False):  # recurrent layers
        return True
    calls: Any = getattr(layer, "inbound_nodes", ())  # none for a layer within a composite one
    ranks = {tensor.shape.rank for call in calls for tensor in tf.nest.flatten(call.input_tensors)}
    if isinstance(layer, keras.layers.EinsumDense) and not _is_of_each_example(layer.equation, ranks):
        return True
    if 1 in ranks and type(layer) in NEED_RANK_2:
        return True
    constants = [value for call in calls for value in call._flat_arguments if not hasattr(value, "_keras_history")]
    if any(_differs_by_place(value) for value in constants):
        return True
    if isinstance(layer, keras.layers.Rescaling):
        rank = max(np.ndim(layer.scale), np.ndim(layer.offset))
        if any(of_input is None or of_input <= rank for of_input in ranks):
            return True
    for name in ("axis", "axes", "_attention_axes", "shared_axes"):
        for axis in _integers(getattr(layer, name, None)):
            if axis == 0 or -axis in ranks or (is_of_any_rank and axis < -1):
                return True
    return False


def _integers(value: Any) -> list[int]:
    """The integers of any type in a setting that is one, or a list of them, or something else."""
    values = value if isinstance(value, list | tuple) else [value]
    return [int(each) for each in values if isinstance(each, numbers.Integral)]


def _differs_by_place(value: Any) -> bool:
    """Whether a constant that a layer is called with may give each place in the batch a value of its own."""
    if not (tf.is_tensor(value) or isinstance(value, np.ndarray)):
        return False
    shape = tf.TensorShape(value.shape)
    return shape.rank is None or (shape.rank > 0 and shape[0] != 1)


def _is_of_each_example(equation: str, ranks: set[int | None]) -> bool:
    """Whether an einsum equation has the examples first in inputs of these ranks and in outputs, not in the kernel."""
    inputs, kernel, outputs = (part.strip() for part in equation.replace("->", ",").split(","))
    if inputs.startswith("..."):
        if not outputs.startswith("..."):
            return False
        if len(inputs) - 3 not in ranks:  # the ellipsis holds the examples
            return True
        inputs, outputs = inputs[3:], outputs[3:]
    return inputs[0] == outputs[0] and inputs[0] not in kernel


def _problem_with_rule(layer: keras.layers.Layer) -> str | None:
    """Why book-keeping cannot clip the layer, or None."""
    if type(layer) not in RULES:
        return "has no rule for per-example gradients"
    if layer.compute_dtype not in ("float32", "float64"):
        return f"computes in {layer.compute_dtype}, in which norms overflow; rules need float32 or float64"
    return RULES[type(layer)].check(layer)

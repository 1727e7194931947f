"""Which layers may stand in a private network, and how their per-example gradients are had.

A layer with trainable weights needs a `LayerRule`, registered by layer type; users add their own in the same way:

    @register(tf.keras.layers.Dense)
    class DenseRule(LayerRule):
        def gradients(self, layer, a, g):
            return [Product(a[:, None, None, :], g[:, None, None, :]), Explicit(g)]          # kernel, bias

A layer without trainable weights is allowed only if it treats each example alone; `register_per_example` adds one, and
`register_activation` a function. `check_network` refuses everything else by name, before any budget is spent: also
models with a `call` of their own, whose computation no list of layers describes, and layers that draw random numbers,
since what belongs to an example has to be drawn by `NoiseSource.examples` (`tfdpgen.privacy.noise`).
"""

from __future__ import annotations

import abc
import functools
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import PerExampleGradient

keras = tf.keras

_RULES: dict[type, LayerRule] = {}
_Rule = TypeVar("_Rule", bound=type)
_Activation = TypeVar("_Activation", bound=Callable[..., tf.Tensor])

# Stock layers without trainable weights whose output for one example depends on that example alone.
_PER_EXAMPLE_LAYERS: set[type] = {
    getattr(keras.layers, name)
    for name in (
        *("InputLayer", "Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax"),
        *("Flatten", "Reshape", "Permute", "RepeatVector", "Rescaling", "CategoryEncoding", "Masking"),
        *(f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (1, 2, 3)),
        *(f"{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)),
        *(f"Global{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    )
}

# Stock layers that draw from TensorFlow's generators, which a public seed reaches, where their rate is not 0.
_RANDOM_LAYERS: set[type] = {
    getattr(keras.layers, name)
    for name in (
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"),
        *("GaussianNoise", "GaussianDropout"),
    )
}

# Layers that may stand where an activation does. They are called with tensors, so that nothing is known of their calls.
_ACTIVATION_LAYERS: set[type] = {
    getattr(keras.layers, name) for name in ("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax")
}

# Layers that take an input of rank 1, one number for each example, for one example.
_NEED_RANK_2: set[type] = {keras.layers.Masking, keras.layers.CategoryEncoding}

# Layers that compute through layers of their own, which are clipped one by one.
_COMPOSITE_LAYERS: set[type] = set()

# Functions whose value for one example depends on that example alone: number by number, or over its last axis.
_ACTIVATIONS: set[Any] = {
    getattr(keras.activations, name)
    for name in (
        *("linear", "relu", "elu", "selu", "gelu", "swish", "mish", "softplus", "softsign", "softmax"),
        *("exponential", "tanh", "sigmoid", "hard_sigmoid"),
    )
} | {tf.nn.relu, tf.nn.relu6, tf.nn.leaky_relu, tf.nn.silu, tf.nn.tanh, tf.nn.sigmoid, tf.nn.softplus, tf.tanh}


class LayerRule(abc.ABC):
    """How one type of layer gives per-example gradients from one backward pass.

    Notation: a is the layer's input, z its output before the activation, g = d loss / d z, both with the examples on
    their first axis. From a and g every weight's gradient follows (Bu et al. 2022, section 3), mostly as a product
    A_i^T G_i over positions (`Product`), or it is so small that it can be formed (`Explicit`).
    """

    def check(self, layer: keras.layers.Layer) -> str | None:
        """Why this particular layer's settings are not covered, or None if they are."""
        return None

    @abc.abstractmethod
    def gradients(self, layer: keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        """The per-example gradients by each of `layer.trainable_weights`, in their order, of one call of the layer."""


def register(layer_type: type[keras.layers.Layer]) -> Callable[[_Rule], _Rule]:
    """Class decorator: the rule for layers of exactly this type (a subclass may compute something else).

    A rule is part of the promise: if its norms are too small, rows pass that should have been clipped. Compare yours
    with `clipping="jacobian"`.
    """

    def add(rule_type: _Rule) -> _Rule:
        _RULES[layer_type] = cast(LayerRule, rule_type())
        return rule_type

    return add


def register_per_example(layer_type: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Declares that layers of exactly this type, without trainable weights, compute each example from itself alone."""
    _PER_EXAMPLE_LAYERS.add(layer_type)
    return layer_type


def register_composite(layer_type: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Declares that layers of exactly this type hold weights in layers of their own only, and keep examples apart."""
    _COMPOSITE_LAYERS.add(layer_type)
    return layer_type


def register_activation(function: _Activation) -> _Activation:
    """Declares that a function computes each example from itself alone, as `layer.activation`.

    This is part of the promise, and nothing checks it: show in a test that an example's values are the same in a batch
    of its own and beside others.
    """
    _ACTIVATIONS.add(function)
    return function


def rule_for(layer: keras.layers.Layer) -> LayerRule:
    """The rule of a layer that `check_network` let pass."""
    return _RULES[type(layer)]


def leaf_layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that compute, without the models and composite layers that only contain them."""
    for layer in network._flatten_layers(include_self=False, recursive=True):
        if not isinstance(layer, keras.Model) and type(layer) not in _COMPOSITE_LAYERS:
            yield layer


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
                f"Layer {layer.name!r} ({type(layer).__name__}) mixes the examples of a batch: one row then moves the "
                "gradients of all others, and clipping each gradient bounds nothing. Remove it, or normalise each "
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
                    f"{name} {problem}. Layers with rules: {', '.join(sorted(kind.__name__ for kind in _RULES))}. "
                    'Use one of them, register a rule, or choose clipping="jacobian", which is exact and slow.'
                )
        elif not _is_known(layer):
            raise ValueError(
                f"{name} is not known to treat each example alone, so a clipped gradient might not bound one row's "
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
    if type(layer) in _PER_EXAMPLE_LAYERS | _RANDOM_LAYERS or type(layer) in _RULES:
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
        return type(activation) in _ACTIVATION_LAYERS and axes == [-1] and not _has_call_of_its_own(activation)
    return any(activation is known for known in _ACTIVATIONS)


def _draws(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers in training."""
    names = ("stddev", "rate") if type(layer) in _RANDOM_LAYERS else ("dropout", "recurrent_dropout")
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
    if 1 in ranks and type(layer) in _NEED_RANK_2:
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
    if type(layer) not in _RULES:
        return "has no rule for per-example gradients"
    if layer.compute_dtype not in ("float32", "float64"):
        return f"computes in {layer.compute_dtype}, in which norms overflow; rules need float32 or float64"
    return _RULES[type(layer)].check(layer)

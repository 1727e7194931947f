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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

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
      needs_rules: whether weights need a `LayerRule` (book-keeping); the jacobian path does without.

    Raises:
      ValueError: names the layer, why it is refused and what to do.
    """
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(f"`network` should be a built Keras model; got {network!r}.")
    for model in network._flatten_layers(include_self=True, recursive=True):
        if isinstance(model, keras.Model) and type(model) not in _models():
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) should be functional (`keras.Model(inputs, outputs)`) "
                "or a `keras.Sequential`; it is of a class of its own, whose `call` may mix the examples of a batch "
                "unseen. Build it from layers."
            )
    for layer in network._flatten_layers(include_self=False, recursive=True):
        if type(layer) in _RANDOM_LAYERS and _draws(layer):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) draws random numbers by the place of an example in the "
                "batch, from generators that a public seed reaches: one more example then changes what the others "
                "draw. Leave it out, or draw by `noise.examples()` and multiply or add the result."
            )
        if _mixes_examples(layer):
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
        if layer.trainable_weights:
            problem = _problem_with_rule(layer)
            if problem and needs_rules:
                raise ValueError(
                    f"{name} {problem}. Layers with rules: {', '.join(sorted(kind.__name__ for kind in _RULES))}. "
                    'Use one of them, register a rule, or choose clipping="jacobian", which is exact and slow.'
                )
        elif type(layer) not in _PER_EXAMPLE_LAYERS | _RANDOM_LAYERS and type(layer) not in _RULES:
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


def _keeps_examples_apart(activation: Any) -> bool:
    """Whether an activation is known to compute each example from itself alone."""
    if isinstance(activation, keras.layers.Layer):
        return type(activation) in _PER_EXAMPLE_LAYERS and not _mixes_examples(activation)
    return any(activation is known for known in _ACTIVATIONS)


def _draws(layer: keras.layers.Layer) -> bool:
    """Whether a layer that can draw random numbers does so in training."""
    return getattr(layer, "stddev", 0.0) != 0.0 or getattr(layer, "rate", 0.0) not in (0, None)


def _mixes_examples(layer: keras.layers.Layer) -> bool:
    """Whether the layer is known to compute across the axis of the examples."""
    if any("BatchNormalization" in base.__name__ for base in type(layer).__mro__):
        return True
    calls: Any = getattr(layer, "inbound_nodes", ())  # none for a layer within a composite one
    ranks = {tensor.shape.rank for call in calls for tensor in tf.nest.flatten(call.input_tensors)}
    for name in ("axis", "axes", "_attention_axes", "shared_axes"):
        value = getattr(layer, name, None)
        for axis in value if isinstance(value, list | tuple) else [value]:
            if isinstance(axis, int) and (axis == 0 or -axis in ranks):
                return True
    return False


def _problem_with_rule(layer: keras.layers.Layer) -> str | None:
    """Why book-keeping cannot clip the layer, or None."""
    if type(layer) not in _RULES:
        return "has no rule for per-example gradients"
    if layer.compute_dtype not in ("float32", "float64"):
        return f"computes in {layer.compute_dtype}, in which norms overflow; rules need float32 or float64"
    return _RULES[type(layer)].check(layer)

"""Which layers may stand in a private network, and how their per-example gradients are had.

A layer with trainable weights needs a `LayerRule`, registered by layer type; users add their own in the same way:

    @register(tf.keras.layers.Dense)
    class DenseRule(LayerRule):
        def gradients(self, layer, a, g):
            return [Product(a[:, None, None, :], g[:, None, None, :]), Explicit(g)]          # kernel, bias

A layer without trainable weights is allowed only if it treats each example alone; `register_per_example` adds one, and
`register_activation` a function. `check.py` refuses everything else.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import PerExampleGradient

keras = tf.keras

RULES: dict[type, LayerRule] = {}
_Rule = TypeVar("_Rule", bound=type)
_Activation = TypeVar("_Activation", bound=Callable[..., tf.Tensor])

# Stock layers without trainable weights whose output for one example depends on that example alone.
PER_EXAMPLE_LAYERS: set[type] = {
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
RANDOM_LAYERS: set[type] = {
    getattr(keras.layers, name)
    for name in (
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"),
        *("GaussianNoise", "GaussianDropout"),
    )
}

# Layers that may stand where an activation does. They are called with tensors, so that nothing is known of their calls.
ACTIVATION_LAYERS: set[type] = {
    getattr(keras.layers, name) for name in ("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax")
}

# Layers that take an input of rank 1, one number for each example, for one example.
NEED_RANK_2: set[type] = {keras.layers.Masking, keras.layers.CategoryEncoding}

# Layers that compute through layers of their own, which are clipped one by one.
COMPOSITE_LAYERS: set[type] = set()

# Functions whose value for one example depends on that example alone: number by number, or over its last axis.
ACTIVATIONS: set[Any] = {
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

    A rule is part of the promise: if its norms are too small, examples pass that should have been clipped. Compare
    yours with `clipping="jacobian"`.
    """

    def add(rule_type: _Rule) -> _Rule:
        RULES[layer_type] = cast(LayerRule, rule_type())
        return rule_type

    return add


def register_per_example(layer_type: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Declares that layers of exactly this type, without trainable weights, compute each example from itself alone."""
    PER_EXAMPLE_LAYERS.add(layer_type)
    return layer_type


def register_composite(layer_type: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Declares that layers of exactly this type hold weights in layers of their own only, and keep examples apart."""
    COMPOSITE_LAYERS.add(layer_type)
    return layer_type


def register_activation(function: _Activation) -> _Activation:
    """Declares that a function computes each example from itself alone, as `layer.activation`.

    This is part of the promise, and nothing checks it: show in a test that an example's values are the same in a batch
    of its own and beside others.
    """
    ACTIVATIONS.add(function)
    return function


def rule_for(layer: keras.layers.Layer) -> LayerRule:
    """The rule of a layer that `check_network` let pass."""
    return RULES[type(layer)]


def leaf_layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that compute, without the models and composite layers that only contain them."""
    for layer in network._flatten_layers(include_self=False, recursive=True):
        if not isinstance(layer, keras.Model) and type(layer) not in COMPOSITE_LAYERS:
            yield layer

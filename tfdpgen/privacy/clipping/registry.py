"""Which layers may stand in a private network, and how their per-example gradients are had.

A layer with trainable weights needs a `LayerRule`, registered by layer type:

    @register(tf.keras.layers.Dense)
    class DenseRule(LayerRule): ...

A layer without trainable weights is allowed only if it treats each example alone. `check_network` refuses everything
else by name, before any budget is spent.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import tensorflow as tf

keras = tf.keras

_RULES: dict[type, LayerRule] = {}
_Rule = TypeVar("_Rule", bound=type)

# Stock layers without trainable weights whose output for one example depends on that example alone.
_PER_EXAMPLE_LAYERS: tuple[type, ...] = (
    keras.layers.InputLayer,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Rescaling,
    keras.layers.CategoryEncoding,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling2D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Concatenate,
    keras.layers.Dot,
)


class LayerRule(abc.ABC):
    """How one type of layer gives per-example gradients from one backward pass.

    Notation: a is the layer's input, z its output before the activation, g = d loss / d z, both with the examples on
    their first axis. For every layer covered here the gradient of one example's loss by the kernel is, after a
    re-arrangement of the input or of g, a matrix product A_i^T G_i over T positions (Bu et al. 2022, "Differentially
    private optimization on large model at small cost", section 3); by the bias it is a sum of g over positions.
    """

    @abc.abstractmethod
    def check(self, layer: keras.layers.Layer) -> str | None:
        """Why this particular layer's settings are not covered, or None if they are."""

    @abc.abstractmethod
    def factors(
        self, layer: keras.layers.Layer, a: tf.Tensor, g: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """(A [b, T, k], G [b, T, c], bias gradient [b, units] or None) such that A_i^T G_i is the kernel's gradient."""

    def kernel_squared_norms(self, layer: keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> tf.Tensor | None:
        """||A_i^T G_i||_F^2 [b] of one call by a cheaper way than `factors`, or None where there is none."""
        return None

    @abc.abstractmethod
    def weighted_sum(
        self, layer: keras.layers.Layer, a: tf.Tensor, g: tf.Tensor, weights: tf.Tensor
    ) -> list[tf.Tensor]:
        """sum_i weights[i] * gradient_i for each of `layer.trainable_weights`, in their order."""


def register(layer_type: type[keras.layers.Layer]) -> Callable[[_Rule], _Rule]:
    """Class decorator: the rule for layers of exactly this type (a subclass may compute something else)."""

    def add(rule_type: _Rule) -> _Rule:
        _RULES[layer_type] = cast(LayerRule, rule_type())
        return rule_type

    return add


def rule_for(layer: keras.layers.Layer) -> LayerRule:
    """The rule of a layer that `check_network` let pass."""
    return _RULES[type(layer)]


def leaf_layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that compute, without the models that only contain them."""
    for layer in network._flatten_layers(include_self=False, recursive=True):
        if not isinstance(layer, keras.Model):
            yield layer


def check_network(network: Any, *, needs_rules: bool = True) -> None:
    """Refuses a network whose examples' gradients could not be clipped one by one.

    Args:
      network: a built Keras model from stock layers (functional or sequential, nested models allowed).
      needs_rules: whether weights need a `LayerRule` (book-keeping); the jacobian path does without.

    Raises:
      ValueError: names the layer, why it is refused and what to do.
    """
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(f"`network` should be a built Keras model; got {network!r}.")
    held = set()
    for layer in leaf_layers(network):
        held.update(id(weight) for weight in layer.trainable_weights)
        name = f"Layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, keras.layers.BatchNormalization):
            raise ValueError(
                f"{name} mixes the examples of a batch: one row then moves the gradients of all others, and clipping "
                "each gradient bounds nothing. Remove it, or normalise each example on its own."
            )
        if layer.trainable_weights:
            rule = _RULES.get(type(layer))
            problem = "has no rule for per-example gradients" if rule is None else rule.check(layer)
            if problem and needs_rules:
                raise ValueError(
                    f"{name} {problem}. Layers with rules: {', '.join(sorted(kind.__name__ for kind in _RULES))}. "
                    'Use one of them, register a rule, or choose clipping="jacobian", which is exact and slow.'
                )
        elif not isinstance(layer, (*_PER_EXAMPLE_LAYERS, *_RULES)):
            raise ValueError(
                f"{name} is not known to treat each example alone, so a clipped gradient might not bound one row's "
                "influence. Use stock layers that do, such as Dense, Conv2D, LeakyReLU, Reshape or Concatenate."
            )
    loose = [weight.name for weight in network.trainable_weights if id(weight) not in held]
    if loose:
        raise ValueError(f"`network` holds weights outside of its layers, which no rule covers: {', '.join(loose)}.")

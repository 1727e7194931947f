"""EinsumDense: a dense layer whose axes an equation names, such as "abc,cde->abde".

Each label plays one part: the examples (first in input and output), groups n (in input, kernel and output), positions T
(in input and output), inputs k (in input and kernel) or outputs c (in kernel and output). Brought into that order, the
kernel's gradient is a `Product`.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from typing import NamedTuple, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient, Product
from tfdpgen.privacy.clipping.registry import LayerRule, register


class _Equation(NamedTuple):
    """The labels of an einsum equation without ellipsis."""

    input: str
    kernel: str
    output: str


@register(tf.keras.layers.EinsumDense)
class EinsumDenseRule(LayerRule):
    """`tf.keras.layers.EinsumDense` where the examples come first in input and output and not in the kernel."""

    def check(self, layer: tf.keras.layers.Layer) -> str | None:
        labels = _labels(layer.equation, None)
        used = [labels.input, labels.kernel, labels.output]
        if any(len(set(axes)) != len(axes) for axes in used):
            return f"has the equation {layer.equation!r}, which repeats a label; its rule needs each once"
        return None

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        labels = _labels(layer.equation, a.shape.rank)
        batch, kernel = labels.input[0], set(labels.kernel)
        sizes = dict(zip(labels.kernel, layer.kernel.shape, strict=True))
        groups = [label for label in labels.input if label in kernel and label in labels.output]
        positions = [label for label in labels.input[1:] if label in labels.output and label not in kernel]
        k = [label for label in labels.input if label in kernel and label not in labels.output]
        c = [label for label in labels.output if label in kernel and label not in labels.input]

        def arranged(values: tf.Tensor, axes: str, last: list[str]) -> tf.Tensor:
            ordered = tf.einsum(f"{axes}->{''.join([batch, *groups, *positions, *last])}", values)
            count = math.prod([cast(int, values.shape[axes.index(label)]) for label in positions])
            return tf.reshape(ordered, [-1, size(groups), count, size(last)])

        def size(axes: list[str]) -> int:
            return math.prod([sizes[label] for label in axes])

        def arrange(value: tf.Tensor) -> tf.Tensor:
            order = [*groups, *k, *c]
            by_label = tf.reshape(value, [sizes[label] for label in order])
            return tf.transpose(by_label, [order.index(label) for label in labels.kernel])

        gradients: list[PerExampleGradient] = [
            Product(arranged(a, labels.input, k), arranged(g, labels.output, c), arrange)
        ]
        if layer.bias is not None:
            gradients.append(Explicit(_summed_to(g, layer.bias.shape)))
        return gradients


def _labels(equation: str, input_rank: int | None) -> _Equation:
    """The labels, with an ellipsis spelled out for an input of that rank (or as one axis where it is not known)."""
    inputs, kernel, output = re.split(",|->", equation.replace(" ", ""))
    named = len(inputs.replace("...", ""))
    hidden = 1 if input_rank is None else input_rank - named
    free = [label for label in string.ascii_letters if label not in equation][:hidden]
    return _Equation(*(part.replace("...", "".join(free)) for part in (inputs, kernel, output)))


def _summed_to(g: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """G [b, ...] summed over the axes along which a bias of this shape is broadcast: [b, *shape]."""
    axes = g.shape.rank - 1
    padded = [1] * (axes - shape.rank) + shape.as_list()
    summed = tf.reduce_sum(g, axis=[1 + i for i in range(axes) if padded[i] == 1], keepdims=True)
    return tf.reshape(summed, [-1, *shape])

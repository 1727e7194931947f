"""Per-example gradients of one weight, kept in the factors that they are made of.

A layer rule says which of these each weight has; they know how to get norms and weighted sums out of the factors
without ever forming one gradient for each example, where that is the cheaper way:

    gradient = Product(inputs, outputs).formed()         # the kernel's gradient of example i is A_i^T G_i
    gradient.squared_norms()                             # float [b]
    gradient.weighted_sum(factors)                       # sum_i factors[i] A_i^T G_i, shaped like the weight

Source: Bu et al. 2022, "Differentially private optimization on large model at small cost", section 3.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.gram import squared_norms_from_grams

# What writing and reading back one number of a matrix costs beside one multiplication and addition, measured on
# batches of small matrices (`benchmarks/norm_forms.py`).
_MEMORY = 10.0


class PerExampleGradient(abc.ABC):
    """The gradients of every example's loss by one weight.

    Attributes:
      tensors: the factors, each with the examples on its first axis.
    """

    tensors: tuple[tf.Tensor, ...]

    @abc.abstractmethod
    def squared_norms(self) -> tf.Tensor:
        """Squared L2 norms float [b] of each example's gradient."""

    @abc.abstractmethod
    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """sum_i weights[i] * gradient_i over the b examples, in the weight's shape."""

    def formed(self) -> PerExampleGradient:
        """The same, with each example's gradient formed where that is the cheapest way to norms and sum."""
        return self

    @abc.abstractmethod
    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> PerExampleGradient:
        """The same gradient of other factors of the same shapes."""

    @abc.abstractmethod
    def merged(self, views: int) -> PerExampleGradient:
        """With the `views` consecutive rows of one example added up: b rows become b / views examples."""

    @abc.abstractmethod
    def joined(self, others: Sequence[PerExampleGradient]) -> PerExampleGradient:
        """The sum with the gradients that other calls of the same layer gave for the same weight."""


class Product(PerExampleGradient):
    """A_i^T G_i over T positions, in n independent groups.

    Args:
      inputs: A float [b, n, T, k].
      outputs: G float [b, n, T, c].
      arrange: [n, k, c] -> the weight's shape.
    """

    def __init__(
        self, inputs: tf.Tensor, outputs: tf.Tensor, arrange: Callable[[tf.Tensor], tf.Tensor] | None = None
    ) -> None:
        self.tensors = (inputs, outputs)
        self._arrange = arrange or (lambda value: tf.squeeze(value, axis=0))

    def formed(self) -> PerExampleGradient:
        inputs, outputs = self.tensors
        positions, k, c = self._sizes()
        if positions is None or not forming_is_cheapest(positions, k, c):
            return self
        products = tf.matmul(inputs, outputs, transpose_a=True)
        groups = cast(int, inputs.shape[1])
        return Explicit(
            tf.reshape(products, [-1, groups * k * c]), lambda value: self._arrange(tf.reshape(value, [groups, k, c]))
        )

    def squared_norms(self) -> tf.Tensor:
        inputs, outputs = self.tensors
        positions, k, c = self._sizes()
        if positions == 1:
            squares = tf.reduce_sum(tf.square(inputs), axis=[2, 3]) * tf.reduce_sum(tf.square(outputs), axis=[2, 3])
            return tf.reduce_sum(squares, axis=1)
        if positions is not None and gram_is_cheaper(positions, k, c):
            return squared_norms_from_grams(
                tf.matmul(inputs, inputs, transpose_b=True), tf.matmul(outputs, outputs, transpose_b=True)
            )
        return tf.reduce_sum(tf.square(tf.matmul(inputs, outputs, transpose_a=True)), axis=[1, 2, 3])

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        inputs, outputs = self.tensors
        scale = tf.reshape(weights, [-1, 1, 1, 1])
        if cast(int, inputs.shape[3]) < cast(int, outputs.shape[3]):
            inputs = inputs * scale
        else:
            outputs = outputs * scale
        groups = cast(int, inputs.shape[1])
        if groups == 1:
            rows = [tf.reshape(value, [1, -1, value.shape[3]]) for value in (inputs, outputs)]
        else:
            rows = [
                tf.reshape(tf.transpose(value, [1, 0, 2, 3]), [groups, -1, value.shape[3]])
                for value in (inputs, outputs)
            ]
        return self._arrange(tf.matmul(rows[0], rows[1], transpose_a=True))

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> Product:
        return Product(tensors[0], tensors[1], self._arrange)

    def merged(self, views: int) -> Product:
        return self.with_tensors([_merged_positions(value, views) for value in self.tensors])

    def joined(self, others: Sequence[PerExampleGradient]) -> Product:
        parts = [self.tensors, *(other.tensors for other in others)]
        return self.with_tensors([tf.concat(values, axis=2) for values in zip(*parts, strict=True)])

    def _sizes(self) -> tuple[int | None, int, int]:
        """T, k and c."""
        inputs, outputs = self.tensors
        return inputs.shape[2], cast(int, inputs.shape[3]), cast(int, outputs.shape[3])


class Explicit(PerExampleGradient):
    """Gradients that are small enough to be formed.

    Args:
      values: float [b, *weight.shape].
      arrange: values[i] -> the weight's shape, where that is another one.
    """

    def __init__(self, values: tf.Tensor, arrange: Callable[[tf.Tensor], tf.Tensor] = tf.identity) -> None:
        self.tensors = (values,)
        self._arrange = arrange

    def squared_norms(self) -> tf.Tensor:
        (values,) = self.tensors
        return tf.reduce_sum(tf.square(values), axis=list(range(1, values.shape.rank)))

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        (values,) = self.tensors
        return self._arrange(tf.tensordot(weights, values, axes=1))

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> Explicit:
        return Explicit(tensors[0], self._arrange)

    def merged(self, views: int) -> Explicit:
        (values,) = self.tensors
        return Explicit(tf.reduce_sum(tf.reshape(values, [-1, views, *values.shape[1:]]), axis=1), self._arrange)

    def joined(self, others: Sequence[PerExampleGradient]) -> Explicit:
        return Explicit(tf.add_n([self.tensors[0], *(other.tensors[0] for other in others)]), self._arrange)


class Rearranged(PerExampleGradient):
    """Another gradient, for a weight that holds the same numbers in another shape.

    Args:
      gradient: of a weight with as many numbers in the same order.
      shape: the weight's.
    """

    def __init__(self, gradient: PerExampleGradient, shape: Sequence[int]) -> None:
        self.tensors = gradient.tensors
        self._gradient = gradient
        self._shape = shape

    def formed(self) -> Rearranged:
        return Rearranged(self._gradient.formed(), self._shape)

    def squared_norms(self) -> tf.Tensor:
        return self._gradient.squared_norms()

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        return tf.reshape(self._gradient.weighted_sum(weights), self._shape)

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> Rearranged:
        return Rearranged(self._gradient.with_tensors(tensors), self._shape)

    def merged(self, views: int) -> Rearranged:
        return Rearranged(self._gradient.merged(views), self._shape)

    def joined(self, others: Sequence[Any]) -> Rearranged:
        return Rearranged(self._gradient.joined([other._gradient for other in others]), self._shape)


def gram_is_cheaper(positions: int, k: int, c: int) -> bool:
    """Whether norms cost less by <A A^T, G G^T> than by A^T G, for A [T, k] and G [T, c]."""
    return gram_cost(positions, k, c) < formed_cost(positions, k, c)


def forming_is_cheapest(positions: int, k: int, c: int) -> bool:
    """Whether to form A^T G for norms and keep it for the sum, which then costs next to nothing."""
    return positions > 1 and kept_cost(positions, k, c) < min(gram_cost(positions, k, c), formed_cost(positions, k, c))


def gram_cost(positions: int, k: int, c: int) -> float:
    """Operations for norms by Gram matrices."""
    return positions**2 * (k + c) + 2 * _MEMORY * positions**2


def formed_cost(positions: int, k: int, c: int) -> float:
    """Operations for norms by products that are not kept."""
    return positions * k * c + _MEMORY * k * c


def kept_cost(positions: int, k: int, c: int) -> float:
    """Operations for norms by products that are kept, less those that the sum then saves.

    It is infinite where the products would take more memory than A and G do.
    """
    return 2 * _MEMORY * k * c if k * c <= positions * (k + c) else math.inf


def making_cost(numbers: int) -> float:
    """Operations that writing so many numbers and reading them again is worth."""
    return _MEMORY * numbers


def _merged_positions(values: tf.Tensor, views: int) -> tf.Tensor:
    """[b * views, n, T, k] -> [b, n, views * T, k]."""
    _, groups, positions, k = values.shape
    count: Any = tf.shape(values)[2] if positions is None else positions
    if groups != 1:
        values = tf.transpose(tf.reshape(values, [-1, views, groups, count, k]), [0, 2, 1, 3, 4])
    merged = tf.reshape(values, [-1, groups, views * count, k])
    return merged if positions is None else tf.ensure_shape(merged, [None, groups, views * positions, k])

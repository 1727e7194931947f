"""Embedding: row v of the table gets the sum of g over the positions where the input is v.

A row that comes up twice in one example gets the sum of both, so that the norm is taken after adding up: positions are
sorted by example and row, and each run of equal ones is summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdpgen.privacy.clipping.gradients import PerExampleGradient
from tfdpgen.privacy.clipping.registry import LayerRule, register


class RowSums(PerExampleGradient):
    """sum_t e_(row_it) g_it^T, a gradient of a table [rows, c].

    Args:
      indices: row_it int32 [b, T].
      values: g float [b, T, c].
      rows: of the table.
    """

    def __init__(self, indices: tf.Tensor, values: tf.Tensor, rows: int) -> None:
        self.tensors = (values,)
        self._indices = indices
        self._rows = rows

    def squared_norms(self) -> tf.Tensor:
        (values,) = self.tensors
        order = tf.argsort(self._indices, axis=1)
        ordered = tf.gather(self._indices, order, axis=1, batch_dims=1)
        starts = tf.concat([tf.ones_like(ordered[:, :1]), tf.cast(ordered[:, 1:] != ordered[:, :-1], tf.int32)], axis=1)
        runs = tf.cumsum(tf.reshape(starts, [-1])) - 1  # a new run at the start of each example
        flat = tf.reshape(tf.gather(values, order, axis=1, batch_dims=1), [-1, values.shape[2]])
        sums = tf.math.unsorted_segment_sum(flat, runs, tf.size(runs))
        squares = tf.gather(tf.reduce_sum(tf.square(sums), axis=1), runs) * tf.cast(
            tf.reshape(starts, [-1]), values.dtype
        )
        return tf.reduce_sum(tf.reshape(squares, tf.shape(ordered)), axis=1)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        (values,) = self.tensors
        scaled = tf.reshape(values * weights[:, tf.newaxis, tf.newaxis], [-1, values.shape[2]])
        return tf.math.unsorted_segment_sum(scaled, tf.reshape(self._indices, [-1]), self._rows)

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> RowSums:
        return RowSums(self._indices, tensors[0], self._rows)

    def merged(self, views: int) -> RowSums:
        (values,) = self.tensors
        count = tf.shape(values)[1] * views
        return RowSums(
            tf.reshape(self._indices, [-1, count]), tf.reshape(values, [-1, count, values.shape[2]]), self._rows
        )

    def joined(self, others: Sequence[Any]) -> RowSums:
        parts = [self, *others]
        return RowSums(
            tf.concat([part._indices for part in parts], axis=1),
            tf.concat([part.tensors[0] for part in parts], axis=1),
            self._rows,
        )


@register(tf.keras.layers.Embedding)
class EmbeddingRule(LayerRule):
    """`tf.keras.layers.Embedding` on indices of any rank."""

    def gradients(self, layer: tf.keras.layers.Layer, a: tf.Tensor, g: tf.Tensor) -> Sequence[PerExampleGradient]:
        positions = tf.reduce_prod(tf.shape(a)[1:])
        indices = tf.reshape(tf.cast(a, tf.int32), [-1, positions])
        return [RowSums(indices, tf.reshape(g, [-1, positions, layer.output_dim]), layer.input_dim)]

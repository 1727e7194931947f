"""What the builders share: seeded initial weights, one-hot labels, scaled columns, all weights as one vector."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

keras = tf.keras


class Seeded:
    """Makes layers whose initial weights are a function of one seed, without touching TensorFlow's global seed."""

    def __init__(self, seed: int) -> None:
        self._seeds = itertools.count(seed * 1_000_003 % 2**31)

    def glorot(self) -> keras.initializers.Initializer:
        """Glorot uniform (Glorot & Bengio 2010), seeded."""
        return keras.initializers.GlorotUniform(seed=next(self._seeds))

    def he(self) -> keras.initializers.Initializer:
        """He normal (He et al. 2015), seeded."""
        return keras.initializers.HeNormal(seed=next(self._seeds))


def one_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels int64 [n] as float32 [n, num_classes]; labels out of range are refused in the graph."""
    # As a column: from a single label without that, Keras would make a vector instead of a matrix of one row.
    column = keras.layers.Reshape((1,), name="column")(labels)
    return keras.layers.CategoryEncoding(num_tokens=num_classes, output_mode="one_hot", name="one_hot")(column)


def scaled_columns(factors: npt.NDArray[np.floating], name: str) -> keras.layers.Layer:
    """A layer [n, d] -> [n, d] that multiplies columns by factors [d]: weights, which a checkpoint of a model holds."""
    layer = keras.layers.Dense(len(factors), use_bias=False, trainable=False, name=name)
    layer.build((None, len(factors)))
    layer.set_weights([np.diag(factors)])
    return layer


def get_weights(networks: Sequence[keras.Model]) -> npt.NDArray[np.float32]:
    """All weights of some networks in one vector."""
    return np.concatenate([weight.ravel() for network in networks for weight in network.get_weights()])


def set_weights(networks: Sequence[keras.Model], vector: npt.NDArray[np.float32]) -> None:
    """The inverse of `get_weights`."""
    start = 0
    for network in networks:
        weights = []
        for weight in network.get_weights():
            weights.append(vector[start : start + weight.size].reshape(weight.shape))
            start += weight.size
        network.set_weights(weights)

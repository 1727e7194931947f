"""The CNN that is taught by generated images and asked about real ones: small, and the same for every data set.

    model = build_cnn(image_shape=(28, 28, 1), num_classes=10, seed=0)
    model.compile(...); model.fit(batches_of(order, images, labels))
    probabilities = model(images)       # uint8 [n, h, w, c] -> float32 [n, num_classes]

Its architecture follows from the image shape alone. It treats each example by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

keras = tf.keras


def build_cnn(image_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """Two convolutions and a dense layer; strides halve small images once (8x8 to 4x4) and others twice.

    Args:
      image_shape: (height, width, channels).
      num_classes: of the probabilities.
      seed: of initial weights and dropout.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(8) >> 1)

    def init() -> keras.initializers.Initializer:
        return keras.initializers.HeUniform(seed=int(next(seeds)))

    inputs = keras.Input(image_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    large = min(image_shape[:2]) >= 16
    x = keras.layers.Conv2D(
        32, 5 if large else 3, 2 if large else 1, padding="same", activation="relu", kernel_initializer=init()
    )(x)
    x = keras.layers.Conv2D(64, 3, 2, padding="same", activation="relu", kernel_initializer=init())(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(128, activation="relu", kernel_initializer=init())(x)
    # rng_type: a generator of the layer's own, not TensorFlow's global one.
    stateful: Any = {"rng_type": "stateful"}  # Keras passes it on to its base layer, which its type does not say
    x = keras.layers.Dropout(0.3, seed=int(next(seeds)), **stateful)(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", kernel_initializer=init())(x)
    return keras.Model(inputs, outputs, name="utility_cnn")


def batches_of(order: npt.NDArray[np.integer], images: npt.NDArray[np.uint8], targets: npt.NDArray) -> tf.data.Dataset:
    """Examples in a given order, since that of tf.data's own shuffle depends on TensorFlow's global seed.

    Args:
      order: [steps, batch_size], places of examples.
      images: uint8 [n, h, w, c].
      targets: [n] or [n, num_classes].
    """
    examples = tf.constant(images), tf.constant(targets)
    batches = tf.data.Dataset.from_tensor_slices(order)
    return batches.map(lambda batch: (tf.gather(examples[0], batch), tf.gather(examples[1], batch))).prefetch(2)

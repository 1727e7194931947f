"""Fixed features of an image: the lowest frequencies of it and, where wanted, its pose; and the image that has them.

    features_of = WaveFeatures((28, 28, 1), num_waves=90, has_poses=True)
    features = features_of.described(images)      # float32 [n, h, w, c] in [0, 1] -> [n, features_of.size]
    images = features_of.drawn(features)          # symbolic, as a part of a Keras model

Nothing in them is learnt from data, and everything treats each image alone.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import fft

from tfdpgen.networks import poses
from tfdpgen.networks.layers import scaled_columns

CENTRE = 0.2  # of the pixels: what features are measured from, so that their norms are small
_POSE_SCALE = (1.0, 1.0, 0.18)  # of shifts as shares of a side, and of the lean: as large as frequencies are


def lowest_waves(image_shape: tuple[int, int, int], num_waves: int) -> npt.NDArray[np.float64]:
    """Orthonormal cosine waves of the lowest frequencies, of each channel: float64 [h * w * c, num_waves * c]."""
    height, width, channels = image_shape
    frequencies = itertools.product(range(height), range(width))
    chosen = sorted(frequencies, key=lambda pair: (pair[0] / height) ** 2 + (pair[1] / width) ** 2)[:num_waves]
    waves = np.zeros((height, width, channels, len(chosen), channels))
    for i, (row, column) in enumerate(chosen):
        spectrum = np.zeros((height, width))
        spectrum[row, column] = 1.0
        wave: Any = fft.idctn(spectrum, norm="ortho")
        for channel in range(channels):
            waves[:, :, channel, i, channel] = wave
    return waves.reshape(height * width * channels, len(chosen) * channels)


class ImageFeatures(Protocol):
    """Numbers that describe an image, and the image that has them; a function of each image alone.

    Attributes:
      size: how many features there are.
      num_poses: how many of them, the first ones, are a pose.
    """

    size: int
    num_poses: int

    def described(self, images: tf.Tensor, posed: tf.Variable | float = 1.0) -> tf.Tensor:
        """float32 [n, h, w, c] in [0, 1] -> [n, size]; where `posed` is 0, the pose counts as none."""
        ...

    def drawn(self, features: tf.Tensor, posed: float = 1.0, moves: tf.Tensor | None = None) -> tf.Tensor:
        """Images float32 [n, h, w, c] in [0, 1] that have these features, by Keras layers."""
        ...


class WaveFeatures:
    """An image's pose, if it has one here, and the lowest frequencies of what is left when the pose is taken off.

    Args:
      image_shape: (h, w, c).
      num_waves: of each channel; all that there are, where it is more.
      has_poses: whether a pose (`poses.measured`) is taken off, and its three numbers are the first features.

    Attributes:
      waves: float32 [h * w * c, number of waves].
      pose_scale: float32 [3], what the numbers of a pose are multiplied by to be features.
      num_poses: how many features a pose is, 3 or 0.
      size: how many features there are.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_waves: int, has_poses: bool = False) -> None:
        height, width, _ = self.image_shape = image_shape
        self.waves = lowest_waves(image_shape, num_waves).astype(np.float32)
        self.pose_scale = np.array(_POSE_SCALE, np.float32) * math.sqrt(height * width)
        self.pose_scale[:2] /= width, height
        self.num_poses = poses.NUM_POSES * has_poses
        self.size = self.num_poses + self.waves.shape[1]

    def described(self, images: tf.Tensor, posed: tf.Variable | float = 1.0) -> tf.Tensor:
        """float32 [n, h, w, c] in [0, 1] -> [n, size]; where `posed` is 0, the pose counts as none."""
        parts = []
        if self.num_poses:
            found = poses.measured(images) * posed
            parts.append(found * self.pose_scale)
            images = poses.moved(images, found)
        pixels = tf.reshape(images, [-1, len(self.waves)]) - CENTRE
        parts.append(tf.linalg.matmul(pixels, self.waves))
        return tf.concat(parts, axis=1)

    def drawn(self, features: tf.Tensor, posed: float = 1.0, moves: tf.Tensor | None = None) -> tf.Tensor:
        """Images float32 [n, h, w, c] in [0, 1] that have these features, by Keras layers.

        Args:
          features: [n, size].
          posed: 0: the features' poses count as none.
          moves: [n, 3], added to the poses; in pixels, pixels and pixels for each row.
        """
        pixels = tf.keras.layers.Dense(len(self.waves), trainable=False, name="waves")
        images = tf.keras.layers.ReLU(max_value=1.0)(pixels(features[:, self.num_poses :]))
        pixels.set_weights([self.waves.T, np.full(len(self.waves), CENTRE, np.float32)])
        images = tf.keras.layers.Reshape(self.image_shape)(images)
        pose = moves
        if self.num_poses:
            own = scaled_columns(posed / self.pose_scale, "poses")(features[:, : self.num_poses])
            pose = own if moves is None else moves + own
        if pose is not None:
            images = poses.moved(images, pose, back=True)
        return tf.keras.layers.Activation("linear", dtype="float32", name="images")(images)

"""Low-frequency DCT coefficients of an image.

    features = DCT((28, 28, 1), num_coefficients=150)
    features.transform(images)                        # float32 [n, 28, 28, 1] -> [n, 150]

The two-dimensional discrete cosine transform is a public basis in which few axes, those of low frequency, hold most of
an image (Ahmed, Natarajan & Rao 1974). It is orthonormal, so that distances are those of pixels. Of coloured images it
describes brightness and two differences of colours, and these more coarsely, as JPEG does: photographs have little
detail in colour, and noise would have as much in each.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import fft

ORIGIN = 0.2  # of pixels: what coefficients are measured from, so that their norms are small
_COLOUR_SHARE = 0.1  # coefficients of each difference of colours, for one of brightness
_OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])  # brightness, and differences
_RADIUS = 0.35  # root mean square of what pixels differ by from ORIGIN, that an image has at most


def low_frequency_basis(image_shape: tuple[int, int, int], num_coefficients: int) -> npt.NDArray[np.float64]:
    """Orthonormal cosine waves of the lowest frequencies: float64 [h * w * c, d]; the lowest come first.

    d is `num_coefficients` for grey images, all that there are where it is more. Of coloured ones that many are of
    brightness, and a tenth as many, at least one, of each of two differences of colours.
    """
    height, width, channels = image_shape
    frequencies = itertools.product(range(height), range(width))
    chosen = sorted(frequencies, key=lambda pair: (pair[0] / height) ** 2 + (pair[1] / width) ** 2)[:num_coefficients]
    axes, coloured = (_OPPONENT, math.ceil(_COLOUR_SHARE * len(chosen))) if channels == 3 else (np.eye(1), 0)
    waves = []
    for i, (row, column) in enumerate(chosen):
        spectrum = np.zeros((height, width))
        spectrum[row, column] = 1.0
        wave: Any = fft.idctn(spectrum, norm="ortho")
        waves += [np.ravel(wave[:, :, None] * axis) for axis in (axes if i < coloured else axes[:1])]
    return np.stack(waves, axis=1)


class DCT:
    """The lowest coefficients; see the top of this file.

    Args:
      image_shape: (h, w, c).
      num_coefficients: of brightness, all that there are where it is more; a tenth of it of each difference of colours.

    Attributes:
      basis: float32 [h * w * c, d].
      size: d, how many features there are.
      radius: that an image's coefficients have at most; longer ones are clipped.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_coefficients: int) -> None:
        self.image_shape = image_shape
        self.basis = low_frequency_basis(image_shape, num_coefficients).astype(np.float32)
        self.size: int = self.basis.shape[1]
        self.radius = _RADIUS * math.sqrt(math.prod(image_shape))

    def transform(self, images: Any) -> Any:
        """float32 [n, h, w, c] in [0, 1] -> [n, d]."""
        return tf.linalg.matmul(tf.reshape(images, [-1, len(self.basis)]) - ORIGIN, self.basis)

    def inverse_transform(self, values: Any) -> Any:
        """[n, d] -> images float32 [n, h, w, c], cut off at 0 and 1; of Keras tensors it makes Keras layers."""
        pixels = tf.keras.layers.Dense(len(self.basis), trainable=False, name="inverse_dct")
        pixels.build((None, self.basis.shape[1]))
        pixels.set_weights([self.basis.T, np.full(len(self.basis), ORIGIN, np.float32)])
        images = tf.keras.layers.ReLU(max_value=1.0)(pixels(values))
        return tf.keras.layers.Reshape(self.image_shape)(images)

"""Feature spaces: where generated and real images are compared. What one says depends on where it looks.

    space = scattering_space()                              # fixed wavelets: the same for everybody, always at hand
    space = cnn_space(classifier)                           # the last hidden layer of a CNN that knows the classes
    space = inception_space("inception_v3_..._notop.h5")    # ImageNet's InceptionV3, where its weights are at hand
    space.features(images)                                  # uint8 [n, h, w, c] -> float32 [n, d]

| space | shaped by | metrics are comparable |
|---|---|---|
| `scattering` | nothing: fixed wavelets | across runs and methods, on one data set |
| `cnn` | the examples that its classifier was trained on | between releases that one and the same CNN judges |
| `inception` | ImageNet | with what the same weights and resizing gave elsewhere |

`scattering` (Bruna & Mallat 2013, arXiv 1203.1513) sees strokes, edges and textures, and knows nothing of classes: of
images with each other's labels it says the same. `cnn` sees what tells classes apart; trained on private examples it is
as private as they are, and a bit closer to its own training examples than to others, so that real examples to compare
with should be examples that it has not seen. Metrics in different spaces, and of different numbers of examples, are not
comparable with each other. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.evaluation.classifiers import Classifier
from tfdpgen.features.scattering import scattering

keras = tf.keras

INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
_INCEPTION_SIDE = 299
_GRID = 2  # scattering coefficients are averaged over so many by so many parts of the image
_BATCH = 512


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A fixed function of single images.

    Attributes:
      name: under which metrics are reported.
      description: what it is, in a sentence.
      function: float32 images [b, h, w, c] in [0, 255] -> float32 [b, d].
      batch_size: images at a time.
      most_examples: examples beyond which a measurement in this space takes too long to be worth it.
    """

    name: str
    description: str
    function: Callable[[tf.Tensor], Any]
    batch_size: int = _BATCH
    most_examples: int = 10_000

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Images uint8 [n, h, w, c] as points float32 [n, d].

        Raises:
          ValueError: if there are no images.
        """
        if not len(images):
            raise ValueError("`images` should hold at least one image; it is empty.")
        parts = [
            np.asarray(self.function(tf.constant(images[start : start + self.batch_size], tf.float32)))
            for start in range(0, len(images), self.batch_size)
        ]
        return np.concatenate(parts)


def scattering_space() -> FeatureSpace:
    """81 scattering coefficients a channel (2 octaves, 8 angles), averaged over each quarter of the image."""

    def function(images: tf.Tensor) -> Any:
        maps: Any = scattering(images / 255.0)
        return tf.reshape(tf.image.resize(maps, [_GRID, _GRID], method="area"), [len(maps), -1])

    return FeatureSpace("scattering", "Fixed wavelets (scattering), shaped by no data.", function)


def cnn_space(classifier: Classifier) -> FeatureSpace:
    """The 128 outputs of the last hidden layer of a CNN.

    Args:
      classifier: of kind "cnn". If it was trained on private examples, its features are internal.

    Raises:
      ValueError: if it is another kind.
    """
    if classifier.model is None:
        raise ValueError(f"`classifier` should be a cnn, whose layers can be read; got {classifier.name}.")
    hidden = next(layer for layer in reversed(classifier.model.layers[:-1]) if isinstance(layer, keras.layers.Dense))
    network = keras.Model(classifier.model.inputs, hidden.output)
    description = f"The last hidden layer of the evaluation's CNN, trained on {classifier.trained_on} examples."
    return FeatureSpace("cnn", description, lambda images: network(images, training=False))


def inception_space(weights: str | os.PathLike[str]) -> FeatureSpace:
    """The 2,048 outputs of InceptionV3's last pooling (Heusel et al. 2017), with Keras's weights for ImageNet.

    Images become 299 x 299 by bicubic interpolation; grey ones get three equal channels. Keras's weights are not those
    of the reference implementation of FID, so its metrics differ from published ones by a few per cent.

    Args:
      weights: the file `INCEPTION_FILE`; "keras" for the one in ~/.keras/models, where Keras keeps what it has
        downloaded. Nothing is downloaded here.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file holds other weights.
    """
    path = Path("~/.keras/models", INCEPTION_FILE).expanduser() if weights == "keras" else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"`weights` should be the file {INCEPTION_FILE}; there is none at {path}. Where a network is at hand, "
            "`keras.applications.InceptionV3(include_top=False)` puts it into ~/.keras/models; or leave out this space."
        )
    network = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(_INCEPTION_SIDE, _INCEPTION_SIDE, 3), pooling="avg"
    )
    try:
        network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"`weights` should hold InceptionV3's without its top, as {INCEPTION_FILE}: {error}"
        ) from error

    def function(images: tf.Tensor) -> Any:
        side = _INCEPTION_SIDE
        resized: Any = tf.image.resize(images, [side, side], method="bicubic", antialias=True)
        colours = tf.clip_by_value(resized, 0.0, 255.0)
        if images.shape[-1] == 1:
            colours = tf.image.grayscale_to_rgb(colours)
        return network(colours / 127.5 - 1.0, training=False)

    description = "The last pooling of InceptionV3, trained on ImageNet (Keras's weights)."
    return FeatureSpace("inception", description, function, batch_size=32, most_examples=2_000)

"""What features of images are: numbers that describe an image, and the image that has them.

    features = DCT((28, 28, 1), num_coefficients=150)
    values = features.transform(images)               # float32 [n, h, w, c] in [0, 1] -> [n, features.size]
    images = features.inverse_transform(values)       # up to what the features leave out

A method measures private examples in such a space and samples in it. A transform is a function of one image at a time
and of constants: it costs no privacy and mixes no examples.
"""

from __future__ import annotations

from typing import Any, Protocol


class Features(Protocol):
    """A fixed space of features.

    Attributes:
      size: d, how many there are.
      radius: public; images that are like anything lie within this distance of the origin. Longer ones are clipped.
    """

    size: int
    radius: float

    def transform(self, images: Any) -> Any:
        """float32 [n, h, w, c] in [0, 1] -> [n, d], in TensorFlow operations."""
        ...

    def inverse_transform(self, values: Any) -> Any:
        """[n, d] -> images float32 [n, h, w, c] in [0, 1]; of Keras tensors it makes layers of stock Keras."""
        ...

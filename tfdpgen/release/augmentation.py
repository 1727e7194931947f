"""Augmentation: random transformations of generated images that keep what they show, for a labeller to label.

    augmentation = Augmentation(rotation=14.0, elastic=0.04)
    images = augmentation(images, np.random.default_rng(0))        # uint8 [n, h, w, c] -> the same shape
    soft_labels = labeller.probabilities(images, augmentation.temperature)

A generator that was trained with little budget shows few of the ways in which images of a class differ. Random affine
maps and elastic distortions (Simard et al. 2003, "Best practices for convolutional neural networks") and strokes of
other widths add differences that are public knowledge. Whether an image still shows its class is for the labeller to
say: its probabilities are learnt from in place of labels (Hinton et al. 2015, "Distilling the knowledge in a neural
network").

All of this is post-processing of a release and costs nothing. Which transformations suit a data set is a public fact
about it or an option, and is never learnt from private examples.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_KNOTS = 5  # of an elastic distortion, along each side
_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)[:, :, None]  # a pixel and the four beside it


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far images are changed: standard deviations of normal draws, unless said otherwise; 0 for not at all.

    Attributes:
      rotation: degrees.
      scale: of the logarithm of each side's factor.
      shear: of x, in units of height.
      shift: of the whole image, as a share of each side.
      elastic: of 5 x 5 knots on the image, as a share of each side.
      stroke_width: how far strokes are thickened or thinned, uniform up to this; 1 is a whole pixel to each side.
      temperature: of the labeller's probabilities: the higher, the more they say of the classes that it rules out, and
        the less of how sure it is (Hinton et al. 2015).

    Raises:
      ValueError: if a number is out of range.
    """

    rotation: float = 10.0
    scale: float = 0.1
    shear: float = 0.16
    shift: float = 0.035
    elastic: float = 0.04
    stroke_width: float = 0.8
    temperature: float = 3.0

    def __post_init__(self) -> None:
        limits = {"rotation": 90, "scale": 1, "shear": 2, "shift": 1, "elastic": 1, "stroke_width": 1}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"`{name}` should lie between 0 and {most}; got {value!r}.")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"`temperature` should be finite and greater than 0; got {self.temperature!r}.")

    def __call__(self, images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Changed images, uint8 [n, h, w, c] -> the same shape; a function of images and the generator's state."""
        changed = np.empty_like(images)
        for number, image in enumerate(images):
            changed[number] = np.rint(self._with_other_strokes(self._warped(image, rng), rng))
        return changed

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON-ready values."""
        return dataclasses.asdict(self)

    def _warped(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """A random affine map and an elastic distortion, by bilinear interpolation; edges are continued."""
        height, width, channels = image.shape
        sides, centre = np.array([height, width]), np.array([height - 1, width - 1]) / 2
        angle, shear = np.deg2rad(rng.normal(0, self.rotation)), rng.normal(0, self.shear)
        scales = np.exp(rng.normal(0, self.scale, 2))
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrix = rotation @ [[scales[0], 0.0], [shear, scales[1]]]
        offset = centre + rng.normal(0, self.shift, 2) * sides - matrix @ centre
        places = np.tensordot(matrix, np.indices((height, width)), 1) + offset[:, None, None]
        knots = rng.normal(0, self.elastic, (2, _KNOTS, _KNOTS)) * sides[:, None, None]
        places += _weights(height) @ knots @ _weights(width).T
        warped = np.empty(image.shape, np.float32)
        for channel in range(channels):
            ndimage.map_coordinates(image[..., channel], places, warped[..., channel], order=1, mode="nearest")
        return warped

    def _with_other_strokes(self, image: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.floating]:
        """Blended with its dilation or its erosion by a pixel."""
        amount = rng.uniform(-self.stroke_width, self.stroke_width)
        extreme = (ndimage.grey_dilation if amount > 0 else ndimage.grey_erosion)(
            image, footprint=_NEIGHBOURS, mode="nearest"
        )
        return image + abs(amount) * (extreme - image)


def _weights(size: int) -> npt.NDArray[np.float64]:
    """The weight of each knot at each place along a side, [size, knots]: linear between knots."""
    places = np.linspace(0, _KNOTS - 1, size)
    return np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(_KNOTS)))

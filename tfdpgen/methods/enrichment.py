"""Enrichment: generated images, changed by random transformations that keep what they show, for a teacher to label.

    enrichment = Enrichment(rotation=14.0, elastic=0.04)
    images = enrichment(images, np.random.default_rng(0))        # uint8 [n, h, w, c] -> the same shape
    soft_labels = teacher.probabilities(images, enrichment.temperature)

A generator that was trained with little budget shows few of the ways in which images of a class differ. Transformations
that are the same for every class add what is public about such differences (Simard et al. 2003, "Best practices for
convolutional neural networks", for elastic ones); whether an image still shows its class is for the teacher to say,
whose probabilities are learnt from in place of labels (Hinton et al. 2015, "Distilling the knowledge in a neural
network"). With `drawings`, a part of the enriched rows are random strokes (`tfdpgen.features.stroke_images`), which are
more diverse than anything that was learnt; few of them show a class, and the teacher's probabilities say how far.

All of this is post-processing of a release and costs nothing. Which transformations suit a data set is a public fact
about it or an option, and is never learnt from private rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 2000  # images at a time
_KNOTS = 5  # of an elastic warp, along each side


@dataclasses.dataclass(frozen=True)
class Enrichment:
    """How far images are changed: standard deviations of normal draws, unless said otherwise.

    Attributes:
      rotation: degrees.
      scale: of the logarithm of each side's factor.
      shear: of x, in units of height.
      shift, elastic: as shares of a side: of the whole image, and of 5 x 5 knots on it.
      width: how far strokes are thickened or thinned, uniform up to this; 1 is a whole pixel to each side.
      temperature: of the teacher's probabilities: the higher, the more they say of classes that it denies, and the less
        of how sure it is (Hinton et al. 2015).
      drawings: share of the enriched rows that are random strokes, in place of generated images.
      plain: share of them that are plain rows as they are, whose labels the teacher has not denied.

    Raises:
      ValueError: if a number is out of range.
    """

    rotation: float = 10.0
    scale: float = 0.1
    shear: float = 0.16
    shift: float = 0.035
    elastic: float = 0.04
    width: float = 0.8
    temperature: float = 3.0
    drawings: float = 0.0
    plain: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "rotation": 90,
            "scale": 1,
            "shear": 2,
            "shift": 1,
            "elastic": 1,
            "width": 1,
            "drawings": 1,
            "plain": 1,
        }
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"`{name}` should lie between 0 and {most}; got {value!r}.")
        if self.drawings + self.plain > 1:
            raise ValueError(f"`drawings` and `plain` are shares of one whole; got {self.drawings} and {self.plain}.")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"`temperature` should be finite and greater than 0; got {self.temperature!r}.")

    def __call__(self, images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Changed images, uint8 [n, h, w, c] -> the same shape; a function of images and the generator's state."""
        parts = [self._thickened(self._warped(images[i : i + _CHUNK], rng), rng) for i in range(0, len(images), _CHUNK)]
        return np.concatenate(parts) if parts else images

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON-ready values."""
        return dataclasses.asdict(self)

    def _warped(self, images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Turned, scaled, sheared, shifted and bent, by bilinear interpolation; edges are continued."""
        num, height, width, _ = images.shape
        angles = np.deg2rad(rng.normal(0, self.rotation, num))
        scales = np.exp(rng.normal(0, self.scale, (2, num)))
        shears = rng.normal(0, self.shear, num)
        turns = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, 2, 2)
        stretches = np.stack([scales[0], shears, np.zeros(num), scales[1]], axis=-1).reshape(-1, 2, 2)
        y, x = np.mgrid[:height, :width]
        middle, sides = np.array([width - 1, height - 1]) / 2, np.array([width, height])
        places = np.einsum("nij,yxj->nyxi", turns @ stretches, np.stack([x, y], axis=-1) - middle) + middle
        places += rng.normal(0, self.shift, (num, 1, 1, 2)) * sides
        bends = rng.normal(0, self.elastic, (num, _KNOTS, _KNOTS, 2)) * sides
        places += np.einsum("ya,nabk,xb->nyxk", _tents(height), bends, _tents(width), optimize=True)
        return _interpolated(images, places.astype(np.float32))

    def _thickened(self, images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Blended with what the brightest, or darkest, of each pixel and its four neighbours make."""
        height, width = images.shape[1:3]
        values = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        around = [values[:, a : a + height, b : b + width] for a, b in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1))]
        by = rng.uniform(-self.width, self.width, (len(images), 1, 1, 1)).astype(np.float32)
        plain = around[2]
        extreme = np.where(by > 0, np.max(around, axis=0), np.min(around, axis=0))
        return np.round(plain + np.abs(by) * (extreme - plain)).astype(np.uint8)


def _tents(size: int) -> npt.NDArray[np.float64]:
    """How much each knot says at each place along a side, [size, knots]: linear between knots."""
    places = np.linspace(0, _KNOTS - 1, size)
    return np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(_KNOTS)))


def _interpolated(images: npt.NDArray[np.uint8], places: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Values of images [n, h, w, c] at places [n, h, w, 2], x first, in pixels; outside, those of the edge."""
    height, width = images.shape[1:3]
    x = np.clip(places[..., 0], 0, width - 1)
    y = np.clip(places[..., 1], 0, height - 1)
    left, top = np.minimum(x.astype(np.int32), max(width - 2, 0)), np.minimum(y.astype(np.int32), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    rows, values = np.arange(len(images))[:, None, None], images.astype(np.float32)
    upper = values[rows, top, left] * (1 - across) + values[rows, top, right] * across
    lower = values[rows, bottom, left] * (1 - across) + values[rows, bottom, right] * across
    return np.round(upper * (1 - down) + lower * down).astype(np.uint8)

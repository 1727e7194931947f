"""One-shot Gaussian releases about the rows, each with its event.

    mechanism = ClassMeans(noise_multiplier=4.0)
    means = mechanism.release(dataset, NoiseSource())      # float32 [num_classes, h, w, c] in [0, 1]
    mechanism.event                                        # what that cost

Sources: the Gaussian mechanism, Dwork & Roth 2014, appendix A; noisy class means ("central images") as a warm start of
private generators, Li et al. 2025 (DP-FETA).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import dp_accounting
import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy.noise import NoiseSource


@dataclasses.dataclass(frozen=True)
class ClassMeans:
    """The mean image of each class, from noisy sums and noisy counts.

    Unit of privacy: one row. With pixels scaled to [-1/2, 1/2], a row of d values has a norm of at most
    R = sqrt(d) / 2, which needs no clipping. The row adds itself to its class's sum and R / 2 to its class's count, so
    adding or removing it moves the whole vector by at most sqrt(R^2 + (R / 2)^2); every entry gets Gaussian noise of
    `noise_multiplier` times that. A class without rows is released as noise like any other, and a noisy count below 1
    counts as 1.

    Attributes:
      noise_multiplier: standard deviation of the noise / sensitivity; greater than 0.

    Raises:
      ValueError: if the noise multiplier is out of range.
    """

    noise_multiplier: float

    name: ClassVar[str] = "class means"

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"`noise_multiplier` should be finite and greater than 0; got {self.noise_multiplier!r}.")

    @property
    def event(self) -> dp_accounting.DpEvent:
        """One Gaussian mechanism."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    def release(self, dataset: Dataset, noise: NoiseSource) -> npt.NDArray[np.float32]:
        """Touches every row once, block by block, and returns noisy class means.

        Returns:
          float32 [num_classes, h, w, c] in [0, 1].
        """
        pixels = math.prod(dataset.spec.image_shape)
        radius = math.sqrt(pixels) / 2
        totals = np.zeros((dataset.spec.num_classes, pixels), np.int64)  # exact, in whatever blocks the rows come
        counts = np.zeros((dataset.spec.num_classes, 1), np.int64)
        for images, labels in dataset.blocks():
            rows = images.reshape(len(images), pixels)
            for label in np.unique(labels):
                chosen = rows[labels == label]
                totals[label] += chosen.sum(axis=0, dtype=np.int64)
                counts[label] += len(chosen)
        # A last column of R / 2 counts the rows beside the sums.
        sums = np.concatenate([totals / 255 - counts / 2, counts * (radius / 2)], axis=1)
        del totals, counts
        sensitivity = radius * math.sqrt(1.25)
        sums += noise.numpy_generator().normal(scale=self.noise_multiplier * sensitivity, size=sums.shape)
        noisy_counts = np.maximum(sums[:, pixels:] / (radius / 2), 1.0)
        means = np.clip(sums[:, :pixels] / noisy_counts + 0.5, 0.0, 1.0)
        return means.reshape(-1, *dataset.spec.image_shape).astype(np.float32)

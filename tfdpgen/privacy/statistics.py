"""One-shot Gaussian releases about the rows, each with its event.

    mechanism = ClassMeans(noise_multiplier=4.0)
    means = mechanism.release(dataset, NoiseSource())      # float32 [num_classes, h, w, c] in [0, 1]
    mechanism.event                                        # what that cost

Class means, and class moments of any features: a Gaussian of each class, in a public basis or in the latent space of a
public autoencoder, is a generator already.

Sources: the Gaussian mechanism, Dwork & Roth 2014, appendix A; noisy class means ("central images") as a warm start of
private generators, Li et al. 2025 (DP-FETA).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

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

    name: str = "class means"

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


Blocks = Iterable[tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]]  # features [k, d] and labels [k] of some rows
_STANDARD_ERRORS = 2.0  # of a square of distances, that it is taken for at least
_COUNT = 0.5  # what a row adds to its class's count, where a row of norm 1 adds 1 to its class's sum


class Centres(NamedTuple):
    """Noisy means of features of each class, and how far rows lie from them.

    Attributes:
      means: float64 [classes, d].
      distance: root of the mean square of the rows' distances from their own class's mean.
    """

    means: npt.NDArray[np.float64]
    distance: float


@dataclasses.dataclass(frozen=True)
class ClassCentres:
    """Where the features of each class lie, and how far rows lie from there: cheap, and what other moments start from.

    Second moments of what rows differ by from their class's mean have a smaller bound, and so less noise, than those of
    the rows themselves (Biswas et al. 2020, "CoinPress", where a rough private estimate makes the next one's bound).

    Unit of privacy: one row. Its features v, clipped to norm R, are scaled to norm 1; the row adds 1/2 to its class's
    count, v to its sum and ||v||^2 to the one sum of squares of all classes. So adding or removing it moves all that is
    released by at most sqrt(1/4 + 1 + 1); every entry gets Gaussian noise of `noise_multiplier` times that. A noisy
    count below 1 counts as 1. What noise in the means adds to their squares is taken off again, and the distance is at
    least a hundredth of R and what noise can make of nothing, two standard errors of its square (post-processing): to
    measure in too small a unit is to cut off what there is.

    Attributes:
      noise_multiplier: standard deviation of the noise / sensitivity; greater than 0.
      radius: R > 0, a public bound; longer features are scaled down to it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    noise_multiplier: float
    radius: float

    name: str = "centres of classes"

    def __post_init__(self) -> None:
        _check_positive(noise_multiplier=self.noise_multiplier, radius=self.radius)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """One Gaussian mechanism."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    def release(
        self,
        blocks: Blocks,
        num_features: int,
        num_classes: int,
        noise: NoiseSource,
    ) -> Centres:
        """Touches every row once; arguments as those of `ClassMoments.release`."""
        counts, sums, square = np.zeros(num_classes), np.zeros((num_classes, num_features)), np.zeros(1)
        for features, labels in blocks:
            rows = _bounded(features, self.radius)
            square += np.sum(np.square(rows))
            for label in range(num_classes):
                chosen = rows[labels == label]
                counts[label] += _COUNT * len(chosen)
                sums[label] += chosen.sum(axis=0)
        rng, stddev = noise.numpy_generator(), self.noise_multiplier * math.sqrt(_COUNT**2 + 1 + 1)
        for value in (counts, sums, square):
            value += rng.normal(scale=stddev, size=value.shape)
        divisors = np.maximum(counts / _COUNT, 1.0)
        means = sums / divisors[:, None]
        squares, num_rows = np.sum(np.square(means), axis=1), float(divisors.sum())
        of_means = squares - num_features * np.square(stddev / divisors)
        # Of the sum of squares, and of ||sum||^2 / count of each class, by the noise of both.
        error = stddev * math.sqrt(1 + float(np.sum(4 * squares + np.square(squares / _COUNT))))
        least = max(_STANDARD_ERRORS * error / num_rows, 1e-4)
        distance = math.sqrt(max((float(square[0]) - float(divisors @ of_means)) / num_rows, least))
        return Centres(means * self.radius, distance * self.radius)


class Moments(NamedTuple):
    """Noisy moments of features of each class.

    Attributes:
      counts: float64 [classes], how many rows.
      means: [classes, d].
      covariances: [classes, d, d], symmetric, as the noise has left them.
    """

    counts: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    covariances: npt.NDArray[np.float64]

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """F [classes, d, d], of which F F^T is the nearest covariance there is; the longest columns come last."""
        values, vectors = np.linalg.eigh(self.covariances)
        factors: Any = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        return factors


@dataclasses.dataclass(frozen=True)
class ClassMoments:
    """How many rows each class has, and the mean and covariance of their features: what a Gaussian of each class needs.

    Unit of privacy: one row. Its features v, clipped to norm R, are scaled to norm 1; the row adds 1/2 to its class's
    count, v to its sum and w v v^T to its second moments (of which there are most, so that they get most of the
    budget), and to no other class. So adding or removing it moves all that is released by at most
    sqrt(1/4 + 1 + w^2), since ||v v^T|| = ||v||^2; every entry gets Gaussian noise of `noise_multiplier` times that. A
    class without rows is released as noise like any other; a noisy count below 1 counts as 1. Covariances may be left
    indefinite by the noise; their factors are those of the nearest that are not (post-processing).

    Source: the Gaussian mechanism on second moments, Dwork et al. 2014, "Analyze Gauss" (algorithm 1).

    Attributes:
      noise_multiplier: standard deviation of the noise / sensitivity; greater than 0.
      radius: R > 0, a public bound; longer features are scaled down to it.
      square_weight: w > 0; the more, the less noise second moments get and the more means do.

    Raises:
      ValueError: if an attribute is out of range.
    """

    noise_multiplier: float
    radius: float
    square_weight: float = 2.0

    name: str = "class moments"

    def __post_init__(self) -> None:
        _check_positive(noise_multiplier=self.noise_multiplier, radius=self.radius, square_weight=self.square_weight)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """One Gaussian mechanism."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    def release(
        self,
        blocks: Blocks,
        num_features: int,
        num_classes: int,
        noise: NoiseSource,
    ) -> Moments:
        """Touches every row once.

        Args:
          blocks: features [k, num_features] and labels [k] of some rows at a time. Features that are not finite count
            as zeros.
          num_features: d, public.
          num_classes: public.
          noise: where noise comes from.
        """
        counts, sums = np.zeros(num_classes), np.zeros((num_classes, num_features))
        squares = np.zeros((num_classes, num_features, num_features))
        for features, labels in blocks:
            rows = _bounded(features, self.radius)
            for label in range(num_classes):
                chosen = rows[labels == label]
                counts[label] += _COUNT * len(chosen)
                sums[label] += chosen.sum(axis=0)
                squares[label] += self.square_weight * chosen.T @ chosen
        rng, stddev = noise.numpy_generator(), self.noise_multiplier * math.sqrt(_COUNT**2 + 1 + self.square_weight**2)
        for value in (counts, sums, squares):
            value += rng.normal(scale=stddev, size=value.shape)
        counts /= _COUNT
        divisors = np.maximum(counts, 1.0)
        means = sums / divisors[:, None]
        seconds = (squares + squares.transpose(0, 2, 1)) / (2 * self.square_weight) / divisors[:, None, None]
        covariances = seconds - means[:, :, None] * means[:, None, :]
        return Moments(counts, means * self.radius, covariances * self.radius**2)


def _bounded(features: npt.NDArray[np.floating], radius: float) -> npt.NDArray[np.float64]:
    """Rows scaled so that `radius` becomes 1, and longer ones scaled down to it; those not finite count as zeros."""
    rows = np.nan_to_num(np.asarray(features, np.float64), nan=0.0, posinf=0.0, neginf=0.0) / radius
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` should be finite and greater than 0; got {value!r}.")

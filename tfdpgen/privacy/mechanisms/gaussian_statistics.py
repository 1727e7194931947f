"""Gaussian statistics of features: means and their scale, then counts, means and covariances of groups.

    overall = session.run("global_mean", features.transform)             # -> Means, of a single class
    means = session.run("class_means", standardised)                     # -> Means, of features near the global mean
    statistics = session.run("covariances", standardised)                # -> Statistics, of features near these means
    factors = statistics.factors(rank=40)                                # eigenvalues shrunk at the known noise level

A Gaussian of each class is a generator already. What examples differ by from a released mean, in units of a released
scale, has a smaller norm than they have themselves, and so a second mechanism needs less noise for it (Biswas et al.
2020, "CoinPress"). The noise of a covariance is a Wigner matrix of known scale: eigenvalues up to its edge, or
a little beyond, are noise, and others are too large by a known amount, which `Statistics.factors` takes off.

Sources: the Gaussian mechanism on second moments, Dwork et al. 2014, "Analyze Gauss" (algorithm 1); shrinkage of
eigenvalues for squared error, Donoho, Gavish & Johnstone 2018, in its form for additive Wigner noise (Benaych-Georges &
Nadakuditi 2011, section 3.1).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdpgen.privacy.mechanisms.base import GaussianSum, bounded, check_noise_multiplier

Array = npt.NDArray[np.float64]
_COUNT = 0.5  # what an example adds to the count of its class, where one of norm 1 adds 1 to its sum


class Means(NamedTuple):
    """Noisy means of the features of each class.

    Attributes:
      counts: float64 [classes], how many examples; at least 1.
      means: float64 [classes, d].
      scale: root mean square of the distances of examples from the noisy mean of their class.
    """

    counts: Array
    means: Array
    scale: float


@dataclasses.dataclass(frozen=True)
class ClassMeans(GaussianSum):
    """Count and mean of each class, and the scale of what examples differ by from these.

    Unit of privacy: one example. Its features v, clipped to `radius` and divided by it, have a norm of 1 at most; it
    adds 1/2 to the count of its class, v to its sum and ||v||^2 to the one sum of squares of all classes, and so moves
    the whole by at most sqrt(1/4 + 1 + 1). A class without examples is released as noise like any other; a noisy count
    below 1 counts as 1.

    Attributes:
      num_classes: public; 1 for the mean of all examples, whatever their labels.
      num_features: d.
      radius: clip norm of the features.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    num_classes: int
    num_features: int
    radius: float
    noise_multiplier: float | None = None
    name: str = "class means"  # type: ignore[misc]

    def __post_init__(self) -> None:
        _check_positive(num_classes=self.num_classes, num_features=self.num_features, radius=self.radius)
        check_noise_multiplier(self.noise_multiplier)

    @property
    def size(self) -> int:
        return self.num_classes * (self.num_features + 1) + 1

    @property
    def num_columns(self) -> int:
        return self.num_features

    @property
    def sensitivity(self) -> float:
        return math.sqrt(_COUNT**2 + 1 + 1)

    def sum_of(
        self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *users: npt.NDArray[np.int64]
    ) -> Array:
        vectors = bounded(features, self.radius) / self.radius
        groups = np.minimum(labels, self.num_classes - 1)
        sums = np.zeros((self.num_classes, self.num_features + 1))
        for label in np.unique(groups):
            chosen = vectors[groups == label]
            sums[label, 0] = _COUNT * len(chosen)
            sums[label, 1:] = chosen.sum(axis=0)
        return np.append(sums, np.sum(np.square(vectors)))

    def result(self, noised: Array) -> Means:
        """Noisy means.

        The scale is at least what noise alone can make of it, two standard errors: to measure in too small a unit is to
        clip what there is.
        """
        sums = noised[:-1].reshape(self.num_classes, -1)
        counts = np.maximum(sums[:, 0] / _COUNT, 1.0)
        means = sums[:, 1:] / counts[:, None]
        squares, total = np.sum(np.square(means), axis=1), float(counts.sum())
        # E|x - m'|^2 = E|x|^2 - |m|^2 + |m' - m|^2, where |m'|^2 is larger than |m|^2 by as much as the last term.
        of_noise = self.num_features * np.square(self.stddev / counts)
        square = (float(noised[-1]) - float(counts @ (squares - 2 * of_noise))) / total
        error = self.stddev * math.sqrt(1 + float(np.sum(4 * squares + np.square(squares / _COUNT)))) / total
        scale = math.sqrt(max(square, 2 * error, 1e-4))
        return Means(counts, means * self.radius, scale * self.radius)


class Statistics(NamedTuple):
    """Noisy statistics of the features of groups of examples.

    Attributes:
      counts: float64 [groups], how many examples; at least 1.
      means: [groups, d].
      covariances: [groups, d, d], symmetric, as the noise has left them.
      stddev: [groups], of the noise of an entry off the diagonal of a covariance; on it, sqrt(2) times as much.
    """

    counts: Array
    means: Array
    covariances: Array
    stddev: Array

    def factors(self, rank: int) -> Array:
        """F [groups, d, rank], of which F F^T is the covariance with its eigenvalues shrunk; the longest columns first.

        Noise of that scale has eigenvalues up to 2 * stddev * sqrt(d), the edge, and by chance a little beyond: by less
        than a share of d^(-2/3) of it for 99 covariances of 100 (Tracy & Widom 1996). An eigenvalue y beyond that
        stands for one of the covariance, in whose direction there is a variance of sqrt(y^2 - edge^2); others are noise
        and get 0.

        Args:
          rank: columns; at most d.
        """
        values, vectors = np.linalg.eigh(self.covariances)
        edges = 2 * self.stddev[:, None] * math.sqrt(values.shape[1])
        is_signal = values > edges * (1 + values.shape[1] ** (-2 / 3))
        shrunk = np.where(is_signal, np.sqrt(np.maximum(np.square(values) - np.square(edges), 0.0)), 0.0)
        factors: Any = vectors * np.sqrt(shrunk)[:, None]
        return factors[:, :, ::-1][:, :, :rank]


@dataclasses.dataclass(frozen=True)
class GroupStatistics(GaussianSum):
    """Count, mean and covariance of the features of each group of examples: what a Gaussian of each group needs.

    Unit of privacy: one example. Its features v, clipped to a norm of 1, belong to one group; it adds 1/2 to the count
    of that group, v to its sum and w v v^T to its second moments (of which there are most, so that they get most of the
    budget). It moves the whole by at most sqrt(1/4 + 1 + w^2), since ||v v^T|| = ||v||^2. Of the second moments the
    upper triangle is released, off the diagonal times sqrt(2), which keeps that norm.

    What a session's `run` is given for it are features [k, d + 1] whose last column is the number of the group.

    Attributes:
      num_groups: public; an example whose group is none of them is in the nearest.
      num_features: d.
      square_weight: w > 0; the more, the less noise second moments get, and the more the means do.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    num_groups: int
    num_features: int
    square_weight: float = 4.0
    noise_multiplier: float | None = None
    name: str = "covariances"  # type: ignore[misc]

    def __post_init__(self) -> None:
        _check_positive(num_groups=self.num_groups, num_features=self.num_features, square_weight=self.square_weight)
        check_noise_multiplier(self.noise_multiplier)

    @property
    def size(self) -> int:
        return self.num_groups * (1 + self.num_features + self.num_features * (self.num_features + 1) // 2)

    @property
    def num_columns(self) -> int:
        return self.num_features + 1

    @property
    def sensitivity(self) -> float:
        return math.sqrt(_COUNT**2 + 1 + self.square_weight**2)

    @property
    def edge(self) -> float:
        """Where the spectrum of noise ends but for chance, times the examples in a group; see `Statistics`."""
        return 2 * math.sqrt(self.num_features) * self.stddev / (math.sqrt(2) * self.square_weight)

    def sum_of(
        self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *users: npt.NDArray[np.int64]
    ) -> Array:
        d = self.num_features
        places = np.nan_to_num(np.asarray(features[:, d], np.float64), nan=0.0)
        groups = np.clip(np.rint(places), 0, self.num_groups - 1).astype(np.int64)
        vectors = bounded(features[:, :d], 1.0)
        upper, weights = self._upper()
        sums = np.zeros((self.num_groups, self.size // self.num_groups))
        for group in np.unique(groups):
            chosen = vectors[groups == group]
            sums[group, 0] = _COUNT * len(chosen)
            sums[group, 1 : d + 1] = chosen.sum(axis=0)
            sums[group, d + 1 :] = weights * (chosen.T @ chosen)[upper]
        return sums.ravel()

    def result(self, noised: Array) -> Statistics:
        d = self.num_features
        sums = noised.reshape(self.num_groups, -1)
        counts = np.maximum(sums[:, 0] / _COUNT, 1.0)
        means = sums[:, 1 : d + 1] / counts[:, None]
        upper, weights = self._upper()
        covariances = np.zeros((self.num_groups, d, d))
        covariances[:, *upper] = sums[:, d + 1 :] / weights / counts[:, None]
        covariances += np.triu(covariances, 1).transpose(0, 2, 1)
        covariances -= means[:, :, None] * means[:, None, :]
        return Statistics(counts, means, covariances, self.stddev / (math.sqrt(2) * self.square_weight) / counts)

    def _upper(self) -> tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], Array]:
        """Places of the upper triangle, and what its entries are released times."""
        upper = np.triu_indices(self.num_features)
        return upper, self.square_weight * np.where(upper[0] == upper[1], 1.0, math.sqrt(2))


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` should be finite and greater than 0; got {value!r}.")

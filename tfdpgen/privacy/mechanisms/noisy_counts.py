"""Noisy counts: of how many examples each of some statements holds, and of how many examples each class has.

    mechanism = NoisyCounts()                                   # of one count
    plan = PrivacyPlan({"deskewing": mechanism, ...}, num_examples, {"deskewing": 0.005})
    lead = session.run("deskewing", votes)[0]                   # votes: images, labels -> float32 [k, 1] in [-1, 1]
    shares = session.run("label_counts", nothing)               # LabelCounts(10): the shares of the classes

Source: the Gaussian mechanism, Dwork & Roth 2014, appendix A.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from tfdpgen.privacy.mechanisms.base import GaussianSum, check_noise_multiplier
from tfdpgen.privacy.noise import NoiseSource


@dataclasses.dataclass(frozen=True)
class NoisyCounts(GaussianSum):
    """Sums of votes in [-1, 1]; a statement that holds, or does not, votes 1, or 0.

    Unit of privacy: one example, or one user with a vote. It has one vote on each of the k counts, cut off at -1 and 1,
    and moves the sums by at most sqrt(k). Votes that are not numbers count as 0.

    Attributes:
      num_counts: k, at least 1.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    num_counts: int = 1
    noise_multiplier: float | None = None
    name: str = "noisy counts"  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.num_counts < 1:
            raise ValueError(f"`num_counts` should be at least 1; got {self.num_counts!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def size(self) -> int:
        return self.num_counts

    @property
    def num_columns(self) -> int:
        return self.num_counts

    @property
    def sensitivity(self) -> float:
        return math.sqrt(self.num_counts)

    def sum_of(
        self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *users: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        return np.clip(np.nan_to_num(np.asarray(features, np.float64), nan=0.0), -1.0, 1.0).sum(axis=0)

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The noisy counts, float64 [k]."""
        return noised

    def release(self, predicates: npt.ArrayLike, noise: NoiseSource) -> npt.NDArray[np.float64]:
        """Counts predicates and adds the noise: outside a session, as for test examples, which have no training.

        Unit of privacy: one example. It adds 0 or 1 to each count, so that replacing it, too, moves them by at most
        sqrt(k). This holds where no predicate depends on the examples that are counted. Without examples the counts
        are noise alone.

        Args:
          predicates: bool [num_counts, n], whether each holds for each example.
          noise: where noise comes from.

        Returns:
          float64 [num_counts].

        Raises:
          ValueError: for another shape or dtype.
        """
        holds = np.asarray(predicates)
        if holds.dtype != np.bool_ or holds.ndim != 2 or len(holds) != self.num_counts:
            raise ValueError(
                f"`predicates` should be bool of shape [{self.num_counts}, n]; got {holds.dtype} of shape "
                f"{list(holds.shape)}."
            )
        return holds.sum(axis=1) + noise.numpy_generator().normal(scale=self.stddev, size=self.num_counts)


@dataclasses.dataclass(frozen=True)
class LabelCounts(GaussianSum):
    """How many examples each class has, as shares that add up to 1.

    Unit of privacy: one example. It adds 1 to the count of its class and nothing to the others, and so moves the counts
    by 1; it needs no features.

    Attributes:
      num_classes: public; an example whose label is none of them counts for the nearest.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    num_classes: int
    noise_multiplier: float | None = None
    name: str = "label counts"  # type: ignore[misc]  # a field here, a plain attribute in the base

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"`num_classes` should be at least 1; got {self.num_classes!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def size(self) -> int:
        return self.num_classes

    @property
    def num_columns(self) -> int:
        return 0

    @property
    def sensitivity(self) -> float:
        return 1.0

    def sum_of(
        self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *users: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        return np.bincount(np.clip(labels, 0, self.num_classes - 1), minlength=self.num_classes).astype(np.float64)

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The shares of the classes, float64 [num_classes]; a class with a noisy count below 0 has none.

        Where noise has left no count above 0, all classes have equal shares.
        """
        counts = np.maximum(noised, 0.0)
        total = counts.sum()
        return counts / total if total > 0 else np.full(self.num_classes, 1 / self.num_classes)

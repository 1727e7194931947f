"""Noisy counts: of how many examples each of some statements holds; what a private selection rests on.

    mechanism = NoisyCounts()                                   # of one count
    plan = PrivacyPlan({"deskewing": mechanism, ...}, num_examples, {"deskewing": 0.005})
    lead = session.run("deskewing", votes)[0]                   # votes: images, labels -> float32 [k, 1] in [-1, 1]

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

"""How many rows each of some public questions is answered with yes by: noisy counts, in one Gaussian release.

    mechanism = NoisyCounts.calibrate(PrivacyBudget(epsilon=0.5, delta=1e-5), num_counts=2)
    mechanism.release([is_right_by_a, is_right_by_b], NoiseSource())      # float64 [2]
    mechanism.event, mechanism.stddev                                     # what that cost; noise of each count

Source: the Gaussian mechanism, Dwork & Roth 2014, appendix A; calibrated by privacy loss distributions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import dp_accounting
import numpy as np
import numpy.typing as npt

from tfdpgen.privacy.accounting import calibrate_noise_multiplier
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.noise import NoiseSource


@dataclasses.dataclass(frozen=True)
class NoisyCounts:
    """Counts of the rows for which a predicate holds, one count for each predicate.

    Unit of privacy: one row. It adds 0 or 1 to each of k counts, so that adding, removing or replacing it moves them
    together by at most sqrt(k); every count gets Gaussian noise of `noise_multiplier` times that. This holds where no
    predicate depends on the rows that are counted, but through what was released privately before. Without rows the
    counts are noise alone.

    Attributes:
      noise_multiplier: standard deviation of the noise / sensitivity; greater than 0.
      num_counts: k, at least 1.

    Raises:
      ValueError: if an attribute is out of range.
    """

    noise_multiplier: float
    num_counts: int = 1

    name: str = "noisy counts"

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"`noise_multiplier` should be finite and greater than 0; got {self.noise_multiplier!r}.")
        if self.num_counts < 1:
            raise ValueError(f"`num_counts` should be at least 1; got {self.num_counts!r}.")

    @classmethod
    def calibrate(cls, budget: PrivacyBudget, num_counts: int = 1) -> Self:
        """The mechanism with the least noise that stays within the budget."""
        return cls(calibrate_noise_multiplier(dp_accounting.GaussianDpEvent, budget), num_counts)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """One Gaussian mechanism."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise of each count, in rows."""
        return self.noise_multiplier * math.sqrt(self.num_counts)

    def release(self, predicates: npt.ArrayLike, noise: NoiseSource) -> npt.NDArray[np.float64]:
        """Counts and adds the noise.

        Args:
          predicates: bool [num_counts, n], whether each holds for each row.
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

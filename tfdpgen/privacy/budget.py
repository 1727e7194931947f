"""The budget: how much may be learnt about any one example.

    budget = PrivacyBudget(epsilon=3.0, delta=1e-5)

It says nothing of how it is spent: that is a plan's matter (`plan.py`). Shares of it are shares of the squared
parameter mu of Gaussian differential privacy (Dong, Roth & Su 2022): a Gaussian mechanism of noise multiplier z has mu
= 1 / z, and the squares add up under composition, where epsilons do not.

    budget.share(0.3), budget.share(0.7)     # two mechanisms of these cost the budget together
"""

from __future__ import annotations

import dataclasses
import enum

import dp_accounting

from tfdpgen.choices import check_budget, check_delta

_ROUNDING = 1e-9  # relative: a root is found to either side of it


class PrivacyUnit(enum.StrEnum):
    """Whose data one neighbour has and the other does not: one example's, or all examples of one user."""

    EXAMPLE = "example"
    USER = "user"


@dataclasses.dataclass(frozen=True)
class PrivacyBudget:
    """An (epsilon, delta) that a release may cost at most (Dwork & Roth 2014, definition 2.4).

    Attributes:
      epsilon: finite and greater than 0.
      delta: in (0, 1). It has to be smaller than 1 / num_examples, which `check_num_examples` holds.

    Raises:
      ValueError: if either lies outside its range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta)

    def check_num_examples(self, num_examples: int, unit: str = "example") -> None:
        """Refuses a delta that would permit publishing some example, or all examples of a user, outright.

        Args:
          num_examples: to which the promise is made; users, where these are the unit.
          unit: "example" or "user".

        Raises:
          ValueError: if delta is not smaller than 1 / num_examples.
        """
        check_delta(self.delta, num_examples, unit)

    @property
    def gaussian_noise_multiplier(self) -> float:
        """Noise multiplier of the one Gaussian mechanism that costs this budget, and never more (Balle & Wang 2018)."""
        return dp_accounting.get_sigma_gaussian(self.epsilon, self.delta) * (1 + _ROUNDING)

    def share(self, share: float) -> PrivacyBudget:
        """The budget of a Gaussian mechanism that has this share, in (0, 1], of mu squared.

        Raises:
          ValueError: if the share lies outside that range.
        """
        if not 0 < share <= 1:
            raise ValueError(f"`share` should lie in (0, 1]; got {share!r}.")
        if share == 1:
            return self
        noise_multiplier = self.gaussian_noise_multiplier / share**0.5
        return PrivacyBudget(dp_accounting.get_epsilon_gaussian(noise_multiplier, self.delta), self.delta)

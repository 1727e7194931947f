"""The budget: how much may be learnt about any one row.

    budget = PrivacyBudget(epsilon=3.0, delta=1e-5)

It says nothing of how it is spent: that is a plan's matter (`plan.py`).
"""

from __future__ import annotations

import dataclasses
import math


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
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"`epsilon` should be a finite number greater than 0; got {self.epsilon!r}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` should lie strictly between 0 and 1; got {self.delta!r}.")

    def check_num_examples(self, num_examples: int) -> None:
        """Refuses a delta that would permit publishing some row outright.

        Raises:
          ValueError: if delta is not smaller than 1 / num_examples.
        """
        if self.delta >= 1 / num_examples:
            raise ValueError(
                f"`delta` should be smaller than 1 / num_examples = {1 / num_examples:.3g}, since a larger one permits "
                f"a mechanism that publishes a row outright; got {self.delta:g} for {num_examples} rows. "
                f"Try {10 ** math.floor(math.log10(0.1 / num_examples)):g}."
            )

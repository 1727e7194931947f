"""The budget: how much may be learnt about any one row.

    budget = PrivacyBudget(epsilon=3.0, delta=1e-5)

It says nothing of how it is spent: that is a plan's matter (`plan.py`).
"""

from __future__ import annotations

import dataclasses

from tfdpgen.choices import check_budget, check_delta


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

    def check_num_examples(self, num_examples: int) -> None:
        """Refuses a delta that would permit publishing some row outright.

        Raises:
          ValueError: if delta is not smaller than 1 / num_examples.
        """
        check_delta(self.delta, num_examples)

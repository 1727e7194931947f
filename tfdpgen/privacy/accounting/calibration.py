"""From a budget to the plan that fits into it: the least noise, the most steps, the largest batches.

    budget = PrivacyBudget(epsilon=3.0, delta=1e-5)
    calibrate_noise_multiplier(lambda z: poisson_gaussian_event(0.01, z, 1000), budget)
    calibrate_steps(lambda steps: poisson_gaussian_event(0.01, 1.1, steps), budget)
    calibrate_batch_size(lambda batch: poisson_gaussian_event(batch / 60_000, 1.1, 1000), budget, num_examples=60_000)

None of them ever returns what is over the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dp_accounting
from scipy import optimize

from tfdpgen.privacy.accounting.epsilon import NeighboringRelation, epsilon_of
from tfdpgen.privacy.budget import PrivacyBudget

_NOISE_TOLERANCE = 1e-4  # relative: noise beyond what the budget asks for
_MOST_NOISE = 1e4
_MOST_STEPS = 10**7


def calibrate_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    budget: PrivacyBudget,
    accountant: str = "pld",
    neighboring_relation: NeighboringRelation = "add-or-remove-one",
) -> float:
    """The smallest noise multiplier (to a relative 1e-4) whose event stays within the budget.

    Args:
      make_event: noise multiplier -> everything that will run, other mechanisms included.
      budget: never exceeded by the result.
      accountant: "pld" or "rdp".
      neighboring_relation: which the budget is for: "add-or-remove-one" or "replace-one".

    Raises:
      ValueError: if no noise is enough, because what runs besides already spends the budget.
    """
    unattainable = epsilon_of(make_event(_MOST_NOISE), budget.delta, accountant, neighboring_relation)
    if unattainable >= budget.epsilon:
        raise ValueError(
            f"The budget epsilon={budget.epsilon:g}, delta={budget.delta:g} is too small: with unlimited noise in this "
            f"mechanism the plan still costs epsilon={unattainable:.3g}. Give more epsilon, fewer steps or smaller "
            "batches, or a smaller share to the other mechanisms."
        )

    def excess(noise_multiplier: float, judge: str = accountant) -> float:
        return epsilon_of(make_event(noise_multiplier), budget.delta, judge, neighboring_relation) - budget.epsilon

    # PLD takes long where there is far too little noise, so RDP, which is fast everywhere, finds the neighbourhood.
    guess = 1.0
    while guess < _MOST_NOISE and excess(guess, "rdp") > 0:
        guess *= 1.25
    while guess > 0.05 and excess(guess / 1.25, "rdp") <= 0:
        guess /= 1.25
    lower, upper = guess / 1.25, guess
    while excess(upper) > 0:
        lower, upper = upper, 1.25 * upper
    while excess(lower) <= 0:
        lower, upper = lower / 1.25, lower
    tolerance = _NOISE_TOLERANCE * upper
    noise_multiplier: Any = optimize.brentq(excess, lower, upper, xtol=tolerance)
    while excess(noise_multiplier) > 0:  # a root is found to either side of it; only the side with more noise will do
        noise_multiplier += tolerance
    return float(noise_multiplier)


def calibrate_steps(
    make_event: Callable[[int], dp_accounting.DpEvent],
    budget: PrivacyBudget,
    accountant: str = "pld",
    neighboring_relation: NeighboringRelation = "add-or-remove-one",
) -> int:
    """The most steps whose event stays within the budget, at most ten million.

    Args:
      make_event: number of steps -> everything that will run, other mechanisms included.
      budget: never exceeded by the result.
      accountant: "pld" or "rdp".
      neighboring_relation: which the budget is for: "add-or-remove-one" or "replace-one".

    Raises:
      ValueError: if one step is too much.
    """
    return _largest("steps", make_event, budget, accountant, neighboring_relation, _MOST_STEPS)


def calibrate_batch_size(
    make_event: Callable[[int], dp_accounting.DpEvent],
    budget: PrivacyBudget,
    num_examples: int,
    accountant: str = "pld",
    neighboring_relation: NeighboringRelation = "add-or-remove-one",
) -> int:
    """The largest expected batch size whose event stays within the budget, at most all examples.

    Args:
      make_event: expected batch size -> everything that will run, other mechanisms included.
      budget: never exceeded by the result.
      num_examples: examples to draw from.
      accountant: "pld" or "rdp".
      neighboring_relation: which the budget is for: "add-or-remove-one" or "replace-one".

    Raises:
      ValueError: if batches of one example are too much.
    """
    return _largest("expected_batch_size", make_event, budget, accountant, neighboring_relation, num_examples)


def _largest(
    name: str,
    make_event: Callable[[int], dp_accounting.DpEvent],
    budget: PrivacyBudget,
    accountant: str,
    neighboring_relation: NeighboringRelation,
    most: int,
) -> int:
    """The largest integer in [1, most] within the budget, where epsilon grows with it."""

    def cost(value: int) -> float:
        return epsilon_of(make_event(value), budget.delta, accountant, neighboring_relation)

    def fits(value: int) -> bool:
        return cost(value) <= budget.epsilon

    if not fits(1):
        raise ValueError(
            f"The budget epsilon={budget.epsilon:g}, delta={budget.delta:g} is too small: `{name}` of 1 already costs "
            f"epsilon={cost(1):.3g}. Give more epsilon or more noise."
        )
    # By bisection: PLD is a step function at close range, on which methods that follow its slope stop too early.
    below, above = 1, 2
    while above < most and fits(above):
        below, above = above, 2 * above
    if above >= most:
        if fits(most):
            return most
        above = most
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below

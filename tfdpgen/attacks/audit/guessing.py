"""Guesses: which canaries an adversary speaks about, and how many it had to promise beforehand.

    numbers = choose_guesses(plan, delta=1e-5)                    # from the plan alone, before anything is run
    guesses = guess(scores, numbers)                              # 1 included, -1 excluded, 0 abstains
    result.right = count_right(guesses, included)

The bounds hold for any scores, and only if the numbers of guesses were fixed before the scores were seen. Few guesses
are surer, many are steadier; `choose_guesses` weighs them by what the plan's own privacy loss, a public distribution,
lets an adversary expect. Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), sections 4 and 5.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import scipy.special

from tfdpgen.attacks.audit.bounds import expected_lower_bound, one_run_p_value
from tfdpgen.privacy import DPSGD

_SIMULATED = 2**18  # canaries of a simulated run, half of them included
_FEWEST = 20  # guesses that are considered
_ROOM = 1.1  # times the claim: what right guesses have to be able to refute


@dataclasses.dataclass(frozen=True)
class GuessNumbers:
    """How many canaries are called what.

    Attributes:
      included: k+, the canaries of the highest scores, which are called included.
      excluded: k-, those of the lowest.

    Raises:
      ValueError: if a number is negative, or both are 0.
    """

    included: int
    excluded: int

    def __post_init__(self) -> None:
        if min(self.included, self.excluded) < 0 or self.included + self.excluded < 1:
            raise ValueError(
                "`included` and `excluded` should be at least 0, and one of them at least 1; "
                f"got {self.included} and {self.excluded}."
            )

    @property
    def total(self) -> int:
        """r, the number of guesses."""
        return self.included + self.excluded


def guess(scores: npt.ArrayLike, numbers: GuessNumbers) -> npt.NDArray[np.int8]:
    """Calls the highest scores included and the lowest excluded; ties are broken by position, which says nothing.

    Args:
      scores: finite [m]; higher is likelier included.
      numbers: fixed before the scores were seen.

    Returns:
      int8 [m]: 1 included, -1 excluded, 0 abstains.

    Raises:
      ValueError: for scores that are not finite or are fewer than the guesses.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"`scores` should be finite numbers of shape [m]; got shape {list(scores.shape)}.")
    if numbers.total > len(scores):
        raise ValueError(f"`numbers` should be at most {len(scores)} guesses, one a canary; got {numbers.total}.")
    order = np.argsort(scores, kind="stable")
    guesses = np.zeros(len(scores), np.int8)
    guesses[order[: numbers.excluded]] = -1
    guesses[order[len(scores) - numbers.included :]] = 1
    return guesses


def count_right(guesses: npt.NDArray[np.int8], included: npt.NDArray[np.bool_]) -> int:
    """How many guesses are right; who abstains is neither.

    Args:
      guesses: int8 [m], from `guess`.
      included: bool [m], the coins.
    """
    return int(np.sum(guesses == np.where(included, 1, -1)))


def privacy_loss(
    observed: npt.NDArray[np.floating], noise_multiplier: float, sampling_probability: float
) -> npt.NDArray[np.float64]:
    """Log of Pr[seen | included] / Pr[seen | excluded] of one step: the best score (Neyman & Pearson 1933).

    Args:
      observed: along a canary's direction, the noised gradient sum / l2_norm_clip: normal of standard deviation
        `noise_multiplier` around 1 if the canary is included and drawn, and around 0 otherwise.
      noise_multiplier: greater than 0.
      sampling_probability: q in (0, 1].

    Returns:
      float64 of the shape of `observed`; losses of steps add up.
    """
    drawn = (2 * np.asarray(observed, np.float64) - 1) / (2 * noise_multiplier**2)
    if sampling_probability == 1:
        return drawn
    return np.logaddexp(math.log1p(-sampling_probability), math.log(sampling_probability) + drawn)


def choose_guesses(plan: DPSGD, delta: float, confidence: float = 0.95, seed: int = 0) -> GuessNumbers:
    """The numbers of guesses with which an audit of the plan's canaries can expect the highest bound.

    Privacy losses of a run are simulated from the plan's public facts, without any data or training. Guesses are those
    of losses beyond some threshold, on either side; the threshold is the one whose bound is the highest in a run that
    is one standard deviation less lucky than the average, among those that leave guesses enough to refute the claim by
    a tenth if all of them are right. Where even one guess a canary would not be enough, any number is considered.

    Args:
      plan: calibrated; `num_examples` is the number of canaries. Only its noise multiplier, sampling probability and
        number of steps matter.
      delta: of the claim.
      confidence: of the bound.
      seed: of the simulation.

    Raises:
      ValueError: if the plan has no noise, whose canaries need no statistics.
    """
    noise_multiplier = plan.noise_multiplier
    if not noise_multiplier:
        raise ValueError("`plan` should have a noise multiplier greater than 0; call `plan.calibrate(budget)`.")
    steps, q = plan.steps, plan.sampling_probability
    if q == 1:  # the mean over the steps says all that they say
        steps, noise_multiplier = 1, noise_multiplier / math.sqrt(steps)
    rng = np.random.default_rng(seed)
    included = np.arange(_SIMULATED) < _SIMULATED // 2
    losses = np.zeros(_SIMULATED)
    for _ in range(steps):
        drawn = included & (rng.random(_SIMULATED) < q) if q < 1 else included
        losses += privacy_loss(drawn + noise_multiplier * rng.standard_normal(_SIMULATED), noise_multiplier, q)

    # Of two signs of one loss the likelier is right with probability expit(|loss|): smoother than counting.
    order = np.argsort(-np.abs(losses))
    surest = np.abs(losses)[order]
    right = np.cumsum(scipy.special.expit(surest)) / np.arange(1, _SIMULATED + 1)
    positive = np.cumsum(losses[order] > 0)
    best, numbers = -1.0, GuessNumbers(1, 0)
    most, telling = plan.num_examples, _ROOM * plan.epsilon(delta)
    totals = np.unique(np.geomspace(min(_FEWEST, most), most, 40).astype(int))
    enough = [t for t in totals if one_run_p_value(most, int(t), int(t), telling, delta) <= 1 - confidence]
    for total in enough or totals:
        place = min(_SIMULATED, math.ceil(total / most * _SIMULATED)) - 1
        bound = expected_lower_bound(most, int(total), float(right[place]), delta, confidence)
        if bound > best:
            called = round(total * positive[place] / (place + 1))
            best, numbers = bound, GuessNumbers(int(called), int(total - called))
    return numbers

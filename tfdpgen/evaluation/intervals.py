"""Intervals for accuracies: how far chance in who was tested can carry them.

    accuracy_interval(right=917, examples=1000)                        # exact binomial, 95 %
    difference_interval(answers_a == labels, answers_b == labels)  # of two classifiers on the same examples

They treat the tested examples as drawn independently from the people of whom a metric is meant to speak. Chance in
training (seed, noise) is not in them: only further runs show it.

Sources: Clopper & Pearson 1934; the bootstrap of pairs, Efron & Tibshirani 1993, chapter 8; half an example on either
side of a paired difference, Agresti & Min 2005, "Simple improved confidence intervals for comparing matched
proportions".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.stats

Interval = tuple[float, float]

CONFIDENCE = 0.95  # of every interval, unless said otherwise
_RESAMPLES = 10_000


def accuracy_interval(right: int, examples: int, confidence: float = CONFIDENCE) -> Interval:
    """The Clopper-Pearson interval of an accuracy.

    Args:
      right: how many of `examples` were answered right; in [0, examples].
      examples: at least 1.
      confidence: in (0, 1); the interval covers the accuracy at least that often.

    Returns:
      (low, high) in [0, 1].

    Raises:
      ValueError: if a number lies outside its range.
    """
    if not 0 <= right <= examples or examples < 1:
        raise ValueError(
            f"`right` should lie in [0, examples] with `examples` at least 1; got {right!r} of {examples!r}."
        )
    _check_confidence(confidence)
    low, high = scipy.stats.binomtest(right, examples).proportion_ci(confidence, method="exact")
    return float(low), float(high)


def difference_interval(
    first_right: npt.NDArray[np.bool_],
    second_right: npt.NDArray[np.bool_],
    confidence: float = CONFIDENCE,
    *,
    seed: int = 0,
) -> Interval:
    """A paired bootstrap interval of the accuracy of a first classifier minus that of a second on the same examples.

    Examples are drawn again with replacement, each with both answers. Only the examples that one of the two got right
    move the difference, so that drawing examples is drawing how many there are of either kind. Half an example is added
    to either kind, which keeps the interval from vanishing where the two never disagree.

    Args:
      first_right: bool [n], whether the first answered each example right.
      second_right: bool [n], whether the second did.
      confidence: in (0, 1).
      seed: of the resampling.

    Returns:
      (low, high) in [-1, 1].

    Raises:
      ValueError: if the two are not of the same shape [n], or empty.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(
            "`first_right` and `second_right` should tell of the same examples, bool of shape [n]; "
            f"got shapes {list(first.shape)} and {list(second.shape)}."
        )
    _check_confidence(confidence)
    examples = len(first)
    gained, lost = np.sum(first & ~second) + 0.5, np.sum(second & ~first) + 0.5
    shares = np.array([gained, lost, examples + 1 - gained - lost]) / (examples + 1)
    drawn = np.random.default_rng(seed).multinomial(examples, shares, size=_RESAMPLES)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / examples, [tail, 1 - tail])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    """Raises a ValueError outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` should lie strictly between 0 and 1; got {confidence!r}.")

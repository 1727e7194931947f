"""Bounds: from answers about canaries to an epsilon that the mechanism cannot be below.

    one_run_lower_bound(canaries=1_000, guesses=100, right=98, delta=1e-5)      # 2.71: no assumption
    gaussian_one_run_lower_bound(1_000, 100, 98, delta=1e-5)                    # 4.23: of a Gaussian mechanism
    clopper_pearson_lower_bound(90, 100, 5, 100, delta=1e-5)                    # 1.99: of independent answers

The setting of the first two: each of m canaries is included by a fair coin of its own, one training sees all that were,
and an adversary who sees what came out guesses r of the coins and abstains from the others. How many it guesses has to
be fixed before it looks; which ones may depend on what it sees. If the mechanism is (epsilon, delta)-differentially
private with respect to adding or removing one canary, it can hardly be right too often. Nothing is assumed about the
mechanism: canaries in one training may interact in any way.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv 2305.08846), theorem 5.2;
Mahloujifar, Melis & Chaudhuri 2024, "Auditing f-differential privacy in one run" (arXiv 2410.22235);
Nasr et al. 2021, "Adversary instantiation" (arXiv 2101.04535), section 4, for Clopper-Pearson.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from tfdpgen.attacks.results import clopper_pearson

_MOST_EPSILON = 64.0  # a claim above this says nothing; bounds end there
_MOST_MU = 16.0


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of so many right guesses, whatever (epsilon, delta)-private mechanism was run.

    With W ~ Binomial(r, e^epsilon / (1 + e^epsilon)) and v right guesses of r about m canaries, it is

        Pr[W >= v] + 2 m delta max_{i = 1..v} Pr[v - i <= W < v] / i                (Steinke et al. 2023, theorem 5.2).

    Args:
      canaries: m, each included by an independent fair coin.
      guesses: r, fixed beforehand.
      right: v.
      epsilon: at least 0.
      delta: in [0, 1].

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: for numbers out of range.
    """
    _check_counts(canaries, guesses, right)
    if not epsilon >= 0:
        raise ValueError(f"`epsilon` should be at least 0; got {epsilon!r}.")
    if not 0 <= delta <= 1:
        raise ValueError(f"`delta` should lie in [0, 1]; got {delta!r}.")
    chance = float(scipy.special.expit(epsilon))
    beta = float(scipy.stats.binom.sf(right - 1, guesses, chance))
    if not right or not delta:
        return beta
    # So far below the mean W has a probability below 1e-18 (Hoeffding), and the quotient only falls: no need to look.
    least = math.floor(guesses * chance - math.sqrt(21 * guesses)) - 1
    fewer = np.arange(1, max(1, min(right, right - least)) + 1)
    alpha = float(np.max((scipy.stats.binom.sf(right - 1 - fewer, guesses, chance) - beta) / fewer))
    return min(1.0, beta + 2 * canaries * delta * max(0.0, alpha))


def one_run_lower_bound(canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """The epsilon that one training's answers refute: with `confidence`, no (epsilon, delta) below it holds.

    Args:
      canaries: m, each included by an independent fair coin.
      guesses: r, fixed beforehand.
      right: how many of them were.
      delta: of the claim, in [0, 1].
      confidence: in (0, 1).

    Returns:
      At least 0, which is what an audit that finds nothing gives; at most 64.

    Raises:
      ValueError: for numbers out of range.
    """
    _check_confidence(confidence)
    return _largest(_one_run_refutes(canaries, guesses, right, delta, confidence), _MOST_EPSILON)


def gaussian_one_run_lower_bound(
    canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95
) -> float:
    """The same for mechanisms whose trade-off is that of one Gaussian, which is refuted sooner.

    (epsilon, delta) is one point of a trade-off between errors, and a mechanism may sit at it and nowhere near it
    elsewhere. DP-SGD in which every example joins every step is Gaussian throughout: errors trade off as between N(0,
    1) and N(mu, 1). This bound refutes mu, and says what epsilon at `delta` the least mu that it cannot refute has. For
    other mechanisms, Poisson-sampled DP-SGD of many steps among them, the assumption is an approximation.

    Args:
      canaries: m, each included by an independent fair coin.
      guesses: r, fixed beforehand.
      right: how many of them were.
      delta: of the claim, strictly between 0 and 1.
      confidence: in (0, 1).

    Returns:
      At least 0.

    Raises:
      ValueError: for numbers out of range.
    """
    _check_counts(canaries, guesses, right)
    _check_confidence(confidence)
    mu = _largest(lambda mu: _refutes_gaussian(canaries, guesses, right, mu, 1 - confidence), _MOST_MU)
    return gaussian_epsilon(mu, delta)


def clopper_pearson_lower_bound(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    confidence: float = 0.95,
    *,
    gaussian: bool = False,
) -> float:
    """A bound from independent answers: canaries that cannot touch each other, or one canary in many trainings.

    Each of the two error rates is bounded by Clopper & Pearson's interval at half of what `confidence` leaves. Then
    epsilon is at least log((1 - FNR - delta) / FPR), or, if the mechanism is assumed Gaussian, that of
    mu = -ppf(FPR) - ppf(FNR) (Nasr et al. 2023, "Tight auditing", arXiv 2302.07956). Dependent answers break it.

    Args:
      true_positives: included ones that were called included.
      positives: included ones.
      false_positives: excluded ones that were called included, by a rule that was fixed beforehand.
      negatives: excluded ones.
      delta: of the claim, in [0, 1]; strictly between them if `gaussian`.
      confidence: in (0, 1).
      gaussian: whether to assume a Gaussian mechanism.

    Returns:
      At least 0.

    Raises:
      ValueError: for numbers out of range.
    """
    _check_confidence(confidence)
    for name, count, total in (
        ("true_positives", true_positives, positives),
        ("false_positives", false_positives, negatives),
    ):
        if not 0 <= count <= total or total < 1:
            raise ValueError(f"`{name}` should lie between 0 and the number asked, at least 1; got {count} of {total}.")
    half = (1 - confidence) / 2
    false_negative_rate = float(clopper_pearson(positives - true_positives, positives, half)[1])
    false_positive_rate = float(clopper_pearson(false_positives, negatives, half)[1])
    if gaussian:
        mu = -scipy.special.ndtri(false_positive_rate) - scipy.special.ndtri(false_negative_rate)
        return gaussian_epsilon(max(0.0, float(mu)), delta)
    if not 0 <= delta <= 1:
        raise ValueError(f"`delta` should lie in [0, 1]; got {delta!r}.")
    above_delta = 1 - false_negative_rate - delta
    return max(0.0, math.log(above_delta / false_positive_rate)) if above_delta > 0 else 0.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at `delta` of a Gaussian mechanism of sensitivity `mu` and standard deviation 1.

    Balle & Wang 2018 (arXiv 1805.06530), theorem 8; Dong, Roth & Su 2019 (arXiv 1905.02383), corollary 2.13.

    Args:
      mu: at least 0; sensitivity / standard deviation.
      delta: strictly between 0 and 1.

    Raises:
      ValueError: for numbers out of range.
    """
    if not mu >= 0:
        raise ValueError(f"`mu` should be at least 0; got {mu!r}.")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` should lie strictly between 0 and 1; got {delta!r}.")

    def excess(epsilon: float) -> float:
        """Log of the mechanism's delta at `epsilon` / `delta`."""
        first = scipy.special.log_ndtr(mu / 2 - epsilon / mu)
        second = epsilon + scipy.special.log_ndtr(-mu / 2 - epsilon / mu)
        return float(first + np.log1p(-np.exp(min(second - first, -1e-300)))) - math.log(delta)

    if mu < 1e-6 or excess(0.0) <= 0:
        return 0.0
    most = mu * (mu + 2 * math.sqrt(-2 * math.log(delta)) + 10)
    return float(scipy.optimize.brentq(excess, 0.0, most))  # pyright: ignore[reportArgumentType]


def expected_lower_bound(
    canaries: int, guesses: int, right_probability: float, delta: float, confidence: float = 0.95
) -> float:
    """What `one_run_lower_bound` gives a run that is one standard deviation less lucky than the average.

    Args:
      canaries: m.
      guesses: r.
      right_probability: of one guess.
      delta: of the claim.
      confidence: of the bound.
    """
    deviation = math.sqrt(guesses * right_probability * (1 - right_probability))
    right = math.floor(max(0.0, guesses * right_probability - deviation))
    refutes = _one_run_refutes(canaries, guesses, right, delta, confidence)
    return _largest(refutes, _MOST_EPSILON, tolerance=1e-3)


def _one_run_refutes(
    canaries: int, guesses: int, right: int, delta: float, confidence: float
) -> Callable[[float], bool]:
    """Whether an epsilon is refuted, as a function of it."""
    return lambda epsilon: one_run_p_value(canaries, guesses, right, epsilon, delta) <= 1 - confidence


def _refutes_gaussian(canaries: int, guesses: int, right: int, mu: float, significance: float) -> bool:
    """Whether so many right guesses have a probability of at most `significance` in every mu-Gaussian mechanism.

    The recursion follows the joint shares of canaries that are guessed right (`hits`) and wrong (`misses`) in the runs
    with at least i right guesses, from i = `right` downwards. Were their probability `significance` or more, the
    trade-off function would force these shares, in all runs together, above what r guesses can hold.
    """
    hits = significance * right / canaries
    misses = significance * (guesses - right) / canaries
    for i in range(right - 1, -1, -1):
        forced = max(misses, float(scipy.special.ndtr(scipy.special.ndtri(min(hits, 1.0)) - mu)))
        if forced == misses:
            break  # neither can change any more
        hits, misses = min(1.0, hits + i / (guesses - i) * (forced - misses)), forced
    return hits + misses > guesses / canaries


def _largest(refutes: Callable[[float], bool], most: float, tolerance: float = 1e-6) -> float:
    """The largest refuted number in [0, most], from below; 0 if 0 is not refuted."""
    if not refutes(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refutes(high):
        if high >= most:
            return most
        low, high = high, 2 * high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if refutes(middle) else (low, middle)
    return low


def _check_counts(canaries: int, guesses: int, right: int) -> None:
    """Refuses counts that cannot be."""
    if not (canaries >= 1 and 0 <= right <= guesses <= canaries):
        raise ValueError(
            "`right`, `guesses` and `canaries` should satisfy 0 <= right <= guesses <= canaries and canaries >= 1; "
            f"got {right}, {guesses} and {canaries}."
        )


def _check_confidence(confidence: float) -> None:
    """Refuses what is no probability."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` should lie strictly between 0 and 1; got {confidence!r}.")

"""Guesses: as many as were promised, of the surest canaries, and in numbers that the plan alone decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from tfdpgen.attacks.audit import (
    GuessNumbers,
    canary_plan,
    choose_guesses,
    count_right,
    guess,
    one_run_lower_bound,
    privacy_loss,
)
from tfdpgen.privacy import DPSGD, PrivacyBudget


def test_the_highest_are_called_included_and_the_lowest_excluded() -> None:
    guesses = guess([0.3, -2.0, 5.0, 0.1, 9.0, -1.0], GuessNumbers(2, 1))
    assert guesses.tolist() == [0, -1, 1, 0, 1, 0]
    assert count_right(guesses, np.array([True, False, True, True, False, True])) == 2


def test_ties_do_not_change_how_many_are_guessed() -> None:
    guesses = guess(np.zeros(50), GuessNumbers(7, 3))
    assert (np.sum(guesses == 1), np.sum(guesses == -1)) == (7, 3)


@pytest.mark.parametrize(
    ("scores", "numbers"),
    [([0.0, math.nan], GuessNumbers(1, 0)), ([0.0, 1.0], GuessNumbers(2, 1)), ([[0.0]], GuessNumbers(1, 0))],
)
def test_scores_that_cannot_be_ranked_are_refused(scores: list, numbers: GuessNumbers) -> None:
    with pytest.raises(ValueError, match=r"`scores`|`numbers`"):
        guess(scores, numbers)


def test_numbers_of_guesses_are_checked() -> None:
    with pytest.raises(ValueError, match="`included`"):
        GuessNumbers(0, 0)
    with pytest.raises(ValueError, match="`excluded`"):
        GuessNumbers(3, -1)


@pytest.mark.parametrize("q", [1.0, 0.3])
def test_the_privacy_loss_is_the_log_of_the_densities_ratio(q: float) -> None:
    observed, deviation = np.linspace(-3, 4, 15), 0.8
    density = scipy.stats.norm(scale=deviation).pdf
    expected = np.log((1 - q) * density(observed) + q * density(observed - 1)) - np.log(density(observed))
    np.testing.assert_allclose(privacy_loss(observed, deviation, q), expected, atol=1e-12)


def test_what_is_chosen_is_near_the_best_that_a_gaussian_allows() -> None:
    plan = canary_plan(PrivacyBudget(2.0, 1e-5), 20_000)
    numbers = choose_guesses(plan, 1e-5)
    mu = 1 / plan.noise_multiplier

    def expected(threshold: float) -> float:
        hit, miss = (20_000 * scipy.stats.norm.sf(threshold + sign * mu / 2) for sign in (-1, 1))
        return one_run_lower_bound(20_000, int(hit + miss), int(hit), 1e-5)

    best = max(expected(threshold) for threshold in np.linspace(0.5, 3.5, 31))
    threshold = scipy.optimize.brentq(
        lambda t: sum(20_000 * scipy.stats.norm.sf(t + sign * mu / 2) for sign in (-1, 1)) - numbers.total, 0, 5
    )
    assert expected(threshold) > 0.9 * best
    assert abs(numbers.included - numbers.excluded) < 0.15 * numbers.total  # a Gaussian tells both equally well


def test_right_guesses_could_refute_the_claim() -> None:
    plan = canary_plan(PrivacyBudget(4.0, 1e-5), 20_000)
    total = choose_guesses(plan, 1e-5).total
    assert one_run_lower_bound(20_000, total, total, 1e-5) > 4.2


def test_under_sampling_hits_are_surer_than_misses() -> None:
    numbers = choose_guesses(DPSGD(2_000, 200, 5, 1.0, noise_multiplier=0.8), 1e-5)
    assert numbers.included > numbers.excluded


def test_more_canaries_than_guesses_are_asked_of_a_small_audit_too() -> None:
    assert choose_guesses(canary_plan(PrivacyBudget(4.0, 1e-5), 10), 1e-5).total <= 10


def test_a_plan_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="noise"):
        choose_guesses(DPSGD(100, 100, 1, 1.0, noise_multiplier=0.0), 1e-5)

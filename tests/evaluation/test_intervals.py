"""Intervals cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from tfdpgen.evaluation import accuracy_interval, difference_interval


@pytest.mark.parametrize(("right", "examples"), [(0, 20), (13, 20), (20, 20), (917, 1000)])
def test_accuracy_interval_is_where_the_binomial_tails_are_a_fortieth(right: int, examples: int) -> None:
    low, high = accuracy_interval(right, examples)
    assert low <= right / examples <= high
    if right > 0:
        assert scipy.stats.binom.sf(right - 1, examples, low) == pytest.approx(0.025, rel=1e-6)
    if right < examples:
        assert scipy.stats.binom.cdf(right, examples, high) == pytest.approx(0.025, rel=1e-6)


def test_difference_interval_agrees_with_examples_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.9, rng.random(200) < 0.8
    examples = rng.integers(200, size=(20_000, 200))
    naive = np.quantile(first[examples].mean(axis=1) - second[examples].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(difference_interval(first, second), naive, atol=0.011)  # two examples


def test_difference_interval_covers_and_is_narrower_where_examples_are_paired() -> None:
    rng, covered = np.random.default_rng(1), 0
    for seed in range(200):
        hard = rng.random(150)
        first, second = hard < 0.95, (hard < 0.95) & (rng.random(150) < 0.96)
        low, high = difference_interval(first, second, seed=seed)
        covered += low <= 0.95 * 0.04 <= high
        assert high - low < 0.1
    assert covered >= 180


def test_agreement_everywhere_is_no_proof_of_equality() -> None:
    low, high = difference_interval(np.ones(100, bool), np.ones(100, bool))
    assert -0.05 < low < 0 < high < 0.05


def test_refusals() -> None:
    for right, examples in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=r"`right` should lie in \[0, examples\]"):
            accuracy_interval(right, examples)
    with pytest.raises(ValueError, match="`confidence` should lie strictly between 0 and 1; got 1"):
        accuracy_interval(1, 2, confidence=1)
    with pytest.raises(ValueError, match="should tell of the same examples"):
        difference_interval(np.ones(3, bool), np.ones(4, bool))

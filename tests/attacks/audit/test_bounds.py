"""Bounds on epsilon: jax_privacy's metrics, the theorem computed the slow way, and coverage on known mechanisms."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import dp_accounting
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from tfdpgen.attacks.audit import (
    clopper_pearson_lower_bound,
    gaussian_epsilon,
    gaussian_one_run_lower_bound,
    one_run_lower_bound,
    one_run_p_value,
)

_GOLDEN = Path(__file__).parents[2] / "golden" / "audits.csv"
_ROWS = [
    {name: float(value) for name, value in row.items()} for row in csv.DictReader(_GOLDEN.read_text().splitlines())
]


def _name(row: dict[str, float]) -> str:
    return "-".join(f"{value:g}" for value in list(row.values())[:6])


def _counts(row: dict[str, float]) -> tuple[int, int, int, int]:
    return tuple(int(row[name]) for name in ("included", "excluded", "included_above", "excluded_above"))


@pytest.mark.parametrize("row", _ROWS, ids=_name)
def test_bounds_agree_with_jax_privacy(row: dict[str, float]) -> None:
    included, excluded, right, wrong = _counts(row)
    asked = (included + excluded, right + wrong, right, row["delta"], 1 - row["significance"])
    assert one_run_lower_bound(*asked) == pytest.approx(row["one_run"], abs=5e-6)
    # Both differ from jax_privacy's by the tolerance of one root.
    assert gaussian_one_run_lower_bound(*asked) == pytest.approx(row["one_run_fdp"], abs=2e-5, rel=1e-5)
    clopper_pearson = clopper_pearson_lower_bound(
        right, included, wrong, excluded, row["delta"], 1 - row["significance"]
    )
    assert clopper_pearson == pytest.approx(row["clopper_pearson"], abs=1e-6)


def test_the_table_covers_what_it_should() -> None:
    assert len(_ROWS) == 84
    assert {row["delta"] for row in _ROWS} == {1e-9, 1e-5, 1e-3}
    assert min(row["one_run"] for row in _ROWS) == 0
    assert max(row["one_run"] for row in _ROWS) > 3
    assert max(row["included"] + row["excluded"] for row in _ROWS) == 100_000


@hypothesis.given(
    st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.floats(0, 6), st.sampled_from([0.0, 1e-9, 1e-5, 1e-2])
)
@hypothesis.settings(max_examples=60)
def test_the_p_value_is_the_theorems(canaries: int, guessed: float, hit: float, epsilon: float, delta: float) -> None:
    guesses = round(guessed * canaries)
    right = round(hit * guesses)
    masses = scipy.stats.binom.pmf(np.arange(guesses + 1), guesses, 1 / (1 + math.exp(-epsilon)))
    expected = masses[right:].sum()
    if right:
        expected += 2 * canaries * delta * max(masses[right - i : right].sum() / i for i in range(1, right + 1))
    assert one_run_p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(min(1.0, expected), abs=1e-9)


def test_bounds_grow_with_right_guesses_and_shrink_with_delta_and_confidence() -> None:
    for bound in (one_run_lower_bound, gaussian_one_run_lower_bound):
        by_right = [bound(1_000, 100, right, 1e-5) for right in (50, 70, 90, 100)]
        assert by_right[0] == 0
        assert by_right[1:] == sorted(by_right[1:])
        assert by_right[1] < by_right[3]
        assert bound(1_000, 100, 95, 1e-5, 0.99) < bound(1_000, 100, 95, 1e-5, 0.95)
    assert one_run_lower_bound(1_000, 100, 95, 1e-3) < one_run_lower_bound(1_000, 100, 95, 1e-9)


def _share_above(epsilon: float, bounds: list[float]) -> float:
    return float(np.mean(np.array(bounds) > epsilon))


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 0.0), (3.0, 0.0), (1.0, 0.01)])
def test_the_one_run_bound_is_above_a_true_epsilon_one_time_in_twenty_at_most(epsilon: float, delta: float) -> None:
    """Of randomised response, which with probability delta tells the truth: the least private there is."""
    rng = np.random.default_rng(0)
    canaries, runs = 400, 2_000
    guesses = canaries
    right = rng.binomial(canaries, delta + (1 - delta) / (1 + math.exp(-epsilon)), runs)
    bounds = {int(v): one_run_lower_bound(canaries, guesses, int(v), delta) for v in np.unique(right)}
    share = _share_above(epsilon, [bounds[int(v)] for v in right])
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    if not delta:
        assert share > 0.02  # it is tight there
        assert np.mean([bounds[int(v)] for v in right]) > 0.7 * epsilon


def test_the_gaussian_bounds_are_above_a_true_epsilon_one_time_in_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    mu, delta, canaries, guesses, runs = 1.0, 1e-5, 2_000, 120, 300
    one_run, independent = [], []
    for _ in range(runs):
        included = rng.random(canaries) < 0.5
        scores = rng.standard_normal(canaries) + mu * included - mu / 2
        surest = np.argsort(-np.abs(scores))[:guesses]
        right = int(np.sum((scores > 0)[surest] == included[surest]))
        one_run.append(gaussian_one_run_lower_bound(canaries, guesses, right, delta))
        called = scores > 1.0
        counts = (int(np.sum(called & included)), int(included.sum()), int(np.sum(called & ~included)))
        independent.append(
            clopper_pearson_lower_bound(*counts, int(np.sum(~included)), delta, gaussian=True),
        )
    epsilon = gaussian_epsilon(mu, delta)
    for bounds in (one_run, independent):
        assert _share_above(epsilon, bounds) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
        assert np.median(bounds) > 0.4 * epsilon


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 1.6, 10.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_a_gaussians_epsilon_is_dp_accountings(noise_multiplier: float, delta: float) -> None:
    accountant = dp_accounting.pld.PLDAccountant().compose(dp_accounting.GaussianDpEvent(noise_multiplier))
    assert gaussian_epsilon(1 / noise_multiplier, delta) == pytest.approx(accountant.get_epsilon(delta), abs=1e-3)


def test_a_gaussian_of_hardly_any_sensitivity_costs_nothing() -> None:
    assert gaussian_epsilon(0.0, 1e-5) == gaussian_epsilon(1e-7, 1e-5) == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: one_run_lower_bound(10, 11, 5, 1e-5), "guesses"),
        (lambda: one_run_lower_bound(10, 5, 6, 1e-5), "right"),
        (lambda: one_run_lower_bound(10, 5, 5, 1e-5, confidence=1.0), "confidence"),
        (lambda: one_run_lower_bound(10, 5, 5, delta=-1.0), "delta"),
        (lambda: one_run_p_value(10, 5, 5, -0.1, 0.0), "epsilon"),
        (lambda: gaussian_one_run_lower_bound(10, 5, 5, delta=0.0), "delta"),
        (lambda: clopper_pearson_lower_bound(5, 4, 0, 4, 0.0), "true_positives"),
        (lambda: gaussian_epsilon(-1.0, 1e-5), "mu"),
    ],
)
def test_numbers_out_of_range_are_refused(call, named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        call()

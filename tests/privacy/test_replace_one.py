"""Replacing an example costs what the worst pair of examples makes it cost: no pair costs more, and none less is
claimed."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tfdpgen.privacy import epsilon_of
from tfdpgen.privacy.accounting import NeighboringRelation, poisson_gaussian_event, replace_one

_ACCOUNTANTS = ("pld", "rdp")


def _mixture(outputs: np.ndarray, mean: float, sampling_probability: float, noise_multiplier: float) -> np.ndarray:
    """Density of (1 - q) N(0) + q N(mean)."""
    out, drawn = (stats.norm.pdf(outputs, center, noise_multiplier) for center in (0.0, mean))
    return (1 - sampling_probability) * out + sampling_probability * drawn


def _replaced(event: dp_accounting.DpEvent, delta: float = 1e-5, accountant: str = "pld") -> float:
    return epsilon_of(event, delta, accountant, "replace-one")


@settings(max_examples=40, deadline=None)
@given(
    sampling_probability=st.sampled_from([0.01, 0.1, 0.5, 0.9, 1.0]),
    noise_multiplier=st.floats(0.4, 4.0),
    norms=st.tuples(st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.sampled_from([0.0, 0.3, 0.8, 1.0])),
    angle=st.floats(0, math.pi),
    loss=st.floats(-3.0, 3.0),
)
def test_no_two_examples_are_told_apart_better_than_the_pair(
    sampling_probability: float, noise_multiplier: float, norms: tuple[float, float], angle: float, loss: float
) -> None:
    """By quadrature in the plane that two clipped gradients span, for losses of either sign."""
    axis = noise_multiplier * np.arange(-8, 8, 0.04)
    cell = (0.04 * noise_multiplier) ** 2

    def divergence(x: tuple[float, float], y: tuple[float, float]) -> float:
        def density(mean: tuple[float, float]) -> np.ndarray:
            out, drawn = (
                np.outer(*(stats.norm.pdf(axis, center[i], noise_multiplier) for i in range(2)))
                for center in ((0.0, 0.0), mean)
            )
            return (1 - sampling_probability) * out + sampling_probability * drawn

        return cell * float(np.maximum(density(x) - math.exp(loss) * density(y), 0).sum())

    other = (norms[1] * math.cos(angle), norms[1] * math.sin(angle))
    assert divergence((norms[0], 0.0), other) <= divergence((1.0, 0.0), (-1.0, 0.0)) + 1e-5


@pytest.mark.parametrize("delta", [1e-3, 1e-6])
@pytest.mark.parametrize(("sampling_probability", "noise_multiplier"), [(0.01, 0.5), (0.1, 1.0), (0.6, 2.0), (1, 3)])
def test_epsilon_of_one_step_is_the_worst_pairs(
    sampling_probability: float, noise_multiplier: float, delta: float
) -> None:
    epsilon = _replaced(poisson_gaussian_event(sampling_probability, noise_multiplier, 1), delta)

    far = 1 + 12 * noise_multiplier
    outputs = np.linspace(-far, far, 1_000_001)
    upper, lower = (_mixture(outputs, mean, sampling_probability, noise_multiplier) for mean in (1, -1))
    exact = np.maximum(upper - math.exp(epsilon) * lower, 0).sum() * (outputs[1] - outputs[0])
    assert exact == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize(
    ("sampling_probability", "noise_multiplier", "steps", "delta", "epsilon"),
    [
        (512 / 60000, 1.1, 3000, 1e-5, 3.845573),
        (0.01, 1.0, 1000, 1e-5, 2.843446),
        (0.2, 5.0, 100, 1e-5, 3.376889),
        (0.001, 0.7, 20000, 1e-6, 2.601512),
        (0.5, 20.0, 300, 1e-5, 3.707308),
        (0.05, 2.0, 500, 1e-5, 4.980757),
        (0.3, 0.5, 5, 1e-5, 18.575308),
    ],
)
def test_dp_accounting_agrees_with_the_proof(
    sampling_probability: float, noise_multiplier: float, steps: int, delta: float, epsilon: float
) -> None:
    """The values are those of an implementation of `replace_one` from before dp-accounting had its own."""
    event = poisson_gaussian_event(sampling_probability, noise_multiplier, steps)
    assert _replaced(event, delta) == pytest.approx(epsilon, rel=1e-4)


def test_epsilon_of_two_different_steps_is_the_worst_pairs() -> None:
    parts = [(0.1, 0.8), (0.3, 1.5)]
    event = dp_accounting.ComposedDpEvent([poisson_gaussian_event(*part, 1) for part in parts])
    epsilon = _replaced(event, 1e-4)
    spacing = 0.01
    axes = [noise * np.arange(-9, 9, spacing) for _, noise in parts]
    upper, lower = (
        np.outer(*(_mixture(axis, mean, *part) for axis, part in zip(axes, parts, strict=True))) for mean in (1, -1)
    )
    cell = math.prod(noise * spacing for _, noise in parts)
    exact = cell * np.maximum(upper - math.exp(epsilon) * lower, 0).sum()
    assert exact == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("accountant", _ACCOUNTANTS)
def test_without_sampling_it_is_the_gaussian_of_half_the_noise(accountant: str) -> None:
    halved = epsilon_of(dp_accounting.GaussianDpEvent(2.0 / 3), 1e-5, accountant)
    four_times = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(8.0 / 3), 4)
    for event in (poisson_gaussian_event(1.0, 4.0 / 3, 1), four_times):
        assert _replaced(event, accountant=accountant) == pytest.approx(halved, rel=1e-3)


@pytest.mark.parametrize("accountant", _ACCOUNTANTS)
@pytest.mark.parametrize(("sampling_probability", "noise_multiplier", "steps"), [(0.01, 1.0, 500), (0.3, 5.0, 100)])
def test_it_costs_more_than_adding_and_less_than_group_privacy(
    sampling_probability: float, noise_multiplier: float, steps: int, accountant: str
) -> None:
    event = poisson_gaussian_event(sampling_probability, noise_multiplier, steps)
    epsilon = _replaced(event, accountant=accountant)
    assert 1.2 * epsilon_of(event, 1e-5, accountant) < epsilon
    if accountant == "rdp":
        assert _replaced(event) < epsilon < 1.25 * _replaced(event)
    else:  # one removal and one addition would have a larger delta at this epsilon
        by_half = pld.PLDAccountant().compose(event).get_delta(epsilon / 2)
        assert (1 + math.exp(epsilon / 2)) * by_half > 1e-5


@settings(max_examples=10, deadline=None)
@given(
    sampling_probability=st.floats(0.001, 0.5),
    noise_multiplier=st.floats(0.8, 20.0),
    steps=st.integers(1, 300),
    accountant=st.sampled_from(_ACCOUNTANTS),
)
def test_more_draws_more_steps_and_less_noise_cost_more(
    sampling_probability: float, noise_multiplier: float, steps: int, accountant: str
) -> None:
    cost = _replaced(poisson_gaussian_event(sampling_probability, noise_multiplier, steps), accountant=accountant)
    slack = cost * (1 - 1e-3) - 1e-6  # PLD rounds upwards, by less than this
    for more in (
        (1.5 * sampling_probability, noise_multiplier, steps),
        (sampling_probability, noise_multiplier / 1.5, steps),
        (sampling_probability, noise_multiplier, 2 * steps),
    ):
        assert _replaced(poisson_gaussian_event(*more), accountant=accountant) >= slack


@pytest.mark.parametrize(("sampling_probability", "noise_multiplier"), [(0.01, 1.1), (0.3, 0.4), (0.5, 5.0)])
@pytest.mark.parametrize("order", [1.1, 2.0, 8.0])
def test_renyi_divergences_are_the_pairs(sampling_probability: float, noise_multiplier: float, order: float) -> None:
    outputs = np.linspace(-10 * noise_multiplier, 2 * order + 10 * noise_multiplier, 400_001)
    log_out, log_upper, log_lower = (stats.norm.logpdf(outputs, mean, noise_multiplier) for mean in (0, 1, -1))
    log_upper, log_lower = (
        np.logaddexp(math.log(1 - sampling_probability) + log_out, math.log(sampling_probability) + log_drawn)
        for log_drawn in (log_upper, log_lower)
    )
    integral = np.exp(order * log_upper + (1 - order) * log_lower).sum() * (outputs[1] - outputs[0])
    (divergence,) = replace_one._renyi_divergences((order,), sampling_probability, noise_multiplier)
    assert divergence == pytest.approx(math.log(integral) / (order - 1), rel=1e-6)


def test_renyi_divergences_far_below_rounding_errors_are_those_of_a_gaussian() -> None:
    divergences = replace_one._renyi_divergences((1.1, 8.0, 64.0), 1e-6, 300.0)
    np.testing.assert_allclose(divergences, np.array([1.1, 8.0, 64.0]) / 2 * (2e-6 / 300) ** 2, rtol=1e-3)


def test_renyi_divergences_with_very_little_noise_are_bounded_by_those_without_sampling() -> None:
    divergences = replace_one._renyi_divergences((1.5, 8.0, 64.0), 0.01, 0.005)
    np.testing.assert_allclose(divergences, 2 * np.array([1.5, 8.0, 64.0]) / 0.005**2)


@pytest.mark.parametrize("neighboring_relation", ["add-or-remove-one", "replace-one"])
def test_next_to_no_noise_takes_a_coarser_grid(neighboring_relation: NeighboringRelation) -> None:
    """And is still right: about half the squared distance, plus a tail."""
    distance = (1.0 if neighboring_relation == "add-or-remove-one" else 2.0) / 0.02
    epsilon = epsilon_of(dp_accounting.GaussianDpEvent(0.02), 1e-5, "pld", neighboring_relation)
    assert epsilon == pytest.approx(distance**2 / 2 - distance * stats.norm.ppf(1e-5), rel=0.02)


@pytest.mark.parametrize("accountant", _ACCOUNTANTS)
def test_no_noise_costs_everything_and_no_draw_nothing(accountant: str) -> None:
    noiseless = dp_accounting.ComposedDpEvent([poisson_gaussian_event(0.1, 0.0, 3), dp_accounting.GaussianDpEvent(1.0)])
    assert _replaced(noiseless, accountant=accountant) == math.inf
    assert _replaced(poisson_gaussian_event(0.0, 0.0, 3), accountant=accountant) == 0


def test_what_is_not_accounted_is_refused_by_name() -> None:
    event = poisson_gaussian_event(0.1, 1.0, 3)
    with pytest.raises(ValueError, match=r"`neighboring_relation` should be one of .*'replace-one'.*got 'replace-all'"):
        epsilon_of(event, 1e-5, neighboring_relation="replace-all")
    twice = dp_accounting.PoissonSampledDpEvent(0.1, event)
    with pytest.raises(ValueError, match="`event` should be one that dp-accounting can compose"):
        _replaced(twice)

"""Calibration never exceeds the budget and wastes as little as can be; the command line says the same."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from dp_accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, pld
from scipy import stats

from tfdpgen.privacy import PrivacyBudget, epsilon_of
from tfdpgen.privacy.accounting import (
    ReplaceOneDpEvent,
    calibrate_batch_size,
    calibrate_noise_multiplier,
    calibrate_steps,
    group_event,
    poisson_gaussian_event,
)
from tfdpgen.privacy.accounting.__main__ import main

_BUDGET = PrivacyBudget(2.0, 1e-5)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_one_step_more_than_calibrated_is_over_the_budget(accountant: str) -> None:
    def cost(steps: int) -> float:
        return epsilon_of(poisson_gaussian_event(0.05, 1.5, steps), _BUDGET.delta, accountant)

    steps = calibrate_steps(lambda steps: poisson_gaussian_event(0.05, 1.5, steps), _BUDGET, accountant)
    assert cost(steps) <= 2.0 < cost(steps + 1)


def test_calibration_for_replacing_an_example_meets_that_budget_and_wastes_little() -> None:
    relation = "replace-one"

    def make_event(noise_multiplier: float) -> DpEvent:
        return poisson_gaussian_event(0.05, noise_multiplier, 200)

    noise_multiplier = calibrate_noise_multiplier(make_event, _BUDGET, "pld", relation)
    assert 0.998 * 2.0 < epsilon_of(make_event(noise_multiplier), _BUDGET.delta, "pld", relation) <= 2.0
    steps = calibrate_steps(lambda steps: poisson_gaussian_event(0.05, 2.0, steps), _BUDGET, "pld", relation)
    batch = calibrate_batch_size(lambda b: poisson_gaussian_event(b / 1_000, 2.0, 100), _BUDGET, 1_000, "pld", relation)
    for event, is_within in (
        (poisson_gaussian_event(0.05, 2.0, steps), True),
        (poisson_gaussian_event(0.05, 2.0, steps + 1), False),
        (poisson_gaussian_event(batch / 1_000, 2.0, 100), True),
        (poisson_gaussian_event((batch + 1) / 1_000, 2.0, 100), False),
    ):
        assert (epsilon_of(event, _BUDGET.delta, "pld", relation) <= 2.0) == is_within


def test_the_grid_of_losses_is_finer_than_the_losses() -> None:
    """On dp-accounting's own grid this plan costs 4 % more, which is rounding and nothing else."""
    event = poisson_gaussian_event(1e-3, 7.0, 20_000)
    coarse, fine = (
        pld.PLDAccountant(value_discretization_interval=interval).compose(event).get_epsilon(1e-8)
        for interval in (1e-4, 2e-6)
    )
    assert coarse > 1.03 * fine
    assert epsilon_of(event, 1e-8) == pytest.approx(fine, rel=2e-3)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_one_example_more_than_calibrated_is_over_the_budget(accountant: str) -> None:
    def cost(batch: int) -> float:
        return epsilon_of(poisson_gaussian_event(batch / 1_000, 2.0, 100), _BUDGET.delta, accountant)

    batch = calibrate_batch_size(lambda b: poisson_gaussian_event(b / 1_000, 2.0, 100), _BUDGET, 1_000, accountant)
    assert cost(batch) <= 2.0 < cost(batch + 1)


def test_more_noise_buys_more_steps() -> None:
    steps = [
        calibrate_steps(lambda steps, z=z: poisson_gaussian_event(0.05, z, steps), _BUDGET, "rdp") for z in (1.0, 2.0)
    ]
    assert steps[1] > 3 * steps[0]


def test_batches_of_all_examples_are_the_largest() -> None:
    assert calibrate_batch_size(lambda b: poisson_gaussian_event(b / 50, 20.0, 1), _BUDGET, 50) == 50


def test_a_budget_that_pays_for_nothing_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="`steps` of 1 already costs"):
        calibrate_steps(lambda steps: poisson_gaussian_event(1.0, 0.5, steps), _BUDGET)
    with pytest.raises(ValueError, match="`expected_batch_size` of 1 already costs"):
        calibrate_batch_size(lambda b: poisson_gaussian_event(b / 10, 0.3, 100), _BUDGET, 10)


def _ask(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tfdpgen.privacy.accounting", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})


def test_the_command_line_answers_with_the_assumptions() -> None:
    facts = ["--num_examples=2000", "--batch_size=100"]
    done = _ask("steps", *facts, "--noise_multiplier=1.5", "--epsilon=2", "--accountant=rdp")
    assert done.returncode == 0, done.stderr
    steps = calibrate_steps(lambda steps: poisson_gaussian_event(0.05, 1.5, steps), _BUDGET, "rdp")
    assert done.stdout.startswith(f"steps: {steps}\n")
    assert "Poisson sampling" in done.stdout
    done = _ask("epsilon", *facts, f"--steps={steps}", "--noise_multiplier=1.5")
    expected = epsilon_of(poisson_gaussian_event(0.05, 1.5, steps), 1e-5)
    assert done.stdout.startswith(f"epsilon: {expected:.6g}\n")
    replaced = epsilon_of(poisson_gaussian_event(0.05, 1.5, steps), 1e-5, "pld", "replace-one")
    assert f"epsilon at delta 1e-05, replace-one: {replaced:.6g} by PLD, " in done.stdout


def test_the_command_line_answers_for_replacing_an_example(capsys: pytest.CaptureFixture) -> None:
    plan = ["--num_examples=2000", "--batch_size=100", "--steps=50", "--noise_multiplier=1.5"]
    assert main(["epsilon", *plan, "--neighboring_relation=replace-one", "--accountant=rdp"]) == 0
    expected = epsilon_of(poisson_gaussian_event(0.05, 1.5, 50), 1e-5, "rdp", "replace-one")
    assert capsys.readouterr().out.startswith(f"epsilon: {expected:.6g}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_examples=0", "--batch_size=1", "--steps=1", "--noise_multiplier=1"], "`--num_examples` should be"),
        (["--num_examples=5", "--batch_size=6", "--steps=1", "--noise_multiplier=1"], "`--batch_size` should be"),
        (["--num_examples=5", "--batch_size=5", "--steps=1", "--noise_multiplier=0"], "`--noise_multiplier` should"),
        (["--num_examples=5", "--batch_size=5", "--steps=1", "--noise_multiplier=1", "--delta=0.5"], "`delta` should"),
    ],
)
def test_the_command_line_says_in_one_line_what_is_wrong(
    arguments: list, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["epsilon", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "event",
    [
        PoissonSampledDpEvent(-0.1, GaussianDpEvent(1.0)),
        PoissonSampledDpEvent(float("nan"), GaussianDpEvent(1.0)),
        PoissonSampledDpEvent(1.5, GaussianDpEvent(1.0)),
        SelfComposedDpEvent(GaussianDpEvent(1.0), -1),
        GaussianDpEvent(-1.0),
        GaussianDpEvent(float("nan")),
    ],
)
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("relation", ["add-or-remove-one", "replace-one"])
def test_an_event_with_numbers_out_of_range_is_refused_and_does_not_cost_nothing(
    event: DpEvent, accountant: str, relation: Any
) -> None:
    with pytest.raises(ValueError, match="should have sampling probabilities"):
        epsilon_of(event, 1e-5, accountant, relation)


@pytest.mark.parametrize(
    ("probability", "noise", "size"), [(0.1, 1.0, 2), (0.3, 2.0, 5), (1.0, 3.0, 4), (0.01, 0.7, 3)]
)
def test_a_group_costs_what_its_binomial_mixture_is_apart(probability: float, noise: float, size: int) -> None:
    """One step, by quadrature: of each of the group's examples the sample has or lacks, by itself."""
    event: DpEvent = GaussianDpEvent(noise)
    if probability < 1:
        event = PoissonSampledDpEvent(probability, event)
    x = np.linspace(-15 * noise, size + 15 * noise, 400_001)
    counts = np.arange(size + 1)
    mixed = (stats.binom.pmf(counts, size, probability)[:, None] * stats.norm.pdf(x, counts[:, None], noise)).sum(0)
    plain = stats.norm.pdf(x, 0, noise)
    delta = 1e-4
    epsilon = epsilon_of(group_event(event, size), delta)

    def exceeded(epsilon: float) -> float:
        pairs = ((mixed, plain), (plain, mixed))
        return max(np.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0), x) for p, q in pairs)

    assert exceeded(epsilon) <= delta * 1.001
    assert exceeded(0.98 * epsilon - 0.005) > delta
    assert epsilon > epsilon_of(event, delta)
    assert group_event(event, 1) is event


def test_a_group_of_something_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="costs a user of 3 examples is not known"):
        group_event(ReplaceOneDpEvent(GaussianDpEvent(1.0)), 3)
    with pytest.raises(ValueError, match="`size` should be at least 1"):
        group_event(GaussianDpEvent(1.0), 0)

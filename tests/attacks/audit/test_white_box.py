"""The white-box audit: near the claim where the training keeps it, and above it where a mutant does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import tensorflow as tf

from tfdpgen.attacks.audit import AuditResult, GuessNumbers, audit_optimizer, canary_plan, choose_guesses
from tfdpgen.privacy import (
    DPSGD,
    DPKerasAdam,
    DPKerasAdamW,
    DPKerasSGD,
    NoiseSource,
    PoissonBatch,
    PrivacyBudget,
    sampling,
)

_DELTA = 1e-5
_BUDGET = PrivacyBudget(4.0, _DELTA)


@pytest.fixture(scope="module")
def plan() -> DPSGD:
    return canary_plan(_BUDGET, 20_000)


@pytest.fixture(scope="module")
def numbers(plan: DPSGD) -> GuessNumbers:
    return choose_guesses(plan, _DELTA)


def _audit(
    plan: DPSGD, optimizer_class: type = DPKerasSGD, numbers: GuessNumbers | None = None, seed: int = 0
) -> AuditResult:
    noise = NoiseSource.insecure(seed)
    return audit_optimizer(plan, _DELTA, optimizer_class=optimizer_class, numbers=numbers, noise=noise)


class HalfNoise(DPKerasSGD):
    """The noise multiplier is halved on its way."""

    def __init__(self, l2_norm_clip: float, noise_multiplier: float, **kwargs: object) -> None:
        super().__init__(l2_norm_clip, noise_multiplier / 2, **kwargs)


class NoClip(DPKerasSGD):
    """Gradients keep the norm that they have."""

    def __init__(self, l2_norm_clip: float, noise_multiplier: float, **kwargs: object) -> None:
        super().__init__(l2_norm_clip, noise_multiplier, **kwargs)
        self._l2_norm_clip = 1e9


class DoubleClip(DPKerasSGD):
    """Twice the norm that noise is made for."""

    def __init__(self, l2_norm_clip: float, noise_multiplier: float, **kwargs: object) -> None:
        super().__init__(l2_norm_clip, noise_multiplier, **kwargs)
        self._l2_norm_clip *= 2


class OneStepWithoutNoise(DPKerasSGD):
    """The first of its steps forgets the noise."""

    def noised_gradients(self, sums: list[tf.Tensor], divisor: object = None) -> list[tf.Tensor]:
        noised = super().noised_gradients(sums, divisor)
        bare = [total / self._expected_batch_size for total in sums]
        return [tf.where(self.iterations == 0, *pair) for pair in zip(bare, noised, strict=True)]


class NoiseOnlyForOneChunk(DPKerasSGD):
    """Noise is added to batches of one chunk and forgotten for larger ones."""

    def noised_gradients(self, sums: list[tf.Tensor], divisor: object = None) -> list[tf.Tensor]:
        noised = super().noised_gradients(sums, divisor)
        bare = [total / self._expected_batch_size for total in sums]
        over_full = self._expected_batch_size > sampling.MOST_IN_CHUNK
        return bare if over_full else noised


@dataclasses.dataclass(frozen=True)
class EveryExample(DPSGD):
    """Every example joins every step, whatever probability is accounted."""

    def batches(self, noise: NoiseSource | None = None, first_step: int = 0) -> Iterator[PoissonBatch]:
        rng = (noise or NoiseSource()).numpy_generator()
        return sampling.poisson_batches(self.num_examples, 1.0, self.steps, self.physical_batch_size, rng)


@dataclasses.dataclass(frozen=True)
class OneBatch(DPSGD):
    """Every step takes the examples of the first."""

    def batches(self, noise: NoiseSource | None = None, first_step: int = 0) -> Iterator[PoissonBatch]:
        batch = next(iter(super().batches(noise)))
        return iter([batch] * self.steps)


def test_at_epsilon_4_the_bound_comes_near_and_stays_below(plan: DPSGD, numbers: GuessNumbers) -> None:
    results = [_audit(plan, numbers=numbers, seed=seed) for seed in range(3)]
    for result in results:
        assert result.claimed_epsilon == pytest.approx(4.0, abs=0.01)
        assert result.claimed_epsilon <= 4.0
        assert result.lower_bound > 1.5
        assert result.lower_bound_gaussian > result.lower_bound
        assert 3.5 < result.facts["lower_bound_independent"] < 4
        assert not result.is_refuted
    assert len({result.right for result in results}) > 1  # fresh coins and noise for each


@pytest.mark.parametrize("optimizer_class", [DPKerasAdam, DPKerasAdamW])
def test_adams_updates_say_as_much(plan: DPSGD, numbers: GuessNumbers, optimizer_class: type) -> None:
    assert _audit(plan, optimizer_class, numbers).right == _audit(plan, DPKerasSGD, numbers).right


def test_several_steps_say_as_much_as_one() -> None:
    result = _audit(canary_plan(_BUDGET, 20_000, steps=4))
    assert 1.5 < result.lower_bound < 4


def test_under_poisson_sampling_the_bound_stays_below_and_is_not_idle() -> None:
    result = _audit(DPSGD(10_000, 2_000, 10, l2_norm_clip=1.0, noise_multiplier=1.16))
    assert result.claimed_epsilon == pytest.approx(4.0, abs=0.2)
    assert 0.8 < result.lower_bound < result.claimed_epsilon


@pytest.mark.parametrize("mutant", [HalfNoise, NoClip, DoubleClip, NoiseOnlyForOneChunk])
def test_a_mutant_of_the_optimizer_is_caught(plan: DPSGD, numbers: GuessNumbers, mutant: type) -> None:
    result = _audit(plan, mutant, numbers)
    assert result.lower_bound > result.claimed_epsilon
    assert result.is_refuted


def test_one_step_without_noise_among_several_is_caught() -> None:
    assert _audit(canary_plan(_BUDGET, 20_000, steps=4), OneStepWithoutNoise).is_refuted


@pytest.mark.parametrize("mutant", [EveryExample, OneBatch])
def test_a_mutant_of_the_sampler_is_caught(mutant: type[DPSGD]) -> None:
    plan = mutant(20_000, 2_000, 20, l2_norm_clip=1.0, noise_multiplier=0.95)
    result = _audit(plan, numbers=GuessNumbers(700, 0))
    assert result.claimed_epsilon == pytest.approx(4.0, abs=0.4)
    assert result.is_refuted


def test_facts_are_those_of_the_plan() -> None:
    plan = DPSGD(500, 250, 3, l2_norm_clip=0.7, noise_multiplier=2.0)
    metrics = _audit(plan, DPKerasAdam).to_dict()
    assert metrics["adversary"] == "white_box"
    assert metrics["canaries"] == 500
    assert metrics["guesses"] == choose_guesses(plan, _DELTA).total
    assert metrics["optimizer"] == {
        "name": "DPKerasAdam",
        "steps": 3,
        "sampling_probability": 0.5,
        "noise_multiplier": 2.0,
        "l2_norm_clip": 0.7,
        "clip_mode": "flat",
    }
    assert metrics["seconds"] > 0


def test_a_plan_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="`sampling_probability`"):
        canary_plan(_BUDGET, 100, sampling_probability=0.0)
    with pytest.raises(ValueError, match="`canaries`"):
        canary_plan(_BUDGET, 0)
    with pytest.raises(ValueError, match="delta"):
        canary_plan(_BUDGET, 200_000)


@pytest.mark.slow
def test_of_twenty_audits_at_epsilon_4_at_most_one_is_above_it() -> None:
    """The same as `python -m tfdpgen.attacks.audit --epsilon=4 --runs=20 --seed=0`, about two minutes."""
    plan = canary_plan(_BUDGET)
    numbers = choose_guesses(plan, _DELTA)
    results = [_audit(plan, numbers=numbers, seed=seed) for seed in range(20)]
    bounds = sorted(result.lower_bound for result in results)
    assert sum(bound > 4 for bound in bounds) <= 1
    assert sum(result.facts["lower_bound_independent"] > 4 for result in results) <= 1
    assert min(result.lower_bound_gaussian for result in results) > 2.5
    assert bounds[0] > 1.5
    assert bounds[10] > 2.2

"""DP-SGD: sampling, clip, noise and event from one object, so that what runs is what is accounted.

    plan = DPSGD(num_examples=60_000, expected_batch_size=512, steps=3_000, l2_norm_clip=1.0)
    plan = plan.calibrate(PrivacyBudget(epsilon=3.0, delta=1e-5))       # a copy with its noise multiplier
    optimizer = plan.optimizer(learning_rate=1e-3)                      # clip, noise and divisor of the plan
    for batch in plan.batches():                                        # Poisson draws at the plan's probability
        ...
    plan.epsilon(delta=1e-5)

Source: Abadi et al. 2016, "Deep learning with differential privacy".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import dp_accounting

from tfdpgen.privacy import accounting, sampling
from tfdpgen.privacy.accounting import PrivacyStatement
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.clipping import ClipMode, check_clip_mode
from tfdpgen.privacy.mechanisms.base import calibrated
from tfdpgen.privacy.noise import NoiseSource
from tfdpgen.privacy.optimizer import DPKerasAdam, DPKerasAdamW, DPKerasSGD

_LEAST_CLIP = 1e-12
_Optimizer = TypeVar("_Optimizer", DPKerasAdam, DPKerasSGD, DPKerasAdamW)


@dataclasses.dataclass(frozen=True)
class DPSGD:
    """The facts of a DP-SGD training (Abadi et al. 2016), all public and all fixed before the first step.

    Attributes:
      num_examples: private examples; public under add-or-remove-one by assumption, which the statement lists.
      expected_batch_size: examples that a step draws on average; also the divisor of the noised gradient sum.
      steps: accounted steps.
      l2_norm_clip: bound on the L2 norm of one example's gradient.
      noise_multiplier: standard deviation of the noise / l2_norm_clip. None until calibrated.
      accountant: "pld" or "rdp".
      clip_mode: "flat", "per_layer" or "automatic"; the sensitivity of each is l2_norm_clip.
      name: what the statement calls it.

    Raises:
      ValueError: for facts out of range.
    """

    num_examples: int
    expected_batch_size: int
    steps: int
    l2_norm_clip: float = 1.0
    noise_multiplier: float | None = None
    accountant: str = "pld"
    clip_mode: ClipMode = "flat"
    name: str = "DP-SGD"

    def __post_init__(self) -> None:
        for name in ("num_examples", "expected_batch_size", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` should be an integer of at least 1; got {value!r}.")
        if self.num_examples > sampling.MOST_EXAMPLES:
            raise ValueError(f"`num_examples` should be at most {sampling.MOST_EXAMPLES}; got {self.num_examples}.")
        if self.expected_batch_size > self.num_examples:
            raise ValueError(
                f"`expected_batch_size` should be at most num_examples = {self.num_examples}; "
                f"got {self.expected_batch_size}."
            )
        if not _LEAST_CLIP <= self.l2_norm_clip <= 1 / _LEAST_CLIP:
            raise ValueError(
                f"`l2_norm_clip` should lie between {_LEAST_CLIP:g} and {1 / _LEAST_CLIP:g}, whose squares 32 bits "
                f"hold; got {self.l2_norm_clip!r}."
            )
        if self.noise_multiplier is not None and not (
            self.noise_multiplier >= 0 and math.isfinite(self.noise_multiplier)
        ):
            raise ValueError(f"`noise_multiplier` should be finite and at least 0; got {self.noise_multiplier!r}.")
        accounting.check_accountant(self.accountant)
        check_clip_mode(self.clip_mode)

    @property
    def unit(self) -> PrivacyUnit:
        """Whose presence the event bounds: one example's."""
        return PrivacyUnit.EXAMPLE

    @property
    def sampling_probability(self) -> float:
        """The probability with which each example joins each batch."""
        return self.expected_batch_size / self.num_examples

    @property
    def event(self) -> dp_accounting.DpEvent:
        """What this mechanism does to the private examples.

        Raises:
          ValueError: if the plan was not calibrated.
        """
        return accounting.poisson_gaussian_event(
            self.sampling_probability, calibrated(self.noise_multiplier), self.steps
        )

    def calibrate(self, budget: PrivacyBudget) -> DPSGD:
        """A copy with the least noise that keeps this mechanism alone within the budget.

        Raises:
          ValueError: if delta is not smaller than 1 / num_examples, or no noise is enough.
        """
        budget.check_num_examples(self.num_examples)
        noise_multiplier = accounting.calibrate_noise_multiplier(
            lambda value: self.with_noise(value).event, budget, self.accountant
        )
        return self.with_noise(noise_multiplier)

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy with this noise multiplier."""
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)

    def epsilon(self, delta: float) -> float:
        """The cost of this mechanism alone."""
        return accounting.epsilon_of(self.event, delta, self.accountant)

    @property
    def physical_batch_size(self) -> int:
        """The fixed shape of the chunks that `batches` yields."""
        return sampling.physical_batch_size(self.num_examples, self.expected_batch_size)

    def batches(
        self, noise: NoiseSource | None = None, first_step: int = 0, *, num_present: int | None = None
    ) -> Iterator[sampling.PoissonBatch]:
        """The Poisson samples, one for each step, padded to whole chunks of `physical_batch_size`.

        Args:
          noise: where the draws come from; by default the operating system.
          first_step: steps that were executed or given up before; see `Backup`.
          num_present: examples that there are to sample from; by default `num_examples`. In a shard it is private, and
            the sampling probability still that of `num_examples`.

        Raises:
          ValueError: if there are not as many steps.
        """
        if not 0 <= first_step <= self.steps:
            raise ValueError(f"`first_step` should lie between 0 and `steps` = {self.steps}; got {first_step}.")
        rng = (noise or NoiseSource()).numpy_generator()
        return sampling.poisson_batches(
            self.num_examples if num_present is None else num_present,
            self.sampling_probability,
            self.steps - first_step,
            self.physical_batch_size,
            rng,
        )

    def optimizer(
        self, noise: NoiseSource | None = None, optimizer_class: type[_Optimizer] = DPKerasAdam, **kwargs: Any
    ) -> _Optimizer:
        """An optimizer with the plan's clip, noise and divisor.

        Args:
          noise: where noise comes from; by default the operating system.
          optimizer_class: `DPKerasAdam`, `DPKerasSGD` or `DPKerasAdamW`.
          **kwargs: the arguments of Keras's legacy optimizer of that name, and `clipping`.
        """
        return optimizer_class(
            self.l2_norm_clip,
            calibrated(self.noise_multiplier),
            expected_batch_size=self.expected_batch_size,
            clip_mode=self.clip_mode,
            noise=noise,
            **kwargs,
        )

    def statement(self, delta: float, noise: NoiseSource | None = None) -> PrivacyStatement:
        """What this mechanism alone promises at `delta`."""
        return accounting.make_statement(
            [self],
            self.num_examples,
            delta,
            (noise or NoiseSource()).description,
            training=self,
            accountant=self.accountant,
        )

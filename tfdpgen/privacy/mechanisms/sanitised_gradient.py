"""Sanitised gradients: what private critics say of public images, clipped, summed and noised on the way out.

    mechanism = SanitisedGradient(num_critics=500, expected_critics=25, steps=2000, num_features=64 * 100)
    plan = PrivacyPlan({"gradients": mechanism}, num_examples)
    session.ensemble("gradients", critic, loss_fn, answer_fn, ...)       # trains the critics, hands out the gradients

Every example is in one of disjoint shards, and each shard trains a critic that is never released. In a step each critic
is sampled with one probability, trained a little, and asked for the gradient of its score with respect to a batch of
generated images. That is the only thing that leaves (Chen, Orekondy & Fritz 2020, "GS-WGAN", arXiv 2006.08265).

**Sensitivity.** A batch's gradients, [images, d], all come from one critic, and an example may change all of them:
clipped image by image to C, they would move by 2 C sqrt(images). So the whole of a critic's answer is one vector, of
norm at most C, whatever the number of images. What a step releases is the sum of these vectors over the critics that
were sampled, with noise of standard deviation z C.

**What is accounted.** One more example changes the critic of its shard into any other: it replaces one item of a
Poisson sample of critics. With x and x' the two answers, |x|, |x'| <= C, that is the pair of `accounting/replace_one`,
and `ReplaceOneDpEvent` says so. Critics remember: what one answers depends on when it was sampled before, which stays
secret. The bound holds nevertheless. Let the adversary know the shard of the example, and of every other critic all
that is random about it (shards, samples, batches); none of this depends on the example, and H is jointly convex. Then,
given the outputs before, a step's output is (1 - q) N(m) + q E[N(m + x)] with the expectation over the past of the one
critic, and E[N(m + x')] beside it; q is as ever, since samples are independent of the past. By joint convexity again
their H is at most that of the worst x and x', which step 2 and 3 of that proof bound. So every step is dominated given
all before it, and steps compose.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.privacy.accounting import ReplaceOneDpEvent, poisson_gaussian_event
from tfdpgen.privacy.mechanisms.base import NetworkSum, calibrated, check_noise_multiplier, clipped


@dataclasses.dataclass(frozen=True)
class SanitisedGradient(NetworkSum):
    """Sums of the answers of critics on disjoint shards; see the top of this file.

    Unit of privacy: one example. It changes one critic, which was sampled or not; the sum moves by at most
    2 * clip_norm.

    Attributes:
      num_critics: and shards; fixed, as examples come and go.
      expected_critics: sampled in a step, on average; the divisor of the noised sum.
      steps: accounted steps, one sum each.
      num_features: numbers in an answer.
      clip_norm: bound on the L2 norm of one critic's whole answer.
      noise_multiplier: standard deviation of the noise / clip_norm; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    assumption: ClassVar[str] = (
        "Every example is in one of disjoint shards, to which it was dealt at random and in secret; the network of a "
        "shard learns from that shard and from what is public alone, and never leaves the trust boundary. Each step "
        "samples every network independently with the same probability; which were sampled stays secret."
    )

    num_critics: int
    expected_critics: int
    steps: int
    num_features: int
    clip_norm: float = 1.0
    noise_multiplier: float | None = None
    name: str = "sanitised gradients"  # type: ignore[misc]  # a field here, a plain attribute in the base

    def __post_init__(self) -> None:
        for name in ("num_critics", "expected_critics", "steps", "num_features"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be an integer of at least 1; got {getattr(self, name)!r}.")
        if self.expected_critics > self.num_critics:
            raise ValueError(
                f"`expected_critics` should be at most num_critics = {self.num_critics}; got {self.expected_critics}."
            )
        if not self.clip_norm > 0:
            raise ValueError(f"`clip_norm` should be greater than 0; got {self.clip_norm!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def num_groups(self) -> int:
        """The shards."""
        return self.num_critics

    @property
    def size(self) -> int:
        """Numbers in an answer."""
        return self.num_features

    @property
    def sampling_probability(self) -> float:
        """The probability with which each critic joins each step."""
        return self.expected_critics / self.num_critics

    @property
    def event(self) -> dp_accounting.DpEvent:
        """Steps of a Poisson-sampled Gaussian, of which one example replaces an item."""
        return ReplaceOneDpEvent(
            poisson_gaussian_event(self.sampling_probability, calibrated(self.noise_multiplier), self.steps)
        )

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise of every entry of a sum."""
        return calibrated(self.noise_multiplier) * self.clip_norm

    def bounded(self, answer: tf.Tensor) -> tf.Tensor:
        """One critic's answer, float32 [size], scaled down to norm `clip_norm`; zeros if it is not finite."""
        return clipped(answer, self.clip_norm)

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The mean over the critics that are sampled on average, [size]."""
        return noised / self.expected_critics

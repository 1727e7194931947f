"""Federated average: updates of users' copies of a public network, each clipped as a whole, summed and noised once.

    mechanism = FederatedAverage(num_users=3000, expected_users=150, steps=400, num_weights=11_000)
    plan = PrivacyPlan({"rounds": mechanism}, num_examples=3000)          # of users
    session.federation("rounds", critic, loss_fn, ...)                    # trains copies at users, hands out the mean

Examples are users' and never leave them. In a round every user is sampled with one probability; who is sampled gets the
public network, trains a copy of it on own examples, and sends what its weights have changed by, scaled down to a norm
of C as a whole. The server adds up, adds noise of z C once, and divides by the expected number of users (McMahan et al.
2018, "Learning differentially private recurrent language models", arXiv 1710.06963, DP-FedAvg with Poisson samples;
Augenstein et al. 2020, arXiv 1911.06679, for GANs).

**Unit of privacy: one user**, with all images that the data set says are that user's, however many. One user more or
fewer moves the sum by at most C, whatever local training does: it is one item of a Poisson sample, and what it sends is
clipped once, not image by image. So the event is that of DP-SGD, over users.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.privacy.accounting import poisson_gaussian_event
from tfdpgen.privacy.budget import PrivacyUnit
from tfdpgen.privacy.mechanisms.base import NetworkSum, calibrated, check_noise_multiplier, clipped


@dataclasses.dataclass(frozen=True)
class FederatedAverage(NetworkSum):
    """Sums of users' clipped updates; see the top of this file.

    Unit of privacy: one user, who moves the sum by at most `clip_norm`.

    Attributes:
      num_users: public; to each of them the promise is made.
      expected_users: sampled in a round, on average; the divisor of the noised sum.
      steps: accounted rounds.
      num_weights: numbers in an update.
      clip_norm: bound on the L2 norm of one user's whole update.
      noise_multiplier: standard deviation of the noise / clip_norm; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    assumption: ClassVar[str] = (
        "Each round samples every user independently with the same probability; who was sampled, and how many, stays "
        "secret. A user's update is clipped as a whole, and noise is added to the sum of all of them before anybody "
        "sees it."
    )
    keeps_networks: ClassVar[bool] = False

    num_users: int
    expected_users: int
    steps: int
    num_weights: int
    clip_norm: float = 1.0
    noise_multiplier: float | None = None
    name: str = "federated average"  # type: ignore[misc]  # a field here, a plain attribute in the base

    def __post_init__(self) -> None:
        for name in ("num_users", "expected_users", "steps", "num_weights"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be an integer of at least 1; got {getattr(self, name)!r}.")
        if self.expected_users > self.num_users:
            raise ValueError(
                f"`expected_users` should be at most num_users = {self.num_users}; got {self.expected_users}."
            )
        if not self.clip_norm > 0:
            raise ValueError(f"`clip_norm` should be greater than 0; got {self.clip_norm!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def unit(self) -> PrivacyUnit:
        """Whose presence the event bounds: one user's."""
        return PrivacyUnit.USER

    @property
    def num_groups(self) -> int:
        """The users."""
        return self.num_users

    @property
    def size(self) -> int:
        """Numbers in an update."""
        return self.num_weights

    @property
    def sampling_probability(self) -> float:
        """The probability with which each user joins each round."""
        return self.expected_users / self.num_users

    @property
    def event(self) -> dp_accounting.DpEvent:
        """Rounds of a Poisson-sampled Gaussian, over users."""
        return poisson_gaussian_event(self.sampling_probability, calibrated(self.noise_multiplier), self.steps)

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise of every entry of a sum."""
        return calibrated(self.noise_multiplier) * self.clip_norm

    def bounded(self, answer: tf.Tensor) -> tf.Tensor:
        """One user's update, float32 [num_weights], scaled down to norm `clip_norm`; zeros if it is not finite."""
        return clipped(answer, self.clip_norm)

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The mean over the users that are sampled on average, [num_weights]."""
        return noised / self.expected_users

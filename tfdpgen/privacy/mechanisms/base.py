"""A mechanism: what one access to the private examples costs, and how it is carried out.

    mechanism = NoisyCounts(num_counts=2).with_noise(4.0)
    mechanism.event, mechanism.sensitivity, mechanism.stddev

Mechanisms are frozen dataclasses of public facts. A `PrivacyPlan` holds them by key and calibrates their noise; only a
`PrivateSession` carries them out. There are three kinds: `DPSGD` (`dp_sgd.py`), whose steps a session's trainer runs;
one-shot sums with Gaussian noise, which derive from `GaussianSum`; and, step by step, sums of what groups of examples
answer, which derive from `GroupSum`, or from `NetworkSum` where each group trains a network that answers.

Source: the Gaussian mechanism, Dwork & Roth 2014, appendix A.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import dp_accounting
import numpy as np
import numpy.typing as npt

from tfdpgen.privacy.budget import PrivacyUnit

if TYPE_CHECKING:
    import tensorflow as tf


class Mechanism(Protocol):
    """What is done to the private examples, as data.

    Attributes:
      name: what the statement calls it.
      unit: whose presence the event bounds.
      noise_multiplier: standard deviation of the noise / sensitivity. None until a plan calibrates it.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> PrivacyUnit: ...

    @property
    def noise_multiplier(self) -> float | None: ...

    @property
    def event(self) -> dp_accounting.DpEvent:
        """What it costs. Raises a ValueError while there is no noise multiplier."""
        ...

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy with this noise multiplier."""
        ...


class GaussianSum(abc.ABC):
    """A sum of one bounded vector for each example, with Gaussian noise: the base of every one-shot mechanism.

    A subclass is a frozen dataclass with a field `noise_multiplier: float | None = None`. It says how long the sum is,
    how far one example can move it, and what is made of the noised sum, which is post-processing. It bounds each
    example in `sum_of`; no caller has to.

    Where `unit` is USER, `sum_of` gets all examples of some users, and a third argument, int64 [k], which user of the
    block each is of; one user's examples together then have to move the sum by at most `sensitivity`.
    """

    name: str = "Gaussian sum"
    unit: ClassVar[PrivacyUnit] = PrivacyUnit.EXAMPLE
    noise_multiplier: float | None

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Length m of the sum."""

    @property
    @abc.abstractmethod
    def sensitivity(self) -> float:
        """Bound on the L2 norm of what adding or removing one example (or one user) moves the sum by."""

    @property
    @abc.abstractmethod
    def num_columns(self) -> int:
        """d: the features that `sum_of` takes of each example."""

    @abc.abstractmethod
    def sum_of(
        self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *users: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The sum, float64 [m], over some examples: features [k, d] and labels [k]."""

    @abc.abstractmethod
    def result(self, noised: npt.NDArray[np.float64]) -> Any:
        """What is made of the noised sum, [m]; touches no example."""

    @property
    def event(self) -> dp_accounting.DpEvent:
        """One Gaussian mechanism."""
        return dp_accounting.GaussianDpEvent(calibrated(self.noise_multiplier))

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise of every entry of the sum."""
        return calibrated(self.noise_multiplier) * self.sensitivity

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy with this noise multiplier."""
        copy: Any = self
        return dataclasses.replace(copy, noise_multiplier=noise_multiplier)


class GroupSum(abc.ABC):
    """Sums of one bounded answer for each sampled group of examples, with Gaussian noise, one in every step.

    A group is a shard, or what a user has. A subclass is a frozen dataclass of public facts with the fields `steps` and
    `noise_multiplier`. It bounds each group's answer, and its event says what that costs.
    """

    name: str = "sum over groups"
    assumption: ClassVar[str] = ""  # what its promise rests on, beside what all promises rest on
    steps: int
    noise_multiplier: float | None

    @property
    @abc.abstractmethod
    def num_groups(self) -> int:
        """How many groups there are; public and fixed."""

    @property
    @abc.abstractmethod
    def sampling_probability(self) -> float:
        """The probability with which each group joins each step, independently."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Length m of a bounded answer, and of the sum."""

    @property
    @abc.abstractmethod
    def stddev(self) -> float:
        """Standard deviation of the noise of every entry of a sum."""

    @property
    @abc.abstractmethod
    def event(self) -> dp_accounting.DpEvent:
        """What all steps cost. Raises a ValueError while there is no noise multiplier."""

    @abc.abstractmethod
    def result(self, noised: npt.NDArray[np.float64]) -> Any:
        """What is made of a noised sum, [m]; touches no example."""

    @property
    def unit(self) -> PrivacyUnit:
        """Whose presence the event bounds."""
        return PrivacyUnit.EXAMPLE

    def samples(self, rng: np.random.Generator, first_step: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """The groups of each step from the first one on, int64 [k]: private, and as many as it happens, also none.

        Args:
          rng: keyed by the operating system, unless nothing is to be released.
          first_step: steps that were executed or given up before.
        """
        for _ in range(first_step, self.steps):
            yield np.flatnonzero(rng.random(self.num_groups) < self.sampling_probability)

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy with this noise multiplier."""
        copy: Any = self
        return dataclasses.replace(copy, noise_multiplier=noise_multiplier)


class NetworkSum(GroupSum):
    """A `GroupSum` of what networks answer that are trained on the groups."""

    keeps_networks: ClassVar[bool] = True  # whether a group's network goes on from where it was, or from a public one

    @abc.abstractmethod
    def bounded(self, answer: tf.Tensor) -> tf.Tensor:
        """One group's answer, in TensorFlow operations, as float32 [m] that it moves the sum by, bounded."""


def calibrated(noise_multiplier: float | None) -> float:
    """The noise multiplier of a mechanism that has one.

    Raises:
      ValueError: if it is None.
    """
    if noise_multiplier is None:
        raise ValueError("`noise_multiplier` is not set: call `plan.calibrate(budget)`, which returns a copy with it.")
    return noise_multiplier


def check_noise_multiplier(noise_multiplier: float | None) -> None:
    """Raises a ValueError for what is neither None nor finite and greater than 0."""
    if noise_multiplier is not None and not (noise_multiplier > 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"`noise_multiplier` should be finite and greater than 0; got {noise_multiplier!r}.")


def clipped(vector: tf.Tensor, norm: float) -> tf.Tensor:
    """A vector [m], in TensorFlow operations, as float32, scaled down where it is longer; zeros if it is not finite."""
    import tensorflow as tf  # here, since those who only account need none

    vector = tf.cast(vector, tf.float32)  # shorter floats have no 1e-30, and too few digits for a norm
    vector = tf.where(tf.reduce_all(tf.math.is_finite(vector)), vector, 0.0)
    largest = tf.maximum(tf.reduce_max(tf.abs(vector)), 1e-30)  # so that squares neither overflow nor vanish
    return vector * (norm / tf.maximum(largest * tf.norm(vector / largest), norm))


def bounded(features: npt.ArrayLike, radius: float) -> npt.NDArray[np.float64]:
    """Vectors [k, d] scaled down to norm `radius` where they are longer; those that are not finite count as zeros."""
    vectors = np.asarray(features, np.float64)
    vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
    return vectors * (radius / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), radius))

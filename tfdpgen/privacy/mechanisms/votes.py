"""Votes: what teachers on disjoint shards choose, counted with Gaussian noise (PATE with GNMax).

    mechanism = Votes(num_teachers=200, steps=400, queries=64, options=2)
    session.ensemble("votes", teacher, loss_fn, answer_fn, ...)          # trains the teachers, hands out noisy counts

Every example is in one of disjoint shards, and each shard trains a teacher that is never released. In a step all
teachers choose one of the options of each query; the counts leave with noise, of which a majority, a margin, or a share
can be taken (Papernot et al. 2018, "Scalable private learning with PATE", arXiv 1802.08908; its GNMax is the largest
noisy count).

**Sensitivity.** One more example changes one teacher, whose vote moves from one option to another in each of n queries
at most: sqrt(2 n) in L2. Queries are public: images that a generator made, or public ones.

**What is accounted** are all queries, whatever is answered: a data-independent epsilon. Papernot et al. also have one
that depends on the data, smaller where teachers agree, which may itself not be published as it is; and a threshold
("Confident-GNMax") that leaves queries unanswered on which they do not. Which those are is private, so that a budget
fixed beforehand has to pay for the threshold and for an answer of every query. Such a threshold would buy nothing here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.privacy.mechanisms.base import GroupSum, calibrated, check_noise_multiplier


@dataclasses.dataclass(frozen=True)
class Votes(GroupSum):
    """Noisy counts of the votes of teachers on disjoint shards; see the top of this file.

    Unit of privacy: one example. It changes one teacher, and so one vote of each query; the counts of a step move by at
    most sqrt(2 * queries).

    Attributes:
      num_teachers: and shards; fixed, as examples come and go.
      steps: accounted steps.
      queries: in a step.
      options: of each query.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    assumption: ClassVar[str] = (
        "Every example is in one of disjoint shards, to which it was dealt at random and in secret; the teacher of a "
        "shard learns from that shard and from what is public alone, and never leaves the trust boundary. Queries are "
        "public: images that the generator made, or public ones."
    )

    num_teachers: int
    steps: int
    queries: int
    options: int = 2
    noise_multiplier: float | None = None
    name: str = "votes of teachers"  # type: ignore[misc]  # a field here, a plain attribute in the base

    def __post_init__(self) -> None:
        for name, least in (("num_teachers", 1), ("steps", 1), ("queries", 1), ("options", 2)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"`{name}` should be an integer of at least {least}; got {getattr(self, name)!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def num_groups(self) -> int:
        """The shards."""
        return self.num_teachers

    @property
    def sampling_probability(self) -> float:
        """All teachers vote."""
        return 1.0

    @property
    def size(self) -> int:
        """Counts in a step."""
        return self.queries * self.options

    @property
    def sensitivity(self) -> float:
        """Bound on the L2 norm of what one example moves the counts of a step by."""
        return math.sqrt(2 * self.queries)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """A Gaussian mechanism for each step."""
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.GaussianDpEvent(calibrated(self.noise_multiplier)), self.steps
        )

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise of every count."""
        return calibrated(self.noise_multiplier) * self.sensitivity

    def bounded(self, answer: tf.Tensor) -> tf.Tensor:
        """One teacher's votes: options int [queries] -> float32 [queries * options], a single 1 for each query.

        What is no option counts as the nearest.
        """
        chosen = tf.clip_by_value(tf.cast(answer, tf.int32), 0, self.options - 1)
        return tf.reshape(tf.one_hot(chosen, self.options), [self.size])

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The noisy counts, [queries, options]."""
        return noised.reshape(self.queries, self.options)

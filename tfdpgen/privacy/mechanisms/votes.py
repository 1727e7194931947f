"""Votes: between which thresholds teachers' examples lie, counted with Gaussian noise (PATE).

    mechanism = Votes(num_classes=10, num_teachers=2500, steps=6, queries=500, options=16)
    plan = PrivacyPlan({"votes": mechanism}, num_examples)
    session.poll("votes", transform).run(ask, answer)                    # asks the teachers, hands out noisy counts

Every example is in one of disjoint shards of its class, and each shard has a teacher, which is never released. A query
is public: a class, a direction in a space of features, and thresholds that cut this direction into intervals. Every
teacher of the class draws one of its examples, in secret, and votes for the interval that the example lies in; a
teacher without examples abstains. The counts leave with noise (Papernot et al. 2018, "Scalable private learning with
PATE", arXiv 1802.08908, whose aggregator GNMax gives the option of the largest noisy count alone).

**Sensitivity.** One more example changes one teacher, of one class. In each of the n queries of a step about this class
its vote moves from one interval to another at most: sqrt(2 n) in L2. Other classes' queries are answered by others.
What the teacher draws is independent of the past and of all other teachers, so that the bound holds draw by draw, and
for their mixture by joint convexity. Queries may depend on all noisy counts before.

A vote is a comparison, and the last bit of a product may decide it. Products of matrices are rounded in an order that
depends on how many rows there are and where a row is, so that one more example could turn other teachers' votes, in
queries that were made for it. So features and directions are rounded first, to grids on which projections are exact in
64 bits, in any order. What a feature is has to be decided for each example by itself; `PrivateSession.poll` sees to it.

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

from tfdpgen.privacy.mechanisms.base import GroupSum, calibrated, check_noise_multiplier

_AT_ONCE = 64  # queries about a class, whose projections are in memory together
_LONGEST = 2**12  # features. Products of 21 and of 20 bits, so many of them added up, have 53 bits: all of a float64's
_FEATURE_BITS, _DIRECTION_BITS = 21, 20  # of whole numbers that features and directions are multiples of a step by
_LARGEST = 2.0**10  # absolute value of a feature; of a direction's entries it is 1


@dataclasses.dataclass(frozen=True)
class Votes(GroupSum):
    """Noisy counts of the votes of teachers on disjoint shards; see the top of this file.

    Unit of privacy: one example. It changes one teacher, and so one vote of each query about its class; the counts of a
    step move by at most sqrt(2 * queries).

    Attributes:
      num_classes: of labels.
      num_teachers: and shards, of each class; fixed, as examples come and go.
      steps: accounted steps.
      queries: in a step about each class.
      options: intervals of each query.
      noise_multiplier: standard deviation of the noise / sensitivity; None until calibrated.
      name: what the statement calls it.

    Raises:
      ValueError: if an attribute is out of range.
    """

    assumption: ClassVar[str] = (
        "Every example is in one of disjoint shards of its class, to which it was dealt at random and in secret; a "
        "shard's teacher knows the examples of that shard alone, votes about their class alone, and never leaves the "
        "trust boundary. Queries are public: they are made of fixed seeds and of earlier noisy counts."
    )

    num_classes: int
    num_teachers: int
    steps: int
    queries: int
    options: int
    noise_multiplier: float | None = None
    name: str = "votes of teachers"  # type: ignore[misc]  # a field here, a plain attribute in the base

    def __post_init__(self) -> None:
        least = {"num_classes": 1, "num_teachers": 1, "steps": 1, "queries": 1, "options": 2}
        for name, smallest in least.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < smallest:
                raise ValueError(f"`{name}` should be an integer of at least {smallest}; got {getattr(self, name)!r}.")
        check_noise_multiplier(self.noise_multiplier)

    @property
    def num_groups(self) -> int:
        """The shards of all classes; those of class c are the numbers from c * num_teachers on."""
        return self.num_classes * self.num_teachers

    @property
    def sampling_probability(self) -> float:
        """All teachers vote."""
        return 1.0

    @property
    def size(self) -> int:
        """Counts in a step."""
        return self.num_classes * self.queries * self.options

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

    def counts(
        self,
        features: npt.NDArray[np.floating],
        labels: npt.NDArray[np.int64],
        shards: npt.NDArray[np.int64],
        directions: npt.NDArray[np.floating],
        thresholds: npt.NDArray[np.floating],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float64]:
        """One step's counts without noise: private.

        Args:
          features: [n, d], d at most 4,096, in steps of 2^-11 and cut off at -1024 and 1024. One that is not finite
            counts as zeros.
          labels: [n], in [0, num_classes).
          shards: [n], in [0, num_teachers), of the examples of each class.
          directions: [num_classes, queries, d], of numbers from -1 to 1, in steps of 2^-20.
          thresholds: [num_classes, queries, options - 1], each query's in ascending order.
          rng: says which of its examples each teacher votes for; always draws as much, so that what one teacher draws
            does not depend on what another has.

        Returns:
          [size], of which each teacher with examples moved `queries` by 1.

        Raises:
          ValueError: if directions or thresholds have another shape, or are not finite, or features are too many.
        """
        if features.shape[1] > _LONGEST:
            raise ValueError(f"`features` should be at most {_LONGEST}; got {features.shape[1]}.")
        directions, thresholds = np.asarray(directions, np.float64), np.asarray(thresholds, np.float64)
        for name, array, shape in (
            ("directions", directions, (self.num_classes, self.queries, features.shape[1])),
            ("thresholds", thresholds, (self.num_classes, self.queries, self.options - 1)),
        ):
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"`{name}` should be finite numbers of shape {list(shape)}; got {list(array.shape)}.")
        features = np.where(np.isfinite(features).all(axis=1, keepdims=True), features, 0.0)
        features = _on_grid(features, _LARGEST, _FEATURE_BITS)
        directions = _on_grid(directions, 1.0, _DIRECTION_BITS)
        total = np.zeros((self.num_classes, self.queries, self.options))
        for label in range(self.num_classes):
            members = np.flatnonzero(labels == label)
            members = members[np.argsort(shards[members], kind="stable")]
            sizes = np.bincount(shards[members], minlength=self.num_teachers)
            starts, teachers = np.cumsum(sizes) - sizes, np.flatnonzero(sizes)
            for first in range(0, self.queries, _AT_ONCE):
                some = slice(first, first + _AT_ONCE)
                draws = rng.random((self.num_teachers, len(thresholds[label, some])))[teachers]
                chosen = starts[teachers, None] + np.floor(draws * sizes[teachers, None]).astype(np.int64)
                values = np.take_along_axis(features[members] @ directions[label, some].T, chosen, axis=0)
                for query, cuts in enumerate(thresholds[label, some]):
                    votes = (values[:, query, None] > cuts).sum(axis=1)
                    total[label, first + query] = np.bincount(votes, minlength=self.options)
        return total.ravel()

    def result(self, noised: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The noisy counts, [num_classes, queries, options]."""
        return noised.reshape(self.num_classes, self.queries, self.options)


def _on_grid(values: npt.NDArray[np.floating], largest: float, bits: int) -> npt.NDArray[np.float64]:
    """The nearest multiples of largest / 2^bits, cut off at plus and minus `largest`."""
    step = largest / 2**bits
    return np.round(np.clip(values.astype(np.float64), -largest, largest) / step) * step

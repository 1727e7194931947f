"""What a training costs on this machine, in seconds and in memory: measured on noise, before the real one.

    cost = rehearse("gaussian_mixture", DataSpec((28, 28, 1), 10), 54_000, PrivacyBudget(3.0, 1e-5))
    cost.seconds, cost.memory

The method is trained as `train` trains it, on few images of uniform random bytes and with few steps. Whoever reads the
images, and whoever takes steps of DP-SGD, is timed while it does, so that

    seconds = fixed + examples * seconds of an example + steps * seconds of a step,

where fixed is all the rest, above all what TensorFlow compiles. A difference of two totals would say so too, but for
what varies from one time to the next, such as k-means: extrapolated, that is huge. What is learnt from public images is
timed apart and extrapolated as well.

No private example is at hand here, and nothing is reserved, kept or released. The plan is calibrated as for the real
training, which in the same process finds it calibrated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec, Examples, LabeledDataset
from tfdpgen.data.public_images import PublicImages
from tfdpgen.machine import PeakMemory
from tfdpgen.methods.method import Method
from tfdpgen.methods.training import fit, planned, promises_to, public_images_of, unknown_users
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage
from tfdpgen.privacy.mechanisms.sanitised_gradient import SanitisedGradient
from tfdpgen.privacy.mechanisms.votes import Votes
from tfdpgen.privacy.noise import NoiseSource
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.sampling import MOST_IN_CHUNK, PoissonBatch
from tfdpgen.privacy.session import PrivateSession, num_users
from tfdpgen.release import to_uint8

_NOISE_BYTES = 2**26  # of images in the rehearsal, at most, or one chunk's
_EXAMPLES = 4096
_PARTS = 4  # that they are read in; in the first TensorFlow compiles
_FIRST_STEPS = 10  # of a DP-SGD, in which TensorFlow compiles
_STEPS = 40  # after them, at least, unless they take long
_SECONDS = 1.0  # that are enough for them
_PUBLIC = {"public_steps": (2, 10, 100)}  # settings: what is tried, and what is added, the more if the less is quick
_ANY_EPSILON = 1e9  # noise needs no protection
_SAMPLES = 512  # images, to see how long one takes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a training, and a sample from what it gives, would take.

    Attributes:
      seconds: of the training.
      seconds_per_sample: to sample one image from the generator; of writing it, see `preflight.py`.
      memory: bytes that this process held at most during the rehearsal, which had next to no examples.
      bytes_per_example: that the training holds of each example in memory, besides the data set itself.
      has_labeller: whether the training gives a labeller, and so as many augmented examples as others.
    """

    seconds: float
    seconds_per_sample: float
    memory: int
    bytes_per_example: int
    has_labeller: bool = False


def rehearse(
    method: str | Method,
    spec: DataSpec,
    num_examples: int,
    budget: PrivacyBudget,
    labeller_share: float = 0.0,
    label_distribution: str = "balanced",
    public_images: PublicImages | None = None,
    users: int | None = None,
) -> Cost:
    """Trains on noise, shortly, and extrapolates.

    Args:
      method: as in `train`.
      spec: public facts.
      num_examples: of the private training split.
      budget: of the training.
      labeller_share: as in `train`.
      label_distribution: as in `train`.
      public_images: as in `train`.
      users: how many there are in that split, where they are known.

    Raises:
      ValueError: whatever `train` would refuse before it reserves.
    """
    units = num_examples
    if promises_to(method) is PrivacyUnit.USER:
        if users is None:
            raise ValueError(unknown_users(method))
        units = users
    budget.check_num_examples(units, promises_to(method))
    with PeakMemory() as peak:
        chosen, plan = planned(method, spec, units, budget, labeller_share, label_distribution)
        seen = public_images_of(chosen, public_images, spec)
        plan.statement(budget.delta, "rehearsal")  # as long as the first time; later it is remembered
        images = _noise_images(spec, num_examples, num_examples // units)
        public = {name: amounts for name, amounts in _PUBLIC.items() if getattr(chosen, name, 0) > amounts[0]}
        little = dataclasses.replace(chosen, **{name: few for name, (few, *_) in public.items()})
        found = _trained(little, plan, images, seen)
        seconds = found.seconds + images.seconds_per_example * max(0, num_examples - len(images))
        seconds += sum(part.seconds_of(plan.mechanisms[key]) for key, part in found.trainings.items())
        # Again, without what is done once in a process, and without the steps that have been timed.
        public = public if found.public_seconds else {}  # the method may find nothing public to learn from
        before = _trained(little, plan, images, seen, most_steps=1) if public else found
        for name, (few, *more) in public.items():
            each = 0.0
            for further in more:
                longer = _trained(
                    dataclasses.replace(little, **{name: few + further}), plan, images, seen, most_steps=1
                )
                taken = longer.public_seconds - before.public_seconds
                each = max(0.0, taken) / further
                if taken > _SECONDS:
                    break
            seconds += each * (getattr(chosen, name) - few)
        per_sample = _seconds_of_sampling(found.generator, spec)
    # `example_reader` copies images into words of 8 bytes, and TensorFlow copies these.
    per_example = 2 * 8 * -(-math.prod(spec.image_shape) // 8)
    return Cost(seconds, per_sample, peak.bytes, per_example, labeller_share > 0)


@dataclasses.dataclass(frozen=True)
class _TimedDPSGD(DPSGD):
    """Few steps, each of which is timed.

    Attributes:
      times: seconds of each step, with what the method does after it; the first ones left out.
    """

    times: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, plan: DPSGD, num_examples: int, most_steps: int) -> _TimedDPSGD:
        """The mechanism on so many examples, with batches as large as these allow."""
        facts = {field.name: getattr(plan, field.name) for field in dataclasses.fields(DPSGD)}
        facts["num_examples"] = num_examples
        facts["expected_batch_size"] = max(1, min(plan.expected_batch_size, num_examples // 2))
        facts["steps"] = min(plan.steps, most_steps)
        return cls(**facts)

    def batches(
        self, noise: NoiseSource | None = None, first_step: int = 0, *, num_present: int | None = None
    ) -> Iterator[PoissonBatch]:
        for step, batch in enumerate(super().batches(noise, first_step, num_present=num_present)):
            started = time.perf_counter()
            yield batch
            if step >= _FIRST_STEPS:
                self.times.append(time.perf_counter() - started)
            if sum(self.times) > _SECONDS:
                return

    def seconds_of(self, plan: Any) -> float:
        """What the real mechanism takes beyond what was timed."""
        if not self.times:
            return 0.0
        share = plan.expected_batch_size / self.expected_batch_size
        return max(0.0, statistics.mean(self.times) * share * (plan.steps - _FIRST_STEPS) - sum(self.times))


class _TimedSamples:
    """Of a `GroupSum`: few steps, each of which is timed."""

    times: list[float]
    steps: int
    num_groups: int
    sampling_probability: float

    def samples(self, rng: np.random.Generator, first_step: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        most = _FIRST_STEPS + _STEPS
        for step, sampled in enumerate(itertools.islice(cast(Any, super()).samples(rng, first_step), most)):
            started = time.perf_counter()
            yield sampled
            if step >= _FIRST_STEPS:
                self.times.append(time.perf_counter() - started)
            if sum(self.times) > _SECONDS:
                return

    def seconds_of(self, plan: Any) -> float:
        """What the real mechanism takes beyond what was timed."""
        if not self.times:
            return 0.0
        share = plan.sampling_probability * plan.num_groups / (self.sampling_probability * self.num_groups)
        return max(0.0, statistics.mean(self.times) * share * (plan.steps - _FIRST_STEPS) - sum(self.times))


@dataclasses.dataclass(frozen=True)
class _TimedGradient(_TimedSamples, SanitisedGradient):
    """Timed sanitised gradients."""

    times: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _TimedVotes(_TimedSamples, Votes):
    """Timed votes."""

    times: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _TimedAverage(_TimedSamples, FederatedAverage):
    """A timed federated average."""

    times: list[float] = dataclasses.field(default_factory=list)


_TIMED: Mapping[type, type] = {
    SanitisedGradient: _TimedGradient,
    Votes: _TimedVotes,
    FederatedAverage: _TimedAverage,
}


class _TimedSession(PrivateSession):
    """A session on noise that notes how long public computations take."""

    __slots__ = ("public_seconds",)

    def public(self, key: str, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        started = time.perf_counter()
        result = super().public(key, compute)
        self.public_seconds += time.perf_counter() - started
        return result


class _Trained(NamedTuple):
    """A short training.

    Attributes:
      generator: what it gave.
      seconds: that it took.
      public_seconds: of these, for public computations.
      trainings: its mechanisms with steps by key, timed.
    """

    generator: tf.keras.Model
    seconds: float
    public_seconds: float
    trainings: dict[str, Any]


def _trained(
    chosen: Any,
    plan: PrivacyPlan,
    images: _NoiseImages,
    public_images: PublicImages | None,
    most_steps: int = _FIRST_STEPS + _STEPS,
) -> _Trained:
    """Trains on noise, with few steps."""
    trainings: dict[str, Any] = {
        key: _TimedDPSGD.of(part, len(images), most_steps)
        for key, part in plan.mechanisms.items()
        if isinstance(part, DPSGD)
    }
    for key, part in plan.mechanisms.items():
        if type(part) in _TIMED:
            facts = {field.name: getattr(part, field.name) for field in dataclasses.fields(cast(Any, part))}
            if "num_users" in facts:
                facts["num_users"] = num_users(images)
                facts["expected_users"] = min(facts["expected_users"], facts["num_users"])
            trainings[key] = _TIMED[type(part)](**facts)
    short = dataclasses.replace(
        plan,
        mechanisms={**plan.mechanisms, **trainings},
        num_examples=len(images) if plan.unit is PrivacyUnit.EXAMPLE else num_users(images),
        accountant="rdp",  # quickly, since nobody is promised anything
    )
    started = time.perf_counter()
    budget = PrivacyBudget(_ANY_EPSILON, 0.5 / len(images))
    session = _TimedSession(images, short, budget, public_images=public_images)
    session.public_seconds = 0.0
    fitted = fit(chosen, session, seed=0, verbose=0).fitted
    return _Trained(fitted.generator, time.perf_counter() - started, session.public_seconds, trainings)


def _seconds_of_sampling(generator: tf.keras.Model, spec: DataSpec) -> float:
    """To sample one image, in batches."""
    latents = tf.zeros([_SAMPLES, generator.inputs[0].shape[1]])
    labels = tf.constant(np.arange(_SAMPLES) % spec.num_classes, tf.int64)
    to_uint8(generator([latents, labels], training=False))
    started = time.perf_counter()
    to_uint8(generator([latents, labels], training=False)).numpy()
    return (time.perf_counter() - started) / _SAMPLES


def _noise_images(spec: DataSpec, num_examples: int, per_user: int) -> _NoiseImages:
    """Uniform random bytes as images of this shape, with labels that cycle; fewer where they would fill memory.

    There are as many users as methods need that make their promise to users, of as many images each.
    """
    num = min(num_examples, _EXAMPLES, max(MOST_IN_CHUNK, _NOISE_BYTES // math.prod(spec.image_shape)))
    images = np.random.default_rng(0).integers(256, size=(num, *spec.image_shape), dtype=np.uint8)
    return _NoiseImages(images, np.arange(num) % spec.num_classes, spec, np.arange(num) // max(1, per_user))


class _NoiseImages(LabeledDataset):
    """Images that are read in a few parts, and how long their reader takes for each, the first part left out."""

    readings: list[float]

    def __init__(self, images: np.ndarray, labels: np.ndarray, spec: DataSpec, users: np.ndarray) -> None:
        super().__init__(images, labels, spec, users)
        object.__setattr__(self, "readings", [])

    def blocks(self) -> Iterator[Examples]:
        self.readings.append(0.0)
        size, started = -(-len(self) // _PARTS), 0.0
        for start in range(0, len(self), size):
            if start == size:
                started = time.perf_counter()
            yield self.examples(np.arange(start, min(start + size, len(self))))
        if len(self) > size:
            self.readings[-1] = (time.perf_counter() - started) / (len(self) - size)

    @property
    def seconds_per_example(self) -> float:
        """Of all readings together."""
        return sum(self.readings)

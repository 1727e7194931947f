"""What a training costs on this machine, in seconds and in memory: measured on noise, before the real one.

    cost = rehearse("c_vae", DataSpec((28, 28, 1), 10), 54_000, PrivacyBudget(3.0, 1e-5))
    cost.seconds, cost.memory

The method is trained as `train` trains it, on few images of uniform random bytes, with few steps of DP-SGD and of
public training, and twice: the second time with a few steps more. One-shot mechanisms grow in a line with the examples
that they read, and trainings with their steps, so that

    seconds = fixed + examples * seconds of an example + steps * seconds of a step.

No private example is at hand here, and nothing is reserved, kept or released. The plan is calibrated as for the real
training, which in the same process finds it calibrated.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec, Examples, LabeledDataset
from tfdpgen.machine import PeakMemory
from tfdpgen.methods.method import Method
from tfdpgen.methods.training import fit, planned
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.sampling import MOST_IN_CHUNK
from tfdpgen.privacy.session import PrivateSession
from tfdpgen.release import to_uint8

_NOISE_BYTES = 2**26  # of images in the rehearsal, at most, or one chunk's
_EXAMPLES = 4096
_PARTS = 4  # that they are read in
_FEW, _MORE = 2, 12  # steps of each DP-SGD
_PUBLIC_FEW, _PUBLIC_MORE = 2, 150  # of a training on public images
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
    method: str | Method, spec: DataSpec, num_examples: int, budget: PrivacyBudget, labeller_share: float = 0.0
) -> Cost:
    """Trains on noise, shortly, and extrapolates.

    Args:
      method: as in `train`.
      spec: public facts.
      num_examples: of the private training split.
      budget: of the training.
      labeller_share: as in `train`.

    Raises:
      ValueError: whatever `train` would refuse before it reserves.
    """
    budget.check_num_examples(num_examples)
    with PeakMemory() as peak:
        chosen, plan = planned(method, spec, num_examples, budget, labeller_share)
        plan.statement(budget.delta, "rehearsal")  # as long as the first time; later it is remembered
        images = _noise_images(spec, num_examples)
        short, _ = _timed(chosen, plan, images, _FEW, _PUBLIC_FEW)  # what TensorFlow does once in a process
        images.readings.clear()
        short, generator = _timed(chosen, plan, images, _FEW, _PUBLIC_FEW)
        each = images.seconds_per_example
        longer, _ = _timed(chosen, plan, images, _FEW + _MORE, _PUBLIC_FEW)
        seconds = short + each * max(0, num_examples - len(images))
        seconds += _seconds_of_steps(plan, images, (longer - short) / _MORE)
        if hasattr(chosen, "public_steps"):
            public, _ = _timed(chosen, plan, images, _FEW, _PUBLIC_FEW + _PUBLIC_MORE)
            seconds += max(0.0, public - short) / _PUBLIC_MORE * (chosen.public_steps - _PUBLIC_FEW)
        per_sample = _seconds_of_sampling(generator, spec)
    # `row_reader` copies images into words of 8 bytes, and TensorFlow copies these.
    per_example = 2 * 8 * -(-math.prod(spec.image_shape) // 8)
    return Cost(seconds, per_sample, peak.bytes, per_example, labeller_share > 0)


def _timed(
    chosen: Any, plan: PrivacyPlan, images: _NoiseImages, steps: int, public_steps: int
) -> tuple[float, tf.keras.Model]:
    """Seconds of a whole training with so many steps, and its generator."""
    if hasattr(chosen, "public_steps"):
        chosen = dataclasses.replace(chosen, public_steps=public_steps)
    mechanisms = {
        key: _short(part, len(images), steps) if isinstance(part, DPSGD) else part
        for key, part in plan.mechanisms.items()
    }
    plan = dataclasses.replace(plan, mechanisms=mechanisms, num_examples=len(images))
    delta = 0.5 / len(images)
    started = time.perf_counter()
    session = PrivateSession(images, plan, PrivacyBudget(max(1.0, 1.01 * plan.epsilon(delta)), delta))
    fitted, _ = fit(chosen, session, seed=0, verbose=0)
    return time.perf_counter() - started, fitted.generator


def _short(plan: DPSGD, num_examples: int, steps: int) -> DPSGD:
    """The mechanism with few steps on few examples, and with batches as large as these allow."""
    batch = max(1, min(plan.expected_batch_size, num_examples // 2))
    return dataclasses.replace(plan, num_examples=num_examples, expected_batch_size=batch, steps=steps)


def _seconds_of_steps(plan: PrivacyPlan, images: _NoiseImages, of_step: float) -> float:
    """Of all steps of DP-SGD, where one of each mechanism takes so long in the rehearsal's smaller batches.

    Several mechanisms share the time by their batches.
    """
    trainings = [part for part in plan.mechanisms.values() if isinstance(part, DPSGD)]
    rehearsed = sum(_short(part, len(images), 1).expected_batch_size for part in trainings)
    return sum(max(0.0, of_step) * part.expected_batch_size / rehearsed * part.steps for part in trainings)


def _seconds_of_sampling(generator: tf.keras.Model, spec: DataSpec) -> float:
    """To sample one image, in batches."""
    latents = tf.zeros([_SAMPLES, generator.inputs[0].shape[1]])
    labels = tf.constant(np.arange(_SAMPLES) % spec.num_classes, tf.int64)
    to_uint8(generator([latents, labels], training=False))
    started = time.perf_counter()
    to_uint8(generator([latents, labels], training=False)).numpy()
    return (time.perf_counter() - started) / _SAMPLES


def _noise_images(spec: DataSpec, num_examples: int) -> _NoiseImages:
    """Uniform random bytes as images of this shape, with labels that cycle; fewer where they would fill memory."""
    num = min(num_examples, _EXAMPLES, max(MOST_IN_CHUNK, _NOISE_BYTES // math.prod(spec.image_shape)))
    images = np.random.default_rng(0).integers(256, size=(num, *spec.image_shape), dtype=np.uint8)
    return _NoiseImages(images, np.arange(num) % spec.num_classes, spec)


class _NoiseImages(LabeledDataset):
    """Images that are read in a few parts, and how long their reader takes for each, the first part left out.

    What grows with the examples happens while they are read, and the rest does not. The difference of two totals would
    say so too, but for what in the rest varies from one time to the next, such as k-means: extrapolated, that is huge.
    In the first part of each reading TensorFlow compiles.
    """

    readings: list[float]

    def __init__(self, images: np.ndarray, labels: np.ndarray, spec: DataSpec) -> None:
        super().__init__(images, labels, spec)
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

"""What a training costs on this machine, in seconds and in memory: measured on noise, before the real one.

    cost = rehearse("c_vae", DataSpec((28, 28, 1), 10), 54_000, PrivacyBudget(3.0, 1e-5))
    cost.seconds, cost.memory

The method is built from public facts, as `train` builds it, and given images of uniform random bytes: `prepare` on
few and on many of them, `learn` for a few steps. Both grow in a line, the one with the examples and the other with the
steps, so that

    seconds = fixed + examples * seconds of an example + steps * seconds of a step.

No private example is at hand here, and nothing is reserved, kept or released: the method and what it has learnt of
noise are dropped. The plan is calibrated as for the real training, which in the same process finds it calibrated.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec, Examples, LabeledDataset
from tfdpgen.machine import PeakMemory
from tfdpgen.methods.base import Synthesizer, method_class
from tfdpgen.methods.labeller import train_labeller
from tfdpgen.privacy import DPSGD, Backup, Mechanism, NoiseSource, PrivacyBudget
from tfdpgen.privacy.accounting import make_statement
from tfdpgen.privacy.sampling import MOST_IN_CHUNK
from tfdpgen.release import to_uint8

_NOISE_BYTES = 2**26  # of images in the rehearsal, at most, or one chunk's
_FEW, _MANY = 256, 4096  # images that statistics are computed of
_PARTS = 4  # that they are read in
_FIRST_STEPS, _STEPS = 4, 12  # of `learn`; the first two of each run compile
_SLOW_STEP = 0.3  # seconds; slower ones are not run a second time
_PUBLIC_STEPS = 150  # of a training on public images
_DRAWS = 512  # images, to see how long one takes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a training, and a draw from what it gives, would take.

    Attributes:
      seconds: of the training.
      seconds_per_draw: to draw one image from the generator; of writing it, see `preflight.py`.
      memory: bytes that this process held at most during the rehearsal, which had next to no examples.
      bytes_per_example: that the training holds of each example in memory, besides the data set itself.
      has_labeller: whether the training gives a labeller, and so as many augmented examples as faithful ones.
    """

    seconds: float
    seconds_per_draw: float
    memory: int
    bytes_per_example: int
    has_labeller: bool = False


def rehearse(name: str, spec: DataSpec, num_examples: int, budget: PrivacyBudget, preset: Any = None) -> Cost:
    """Runs a short training on noise and extrapolates.

    Args:
      name: of the method.
      spec: public facts.
      num_examples: of the private training split.
      budget: of the training.
      preset: the method's hyperparameters; by default those that suit shape and number of examples.

    Raises:
      ValueError: whatever `train` would refuse before it reserves: an unknown name, images that do not suit the method,
        a budget too small for its statistics, or a delta that is not smaller than 1 / num_examples.
    """
    budget.check_num_examples(num_examples)
    with PeakMemory() as peak:
        whole = _built(name, spec, num_examples, preset)
        method = _built(name, spec, num_examples, _shortened(whole.preset))
        mechanisms = whole.alongside(budget)
        plan = whole.plan()
        plan = plan.calibrate(budget, mechanisms) if plan is not None else None
        # As long as the first time; what follows in the same process finds all of it computed.
        make_statement([*mechanisms, *([plan] if plan else [])], num_examples, budget.delta, "rehearsal", training=plan)
        seconds = _seconds_of_public_training(whole, num_examples)
        seconds += _seconds_of_preparing(method, mechanisms, num_examples)
        for part in mechanisms:
            if isinstance(part, DPSGD):
                seconds += _seconds_of_labeller(spec, part)
        learning, generator = _seconds_of_learning(method, plan)
        seconds += learning
        per_draw = _seconds_of_drawing(generator, spec)
    has_labeller = any(isinstance(part, DPSGD) for part in mechanisms)
    # `row_reader` copies images into words of 8 bytes, and TensorFlow copies these.
    per_example = 2 * 8 * -(-math.prod(spec.image_shape) // 8)
    return Cost(seconds, per_draw, peak.bytes, per_example, has_labeller)


def _built(name: str, spec: DataSpec, num_examples: int, preset: Any) -> Synthesizer:
    """The method, as the training will build it."""
    built: Any = method_class(name)(spec, num_examples, 0, preset)
    return built


def _shortened(preset: Any) -> Any:
    """The preset without what would take long and is measured, or not needed, apart from the rest."""
    names = {field.name for field in dataclasses.fields(preset)}
    shorter = {"warm_up": 0, "pretraining_steps": 1, "drawings": _FEW}
    return dataclasses.replace(preset, **{name: value for name, value in shorter.items() if name in names})


def _seconds_of_preparing(method: Synthesizer, mechanisms: Sequence[Mechanism], num_examples: int) -> float:
    """Of `prepare` without a labeller: fixed + examples * seconds of an example."""
    statistics = [part for part in mechanisms if not isinstance(part, DPSGD)]
    method.prepare(_noise_images(method.spec, _FEW), statistics, NoiseSource(), 0)  # done once in a process
    images = _Timed(_noise_images(method.spec, min(num_examples, _MANY)))
    started = time.perf_counter()
    method.prepare(images, statistics, NoiseSource(), 0)
    return time.perf_counter() - started + images.seconds_per_example * (num_examples - len(images))


def _seconds_of_labeller(spec: DataSpec, plan: DPSGD) -> float:
    """Of a labeller's training: fixed + examples * seconds of an example + steps * seconds of a step."""
    noise_images = _noise_images(spec, min(plan.num_examples, _MANY))

    def timed(steps: int) -> tuple[float, float]:
        images, started = _Timed(noise_images), time.perf_counter()
        train_labeller(images, _short(plan, len(images), steps), NoiseSource())
        return time.perf_counter() - started, images.seconds_per_example

    timed(1)  # what TensorFlow does once in a process
    fixed, each = timed(1)
    step = max(0.0, timed(1 + _STEPS)[0] - fixed) / _STEPS
    step *= plan.expected_batch_size / _short(plan, len(noise_images), 1).expected_batch_size
    return fixed + each * (plan.num_examples - len(noise_images)) + step * plan.steps


def _short(plan: DPSGD, num_examples: int, steps: int) -> DPSGD:
    """The plan with few steps on few examples, and with batches as large as these allow."""
    batch = max(1, min(plan.expected_batch_size, num_examples // 2))
    return dataclasses.replace(plan, num_examples=num_examples, expected_batch_size=batch, steps=steps)


def _seconds_of_learning(method: Synthesizer, plan: DPSGD | None) -> tuple[float, tf.keras.Model]:
    """Of `learn`: fixed + steps * seconds of a step; and the generator that it returned."""
    if plan is None:
        started = time.perf_counter()
        generator = method.learn(_noise_images(method.spec, 1), None, NoiseSource(), 0)
        return time.perf_counter() - started, generator
    images = _noise_images(method.spec, min(plan.num_examples, 2 * plan.expected_batch_size))
    batch = _short(plan, len(images), 1).expected_batch_size

    def timed(steps: int) -> tuple[float, float, tf.keras.Model]:
        """Seconds of all but its steps, seconds of a step, and the generator."""
        watch, started = _Stopwatch(), time.perf_counter()
        short = _short(plan, len(images), steps)
        generator = method.learn(images, short, NoiseSource(), 0, cast(Backup, watch))
        step = (watch.ends[-1] - watch.ends[1]) / (steps - 2)
        return time.perf_counter() - started - steps * step, step, generator

    fixed, step, generator = timed(_FIRST_STEPS)
    if step < _SLOW_STEP:
        fixed, step, generator = timed(_STEPS)
    return max(0.0, fixed) + plan.steps * step * plan.expected_batch_size / batch, generator


def _seconds_of_public_training(method: Synthesizer, num_examples: int) -> float:
    """Of what a method learns without any example, which `prepare` does where no mechanism is given to it."""
    preset, name = method.preset, method.method
    if not hasattr(preset, "pretraining_steps"):
        return 0.0
    nothing = _noise_images(method.spec, 1)

    def timed(steps: int, drawings: int) -> float:
        shorter = dataclasses.replace(preset, pretraining_steps=steps, drawings=drawings)
        learner = _built(name, method.spec, num_examples, shorter)
        started = time.perf_counter()
        learner.prepare(nothing, (), NoiseSource(), 0)
        return time.perf_counter() - started

    timed(1, _FEW)  # what TensorFlow does once in a process
    fixed = timed(1, _FEW)
    drawing = max(0.0, timed(1, 5 * _FEW) - fixed) / (4 * _FEW)
    step = max(0.0, timed(1 + _PUBLIC_STEPS, _FEW) - fixed) / _PUBLIC_STEPS
    return fixed + preset.drawings * drawing + preset.pretraining_steps * step


def _seconds_of_drawing(generator: tf.keras.Model, spec: DataSpec) -> float:
    """To draw one image, in batches."""
    latents = tf.zeros([_DRAWS, generator.inputs[0].shape[1]])
    labels = tf.constant(np.arange(_DRAWS) % spec.num_classes, tf.int64)
    to_uint8(generator([latents, labels], training=False))
    started = time.perf_counter()
    to_uint8(generator([latents, labels], training=False)).numpy()
    return (time.perf_counter() - started) / _DRAWS


def _noise_images(spec: DataSpec, num: int) -> LabeledDataset:
    """Uniform random bytes as images of this shape, with labels that cycle; fewer where they would fill memory."""
    num = min(num, max(MOST_IN_CHUNK, _NOISE_BYTES // math.prod(spec.image_shape)))
    images = np.random.default_rng(0).integers(256, size=(num, *spec.image_shape), dtype=np.uint8)
    return LabeledDataset(images, np.arange(num) % spec.num_classes, spec)


class _Timed(LabeledDataset):
    """Images that are read in a few parts, and how long their reader takes for each, the first part left out.

    What grows with the examples happens while they are read, and the rest does not. The difference of two totals would
    say so too, but for what in the rest varies from one time to the next, such as k-means: extrapolated, that is huge.
    In the first part of each reading TensorFlow compiles.
    """

    _readings: list[float]

    def __init__(self, dataset: LabeledDataset) -> None:
        super().__init__(dataset.images, dataset.labels, dataset.spec)
        object.__setattr__(self, "_readings", [])

    def blocks(self) -> Iterator[Examples]:
        self._readings.append(0.0)
        size, started = -(-len(self) // _PARTS), 0.0
        for start in range(0, len(self), size):
            if start == size:
                started = time.perf_counter()
            yield self.examples(np.arange(start, min(start + size, len(self))))
        if len(self) > size:
            self._readings[-1] = (time.perf_counter() - started) / (len(self) - size)

    @property
    def seconds_per_example(self) -> float:
        """Of all readings together."""
        return sum(self._readings)


class _Stopwatch:
    """Stands where a `Backup` would, keeps nothing, and notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def start(self, plan: DPSGD, **state: Any) -> int:
        """There is no step behind us."""
        return 0

    def after_step(self, steps: int) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())

"""Labeller: a private linear classifier on scattering features, trained by DP-SGD with a share of the budget.

    plan = plan.with_mechanism("labeller", labeller_mechanism(len(dataset)), share)
    session = PrivateSession(dataset, plan.calibrate(budget), budget)
    training = prepare_labeller(session)                    # checks; touches nothing
    labeller = training.run()                               # all steps, once
    labeller.probabilities(images)                          # float32 [n, num_classes]

With features that no private example has shaped, few weights are left to be learnt, and a linear classifier reaches
with a small epsilon what a deep one needs a large epsilon for (Tramer & Boneh 2021, "Differentially private learning
needs better features (or much more data)"). What the labeller says of generated images is post-processing of its
weights and costs nothing further.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import special

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.scattering import normalised, num_features, scattering
from tfdpgen.privacy import DPSGD, DPKerasSGD
from tfdpgen.privacy.session import PrivateSession
from tfdpgen.privacy.trainer import Trainer

_BATCH, _STEPS, _CLIP, _MOMENTUM = 8192, 300, 0.1, 0.9
_RATE = 4.0  # at the start, and with a noise multiplier of at least `_MUCH_NOISE`
_MUCH_NOISE, _MOST_GAIN = 8.0, 5.0  # with less noise the rate is higher, in inverse proportion, up to so many times
_CHUNK = 500  # images at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Labeller:
    """A trained labeller; all of it is private enough to be released.

    Attributes:
      kernel: float32 [num_features, num_classes], for the group-normalised scattering features of an image.
      bias: float32 [num_classes].
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def probabilities(self, images: npt.NDArray[np.uint8], temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """The probability of each class.

        Args:
          images: uint8 [n, h, w, c].
          temperature: greater than 0; the higher, the less sure (Hinton et al. 2015).

        Returns:
          float32 [n, num_classes].
        """
        compute = _compiled(images.shape[1:])
        logits = np.empty((len(images), len(self.bias)), np.float32)
        for start in range(0, len(images), _CHUNK):
            features = compute(tf.constant(images[start : start + _CHUNK])).numpy().astype(np.float32)
            logits[start : start + _CHUNK] = features @ self.kernel + self.bias
        return special.softmax(logits / np.float32(temperature), axis=1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz that `load` reads."""
        np.savez(path, kernel=self.kernel, bias=self.bias)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Labeller:
        """The inverse of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["kernel"], arrays["bias"])


class LabellerTraining:
    """The training of a labeller; made by `prepare_labeller`."""

    def __init__(self, trainer: Trainer, network: tf.keras.Model, steps: int) -> None:
        self._trainer, self._network, self._steps = trainer, network, steps

    def run(self, verbose: int = 1) -> Labeller:
        """Runs all steps, once, and returns the average of the weights over the second half of them.

        Raises:
          PlanError: if it was run before.
          BudgetExceededError: if the limit would be exceeded; nothing was spent then.
        """
        weights = self._network.trainable_variables
        averages = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
        averaged = tf.Variable(tf.zeros([]), trainable=False)

        def average(step: int) -> None:
            if step < self._steps // 2:
                return
            averaged.assign_add(1.0)
            for mean, weight in zip(averages, weights, strict=True):
                mean.assign_add((weight - mean) / averaged)

        state = {"averaged": averaged, **{f"average_{number}": mean for number, mean in enumerate(averages)}}
        self._trainer.run(after_step=average, state=state, verbose=verbose)
        kernel, bias = (mean.numpy() for mean in averages)
        return Labeller(kernel, bias)


def labeller_mechanism(num_examples: int) -> DPSGD:
    """The DP-SGD of a labeller, without its noise."""
    return DPSGD(num_examples, min(_BATCH, num_examples), _STEPS, _CLIP, name="DP-SGD of the labeller")


def prepare_labeller(session: PrivateSession, key: str = "labeller") -> LabellerTraining:
    """Prepares the training of a labeller; touches no example.

    Unit of privacy: that of the plan, one image with its label. An image's features are a function of it alone; those
    of all examples are held in memory during the training, two bytes for each number.

    Args:
      session: whose plan has the mechanism.
      key: of the mechanism, from `labeller_mechanism`.

    Raises:
      PlanError: if the plan has no such mechanism, or a trainer of it was asked for before.
    """
    network = _network(session.spec)

    def loss(batch: Any) -> tf.Tensor:
        logits = network(tf.cast(batch.features, tf.float32))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)

    trainer = session.trainer(
        key,
        [network],
        loss,
        learning_rate=lambda step: _learning_rate(step, cast(DPSGD, session.plan.mechanisms[key])),
        optimizer_class=DPKerasSGD,
        transform=lambda images, labels: _features(images),
        momentum=_MOMENTUM,
    )
    return LabellerTraining(trainer, network, cast(DPSGD, session.plan.mechanisms[key]).steps)


def _network(spec: DataSpec) -> tf.keras.Model:
    """A linear classifier that starts from zero."""
    dense = tf.keras.layers.Dense(spec.num_classes, kernel_initializer="zeros")
    return tf.keras.Sequential([tf.keras.Input([num_features(spec.image_shape)]), dense])


def _learning_rate(step: int, mechanism: DPSGD) -> float:
    """Decays to 0 (cosine), from a start that is lower where there is more noise."""
    first = _RATE * min(_MOST_GAIN, max(1.0, _MUCH_NOISE / max(mechanism.noise_multiplier or 0.0, 1e-9)))
    return first * (1 + math.cos(math.pi * step / mechanism.steps)) / 2


def _features(images: tf.Tensor) -> tf.Tensor:
    """float32 [n, h, w, c] in [0, 1] -> group-normalised scattering coefficients float16 [n, num_features]."""
    return tf.cast(normalised(scattering(images)), tf.float16)


@functools.lru_cache(maxsize=4)
def _compiled(image_shape: tuple[int, int, int]) -> Any:
    """The features of uint8 images of a shape."""

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8)])
    def compute(images: tf.Tensor) -> tf.Tensor:
        return _features(tf.cast(images, tf.float32) / 255.0)

    return compute

"""A private teacher: a linear classifier on fixed features, trained by DP-SGD in seconds with a share of the budget.

    preset = TeacherPreset()
    plan = teacher_plan(preset, len(rows)).calibrate(PrivacyBudget(0.5, 1e-5))      # a mechanism of its own
    teacher = train_teacher(preset, rows, plan, NoiseSource())
    teacher.probabilities(images)                                            # float32 [n, num_classes]

With features that no private row has shaped, few weights are left to be learnt, and a linear classifier reaches with a
small epsilon what a deep one needs a large epsilon for (Tramer & Boneh 2021, "Differentially private learning needs
better features (or much more data)"). What the teacher says of generated images is post-processing of its weights: it
selects among them and labels them without further cost, as the teachers of PATE do (Papernot et al. 2017), though with
one teacher and DP-SGD.

The features are scattering coefficients, group-normalised example by example. With `axes` they are projected onto the
principal axes that such features have on random strokes (`tfdpgen.features.stroke_images`), and partly whitened there:
public, and fewer and better scaled numbers to learn from. With `num_waves` it sees the lowest frequencies of an image
alone: what else there is in real images is not in those that are made of these, and would mislead a teacher about them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import special

from tfdpgen.data.dataset import Dataset
from tfdpgen.features.stroke_images import random_stroke_images
from tfdpgen.methods.running import run_plan
from tfdpgen.networks.scattering import normalised, scattering
from tfdpgen.networks.waves import lowest_waves
from tfdpgen.privacy import DPSGD, DPKerasSGD, NoiseSource
from tfdpgen.privacy.chunks import accumulate, private_step

_PUBLIC_IMAGES = 8000  # random drawings that the axes are taken from
_CHUNK = 500  # images at a time


@dataclasses.dataclass(frozen=True)
class TeacherPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      expected_batch_size, steps, l2_norm_clip, momentum: of its training.
      learning_rate: at its start with much noise; it decays to 0 (cosine). With a noise multiplier below 8 it is higher
        in inverse proportion, up to 5 times.
      axes: principal axes of random drawings that the features are projected on; 0: all features as they are.
      whitening: between 0, axes as they are, and 1, axes of equal variance on random drawings.
      num_waves: lowest frequencies of each channel that it sees; 0: images as they are.
    """

    expected_batch_size: int = 8192
    steps: int = 300
    l2_norm_clip: float = 0.1
    learning_rate: float = 4.0
    momentum: float = 0.9
    axes: int = 0
    whitening: float = 0.5
    num_waves: int = 0


def _nothing() -> npt.NDArray[np.float32]:
    """What stands for parts that features do without."""
    return np.zeros([0, 0], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Fixed features of images: public, and of each image alone.

    Attributes:
      mean: float32 [d], taken off the scattering coefficients; empty where they are used as they are.
      axes: float32 [d, k], what they are then projected on; empty likewise.
      waves: float32 [h * w * c, m], orthonormal: what of an image is seen; empty where all is.
    """

    mean: npt.NDArray[np.float32] = dataclasses.field(default_factory=_nothing)
    axes: npt.NDArray[np.float32] = dataclasses.field(default_factory=_nothing)
    waves: npt.NDArray[np.float32] = dataclasses.field(default_factory=_nothing)

    @classmethod
    def of(cls, preset: TeacherPreset, image_shape: tuple[int, int, int]) -> Features:
        """The features that a preset asks for."""
        features = _projected(image_shape, preset.axes, preset.whitening) if preset.axes else cls()
        if preset.num_waves:
            waves = lowest_waves(image_shape, preset.num_waves).astype(np.float32)
            features = dataclasses.replace(features, waves=waves)
        return features

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [n, h, w, c] -> float32 [n, k]."""
        compute = _scattered(images.shape[1:])
        parts = []
        for start in range(0, len(images), _CHUNK):
            part = compute(tf.constant(self._seen(images[start : start + _CHUNK]))).numpy()
            parts.append((part - self.mean) @ self.axes if self.axes.size else part)
        return np.concatenate(parts)

    def _seen(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """What is left of images in the waves, uint8 [n, h, w, c] -> the same shape."""
        if not self.waves.size:
            return images
        low = images.reshape(len(images), -1).astype(np.float32) @ self.waves @ self.waves.T
        return np.round(np.clip(low, 0.0, 255.0)).astype(np.uint8).reshape(images.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher; all of it is private enough to be released.

    Attributes:
      features: what it looks at.
      kernel: float32 [k, num_classes].
      bias: float32 [num_classes].
    """

    features: Features
    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def probabilities(self, images: npt.NDArray[np.uint8], temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """Of each class, float32 [n, num_classes]; a higher temperature is less sure (Hinton et al. 2015)."""
        return special.softmax(self.logits(images) / temperature, axis=1).astype(np.float32)

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Before they become probabilities, float32 [n, num_classes]."""
        if not len(images):
            return np.zeros((0, len(self.bias)), np.float32)
        return self.features(images) @ self.kernel + self.bias

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz that `load` reads."""
        features = {field.name: getattr(self.features, field.name) for field in dataclasses.fields(Features)}
        np.savez(path, kernel=self.kernel, bias=self.bias, **features)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Teacher:
        """The inverse of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            features = Features(*(arrays[field.name] for field in dataclasses.fields(Features)))
            return cls(features, arrays["kernel"], arrays["bias"])


def teacher_plan(preset: TeacherPreset, num_examples: int) -> DPSGD:
    """The plan of a teacher, without its noise."""
    batch = min(preset.expected_batch_size, num_examples)
    return DPSGD(num_examples, batch, preset.steps, preset.l2_norm_clip, name="DP-SGD of the teacher")


def train_teacher(
    preset: TeacherPreset, dataset: Dataset, plan: DPSGD, noise: NoiseSource, verbose: int = 0
) -> Teacher:
    """Runs the plan on the rows, once, and returns the average of the weights over its second half.

    Unit of privacy: one row, an image with its label. Its features are a function of it alone, so that what is private
    is the training, of which the plan is the account. All rows' features are in memory, two bytes for each number.

    Args:
      preset: of the teacher.
      dataset: the private rows.
      plan: from `teacher_plan`, calibrated.
      noise: where draws and noise come from.
      verbose: 1 shows a progress bar, without private figures.
    """
    features = Features.of(preset, dataset.spec.image_shape)
    blocks = [(features(images).astype(np.float16), labels) for images, labels in dataset.blocks()]
    inputs, labels = (tf.constant(np.concatenate(parts)) for parts in zip(*blocks, strict=True))
    del blocks
    dense = tf.keras.layers.Dense(dataset.spec.num_classes, kernel_initializer="zeros")
    network = tf.keras.Sequential([tf.keras.Input([inputs.shape[1]]), dense])
    assert plan.noise_multiplier is not None
    first_rate = preset.learning_rate * min(5.0, max(1.0, 8.0 / max(plan.noise_multiplier, 1e-9)))
    optimizer = plan.optimizer(noise, DPKerasSGD, learning_rate=first_rate, momentum=preset.momentum)
    variables = network.trainable_variables
    averages = [np.zeros(variable.shape, np.float64) for variable in variables]

    @private_step(plan)
    def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
        def read_fn(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = indices[tf.minimum(i, tf.shape(indices)[0] - 1)]
            return tf.cast(tf.gather(inputs, chosen), tf.float32), tf.gather(labels, chosen)

        def chunk_fn(inputs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
            with optimizer.gradient_tape(network) as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(inputs)) * weights
            return optimizer.clipped_gradient_sum(losses, variables, tape)

        optimizer.apply_clipped_sum(accumulate(read_fn, weights, chunk_fn, variables), variables)

    def after_step(number: int) -> None:
        optimizer.learning_rate = first_rate * 0.5 * (1 + math.cos(math.pi * (number + 1) / plan.steps))
        if number >= plan.steps // 2:
            for average, variable in zip(averages, variables, strict=True):
                average += (variable.numpy() - average) / (number - plan.steps // 2 + 1)

    run_plan(plan, noise, step, after_step_fn=after_step, state={}, backup=None, verbose=verbose)
    kernel, bias = (average.astype(np.float32) for average in averages)
    return Teacher(features, kernel, bias)


@functools.lru_cache(maxsize=4)
def _scattered(image_shape: tuple[int, int, int]) -> Any:
    """The compiled scattering of images of a shape: uint8 [b, h, w, c] -> float32 [b, d]."""

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8)])
    def compute(images: tf.Tensor) -> tf.Tensor:
        return normalised(scattering(tf.cast(images, tf.float32) / 255.0))

    return compute


@functools.lru_cache(maxsize=4)
def _projected(image_shape: tuple[int, int, int], axes: int, whitening: float) -> Features:
    """Features on the principal axes of random drawings, a function of the arguments."""
    height, width, channels = image_shape
    drawings = random_stroke_images(np.random.default_rng(0), _PUBLIC_IMAGES, (height, width))
    values = Features()(np.repeat(drawings, channels, axis=-1))
    mean = values.mean(axis=0)
    values -= mean
    variances, vectors = np.linalg.eigh(values.T @ values / len(values))
    order = np.argsort(-variances)[:axes]
    scale = (variances[order] / variances[order[0]] + 1e-4) ** (-whitening / 2)
    return Features(mean, (vectors[:, order] * scale).astype(np.float32))

"""Stroke VAE: an autoencoder of random pen strokes, in whose latent space each class gets a private Gaussian.

    release = train("stroke_vae", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

For drawings and handwriting, light on dark. A VAE learns from `tfdpgen.data.strokes`, without any private row, what
strokes look like. The encoder then maps private rows to few numbers, of which one Gaussian mechanism releases count,
mean and covariance of each class: a class-conditional prior (Kingma & Welling 2014; Sohn et al. 2015) that costs little
because the latent space is small and its scale is known beforehand. The rest of the budget buys a teacher
(`teacher.py`), which denies samples that do not look like their label and labels the enriched rows.

The public prior is an assumption about what the data look like, not about any row: it is declared in the statement, and
where it does not fit, the result is useless rather than less private.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.data.strokes import random_strokes
from tfdpgen.networks import vae
from tfdpgen.privacy import Backup, ClassMoments, DPSGDPlan, Mechanism, NoiseSource, PrivacyBudget
from tfdpgen.privacy.accounting import calibrate_noise_multiplier
from tfdpgen.synthesizers.base import Synthesizer, register
from tfdpgen.synthesizers.enrichment import Enrichment
from tfdpgen.synthesizers.teacher import TeacherPreset, teacher_plan, train_teacher

_BATCH = 256  # drawings in a step of the autoencoder
_LEAST_SIDE = 16  # of images, in pixels: at 8, p2 was below that of class Gaussians by more than a half


@dataclasses.dataclass(frozen=True)
class StrokeVAEPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      latent_dim, hidden_units: of encoder and, in reverse, decoder.
      drawings, pretraining_steps, learning_rate, kl_weight: of the autoencoder's training on random drawings.
      radius: bound on the norm of a row's latents / sqrt(latent_dim), where drawings have about 1.
      spread: standard deviations of the released Gaussians / those that were measured: wider ones are more diverse.
      moments_share: share of epsilon that buys the Gaussians; the teacher gets what they leave.
      teacher: labels and selects.
      enrichment: of the rows that it labels.
    """

    latent_dim: int
    hidden_units: tuple[int, ...]
    drawings: int = 60_000
    pretraining_steps: int = 8000
    learning_rate: float = 1.5e-3
    kl_weight: float = 0.5
    radius: float = 0.85
    spread: float = 1.5
    moments_share: float = 0.4
    teacher: TeacherPreset = dataclasses.field(default_factory=lambda: TeacherPreset(axes=600))
    enrichment: Enrichment = dataclasses.field(default_factory=lambda: Enrichment(drawings=0.4))


def preset_for(spec: DataSpec, num_examples: int) -> StrokeVAEPreset:
    """The preset for images of this shape and this many rows.

    Raises:
      ValueError: for images that are too small to tell strokes.
    """
    if min(spec.image_shape[:2]) < _LEAST_SIDE:
        raise ValueError(
            f"`synthesizer` stroke_vae has a preset for images of at least {_LEAST_SIDE} pixels a side, on which "
            f"strokes can be told; got image_shape {spec.image_shape}. Take class_gaussian, c_vae or dp_gan."
        )
    return StrokeVAEPreset(latent_dim=32, hidden_units=(512, 256))


@register
class StrokeVAE(Synthesizer):
    """Autoencoder of drawings with private class Gaussians; see the top of this file.

    Args:
      spec: public facts of the data; images of one channel.
      num_examples: number of private rows.
      seed: of drawings, initial weights and latent draws.
      preset: by default the one for the spec.

    Raises:
      ValueError: for images of more than one channel, and without a preset for small ones.
    """

    method = "stroke_vae"
    priors = ("random pen strokes, drawn light on dark without any data",)

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: StrokeVAEPreset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        if spec.image_shape[2] != 1:
            raise ValueError(
                f"`synthesizer` stroke_vae draws images of one channel; got image_shape {spec.image_shape}. Convert "
                "them to grey beforehand, or take another synthesizer."
            )
        self.encoder, self.decoder = vae.build_unconditional(
            spec.image_shape, self.preset.latent_dim, self.preset.hidden_units, seed
        )
        self._gaussians: tf.keras.Model | None = None

    def plan(self) -> DPSGDPlan | None:
        return None

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        share = PrivacyBudget(budget.epsilon * self.preset.moments_share, budget.delta)
        radius = self.preset.radius * math.sqrt(self.preset.latent_dim)
        moments = ClassMoments(calibrate_noise_multiplier(lambda z: ClassMoments(z, radius).event, share), radius)
        return moments, teacher_plan(self.preset.teacher, self.num_examples).calibrate(budget, [moments])

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        self.enrichment = self.preset.enrichment
        self._learn_strokes(verbose)
        for mechanism in mechanisms:
            if isinstance(mechanism, DPSGDPlan):
                self.teacher = train_teacher(self.preset.teacher, dataset, mechanism, noise, verbose)
            elif isinstance(mechanism, ClassMoments):
                size = self.preset.latent_dim
                moments = mechanism.release(self._latents(dataset), size, self.spec.num_classes, noise)
                self._gaussians = vae.class_gaussians(moments.means, moments.factors * self.preset.spread, size)

    def learn(
        self, dataset: Dataset, plan: DPSGDPlan | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert self._gaussians is not None
        latents, labels = self._gaussians.inputs
        logits = self.decoder(self._gaussians([latents, labels]))
        images = tf.keras.layers.Activation("sigmoid", dtype="float32", name="images")(logits)
        return tf.keras.Model([latents, labels], images, name="generator")

    def _learn_strokes(self, verbose: int) -> None:
        """Trains the autoencoder on random drawings; no private row is near."""
        preset = self.preset
        height, width, _ = self.spec.image_shape
        drawings = tf.constant(random_strokes(np.random.default_rng(self.seed), preset.drawings, (height, width)))
        steps = preset.pretraining_steps
        rate = tf.keras.optimizers.schedules.CosineDecay(preset.learning_rate, steps)
        optimizer: Any = tf.keras.optimizers.legacy.Adam(rate)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        rng = tf.random.Generator.from_seed(self.seed)

        @tf.function
        def step() -> None:
            chosen = rng.uniform([_BATCH], 0, preset.drawings, tf.int32)
            images = tf.cast(tf.gather(drawings, chosen), tf.float32) / 255.0
            with tf.GradientTape() as tape:
                mean, log_variance = self.encoder(images)
                log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
                logits = self.decoder(mean + tf.exp(log_variance / 2) * rng.normal(tf.shape(mean)))
                entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
                divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
                loss = (tf.reduce_sum(entropies) + preset.kl_weight * tf.reduce_sum(divergences)) / _BATCH
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        bar = tf.keras.utils.Progbar(steps, verbose=verbose, interval=1.0, unit_name="step on drawings")
        for _ in range(steps):
            step()
            bar.add(1)

    def _latents(self, dataset: Dataset) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """The encoder's means of all rows, block by block."""
        encode = tf.function(
            lambda images: self.encoder(tf.cast(images, tf.float32) / 255.0)[0],
            input_signature=[tf.TensorSpec([None, *self.spec.image_shape], tf.uint8)],
        )
        for images, labels in dataset.blocks():
            yield encode(tf.constant(images)).numpy(), labels

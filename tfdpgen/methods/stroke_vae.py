"""Stroke VAE: an autoencoder of random pen strokes, in whose latent space each class gets private Gaussians.

    release = train("stroke_vae", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

For drawings and handwriting, light on dark. A VAE learns from `tfdpgen.features.stroke_images`, without any private row,
what strokes look like. The encoder then maps private rows to few numbers, of which Gaussian mechanisms release count, mean
and covariance of each class: a class-conditional prior (Kingma & Welling 2014; Sohn et al. 2015) that costs little
because the latent space is small and its scale is known beforehand. Where rows outweigh the noise, the rest of the
budget buys a labeller of augmented examples (`tfdpgen.release`). Where they do not, what is drawn looks too little like
real rows to be judged by what has learnt from these: the moments get all of the budget, and there is no labeller.

The public prior is an assumption about what the data look like, not about any row, and the statement declares it.
Whether it holds is asked of the rows, and paid for: of how many does the autoencoder rebuild more than twice as many of
the lowest frequencies would? One noisy count says so. Where it is not most of them, the same mechanisms release moments
of frequencies in place of those of strokes, with poses or without, as `c_vae.py` has it: what asks the rows which of
the two suits is paid for beforehand, and of strokes it asks in vain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.choices import check_shape_suits
from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.features.stroke_images import random_stroke_images
from tfdpgen.methods import c_vae
from tfdpgen.methods.base import Synthesizer, register
from tfdpgen.methods.c_vae import CVAE, CVAEPreset
from tfdpgen.methods.labeller import LabellerPreset, labeller_plan, train_labeller
from tfdpgen.networks import vae
from tfdpgen.networks.layers import scaled_columns
from tfdpgen.networks.waves import lowest_waves
from tfdpgen.privacy import DPSGD, Backup, Mechanism, NoiseSource, NoisyCounts, PrivacyBudget
from tfdpgen.privacy.chunks import scaled
from tfdpgen.release import Augmentation

_BATCH = 256  # drawings in a step of the autoencoder
_COUNT_SHARE = 0.005  # of the moments' precision (1 / noise multiplier ^ 2), what the count of rows is worth
_RIVALS = 2  # frequencies for each latent, that the autoencoder has to rebuild a row better than


@dataclasses.dataclass(frozen=True)
class StrokeVAEPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      latent_dim, hidden_units: of encoder and, in reverse, decoder.
      drawings, pretraining_steps, learning_rate, kl_weight: of the autoencoder's training on random drawings.
      radius: bound, for the centres, on the norm of a row's latents / sqrt(latent_dim), where drawings have about 1.
      spread: standard deviations of the released Gaussians / those that were measured: wider ones are more diverse.
      waves: of the C-VAE, which is not trained, that describes rows by frequencies where strokes do not suit them. Its
        `moments_share` is the share of epsilon that buys the moments, of either; the labeller gets what they leave.
        Where noise outweighs rows there is no labeller, and moments get all.
      labeller: its training.
      augmentation: of the examples that it labels.
      augmentation_of_waves: the same where strokes do not suit.
    """

    latent_dim: int
    hidden_units: tuple[int, ...]
    waves: CVAEPreset
    drawings: int = 60_000
    pretraining_steps: int = 8000
    learning_rate: float = 1.5e-3
    kl_weight: float = 0.5
    radius: float = 1.19
    spread: float = 1.5
    labeller: LabellerPreset = dataclasses.field(default_factory=LabellerPreset)
    augmentation: Augmentation = dataclasses.field(default_factory=lambda: Augmentation(temperature=8.0))
    augmentation_of_waves: Augmentation = dataclasses.field(default_factory=Augmentation)


def preset_for(spec: DataSpec, num_examples: int) -> StrokeVAEPreset:
    """The preset for images of this shape and this many rows.

    Raises:
      ValueError: for images of more than one channel, or too small to tell strokes.
    """
    check_shape_suits("stroke_vae", spec.image_shape)
    waves = dataclasses.replace(c_vae.preset_for(spec, num_examples), moments_share=0.6)
    return StrokeVAEPreset(latent_dim=32, hidden_units=(512, 256), waves=waves)


class StrokeFeatures:
    """An image's latents in an autoencoder of strokes, and the image that has them (`ImageFeatures`).

    Args:
      encoder, decoder: from `vae.build_unconditional`.
      scale: what latents are multiplied by.
    """

    num_poses = 0

    def __init__(self, encoder: tf.keras.Model, decoder: tf.keras.Model, scale: float) -> None:
        self.encoder, self.decoder, self.scale = encoder, decoder, scale
        self.size: int = decoder.inputs[0].shape[1]

    def described(self, images: tf.Tensor, posed: tf.Variable | float = 1.0) -> tf.Tensor:
        """float32 [n, h, w, c] in [0, 1] -> [n, size]; there are no poses."""
        return self.encoder(images)[0] * self.scale

    def drawn(self, features: tf.Tensor, posed: float = 1.0, moves: tf.Tensor | None = None) -> tf.Tensor:
        """Images float32 [n, h, w, c] in [0, 1] that have these features, by Keras layers; there are no moves."""
        if moves is not None:
            raise ValueError(f"`moves` of strokes should be None; got {moves!r}.")
        logits = self.decoder(scaled_columns(np.full(self.size, 1 / self.scale), "scale")(features))
        return tf.keras.layers.Activation("sigmoid", dtype="float32", name="images")(logits)

    def rebuilds(self, images: tf.Tensor, waves: tf.Tensor) -> tf.Tensor:
        """Whether what the latents rebuild is nearer than what the waves do, bool [n], a function of each image."""
        pixels = tf.reshape(images, [-1, waves.shape[0]])
        mine = tf.reshape(tf.sigmoid(self.decoder(self.encoder(images)[0])), tf.shape(pixels))
        theirs = tf.clip_by_value(tf.matmul(tf.matmul(pixels, waves), waves, transpose_b=True), 0.0, 1.0)
        mine, theirs = (tf.reduce_sum(tf.square(made - pixels), axis=1) for made in (mine, theirs))
        return mine < theirs


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
    priors = (
        "random pen strokes, drawn light on dark without any data: for images, where a noisy count of rows says that "
        "they suit",
    )

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: StrokeVAEPreset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        if spec.image_shape[2] != 1:  # a preset that is given may be for small images
            check_shape_suits(self.method, spec.image_shape)
        self.encoder, self.decoder = vae.build_unconditional(
            spec.image_shape, self.preset.latent_dim, self.preset.hidden_units, seed
        )
        waves, size = self.preset.waves, self.preset.latent_dim
        of_strokes = dataclasses.replace(
            waves, latent_dim=size, num_waves=size, noisy_waves=None, shift=0.0, lean=0.0, rough_components=1,
            **dict.fromkeys(("spread", "noisy_spread", "still_spread", "rough_spread"), self.preset.spread),
        )  # fmt: skip
        # The mechanisms' bounds are those of pixels.
        scale = waves.centre_radius / self.preset.radius * math.sqrt(math.prod(spec.image_shape) / size)
        self._strokes = StrokeFeatures(self.encoder, self.decoder, scale)
        self._of_strokes = CVAE(spec, num_examples, seed, of_strokes, self._strokes)
        self._artist = self._of_waves = CVAE(spec, num_examples, seed, waves)

    def plan(self) -> DPSGD | None:
        return None

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        """Mechanisms whose noise is fixed beforehand; what they release is chosen by what the first has said."""
        moments = self._of_waves.alongside(budget)
        is_taught = not self._of_waves.moments.is_outweighed(moments)
        if not is_taught:
            # Epsilon grows with precision, but no faster, so that this leaves at least the count's share.
            share = dataclasses.replace(budget, epsilon=budget.epsilon / (1 + _COUNT_SHARE))
            moments = self._of_waves.moments.mechanisms(share)
        precision = sum(part.noise_multiplier**-2 for part in moments)
        count = NoisyCounts((precision * _COUNT_SHARE) ** -0.5, name="rows that strokes suit")
        mechanisms = (count, *moments)
        if not is_taught:
            return mechanisms
        return *mechanisms, labeller_plan(self.preset.labeller, self.num_examples).calibrate(budget, mechanisms)

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        preset = self.preset
        self._learn_strokes(verbose)
        if not mechanisms:
            return
        count, *moments = (part for part in mechanisms if not isinstance(part, DPSGD))
        assert isinstance(count, NoisyCounts)
        suited = count.release([self._suited(dataset)], noise)[0]
        self._artist = self._of_strokes if suited >= self.num_examples / 2 else self._of_waves
        self._artist.prepare(dataset, moments, noise, verbose)
        of_waves = self._artist is self._of_waves
        self.augmentation = preset.augmentation_of_waves if of_waves else preset.augmentation
        for plan in mechanisms:  # of the labeller, if there is one
            if isinstance(plan, DPSGD):
                self.labeller = train_labeller(dataset, plan, noise, verbose)

    def learn(
        self, dataset: Dataset, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        return self._artist.generator()

    def _learn_strokes(self, verbose: int) -> None:
        """Trains the autoencoder on random drawings; no private row is near."""
        preset = self.preset
        height, width, _ = self.spec.image_shape
        drawings = tf.constant(random_stroke_images(np.random.default_rng(self.seed), preset.drawings, (height, width)))
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

    def _suited(self, dataset: Dataset) -> npt.NDArray[np.bool_]:
        """Which rows the autoencoder rebuilds better than the lowest frequencies do, bool [n]: private."""
        waves = tf.constant(lowest_waves(self.spec.image_shape, _RIVALS * self.preset.latent_dim), tf.float32)

        @tf.function(input_signature=[tf.TensorSpec([None, *self.spec.image_shape], tf.uint8)])
        def suited(images: tf.Tensor) -> tf.Tensor:
            return self._strokes.rebuilds(scaled(images), waves)

        return np.concatenate([suited(tf.constant(images)).numpy() for images, _ in dataset.blocks()])

"""C-VAE: a conditional variational autoencoder, both halves trained by DP-SGD.

    release = train("c_vae", dataset, PrivacyBudget(epsilon=3.0, delta=1e-5))

The loss of one row is -ELBO = cross-entropy of its pixels + KL(q(z | x, y) || N(0, I)), one number for each row, with
the KL inside, so that one clip bounds all that the row contributes (Kingma & Welling 2014; Sohn et al. 2015). Before
the training, a share of the budget buys noisy class means, which become the decoder's class logits: with little data
they are worth more than any number of noisy steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.networks import vae
from tfdpgen.privacy import Backup, ClassMeans, DPSGDPlan, Mechanism, NoiseSource, PrivacyBudget
from tfdpgen.privacy.accounting import calibrate_noise_multiplier
from tfdpgen.privacy.clipping import check_network
from tfdpgen.synthesizers.base import Synthesizer, register
from tfdpgen.synthesizers.chunks import accumulate, private_step, row_reader, scaled
from tfdpgen.synthesizers.running import make_slots, run_plan


@dataclasses.dataclass(frozen=True)
class CVAEPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      latent_dim, hidden_units: of encoder and decoder.
      expected_batch_size, steps, l2_norm_clip, learning_rate: of the training.
      means_share: share of epsilon that buys the class means.
      kl_weight: weight of the KL in the loss (beta; Higgins et al. 2017).
    """

    latent_dim: int
    hidden_units: tuple[int, ...]
    expected_batch_size: int
    steps: int
    l2_norm_clip: float = 1.0
    learning_rate: float = 2e-3
    means_share: float = 0.4
    kl_weight: float = 1.0


def preset_for(spec: DataSpec, num_examples: int) -> CVAEPreset:
    """The preset for images of this shape and this many rows."""
    batch = min(1024, max(1, num_examples // 4))
    if max(spec.image_shape[:2]) <= 16:
        return CVAEPreset(latent_dim=8, hidden_units=(128,), expected_batch_size=batch, steps=400)
    if spec.image_shape[2] == 1:
        return CVAEPreset(latent_dim=16, hidden_units=(400,), expected_batch_size=batch, steps=2000)
    return CVAEPreset(latent_dim=32, hidden_units=(512,), expected_batch_size=batch, steps=2000)


@register
class CVAE(Synthesizer):
    """Conditional variational autoencoder; see the top of this file.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows.
      seed: of initial weights and latent draws.
      preset: by default the one for the spec.
    """

    method = "c_vae"

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: CVAEPreset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        sizes = (spec.image_shape, spec.num_classes, self.preset.latent_dim, self.preset.hidden_units)
        self.encoder = vae.build_encoder(*sizes, seed=2 * seed)
        self.decoder = vae.build_decoder(*sizes, seed=2 * seed + 1)
        check_network(self.encoder)
        check_network(self.decoder)

    def plan(self) -> DPSGDPlan:
        preset = self.preset
        return DPSGDPlan(self.num_examples, preset.expected_batch_size, preset.steps, preset.l2_norm_clip)

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        share = PrivacyBudget(budget.epsilon * self.preset.means_share, budget.delta)
        return (ClassMeans(calibrate_noise_multiplier(lambda z: ClassMeans(z).event, share)),)

    def losses(self, images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """-ELBO float32 [n] of images float32 [n, h, w, c] in [0, 1], with standard normal noise [n, latent_dim]."""
        mean, log_variance = self.encoder([images, labels])
        log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
        logits = self.decoder([mean + tf.exp(log_variance / 2) * noise, labels])
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
        divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
        return tf.reduce_sum(entropies, axis=[1, 2, 3]) + self.preset.kl_weight * tf.reduce_sum(divergences, axis=1)

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        for mechanism in mechanisms:
            assert isinstance(mechanism, ClassMeans)
            means = np.clip(mechanism.release(dataset, noise), 0.02, 0.98).reshape(self.spec.num_classes, -1)
            self.decoder.get_layer(vae.CLASS_LOGITS).set_weights([np.log(means / (1 - means))])

    def learn(
        self, dataset: Dataset, plan: DPSGDPlan | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert plan is not None
        rows_of = row_reader(dataset)
        optimizer = plan.optimizer(noise, learning_rate=self.preset.learning_rate)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        make_slots(optimizer, variables)
        latent_rng = tf.random.Generator.from_seed(self.seed)

        @private_step(plan)
        def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            def chunk_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
                draws = latent_rng.normal([plan.physical_batch_size, self.preset.latent_dim])
                with optimizer.gradient_tape(self.encoder, self.decoder) as tape:
                    losses = self.losses(scaled(images), labels, draws) * weights
                return optimizer.clipped_gradient_sum(losses, variables, tape)

            sums = accumulate(rows_of(indices), weights, chunk_fn, variables)
            optimizer.apply_clipped_sum(sums, variables)

        state = {"encoder": self.encoder, "decoder": self.decoder, "optimizer": optimizer, "latents": latent_rng}
        run_plan(plan, noise, step, state=state, backup=backup, verbose=verbose)
        return vae.generator_of(self.decoder)

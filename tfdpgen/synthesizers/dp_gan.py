"""DP-GAN: a conditional GAN whose critic is trained by DP-SGD.

    release = train("dp_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))

Only the critic sees private rows (Xie et al. 2018; Torkzadehmahani et al. 2019), so only its updates are accounted; the
generator learns from the critic's weights alone, which is post-processing. Several critic steps for each generator step
are what earlier DP-GANs lacked (Bie, Kamath & Zhang 2023, "Private GANs, revisited").

Real and fake rows in a critic step. The losses are non-saturating: softplus(-s) for real, softplus(s) for fake rows,
where s is the score of the row's label. The clipped gradients of the Poisson batch are summed; adding or removing one
private row moves that sum by at most the clip. To it are added the gradients of `expected_batch_size` fakes with labels
drawn uniformly, each clipped to the same bound: they depend on no private row, cost nothing, and are clipped only so
that real and fake pull equally hard. Noise is added once, and the divisor is the expected batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.networks import gan
from tfdpgen.privacy import Backup, DPSGDPlan, NoiseSource
from tfdpgen.privacy.clipping import check_network
from tfdpgen.synthesizers.base import Synthesizer, register
from tfdpgen.synthesizers.chunks import ChunkFn, accumulate, private_step, row_reader, scaled
from tfdpgen.synthesizers.running import make_slots, run_plan

MOST_FAKES = 320  # at a time: as with private rows, memory is that of one chunk


@dataclasses.dataclass(frozen=True)
class DPGANPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      latent_dim, generator_filters, critic_filters: of the networks.
      expected_batch_size, steps, l2_norm_clip: of the critic's private training.
      critic_steps_per_generator_step: private critic steps before each generator step.
      learning_rate, beta_1, beta_2: of both Adams.
      ema: decay of the moving average of the generator's weights, which is what is released.
    """

    latent_dim: int
    generator_filters: int
    critic_filters: int
    expected_batch_size: int
    steps: int
    l2_norm_clip: float = 1.0
    critic_steps_per_generator_step: int = 2
    learning_rate: float = 3e-4
    beta_1: float = 0.5
    beta_2: float = 0.9
    ema: float = 0.995


def preset_for(spec: DataSpec, num_examples: int) -> DPGANPreset:
    """The preset for images of this shape and this many rows."""
    if max(spec.image_shape[:2]) <= 16:
        batch = min(512, max(1, num_examples // 4))
        return DPGANPreset(16, 32, 16, batch, steps=1000, learning_rate=1e-3)
    batch = min(512, max(1, num_examples // 4))
    if spec.image_shape[2] == 1:
        return DPGANPreset(64, 64, 32, batch, steps=2000)
    return DPGANPreset(64, 96, 48, batch, steps=2000)


@register
class DPGAN(Synthesizer):
    """Conditional GAN with a private critic; see the top of this file.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows.
      seed: of initial weights, latent draws and the fakes' labels.
      preset: by default the one for the spec.
    """

    method = "dp_gan"

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: DPGANPreset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        self.generator = gan.build_generator(
            spec.image_shape, spec.num_classes, self.preset.latent_dim, self.preset.generator_filters, seed=2 * seed
        )
        self.critic = gan.build_critic(
            spec.image_shape, spec.num_classes, self.preset.critic_filters, seed=2 * seed + 1
        )
        check_network(self.critic)

    def plan(self) -> DPSGDPlan:
        preset = self.preset
        return DPSGDPlan(self.num_examples, preset.expected_batch_size, preset.steps, preset.l2_norm_clip)

    def scores(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The critic's score float32 [n] of each image as an image of its label."""
        return tf.reduce_sum(self.critic(images) * tf.one_hot(labels, self.spec.num_classes), axis=1)

    def learn(
        self, dataset: Dataset, plan: DPSGDPlan | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert plan is not None
        preset = self.preset
        rows_of = row_reader(dataset)
        adam: dict[str, Any] = {"learning_rate": preset.learning_rate, "beta_1": preset.beta_1, "beta_2": preset.beta_2}
        critic_optimizer = plan.optimizer(noise, **adam)
        generator_optimizer: Any = tf.keras.optimizers.legacy.Adam(**adam)
        average = tf.train.ExponentialMovingAverage(preset.ema)
        rng = tf.random.Generator.from_seed(self.seed)
        critic_variables = self.critic.trainable_variables
        generator_variables = self.generator.trainable_variables
        average.apply(generator_variables)
        make_slots(critic_optimizer, critic_variables)
        make_slots(generator_optimizer, generator_variables)

        chunks = -(-plan.expected_batch_size // MOST_FAKES)
        fakes_in_chunk = -(-plan.expected_batch_size // chunks)

        def draw_fakes() -> tuple[tf.Tensor, tf.Tensor]:
            """A chunk of fakes and their labels, which are uniform whatever the private labels are."""
            latents = rng.normal([fakes_in_chunk, preset.latent_dim])
            classes = rng.uniform([fakes_in_chunk], 0, self.spec.num_classes, tf.int64)
            return self.generator([latents, classes], training=True), classes

        def accumulate_fakes(chunk_fn: ChunkFn, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
            """Sums of `chunk_fn` over `expected_batch_size` fakes."""
            counted = np.arange(chunks * fakes_in_chunk) < plan.expected_batch_size
            weights = tf.constant(counted.reshape(chunks, fakes_in_chunk).astype(np.float32))
            return accumulate(lambda i: (), weights, chunk_fn, variables)

        @private_step(plan)
        def critic_step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            def real_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
                with critic_optimizer.gradient_tape(self.critic) as tape:
                    losses = tf.nn.softplus(-self.scores(scaled(images), labels)) * weights
                return critic_optimizer.clipped_gradient_sum(losses, critic_variables, tape)

            def fake_fn(weights: tf.Tensor) -> list[tf.Tensor]:
                fakes, labels = draw_fakes()
                with critic_optimizer.gradient_tape(self.critic) as tape:
                    losses = tf.nn.softplus(self.scores(fakes, labels)) * weights
                return critic_optimizer.clipped_gradient_sum(losses, critic_variables, tape)

            real_sums = accumulate(rows_of(indices), weights, real_fn, critic_variables)
            fake_sums = accumulate_fakes(fake_fn, critic_variables)
            sums = [real + fake for real, fake in zip(real_sums, fake_sums, strict=True)]
            critic_optimizer.apply_clipped_sum(sums, critic_variables)

        @tf.function
        def generator_step() -> None:
            def chunk_fn(weights: tf.Tensor) -> Any:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(generator_variables)
                    losses = tf.nn.softplus(-self.scores(*draw_fakes())) * weights
                    loss = tf.reduce_sum(losses) / plan.expected_batch_size
                return tape.gradient(loss, generator_variables)

            gradients = accumulate_fakes(chunk_fn, generator_variables)
            generator_optimizer.apply_gradients(zip(gradients, generator_variables, strict=True))
            average.apply(generator_variables)

        def after_step(step: int) -> None:
            if (step + 1) % preset.critic_steps_per_generator_step == 0:
                generator_step()

        state = {
            "critic": self.critic,
            "critic_optimizer": critic_optimizer,
            "generator": self.generator,
            "generator_optimizer": generator_optimizer,
            "averages": [average.average(variable) for variable in generator_variables],
            "fakes": rng,
        }
        run_plan(plan, noise, critic_step, after_step_fn=after_step, state=state, backup=backup, verbose=verbose)
        for variable in generator_variables:
            variable.assign(average.average(variable))
        # Batch normalisation's moving statistics, computed on fakes alone, follow the averaged weights.
        settle = tf.function(lambda: tf.reduce_sum(draw_fakes()[0]))
        for _ in range(50):
            settle()
        return self.generator

"""DP-GAN: a conditional GAN that refines private sketches, its critic trained by DP-SGD.

    release = train("dp_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))

A GAN has to learn what images of each class look like, in all their variety, and what an image looks like at all. With
a private critic the first is what it fails at: it finds few modes. So it is not asked to. Most of epsilon buys the
moments of the classes that a C-VAE starts from (`c_vae.py`): draws of them have the variety and the labels, but no
sharp edge. The generator is a convolutional refiner of such sketches. It learns from the critic, and is held to its
sketch by a penalty on what it changes of the low frequencies, so that different sketches stay different (Shrivastava et
al. 2017, "Learning from simulated and unsupervised images through adversarial training", section 2.2).

Refiner and critic know no classes. The label is the sketch's, and nothing is gained by marking an image with it.

Only the Gaussians and the critic see private rows (Xie et al. 2018; Torkzadehmahani et al. 2019), so only they are
accounted; the refiner learns from the critic's weights alone, which is post-processing.

Real and fake rows in a critic step. The losses are non-saturating: softplus(-s) for real, softplus(s) for fake rows, on
average over the scores s of a row's patches. The clipped gradients of the Poisson batch are summed; adding or removing
one private row moves that sum by at most the clip. To it are added the gradients of fakes, each clipped to the same
bound and weighted as if there were `expected_batch_size` of them: they depend on no private row, cost nothing, and are
clipped only so that real and fake pull equally hard. Noise is added once, and the divisor is the expected batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.methods import c_vae
from tfdpgen.methods.base import Synthesizer, register
from tfdpgen.methods.c_vae import CVAE, CVAEPreset
from tfdpgen.methods.running import make_slots, run_plan
from tfdpgen.networks import gan
from tfdpgen.networks.waves import lowest_waves
from tfdpgen.privacy import DPSGD, Backup, Mechanism, NoiseSource, PrivacyBudget
from tfdpgen.privacy.chunks import accumulate, private_step, row_reader, scaled
from tfdpgen.privacy.clipping import check_network


@dataclasses.dataclass(frozen=True)
class DPGANPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      sketches: what they are drawn by: a C-VAE that is not trained. Its `moments_share` is the share of epsilon that
        buys the moments; the critic's training gets what they leave.
      generator_filters, critic_filters: of the networks.
      expected_batch_size, steps, l2_norm_clip: of the critic's private training.
      warm_up: critic steps before the refiner learns at all: an untrained critic would spoil it.
      critic_steps_per_generator_step: private critic steps before each of its steps from then on.
      fakes: in a critic step and in a refiner step.
      likeness: weight of the penalty on what the refiner changes of the sketch's low frequencies.
      critic_rate, generator_rate: at their start, of two Adams; both fall to 0 in a line.
      beta_1, beta_2: of both Adams.
      ema: decay of the moving average of the refiner's weights, which is what is released.
    """

    sketches: CVAEPreset
    generator_filters: int
    critic_filters: int
    expected_batch_size: int
    steps: int
    l2_norm_clip: float = 1.0
    warm_up: int = 60
    critic_steps_per_generator_step: int = 2
    fakes: int = 256
    likeness: float = 0.1
    critic_rate: float = 2e-3
    generator_rate: float = 1e-3
    beta_1: float = 0.5
    beta_2: float = 0.9
    ema: float = 0.99


def preset_for(spec: DataSpec, num_examples: int) -> DPGANPreset:
    """The preset for images of this shape and this many rows."""
    batch = min(1024, max(1, num_examples // 4))
    is_small = spec.image_shape[0] * spec.image_shape[1] <= 256
    sketches = dataclasses.replace(c_vae.preset_for(spec, num_examples), moments_share=0.95 if is_small else 0.8)
    if is_small:
        return DPGANPreset(sketches, 16, 8, batch, steps=100, warm_up=40, fakes=128)
    return DPGANPreset(sketches, 16 if spec.image_shape[2] == 1 else 24, 16, batch, steps=300)


@register
class DPGAN(Synthesizer):
    """Conditional GAN that refines sketches, with a private critic; see the top of this file.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows.
      seed: of initial weights, latent draws and the fakes' labels.
      preset: by default the one for the spec.
    """

    method = "dp_gan"

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: DPGANPreset | None = None) -> None:
        preset = preset or preset_for(spec, num_examples)
        super().__init__(spec, num_examples, seed, preset)
        self._artist = CVAE(spec, num_examples, seed, preset.sketches)
        self.refiner = gan.build_refiner(spec.image_shape, preset.generator_filters, seed=2 * seed)
        self.critic = gan.build_critic(spec.image_shape, preset.critic_filters, seed=2 * seed + 1)
        check_network(self.critic)

    def plan(self) -> DPSGD:
        preset = self.preset
        return DPSGD(self.num_examples, preset.expected_batch_size, preset.steps, preset.l2_norm_clip)

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        return self._artist.alongside(budget)

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        self._artist.prepare(dataset, mechanisms, noise, verbose)

    def networks(self) -> dict[str, tf.keras.Model]:
        return {"critic": self.critic}

    def losses(self, images: tf.Tensor, target: float) -> tf.Tensor:
        """How wrong the critic is, float32 [n], where `target` is 1 for real images and -1 for fakes."""
        return tf.reduce_mean(tf.nn.softplus(-target * self.critic(images)), axis=1)

    def learn(
        self, dataset: Dataset, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert plan is not None
        preset = self.preset
        rows_of = row_reader(dataset)
        betas: dict[str, Any] = {"beta_1": preset.beta_1, "beta_2": preset.beta_2}
        critic_optimizer = plan.optimizer(noise, learning_rate=preset.critic_rate, **betas)
        refiner_optimizer: Any = tf.keras.optimizers.legacy.Adam(preset.generator_rate, **betas)
        average = tf.train.ExponentialMovingAverage(preset.ema)
        rng = tf.random.Generator.from_seed(self.seed)
        critic_variables = self.critic.trainable_variables
        refiner_variables = self.refiner.trainable_variables
        average.apply(refiner_variables)
        make_slots(critic_optimizer, critic_variables)
        make_slots(refiner_optimizer, refiner_variables)
        sketcher = self._artist.generator()
        waves = tf.constant(
            lowest_waves(self.spec.image_shape, preset.sketches.noisy_waves or preset.sketches.num_waves), tf.float32
        )

        def draw_sketches() -> tf.Tensor:
            """Sketches of labels that are uniform whatever the private labels are."""
            labels = rng.uniform([preset.fakes], 0, self.spec.num_classes, tf.int64)
            return sketcher([rng.normal([preset.fakes, sketcher.inputs[0].shape[1]]), labels])

        def low(images: tf.Tensor) -> tf.Tensor:
            """The lowest frequencies of images."""
            return tf.matmul(tf.reshape(images, [-1, waves.shape[0]]), waves)

        @private_step(plan)
        def critic_step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            def real_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
                with critic_optimizer.gradient_tape(self.critic) as tape:
                    losses = self.losses(scaled(images), 1.0) * weights
                return critic_optimizer.clipped_gradient_sum(losses, critic_variables, tape)

            fakes = self.refiner(draw_sketches())
            with critic_optimizer.gradient_tape(self.critic) as tape:
                losses = self.losses(fakes, -1.0)
            fake_sums = critic_optimizer.clipped_gradient_sum(losses, critic_variables, tape)
            real_sums = accumulate(rows_of(indices), weights, real_fn, critic_variables)
            weight = plan.expected_batch_size / preset.fakes
            sums = [real + weight * fake for real, fake in zip(real_sums, fake_sums, strict=True)]
            critic_optimizer.apply_clipped_sum(sums, critic_variables)

        @tf.function
        def refiner_step() -> None:
            sketches = draw_sketches()
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(refiner_variables)
                images = self.refiner(sketches)
                changes = tf.reduce_sum(tf.square(low(images) - low(sketches)), axis=1)
                loss = tf.reduce_mean(self.losses(images, 1.0) + preset.likeness * changes)
            gradients = tape.gradient(loss, refiner_variables)
            refiner_optimizer.apply_gradients(zip(gradients, refiner_variables, strict=True))
            average.apply(refiner_variables)

        def after_step(step: int) -> None:
            if step >= preset.warm_up and (step + 1) % preset.critic_steps_per_generator_step == 0:
                refiner_step()
            left = 1.0 - (step + 1) / plan.steps
            critic_optimizer.learning_rate = preset.critic_rate * left
            refiner_optimizer.learning_rate = preset.generator_rate * left

        state = {
            "sketcher": sketcher,
            "critic": self.critic,
            "critic_optimizer": critic_optimizer,
            "refiner": self.refiner,
            "refiner_optimizer": refiner_optimizer,
            "averages": [average.average(variable) for variable in refiner_variables],
            "fakes": rng,
        }
        run_plan(plan, noise, critic_step, after_step_fn=after_step, state=state, backup=backup, verbose=verbose)
        for variable in refiner_variables:
            variable.assign(average.average(variable))
        latents, labels = sketcher.inputs
        images = self.refiner(sketcher([latents, labels]))
        return tf.keras.Model([latents, labels], images, name="generator")

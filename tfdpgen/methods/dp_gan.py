"""DP-GAN: a conditional GAN whose critic is trained by DP-SGD.

    release = train("dp_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))

Only the critic sees private examples, and only its gradients are clipped, noised and accounted (Xie et al. 2018,
"Differentially private generative adversarial network", arXiv 1802.06739). The generator learns from the critic's
weights, which is post-processing. Both know classes (Torkzadehmahani et al. 2019, "DP-CGAN", arXiv 2001.09700): the
generator is given the label, and the critic has one output for each, of which a loss takes that of the label (Miyato &
Koyama 2018, "cGANs with projection discriminator"; Mescheder et al. 2018). Losses are the non-saturating ones of
Goodfellow et al. 2014.

A critic step adds up the gradients of the real examples that were sampled, each clipped, and those of fakes, each
clipped to the same bound and weighted as if there were as many. Fakes depend on no private example but through the
critic before them: their labels are uniform whatever the private labels are, their latents come from a public seed, and
they cost nothing. Noise makes a critic so slow a learner that a generator with a step to each of the critic's outruns
it: it waits for several (Bie, Kamath & Zhang 2023, "Private GANs, revisited", arXiv 2302.02936).

What is released is a moving average of the generator's weights; what noise makes of single critic steps averages out.

Such a GAN finds few modes: samples look like their class, and alike. `docs/experiments/dp_gan.md` has what it reaches,
which is below what Gaussian statistics of the classes do, and what was tried.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.gan import build_critic, build_generator
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.isolation import Batch
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_BETAS: dict[str, Any] = {"beta_1": 0.5, "beta_2": 0.9}  # of both Adams
_MANY = 10_000  # examples. Settings were chosen on 808 of the digits and on 48,600 of MNIST, and nowhere between
_NORMALISING_BATCHES = 100  # of fakes, whose statistics the released generator is normalised by


@register
@dataclasses.dataclass(frozen=True)
class DPGAN:
    """Conditional GAN with a private critic; see the top of this file.

    Attributes:
      latent_dim: size of the generator's latent vector.
      generator_filters: of its feature maps at half the image's sides. They cost time, and no privacy.
      critic_filters: of its first convolution.
      expected_batch_size: real examples in a critic step, on average.
      steps: of the critic. Each costs privacy: the more there are, the more noise is in each.
      critic_steps_per_generator_step: critic steps before each of the generator's; more where noise is large.
      num_fakes: in a critic step and in a generator step.
      learning_rate: of both Adams.
      ema: decay of the moving average of the generator's weights, in each of its steps.
    """

    name: ClassVar[str] = "dp_gan"
    priors: ClassVar[tuple[str, ...]] = ()

    latent_dim: int = 64
    generator_filters: int = 32
    critic_filters: int = 32
    expected_batch_size: int = 256
    steps: int = 4000
    critic_steps_per_generator_step: int = 1
    num_fakes: int = 128
    learning_rate: float = 1e-3
    ema: float = 0.99

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        batch = min(256, max(1, num_examples // 8))
        if num_examples >= _MANY:
            return cls(expected_batch_size=batch)
        return cls(expected_batch_size=batch, steps=1500, critic_steps_per_generator_step=4, learning_rate=2e-3)

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        critic = DPSGD(num_examples, self.expected_batch_size, self.steps)
        return PrivacyPlan({"dp_sgd": critic}, num_examples)

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        spec = session.spec
        generator = build_generator(
            spec.image_shape, spec.num_classes, self.latent_dim, self.generator_filters, seed=2 * seed
        )
        critic = build_critic(spec.image_shape, spec.num_classes, self.critic_filters, seed=2 * seed + 1)
        rng = tf.random.Generator.from_seed(seed)  # public: what is drawn from it is for fakes alone

        def make_fakes() -> tuple[tf.Tensor, tf.Tensor]:
            """Images, of a generator that is being trained, and their labels."""
            labels = rng.uniform([self.num_fakes], 0, spec.num_classes, tf.int64)
            return generator([rng.normal([self.num_fakes, self.latent_dim]), labels], training=True), labels

        def loss_of_real(batch: Batch) -> tf.Tensor:
            return losses(critic(batch.images), batch.labels, 1.0)

        def loss_of_fakes() -> tf.Tensor:
            images, labels = make_fakes()
            return losses(critic(images), labels, -1.0)

        trainer = session.trainer(
            "dp_sgd",
            [critic],
            loss_of_real,
            learning_rate=self.learning_rate,
            public_loss_fn=loss_of_fakes,
            **_BETAS,
        )
        optimizer: Any = tf.keras.optimizers.legacy.Adam(self.learning_rate, **_BETAS)
        average = tf.train.ExponentialMovingAverage(self.ema, num_updates=optimizer.iterations)  # less at the start
        variables = generator.trainable_variables
        optimizer._create_all_weights(variables)  # which Keras leaves to the first step, and a backup restores
        average.apply(variables)

        @tf.function
        def generator_step() -> None:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                images, labels = make_fakes()
                loss = tf.reduce_mean(losses(critic(images), labels, 1.0))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            average.apply(variables)

        def after_step(step: int) -> None:
            if (step + 1) % self.critic_steps_per_generator_step == 0:
                generator_step()

        state = {
            "generator": generator,
            "optimizer_of_generator": optimizer,
            "averages": [average.average(variable) for variable in variables],
            "rng": rng,
        }
        trainer.run(after_step=after_step, state=state, verbose=verbose)
        for variable in variables:
            variable.assign(average.average(variable))
        for _ in range(_NORMALISING_BATCHES):  # the statistics that were kept are of other weights than the average
            make_fakes()
        return Fitted(generator, {"critic": critic})


def losses(scores: tf.Tensor, labels: tf.Tensor, target: float) -> tf.Tensor:
    """How far scores are from `target`, 1 for real and -1 for fake: float32 [n].

    Args:
      scores: the critic's, float32 [n, num_classes], of which only those of the labels count.
      labels: int64 [n].
      target: 1 or -1.
    """
    return tf.nn.softplus(-target * tf.gather(scores, labels, axis=1, batch_dims=1))

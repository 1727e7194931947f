"""DP-GAN: a conditional GAN whose critic is trained by DP-SGD.

    release = train("dp_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))
    train("dp_gan", dataset, budget, public_images=load_public_images("strokes", (28, 28, 1)))

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

Where there are public images, both networks first learn from them as those of any GAN do, each image under a random
label; what is left for DP-SGD is to tell classes apart and to correct shapes.

What is released is a moving average of the generator's weights; what noise makes of single critic steps averages out.

Such a GAN finds few modes: samples look like their class, and alike. `docs/experiments/dp_gan.md` has what it reaches,
which is below what Gaussian statistics of the classes do, and what was tried.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.gan import build_critic, build_generator
from tfdpgen.networks.generator_training import BETAS, GeneratorTraining
from tfdpgen.networks.layers import get_weights, set_weights
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.isolation import Batch
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_MANY = 10_000  # examples. Settings were chosen on 808 of the digits and on 48,600 of MNIST, and nowhere between
_PUBLIC_RATE = 5e-4


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
      public_steps: on public images, `num_fakes` of them each, where there are any.

    Raises:
      ValueError: if a setting is not greater than 0.
    """

    name: ClassVar[str] = "dp_gan"
    priors: ClassVar[tuple[str, ...]] = ()
    public_dataset: ClassVar[str] = ""

    latent_dim: int = 64
    generator_filters: int = 32
    critic_filters: int = 32
    expected_batch_size: int = 256
    steps: int = 4000
    critic_steps_per_generator_step: int = 1
    num_fakes: int = 128
    learning_rate: float = 1e-3
    ema: float = 0.99
    public_steps: int = 2000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"`{field.name}` should be greater than 0; got {getattr(self, field.name)!r}.")

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
        training = GeneratorTraining(
            generator,
            spec.num_classes,
            num_fakes=self.num_fakes,
            learning_rate=self.learning_rate,
            decay=self.ema,
            seed=seed,
        )

        def loss_of_real(batch: Batch) -> tf.Tensor:
            return losses(critic(batch.images), batch.labels, 1.0)

        def loss_of_fakes() -> tf.Tensor:
            images, labels = training.fakes()
            return losses(critic(images), labels, -1.0)

        trainer = session.trainer(
            "dp_sgd",
            [critic],
            loss_of_real,
            learning_rate=self.learning_rate,
            public_loss_fn=loss_of_fakes,
            **BETAS,
        )
        if (public := session.public_images) is not None:

            def pretrained() -> npt.NDArray[Any]:
                self._pretrain(training, critic, public.images(), seed, verbose)
                return get_weights([generator, critic])

            set_weights([generator, critic], session.public("pretraining", pretrained))
            training.restart_average()

        @tf.function
        def generator_step() -> None:
            training.step(lambda images, labels: tf.reduce_mean(losses(critic(images), labels, 1.0)))

        def after_step(step: int) -> None:
            if (step + 1) % self.critic_steps_per_generator_step == 0:
                generator_step()

        trainer.run(after_step=after_step, state=training.state, verbose=verbose)
        return Fitted(training.finished(), {"critic": critic})

    def _pretrain(
        self,
        training: GeneratorTraining,
        critic: tf.keras.Model,
        public: npt.NDArray[np.uint8],
        seed: int,
        verbose: int,
    ) -> None:
        """Trains both networks on public images, without noise."""
        images, rng = tf.constant(public), tf.random.Generator.from_seed(seed)
        both = [critic.trainable_variables, training.generator.trainable_variables]
        optimizers: Any = [tf.keras.optimizers.legacy.Adam(_PUBLIC_RATE, **BETAS) for _ in both]

        @tf.function
        def step() -> None:
            chosen = rng.uniform([self.num_fakes], 0, len(public), tf.int32)
            real = tf.cast(tf.gather(images, chosen), tf.float32) / 255.0
            with tf.GradientTape(persistent=True) as tape:
                fakes, labels = training.fakes()
                real_scores, fake_scores = critic(real), critic(fakes)  # random labels do for the real ones too
                of_critic = tf.reduce_mean(losses(real_scores, labels, 1.0) + losses(fake_scores, labels, -1.0))
                of_generator = tf.reduce_mean(losses(fake_scores, labels, 1.0))
            for optimizer, variables, loss in zip(optimizers, both, (of_critic, of_generator), strict=True):
                optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        name = "step on public images"
        bar = tf.keras.utils.Progbar(self.public_steps, verbose=verbose, interval=1.0, unit_name=name)
        for _ in range(self.public_steps):
            step()
            bar.add(1)


def losses(scores: tf.Tensor, labels: tf.Tensor, target: float) -> tf.Tensor:
    """How far scores are from `target`, 1 for real and -1 for fake: float32 [n].

    Args:
      scores: the critic's, float32 [n, num_classes], of which only those of the labels count.
      labels: int64 [n].
      target: 1 or -1.
    """
    return tf.nn.softplus(-target * tf.gather(scores, labels, axis=1, batch_dims=1))

"""GS-WGAN: a Wasserstein GAN whose critics stay private, and whose generator gets their sanitised gradients.

    release = train("gs_wgan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))

Source: Chen, Orekondy & Fritz 2020, "GS-WGAN: a gradient-sanitized approach for learning differentially private
generators", arXiv 2006.08265. Unit of privacy: one example. Mechanism: `SanitisedGradient`, whose file derives its
sensitivity and its event. Released are the generator and whatever is sampled from it; a critic never is.

Each of disjoint shards trains a conditional critic by the Wasserstein loss with gradient penalty (Gulrajani et al.
2017), without clip or noise. In a step, those that are sampled are asked in which direction the fakes of a batch should
move; that is clipped, averaged and noised, and the generator follows it.

Where this departs from the paper, and why:

- A step samples every critic with one probability, instead of one of them: so amplification by sampling is that of a
  Poisson sample, of which the accountant knows what replacing an item costs. The paper's critics are drawn one by one.
- A critic's gradients for a whole batch are clipped as one vector. The paper's code clips and noises image by image and
  accounts one image a step; all images of a step come from one critic, so that its sensitivity is larger by the root of
  their number.
- Critics see low-frequency DCT coefficients: what they say has then fewer numbers, and less noise. What is left to
  finer detail comes from the generator's structure.
- Critics learn only when they are sampled, from the start: there is no training of critics beforehand.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.dct import DCT
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.gan import build_generator
from tfdpgen.networks.generator_training import GeneratorTraining
from tfdpgen.networks.wasserstein import build_feature_critic, slopes_of, wasserstein_loss
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.ensemble import Ensemble, LocalTraining
from tfdpgen.privacy.mechanisms.sanitised_gradient import SanitisedGradient
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_GRADIENTS = "sanitised_gradients"
_DECAY = 0.99
_BATCH = 32  # examples in a critic's step


@register
@dataclasses.dataclass(frozen=True)
class GSWGAN:
    """Gradient-sanitised Wasserstein GAN; see the top of this file.

    Attributes:
      latent_dim: size of the generator's latent vector.
      generator_filters: of its feature maps at half the image's sides.
      num_coefficients: of the DCT, that critics see.
      hidden_units: of each of a critic's two layers.
      num_critics: and shards. The more, the less noise in their mean, and the fewer examples has each.
      expected_critics: sampled in a step, on average. The fewer, the quicker, at nearly the same privacy.
      critic_steps: of a critic each time that it is sampled.
      steps: of the generator. Each costs privacy.
      num_fakes: in a step.
      learning_rate: of all Adams.

    Raises:
      ValueError: if a setting is not greater than 0.
    """

    latent_dim: int = 64
    generator_filters: int = 32
    num_coefficients: int = 200
    hidden_units: int = 64
    num_critics: int = 1000
    expected_critics: int = 50
    critic_steps: int = 5
    steps: int = 2000
    num_fakes: int = 64
    learning_rate: float = 1e-3
    name: ClassVar[str] = "gs_wgan"
    priors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"`{field.name}` should be greater than 0; got {getattr(self, field.name)!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        critics = min(1000, max(20, num_examples // 50))
        return cls(num_critics=critics, expected_critics=critics // 20)

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        size = self.num_fakes * DCT(spec.image_shape, self.num_coefficients).size
        gradients = SanitisedGradient(self.num_critics, self.expected_critics, self.steps, size)
        return PrivacyPlan({_GRADIENTS: gradients}, num_examples)

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        spec = session.spec
        space = DCT(spec.image_shape, self.num_coefficients)
        unit = math.sqrt(space.size) / space.radius  # an image of the largest norm has features of about 1

        def features(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            return unit * space.transform(images)

        critic = build_feature_critic(space.size, spec.num_classes, self.hidden_units, seed=2 * seed + 1)
        learning = LocalTraining(self.learning_rate, _BATCH, self.critic_steps)
        ensemble = session.ensemble(
            _GRADIENTS,
            critic,
            lambda critic, batch: wasserstein_loss(
                critic, batch.features, batch.labels, *batch.public, shares=batch.uniform([1])
            ),
            lambda critic, fakes, labels: tf.reshape(slopes_of(critic, fakes, labels), [-1]),
            public=[
                tf.TensorSpec([self.num_fakes, space.size], tf.float32),
                tf.TensorSpec([self.num_fakes], tf.int64),
            ],
            transform=features,
            learning=learning,
        )
        generator = build_generator(
            spec.image_shape, spec.num_classes, self.latent_dim, self.generator_filters, seed=2 * seed
        )
        training = GeneratorTraining(
            generator,
            spec.num_classes,
            num_fakes=self.num_fakes,
            learning_rate=self.learning_rate,
            decay=_DECAY,
            seed=seed,
        )
        _follow_directions(ensemble, training, features, verbose)
        return Fitted(training.finished(), {})


def _follow_directions(ensemble: Ensemble, training: GeneratorTraining, features: Any, verbose: int) -> None:
    """Runs an ensemble that says, for each step, in which direction the features of fakes should move."""
    drawn: list[Any] = []

    @tf.function
    def made(latents: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return features(training.generator([latents, labels], training=True), labels)

    @tf.function
    def follow(latents: tf.Tensor, labels: tf.Tensor, directions: tf.Tensor) -> None:
        training.step(lambda images, labels: -tf.reduce_sum(features(images, labels) * directions), (latents, labels))

    def ask(step: int) -> tuple[Any, Any]:
        drawn[:] = training.draw()
        latents, labels = drawn
        return made(latents, labels), labels

    def answer(step: int, directions: Any) -> None:
        latents, labels = drawn
        follow(latents, labels, tf.constant(directions.reshape(training.num_fakes, -1), tf.float32))

    ensemble.run(ask, answer, state=training.state, verbose=verbose)

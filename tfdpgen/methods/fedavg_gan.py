"""Fed-Avg GAN: a conditional GAN whose critic is trained where the images are, with a promise to whole users.

    release = train("fedavg_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))     # with dataset.user_ids

Source: Augenstein et al. 2020, "Generative models for effective ML on private, decentralized datasets", arXiv
1911.06679. **Unit of privacy: one user**, with all of that user's images. Mechanism: `FederatedAverage`, whose file
derives its sensitivity and its event. The generator is released. The critic at the server is as private as it is, and
is not: what it scores are no images. What a user sends leaves in noised sums alone.

In a round every user is sampled with one probability. Who is sampled gets the critic and a batch of fakes, trains a
copy for a few steps by the Wasserstein loss with gradient penalty, and sends what the weights have changed by, clipped
as a whole. The server adds noise to the sum once, divides by the expected number of users, and moves its critic by that
mean with momentum (Reddi et al. 2021, "Adaptive federated optimization"). The generator, which no user has to run,
takes its steps at the server, against the critic.

Where this departs from the paper, and why: the paper samples a fixed number of users and accounts by RDP; here users
are a Poisson sample, of which the accountant knows the cost exactly. Its critic is convolutional; here it sees
low-frequency DCT coefficients, since noise is added to every weight, and this has fewer.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.dct import DCT
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.gan import build_generator
from tfdpgen.networks.generator_training import GeneratorTraining
from tfdpgen.networks.layers import get_weights, set_weights
from tfdpgen.networks.wasserstein import build_feature_critic, scores_of, wasserstein_loss
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.ensemble import LocalTraining, LocalWork
from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_ROUNDS = "rounds"
_DECAY = 0.99
_BATCH = 20  # of a user's examples in a local step
_MOMENTUM = 0.9
_CLIP_NORM = 0.1  # shorter than most updates, which count by their direction then


@register
@dataclasses.dataclass(frozen=True)
class FedAvgGAN:
    """GAN by federated averaging; see the top of this file.

    Attributes:
      latent_dim: size of the generator's latent vector.
      generator_filters: of its feature maps at half the image's sides.
      num_coefficients: of the DCT, that the critic sees.
      hidden_units: of each of the critic's two layers.
      expected_users: sampled in a round, on average.
      rounds: of the critic. Each costs privacy.
      local_steps: of a sampled user.
      generator_steps: after each round.
      server_rate: what the mean of updates is multiplied by.
      learning_rate: of the users' Adam and the generator's.

    Raises:
      ValueError: if a setting is not greater than 0.
    """

    latent_dim: int = 64
    generator_filters: int = 32
    num_coefficients: int = 100
    hidden_units: int = 64
    expected_users: int = 100
    rounds: int = 600
    local_steps: int = 4
    generator_steps: int = 3
    server_rate: float = 1.0
    learning_rate: float = 1e-3
    name: ClassVar[str] = "fedavg_gan"
    priors: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[PrivacyUnit] = PrivacyUnit.USER

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"`{field.name}` should be greater than 0; got {getattr(self, field.name)!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        return cls(expected_users=min(100, max(1, num_examples // 4)))

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        return PrivacyPlan({_ROUNDS: self.mechanism(spec, num_examples)}, num_examples)

    def mechanism(self, spec: DataSpec, num_users: int) -> FederatedAverage:
        """What the rounds are, not calibrated; the same wherever it is asked for, at a server and at a site."""
        return FederatedAverage(
            num_users=num_users,
            expected_users=min(self.expected_users, num_users),
            steps=self.rounds,
            num_weights=self._critic(spec, 0).count_params(),
            clip_norm=_CLIP_NORM,
        )

    def local_work(self, spec: DataSpec, seed: int = 0) -> LocalWork:
        """What a sampled user does; the seed is of the critic's initial weights."""
        space = DCT(spec.image_shape, self.num_coefficients)
        unit = math.sqrt(space.size) / space.radius  # an image of the largest norm has features of about 1
        return LocalWork(
            network=self._critic(spec, 2 * seed + 1),
            loss_fn=lambda critic, batch: wasserstein_loss(
                critic, batch.features, batch.labels, *batch.public, shares=batch.uniform([1])
            ),
            public=[tf.TensorSpec([_BATCH, space.size], tf.float32), tf.TensorSpec([_BATCH], tf.int64)],
            transform=lambda images, labels: unit * space.transform(images),
            learning=LocalTraining(self.learning_rate, _BATCH, self.local_steps),
        )

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        spec, work = session.spec, self.local_work(session.spec, seed)
        critic, features = work.network, work.transform
        federation = session.federation(
            _ROUNDS,
            critic,
            work.loss_fn,
            public=work.public,
            transform=features,
            learning=work.learning,
        )
        generator = build_generator(
            spec.image_shape, spec.num_classes, self.latent_dim, self.generator_filters, seed=2 * seed
        )
        training = GeneratorTraining(
            generator,
            spec.num_classes,
            num_fakes=_BATCH,
            learning_rate=self.learning_rate,
            decay=_DECAY,
            seed=seed,
        )
        momentum = tf.Variable(tf.zeros([critic.count_params()]), trainable=False)

        @tf.function
        def fakes() -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = training.fakes()
            return features(images, labels), labels

        @tf.function
        def generator_step() -> None:
            training.step(lambda images, labels: -tf.reduce_mean(scores_of(critic, features(images, labels), labels)))

        def after_round(number: int, mean_update: Any) -> None:
            momentum.assign(_MOMENTUM * momentum + mean_update.astype(np.float32))
            moved: Any = get_weights([critic]) + self.server_rate * momentum.numpy()
            set_weights([critic], moved)
            for _ in range(self.generator_steps):
                generator_step()

        state = {**training.state, "critic": critic, "momentum": momentum}
        federation.run(lambda number: fakes(), after_round, state=state, verbose=verbose)
        return Fitted(training.finished(), {})

    def _critic(self, spec: DataSpec, seed: int) -> tf.keras.Model:
        size = DCT(spec.image_shape, self.num_coefficients).size
        return build_feature_critic(size, spec.num_classes, self.hidden_units, seed)

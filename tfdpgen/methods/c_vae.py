"""C-VAE: a conditional variational autoencoder whose encoder and decoder are trained by DP-SGD.

    release = train("c_vae", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))
    train(CVAE(warm_start=None, ...), dataset, budget)            # plain: DP-SGD gets the whole budget

It autoencodes low-frequency DCT coefficients of images, conditioned on the label (Sohn et al. 2015). The loss of an
example is -ELBO: its squared error / (2 variance) + KL(q(z | x, y) || N(0, I)), one number an example, with the KL
inside, so that one clip bounds all that an example contributes. The latents that examples are encoded with are theirs,
secret like the noise. What is released is the trained decoder.

**Warm start.** Most of the budget buys a `gaussian_mixture`, which is a linear VAE with a known posterior
(probabilistic PCA, Tipping & Bishop 1999). Encoder and decoder have a linear half, which is set to it, and dense layers
that correct it, which DP-SGD trains with the rest. Components of a class are told apart in the encoder by their nearest
mean.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.base import Features
from tfdpgen.methods.gaussian_mixture import GaussianMixture, Mixture, measure_mixture
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks import vae
from tfdpgen.networks.layers import one_hot
from tfdpgen.networks.mixture import choose_component
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_DP_SGD = "dp_sgd"


@register
@dataclasses.dataclass(frozen=True)
class CVAE:
    """Conditional variational autoencoder; see the top of this file.

    Attributes:
      warm_start: the mixture that the linear halves are set to; None: none, and the networks learn everything.
      latent_dim: of z.
      hidden_units: of the encoder's dense layers and the decoder's.
      expected_batch_size, steps: of DP-SGD.
      learning_rate: of Adam at its start; it falls to 0 in a line.
      dp_sgd_share: share of mu squared that buys DP-SGD where there is a warm start.
      variance: of what a feature differs by from what the decoder makes of an example's latents.
      latent_scale: standard deviation of the latents that images are sampled from.

    Raises:
      ValueError: if a setting is out of range.
    """

    warm_start: GaussianMixture | None
    latent_dim: int = 64
    hidden_units: tuple[int, ...] = (256,)
    expected_batch_size: int = 2048
    steps: int = 100
    learning_rate: float = 2e-4
    dp_sgd_share: float = 0.05
    variance: float = 0.05
    latent_scale: float = 1.5
    name: ClassVar[str] = "c_vae"
    priors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise ValueError(f"`latent_dim` should be at least 1; got {self.latent_dim!r}.")
        for name in ("learning_rate", "variance", "latent_scale"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` should be finite and greater than 0; got {getattr(self, name)!r}.")
        if not 0 < self.dp_sgd_share < 1:
            raise ValueError(f"`dp_sgd_share` should lie between 0 and 1; got {self.dp_sgd_share!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        is_small = spec.image_shape[0] * spec.image_shape[1] <= 256
        return cls(
            warm_start=GaussianMixture.for_data(spec, num_examples),
            latent_dim=32 if is_small else 64,
            hidden_units=(64,) if is_small else (256,),
            expected_batch_size=min(2048, max(1, num_examples // 4)),
        )

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        training = DPSGD(num_examples, min(self.expected_batch_size, num_examples), self.steps)
        if self.warm_start is None:
            return PrivacyPlan({_DP_SGD: training}, num_examples)
        plan = self.warm_start.plan(spec, num_examples, budget.share(1 - self.dp_sgd_share))
        return plan.with_mechanism(_DP_SGD, training, self.dp_sgd_share)

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        networks = _Networks(self, session, seed)
        decay = session.plan.mechanisms[_DP_SGD].steps  # type: ignore[attr-defined]
        trainer = session.trainer(
            _DP_SGD,
            [networks.encoder, networks.decoder],
            networks.losses,
            learning_rate=lambda step: self.learning_rate * (1 - step / decay),
        )
        if self.warm_start is not None:
            clip_norm = self.warm_start.clip_norm
            networks.start_from(measure_mixture(session, networks.space, clip_norm, self.latent_dim, seed))
        trainer.run(verbose=verbose)
        return Fitted(
            networks.decoder_of_images("generator", self.latent_scale),
            {"encoder": networks.encoder_of_images(), "decoder": networks.decoder_of_images("decoder", 1.0)},
        )


class _Networks:
    """Encoder and decoder of features in groups, one for each component of each class.

    Attributes:
      space: the features.
      encoder: [features [n, d], groups one-hot [n, g]] -> mean, log variance [n, latent_dim].
      decoder: [latents [n, latent_dim], groups] -> features.
      grouping: [features, labels] -> groups, by the nearest mean of the label's class; not trained.
    """

    def __init__(self, settings: CVAE, session: PrivateSession, seed: int) -> None:
        spec, mechanisms = session.spec, session.plan.mechanisms
        self._settings, self._spec = settings, spec
        own = settings.warm_start or GaussianMixture.for_data(spec, session.num_examples)
        self.space: Features = own.space(spec)
        groups = spec.num_classes
        if "components" in mechanisms:
            groups = mechanisms["components"].num_groups  # type: ignore[attr-defined]
        self._weights = np.full((spec.num_classes, groups // spec.num_classes), spec.num_classes / groups)
        sizes = (self.space.size, groups, settings.latent_dim, settings.hidden_units)
        self.encoder = vae.build_encoder(*sizes, seed=2 * seed)
        self.decoder = vae.build_decoder(*sizes, seed=2 * seed + 1)
        self.grouping = vae.build_grouping(self.space.size, spec.num_classes, groups)

    def start_from(self, mixture: Mixture) -> None:
        """Sets the linear halves to a mixture, and the grouping to its means."""
        self._weights = mixture.weights
        missing = self._settings.latent_dim - mixture.factors.shape[2]
        factors = np.pad(mixture.factors, [(0, 0), (0, 0), (0, missing)])
        factors = np.broadcast_to(factors, (len(mixture.means), *factors.shape[1:]))
        vae.set_gaussians(self.encoder, self.decoder, mixture.means, factors, self._settings.variance)
        vae.set_grouping(self.grouping, mixture.means)

    def losses(self, batch: Any) -> tf.Tensor:
        """-ELBO of each example, float32 [b], but for constants."""
        features = self.space.transform(batch.images)
        groups = self.grouping([features, batch.labels])
        mean, log_variance = self.encoder([features, groups])
        log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
        latents = mean + tf.exp(log_variance / 2) * batch.normal([self._settings.latent_dim])
        made = self.decoder([latents, groups])
        errors = tf.reduce_sum(tf.square(features - made), axis=1) / (2 * self._settings.variance)
        divergences = tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=1) / 2
        return errors + divergences

    def decoder_of_images(self, name: str, latent_scale: float) -> tf.keras.Model:
        """[latents [n, 1 + latent_dim], labels] -> images; the first latent chooses the component."""
        latents = tf.keras.Input((1 + self._settings.latent_dim,), name="latents")
        labels = tf.keras.Input((), dtype=tf.int64, name="labels")
        component = choose_component(self._weights, latents[:, 0], labels)
        groups = one_hot(component, self._weights.size)
        scaled = tf.keras.layers.Rescaling(latent_scale)(latents[:, 1:])
        images = self.space.inverse_transform(self.decoder([scaled, groups]))
        images = tf.keras.layers.Activation("linear", dtype="float32", name="images")(images)
        return tf.keras.Model([latents, labels], images, name=name)

    def encoder_of_images(self) -> tf.keras.Model:
        """[images, labels] -> mean, log variance [n, 1 + latent_dim]; of the first latent, those of its component."""
        images = tf.keras.Input(self._spec.image_shape, name="images")
        labels = tf.keras.Input((), dtype=tf.int64, name="labels")
        features = self.space.transform(images)
        groups = self.grouping([features, labels])
        parts = zip(vae.component_posterior(self._weights, groups), self.encoder([features, groups]), strict=True)
        return tf.keras.Model([images, labels], [tf.concat(part, axis=1) for part in parts], name="encoder")

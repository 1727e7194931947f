"""DP diffusion: a diffusion model that starts from a released mixture of Gaussians, and learns the rest by DP-SGD.

    release = train("dp_diffusion", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))
    train(DPDiffusion(warm_start=None, largest_noise=10.0), dataset, budget)     # plain: DP-SGD gets the whole budget

A diffusion model takes noise off images, at every level of noise, and samples by doing so step by step (Ho, Jain &
Abbeel 2020; Karras et al. 2022, "EDM"). Trained by DP-SGD it is the best published private generator (Dockhorn et al.
2023, "DPDM", arXiv 2210.09929), and it is slow to train, since a network has to learn from noisy gradients what any
image looks like.

**Warm start.** Of a mixture of Gaussians the best denoiser is known in closed form (`networks/mixture.py`). A share of
the budget buys a `gaussian_mixture`, and the network learns what its denoiser gets wrong, in units of what it knows to
be uncertain: edges, and that a ground is black. It starts from 0, that is, from the mixture, and first sees
samples of the mixture, cut off at 0 and 1 as images are, which costs nothing. Where much noise is left,
the mixture is right enough, so that sampling starts from its samples and `largest_noise`. That first-order statistics
are a good start for private diffusion was seen by Li et al. 2025 ("DP-FETA"), who pretrain the network on mean images.

The loss of an example is the square of what the network leaves, over `views` noise levels and noises of its own, which
are averaged before the clip and cost no privacy. What is released is a moving average of the network's weights. A
sample is a deterministic function of its latents (Song, Meng & Ermon 2021, "DDIM").
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.dct import DCT, ORIGIN
from tfdpgen.methods.gaussian_mixture import GaussianMixture, Mixture, measure_mixture
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.layers import get_weights, one_hot, set_weights
from tfdpgen.networks.mixture import build_denoiser, build_mixture, set_mixture
from tfdpgen.networks.unet import build_unet
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.mechanisms.gaussian_statistics import GroupStatistics
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

_DP_SGD = "dp_sgd"
_LEAST_NOISE = 0.02  # of pixel values in [0, 1]; a level of 8 bits is .004
_VARIANCE, _VARIANCE_OF_ALL = 0.002, 0.1  # of a pixel, beside what a mixture knows; and about ORIGIN without one
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)  # that a noise level is told in
_EMA = 0.98  # decay of the moving average, in each step
_PUBLIC_BATCH, _PUBLIC_RATE = 128, 2e-3
_CLIP_NORM = 0.01  # shorter than most gradients, which count by their direction then


@register
@dataclasses.dataclass(frozen=True)
class DPDiffusion:
    """Diffusion model; see the top of this file.

    Attributes:
      warm_start: the mixture that it starts from; None: none, and the network learns everything.
      filters: of the U-Net at the image's size.
      expected_batch_size, steps: of DP-SGD.
      views: noise levels and noises of each example in a step. They cost time, and no privacy.
      learning_rate: of Adam at its start; it falls to 0 (cosine).
      dp_sgd_share: share of mu squared that buys DP-SGD where there is a warm start.
      largest_noise: standard deviation that sampling starts from: about 1 with a warm start, and 10 without.
      sampling_steps: of the sampler; each is a pass through the network.
      public_steps: of the training on the mixture's own samples, 128 images each, that comes before DP-SGD.

    Raises:
      ValueError: if a setting is out of range.
    """

    warm_start: GaussianMixture | None
    filters: int = 12
    expected_batch_size: int = 1024
    steps: int = 300
    views: int = 1
    learning_rate: float = 1e-2
    dp_sgd_share: float = 0.5
    largest_noise: float = 1.0
    sampling_steps: int = 12
    public_steps: int = 800
    name: ClassVar[str] = "dp_diffusion"
    priors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, least in (("filters", 1), ("views", 1), ("sampling_steps", 1), ("public_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` should be at least {least}; got {getattr(self, name)!r}.")
        for name, least in (("learning_rate", 0.0), ("largest_noise", _LEAST_NOISE)):
            if not (getattr(self, name) > least and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` should be finite and greater than {least}; got {getattr(self, name)!r}.")
        if not 0 < self.dp_sgd_share < 1:
            raise ValueError(f"`dp_sgd_share` should lie between 0 and 1; got {self.dp_sgd_share!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        mixture = dataclasses.replace(GaussianMixture.for_data(spec, num_examples), latent_scale=1.2)
        return cls(mixture, expected_batch_size=min(1024, max(1, num_examples // 4)))

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        training = DPSGD(num_examples, min(self.expected_batch_size, num_examples), self.steps, _CLIP_NORM)
        if self.warm_start is None:
            return PrivacyPlan({_DP_SGD: training}, num_examples)
        plan = self.warm_start.plan(spec, num_examples, budget.share(1 - self.dp_sgd_share))
        return plan.with_mechanism(_DP_SGD, training, self.dp_sgd_share)

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        denoiser = _Denoiser(self, session, seed)
        trainer = session.trainer(
            _DP_SGD,
            [denoiser.unet],
            denoiser.losses,
            learning_rate=lambda step: self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2,
        )
        if self.warm_start is not None:
            mixture = measure_mixture(session, denoiser.space, self.warm_start.clip_norm, self.warm_start.rank, seed)
            denoiser.start_from(mixture._replace(factors=mixture.factors * self.warm_start.latent_scale))
            if self.public_steps:
                pretrained = session.public("pretraining", lambda: denoiser.pretrained(seed, verbose))
                set_weights([denoiser.unet], pretrained)
        weights = denoiser.unet.trainable_variables
        averages = [tf.Variable(weight, trainable=False) for weight in weights]

        def average(step: int) -> None:
            decay = min(_EMA, (1 + step) / (10 + step))  # less at the start (Tan & Le 2019)
            for mean, weight in zip(averages, weights, strict=True):
                mean.assign(decay * mean + (1 - decay) * weight)

        state = {f"average_{number}": mean for number, mean in enumerate(averages)}
        trainer.run(after_step=average, state=state, verbose=verbose)
        for mean, weight in zip(averages, weights, strict=True):
            weight.assign(mean)
        return Fitted(denoiser.sampler(), {})


class _Denoiser:
    """The mixture's denoiser and the U-Net that corrects it.

    Attributes:
      space: the features that the mixture is of.
      unet: what is trained.
    """

    def __init__(self, settings: DPDiffusion, session: PrivateSession, seed: int) -> None:
        spec, mechanisms = session.spec, session.plan.mechanisms
        self._settings, self._spec = settings, spec
        own = settings.warm_start or GaussianMixture.for_data(spec, session.num_examples)
        self.space: DCT = own.space(spec)
        size = self.space.size
        groups = covariances = spec.num_classes
        if settings.warm_start is not None:
            last = mechanisms["components" if "components" in mechanisms else "covariances"]
            covariances = cast(GroupStatistics, last).num_groups
            groups = max(groups, covariances)
        self._mixture = Mixture(
            self.space,
            np.full((spec.num_classes, groups // spec.num_classes), spec.num_classes / groups),
            np.zeros((groups, size)),
            np.zeros((covariances, size, 1)),
        )
        self._variance = _VARIANCE_OF_ALL if settings.warm_start is None else _VARIANCE
        self._of_mixture = build_denoiser(
            self.space.basis,
            ORIGIN,
            spec.image_shape,
            spec.num_classes,
            groups // spec.num_classes,
            covariances,
            min(own.rank, size),
            self._variance,
        )
        set_mixture(self._of_mixture, *self._mixture[1:])
        height, width, channels = spec.image_shape
        conditions = 2 * len(_FREQUENCIES) + spec.num_classes
        self.unet = build_unet((height, width, 2 * channels), channels, conditions, settings.filters, seed)

    def start_from(self, mixture: Mixture) -> None:
        """Takes the mixture's denoiser."""
        self._mixture = mixture
        set_mixture(self._of_mixture, *mixture[1:])

    def pretrained(self, seed: int, verbose: int) -> npt.NDArray[np.float32]:
        """The U-Net's weights [m] after a training on samples of the mixture, cut off at 0 and 1 as images are."""
        generator, rng = self._mixture.generator(1.0), tf.random.Generator.from_seed(seed)
        steps, weights = self._settings.public_steps, self.unet.trainable_variables
        schedule = tf.keras.optimizers.schedules.CosineDecay(_PUBLIC_RATE, steps)
        optimizer: Any = tf.keras.optimizers.legacy.Adam(schedule)

        @tf.function
        def step() -> None:
            labels = rng.uniform([_PUBLIC_BATCH], 0, self._spec.num_classes, tf.int64)
            images = generator([rng.normal([_PUBLIC_BATCH, generator.inputs[0].shape[1]]), labels])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                losses = self._losses(images, labels, rng.uniform([_PUBLIC_BATCH, 1]), rng.normal(tf.shape(images)))
                loss = tf.reduce_mean(losses)
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

        bar = tf.keras.utils.Progbar(steps, verbose=verbose, interval=1.0, unit_name="step on samples of the mixture")
        for _ in range(steps):
            step()
            bar.add(1)
        return get_weights([self.unet])

    def losses(self, batch: Any) -> tf.Tensor:
        """Squares of what is left, in units of the mixture's own uncertainty, float32 [b, views]."""
        views, shape = self._settings.views, self._spec.image_shape
        images, labels = tf.repeat(batch.images, views, axis=0), tf.repeat(batch.labels, views)
        places = tf.reshape(batch.uniform([views]), [-1, 1])
        noise = tf.reshape(batch.normal([views, *shape]), [-1, *shape])
        return tf.reshape(self._losses(images, labels, places, noise), [-1, views])

    def _losses(self, images: tf.Tensor, labels: tf.Tensor, places: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Of images with noise, at levels of which places [n, 1] in [0, 1] say the share of the way to the least."""
        levels = self._level(places)
        noisy = images + levels[:, :, None, None] * noise
        mean, deviation = self._of_mixture([noisy, levels, labels])
        wanted = (images - mean) / deviation[:, :, None, None]
        found = self.unet(self._inputs(noisy, mean, levels, tf.one_hot(labels, self._spec.num_classes)))
        return tf.reduce_mean(tf.square(wanted - found), axis=[1, 2, 3])

    def _level(self, share: Any) -> Any:
        """The noise level at a share of the way from the largest to the least, in logarithms."""
        return self._settings.largest_noise * tf.pow(_LEAST_NOISE / self._settings.largest_noise, share)

    def _inputs(self, noisy: Any, mean: Any, levels: Any, classes: Any) -> list[Any]:
        """What the network sees: noisy image and mixture's mean beside each other, noise level and class."""
        scale = tf.math.rsqrt(tf.square(levels) + _VARIANCE_OF_ALL)[:, :, None, None]
        both = tf.concat([(noisy - ORIGIN) * scale, (mean - ORIGIN) / math.sqrt(_VARIANCE_OF_ALL)], axis=3)
        place = tf.math.log(levels) * (math.pi / math.log(self._settings.largest_noise / _LEAST_NOISE))
        waves = [wave(place * frequency) for frequency in _FREQUENCIES for wave in (tf.cos, tf.sin)]
        return [both, tf.concat([*waves, classes], axis=1)]

    def sampler(self) -> tf.keras.Model:
        """[latents [n, 1 + rank + pixels], labels] -> images; the last latents are the noise that it starts from."""
        settings, shape = self._settings, self._spec.image_shape
        mixture = build_mixture(*self._mixture[1:])
        known, pixels = mixture.inputs[0].shape[1], math.prod(shape)
        latents = tf.keras.Input((known + pixels,), name="latents")
        labels = tf.keras.Input((), dtype=tf.int64, name="labels")
        start = tf.keras.layers.Dense(pixels, trainable=False, name="inverse_dct")
        start.build((None, self.space.size))
        start.set_weights([self.space.basis.T, np.full(pixels, ORIGIN, np.float32)])
        images = tf.keras.layers.Reshape(shape)(start(mixture([latents[:, :known], labels])))
        first = math.sqrt(settings.largest_noise**2 + self._variance)
        images += first * tf.keras.layers.Reshape(shape)(latents[:, known:])
        denoise = self._denoise()
        levels = [float(self._level(share)) for share in np.linspace(0.0, 1.0, settings.sampling_steps)]
        for level, following in zip(levels, [*levels[1:], 0.0], strict=True):
            found = denoise([images, tf.ones_like(latents[:, :1]) * level, labels])
            images = found + (images - found) * (following / level)
        images = tf.keras.layers.ReLU(max_value=1.0)(images)
        images = tf.keras.layers.Activation("linear", dtype="float32", name="images")(images)
        return tf.keras.Model([latents, labels], images, name="generator")

    def _denoise(self) -> tf.keras.Model:
        """[images, noise levels [n, 1], labels] -> images: the mixture's mean, corrected."""
        noisy, levels = tf.keras.Input(self._spec.image_shape), tf.keras.Input((1,))
        labels = tf.keras.Input((), dtype=tf.int64)
        mean, deviation = self._of_mixture([noisy, levels, labels])
        found = self.unet(self._inputs(noisy, mean, levels, one_hot(labels, self._spec.num_classes)))
        return tf.keras.Model([noisy, levels, labels], mean + found * deviation[:, :, None, None], name="denoiser")

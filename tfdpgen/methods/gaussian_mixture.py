"""Gaussian mixture: Gaussians of each class in a space of fixed features, released by one-shot mechanisms; no training.

    release = train("gaussian_mixture", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

What a noisy sum can say of the examples it says better than noisy gradient steps do. The features are low-frequency DCT
coefficients. What is asked, in order:

1. `global_mean`: mean and scale of all examples.
2. `class_means`: means of what examples of each class differ by from it, in units of the scale, clipped; and the scale
   of what they differ by from these.
3. `covariances`: second moments of what examples differ by from their class's mean, in units of that, clipped.
4. `components`: where the noise allows it, k-means on samples of the released Gaussians, which costs nothing, cuts each
   class into components, whose own statistics are released.

**One rule** decides, from public facts and before the first access, how many covariances there are: one for all
classes, one for each class, or several of each. Noise of a covariance is a Wigner matrix; the fewer examples there are,
the wider the edge of its spectrum. As a share of the variance that there is, the edge shall be at most `MOST_NOISE` for
classes and `MOST_NOISE_OF_COMPONENTS` for components, which vary less than their class does. Eigenvalues that noise may
reach are dropped and others shrunk (`Statistics.factors`).

Sources: "Analyze Gauss", Dwork et al. 2014; CoinPress, Biswas et al. 2020; Donoho, Gavish & Johnstone 2018.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.cluster import KMeans

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.base import Features
from tfdpgen.features.dct import DCT
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.mixture import build_mixture
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans, GroupStatistics, Means, Statistics
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

MOST_NOISE, MOST_NOISE_OF_COMPONENTS = 0.1, 0.03  # see the top of this file; in units of the clipped variance
_MEANS_SHARE = 0.5  # of all means where there is one covariance: they are most of what can be known then
_COMPONENTS_SHARE = 0.7  # of mu squared of all covariances, for those of components where there are any
_SAMPLES = 3000  # of each class, that its components are found in

Array = npt.NDArray[np.float64]


class Mixture(NamedTuple):
    """What was measured, in the space of `features`.

    Attributes:
      features: the space.
      weights: float64 [classes, components], each row adding up to 1.
      means: float64 [classes * components, d].
      factors: float64 [classes * components, d, rank], of orthogonal columns; F F^T is the covariance of a component.
        [1, d, rank] where all share one.
    """

    features: Features
    weights: Array
    means: Array
    factors: Array

    def generator(self, latent_scale: float) -> tf.keras.Model:
        """[latents [n, 1 + rank], labels] -> images; factors are `latent_scale` times as long."""
        model = build_mixture(self.weights, self.means, self.factors * latent_scale)
        images = self.features.inverse_transform(model.output)
        images = tf.keras.layers.Activation("linear", dtype="float32", name="images")(images)
        return tf.keras.Model(model.inputs, images, name="generator")


@register
@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """Class-conditional mixture of Gaussians; see the top of this file.

    Attributes:
      num_coefficients: DCT coefficients, see `DCT`; more show finer detail and let in more noise.
      components: of each class, at most.
      means_share: share of mu squared that buys all means; half of the whole does where one covariance has to do.
      clip_norm: of what examples differ by from a released mean, in units of the scale released with it.
      rank: principal axes of a covariance that are kept, at most.
      latent_scale: what standard deviations are multiplied by when images are sampled: shrinkage takes some away.

    Raises:
      ValueError: if a setting is out of range.
    """

    num_coefficients: int
    components: int = 8
    means_share: float = 0.1
    clip_norm: float = 1.0
    rank: int = 100
    latent_scale: float = 1.5
    name: ClassVar[str] = "gaussian_mixture"
    priors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in ("num_coefficients", "components", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1; got {getattr(self, name)!r}.")
        for name in ("clip_norm", "latent_scale"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` should be finite and greater than 0; got {getattr(self, name)!r}.")
        if not 0 < self.means_share < 0.9:
            raise ValueError(f"`means_share` should lie between 0 and 0.9; got {self.means_share!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        height, width, _ = spec.image_shape
        return cls(min(150, height * width))

    def space(self, spec: DataSpec) -> DCT:
        """The features that are measured."""
        return DCT(spec.image_shape, self.num_coefficients)

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        return plan_mixture(
            self.space(spec),
            spec.num_classes,
            num_examples,
            budget,
            components=self.components,
            means_share=self.means_share,
            clip_norm=self.clip_norm,
        )

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        mixture = measure_mixture(session, self.space(session.spec), self.clip_norm, self.rank, seed)
        return Fitted(mixture.generator(self.latent_scale))


def plan_mixture(
    space: Features,
    classes: int,
    num_examples: int,
    budget: PrivacyBudget,
    *,
    components: int,
    means_share: float,
    clip_norm: float,
) -> PrivacyPlan:
    """The mechanisms of a mixture.

    Args:
      space: what is measured; of it, size and radius.
      classes: public.
      num_examples: public.
      budget: what all of them will cost.
      components: of each class, at most.
      means_share: as in `GaussianMixture`.
      clip_norm: as in `GaussianMixture`.
    """

    def noise(groups: int, share: float) -> float:
        """The edge of the noise of as many covariances, bought with this share, as a share of the variance."""
        noised = GroupStatistics(groups, space.size).with_noise(budget.share(share).gaussian_noise_multiplier)
        return noised.edge * groups / num_examples * clip_norm**2

    rest = 1 - means_share
    while components > 1 and noise(classes * components, rest * _COMPONENTS_SHARE) > MOST_NOISE_OF_COMPONENTS:
        components -= 1
    is_one = noise(classes, rest) > MOST_NOISE
    mechanisms: dict[str, Any] = {
        "global_mean": ClassMeans(1, space.size, space.radius, name="global mean"),
        "class_means": ClassMeans(classes, space.size, 1.0),
    }
    shares = {
        "global_mean": means_share / 2,
        "class_means": (max(_MEANS_SHARE, means_share) if is_one else means_share) - means_share / 2,
    }
    mechanisms["covariances"] = GroupStatistics(1 if is_one else classes, space.size)
    if components > 1:
        mechanisms["components"] = GroupStatistics(classes * components, space.size, name="covariances of components")
        shares["components"] = rest * _COMPONENTS_SHARE
    return PrivacyPlan(mechanisms, num_examples, shares)


def measure_mixture(session: PrivateSession, space: Features, clip_norm: float, rank: int, seed: int) -> Mixture:
    """Carries out the mechanisms of `plan_mixture`."""
    classes, mechanisms = session.spec.num_classes, session.plan.mechanisms
    overall: Means = session.run("global_mean", lambda images, labels: space.transform(images))
    origin, reach = tf.constant(overall.means, tf.float32), clip_norm * overall.scale
    released: Means = session.run("class_means", lambda images, labels: (space.transform(images) - origin) / reach)
    class_means, unit = overall.means + reach * released.means, clip_norm * reach * released.scale

    def measured(key: str, centres: Array, of_class: int) -> Statistics:
        """Statistics of groups, by nearest of the centres of an example's class."""
        table = tf.constant(centres.reshape(classes, of_class, -1), tf.float32)
        num_groups = mechanisms[key].num_groups  # type: ignore[attr-defined]

        def standardised(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            differences = space.transform(images)[:, None, :] - tf.gather(table, labels)
            nearest = tf.argmin(tf.reduce_sum(tf.square(differences), axis=2), axis=1)
            groups = labels * of_class + nearest if num_groups > 1 else tf.zeros_like(labels)
            own = tf.gather(differences, nearest, axis=1, batch_dims=1) / unit
            return tf.concat([own, tf.cast(groups, tf.float32)[:, None]], axis=1)

        return session.run(key, standardised)

    centres, of_class = class_means, 1
    statistics = measured("covariances", centres, of_class)
    if "components" in mechanisms:
        of_class = mechanisms["components"].num_groups // classes  # type: ignore[attr-defined]
        centres = _find_components(centres + unit * statistics.means, unit * statistics.factors(rank), of_class, seed)
        statistics = measured("components", centres, of_class)
    factors, means, counts = unit * statistics.factors(min(rank, space.size)), centres, statistics.counts
    if len(counts) == len(centres):
        means = centres + unit * statistics.means
    else:  # one covariance, for all classes
        counts = np.ones(len(centres))
    used = max(1, int(np.count_nonzero(np.any(factors != 0, axis=(0, 1)))))
    weights = counts.reshape(classes, of_class)
    return Mixture(space, weights / weights.sum(axis=1, keepdims=True), means, factors[:, :, :used])


def _find_components(means: Array, factors: Array, of_class: int, seed: int) -> Array:
    """Centres [classes * of_class, d] of clusters of samples of the classes' Gaussians, which are public by now."""
    rng = np.random.default_rng(seed)
    centres = []
    for mean, factor in zip(means, factors, strict=True):
        samples = mean + rng.normal(size=(_SAMPLES, factor.shape[1])) @ factor.T
        clusters: Any = KMeans(of_class, n_init=cast(Any, 1), random_state=seed % 2**32).fit(samples)
        centres.append(clusters.cluster_centers_)
    return np.concatenate(centres)

"""Gaussian mixture: Gaussians of each class in a space of fixed features, released by one-shot mechanisms; no training.

    release = train("gaussian_mixture", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

What a noisy sum can say of the examples it says better than noisy gradient steps do. The features are low-frequency DCT
coefficients. In order:

1. `class_means` (and `deskewed_means`, in one pass): mean and scale of each class.
2. `deskewing`: where images are large enough to be deskewed, a noisy count decides whether they are: of how many more
   examples the nearest class mean is their own, when shift and shear are features of their own.
3. `covariances`: second moments of what examples differ by from their class's mean, in units of the scale, clipped.
4. `components`: where the noise allows it, k-means on samples of the released Gaussians, which costs nothing, cuts each
   class into components, whose own statistics are released.

**One rule** decides, from public facts and before the first access, how many covariances there are: one for all
classes, one for each class, or several of each. Noise of a covariance is a Wigner matrix; the edge of its spectrum, as
a share of the variance that there is, shall be at most `MOST_NOISE`. The fewer examples a covariance is of, the wider
the edge. Eigenvalues below the edge are dropped and those above it shrunk (`Statistics.factors`).

Sources: "Analyze Gauss", Dwork et al. 2014; CoinPress, Biswas et al. 2020; Donoho, Gavish & Johnstone 2018.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.cluster import KMeans

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.base import Features
from tfdpgen.features.dct import DCT
from tfdpgen.features.deskewing import DeskewedDCT
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.mixture import build_mixture
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans, GroupStatistics, Means, Statistics
from tfdpgen.privacy.mechanisms.noisy_counts import NoisyCounts
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

MOST_NOISE = 0.03  # edge of a covariance's noise, as a share of the variance of clipped features
_COMPONENTS_SHARE = 0.7  # of mu squared of all covariances, for those of components where there are any
_MEANS_SHARE = 0.5  # of class means where there is one covariance: they are most of what can be known then
_SELECTION_SHARE = 0.005
_LEAD = 0.025  # of the examples, and two standard deviations of the noise: by less, deskewing is not chosen
_TELLING = 40  # features that nearness is judged by, the first ones: the others are noise to it
_SAMPLES = 3000  # of each class, that its components are found in
_SMALLEST_SIDE = 16  # of images that are deskewed, in pixels: in smaller ones, what is moved is blurred

Array = npt.NDArray[np.float64]


class Mixture(NamedTuple):
    """What was measured, in the space of `features`.

    Attributes:
      features: the space.
      weights: float64 [classes, components], each row adding up to 1.
      means: float64 [classes * components, d].
      factors: float64 [classes * components, d, rank]; F F^T is the covariance of a component.
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
      num_coefficients: DCT coefficients of each channel; more show finer detail and let in more noise.
      deskewing: whether images are deskewed; None: as the examples say, who are asked for a share of the budget.
      components: of each class, at most.
      means_share: share of mu squared that buys the class means; half of it does where one covariance has to do.
      clip_norm: of what examples differ by from their class's mean, in units of the scale.
      rank: principal axes of a covariance that are kept, at most.
      latent_scale: what standard deviations are multiplied by when images are sampled: shrinkage takes some away.

    Raises:
      ValueError: if a setting is out of range.
    """

    num_coefficients: int
    deskewing: bool | None = None
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
        can_be_deskewed = min(height, width) >= _SMALLEST_SIDE
        return cls(min(150, round(0.75 * height * width)), deskewing=None if can_be_deskewed else False)

    def spaces(self, spec: DataSpec) -> dict[str, Features]:
        """The spaces that may be measured in, by the key of the mechanism that releases means there."""
        found: dict[str, Features] = {}
        if self.deskewing is not True:
            found["class_means"] = DCT(spec.image_shape, self.num_coefficients)
        if self.deskewing is not False:
            found["deskewed_means"] = DeskewedDCT(spec.image_shape, self.num_coefficients)
        return found

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        return plan_mixture(
            self.spaces(spec),
            spec.num_classes,
            num_examples,
            budget,
            components=self.components,
            means_share=self.means_share,
            clip_norm=self.clip_norm,
        )

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        mixture = measure_mixture(session, self.spaces(session.spec), self.clip_norm, self.rank, seed)
        return Fitted(mixture.generator(self.latent_scale))


def plan_mixture(
    spaces: Mapping[str, Features],
    classes: int,
    num_examples: int,
    budget: PrivacyBudget,
    *,
    components: int,
    means_share: float,
    clip_norm: float,
) -> PrivacyPlan:
    """The mechanisms of a mixture in one of these spaces, which all have as many features.

    Args:
      spaces: by the key of the mechanism that releases class means there; where there are two, "class_means" and
        "deskewed_means".
      classes: public.
      num_examples: public.
      budget: what all of them will cost.
      components: of each class, at most.
      means_share: as in `GaussianMixture`.
      clip_norm: as in `GaussianMixture`.
    """
    size = next(iter(spaces.values())).size

    def is_told(groups: int, share: float) -> bool:
        """Whether the noise of as many covariances, bought with this share, is small enough."""
        noised = GroupStatistics(groups, size).with_noise(budget.share(share).gaussian_noise_multiplier)
        return noised.edge * groups / num_examples * clip_norm**2 <= MOST_NOISE

    rest = 1 - means_share - _SELECTION_SHARE * (len(spaces) > 1)
    of_components = rest * _COMPONENTS_SHARE
    while components > 1 and not is_told(classes * components, of_components):
        components -= 1
    is_one = not is_told(classes, rest)
    means_share = max(_MEANS_SHARE, means_share) if is_one else means_share
    mechanisms: dict[str, Any] = {
        key: ClassMeans(classes, size, space.radius, name=key.replace("_", " ")) for key, space in spaces.items()
    }
    shares = dict.fromkeys(mechanisms, means_share / len(mechanisms))
    if len(spaces) > 1:
        mechanisms["deskewing"], shares["deskewing"] = NoisyCounts(name="votes for deskewing"), _SELECTION_SHARE
    mechanisms["covariances"] = GroupStatistics(1 if is_one else classes, size)
    if components > 1:
        mechanisms["components"] = GroupStatistics(classes * components, size, name="covariances of components")
        shares["components"] = of_components
    return PrivacyPlan(mechanisms, num_examples, shares)


def measure_mixture(
    session: PrivateSession, spaces: Mapping[str, Features], clip_norm: float, rank: int, seed: int
) -> Mixture:
    """Carries out the mechanisms of `plan_mixture`."""
    classes, mechanisms = session.spec.num_classes, session.plan.mechanisms
    found: dict[str, Means] = session.run_together(
        {key: lambda images, labels, of=space: of.transform(images) for key, space in spaces.items()}
    )
    chosen = next(iter(spaces))
    if "deskewing" in mechanisms:
        is_chosen = _lead_of_deskewing(session, spaces, found)
        chosen = "deskewed_means" if is_chosen else "class_means"
    space, released = spaces[chosen], found[chosen]
    unit = clip_norm * released.scale

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

    centres, of_class = released.means, 1
    statistics = measured("covariances", centres, of_class)
    if "components" in mechanisms:
        of_class = mechanisms["components"].num_groups // classes  # type: ignore[attr-defined]
        centres = _find_components(centres + unit * statistics.means, unit * statistics.factors(rank), of_class, seed)
        statistics = measured("components", centres, of_class)
    factors, means, counts = unit * statistics.factors(min(rank, space.size)), centres, statistics.counts
    if len(counts) == len(centres):
        means = centres + unit * statistics.means
    else:  # one covariance, for all classes
        factors, counts = np.repeat(factors, classes, axis=0), np.ones(classes)
    used = max(1, int(np.count_nonzero(np.any(factors != 0, axis=(0, 1)))))
    weights = counts.reshape(classes, of_class)
    return Mixture(space, weights / weights.sum(axis=1, keepdims=True), means, factors[:, :, :used])


def _lead_of_deskewing(session: PrivateSession, spaces: Mapping[str, Features], found: Mapping[str, Means]) -> bool:
    """Whether so many more examples are nearest to their own class's mean when they are deskewed, by a noisy count."""
    tables = {key: tf.constant(means.means[:, :_TELLING], tf.float32) for key, means in found.items()}

    def is_nearest(key: str, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        differences = spaces[key].transform(images)[:, None, :_TELLING] - tables[key][None]
        return tf.cast(tf.argmin(tf.reduce_sum(tf.square(differences), axis=2), axis=1) == labels, tf.float32)

    def votes(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return (is_nearest("deskewed_means", images, labels) - is_nearest("class_means", images, labels))[:, None]

    lead = float(session.run("deskewing", votes)[0])
    return lead > _LEAD * session.num_examples + 2 * session.plan.mechanisms["deskewing"].stddev  # type: ignore


def _find_components(means: Array, factors: Array, of_class: int, seed: int) -> Array:
    """Centres [classes * of_class, d] of clusters of samples of the classes' Gaussians, which are public by now."""
    rng = np.random.default_rng(seed)
    centres = []
    for mean, factor in zip(means, factors, strict=True):
        samples = mean + rng.normal(size=(_SAMPLES, factor.shape[1])) @ factor.T
        clusters: Any = KMeans(of_class, n_init=cast(Any, 1), random_state=seed % 2**32).fit(samples)
        centres.append(clusters.cluster_centers_)
    return np.concatenate(centres)

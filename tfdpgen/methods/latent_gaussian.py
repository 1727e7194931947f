"""Latent Gaussian: Gaussian statistics of each class in the latent space of an autoencoder of public images.

    release = train("latent_gaussian", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

An autoencoder learns from images that are public (`data/public_images.py`), and from no private one. Private examples
are encoded, and the mechanisms of `gaussian_mixture` release their statistics in the latent space, which is small, and
whose scale is known beforehand. By default the public images are random pen strokes, light on dark: right for drawings
and handwriting, and wrong for anything else. That they are like the private ones is an assumption about the kind of
data and not about any example; the statement declares it.

Sources: Kingma & Welling 2014; class-conditional Gaussians in a public feature space, as in Harder et al. 2023, "Pre-
trained perceptual features improve differentially private image generation".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import numpy.typing as npt

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.autoencoder import Autoencoder
from tfdpgen.methods.gaussian_mixture import measure_mixture, plan_mixture
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.layers import get_weights, set_weights
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession


@register
@dataclasses.dataclass(frozen=True)
class LatentGaussian:
    """Class-conditional Gaussians in a public latent space; see the top of this file.

    Attributes:
      latent_dim: d, of the autoencoder; coloured images have more to say.
      filters: of its convolutions at the highest resolution.
      public_steps: of its training, 128 images each.
      components: Gaussians of each class, at most.
      means_share: share of mu squared that buys the class means.
      clip_norm: of what latents differ by from their class's mean, in units of the scale.
      latent_scale: what standard deviations are multiplied by when images are sampled.

    Raises:
      ValueError: if a number is below 1.
    """

    latent_dim: int = 32
    filters: int = 16
    public_steps: int = 4000
    components: int = 8
    means_share: float = 0.1
    clip_norm: float = 1.2
    latent_scale: float = 1.2
    name: ClassVar[str] = "latent_gaussian"
    priors: ClassVar[tuple[str, ...]] = ()
    public_dataset: ClassVar[str] = "strokes"

    def __post_init__(self) -> None:
        for name in ("latent_dim", "filters", "public_steps", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1; got {getattr(self, name)!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        return cls() if spec.image_shape[2] == 1 else cls(latent_dim=128)

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        return plan_mixture(
            self._untrained(spec, seed=0),
            spec.num_classes,
            num_examples,
            budget,
            components=self.components,
            means_share=self.means_share,
            clip_norm=self.clip_norm,
        )

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        space = self._untrained(session.spec, seed)

        def train() -> npt.NDArray[Any]:
            assert session.public_images is not None  # for there is a default
            space.train(session.public_images.images(), steps=self.public_steps, verbose=verbose)
            return get_weights([space.encoder, space.decoder])

        set_weights([space.encoder, space.decoder], session.public("autoencoder", train))
        mixture = measure_mixture(session, space, self.clip_norm, self.latent_dim, seed)
        return Fitted(mixture.generator(self.latent_scale))

    def _untrained(self, spec: DataSpec, seed: int) -> Autoencoder:
        return Autoencoder(spec.image_shape, self.latent_dim, self.filters, seed)

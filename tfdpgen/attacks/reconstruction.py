"""Reconstruction: an autoencoder gives back the examples that it was trained on better than others.

Hilprecht, Haerterich and Bernau 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models": encode a candidate, decode several draws of its latents, and take the mean distance. `vae_elbo` takes the whole
evidence lower bound in place of the distance: Bernoulli cross-entropy of the decoded image, kept half a grey level away
from 0 and 1, plus the divergence of the latents from the prior (Kingma and Welling 2014, arXiv 1312.6114).
Encoder and decoder were trained by DP-SGD, so that epsilon bounds what they show; neither is part of a release.

    get("vae_reconstruction").score(known, candidates, rng)

`known.networks`: "encoder" [images float32 in [0, 1], labels] -> mean, log variance [n, latent_dim]; "decoder"
[latents, labels] -> images in [0, 1].
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.neighbours import flat
from tfdpgen.data import LabeledDataset

_DRAWS = 16
_HALF_A_LEVEL = 1 / 510


@dataclasses.dataclass(frozen=True, eq=False)
class _Reconstruction:
    """Scorer: [minus the mean squared distance of reconstructions, the evidence lower bound].

    The same standard normal draws serve all candidates, so that a score depends on its own candidate alone.
    """

    encoder: Any
    decoder: Any
    noise: npt.NDArray[np.float32]

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n, 2]."""
        images, labels = candidates.images.astype(np.float32) / 255, candidates.labels
        mean, log_variance = (np.asarray(part) for part in self.encoder([images, labels], training=False))
        log_variance = np.clip(log_variance, -30.0, 20.0)
        truth = flat(images).astype(np.float64)
        distances, entropies = np.zeros(len(images)), np.zeros(len(images))
        for noise in self.noise:
            latents = (mean + np.exp(log_variance / 2) * noise).astype(np.float32)
            decoded = np.asarray(self.decoder([latents, labels], training=False), np.float64).reshape(truth.shape)
            distances += np.sum((decoded - truth) ** 2, axis=1)
            decoded = np.clip(decoded, _HALF_A_LEVEL, 1 - _HALF_A_LEVEL)
            entropies -= np.sum(truth * np.log(decoded) + (1 - truth) * np.log(1 - decoded), axis=1)
        divergences = np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance, axis=1, dtype=np.float64) / 2
        return np.stack([-distances / len(self.noise), -(entropies / len(self.noise) + divergences)], axis=1)


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Takes the networks, and draws the latents' noise."""
    decoder = known.networks["decoder"]
    latent_dim = decoder.inputs[0].shape[1]
    noise = rng.normal(size=(_DRAWS, latent_dim)).astype(np.float32)
    return _Reconstruction(known.networks["encoder"], decoder, noise)


_PAPER = "Hilprecht, Haerterich & Bernau 2019 (reconstruction)"

VAE_RECONSTRUCTION = register(
    Attack(
        name="vae_reconstruction",
        description=(
            "A candidate is the likelier a member the better the privately trained encoder and decoder give it back."
        ),
        access="model",
        paper=_PAPER,
        is_membership=True,
        prepare_fn=prepare,
        networks=("encoder", "decoder"),
    )
)

VAE_ELBO = register(
    Attack(
        name="vae_elbo",
        description=(
            "A candidate is the likelier a member the higher the bound on its likelihood that the privately trained "
            "autoencoder gives."
        ),
        access="model",
        paper=f"{_PAPER}, with the evidence lower bound of Kingma & Welling 2014, arXiv 1312.6114, for the distance",
        is_membership=True,
        prepare_fn=prepare,
        column=1,
        networks=("encoder", "decoder"),
    )
)

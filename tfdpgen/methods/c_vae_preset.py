"""Hyperparameters of the C-VAE, chosen by public facts: the shape of images and the number of rows.

    preset = preset_for(DataSpec((28, 28, 1), 10), num_examples=54_000)
    preset = dataclasses.replace(preset, shift=0.0, lean=0.0)       # images are not moved
    train("c_vae", dataset, budget, preset=preset)

What they mean is said in `c_vae.py`, what was tried in docs/utility.md.
"""

from __future__ import annotations

import dataclasses
import math

from tfdpgen.data.dataset import DataSpec

_LEAST_SIDE = 16  # of images with poses, in pixels: in smaller ones, what is moved is blurred


@dataclasses.dataclass(frozen=True)
class CVAEPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      latent_dim: principal axes of each component that are kept; at most the number of features.
      hidden_units: of the networks that correct encoder and decoder.
      expected_batch_size, steps, l2_norm_clip: of their training.
      learning_rate: at its start; it falls to 0 in a line. With a noise multiplier above 1 it is lower in proportion.
      num_waves: lowest frequencies of each channel that are features.
      noisy_waves: the same where noise outweighs rows; None: as many.
      has_poses: whether poses are; None: if the rows say that classes lie further apart so.
      centre_radius: bound, for the centres, on the root mean square of what an image differs by from a fifth of the
        range, in units of it.
      reach: bound on how far a row may lie from its centre, in units of the distance that is usual.
      noisy_reach: the same where noise outweighs rows, which all have one centre.
      moments_share: share of epsilon that buys the Gaussians.
      first_share: of `moments_share`, what buys the classes' Gaussians where components follow.
      components: of a class, at most; fewer where the noise would outweigh them.
      variance: of a row's features around what the decoder makes of its latents.
      kl_weight: weight of the KL in the loss (beta; Higgins et al. 2017).
      spread: standard deviation of the latents that are drawn / that of the prior, where rows outweigh the noise: wider
        ones are more diverse.
      noisy_spread: the same where they do not.
      still_spread: the same as `spread` where poses were not found to suit.
      rough_components, rough_reach, rough_spread: `components`, `reach` and `spread` where rows are few, poses do not
        suit, and there is too much noise for components in all features; these are told in the first ones, of which
        there are as many as the noise allows, and at most those where noise outweighs rows.
      shift, lean: standard deviations of how far a drawn image is moved at random there, in shares of a side, and is
        made to lean, in pixels for each row: of the ways in which images of any class differ, more than noisy moments
        can tell (Simard et al. 2003). Public, the same for every class.
      still_moves: by what share of that where poses were not found to suit.

    Raises:
      ValueError: if a number is out of range.
    """

    latent_dim: int
    hidden_units: tuple[int, ...]
    expected_batch_size: int
    steps: int
    l2_norm_clip: float = 1.0
    learning_rate: float = 2e-4
    num_waves: int = 49
    noisy_waves: int | None = None
    has_poses: bool | None = False
    centre_radius: float = 0.35
    reach: float = 1.2
    noisy_reach: float = 0.7
    moments_share: float = 0.95
    first_share: float = 0.3
    components: int = 1
    variance: float = 0.05
    kl_weight: float = 1.0
    spread: float = 1.5
    noisy_spread: float = 1.0
    still_spread: float = 1.0
    rough_components: int = 2
    rough_reach: float = 0.85
    rough_spread: float = 1.3
    shift: float = 0.0
    lean: float = 0.0
    still_moves: float = 0.25

    def __post_init__(self) -> None:
        for name in ("latent_dim", "num_waves", "components", "rough_components"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1; got {getattr(self, name)!r}.")
        if self.noisy_waves is not None and not 1 <= self.noisy_waves <= self.num_waves:
            raise ValueError(f"`noisy_waves` should lie between 1 and `num_waves`; got {self.noisy_waves!r}.")
        for name in (
            "learning_rate", "centre_radius", "reach", "noisy_reach", "rough_reach", "variance",
            "spread", "noisy_spread", "still_spread", "rough_spread",
        ):  # fmt: skip
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` should be finite and greater than 0; got {getattr(self, name)!r}.")
        for name in ("shift", "lean", "still_moves"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` should lie between 0 and 1; got {getattr(self, name)!r}.")
        for name in ("moments_share", "first_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` should lie between 0 and 1; got {getattr(self, name)!r}.")


def preset_for(spec: DataSpec, num_examples: int) -> CVAEPreset:
    """The preset for images of this shape and this many rows."""
    height, width, channels = spec.image_shape
    batch = min(2048, max(1, num_examples // 4))
    if channels > 1:
        return CVAEPreset(
            latent_dim=270,
            hidden_units=(256,),
            expected_batch_size=batch,
            steps=100,
            num_waves=90,
            noisy_waves=40,
            spread=1.25,
        )
    if height * width <= 256:
        can_lean = min(height, width) >= _LEAST_SIDE
        return CVAEPreset(
            latent_dim=49,
            hidden_units=(64,),
            expected_batch_size=batch,
            steps=100,
            has_poses=None if can_lean else False,
            moments_share=0.98,
            spread=1.25 if can_lean else 1.0,
            noisy_spread=1.15 if can_lean else 1.0,
            shift=0.06,
            lean=0.13,
        )
    return CVAEPreset(
        latent_dim=153,
        hidden_units=(256,),
        expected_batch_size=batch,
        steps=100,
        num_waves=150,
        noisy_waves=90,
        has_poses=None,
        components=8,
        shift=0.06,
        lean=0.13,
    )

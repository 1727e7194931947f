"""Presets of the C-VAE follow from public facts; numbers out of range are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tfdpgen.data import DataSpec
from tfdpgen.methods import CVAEPreset
from tfdpgen.methods.c_vae_preset import preset_for

_PRESET = CVAEPreset(latent_dim=12, hidden_units=(16,), expected_batch_size=200, steps=30, num_waves=20)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"components": 0}, "components"),
        ({"noisy_waves": 0}, "noisy_waves"),
        ({"noisy_waves": 21}, "noisy_waves"),
        ({"centre_radius": 0.0}, "centre_radius"),
        ({"reach": -1.0}, "reach"),
        ({"spread": 0.0}, "spread"),
        ({"noisy_spread": float("inf")}, "noisy_spread"),
        ({"shift": -0.1}, "shift"),
        ({"lean": 1.5}, "lean"),
        ({"variance": float("nan")}, "variance"),
        ({"moments_share": 1.0}, "moments_share"),
        ({"still_spread": 0.0}, "still_spread"),
    ],
)
def test_a_preset_out_of_range_is_refused(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        dataclasses.replace(_PRESET, **changed)


@pytest.mark.parametrize(("side", "has_poses"), [(8, False), (15, False), (16, None), (28, None)])
def test_small_images_have_no_poses_and_others_are_asked(side: int, has_poses: bool | None) -> None:
    assert preset_for(DataSpec((side, side, 1), 10), 5000).has_poses is has_poses
    assert preset_for(DataSpec((side, side, 3), 10), 5000).has_poses is False

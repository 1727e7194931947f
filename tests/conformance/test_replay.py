"""Neighbours of the data, replayed through what a session sums: none is above the sensitivity unless a bug is planted.

The same with 1,000 neighbours and the settings that methods register: `python benchmarks/neighbour_replay.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from benchmarks.neighbour_replay import Moved, replay
from tfdpgen.data import DataSpec, LabeledDataset, load_public_images
from tfdpgen.methods import method_names
from tfdpgen.methods.c_vae import CVAE
from tfdpgen.methods.dp_diffusion import DPDiffusion
from tfdpgen.methods.dp_gan import DPGAN
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.methods.gaussian_mixture import GaussianMixture
from tfdpgen.methods.gs_wgan import GSWGAN
from tfdpgen.methods.latent_gaussian import LatentGaussian
from tfdpgen.methods.pate_gan import PATEGAN
from tfdpgen.privacy import FederatedAverage, PrivacyBudget
from tfdpgen.privacy import ensemble as ensembles
from tfdpgen.privacy.mechanisms.base import clipped

_MIXTURE = GaussianMixture(6, components=2)
_SMALL: dict[str, Any] = {
    "gaussian_mixture": _MIXTURE,
    "c_vae": CVAE(None, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=9),
    "dp_gan": DPGAN(4, generator_filters=8, critic_filters=4, expected_batch_size=10, steps=9),
    "dp_diffusion": DPDiffusion(None, filters=2, expected_batch_size=10, steps=9, views=2, sampling_steps=2),
    "fedavg_gan": FedAvgGAN(
        4, generator_filters=8, num_coefficients=10, hidden_units=6, expected_users=5, rounds=9, learning_rate=0.02
    ),
    "gs_wgan": GSWGAN(
        4, generator_filters=8, num_coefficients=10, hidden_units=6, num_critics=8, expected_critics=3, steps=9
    ),
    "latent_gaussian": LatentGaussian(3, filters=2, public_steps=3),
    "pate_gan": PATEGAN(3, latent_dim=4, hidden_units=8, num_coefficients=10, rounds=4, queries=3, steps=2),
}
_EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name == "dp_diffusion" else []) for name in _SMALL]


@pytest.fixture(scope="module")
def digits() -> tuple[LabeledDataset, LabeledDataset]:
    """80 digits of 20 users, and 20 others."""
    data = load_digits()
    images, labels = (data.images[..., None] * 15.9375).round().astype(np.uint8), data.target.astype(np.int64)
    spec = DataSpec((8, 8, 1), 10)
    return (
        LabeledDataset(images[:80], labels[:80], spec, np.arange(80) % 20),
        LabeledDataset(images[80:100], labels[80:100], spec),
    )


@pytest.fixture(autouse=True)
def few_public_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfdpgen.data.public_images._MOST_IMAGES", 100)


def _replayed(name: str, digits: Any, neighbours: int = 20, steps: Any = (0, 2), **options: Any) -> list[Moved]:
    if name == "latent_gaussian":
        options["public_images"] = load_public_images("dead_leaves", (8, 8, 1))
    return replay(_SMALL[name], *digits, neighbours=neighbours, steps=steps, budget=PrivacyBudget(3.0, 1e-4), **options)


def test_this_suite_knows_every_method() -> None:
    assert set(method_names()) == set(_SMALL)


@pytest.mark.parametrize("name", _EVERY)
def test_no_neighbour_moves_a_sum_by_more_than_its_sensitivity(name: str, digits: Any) -> None:
    extra = {"labeller_share": 0.3, "label_distribution": "private"} if name == "gaussian_mixture" else {}
    found = _replayed(name, digits, neighbours=120 if name == "pate_gan" else 20, **extra)
    assert {len(one.changes) for one in found} <= {10, 20, 60}
    for one in found:
        assert one.is_within, (one.mechanism, one.changes.max(), one.astray)
        least = 0.05 if name == "pate_gan" else 0.9  # a teacher may draw another example, or vote as before
        assert np.count_nonzero(one.changes) > least * len(one.changes), one.mechanism
        # An example changes a critic a little, which has few steps here, and everything else by up to the bound.
        assert one.changes.max() > (0.001 if name == "gs_wgan" else 0.3), one.mechanism


def test_a_clip_that_is_too_large_is_seen(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfdpgen.privacy import optimizer

    original = optimizer.clipped_gradient_sum

    def unclipped(tape: Any, losses: Any, variables: Any, clip: float, mode: Any) -> Any:
        return original(tape, losses, variables, 1e6 * clip, mode)

    monkeypatch.setattr(optimizer, "clipped_gradient_sum", unclipped)
    (found,) = _replayed("dp_gan", digits, steps=(0,))
    assert not found.is_within


def test_draws_that_follow_the_place_in_a_batch_are_seen(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def public_seed(self: Any, shape: Any = ()) -> tf.Tensor:
        return tf.random.stateless_normal([self._size, *shape], [1, 2])

    monkeypatch.setattr("tfdpgen.privacy.trainer._Batch.normal", public_seed)
    (found,) = _replayed("c_vae", digits, steps=(2,))
    assert not found.is_within


def test_features_that_are_not_clipped_are_seen(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tfdpgen.privacy.mechanisms.gaussian_statistics.bounded",
        lambda features, radius: np.asarray(features, np.float64),
    )
    found = _replayed("gaussian_mixture", digits)
    assert not found[-1].is_within


def test_shards_that_overlap_are_seen(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example is dealt to a shard and to the next one."""
    original = ensembles.group_sums

    def overlapping(mechanism: Any, *arguments: Any) -> Any:
        *functions, dataset, groups, noise = arguments
        twice = np.concatenate([np.arange(len(dataset)), np.arange(len(dataset))])
        dealt = np.concatenate([groups, (groups + 1) % mechanism.num_groups])
        return original(mechanism, *functions, dataset.take(twice), dealt, noise)

    monkeypatch.setattr(ensembles, "group_sums", overlapping)
    (found,) = _replayed("gs_wgan", digits, steps=(0,))
    assert not found.is_within
    assert found.astray > 0


def test_a_user_who_is_clipped_image_by_image_is_seen(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip for each of a user's four images."""
    monkeypatch.setattr(FederatedAverage, "bounded", lambda self, answer: clipped(answer, 4 * self.clip_norm))
    (found,) = _replayed("fedavg_gan", digits, steps=(0,))
    assert not found.is_within

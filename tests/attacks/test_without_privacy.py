"""What DP-SGD prevents: the real methods, trained long without noise or clip on few rows, give these rows away.

python -m pytest -n 0 -m slow tests/attacks/test_without_privacy.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfdpgen.attacks import run_attacks
from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.privacy import ClassMoments, NoiseSource, PrivacyBudget
from tfdpgen.synthesizers import CVAE, DPGAN, Synthesizer, c_vae, dp_gan, to_uint8

SPLITS = load_splits("digits")
ROWS = SPLITS.train.take(np.arange(200))
CLIP = 1e6  # no gradient is as long


class Drawn:
    """A release of a generator that nobody accounted for."""

    def __init__(self, generator: Any) -> None:
        self.generator, self.spec = generator, SPLITS.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        latents = np.random.default_rng(seed).normal(size=(len(np.asarray(labels)), self.generator.inputs[0].shape[1]))
        return to_uint8(self.generator([latents.astype(np.float32), np.asarray(labels)])).numpy()


def trained_without_privacy(synthesizer: Synthesizer, rows: LabeledDataset) -> tuple[Drawn, Mapping[str, Any]]:
    """Runs the method's own training by its own plan, with a noise multiplier of 0."""
    noise = NoiseSource.insecure(0)
    plan = synthesizer.plan()
    assert plan is not None
    statistics = synthesizer.alongside(PrivacyBudget(10.0, 1e-5))
    assert all(isinstance(mechanism, ClassMoments) for mechanism in statistics)
    synthesizer.prepare(rows, [dataclasses.replace(part, noise_multiplier=1e-6) for part in statistics], noise, 0)
    generator = synthesizer.learn(rows, dataclasses.replace(plan, noise_multiplier=0.0), noise, 0)
    return Drawn(generator), synthesizer.networks()


@pytest.mark.slow
def test_an_autoencoder_and_its_samples_give_their_rows_away() -> None:
    preset = dataclasses.replace(
        c_vae.preset_for(SPLITS.spec, len(ROWS)),
        latent_dim=8, hidden_units=(256,), num_waves=64, steps=2500, learning_rate=3e-3, variance=0.05,
        l2_norm_clip=CLIP,
    )  # fmt: skip
    release, networks = trained_without_privacy(CVAE(SPLITS.spec, len(ROWS), 0, preset), ROWS)
    names = ["vae_reconstruction", "gan_leaks", "gan_leaks_calibrated", "monte_carlo"]
    results = run_attacks(release, ROWS, SPLITS.holdout, networks=networks, seed=0, repetitions=1, names=names)
    assert {name: result.auc for name, result in results.items() if result.auc < 0.8} == {}


@pytest.mark.slow
def test_a_critic_gives_its_rows_away() -> None:
    rows, steps = ROWS.take(np.arange(100)), 4000
    preset = dataclasses.replace(
        dp_gan.preset_for(SPLITS.spec, len(rows)),
        critic_filters=96, steps=steps, expected_batch_size=50, fakes=64, critic_rate=4e-3, l2_norm_clip=CLIP,
        warm_up=steps,  # the refiner, which sees no private row, stays as it was
    )  # fmt: skip
    release, networks = trained_without_privacy(DPGAN(SPLITS.spec, len(rows), 0, preset), rows)
    result = run_attacks(release, rows, SPLITS.holdout, networks=networks, seed=0, repetitions=1, names=["logan"])
    assert result["logan"].auc >= 0.8

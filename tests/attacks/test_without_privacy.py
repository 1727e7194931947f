"""What DP-SGD prevents: the real methods, trained long without noise or clip on few examples, give these examples away.

python -m pytest -n 0 -m slow tests/attacks/test_without_privacy.py

With noise and clip, at epsilon 1, they do not: neither in the same long trainings nor with their own settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import tensorflow as tf

from tfdpgen.attacks import AttackResult, run_attacks, strongest_attack, upper_bounds_of
from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.methods import CVAE, DPGAN, train
from tfdpgen.privacy import DPSGD, ExampleRandomness, NoiseSource, PrivacyBudget, PrivateSession
from tfdpgen.privacy.noise import GaussianNoise
from tfdpgen.release import to_uint8

SPLITS = load_splits("digits")
EXAMPLES = SPLITS.train.take(np.arange(100))
STRANGERS = SPLITS.train.take(np.arange(100, len(SPLITS.train)))
CLIP = 1e6  # no gradient is as long
DELTA = 1e-5
OF_CRITICS = ("logan", "critic_gradient", "critic_neighbours")
LONG: dict[str, Any] = {
    "c_vae": CVAE(
        warm_start=None, latent_dim=4, hidden_units=(1024,), expected_batch_size=25, steps=5000, learning_rate=3e-3
    ),
    # A critic learns examples by heart once the generator leaves it time to.
    "dp_gan": DPGAN(
        critic_filters=64,
        expected_batch_size=50,
        num_fakes=32,
        steps=6000,
        critic_steps_per_generator_step=16,
        learning_rate=2e-3,
    ),
}


class Drawn:
    """A release of a generator that nobody accounted for."""

    def __init__(self, generator: Any) -> None:
        self.generator, self.spec = generator, SPLITS.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        latents = np.random.default_rng(seed).normal(size=(len(np.asarray(labels)), self.generator.inputs[0].shape[1]))
        return to_uint8(self.generator([latents.astype(np.float32), np.asarray(labels)])).numpy()


class Silence(GaussianNoise):
    """Noise that is none."""

    def draw(self, shapes: Sequence[Any], stddev: float) -> list[tf.Tensor]:
        return [tf.zeros(shape) for shape in shapes]


class Silent(NoiseSource):
    """A source of samples and of the randomness of examples, whose noise is none."""

    def gaussian(self) -> GaussianNoise:
        return Silence(bytes(8))

    def examples(self) -> ExampleRandomness:
        return NoiseSource.insecure(0).examples()


def trained_without_privacy(method: Any, examples: LabeledDataset) -> tuple[Drawn, Mapping[str, Any]]:
    """Runs the method's own training by its own plan, without noise or clip."""
    plan = method.plan(examples.spec, len(examples), PrivacyBudget(1.0, DELTA))
    assert all(isinstance(mechanism, DPSGD) for mechanism in plan.mechanisms.values())
    mechanisms = {
        key: dataclasses.replace(mechanism, l2_norm_clip=CLIP, noise_multiplier=1.0)
        for key, mechanism in plan.mechanisms.items()
    }
    plan = dataclasses.replace(plan, mechanisms=mechanisms, accountant="rdp")
    session = PrivateSession(examples, plan, PrivacyBudget(1e9, DELTA), noise=Silent.insecure(0))
    fitted = method.fit(session, seed=0, verbose=0)
    return Drawn(fitted.generator), fitted.networks


def above_their_bounds(results: Mapping[str, AttackResult], epsilon: float, delta: float) -> set[str]:
    """Membership attacks that no (epsilon, delta) explains: one of their intervals lies above what it allows.

    The upper bounds are those for an example added or removed, the smaller ones, on accuracy (as privacy loss), AUC,
    and the true positive rates at false positive rates of 1 % and 0.1 %.
    """
    metrics = upper_bounds_of(epsilon, delta)["add_or_remove"]
    return {
        name
        for name, result in results.items()
        if result.is_membership and any(getattr(result, f"{key}_interval")[0] > bound for key, bound in metrics.items())
    }


@pytest.mark.slow
def test_an_autoencoder_and_its_samples_give_their_examples_away() -> None:
    release, networks = trained_without_privacy(LONG["c_vae"], EXAMPLES)
    results = run_attacks(release, EXAMPLES, SPLITS.holdout, networks=networks, seed=0, repetitions=1)
    print({name: round(result.auc, 3) for name, result in results.items()})
    names = {"vae_reconstruction", "gan_leaks", "gan_leaks_calibrated"}
    assert {name: results[name].auc for name in names if results[name].auc < 0.8} == {}
    assert above_their_bounds(results, 1.0, DELTA) >= names


@pytest.mark.slow
def test_a_critic_gives_its_examples_away_and_no_others() -> None:
    release, networks = trained_without_privacy(LONG["dp_gan"], EXAMPLES)
    results = run_attacks(release, EXAMPLES, SPLITS.holdout, networks=networks, seed=0, repetitions=1)
    print({name: round(result.auc, 3) for name, result in results.items()})
    assert {name: results[name].auc for name in OF_CRITICS if results[name].auc < 0.8} == {}
    assert above_their_bounds(results, 1.0, DELTA) >= set(OF_CRITICS)

    others = run_attacks(release, STRANGERS, SPLITS.holdout, networks=networks, seed=0, repetitions=1, names=OF_CRITICS)
    for result in others.values():
        assert result.auc_interval[0] < 0.5 < result.auc_interval[1]
    fakes = release.sample(EXAMPLES.labels, seed=1)
    images = np.concatenate([EXAMPLES.images, fakes]).astype(np.float32) / 255
    of_labels = np.tile(EXAMPLES.labels, 2)[:, None]
    scores = np.take_along_axis(networks["critic"](images).numpy(), of_labels, axis=1)
    assert sklearn.metrics.roc_auc_score(np.repeat([1, 0], len(EXAMPLES)), scores) > 0.9  # it is a critic still


@pytest.mark.slow
@pytest.mark.parametrize("is_long", [False, True], ids=["own settings", "long training"])
@pytest.mark.parametrize("name", ["c_vae", "dp_gan"])
def test_at_epsilon_1_no_attack_exceeds_its_upper_bound(name: str, is_long: bool) -> None:
    examples, method = (EXAMPLES, LONG[name]) if is_long else (SPLITS.train, name)
    networks = {}
    release = train(method, examples, PrivacyBudget(1.0, DELTA), verbose=0, networks=networks)
    results = run_attacks(release, examples, SPLITS.holdout, networks=networks, repetitions=5, seed=0)
    of_networks = {"c_vae": {"vae_reconstruction", "vae_elbo"}, "dp_gan": set(OF_CRITICS)}[name]
    assert set(results) > of_networks | {"classifier_holdout", "gan_leaks", "gan_leaks_calibrated", "monte_carlo"}
    epsilon, delta = release.statement.epsilon, release.statement.delta
    assert 0.9 < epsilon <= 1.0
    print({key: round(result.auc, 3) for key, result in results.items()}, strongest_attack(results))
    assert above_their_bounds(results, epsilon, delta) == set()
    allowed = upper_bounds_of(epsilon, delta)["add_or_remove"]
    for result in results.values():
        if result.is_membership:
            assert result.privacy_loss <= allowed["privacy_loss"]
            assert result.auc <= allowed["auc"]

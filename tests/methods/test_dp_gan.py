"""DP-GAN: trains through a session, gives images of any shape that Keras keeps, and keeps what a backup needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.methods.dp_gan import DPGAN, losses
from tfdpgen.methods.method import Fitted
from tfdpgen.networks.gan import build_critic, build_generator
from tfdpgen.privacy import NoiseSource, PrivacyBudget
from tfdpgen.privacy.clipping import check_network
from tfdpgen.privacy.session import PrivateSession
from tfdpgen.privacy.trainer import Trainer

_BUDGET = PrivacyBudget(3.0, 1e-5)
_SETTINGS = DPGAN(
    latent_dim=8,
    generator_filters=4,
    critic_filters=4,
    expected_batch_size=40,
    steps=6,
    critic_steps_per_generator_step=2,
    num_fakes=16,
)


@pytest.fixture(scope="module")
def digits() -> LabeledDataset:
    return load_splits("digits").train.in_memory()


def _fit(digits: LabeledDataset, noise: NoiseSource | None = None, seed: int = 0) -> Fitted:
    plan = _SETTINGS.plan(digits.spec, len(digits), _BUDGET).calibrate(_BUDGET)
    return _SETTINGS.fit(PrivateSession(digits, plan, _BUDGET, noise=noise), seed=seed, verbose=0)


@pytest.fixture(scope="module")
def fitted(digits: LabeledDataset) -> Fitted:
    return _fit(digits)


def _inputs(latent_dim: int, size: int = 5) -> list[Any]:
    latents = np.random.default_rng(0).normal(size=(size, latent_dim)).astype(np.float32)
    return [tf.constant(latents), tf.range(size, dtype=tf.int64) % 3]


def _weights(fitted: Fitted) -> list[npt.NDArray[Any]]:
    return [*fitted.generator.get_weights(), *fitted.networks["critic"].get_weights()]


def test_the_generator_gives_images_and_the_critic_scores(fitted: Fitted) -> None:
    images = fitted.generator(_inputs(8))
    assert images.shape == (5, 8, 8, 1)
    assert images.dtype == tf.float32
    assert 0 <= float(tf.reduce_min(images)) < float(tf.reduce_max(images)) <= 1
    scores = fitted.networks["critic"](images)
    assert scores.shape == (5, 10)
    assert all(np.all(np.isfinite(weight)) for weight in _weights(fitted))


def test_an_image_depends_on_its_latent_and_label_alone(fitted: Fitted) -> None:
    latents, labels = _inputs(8)
    together = fitted.generator([latents, labels])
    np.testing.assert_allclose(together[2:3], fitted.generator([latents[2:3], labels[2:3]]), atol=1e-5)
    assert float(tf.reduce_max(tf.abs(together - fitted.generator([latents, labels + 1])))) > 1e-3


def test_keras_keeps_the_generator(fitted: Fitted, tmp_path: Path) -> None:
    fitted.generator.save(tmp_path / "generator.keras")
    again = tf.keras.models.load_model(tmp_path / "generator.keras")
    np.testing.assert_array_equal(again(_inputs(8)), fitted.generator(_inputs(8)))


def test_noise_and_seed_decide_the_weights(digits: LabeledDataset) -> None:
    first, second = (_fit(digits, NoiseSource.insecure(5)) for _ in range(2))
    for one, other in zip(_weights(first), _weights(second), strict=True):
        np.testing.assert_array_equal(one, other)
    other_noise = _fit(digits, NoiseSource.insecure(6))
    changed = [np.any(one != other) for one, other in zip(_weights(first), _weights(other_noise), strict=True)]
    assert sum(changed) > len(changed) / 2


def test_a_loss_is_that_of_the_label_alone() -> None:
    rng = np.random.default_rng(0)
    labels = tf.constant([2, 0, 1], tf.int64)
    scores = tf.Variable(rng.normal(size=(3, 4)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        values = losses(scores, labels, 1.0)
    own = np.eye(4)[labels.numpy()] > 0
    gradient = tape.gradient(values, scores).numpy()
    assert np.all(gradient[own] < 0)  # a real image should score higher
    assert np.all(gradient[~own] == 0)
    others = scores + tf.constant(~own, tf.float32) * 3.0
    np.testing.assert_array_equal(values, losses(others, labels, 1.0))
    assert np.all(losses(scores, labels, 1.0).numpy() != losses(scores, labels, -1.0).numpy())


def test_a_backup_of_the_state_is_all_that_a_generator_step_needs(
    digits: LabeledDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(self: Trainer, *, after_step: Any, state: Any, verbose: int) -> None:
        def step() -> list[npt.NDArray[Any]]:
            for number in range(_SETTINGS.steps):
                after_step(number)
            return [*state["generator"].get_weights(), *(average.numpy() for average in state["averages"])]

        step()
        checkpoint = tf.train.Checkpoint(**state)
        path = checkpoint.write(str(tmp_path / "state"))
        seen.append(step())
        checkpoint.read(path).assert_consumed()
        seen.append(step())

    monkeypatch.setattr(Trainer, "run", run)
    _fit(digits)
    for one, again in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (9, 15, 1), (16, 40, 3), (128, 128, 3)])
def test_there_are_networks_for_every_shape(shape: tuple[int, int, int]) -> None:
    generator = build_generator(shape, 3, 8, 4, seed=0)
    critic = build_critic(shape, 3, 4, seed=0)
    check_network(critic)
    images = generator(_inputs(8))
    assert images.shape == (5, *shape)
    assert critic(images).shape == (5, 3)
    again = build_generator(shape, 3, 8, 4, seed=0)
    np.testing.assert_array_equal(again(_inputs(8)), images)


@pytest.mark.parametrize("num_examples", [3, 1_077, 60_000])
def test_settings_suit_any_number_of_examples(num_examples: int) -> None:
    spec = DataSpec((28, 28, 1), 10)
    plan = DPGAN.for_data(spec, num_examples).plan(spec, num_examples, _BUDGET)
    assert plan.num_examples == num_examples
    assert not plan.is_calibrated

"""DP diffusion: the mixture's denoiser is exact, an untrained network changes nothing, and a trained one helps."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from scipy import stats

from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.features.dct import DCT, ORIGIN
from tfdpgen.methods import DPDiffusion, GaussianMixture, train
from tfdpgen.methods import dp_diffusion as module
from tfdpgen.methods.gaussian_mixture import measure_mixture
from tfdpgen.networks.layers import set_weights
from tfdpgen.networks.mixture import build_denoiser, set_mixture
from tfdpgen.networks.unet import build_unet
from tfdpgen.privacy import PrivacyBudget
from tfdpgen.privacy.clipping import check_network
from tfdpgen.privacy.session import PrivateSession

_SHAPE, _VARIANCE = (4, 5, 1), 0.02
_CLASSES, _COMPONENTS, _RANK = 3, 2, 4


@pytest.fixture(scope="module")
def digits() -> LabeledDataset:
    return load_splits("digits").train.in_memory()


def _mixture(covariances: int) -> tuple[npt.NDArray[Any], ...]:
    """Weights, means and factors of orthogonal columns, in the space of 7 DCT coefficients."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(_COMPONENTS), _CLASSES)
    means = rng.normal(scale=0.5, size=(_CLASSES * _COMPONENTS, 7))
    axes = [np.linalg.qr(rng.normal(size=(7, 7)))[0][:, : _RANK - 1] for _ in range(covariances)]
    return weights, means, np.stack(axes) * rng.uniform(0.1, 0.8, (covariances, 1, _RANK - 1))


def _denoiser(covariances: int) -> Any:
    basis = DCT(_SHAPE, 7).basis
    return build_denoiser(basis, ORIGIN, _SHAPE, _CLASSES, _COMPONENTS, covariances, _RANK, _VARIANCE)


@pytest.mark.parametrize("covariances", [1, _CLASSES * _COMPONENTS])
def test_the_denoiser_gives_the_exact_posterior_of_the_mixture(covariances: int) -> None:
    weights, means, factors = _mixture(covariances)
    denoiser, basis, pixels = _denoiser(covariances), DCT(_SHAPE, 7).basis.astype(float), math.prod(_SHAPE)
    set_mixture(denoiser, weights, means, factors)
    rng = np.random.default_rng(1)
    images, labels = rng.uniform(size=(9, *_SHAPE)), np.arange(9) % _CLASSES
    levels = rng.uniform(0.1, 1.0, (9, 1))
    mean, deviation = denoiser([tf.constant(images, tf.float32), tf.constant(levels, tf.float32), tf.constant(labels)])
    for number, label in enumerate(labels):
        seen, noise = images[number].ravel(), levels[number, 0] ** 2
        shares, posterior_means, variances = [], [], []
        for component in range(_COMPONENTS):
            group = label * _COMPONENTS + component
            loading = basis @ factors[group if covariances > 1 else 0]
            covariance = loading @ loading.T + _VARIANCE * np.eye(pixels)
            mean_of_component = ORIGIN + basis @ means[group]
            noisy = covariance + noise * np.eye(pixels)
            shares.append(weights[label, component] * stats.multivariate_normal(mean_of_component, noisy).pdf(seen))
            gain = covariance @ np.linalg.inv(noisy)
            posterior_means.append(mean_of_component + gain @ (seen - mean_of_component))
            variances.append(np.trace(covariance - gain @ covariance) / pixels)
        parts = np.array(shares) / sum(shares)
        np.testing.assert_allclose(np.ravel(mean[number]), parts @ np.array(posterior_means), atol=1e-4)
        assert float(deviation[number, 0]) == pytest.approx(math.sqrt(parts @ variances), rel=1e-4)


def test_no_noise_changes_nothing_and_much_leaves_the_mean_of_the_class() -> None:
    weights, means, factors = _mixture(1)
    denoiser = _denoiser(1)
    set_mixture(denoiser, weights, means, factors)
    images, labels = np.random.default_rng(2).uniform(size=(6, *_SHAPE)).astype(np.float32), np.arange(6) % _CLASSES
    inputs = tf.constant(images), tf.constant(labels)
    clean, _ = denoiser([inputs[0], tf.fill([6, 1], 1e-3), inputs[1]])
    np.testing.assert_allclose(clean, images, atol=1e-3)
    blind, _ = denoiser([inputs[0], tf.fill([6, 1], 1e3), inputs[1]])
    of_class = np.einsum("ck,ckd->cd", weights, means.reshape(_CLASSES, _COMPONENTS, 7))[labels]
    expected = ORIGIN + of_class @ DCT(_SHAPE, 7).basis.T
    np.testing.assert_allclose(np.reshape(blind, [6, -1]), expected, atol=1e-2)


def test_pretraining_learns_from_samples_of_the_mixture(digits: LabeledDataset) -> None:
    """That images are cut off at 0 and 1 is what the mixture does not know, and what its samples teach."""
    denoiser = _started(_settings(public_steps=100), digits, PrivacyBudget(30.0, 1e-5), rank=64)
    labels = np.arange(500) % 10
    samples = _sampled(denoiser._mixture.generator(1.0), 500)
    held = LabeledDataset(np.rint(255 * samples).astype(np.uint8), labels, digits.spec)
    before = float(tf.reduce_mean(denoiser.losses(_Held(held))))
    vector = denoiser.pretrained(seed=0, verbose=0)
    set_weights([denoiser.unet], vector)
    assert float(tf.reduce_mean(denoiser.losses(_Held(held)))) < 0.985 * before  # about .965, whatever the noise
    np.testing.assert_array_equal(np.concatenate([np.ravel(w) for w in denoiser.unet.trainable_variables]), vector)


def _settings(**changes: Any) -> DPDiffusion:
    mixture = GaussianMixture(64, latent_scale=1.2)
    few = DPDiffusion(mixture, filters=4, expected_batch_size=64, steps=2, sampling_steps=8, public_steps=0)
    return dataclasses.replace(few, **changes)


def _fitted(settings: DPDiffusion, dataset: LabeledDataset) -> tf.keras.Model:
    budget = PrivacyBudget(10_000.0, 1e-5)
    plan = settings.plan(dataset.spec, len(dataset), budget)
    plan = dataclasses.replace(plan, accountant="rdp").calibrate(budget)  # which is quick where there is little noise
    return settings.fit(PrivateSession(dataset, plan, budget), seed=0, verbose=0).generator


def _started(settings: DPDiffusion, dataset: LabeledDataset, budget: PrivacyBudget, *, rank: int) -> Any:
    """A denoiser whose mixture is released, and whose network has learnt nothing yet."""
    plan = settings.plan(dataset.spec, len(dataset), budget)
    plan = dataclasses.replace(plan, accountant="rdp").calibrate(budget)
    session = PrivateSession(dataset, plan, budget)
    denoiser = module._Denoiser(settings, session, seed=0)
    session.trainer("dp_sgd", [denoiser.unet], denoiser.losses, learning_rate=1e-3)
    denoiser.start_from(measure_mixture(session, denoiser.space, 1.0, rank, 0))
    return denoiser


def _sampled(generator: tf.keras.Model, num: int) -> npt.NDArray[Any]:
    labels = np.arange(num) % 10
    latents = np.random.default_rng(0).normal(size=(num, generator.inputs[0].shape[1])).astype(np.float32)
    return np.asarray(generator([tf.constant(latents), tf.constant(labels)]))


def test_a_network_that_has_learnt_nothing_samples_the_mixture(
    digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means and covariances of samples are those of the mixture, whatever noise the sampler starts from."""
    monkeypatch.setattr(module, "_VARIANCE", 1e-4)
    denoiser = _started(_settings(), digits, PrivacyBudget(10_000.0, 1e-5), rank=64)
    images = _sampled(denoiser.sampler(), 1000)
    measured = {}
    for label in (0, 1):
        mine = images[np.arange(len(images)) % 10 == label].reshape(-1, 64)
        measured[label] = mine.mean(axis=0)
    real = [digits.images[digits.labels == label].reshape(-1, 64).mean(axis=0) / 255 for label in (0, 1)]
    for label in (0, 1):
        assert np.abs(measured[label] - real[label]).mean() < 0.06
    assert np.abs(measured[0] - real[1]).mean() > 0.12


class _Held:
    """A batch of examples that no training has seen; the same draws each time."""

    def __init__(self, dataset: LabeledDataset) -> None:
        self.images = tf.constant(dataset.images.astype(np.float32) / 255)
        self.labels = tf.constant(dataset.labels)
        self._rng, self._size = np.random.default_rng(3), len(dataset)

    def normal(self, shape: Any = ()) -> tf.Tensor:
        return tf.constant(self._rng.normal(size=(self._size, *shape)), tf.float32)

    def uniform(self, shape: Any = ()) -> tf.Tensor:
        return tf.constant(self._rng.random((self._size, *shape)), tf.float32)


def test_what_is_learnt_takes_off_what_the_mixture_leaves(
    digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of held-out examples, by the loss that is trained on; with little noise, so that so few examples teach it."""
    part, rest = digits.take(np.arange(800)), digits.take(np.arange(800, len(digits)))
    made: list[Any] = []
    start = module._Denoiser.__init__

    def noted(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(module._Denoiser, "__init__", noted)
    coarse = GaussianMixture(20, components=1)
    _fitted(_settings(warm_start=coarse, steps=100, learning_rate=5e-3), part)
    learnt = float(tf.reduce_mean(made[0].losses(_Held(rest))))
    last = made[0].unet.get_layer("last")
    last.set_weights([np.zeros_like(weight) for weight in last.get_weights()])  # as it was before
    assert learnt < 0.9 * float(tf.reduce_mean(made[0].losses(_Held(rest))))


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 14, 3), (28, 28, 1), (70, 64, 3)])
def test_the_u_net_keeps_any_shape_and_can_be_clipped(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    network = build_unet((height, width, 2 * channels), channels, 5, 4, seed=0)
    check_network(network)
    found = network([tf.zeros([2, height, width, 2 * channels]), tf.zeros([2, 5])])
    assert found.shape == (2, *shape)
    assert not np.any(found)


def test_without_a_warm_start_dp_sgd_gets_the_whole_budget(digits: LabeledDataset) -> None:
    plain = _settings(warm_start=None, largest_noise=10.0, views=2)
    release = train(plain, digits, PrivacyBudget(3.0, 1e-5), verbose=0)
    assert [part["name"] for part in release.statement.mechanisms] == ["DP-SGD"]
    images = release.sample(np.arange(10), seed=0)
    assert images.shape == (10, 8, 8, 1)
    assert images.std() > 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filters", 0),
        ("views", 0),
        ("sampling_steps", 0),
        ("learning_rate", math.inf),
        ("largest_noise", 0.01),
        ("dp_sgd_share", 1.0),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        _settings(**{name: value})

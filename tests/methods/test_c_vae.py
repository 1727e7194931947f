"""The C-VAE's parts: poses, linear halves and their posterior, components, and what DP-SGD adds to them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import NearestCentroid

from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.methods import CVAE, CVAEPreset, c_vae, moments
from tfdpgen.methods.c_vae import preset_for
from tfdpgen.networks import poses, vae
from tfdpgen.networks.waves import CENTRE
from tfdpgen.privacy import DPSGD, ClassCentres, ClassMoments, NoiseSource, NoisyCounts, PrivacyBudget, epsilon_of
from tfdpgen.privacy.statistics import Centres, Moments
from tfdpgen.release import Release, export_saved_model

_ROWS = load_splits("digits").train.in_memory()
_PRESET = CVAEPreset(
    latent_dim=12, hidden_units=(16,), expected_batch_size=200, steps=30, num_waves=20, has_poses=True, components=2
)
_TINY = 1e-6  # noise multiplier of a release that can be compared


def _blob(right: float, down: float, lean: float, size: int = 24) -> np.ndarray:
    """A Gaussian spot, wide and high, [1, size, size, 1]."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    y = y - down
    x = x - right - lean * y
    return np.exp(-(x**2) / 8 - y**2 / 18).astype(np.float32)[None, ..., None]


@pytest.mark.parametrize(("right", "down", "lean"), [(0, 0, 0), (2.5, -1.25, 0), (0, 0, 0.4), (-1.5, 2, -0.3)])
def test_a_pose_is_measured_taken_off_and_given_back(right: float, down: float, lean: float) -> None:
    image = tf.constant(_blob(right, down, lean))
    found = poses.measured(image)
    np.testing.assert_allclose(found[0], [right, down, lean], atol=0.03)
    upright = poses.moved(image, found)
    np.testing.assert_allclose(upright, _blob(0, 0, 0), atol=0.06)
    np.testing.assert_allclose(poses.measured(upright)[0], [0, 0, 0], atol=0.03)
    np.testing.assert_allclose(poses.moved(upright, found, back=True), image, atol=0.09)


def test_a_pose_is_that_of_the_image_alone_and_of_a_dark_one_too() -> None:
    images = np.random.default_rng(0).random((5, 9, 15, 3)).astype(np.float32)
    together = poses.moved(tf.constant(images), poses.measured(tf.constant(images)))
    alone = poses.moved(tf.constant(images[2:3]), poses.measured(tf.constant(images[2:3])))
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
    dark = tf.zeros([1, 9, 15, 3])
    np.testing.assert_array_equal(poses.measured(dark), 0)
    np.testing.assert_array_equal(poses.moved(dark, poses.measured(dark)), dark)
    np.testing.assert_array_equal(poses.moved(images, np.zeros((5, 3), np.float32)), images)


def test_the_linear_halves_are_gaussians_and_their_posterior() -> None:
    rng, variance = np.random.default_rng(0), 0.3
    means, factors = rng.normal(size=(4, 6)), rng.normal(size=(4, 6, 3))
    encoder, decoder = vae.build_encoder(6, 4, 3, (5,), seed=0), vae.build_decoder(6, 4, 3, (5,), seed=0)
    vae.set_gaussians(encoder, decoder, means, factors, variance)
    groups, features = np.eye(4, dtype=np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    latents = rng.normal(size=(4, 3)).astype(np.float32)
    expected = means + np.einsum("gdl,gl->gd", factors, latents)
    np.testing.assert_allclose(decoder([latents, groups]), expected, rtol=1e-4, atol=1e-5)
    # The joint Gaussian of latents and features, conditioned on the features.
    gains = factors.transpose(0, 2, 1) @ np.linalg.inv(factors @ factors.transpose(0, 2, 1) + variance * np.eye(6))
    mean, log_variance = encoder([features, groups])
    np.testing.assert_allclose(mean, np.einsum("gld,gd->gl", gains, features - means), rtol=1e-3, atol=1e-4)
    covariances = np.eye(3) - gains @ factors
    np.testing.assert_allclose(np.exp(log_variance), np.diagonal(covariances, axis1=1, axis2=2), rtol=1e-3)


def test_one_latent_chooses_components_with_their_probabilities() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    selector = vae.build_selector(probabilities)
    draws = np.random.default_rng(0).normal(size=(20_000, 1)).astype(np.float32)
    for label in (0, 1):
        chosen = selector([draws, np.full(len(draws), label)]).numpy()
        np.testing.assert_allclose(chosen.sum(axis=1), 1.0, atol=1e-5)
        assert np.mean((chosen > 0.99).any(axis=1)) > 0.999
        shares = chosen.mean(axis=0).reshape(2, 3)
        np.testing.assert_allclose(shares[label], probabilities[label], atol=0.015)
        np.testing.assert_array_equal(shares[1 - label], 0)


_CHOICE = ["centres of classes with poses", "centres of classes without poses", "rows nearest to their own class"]


def _started(preset: CVAEPreset = _PRESET) -> CVAE:
    """A model whose moments have hardly any noise."""
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    radius = 10.0
    mechanisms = [ClassMoments(_TINY, radius), ClassMoments(_TINY, radius, name="moments of components")]
    model.prepare(_ROWS, mechanisms[: preset.components], NoiseSource(), 0)
    return model


def test_it_starts_as_the_gaussians_of_its_components() -> None:
    """Means and variances of what the decoder makes are those of the rows, class by class."""
    model = _started(dataclasses.replace(_PRESET, latent_dim=23))
    features, labels = (np.concatenate(parts) for parts in zip(*model._blocks(_ROWS), strict=True))
    _, places = (np.concatenate(parts) for parts in zip(*model._blocks(_ROWS, by_component=True), strict=True))
    np.testing.assert_array_equal(places // 2, labels)  # a component is of its own class
    assert len(np.unique(places)) == 20
    rng = np.random.default_rng(0)
    for place in (0, 7, 13):
        rows = features[places == place]
        latents = rng.normal(size=(4000, model.axes)).astype(np.float32)
        made = model.decoder([latents, np.eye(20, dtype=np.float32)[np.full(4000, place)]]).numpy()
        np.testing.assert_allclose(made.mean(axis=0), rows.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(made.std(axis=0), rows.std(axis=0), atol=0.05)
        assert model._shares.numpy().reshape(-1)[place] == pytest.approx(
            len(rows) / np.sum(labels == place // 2), abs=1e-3
        )


def test_measured_from_centres_the_moments_are_the_same() -> None:
    """Without noise and with a long reach, it does not matter what features are measured from."""
    preset = dataclasses.replace(_PRESET, latent_dim=23, components=1)
    made = []
    for centres in ([], [ClassCentres(_TINY, 10.0)]):
        model = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
        model.prepare(_ROWS, [*centres, ClassMoments(_TINY, 30.0)], NoiseSource(), 0)
        weights = model.decoder.get_layer("factors").get_weights()[0].reshape(10, 23, 23)
        covariances = weights.transpose(0, 2, 1) @ weights
        made.append((model.decoder.get_layer("factors_means").get_weights()[0], covariances))
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_under_much_noise_they_are_measured_from_one_centre_that_knows_no_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sum is that of all rows, so that its noise is small beside them, and it lies in the middle of the classes."""
    seen: list[Any] = []

    class SeeingCentre(ClassCentres):
        def release(self, blocks: Any, size: int, classes: int, noise: NoiseSource) -> Centres:
            seen.append((size, classes))
            return super().release(blocks, size, classes, noise)

    class SeeingMoments(ClassMoments):
        def release(self, blocks: Any, *arguments: Any) -> Any:
            blocks = list(blocks)
            seen.extend(np.concatenate(parts) for parts in zip(*blocks, strict=True))
            return super().release(blocks, *arguments)

    preset = dataclasses.replace(_PRESET, components=1, noisy_waves=10)
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    monkeypatch.setattr(moments.MomentsPlan, "is_outweighed", lambda *_: True)  # the centre's noise is left out here
    statistics = [SeeingCentre(_TINY, 10.0, name="centre of all rows"), SeeingMoments(_TINY, 0.7)]
    model.prepare(_ROWS, statistics, NoiseSource(), 0)
    shape, measured, labels = seen
    assert shape == (13, 1)
    features = np.concatenate([features for features, _ in model._blocks(_ROWS, 13)])
    distance = np.sqrt(np.mean(np.sum(np.square(features - features.mean(axis=0)), axis=1)))
    np.testing.assert_allclose(measured, (features - features.mean(axis=0)) / distance, atol=1e-3)
    np.testing.assert_array_equal(labels, _ROWS.labels)


def test_centres_that_poses_were_asked_by_make_one_centre_too() -> None:
    rng = np.random.default_rng(0)
    features, labels = (
        rng.normal(size=(3000, 5)) + np.arange(3000)[:, None] % 3 * [1.0, 0, 0, 0, -2],
        np.arange(3000) % 3,
    )
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    distance = np.sqrt(np.mean(np.sum(np.square(features - means[labels]), axis=1)))
    together = c_vae._together(Centres(means, distance))
    np.testing.assert_allclose(together.means, np.tile(features.mean(axis=0), (3, 1)))
    assert together.distance**2 == pytest.approx(np.mean(np.sum(np.square(features - features.mean(axis=0)), axis=1)))


class _Seeing(ClassMoments):
    """Remembers what it is given."""

    seen: ClassVar[list[tuple[np.ndarray, np.ndarray]]]

    def release(self, blocks: Any, *arguments: Any) -> Any:
        blocks = list(blocks)
        features, places = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        self.seen.append((features, places))
        return super().release(blocks, *arguments)


def _rms(features: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(np.square(features), axis=1))))


@pytest.mark.parametrize("noise_multiplier", [_TINY, 0.01])
def test_rows_are_measured_in_usual_distances_from_their_centres(noise_multiplier: float) -> None:
    """Of classes, and of components too: that is what makes one reach fit all.

    Noise in the covariances, in which components are found, makes their draws a third wider, but no unit longer.
    """
    _Seeing.seen = []
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, _PRESET)
    first, second = _Seeing(noise_multiplier, 30.0), _Seeing(_TINY, 30.0, name=moments.COMPONENTS)
    model.prepare(_ROWS, [ClassCentres(_TINY, 10.0), first, second], NoiseSource(), 0)
    for features, _ in _Seeing.seen:
        assert _rms(features) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("posed", [True, False])
def test_rough_components_are_those_of_the_lowest_frequencies_where_poses_do_not_suit(
    posed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where poses suit, the same mechanism measures the classes again, in all features."""
    preset = dataclasses.replace(
        _PRESET, latent_dim=23, noisy_waves=10, has_poses=None, components=3, rough_reach=0.6, rough_spread=1.7
    )
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    monkeypatch.setattr(
        model, "_nearest_to_own", lambda rows, _: np.full(len(rows), bool(model._posed.numpy()) == posed)
    )
    asked = [*(ClassCentres(_TINY, 10.0, name=name) for name in _CHOICE[:2]), NoisyCounts(1e-3, 2, name=_CHOICE[2])]
    _Seeing.seen = []
    statistics = [_Seeing(_TINY, 1.2), _Seeing(_TINY, 1.2, name=moments.ROUGH)]
    model.prepare(_ROWS, [*asked, *statistics], NoiseSource(), 0)
    (of_classes, labels), (measured, places) = _Seeing.seen
    np.testing.assert_array_equal(labels, _ROWS.labels)
    np.testing.assert_array_equal(places if posed else places // 3, _ROWS.labels)
    assert posed or set(np.unique(places % 3)) == {0, 1}
    size = 23 if posed else 13
    assert of_classes.shape[1] == measured.shape[1] == model.num_measured == size
    # The mechanism bounds rows at 1.2 of what they are measured in, and so at .6 of the usual distance.
    assert _rms(measured) == pytest.approx(1.0 if posed else 2.0, rel=0.15)
    assert float(model._spread.numpy()) == pytest.approx(preset.spread if posed else 1.7)
    assert np.all(np.count_nonzero(model._shares.numpy(), axis=1) == (1 if posed else 2))
    latents = np.random.default_rng(0).normal(size=(50, 23)).astype(np.float32)
    made = model.decoder([latents, np.eye(30, dtype=np.float32)[np.arange(50) % 10 * 3]]).numpy()
    assert np.all(np.any(made[:, 3 * (not posed) : size] != 0, axis=0))  # the features before that are a pose
    np.testing.assert_array_equal(made[:, size:], 0)


@pytest.mark.parametrize("posed", [True, False])
@pytest.mark.parametrize("lead", [0.08, 0.1])
def test_many_rows_are_asked_about_rough_components(posed: bool, lead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told where 9 % more are nearest to one of their class than to its mean; else classes are measured again."""
    preset = dataclasses.replace(_PRESET, latent_dim=23, noisy_waves=10, has_poses=None, components=3)
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    by = []

    def nearest_to_own(rows: LabeledDataset, centres: np.ndarray) -> np.ndarray:
        by.append(centres)
        shares = [float(posed), float(not posed), 0.5, 0.5 + lead]
        return np.arange(len(rows)) < shares[len(by) - 1] * len(rows)

    monkeypatch.setattr(model, "_nearest_to_own", nearest_to_own)
    asked = [*(ClassCentres(_TINY, 10.0, name=name) for name in _CHOICE[:2]), NoisyCounts(1e-3, 2, name=_CHOICE[2])]
    again = [NoisyCounts(1e-3, 2, name=moments.NEAR_COMPONENTS), _Seeing(_TINY, 1.2, name=moments.ROUGH)]
    _Seeing.seen = []
    model.prepare(_ROWS, [*asked, _Seeing(_TINY, 1.2), *again], NoiseSource(), 0)
    are_told = not posed and lead > 0.09
    first = 23 if posed else 13
    assert [len(centres) for centres in by] == [10, 10, 10, 30]
    assert by[2].shape[1] == by[3].shape[1] == first
    (of_classes, _), (measured, places) = _Seeing.seen
    assert of_classes.shape[1] == 23
    assert measured.shape[1] == model.num_measured == (13 if are_told else 23)
    np.testing.assert_array_equal(places // 3 if are_told else places, _ROWS.labels)
    # Rough ones in units of what is usual in all features, of which those that are measured have a part.
    differences = np.concatenate([features - by[1][labels] for features, labels in model._blocks(_ROWS)])
    part = _rms(differences[:, :13]) / _rms(differences)
    assert _rms(measured) == pytest.approx(1.2 / 0.85 * part if are_told else 1.0, rel=0.15)
    if not are_told:  # of all features, centres are known
        np.testing.assert_allclose(measured.mean(axis=0), 0, atol=0.02)
    spreads = {True: preset.rough_spread, False: preset.spread if posed else preset.still_spread}
    assert float(model._spread.numpy()) == pytest.approx(spreads[are_told])


def test_where_noise_outweighs_rows_the_highest_frequencies_are_left_out() -> None:
    preset = dataclasses.replace(_PRESET, noisy_waves=10, components=1, latent_dim=23)
    for noise_multiplier, size in ((_TINY, 23), (50.0, 13)):
        model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
        model.prepare(_ROWS, [ClassMoments(noise_multiplier, 10.0)], NoiseSource(), 0)
        latents = np.random.default_rng(0).normal(size=(50, 23)).astype(np.float32)
        made = model.decoder([latents, np.eye(10, dtype=np.float32)[np.arange(50) % 10]]).numpy()
        assert np.all(np.any(made[:, :size] != 0, axis=0))
        np.testing.assert_array_equal(made[:, size:], 0)


def test_how_many_components_there_are_follows_from_rows_and_noise() -> None:
    """One at epsilon 1, more with more epsilon, never more than the preset has; those that are not told are empty."""
    spec = DataSpec((28, 28, 1), 10)
    told = []
    for epsilon in (1.0, 3.0, 10.0, 30.0):
        model = CVAE(spec, 54_000, 0)
        last: Any = model.alongside(PrivacyBudget(epsilon, 1e-5))[-1]
        told.append(model.moments.num_components(last.noise_multiplier))
    assert told[0] == 1
    assert 1 < told[1] < told[2] <= told[3] == model.preset.components
    model = CVAE(_ROWS.spec, len(_ROWS), 0, dataclasses.replace(_PRESET, components=5))
    needed = moments.ROWS_IN_COMPONENT * model.num_features
    second = ClassMoments(len(_ROWS) / (10 * 3.5 * needed), 1.2, name="moments of components")
    model.prepare(_ROWS, [ClassCentres(_TINY, 10.0), ClassMoments(_TINY, 1.2), second], NoiseSource(), 0)
    assert np.all(np.count_nonzero(model._shares.numpy(), axis=1) == 3)
    _, places = (np.concatenate(parts) for parts in zip(*model._blocks(_ROWS, by_component=True), strict=True))
    assert set(np.unique(places % 5)) == {0, 1, 2}


def test_no_example_is_of_a_component_that_is_not_told_however_products_are_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a component is a copy of the first; a processor may round the distance to it below that to the first."""
    model = CVAE(_ROWS.spec, len(_ROWS), 0, dataclasses.replace(_PRESET, components=4))
    centres = np.random.default_rng(0).normal(size=(10, 4, model.num_features)).astype(np.float32)
    centres[:, 2:] = centres[:, :1]
    model._centres.assign(centres)
    matmul = tf.linalg.matmul

    def rounded(a: tf.Tensor, b: tf.Tensor, **arguments: Any) -> tf.Tensor:
        return matmul(a, b, **arguments) + 1e-4 * tf.range(40.0) if "transpose_b" in arguments else matmul(a, b)

    monkeypatch.setattr(tf.linalg, "matmul", rounded)
    features = tf.constant(centres[:, :2].reshape(20, -1))
    groups = model._groups(features, tf.one_hot(np.arange(20) // 2, 10)).numpy()
    np.testing.assert_array_equal(groups.argmax(axis=1), np.arange(20) // 2 * 4 + np.arange(20) % 2)


@pytest.mark.parametrize(
    ("epsilon", "num_features", "names"),
    [
        (10.0, 93, [*_CHOICE, "class moments", moments.ROUGH]),
        (5.0, 67, [*_CHOICE, "class moments", moments.ROUGH]),
        (3.0, 93, [*_CHOICE, "class moments"]),
        (100.0, 153, [*_CHOICE, "class moments", "moments of components"]),
    ],
)
def test_rough_components_of_few_rows_have_as_many_features_as_the_noise_allows(
    epsilon: float, num_features: int, names: list[str]
) -> None:
    """6,000 rows: at epsilon 3 noise outweighs them, at 100 components are told in all features."""
    spec = DataSpec((28, 28, 1), 10)
    model: Any = CVAE(spec, 6000, 0, dataclasses.replace(preset_for(spec, 6000), hidden_units=(4,)))
    mechanisms = model.alongside(PrivacyBudget(epsilon, 1e-5))
    assert [mechanism.name for mechanism in mechanisms] == names
    assert model.moments.is_outweighed(mechanisms) is (epsilon == 3.0)
    rows = LabeledDataset(np.zeros((20, 28, 28, 1), np.uint8), np.arange(20) % 10, spec)
    model._nearest_to_own = lambda *_: np.zeros(6000, bool)
    model.prepare(rows, mechanisms, NoiseSource(), 0)
    assert model.num_measured == num_features
    together = sum(mechanism.noise_multiplier**-2 for mechanism in mechanisms) ** -0.5
    cost = epsilon_of(ClassMoments(together, 1.0).event, 1e-5)
    assert 0.99 * model.preset.moments_share * epsilon < cost <= model.preset.moments_share * epsilon * (1 + 1e-6)


def test_where_no_components_are_rough_the_mechanism_of_these_measures_the_classes_again() -> None:
    """As with features that are no frequencies: all of them, and as far as ever."""
    preset = dataclasses.replace(_PRESET, latent_dim=20, has_poses=False, noisy_waves=10, rough_components=1)
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    _Seeing.seen = []
    statistics = [ClassCentres(_TINY, 10.0), _Seeing(_TINY, 1.2), _Seeing(_TINY, 1.2, name=moments.ROUGH)]
    model.prepare(_ROWS, statistics, NoiseSource(), 0)
    measured, places = _Seeing.seen[1]
    np.testing.assert_array_equal(places, _ROWS.labels)
    assert measured.shape[1] == model.num_measured == 20
    assert _rms(measured) == pytest.approx(1.0, rel=0.15)
    assert float(model._spread.numpy()) == pytest.approx(preset.spread)


def test_classes_that_are_measured_twice_are_what_both_say_by_what_each_costs() -> None:
    """The noise is that of one release: the mean of both before either is made positive semi-definite."""

    class Saying(ClassMoments):
        def release(self, blocks: Any, num_features: int, num_classes: int, noise: Any) -> Moments:
            value = self.radius
            covariances = np.tile(np.diag(np.r_[value - 2.0, np.ones(num_features - 1)]), (num_classes, 1, 1))
            return Moments(np.full(num_classes, value), np.full((num_classes, num_features), value), covariances)

    preset = dataclasses.replace(_PRESET, latent_dim=20, has_poses=False, rough_components=1)
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    model.prepare(_ROWS, [Saying(0.2, 1.0), Saying(0.1, 3.0, name=moments.ROUGH)], NoiseSource(), 0)
    groups, rng = np.eye(20, dtype=np.float32)[np.full(4000, 7)], np.random.default_rng(0)
    made = model.decoder([rng.normal(size=(4000, 20)).astype(np.float32), groups]).numpy()
    np.testing.assert_allclose(made.mean(axis=0), 0.2 * 1.0 + 0.8 * 3.0, atol=0.08)
    np.testing.assert_allclose(made.var(axis=0), [0.2 * -1.0 + 0.8 * 1.0, *np.ones(19)], rtol=0.12)


@pytest.mark.parametrize("name", [moments.COMPONENTS, moments.ROUGH])
def test_rows_that_are_all_alike_have_components_too(name: str) -> None:
    """Of a covariance of nothing all draws are one: no share of it is to be had."""
    rows = LabeledDataset(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 10, _ROWS.spec)
    model: Any = CVAE(_ROWS.spec, 40, 0, dataclasses.replace(_PRESET, has_poses=False, latent_dim=20))
    nothing = Moments(np.full(10, 4.0), np.zeros((10, 20)), np.zeros((10, 20, 20)))
    centres, share = model._found_components(nothing, 20, 2)
    assert share == 1.0
    assert not centres.any()
    mechanisms = [ClassCentres(_TINY, 10.0), ClassMoments(_TINY, 1.2), ClassMoments(_TINY, 1.2, name=name)]
    model.prepare(rows, mechanisms, NoiseSource(), 0)
    assert all(np.all(np.isfinite(weights)) for weights in model.generator().get_weights())


def test_without_components_all_groups_of_a_class_are_that_class() -> None:
    model = CVAE(_ROWS.spec, len(_ROWS), 0, _PRESET)
    model.prepare(_ROWS, [ClassMoments(_TINY, 10.0)], NoiseSource(), 0)
    latents = np.ones((2, model.axes), np.float32)
    for label in (0, 9):
        made = model.decoder([latents, np.eye(20, dtype=np.float32)[[2 * label, 2 * label + 1]]]).numpy()
        np.testing.assert_allclose(made[0], made[1], atol=1e-5)


@pytest.mark.parametrize("told", [1, 2])
def test_the_components_that_are_drawn_are_those_that_training_corrects(told: int) -> None:
    model = _started() if told > 1 else CVAE(_ROWS.spec, len(_ROWS), 0, _PRESET)
    if told == 1:
        model.prepare(_ROWS, [ClassMoments(_TINY, 10.0)], NoiseSource(), 0)
    _, places = (np.concatenate(parts) for parts in zip(*model._blocks(_ROWS, by_component=True), strict=True))
    drawn = np.flatnonzero(model._shares.numpy().ravel())
    np.testing.assert_array_equal(drawn, np.unique(places))
    assert len(drawn) == 10 * told


def _loss(model: CVAE) -> float:
    """-ELBO of the rows with fixed noise."""
    images = tf.constant(_ROWS.images / 255.0, tf.float32)
    features = model.features.described(images, model._posed)
    groups = model._groups(features, tf.one_hot(_ROWS.labels, 10))
    noise = np.random.default_rng(0).normal(size=(len(_ROWS), model.axes)).astype(np.float32)
    return float(np.mean(model.losses(features, groups, tf.constant(noise))))


def test_dp_sgd_trains_the_corrections_of_both_halves_and_nothing_else() -> None:
    """Without noise, and from Gaussians that say nothing, the corrections learn what can be said of the rows."""
    model: Any = CVAE(_ROWS.spec, len(_ROWS), 0, dataclasses.replace(_PRESET, learning_rate=2e-2, steps=60))
    halves = (model.encoder, model.decoder)
    loss, before = _loss(model), [half.get_weights() for half in halves]
    plan = DPSGD(len(_ROWS), 200, 60, l2_norm_clip=1000.0, noise_multiplier=0.0)
    model.learn(_ROWS, plan, NoiseSource(), 0)
    assert _loss(model) < 0.8 * loss
    for half, weights in zip(halves, before, strict=True):
        trained = {id(variable) for variable in half.trainable_variables}
        for variable, old in zip(half.weights, weights, strict=True):
            assert np.array_equal(variable.numpy(), old) is (id(variable) not in trained), variable.name


def test_more_noise_means_smaller_steps_and_all_fall_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    original = DPSGD.optimizer

    def optimizer(self: DPSGD, *arguments: Any, **keywords: Any) -> Any:
        rates.append([float(keywords["learning_rate"](step)) for step in (0, self.steps)])
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(DPSGD, "optimizer", optimizer)
    for noise_multiplier in (0.5, 4.0):
        plan = DPSGD(len(_ROWS), 20, 1, 1.0, noise_multiplier)
        CVAE(_ROWS.spec, len(_ROWS), 0, _PRESET).learn(_ROWS, plan, NoiseSource(), 0)
    np.testing.assert_allclose(rates, [[_PRESET.learning_rate, 0.0], [_PRESET.learning_rate / 4, 0.0]], rtol=1e-5)


def test_the_networks_reconstruct_and_the_decoder_is_the_generator_without_spread() -> None:
    model = _started()
    plan = DPSGD(len(_ROWS), 20, 1, 1.0, 4.0)
    generator = model.learn(_ROWS, plan, NoiseSource(), 0)
    networks = model.networks()
    assert set(networks) == {"encoder", "decoder"}
    images, labels = tf.constant(_ROWS.images[:200] / 255.0, tf.float32), tf.constant(_ROWS.labels[:200])
    mean, log_variance = networks["encoder"]([images, labels])
    assert mean.shape == log_variance.shape == (200, 13)
    rebuilt = networks["decoder"]([mean, labels])
    assert rebuilt.shape == images.shape
    assert 0 <= float(tf.reduce_min(rebuilt)) <= float(tf.reduce_max(rebuilt)) <= 1
    typical = networks["decoder"]([tf.concat([mean[:, :1], tf.zeros([200, 12])], axis=1), labels])
    errors = [float(np.mean(np.square(made - images))) for made in (rebuilt, typical)]
    assert errors[0] < 0.8 * errors[1]
    # The first latent says which component an image is of, and those of the decoder and of the encoder are the same.
    places = np.concatenate([part for _, part in model._blocks(_ROWS, by_component=True)])[:200]
    chosen = vae.build_selector(model._shares.numpy())([mean[:, :1], labels]).numpy().argmax(axis=1)
    np.testing.assert_array_equal(chosen, places)
    spread = tf.concat([mean[:, :1], mean[:, 1:] / _PRESET.spread], axis=1)
    np.testing.assert_allclose(generator([spread, labels]), rebuilt, atol=1e-4)


def test_a_generator_with_poses_and_components_needs_nothing_of_ours(tmp_path: pathlib.Path) -> None:
    plan = DPSGD(len(_ROWS), 20, 1, 1.0, 4.0)
    generator = _started().learn(_ROWS, plan, NoiseSource(), 0)
    release = Release(generator, _ROWS.spec, plan.event, plan.statement(1e-5), "c_vae")
    release.generator.save(tmp_path / "generator.keras")
    loaded: Any = tf.keras.models.load_model(tmp_path / "generator.keras", compile=False)
    labels = tf.constant([3, 0, 9], tf.int64)
    latents = tf.random.stateless_normal([3, release.latent_dim], seed=(0, 1))
    images = release.generator([latents, labels])
    np.testing.assert_allclose(loaded([latents, labels]), images, atol=1e-6)
    export_saved_model(release, tmp_path / "serving")
    served: Any = tf.saved_model.load(str(tmp_path / "serving"))
    result = served.signatures["serving_default"](labels=labels, latents=latents)["images"]
    np.testing.assert_allclose(np.asarray(result, np.float32), np.round(images * 255), atol=1)


@pytest.mark.parametrize(("noise_multiplier", "is_noisy"), [(1e-3, False), (50.0, True)])
def test_images_are_moved_and_latents_not_widened_where_noise_outweighs_rows(
    noise_multiplier: float, is_noisy: bool
) -> None:
    preset = dataclasses.replace(_PRESET, spread=2.0, noisy_spread=0.5, shift=0.25, lean=0.4, components=1)
    model = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    model.prepare(_ROWS, [ClassMoments(noise_multiplier, 10.0)], NoiseSource(), 0)
    generator, decoder = model.generator(), model.networks()["decoder"]
    own = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    labels = np.arange(20) % 10
    moves = np.tile(np.float32([1.0, -0.5, 1.0]), (20, 1))
    still = generator([np.concatenate([own, 0 * moves], axis=1), labels])
    moved = generator([np.concatenate([own, moves], axis=1), labels])
    np.testing.assert_allclose(still, decoder([own * (0.5 if is_noisy else 2.0), labels]), atol=1e-5)
    if not is_noisy:
        np.testing.assert_array_equal(moved, still)
        return
    # Poses add up, and the features' first three are a pose already.
    features = model.decoder([own * 0.5, np.eye(10, dtype=np.float32)[labels]])
    upright = np.clip(features[:, 3:] @ model.features.waves.T + CENTRE, 0, 1).reshape(-1, 8, 8, 1).astype(np.float32)
    pose = features[:, :3] / model.features.pose_scale + moves * np.float32([2.0, 2.0, 0.4])
    np.testing.assert_allclose(moved, poses.moved(tf.constant(upright), pose, back=True), atol=1e-4)


@pytest.mark.parametrize("posed", [True, False])
@pytest.mark.parametrize("is_noisy", [True, False])
def test_rows_decide_whether_images_have_poses(posed: bool, is_noisy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two counts; without poses images are upright, and as wide and as far moved as the preset has it.

    There are poses where .025 of 1,077 rows more, at least, are nearest to their own class with them.
    """
    preset = dataclasses.replace(
        _PRESET,
        has_poses=None,
        spread=2.0,
        noisy_spread=0.7,
        still_spread=0.5,
        components=1,
        shift=0.2,
        still_moves=0.5,
    )
    model = CVAE(_ROWS.spec, len(_ROWS), 0, preset)
    asked = []

    def nearest_to_own(dataset: LabeledDataset, centres: Centres) -> np.ndarray:
        asked.append(bool(model._posed.numpy()))
        return np.arange(len(dataset)) < (600 + (27 if posed else 26) * asked[-1])

    monkeypatch.setattr(model, "_nearest_to_own", nearest_to_own)
    mechanisms = [
        *(ClassCentres(_TINY, 10.0, name=name) for name in _CHOICE[:2]),
        NoisyCounts(1e-3, 2, name=_CHOICE[2]),
        ClassMoments(50.0 if is_noisy else 1e-3, 10.0 if is_noisy else 3.0),
    ]
    model.prepare(_ROWS, mechanisms, NoiseSource(), 0)
    assert asked == [True, False]
    assert bool(model._posed.numpy()) is posed
    features = model.features.described(tf.constant(_ROWS.images[:9] / 255.0, tf.float32), model._posed)
    assert np.any(features[:, :3].numpy() != 0) is np.bool_(posed)
    moves = is_noisy * (1.0 if posed else 0.5) * np.float32([0.2 * 8, 0.2 * 8, 0])
    np.testing.assert_allclose(model._moves, moves, rtol=1e-6)
    assert float(model._spread.numpy()) == pytest.approx(0.7 if is_noisy else 2.0 if posed else 0.5)
    own = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    labels = np.arange(20) % 10
    made = model.decoder([own, np.eye(10, dtype=np.float32)[labels]]).numpy()
    upright = np.clip(made[:, 3:] @ model.features.waves.T + CENTRE, 0, 1).reshape(-1, 8, 8, 1)
    images = model.networks()["decoder"]([own, labels]).numpy()
    # Under much noise features are in the hundreds, and float32 is good to about 1e-4 of what they sum to.
    assert np.allclose(images, upright, atol=1e-3) is not posed
    assert np.abs(model.networks()["encoder"]([_ROWS.images[:9] / 255.0, _ROWS.labels[:9]])[0]).max() > 0


def test_rows_are_near_their_own_as_a_classifier_of_centres_has_it() -> None:
    """The first features alone count, poses among them; a row decides its own answer alone."""
    model = CVAE(_ROWS.spec, len(_ROWS), 0, dataclasses.replace(_PRESET, num_waves=60))
    images, labels = _ROWS.images[:300], _ROWS.labels[:300].copy()
    features = model.features.described(tf.constant(images / 255.0, tf.float32)).numpy()
    centres = NearestCentroid().fit(features, labels).centroids_.astype(np.float64)
    centres[:, 43:] += 100 * np.arange(10)[:, None]
    before = model._nearest_to_own(LabeledDataset(images, labels, _ROWS.spec), centres)
    first = NearestCentroid().fit(features[:, :43], labels)
    np.testing.assert_array_equal(before, first.predict(features[:, :43]) == labels)
    assert 0.7 < before.mean() < 1
    place = int(np.flatnonzero(before)[0])
    labels[place] = (labels[place] + 1) % 10
    after = model._nearest_to_own(LabeledDataset(images, labels, _ROWS.spec), centres)
    np.testing.assert_array_equal(np.flatnonzero(before != after), [place])


@pytest.mark.parametrize("told", [True, False])
def test_poses_are_found_where_places_hide_the_class(told: bool) -> None:
    """A wide bar and two thin ones, here or there, are told apart in the middle; such as lie there are so anyhow."""
    rng, num = np.random.default_rng(0), 4000
    labels = np.arange(num) % 2
    upright = np.zeros((num, 28, 28, 1), np.float32)
    upright[labels == 0, 6:22, 11:17] = 1.0
    upright[labels == 1, 6:22, 9:12] = upright[labels == 1, 6:22, 16:19] = 1.0
    pose = np.stack([rng.uniform(-8, 8, num) * told, np.zeros(num), np.zeros(num)], axis=1).astype(np.float32)
    noise = rng.normal(0, 0.1, upright.shape)
    images = np.clip(poses.moved(tf.constant(upright), pose, back=True).numpy() + noise, 0, 1)
    rows = LabeledDataset((images * 255).astype(np.uint8), labels, DataSpec((28, 28, 1), 2))
    preset = dataclasses.replace(preset_for(rows.spec, num), hidden_units=(4,))
    model = CVAE(rows.spec, num, 0, preset)
    mechanisms = model.alongside(PrivacyBudget(100.0, 1e-5))
    assert [part.name for part in mechanisms[:3]] == _CHOICE
    model.prepare(rows, mechanisms, NoiseSource(), 0)
    assert bool(model._posed.numpy()) is told


def test_few_rows_are_not_asked_about_poses_nor_where_it_is_said() -> None:
    spec, budget = DataSpec((28, 28, 1), 10), PrivacyBudget(1.0, 1e-5)
    few = CVAE(spec, 6000, 0)
    assert [part.name for part in few.alongside(budget)] == ["centre of all rows", "class moments"]
    rows = LabeledDataset(np.zeros((20, 28, 28, 1), np.uint8), np.arange(20) % 10, spec)
    few.prepare(rows, [ClassMoments(1.0, 7.0)], NoiseSource(), 0)
    assert float(few._posed.numpy()) == 0
    for has_poses in (True, False):
        said = CVAE(spec, 54_000, 0, dataclasses.replace(preset_for(spec, 54_000), has_poses=has_poses))
        rough = [] if has_poses else [moments.NEAR_COMPONENTS, moments.ROUGH]
        assert [part.name for part in said.alongside(budget)] == ["centres of classes", "class moments", *rough]
        assert said.features.num_poses == 3 * has_poses


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_a_few_rows_are_enough_to_run(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    rows = LabeledDataset(rng.integers(256, size=(30, *shape), dtype=np.uint8), np.arange(30) % 3, DataSpec(shape, 3))
    model = CVAE(rows.spec, 30, 0)
    model.prepare(rows, model.alongside(PrivacyBudget(3.0, 1e-3)), NoiseSource(), 0)
    plan = dataclasses.replace(model.plan(), steps=2, noise_multiplier=5.0)
    generator = model.learn(rows, plan, NoiseSource(), 0)
    images = generator([np.zeros((3, generator.inputs[0].shape[1]), np.float32), np.arange(3)])
    assert images.shape == (3, *shape)
    assert np.all(np.isfinite(images))

"""The stroke VAE: strokes are told from other images, and where they do not suit, frequencies take their place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.features.stroke_images import random_stroke_images
from tfdpgen.methods import CVAE, CVAEPreset, LabellerPreset, StrokeVAE, StrokeVAEPreset, train
from tfdpgen.methods.stroke_vae import StrokeFeatures, preset_for
from tfdpgen.networks import vae
from tfdpgen.networks.waves import lowest_waves
from tfdpgen.privacy import DPSGD, ClassMoments, NoiseSource, NoisyCounts, PrivacyBudget, epsilon_of
from tfdpgen.privacy.accounting.events import compose

_SIDE, _ROWS = 20, 300
_SPEC = DataSpec((_SIDE, _SIDE, 1), 2)
_PRESET = StrokeVAEPreset(
    latent_dim=8,
    hidden_units=(128,),
    waves=CVAEPreset(latent_dim=16, hidden_units=(4,), expected_batch_size=1, steps=1, num_waves=20, moments_share=0.6),
    drawings=3000,
    pretraining_steps=500,
    labeller=LabellerPreset(expected_batch_size=100, steps=5),
)


def _strokes() -> LabeledDataset:
    images = random_stroke_images(np.random.default_rng(7), _ROWS, (_SIDE, _SIDE))
    return LabeledDataset(images, np.arange(_ROWS) % 2, _SPEC)


def _clouds() -> LabeledDataset:
    """Images of few low frequencies, which no stroke looks like."""
    waves = lowest_waves(_SPEC.image_shape, 12)
    pixels = 110 + 150 * np.random.default_rng(8).normal(size=(_ROWS, 12)) @ waves.T
    images = np.round(np.clip(pixels, 0, 255)).astype(np.uint8).reshape(-1, *_SPEC.image_shape)
    return LabeledDataset(images, np.arange(_ROWS) % 2, _SPEC)


@pytest.mark.parametrize(("rows", "are_strokes"), [(_strokes(), True), (_clouds(), False)], ids=["strokes", "clouds"])
def test_frequencies_take_the_place_of_strokes_where_these_do_not_suit(rows: LabeledDataset, are_strokes: bool) -> None:
    release = train("stroke_vae", rows, PrivacyBudget(8.0, 1e-4), preset=_PRESET, verbose=0)
    assert release.labeller is not None
    if are_strokes:
        assert (release.latent_dim, release.augmentation) == (8, _PRESET.augmentation)
    else:
        assert (release.latent_dim, release.augmentation) == (16, _PRESET.augmentation_of_waves)


def test_a_row_suits_where_its_rebuilt_image_is_nearer_than_that_of_the_waves() -> None:
    encoder, decoder = vae.build_unconditional(_SPEC.image_shape, 4, (8,), seed=0)
    features = StrokeFeatures(encoder, decoder, scale=2.0)
    images = tf.constant(np.random.default_rng(0).random((6, *_SPEC.image_shape)), tf.float32)
    mine = special.expit(decoder(encoder(images)[0]).numpy())
    waves = lowest_waves(_SPEC.image_shape, 1).astype(np.float32)
    theirs = np.clip(images.numpy().reshape(6, -1) @ waves @ waves.T, 0, 1).reshape(mine.shape)
    nearer = np.sum((mine - images) ** 2, axis=(1, 2, 3)) < np.sum((theirs - images) ** 2, axis=(1, 2, 3))
    np.testing.assert_array_equal(features.rebuilds(images, tf.constant(waves)), nearer)
    rebuilt = features.rebuilds(tf.constant(mine), tf.zeros_like(waves))  # nothing is farther than nothing
    np.testing.assert_array_equal(rebuilt, True)
    described = features.described(images)
    np.testing.assert_allclose(described, 2.0 * encoder(images)[0], rtol=1e-6)
    np.testing.assert_allclose(features.drawn(described), mine, atol=1e-5)
    with pytest.raises(ValueError, match="`moves`"):
        features.drawn(described, moves=tf.zeros([6, 3]))


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 10.0])
def test_the_count_costs_little_and_all_of_it_together_no_more_than_the_budget(epsilon: float) -> None:
    spec, budget = DataSpec((28, 28, 1), 10), PrivacyBudget(epsilon, 1e-5)
    preset = preset_for(spec, 54_000)
    preset = dataclasses.replace(preset, hidden_units=(4,), waves=dataclasses.replace(preset.waves, hidden_units=(4,)))
    mechanisms = StrokeVAE(spec, 54_000, 0, preset).alongside(budget)
    count, *moments = (part for part in mechanisms if not isinstance(part, DPSGD))
    assert isinstance(count, NoisyCounts)
    assert count.stddev < 0.02 * 54_000
    is_taught = len(mechanisms) > 1 + len(moments)
    assert is_taught is (epsilon >= 1)  # under much noise, moments get all there is
    alone, together = epsilon_of(compose(moments), 1e-5), epsilon_of(compose([count, *moments]), 1e-5)
    assert alone == pytest.approx((preset.waves.moments_share if is_taught else 0.995) * epsilon, rel=0.01)
    assert alone < together < 1.01 * alone
    assert 0.99 * epsilon < epsilon_of(compose(mechanisms), 1e-5) <= epsilon


@pytest.mark.parametrize("told", [True, False])
def test_where_strokes_do_not_suit_poses_may(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spots that lie here or there, or in the middle: rows say whether their places are taken off."""
    rng, num = np.random.default_rng(0), 4000
    labels, (y, x) = np.arange(num) % 2, np.mgrid[:16, :16] - 7.5
    places = rng.uniform(-4, 4, num) * told
    wide = np.where(labels == 0, 3.0, 8.0)[:, None, None]
    spots = np.exp(-((x - places[:, None, None]) ** 2) / wide - y**2 / 8) + rng.normal(0, 0.1, (num, 16, 16))
    images = (255 * np.clip(spots, 0, 1)).astype(np.uint8)[..., None]
    rows = LabeledDataset(images, labels, DataSpec((16, 16, 1), 2))
    preset = dataclasses.replace(preset_for(rows.spec, num), drawings=500, pretraining_steps=2)
    monkeypatch.setattr(StrokeFeatures, "rebuilds", lambda _, images, __: tf.zeros_like(images[:, 0, 0, 0], tf.bool))
    model = StrokeVAE(rows.spec, num, 0, preset)
    mechanisms = [part for part in model.alongside(PrivacyBudget(30.0, 1e-5)) if not isinstance(part, DPSGD)]
    model.prepare(rows, mechanisms, NoiseSource(), 0)
    assert bool(model._of_waves._posed.numpy()) is told


@pytest.mark.parametrize("side", [16, 28])
def test_images_of_which_nothing_was_asked_are_moved_as_little_as_those_of_the_c_vae(side: int) -> None:
    """Few rows, under much noise: whether images may be moved has been asked of nobody."""
    spec = DataSpec((side, side, 1), 10)
    waves = preset_for(spec, 1000).waves
    model = CVAE(spec, 1000, 0, waves)
    rows = LabeledDataset(np.zeros((20, side, side, 1), np.uint8), np.arange(20) % 10, spec)
    model.prepare(rows, [ClassMoments(10.0, 7.0)], NoiseSource(), 0)
    assert model.moments.is_noisy(10.0)
    other = CVAE(spec, 1000, 0)
    other.prepare(rows, [ClassMoments(10.0, 7.0)], NoiseSource(), 0)
    np.testing.assert_allclose(model._moves, other._moves)
    np.testing.assert_allclose(model._moves, [0.015 * side, 0.015 * side, 0.0325], rtol=1e-6)


@pytest.mark.parametrize("are_strokes", [True, False])
def test_few_rows_have_no_labeller(are_strokes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where noise outweighs rows it would misjudge what is drawn; the moments get its share."""
    monkeypatch.setattr(StrokeFeatures, "rebuilds", lambda *_: tf.fill([_ROWS], are_strokes))
    release = train("stroke_vae", _clouds(), PrivacyBudget(1.0, 1e-4), preset=_PRESET, verbose=0)
    assert release.labeller is None
    names = [part["name"] for part in release.statement.mechanisms]
    assert names == ["rows that strokes suit", "centre of all rows", "class moments"]
    assert not release.training_set(np.arange(20) % 2, 0).is_augmented.any()
    assert release.latent_dim == (8 if are_strokes else 16)

"""Trials of generators on private rows, and that nothing but their noisy counts decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.privacy import ClassMoments, NoiseSource
from tfdpgen.synthesizers import ClassGaussian, trial

_ROWS = load_splits("digits").train.in_memory()


@pytest.fixture(scope="module")
def generator() -> tf.keras.Model:
    """Gaussians of the digits, hardly noisy."""
    model = ClassGaussian(_ROWS.spec, len(_ROWS), 0)
    model.prepare(_ROWS, [ClassMoments(1e-6, 10.0)], NoiseSource(), 0)
    return model.learn(_ROWS, None, NoiseSource(), 0)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_ROWS", 4000)


def test_rows_are_named_rightly_by_what_their_classes_images_have_taught(generator: tf.keras.Model) -> None:
    is_right = trial.rightly_named(generator, _ROWS, seed=0)
    assert is_right.shape == (len(_ROWS),)
    assert is_right.dtype == np.bool_
    assert is_right.mean() > 0.9
    latents, labels = generator.inputs
    mistaken: Any = tf.keras.Model([latents, labels], generator([latents, 9 - labels]))
    assert trial.rightly_named(mistaken, _ROWS, seed=0).mean() < 0.1


def test_a_row_decides_its_own_answer_alone(generator: tf.keras.Model) -> None:
    """The classifier has seen no row, nor how many there are."""
    images, labels = _ROWS.images[:50].copy(), _ROWS.labels[:50].copy()
    before = trial.rightly_named(generator, LabeledDataset(images, labels, _ROWS.spec), seed=0)
    images[7], labels[7] = 255 - images[7], (labels[7] + 1) % 10
    after = trial.rightly_named(generator, LabeledDataset(images, labels, _ROWS.spec), seed=0)
    others = np.arange(50) != 7
    np.testing.assert_array_equal(before[others], after[others])
    assert before[7]
    assert not after[7]

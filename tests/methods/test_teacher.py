"""The teacher: learns from private rows what they show, by exactly its plan, and is a function of what is released."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import load_splits
from tfdpgen.methods.teacher import Features, Teacher, TeacherPreset, teacher_plan, train_teacher
from tfdpgen.networks.waves import lowest_waves
from tfdpgen.privacy import DPSGD, NoiseSource, PoissonBatch, PrivacyBudget
from tfdpgen.privacy.optimizer import DPKerasSGD


def test_it_knows_the_digits_with_a_generous_budget_and_less_with_a_small_one() -> None:
    splits = load_splits("digits")
    preset = TeacherPreset(steps=60)
    known = []
    for epsilon in (30.0, 0.05):
        plan = teacher_plan(preset, len(splits.train)).calibrate(PrivacyBudget(epsilon, 1e-5))
        teacher = train_teacher(preset, splits.train, plan, NoiseSource())
        probabilities = teacher.probabilities(splits.holdout.in_memory().images)
        known.append(np.mean(probabilities.argmax(axis=1) == splits.holdout.in_memory().labels))
    assert known[0] > 0.85
    assert known[1] < 0.5


def test_exactly_the_plan_runs_with_the_plans_clip_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = load_splits("digits")
    made: list[DPKerasSGD] = []
    original = DPSGD.optimizer

    def optimizer(self: DPSGD, *arguments: Any, **kwargs: Any) -> Any:
        made.append(original(self, *arguments, **kwargs))
        return made[-1]

    monkeypatch.setattr(DPSGD, "optimizer", optimizer)
    preset = TeacherPreset(steps=7, expected_batch_size=50)
    plan = teacher_plan(preset, len(splits.train)).calibrate(PrivacyBudget(1.0, 1e-5))
    assert (plan.steps, plan.expected_batch_size, plan.name) == (7, 50, "DP-SGD of the teacher")
    train_teacher(preset, splits.train, plan, NoiseSource())
    assert int(made[0].iterations) == 7
    assert made[0]._dp_sum_query._stddev == pytest.approx(plan.noise_multiplier * plan.l2_norm_clip)


def test_features_are_public_and_of_one_image(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(6, 8, 8, 1), dtype=np.uint8)
    for preset in (TeacherPreset(), TeacherPreset(axes=7), TeacherPreset(axes=7, num_waves=9)):
        features = Features.of(preset, (8, 8, 1))
        together = features(images)
        assert together.shape == (6, preset.axes or 324)
        np.testing.assert_allclose(together[2:3], features(images[2:3]), atol=1e-4)
    kernel, bias = np.ones((7, 3), np.float32), np.array([0.0, 1.0, 2.0], np.float32)
    teacher = Teacher(features, kernel, bias)
    teacher.save(tmp_path / "teacher.npz")
    loaded = Teacher.load(tmp_path / "teacher.npz")
    np.testing.assert_array_equal(loaded.probabilities(images), teacher.probabilities(images))
    assert np.all(teacher.probabilities(images, 4.0).max(axis=1) < teacher.probabilities(images).max(axis=1))
    np.testing.assert_allclose(teacher.probabilities(images).sum(axis=1), 1.0, rtol=1e-5)
    assert teacher.probabilities(images[:0]).shape == (0, 3)


def test_with_waves_it_sees_the_lowest_frequencies_alone() -> None:
    waves = lowest_waves((8, 8, 1), 64).astype(np.float32)
    low, high = waves[:, :9], waves[:, 9:]
    rng = np.random.default_rng(0)
    smooth = 128 + 10 * rng.normal(size=(5, 9)) @ low.T
    rough = smooth + 10 * rng.normal(size=(5, 55)) @ high.T
    images = [np.round(values).astype(np.uint8).reshape(5, 8, 8, 1) for values in (smooth, rough)]
    features = [Features.of(TeacherPreset(num_waves=num), (8, 8, 1)) for num in (9, 0)]
    nine, every = ([of(some) for some in images] for of in features)
    apart, usual = (np.linalg.norm(one - other, axis=1).mean() for one, other in (nine, every))
    assert apart < 0.15 * usual


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_one_row_moves_what_is_noised_by_at_most_the_clip_and_padding_by_nothing(
    monkeypatch: pytest.MonkeyPatch, eager_functions: None
) -> None:
    rows = load_splits("digits").train
    applied: list[list[np.ndarray]] = []
    original = DPKerasSGD.apply_clipped_sum

    def apply_clipped_sum(self: DPKerasSGD, sums: Any, variables: Any) -> Any:
        applied.append([value.numpy() for value in sums])
        return original(self, sums, variables)

    def sums_of(examples: list[int], num_padding: int = 1) -> np.ndarray:
        """What is noised in a step on a data set of these examples alone, after two steps of the same noise."""
        empty = PoissonBatch(np.zeros((1, 9), np.int32), np.zeros((1, 9), np.float32))
        slots = np.array([[*range(len(examples)), *[0] * num_padding]], np.int32)
        batch = PoissonBatch(slots, np.array([[1.0] * len(examples) + [0.0] * num_padding], np.float32))
        monkeypatch.setattr(DPSGD, "physical_batch_size", slots.size)
        monkeypatch.setattr(DPSGD, "batches", lambda *_: iter([empty, empty, batch]))
        plan = DPSGD(len(examples), 2, 3, 0.1, noise_multiplier=1.0)
        train_teacher(TeacherPreset(), rows.take(np.array(examples)), plan, NoiseSource.insecure(1))
        return np.concatenate([value.ravel() for value in applied[-1]])

    monkeypatch.setattr(DPKerasSGD, "apply_clipped_sum", apply_clipped_sum)
    everyone = sums_of([3, 4, 5, 6, 7])
    np.testing.assert_allclose(sums_of([3, 4, 5, 6, 7], num_padding=4), everyone, atol=1e-6)
    for inserted in ([8, 3, 4, 5, 6, 7], [3, 4, 8, 5, 6, 7], [3, 4, 5, 6, 7, 8]):
        moved = np.linalg.norm(sums_of(inserted) - everyone)
        assert 0.09 < moved <= 0.1 * (1 + 1e-4)

"""The teacher: learns from private rows what they show, by exactly its plan, and is a function of what is released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfdpgen.data import load_splits
from tfdpgen.privacy import DPSGDPlan, NoiseSource, PrivacyBudget
from tfdpgen.privacy.optimizer import DPKerasSGD
from tfdpgen.synthesizers.teacher import Features, Teacher, TeacherPreset, teacher_plan, train_teacher


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
    original = DPSGDPlan.optimizer

    def optimizer(self: DPSGDPlan, *arguments: Any, **kwargs: Any) -> Any:
        made.append(original(self, *arguments, **kwargs))
        return made[-1]

    monkeypatch.setattr(DPSGDPlan, "optimizer", optimizer)
    preset = TeacherPreset(steps=7, expected_batch_size=50)
    plan = teacher_plan(preset, len(splits.train)).calibrate(PrivacyBudget(1.0, 1e-5))
    assert (plan.steps, plan.expected_batch_size, plan.name) == (7, 50, "DP-SGD of the teacher")
    train_teacher(preset, splits.train, plan, NoiseSource())
    assert int(made[0].iterations) == 7
    assert made[0]._dp_sum_query._stddev == pytest.approx(plan.noise_multiplier * plan.l2_norm_clip)


def test_features_are_public_and_of_one_image(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(6, 8, 8, 1), dtype=np.uint8)
    for preset in (TeacherPreset(), TeacherPreset(axes=7)):
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

"""The labeller: learns from private examples what they show, by exactly its mechanism, and is a linear classifier."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import Dataset, load_splits
from tfdpgen.privacy import DPSGD, NoiseSource, PoissonBatch, PrivacyBudget
from tfdpgen.privacy.backup import Backup
from tfdpgen.privacy.optimizer import DPKerasSGD
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PlanError, PrivateSession
from tfdpgen.release import Labeller, labeller_mechanism, prepare_labeller


def _session(dataset: Dataset, epsilon: float = 1.0, backup: Backup | None = None, **changes: Any) -> PrivateSession:
    mechanism = dataclasses.replace(labeller_mechanism(len(dataset)), **changes)
    budget = PrivacyBudget(epsilon, 1e-5)
    plan = PrivacyPlan({"labeller": mechanism}, len(dataset)).calibrate(budget)
    return PrivateSession(dataset, plan, budget, backup=backup)


def test_it_knows_the_digits_with_a_generous_budget_and_less_with_a_small_one() -> None:
    splits = load_splits("digits")
    known = []
    for epsilon in (30.0, 0.05):
        labeller = prepare_labeller(_session(splits.train, epsilon, steps=60)).run(verbose=0)
        probabilities = labeller.probabilities(splits.holdout.in_memory().images)
        known.append(np.mean(probabilities.argmax(axis=1) == splits.holdout.in_memory().labels))
    assert known[0] > 0.85
    assert known[1] < 0.5


def test_exactly_the_mechanism_runs_with_its_clip_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[DPKerasSGD] = []
    original = DPSGD.optimizer

    def optimizer(self: DPSGD, *arguments: Any, **kwargs: Any) -> Any:
        made.append(original(self, *arguments, **kwargs))
        return made[-1]

    monkeypatch.setattr(DPSGD, "optimizer", optimizer)
    session = _session(load_splits("digits").train, steps=7, expected_batch_size=50)
    prepare_labeller(session).run(verbose=0)
    mechanism: Any = session.plan.mechanisms["labeller"]
    assert int(made[0].iterations) == 7
    assert made[0]._dp_sum_query._stddev == pytest.approx(mechanism.noise_multiplier * 0.1)


def test_its_mechanism_is_for_all_examples_where_these_are_few() -> None:
    few, many = labeller_mechanism(100), labeller_mechanism(60_000)
    assert (few.name, few.expected_batch_size, many.expected_batch_size) == ("DP-SGD of the labeller", 100, 8192)
    assert few.steps == many.steps == 300
    with pytest.raises(PlanError, match="labeller"):
        prepare_labeller(_session(load_splits("digits").train), "other")


def test_the_weights_are_averaged_over_the_second_half_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, after = load_splits("digits").train.take(np.arange(20)), []
    original = DPKerasSGD.apply_clipped_sum

    def apply_clipped_sum(self: DPKerasSGD, sums: Any, variables: Any) -> Any:
        result = original(self, sums, variables)
        after.append([tf.identity(variable) for variable in variables])
        return result

    monkeypatch.setattr(DPKerasSGD, "apply_clipped_sum", apply_clipped_sum)
    tf.config.run_functions_eagerly(True)
    try:
        labeller = prepare_labeller(_session(dataset, steps=5, expected_batch_size=5)).run(0)
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(after) == 5
    for mean, found in zip(zip(*after[2:], strict=True), (labeller.kernel, labeller.bias), strict=True):
        np.testing.assert_allclose(found, np.mean(mean, axis=0), atol=1e-5)


def test_a_training_that_was_killed_goes_on_with_its_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, ran = load_splits("digits").train, []
    original = tf.keras.utils.Progbar.add

    def killed(self: Any, count: int) -> None:
        ran.append(count)
        if len(ran) == 7:
            raise KeyboardInterrupt
        original(self, count)

    monkeypatch.setattr(tf.keras.utils.Progbar, "add", killed)
    with pytest.raises(KeyboardInterrupt), Backup(tmp_path, every=1) as backup:
        prepare_labeller(_session(dataset, 3.0, backup, steps=8, expected_batch_size=50)).run(verbose=0)
    monkeypatch.undo()
    with Backup(tmp_path, every=1) as backup:
        labeller = prepare_labeller(_session(dataset, 3.0, backup, steps=8, expected_batch_size=50)).run(verbose=0)
    assert np.all(np.isfinite(labeller.kernel))
    assert np.abs(labeller.kernel).max() > 0


def test_probabilities_are_of_each_image_alone_and_survive_the_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(6, 8, 8, 1), dtype=np.uint8)
    labeller = Labeller(rng.normal(size=(324, 3)).astype(np.float32), np.array([0.0, 1.0, 2.0], np.float32))
    together = labeller.probabilities(images)
    assert (together.shape, together.dtype) == ((6, 3), np.float32)
    np.testing.assert_allclose(together[2:3], labeller.probabilities(images[2:3]), atol=1e-3)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, rtol=1e-5)
    assert np.all(labeller.probabilities(images, 4.0).max(axis=1) < together.max(axis=1))
    assert labeller.probabilities(images[:0]).shape == (0, 3)
    labeller.save(tmp_path / "labeller.npz")
    np.testing.assert_array_equal(Labeller.load(tmp_path / "labeller.npz").probabilities(images), together)
    assert {field.name for field in dataclasses.fields(labeller)} == {"kernel", "bias"}


def test_one_example_moves_what_is_noised_by_at_most_the_clip_and_padding_by_nothing(
    monkeypatch: pytest.MonkeyPatch, eager_functions: None
) -> None:
    examples = load_splits("digits").train
    applied: list[list[np.ndarray]] = []
    original = DPKerasSGD.apply_clipped_sum

    def apply_clipped_sum(self: DPKerasSGD, sums: Any, variables: Any) -> Any:
        applied.append([value.numpy() for value in sums])
        return original(self, sums, variables)

    def sums_of(numbers: list[int], num_padding: int = 1) -> np.ndarray:
        """What is noised in a step on a data set of these examples alone, after two steps of the same noise."""
        empty = PoissonBatch(np.zeros((1, 9), np.int32), np.zeros((1, 9), np.float32))
        slots = np.array([[*range(len(numbers)), *[0] * num_padding]], np.int32)
        batch = PoissonBatch(slots, np.array([[1.0] * len(numbers) + [0.0] * num_padding], np.float32))
        monkeypatch.setattr(DPSGD, "physical_batch_size", slots.size)
        monkeypatch.setattr(DPSGD, "batches", lambda *_, **__: iter([empty, empty, batch]))
        mechanism = DPSGD(len(numbers), 2, 3, 0.1, noise_multiplier=1.0)
        budget = PrivacyBudget(mechanism.epsilon(1e-3) + 1, 1e-3)
        plan = PrivacyPlan({"labeller": mechanism}, len(numbers))
        session = PrivateSession(examples.take(np.array(numbers)), plan, budget, noise=NoiseSource.insecure(1))
        prepare_labeller(session).run(verbose=0)
        return np.concatenate([value.ravel() for value in applied[-1]])

    monkeypatch.setattr(DPKerasSGD, "apply_clipped_sum", apply_clipped_sum)
    everyone = sums_of([3, 4, 5, 6, 7])
    np.testing.assert_allclose(sums_of([3, 4, 5, 6, 7], num_padding=4), everyone, atol=1e-6)
    for inserted in ([8, 3, 4, 5, 6, 7], [3, 4, 8, 5, 6, 7], [3, 4, 5, 6, 7, 8]):
        moved = np.linalg.norm(sums_of(inserted) - everyone)
        assert 0.09 < moved <= 0.1 * (1 + 1e-4)

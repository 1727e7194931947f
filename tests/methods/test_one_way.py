"""Rows reach a release through its mechanisms alone: with the mechanisms' outputs given, other rows change nothing.

Every draw is empty, what a statistic released for the first rows is given for the second ones too, and noise is seeded:
all that is left of the rows then are peeks that nobody paid for, such as a scaler that was fitted to them, a choice
among checkpoints by their loss, or labels of fakes that follow theirs.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.test_methods import _BUDGET, _CLASSES, _PRESETS, _TRAINED, KnownNoise, _watched
from tfdpgen import privacy
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import CVAE, method_names, moments, stroke_vae, train
from tfdpgen.methods.stroke_vae import StrokeFeatures
from tfdpgen.privacy import DPSGD, NoiseSource, PoissonBatch
from tfdpgen.privacy.chunks import scaled
from tfdpgen.release import Release

_SPEC = DataSpec((8, 8, 1), 10)


def _rows(seed: int) -> LabeledDataset:
    """Rows of any kind: with another seed of other brightness, labels and contents."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256 >> seed, size=(80, 8, 8, 1), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(0, 10 - 3 * seed, size=80), _SPEC)


@pytest.fixture
def given_outputs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes draws empty and statistics say what they said before; holds what they said."""
    said: list[Any] = []

    def empty(plan: DPSGD, noise: Any = None, first_step: int = 0, **_: Any) -> Iterator[PoissonBatch]:
        shape = (1, plan.physical_batch_size)
        for _ in range(first_step, plan.steps):
            yield PoissonBatch(np.zeros(shape, np.int32), np.zeros(shape, np.float32))

    def repeating(release: Any, position: list[int]) -> Any:
        def repeated(*arguments: Any) -> Any:
            fresh = release(*arguments)  # for the noise that it takes, which everything after it would else get
            position[0] += 1
            if position[0] > len(said):
                said.append(fresh)
            return said[position[0] - 1]

        return repeated

    def given_noise(plan: DPSGD, *_: Any) -> DPSGD:
        return dataclasses.replace(plan, noise_multiplier=8.0)

    monkeypatch.setattr(DPSGD, "calibrate", given_noise)  # it takes long, and reads nothing
    monkeypatch.setattr(DPSGD, "batches", empty)
    position = [0]
    mechanism: Any
    for _, mechanism in inspect.getmembers(privacy, inspect.isclass):
        if hasattr(mechanism, "release"):
            monkeypatch.setattr(mechanism, "release", repeating(mechanism.release, position))
    return [said, position]


@pytest.mark.parametrize(
    "name",
    [
        *method_names(),
        "c_vae with components",
        "c_vae with rough components",
        "c_vae with rough components of many rows",
        "stroke_vae with strokes that suit",
        "stroke_vae with a labeller",
        "stroke_vae with a choice of poses and a labeller",
        "stroke_vae with strokes that suit and a labeller",
        "stroke_vae with strokes that suit, a choice of poses and a labeller",
    ],
)
def test_with_the_mechanisms_outputs_given_other_rows_change_nothing(
    name: str, given_outputs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, variant = name.partition(" with ")
    preset = _PRESETS[name]
    if name == "stroke_vae":
        monkeypatch.setattr(StrokeFeatures, "rebuilds", lambda *_: tf.fill([80], "strokes that suit" in variant))
    if "choice of poses" in variant:
        preset = dataclasses.replace(preset, waves=dataclasses.replace(preset.waves, has_poses=None))
        monkeypatch.setattr(moments, "_ROWS_TO_ASK", 0)
        monkeypatch.setattr(moments, "_ROWS_TO_COUNT", 0)
    if "labeller" in variant or "components" in variant:
        monkeypatch.setattr(moments, "_ROWS_IN_CLASS", 0)  # as if rows outweighed the noise
    if "components" in variant:
        is_rough = "rough" in variant
        preset = dataclasses.replace(preset, components=2, has_poses=False)
        monkeypatch.setattr(moments, "ROWS_IN_COMPONENT", 1e9 if is_rough else 1e-9)
        monkeypatch.setattr(moments, "_ROWS_IN_ROUGH_COMPONENT", 0.01)
    if "many rows" in variant:
        monkeypatch.setattr(moments, "_FEW_ROWS", 0)
    releases = []
    for seed in (0, 1):
        given_outputs[1][0] = 0
        rows = _rows(seed)
        release = train(name, rows, _BUDGET, preset=preset, seed=3, insecure_reproducible=True, verbose=0)
        releases.append(release)
    one, other = releases
    assert (one.event, one.statement) == (other.event, other.statement)
    assert (one.labeller is not None) is ("labeller" in variant)
    assert any(part["name"] == moments.ROUGH for part in one.statement.mechanisms) is ("rough" in variant)
    weights = zip(one.generator.get_weights(), other.generator.get_weights(), strict=True)
    for first, second in [*weights, *_labellers(one, other)]:
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_poses_are_chosen_by_the_noisy_counts_alone(given_outputs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one run are nearest to their own with poses, those of the other without; what was said decides."""
    monkeypatch.setattr(moments, "_ROWS_TO_ASK", 0)
    monkeypatch.setattr(moments, "_ROWS_TO_COUNT", 0)
    preset = dataclasses.replace(_PRESETS["c_vae"], num_waves=6, has_poses=None)
    chosen = []
    for seed in (0, 1):
        given_outputs[1][0] = 0
        rows, asked = _rows(seed), []

        def nearest_to_own(self: CVAE, dataset: Any, centres: Any, by: int = seed, asked: Any = asked) -> Any:
            asked.append(centres)
            return np.full(len(dataset), len(asked) == 1 + by)

        monkeypatch.setattr(CVAE, "_nearest_to_own", nearest_to_own)
        release = train("c_vae", rows, _BUDGET, preset=preset, seed=3, insecure_reproducible=True, verbose=0)
        assert len(asked) == 2
        chosen.append(release.generator.get_weights())
    for first, second in zip(*chosen, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_rough_components_are_told_by_the_noisy_counts_alone(
    given_outputs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one run are nearest to components, those of the other to means; what was said decides."""
    for name, value in (("_FEW_ROWS", 0), ("_ROWS_IN_CLASS", 0), ("ROWS_IN_COMPONENT", 1e9)):
        monkeypatch.setattr(moments, name, value)
    monkeypatch.setattr(moments, "_ROWS_IN_ROUGH_COMPONENT", 0.01)
    preset = dataclasses.replace(_PRESETS["c_vae"], num_waves=6, components=2)
    original, decided, chosen = CVAE._are_nearer, [], []
    for seed in (0, 1):
        given_outputs[1][0] = 0

        def nearest_to_own(self: CVAE, dataset: Any, centres: Any, by: int = seed) -> Any:
            return np.full(len(dataset), (len(centres) == 20) != by)

        def are_nearer(self: CVAE, *arguments: Any) -> bool:
            decided.append(original(self, *arguments))
            assert decided[0] == decided[-1]
            return decided[-1]

        monkeypatch.setattr(CVAE, "_are_nearer", are_nearer)
        monkeypatch.setattr(CVAE, "_nearest_to_own", nearest_to_own)
        release = train("c_vae", _rows(seed), _BUDGET, preset=preset, seed=3, insecure_reproducible=True, verbose=0)
        assert moments.NEAR_COMPONENTS in [part["name"] for part in release.statement.mechanisms]
        chosen.append(release.generator.get_weights())
    for first, second in zip(*chosen, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_strokes_are_kept_or_left_by_the_noisy_count_alone(
    given_outputs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strokes suit all rows of one run and none of the other; the count that was said decides."""
    monkeypatch.setattr(moments, "_ROWS_IN_CLASS", 0)  # as if rows outweighed the noise: there is a labeller
    monkeypatch.setattr(stroke_vae, "_COUNT_SHARE", 0.5)  # of few rows, too little could be counted
    releases = []
    for seed in (0, 1):
        given_outputs[1][0] = 0
        monkeypatch.setattr(StrokeFeatures, "rebuilds", lambda *_, by=seed: tf.fill([80], by == 0))
        preset = _PRESETS["stroke_vae"]  # with as many frequencies as latents, so that either kind of moments fits
        preset = dataclasses.replace(preset, waves=dataclasses.replace(preset.waves, latent_dim=3, num_waves=3))
        rows = _rows(seed)
        releases.append(
            train("stroke_vae", rows, _BUDGET, preset=preset, seed=3, insecure_reproducible=True, verbose=0)
        )
    one, other = releases
    assert one.augmentation == other.augmentation == _PRESETS["stroke_vae"].augmentation
    weights = zip(one.generator.get_weights(), other.generator.get_weights(), strict=True)
    for first, second in [*weights, *_labellers(one, other)]:
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def _labellers(one: Release, other: Release) -> list[tuple[Any, Any]]:
    """The weights of both labellers, if there are labellers."""
    assert (one.labeller is None) == (other.labeller is None)
    if one.labeller is None or other.labeller is None:
        return []
    return [(one.labeller.kernel, other.labeller.kernel), (one.labeller.bias, other.labeller.bias)]


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _noised_sums(name: str, examples: list[int], num_padding: int = 1) -> np.ndarray:
    """What a step on a data set of these examples adds noise to, in a training whose weights are random.

    What is drawn for an example follows it wherever it stands; padding repeats the first example.
    """
    rows = _rows(0)
    model = _CLASSES[name](rows.spec, len(rows), 0, _PRESETS[name])
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(0.3 * rng.normal(size=variable.shape.as_list()))
    indices = np.array([[*range(len(examples)), *[0] * num_padding]], np.int32)
    weights = np.array([[1.0] * len(examples) + [0.0] * num_padding], np.float32)
    plan = _watched(name, steps=1, given=(PoissonBatch(indices, weights),), chunk=indices.size)
    model.learn(rows.take(examples), plan, KnownNoise(np.asarray(examples)[indices]), 0)
    return np.concatenate([value.ravel() for value in plan.applied[0]])


@pytest.mark.parametrize("name", _TRAINED)
def test_a_row_counts_for_one_clip_wherever_the_training_is(name: str, eager_functions: None) -> None:
    """Where weights start, some terms of a loss have no gradient: of a KL, say, or of what follows zeros."""
    everyone = _noised_sums(name, [5, 6, 7, 8])
    np.testing.assert_allclose(_noised_sums(name, [5, 6, 7, 8], num_padding=3), everyone, atol=1e-6)
    for inserted in ([9, 5, 6, 7, 8], [5, 6, 9, 7, 8], [5, 6, 7, 8, 9]):
        assert 0.1 < np.linalg.norm(_noised_sums(name, inserted) - everyone) <= 0.25 * (1 + 1e-4)


@pytest.mark.parametrize("variant", ["", "a choice of poses", "components"])
@pytest.mark.parametrize("name", ["c_vae", "dp_gan", "stroke_vae"])
def test_what_statistics_are_computed_of_is_of_each_row_alone(
    name: str, variant: str, given_outputs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mechanisms' outputs given, one inserted row leaves the features and answers of all others."""
    preset = _PRESETS[name]
    part = {"dp_gan": "sketches", "stroke_vae": "waves"}.get(name)
    if changed := {"a choice of poses": {"has_poses": None}, "components": {"components": 2}}.get(variant):
        of_part = {part: dataclasses.replace(getattr(preset, part), **changed)} if part else changed
        preset = dataclasses.replace(preset, **of_part)
    if variant:
        for constant in ("_ROWS_TO_ASK", "_ROWS_TO_COUNT", "_ROWS_IN_CLASS"):
            monkeypatch.setattr(moments, constant, 0)
        monkeypatch.setattr(moments, "ROWS_IN_COMPONENT", 1e-9)
    seen: list[np.ndarray] = []

    def noting(release: Any) -> Any:
        def noted(mechanism: Any, rows: Any, *arguments: Any) -> Any:
            rows = list(rows)
            if isinstance(mechanism, privacy.NoisyCounts):
                seen.append(np.stack(rows, axis=1))
            else:
                seen.append(np.concatenate([np.column_stack(block) for block in rows]))
            return release(mechanism, rows, *arguments)

        return noted

    for mechanism in (privacy.ClassCentres, privacy.ClassMoments, privacy.NoisyCounts):
        monkeypatch.setattr(mechanism, "release", noting(mechanism.release))
    everyone, runs = _rows(0), []
    for examples in (range(1, 80), range(80)):
        given_outputs[1][0] = 0
        model = _CLASSES[name](_SPEC, 80, 0, preset)
        mechanisms = [part for part in model.alongside(_BUDGET) if not isinstance(part, DPSGD)]
        model.prepare(everyone.take(np.array(examples)), mechanisms, NoiseSource.insecure(1), 0)
        runs.append(list(seen))
        seen.clear()
    assert len(runs[0]) == len(runs[1]) == len(mechanisms) >= 2
    for without, inserted in zip(*runs, strict=True):
        np.testing.assert_allclose(inserted[1:].astype(float), without.astype(float), rtol=1e-3, atol=1e-3)


def test_an_image_is_scaled_by_the_declared_range_and_not_by_its_neighbours() -> None:
    images = np.array([[10, 20], [30, 200]], np.uint8).reshape(2, 2, 1, 1)
    together = scaled(tf.constant(images)).numpy()
    np.testing.assert_allclose(together[:1], scaled(tf.constant(images[:1])))
    np.testing.assert_allclose(together, images / 255, rtol=1e-6)


def test_a_saved_release_holds_these_facts_and_no_other(tmp_path: Path) -> None:
    rows = _rows(0)
    train("class_gaussian", rows, _BUDGET, preset=_PRESETS["class_gaussian"], verbose=0).save(tmp_path)
    facts = json.loads((tmp_path / "release.json").read_text())
    assert set(facts) == {"method", "spec", "event", "statement", "augmentation"}
    assert set(facts["spec"]) == set(_SPEC.to_dict())

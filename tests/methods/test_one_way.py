"""Examples reach a release through its mechanisms alone: with the mechanisms' outputs given, others change nothing.

Samples of DP-SGD are empty, the sums over the first examples are given for the second ones too, and noise is seeded:
all that is left of the examples then are peeks that nobody paid for, such as a scaler that was fitted to them, a choice
among checkpoints by their loss, or labels of fakes that follow theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance import test_methods as conformance
from tests.methods import killable
from tests.methods.killable import LABELLER, VARIANTS
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import CVAE, gaussian_mixture, method_names, train
from tfdpgen.methods.training import planned
from tfdpgen.privacy import DPSGD, PoissonBatch
from tfdpgen.privacy import session as sessions
from tfdpgen.privacy.chunks import scaled
from tfdpgen.privacy.isolation import traced
from tfdpgen.privacy.mechanisms.base import GaussianSum
from tfdpgen.privacy.trainer import Trainer, _features
from tfdpgen.release import Release

_SPEC = DataSpec((8, 8, 1), 10)
_COMPONENTS, _PLAIN = ", components", ", plain"
_NAMES = [*VARIANTS, "gaussian_mixture" + _COMPONENTS, "c_vae" + _COMPONENTS, "c_vae" + _PLAIN]


def _examples(seed: int) -> LabeledDataset:
    """Of any kind: with another seed of other brightness, labels and contents."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256 >> seed, size=(80, 8, 8, 1), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(0, 10 - 3 * seed, size=80), _SPEC)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    killable.make_small(monkeypatch.setattr)


def _arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if name.endswith(_COMPONENTS):
        for most in ("MOST_NOISE", "MOST_NOISE_OF_COMPONENTS"):  # as if examples outweighed the noise
            monkeypatch.setattr(gaussian_mixture, most, 1e9)
    arguments = killable.arguments(name.removesuffix(_COMPONENTS).removesuffix(_PLAIN))
    if name.endswith(_PLAIN):
        arguments["method"] = CVAE(None, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=3)
    return arguments


def test_this_suite_knows_every_method() -> None:
    assert set(method_names()) == {method.name for method in VARIANTS.values()}


@pytest.mark.parametrize("name", _NAMES)
def test_with_the_mechanisms_outputs_given_other_rows_change_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}
    sums_of = sessions.sums_of

    def repeated(dataset: Any, asked: Any, *, by_user: bool) -> Any:
        if not asked.keys() <= said.keys():
            said.update(sums_of(dataset, asked, by_user=by_user))
        return {key: said[key] for key in asked}

    def empty(self: DPSGD, *_: Any, **__: Any) -> Iterator[PoissonBatch]:
        for _step in range(self.steps):
            yield PoissonBatch(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32))

    monkeypatch.setattr(sessions, "sums_of", repeated)
    monkeypatch.setattr(DPSGD, "batches", empty)
    monkeypatch.setattr(DPSGD, "physical_batch_size", 4)
    arguments = {**_arguments(name, monkeypatch), "seed": 3, "insecure_reproducible": True}
    one, other = (train(**{**arguments, "dataset": _examples(seed)}) for seed in (0, 1))
    _, plan = planned(arguments["method"], _SPEC, 80, killable.BUDGET, arguments["labeller_share"])
    assert said.keys() == {key for key, part in plan.mechanisms.items() if isinstance(part, GaussianSum)}
    assert (one.event, one.statement, one.augmentation) == (other.event, other.statement, other.augmentation)
    assert (one.labeller is not None) is name.endswith(LABELLER)
    assert ("components" in said) is name.endswith(_COMPONENTS)
    for first, second in zip(_weights(one), _weights(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def _weights(release: Release) -> list[Any]:
    labeller = release.labeller
    return [*release.generator.get_weights(), *([labeller.kernel, labeller.bias] if labeller else [])]


@pytest.mark.parametrize("name", [name for name in _NAMES if name != "dp_gan" and _PLAIN not in name])
def test_what_statistics_are_computed_of_is_of_each_row_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was released before given, one inserted example leaves the features of all others."""
    seen, sums_of = [], sessions.sums_of
    signature = [tf.TensorSpec([None, 8, 8, 1], tf.float32), tf.TensorSpec([None], tf.int64)]
    more = _examples(1).take(np.arange(1))

    def watched(dataset: Any, asked: Any, *, by_user: bool) -> Any:
        images, labels = dataset.examples(np.arange(80))
        for key, (_, transform) in asked.items():
            function = traced(transform, signature, key)
            without = function(scaled(tf.constant(images)), tf.constant(labels))
            inserted = function(
                scaled(tf.constant(np.concatenate([more.images, images]))),
                tf.constant(np.concatenate([more.labels, labels])),
            )
            np.testing.assert_allclose(inserted[1:], without, rtol=1e-3, atol=1e-3)
            seen.append(key)
        return sums_of(dataset, asked, by_user=by_user)

    monkeypatch.setattr(sessions, "sums_of", watched)
    train(**{**_arguments(name, monkeypatch), "dataset": _examples(0)})
    assert {"class_means", "covariances"} <= set(seen)


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", ["c_vae", "c_vae, plain", "dp_gan", "gaussian_mixture, labeller"])
@pytest.mark.usefixtures("eager_functions")
def test_a_row_counts_for_one_clip_wherever_the_training_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights start, some terms of a loss have no gradient: of a KL, say, or of what follows zeros."""
    steps, dataset = Trainer._steps, _examples(0)

    def further(self: Trainer, *arguments: Any) -> None:
        rng = np.random.default_rng(1)
        for variable in self._variables:
            variable.assign_add(0.3 * rng.normal(size=variable.shape.as_list()))
        steps(self, *arguments)

    def sums(examples: list[int], chunk: int = 16) -> np.ndarray:
        monkeypatch.setattr(conformance, "_CHUNK", chunk)
        (found,) = conformance._first_sums(name, dataset, examples, monkeypatch).values()
        return np.concatenate([value.ravel() for value in found])

    monkeypatch.setattr(Trainer, "_steps", further)
    common = list(range(5, 17))
    everyone = sums(common)
    np.testing.assert_allclose(sums(common, chunk=5), everyone, atol=1e-5)  # padding, of the first example, is nothing
    _, plan = planned(conformance._settings(name), _SPEC, 80, killable.BUDGET, conformance._share(name))
    (clip,) = (part.l2_norm_clip for part in plan.mechanisms.values() if isinstance(part, DPSGD))
    for place in (0, 7, 12):
        inserted = sums([*common[:place], 40, *common[place:]])
        assert 0.1 * clip < np.linalg.norm(inserted - everyone) <= clip * (1 + 1e-4)


def test_an_image_is_scaled_by_the_declared_range_and_not_by_its_neighbours() -> None:
    images = np.array([[10, 20], [30, 200]], np.uint8).reshape(2, 2, 1, 1)
    together = scaled(tf.constant(images)).numpy()
    np.testing.assert_allclose(together[:1], scaled(tf.constant(images[:1])))
    np.testing.assert_allclose(together, images / 255, rtol=1e-6)
    dataset = LabeledDataset(images, np.arange(2), DataSpec((2, 1, 1), 2))
    features = _features(dataset, lambda images, labels: tf.reshape(images, [-1, 2]))
    np.testing.assert_allclose(features, images.reshape(2, 2) / 255, rtol=1e-6)


def test_a_saved_release_holds_these_facts_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(**_arguments("gaussian_mixture", monkeypatch)).save(tmp_path)
    facts = json.loads((tmp_path / "release.json").read_text())
    assert set(facts) == {"method", "spec", "event", "statement", "augmentation"}
    assert set(facts["spec"]) == set(_SPEC.to_dict())
    assert {path.name for path in tmp_path.iterdir()} == {"release.json", "generator.keras"}

"""One example counts for one clip wherever the training is; images are scaled by public facts; a release holds no more.

That with the outputs of its mechanisms given a method learns nothing else of its examples is in the conformance suite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance import test_methods as conformance
from tests.methods import killable
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import CVAE, train
from tfdpgen.methods.training import planned
from tfdpgen.privacy import DPSGD
from tfdpgen.privacy.chunks import scaled
from tfdpgen.privacy.trainer import Trainer, features_of

_SPEC = DataSpec((8, 8, 1), 10)
_PLAIN = ", plain"


def _examples(seed: int) -> LabeledDataset:
    """Of any kind: with another seed of other brightness, labels and contents."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256 >> seed, size=(80, 8, 8, 1), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(0, 10 - 3 * seed, size=80), _SPEC)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    killable.make_small(monkeypatch.setattr)


def _arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    arguments = killable.arguments(name.removesuffix(_PLAIN))
    if name.endswith(_PLAIN):
        arguments["method"] = CVAE(None, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=3)
    return arguments


@pytest.mark.parametrize("name", ["c_vae", "c_vae, plain", "dp_gan", "gaussian_mixture, labeller"])
@pytest.mark.usefixtures("eager_functions")
def test_an_example_counts_for_one_clip_wherever_the_training_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    _, plan = planned(conformance._settings(name), _SPEC, 80, killable.BUDGET, **conformance._options(name))
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
    features, _ = features_of(dataset, lambda images, labels: tf.reshape(images, [-1, 2]))
    np.testing.assert_allclose(features, images.reshape(2, 2) / 255, rtol=1e-6)


def test_a_saved_release_holds_these_facts_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(**_arguments("gaussian_mixture", monkeypatch)).save(tmp_path)
    facts = json.loads((tmp_path / "release.json").read_text())
    assert set(facts) == {"method", "spec", "event", "statement", "augmentation", "label_distribution"}
    assert set(facts["spec"]) == set(_SPEC.to_dict())
    assert {path.name for path in tmp_path.iterdir()} == {"release.json", "generator.keras"}

"""Neighbours against scipy's distances, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.attacks.controls import noise_examples
from tfdpgen.attacks import neighbours
from tfdpgen.attacks.neighbours import NearestOfLabel, count_within, nearest
from tfdpgen.data import LabeledDataset

RNG = np.random.default_rng(0)
BYTES = RNG.integers(256, size=(75, 30), dtype=np.uint8), RNG.integers(256, size=(210, 30), dtype=np.uint8)
FLOATS = RNG.normal(3, 1, size=(75, 7)), RNG.normal(3, 1, size=(210, 7))


@pytest.fixture(params=[(10, 33), (2048, 8192)], ids=["blocks", "one block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", request.param[0])
    monkeypatch.setattr(neighbours, "_EXAMPLES", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(("queries", "examples", "scale"), [(*BYTES, 255), (*FLOATS, 1)], ids=["bytes", "floats"])
def test_nearest_and_counts_are_scipy_s(queries: np.ndarray, examples: np.ndarray, scale: float) -> None:
    all_distances = cdist(queries / scale, examples / scale)
    distances, positions = nearest(queries, examples)
    np.testing.assert_array_equal(positions, all_distances.argmin(axis=1))
    np.testing.assert_allclose(distances, all_distances.min(axis=1), rtol=1e-5)
    radius = float(np.sort(all_distances.ravel())[500:502].mean())
    np.testing.assert_array_equal(count_within(queries, examples, radius), np.sum(all_distances <= radius, axis=1))


def test_a_copy_among_bright_examples_is_at_distance_0() -> None:
    examples = RNG.integers(200, 256, size=(500, 3072), dtype=np.uint8)
    distances, positions = nearest(examples[:50], examples)
    np.testing.assert_array_equal(positions, np.arange(50))
    assert (distances == 0).all()


def test_only_examples_of_the_label_count() -> None:
    examples, candidates = noise_examples(40, 0), noise_examples(20, 1)
    found = NearestOfLabel(examples)(candidates)
    flat = [dataset.images.reshape(len(dataset), -1) / 255 for dataset in (candidates, examples)]
    distances = np.where(candidates.labels[:, None] == examples.labels, cdist(*flat), np.inf)
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-5)
    zeros = LabeledDataset(examples.images, np.zeros(40, np.int64), examples.spec)
    np.testing.assert_allclose(NearestOfLabel(zeros)(candidates), cdist(*flat).min(axis=1), rtol=1e-5)


def test_no_examples_are_refused() -> None:
    for queries, examples in ((BYTES[0], BYTES[1][:0]), (BYTES[0], BYTES[1][:, :3])):
        with pytest.raises(ValueError, match="`examples` should have shape"):
            nearest(queries, examples)
    assert nearest(BYTES[0][:0], BYTES[1])[0].shape == (0,)

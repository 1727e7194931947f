"""Neighbours against scipy's distances, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.attacks.controls import noise_rows
from tfdpgen.attacks import neighbours
from tfdpgen.attacks.neighbours import NearestOfLabel, count_within, nearest
from tfdpgen.data import LabeledDataset

RNG = np.random.default_rng(0)
BYTES = RNG.integers(256, size=(75, 30), dtype=np.uint8), RNG.integers(256, size=(210, 30), dtype=np.uint8)
FLOATS = RNG.normal(3, 1, size=(75, 7)), RNG.normal(3, 1, size=(210, 7))


@pytest.fixture(params=[(10, 33), (2048, 8192)], ids=["blocks", "one block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", request.param[0])
    monkeypatch.setattr(neighbours, "_ROWS", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(("queries", "rows", "scale"), [(*BYTES, 255), (*FLOATS, 1)], ids=["bytes", "floats"])
def test_nearest_and_counts_are_scipy_s(queries: np.ndarray, rows: np.ndarray, scale: float) -> None:
    all_distances = cdist(queries / scale, rows / scale)
    distances, positions = nearest(queries, rows)
    np.testing.assert_array_equal(positions, all_distances.argmin(axis=1))
    np.testing.assert_allclose(distances, all_distances.min(axis=1), rtol=1e-5)
    radius = float(np.sort(all_distances.ravel())[500:502].mean())
    np.testing.assert_array_equal(count_within(queries, rows, radius), np.sum(all_distances <= radius, axis=1))


def test_a_copy_among_bright_rows_is_at_distance_0() -> None:
    rows = RNG.integers(200, 256, size=(500, 3072), dtype=np.uint8)
    distances, positions = nearest(rows[:50], rows)
    np.testing.assert_array_equal(positions, np.arange(50))
    assert (distances == 0).all()


def test_only_rows_of_the_label_count() -> None:
    rows, candidates = noise_rows(40, 0), noise_rows(20, 1)
    found = NearestOfLabel(rows)(candidates)
    flat = [dataset.images.reshape(len(dataset), -1) / 255 for dataset in (candidates, rows)]
    distances = np.where(candidates.labels[:, None] == rows.labels, cdist(*flat), np.inf)
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-5)
    zeros = LabeledDataset(rows.images, np.zeros(40, np.int64), rows.spec)
    np.testing.assert_allclose(NearestOfLabel(zeros)(candidates), cdist(*flat).min(axis=1), rtol=1e-5)


def test_no_rows_are_refused() -> None:
    for queries, rows in ((BYTES[0], BYTES[1][:0]), (BYTES[0], BYTES[1][:, :3])):
        with pytest.raises(ValueError, match="`rows` should have shape"):
            nearest(queries, rows)
    assert nearest(BYTES[0][:0], BYTES[1])[0].shape == (0,)

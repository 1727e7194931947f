"""Splits: a function of example positions alone, and a round trip through a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdpgen.data import DataError, DataSpec, LabeledDataset, Splits, partition


@given(st.integers(0, 3_000), st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_partition_is_disjoint_exhaustive_and_deterministic(num_examples: int, percentages: list[int]) -> None:
    parts = partition(num_examples, *percentages)
    assert len(parts) == len(percentages) + 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(num_examples))
    for part, again in zip(parts, partition(num_examples, *percentages), strict=True):
        np.testing.assert_array_equal(part, again)


@given(st.integers(5, 100_000))
def test_partition_rounds_all_parts_but_the_first_up(num_examples: int) -> None:
    train, holdout, test = partition(num_examples, 20, 20)
    assert len(holdout) == len(test) == -(-num_examples // 5)
    assert len(train) == num_examples - 2 * len(test)


def test_partition_never_changes() -> None:
    # Whoever trained on a split and later tests on another needs this to hold across versions of everything.
    train, holdout, test = partition(12, 20, 20)
    assert (train.tolist(), holdout.tolist(), test.tolist()) == ([5, 0, 1, 9, 7, 11], [3, 10, 4], [6, 2, 8])


def test_partition_mixes_examples_that_are_stored_in_order() -> None:
    labels = np.repeat(np.arange(10), 100)
    for part in partition(1_000, 20, 20):
        assert np.bincount(labels[part], minlength=10).min() > 5


@pytest.fixture
def splits() -> Splits:
    spec = DataSpec(image_shape=(2, 3, 3), num_classes=4, value_range=(-1.0, 1.0), class_names=("a", "b", "c", "ü"))
    rng = np.random.default_rng(0)
    parts = [
        LabeledDataset(rng.integers(256, size=(n, 2, 3, 3), dtype=np.uint8), rng.integers(4, size=n), spec)
        for n in (5, 3, 2)
    ]
    return Splits(*parts)


def test_save_and_load_give_the_same_examples_and_facts(splits: Splits, tmp_path: Path) -> None:
    splits.save(tmp_path / "new" / "folder")
    loaded = Splits.load(tmp_path / "new" / "folder")
    assert loaded.spec == splits.spec
    for name in ("train", "holdout", "test"):
        np.testing.assert_array_equal(getattr(loaded, name).images, getattr(splits, name).images)
        np.testing.assert_array_equal(getattr(loaded, name).labels, getattr(splits, name).labels)


@pytest.mark.parametrize("name", ["train.npz", "holdout.npz", "test.npz", "spec.json"])
def test_load_names_the_file_that_is_missing_or_damaged(splits: Splits, tmp_path: Path, name: str) -> None:
    splits.save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=name):
        Splits.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=name):
        Splits.load(tmp_path)


def test_parts_with_different_facts_are_refused(splits: Splits) -> None:
    other = dataclasses.replace(splits.test.spec, num_classes=5, class_names=())
    test = LabeledDataset(splits.test.images, splits.test.labels, other)
    with pytest.raises(ValueError, match="`test` should have the same spec"):
        Splits(splits.train, splits.holdout, test)

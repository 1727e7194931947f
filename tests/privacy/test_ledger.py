"""Reservations are durable, composed, and never exceed a limit, also when many processes reserve at once."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import multiprocessing
import pathlib
import sqlite3

import numpy as np
import pytest

from tfdpgen.data import DataSpec, LabeledDataset, RecordDataset
from tfdpgen.data import dataset as dataset_module
from tfdpgen.privacy import BudgetExceededError, Ledger, NoisyCounts, PrivacyBudget, dataset_id, epsilon_of

_EVENT = NoisyCounts().with_noise(8.0).event


def test_reservations_compose_and_outlive_the_ledger_object(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    assert Ledger(path).spent("a", 1e-5) == 0.0
    Ledger(path).reserve("a", _EVENT, delta=1e-5)
    once = Ledger(path).spent("a", 1e-5)
    assert once == pytest.approx(epsilon_of(_EVENT, 1e-5))
    Ledger(path).reserve("a", _EVENT, delta=1e-5)
    assert Ledger(path).reservations("a") == 2
    assert once < Ledger(path).spent("a", 1e-5) < 2 * once
    assert Ledger(path).spent("b", 1e-5) == 0.0


def test_a_limit_refuses_before_anything_is_written(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    limit = PrivacyBudget(1.5 * epsilon_of(_EVENT, 1e-5), 1e-5)
    ledger.reserve("a", _EVENT, delta=1e-5, limit=limit)
    for _ in range(3):
        ledger.reserve("a", NoisyCounts().with_noise(80.0).event, delta=1e-5, limit=limit)
    ledger.reserve("a", _EVENT, delta=1e-5, limit=limit)
    with pytest.raises(BudgetExceededError, match="Nothing was run"):
        ledger.reserve("a", _EVENT, delta=1e-5, limit=limit)
    assert ledger.reservations("a") == 5
    assert ledger.spent("a", 1e-5) <= limit.epsilon


def _reserve(path: pathlib.Path) -> bool:
    try:
        Ledger(path).reserve("a", _EVENT, delta=1e-5, limit=PrivacyBudget(2.5 * epsilon_of(_EVENT, 1e-5), 1e-5))
    except BudgetExceededError:
        return False
    return True


def test_concurrent_processes_never_exceed_the_limit_together(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path)
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        granted = sum(pool.map(_reserve, [path] * 8))
    assert granted == Ledger(path).reservations("a") >= 2
    assert Ledger(path).spent("a", 1e-5) <= 2.5 * epsilon_of(_EVENT, 1e-5)


def test_a_corrupt_ledger_is_an_error_and_not_an_empty_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database, but it is long enough to look like a file" * 20)
    with pytest.raises(sqlite3.DatabaseError):
        Ledger(path)


def test_data_sets_are_told_apart_by_their_examples() -> None:
    spec = DataSpec((2, 2, 1), 2)
    dataset = LabeledDataset(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, np.int64), spec)
    other = LabeledDataset(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 0, 1]), spec)
    assert dataset_id(dataset) == dataset_id(dataset.take([2, 1, 0])) != dataset_id(other)


@pytest.mark.parametrize("num_classes", [2, 256, 257, 70_000])
def test_a_data_set_has_one_id_in_memory_and_on_disk_which_never_changes(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger knows a data set by it: another id for the same examples would forget what was spent on them."""
    spec, rng = DataSpec((2, 3, 1), num_classes), np.random.default_rng(0)
    images = rng.integers(256, size=(50, 2, 3, 1), dtype=np.uint8)
    labels = rng.integers(num_classes, size=50)
    labels[7] = num_classes - 1
    expected = hashlib.sha256(json.dumps([2, 3, 1]).encode() + images.tobytes() + labels.tobytes()).hexdigest()
    on_disk = RecordDataset([{"image": i, "label": y} for i, y in zip(images, labels, strict=True)], spec)
    for block_bytes in (1, 7 * 6, 2**20):
        monkeypatch.setattr(dataset_module, "_BLOCK_BYTES", block_bytes)
        assert dataset_id(LabeledDataset(images, labels, spec)) == dataset_id(on_disk) == expected
    named = DataSpec((2, 3, 1), num_classes, (0.0, 1.0), tuple(str(label) for label in range(num_classes)))
    assert dataset_id(LabeledDataset(images, labels, named)) == expected  # a name buys nobody a new budget
    view = on_disk.take([3, 1])
    assert dataset_id(view) == dataset_id(LabeledDataset(images[[3, 1]], labels[[3, 1]], spec)) != expected

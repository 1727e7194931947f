"""Users for data that know none: as large as was asked for, dealt at random or by class, and in one split each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfdpgen.data import DataError, load_splits
from tfdpgen.data.synthetic_users import synthetic_users


@pytest.mark.parametrize(("kind", "classes_of_a_user"), [("iid", 7.0), ("by_class", 1.2)])
def test_users_have_as_many_examples_and_are_mixed_or_of_one_class(kind: str, classes_of_a_user: float) -> None:
    labels = np.random.default_rng(0).integers(10, size=1003)
    users = synthetic_users(f"{kind}:10", labels)
    assert users.dtype == np.int64
    sizes = np.bincount(users)
    assert list(sizes) == [10] * 100 + [3]
    classes = np.mean([len(np.unique(labels[users == user])) for user in range(100)])
    assert classes == pytest.approx(classes_of_a_user, rel=0.15)
    np.testing.assert_array_equal(users, synthetic_users(f"{kind}:10", labels))


def test_iid_users_depend_on_the_number_of_examples_alone() -> None:
    one, other = (synthetic_users("iid:4", np.random.default_rng(seed).integers(3, size=50)) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_splits_keep_users_together() -> None:
    splits = load_splits("digits", users="by_class:5", verbose=False)
    users = [set(np.asarray(part.user_ids).tolist()) for part in (splits.train, splits.holdout, splits.test)]
    assert len(set().union(*users)) == sum(map(len, users)) == 360


@pytest.mark.parametrize("users", ["iid", "iid:0", "random:5", "iid:many", ":3"])
def test_nonsense_is_refused(users: str) -> None:
    with pytest.raises(DataError, match="`users` should be empty, or iid:NUMBER or by_class:NUMBER"):
        load_splits("digits", users=users, verbose=False)


def test_users_of_the_source_are_not_overwritten(tmp_path: Path) -> None:
    images = np.zeros((60, 8, 8, 1), np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, images=images, labels=np.arange(60) % 2, num_classes=2, user_ids=np.arange(60) // 2)
    assert len(np.unique(np.asarray(load_splits(str(path), verbose=False).train.user_ids))) > 10
    with pytest.raises(DataError, match="`users` should be empty, since"):
        load_splits(str(path), users="iid:5", verbose=False)

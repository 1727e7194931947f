"""Memorisation is seen where examples are copied, and not where they are not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.attacks.controls import Replay
from tfdpgen.attacks import draw_synthetic, measure_memorisation
from tfdpgen.data import LabeledDataset, load_splits

SPLITS = load_splits("digits")


def test_copies_are_counted() -> None:
    drawn = draw_synthetic(Replay(SPLITS.train), 400, seed=0)
    found = measure_memorisation(drawn, SPLITS.train, SPLITS.holdout, seed=0)
    assert found.exact_copies == 400
    assert found.share_nearer_to_train > found.share_without_memorisation[1] + 0.05
    assert found.median_distance_to_train < found.median_distance_to_holdout
    # The compared third of the training examples has a third of the copies.
    assert found.near_copies_of_train == pytest.approx(360 / 1077, abs=0.08)
    assert found.near_copies_of_holdout < 0.05


def test_near_copies_are_seen() -> None:
    drawn = draw_synthetic(Replay(SPLITS.train), 400, seed=0)
    blurred = drawn.images.astype(int) + np.random.default_rng(0).integers(-4, 5, drawn.images.shape)
    near = LabeledDataset(np.clip(blurred, 0, 255).astype(np.uint8), drawn.labels, drawn.spec)
    found = measure_memorisation(near, SPLITS.train, SPLITS.holdout, seed=0)
    assert found.exact_copies == 0
    assert found.near_copies_of_train > 0.2


def test_other_examples_are_no_copies() -> None:
    found = measure_memorisation(SPLITS.test, SPLITS.train, SPLITS.holdout, seed=0)
    low, high = found.share_without_memorisation
    assert low - 0.03 < found.share_nearer_to_train < high + 0.03
    assert found.exact_copies == 0
    assert max(found.near_copies_of_train, found.near_copies_of_holdout) < 0.05
    assert (found.num_synthetic, found.num_reference) == (360, 360)


def test_it_says_that_it_is_no_privacy() -> None:
    metrics = json.loads(json.dumps(measure_memorisation(SPLITS.test, SPLITS.train, SPLITS.holdout, seed=0).to_dict()))
    assert "no measure of privacy" in metrics["description"]
    assert len(metrics["share_without_memorisation"]) == 2


def test_the_interval_is_that_of_exchanged_examples() -> None:
    """Of few references one is the nearest of many: the share varies more than the number of samples says."""
    rng = np.random.default_rng(0)
    both = SPLITS.test.take(np.arange(40))
    drawn = SPLITS.holdout.take(np.arange(200))
    shares, intervals = [], []
    for _ in range(40):
        order = rng.permutation(40)
        found = measure_memorisation(drawn, both.take(order[:20]), both.take(order[20:]), seed=0)
        shares.append(found.share_nearer_to_train)
        intervals.append(found.share_without_memorisation)
    np.testing.assert_allclose(intervals, np.tile(intervals[0], (40, 1)), atol=1e-9)
    low, high = intervals[0]
    assert np.std(shares) == pytest.approx((high - low) / 3.92, rel=0.4)
    assert np.std(shares) > 1.3 * np.sqrt(0.25 / 200)


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="should have examples; got 0, 1077 and 360"):
        measure_memorisation(SPLITS.test.take([]), SPLITS.train, SPLITS.holdout, seed=0)

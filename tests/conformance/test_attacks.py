"""What every registered attack owes: finite scores, one a candidate, from the release and the rng alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfdpgen.attacks import ATTACKS, Attack, get, run_attacks
from tfdpgen.data import load_splits

SPLITS = load_splits("digits")
CANDIDATES = np.concatenate([SPLITS.train.images[:20], SPLITS.holdout.images[:20]])


class Means:
    """A release of class means with pixel noise: it samples as a real one does, in no time."""

    spec = SPLITS.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        means = np.stack([SPLITS.train.images[SPLITS.train.labels == label].mean(axis=0) for label in range(10)])
        images = means[np.asarray(labels)]
        return np.clip(images + np.random.default_rng(seed).normal(0, 40, images.shape), 0, 255).astype(np.uint8)


def score(attack: Attack, candidates: npt.NDArray[np.uint8], seed: int = 0) -> npt.NDArray[np.float64]:
    return attack.score(Means(), candidates, np.random.default_rng(seed))


@pytest.fixture(scope="module", params=sorted(ATTACKS))
def attack(request: pytest.FixtureRequest) -> Attack:
    return get(request.param)


@pytest.fixture(scope="module")
def scores(attack: Attack) -> npt.NDArray[np.float64]:
    return score(attack, CANDIDATES)


def test_it_says_what_it_is(attack: Attack) -> None:
    assert ATTACKS[attack.name] is attack
    assert len(attack.description) > 40
    assert isinstance(attack.is_membership, bool)
    assert np.isfinite(attack.decision_threshold)


def test_one_finite_score_for_each_candidate(attack: Attack, scores: npt.NDArray[np.float64]) -> None:
    assert scores.shape == (len(CANDIDATES),)
    assert np.isfinite(scores).all()


def test_a_score_depends_on_release_candidate_and_rng_alone(attack: Attack, scores: npt.NDArray[np.float64]) -> None:
    # Members stand first in CANDIDATES: neither order, nor company, nor any global seed may matter.
    tf.random.set_seed(123)
    order = np.random.default_rng(5).permutation(len(CANDIDATES))[:25]
    np.testing.assert_allclose(score(attack, CANDIDATES[order]), scores[order], rtol=1e-3, atol=1e-3)


def test_candidates_are_left_as_they_were(attack: Attack) -> None:
    candidates = CANDIDATES.copy()
    candidates.flags.writeable = False
    score(attack, candidates)
    np.testing.assert_array_equal(candidates, CANDIDATES)


def test_other_shapes_and_types_are_refused(attack: Attack) -> None:
    for candidates in (CANDIDATES[:, :4], CANDIDATES.astype(np.float32)):
        with pytest.raises(ValueError, match=r"`candidates` should be uint8 of shape \[n, 8, 8, 1\]"):
            score(attack, candidates)


def test_it_can_be_run_by_its_name_alone(attack: Attack) -> None:
    results = run_attacks(
        Means(), SPLITS.train, SPLITS.holdout, repetitions=1, num_candidates=30, seed=0, names=[attack.name]
    )
    assert set(results) == {attack.name}
    assert results[attack.name].description == attack.description

"""What every registered attack owes: finite scores, one a candidate, from what the attacker holds and the rng alone."""

from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.attacks.controls import overfitted_autoencoder, overfitted_critic
from tfdpgen.attacks import ATTACKS, Attack, Knowledge, draw_synthetic, get, run_attacks
from tfdpgen.data import DataSpec, LabeledDataset, load_splits

SPLITS = load_splits("digits")
IMAGES = np.concatenate([SPLITS.train.images[:20], SPLITS.holdout.images[:20]])
CANDIDATES = LabeledDataset(IMAGES, np.concatenate([SPLITS.train.labels[:20], SPLITS.holdout.labels[:20]]), SPLITS.spec)


class Means:
    """A release of class means with pixel noise: it samples as a real one does, in no time."""

    spec = SPLITS.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        means = np.stack([SPLITS.train.images[SPLITS.train.labels == label].mean(axis=0) for label in range(10)])
        images = means[np.asarray(labels)]
        return np.clip(images + np.random.default_rng(seed).normal(0, 40, images.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def known() -> Knowledge:
    few = SPLITS.train.take(np.arange(60))
    networks = overfitted_autoencoder(few, steps=5) | overfitted_critic(few, few, steps=5)
    reference = SPLITS.holdout.take(np.arange(100, 300))
    return Knowledge(Means(), draw_synthetic(Means(), 500, seed=0), reference, networks)


def score(attack: Attack, known: Knowledge, candidates: LabeledDataset, seed: int = 0) -> npt.NDArray[np.float64]:
    return attack.score(known, candidates, np.random.default_rng(seed))


@pytest.fixture(scope="module", params=sorted(ATTACKS))
def attack(request: pytest.FixtureRequest) -> Attack:
    return get(request.param)


@pytest.fixture(scope="module")
def scores(attack: Attack, known: Knowledge) -> npt.NDArray[np.float64]:
    return score(attack, known, CANDIDATES)


def test_it_says_what_it_is(attack: Attack) -> None:
    assert ATTACKS[attack.name] is attack
    assert len(attack.description) > 40
    assert len(attack.paper) > 10
    assert attack.access in ("samples", "model")
    assert (attack.access == "model") is bool(attack.networks)
    assert isinstance(attack.is_membership, bool)
    assert attack.decision_threshold is None or np.isfinite(attack.decision_threshold)


def test_one_finite_score_for_each_candidate(attack: Attack, scores: npt.NDArray[np.float64]) -> None:
    assert scores.shape == (len(CANDIDATES),)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1


def test_a_score_depends_on_knowledge_candidate_and_rng_alone(
    attack: Attack, known: Knowledge, scores: npt.NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Members stand first in CANDIDATES: neither order, nor company, nor chunks, nor any global seed may matter.
    tf.random.set_seed(123)
    monkeypatch.setattr("tfdpgen.attacks.base.CHUNK", 7)
    order = np.random.default_rng(5).permutation(len(CANDIDATES))[:25]
    np.testing.assert_allclose(score(attack, known, CANDIDATES.take(order)), scores[order], rtol=1e-3, atol=1e-3)


def test_candidates_are_left_as_they_were(attack: Attack, known: Knowledge) -> None:
    candidates = LabeledDataset(CANDIDATES.images.copy(), CANDIDATES.labels.copy(), CANDIDATES.spec)
    candidates.images.flags.writeable = candidates.labels.flags.writeable = False
    score(attack, known, candidates)
    np.testing.assert_array_equal(candidates.images, CANDIDATES.images)


def test_no_candidates_get_no_scores(attack: Attack, known: Knowledge) -> None:
    assert score(attack, known, CANDIDATES.take([])).shape == (0,)


def test_other_shapes_are_refused(attack: Attack, known: Knowledge) -> None:
    other = LabeledDataset(CANDIDATES.images[:, :4], CANDIDATES.labels, DataSpec((4, 8, 1), 10))
    with pytest.raises(ValueError, match=r"`candidates` should have the release's image_shape"):
        score(attack, known, other)


def test_missing_networks_are_named(attack: Attack, known: Knowledge) -> None:
    bare = Knowledge(known.release, known.synthetic, known.reference)
    assert attack.can_run(bare) is not bool(attack.networks)
    if attack.networks:
        with pytest.raises(ValueError, match=f"needs the networks .*{attack.networks[0]}.*holds none"):
            score(attack, bare, CANDIDATES)


@pytest.mark.parametrize("name", [name for name in sorted(ATTACKS) if ATTACKS[name].is_search])
def test_searches_may_run_anywhere(name: str, known: Knowledge) -> None:
    search = get(name)
    scorer = pickle.loads(pickle.dumps(search.prepare_fn(known, np.random.default_rng(0))))
    np.testing.assert_array_equal(
        search.column_of(scorer(CANDIDATES), len(CANDIDATES)), score(search, known, CANDIDATES)
    )


def test_it_can_be_run_by_its_name_alone(attack: Attack, known: Knowledge) -> None:
    results = run_attacks(
        Means(),
        SPLITS.train,
        SPLITS.holdout,
        synthetic=known.synthetic,
        networks=known.networks,
        repetitions=1,
        num_candidates=30,
        seed=0,
        names=[attack.name],
    )
    assert set(results) == {attack.name}
    assert results[attack.name].description == attack.description
    assert (results[attack.name].access, results[attack.name].paper) == (attack.access, attack.paper)

"""The black-box audit: it finds examples that are handed out again, and concludes nothing where none is known."""

from __future__ import annotations

import numpy as np
import pytest

from tfdpgen.attacks.audit import GuessNumbers, audit_release, nearness_scores, random_canaries
from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.methods import train
from tfdpgen.privacy import NoiseSource, PrivacyBudget

_BUDGET = PrivacyBudget(3.0, 1e-5)
_SPEC = DataSpec((12, 10, 3), 4)


class _Copies:
    """A release that hands out a share of the examples that it was trained on, each under its label, and else noise."""

    def __init__(self, examples: LabeledDataset, share: float) -> None:
        self.spec = examples.spec
        kept = np.random.default_rng(0).random(len(examples)) < share
        self._examples = examples.take(np.flatnonzero(kept))

    def sample(self, labels: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        images = rng.integers(256, size=(len(labels), *self.spec.image_shape), dtype=np.uint8)
        for label in np.unique(labels):
            own, places = np.flatnonzero(self._examples.labels == label), np.flatnonzero(np.asarray(labels) == label)
            if len(own):
                images[places] = self._examples.images[own[np.arange(len(places)) % len(own)]]
        return images


@pytest.fixture(scope="module")
def examples() -> LabeledDataset:
    rng = np.random.default_rng(5)
    images = rng.integers(256, size=(200, *_SPEC.image_shape), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(4, size=200), _SPEC)


def test_canaries_are_blocks_of_black_and_white_with_any_label() -> None:
    images, labels = random_canaries(_SPEC, 500, np.random.default_rng(0))
    assert images.shape == (500, 12, 10, 3)
    assert set(np.unique(images)) == {0, 255}
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert len(np.unique(images.reshape(500, -1), axis=0)) == 500
    assert 0.45 < (images > 0).mean() < 0.55
    small, _ = random_canaries(DataSpec((2, 3, 1), 2), 5, np.random.default_rng(0))
    assert small.shape == (5, 2, 3, 1)


def test_a_release_that_hands_examples_out_again_is_refuted(examples: LabeledDataset) -> None:
    result = audit_release(
        lambda joined: _Copies(joined, 1.0), examples, _BUDGET, method="copies", noise=NoiseSource.insecure(0)
    )
    assert result.right == result.guesses == 200
    assert result.is_refuted
    metrics = result.to_dict()
    assert (metrics["adversary"], metrics["method"]) == ("black_box", "copies")
    assert (metrics["claimed_epsilon"], metrics["delta"], metrics["canaries"]) == (3.0, 1e-5, 1_000)


def test_a_release_that_hands_out_half_of_them_is_refuted_by_what_is_called_included(examples: LabeledDataset) -> None:
    result = audit_release(
        lambda joined: _Copies(joined, 0.5),
        examples,
        _BUDGET,
        numbers=GuessNumbers(150, 0),
        noise=NoiseSource.insecure(0),
    )
    assert result.is_refuted


def test_nothing_follows_from_a_release_that_knows_no_example(examples: LabeledDataset) -> None:
    bounds = [
        audit_release(
            lambda joined: _Copies(joined, 0.0),
            examples,
            _BUDGET,
            canaries=300,
            seed=seed,
            noise=NoiseSource.insecure(seed),
        )
        for seed in range(3)
    ]
    assert sum(result.lower_bound > 0 for result in bounds) <= 1
    assert all(not result.is_refuted for result in bounds)


def test_coins_are_fresh_while_canaries_are_the_seeds(examples: LabeledDataset) -> None:
    seen = []

    def train_fn(joined: LabeledDataset) -> _Copies:
        seen.append(joined)
        return _Copies(joined, 0.0)

    for seed in (0, 1):
        audit_release(train_fn, examples, _BUDGET, canaries=100, seed=3, noise=NoiseSource.insecure(seed))
    canaries, labels = random_canaries(_SPEC, 100, np.random.default_rng(3))
    chosen = []
    for joined in seen:
        np.testing.assert_array_equal(joined.images[: len(examples)], examples.images)
        positions = [int(np.flatnonzero((canaries == image).all(axis=(1, 2, 3)))[0]) for image in joined.images[200:]]
        np.testing.assert_array_equal(joined.labels[200:], labels[positions])
        chosen.append(positions)
        assert 25 < len(positions) < 75
    assert chosen[0] != chosen[1]


def test_a_score_compares_the_canarys_own_label_with_the_others(examples: LabeledDataset) -> None:
    canaries, labels = random_canaries(_SPEC, 60, np.random.default_rng(1))
    known = LabeledDataset(canaries[:30], labels[:30], _SPEC)
    scores = nearness_scores(_Copies(known, 1.0), canaries, labels, np.random.default_rng(0))
    assert scores.shape == (60,)
    assert scores[:30].min() > scores[30:].max()


def test_a_private_method_is_not_refuted() -> None:
    examples = load_splits("digits").train.in_memory()
    result = audit_release(
        lambda joined: train("gaussian_mixture", joined, _BUDGET, insecure_reproducible=True, verbose=0),
        examples,
        _BUDGET,
        noise=NoiseSource.insecure(0),
    )
    assert result.lower_bound < 3
    assert result.right < result.guesses


def test_too_few_canaries_or_too_large_a_delta_are_refused(examples: LabeledDataset) -> None:
    with pytest.raises(ValueError, match="`canaries`"):
        audit_release(lambda joined: _Copies(joined, 0.0), examples, _BUDGET, canaries=1)
    with pytest.raises(ValueError, match="delta"):
        audit_release(lambda joined: _Copies(joined, 0.0), examples, PrivacyBudget(3.0, 1e-3))

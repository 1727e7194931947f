"""Audits: figures and intervals on known scores, the cap against its definition, and who is asked about what."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from tfdpgen.attacks import (
    ATTACKS,
    Attack,
    AttackResult,
    ReleaseLike,
    compare_scores,
    privacy_loss_cap,
    register,
    run_attacks,
)
from tfdpgen.data import DataSpec, LabeledDataset


def test_figures_of_one_repetition_by_hand() -> None:
    result = compare_scores([[0.9, 0.6, 0.5, 0.2]], [[0.8, 0.5, 0.1, 0.0]], threshold=0.5)
    assert result.accuracy == pytest.approx((2.5 / 4 + 2.5 / 4) / 2)
    assert result.privacy_loss == pytest.approx(0.25)
    assert result.auc == pytest.approx((4 + 3 + 2.5 + 2) / 16)


def test_figures_are_averaged_over_repetitions() -> None:
    result = compare_scores([[1.0], [0.0]], [[0.0], [1.0]], threshold=0.5)
    assert (result.accuracy, result.privacy_loss, result.auc) == (0.5, 0.0, 0.5)
    assert (result.accuracy_interval, result.privacy_loss_interval, result.auc_interval) == ((0, 1), (-1, 1), (0, 1))


def test_separated_scores() -> None:
    result = compare_scores(np.full((5, 100), 2.0), np.full((5, 80), 1.0), threshold=1.5)
    assert (result.accuracy, result.privacy_loss, result.auc) == (1.0, 1.0, 1.0)
    # 5 times 100 of 100 is no certainty: the intervals keep a width.
    assert 0.95 < result.accuracy_interval[0] < 0.99
    assert result.accuracy_interval[1] == result.auc_interval[1] == 1.0
    assert (result.repetitions, result.num_members, result.num_nonmembers) == (5, 100, 80)


def test_constant_scores_are_a_guess() -> None:
    result = compare_scores(np.zeros((3, 50)), np.zeros((3, 50)), threshold=0.0)
    assert (result.accuracy, result.privacy_loss, result.auc) == (0.5, 0.0, 0.5)


def test_identical_distributions_give_half() -> None:
    rng = np.random.default_rng(0)
    result = compare_scores(rng.normal(size=(10, 500)), rng.normal(size=(10, 500)), threshold=0.0)
    assert result.auc == pytest.approx(0.5, abs=0.02)
    assert result.accuracy == pytest.approx(0.5, abs=0.02)
    for low, high in (result.accuracy_interval, result.auc_interval):
        assert low < 0.5 < high
        assert high - low < 0.2


@pytest.mark.parametrize("repetitions", [1, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(repetitions: int) -> None:
    rng = np.random.default_rng(1)
    shift, covered, widths = 0.5, np.zeros(2), []
    truth = 0.5 * math.erfc(-shift / 2 / math.sqrt(2)), 0.5 * math.erfc(-shift / 2)
    for _ in range(100):
        scores = rng.normal(size=(2, repetitions, 60))
        result = compare_scores(scores[0] + shift, scores[1], threshold=shift / 2, confidence=0.9)
        intervals = result.accuracy_interval, result.auc_interval
        covered += [low <= value <= high for value, (low, high) in zip(truth, intervals, strict=True)]
        widths.append([high - low for low, high in intervals])
    assert (covered >= 84).all()  # 0.9 less two standard deviations
    assert np.mean(widths) < 0.3


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**32 - 1)
)
def test_every_figure_lies_in_its_interval_and_range(
    repetitions: int, members: int, nonmembers: int, threshold: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(3, size=(repetitions, members)) / 2, rng.integers(3, size=(repetitions, nonmembers)) / 2
    result = compare_scores(*scores, threshold)
    for name, least in (("accuracy", 0), ("privacy_loss", -1), ("auc", 0)):
        low, high = getattr(result, f"{name}_interval")
        assert least <= low <= getattr(result, name) <= high <= 1
    assert result.privacy_loss == pytest.approx((result.accuracy - 0.5) / 0.5)


def test_to_dict_is_json_with_these_keys() -> None:
    result = compare_scores([[1.0, 0.5]], [[0.0]], 0.5, description="what", is_membership=False)
    figures = json.loads(json.dumps(result.to_dict()))
    assert set(figures) == {
        *("accuracy", "accuracy_interval", "privacy_loss", "privacy_loss_interval", "auc", "auc_interval"),
        *("repetitions", "num_members", "num_nonmembers", "description", "is_membership"),
    }
    assert (figures["description"], figures["is_membership"]) == ("what", False)


@pytest.mark.parametrize(
    ("members", "nonmembers", "name"),
    [
        ([1.0], [[1.0]], "member_scores"),
        ([[]], [[]], "member_scores"),
        ([[math.nan]], [[1.0]], "member_scores"),
        ([[1.0]], [[math.inf]], "nonmember_scores"),
        ([[1.0]], [[1.0], [2.0]], "nonmember_scores"),
    ],
)
def test_compare_scores_refusals(members: list, nonmembers: list, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` should hold finite numbers"):
        compare_scores(members, nonmembers, 0.5)
    with pytest.raises(ValueError, match="`confidence` should lie strictly between 0 and 1; got 1"):
        compare_scores([[1.0]], [[1.0]], 0.5, confidence=1)


@given(st.floats(0, 12), st.floats(0, 1))
def test_cap_is_the_largest_difference_that_the_definition_allows(epsilon: float, delta: float) -> None:
    factor = math.exp(epsilon)
    # Maximise t - f over all true and false positive rates that (epsilon, delta) permits.
    best = scipy.optimize.linprog(
        c=[-1, 1],
        A_ub=[[1, -factor], [factor, -1]],
        b_ub=[delta, delta + factor - 1],
        bounds=[(0, 1), (0, 1)],
    )
    assert privacy_loss_cap(epsilon, delta) == pytest.approx(-best.fun, abs=1e-6)


def test_cap_at_the_ends() -> None:
    assert privacy_loss_cap(0, 0) == 0
    assert privacy_loss_cap(0, 0.25) == 0.25
    assert privacy_loss_cap(math.inf, 0) == 1
    assert privacy_loss_cap(1_000, 1e-5) == 1
    assert privacy_loss_cap(3, 1e-5) == pytest.approx((math.exp(3) - 1 + 2e-5) / (math.exp(3) + 1))


@pytest.mark.parametrize(("epsilon", "delta", "name"), [(-1, 0, "epsilon"), (math.nan, 0, "epsilon"), (1, 2, "delta")])
def test_cap_refusals(epsilon: float, delta: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` should"):
        privacy_loss_cap(epsilon, delta)


class Replay:
    """A "release" that hands out its training rows."""

    def __init__(self, dataset: LabeledDataset) -> None:
        self.dataset, self.spec = dataset, dataset.spec

    def sample(self, labels: object, seed: int) -> np.ndarray:
        del labels, seed
        return self.dataset.images


def noise_rows(num_rows: int, seed: int) -> LabeledDataset:
    rng = np.random.default_rng(seed)
    spec = DataSpec((4, 4, 1), num_classes=2)
    return LabeledDataset(rng.integers(256, size=(num_rows, 4, 4, 1), dtype=np.uint8), np.arange(num_rows) % 2, spec)


def nearness(release: ReleaseLike, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Minus the distance to the nearest released image: 0 for what is replayed."""
    del rng
    released = release.sample([0], seed=0).astype(float)
    return np.array([-np.abs(released - candidate).sum(axis=(1, 2, 3)).min() for candidate in candidates])


@pytest.fixture
def nearest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Registers a membership attack that finds replayed rows; returns how many candidates each call got."""
    calls: list[int] = []

    def score_fn(release: ReleaseLike, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        calls.append(len(candidates))
        return nearness(release, candidates, rng)

    for name, is_membership in (("nearest", True), ("nearest_noise", False)):
        monkeypatch.setitem(ATTACKS, name, Attack(name, "", is_membership, score_fn, decision_threshold=-0.5))
    return calls


def test_replayed_members_are_found(nearest: list[int]) -> None:
    members, nonmembers = noise_rows(60, 0), noise_rows(40, 1)
    results = run_attacks(
        Replay(members), members, nonmembers, repetitions=3, seed=0, names=["nearest", "nearest_noise"]
    )
    for name in ("nearest", "nearest_noise"):
        result = results[name]
        assert (result.accuracy, result.privacy_loss, result.auc) == (1.0, 1.0, 1.0)
        assert (result.repetitions, result.num_members, result.num_nonmembers) == (3, 40, 40)
    assert results["nearest"].is_membership
    assert not results["nearest_noise"].is_membership
    assert nearest == [120] * 3  # scored once a repetition for both questions: members, holdout, noise


def test_members_of_another_release_are_not_found(nearest: list[int]) -> None:
    results = run_attacks(
        Replay(noise_rows(60, 2)), noise_rows(60, 0), noise_rows(60, 1), seed=0, names=["nearest"], num_candidates=50
    )
    assert results["nearest"].privacy_loss == 0.0
    assert results["nearest"].auc_interval[0] < 0.5 < results["nearest"].auc_interval[1]
    assert nearest == [100] * 5


def test_position_does_not_tell_who_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_position(release: ReleaseLike, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return -np.arange(len(candidates), dtype=float)

    monkeypatch.setitem(ATTACKS, "position", Attack("position", "", True, by_position, decision_threshold=-100.0))
    result = run_attacks(
        Replay(noise_rows(9, 0)), noise_rows(100, 0), noise_rows(100, 1), repetitions=20, seed=0, names=["position"]
    )["position"]
    assert result.auc == pytest.approx(0.5, abs=0.03)


def test_run_attacks_is_a_function_of_its_seed(nearest: list[int]) -> None:
    def run(seed: int) -> AttackResult:
        release = Replay(noise_rows(30, 0))
        return run_attacks(
            release, noise_rows(60, 0), noise_rows(60, 1), seed=seed, num_candidates=20, names=["nearest"]
        )["nearest"]

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert nearest


def test_run_attacks_refusals(nearest: list[int]) -> None:
    rows = noise_rows(10, 0)
    with pytest.raises(ValueError, match=r"`name` should be one of \['classifier_holdout', .*; got 'nosuch'"):
        run_attacks(Replay(rows), rows, rows, seed=0, names=["nosuch"])
    with pytest.raises(ValueError, match="should be at least 1; got 0"):
        run_attacks(Replay(rows), rows, rows, seed=0, names=["nearest"], repetitions=0)
    with pytest.raises(ValueError, match="should be at least 1; got 5, 0"):
        run_attacks(Replay(rows), rows, rows, seed=0, names=["nearest"], num_candidates=0)
    other = LabeledDataset(np.zeros((9, 5, 5, 1), np.uint8), np.zeros(9, np.int64), DataSpec((5, 5, 1), 2))
    with pytest.raises(ValueError, match=r"`candidates` should be uint8 of shape \[n, 4, 4, 1\]"):
        run_attacks(Replay(rows), other, other, seed=0, names=["nearest"])
    assert not nearest


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'classifier_noise' is registered already"):
        register(Attack("classifier_noise", "", False, nearness, 0.0))

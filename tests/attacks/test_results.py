"""Results: metrics and intervals on known scores, and who is asked about what."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from tests.attacks.controls import Replay, noise_examples
from tfdpgen.attacks import (
    ATTACKS,
    Attack,
    AttackResult,
    Knowledge,
    Scorer,
    Task,
    compare_scores,
    register,
    run_attacks,
    run_here,
    strongest_attack,
)
from tfdpgen.attacks.neighbours import NearestOfLabel
from tfdpgen.data import DataSpec, LabeledDataset


def test_metrics_of_one_repetition_by_hand() -> None:
    result = compare_scores([[0.9, 0.6, 0.5, 0.2]], [[0.8, 0.5, 0.1, 0.0]], threshold=0.5)
    assert result.accuracy == pytest.approx((2.5 / 4 + 2.5 / 4) / 2)
    assert result.privacy_loss == pytest.approx(0.25)
    assert result.auc == pytest.approx((4 + 3 + 2.5 + 2) / 16)


def test_metrics_are_averaged_over_repetitions() -> None:
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
def test_every_metric_lies_in_its_interval_and_range(
    repetitions: int, members: int, nonmembers: int, threshold: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(3, size=(repetitions, members)) / 2, rng.integers(3, size=(repetitions, nonmembers)) / 2
    result = compare_scores(*scores, threshold)
    rates = ("tpr_at_1_percent_fpr", 0), ("tpr_at_01_percent_fpr", 0)
    for name, least in (("accuracy", 0), ("privacy_loss", -1), ("auc", 0), *rates):
        low, high = getattr(result, f"{name}_interval")
        assert least <= low <= getattr(result, name) <= high <= 1
    assert result.privacy_loss == pytest.approx((result.accuracy - 0.5) / 0.5)


def test_the_median_is_a_threshold_that_needs_no_member() -> None:
    result = compare_scores([[5.0, 4.0, 1.0]], [[3.0, 0.0, -1.0]], threshold=None)  # the median is 2
    assert result.accuracy == pytest.approx((2 / 3 + 2 / 3) / 2)
    shifted = compare_scores([[105.0, 104.0, 101.0]], [[103.0, 100.0, 99.0]], threshold=None)
    assert shifted.accuracy == result.accuracy


def test_tpr_at_low_fpr_by_hand() -> None:
    nonmembers = np.arange(1000.0)[None]
    # Above all but 10 of 1000 lie a quarter of the members, above all but one a tenth.
    members = np.repeat([2000.0, 995.5, 0.5], [10, 15, 75])[None]
    result = compare_scores(members, nonmembers, threshold=None)
    assert result.tpr_at_1_percent_fpr == pytest.approx(0.25)
    assert result.tpr_at_01_percent_fpr == pytest.approx(0.10)
    low, high = result.tpr_at_1_percent_fpr_interval
    assert 0.03 < low < 0.25 < high < 0.4


def test_too_few_nonmembers_show_no_low_fpr() -> None:
    result = compare_scores(np.full((1, 50), 2.0), np.full((1, 50), 1.0), threshold=1.5)
    assert result.tpr_at_1_percent_fpr == 1.0
    assert result.tpr_at_1_percent_fpr_interval == (0.0, 1.0)


def test_tied_scores_give_the_diagonal() -> None:
    roc = compare_scores(np.zeros((2, 40)), np.zeros((2, 40)), 0.0).roc
    np.testing.assert_allclose(roc.tpr, roc.fpr, atol=1e-6)


def test_the_roc_is_sklearn_s_with_a_band() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1, 1, (1, 3000)), rng.normal(0, 1, (1, 3000))
    roc = compare_scores(members, nonmembers, None).roc
    truth = np.repeat([1, 0], 3000)
    fpr, tpr, _ = sklearn.metrics.roc_curve(truth, np.concatenate([members[0], nonmembers[0]]))
    np.testing.assert_allclose(roc.tpr, np.interp(roc.fpr, fpr, tpr), atol=1e-2)
    assert len(roc.fpr) <= 100
    assert roc.fpr[0] == 0
    assert roc.fpr[-1] == roc.tpr[-1] == roc.high[-1] == 1
    for values in (roc.fpr, roc.tpr, roc.low, roc.high):
        assert (np.diff(values) >= -1e-9).all()
    assert all(low <= tpr <= high for low, tpr, high in zip(roc.low, roc.tpr, roc.high, strict=True))


def test_the_band_covers_the_true_tpr_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered, informative = 0, 0
    truth = 0.5 * math.erfc((2.3263 - 1.5) / math.sqrt(2))  # above what 1 % of standard normals exceed
    for _ in range(150):
        result = compare_scores(rng.normal(1.5, 1, (1, 400)), rng.normal(0, 1, (1, 600)), None, confidence=0.8)
        low, high = result.tpr_at_1_percent_fpr_interval
        covered += low <= truth <= high
        informative += low > 0.01
    assert covered >= 0.8 * 150 - 2 * math.sqrt(0.16 * 150)
    assert informative > 75


def test_the_strongest_attack_s_interval_allows_for_having_looked_at_all() -> None:
    rng = np.random.default_rng(0)
    results = {str(i): compare_scores(rng.normal(size=(1, 300)), rng.normal(size=(1, 300)), 0.0) for i in range(20)} | {
        "noise": compare_scores([[1.0]], [[0.0]], 0.5, is_membership=False)
    }
    strongest = strongest_attack(results)
    assert strongest is not None
    assert strongest.looked_at == 20
    assert strongest.privacy_loss == max(r.privacy_loss for r in results.values() if r.is_membership)
    low, high = results[strongest.name].privacy_loss_interval
    assert strongest.interval[0] < low < high < strongest.interval[1]
    assert "Bonferroni" in strongest.correction
    assert json.loads(json.dumps(strongest.to_dict()))["name"] == strongest.name
    assert strongest_attack({"noise": results["noise"]}) is None


def test_the_corrected_interval_covers_where_the_uncorrected_does_not() -> None:
    rng = np.random.default_rng(3)
    corrected, uncorrected = 0, 0
    for _ in range(60):
        results = {str(i): compare_scores(*rng.normal(size=(2, 1, 60)), 0.0) for i in range(12)}
        strongest = strongest_attack(results)
        assert strongest is not None
        corrected += strongest.interval[0] <= 0
        uncorrected += results[strongest.name].privacy_loss_interval[0] <= 0
    assert corrected >= 54
    assert uncorrected < 50


def test_to_dict_is_json_with_these_keys() -> None:
    result = compare_scores([[1.0, 0.5]], [[0.0]], 0.5, description="what", is_membership=False)
    metrics = json.loads(json.dumps(result.to_dict()))
    assert set(metrics) == {
        *("accuracy", "accuracy_interval", "privacy_loss", "privacy_loss_interval", "auc", "auc_interval"),
        *("tpr_at_1_percent_fpr", "tpr_at_1_percent_fpr_interval"),
        *("tpr_at_01_percent_fpr", "tpr_at_01_percent_fpr_interval", "roc", "accuracies"),
        *("repetitions", "num_members", "num_nonmembers", "description", "access", "paper", "is_membership"),
    }
    assert (metrics["description"], metrics["is_membership"]) == ("what", False)
    assert set(metrics["roc"]) == {"fpr", "tpr", "low", "high"}


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


def nearness(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Minus the distance to the nearest released image: 0 for what is replayed."""
    del rng
    nearest = NearestOfLabel(known.synthetic)
    return lambda candidates: -nearest(candidates)


def an_attack(name: str, prepare_fn, *, is_membership: bool = True, **facts) -> Attack:
    return Attack(name, "", access="samples", paper="", is_membership=is_membership, prepare_fn=prepare_fn, **facts)


@pytest.fixture(params=[False, True], ids=["attack", "search"])
def nearest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Registers a membership attack that finds replayed examples; returns how many candidates each call got."""
    calls: list[int] = []

    def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
        def score(candidates: LabeledDataset) -> np.ndarray:
            calls.append(len(candidates))
            return nearness(known, rng)(candidates)

        return score

    for name, is_membership in (("nearest", True), ("nearest_noise", False)):
        attack = an_attack(name, prepare, is_membership=is_membership, decision_threshold=-0.5, is_search=request.param)
        monkeypatch.setitem(ATTACKS, name, attack)
    return calls


def replay(members: LabeledDataset) -> dict:
    """A release that replays its examples, and all of them as what was handed out."""
    return {"release": Replay(members), "synthetic": members}


def test_replayed_members_are_found(nearest: list[int]) -> None:
    members, nonmembers = noise_examples(60, 0), noise_examples(80, 1)
    results = run_attacks(
        **replay(members), members=members, nonmembers=nonmembers, repetitions=3, seed=0,
        names=["nearest", "nearest_noise"],
    )  # fmt: skip
    for name in ("nearest", "nearest_noise"):
        result = results[name]
        assert (result.accuracy, result.privacy_loss, result.auc) == (1.0, 1.0, 1.0)
        assert (result.repetitions, result.num_members, result.num_nonmembers) == (3, 40, 40)
    assert results["nearest"].is_membership
    assert not results["nearest_noise"].is_membership
    assert nearest == [120] * 3  # scored once a repetition for both questions: members, holdout, noise


def test_members_of_another_release_are_not_found(nearest: list[int]) -> None:
    results = run_attacks(
        **replay(noise_examples(60, 2)), members=noise_examples(60, 0), nonmembers=noise_examples(120, 1), seed=0,
        names=["nearest"], num_candidates=50,
    )  # fmt: skip
    assert results["nearest"].auc_interval[0] < 0.5 < results["nearest"].auc_interval[1]
    assert nearest == [100] * 5


def test_attackers_hold_examples_of_the_population_that_are_never_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    references: list[np.ndarray] = []
    asked: list[np.ndarray] = []

    def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
        references.append(known.reference.images)

        def score(candidates: LabeledDataset) -> np.ndarray:
            asked.append(candidates.images)
            return np.zeros(len(candidates))

        return score

    monkeypatch.setitem(ATTACKS, "watch", an_attack("watch", prepare))
    members, nonmembers = noise_examples(50, 0), noise_examples(101, 1)
    run_attacks(Replay(members), members, nonmembers, seed=0, repetitions=4, names=["watch"])

    def examples(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    held = examples(np.concatenate(references))
    assert len(held) == 50  # the same in each repetition
    assert held < examples(nonmembers.images)
    assert not held & examples(np.concatenate(asked))


def test_position_does_not_tell_who_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_position(known: Knowledge, rng: np.random.Generator) -> Scorer:
        return lambda candidates: -np.arange(len(candidates), dtype=float)

    monkeypatch.setitem(ATTACKS, "position", an_attack("position", by_position))
    result = run_attacks(
        Replay(noise_examples(9, 0)),
        noise_examples(100, 0),
        noise_examples(200, 1),
        repetitions=20,
        seed=0,
        names=["position"],
    )["position"]
    assert result.auc == pytest.approx(0.5, abs=0.03)


def test_searches_are_handed_over_and_change_nothing(nearest: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfdpgen.attacks.base.CHUNK", 30)
    handed: list[int] = []

    def run_elsewhere(tasks: list[Task]) -> list[np.ndarray]:
        handed.extend(len(candidates) for _, candidates in tasks)
        return run_here(tasks)

    members = noise_examples(60, 0)
    arguments = {
        "members": members,
        "nonmembers": noise_examples(80, 1),
        "repetitions": 2,
        "seed": 0,
        "names": ["nearest"],
    }
    elsewhere = run_attacks(**replay(members), **arguments, run_tasks=run_elsewhere)
    assert elsewhere == run_attacks(**replay(members), **arguments)
    assert handed in ([], [30, 30, 20] * 2)
    assert bool(handed) is ATTACKS["nearest"].is_search
    assert len(nearest) == 12


def test_run_attacks_is_a_function_of_its_seed(nearest: list[int]) -> None:
    def run(seed: int) -> AttackResult:
        return run_attacks(
            **replay(noise_examples(30, 0)), members=noise_examples(60, 0), nonmembers=noise_examples(60, 1), seed=seed,
            num_candidates=20, names=["nearest"],
        )["nearest"]  # fmt: skip

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert nearest


def test_networks_decide_which_attacks_run(nearest: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    examples = noise_examples(30, 0)
    needy = an_attack("needy", nearness, networks=("critic",))
    monkeypatch.setattr("tfdpgen.attacks.running.ATTACKS", {"needy": needy, "nearest": ATTACKS["nearest"]})
    monkeypatch.setitem(ATTACKS, "needy", needy)
    assert set(run_attacks(Replay(examples), examples, examples, seed=0, repetitions=1)) == {"nearest"}
    networks = {"critic": object()}
    results = run_attacks(Replay(examples), examples, examples, seed=0, repetitions=1, networks=networks)
    assert set(results) == {"needy", "nearest"}
    with pytest.raises(ValueError, match=r"`names` \['needy'\] need networks that were not given"):
        run_attacks(Replay(examples), examples, examples, seed=0, names=["needy"])


def test_run_attacks_refusals(nearest: list[int]) -> None:
    examples = noise_examples(10, 0)
    with pytest.raises(ValueError, match=r"`name` should be one of \['classifier_holdout', .*; got 'nosuch'"):
        run_attacks(Replay(examples), examples, examples, seed=0, names=["nosuch"])
    with pytest.raises(ValueError, match=r"should be at least 1, .* got 0"):
        run_attacks(Replay(examples), examples, examples, seed=0, names=["nearest"], repetitions=0)
    with pytest.raises(ValueError, match=r"should be at least 1, .* got 5, 0"):
        run_attacks(Replay(examples), examples, examples, seed=0, names=["nearest"], num_candidates=0)
    with pytest.raises(ValueError, match="got 5, None, 10 and 1"):
        run_attacks(Replay(examples), examples, examples.take([0]), seed=0, names=["nearest"])
    other = LabeledDataset(np.zeros((9, 5, 5, 1), np.uint8), np.zeros(9, np.int64), DataSpec((5, 5, 1), 2))
    with pytest.raises(ValueError, match=r"`candidates` should have the release's image_shape"):
        run_attacks(Replay(examples), other, other, seed=0, names=["nearest"])
    with pytest.raises(ValueError, match="`synthetic` should hold examples"):
        run_attacks(Replay(examples), examples, examples, synthetic=examples.take([]), seed=0, names=["nearest"])
    assert not nearest


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'classifier_noise' is registered already"):
        register(an_attack("classifier_noise", nearness))

"""Published accuracies: the noise is what was paid for, was paid for before, and what cannot be paid for is refused."""

from __future__ import annotations

import math
from pathlib import Path

import dp_accounting
import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from tests.evaluation.test_utility import stripes
from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation import Classifier, check_publishable, fit_classifier, publish_accuracies
from tfdpgen.evaluation import published as published_accuracies
from tfdpgen.privacy import BudgetExceededError, Ledger, LedgerError, NoiseSource, PrivacyBudget, epsilon_of
from tfdpgen.privacy.mechanisms.noisy_counts import NoisyCounts

BUDGET = PrivacyBudget(1.0, 1e-5)


def guesser(right: float, ledger: Ledger | None = None, examples: LabeledDataset | None = None) -> Classifier:
    """Names a share of the examples of `stripes` rightly; with a ledger it holds that its answers are paid for."""

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        if ledger is not None and examples is not None:
            assert len(ledger.reservations(examples)) == 1, "asked before the cost was reserved"
        labels = np.arange(len(images)) % 3
        return np.where(np.arange(len(images)) < right * len(images), labels, (labels + 1) % 3)

    return Classifier("cnn", "generated", 100, predict)


@pytest.mark.parametrize("num_counts", [1, 4])
def test_noise_is_the_gaussian_that_is_accounted(num_counts: int) -> None:
    mechanism = NoisyCounts(num_counts).with_noise(2.5)
    assert mechanism.event == dp_accounting.GaussianDpEvent(2.5)
    holds = np.zeros((num_counts, 30), bool)
    holds[:, :7] = True
    noise = NoiseSource()
    drawn = np.concatenate([mechanism.release(holds, noise) - 7 for _ in range(6000 // num_counts)])
    stddev = 2.5 * math.sqrt(num_counts)  # one example may move every count by 1
    assert scipy.stats.kstest(drawn, scipy.stats.norm(scale=stddev).cdf).pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(drawn, scipy.stats.norm(scale=wrong * stddev).cdf).pvalue < 1e-6


def test_one_example_moves_the_counts_by_no_more_than_the_sensitivity() -> None:
    silent = NoisyCounts(3).with_noise(1e-12)
    holds = np.random.default_rng(0).random((3, 40)) < 0.5
    whole = silent.release(holds, NoiseSource())
    for example in range(40):
        changes = [
            np.delete(holds, example, axis=1),
            np.concatenate([holds[:, :example], ~holds[:, example : example + 1], holds[:, example + 1 :]], axis=1),
        ]
        for other in changes:
            moved = np.linalg.norm(silent.release(other, NoiseSource()) - whole)
            assert moved <= silent.stddev / silent.noise_multiplier + 1e-9


def test_the_published_noise_has_the_stated_scale_and_the_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_accuracies, "_interval", lambda *_: (0.0, 1.0))  # nine tenths of the time
    examples = stripes(300)
    published = [
        publish_accuracies({"p2": guesser(0.5), "p2_mlp": guesser(0.4)}, examples, BUDGET) for _ in range(1000)
    ]
    facts = published[0]
    assert 0.99 < facts.epsilon <= 1.0
    assert facts.epsilon == epsilon_of(dp_accounting.GaussianDpEvent(facts.noise_multiplier), 1e-5)
    assert facts.noise_stddev == pytest.approx(math.sqrt(2) * facts.noise_multiplier / 300)
    for name, right in (("p2", 0.5), ("p2_mlp", 0.4)):
        errors = [each.accuracies[name] - right for each in published]
        assert scipy.stats.kstest(errors, scipy.stats.norm(scale=facts.noise_stddev).cdf).pvalue > 1e-4
        for wrong in (2 / 3, 3 / 2):
            assert scipy.stats.kstest(errors, scipy.stats.norm(scale=wrong * facts.noise_stddev).cdf).pvalue < 1e-3
    errors = np.array([[each.accuracies["p2"] - 0.5, each.accuracies["p2_mlp"] - 0.4] for each in published])
    assert abs(np.corrcoef(errors.T)[0, 1]) < 0.25, "each metric has noise of its own"


def test_intervals_cover_noise_and_choice_of_examples() -> None:
    rng, covered = np.random.default_rng(0), 0
    examples = stripes(300)
    for _ in range(200):
        share = rng.binomial(300, 0.8) / 300
        published = publish_accuracies({"p2": guesser(share)}, examples, BUDGET)
        low, high = published.intervals["p2"]
        assert low <= published.accuracies["p2"] <= high
        covered += low <= 0.8 <= high
    assert covered >= 180  # a right 95 % fails this less than once in a thousand times


def test_the_cost_is_reserved_on_the_test_examples_before_they_are_asked(tmp_path: Path) -> None:
    examples, ledger = stripes(300), Ledger(tmp_path / "ledger.sqlite")
    published = publish_accuracies({"p2": guesser(0.5, ledger, examples)}, examples, BUDGET, ledger=ledger)
    assert ledger.spent(examples, 1e-5) == published.epsilon
    with pytest.raises(BudgetExceededError):
        publish_accuracies({"p2": guesser(0.5)}, examples, BUDGET, ledger=ledger, limit=PrivacyBudget(1.2, 1e-5))
    assert len(ledger.reservations(examples)) == 1


def test_what_was_bought_is_not_lost_where_the_ledger_is_away_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(ledger: Ledger, reservation: str) -> None:
        raise LedgerError("The database is away.")

    examples, ledger = stripes(300), Ledger(tmp_path / "ledger.sqlite")
    monkeypatch.setattr(Ledger, "confirm", away)
    published = publish_accuracies({"p2": guesser(0.5)}, examples, BUDGET, ledger=ledger)
    assert ledger.spent(examples, 1e-5) == published.epsilon


def test_a_further_publication_on_the_same_examples_adds_its_cost(tmp_path: Path) -> None:
    examples, ledger = stripes(300), Ledger(tmp_path / "ledger.sqlite")
    first, second = (publish_accuracies({"p2": guesser(0.5)}, examples, BUDGET, ledger=ledger) for _ in range(2))
    assert "Repeated publications on the same test examples add up" in first.text
    both = ledger.spent(examples, first.delta + second.delta)
    assert 1.3 * first.epsilon < both <= first.epsilon + second.epsilon


def test_values_stay_accuracies_and_are_json_ready() -> None:
    for right in (0.0, 1.0):
        published = publish_accuracies({"p2": guesser(right)}, stripes(300), PrivacyBudget(0.05, 1e-5)).to_dict()
        metric = published["metrics"]["p2"]
        assert 0 <= metric["interval"][0] <= metric["value"] <= metric["interval"][1] <= 1
        assert published["noise_source"] == "operating system"
        assert "disjoint" in published["statement"]
        assert set(published) >= {"epsilon", "delta", "noise_stddev", "confidence", "num_examples"}


@pytest.mark.parametrize("name", ["p1", "p3", "p1_mlp", "p3_random_forest", "accuracy_loss"])
def test_metrics_of_classifiers_of_private_examples_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"cannot hold {name}: .*trained on private examples without differential privacy"
    ):
        check_publishable(["p2", name])


def test_refusals_spend_nothing(tmp_path: Path) -> None:
    examples, ledger = stripes(300), Ledger(tmp_path / "ledger.sqlite")
    private = fit_classifier("mlp", stripes(30), trained_on="private", seed=0)
    with pytest.raises(ValueError, match="cannot hold a mlp of private examples as p2"):  # whatever it is called
        publish_accuracies({"p2": private}, examples, BUDGET, ledger=ledger)
    with pytest.raises(ValueError, match="p4: it touches no private example"):
        publish_accuracies({"p4": guesser(0.5)}, examples, BUDGET, ledger=ledger)
    with pytest.raises(ValueError, match="`delta` should be smaller than 1 / num_examples"):
        publish_accuracies({"p2": guesser(0.5)}, examples, PrivacyBudget(1.0, 0.01), ledger=ledger)
    with pytest.raises(ValueError, match="`metrics` should name metrics to publish"):
        publish_accuracies({}, examples, BUDGET, ledger=ledger)
    with pytest.raises(ValueError, match="`limit` needs a `ledger`"):
        publish_accuracies({"p2": guesser(0.5)}, examples, BUDGET, limit=BUDGET)
    assert len(ledger.reservations(examples)) == 0
    for wrong in (np.zeros((1, 3)), np.zeros(3, bool), np.zeros((2, 3), bool)):
        with pytest.raises(ValueError, match=r"`predicates` should be bool of shape \[1, n\]"):
            NoisyCounts().with_noise(1.0).release(wrong, NoiseSource())
    for bad in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="`noise_multiplier` should be finite"):
            NoisyCounts().with_noise(bad)
    with pytest.raises(ValueError, match="`num_counts` should be at least 1"):
        NoisyCounts(0)

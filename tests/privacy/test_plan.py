"""The plan's epsilon is dp-accounting's, its parts agree with each other, and its statement says what was done."""

from __future__ import annotations

import dataclasses
import json

import dp_accounting
import pytest
from dp_accounting import pld, rdp

from tfdpgen.installation import tensorflow_privacy
from tfdpgen.privacy import (
    DPSGD,
    ClassMeans,
    DPKerasSGD,
    NoiseSource,
    PrivacyBudget,
    PrivacyPlan,
    PrivacyStatement,
    compose,
    epsilon_of,
)
from tfdpgen.privacy.accounting import event_from_dict, event_to_dict

compute_dp_sgd_privacy_lib = tensorflow_privacy("privacy.analysis.compute_dp_sgd_privacy_lib")

_PLAN = DPSGD(num_examples=2_000, expected_batch_size=100, steps=150, l2_norm_clip=0.5, noise_multiplier=1.2)


@pytest.mark.parametrize(("accountant", "make"), [("pld", pld.PLDAccountant), ("rdp", rdp.RdpAccountant)])
@pytest.mark.parametrize("noise_multiplier", [0.8, 1.7])
def test_epsilon_equals_dp_accountings(accountant: str, make: type, noise_multiplier: float) -> None:
    plan = dataclasses.replace(_PLAN, noise_multiplier=noise_multiplier, accountant=accountant)
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(100 / 2_000, dp_accounting.GaussianDpEvent(noise_multiplier)), 150
    )
    expected = make().compose(event).get_epsilon(1e-5)
    assert plan.epsilon(1e-5) == pytest.approx(expected, rel=1e-5)


def test_the_event_follows_the_plan() -> None:
    """Half the noise, another sampling probability or more steps cost more; nothing is cached from before."""
    epsilon = _PLAN.epsilon(1e-5)
    for change in ({"noise_multiplier": 0.6}, {"expected_batch_size": 200}, {"steps": 300}, {"num_examples": 1_000}):
        assert dataclasses.replace(_PLAN, **change).epsilon(1e-5) > 1.2 * epsilon


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("epsilon", [0.3, 8.0])
def test_calibration_meets_the_budget_and_wastes_little(epsilon: float, accountant: str) -> None:
    plan = dataclasses.replace(_PLAN, noise_multiplier=None, accountant=accountant)
    calibrated = plan.calibrate(PrivacyBudget(epsilon, 1e-5))
    assert plan.noise_multiplier is None
    assert 0.998 * epsilon < calibrated.epsilon(1e-5) <= epsilon


def test_calibration_leaves_room_for_what_else_runs() -> None:
    budget = PrivacyBudget(2.0, 1e-5)
    plan = PrivacyPlan({"class_means": ClassMeans(10, 49, 1.0), "dp_sgd": _PLAN}, 2_000, {"class_means": 0.3})
    means, training = plan.calibrate(budget).mechanisms.values()
    assert training.noise_multiplier > _PLAN.calibrate(budget).noise_multiplier
    assert 0.998 * 2.0 < epsilon_of(compose([means, training]), 1e-5) <= 2.0
    assert means.noise_multiplier == budget.share(0.3).gaussian_noise_multiplier


def test_a_delta_that_is_not_below_one_over_n_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`delta` should be smaller than 1 / num_examples.*Try 1e-05"):
        _PLAN.calibrate(PrivacyBudget(3.0, 1 / 2_000))


def test_batches_and_optimizer_are_the_plans() -> None:
    batches = list(dataclasses.replace(_PLAN, steps=7).batches())
    assert len(batches) == 7
    assert all(batch.indices.shape[1] == _PLAN.physical_batch_size for batch in batches)
    optimizer = _PLAN.optimizer(learning_rate=0.1)
    query = optimizer._dp_sum_query
    assert (query._l2_norm_clip, query._stddev) == (0.5, 0.5 * 1.2)
    assert optimizer._expected_batch_size == 100
    assert optimizer._clip_mode == "flat"
    other = dataclasses.replace(_PLAN, clip_mode="automatic").optimizer(optimizer_class=DPKerasSGD, learning_rate=0.1)
    assert isinstance(other, DPKerasSGD)
    assert other._clip_mode == "automatic"


def test_a_plan_without_noise_multiplier_neither_runs_nor_states_anything() -> None:
    plan = dataclasses.replace(_PLAN, noise_multiplier=None)
    for use in (lambda: plan.event, lambda: plan.epsilon(1e-5), plan.optimizer, lambda: plan.statement(1e-5)):
        with pytest.raises(ValueError, match="calibrate"):
            use()


def test_without_noise_epsilon_is_infinite() -> None:
    assert dataclasses.replace(_PLAN, noise_multiplier=0.0).epsilon(1e-5) == float("inf")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"num_examples": 0}, "num_examples"),
        ({"expected_batch_size": 2_001}, "expected_batch_size"),
        ({"expected_batch_size": 1.5}, "expected_batch_size"),
        ({"steps": 0}, "steps"),
        ({"l2_norm_clip": 0.0}, "l2_norm_clip"),
        ({"l2_norm_clip": float("inf")}, "l2_norm_clip"),
        ({"l2_norm_clip": 1e-20}, "l2_norm_clip"),
        ({"noise_multiplier": -0.1}, "noise_multiplier"),
        ({"accountant": "guess"}, "accountant"),
    ],
)
def test_facts_out_of_range_are_refused_by_name(change: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        dataclasses.replace(_PLAN, **change)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (float("inf"), 1e-5), (float("nan"), 1e-5), (1, 0), (1, 1)]
)
def test_budgets_out_of_range_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"`epsilon`|`delta`"):
        PrivacyBudget(epsilon, delta)


def test_the_statement_lists_everything_and_agrees_with_tensorflow_privacy() -> None:
    means = ClassMeans(10, 49, 1.0, noise_multiplier=5.0)
    plan = PrivacyPlan({"class_means": means, "dp_sgd": _PLAN}, 2_000, {"class_means": 0.3})
    statement = plan.statement(1e-5, "operating system")
    assert statement.epsilon == pytest.approx(epsilon_of(compose([means, _PLAN]), 1e-5), rel=1e-9)
    assert statement.epsilon < statement.epsilon_rdp
    replaced = epsilon_of(compose([means, _PLAN]), 1e-5, "pld", "replace-one")
    assert statement.epsilon_replace_one == pytest.approx(replaced, rel=1e-9)
    assert statement.epsilon_replace_one > statement.epsilon
    assert f"replace-one), epsilon is {replaced:.4g}" in statement.text
    assert [part["name"] for part in statement.mechanisms] == ["class means", "DP-SGD"]
    assert sum(part["share"] for part in statement.mechanisms) == pytest.approx(1)
    assert statement.mechanisms[0]["share"] == pytest.approx(5.0**-2 / (5.0**-2 + 1.2**-2), rel=0.9)
    expected, _ = compute_dp_sgd_privacy_lib.compute_dp_sgd_privacy(2_000, 100, 1.2, 149.5 * 100 / 2_000, 1e-5)
    assert statement.epsilon_compute_dp_sgd_privacy == pytest.approx(expected, rel=1e-9)
    assert statement.epsilon_compute_dp_sgd_privacy == pytest.approx(epsilon_of(_PLAN.event, 1e-5, "rdp"), rel=0.02)
    assert "assuming Poisson sampling" in statement.compute_dp_sgd_privacy_statement
    for word in ("class means", "DP-SGD", "add-or-remove-one", "Poisson", "PLD", "one image with its label"):
        assert word in statement.text
    assert PrivacyStatement.from_dict(json.loads(json.dumps(statement.to_dict()))) == statement


def test_a_statement_about_seeded_noise_says_not_for_release_first() -> None:
    text = _PLAN.statement(1e-5, noise=NoiseSource.insecure(0)).text
    assert text.startswith("NOT FOR RELEASE")
    assert "NOT FOR RELEASE" not in _PLAN.statement(1e-5).text


class _Laplace:
    """A mechanism that is no Gaussian."""

    name, noise_multiplier = "noisy maximum", 1.0
    event = dp_accounting.LaplaceDpEvent(1.0)


def test_events_survive_json() -> None:
    event = compose([ClassMeans(10, 49, 1.0, noise_multiplier=2.0), _PLAN])
    assert event_from_dict(json.loads(json.dumps(event_to_dict(event)))) == event
    event = compose([ClassMeans(10, 49, 1.0, noise_multiplier=2.0), _Laplace()])
    assert event_from_dict(json.loads(json.dumps(event_to_dict(event)))) == event

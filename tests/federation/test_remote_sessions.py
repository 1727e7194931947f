"""A session whose users are elsewhere: the same noise and account, and rounds that are lost are charged, not used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.federation.small import BUDGET, METHOD, SPEC, USERS, Sites, dataset, sites_of
from tfdpgen.methods import train
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    FederatedAverage,
    Ledger,
    PrivacyPlan,
    PrivateSession,
    epsilon_of,
    remote,
)
from tfdpgen.privacy.session import num_users


def _sites(lost: Any = ()) -> Sites:
    return Sites(sites_of(dataset()), SPEC, USERS, lost)


def _mechanism(**changes: Any) -> FederatedAverage:
    return dataclasses.replace(METHOD.mechanism(SPEC, USERS), **changes)


def _run(sites: Sites, mechanism: FederatedAverage, **arguments: Any) -> tuple[PrivateSession, list[Any]]:
    """The numbers of the rounds that are answered, and what they give; of the noise of a plan."""
    sites.announce(METHOD)
    session = PrivateSession(sites, PrivacyPlan({"rounds": mechanism}, USERS).calibrate(BUDGET), BUDGET, **arguments)
    work, answers = METHOD.local_work(SPEC), []
    federation = session.federation(
        "rounds", work.network, work.loss_fn, public=work.public, transform=work.transform, learning=work.learning
    )
    fakes = [tf.zeros(spec.shape, spec.dtype) for spec in work.public]
    federation.run(lambda step: fakes, lambda step, mean: answers.append((step, mean)), verbose=0)
    return session, answers


def test_a_lost_round_is_charged_and_nothing_of_it_is_used(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    session, answers = _run(_sites(lost=[1, 3]), _mechanism(), ledger=ledger)
    assert [step for step, _ in answers] == [0, 2, 4]
    plan: Any = session.plan.mechanisms["rounds"]
    assert plan.steps == 5
    assert epsilon_of(session.plan.event, BUDGET.delta) == epsilon_of(plan.event, BUDGET.delta)  # of five rounds
    assert ledger.spent("these sites", BUDGET.delta, "user") == pytest.approx(
        epsilon_of(plan.event, BUDGET.delta), rel=1e-3
    )


def test_noise_is_added_once_at_the_server_and_is_that_of_the_plan() -> None:
    """What sites send has none; what is answered, less their sums, is noise of the calibrated scale."""
    sites = _sites(lost=range(0, 40, 4))
    session, answers = _run(sites, _mechanism(steps=40))
    plan: Any = session.plan.mechanisms["rounds"]
    noise = np.concatenate(
        [(mean * plan.expected_users - sites.sums_seen[step]) / (plan.noise_multiplier * plan.clip_norm)
         for step, mean in answers]
    )  # fmt: skip
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise / wrong, "norm").pvalue < 1e-4
    for sampled, total in zip(sites.asked, sites.sums_seen, strict=True):
        assert np.linalg.norm(total) <= len(sampled) * plan.clip_norm * (1 + 1e-6)


def test_users_are_sampled_independently_and_rounds_without_any_run() -> None:
    sites = _sites()
    _, answers = _run(sites, _mechanism(steps=300, expected_users=1))
    assert len(answers) == 300
    sizes = [len(sampled) for sampled in sites.asked]
    assert 0 in sizes  # .35 of the rounds
    shares = np.bincount(np.concatenate(sites.asked), minlength=USERS) / 300
    assert np.all(np.abs(shares - 1 / USERS) < 5 * (1 / USERS / 300) ** 0.5)


def test_a_release_says_what_the_promise_rests_on_and_is_charged_for_lost_rounds_too() -> None:
    with_losses, without = (train(METHOD, _sites(lost), BUDGET, verbose=0) for lost in ([0, 2], []))
    assert with_losses.statement.epsilon == without.statement.epsilon
    assert 0.98 * BUDGET.epsilon < without.statement.epsilon <= BUDGET.epsilon
    assert without.statement.num_examples == USERS
    assert remote.ASSUMPTION in without.statement.assumptions
    assert remote.ASSUMPTION not in train(METHOD, dataset(), BUDGET, verbose=0).statement.assumptions
    assert without.sample([0, 1], 0).shape == (2, 8, 8, 1)


def test_a_critic_that_loses_all_rounds_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = type(METHOD)._critic
    monkeypatch.setattr(type(METHOD), "_critic", lambda *arguments: made.append(original(*arguments)) or made[-1])
    train(METHOD, _sites(lost=range(5)), BUDGET, verbose=0)
    critic = next(model for model in made if model is not made[0])
    fresh = METHOD.local_work(SPEC, 0).network
    for one, other in zip(critic.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_reads_examples_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    ledger, sites = Ledger(tmp_path / "ledger.sqlite"), _sites()
    with pytest.raises(ValueError, match="gaussian_mixture reads them"):
        train("gaussian_mixture", sites, BUDGET, ledger=ledger)
    steps = PrivacyPlan({"steps": DPSGD(USERS, 4, steps=3)}, USERS).calibrate(BUDGET)
    with pytest.raises(ValueError, match="federated averages alone"):
        PrivateSession(sites, steps, BUDGET, ledger=ledger)
    plan = PrivacyPlan({"rounds": _mechanism(num_users=USERS + 1)}, USERS + 1).calibrate(BUDGET)
    with pytest.raises(ValueError, match=f"should be for {USERS} users; it is for {USERS + 1}"):
        PrivateSession(sites, plan, BUDGET, ledger=ledger)
    assert len(ledger.reservations("these sites")) == 0
    assert num_users(sites) == USERS


def test_a_training_that_was_killed_goes_on_behind_what_was_claimed(tmp_path: Path) -> None:
    """And is charged once."""
    ledger = Ledger(tmp_path / "ledger.sqlite")

    class Killed(Exception):
        pass

    class Dies(Sites):
        def sums(self, mechanism: Any, network: Any) -> Any:
            sum_of = super().sums(mechanism, network)

            def dying(sampled: Any, public: Any) -> Any:
                if len(self.asked) == 2:
                    raise Killed
                return sum_of(sampled, public)

            return dying

    with pytest.raises(Killed), Backup(tmp_path / "backup") as backup:
        _run(Dies(sites_of(dataset()), SPEC, USERS), _mechanism(), ledger=ledger, backup=backup)
    with Backup(tmp_path / "backup") as backup:
        _, answers = _run(_sites(), _mechanism(), ledger=ledger, backup=backup)
    assert [step for step, _ in answers] == [3, 4]
    assert len(ledger.reservations("these sites")) == 1

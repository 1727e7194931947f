"""Federated averaging: a whole user moves a round by one clip, and nothing but noised means of updates leaves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import train
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.privacy import (
    FederatedAverage,
    Ledger,
    NoiseSource,
    PlanError,
    PrivacyBudget,
    PrivacyPlan,
    PrivateSession,
    Shards,
)
from tfdpgen.privacy.accounting import epsilon_of, poisson_gaussian_event
from tfdpgen.privacy.ensemble import LocalTraining, group_sums

_SPEC = DataSpec((3, 3, 1), 2)
_BUDGET = PrivacyBudget(4.0, 1e-4)
_LEARNING = LocalTraining(learning_rate=0.05, batch_size=4, steps=3)
_PUBLIC = [tf.TensorSpec([2, 9], tf.float32)]
_WEIGHTS = 9 * 3 + 3
_USERS = 12
_ROUNDS = FederatedAverage(_USERS, 4, steps=5, num_weights=_WEIGHTS, clip_norm=0.1)


def _dataset(images_per_user: int = 3, users: int = _USERS) -> LabeledDataset:
    rng, count = np.random.default_rng(0), images_per_user * users
    images = rng.integers(256, size=(count, 3, 3, 1), dtype=np.uint8)
    return LabeledDataset(
        images, np.arange(count) % 2, _SPEC, rng.permutation(np.repeat(np.arange(users), images_per_user))
    )


@pytest.fixture
def network() -> Any:
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential([tf.keras.Input((9,)), tf.keras.layers.Dense(3)])


def _transform(images: Any, labels: Any) -> Any:
    return 2 * tf.reshape(images, [-1, 9]) - 1


def _loss(network: Any, batch: Any) -> Any:
    wanted = tf.one_hot(batch.labels, 3)
    return tf.reduce_mean((network(batch.features) - wanted) ** 2) + tf.reduce_mean(network(batch.public[0]) ** 2)


def _asked(step: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(1).normal(size=(2, 9)).astype(np.float32)]


def _sum(network: Any, dataset: LabeledDataset, chosen: Any, mechanism: Any = _ROUNDS) -> np.ndarray:
    """What the updates of groups of users add up to, where what is random is the same for all data."""
    users = np.unique(np.asarray(dataset.user_ids), return_inverse=True)[1]
    mechanism = dataclasses.replace(mechanism, num_users=int(users.max()) + 1)
    sums = group_sums(
        mechanism, network, _loss, lambda *_: tf.zeros([0]), _PUBLIC, _LEARNING, _transform, dataset, users, _Still()
    )
    return np.stack([sums(np.array(users), _asked()) for users in chosen])


class _Still(NoiseSource):
    """Gives every user the same draws, whoever came before."""

    def examples(self) -> Any:
        class Same:
            def uniform(self, shape: Any) -> tf.Tensor:
                return tf.random.stateless_uniform(shape, [1, 2])

            def normal(self, shape: Any) -> tf.Tensor:
                return tf.random.stateless_normal(shape, [1, 2])

        return Same()


def test_a_whole_user_moves_a_round_by_one_clip_and_no_other_user(network: Any) -> None:
    """With few images or many, at the front, in the middle or at the end of the data set."""
    dataset = _dataset()
    before = _sum(network, dataset, [[user] for user in range(_USERS)])
    assert np.all(np.linalg.norm(before, axis=1) > 0.5 * _ROUNDS.clip_norm)
    rng = np.random.default_rng(4)
    for images, place in ((1, 0), (7, 18), (40, 36)):
        new = LabeledDataset(
            np.insert(dataset.images, [place] * images, rng.integers(256, size=(images, 3, 3, 1)), axis=0),
            np.insert(dataset.labels, [place] * images, 1),
            _SPEC,
            np.insert(np.asarray(dataset.user_ids), [place] * images, _USERS),
        )
        after = _sum(network, new, [[user] for user in range(_USERS + 1)])
        np.testing.assert_array_equal(after[:_USERS], before)
        moved = np.linalg.norm(after.sum(axis=0) - before.sum(axis=0))
        assert 0.5 * _ROUNDS.clip_norm < moved <= _ROUNDS.clip_norm * (1 + 1e-6)


def test_users_start_from_the_public_network_as_it_is(network: Any) -> None:
    dataset = _dataset()
    wide = dataclasses.replace(_ROUNDS, clip_norm=1e6)
    first = _sum(network, dataset, [[0], [1]], wide)
    together = _sum(network, dataset, [[0, 1], [1, 0]], wide)  # nobody goes on from where somebody was
    np.testing.assert_allclose(together, np.tile(first.sum(axis=0), (2, 1)), atol=1e-6)
    network.set_weights([weight + 1 for weight in network.get_weights()])
    assert np.all(np.abs(_sum(network, dataset, [[0], [1]], wide) - first).max(axis=1) > 1e-3)


def test_the_event_is_of_sampled_users() -> None:
    rounds = _ROUNDS.with_noise(2.0)
    assert rounds.event == poisson_gaussian_event(4 / _USERS, 2.0, 5)
    plan = PrivacyPlan({"rounds": _ROUNDS}, _USERS).calibrate(_BUDGET)
    assert plan.unit == "user"
    assert 0.98 * _BUDGET.epsilon < epsilon_of(plan.event, _BUDGET.delta) <= _BUDGET.epsilon
    statement = plan.statement(_BUDGET.delta, "operating system")
    assert statement.unit == "one user with all of that user's images, however many"
    assert _ROUNDS.assumption in statement.assumptions


def _session(dataset: LabeledDataset, mechanism: Any = _ROUNDS, **arguments: Any) -> PrivateSession:
    return PrivateSession(dataset, PrivacyPlan({"rounds": mechanism}, _USERS).calibrate(_BUDGET), _BUDGET, **arguments)


def _federation(session: PrivateSession, network: Any) -> Any:
    return session.federation("rounds", network, _loss, public=_PUBLIC, transform=_transform, learning=_LEARNING)


def test_noise_is_added_once_and_is_that_of_the_plan(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(mechanism: Any, *_: Any) -> Any:
        return lambda sampled, public: np.zeros(mechanism.size)

    monkeypatch.setattr("tfdpgen.privacy.ensemble.group_sums", silent)
    session, found = _session(_dataset(), dataclasses.replace(_ROUNDS, steps=60)), []
    _federation(session, network).run(_asked, lambda step, mean: found.append(mean), verbose=0)
    plan: Any = session.plan.mechanisms["rounds"]
    noise = 4 * np.concatenate(found) / (plan.noise_multiplier * 0.1)
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise / wrong, "norm").pvalue < 1e-4


def test_a_session_runs_rounds_once_and_leaves_the_network_to_the_method(network: Any) -> None:
    session, before, means = _session(_dataset()), network.get_weights(), []
    federation = _federation(session, network)
    federation.run(_asked, lambda step, mean: means.append(mean), verbose=0)
    assert [mean.shape for mean in means] == [(_WEIGHTS,)] * 5
    for now, then in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(PlanError, match="once"):
        federation.run(_asked, print, verbose=0)


def test_wrong_requests_are_refused_before_anything_is_spent(network: Any, tmp_path: Path) -> None:
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _dataset()
    session = _session(dataset, ledger=ledger)
    with pytest.raises(PlanError, match="FederatedAverage, which is not for `ensemble`"):
        session.ensemble("rounds", network, _loss, _loss, public=_PUBLIC, transform=_transform, learning=_LEARNING)
    small = tf.keras.Sequential([tf.keras.Input((9,)), tf.keras.layers.Dense(3, use_bias=False)])
    with pytest.raises(ValueError, match="should have 30 trainable weights, as the plan says; got 27"):
        _federation(session, small)
    with pytest.raises(ValueError, match="should be for 11 users; it is for 12"):
        _session(dataset.take(np.flatnonzero(dataset.user_ids != 3)))
    with pytest.raises(ValueError, match="num_examples=5 users; 'rounds' is for 12"):
        PrivacyPlan({"rounds": _ROUNDS}, 5)
    with pytest.raises(ValueError, match="`plan` of shards should hold no federated average"):
        Shards(2, PrivacyPlan({"rounds": _ROUNDS}, _USERS))
    anonymous = LabeledDataset(dataset.images, dataset.labels, _SPEC)
    with pytest.raises(ValueError, match="`dataset` should say whose its examples are"):
        train("fedavg_gan", anonymous, _BUDGET, ledger=ledger)
    arguments: list[dict[str, Any]] = [{"labeller_share": 0.2}, {"label_distribution": "private"}]
    for argument in arguments:
        with pytest.raises(ValueError, match=f"`{next(iter(argument))}` should be left out with fedavg_gan"):
            train("fedavg_gan", dataset, _BUDGET, ledger=ledger, **argument)
    assert len(ledger.reservations(dataset)) == 0


def test_the_ledger_charges_examples_for_a_user_that_changes(network: Any, tmp_path: Path) -> None:
    """Its account is an example's: one more of a known user replaces what the user sends, and never adds a user."""
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _dataset()
    session = _session(dataset, ledger=ledger)
    _federation(session, network).run(_asked, lambda *_: None, verbose=0)
    replaced = epsilon_of(session.plan.event, _BUDGET.delta, "pld", "replace-one")
    assert ledger.spent(dataset, _BUDGET.delta) == pytest.approx(replaced, rel=1e-3)
    assert replaced > 1.1 * _BUDGET.epsilon


def test_a_release_promises_something_to_users() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(60, 8, 8, 1), dtype=np.uint8)
    dataset = LabeledDataset(images, np.arange(60) % 2, DataSpec((8, 8, 1), 2), np.arange(60) // 3)
    settings = FedAvgGAN(4, generator_filters=8, num_coefficients=6, hidden_units=4, expected_users=5, rounds=3)
    release = train(settings, dataset, _BUDGET, verbose=0)
    assert release.statement.num_examples == 20
    assert release.statement.unit == "one user with all of that user's images, however many"
    assert "on 20 private users (unit: one user" in release.statement.text
    assert release.sample([0, 1], 0).shape == (2, 8, 8, 1)
    assert math.isclose(release.statement.epsilon, 4.0, rel_tol=0.02)

"""Networks on shards: one example reaches one network, whose answer is bounded; nothing else of them leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import (
    Backup,
    Ledger,
    NoiseSource,
    NoisyCounts,
    PlanError,
    PrivacyBudget,
    PrivacyPlan,
    PrivateSession,
    SanitisedGradient,
)
from tfdpgen.privacy.accounting import epsilon_of, event_from_dict, event_to_dict, poisson_gaussian_event
from tfdpgen.privacy.ensemble import LocalTraining, group_sums

_SPEC = DataSpec((3, 3, 1), 2)
_BUDGET = PrivacyBudget(4.0, 1e-4)
_SHARDS, _QUERIES = 6, 4
_PUBLIC = [tf.TensorSpec([_QUERIES, 9], tf.float32)]
_LEARNING = LocalTraining(learning_rate=0.05, batch_size=5, steps=3)
_COUNTS = NoisyCounts()
_GRADIENTS = SanitisedGradient(_SHARDS, 3, steps=5, num_features=9 * _QUERIES)


@pytest.fixture
def examples() -> LabeledDataset:
    rng = np.random.default_rng(0)
    return LabeledDataset(rng.integers(256, size=(40, 3, 3, 1), dtype=np.uint8), np.arange(40) % 2, _SPEC)


@pytest.fixture
def network() -> Any:
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential([tf.keras.Input((9,)), tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(3)])


def _transform(images: Any, labels: Any) -> Any:
    return 2 * tf.reshape(images, [-1, 9]) - 1


def _loss(network: Any, batch: Any) -> Any:
    moved = batch.features + 0.1 * batch.normal([9]) * batch.uniform([1])
    wanted = tf.one_hot(batch.labels, 3)
    return tf.reduce_mean((network(moved) - wanted) ** 2) + tf.reduce_mean(network(batch.public[0]) ** 2)


def _gradient(network: Any, asked: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(asked)
        scores = network(asked)[:, 0]
    return 30.0 * tf.reshape(tape.gradient(scores, asked), [-1])


def _asked(seed: int = 1) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(_QUERIES, 9)).astype(np.float32)]


def _answers(network: Any, dataset: LabeledDataset, groups: Any, rounds: int = 2) -> np.ndarray:
    """What each shard answers in the last of some rounds, [shards, m]; what is random is the same for all data."""
    function = group_sums(
        _GRADIENTS,
        network,
        _loss,
        _gradient,
        _PUBLIC,
        _LEARNING,
        _transform,
        dataset,
        np.asarray(groups),
        NoiseSource.insecure(3),
    )
    for _ in range(rounds):
        answers = np.stack([function(np.array([shard]), _asked()) for shard in range(_SHARDS)])
    return answers


def _neighbours(dataset: LabeledDataset, groups: Any) -> Iterator[tuple[LabeledDataset, Any, int]]:
    """An example really inserted or removed, at the front, in the middle and at the end; and its shard."""
    everything, count = np.arange(len(dataset)), len(dataset)
    for place in (0, count // 2, count):
        shard = place % _SHARDS
        yield dataset.take(np.insert(everything, place, 13)), np.insert(groups, place, shard), shard
    for place in (0, count // 2, count - 1):
        kept = np.delete(everything, place)
        yield dataset.take(kept), np.delete(groups, place), int(groups[place])


@pytest.mark.usefixtures("examples")
def test_one_example_moves_the_answer_of_its_shard_alone(network: Any, examples: LabeledDataset) -> None:
    groups = np.random.default_rng(2).integers(_SHARDS, size=len(examples))
    before = _answers(network, examples, groups)
    most = 0.0
    for neighbour, dealt, shard in _neighbours(examples, groups):
        after = _answers(network, neighbour, dealt)
        moved = np.linalg.norm(after - before, axis=1)
        assert set(np.flatnonzero(moved)) <= {shard}
        bound = 2 * _GRADIENTS.clip_norm
        assert moved[shard] <= bound * (1 + 1e-6)
        most = max(most, moved[shard] / bound)
    assert most > 0.01


def test_answers_are_bounded_whatever_networks_say() -> None:
    for scale in (0.0, 1e-3, 1.0, 1e30, math.inf, math.nan):
        for dtype in (tf.float32, tf.float16, tf.bfloat16):
            bounded = _GRADIENTS.bounded(tf.constant([scale] * 36, dtype))
            assert bounded.dtype == tf.float32
            assert np.linalg.norm(bounded) <= _GRADIENTS.clip_norm * (1 + 1e-6)
    short = tf.constant([1e-3] * 36, tf.float32)
    np.testing.assert_allclose(_GRADIENTS.bounded(short), short)


def test_answers_of_extreme_neighbours_reach_the_sensitivity() -> None:
    """The declared bound is that of what may happen, and no smaller."""
    ones = tf.ones([36])
    apart = np.linalg.norm(_GRADIENTS.bounded(ones) - _GRADIENTS.bounded(-ones))
    assert apart == pytest.approx(2 * _GRADIENTS.clip_norm)


def test_the_event_is_of_replaced_critics() -> None:
    gradients = _GRADIENTS.with_noise(1.5)
    assert event_from_dict(event_to_dict(gradients.event)) == gradients.event
    replaced = epsilon_of(poisson_gaussian_event(0.5, 1.5, 5), 1e-4, "pld", "replace-one")
    for relation in ("add-or-remove-one", "replace-one"):
        assert epsilon_of(gradients.event, 1e-4, "pld", relation) == pytest.approx(replaced, rel=1e-9)
    everybody = dataclasses.replace(gradients, expected_critics=_SHARDS, steps=1, noise_multiplier=2.0)
    alone = epsilon_of(everybody.event, 1e-4)
    assert alone == pytest.approx(epsilon_of(poisson_gaussian_event(1.0, 1.0, 1), 1e-4), rel=1e-3)


def test_replaced_items_compose_with_others() -> None:
    plan = PrivacyPlan({"gradients": _GRADIENTS, "counts": _COUNTS}, 40, {"counts": 0.4}).calibrate(_BUDGET)
    assert 0.98 * _BUDGET.epsilon < plan.epsilon(_BUDGET.delta) <= _BUDGET.epsilon
    parts = [epsilon_of(part.event, _BUDGET.delta) for part in plan.mechanisms.values()]
    assert max(parts) < plan.epsilon(_BUDGET.delta) < sum(parts)
    assert plan.epsilon(_BUDGET.delta) < epsilon_of(plan.event, _BUDGET.delta, "rdp")


def _session(dataset: LabeledDataset, mechanism: Any = _GRADIENTS, **arguments: Any) -> PrivateSession:
    plan = PrivacyPlan({"shards": mechanism}, len(dataset)).calibrate(_BUDGET)
    return PrivateSession(dataset, plan, _BUDGET, **arguments)


def _ensemble(session: PrivateSession, network: Any, answer_fn: Any, **changes: Any) -> Any:
    arguments = {"loss_fn": _loss, "public": _PUBLIC, "transform": _transform, "learning": _LEARNING} | changes
    loss_fn = arguments.pop("loss_fn")
    return session.ensemble("shards", network, loss_fn, answer_fn, **arguments)


def test_every_step_runs_once_and_gives_what_the_mechanism_makes(network: Any, examples: LabeledDataset) -> None:
    answers: list[Any] = []
    session = _session(examples)
    ensemble = _ensemble(session, network, _gradient)
    ensemble.run(_asked, lambda step, answer: answers.append((step, answer)), verbose=0)
    assert [step for step, _ in answers] == list(range(5))
    assert {answer.shape for _, answer in answers} == {(36,)}
    for again in (lambda: ensemble.run(_asked, print, verbose=0), lambda: _ensemble(session, network, _gradient)):
        with pytest.raises(PlanError, match="once"):
            again()


def test_the_noise_is_that_of_the_plan(network: Any, examples: LabeledDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tfdpgen.privacy.ensemble.group_sums", lambda *_: lambda sampled, public: np.zeros(_GRADIENTS.size)
    )
    many = dataclasses.replace(_GRADIENTS, steps=60)
    session, found = _session(examples, many), []
    _ensemble(session, network, _gradient).run(_asked, lambda step, answer: found.append(np.ravel(answer)), verbose=0)
    expected: Any = session.plan.mechanisms["shards"]
    noise = 3 * np.concatenate(found) / expected.noise_multiplier  # 3 are the expected critics
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise / wrong, "norm").pvalue < 1e-4


def test_noise_follows_no_seed(network: Any, examples: LabeledDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tfdpgen.privacy.ensemble.group_sums", lambda *_: lambda sampled, public: np.zeros(_GRADIENTS.size)
    )
    found: list[list[np.ndarray]] = []
    for _ in range(2):
        found.append([])
        ensemble = _ensemble(_session(examples), network, _gradient)
        ensemble.run(_asked, lambda _, answer, into=found[-1]: into.append(answer), verbose=0)
    assert all(np.any(one != other) for one, other in zip(*found, strict=True))


def test_critics_are_sampled_independently(
    network: Any, examples: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[Any] = []

    def noting(mechanism: Any, *_: Any) -> Any:
        def sums(chosen: Any, public: Any) -> Any:
            sampled.append(chosen)
            return np.zeros(mechanism.size)

        return sums

    monkeypatch.setattr("tfdpgen.privacy.ensemble.group_sums", noting)
    many = dataclasses.replace(_GRADIENTS, steps=400)
    _ensemble(_session(examples, many), network, _gradient).run(_asked, lambda *_: None, verbose=0)
    counts = np.array([len(chosen) for chosen in sampled])
    assert stats.binomtest(int(counts.sum()), 400 * _SHARDS, 0.5).pvalue > 1e-5
    assert counts.var() == pytest.approx(_SHARDS / 4, rel=0.35)
    assert all(len(set(chosen)) == len(chosen) for chosen in sampled)
    first = [list(chosen) for chosen in sampled]
    sampled.clear()
    _ensemble(_session(examples, many), network, _gradient).run(_asked, lambda *_: None, verbose=0)
    assert first != [list(chosen) for chosen in sampled]  # who is sampled follows no seed


def test_nothing_of_the_networks_is_left_where_a_method_can_see_it(network: Any, examples: LabeledDataset) -> None:
    before, seen = network.get_weights(), []

    def loss(clone: Any, batch: Any) -> Any:
        seen.append(clone)
        return _loss(clone, batch)

    ensemble = _ensemble(_session(examples), network, _gradient, loss_fn=loss)
    ensemble.run(_asked, lambda *_: None, verbose=0)
    assert len({id(clone) for clone in seen}) > 1
    for one in (network, *seen[-1:]):
        for value, start in zip(one.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, start)
    assert not [name for name in vars(ensemble) if name != "_run"]


def test_what_a_shard_draws_is_secret(network: Any, examples: LabeledDataset) -> None:
    """Batches and whatever a loss draws come from the noise source, and follow no seed of TensorFlow's."""
    groups = np.arange(len(examples)) % _SHARDS
    rest = (_PUBLIC, _LEARNING, _transform, examples, groups)
    found = []
    for noise in (NoiseSource(), NoiseSource(), NoiseSource.insecure(3), NoiseSource.insecure(3)):
        tf.random.set_seed(0)
        found.append(group_sums(_GRADIENTS, network, _loss, _gradient, *rest, noise)(np.array([0]), _asked()))
    assert np.any(found[0] != found[1])
    np.testing.assert_array_equal(found[2], found[3])


def test_networks_are_taken_back_where_a_step_fails(network: Any, examples: LabeledDataset) -> None:
    seen: list[Any] = []

    def loss(clone: Any, batch: Any) -> Any:
        seen.append(clone)
        return _loss(clone, batch) + tf.reduce_sum(tf.linalg.inv(tf.zeros([2, 2]) * clone.weights[0][0, 0]))

    groups = np.zeros(len(examples), int)
    sums = group_sums(
        _GRADIENTS, network, loss, _gradient, _PUBLIC, _LEARNING, _transform, examples, groups, NoiseSource.insecure(3)
    )
    with pytest.raises(tf.errors.OpError):
        sums(np.array([0]), _asked())
    for value, start in zip(seen[-1].get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(value, start)


def test_shards_without_examples_answer_as_they_were_born(network: Any, examples: LabeledDataset) -> None:
    groups = np.zeros(len(examples), int)
    answers = _answers(network, examples, groups)
    np.testing.assert_array_equal(answers[1:], np.tile(answers[1], (_SHARDS - 1, 1)))
    born = _GRADIENTS.bounded(_gradient(network, tf.constant(_asked()[0])))
    np.testing.assert_allclose(answers[1], born, atol=1e-6)
    assert np.any(answers[0] != answers[1])
    nobody = _answers(network, examples.take([]), groups[:0])
    np.testing.assert_array_equal(nobody, np.tile(answers[1], (_SHARDS, 1)))


@tf.custom_gradient
def _seen_in_its_gradient(values: Any) -> Any:
    return values, lambda slope: slope * tf.numpy_function(lambda _: np.float32(1), [values], tf.float32)


def _keeping(network: Any, batch: Any) -> Any:
    network.weights[0].assign_add(tf.ones_like(network.weights[0]))
    return _loss(network, batch)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"loss_fn": lambda network, batch: network(batch.features)[:, 0]}, "one number"),
        ({"loss_fn": lambda network, batch: _loss(network, batch) * tf.random.normal([])}, "draws random numbers"),
        ({"loss_fn": _keeping}, "keeps or writes"),
        ({"loss_fn": lambda network, batch: _seen_in_its_gradient(_loss(network, batch))}, "keeps or writes"),
        ({"answer_fn": lambda network, asked: _gradient(network, asked)[:-1]}, "36 numbers"),
        (
            {"transform": lambda images, labels: _transform(images - tf.reduce_mean(images), labels)},
            "each example alone",
        ),
    ],
)
def test_what_cannot_be_trained_privately_is_refused_before_anything_is_spent(
    changes: dict[str, Any], match: str, network: Any, examples: LabeledDataset, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    session = _session(examples, ledger=ledger)
    with pytest.raises(ValueError, match=match):
        _ensemble(session, network, changes.pop("answer_fn", _gradient), **changes)
    assert len(ledger.reservations(examples)) == 0


class _Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_killed_ensemble_goes_on_and_repeats_no_step(network: Any, examples: LabeledDataset, tmp_path: Path) -> None:
    many, done = dataclasses.replace(_GRADIENTS, steps=9), []
    ledger, count = Ledger(tmp_path / "ledger.sqlite"), tf.Variable(tf.constant(0))

    def attempt(last: int) -> None:
        def answer(step: int, _: Any) -> None:
            if step == last:
                raise _Killed
            count.assign_add(1)
            done.append(step)

        with Backup(tmp_path / "backup", every=2) as backup:
            session = _session(examples, many, ledger=ledger, backup=backup)
            ensemble = _ensemble(session, network, _gradient)
            ensemble.run(_asked, answer, state={"count": count}, verbose=0)

    with pytest.raises(_Killed):
        attempt(5)
    count.assign(100)  # of another process
    attempt(-1)
    assert done == [0, 1, 2, 3, 4, 6, 7, 8]
    assert int(count) == 4 + 3
    assert len(ledger.reservations(examples)) == 1


def test_the_statement_says_what_is_released_and_what_that_rests_on() -> None:
    plan = PrivacyPlan({"gradients": _GRADIENTS, "counts": _COUNTS}, 40, {"counts": 0.4}).calibrate(_BUDGET)
    statement = plan.statement(_BUDGET.delta, "operating system")
    assert _GRADIENTS.assumption in statement.assumptions
    assert _GRADIENTS.assumption in statement.text
    assert _GRADIENTS.name in statement.text
    assert statement.epsilon == pytest.approx(plan.epsilon(_BUDGET.delta))
    assert statement.sampling == "poisson"

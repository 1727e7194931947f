"""A session carries out what its plan lists, each once, after it was reserved; nobody else holds the examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import BudgetExceededError, Ledger, NoiseSource, PrivacyBudget, dataset_id
from tfdpgen.privacy.mechanisms.base import GaussianSum, PrivacyUnit, bounded
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan, Shards
from tfdpgen.privacy.session import PlanError, PrivateSession

_SPEC = DataSpec((2, 2, 1), 3)
_BUDGET = PrivacyBudget(2.0, 1e-4)


@dataclasses.dataclass(frozen=True)
class _Mean(GaussianSum):
    """The sum of features of norm 1 at most."""

    num_features: int
    noise_multiplier: float | None = None
    name = "sum of features"

    @property
    def size(self) -> int:
        return self.num_features

    @property
    def sensitivity(self) -> float:
        return 1.0

    def sum_of(self, features: Any, labels: Any, *users: Any) -> Any:
        return bounded(features, 1.0).sum(axis=0)

    def result(self, noised: Any) -> Any:
        return noised


@dataclasses.dataclass(frozen=True)
class _UserSum(_Mean):
    """The sum of one vector of norm 1 at most for each user."""

    unit = PrivacyUnit.USER

    def sum_of(self, features: Any, labels: Any, *users: Any) -> Any:
        totals = np.zeros((int(users[0].max()) + 1, self.num_features))
        np.add.at(totals, users[0], features)
        return bounded(totals, 1.0).sum(axis=0)


class _Silent(NoiseSource):
    """Adds no noise, and deals examples as it is told."""

    def __init__(self, deals: Any = None) -> None:
        super().__init__()
        self.deals: Any = deals

    def numpy_generator(self) -> Any:
        outer = self

        class Dealer:
            def integers(self, shards: int, size: int) -> Any:
                deals = np.random.default_rng(0).integers(shards, size=size) if outer.deals is None else outer.deals
                assert size == len(deals)
                return deals

            def normal(self, scale: float, size: Any) -> Any:
                return np.zeros(size)

        return Dealer()


def _examples(count: int = 40, users: int | None = None) -> LabeledDataset:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 2, 2, 1)).astype(np.uint8)
    ids = None if users is None else np.arange(count) % users
    return LabeledDataset(images, np.arange(count) % 3, _SPEC, ids)


def _pixels(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 4])


def _half_pixels(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.cast(_pixels(images, labels), tf.float16)


def _network() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(2, 2, 1)), tf.keras.layers.Dense(3)])


def _plan(count: int = 40) -> PrivacyPlan:
    return PrivacyPlan({"sum": _Mean(4), "dp_sgd": DPSGD(count, 8, steps=3)}, count, {"sum": 0.5})


def _session(dataset: LabeledDataset | None = None, plan: PrivacyPlan | None = None, **arguments: Any) -> Any:
    dataset = dataset or _examples()
    return PrivateSession(dataset, (plan or _plan(len(dataset))).calibrate(_BUDGET), _BUDGET, **arguments)


def _trainer(session: PrivateSession, key: str = "dp_sgd", **arguments: Any) -> Any:
    network = arguments.pop("network", None) or _network()

    def loss(batch: Any) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, network(batch.images))

    return session.trainer(key, [network], loss, learning_rate=0.1, **arguments)


@pytest.mark.parametrize("name", ["_examples", "examples", "_dataset", "dataset", "_noise", "_held", "__dict__"])
def test_the_examples_are_no_attribute_of_a_session(name: str) -> None:
    with pytest.raises(AttributeError, match=r"run.*trainer"):
        getattr(_session(), name)


def test_a_mechanism_runs_once() -> None:
    session = _session()
    trainer = _trainer(session)
    session.run("sum", _pixels)
    with pytest.raises(PlanError, match="carried out before"):
        session.run("sum", _pixels)
    trainer.run(verbose=0)
    with pytest.raises(PlanError, match="carried out before"):
        trainer.run(verbose=0)
    with pytest.raises(PlanError, match="carried out before"):
        _trainer(session)


def test_what_is_not_in_the_plan_is_refused_and_nothing_is_spent(tmp_path: Path) -> None:
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _examples()
    session = _session(dataset, ledger=ledger)
    for refused, match in (
        (lambda: session.run("means", _pixels), "sum, dp_sgd"),
        (lambda: session.run("dp_sgd", _pixels), "`run`"),
        (lambda: _trainer(session, "sum"), "`trainer`"),
        (lambda: session.partition("sum"), "`partition`"),
        (lambda: session.run("sum", _pixels), "before the first `run`"),
    ):
        with pytest.raises(PlanError, match=match):
            refused()
    with pytest.raises(PlanError, match="a trainer already"):
        [_trainer(session) for _ in range(2)]
    assert ledger.reservations(dataset_id(dataset)) == 0


def test_the_plan_is_reserved_whole_and_once_before_the_first_access(tmp_path: Path) -> None:
    ledger, seen = Ledger(tmp_path / "ledger.sqlite"), []
    dataset = _examples()

    class Watched(LabeledDataset):
        def blocks(self) -> Any:
            seen.append(ledger.spent(dataset_id(dataset), _BUDGET.delta))
            return super().blocks()

    watched = Watched(dataset.images, dataset.labels, dataset.spec)
    session = _session(watched, ledger=ledger, limit=_BUDGET)
    trainer = _trainer(session)
    assert ledger.reservations(dataset_id(dataset)) == 0
    session.run("sum", _pixels)
    assert seen[0] == 0  # the examples are named by their digest; no mechanism has run
    assert len(seen) == 2
    assert 0.99 * _BUDGET.epsilon < seen[1] <= _BUDGET.epsilon
    trainer.run(verbose=0)
    assert ledger.reservations(dataset_id(dataset)) == 1
    refused = _session(dataset, ledger=ledger, limit=_BUDGET)
    trainer = _trainer(refused)
    with pytest.raises(BudgetExceededError):
        trainer.run(verbose=0)


def test_the_plan_cannot_be_changed() -> None:
    session = _session()
    with pytest.raises(AttributeError):
        session.plan = _plan()
    with pytest.raises(TypeError):
        session.plan.mechanisms["more"] = _Mean(4, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.plan.mechanisms["dp_sgd"].noise_multiplier = 0.1
    _trainer(session)
    session._plan = PrivacyPlan({"sum": _Mean(4, 0.1)}, 40)  # by force
    with pytest.raises(PlanError, match="another one"):
        session.run("sum", _pixels)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda: _session(
                plan=dataclasses.replace(_plan(), num_examples=41, mechanisms={"sum": _Mean(4)}, shares={})
            ),
            "40",
        ),
        (lambda: PrivateSession(_examples(), _plan(), _BUDGET), "calibrated"),
        (lambda: PrivateSession(_examples(), _plan().calibrate(PrivacyBudget(3.0, 1e-4)), _BUDGET), "more than 2"),
        (lambda: _session(limit=_BUDGET), "`ledger`"),
        (lambda: _session(plan=PrivacyPlan({"sum": _UserSum(4)}, 40)), "users"),
    ],
)
def test_bad_sessions_are_refused(change: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        change()


def test_one_shot_mechanisms_share_a_pass_and_are_noised_sums() -> None:
    dataset, passes = _examples(), []

    class Watched(LabeledDataset):
        def blocks(self) -> Any:
            passes.append(1)
            return super().blocks()

    plan = PrivacyPlan({"one": _Mean(4), "two": _Mean(4)}, 40, {"one": 0.2}).calibrate(_BUDGET)
    session = PrivateSession(Watched(dataset.images, dataset.labels, _SPEC), plan, _BUDGET, noise=_Silent())
    results = session.run_together({"one": _pixels, "two": lambda images, labels: 2 * _pixels(images, labels)})
    assert len(passes) == 1
    pixels = dataset.images.reshape(40, 4) / 255
    np.testing.assert_allclose(results["one"], bounded(pixels, 1.0).sum(axis=0))
    np.testing.assert_allclose(results["two"], bounded(2 * pixels, 1.0).sum(axis=0))


def test_the_noise_of_a_one_shot_mechanism_has_the_plans_scale() -> None:
    plan = PrivacyPlan({"sum": _Mean(4)}, 40).calibrate(_BUDGET)
    draws = np.concatenate([PrivateSession(_examples(), plan, _BUDGET).run("sum", _pixels) for _ in range(60)])
    truth = bounded(_examples().images.reshape(40, 4) / 255, 1.0).sum(axis=0)
    stddev = float(np.std(draws.reshape(60, 4) - truth))
    declared = plan.mechanisms["sum"].stddev  # type: ignore[attr-defined]
    assert 2 / 3 < stddev / declared < 3 / 2


def test_shards_are_disjoint_cover_everything_and_cost_what_one_costs() -> None:
    inner = PrivacyPlan({"sum": _Mean(1)}, 10)
    plan = PrivacyPlan({"shards": Shards(4, inner)}, 40).calibrate(_BUDGET)
    assert plan.epsilon(1e-4) == pytest.approx(inner.calibrate(_BUDGET).epsilon(1e-4), rel=1e-3)
    session = PrivateSession(_examples(), plan, _BUDGET, noise=_Silent())
    shards = session.partition("shards")
    counts = [
        shard.run("sum", lambda images, labels: tf.ones_like(_pixels(images, labels)[:, :1]))[0] for shard in shards
    ]
    assert sum(counts) == 40
    assert max(counts) < 40
    with pytest.raises(PlanError, match="carried out before"):
        session.partition("shards")
    with pytest.raises(PlanError, match="carried out before"):
        shards[0].run("sum", _pixels)


@pytest.mark.parametrize("where", [0, 20, 40])
def test_one_example_more_is_in_one_shard_and_moves_no_other(where: int) -> None:
    """Whatever is dealt to the common examples, they stay where they are."""
    dataset = _examples(41)
    rest = dataset.take(np.delete(np.arange(41), where))
    deals = np.random.default_rng(3).integers(4, size=41)

    inner = PrivacyPlan({"sum": _Mean(4)}, 10)

    def sums(of: LabeledDataset, dealt: Any) -> Any:
        plan = PrivacyPlan({"shards": Shards(4, inner)}, len(of)).calibrate(_BUDGET)
        session = PrivateSession(of, plan, _BUDGET, noise=_Silent(dealt))
        return np.stack([shard.run("sum", _pixels) for shard in session.partition("shards")])

    difference = np.linalg.norm(sums(dataset, deals) - sums(rest, np.delete(deals, where)), axis=1)
    assert np.count_nonzero(difference > 1e-9) == 1
    assert difference.max() <= 1.0 + 1e-9


@pytest.mark.parametrize("user", [0, 3, 6])
def test_a_user_moves_a_user_level_sum_by_its_sensitivity(user: int) -> None:
    dataset = _examples(42, users=7)
    users: Any = dataset.user_ids
    rest = dataset.take(np.flatnonzero(users != user))
    plan = PrivacyPlan({"sum": _UserSum(4)}, 7).calibrate(_BUDGET)
    sums = [PrivateSession(of, plan, _BUDGET, noise=_Silent()).run("sum", _pixels) for of in (dataset, rest)]
    assert 0.5 < np.linalg.norm(sums[0] - sums[1]) <= 1 + 1e-9
    assert "one user" in plan.statement(1e-4, "operating system").text


def test_units_do_not_mix() -> None:
    with pytest.raises(ValueError, match="same unit"):
        PrivacyPlan({"one": _Mean(4), "two": _UserSum(4)}, 7, {"one": 0.5})


def test_a_training_learns_and_features_are_computed_for_every_example() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = np.zeros((300, 2, 2, 1), np.uint8)
    images[np.arange(300), labels // 2, labels % 2, 0] = 255
    dataset = LabeledDataset(images, labels, _SPEC)
    budget = PrivacyBudget(50.0, 1e-4)
    for transform in (None, _pixels, _half_pixels):
        plan = PrivacyPlan({"dp_sgd": DPSGD(300, 60, steps=30)}, 300).calibrate(budget)
        inputs = (4,) if transform else (2, 2, 1)
        network = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=inputs), tf.keras.layers.Dense(3)])

        of_features, is_half = transform is not None, transform is _half_pixels

        def loss(
            batch: Any, network: Any = network, of_features: bool = of_features, is_half: bool = is_half
        ) -> tf.Tensor:
            assert not of_features or batch.features.dtype == (tf.float16 if is_half else tf.float32)
            logits = network(tf.cast(batch.features, tf.float32) if of_features else batch.images)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)

        session, steps = PrivateSession(dataset, plan, budget), []
        session.train(
            "dp_sgd", [network], loss, learning_rate=0.3, transform=transform, after_step=steps.append, verbose=0
        )
        assert steps == list(range(30))
        seen = images.reshape(300, *inputs).astype(np.float32) / 255
        assert np.mean(np.argmax(network(seen), axis=1) == labels) > 0.95


def test_features_that_are_no_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="int32"):
        _trainer(_session(), transform=lambda images, labels: tf.cast(_pixels(images, labels), tf.int32))

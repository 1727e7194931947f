"""A session carries out what its plan lists, each once, after it was reserved; nobody else holds the examples."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.files import remove
from tfdpgen.privacy import Backup, BackupError, BudgetExceededError, Ledger, NoiseSource, PrivacyBudget
from tfdpgen.privacy.budget import PrivacyUnit
from tfdpgen.privacy.mechanisms.base import GaussianSum, bounded
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.plan import PrivacyPlan, Shards
from tfdpgen.privacy.session import PlanError, PrivateSession

_SPEC = DataSpec((2, 2, 1), 3)
_BUDGET = PrivacyBudget(2.0, 1e-4)


class _Killed(BaseException):
    """Stands for SIGKILL."""


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
    def num_columns(self) -> int:
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
    assert len(ledger.reservations(dataset)) == 0


def test_the_plan_is_reserved_whole_and_once_before_the_first_access(tmp_path: Path) -> None:
    ledger, seen = Ledger(tmp_path / "ledger.sqlite"), []
    dataset = _examples()

    class Watched(LabeledDataset):
        def blocks(self) -> Any:
            seen.append(ledger.spent(dataset, _BUDGET.delta))
            return super().blocks()

    watched = Watched(dataset.images, dataset.labels, dataset.spec)
    session = _session(watched, ledger=ledger, limit=_BUDGET)
    trainer = _trainer(session)
    assert len(ledger.reservations(dataset)) == 0
    session.run("sum", _pixels)
    assert seen[0] == 0  # the examples are named by their digest; no mechanism has run
    assert len(seen) == 2
    assert 0.99 * _BUDGET.epsilon < seen[1] <= _BUDGET.epsilon
    trainer.run(verbose=0)
    assert len(ledger.reservations(dataset)) == 1
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


def test_a_transform_of_another_width_than_planned_is_refused_while_nothing_is_spent(tmp_path: Path) -> None:
    """NumPy would copy a single column into all of them, and one example would move each."""
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _examples()
    for width in (1, 3, 5):
        session = _session(dataset, PrivacyPlan({"sum": _Mean(4)}, 40), ledger=ledger)
        with pytest.raises(ValueError, match=rf"`transform` of 'sum' should give 4 features.*gives {width}"):
            session.run("sum", lambda images, labels, width=width: tf.ones([tf.shape(labels)[0], width]))
    assert len(ledger.reservations(dataset)) == 0


@pytest.mark.parametrize("transform", [None, _pixels])
def test_a_shard_may_be_empty(transform: Any) -> None:
    class Dealing(NoiseSource):
        def numpy_generator(self) -> Any:
            rng: Any = Mock(wraps=super().numpy_generator())
            rng.integers = lambda shards, size: np.repeat([0, 1, 3], [3, 3, 2])
            return rng

    dataset, inner = _examples(8), PrivacyPlan({"dp_sgd": DPSGD(2, 1, steps=3)}, 2)
    plan = PrivacyPlan({"shards": Shards(4, inner)}, 8).calibrate(_BUDGET)
    session = PrivateSession(dataset, plan, _BUDGET, noise=Dealing())
    for shard in session.partition("shards"):
        network = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(4,) if transform else (2, 2, 1))])
        network.add(tf.keras.layers.Dense(3))

        def loss(batch: Any, network: Any = network) -> tf.Tensor:
            logits = network(batch.features if transform else batch.images)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)

        shard.trainer("dp_sgd", [network], loss, learning_rate=0.1, transform=transform).run(verbose=0)
        assert all(np.all(np.isfinite(weight)) for weight in network.get_weights())


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
    sums = []
    for of, number in ((dataset, 7), (rest, 6)):
        plan = PrivacyPlan({"sum": _UserSum(4)}, number).calibrate(_BUDGET)
        sums.append(PrivateSession(of, plan, _BUDGET, noise=_Silent()).run("sum", _pixels))
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


@pytest.mark.parametrize("access", ["public", "partition", "other trainer"])
def test_all_networks_are_checked_before_anything_is_spent(tmp_path: Path, access: str) -> None:
    mechanisms = {"sum": _Mean(4), "other": DPSGD(40, 8, steps=3), "dp_sgd": DPSGD(40, 8, steps=3)}
    shards = Shards(2, PrivacyPlan({"sum": _Mean(4)}, 20))
    plan = PrivacyPlan({**mechanisms, "shards": shards}, 40, {"sum": 0.2, "other": 0.2, "shards": 0.2})
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _examples()
    with Backup(tmp_path / "backup") as backup:
        session = _session(dataset, plan, ledger=ledger, backup=backup)
        other = _trainer(session, "other")
        refused = {
            "public": lambda: session.public("weights", lambda: np.zeros(3)),
            "partition": lambda: session.partition("shards"),
            "other trainer": lambda: other.run(verbose=0),
        }[access]
        with pytest.raises(PlanError, match="networks of 'dp_sgd', which are not known"):
            refused()
    assert len(ledger.reservations(dataset)) == 0


def test_a_public_computation_is_done_once_and_pays_first(tmp_path: Path) -> None:
    ledger, dataset, computed = Ledger(tmp_path / "ledger.sqlite"), _examples(), []
    plan = PrivacyPlan({"sum": _Mean(4)}, 40)

    def compute() -> Any:
        computed.append(len(ledger.reservations(dataset)))
        return np.random.default_rng().normal(size=3)

    found = []
    for _ in range(2):
        with contextlib.suppress(_Killed), Backup(tmp_path / "backup") as backup:
            found.append(_session(dataset, plan, ledger=ledger, backup=backup).public("weights", compute))
            raise _Killed
    assert computed == [1]
    np.testing.assert_array_equal(*found)
    assert len(ledger.reservations(dataset)) == 1
    with pytest.raises(ValueError, match="identifier"):
        _session().public("../weights", compute)


def test_a_killed_session_goes_on_with_the_same_shards_and_outputs(tmp_path: Path) -> None:
    ledger, dataset, seen = Ledger(tmp_path / "ledger.sqlite"), _examples(), []
    inner = PrivacyPlan({"sum": _Mean(4), "count": _Mean(1)}, 10, {"sum": 0.5})
    plan = PrivacyPlan({"shards": Shards(4, inner)}, 40)

    def ones(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(_pixels(images, labels)[:, :1])

    for attempt, deals in enumerate(np.random.default_rng(4).integers(4, size=(2, 40))):
        with contextlib.suppress(_Killed), Backup(tmp_path / "backup") as backup:
            session = _session(dataset, plan, ledger=ledger, backup=backup, noise=_Silent(deals))
            shards = session.partition("shards")
            seen.append([shard.run("sum", _pixels) for shard in shards])
            if not attempt:
                dealt = np.bincount(deals, minlength=4)
                raise _Killed
            np.testing.assert_array_equal([shard.run("count", ones)[0] for shard in shards], dealt)
    np.testing.assert_array_equal(*seen)
    assert len(ledger.reservations(dataset)) == 1


def test_a_dealing_that_was_lost_is_not_repeated(tmp_path: Path) -> None:
    """An example that is dealt to another shard than before would be in two."""
    plan = PrivacyPlan({"shards": Shards(4, PrivacyPlan({"sum": _Mean(4)}, 10))}, 40)

    def run(number: int) -> None:
        with Backup(tmp_path / "backup") as backup:
            _session(plan=plan, backup=backup).partition("shards")[number].run("sum", _pixels)
            raise _Killed

    with pytest.raises(_Killed):
        run(0)
    remove(tmp_path / "backup" / "output-shards")
    with pytest.raises(BackupError, match="'shards'"):
        run(1)


def test_threads_reserve_once_and_carry_out_once(tmp_path: Path) -> None:
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _examples()
    plan = PrivacyPlan({"shards": Shards(8, PrivacyPlan({"sum": _Mean(4)}, 5))}, 40)
    with Backup(tmp_path / "backup") as backup, ThreadPoolExecutor(8) as pool:
        shards = _session(dataset, plan, ledger=ledger, backup=backup).partition("shards")
        together = threading.Barrier(8)

        def run(number: int) -> bool:
            together.wait()
            try:
                shards[number // 2].run("sum", _pixels)
            except PlanError:
                return False
            return True

        assert sum(pool.map(run, range(8))) == 4
    assert len(ledger.reservations(dataset)) == 1


def test_a_session_does_nothing_after_the_block_of_its_backup(tmp_path: Path) -> None:
    """The lock is gone, and another process may go on with the same training."""
    with contextlib.suppress(_Killed), Backup(tmp_path / "backup") as backup:
        session = _session(backup=backup)
        trainer = _trainer(session)
        session.run("sum", _pixels)
        raise _Killed
    with pytest.raises(BackupError, match="inside its block"):
        trainer.run(verbose=0)


def test_users_who_are_others_make_another_training(tmp_path: Path) -> None:
    plan, dataset = PrivacyPlan({"sum": _UserSum(4)}, 7), _examples(42, users=7)
    others = dataclasses.replace(dataset, user_ids=np.arange(42) // 6)
    renamed = dataclasses.replace(dataset, user_ids=dataset.user_ids + 100)

    def run(examples: LabeledDataset) -> Any:
        with Backup(tmp_path / "backup") as backup:
            found.append(_session(examples, plan, backup=backup).run("sum", _pixels))
            raise _Killed

    found: list[Any] = []
    with pytest.raises(_Killed):
        run(dataset)
    with pytest.raises(BackupError, match="users differ"):
        run(others)
    with pytest.raises(_Killed):
        run(renamed)
    np.testing.assert_array_equal(*found)

"""A session carries out what its plan lists, each once, after it was reserved; nobody else holds the examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import (
    Backup,
    BackupError,
    BudgetExceededError,
    Ledger,
    NoiseSource,
    PoissonBatch,
    PrivacyBudget,
    dataset_id,
)
from tfdpgen.privacy.chunks import scaled
from tfdpgen.privacy.mechanisms.base import GaussianSum, PrivacyUnit, bounded
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.mechanisms.gaussian_statistics import GroupStatistics
from tfdpgen.privacy.mechanisms.noisy_counts import NoisyCounts
from tfdpgen.privacy.optimizer import DPKerasAdam, DPKerasSGD
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


class _Noised(GroupStatistics):
    """Gives the noised sum as it is."""

    def result(self, noised: Any) -> Any:
        return noised


def test_counts_sums_and_squares_are_all_noised_for_the_sensitivity_of_the_whole() -> None:
    """On so many groups that no part of what an example adds can go without."""
    groups, d = 1000, 3
    plan = PrivacyPlan({"statistics": _Noised(groups, d)}, 40).calibrate(_BUDGET)
    mechanism: Any = plan.mechanisms["statistics"]

    def features(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.concat([_pixels(images, labels)[:, :d], tf.cast(labels, tf.float32)[:, None]], axis=1)

    dataset = _examples()
    truth = mechanism.sum_of(np.asarray(features(scaled(dataset.images), dataset.labels)), dataset.labels)
    noised = PrivateSession(dataset, plan, _BUDGET, noise=NoiseSource.insecure(1)).run("statistics", features)
    stddev = mechanism.noise_multiplier * math.sqrt(0.5**2 + 1 + 4.0**2)
    noise = (noised - truth).reshape(groups, -1) / stddev
    for part in (noise[:, 0], noise[:, 1 : 1 + d].ravel(), noise[:, 1 + d :].ravel()):
        assert scipy.stats.kstest(part, "norm").pvalue > 1e-3
        for factor in (2 / 3, 3 / 2):
            assert scipy.stats.kstest(part * factor, "norm").pvalue < 1e-3


def test_a_single_count_is_noised_too() -> None:
    plan = PrivacyPlan({"votes": NoisyCounts()}, 40).calibrate(_BUDGET)
    session = PrivateSession(_examples(), plan, _BUDGET, noise=NoiseSource.insecure(2))
    (count,) = session.run("votes", lambda images, labels: tf.ones_like(_pixels(images, labels)[:, :1]))
    assert abs(count - 40) > 0.1


def test_images_are_scaled_by_the_declared_range_and_not_by_their_neighbours() -> None:
    dim = np.random.default_rng(0).integers(0, 100, (40, 2, 2, 1)).astype(np.uint8)
    np.testing.assert_allclose(scaled(tf.constant(dim)), dim / 255, rtol=1e-6)
    plan = PrivacyPlan({"sum": _Mean(4)}, 40).calibrate(_BUDGET)
    session = PrivateSession(LabeledDataset(dim, np.arange(40) % 3, _SPEC), plan, _BUDGET, noise=_Silent())
    np.testing.assert_allclose(
        session.run("sum", _pixels), bounded(dim.reshape(40, 4) / 255, 1.0).sum(axis=0), rtol=1e-6
    )


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


class _Centred(tf.keras.layers.Layer):
    """Subtracts the mean of the batch."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs - tf.reduce_mean(inputs, axis=0)


@pytest.mark.parametrize("layer", [_Centred, tf.keras.layers.BatchNormalization])
def test_a_network_that_mixes_examples_is_refused_while_nothing_is_spent(layer: Any, tmp_path: Path) -> None:
    ledger, dataset = Ledger(tmp_path / "ledger.sqlite"), _examples()
    flat = tf.keras.layers.Flatten(input_shape=(2, 2, 1))
    network = tf.keras.Sequential([flat, layer(), tf.keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"mixes the examples|not known to treat each example alone"):
        _trainer(_session(dataset, ledger=ledger), network=network)
    assert ledger.reservations(dataset_id(dataset)) == 0


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("sampled", [0, 3, 12])
@pytest.mark.usefixtures("eager_functions")
def test_public_losses_weigh_as_many_examples_as_are_expected(sampled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were sampled; five losses, each clipped to 1, weigh eight examples."""
    batch = PoissonBatch(np.arange(12, dtype=np.int32)[None], (np.arange(12) < sampled).astype(np.float32)[None])
    applied: list[Any] = []
    monkeypatch.setattr(DPSGD, "physical_batch_size", 12)
    monkeypatch.setattr(DPSGD, "batches", lambda *_, **__: iter([batch]))
    monkeypatch.setattr(DPKerasAdam, "apply_clipped_sum", lambda self, sums, variables: applied.append(sums))
    network = _network()
    plan = PrivacyPlan({"dp_sgd": DPSGD(40, 8, steps=1)}, 40)
    _session(plan=plan).train(
        "dp_sgd",
        [network],
        lambda batch: 0.0 * tf.reduce_sum(network(batch.images), axis=1),
        learning_rate=0.1,
        public_loss_fn=lambda: 100.0 * tf.reduce_sum(network(tf.ones([5, 2, 2, 1])), axis=1),
        verbose=0,
    )
    (sums,) = applied
    assert math.sqrt(sum(float(tf.reduce_sum(tf.square(value))) for value in sums)) == pytest.approx(8.0, rel=1e-4)


def test_with_the_noised_gradients_given_the_examples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings on other examples, whose samples are of other sizes, end with the same weights."""
    given = [tf.ones([4, 3]), tf.ones([3])]
    monkeypatch.setattr(DPKerasAdam, "noised_gradients", lambda self, sums, divisor=None: given)
    start, ends = _network().get_weights(), []
    for shift in (0, 100):
        network = _network()
        network.set_weights(start)
        examples = LabeledDataset(_examples().images // 2 + np.uint8(shift), np.arange(40) % 3, _SPEC)
        session = _session(examples, PrivacyPlan({"dp_sgd": DPSGD(40, 8, steps=5)}, 40))
        _trainer(session, network=network).run(verbose=0)
        ends.append(network.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


class _Cut(BaseException):
    """An interruption."""


def test_a_resumed_session_gives_what_it_gave_and_goes_on_with_the_same_examples_alone(tmp_path: Path) -> None:
    dataset, given = _examples(), []
    plan = PrivacyPlan({"sum": _Mean(4)}, 40).calibrate(_BUDGET)

    def attempt(dataset: LabeledDataset) -> None:
        with Backup(tmp_path / "backup") as backup:
            given.append(PrivateSession(dataset, plan, _BUDGET, backup=backup).run("sum", _pixels))
            raise _Cut

    for _ in range(2):
        with pytest.raises(_Cut):
            attempt(dataset)
    np.testing.assert_array_equal(*given)
    with pytest.raises(BackupError, match="examples"):
        attempt(dataset.take(np.arange(40)[::-1]))


def test_a_resumed_training_repeats_no_step_and_no_noise(tmp_path: Path) -> None:
    """Of losses without gradients, what a step changes is its noise."""
    steps: list[int] = []
    moves: list[np.ndarray] = []
    plan = PrivacyPlan({"dp_sgd": DPSGD(40, 8, steps=12)}, 40).calibrate(_BUDGET)

    def attempt(backup: Backup, cut_after: int) -> None:
        network = _network()
        before = [np.zeros(0)]

        def weights() -> np.ndarray:
            return np.concatenate([value.ravel() for value in network.get_weights()])

        def learning_rate(step: int) -> float:
            before[0] = weights()
            return 1.0

        def after_step(step: int) -> None:
            steps.append(step)
            moves.append(weights() - before[0])
            if len(steps) == cut_after:
                raise _Cut

        PrivateSession(_examples(), plan, _BUDGET, backup=backup).train(
            "dp_sgd",
            [network],
            lambda batch: 0.0 * tf.reduce_sum(network(batch.images), axis=1),
            learning_rate=learning_rate,
            optimizer_class=DPKerasSGD,
            after_step=after_step,
            verbose=0,
        )

    for cut_after in (4, 7):
        with pytest.raises(_Cut), Backup(tmp_path / "backup", every=2) as backup:
            attempt(backup, cut_after)
    with Backup(tmp_path / "backup", every=2) as backup:
        attempt(backup, 0)
    assert len(set(steps)) == len(steps) > 7
    assert steps[-1] == 11
    distances = [np.abs(one - other).max() for number, one in enumerate(moves) for other in moves[:number]]
    assert min(distances) > 1e-3


def test_a_public_result_is_kept_and_the_plan_is_reserved_before_it(tmp_path: Path) -> None:
    ledger, dataset, given = Ledger(tmp_path / "ledger.sqlite"), _examples(), []

    def attempt() -> None:
        with Backup(tmp_path / "backup") as backup:
            session = _session(dataset, ledger=ledger, backup=backup)
            given.append(session.public("weights", lambda: np.random.default_rng().normal(size=3)))
            assert ledger.reservations(dataset_id(dataset)) == 1
            raise _Cut

    for _ in range(2):
        with pytest.raises(_Cut):
            attempt()
    np.testing.assert_array_equal(*given)

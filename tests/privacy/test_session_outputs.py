"""What a session hands out: noised in all its parts, of each example alone, and the same again when it is resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.privacy.test_session import (
    _BUDGET,
    _SPEC,
    _examples,
    _Mean,
    _network,
    _pixels,
    _session,
    _Silent,
    _trainer,
)
from tfdpgen.data import LabeledDataset
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    BackupError,
    Ledger,
    NoiseSource,
    NoisyCounts,
    PoissonBatch,
    PrivacyPlan,
    PrivateSession,
)
from tfdpgen.privacy.chunks import scaled
from tfdpgen.privacy.mechanisms.base import bounded
from tfdpgen.privacy.mechanisms.gaussian_statistics import GroupStatistics
from tfdpgen.privacy.noise import GaussianNoise
from tfdpgen.privacy.optimizer import DPKerasAdam, DPKerasSGD


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
    assert len(ledger.reservations(dataset)) == 0


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


class _NoNoiseError(Exception):
    """What a broken source of noise raises."""


def _fail(*_: Any, **__: Any) -> Any:
    raise _NoNoiseError


class _Broken(NoiseSource):
    """A source whose generators exist and cannot draw noise."""

    def numpy_generator(self) -> Any:
        return type("Generator", (), {"normal": _fail, "geometric": lambda self, p, size: np.ones(size, np.int64)})()


@pytest.mark.usefixtures("eager_functions")
def test_where_noise_cannot_be_drawn_nothing_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GaussianNoise, "draw", _fail)
    network = _network()
    before = network.get_weights()
    session = _session(noise=_Broken())
    trainer = _trainer(session, network=network)
    with pytest.raises(_NoNoiseError):
        session.run("sum", _pixels)
    with pytest.raises(_NoNoiseError):
        trainer.run(verbose=0)
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


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


def test_a_resumed_session_gives_what_it_gave_of_the_same_examples_alone(tmp_path: Path) -> None:
    dataset, given = _examples(), []
    plan = PrivacyPlan({"sum": _Mean(4)}, 40).calibrate(_BUDGET)

    def attempt(dataset: LabeledDataset, is_cut: bool) -> None:
        with Backup(tmp_path / "backup") as backup:
            given.append(PrivateSession(dataset, plan, _BUDGET, backup=backup).run("sum", _pixels))
            if is_cut:
                raise _Cut

    for _ in range(2):
        with pytest.raises(_Cut):
            attempt(dataset, is_cut=True)
    np.testing.assert_array_equal(*given)
    with pytest.raises(BackupError, match="examples"):
        attempt(dataset.take(np.arange(40)[::-1]), is_cut=False)


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
            session = _session(dataset, PrivacyPlan({"sum": _Mean(4)}, 40), ledger=ledger, backup=backup)
            given.append(session.public("weights", lambda: np.random.default_rng().normal(size=3)))
            assert len(ledger.reservations(dataset)) == 1
            raise _Cut

    for _ in range(2):
        with pytest.raises(_Cut):
            attempt()
    np.testing.assert_array_equal(*given)

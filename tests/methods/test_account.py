"""`train` accounts for all that runs, before it runs, and once: shown by a small method that notes what it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import Fitted, method, train
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    BackupError,
    ClassMeans,
    DPKerasSGD,
    Ledger,
    PrivacyBudget,
    PrivacyPlan,
    PrivateSession,
)
from tfdpgen.privacy import session as sessions
from tfdpgen.privacy.accounting.events import gaussian_parts
from tfdpgen.release import Release, labeller

_BUDGET = PrivacyBudget(2.0, 1e-3)
_EXAMPLES = LabeledDataset(
    np.random.default_rng(0).integers(256, size=(40, 8, 8, 1), dtype=np.uint8),
    np.arange(40) % 2,
    DataSpec((8, 8, 1), 2),
)


class _Cut(BaseException):
    """An interruption."""


@dataclasses.dataclass(frozen=True)
class _Noting:
    """Asks for class means and trains a network whose gradients are zero, so that each step adds noise alone."""

    steps: int = 6
    name: ClassVar[str] = "noting"
    priors: ClassVar[tuple[str, ...]] = ()
    means: ClassVar[list[bytes]] = []
    moves: ClassVar[list[bytes]] = []  # what each step changed: its noise
    cut_after: ClassVar[int | None] = None  # steps

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        return cls()

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        mechanisms = {"means": ClassMeans(2, 64, 8.0), "dp_sgd": DPSGD(num_examples, 10, self.steps)}
        return PrivacyPlan(mechanisms, num_examples, {"means": 0.3})

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        layers = [tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(1, use_bias=False)]
        network = tf.keras.Sequential(layers)
        trainer = session.trainer(
            "dp_sgd",
            [network],
            lambda batch: 0.0 * network(batch.images),
            learning_rate=1.0,
            optimizer_class=DPKerasSGD,
        )
        self.means.append(session.run("means", lambda images, labels: tf.reshape(images, [-1, 64])).means.tobytes())
        (weight,) = network.trainable_variables
        before = tf.Variable(weight)

        def after_step(step: int) -> None:
            self.moves.append((weight - before).numpy().tobytes())
            before.assign(weight)
            if len(self.moves) == self.cut_after:
                raise _Cut

        trainer.run(after_step=after_step, state={"before": before}, verbose=0)
        latents, labels = tf.keras.Input([1]), tf.keras.Input([], dtype=tf.int64)
        images = tf.keras.layers.Reshape((8, 8, 1))(tf.keras.layers.Dense(64, "sigmoid")(latents))
        return Fitted(tf.keras.Model([latents, labels], images))


@pytest.fixture(autouse=True)
def noting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(method._REGISTRY, "noting", _Noting)
    monkeypatch.setattr(labeller, "_STEPS", 2)
    for name, value in {"means": [], "moves": [], "cut_after": None}.items():
        monkeypatch.setattr(_Noting, name, value)


def _train(dataset: LabeledDataset = _EXAMPLES, **arguments: Any) -> Release:
    return train("noting", dataset, _BUDGET, verbose=0, **arguments)


def _cut(after: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Runs until so many steps were executed."""
    with monkeypatch.context() as patch:
        patch.setattr(_Noting, "cut_after", after)
        with pytest.raises(_Cut):
            run()


def test_everything_that_runs_is_in_the_event_the_statement_and_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    release = _train(ledger=ledger, labeller_share=0.3)
    parts, names = release.statement.mechanisms, ["class means", "DP-SGD", "DP-SGD of the labeller"]
    assert [part["name"] for part in parts] == names
    found = gaussian_parts(release.event)
    assert sorted((part.sampling_probability, count) for part, count in found.items()) == [
        (0.25, 6),
        (1.0, 1),
        (1.0, 2),
    ]
    assert len(found) == 3  # each with noise of its own
    assert 0.99 * _BUDGET.epsilon < release.statement.epsilon <= _BUDGET.epsilon
    assert ledger.spent(_EXAMPLES, _BUDGET.delta) == pytest.approx(release.statement.epsilon)
    assert len(ledger.reservations(_EXAMPLES)) == 1
    assert len(_Noting.moves) == len(set(_Noting.moves)) == release.statement.steps == 6


def test_the_whole_cost_is_reserved_before_anything_touches_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, notes = Ledger(tmp_path / "ledger.sqlite"), []
    sums_of, batches = sessions.sums_of, DPSGD.batches

    def note(what: str) -> None:
        notes.append((what, round(ledger.spent(_EXAMPLES, _BUDGET.delta), 4)))

    def noted_sums(*arguments: Any, **named: Any) -> Any:
        note("sums")
        return sums_of(*arguments, **named)

    def noted_batches(self: DPSGD, *arguments: Any, **named: Any) -> Iterator[Any]:
        for batch in batches(self, *arguments, **named):
            note(self.name)
            yield batch

    monkeypatch.setattr(sessions, "sums_of", noted_sums)
    monkeypatch.setattr(DPSGD, "batches", noted_batches)
    cost = round(_train(ledger=ledger, labeller_share=0.3).statement.epsilon, 4)
    assert notes == [(what, cost) for what in ("sums", *["DP-SGD"] * 6, *["DP-SGD of the labeller"] * 2)]


def test_a_run_that_fails_gives_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    _cut(3, monkeypatch, lambda: _train(ledger=ledger))
    assert len(ledger.reservations(_EXAMPLES)) == 1
    assert ledger.spent(_EXAMPLES, _BUDGET.delta) > 0.99 * _BUDGET.epsilon
    _train(ledger=ledger)
    assert len(ledger.reservations(_EXAMPLES)) == 2


def test_a_resumed_run_releases_no_statistic_again_repeats_no_step_and_no_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def run() -> None:
        with Backup(tmp_path / "backup", every=2) as backup:
            _train(ledger=ledger, backup=backup)

    _cut(3, monkeypatch, run)
    run()
    assert len(_Noting.means) == 2
    assert len(set(_Noting.means)) == 1  # the same output, to the last bit
    assert len(_Noting.moves) == 3 + 2  # the fourth step was claimed, and given up
    assert len(set(_Noting.moves)) == len(_Noting.moves)
    assert len(ledger.reservations(_EXAMPLES)) == 1


def test_the_progress_of_other_examples_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(dataset: LabeledDataset) -> None:
        with Backup(tmp_path / "backup", every=2) as backup:
            _train(dataset, backup=backup)

    _cut(3, monkeypatch, lambda: run(_EXAMPLES))
    with pytest.raises(BackupError, match="examples differ"):
        run(_EXAMPLES.take(np.arange(39, -1, -1)))
    assert len(_Noting.moves) == 3


def test_noise_differs_from_run_to_run_whatever_the_seed() -> None:
    for _ in range(2):
        tf.keras.utils.set_random_seed(7)
        _train(seed=7)
    assert len(set(_Noting.means)) == 2
    assert len(_Noting.moves) == len(set(_Noting.moves)) == 12

"""`train` accounts for all that runs, before it runs, and once: shown by a method that notes what it is given."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import Synthesizer, base, train
from tfdpgen.methods.running import run_plan
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    BackupError,
    ClassMeans,
    DPKerasSGD,
    Ledger,
    NoiseSource,
    PrivacyBudget,
    dataset_id,
)
from tfdpgen.privacy.accounting.events import gaussian_parts
from tfdpgen.release import Release

_BUDGET = PrivacyBudget(2.0, 1e-3)
_ROWS = LabeledDataset(
    np.random.default_rng(0).integers(256, size=(40, 2, 2, 1), dtype=np.uint8),
    np.arange(40) % 2,
    DataSpec((2, 2, 1), 2),
)
_LABELLER = DPSGD(40, 8, 2, 1.0, noise_multiplier=9.0, name="labeller")
_MEANS = ClassMeans(20.0)


class _Cut(BaseException):
    """An interruption."""


@dataclasses.dataclass(frozen=True)
class _Preset:
    steps: int = 6


class _Noting(Synthesizer):
    """Learns nothing: runs its plan on sums of zeros, and notes what happens when."""

    method = "noting"
    notes: ClassVar[list[str]] = []
    moves: ClassVar[list[bytes]] = []  # what each step changed: its noise
    cut_before: ClassVar[int | None] = None
    ledger: ClassVar[Ledger | None] = None

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: _Preset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or _Preset())

    def plan(self) -> DPSGD:
        return DPSGD(self.num_examples, 10, self.preset.steps, 1.0)

    def alongside(self, budget: PrivacyBudget) -> Any:
        return _MEANS, _LABELLER

    def prepare(self, dataset: Any, mechanisms: Any, noise: NoiseSource, verbose: int) -> None:
        self._note("prepare", dataset)

    def learn(
        self, dataset: Any, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert plan is not None
        weight = tf.Variable(tf.zeros([4]))
        optimizer = plan.optimizer(noise, DPKerasSGD, learning_rate=1.0)
        state: dict[str, Any] = {"weight": weight, "optimizer": optimizer}

        def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            if len(self.moves) == self.cut_before:
                raise _Cut
            self._note("step", dataset)
            before = weight.numpy()
            optimizer.apply_clipped_sum([tf.zeros([4])], [weight])
            self.moves.append((weight.numpy() - before).tobytes())

        optimizer._create_all_weights([weight])
        run_plan(plan, noise, step, state=state, backup=backup, verbose=0)
        latents, labels = tf.keras.Input([1]), tf.keras.Input([], dtype=tf.int64)
        images = tf.keras.layers.Reshape(self.spec.image_shape)(tf.keras.layers.Dense(4, "sigmoid")(latents))
        return tf.keras.Model([latents, labels], images)

    def _note(self, what: str, dataset: Any) -> None:
        reserved = self.ledger.spent(dataset_id(dataset), _BUDGET.delta) if self.ledger else 0.0
        self.notes.append(f"{what} with {reserved:.3f} reserved")


@pytest.fixture(autouse=True)
def noting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._REGISTRY, "noting", _Noting)
    for name, value in {"notes": [], "moves": [], "cut_before": None, "ledger": None}.items():
        monkeypatch.setattr(_Noting, name, value)


def _train(ledger: Ledger | None = None, rows: LabeledDataset = _ROWS, **arguments: Any) -> Release:
    _Noting.ledger = ledger
    return train("noting", rows, _BUDGET, ledger=ledger, verbose=0, **arguments)


def test_everything_that_runs_is_in_the_event_the_statement_and_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    release = _train(ledger)
    parts = gaussian_parts(release.event)
    assert parts[1.0, 20.0] == 1
    assert parts[8 / 40, 9.0] == 2
    training = release.statement.noise_multiplier
    assert parts == collections.Counter({(1.0, 20.0): 1, (8 / 40, 9.0): 2, (10 / 40, training): 6})
    assert [part["name"] for part in release.statement.mechanisms] == ["class means", "labeller", "DP-SGD"]
    assert 0.99 * _BUDGET.epsilon < release.statement.epsilon <= _BUDGET.epsilon
    assert ledger.spent(dataset_id(_ROWS), _BUDGET.delta) == pytest.approx(release.statement.epsilon)
    assert len(_Noting.moves) == len(set(_Noting.moves)) == release.statement.steps == 6


def test_the_whole_cost_is_reserved_before_anything_touches_a_row(tmp_path: Path) -> None:
    release = _train(Ledger(tmp_path / "ledger.sqlite"))
    cost = f"{release.statement.epsilon:.3f}"
    assert _Noting.notes == [f"prepare with {cost} reserved", *[f"step with {cost} reserved"] * 6]


def test_a_run_that_fails_gives_nothing_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    _Noting.cut_before = 3
    with pytest.raises(_Cut):
        _train(ledger)
    assert ledger.reservations(dataset_id(_ROWS)) == 1
    assert ledger.spent(dataset_id(_ROWS), _BUDGET.delta) > 0.99 * _BUDGET.epsilon
    _Noting.cut_before = None
    _train(ledger)
    assert ledger.reservations(dataset_id(_ROWS)) == 2


def test_a_resumed_run_releases_no_statistic_again_repeats_no_step_and_no_noise(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    _Noting.cut_before = 3
    with pytest.raises(_Cut), Backup(tmp_path / "backup", every=2) as backup:
        _train(ledger, backup=backup)
    _Noting.cut_before = None
    with Backup(tmp_path / "backup", every=2) as backup:
        _train(ledger, backup=backup)
    whats = collections.Counter(note.partition(" ")[0] for note in _Noting.notes)
    assert whats == {"prepare": 1, "step": 3 + 2}  # the fourth step was claimed, and given up
    assert len(set(_Noting.moves)) == len(_Noting.moves)
    assert ledger.reservations(dataset_id(_ROWS)) == 1


def test_the_progress_of_other_rows_is_refused(tmp_path: Path) -> None:
    _Noting.cut_before = 3
    with pytest.raises(_Cut), Backup(tmp_path / "backup", every=2) as backup:
        _train(backup=backup)
    _Noting.cut_before = None
    with pytest.raises(BackupError, match="rows differ"), Backup(tmp_path / "backup", every=2) as backup:
        _train(rows=_ROWS.take(np.arange(39, -1, -1)), backup=backup)
    assert len(_Noting.moves) == 3


def test_noise_differs_from_run_to_run_whatever_the_seed() -> None:
    for _ in range(2):
        tf.keras.utils.set_random_seed(7)
        _train(seed=7)
    assert len(_Noting.moves) == len(set(_Noting.moves)) == 12

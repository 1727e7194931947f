"""A training that was cut off goes on: no step twice, no noise twice, one reservation, one release."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.methods import killable
from tests.methods.killable import BUDGET, PRESETS, private_rows
from tfdpgen.methods import moments, train
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    BackupError,
    ClassCentres,
    ClassMoments,
    Ledger,
    NoisyCounts,
    PoissonBatch,
    dataset_id,
    epsilon_of,
)
from tfdpgen.privacy.noise import GaussianNoise
from tfdpgen.privacy.statistics import Centres, Moments
from tfdpgen.release import Release

every_method = pytest.mark.parametrize("name", sorted(PRESETS))


class _Cut(BaseException):
    """An interruption."""


def _train(name: str, folder: Path, *, cut_after: int | None = None, steps: int = 10, **arguments: Any) -> Release:
    """A training in blocks of 4 steps that is cut off before step `cut_after` of this attempt."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        batches = DPSGD.batches

        def cut_batches(self: DPSGD, noise: Any = None, first_step: int = 0) -> Any:
            for count, batch in enumerate(batches(self, noise, first_step)):
                if count == cut_after:
                    raise _Cut
                yield batch

        monkeypatch.setattr(DPSGD, "batches", cut_batches)
        arguments = {"budget": BUDGET, "dataset": private_rows(), **arguments}
        preset = dataclasses.replace(PRESETS[name], steps=steps)
        with Backup(folder / "backup", every=4) as backup:
            return train(
                name, preset=preset, ledger=Ledger(folder / "ledger.sqlite"), backup=backup, verbose=0, **arguments
            )


@every_method
def test_a_resumed_training_is_reserved_once_and_never_adds_the_same_noise_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf.config.run_functions_eagerly(True)
    try:
        drawn: list[tuple[int, bytes]] = []  # how many tensors in one draw, and the first of them
        draw = GaussianNoise.draw

        def noted_draw(self: GaussianNoise, *arguments: Any) -> list[tf.Tensor]:
            noise = draw(self, *arguments)
            drawn.append((len(noise), noise[0].numpy().tobytes()))
            return noise

        monkeypatch.setattr(GaussianNoise, "draw", noted_draw)
        with pytest.raises(_Cut):
            _train(name, tmp_path, cut_after=6)
        release = _train(name, tmp_path)
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(drawn) == len(set(drawn))  # neither noise nor the latents of examples are repeated
    of_weights = [draw for draw in drawn if draw[0] > 1]
    assert len(of_weights) == 6 + 2  # two of the second block were lost, and not made up for
    assert not (tmp_path / "backup").exists()
    ledger, rows = Ledger(tmp_path / "ledger.sqlite"), dataset_id(private_rows())
    assert ledger.reservations(rows) == 1
    assert ledger.spent(rows, BUDGET.delta) == pytest.approx(epsilon_of(release.event, BUDGET.delta))
    assert release.statement.steps == 10


@every_method
def test_all_that_a_training_changes_is_restored(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and with given draws, steps 0-3 and, resumed, 8-9 are what these six are in one go.

    That rows have decided against poses is known to the resumed training too.
    """

    def without_noise(self: GaussianNoise, shapes: Any, stddev: float) -> list[tf.Tensor]:
        return [tf.zeros(shape) for shape in shapes]

    def given(self: DPSGD, noise: Any = None, first_step: int = 0) -> Iterator[PoissonBatch]:
        for step in steps[steps.index(first_step) :]:
            yield PoissonBatch(np.arange(step, 200, 10, dtype=np.int32)[None], np.ones((1, 20), np.float32))

    monkeypatch.setattr(GaussianNoise, "draw", without_noise)
    monkeypatch.setattr(DPSGD, "physical_batch_size", 20)
    monkeypatch.setattr(DPSGD, "batches", given)
    released: list[str] = []

    def same_moments(self: ClassMoments, blocks: Any, num_features: int, num_classes: int, noise: Any) -> Moments:
        released.append(self.name)
        rng = np.random.default_rng(0)
        means, factors = (rng.normal(size=(num_classes, *[num_features] * rank)) / 8 for rank in (1, 2))
        return Moments(np.full(num_classes, 20.0), means, factors @ factors.transpose(0, 2, 1))

    def same_centres(self: ClassCentres, blocks: Any, num_features: int, num_classes: int, noise: Any) -> Centres:
        return Centres(np.zeros((num_classes, num_features)), 1.0)

    monkeypatch.setattr(ClassMoments, "release", same_moments)
    monkeypatch.setattr(ClassCentres, "release", same_centres)
    preset, asked = PRESETS[name], {"has_poses": None}
    of_preset = asked if name == "c_vae" else {"sketches": dataclasses.replace(preset.sketches, **asked)}
    monkeypatch.setitem(PRESETS, name, dataclasses.replace(preset, **of_preset))
    monkeypatch.setattr(moments, "_ROWS_TO_ASK", 0)
    monkeypatch.setattr(moments, "_ROWS_TO_COUNT", 0)
    monkeypatch.setattr(NoisyCounts, "release", lambda self, predicates, noise: np.array([0.0, 200.0]))
    steps = [0, 1, 2, 3, 8, 9]
    at_once = _train(name, tmp_path / "at_once")
    with pytest.raises(_Cut):
        _train(name, tmp_path / "cut", cut_after=4)
    before = len(released)
    resumed = _train(name, tmp_path / "cut")
    assert len(released) == before  # what was released once is not released again
    for one, other in zip(at_once.generator.get_weights(), resumed.generator.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@every_method
def test_another_plan_or_other_rows_are_refused_before_anything_is_spent(name: str, tmp_path: Path) -> None:
    with pytest.raises(_Cut):
        _train(name, tmp_path, cut_after=6)
    rows = private_rows()
    other_rows = rows.take(np.arange(199, -1, -1))
    for arguments, named in (
        ({"steps": 11}, "plan"),
        ({"budget": dataclasses.replace(BUDGET, epsilon=2.0)}, "plan"),
        ({"dataset": other_rows}, "rows"),
        ({"seed": 1}, "seed"),
    ):
        with pytest.raises(BackupError, match=f"another training: .*{named}.* differ"):
            _train(name, tmp_path, **arguments)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert (ledger.reservations(dataset_id(rows)), ledger.reservations(dataset_id(other_rows))) == (1, 0)
    assert _train(name, tmp_path).is_releasable


@every_method
def test_a_ledger_that_does_not_know_the_training_reserves_its_whole_cost(name: str, tmp_path: Path) -> None:
    with pytest.raises(_Cut):
        _train(name, tmp_path, cut_after=6)
    (tmp_path / "ledger.sqlite").unlink()
    _train(name, tmp_path)
    assert Ledger(tmp_path / "ledger.sqlite").reservations(dataset_id(private_rows())) == 1


@every_method
def test_a_checkpoint_holds_no_key_no_noise_and_no_private_count(name: str, tmp_path: Path) -> None:
    with pytest.raises(_Cut):
        _train(name, tmp_path, cut_after=6)
    (checkpoint,) = (tmp_path / "backup").iterdir()
    names = [name for name, _ in tf.train.list_variables(str(checkpoint / "state"))]
    assert any("optimizer" in name for name in names)
    for secret in ("noise", "key", "draw", "non_finite", "query"):
        assert not [name for name in names if secret in name.lower()]


def test_seeded_noise_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="insecure_reproducible"):
        _train("c_vae", tmp_path, insecure_reproducible=True)
    assert Ledger(tmp_path / "ledger.sqlite").reservations(dataset_id(private_rows())) == 0


def _kill_until_it_is_done(folder: Path, method: str, kills: int, steps: int, every: int, seed: int) -> list[str]:
    """Starts the training again and again, each time killed at a random moment; returns the log."""
    rng = random.Random(seed)
    command = [sys.executable, "-m", killable.__name__, str(folder), method, str(steps), str(every)]
    log, wanted, landed = folder / "log", kills, 0
    while True:
        before = log.read_text().count("step ") if log.exists() else 0
        process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
        if landed < wanted:
            goal = rng.randint(0, 2 * every)  # steps of this attempt, then a moment within a step or a save
            while process.poll() is None and (not log.exists() or log.read_text().count("step ") - before < goal):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.02) if goal else rng.uniform(0, 3))
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        if code == -signal.SIGKILL:
            landed += 1
            continue
        assert code == 0
        return log.read_text().splitlines()


def _check_log(folder: Path, lines: list[str], steps: int, kills: int, every: int) -> int:
    """Holds what a log of killed attempts has to show; returns how many steps were executed."""
    counts = Counter(lines)
    assert max(counts.values()) == 1  # no step and no key twice, over all attempts
    executed = [int(line.removeprefix("step ")) for line in lines if line.startswith("step ")]
    assert executed == sorted(executed)
    assert steps - kills * every <= len(executed) <= steps
    assert not (folder / "backup").exists()
    release = Release.load(folder / "release")
    assert release.is_releasable
    assert release.statement.steps == steps
    return len(executed)


@pytest.mark.parametrize("name", ["dp_gan"])
def test_killed_twice_it_goes_on_each_time(name: str, tmp_path: Path) -> None:
    lines = _kill_until_it_is_done(tmp_path, name, kills=2, steps=60, every=10, seed=0)
    _check_log(tmp_path, lines, 60, 2, 10)


@pytest.mark.slow
@every_method
def test_killed_twenty_times_at_random_moments(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _kill_until_it_is_done(tmp_path, name, kills=20, steps=400, every=10, seed=1)
    executed = _check_log(tmp_path, lines, 400, 20, 10)
    with capsys.disabled():
        print(f"\n{name}: killed 20 times, {executed} of 400 accounted steps executed, none twice")

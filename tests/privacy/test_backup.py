"""A backup restores the state, never a step, and only the training that it is of, wherever it was cut off."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tfdpgen import files
from tfdpgen.files import FolderInUseError
from tfdpgen.privacy import DPSGD, Backup, BackupError
from tfdpgen.privacy import backup as backup_module

_PLAN = DPSGD(100, 10, steps=20, l2_norm_clip=1.0, noise_multiplier=1.0)
_TRAINING = {"method": "c_vae", "rows": "d1ge57", "event": {"sigma": 0.1 + 0.2}}


class _Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it but what has to (the operating system drops locks too)."""


class _Attempt:
    """One process that trains: each step adds 1 to the state and notes its number; `kill_at` counts file operations."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int | None = None) -> None:
        self.executed: list[int] = []
        self.operations = 0
        self.has_run_all = False
        self.value = tf.Variable(0, dtype=tf.int64)
        self._folder, self._kill_at = folder, kill_at
        for module, name in (
            (os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "fchmod")
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.operations += 1
            if self.operations == self._kill_at:
                raise _Killed
            return operation(*args, **kwargs)

        return call

    def run(self, stop_after: int | None = None) -> None:
        with Backup(self._folder, every=6) as backup:
            backup.holds(_TRAINING)
            for step in range(backup.start(_PLAN, value=self.value), _PLAN.steps):
                self.executed.append(step)
                self.value.assign_add(1)
                backup.after_step(step + 1)
                if len(self.executed) == stop_after:
                    raise _Killed
            self.has_run_all = True


def _attempt(folder: Path, kill_at: int | None = None, stop_after: int | None = None) -> _Attempt:
    with pytest.MonkeyPatch.context() as monkeypatch:
        attempt = _Attempt(folder, monkeypatch, kill_at)
        with contextlib.suppress(_Killed):
            attempt.run(stop_after)
    return attempt


def test_without_an_interruption_every_step_runs_and_nothing_is_left(tmp_path: Path) -> None:
    attempt = _attempt(tmp_path / "backup")
    assert attempt.executed == list(range(20))
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 17, 18, 19, 20])
def test_a_resumed_training_goes_on_behind_the_claimed_block_with_the_saved_state(tmp_path: Path, steps: int) -> None:
    first = _attempt(tmp_path / "backup", stop_after=steps)
    saved, claimed = steps // 6 * 6, min(steps // 6 * 6 + 6, 20)
    if steps == 20:
        saved = 20
    second = _attempt(tmp_path / "backup")
    assert first.executed == list(range(steps))
    assert second.executed == list(range(claimed, 20))
    assert int(second.value) == saved + len(second.executed)
    assert not (tmp_path / "backup").exists()


def test_killed_at_any_file_operation_no_step_runs_twice_and_all_that_is_saved_is_restored(tmp_path: Path) -> None:
    operations = _attempt(tmp_path / "count").operations
    assert operations > 50
    for kill_at in range(1, operations + 1):
        folder = tmp_path / f"{kill_at}"
        executed: list[int] = []
        saved = 0
        for kill in (kill_at, kill_at // 2 + 3, None):
            attempt = _attempt(folder, kill_at=kill)
            executed += attempt.executed
            assert int(attempt.value) >= saved, kill_at
            saved = int(attempt.value) - 6  # what was saved by an attempt is there for the next
            if attempt.has_run_all:  # a kill while the finished backup is removed may leave nothing to go on with
                break
        assert executed == sorted(set(executed)), kill_at
        assert len(executed) >= 20 - 2 * 6
        _attempt(folder)
        assert not folder.exists()


def test_a_backup_of_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    before = {path.name for path in (tmp_path / "backup").iterdir()}
    for other in ({**_TRAINING, "rows": "0ther"}, {**_TRAINING, "event": {"sigma": 0.3}}, {"rows": "d1ge57"}):
        with pytest.raises(BackupError, match="another training") as refusal, Backup(tmp_path / "backup") as backup:
            backup.holds(other)
        assert "d1ge57" not in str(refusal.value)
        assert "0ther" not in str(refusal.value)
    assert {path.name for path in (tmp_path / "backup").iterdir()} == before
    assert _attempt(tmp_path / "backup").executed == list(range(12, 20))


def test_a_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    for state in ({"value": tf.Variable(0.5)}, {"other": tf.Variable(0)}, {"value": tf.Variable([0, 1])}):
        with pytest.raises(BackupError, match="does not hold the state"), Backup(tmp_path / "backup") as backup:
            backup.holds(_TRAINING) and backup.start(_PLAN, **state)


def test_a_damaged_backup_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    (facts,) = (tmp_path / "backup").glob("step-*/facts.json")
    facts.write_text(facts.read_text()[:-20])
    with pytest.raises(BackupError, match="cannot be read"), Backup(tmp_path / "backup") as backup:
        backup.holds(_TRAINING)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with Backup(tmp_path / "backup"), pytest.raises(FolderInUseError), Backup(tmp_path / "backup"):
        pass
    with pytest.raises(BackupError, match="inside its block"):
        Backup(tmp_path / "backup").holds(_TRAINING)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BackupError, match=r"thesis\.tex"), Backup(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(ValueError, match="`every`"):
        Backup(tmp_path, every=0)


def test_a_checkpoint_is_one_folder_with_the_plan_and_the_counters(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    (checkpoint,) = (tmp_path / "backup").iterdir()
    facts = json.loads((checkpoint / "facts.json").read_text())
    assert facts == {"training": _TRAINING, "reservation": None, "done": 6, "claimed": 12}
    assert tf.train.load_checkpoint(str(checkpoint / "state")).get_tensor("value/.ATTRIBUTES/VARIABLE_VALUE") == 6


def test_what_is_renamed_is_on_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may not leave a name without its content."""
    order: list[str] = []
    original = files.fsync

    def fsync(path: Path) -> None:
        order.append(path.name)
        original(path)

    monkeypatch.setattr(files, "fsync", fsync)
    monkeypatch.setattr(backup_module, "fsync", fsync)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: order.append(f"to {Path(to).name}") or rename(self, to))
    with Backup(tmp_path / "backup") as backup:
        backup.holds(_TRAINING)
        backup.start(_PLAN, value=tf.Variable(0))
    at = order.index("to step-0000000000")
    assert {"facts.json", "state.index", "state.data-00000-of-00001", ".step-0000000000"} <= set(order[:at])
    assert order[at + 1] == "backup"

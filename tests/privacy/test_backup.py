"""A backup repeats no mechanism and no step, wherever a training was killed, and goes on with that training alone."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen import files
from tfdpgen.files import FolderInUseError
from tfdpgen.privacy import Backup, BackupError
from tfdpgen.privacy import backup as backup_module

_STEPS = 20
_TRAINING = {"method": "c_vae", "examples": "d1ge57", "plan": {"noise_multiplier": 0.1 + 0.2}}
_OPERATIONS = ("fsync", "rename", "mkdir", "unlink", "rmdir", "chmod")


class _Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it but what has to (the operating system drops locks too)."""


class _Attempt:
    """One process that trains: a one-shot mechanism, then steps that each add 1 to the state.

    Args:
      folder: of the backup.
      kill_at: the number of the file operation that it is killed instead of.

    Attributes:
      reservation: what pays for all that it does.
      noised: whether it added noise in the one-shot mechanism.
      seen: the output that the method saw; empty if it came to none.
      executed: the numbers of the steps that it ran.
      operations: file operations.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int | None = None) -> None:
        self.reservation, self.noised, self.seen = "", False, b""
        self.executed: list[int] = []
        self.operations = 0
        self.is_refused = self.has_run_all = False
        self.value = tf.Variable(0, dtype=tf.int64)
        self._folder, self._kill_at = folder, kill_at
        for name in _OPERATIONS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.operations += 1
            if self.operations == self._kill_at:
                raise _Killed
            return operation(*args, **kwargs)

        return call

    def run(self, stop_after: int | None = None) -> None:
        with Backup(self._folder, every=6) as backup:
            if backup.holds(_TRAINING):
                self.reservation = str(backup.reservation)
            else:
                self.reservation = uuid.uuid4().hex
                backup.begin(_TRAINING, self.reservation)
            self.seen = self._output(backup).tobytes()
            steps = backup.steps("dp_sgd", _STEPS, {"value": self.value})
            for step in range(steps.first, _STEPS):
                self.executed.append(step)
                self.value.assign_add(1)
                steps.after_step(step + 1)
                if len(self.executed) == stop_after:
                    raise _Killed
            self.has_run_all = True

    def _output(self, backup: Backup) -> Any:
        try:
            output = backup.output("means")
        except BackupError:
            self.is_refused = True
            raise
        if output is None:
            backup.mark("means")
            self.noised, output = True, np.random.default_rng().normal(size=3)
            backup.keep("means", output)
        return output


def _attempt(folder: Path, kill_at: int | None = None, stop_after: int | None = None) -> _Attempt:
    with pytest.MonkeyPatch.context() as monkeypatch:
        attempt = _Attempt(folder, monkeypatch, kill_at)
        with contextlib.suppress(_Killed, BackupError):
            attempt.run(stop_after)
    return attempt


@contextlib.contextmanager
def _killed_at_the_end(backup: Backup) -> Iterator[None]:
    """The block of a process that is killed after what is in it."""
    with contextlib.suppress(_Killed), backup:
        yield
        raise _Killed


def _state(value: Any = 0) -> dict[str, tf.Variable]:
    return {"value": tf.Variable(value, dtype=tf.int64)}


def test_without_an_interruption_every_step_runs_and_nothing_is_left(tmp_path: Path) -> None:
    attempt = _attempt(tmp_path / "backup")
    assert attempt.executed == list(range(_STEPS))
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 17, 18, 19, 20])
def test_a_resumed_training_goes_on_behind_the_claimed_block_with_the_saved_state(tmp_path: Path, steps: int) -> None:
    first, second = _attempt(tmp_path / "backup", stop_after=steps), _attempt(tmp_path / "backup")
    saved = 20 if steps == 20 else steps // 6 * 6
    claimed = min(steps // 6 * 6 + 6, 20)
    assert first.executed == list(range(steps))
    assert second.executed == list(range(claimed, 20))
    assert int(second.value) == saved + len(second.executed)
    assert (second.reservation, second.seen) == (first.reservation, first.seen)
    assert not (tmp_path / "backup").exists()


def test_killed_at_any_file_operation_no_step_runs_twice_and_all_that_is_saved_is_restored(tmp_path: Path) -> None:
    operations = _attempt(tmp_path / "count").operations
    assert operations > 60
    refused = 0
    for kill_at in range(1, operations + 1):
        folder, attempts = tmp_path / f"{kill_at}", []
        for kill in (kill_at, kill_at // 2 + 3, None):
            attempts.append(_attempt(folder, kill_at=kill))
            if attempts[-1].has_run_all:  # a kill while the finished backup is removed may leave nothing to go on with
                break
        paid = {attempt.reservation for attempt in attempts if attempt.executed or attempt.noised}
        assert len(paid) <= 1, kill_at  # whoever paid before has died before the facts were written
        assert sum(attempt.noised for attempt in attempts) <= 1, kill_at
        assert len({attempt.seen for attempt in attempts if attempt.seen}) <= 1, kill_at
        executed = [step for attempt in attempts for step in attempt.executed]
        assert executed == sorted(set(executed)), kill_at
        saved = 0
        for attempt in attempts:
            assert not attempt.executed or int(attempt.value) >= saved, kill_at
            saved = max(saved, int(attempt.value) - 6)
        if attempts[-1].is_refused:
            refused += 1
            assert not executed  # killed between mark and output
            assert (folder / "begun-means").exists()
            continue
        assert len(executed) >= _STEPS - 2 * 6
        _attempt(folder)
        assert not folder.exists()
    assert 0 < refused < operations / 2


def test_a_kill_between_mark_and_output_refuses_the_training(tmp_path: Path) -> None:
    backup = Backup(tmp_path / "backup")
    with _killed_at_the_end(backup):
        backup.begin(_TRAINING, None)
        assert backup.output("means") is None
        backup.mark("means")
    for _ in range(2):
        with _killed_at_the_end(backup):
            assert backup.holds(_TRAINING)
            with pytest.raises(BackupError, match=r"'means'.*nobody has reserved"):
                backup.output("means")


def test_a_backup_of_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    before = sorted(path.name for path in (tmp_path / "backup").iterdir())
    for other in (
        {**_TRAINING, "examples": "0ther"},
        {**_TRAINING, "plan": {"noise_multiplier": 0.3}},
        {**_TRAINING, "users": "more"},
        {"examples": "d1ge57"},
    ):
        with pytest.raises(BackupError, match="another training") as refusal, Backup(tmp_path / "backup") as backup:
            backup.holds(other)
        assert "d1ge57" not in str(refusal.value)
        assert "0ther" not in str(refusal.value)
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == before
    assert _attempt(tmp_path / "backup").executed == list(range(12, 20))


def test_what_is_left_of_no_training_is_not_gone_on_with(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    files.remove(tmp_path / "backup" / "training")
    again = _attempt(tmp_path / "backup")
    assert again.noised
    assert again.executed == list(range(20))


def test_a_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    states: list[dict[str, Any]] = [
        {"value": tf.Variable(0.5)},
        {"other": tf.Variable(0)},
        {"value": tf.Variable(np.arange(2))},
    ]
    for state in states:
        with pytest.raises(BackupError, match="cannot be read"), Backup(tmp_path / "backup") as backup:
            backup.steps("dp_sgd", _STEPS, state)


@pytest.mark.parametrize("entry", ["training/facts.json", "output-means/array.npy", "step-*/facts.json"])
def test_a_damaged_backup_is_an_error_and_not_an_empty_one(tmp_path: Path, entry: str) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    (damaged,) = (tmp_path / "backup").glob(entry)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = _attempt(tmp_path / "backup")
    assert not again.noised
    assert not again.executed
    assert damaged.exists()


@pytest.mark.parametrize("entry", ["output-means", "step-*"])
def test_what_was_deleted_is_not_carried_out_again(tmp_path: Path, entry: str) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    (deleted,) = (tmp_path / "backup").glob(entry)
    files.remove(deleted)
    again = _attempt(tmp_path / "backup")
    assert not again.noised
    assert not again.executed


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with Backup(tmp_path / "backup"), pytest.raises(FolderInUseError), Backup(tmp_path / "backup"):
        pass


def test_a_second_session_in_the_same_block_takes_the_training_over(tmp_path: Path) -> None:
    with Backup(tmp_path / "backup", every=6) as backup:
        backup.begin(_TRAINING, None)
        first, second = (backup.steps("dp_sgd", _STEPS, _state()) for _ in range(2))
        assert (first.first, second.first) == (0, 6)
        with pytest.raises(BackupError, match="one session at a time"):
            first.after_step(6)
        second.after_step(12)
        backup.mark("means")
        with pytest.raises(BackupError, match="one session at a time"):
            backup.mark("means")


def test_nothing_is_kept_or_read_outside_the_block(tmp_path: Path) -> None:
    """Another process may hold the lock by then."""
    backup = Backup(tmp_path / "backup", every=6)
    with _killed_at_the_end(backup):
        backup.begin(_TRAINING, None)
        steps = backup.steps("dp_sgd", _STEPS, _state())
    calls: list[Callable[[], object]] = [
        lambda: backup.holds(_TRAINING),
        lambda: backup.begin(_TRAINING, None),
        lambda: backup.output("means"),
        lambda: backup.mark("means"),
        lambda: backup.keep("means", np.zeros(3)),
        lambda: backup.steps("dp_sgd", _STEPS, _state()),
        lambda: steps.after_step(6),
    ]
    for call in calls:
        with pytest.raises(BackupError, match="inside its block"):
            call()


@pytest.mark.parametrize("name", ["thesis.tex", "training_images", "steps", "output.csv", ".git"])
def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(BackupError, match=name), Backup(tmp_path):
        pass
    assert (tmp_path / name).exists()
    with Backup(tmp_path / "backup") as backup:  # nor does it keep the lock
        assert not backup.holds(_TRAINING)


def test_a_block_has_at_least_one_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`every`"):
        Backup(tmp_path, every=0)
    for total, block in ((10, 1), (200, 4)):
        with Backup(tmp_path / "backup") as backup:
            backup.steps("dp_sgd", total, _state())
            assert backup.steps("dp_sgd", total, _state()).first == block


def test_a_backup_is_its_owners_alone_and_holds_facts_outputs_and_one_checkpoint(tmp_path: Path) -> None:
    attempt, folder = _attempt(tmp_path / "backup", stop_after=7), tmp_path / "backup"
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {"training", "begun-means", "output-means", "begun-dp_sgd", "step-dp_sgd-0000000006"}
    assert {path.name for path in folder.iterdir()} == names
    facts = json.loads((folder / "training" / "facts.json").read_text())
    assert facts == {"training": _TRAINING, "reservation": attempt.reservation}
    assert np.load(folder / "output-means" / "array.npy").tobytes() == attempt.seen
    checkpoint = folder / "step-dp_sgd-0000000006"
    assert json.loads((checkpoint / "facts.json").read_text()) == {"done": 6, "claimed": 12}
    assert tf.train.load_checkpoint(str(checkpoint / "state")).get_tensor("value/.ATTRIBUTES/VARIABLE_VALUE") == 6


def test_mechanisms_have_progress_of_their_own(tmp_path: Path) -> None:
    with Backup(tmp_path / "backup", every=6) as backup:
        backup.keep("shards.0.means", np.arange(3))
        backup.keep("shards.1.means", np.arange(3) + 1)
        assert backup.output("shards.2.means") is None
        np.testing.assert_array_equal(backup.output("shards.1.means"), [1, 2, 3])
        backup.steps("dp", _STEPS, _state(1)).after_step(6)
        assert backup.steps("dp_sgd", _STEPS, _state(2)).first == 0
        state = _state()
        assert backup.steps("dp", _STEPS, state).first == 12
        assert int(state["value"]) == 1


def test_the_reservation_of_a_kept_training_can_be_replaced(tmp_path: Path) -> None:
    _attempt(tmp_path / "backup", stop_after=7)
    backup = Backup(tmp_path / "backup")
    with _killed_at_the_end(backup):
        assert backup.holds(_TRAINING)
        backup.begin(_TRAINING, "another")
    again = _attempt(tmp_path / "backup")
    assert again.reservation == "another"
    assert again.executed == list(range(12, 20))


def _order_of(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are synced ("backup"), renamed to ("to training") and removed ("less training"), in order."""
    order: list[str] = []
    fsync, rename, remove = files.fsync, Path.rename, files.remove
    with monkeypatch.context() as patch:
        for module in (files, backup_module):
            patch.setattr(module, "fsync", lambda path: order.append(path.name) or fsync(path))
        patch.setattr(backup_module, "remove", lambda path: order.append(f"less {path.name}") or remove(path))
        patch.setattr(Path, "rename", lambda self, to: order.append(f"to {Path(to).name}") or rename(self, to))
        run()
    return order


def test_what_is_renamed_is_on_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may not leave a name without its content."""
    order = _order_of(lambda: _attempt(tmp_path / "backup", stop_after=1), monkeypatch)
    contents = {
        "training": {"facts.json", ".training"},
        "begun-means": {".begun-means"},
        "output-means": {"array.npy", ".output-means"},
        "step-dp_sgd-0000000000": {"facts.json", "state.index", "state.data-00000-of-00001", ".step-dp_sgd-0000000000"},
        "begun-dp_sgd": {".begun-dp_sgd"},
    }
    begin = 0
    for name, parts in contents.items():
        at = order.index(f"to {name}")
        assert parts <= set(order[begin:at])
        assert order[at + 1] == "backup"
        begin = at


def test_the_end_of_a_training_is_on_disk_before_its_progress_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave a training that has paid, and looks as if nothing had run."""
    order = _order_of(lambda: _attempt(tmp_path / "backup"), monkeypatch)
    assert order[-4:] == ["to .training", "backup", "less .training", "less backup"]

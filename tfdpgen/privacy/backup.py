"""Backup: a private training that was killed goes on; no mechanism is carried out twice, and no step repeated.

    with Backup("backup/") as backup:                            # locked; deleted when the block ends well
        release = train("c_vae", dataset, budget, ledger=ledger, backup=backup)
        release.save("release/")

The same lines start a training, and go on with it after a crash or a `kill -9`, as Keras's `BackupAndRestore` does for
`fit`. What is different is that everything is accounted:

**Outputs.** The noised sum of a one-shot mechanism is durable before any method sees it, and a resumed training reads
it from here. A mark is durable before noise is added: a kill between the two leaves a mechanism that may have been
carried out and whose output is lost, and the training is refused rather than carried out again.

**Claims.** Steps of DP-SGD are executed in blocks. A checkpoint holds the state after `done` steps and says how many
are `claimed`: the end of the block that follows. It is durable before the first step of that block samples an example,
and a resumed training goes on behind what was claimed. So every accounted step is executed once at most; a kill wastes
the rest of a block, and never repeats a step that an observer of the first attempt may have seen with other noise.

**Atomic.** Each output and each checkpoint is one folder, synced to disk under another name and then renamed. There is
no moment at which a half-written one can be read. What is there is never written a second time, and where an entry is
missing that must have been there, the backup is damaged, not empty.

**Its own.** The facts are the plan with its noise, the method, its settings and seed, and the digest of the examples. A
backup of anything else is refused.

**No noise.** Neither the keys of the noise and of the Poisson samples nor their positions are saved: a resumed training
has fresh ones from the operating system, so that nothing that was added to a saved result can be added to another.

What no file can hold: someone who copies the folder and resumes both copies has run two trainings and has to account
for both. What a backup holds are outputs of private mechanisms, but its facts hold a digest of the examples: it stays
inside the trust boundary.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.files import FolderInUseError, folder_lock, fsync, fsync_tree, remove

_TRAINING, _OUTPUT, _MARK, _STEP = "training", "output", "begun", "step"  # kinds of entries; names are kind-key-number
_ENTRY = re.compile(rf"\.?({_TRAINING}|({_OUTPUT}|{_MARK})-[\w.]+|{_STEP}-[\w.]+-\d{{10}})")
_FACTS, _STATE, _ARRAY = "facts.json", "state", "array.npy"
_BLOCKS = 50  # of a training, unless `every` says otherwise: a kill wastes 2 % of the steps at most


class BackupError(ValueError):
    """A backup is of another training, is damaged, or is used outside its `with` block."""


class Backup:
    """A folder that keeps the progress of one training; see the top of this file.

    Args:
      directory: made if there is none. It is removed when the `with` block ends without an exception.
      every: steps in a block; by default a fiftieth of a mechanism's, at least 1.

    Attributes:
      reservation: what the ledger called the reservation of the training that is kept; None without a ledger.

    Raises:
      ValueError: if `every` is out of range.
      BackupError: by `with`, if the folder holds anything else.
      FolderInUseError: by `with`, if a living process is using the folder.
    """

    def __init__(self, directory: str | os.PathLike[str], *, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"`every` should be at least 1; got {every!r}.")
        self.reservation: str | None = None
        self._folder = Path(directory).expanduser().absolute()
        self._every = every
        self._lock = contextlib.ExitStack()
        self._open = False

    @classmethod
    def of_finished(cls, directory: str | os.PathLike[str], reservation: str) -> None:
        """Removes what a kill has left of a training whose outputs are there, and nothing else.

        Args:
          directory: of a backup; nothing happens where there is none, or a living process is using it.
          reservation: of the training.
        """
        facts = Path(directory).expanduser() / _TRAINING / _FACTS
        try:
            if facts.exists() and json.loads(facts.read_text())["reservation"] == reservation:
                with cls(directory):
                    pass
        except (OSError, ValueError, KeyError, TypeError, BackupError, FolderInUseError):
            return

    def __enter__(self) -> Self:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(folder_lock(self._folder))
        names = sorted(path.name for path in self._folder.iterdir())
        if strangers := [name for name in names if not _ENTRY.fullmatch(name)]:
            self._lock.close()
            raise BackupError(
                f"{self._folder} should be a folder for a backup alone, since it is removed at the end; it holds "
                f"{strangers[0]!r}. Name another one."
            )
        self._folder.chmod(0o700)
        for name in names:  # what a kill left behind
            if name.startswith("."):
                remove(self._folder / name)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if kind is None:
            facts = self._folder / _TRAINING
            if facts.exists():  # first, under a name that is none of a training: the rest is then of nothing
                hidden = facts.rename(self._hidden(facts))
                fsync(self._folder)  # or a power cut could leave the facts, and steps that look as if none had run
                remove(hidden)
            remove(self._folder)
        self._open = False
        self._lock.close()

    def holds(self, training: Mapping[str, Any]) -> bool:
        """Whether there is progress of this very training.

        Args:
          training: JSON-ready facts that make a training what it is.

        Raises:
          BackupError: if there is progress of another training, or it cannot be read.
        """
        self._check_open()
        folder = self._folder / _TRAINING
        if not folder.exists():
            for leftover in self._folder.iterdir():
                remove(leftover)
            return False
        asked = json.loads(json.dumps(training))
        try:
            facts = json.loads((folder / _FACTS).read_text())
            kept, self.reservation = facts["training"], facts["reservation"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(folder, error) from error
        names = [name for name in {**kept, **asked} if kept.get(name) != asked.get(name)]
        if names:  # by name alone: the examples' digest is private
            raise BackupError(
                f"{self._folder} keeps the progress of another training: {', '.join(sorted(names))} differ. Finish "
                "that one with its own settings and examples, or delete the folder to give it up (what it has reserved "
                "stays spent; where its outputs are there, nothing is lost), or name another folder."
            )
        return True

    def begin(self, training: Mapping[str, Any], reservation: str | None) -> None:
        """Writes down, durably, which training this is, before its first access to an example.

        Of the training that is kept, it writes down another reservation.
        """
        self._check_open()
        self.reservation = reservation
        text = json.dumps({"training": dict(training), "reservation": reservation}, indent=2) + "\n"
        kept = self._folder / _TRAINING / _FACTS
        if not kept.exists():
            self._publish(_TRAINING, lambda part: (part / _FACTS).write_text(text))
            return
        part = self._hidden(kept)
        part.write_text(text)
        fsync(part)
        part.rename(kept)
        fsync(kept.parent)

    def output(self, key: str) -> npt.NDArray[Any] | None:
        """What `keep` has kept of a mechanism; None if it was not carried out.

        Raises:
          BackupError: if it may have been carried out and its output is lost, or cannot be read.
        """
        self._check_open()
        folder = self._folder / f"{_OUTPUT}-{key}"
        if folder.exists():
            try:
                return np.load(folder / _ARRAY, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise self._damaged(folder, error) from error
        if self.is_marked(key):
            raise BackupError(
                f"The training was killed while noise was added in {key!r}, or its output was deleted: it may have "
                f"been carried out, and doing it again would cost what nobody has reserved. Delete {self._folder} to "
                "start anew; what was reserved stays spent."
            )
        return None

    def mark(self, key: str) -> None:
        """Writes down, durably, that noise is about to be added in a mechanism, or that its first steps may run."""
        self._publish(f"{_MARK}-{key}", lambda part: None)

    def is_marked(self, key: str) -> bool:
        """Whether `mark` was called for it."""
        return (self._folder / f"{_MARK}-{key}").exists()

    def keep(self, key: str, output: npt.NDArray[Any]) -> None:
        """Keeps the noised output of a one-shot mechanism."""
        self._publish(f"{_OUTPUT}-{key}", lambda part: np.save(part / _ARRAY, output, allow_pickle=False))

    def steps(self, key: str, total: int, state: Mapping[str, Any]) -> StepBackup:
        """What keeps the steps of one DP-SGD mechanism; restores `state` if some were executed before."""
        return StepBackup(self, key, total, state)

    def _publish(self, name: str, write: Callable[[Path], object]) -> Path:
        """Makes a folder that is durable and complete as soon as it has this name.

        Raises:
          BackupError: if there is one already: somebody else goes on with the same training.
        """
        self._check_open()
        target = self._folder / name
        if target.exists():
            raise self._taken(target)
        part = self._hidden(target)
        remove(part)  # what a full disk left behind
        part.mkdir()
        write(part)
        fsync_tree(part)
        part.rename(target)
        fsync(self._folder)
        return target

    def _check_open(self) -> None:
        if not self._open:  # without the lock another process may go on with the same training
            raise BackupError("`backup` should be used inside its block: `with Backup(directory) as backup: ...`.")

    @staticmethod
    def _hidden(entry: Path) -> Path:
        """The name of an entry that is not complete yet, or no longer."""
        return entry.with_name(f".{entry.name}")

    def _damaged(self, entry: Path, error: Exception) -> BackupError:
        return BackupError(
            f"{entry} cannot be read ({type(error).__name__}); it may be damaged, or of another version. Delete "
            f"{self._folder} to start anew; what the training has reserved stays spent."
        )

    def _taken(self, entry: Path) -> BackupError:
        return BackupError(
            f"Another session has gone on with the training that {self._folder} keeps: {entry.name} is not as this one "
            "left it. A training goes on in one session at a time."
        )


class StepBackup:
    """The progress of one DP-SGD mechanism; from `Backup.steps`.

    Args:
      backup: whose folder it is.
      key: of the mechanism.
      total: its steps.
      state: everything that the steps change, as TensorFlow trackables with their variables made. No `NoiseSource` and
        nothing that counts private examples.

    Attributes:
      first: the number of the first step to execute: 0, or what was claimed before; at most `total`.

    Raises:
      BackupError: if the checkpoint does not fit the state.
    """

    def __init__(self, backup: Backup, key: str, total: int, state: Mapping[str, Any]) -> None:
        self._backup, self._key, self._total = backup, key, total
        self._checkpoint: Any = tf.train.Checkpoint(**state)
        found = sorted(backup._folder.glob(f"{_STEP}-{key}-*"))
        self._kept = found[-1] if found else None
        for older in found[:-1]:
            remove(older)
        self.first = self._claimed = 0
        backup._check_open()
        if self._kept is None:
            backup.output(key)  # an error where a mark says that there were steps
        else:
            try:
                self._claimed = int(json.loads((self._kept / _FACTS).read_text())["claimed"])
                self._checkpoint.read(str(self._kept / _STATE)).assert_consumed()
            except (OSError, AssertionError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
                raise backup._damaged(self._kept, error) from error
            self.first = self._claimed
        if self.first < total:
            self._save(self.first)
        if not backup.is_marked(key):
            backup.mark(key)

    def after_step(self, done: int) -> None:
        """Saves the state and claims the next block, where `done` steps are the end of one.

        Args:
          done: steps that are executed or given up, this one included.
        """
        if done >= self._claimed:
            self._save(done)

    def _save(self, done: int) -> None:
        """Makes the state after `done` steps, and the claim on the block that follows, the newest checkpoint."""
        if self._kept is not None and not self._kept.exists():
            raise self._backup._taken(self._kept)
        block = self._backup._every or max(1, self._total // _BLOCKS)
        claimed = min(done + block, self._total)

        def write(part: Path) -> None:
            self._checkpoint.write(str(part / _STATE))
            (part / _FACTS).write_text(json.dumps({"done": done, "claimed": claimed}) + "\n")

        target = self._backup._publish(f"{_STEP}-{self._key}-{done:010d}", write)
        if self._kept is not None and self._kept != target:
            remove(self._kept.rename(self._backup._hidden(self._kept)))
        self._kept, self._claimed = target, claimed

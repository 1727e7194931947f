"""Backup: a private training that was killed goes on, and no step of it is ever executed twice.

    with Backup("backup/") as backup:                            # locked; deleted when the block ends well
        release = train("dp_gan", dataset, budget, ledger=ledger, backup=backup)
        release.save("release/")

The same lines start a training, and go on with it after a crash or a `kill -9`, as Keras's `BackupAndRestore` does for
`fit`. What is different is that steps are accounted:

**Claims.** Steps are executed in blocks. A checkpoint holds the state after `done` steps and says how many are
`claimed`: the end of the block that follows. It is durable before the first step of that block draws a row, and a
resumed training goes on behind what was claimed. So every accounted step is executed once at most; a kill wastes the
rest of a block, and never repeats a step that an observer of the first attempt may have seen with other noise.

**Atomic.** State, step counters and the facts of the training are one folder, synced to disk under another name and
then renamed. There is no moment at which a half-written checkpoint can be read.

**Its own.** The facts are the plan with its noise, everything that runs beside it, the method, its preset and seed, and
the digest of the rows. A checkpoint of anything else is refused.

**No noise.** Neither the keys of the noise and of the draws nor their positions are saved: a resumed training has fresh
ones from the operating system, so that nothing that was added to a saved result can be added to another.

What no file can hold: someone who copies the folder and resumes both copies has run two trainings and has to account
for both. The weights in a backup are outputs of the private mechanism, but its facts hold a digest of the rows: it
stays inside the trust boundary.
"""

from __future__ import annotations

import contextlib
import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tensorflow as tf

from tfdpgen.files import folder_lock, fsync, fsync_tree, remove
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD

_FACTS, _STATE = "facts.json", "state"
_BLOCKS = 50  # of a training, unless `every` says otherwise: a kill wastes 2 % of the steps at most


class BackupError(ValueError):
    """A backup is of another training, is damaged, or is used outside its `with` block."""


class Backup:
    """A folder that keeps the progress of one training; see the top of this file.

    Args:
      directory: made if there is none. It is removed when the `with` block ends without an exception.
      every: steps in a block; by default a fiftieth of the plan's, at least 1.

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
        self._training: dict[str, Any] = {}
        self._kept: Path | None = None  # the newest checkpoint
        self._claimed = self._steps = 0
        self._checkpoint: Any = None

    def __enter__(self) -> Self:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(folder_lock(self._folder))
        names = sorted(path.name for path in self._folder.iterdir())
        if strangers := [name for name in names if not name.removeprefix(".").startswith("step-")]:
            self._lock.close()
            raise BackupError(
                f"{self._folder} should be a folder for a backup alone, since it is removed at the end; it holds "
                f"{strangers[0]!r}. Name another one."
            )
        self._folder.chmod(0o700)
        checkpoints = [self._folder / name for name in names if name.startswith("step-")]
        self._kept = checkpoints[-1] if checkpoints else None
        for leftover in (self._folder / name for name in names):  # what a kill left behind
            if leftover != self._kept:
                remove(leftover)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if kind is None:
            if self._kept is not None:  # under a name that is no checkpoint's, before parts of it are gone
                remove(self._kept.rename(self._hidden(self._kept)))
            remove(self._folder)
        self._open = False
        self._lock.close()

    def holds(self, training: Mapping[str, Any]) -> bool:
        """Whether there is progress of this very training, which `start` will then go on with.

        Args:
          training: JSON-ready facts that make a training what it is.

        Raises:
          BackupError: if there is progress of another training, or it cannot be read.
        """
        if not self._open:
            raise BackupError("`backup` should be used inside its block: `with Backup(directory) as backup: ...`.")
        self._training = json.loads(json.dumps(training))
        if self._kept is None:
            return False
        try:
            facts = json.loads((self._kept / _FACTS).read_text())
            kept, self.reservation = facts["training"], facts["reservation"]
            self._claimed = int(facts["claimed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(
                f"{self._kept} should be a checkpoint of a training; it cannot be read ({error!r}). Delete "
                f"{self._folder} to start anew; what the training has reserved stays spent."
            ) from error
        names = [name for name in {**kept, **self._training} if kept.get(name) != self._training.get(name)]
        if names:  # by name alone: the rows' digest is private
            raise BackupError(
                f"{self._folder} keeps the progress of another training: {', '.join(sorted(names))} differ. Finish "
                "that one with its own settings and rows, or delete the folder to give it up (what it has reserved "
                "stays spent), or name another folder."
            )
        return True

    def start(self, plan: DPSGD, **state: Any) -> int:
        """Restores the state, if there is any, and claims the first block of steps.

        Args:
          plan: whose steps are counted.
          **state: everything that the steps change, as TensorFlow trackables with their variables made. No
            `NoiseSource` and nothing that counts rows.

        Returns:
          The number of the first step to execute: 0, or what was claimed before; at most `plan.steps`.

        Raises:
          BackupError: if the checkpoint does not fit the state.
        """
        self._steps = plan.steps
        self._checkpoint = tf.train.Checkpoint(**state)
        first = 0
        if self._kept is not None:
            try:
                self._checkpoint.read(str(self._kept / _STATE)).assert_consumed()
            except (AssertionError, ValueError, tf.errors.OpError) as error:
                raise BackupError(
                    f"{self._kept} does not hold the state of these networks; it may be damaged, or of another version "
                    f"({type(error).__name__}). Delete {self._folder} to start anew; what was reserved stays spent."
                ) from error
            first = self._claimed
        if first < plan.steps:
            self._save(first)
        return first

    def after_step(self, done: int) -> None:
        """Saves the state and claims the next block, where `done` steps are the end of one.

        Args:
          done: steps of the plan that are executed or given up, this one included.
        """
        if done >= self._claimed:
            self._save(done)

    def _save(self, done: int) -> None:
        """Makes the state after `done` steps, and the claim on the block that follows, the newest checkpoint."""
        block = self._every or max(1, self._steps // _BLOCKS)
        claimed = min(done + block, self._steps)
        target = self._folder / f"step-{done:010d}"
        part = self._hidden(target)
        part.mkdir()
        self._checkpoint.write(str(part / _STATE))
        facts = {"training": self._training, "reservation": self.reservation, "done": done, "claimed": claimed}
        (part / _FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        fsync_tree(part)
        part.rename(target)
        fsync(self._folder)
        if self._kept is not None:
            remove(self._kept)
        self._kept, self._claimed = target, claimed

    @staticmethod
    def _hidden(checkpoint: Path) -> Path:
        """The name of a checkpoint that is not complete yet, or no longer."""
        return checkpoint.with_name(f".{checkpoint.name}")

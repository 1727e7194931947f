"""Folders that one process writes at a time, and that are finished or not there, also after a SIGKILL or a power cut.

with folder_lock(part):                  # a second process gets FolderInUseError; the lock goes with its owner
    ...                                  # write into it
    fsync_tree(part)
    replace(part, path, old)             # from here on `path` is finished

The lock is a flock on the folder itself: filelock needs a file, and leaves it in the finished folder or beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class FolderInUseError(ValueError):
    """A living process is writing the same folder."""


@contextlib.contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Creates the folder and holds the lock on it; the lock goes with the folder when that is renamed.

    Raises:
      FolderInUseError: if a living process holds it.
    """
    while True:
        path.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # its last holder has just finished
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        except BlockingIOError:
            raise FolderInUseError(f"{path} is being written by another process; wait for it or stop it.") from None
        finally:
            os.close(descriptor)


def replace(source: Path, path: Path, old: Path) -> None:
    """Renames `source` to `path`. What was there goes by way of `old`, as a full folder cannot be overwritten."""
    remove(old)
    if path.exists():
        path.rename(old)
    source.rename(path)
    fsync(path.parent)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """`fsync` on a folder and all that is in it."""
    for path in (*folder.rglob("*"), folder):
        fsync(path)

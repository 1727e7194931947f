"""What this machine has left, and who uses it: the memory that a process may still take, the most that code took.

    available_memory()                      # bytes, or None where the operating system does not say
    with PeakMemory() as peak:
        ...
    peak.bytes                              # the most that this process held meanwhile

The limit of a container or a batch system is a control group's, which `free` and `/proc/meminfo` know nothing of, so
both are read and the smaller one counts (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files).
"""

from __future__ import annotations

import getpass
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_INTERVAL = 0.01  # seconds between two looks at a process's memory
_NO_LIMIT = 2**60  # bytes: version 1 of control groups writes a number like this where there is no limit


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process can still take before the system or its control group refuses them.

    Args:
      proc: where the kernel tells about processes.
      cgroups: where it tells about control groups.

    Returns:
      The smallest of what `MemAvailable` and the control groups above this process leave, or None where neither is
      known.
    """
    left = [*_left_in_system(proc), *_left_in_cgroups(proc, cgroups)]
    return min(left) if left else None


def memory_in_use() -> int:
    """Bytes of memory that this process holds now; on systems without /proc, the most that it has held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


class PeakMemory:
    """Context manager: the most memory that this process held inside the block.

    `resource.getrusage` gives the peak since the process began, in which an earlier and larger step hides a later one;
    so a thread looks every hundredth of a second. What comes and goes faster than that is missed.

    Attributes:
      bytes: the peak; complete when the block has ended.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        """Looks until the block has ended, and once after it."""
        while True:
            has_ended = self._ended.wait(_INTERVAL)
            self.bytes = max(self.bytes, memory_in_use())
            if has_ended:
                return


def _left_in_system(proc: Path) -> Iterator[int]:
    """What the whole system has left."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _left_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each control group of this process has left, from its own up to the root, in version 1 or 2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    own_v2 = next((path for number, _, path in groups if number == "0"), "/")
    own_v1 = next((path for _, names, path in groups if "memory" in names.split(",")), "/")
    for root, own, limit, usage, idle in (
        (cgroups, own_v2, "memory.max", "memory.current", "inactive_file"),
        (cgroups / "memory", own_v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        folder = root / own.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            most, used = _number(group / limit), _number(group / usage)
            if most is not None and used is not None and most < _NO_LIMIT:
                yield max(0, most - used + _cached(group / "memory.stat", idle))


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file or it says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cached(path: Path, name: str) -> int:
    """Bytes of files that a control group keeps in memory only as long as nobody else needs it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def user_name() -> str:
    """The user who runs this process; by number where the machine has no name for it, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}"

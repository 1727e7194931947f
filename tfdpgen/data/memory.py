"""Whether images fit into memory, asked before memory is.

check_fits(n * 224 * 224 * 3, "photos/", "`--resize` and a smaller `--image_shape`")
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from tfdpgen.data.dataset import DataError

_COPIES = 2  # the examples as they are read, and their splits


def check_fits(size: int, where: str | os.PathLike[str], remedy: str) -> None:
    """Refuses what memory cannot hold.

    Args:
      size: of the images in bytes, one a value.
      where: what an error calls the source.
      remedy: what would make them smaller.

    Raises:
      DataError: if `size`, twice, is more than is available.
    """
    available = available_memory()
    if _COPIES * size > available:
        raise DataError(
            f"{where}: the images should fit into memory; they are {in_words(size)} as bytes, which are needed "
            f"{_COPIES} times while they are split, and {in_words(available)} are available. Give {remedy}."
        )


def available_memory() -> int:
    """Bytes that this process may still ask for: what the machine has left, or its control group if that is less."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(counts["inactive_file"]))  # the page cache gives way
    except (OSError, ValueError, KeyError):
        pass  # no control group, or none with a limit
    return max(free, 0)


def in_words(size: int) -> str:
    """A number of bytes as people say it."""
    value, units = float(size), ["bytes", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:,.0f} {units[0]}" if value >= 100 else f"{value:.3g} {units[0]}"

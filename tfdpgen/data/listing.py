"""A list of image files, with a label and perhaps a user and a split each: what a folder and a table both become.

    listing = list_folder("photos/", declared)          # or read_table("labels.csv", declared)
    listing.files[0], listing.labels[0], listing.splits, listing.users

A split is "train", "val" or "test", under the names that people give them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_SHOWN = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Image files and what is known about each.

    Attributes:
      where: what errors call the source.
      files: n paths.
      labels: int64 [n] in [0, num_classes).
      num_classes: how many classes are declared.
      class_names: one a class, or empty.
      splits: n names of splits, or None where the source has none.
      users: int64 [n], or None where the source names no users.
    """

    where: Path
    files: Sequence[str]
    labels: npt.NDArray[np.int64]
    num_classes: int
    class_names: tuple[str, ...]
    splits: Sequence[str] | None = None
    users: npt.NDArray[np.int64] | None = None


def numbered(users: Sequence[object]) -> npt.NDArray[np.int64]:
    """Users numbered in the order in which they first appear, int64 [n]."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64)


def refuse_all(where: Path, problems: Sequence[str], total: int, what: str) -> None:
    """Raises one `DataError` that lists the first ten problems, how many there are, and what to do; none is fine.

    Args:
      where: the source.
      problems: of each a sentence that says what is wrong, and perhaps more that say what to do.
      total: how many could have had one.
      what: what they are, in the plural.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise DataError(problems[0])
    parts = [problem.partition(". ") for problem in problems[:_SHOWN]]  # what is wrong, and what to do about it
    lines = [f"  {what.rstrip('.')};" for what, _, _ in parts]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN:,} more.")
    else:
        lines[-1] = f"{lines[-1][:-1]}."
    remedies = dict.fromkeys(remedy for _, _, remedy in parts if remedy)
    raise DataError("\n".join([f"{where}: {len(problems):,} of {total:,} {what} cannot be used:", *lines, *remedies]))

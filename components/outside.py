"""What steps read beside their artifacts, known without reading it: whether it has changed since.

    files_of("scans/", data_dir="")            # [[path, bytes, times of change], ...]; other facts once a file changes

A file is told by its path, size and times of change, as `make` and rsync do. What cannot be listed counts as changed
each time.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

_TABLES = (".csv", ".tsv", ".parquet")
_DEEPEST = 5  # folders in folders that are looked into; sources have three
_MADE = ("strokes", "fonts", "dead_leaves", "digits")  # sources without files of the user's


def files_of(source: str, *, data_dir: str = "", user_column: str = "user") -> Any:
    """The files of a data set as `--dataset` and `--public_dataset` name it.

    Args:
      source: a folder, a table, an .npz, the name of a TFDS data set, or what is made without files.
      data_dir: where TFDS data sets are.
      user_column: of a table.
    """
    if not source or source.partition(":")[0] in _MADE:
        return source
    path = Path(os.path.expanduser(source))
    try:
        if path.suffix.lower() in _TABLES and path.is_file():
            return [_file(path), *(_file(Path(name)) for name in _named_in(path, user_column))]
        if not path.exists():
            folder = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
            path = Path(folder) / source.partition(":")[0].partition("/")[0]
        return tree(path)
    except (OSError, ValueError):
        return uuid.uuid4().hex


def tree(path: Path) -> Any:
    """A file, or all files in a folder; None where there is neither."""
    if path.is_file():
        return [_file(path)]
    if not path.is_dir():
        return None
    found: list[str] = []
    for folder, folders, names in os.walk(path, followlinks=True):
        found += (os.path.join(folder, name) for name in names)
        if len(Path(folder).relative_to(path).parts) >= _DEEPEST:  # links may lead in circles
            folders.clear()
    return [_file(Path(name)) for name in sorted(found)]


def _file(path: Path) -> list[Any]:
    """A file by its name, size and times of change."""
    status = path.stat()
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _named_in(table: Path, user_column: str) -> list[str]:
    """The files that a table names.

    Raises:
      DataError: if it cannot be read without knowing more.
    """
    from tfdpgen.data.declared import Declared
    from tfdpgen.data.tables import read_table

    return list(read_table(table, Declared(), user_column)[0].files)

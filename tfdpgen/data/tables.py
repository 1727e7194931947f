"""A table of image files, as CSV or Parquet -> a list of files.

    file,label,user,split               read_table("labels.csv", Declared(classes=("cat", "dog")))
    a/1.jpg,cat,ann,train
    a/2.jpg,dog,bob,test

The columns `file` and `label` are needed; `user` and `split` (train, val, test) may be there. Others are not read, and
a line names them: who calls the column `patient` would else have one patient in train and test without knowing.
Files lie relative to the table. Labels are integers from 0 with `num_classes`, or words with `classes`, which declares
their order: the set of words in the column is private and never collected.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdpgen.data.dataset import DataError
from tfdpgen.data.declared import Declared
from tfdpgen.data.labels import to_labels
from tfdpgen.data.listing import SPLITS, Listing, numbered, refuse_all
from tfdpgen.data.memory import available_memory, in_words

SUFFIXES = (".csv", ".tsv", ".parquet")
_BYTES_OF_ROW = 500  # of a path, a label and a user as Python objects
_SHOWN = 10  # columns that a line names
_NEEDED, _OPTIONAL = ("file", "label"), ("user", "split")


def read_table(path: str | os.PathLike[str], declared: Declared, user_column: str = "user") -> tuple[Listing, str]:
    """The image files that a table names, in its order, and a line about columns that are not read, or "".

    Args:
      path: of a .csv (or .tsv; the separator is a comma, a semicolon or a tab) or a .parquet.
      declared: `num_classes` or `classes`.
      user_column: what the column that says whose an example is is called.

    Raises:
      DataError: if the table is damaged, lacks a column or a value, names a file twice, or a label is not declared.
    """
    where = Path(path)
    if not where.is_file():
        raise DataError(f"{where}: there is no such file; give the path of a table with the columns file and label.")
    read = _parquet if where.suffix.lower() == ".parquet" else _csv
    columns, first_line, header = read(where, user_column.lower())
    _check_complete(where, columns, first_line)
    num_classes = declared.fact("num_classes", None, where)  # before a label is looked at
    words = columns["label"]
    labels = np.array([str(word) if isinstance(word, str) else word for word in words])
    if labels.dtype.kind not in "buifU":
        raise DataError(f"{where}: `label` should be words or integers; got {type(words[0]).__name__}.")
    splits = None
    if "split" in columns:
        unknown = [
            f"{where}: `split` should be one of {', '.join(SPLITS)}; row {first_line + i} has {split!r}."
            for i, split in enumerate(columns["split"])
            if str(split).strip().lower() not in SPLITS
        ]
        refuse_all(where, unknown, len(words), "rows")
        splits = [SPLITS[str(split).strip().lower()] for split in columns["split"]]
    listing = Listing(
        where,
        [os.path.join(where.parent, file) for file in columns["file"]],
        to_labels(labels, declared, where),
        num_classes,
        declared.classes,
        splits,
        numbered(columns["user"]) if "user" in columns else None,
    )
    return listing, _unread(where, header, columns, user_column)


def _unread(where: Path, header: Sequence[str], columns: Mapping[str, Any], user_column: str) -> str:
    """A line that names the columns that are not read; empty where all are."""
    unread = [name[:40] for name in header if name.lower() not in (*columns, user_column.lower())]
    if not unread:
        return ""
    shown = ", ".join(unread[:_SHOWN]) + (f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else "")
    people = "" if "user" in columns else " Give the column that says whose an example is as user_column."
    return f"{where}: columns that are not read: {shown}.{people}"


def _csv(path: Path, user_column: str) -> tuple[dict[str, Sequence[Any]], int, Sequence[str]]:
    """The columns of a CSV as text, the number of the first row after the header, and the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = list(csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} should be a CSV in UTF-8; reading it failed: {error}. Save it anew as such."
        ) from error
    rows = [[value.strip() for value in row] for row in rows]
    names = _named(path, rows[0] if rows else [], user_column)
    odd = [
        f"{path}: rows should have {len(rows[0])} values, as the header has; row {number} has {len(row)}."
        for number, row in enumerate(rows[1:], start=2)
        if row and len(row) != len(rows[0])
    ]
    refuse_all(path, odd, len(rows) - 1, "rows")
    body = [row for row in rows[1:] if row]
    return {name: [row[place] for row in body] for name, place in names.items()}, 2, rows[0]


def _parquet(path: Path, user_column: str) -> tuple[dict[str, Sequence[Any]], int, Sequence[str]]:
    """The columns of a Parquet file, the number of its first row, and the names of all columns."""
    from pyarrow import ArrowException, parquet  # here, since it takes a while that other sources need not pay

    try:
        with parquet.ParquetFile(path) as file:
            held = file.schema_arrow.names
            names = _named(path, held, user_column)
            _check_rows(path, file.metadata.num_rows)
            table = file.read(columns=[held[place] for place in names.values()])
            return {name: table.column(held[place]).to_pylist() for name, place in names.items()}, 0, held
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} should be an undamaged Parquet file; reading it failed: {error}.") from error


def _check_rows(path: Path, rows: int) -> None:
    """Refuses more rows than memory holds, which a few bytes of Parquet can declare."""
    if rows * _BYTES_OF_ROW > available_memory():
        raise DataError(
            f"{path} should name files that memory has room for; it declares {rows:,} rows, and "
            f"{in_words(available_memory())} are available. Split the table."
        )


def _named(path: Path, header: Sequence[str], user_column: str) -> dict[str, int]:
    """The places of the columns that are read, by what they are here."""
    places = {name: i for i, name in reversed(list(enumerate(map(str.lower, header))))}
    if missing := [name for name in _NEEDED if name not in places]:
        raise DataError(
            f"{path} should have the columns {', '.join(_NEEDED)} and optionally {', '.join(_OPTIONAL)}, named in its "
            f"first row; it lacks {missing} and has {[name[:40] for name in header[:20]]}."
        )
    if user_column != "user" and user_column not in places:
        raise DataError(
            f"`user_column` should name a column of {path}; got {user_column!r}, and it has "
            f"{[name[:40] for name in header[:20]]}."
        )
    places = {**places, **({"user": places[user_column]} if user_column in places else {})}
    return {name: places[name] for name in (*_NEEDED, *_OPTIONAL) if name in places}


def _check_complete(where: Path, columns: dict[str, Sequence[Any]], first_line: int) -> None:
    """Refuses empty values, and files that are there twice, which would be one example with twice the weight."""
    problems, seen = [], {}
    files = columns["file"]
    if not len(files):
        raise DataError(f"{where} should name at least one file; it has a header and no rows.")
    for i, file in enumerate(files):
        if empty := [name for name in columns if columns[name][i] in (None, "")]:
            problems.append(f"{where}: every row should have a {empty[0]}; row {first_line + i} has none.")
        elif not isinstance(file, str):
            problems.append(f"{where}: `file` should be a path; row {first_line + i} has {file!r}.")
        elif (other := seen.setdefault(os.path.normpath(file), i)) != i:
            problems.append(
                f"{where} should name each file once; {file} is in rows {first_line + other} and {first_line + i}."
            )
    refuse_all(where, problems, len(files), "rows")

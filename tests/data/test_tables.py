"""Tables of image files: CSV and Parquet, words and numbers, users and splits."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from tfdpgen.data import DataError, load_splits, tables

CLASSES = ("cat", "dog")


class Table:
    """Writes 60 images of 12x16 and a table of them, changed as a test asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        for i in range(60):
            PIL.Image.new("L", (16, 12), i).save(folder / "images" / f"{i}.png")
        self.columns: dict[str, list[Any]] = {
            "file": [f"images/{i}.png" for i in range(60)],
            "label": [CLASSES[i % 2] for i in range(60)],
        }

    def load(
        self, kind: str = "csv", *, delimiter: str = ",", columns: dict[str, Any] | None = None, **flags: Any
    ) -> Any:
        path = self.folder / f"labels.{kind}"
        columns = {name: values for name, values in (self.columns | (columns or {})).items() if values is not None}
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
        else:
            with path.open("w", newline="", encoding="utf-8-sig") as file:
                writer = csv.writer(file, delimiter=delimiter)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        return load_splits(str(path), **({"image_shape": (12, 16, 1)} | flags))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("parquet", "")])
def test_words_are_labels_by_declared_classes(table: Table, kind: str, delimiter: str) -> None:
    splits = table.load(kind, delimiter=delimiter, columns={"other": ["é,"] * 60}, classes=("dog", "cat"))
    assert splits.spec.class_names == ("dog", "cat")
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (36, 12, 12)
    for part in (splits.train, splits.holdout, splits.test):
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 2 == 0)
        assert part.user_ids is None


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_are_labels_by_the_declared_number(table: Table, kind: str) -> None:
    columns = {"label": [i % 3 for i in range(60)], "FILE": None}
    splits = table.load(kind, columns=columns, num_classes=4)
    assert splits.spec.num_classes == 4
    np.testing.assert_array_equal(splits.train.labels, splits.train.images[:, 0, 0, 0] % 3)
    with pytest.raises(
        DataError, match=r"`labels` should lie in \[0, 2\); example 2 has 2 \(20 of [0-9]+ labels are wrong\)"
    ):
        table.load(kind, columns=columns, num_classes=2)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_users_are_kept_and_no_user_is_in_two_parts(table: Table, kind: str) -> None:
    users = [f"user {i // 4}" for i in range(60)]
    splits = table.load(kind, columns={"user": users}, classes=CLASSES)
    parts = (splits.train, splits.holdout, splits.test)
    assert [len(np.unique(part.user_ids)) for part in parts] == [9, 3, 3]
    for part in parts:
        assert part.user_ids.dtype == np.int64
        np.testing.assert_array_equal(part.user_ids, part.images[:, 0, 0, 0] // 4)
    assert sum(map(len, parts)) == 60


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_that_are_not_read_are_named(table: Table, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    table.load(kind, columns={"patient": range(60), "age": range(60)}, classes=CLASSES)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"labels.{kind}: columns that are not read: patient, age. Give the column that says whose" in line
    table.load(kind, columns={"User": range(60), "age": range(60)}, classes=CLASSES)
    unread, users = capsys.readouterr().err.splitlines()
    assert unread.endswith("columns that are not read: age.")
    assert users.endswith("any other method makes it to one example, and it is weaker for whoever has several.")
    by_name = table.load(kind, columns={"Patient": np.arange(60) // 4}, classes=CLASSES, user_column="patient")
    assert len(np.unique(np.asarray(by_name.train.user_ids))) == 9
    with pytest.raises(DataError, match=r"`user_column` should name a column of .*; got 'person', and it has"):
        table.load(kind, columns={"Patient": np.arange(60) // 4}, classes=CLASSES, user_column="person")
    capsys.readouterr()
    table.load(kind, classes=CLASSES)
    assert capsys.readouterr().err == ""


def test_splits_are_kept(table: Table) -> None:
    names = ["Train"] * 30 + ["val"] * 12 + ["test"] * 18
    splits = table.load(columns={"split": names, "user": range(60)}, classes=CLASSES)
    assert [sorted(part.images[:, 0, 0, 0]) for part in (splits.train, splits.holdout, splits.test)] == [
        list(range(30)), list(range(30, 42)), list(range(42, 60)),
    ]  # fmt: skip
    with pytest.raises(
        DataError, match=r"a user should be in one split; 1 of val are also in train\. Leave the column"
    ):
        table.load(columns={"split": names, "user": [*range(30), 3, *range(31, 60)]}, classes=CLASSES)


def test_files_may_lie_anywhere(table: Table) -> None:
    files = [str(table.folder / file) for file in table.columns["file"]]
    assert len(table.load(columns={"file": files}, classes=CLASSES).train) == 36


def changed(value: Any, *places: int) -> list[Any]:
    """60 files, of which some have another value."""
    return [value if i in places else f"images/{i}.png" for i in range(60)]


@pytest.mark.parametrize(
    ("columns", "flags", "message"),
    [
        ({"label": None}, {}, r"labels\.csv should have the columns file, label .* lacks \['label'\]"),
        ({}, {}, r"labels\.csv does not declare `num_classes`.*--num_classes.*--classes=cat,dog"),
        ({}, {"num_classes": 2}, "should be integers where no `--classes` are declared; example 0 has 'cat'"),
        (
            {},
            {"classes": ("cat", "eel")},
            r"declared `classes` cat,eel; example 1 has 'dog' \(30 of [0-9]+ labels are wrong\)",
        ),
        ({"label": ["cat"] * 59 + [""]}, {"classes": CLASSES}, r"labels\.csv: every row should have a label; row 61"),
        ({"file": changed("", 3)}, {"classes": CLASSES}, "every row should have a file; row 5 has none"),
        ({"file": changed("images/0.png", 9)}, {"classes": CLASSES}, "should name each file once; .* rows 2 and 11"),
        ({"file": changed("images/none.png", 9)}, {"classes": CLASSES}, r"images/none\.png cannot be read"),
        ({"file": changed("images", 9)}, {"classes": CLASSES}, r"images cannot be read"),
        ({"user": [""] * 60}, {"classes": CLASSES}, r"60 of 60 rows cannot be used"),
        ({"split": ["dev"] * 60}, {"classes": CLASSES}, "`split` should be one of train, .* row 2 has 'dev'"),
        ({"split": ["test"] * 60}, {"classes": CLASSES}, "should have a split train; it has test"),
    ],
)
def test_refusals(table: Table, columns: dict[str, Any], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        table.load(columns=columns, **flags)


def test_more_rows_than_memory_holds_are_refused_before_they_are_read(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BYTES_OF_ROW", 2**45)
    with pytest.raises(DataError, match=r"labels\.parquet .* it declares 60 rows, and .* are available"):
        table.load("parquet", classes=CLASSES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "should have the columns"),
        ("a.csv", b"file,label\n", "at least one file"),
        ("a.csv", b"file,label\n1.png,0,1\n", r"rows should have 2 values, .* row 2 has 3"),
        ("a.csv", b"file,label\n\xff.png,0\n", "should be a CSV in UTF-8"),
        ("a.csv", b'file,label\n"1.png,0\n', "should be a CSV in UTF-8"),
        ("a.parquet", b"no parquet", "should be an undamaged Parquet file"),
        ("a.parquet", None, "there is no such file"),
        ("a.tsv", None, "there is no such file"),
        ("a.h5", b"", "which is a file of another kind"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_splits(str(tmp_path / name), image_shape=(12, 16, 1), classes=CLASSES)
    assert name in str(caught.value)

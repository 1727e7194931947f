"""Ingest: its flags are the facts that the library takes, and its artifact holds what was read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from components.artifacts import PrivateExamples
from components.ingest import declared, ingest
from tfdpgen.data import Declared, Splits


@pytest.mark.parametrize(
    ("flags", "facts"),
    [
        ({}, {}),
        ({"image_shape": "28,14,3"}, {"image_shape": (28, 14, 3)}),
        ({"value_range": "-1000,400"}, {"value_range": (-1000.0, 400.0)}),
        ({"classes": 'cat, dog,"b, c"'}, {"classes": ("cat", "dog", "b, c")}),
        (
            {"num_classes": 3, "resize": "pad", "background": "0"},
            {"num_classes": 3, "resize": "pad", "background": (0,)},
        ),
        ({"background": "1,2,3"}, {"background": (1, 2, 3)}),
    ],
)
def test_flags_are_facts(flags: dict[str, Any], facts: dict[str, Any]) -> None:
    assert declared(**flags) == Declared(**facts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"classes": "cat,,dog"}, "`classes` should be words"),
        ({"classes": "cat,d\nog"}, "`classes` should be names with commas between"),
        ({"classes": 'cat,"dog'}, "`classes` should be names with commas between"),
        ({"classes": "cat"}, "`classes` should name at least 2"),
        ({"classes": "cat,dog", "num_classes": 3}, "`num_classes` should be 2"),
        ({"num_classes": -1}, "`num_classes` should be at least 2; got -1"),
        ({"background": "grey"}, "`background` should be 1 numbers"),
        ({"background": "1,2"}, "`background` should be 3 numbers"),
        ({"resize": ""}, "`resize` should be one of"),
    ],
)
def test_bad_flags_are_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declared(**flags)


def test_a_table_of_users_is_ingested_through_the_cache(tmp_path: Path) -> None:
    lines = ["file,label,user"]
    for i in range(60):
        PIL.Image.new("RGB", (20, 15), (i, i, i)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'cat' if i % 2 else 'dog'},{i // 3}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    parameters = {
        "dataset": str(tmp_path / "labels.csv"), "image_shape": "6,8,1", "resize": "crop", "classes": "cat,dog",
        "cache": str(tmp_path / "internal" / "cache"),
    }  # fmt: skip
    for _ in range(2):
        ingest.execute({}, {"examples": tmp_path / "examples"}, parameters)
        assert PrivateExamples.open(tmp_path / "examples").facts["num_examples"] == {
            "train": 36,
            "holdout": 12,
            "test": 12,
        }
        train = Splits.load(tmp_path / "examples").train.in_memory()
        np.testing.assert_array_equal(train.labels, train.images[:, 0, 0, 0] % 2 == 0)
        np.testing.assert_array_equal(train.user_ids, train.images[:, 0, 0, 0] // 3)
    assert len(list((tmp_path / "internal" / "cache").iterdir())) == 1
    assert stat.S_IMODE((tmp_path / "internal" / "cache").stat().st_mode) == 0o700

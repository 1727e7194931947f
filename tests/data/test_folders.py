"""Folders: classes, splits and system files are told by names alone; images of any kind are read together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tfdpgen.data import DataError, load_splits
from tfdpgen.data.folders import natural

SHAPE = (12, 16, 1)


def fill(folder: Path, count: int = 30, level: int = 0, mode: str = "L") -> None:
    """Flat images, each of its own level from `level` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        PIL.Image.new("L", (16, 12), level + i).convert(mode).save(folder / f"{i}.png")


def load(path: Path, **flags: Any) -> Any:
    return load_splits(str(path), **({"image_shape": SHAPE} | flags))


def levels(part: Any) -> set[int]:
    return set(part.images[:, 0, 0, 0].tolist())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos" / "cat")
    fill(tmp_path / "photos" / "dog", level=100)
    return tmp_path / "photos"


def test_system_files_are_passed_over_and_counted_in_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "._1.png").write_text("")
    for name in ("Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini", "dog/.DS_Store", "dog/._0.png"):
        (photos / name).write_text("of some system")
    splits = load(photos)
    assert len(splits.train) + len(splits.holdout) + len(splits.test) == 60
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert line.startswith(f"{photos}: passed over what operating systems left there, 6 in all (")
    assert "2 Thumbs.db" in line
    load(photos, verbose=False)
    assert capsys.readouterr() == ("", "")


def test_a_mixed_folder(photos: Path) -> None:
    for i, mode in enumerate(["1", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"]):
        image = PIL.Image.new("L", (20 + i, 15), 255)
        image = PIL.Image.new(mode, image.size, 65535) if mode == "I;16" else image.convert(mode)
        image.save(photos / "cat" / f"odd{i}", format="TIFF")
    splits = load(photos, resize="crop", value_range=(0, 65535))
    images = np.concatenate([part.images for part in (splits.train, splits.holdout, splits.test)])
    assert (images == 255).all(axis=(1, 2, 3)).sum() == 7


def test_train_and_test_above_the_classes_are_splits(tmp_path: Path) -> None:
    for split, level in (("train", 0), ("test", 100)):
        fill(tmp_path / split / "cat", 60, level=level)
        fill(tmp_path / split / "dog", 60, level=level)
    splits = load(tmp_path)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (108, 12, 120)
    assert levels(splits.test) == set(range(100, 160))
    assert levels(splits.train) | levels(splits.holdout) == set(range(60))
    assert splits.spec.class_names == ("cat", "dog")


def test_val_is_the_holdout(tmp_path: Path) -> None:
    for split, level in (("Train", 0), ("validation", 60), ("test", 100)):
        fill(tmp_path / split / "cat", 20, level=level)
        fill(tmp_path / split / "dog", 20, level=level + 20)
    splits = load(tmp_path)
    assert (levels(splits.train), levels(splits.holdout)) == (set(range(40)), set(range(60, 100)))
    assert levels(splits.test) == set(range(100, 140))


def test_val_without_test_is_the_test(tmp_path: Path) -> None:
    for split, level in (("train", 0), ("val", 160)):
        fill(tmp_path / split / "cat", 60, level=level)
        fill(tmp_path / split / "dog", 60, level=level)
    splits = load(tmp_path)
    assert levels(splits.test) == set(range(160, 220))
    assert len(splits.holdout) == 12


def test_images_directly_under_splits_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    with pytest.raises(DataError, match="test should hold one sub-folder of images for each class, since its name is"):
        load(tmp_path)


def test_a_class_outside_train_may_be_a_slip(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/dogs"):
        fill(tmp_path / name, 60)
    with pytest.raises(DataError, match="has a class 'dogs' outside train"):
        load(tmp_path)
    assert load(tmp_path, classes=("cat", "dog", "dogs")).spec.num_classes == 3


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    for name in ("val/cat", "val/dog", "test/cat", "test/dog"):
        fill(tmp_path / name, 1)
    with pytest.raises(DataError, match="should have a folder train beside test, val"):
        load(tmp_path)


def test_images_beside_the_classes_are_not_lost_without_a_word(photos: Path) -> None:
    (photos / "README.md").write_text("no image")
    load(photos)
    PIL.Image.new("L", (16, 12)).save(photos / "stray.JPG")
    with pytest.raises(DataError, match=r"stray\.JPG lies beside them \(1 such"):
        load(photos)


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for i in range(1, 13):
        fill(tmp_path / str(i), 5, level=10 * i)
    splits = load(tmp_path)
    assert splits.spec.class_names == tuple(str(i) for i in range(1, 13))
    np.testing.assert_array_equal(splits.train.images[:, 0, 0, 0] // 10 - 1, splits.train.labels)
    names = ["b", "a10", "a2", "a", "10", "9", "a02"]
    assert sorted(names, key=natural) == ["9", "10", "a", "a02", "a2", "a10", "b"]


def test_declared_classes_give_the_order_and_may_be_empty(photos: Path) -> None:
    splits = load(photos, classes=("dog", "eel", "cat"))
    assert (splits.spec.class_names, splits.spec.num_classes) == (("dog", "eel", "cat"), 3)
    np.testing.assert_array_equal(splits.train.labels, np.where(splits.train.images[:, 0, 0, 0] >= 100, 0, 2))
    (photos / "eel").mkdir()
    with pytest.raises(DataError, match=r"photos/eel should hold the images of its class; it is empty\. .*--classes"):
        load(photos)
    load(photos, classes=("dog", "eel", "cat"))
    with pytest.raises(DataError, match=r"it also holds 'eel'\. Add it to `--classes`"):
        load(photos, classes=("dog", "cat"))
    with pytest.raises(DataError, match="`num_classes` should be 2"):
        load(photos, classes=("dog", "cat"), num_classes=3)


def test_names_that_differ_in_case_alone_are_refused_unless_both_are_declared(photos: Path) -> None:
    fill(photos / "Cat")
    with pytest.raises(DataError, match="classes 'Cat' and 'cat', which differ in case alone"):
        load(photos)
    assert load(photos, classes=("Cat", "cat", "dog")).spec.num_classes == 3


@pytest.mark.parametrize("name", [" ", "cat ", "a\nb", "a\tb", "\u2028", os.fsdecode(b"\xff")])
def test_names_that_would_not_read_back_are_refused(photos: Path, name: str) -> None:
    fill(photos / name, 1)
    with pytest.raises(DataError, match="names of folders should be words without white space at their ends"):
        load(photos)


def test_ten_bad_files_are_named_and_all_are_counted(photos: Path) -> None:
    for i in range(13):
        (photos / "cat" / f"bad{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"photos: 13 of 73 files cannot be used") as caught:
        load(photos)
    assert [f"bad{i:02}.png" in str(caught.value) for i in range(13)] == [True] * 10 + [False] * 3
    assert "and 3 more" in str(caught.value)
    assert str(caught.value).count("convert it to PNG or JPEG") == 1


def test_a_folder_wins_over_a_tfds_name_and_says_so(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.rename(photos.parent / "beans")
    monkeypatch.chdir(photos.parent)
    assert load_splits("beans", image_shape=SHAPE).spec.class_names == ("cat", "dog")
    assert "`dataset` beans: reading" in capsys.readouterr().err
    fill(Path("digits") / "a")
    assert len(load_splits("digits").train) == 1077
    assert "write ./digits for" in capsys.readouterr().err


def test_facts_in_python_are_what_they_look_like(photos: Path) -> None:
    assert len(load(photos, background=0).train) == 36
    with pytest.raises(DataError, match="`classes` should be a sequence of names, one a class; got the text 'cat,dog'"):
        load(photos, classes="cat,dog")


def test_images_that_do_not_fit_into_memory_are_refused_before_it_is_asked_for(photos: Path) -> None:
    with pytest.raises(DataError, match=r"images should fit into memory; they are 2.4 TB .*--resize=crop"):
        load(photos, image_shape=(200_000, 200_000, 1))

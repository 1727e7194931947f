"""Reading many files: a cache that is used, private, never stale and never half written; a progress bar; users on
disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tfdpgen.data import DataError, DataSpec, LabeledDataset, RecordDataset, Splits, load_splits, reading
from tfdpgen.data.cache import ImageCache


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, level in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            PIL.Image.new("L", (16, 12), level + i).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded."""
    files: list[str] = []
    original = reading.decode
    monkeypatch.setattr(reading, "decode", lambda path, *rest: (files.append(str(path)), original(path, *rest))[1])
    return files


def load(photos: Path, **flags: Any) -> Any:
    return load_splits(str(photos), **({"image_shape": (12, 16, 1), "cache_dir": photos.parent / "cache"} | flags))


def test_a_second_run_decodes_nothing_and_reads_the_same(photos: Path, decoded: list[str]) -> None:
    first = load(photos)
    assert len(decoded) == 60
    second = load(photos)
    assert len(decoded) == 60
    for name in ("train", "holdout", "test"):
        np.testing.assert_array_equal(getattr(second, name).images, getattr(first, name).images)
        np.testing.assert_array_equal(getattr(second, name).labels, getattr(first, name).labels)


@pytest.mark.parametrize(
    "change", ["content", "new file", "renamed", "image_shape", "resize", "background", "value_range"]
)
def test_what_could_change_an_image_is_read_anew(photos: Path, decoded: list[str], change: str) -> None:
    load(photos)
    decoded.clear()
    path, flags, expected = photos / "cat" / "3.png", {}, 60
    if change == "content":
        PIL.Image.new("L", (16, 12), 255).save(path)
        os.utime(path, ns=(0, 5))
    elif change == "new file":
        PIL.Image.new("L", (16, 12), 255).save(photos / "cat" / "30.png")
        expected = 61
    elif change == "renamed":
        path.rename(photos / "cat" / "0a.png")
    else:
        flags = {
            "image_shape": {"image_shape": (12, 16, 3)}, "resize": {"resize": "crop"}, "background": {"background":
            (0,)}, "value_range": {"value_range": (0, 254)},
        }[change]  # fmt: skip
    splits = load(photos, **flags)
    assert len(decoded) == expected
    images = np.concatenate([part.images for part in (splits.train, splits.holdout, splits.test)])
    assert (images[:, 0, 0, 0] == 255).sum() == (change in ("content", "new file"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other shape", "unfinished"])
def test_a_damaged_or_half_written_cache_is_never_used(photos: Path, decoded: list[str], damage: str) -> None:
    first = load(photos)
    (file,) = (photos.parent / "cache").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    elif damage == "other shape":
        content = bytearray(content.replace(b"(60, 12, 16, 1)", b"(60, 16, 12, 1)"))
    elif damage != "unfinished":
        content = content[: {"cut": len(content) // 2, "empty": 0}[damage]]
    file.write_bytes(content)
    if damage == "unfinished":
        file.rename(file.with_name(".x.images.part"))
    decoded.clear()
    np.testing.assert_array_equal(load(photos).train.images, first.train.images)
    assert len(decoded) == 60
    assert len(list((photos.parent / "cache").iterdir())) == 1  # and what was left behind is gone


def test_the_cache_removes_no_file_of_the_user(photos: Path) -> None:
    cache = photos.parent / "cache"
    cache.mkdir()
    names = ["holiday.images.zip", "notes.images", "cat.images"]
    for name in names:
        (cache / name).write_text("mine")
    load(photos)
    assert {path.name for path in cache.iterdir()} > set(names)


def test_the_cache_is_its_owner_s_alone_and_keeps_one_source(photos: Path) -> None:
    cache = photos.parent / "cache"
    cache.mkdir(mode=0o755)
    load(photos)
    load(photos, image_shape=(12, 16, 3))
    (file,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_bad_files_leave_no_cache(photos: Path) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.png"):
        load(photos)
    assert not list((photos.parent / "cache").iterdir())


def test_a_cache_that_cannot_be_made_is_named(photos: Path) -> None:
    (photos.parent / "cache").write_text("a file")
    with pytest.raises(DataError, match="`cache` should be a folder that this user owns"):
        load(photos)


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache.save("key", np.zeros((3, 4, 5, 1), np.uint8))
    assert not list(tmp_path.iterdir())


def test_the_bar_counts_files_and_is_quiet_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with reading.progress(200, "Reading photos", verbose=True) as bar:
        bar.delay = 0
        bar.update(200)
    assert "Reading photos: 100%" in capsys.readouterr().err
    with reading.progress(200, "Reading photos", verbose=False) as bar:
        bar.delay = 0
        bar.update(200)
    assert capsys.readouterr().err == ""


class TestUsers:
    SPEC = DataSpec((4, 5, 1), 3)

    def in_memory(self) -> LabeledDataset:
        images = np.random.default_rng(0).integers(256, size=(60, 4, 5, 1), dtype=np.uint8)
        return LabeledDataset(images, np.arange(60) % 3, self.SPEC, np.arange(60) // 4)

    def on_disk(self) -> RecordDataset:
        examples = self.in_memory()
        source = [
            {"image": image, "label": label} for image, label in zip(examples.images, examples.labels, strict=True)
        ]
        return RecordDataset(source, self.SPEC, user_ids=examples.user_ids)

    @pytest.mark.parametrize("where", ["in_memory", "on_disk"])
    def test_are_kept_by_take_and_in_a_folder(self, where: str, tmp_path: Path) -> None:
        dataset: Any = getattr(self, where)()
        view = dataset.take([9, 8, 33]).take([2, 0])
        assert view.user_ids.tolist() == [8, 2]
        assert view.in_memory(1).user_ids.tolist() == [8]
        splits = Splits(dataset.take(range(40)), dataset.take([50, 41]), dataset.take([]))
        splits.save(tmp_path)
        loaded = Splits.load(tmp_path)
        for name in ("train", "holdout", "test"):
            np.testing.assert_array_equal(getattr(loaded, name).user_ids, getattr(splits, name).user_ids)
            assert getattr(loaded, name).user_ids.dtype == np.int64
        # What is saved over it leaves no users of it behind.
        plain = LabeledDataset(dataset.in_memory().images, dataset.in_memory().labels, self.SPEC)
        examples = [{"image": image, "label": label} for image, label in zip(plain.images, plain.labels, strict=True)]
        for other in (plain, RecordDataset(examples, self.SPEC)):
            Splits(other, other, other).save(tmp_path)
            assert Splits.load(tmp_path).train.user_ids is None

    def test_of_another_number_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"`user_ids` should be int64 of shape \[60\]"):
            LabeledDataset(self.in_memory().images, np.arange(60) % 3, self.SPEC, np.arange(59))
        with pytest.raises(DataError, match=r"`user_ids` should be int64 of shape \[0\]"):
            RecordDataset([], self.SPEC, user_ids=np.arange(3))

    def test_a_damaged_file_of_users_is_named(self, tmp_path: Path) -> None:
        dataset = self.on_disk()
        Splits(dataset, dataset, dataset).save(tmp_path)
        (tmp_path / "train.users.npy").write_bytes(b"")
        with pytest.raises(DataError, match=r"train\.users\.npy should be the array"):
            Splits.load(tmp_path)


def test_small_files_are_read_by_one_thread_and_large_ones_by_as_many_as_there_are_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 1000)
    large.write_bytes(b"x" * 100_000)
    assert reading._threads([str(small)] * 300) == 1
    assert reading._threads([str(large)] * 300) == 3
    assert reading._threads([str(large), str(tmp_path / "missing")]) == 3
